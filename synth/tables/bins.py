"""Bins: from noised fine histograms to the few dozen bins of a column's pair stage. All of it is post-processing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synth.tables.empirical_bayes import expected_counts

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_BINS = 8
MAX_BINS = 40
MAX_WIDTH = 6000
"""Bins of all columns together, about: a wide table has fewer a column."""
PEOPLE_IN_PAIR_NOISE = 1.0
MASS_IN_NOISE = 1.5
EVEN_PART = 1e-5
RARE_IN_NOISE = 3.0


def project_to_simplex(values: FloatArray, total: float) -> FloatArray:
    """The nearest vector (L2) with entries ≥ 0 that sum to `total` > 0 (Duchi et al. 2008, Fig. 1)."""
    if total <= 0:
        raise ValueError(f"total must be positive, not {total}")
    ordered = np.sort(values)[::-1]
    excess = np.cumsum(ordered) - total
    rank = np.arange(1, len(values) + 1)
    last = np.nonzero(ordered - excess / rank > 0)[0][-1]
    return np.asarray(np.maximum(values - excess[last] / (last + 1), 0.0))


def most_bins(people: float, pair_noise: float, columns: int) -> int:
    """How many bins a column may have: more people or less noise carry more detail into the pair tables.

    With b bins a column, an even pair table has people / b² in a cell; that is kept near the cell's noise.
    """
    limit = bin_limit(columns)
    if pair_noise <= 0:
        return limit
    return int(np.clip(math.sqrt(people / (PEOPLE_IN_PAIR_NOISE * pair_noise)), MIN_BINS, limit))


def bin_limit(columns: int) -> int:
    """The most ordinary bins that a column has in a table of so many columns."""
    return max(MIN_BINS, min(MAX_BINS, MAX_WIDTH // columns))


def merge_ordered(
    mass: FloatArray, stands_out: npt.NDArray[np.bool_], noise: float, has_missing: bool, most: int
) -> IntArray:
    """Bin of each cell of an ordered column: heavy cells alone, the rest merged in runs of enough mass.

    Args:
        mass: denoised counts of the cells, the missing cell last when there is one.
        stands_out: whether a cell is a single value that people share (the missing cell's is of no account).
        noise: noise scale of a cell's count.
        has_missing: whether the last cell stands for missing; it always has a bin of its own.
        most: into how many bins the cells that are not heavy are merged, about.
    """
    cells = mass[:-1] if has_missing else mass
    if len(cells) <= most:
        bins = np.arange(len(cells))
    else:
        target = _target_mass(cells, most, noise)
        bins = _merge(cells, target, (cells >= target) | stands_out[: len(cells)])
    return np.append(bins, bins.max() + 1) if has_missing else bins


def _target_mass(cells: FloatArray, most: int, noise: float) -> float:
    """Mass of an ordinary bin: the mass that is not in heavy cells, divided among the bins."""
    floor = max(float(cells.sum()) / (2 * most), MASS_IN_NOISE * noise)
    target = max(float(cells.sum()) / most, floor)
    for _ in range(4):
        target = max(float(cells[cells < target].sum()) / most, floor)
    return target


def _merge(cells: FloatArray, target: float, alone: npt.NDArray[np.bool_]) -> IntArray:
    bins = np.zeros(len(cells), dtype=np.int64)
    current, held = 0, 0.0
    for i, mass in enumerate(cells):
        heavy = bool(alone[i])
        if heavy and held > 0:
            # A light run before a heavy cell stays apart when it holds something, else it joins the heavy cell.
            if held >= target / 3:
                current += 1
            held = 0.0
        bins[i] = current
        held += float(mass)
        if heavy or held >= target:
            current, held = current + 1, 0.0
    if held < target / 3 and current > 0:
        bins[bins == current] = current - 1
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def merge_levels(
    mass: FloatArray, noise: float, has_missing: bool, partitions: Sequence[Sequence[int]] = (), *, most: int
) -> IntArray:
    """Bin of each level of an unordered column: levels too rare to measure in pairs share bins.

    Rare levels of one group share a bin when they are frequent enough together; of a group that is not, they wait for
    the next coarser one. What is left in the end is merged in runs, in the declared order: codes that stand side by
    side are often alike.

    Args:
        mass: denoised counts of the levels, missing last when there is one.
        noise: noise scale of a count.
        has_missing: whether the last cell stands for missing; it always has a bin of its own.
        partitions: the group of each level, finest grouping first; -1 is no group.
        most: into how many bins the levels that are left are merged, about.
    """
    levels = mass[:-1] if has_missing else mass
    rare = levels < RARE_IN_NOISE * noise
    if rare.sum() < 2:
        rare[:] = False
    bins = np.empty(len(mass), dtype=np.int64)
    common = np.nonzero(~rare)[0]
    bins[common] = np.arange(len(common))
    last = len(common)
    for partition in partitions:
        group = np.asarray(partition)
        for found in np.unique(group[rare & (group >= 0)]):
            own = np.nonzero(rare & (group == found))[0]
            if levels[own].sum() >= RARE_IN_NOISE * noise:
                bins[own], rare[own] = last, False
                last += 1
    left = np.nonzero(rare)[0]
    if len(left):
        target = max(float(levels[left].sum()) / most, RARE_IN_NOISE * noise)
        bins[left] = last + _merge(levels[left], target, np.zeros(len(left), dtype=bool))
    if has_missing:
        bins[-1] = int(bins[:-1].max()) + 1
    return bins


def spread_within_bins(noised: FloatArray, bin_of_cell: IntArray, noise: float) -> FloatArray:
    """Share of each level within its bin, each bin's shares summing to 1.

    Levels are thought to be as common as the noised counts of all of them make likely.

    Args:
        noised: noised counts of the levels.
        bin_of_cell: bin of each level.
        noise: noise scale of a count.
    """
    return shares_of(expected_counts(noised, noise), np.ones(len(noised)), bin_of_cell)


def shrunk(noised: FloatArray, towards: FloatArray, noise: float, freedom: int) -> FloatArray:
    """A James-Stein estimate: noised counts, shrunk towards a guess as far as their noise explains the difference.

    Args:
        noised: counts plus independent Gaussian noise of standard deviation `noise`.
        towards: the guess.
        freedom: how many counts the guess does not follow by itself.
    """
    difference = noised - towards
    scatter = float((difference**2).sum())
    keep = max(0.0, 1.0 - freedom * noise**2 / scatter) if scatter > 0 else 0.0
    return np.asarray(towards + keep * difference)


def shares_of(mass: FloatArray, width: FloatArray, bin_of_cell: IntArray) -> FloatArray:
    """Share of each cell within its bin by estimated mass, each bin's shares summing to 1.

    A small part is spread by width: no declared value is impossible because noise hid it, and a condition on any
    declared value can be met.
    """
    whole = np.bincount(bin_of_cell, weights=mass)[bin_of_cell]
    even = width / np.bincount(bin_of_cell, weights=width)[bin_of_cell]
    known = np.where(whole > 0, mass / np.maximum(whole, 1e-300), even)
    return np.asarray((1 - EVEN_PART) * known + EVEN_PART * even)
