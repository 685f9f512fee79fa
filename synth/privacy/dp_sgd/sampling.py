"""Poisson sampling of people: each person joins each step by a coin of their own.

The accountant's theorem is about this sampler and no other. Shuffled or fixed-size batches, and batches
whose rate follows the number of people, are different mechanisms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from synth.privacy.dp_sgd.config import DpSgdConfig
from synth.privacy.dp_sgd.processes import rank_and_world_size
from synth.privacy.dp_sgd.randomness import SecureStream

Column = Tensor | npt.NDArray[Any]


class PrivateBatch(NamedTuple):
    """The rows of the people drawn for one step. Its size is private, and so is everything else about it."""

    columns: tuple[Tensor, ...]
    persons: Tensor | None

    def __repr__(self) -> str:
        return "PrivateBatch(…)"


class PoissonBatches:
    """Exactly `config.steps` batches; in each, every person is included independently with probability q.

    Args:
        columns: what a row consists of, each [n, …]: tensors, or numpy arrays, memory-mapped ones included,
            of which only the drawn rows are read.
        config: gives q and T. The expected number of people is never computed from n.
        persons: whole numbers [n] saying whose row is whose; None when each row is a person.
        stream: where the coins come from; operating-system entropy by default.

    With several processes each person belongs to one of them, by position modulo the number of processes,
    and each process tosses its own people's coins from its own stream; together that is one Poisson draw.
    A batch may be empty. It must be trained on all the same.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        config: DpSgdConfig,
        *,
        persons: npt.ArrayLike | None = None,
        stream: SecureStream | None = None,
    ) -> None:
        sizes = {len(column) for column in columns}
        if len(sizes) != 1:
            raise ValueError("at least one column is needed, and all columns must have the same number of rows")
        self._columns = tuple(columns)
        self._config = config
        self._stream = stream or SecureStream()
        self._rows_in_order, self._ends = _people(persons, sizes.pop())

    def __len__(self) -> int:
        return self._config.steps

    def __iter__(self) -> Iterator[PrivateBatch]:
        for _ in range(self._config.steps):
            yield self.draw()

    def draw(self) -> PrivateBatch:
        """One step's batch: rows in the order of their people; `persons` counts from 0 within the batch."""
        rank, world_size = rank_and_world_size()
        mine = np.arange(rank, len(self._ends), world_size)
        drawn = mine[self._stream.coins(len(mine), self._config.sample_rate)]
        if self._rows_in_order is None:
            return PrivateBatch(tuple(_read(column, drawn) for column in self._columns), None)
        starts = np.where(drawn > 0, self._ends[drawn - 1], 0)
        counts = self._ends[drawn] - starts
        who = np.repeat(np.arange(len(drawn)), counts)
        position = np.arange(len(who)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self._rows_in_order[np.repeat(starts, counts) + position]
        return PrivateBatch(tuple(_read(column, rows) for column in self._columns), torch.from_numpy(who))


def _people(persons: npt.ArrayLike | None, rows: int) -> tuple[npt.NDArray[np.intp] | None, npt.NDArray[np.intp]]:
    """Rows sorted by person, and where each person's rows end; no order when each row is a person."""
    if persons is None:
        return None, np.arange(1, rows + 1)
    index = np.asarray(persons)
    if index.shape != (rows,) or not np.issubdtype(index.dtype, np.integer):
        raise ValueError("persons must be a vector of whole numbers with one entry per row")
    _, counts = np.unique(index, return_counts=True)
    return np.argsort(index, kind="stable"), np.cumsum(counts)


def _read(column: Column, rows: npt.NDArray[np.intp]) -> Tensor:
    if isinstance(column, Tensor):
        return column[torch.from_numpy(rows).to(column.device)]
    return torch.from_numpy(np.array(column[rows]))
