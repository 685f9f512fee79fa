"""Denoise: noised second moments to class means and covariances, with the noise's known share taken out.

A matrix is drawn towards a target in the eigenvectors of what lies between them: pooled covariance towards a power-law
spectrum of the frequencies (pictures have one: Field 1987), class covariances towards the pooled one. Each eigenvalue
is replaced by its best value in Frobenius norm at the known noise level, the rotation-invariant estimator for additive
Gaussian symmetric noise (Bun, Allez, Bouchaud and Potters 2016, IEEE Trans. Inf. Theory 62(12), section IV).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.images.measure import FEATURE_PART, ImageMeasurements

FloatArray = npt.NDArray[np.float64]

DECAYS = np.arange(0.0, 6.01, 0.05)
FLOOR = 1e-3
"""No direction gets less than this part of the power law's mean variance."""


@dataclass(frozen=True)
class ClassGaussians:
    """A Gaussian of coefficients for each class: `means` [classes, d], `covariances` [classes, d, d]; sizes ≥ 0."""

    means: FloatArray
    covariances: FloatArray
    sizes: FloatArray


def denoise(measured: ImageMeasurements, frequency: FloatArray) -> ClassGaussians:
    """Class Gaussians of the measured coefficients. `frequency` [≥ d] is public."""
    d, n = measured.features, np.maximum(measured.class_sizes, 1.0)
    scale = measured.clip**2 / FEATURE_PART / n
    # Noise of an entry off the diagonal, by class: what the eigenvalue shrinkage knows.
    noise = scale * measured.moment_noise / math.sqrt(2)
    apart = measured.moments[:, d, :d] * (measured.clip / math.sqrt(FEATURE_PART * (1 - FEATURE_PART)) / n)[:, None]
    apart = _shrunk_means(apart, measured.clip * measured.moment_noise / math.sqrt(2) / 0.4 / n)
    raw = measured.moments[:, :d, :d] * scale[:, None, None] - apart[:, :, None] * apart[:, None, :]
    share = n / n.sum()
    pooled_noise = math.sqrt(float(np.sum((share * noise) ** 2)))
    pooled = np.einsum("c,cij->ij", share, raw)
    law = np.diag(power_law(np.diagonal(pooled), frequency[:d], pooled_noise))
    least = FLOOR * float(np.trace(law)) / d
    centre = positive(law + shrunk(pooled - law, pooled_noise), least)
    own = [positive(centre + shrunk(matrix - centre, s), least) for matrix, s in zip(raw, noise, strict=True)]
    return ClassGaussians(
        means=measured.centres + apart / measured.weight,
        covariances=np.stack(own) / np.outer(measured.weight, measured.weight),
        sizes=np.maximum(measured.class_sizes, 0.0),
    )


def shrunk(matrix: FloatArray, noise: float) -> FloatArray:
    """The best guess at a symmetric matrix [d, d] seen under symmetric Gaussian noise (`noise` off the diagonal).

    ξ_i = λ_i − 2·d·noise²·h(λ_i), h the Hilbert transform of the spectrum; no eigenvalue changes its sign or grows.
    """
    d = len(matrix)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    spread = math.sqrt(d) * noise
    gap = values[:, None] - values[None, :]
    hilbert = (gap / (gap**2 + (spread / math.sqrt(d)) ** 2)).mean(axis=1)
    better = values - 2 * spread**2 * hilbert
    better = np.where(values >= 0, np.clip(better, 0.0, values), np.clip(better, values, 0.0)) if d > 1 else values
    return np.asarray((vectors * better) @ vectors.T)


def positive(matrix: FloatArray, least: float) -> FloatArray:
    """The nearest symmetric matrix in Frobenius norm with no eigenvalue below `least`."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.maximum(values, least)) @ vectors.T)


def power_law(variances: FloatArray, frequency: FloatArray, noise: float) -> FloatArray:
    """a·frequency^−b fitted to noised variances [d] (noise √2·`noise` each), positive everywhere."""
    f = np.maximum(frequency, 1.0)
    law: FloatArray = np.full(len(f), max(float(variances.mean()), noise, 1e-12))
    for _ in range(4):
        # Residuals weigh by the noise and by how far single variances scatter about any smooth law.
        precision = 1 / (2 * noise**2 + law**2)
        shapes = f[None, :] ** -DECAYS[:, None]
        height = (shapes * precision * variances).sum(axis=1) / (shapes**2 * precision).sum(axis=1)
        loss = (precision * (variances - height[:, None] * shapes) ** 2).sum(axis=1)
        best = int(np.argmin(np.where(height > 0, loss, np.inf)))
        if not height[best] > 0:
            break
        law = height[best] * shapes[best]
    return law


def _shrunk_means(apart: FloatArray, noise: FloatArray) -> FloatArray:
    """Class means [classes, d] about zero, drawn to zero by the noise's share of their size."""
    variance = noise[:, None] ** 2
    signal = np.maximum(np.square(apart).mean(axis=1, keepdims=True) - variance, 0.0)
    return np.asarray(apart * signal / (signal + variance))
