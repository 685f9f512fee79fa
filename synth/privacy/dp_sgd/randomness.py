"""The cryptographic stream of DP-SGD: the coins that choose people, and normals in bulk."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from synth.privacy.noise import FloatArray, NoiseSource

# A chunk's uniforms stay in the processor's second-level cache.
_CHUNK = 1 << 13


class SecureStream(NoiseSource):
    """The project's AES-256-CTR stream, with coins, and with normals computed by vectorised functions.

    A step noises every parameter, so the cost of a draw matters here: this takes a third of the
    parent's time. Key, uniforms and formula are the parent's; a fork still gets a key of its own.
    """

    def coins(self, count: int, probability: float) -> npt.NDArray[np.bool_]:
        """`count` independent coins, bool [count], each true with `probability` (rounded down to a multiple of 2^-53).

        Raises ValueError unless 0 ≤ probability ≤ 1.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], not {probability}")
        return self._uniform(count) <= probability

    def standard_normal(self, count: int) -> FloatArray:
        """`count` standard normals, float64 [count], each half the sum of four Box–Muller normals."""
        out = np.empty(count)
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            uniforms = torch.from_numpy(self._uniform(8 * size))
            radius = uniforms[: 4 * size].log_().mul_(-2.0).sqrt_()
            angle = uniforms[4 * size :].mul_(2.0 * math.pi)
            normals = angle.cos_().mul_(radius).view(4, size).sum(0).div_(2.0)
            out[start : start + size] = normals.numpy()
        return out
