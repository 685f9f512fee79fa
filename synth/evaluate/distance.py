"""Distances between tables of counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def total_variation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Half the L1 distance of two histograms after each is scaled to sum to 1; in [0, 1].

    Raises ValueError when one of them does not have a positive sum, or the shapes differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"histograms of different shapes {a.shape} and {b.shape}")
    if a.sum() <= 0 or b.sum() <= 0:
        raise ValueError("a histogram without mass has no distance")
    return float(0.5 * np.abs(a / a.sum() - b / b.sum()).sum())


def noisy_distance(counts: npt.ArrayLike, noised: npt.ArrayLike, total: float) -> float:
    """Half the L1 distance between shares of `counts` and `noised` counts over the public `total`, at most 1."""
    a, b = np.asarray(counts, dtype=np.float64), np.asarray(noised, dtype=np.float64)
    return float(min(1.0, 0.5 * np.abs(a / max(a.sum(), 1.0) - b / total).sum()))


def noise_distance(cells_noise: npt.ArrayLike, total: float) -> float:
    """The distance that noise alone would show: half the expected L1 norm of the noise over `total`, at most 1.

    `cells_noise` holds the noise scale of every cell; E|N(0, s²)| = s·√(2/π).
    """
    return float(min(1.0, 0.5 * np.asarray(cells_noise, dtype=np.float64).sum() * np.sqrt(2 / np.pi) / total))
