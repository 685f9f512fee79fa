"""SmartNoise Synthesizers (OpenDP): AIM, MST, DP-CTGAN and PATE-CTGAN, with the package's defaults.

The transformer is fitted on the public domain, never on the rows.
"""

from __future__ import annotations

import torch
from exchange import Task, mark_missing, read_task, unmark_missing
from snsynth import Synthesizer
from snsynth.transform import ChainTransformer, LabelTransformer, MinMaxTransformer, OneHotEncoder
from snsynth.transform.table import TableTransformer

NETWORKS = ("dpctgan", "patectgan")


def transformer_of(task: Task) -> TableTransformer:
    """Labels of the public codes (one-hot for the networks); numbers between their public bounds."""
    made, domains = [], []
    for column in task.columns:
        if "size" in column:
            label = LabelTransformer(nullable=False)
            made.append(ChainTransformer([label, OneHotEncoder()]) if task.method in NETWORKS else label)
            domains.append(list(range(column["size"])))
        else:
            made.append(MinMaxTransformer(lower=column["low"], upper=column["high"]))
            domains.append([column["low"], column["high"]])
    table = TableTransformer(made)
    table.fit([tuple(domain[min(i, len(domain) - 1)] for domain in domains) for i in range(max(map(len, domains)))])
    table._columns = [column["name"] for column in task.columns]
    return table


def main() -> None:
    """Fit and draw."""
    task = read_task()
    torch.manual_seed(task.seed)
    torch.set_num_threads(1)
    options = {"cuda": False, "verbose": False} if task.method in NETWORKS else {}
    marked, table = mark_missing(task)
    synthesizer = Synthesizer.create(task.method, epsilon=task.epsilon, delta=task.delta, **options)
    synthesizer.fit(table, transformer=transformer_of(marked))
    task.write(unmark_missing(task, synthesizer.sample(task.rows)))


if __name__ == "__main__":
    main()
