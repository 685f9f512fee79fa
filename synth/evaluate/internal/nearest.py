"""Nearest rows in a mixed space: what an attacker who holds the synthetic rows would call similar.

The distance of two rows is the sum over columns of a difference in [0, 1] (Gower 1971): of levels, whether they differ;
of numbers, the difference of their ranks among the synthetic rows, so that a long tail does not hide the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.evaluate.internal.rows import is_ordered
from synth.tables.codec import Codec

FloatArray = npt.NDArray[np.float64]
Points = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

CHUNK_CELLS = 4_000_000
MISSING = np.float32(-2)  # further than 1 from every rank, and unlike every level


@dataclass(frozen=True)
class Space:
    """The space that the synthetic rows span.

    Attributes:
        ordered: [columns] which columns are numbers.
        ranks: the sorted known values of each number column, empty for levels.
    """

    ordered: npt.NDArray[np.bool_]
    ranks: tuple[FloatArray, ...]

    @staticmethod
    def of(synthetic: FloatArray, codecs: Mapping[str, Codec]) -> Space:
        """Fit the ranks to synthetic rows [rows, columns]."""
        ordered = is_ordered(codecs)
        columns = [
            column[~np.isnan(column)] if line else column[:0] for column, line in zip(synthetic.T, ordered, strict=True)
        ]
        return Space(ordered, tuple(np.sort(column) for column in columns))

    def points(self, matrix: FloatArray) -> Points:
        """Rows as points [rows, columns]."""
        out = np.empty(matrix.shape, dtype=np.float32)
        for i, values in enumerate(matrix.T):
            found = values
            if self.ordered[i]:
                known = self.ranks[i]
                found = (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / 2
                found = found / max(len(known), 1)
            out[:, i] = np.where(np.isnan(values), MISSING, found)
        return out

    def column_distance(self, a: Points, b: Points, column: int) -> Points:
        """Differences in one column, [rows of a, rows of b]."""
        if not self.ordered[column]:
            return np.not_equal.outer(a[:, column], b[:, column]).astype(np.float32)
        gap: Points = np.subtract.outer(a[:, column], b[:, column])
        return np.minimum(np.abs(gap, out=gap), 1, out=gap)

    def distances(self, a: Points, b: Points, columns: Sequence[int]) -> Iterator[tuple[slice, Points]]:
        """Distances over some columns, a few rows of `a` at a time."""
        step = max(1, CHUNK_CELLS // max(len(b), 1))
        for start in range(0, len(a), step):
            part = slice(start, min(start + step, len(a)))
            total = np.zeros((part.stop - part.start, len(b)), dtype=np.float32)
            for column in columns:
                total += self.column_distance(a[part], b, column)
            yield part, total

    def nearest(
        self, a: Points, b: Points, *, columns: Sequence[int] | None = None, k: int = 1
    ) -> tuple[Points, IntArray]:
        """Distance to and index of the k nearest rows of `b`, [rows of a, k], nearest first."""
        chosen = range(a.shape[1]) if columns is None else columns
        k = min(k, len(b))
        distance, index = np.empty((len(a), k), dtype=np.float32), np.empty((len(a), k), dtype=np.int64)
        for part, total in self.distances(a, b, chosen):
            near = np.argpartition(total, k - 1, axis=1)[:, :k]
            gap = np.take_along_axis(total, near, axis=1)
            order = np.argsort(gap, axis=1, kind="stable")
            distance[part] = np.take_along_axis(gap, order, axis=1)
            index[part] = np.take_along_axis(near, order, axis=1)
        return distance, index
