"""A pull of each class towards how it is thought to differ from the whole table. Post-processing.

A fit to noised counts follows the noise of a class that few people are in: nothing else says what they are like. So
what `synth.tables.profiles` says of it, which has shrunk its difference from the whole as far as noise explains it, is
a prior here, of a width in parts of a bin: a class of thousands is hardly pulled, a rare one stays near its profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from synth.tables.measurements import FloatArray, Measurements
from synth.tables.profiles import LEAST_SHARE

SPREAD = 2.0
"""Standard deviation of a class's factor on a bin around that of its profile."""
MOST_PULL = 30.0
"""Precision of a pull, at most, relative to that of the class's own noised counts."""


@dataclass(frozen=True)
class ClassPull:
    """By how many people a class is thought to differ from its part of the whole, and with what precision.

    Shapes: C classes, D encoded width.
    """

    part: Tensor  # [C], of all people
    difference: Tensor  # [C, D]
    precision: Tensor  # [C, D]

    def to(self, device: torch.device) -> ClassPull:
        """The same on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def loss(self, counts: Tensor) -> Tensor:
        """Precision-weighted squared residuals of one-way counts within classes [C, D]."""
        difference = counts - self.part[:, None] * counts.sum(dim=0)
        return (self.precision * (difference - self.difference) ** 2).sum()


def class_pull_of(measured: Measurements, names: Sequence[str]) -> ClassPull:
    """The pull of these columns, side by side."""
    sizes = measured.class_sizes
    found = [_pull(measured.profiles[name], sizes, measured.one_way_noise[name]) for name in names]
    difference, precision = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    arrays = (sizes / sizes.sum(), difference, precision)
    return ClassPull(*(torch.tensor(array, dtype=torch.float32) for array in arrays))


def _pull(profile: FloatArray, sizes: FloatArray, noise: float) -> tuple[FloatArray, FloatArray]:
    """Of one column the difference and its precision [C, bins]."""
    whole = sizes / sizes.sum() @ profile
    deviation = SPREAD * sizes[:, None] * np.maximum(whole, LEAST_SHARE / len(whole))
    return sizes[:, None] * (profile - whole), 1.0 / (deviation**2 + noise**2 / MOST_PULL)
