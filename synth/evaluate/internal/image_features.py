"""How far apart two sets of pictures are, by their features [pictures, features].

Features are those of the report's own network, trained on real pictures: nothing is downloaded, so the distances
compare reports on the same data with each other, not with figures published for Inception features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

FloatArray = npt.NDArray[np.float64]

NEIGHBOURS = 3


@dataclass(frozen=True)
class FeatureScores:
    """Pictures against real ones.

    Attributes:
        frechet: Fréchet distance of Gaussians with the features' moments (Heusel et al. 2017), at least 0.
        kernel: unbiased squared maximum mean discrepancy, cubic kernel (Bińkowski et al. 2018); about 0 for equals.
        precision: share that lies where real pictures lie; recall: share of real ones that lies where these do
            (Kynkäänniemi et al. 2019).
        coverage: share of real pictures with one of these among their neighbours (Naeem et al. 2020).
    """

    frechet: float
    kernel: float
    precision: float
    recall: float
    coverage: float


def feature_scores(real: FloatArray, other: FloatArray) -> FeatureScores:
    """All of them; at least NEIGHBOURS + 1 pictures of either kind."""
    apart = cdist(real, other)
    real_reach, other_reach = reach(real), reach(other)
    return FeatureScores(
        frechet=frechet_distance(real, other),
        kernel=kernel_distance(real, other),
        precision=float((apart <= real_reach[:, None]).any(axis=0).mean()),
        recall=float((apart <= other_reach[None, :]).any(axis=1).mean()),
        coverage=float((apart <= real_reach[:, None]).any(axis=1).mean()),
    )


def reach(points: FloatArray) -> FloatArray:
    """Distance of each point to its NEIGHBOURS-th neighbour within the set."""
    apart = cdist(points, points)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(np.partition(apart, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1])


def frechet_distance(a: FloatArray, b: FloatArray) -> float:
    """‖m_a − m_b‖² + tr(C_a + C_b − 2 (C_a C_b)^½), from eigenvalues, so that singular covariances are no trouble."""
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0.0)).sum()
    means = float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())
    return max(0.0, means + float(np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def kernel_distance(a: FloatArray, b: FloatArray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y/features + 1)³."""

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)

    def within(x: FloatArray) -> float:
        k = kernel(x, x)
        return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())
