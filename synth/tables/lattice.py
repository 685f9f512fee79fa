"""The public grid of an ordered column: where its values can lie, and the cells they are counted in.

All kinds of ordered columns are reduced to one picture. A *position* is a number on the real line: an integer
itself, a decimal number in units of its last decimal, a moment in units of its resolution since 1970, or, for a
continuous column without declared decimals, the value as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from synth.schema import RESOLUTION_SECONDS, ContinuousColumn, DatetimeColumn, IntegerColumn

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_EXACT_CELLS = 512
UNIFORM_CELLS = 256
CELLS_PER_OCTAVE = 4
MAX_SINGLES = 1 << 20
MAX_ALL_SINGLES = 32 << 20
"""Positions that are counted one by one in all columns together, about; a wide table has fewer a column."""
DIGITS = 10
CYCLES = {"day": 7, "hour": 24}
"""Positions after which moments of a resolution come again, in the week or in the day."""
CYCLES_FROM = 4
"""Cycles from which on cells of the same place in one are looked at together."""
RUNS = 8
RUNS_FROM = 32
"""Cells from which on runs of them are counted too."""
SMALLEST_REAL_UNIT = 6  # a real column's digits are looked for down to 10^-6


@dataclass(frozen=True)
class Lattice:
    """Positions from `low` to `high` inclusive.

    Attributes:
        low: first position; high: last position.
        whole: whether only whole positions exist (else any real number between).
        scale: how cells are laid out.
        units: public rounding units a value may follow, coarsest first, in positions.
        most_singles: how many positions may be counted one by one, about.
        cycle: positions after which last digits, days of a week or hours of a day come again.
    """

    low: float
    high: float
    whole: bool
    scale: str
    units: tuple[float, ...]
    most_singles: int = MAX_SINGLES
    cycle: int = DIGITS

    @property
    def count(self) -> float:
        """Number of positions; infinite for real values."""
        return self.high - self.low + 1 if self.whole else math.inf

    @cached_property
    def edges(self) -> FloatArray:
        """Cell boundaries, ascending; cell i holds positions in [edges[i], edges[i+1])."""
        end = self.high + 1 if self.whole else np.nextafter(self.high, np.inf)
        if self.count <= MAX_EXACT_CELLS:
            return self.low + np.arange(self.count + 1)
        if self.low == self.high:
            return np.array([self.low, end])
        span = end - self.low
        if self.scale == "log":
            edges = self.low + self._smallest * (np.geomspace(1, 1 + span / self._smallest, MAX_EXACT_CELLS + 1) - 1)
        else:
            # Equal cells serve even spreads, cells that grow away from zero (or the lower bound) serve skewed ones.
            edges = np.concatenate([np.linspace(self.low, end, UNIFORM_CELLS + 1), self._growing(end)])
        if self.whole:
            edges = np.round(edges)
        edges = np.unique(np.concatenate([[self.low, end], edges]))
        return np.asarray(edges[(edges >= self.low) & (edges <= end)], dtype=np.float64)

    @property
    def _smallest(self) -> float:
        return 1.0 if self.whole else (self.high - self.low) * 2.0**-20

    def _growing(self, end: float) -> FloatArray:
        anchor = 0.0 if self.low < 0 < self.high else self.low
        reach = (end - self.low) / UNIFORM_CELLS
        octaves = max(0.0, math.log2(reach / self._smallest))
        steps = self._smallest * 2.0 ** (np.arange(0, math.ceil(octaves * CELLS_PER_OCTAVE)) / CELLS_PER_OCTAVE)
        sides = [anchor + steps, anchor - steps, [anchor, anchor + self._smallest]]
        return np.concatenate([np.asarray(side) for side in sides])

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.edges) - 1

    @property
    def run_of_cell(self) -> IntArray | None:
        """The run of each cell, of eight runs of about as many cells each; None where there are few cells."""
        return None if self.cells < RUNS_FROM else np.arange(self.cells) * RUNS // self.cells

    @property
    def place_of_cell(self) -> IntArray | None:
        """Place of each cell in its cycle, where cells are single positions of several cycles; else None."""
        if not self.whole or not CYCLES_FROM * self.cycle <= self.count <= MAX_EXACT_CELLS:
            return None
        return self.edges[:-1].astype(np.int64) % self.cycle

    def cell_of(self, positions: FloatArray) -> IntArray:
        """The cell of each position (positions must lie within the bounds)."""
        return np.clip(np.searchsorted(self.edges, positions, side="right") - 1, 0, self.cells - 1)

    @cached_property
    def _single_runs(self) -> list[tuple[float, int, int]]:
        """Positions counted one by one to find values that hold much mass, ascending: step, first and last multiple.

        All whole ones where they are not too many. Else those next to zero (or to the bound that is nearest to it),
        round ones all over the domain, and both bounds: what is rare is often put at the end.
        """
        if self.count <= MAX_EXACT_CELLS or self.low == self.high:
            return []  # cells are single positions already
        if not self.whole:
            # Not finer than doubles near the bounds can tell apart.
            finest = max(abs(self.low), abs(self.high)) * 2.0**-50
            step = 10.0 ** math.ceil(math.log10(max((self.high - self.low) / self.most_singles, finest, 1e-300)))
            return [(step, math.ceil(self.low / step), math.floor(self.high / step))]
        low, high = int(self.low), int(self.high)
        if self.count <= self.most_singles:
            return [(1.0, low, high)]
        near = self.most_singles // 2 - 4
        first = min(max(-near // 2, low), high - near + 1)
        last = first + near - 1
        step = 10 ** math.ceil(math.log10(self.count / near))
        runs = [
            (1, low, low if low < first and low % step else low - 1),
            (step, -(-low // step), -(-first // step) - 1),
            (1, first, last),
            (step, last // step + 1, high // step),
            (1, high, high if last < high and high % step else high - 1),
        ]
        return [(float(size), begin, end) for size, begin, end in runs if begin <= end]

    @property
    def singles(self) -> int:
        """Number of positions counted one by one; 0 where cells are single positions already."""
        return sum(last - first + 1 for _, first, last in self._single_runs)

    def single_of(self, positions: FloatArray) -> IntArray:
        """Index among the single positions, or -1 for a position between them."""
        index, before = np.full(len(positions), -1, dtype=np.int64), 0
        for step, first, last in self._single_runs:
            nearest, on = _nearest(positions, step)
            inside = on & (nearest >= first) & (nearest <= last)
            index[inside] = before + (nearest[inside] - first).astype(np.int64)
            before += last - first + 1
        return index

    def position_of_single(self, index: IntArray) -> FloatArray:
        """The position of a single index."""
        position, before = np.empty(len(index)), 0
        for step, first, last in self._single_runs:
            inside = (index >= before) & (index <= before + last - first)
            position[inside] = multiples(first + (index[inside] - before).astype(np.float64), step)
            before += last - first + 1
        return position

    @property
    def single_step(self) -> float:
        """A step that all single positions are multiples of."""
        return 1.0 if self.whole or not self._single_runs else self._single_runs[0][0]

    def unit_of(self, positions: FloatArray) -> IntArray:
        """Index of the coarsest unit that divides each position; len(units) when none does; -1 for zero."""
        out = np.full(len(positions), len(self.units), dtype=np.int64)
        for i in reversed(range(len(self.units))):
            out[_nearest(positions, self.units[i])[1]] = i
        out[positions == 0] = -1
        return out


def _nearest(positions: FloatArray, step: float) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The nearest number of steps of each position, and which positions are whole steps but for rounding."""
    steps = positions / step
    nearest = np.round(steps)
    return nearest, np.abs(steps - nearest) <= np.minimum(1e-9 + 1e-15 * np.abs(steps), 0.01)


def multiples(count: FloatArray, step: float) -> FloatArray:
    """`count` times `step`; a decimal step below one gives the very number that is written so (0.3, not 3 * 0.1)."""
    return count * step if step >= 1 else count / float(np.round(1 / step))


def most_singles(columns: int) -> int:
    """How many positions of an ordered column are counted one by one in a table of so many columns."""
    return min(MAX_SINGLES, MAX_ALL_SINGLES // max(1, columns))


def lattice_of(
    column: IntegerColumn | ContinuousColumn | DatetimeColumn, *, most_singles: int = MAX_SINGLES
) -> Lattice:
    """The lattice of a column's public domain."""
    if isinstance(column, ContinuousColumn) and column.decimals is None:
        low, high = column.bounds
        span = high - low
        top = max(math.floor(math.log10(span / 20)), -SMALLEST_REAL_UNIT) if span > 0 else -SMALLEST_REAL_UNIT - 1
        exponents = range(top, -SMALLEST_REAL_UNIT - 1, -1)
        return Lattice(low, high, False, column.scale, tuple(10.0**e for e in exponents), most_singles)
    first, last = column.bounds if isinstance(column, IntegerColumn) else column.steps
    count = last - first + 1
    if count <= MAX_EXACT_CELLS:
        units: list[float] = []
    elif isinstance(column, DatetimeColumn):
        seconds = RESOLUTION_SECONDS[column.resolution]
        units = [float(s // seconds) for s in (86400, 3600, 60) if s > seconds and s // seconds <= count / 20]
    else:
        units = [10.0**e for e in range(math.floor(math.log10(count / 20)), 0, -1)]
    cycle = CYCLES.get(column.resolution, DIGITS) if isinstance(column, DatetimeColumn) else DIGITS
    return Lattice(float(first), float(last), True, column.scale, tuple(units), most_singles, cycle)
