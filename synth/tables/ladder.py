"""The public ladder of a column whose bounds are estimated: bins that cover all that its kind can hold.

Numbers have rungs at 1, 2 and 5 times each power of ten, on both sides of zero, which is a bin of its own; finer rungs
cut each of these bins into at most fifteen. Dates have the decades of the calendar, and its years. A ladder depends on
the column's kind, decimals and resolution alone, so that nothing is learned by choosing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from synth.schema import (
    EPOCH,
    LARGEST_REAL,
    RESOLUTION_SECONDS,
    WIDEST_STEP,
    ContinuousColumn,
    DatetimeColumn,
    EstimableColumn,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FINE_RUNGS = (*range(10, 20), *range(20, 50, 2), *range(50, 100, 5))
"""Tenths of a power of ten."""
COARSE_RUNGS = (10, 20, 50)
SMALLEST_POWER, LARGEST_POWER = -30, 299
"""Powers of ten of a real column's rungs. What is nearer to zero than the first is a bin on each side."""


@dataclass(frozen=True)
class Ladder:
    """Bins of positions (`synth.tables.lattice`), ascending and without gaps; the outermost two have no end.

    Attributes:
        starts: the first position of each fine bin but the outermost on the left [fine bins − 1].
        lows, highs: the first and last position that a bin stands for, as bounds would name them [fine bins].
        coarse: the coarse bin that each fine bin is in, ascending without gaps [fine bins].
        zero: the coarse bin of zero, which those on both sides mirror; None where there is no zero.
    """

    starts: FloatArray
    lows: FloatArray
    highs: FloatArray
    coarse: IntArray
    zero: int | None

    @property
    def bins(self) -> int:
        """Number of fine bins."""
        return len(self.lows)

    @property
    def coarse_bins(self) -> int:
        """Number of coarse bins."""
        return int(self.coarse[-1]) + 1

    def bin_of(self, positions: FloatArray) -> IntArray:
        """The fine bin of each position; none of them may be NaN."""
        return np.searchsorted(self.starts, positions, side="right").astype(np.int64)


def ladder_of(column: EstimableColumn) -> Ladder:
    """The ladder of a column; from its kind, decimals and resolution alone."""
    if isinstance(column, DatetimeColumn):
        return _of_dates(RESOLUTION_SECONDS[column.resolution])
    return _of_numbers(whole=not isinstance(column, ContinuousColumn) or column.decimals is not None)


@lru_cache(maxsize=2)
def _of_numbers(*, whole: bool) -> Ladder:
    powers = range(len(str(WIDEST_STEP))) if whole else range(SMALLEST_POWER, LARGEST_POWER + 1)
    last = float(WIDEST_STEP) if whole else LARGEST_REAL
    # From their digits, so that each rung is the double nearest to it. Whole positions below ten are rungs themselves.
    rungs = [
        (float(f"{rung}e{power - 1}"), rung in COARSE_RUNGS)
        for power in powers
        for rung in FINE_RUNGS
        if not whole or power > 0 or rung % 10 == 0
    ]
    rungs = [*([] if whole else [(0.0, True)]), *(rung for rung in rungs if rung[0] < last)]
    lows = np.array([rung for rung, _ in rungs])
    highs = np.append(lows[1:] - whole, last)
    coarse = np.cumsum([is_coarse for _, is_coarse in rungs], dtype=np.int64)
    # Bins are half-open: a rung belongs to the bin away from zero, and zero to one of its own between both sides.
    left, right = -highs[::-1][1:], lows
    if not whole:
        left, right = np.nextafter(left, np.inf), np.where(lows > 0, lows, np.nextafter(0.0, 1.0))
    sides = int(coarse[-1])
    return Ladder(
        starts=np.concatenate([left, [0.0], right]),
        lows=np.concatenate([-highs[::-1], [0.0], lows]),
        highs=np.concatenate([0.0 - lows[::-1], [0.0], highs]),
        coarse=np.concatenate([sides - coarse[::-1], [sides], sides + coarse]),
        zero=sides,
    )


@lru_cache(maxsize=len(RESOLUTION_SECONDS))
def _of_dates(unit: int) -> Ladder:
    years = range(datetime.min.year, datetime.max.year + 1)
    starts = np.array([(datetime(year, 1, 1) - EPOCH).days * (86_400 // unit) for year in years], dtype=np.float64)
    end = ((datetime.max - EPOCH).days + 1) * (86_400 // unit)
    decade = np.array([year // 10 for year in years])
    return Ladder(starts=starts[1:], lows=starts, highs=np.append(starts[1:], end) - 1, coarse=decade, zero=None)
