"""One-hot blocks: the public feature map of a table.

Every learned column is described by a few blocks. In each block a row is one-hot at most once, so one row moves
a block's exact histogram by at most one in one cell: that is the whole sensitivity argument of the one-way release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NONE = -1
"""The code of a row that a block does not count."""

DETAIL_WEIGHT = 0.25
"""Precision of a detail histogram relative to a fine histogram of ordered cells (a cell's noise is twice as large)."""


@dataclass(frozen=True)
class Block:
    """`size` cells of one column."""

    column: str
    role: Literal["cells", "singles", "digits"]
    size: int

    @property
    def key(self) -> str:
        """The block's name in the working file."""
        return f"{self.role}:{self.column}"
