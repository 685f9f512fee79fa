"""Denoising of a histogram over ordered cells at a known noise level: post-processing.

A histogram is a smooth curve and single values that people share. The logarithm of the curve's density is a cubic
spline over the cells with a penalty on its second differences (P-splines, Eilers & Marx 1996, Stat. Sci. 11). It is
fitted by least squares in the noise of what was released, and the penalty's weight is chosen by restricted likelihood
(the generalised Fellner-Schall step, Wood & Fasiolo 2017, Biometrics 73). A cell far above the curve keeps what it
holds; those that end in the same digit may all be more common than others (`rhythm.py`); and where cells show that they
lie off it, each goes as far as its count makes likely (`empirical_bayes.py`). Its ends, where noise is all that was
counted, are those of a tail (`tails.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline
from scipy.ndimage import median_filter

from synth.tables.empirical_bayes import factors_of
from synth.tables.rhythm import rhythm_of
from synth.tables.tails import Fitted, with_tails

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

KNOTS = 48
DEGREE = 3
STANDS_OUT = 3.5
"""A cell this many noise scales above the curve is a single value; of 4,000 others about one is, by chance."""
OUTLYING, STANDS_OUT_ALONE = 0.05, 4.25
"""Part of the curve at either end in which a single value has to stand out more: nobody is near it, and were it noise,
it would be the farthest value of all. Of 4,000 other cells one does by chance in a column of 25."""
NEIGHBOURS = 9
"""Cells whose median is the curve that single values are first looked for above."""
STEPS = 30
SMOOTH_FIRST = 3
"""Steps before the penalty's weight and the single values are looked at again: the curve has to be near by then."""
FIRST_WEIGHT, LEAST_WEIGHT, MOST_WEIGHT = 10.0, 1e-4, 1e6
RIDGE = 1e-4
"""Pull of the coefficients towards an even histogram: it decides only where nothing else does."""


@dataclass(frozen=True)
class BinCounts:
    """A second release of the same people, over runs of cells.

    Attributes:
        bin_of_cell: bin of each cell, ascending from 0 [cells].
        noised: counts of the bins plus independent Gaussian noise [bins].
        noise: the standard deviation of that noise, > 0.
    """

    bin_of_cell: IntArray
    noised: FloatArray
    noise: float


@dataclass(frozen=True)
class Denoised:
    """An estimated histogram: what each cell holds, > 0, and which cells stand out from the curve."""

    mass: FloatArray
    stands_out: BoolArray


def denoise(
    noised: FloatArray,
    noise: float,
    widths: FloatArray,
    total: float,
    *,
    binned: Sequence[BinCounts] = (),
    place: IntArray | None = None,
) -> Denoised:
    """Estimate of a histogram over ordered cells.

    Args:
        noised: counts of the cells plus independent Gaussian noise [cells].
        noise: the standard deviation of that noise, > 0.
        widths: width of each cell, > 0.
        total: what all cells hold together, > 0; taken to be known about as well as one cell, and kept by the result.
        binned: what else was released about the same cells; within the last one's bins, cells that lie off the curve
            take what they hold from the others.
        place: place of each cell in a cycle that its count may follow (a last digit), from 0 [cells].
    """
    cells = len(noised)
    basis, penalty = _spline(cells)
    offset = np.log(widths / widths.mean())
    even = np.full(basis.shape[1], math.log(total / cells))
    first = [np.unique(b.bin_of_cell, return_index=True)[1] for b in binned]

    def observed(mass: FloatArray) -> FloatArray:
        """Cells, total and bins of a histogram (or of the columns of a matrix), in units of their noise."""
        parts = [mass / noise, mass.sum(axis=0, keepdims=True) / noise]
        parts += [np.add.reduceat(mass, starts) / b.noise for starts, b in zip(first, binned, strict=True)]
        return np.concatenate(parts)

    seen = np.concatenate([noised / noise, [total / noise], *(b.noised / b.noise for b in binned)])
    counts, count_noise = _counts_of_cells(noised, noise, binned)

    def curve_at(coefficients: FloatArray) -> FloatArray:
        return np.asarray(np.exp(np.clip(basis @ coefficients + offset, -30.0, 25.0)) * rhythm)

    def loss(masses: FloatArray) -> FloatArray:
        """How far histograms, the columns of a matrix, are from what was seen [histograms]."""
        return np.asarray(((seen[:, None] - observed(masses)) ** 2).sum(axis=0))

    def above(curve: FloatArray) -> FloatArray:
        """What each single value holds above a curve; 0 for all other cells."""
        height, precision = counts - curve, count_noise**-2
        below = np.cumsum(np.maximum(curve, 0.0))
        below /= max(below[-1], 1e-300)
        least = np.where(np.minimum(below, 1 - below) < OUTLYING, STANDS_OUT_ALONE, STANDS_OUT)
        found = height > least * count_noise
        for b in binned:  # nor may the bin that it is in hold less
            room = (b.noised - np.bincount(b.bin_of_cell, weights=found * height))[b.bin_of_cell] + height
            more = (found & (room < height)) / b.noise**2
            height = height + more / (precision + more) * (room - height)
            precision = precision + more
        return np.where(found & (height > least * precision**-0.5), height, 0.0)

    def cost(coefficients: FloatArray) -> float:
        left = seen - observed(curve_at(coefficients) + singles)
        pull = weight * coefficients @ penalty @ coefficients + RIDGE * ((coefficients - even) ** 2).sum()
        return float(left @ left + pull)

    # A curve that starts with the crowd of a single value in it would have to hold it among its neighbours for good.
    around = median_filter(counts / widths, size=NEIGHBOURS, mode="nearest") * widths
    coefficients, weight, singles, rhythm = even.copy(), FIRST_WEIGHT, above(around), np.ones(cells)
    for step in range(STEPS):
        curve = curve_at(coefficients)
        slope = observed(basis * curve[:, None])
        hessian = slope.T @ slope
        # Where the noise is next to nothing, rounding would leave directions without any slope.
        hessian += weight * penalty + (RIDGE + 1e-10 * float(np.trace(hessian))) * np.eye(len(even))
        downhill = slope.T @ (seen - observed(curve + singles))
        downhill -= weight * penalty @ coefficients + RIDGE * (coefficients - even)
        spread = np.asarray(np.linalg.inv(hessian), dtype=np.float64)
        move, size, before = spread @ downhill, 1.0, cost(coefficients)
        while size > 1e-3 and cost(coefficients + size * move) > before + 1e-9:
            size /= 2
        coefficients = coefficients + size * move
        if step >= SMOOTH_FIRST:
            # Fellner-Schall: the penalty's degrees of freedom that the data left to it, over its roughness.
            freedom = len(penalty) - 2 - weight * float((spread * penalty).sum())
            roughness = float(coefficients @ penalty @ coefficients)
            weight = float(np.clip(max(freedom, 1e-2) / max(roughness, 1e-8), LEAST_WEIGHT, MOST_WEIGHT))
            if place is not None:
                rhythm = rhythm_of(counts, count_noise, curve_at(coefficients) / rhythm, place)[place]
            singles = above(curve_at(coefficients))
        if step > 2 * SMOOTH_FIRST and np.abs(size * move).max() < 1e-2:
            break
    curve = curve_at(coefficients)
    edges = np.concatenate([[0.0], np.cumsum(widths)])
    fitted = Fitted(curve, singles, basis * curve[:, None], edges, rhythm)
    curve = with_tails(fitted, spread, lambda curves: loss(curves + singles[:, None]))
    others = singles == 0
    factors = np.ones(cells)
    if others.any():
        factors[others] = factors_of(counts[others], count_noise[others], curve[others])
    home = binned[-1].bin_of_cell if binned else np.zeros(cells, dtype=np.int64)
    # What the cells off the curve hold, they take from the others of their bin, which was counted too.
    rough, smooth = (np.bincount(home, weights=part * others) for part in (curve * factors, curve))
    mass = curve * factors * np.divide(smooth, rough, out=np.ones(len(rough)), where=rough > 0)[home] + singles
    return Denoised(mass=mass * (total / mass.sum()), stands_out=singles > 0)


def _spline(cells: int) -> tuple[FloatArray, FloatArray]:
    """Values of the B-splines in the middle of each cell [cells, coefficients], and the penalty's matrix."""
    knots = min(KNOTS, max(4, cells // 3))
    places = np.arange(-DEGREE, knots + DEGREE + 1) / knots
    basis = BSpline.design_matrix((np.arange(cells) + 0.5) / cells, places, DEGREE).toarray()
    differences = np.diff(np.eye(knots + DEGREE), 2, axis=0)
    return np.asarray(basis), np.asarray(differences.T @ differences)


def _counts_of_cells(noised: FloatArray, noise: float, binned: Sequence[BinCounts]) -> tuple[FloatArray, FloatArray]:
    """The best noised count of each cell and its noise scale: a bin of one cell was counted once more."""
    counts, precision = noised, np.full(len(noised), 1 / noise**2)
    for b in binned:
        more = (np.bincount(b.bin_of_cell) == 1)[b.bin_of_cell] / b.noise**2
        counts = counts + more / (precision + more) * (b.noised[b.bin_of_cell] - counts)
        precision = precision + more
    return counts, precision**-0.5
