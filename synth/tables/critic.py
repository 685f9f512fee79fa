"""The critic: a small network that scores whole rows of bins, and so sees what pair tables cannot.

It is trained by DP-SGD (`synth.privacy.dp_sgd`), hence made of layers that treat each row by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EXAMPLE_ROWS = 8


class Critic(nn.Module):
    """Two hidden layers (linear, layer norm, ReLU) on the one-hot bins of a row and its class, and one score.

    Args:
        sizes: bins of each column; D is their sum.
        classes: number of classes C.
        hidden_size: width of a hidden layer.
    """

    def __init__(self, *, sizes: Sequence[int], classes: int, hidden_size: int) -> None:
        super().__init__()
        # The class stands as one more column behind the others.
        self.sizes = (*sizes, classes)
        width = sum(self.sizes)
        offsets = torch.tensor((0, *self.sizes[:-1])).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B] of rows [B, D + C]; high for rows that look real."""
        scores: Tensor = self.layers(x)
        return scores[:, 0]

    @torch.no_grad()
    def exchanged(self, x: Tensor, column: int) -> Tensor:
        """Scores of rows [B, D + C] with each bin of one column in turn in the place of their own [B, bins]."""
        place = slice(sum(self.sizes[:column]), sum(self.sizes[: column + 1]))
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        rest = x.clone()
        rest[:, place] = 0
        # The first layer is linear, so what a bin adds to it is one column of its weights.
        hidden = first(rest)[:, None, :] + first.weight[:, place].T
        scores: Tensor = self.layers[1:](hidden)
        return scores[:, :, 0]

    def one_hot(self, rows: Tensor) -> Tensor:
        """Bins and class of each row, whole numbers [B, columns + 1], as zeros and ones [B, D + C]."""
        x = torch.zeros(len(rows), sum(self.sizes), device=rows.device)
        return x.scatter_(1, rows.long() + self.get_buffer("offsets"), 1.0)

    def real_losses(self, rows: Tensor) -> Tensor:
        """Hinge loss of each real row [B], for `rows` as in `one_hot`."""
        return functional.relu(1 - self(self.one_hot(rows)))

    def fake_losses(self, x: Tensor) -> Tensor:
        """Hinge loss of each generated row [B], for rows [B, D + C]."""
        return functional.relu(1 + self(x))

    def example(self) -> Tensor:
        """Made-up rows of bins and class [EXAMPLE_ROWS, columns + 1]."""
        row = torch.arange(EXAMPLE_ROWS)
        return torch.stack([(row >> j % 3) % size for j, size in enumerate(self.sizes)], dim=1)
