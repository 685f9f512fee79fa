"""Which rows belong to which person.

DP-SGD clips a person's gradient, which is the sum over the person's rows. When each row is a person
of its own nothing has to be gathered; otherwise rows are laid out as one person after another, each
padded with empty rows to the width of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Owners:
    """The owner of each row of a batch.

    `table` is [people, width]: the row numbers of each person, -1 where there is none; or None when
    row i is person i. `person` is [rows], the owner of each row, or None likewise.
    """

    count: int
    width: int = 1
    table: Tensor | None = None
    person: Tensor | None = None

    @classmethod
    def of(cls, persons: Tensor | None, rows: int) -> Owners:
        """Owners from any whole-number person index [rows], in any order; None gives each row to itself.

        Raises ValueError when the index is not a vector of whole numbers with one entry per row.
        """
        if persons is None:
            return cls(count=rows)
        if persons.shape != (rows,) or persons.is_floating_point() or persons.is_complex():
            raise ValueError("persons must be a vector of whole numbers with one entry per row")
        _, person, sizes = persons.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        order = person.argsort(stable=True)
        starts = sizes.cumsum(0) - sizes
        rank = torch.arange(rows, device=persons.device) - starts[person[order]]
        width = int(sizes.max()) if rows else 1
        table = torch.full((len(sizes), width), -1, dtype=torch.long, device=persons.device)
        table[person[order], rank] = order
        return cls(count=len(sizes), width=width, table=table, person=person)

    def take(self, rows: Tensor, start: int, stop: int) -> Tensor:
        """The rows [B, …] of people start to stop: [(stop - start)·width, …], zero where a person has none."""
        if self.table is None:
            return rows[start:stop]
        index = self.table[start:stop].reshape(-1)
        taken = rows.index_select(0, index.clamp(min=0))
        return taken.masked_fill_((index < 0).view(-1, *[1] * (rows.dim() - 1)), 0)

    def sum(self, rows: Tensor) -> Tensor:
        """The sum of each person's rows: [B, …] → [people, …]."""
        if self.person is None:
            return rows
        return rows.new_zeros(self.count, *rows.shape[1:]).index_add_(0, self.person, rows)

    def spread(self, values: Tensor) -> Tensor:
        """A value per person [people] as a value per row [rows]."""
        return values if self.person is None else values[self.person]

    def chunks(self, row_size: int, device: torch.device) -> Iterator[tuple[int, int]]:
        """Ranges of people that together cover all, with rows of `row_size` numbers that fit into working memory."""
        # On a CPU a chunk should stay in the cache; a GPU wants large launches.
        memory = 1 << 20 if device.type == "cpu" else 1 << 26
        return self.ranges(memory // max(1, row_size))

    def ranges(self, max_rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of people that together cover all, each of at most `max_rows` rows or of one person."""
        step = max(1, max_rows // self.width)
        for start in range(0, self.count, step):
            yield start, min(self.count, start + step)

    def rows_of(self, start: int, stop: int) -> Tensor | slice:
        """The row numbers of people start to stop, without padding."""
        if self.table is None:
            return slice(start, stop)
        index = self.table[start:stop].reshape(-1)
        return index[index >= 0]
