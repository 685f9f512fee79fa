"""Noise on the clipped sum, once, and in double precision.

The noise is drawn on the CPU from the cryptographic stream, whatever device trains, and copied there.
Sum and noise are added in float64 and rounded to a public power-of-two grid of at most 1/1024 of the noise
scale, so that the low bits of a floating-point number say nothing about the exact sum.

Across processes only rank 0 draws, and adds the noise to its own part before the parts are summed. The
total then carries σC whatever the number of processes; shares of σC/√processes would be wrong as soon as
one process believed in another number. The other parts travel between processes without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from synth.privacy.dp_sgd.processes import rank_and_world_size, sum_over_processes
from synth.privacy.noise import NoiseSource, grid_of

PROTECTION = (
    "DP-SGD noise from an AES-256-CTR stream keyed with operating-system entropy, drawn on the CPU, each draw half the "
    "sum of four independent normals; added to the clipped sum in double precision and rounded to a public "
    "power-of-two grid. On a GPU the same noise is copied to the device. Per-person norms and sums are computed in "
    "single precision on the device: that they stand for real-valued ones is the assumption."
)


def noised_sum(sums: Sequence[Tensor], noise_scale: float, source: NoiseSource) -> list[Tensor]:
    """`sums` over all processes plus N(0, noise_scale²) in every coordinate, on the public grid, as float64.

    Every process gets the same values. Raises ValueError unless the noise scale is finite and positive.
    """
    if not 0 < noise_scale < float("inf"):
        raise ValueError(f"noise_scale must be finite and positive, not {noise_scale}")
    flat = torch.cat([part.reshape(-1).double() for part in sums])
    if rank_and_world_size()[0] == 0:
        normals = torch.from_numpy(source.standard_normal(flat.numel()))
        flat.add_(normals.to(flat.device), alpha=noise_scale)
    grid = grid_of(noise_scale)
    flat = sum_over_processes(flat).div_(grid).round_().mul_(grid)
    return split_like(flat, sums)


def split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """One long vector cut into the shapes of the tensors, in their order."""
    ends = accumulate(tensor.numel() for tensor in tensors)
    return [flat[end - like.numel() : end].view_as(like) for end, like in zip(ends, tensors, strict=True)]
