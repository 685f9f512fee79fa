"""The conditional generator G(z, c): a latent point and a class in, one distribution a column out.

Given (z, c) the columns are independent, so the generator over its fixed bank of latent points is a mixture of
product distributions: its pair tables are one matrix product, and conditioning on any columns is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Generator(nn.Module):
    """Two residual blocks (linear, layer norm, ReLU, joined with their input), one softmax a column.

    Args:
        classes: number of classes C.
        sizes: bins of each column; D is their sum.
        latent_points: latent points K in the fixed bank.
        latent_size: dimension of z.
        hidden_size: width of a block.
        randomness: torch generator for the bank (public randomness: the bank is part of the released model).
    """

    def __init__(
        self,
        *,
        classes: int,
        sizes: Sequence[int],
        latent_points: int,
        latent_size: int,
        hidden_size: int,
        randomness: torch.Generator,
    ) -> None:
        super().__init__()
        self.classes, self.sizes, self.hidden_size = classes, tuple(sizes), hidden_size
        width, first = sum(sizes), latent_size + classes
        # A bank that is used whole in every step: with fresh z each step a fit needs many times the steps.
        self.register_buffer("bank", torch.randn(latent_points, latent_size, generator=randomness))
        self.layers = nn.ModuleList([nn.Linear(first, hidden_size), nn.Linear(first + hidden_size, hidden_size)])
        self.norms = nn.ModuleList([nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)])
        self.head = nn.Linear(first + 2 * hidden_size, width)
        self.class_bias = nn.Parameter(torch.zeros(classes, width))
        widest = max(sizes)
        position = torch.cat([torch.arange(size) + j * widest for j, size in enumerate(sizes)])
        self.register_buffer("position", position, persistent=False)
        self._widest = widest

    @property
    def latent_points(self) -> int:
        """K, the size of the bank."""
        return int(self.get_buffer("bank").shape[0])

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """Column distributions [B, D] for latent points z [B, latent_size] and classes c [B]."""
        x = torch.cat([z, functional.one_hot(c, self.classes).to(z.dtype)], dim=1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.cat([x, torch.relu(norm(layer(x)))], dim=1)
        logits = self.head(x) + self.class_bias[c]
        # All columns in one softmax: laid out side by side, padded with -inf.
        padded = logits.new_full((len(logits), len(self.sizes) * self._widest), -torch.inf)
        padded[:, self.get_buffer("position")] = logits
        shares = torch.softmax(padded.view(len(logits), len(self.sizes), self._widest), dim=2)
        return shares.flatten(1)[:, self.get_buffer("position")]

    def all_points(self) -> Tensor:
        """Column distributions of the whole bank within every class: [C, K, D]."""
        bank = self.get_buffer("bank")
        points, classes = len(bank), self.classes
        z = bank.repeat(classes, 1)
        c = torch.arange(classes, device=bank.device).repeat_interleave(points)
        shares: Tensor = self(z, c)
        return shares.view(classes, points, -1)
