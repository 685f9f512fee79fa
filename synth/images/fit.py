"""Fit: correct the class Gaussians so that their pictures, measured as the source's were, near the denoised moments.

Two things take from what was asked for. A Gaussian's pictures leave the range of values: dark ones are cut at the
darkest, which adds a haze and shrinks what varies. And what was measured are moments of clipped vectors. So means and
covariances are corrected by what a bank of pictures lacks after both, round by round, with the same bank of latent
points each time. There are few rounds on purpose: more would give back noise, too. All of it sees noised numbers only:
post-processing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synth.images.denoise import FLOOR, ClassGaussians, positive
from synth.images.measure import ImageMeasurements
from synth.images.transform import Transform

FloatArray = npt.NDArray[np.float64]

ROUNDS = 12
STEP = 0.7
POINTS = 2048
POINTS_PER_COEFFICIENT = 6
MOST_VALUES = 1 << 32
"""Pixel values computed in all; with many classes or large grids there are fewer rounds."""


def fit(
    target: ClassGaussians, transform: Transform, measured: ImageMeasurements, *, rounds: int | None = None
) -> tuple[ClassGaussians, int]:
    """Gaussians whose pictures, measured as `measured` was, have the target's means and covariances as nearly as the
    rounds bring them.

    Returns them and the number of rounds, which follows from the sizes alone unless it is given.
    """
    classes, d = target.means.shape
    bank = latent_bank(max(POINTS, POINTS_PER_COEFFICIENT * d), d)
    grid = transform.grid_for(d)
    work = classes * len(bank) * grid[0] * grid[1] * transform.form.channels
    rounds = max(0, min(ROUNDS, MOST_VALUES // work)) if rounds is None else rounds
    weight, squares = measured.weight, np.outer(measured.weight, measured.weight)
    means, covariances = target.means.copy(), target.covariances * squares
    for c in range(classes):
        mean, covariance = (target.means[c] - measured.centres[c]) * weight, covariances[c].copy()
        least = FLOOR * float(np.trace(covariance)) / d
        for _ in range(rounds):
            pictures = clipped_pictures(means[c], covariances[c] / squares, bank, transform, grid)
            seen_mean, seen_covariance = moments(measured.clipped(c, pictures))
            means[c] += STEP * (mean - seen_mean) / weight
            covariances[c] = positive(covariances[c] + STEP * (covariance - seen_covariance), least)
    return ClassGaussians(means, covariances / squares, target.sizes), rounds


def clipped_pictures(
    mean: FloatArray, covariance: FloatArray, bank: FloatArray, transform: Transform, grid: tuple[int, int]
) -> FloatArray:
    """Coefficients [n, d] of a Gaussian's pictures after these are clipped to the range of values."""
    values, vectors = np.linalg.eigh(covariance)
    x = mean + bank @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return np.concatenate(
        [
            transform.analysed(np.clip(transform.values(part, *grid), 0.0, 1.0), len(mean))
            for part in np.array_split(x, max(1, len(x) // 512))
        ]
    )


def moments(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean [d] and covariance [d, d] of vectors [n, d]."""
    centred = x - x.mean(axis=0)
    return x.mean(axis=0), centred.T @ centred / len(x)


def latent_bank(points: int, d: int) -> FloatArray:
    """Points [points, d] with mean zero and covariance one exactly; the same for every run."""
    half = np.random.default_rng(0).standard_normal((points // 2, d))
    bank = np.concatenate([half, -half])
    return np.asarray(np.linalg.solve(np.linalg.cholesky(bank.T @ bank / len(bank)), bank.T).T)
