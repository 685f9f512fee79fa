"""The noise itself: Gaussian draws from a cryptographic stream, on a public grid; and choices by the same stream.

Torch's CPU generator keeps 32 bits of its seed and is never used here. The stream is AES-256 in counter
mode keyed from operating-system entropy; every draw is the scaled sum of four Box–Muller normals, and the
noised value is rounded to a public power-of-two grid, so that the low-order bits of a floating-point sum
say nothing about the exact count (Mironov 2012; Holohan & Braghin 2021, arXiv 2107.10138).
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

FloatArray = npt.NDArray[np.float64]

GRID_BITS = 10
"""The grid is the largest power of two not above noise_scale, divided by 2^GRID_BITS."""

_CHUNK = 1 << 18

PROTECTION = (
    "Gaussian noise from an AES-256-CTR stream keyed with operating-system entropy; each draw is half the sum of "
    "four independent normals (Box-Muller, 53-bit uniforms), added to an exact integer count or sum in double "
    f"precision and rounded to a public power-of-two grid of at most 1/{2**GRID_BITS} of the noise scale. It is "
    "accounted as the exact Gaussian mechanism; the assumption is that the double-precision draw before rounding "
    "stands for a real-valued one."
)
OF_CHOICES = (
    "Choices take the largest of the scores with Gumbel noise from the same stream (a 53-bit uniform each); nothing "
    "but the choice is kept. They are accounted as the exact exponential mechanism."
)


class NoiseSource:
    """A stream of Gaussian noise that no seed can repeat. A fork gets a key of its own."""

    def __init__(self) -> None:
        self._rekey()

    def _rekey(self) -> None:
        self._process = os.getpid()
        self._stream: CipherContext = Cipher(AES(os.urandom(32)), CTR(os.urandom(16))).encryptor()

    def _uniform(self, count: int) -> FloatArray:
        """`count` uniforms in (0, 1], 53 random bits each."""
        if os.getpid() != self._process:
            self._rekey()
        words = np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)
        return (np.right_shift(words, np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53

    def standard_normal(self, count: int) -> FloatArray:
        """`count` standard normals, each half the sum of four Box–Muller normals."""
        out = np.empty(count)
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            # Only the cosine output is used: a draw sums four normals of four separate pairs.
            radius = np.sqrt(-2.0 * np.log(self._uniform(4 * size)))
            angle = 2.0 * math.pi * self._uniform(4 * size)
            out[start : start + size] = (radius * np.cos(angle)).reshape(4, size).sum(axis=0) / 2.0
        return out

    def choose(self, scores: FloatArray, noise_scale: float) -> int:
        """The index of one score, by the exponential mechanism: with probability ∝ exp(score / noise_scale).

        That is the largest score with Gumbel noise added (Yellott 1977; Durfee, Rogers 2019, Lemma 4.2). Raises
        ValueError unless there is a score, all are finite and the noise scale is finite and positive.
        """
        if not (math.isfinite(noise_scale) and noise_scale > 0):
            raise ValueError(f"noise_scale must be finite and positive, not {noise_scale}")
        if scores.size == 0 or not np.isfinite(scores).all():
            raise ValueError("one choice needs at least one score, and finite ones")
        # A uniform of 1 stands for what lies half a step below it: no noise is infinite.
        gumbel = -np.log(np.maximum(-np.log(self._uniform(scores.size)), 2.0**-54))
        return int(np.argmax(scores / noise_scale + gumbel))

    def add_to(self, exact: npt.NDArray[Any], noise_scale: float) -> FloatArray:
        """`exact` counts plus Gaussian noise of standard deviation `noise_scale`, rounded to the public grid.

        Raises ValueError unless the noise scale is finite and positive, and the exact values are whole
        numbers below 2^50 (so that the sum is exact on the grid).
        """
        if not (math.isfinite(noise_scale) and noise_scale > 0):
            raise ValueError(f"noise_scale must be finite and positive, not {noise_scale}")
        counts = np.asarray(exact)
        if not np.issubdtype(counts.dtype, np.integer):
            raise ValueError("only whole counts are noised")
        if counts.size and max(int(counts.max()), -int(counts.min())) >= 2**50:
            raise ValueError("counts must stay below 2^50")
        noise = self.standard_normal(counts.size).reshape(counts.shape)
        grid = grid_of(noise_scale)
        return np.round((counts.astype(np.float64) + noise_scale * noise) / grid) * grid


def grid_of(noise_scale: float) -> float:
    """The public grid for a noise scale: a power of two between scale/2^(GRID_BITS+1) and scale/2^GRID_BITS."""
    return float(2.0 ** (math.floor(math.log2(noise_scale)) - GRID_BITS))
