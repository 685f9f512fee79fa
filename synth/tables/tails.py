"""Tails: where noise hides how an ordered column ends, it ends as its last known part lets expect. Post-processing.

A histogram is known cell by cell where people are. Between its last people and a bound that is declared far away there
is nothing but noise, a few people's worth over a wide range, and what a fit makes of it is a tail many times too heavy.
So from where the mass beyond is no longer known, that mass is laid out by a generalised Pareto distribution, the one
that excesses over a high threshold tend to (Balkema & de Haan 1974, Ann. Probab. 2; Pickands 1975, Ann. Stat. 3):
averaged over shapes and scales by how well they meet what was released, and left out where they do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

KNOWN = 0.25
"""The mass beyond a cell is known while its standard deviation is at most this part of it."""
MOST = 0.35
"""Part of the whole that a tail holds at most."""
RATIO = 3.0
"""How steep the end is, is read off between where so many times its mass are left and where it begins."""
ROOM = 3.0
"""A tail with less room than so many scales before the bound has no space to be too heavy in."""
SHAPES = (0.0, 0.25, 0.5)
"""Exponential, and two that are heavier; each is thought half as likely as the one before."""
SCALES = np.exp(np.linspace(-0.75, 0.75, 7))
SCALES_SPREAD = 0.5
"""Standard deviation, in logarithms, of how far the scale is from the one that is read off."""
REFUTED = 3.5
"""By how much more log-likelihood the fit has to have than any tail, for the fit to be kept (33 times as likely):
something is out there. Two or three it has by bending to the noise."""


@dataclass(frozen=True)
class Fitted:
    """A histogram as it was fitted.

    Attributes:
        curve: what each cell holds by the curve, > 0 [cells].
        singles: what it holds above the curve, which stays; 0 for most [cells].
        slope: the curve's derivative by its coefficients [cells, coefficients].
        edges: where cells begin and end, ascending [cells + 1].
        rhythm: factor of each cell that follows a cycle; a tail has it too [cells].
    """

    curve: FloatArray
    singles: FloatArray
    slope: FloatArray
    edges: FloatArray
    rhythm: FloatArray

    def mirrored(self, curve: FloatArray) -> Fitted:
        """The same from the other end, with another curve."""
        edges = self.edges[-1] - self.edges[::-1]
        return Fitted(curve[::-1], self.singles[::-1], self.slope[::-1], edges, self.rhythm[::-1])


def with_tails(fitted: Fitted, spread: FloatArray, loss: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """The fitted curve with both of its ends laid out anew where they are not known [cells]; its total stays.

    Args:
        fitted: the fit.
        spread: covariance of the curve's coefficients [coefficients, coefficients].
        loss: squared residuals in noise scales, summed over all that was released, of curves [cells, curves].
    """
    upper = _with_upper_tail(fitted, spread, loss)
    return _with_upper_tail(fitted.mirrored(upper), spread, lambda curves: loss(curves[::-1]))[::-1]


def _with_upper_tail(fitted: Fitted, spread: FloatArray, loss: Callable[[FloatArray], FloatArray]) -> FloatArray:
    curve, edges = fitted.curve, fitted.edges
    start = _start(fitted, spread)
    if start is None:
        return curve
    mass = float(curve[start:].sum())
    before = mass + np.cumsum((curve + fitted.singles)[:start][::-1])[::-1]
    more = min(RATIO * mass, 0.9 * before[0])
    if more <= mass:
        return curve
    steepness = math.log(more / mass)
    length = edges[start] - float(np.interp(-more, -before, edges[:start]))
    excess = edges[start:] - edges[start]
    if not length > 0 or excess[-1] < ROOM * length / steepness:
        return curve
    tails = np.stack([
        _pareto(excess, shape, factor * _scale(length, steepness, shape), fitted.rhythm[start:])
        for shape in SHAPES
        for factor in SCALES
    ])  # fmt: skip
    prior = np.add.outer(-math.log(2) * np.arange(len(SHAPES)), -0.5 * (np.log(SCALES) / SCALES_SPREAD) ** 2)
    candidates = np.repeat(curve[:, None], len(tails), axis=1)
    candidates[start:] = mass * tails.T
    losses = loss(candidates)
    if (losses.min() - float(loss(curve[:, None])[0])) / 2 > REFUTED:
        return curve
    likely = prior.ravel() - losses / 2
    chance = np.exp(likely - likely.max())
    laid = curve.copy()
    laid[start:] = candidates[start:] @ (chance / chance.sum())
    return laid


def _start(fitted: Fitted, spread: FloatArray) -> int | None:
    """The last cell whose mass beyond is known, at the earliest where a tail may begin; None when all of them are."""
    beyond, whole = (np.cumsum(part[::-1])[::-1] for part in (fitted.curve, fitted.curve + fitted.singles))
    earliest = min(int(np.searchsorted(-part, -MOST * part[0])) for part in (beyond, whole))
    slopes = np.cumsum(fitted.slope[::-1], axis=0)[::-1][earliest:]
    deviation = np.sqrt(np.maximum(((slopes @ spread) * slopes).sum(axis=1), 0.0))
    unknown = np.flatnonzero(deviation > KNOWN * beyond[earliest:])
    if not len(unknown):
        return None
    start = earliest + max(int(unknown[0]) - 1, 0)
    return start if 0 < start < len(beyond) - 2 else None


def _scale(length: float, steepness: float, shape: float) -> float:
    """Scale of a tail that begins where the mass beyond has fallen by e^steepness over a length."""
    if shape == 0:
        return length / steepness
    return length * shape * (1 + 1 / math.expm1(shape * steepness))


def _pareto(excess: FloatArray, shape: float, scale: float, rhythm: FloatArray) -> FloatArray:
    """Shares of cells beyond a threshold, each > 0, by a generalised Pareto distribution that ends with the cells."""
    survival = np.exp(-excess / scale) if shape == 0 else (1 + shape * excess / scale) ** (-1 / shape)
    share = -np.diff(survival) * rhythm
    share = np.maximum(share / share.sum(), 1e-12)
    return np.asarray(share / share.sum())
