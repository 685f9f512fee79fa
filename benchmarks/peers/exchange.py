"""What a peer reads and writes; imported by the scripts beside it, in the peer's own environment.

A script is called with a folder: `task.json` names the method, ε, δ, the seed, the number of rows to make and each
column's public domain ({name, size} for codes 0 … size − 1, {name, low, high, whole, nullable} for numbers);
`table.parquet` holds the training rows. The script writes `synthetic.parquet` of the same form.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MARK = "{} is missing"


@dataclass(frozen=True)
class Task:
    """One run of a peer."""

    folder: Path
    method: str
    epsilon: float
    delta: float
    seed: int
    rows: int
    columns: list[dict[str, Any]]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of codes of every coded column."""
        return {column["name"]: column["size"] for column in self.columns if "size" in column}

    def table(self) -> pd.DataFrame:
        """The training rows."""
        return pd.read_parquet(self.folder / "table.parquet")

    def write(self, synthetic: pd.DataFrame) -> None:
        """Hand in the synthetic rows."""
        synthetic.reset_index(drop=True).to_parquet(self.folder / "synthetic.parquet")


def mark_missing(task: Task) -> tuple[Task, pd.DataFrame]:
    """For networks, which cannot read a missing number: a column of two codes marks it, the number is the middle."""
    table, columns = task.table(), []
    for column in task.columns:
        columns.append(column)
        if column.get("nullable"):
            name, mark = column["name"], MARK.format(column["name"])
            table[mark] = table[name].isna().astype(int)
            table[name] = table[name].fillna((column["low"] + column["high"]) / 2)
            columns.append({"name": mark, "size": 2})
    return replace(task, columns=columns), table[[column["name"] for column in columns]]


def unmark_missing(task: Task, synthetic: pd.DataFrame) -> pd.DataFrame:
    """Numbers that are marked as missing become so; `task` is the one without marks."""
    for column in task.columns:
        if column.get("nullable"):
            name = column["name"]
            synthetic[name] = synthetic[name].where(synthetic[MARK.format(name)] == 0)
    return synthetic[[column["name"] for column in task.columns]]


def read_task() -> Task:
    """The task in the folder that the command line names; NumPy's old generator is seeded from it."""
    folder = Path(sys.argv[1])
    found = json.loads((folder / "task.json").read_text())
    np.random.seed(found["seed"])
    return Task(folder=folder, **found)
