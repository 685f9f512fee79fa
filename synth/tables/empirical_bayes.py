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


def mixed(likelihood: FloatArray) -> FloatArray:
    """Chance of each candidate for each row, with the candidates' shares learned from all rows.

    Args:
        likelihood: log-likelihood of each candidate for each row, up to a constant of the row [rows, candidates].

    Returns:
        Chances [rows, candidates]; rows sum to 1.
    """
    given = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    rows, candidates = given.shape
    share = np.full(candidates, 1 / candidates)
    for _ in range(EM_STEPS):
        chance = given * share
        chance /= chance.sum(axis=1, keepdims=True)
        share = (chance.sum(axis=0) + 1 / candidates) / (rows + 1)
    chance = given * share
    return np.asarray(chance / chance.sum(axis=1, keepdims=True))


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
