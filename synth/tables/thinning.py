"""Thinning: one noisy measurement as two with independent noise (Gaussian thinning). Free of budget."""

from __future__ import annotations

import torch
from torch import Tensor


def thinned(value: Tensor, precision: Tensor, t: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`value` + t·s·e and `value` − s·e/t, with s the noise scale of each cell (none where the precision is 0)."""
    scale = torch.where(precision > 0, precision.clamp(min=1e-30).rsqrt(), torch.zeros(()))
    e = torch.randn(value.shape, generator=generator) * scale
    return value + t * e, value - e / t
