"""Empirical Bayes: what is learned from many noised values at once about each of them. Post-processing.

How common each candidate is comes from all of them by nonparametric maximum likelihood over a grid, by EM (Laird 1978,
JASA 73; Jiang & Zhang 2009, Ann. Stat. 37, for means under Gaussian noise).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

EM_STEPS = 30
GRID = 64
LEAST_COUNT = 0.05
"""The smallest count above zero that a level is thought to have, in noise scales."""
FACTORS = np.append(1.0, np.geomspace(0.02, 20, 48))
LEAST_EVIDENCE = 2.5
"""By how much the log-likelihood of all counts must gain before they are thought to lie off a curve: twelve times."""


def mixed(likelihood: FloatArray) -> FloatArray:
    """Chance of each candidate for each row, with the candidates' shares learned from all rows.

    Args:
        likelihood: log-likelihood of each candidate for each row, up to a constant of the row [rows, candidates].

    Returns:
        Chances [rows, candidates]; rows sum to 1.
    """
    return _chances(*_learned(likelihood))


def _chances(given: FloatArray, share: FloatArray) -> FloatArray:
    chance = given * share
    return np.asarray(chance / chance.sum(axis=1, keepdims=True))


def _learned(likelihood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Likelihoods, of each row's likeliest candidate 1 [rows, candidates], and the candidates' shares [candidates]."""
    given = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    rows, candidates = given.shape
    share = np.full(candidates, 1 / candidates)
    for _ in range(EM_STEPS):
        chance = given * share
        chance /= chance.sum(axis=1, keepdims=True)
        share = (chance.sum(axis=0) + 1 / candidates) / (rows + 1)
    return given, share


def expected_counts(noised: FloatArray, noise: float) -> FloatArray:
    """Posterior mean of counts that are alike in nothing but how common small and large ones are among them; ≥ 0.

    Args:
        noised: counts plus independent Gaussian noise [counts].
        noise: the standard deviation of that noise, > 0.
    """
    most = max(float(noised.max()), noise)
    # Small counts are many and close together; where there is next to no noise, counts are what they seem.
    seen = np.quantile(np.maximum(noised, 0.0), np.linspace(0, 1, GRID), method="nearest")
    grid = np.unique(np.concatenate([[0.0], np.geomspace(LEAST_COUNT * noise, most, GRID), seen]))
    return np.asarray(mixed(-0.5 * ((noised[:, None] - grid) / noise) ** 2) @ grid)


def factors_of(noised: FloatArray, noise: FloatArray, curve: FloatArray) -> FloatArray:
    """How many times the curve each count is, as posterior means; 1 for all where the counts do not show otherwise.

    Of people's own values some are far more common than their neighbours (even numbers, multiples of five) without
    standing out of the noise one by one; all of them together show it.

    Args:
        noised: counts plus independent Gaussian noise [counts].
        noise: the standard deviation of each one's noise, > 0 [counts].
        curve: what each would be if it lay on the curve, > 0 [counts].
    """
    likelihood = -0.5 * ((noised[:, None] - curve[:, None] * FACTORS) / noise[:, None]) ** 2
    given, share = _learned(likelihood)
    evidence = float((np.log(given @ share) - (likelihood[:, 0] - likelihood.max(axis=1))).sum())
    if not evidence > LEAST_EVIDENCE:
        return np.ones(len(noised))
    # A mean lies among the values it is of; rounding may put it just outside.
    return np.asarray((_chances(given, share) @ FACTORS).clip(FACTORS.min(), FACTORS.max()))
