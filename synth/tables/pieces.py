"""Pieces: a column's values within its bins, in a form that conditions can cut exactly.

A piece is an even grid of positions (a single value is a grid of one) or an even stretch of real numbers; the missing
cell is a piece at NaN. Within a bin a value falls into a piece by its mass, then anywhere in it with equal chance.
For columns of levels a position is the level's index. All of it follows from noised histograms and the public grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A part of a column's domain.

    Attributes:
        intervals: lowest and highest position, both included [n, 2]; ascending and apart from each other.
        missing: whether the missing cell belongs to it.
    """

    intervals: FloatArray
    missing: bool

    @property
    def empty(self) -> bool:
        """Whether nothing lies in it."""
        return not len(self.intervals) and not self.missing

    def and_(self, other: Region) -> Region:
        """What lies in both."""
        pairs = [(max(a, c), min(b, d)) for a, b in self.intervals for c, d in other.intervals]
        both = [(low, high) for low, high in pairs if low <= high]
        return Region(np.array(both, dtype=np.float64).reshape(-1, 2), self.missing and other.missing)


@dataclass(frozen=True)
class Pieces:
    """P pieces, ordered by bin.

    Attributes:
        bins: number of bins of the column; a bin need not have a piece.
        bin: bin of each piece.
        mass: mass of each piece; where nothing was cut off, each bin's pieces sum to 1.
        first, last: of a grid the numbers of its first and last multiple of `step`; of a stretch the positions of
            its ends; NaN for missing.
        step: spacing of a grid; 0 for a stretch.
    """

    bins: int
    bin: IntArray
    mass: FloatArray
    first: FloatArray
    last: FloatArray
    step: FloatArray

    @property
    def bin_mass(self) -> FloatArray:
        """Mass of each bin [bins]."""
        return np.asarray(np.bincount(self.bin, weights=self.mass, minlength=self.bins), dtype=np.float64)

    def within(self, region: Region) -> Pieces:
        """What lies in a region; a bin's mass is then its probability of the region."""
        parts = [self._between(low, high) for low, high in region.intervals]
        if region.missing:
            parts.append(self.chosen(np.isnan(self.first)))
        return joined(self.bins, parts)

    def weighted(self, factor: FloatArray) -> Pieces:
        """Each piece's mass times a factor [P]."""
        return Pieces(self.bins, self.bin, self.mass * factor, self.first, self.last, self.step)

    def draw(self, bins: IntArray, rng: np.random.Generator) -> FloatArray:
        """A position in each of the given bins, by mass; NaN for missing. A bin without mass must not be asked for.

        Of the rows of one bin, each piece gets its expected number, rounded up or down.
        """
        used = self.chosen(self.mass > 0)
        start = np.searchsorted(used.bin, np.arange(self.bins + 1))
        running = np.concatenate([[0.0], np.cumsum(used.mass)])
        base, whole = running[start[:-1]], np.diff(running[start])
        # Bins laid end to end on a line, each of length one; a uniform picks a piece within its bin's stretch.
        ends = used.bin + (running[1:] - base[used.bin]) / whole[used.bin]
        at = np.searchsorted(ends, bins + _stratified(bins, self.bins, rng), side="right")
        # The running sum is inexact in its last digits: a value never leaves its bin.
        at = np.clip(at, start[bins], start[bins + 1] - 1)
        first, last, step = used.first[at], used.last[at], used.step[at]
        u = rng.random(len(bins))
        positions = multiples(np.minimum(first + np.floor(u * (last - first + 1)), last), step)
        if step.all():
            return positions
        return np.where(step == 0, np.minimum(first + u * (last - first), last), positions)

    def chosen(self, which: BoolArray) -> Pieces:
        """Some of the pieces."""
        first, last, step = self.first[which], self.last[which], self.step[which]
        return Pieces(self.bins, self.bin[which], self.mass[which], first, last, step)

    def _between(self, low: float, high: float) -> Pieces:
        """The part from `low` to `high`, both included."""
        grid = self.step > 0
        first, last = self.first.copy(), self.last.copy()
        first[grid] = np.maximum(first[grid], first_multiple(low, self.step[grid]))
        last[grid] = np.minimum(last[grid], last_multiple(high, self.step[grid]))
        first[~grid], last[~grid] = np.maximum(first[~grid], low), np.minimum(last[~grid], high)
        inside = first <= last  # false for missing
        points = (last - first + grid)[inside]
        of = (self.last - self.first + grid)[inside]
        # A stretch too narrow to measure is in or out as a whole.
        part = np.divide(points, of, out=np.ones_like(points), where=of > 0)
        mass = self.mass[inside] * part
        return Pieces(self.bins, self.bin[inside], mass, first[inside], last[inside], self.step[inside])


def joined(bins: int, parts: list[Pieces]) -> Pieces:
    """Pieces of several lists in one, ordered by bin."""
    fields = [
        np.concatenate([np.empty(0), *(getattr(part, name) for part in parts)])
        for name in ("bin", "mass", "first", "last", "step")
    ]
    order = np.argsort(fields[0], kind="stable")
    bin_, mass, first, last, step = (field[order] for field in fields)
    return Pieces(bins, bin_.astype(np.int64), mass, first, last, step)


def _stratified(bins: IntArray, size: int, rng: np.random.Generator) -> FloatArray:
    """Uniforms in [0, 1), evenly spaced among the rows of each bin and in random order there."""
    order = rng.permutation(len(bins))
    order = order[np.argsort(bins[order], kind="stable")]
    count = np.bincount(bins, minlength=size)
    rank = np.empty(len(bins))
    rank[order] = np.arange(len(bins)) - np.repeat(np.cumsum(count) - count, count)
    return np.asarray((rank + rng.random(size)[bins]) / count[bins] * (1 - 1e-9))


def multiples(count: FloatArray, step: FloatArray) -> FloatArray:
    """`count` times `step`; a decimal step below one gives the very number that is written so (0.3, not 3 * 0.1)."""
    parts = np.round(1 / np.where((step > 0) & (step < 1), step, 1.0))
    return np.asarray(np.where(step >= 1, count * step, count / parts))


def first_multiple(position: float | FloatArray, step: FloatArray) -> FloatArray:
    """Number of the first multiple of each step at or above a position."""
    nearest = np.round(position / step)
    return np.asarray(nearest + (multiples(nearest, step) < position))


def last_multiple(position: float | FloatArray, step: FloatArray) -> FloatArray:
    """Number of the last multiple of each step at or below a position."""
    return -first_multiple(-position, step)
