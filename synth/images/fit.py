"""Fit: correct the class Gaussians so that their pictures, clipped to the range of values, near the denoised moments.

A Gaussian's pictures leave the range of values: dark ones are cut at the darkest. That adds a haze and shrinks what
varies. So means and covariances are corrected by what a bank of clipped pictures lacks, round by round, with the same
bank of latent points each time. All of it sees noised numbers only: post-processing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synth.images.denoise import FLOOR, ClassGaussians, positive
from synth.images.transform import Transform

FloatArray = npt.NDArray[np.float64]

ROUNDS = 12
STEP = 0.7
POINTS = 2048
POINTS_PER_COEFFICIENT = 6
MOST_VALUES = 1 << 32
"""Pixel values computed in all; with many classes or large grids there are fewer rounds."""


def fit(target: ClassGaussians, transform: Transform, *, rounds: int | None = None) -> tuple[ClassGaussians, int]:
    """Gaussians whose clipped pictures have the target's means and covariances as nearly as the rounds bring them.

    Returns them and the number of rounds, which follows from the sizes alone unless it is given.
    """
    classes, d = target.means.shape
    bank = latent_bank(max(POINTS, POINTS_PER_COEFFICIENT * d), d)
    grid = transform.grid_for(d)
    work = classes * len(bank) * grid[0] * grid[1] * transform.form.channels
    rounds = max(0, min(ROUNDS, MOST_VALUES // work)) if rounds is None else rounds
    means, covariances = target.means.copy(), target.covariances.copy()
    for c in range(classes):
        least = FLOOR * float(np.trace(target.covariances[c])) / d
        for _ in range(rounds):
            mean, covariance = clipped_moments(means[c], covariances[c], bank, transform, grid)
            means[c] += STEP * (target.means[c] - mean)
            covariances[c] = positive(covariances[c] + STEP * (target.covariances[c] - covariance), least)
    return ClassGaussians(means, covariances, target.sizes), rounds


def clipped_moments(
    mean: FloatArray, covariance: FloatArray, bank: FloatArray, transform: Transform, grid: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Mean [d] and covariance [d, d] of the coefficients of a Gaussian's pictures after clipping."""
    values, vectors = np.linalg.eigh(covariance)
    x = mean + bank @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    clipped = np.concatenate(
        [
            transform.analysed(np.clip(transform.values(part, *grid), 0.0, 1.0), len(mean))
            for part in np.array_split(x, max(1, len(x) // 512))
        ]
    )
    centred = clipped - clipped.mean(axis=0)
    return clipped.mean(axis=0), centred.T @ centred / len(centred)


def latent_bank(points: int, d: int) -> FloatArray:
    """Points [points, d] with mean zero and covariance one exactly; the same for every run."""
    half = np.random.default_rng(0).standard_normal((points // 2, d))
    bank = np.concatenate([half, -half])
    return np.asarray(np.linalg.solve(np.linalg.cholesky(bank.T @ bank / len(bank)), bank.T).T)
