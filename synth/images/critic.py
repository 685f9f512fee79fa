"""The critic of pictures: a small network that sees whole pictures, and so what second moments cannot.

It is trained by DP-SGD (`synth.privacy.dp_sgd`), hence made of layers that treat each picture by itself, and without
normalisation, as in DCGAN's critic under DP-SGD (Bie, Kamath, Zhang 2023, "Private GANs, revisited"). The class enters
by projection (Miyato, Koyama 2018, "cGANs with projection discriminator").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.image_schema import ImageFormat

EXAMPLE_ROWS = 8
MOST_PLACES = 4
"""Features are averaged to so many places a side, at most: large pictures would ask for long vectors."""


class ImageCritic(nn.Module):
    """Three strided convolutions, and one score: of the features, and of what the class makes of them.

    Args:
        form: the declared form, of at least 8 pixels a side.
        classes: number of classes.
        hidden_size: channels of the third convolution; the second has half of them, the first a quarter.
    """

    def __init__(self, form: ImageFormat, *, classes: int, hidden_size: int) -> None:
        super().__init__()
        self.form, self.classes = form, classes
        height, width, channels = form.shape
        places = (min(MOST_PLACES, height // 8), min(MOST_PLACES, width // 8))
        layers: list[nn.Module] = []
        for size in (hidden_size // 4, hidden_size // 2, hidden_size):
            layers += [nn.Conv2d(channels, size, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = size
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(places), nn.Flatten())
        features = hidden_size * places[0] * places[1]
        self.score = nn.Linear(features, 1)
        self.by_class = nn.Embedding(classes, features)
        nn.init.normal_(self.by_class.weight, std=features**-0.5)

    def forward(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Scores [B] of pictures [B, channels, height, width] in [-1, 1] of given classes [B]; high for real ones."""
        features = self.layers(pictures)
        scores: Tensor = self.score(features)[:, 0] + (self.by_class(labels) * features).sum(dim=1)
        return scores.float()

    def seen(self, pixels: Tensor) -> Tensor:
        """Pictures as they come, whole numbers [B, height·width·channels], in the critic's form."""
        height, width, channels = self.form.shape
        values = (pixels.float() - self.form.low) * (2 / (self.form.high - self.form.low)) - 1
        return values.clamp(-1, 1).view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()

    def real_losses(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Hinge loss of each real picture [B], for pixels as in `seen`."""
        return functional.relu(1 - self(self.seen(pixels), labels))

    def fake_losses(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Hinge loss of each generated picture [B], for pictures as in `forward`."""
        return functional.relu(1 + self(pictures, labels))

    def example(self) -> list[Tensor]:
        """Made-up pictures and their classes, as `real_losses` takes them."""
        height, width, channels = self.form.shape
        place = torch.arange(height * width * channels)
        rows = torch.arange(EXAMPLE_ROWS)[:, None]
        span = self.form.high - self.form.low
        pixels = self.form.low + ((place * (rows + 1)) % (EXAMPLE_ROWS + 3)) * span // (EXAMPLE_ROWS + 2)
        return [pixels, rows[:, 0] % self.classes]
