"""Rhythm: values of some last digits are more common than others. Post-processing.

People round to fives and tens, and a day of the week is busier than another. So a histogram over ordered cells may
differ from a smooth curve by a factor for each place in a cycle of cells: ten for numbers, seven for days. Factors are
normal around 1; how strong they are in a column is one of a few candidates, which its counts weigh (empirical Bayes),
and there are none where the counts do not show any.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from synth.tables.empirical_bayes import LEAST_EVIDENCE

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STRENGTHS = np.array([0.1, 0.2, 0.4, 0.8])
"""Standard deviations that the factors of a column may have around 1."""
LEAST_FACTOR = 0.05
OUTLYING = 3.0
"""Noise scales from its factor times the curve at which a cell is a single value, and no part of the rhythm."""
TRIMMINGS = 2
LEAST_CELLS = 2.0
"""Cells that a factor has to rest on, as many as of equal weight: else it would follow one that the curve misses."""
UNKNOWN = 1.0, 1e6
"""A factor that nothing is known of, and its variance."""


def rhythm_of(noised: FloatArray, noise: FloatArray, curve: FloatArray, place: IntArray) -> FloatArray:
    """Factor of each place in a cycle, >= LEAST_FACTOR; 1 for all where the counts do not show otherwise.

    Args:
        noised: counts plus independent Gaussian noise [cells].
        noise: the standard deviation of each one's noise, > 0 [cells].
        curve: what each would be without rhythm, > 0 [cells].
        place: place of each cell in its cycle, from 0, each of them taken [cells].
    """
    seen, variance = np.array(
        [_factor(noised[own], noise[own], curve[own]) for own in (place == i for i in range(int(place.max()) + 1))]
    ).T
    spread = STRENGTHS[:, None] ** 2 + variance
    likelihood = -0.5 * (np.log(spread) + (seen - 1) ** 2 / spread).sum(axis=1)
    without = -0.5 * float((np.log(variance) + (seen - 1) ** 2 / variance).sum())
    chance = np.exp(likelihood - likelihood.max())
    if not float(likelihood.max()) + math.log(chance.mean()) - without > LEAST_EVIDENCE:
        return np.ones(len(seen))
    kept = (chance / chance.sum()) @ (STRENGTHS[:, None] ** 2 / spread)
    return np.asarray(np.maximum(1 + kept * (seen - 1), LEAST_FACTOR))


def _factor(noised: FloatArray, noise: FloatArray, curve: FloatArray) -> tuple[float, float]:
    """How many times the curve the cells of one place are, by least squares without single values, and its variance."""
    share = (curve / noise) ** 2
    if share.sum() ** 2 < LEAST_CELLS * (share**2).sum():
        return UNKNOWN
    order = np.argsort(noised / curve)
    weight = np.cumsum((curve / noise)[order])
    # The median is not moved by a crowd on one value, as long as the others weigh more.
    factor = float((noised / curve)[order[np.searchsorted(weight, weight[-1] / 2)]])
    variance = math.pi / 2 / float(((curve / noise) ** 2).sum())
    for _ in range(TRIMMINGS):
        near = np.abs(noised - factor * curve) < OUTLYING * noise
        known = float(((curve / noise)[near] ** 2).sum())
        if known == 0:
            break
        factor, variance = float((noised * curve / noise**2)[near].sum()) / known, 1 / known
    return factor, variance
