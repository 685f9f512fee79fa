"""CTGAN of the Synthetic Data Vault, with its defaults and without privacy: what a network makes of plain rows."""

from __future__ import annotations

import torch
from ctgan import CTGAN
from exchange import mark_missing, read_task, unmark_missing


def main() -> None:
    """Fit and draw."""
    task = read_task()
    torch.manual_seed(task.seed)
    torch.set_num_threads(1)
    marked, table = mark_missing(task)
    network = CTGAN(enable_gpu=False)
    network.set_random_state(task.seed)
    network.fit(table, discrete_columns=list(marked.sizes))
    task.write(unmark_missing(task, network.sample(task.rows)))


if __name__ == "__main__":
    main()
