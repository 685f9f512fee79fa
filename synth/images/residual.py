"""The residual: what a refined generator adds to a picture that the moments' model has drawn.

A convolutional network with two strides down and two up, whose last layer starts at zero: then it adds exactly nothing.
It sees noised numbers, generated pictures and public ones only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.image_schema import ImageSchema
from synth.threads import torch_threads

FloatArray = npt.NDArray[np.float64]

PREFIX = "residual."
"""Of its arrays' names in a model file."""
WIDTHS = range(4, 513)
AT_ONCE = 1 << 20
"""Pixels that go through the network at a time, for memory; part of what a seed means."""


class Residual(nn.Module):
    """Pictures [B, channels, height, width] and their classes [B] to what is added to them, of the same shape.

    Args:
        channels: of a picture.
        classes: number of classes.
        width: channels of the first convolution; the inner ones have four times as many.
    """

    def __init__(self, *, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.further_down = nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)
        self.by_class = nn.Embedding(classes, 4 * width)
        self.middle = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.up = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.further_up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """What is added, in units of the value range; the pictures come in those units too, and need not be clipped."""
        fine = functional.leaky_relu(self.enter(2 * pictures - 1), 0.2)
        coarse = functional.leaky_relu(self.down(fine), 0.2)
        inner = functional.leaky_relu(self.further_down(coarse) + self.by_class(labels)[:, :, None, None], 0.2)
        inner = inner + functional.leaky_relu(self.middle(inner), 0.2)
        inner = functional.interpolate(inner, size=coarse.shape[2:])
        coarse = coarse + functional.leaky_relu(self.up(inner), 0.2)
        coarse = functional.interpolate(coarse, size=fine.shape[2:])
        added: Tensor = self.leave(fine + functional.leaky_relu(self.further_up(coarse), 0.2))
        return added.float()

    def added(self, values: FloatArray, labels: npt.NDArray[np.int64]) -> FloatArray:
        """The same for numpy's arrays, [n, height, width, channels], a part after the other, on one thread."""
        height, width = values.shape[1:3]
        at_once = max(1, AT_ONCE // (height * width))
        with torch_threads(1), torch.inference_mode():
            parts = [
                self(
                    torch.from_numpy(values[i : i + at_once]).float().permute(0, 3, 1, 2),
                    torch.from_numpy(labels[i : i + at_once]),
                )
                for i in range(0, len(values), at_once)
            ]
            return np.asarray(torch.cat(parts).permute(0, 2, 3, 1).double().numpy()) if parts else 0 * values

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its weights by the names they have in a model file."""
        return {PREFIX + name: value.numpy() for name, value in self.state_dict().items()}


def residual_for(schema: ImageSchema, hidden_size: int) -> Residual:
    """A new residual, beside a critic of that size."""
    width = min(max(hidden_size // 8, WIDTHS[0]), WIDTHS[-1])
    return Residual(channels=schema.image.channels, classes=len(schema.target.classes), width=width)


def assemble(width: int, arrays: Mapping[str, npt.NDArray[Any]], *, channels: int, classes: int) -> Residual:
    """The network of a model file's config and arrays. Raises ValueError or RuntimeError when they are not of one."""
    if width not in WIDTHS:
        raise ValueError("width")
    with torch.device("meta"):  # nothing is laid out before the file's own arrays are known to fit
        residual = Residual(channels=channels, classes=classes, width=width)
    wanted = {PREFIX + name: tuple(value.shape) for name, value in residual.state_dict().items()}
    given = {name: array.shape for name, array in arrays.items() if array.dtype == np.float32}
    if given != wanted or len(given) != len(arrays) or not all(np.isfinite(a).all() for a in arrays.values()):
        raise ValueError("not this format")
    weights = {name.removeprefix(PREFIX): torch.from_numpy(array.copy()) for name, array in arrays.items()}
    residual.load_state_dict(weights, assign=True)
    return residual.eval()
