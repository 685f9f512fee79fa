"""The internal report of an image run: against a sample of the real pictures, for the steward alone.

Utility by a small network with a fixed recipe: trained on synthetic pictures and tested on real ones, beside trained
on one half of the real pictures and tested on the other. Closest pictures are a smoke alarm for copying, never a pass
mark (arXiv 2505.01524).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.files import write_whole
from synth.images.encode import Outside

IntArray = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]
Pictures = tuple[UInt16Array, IntArray]
"""Pixels [n, height, width, channels] and classes [n]."""

EPOCHS = 3
BATCH = 128
LEARNING_RATE = 2e-3
LARGEST_SIDE = 32
MOST_PICTURES = 4_000
"""More of either kind would take the report minutes."""
MOST_COMPARED = 2_000
NEAR_QUANTILE = 0.01


class SmallNetwork(nn.Module):
    """Two convolutions and two linear layers, for pictures of any size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(7),
            nn.Flatten(),
            nn.Linear(64 * 49, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores [n, classes] of pictures [n, channels, height, width]."""
        return torch.as_tensor(self.layers(pictures))


@dataclass(frozen=True)
class ImageReport:
    """Scores against real pictures.

    Attributes:
        unreadable_pictures, unknown_labels: rows of the source that were mapped by the declared rules.
        accuracy_synthetic: trained on synthetic pictures, tested on half of the sampled real ones.
        accuracy_real: trained on the other half instead; accuracy_majority: always the most frequent class.
        near_copies: share of synthetic pictures closer to a real one of the first half than `near`.
        near_by_chance: the same of real pictures of the second half.
        near: the distance (root mean square, in units of the value range) that counts as near.
    """

    synthetic_pictures: int
    real_pictures: int
    unreadable_pictures: int
    unknown_labels: int
    accuracy_synthetic: float
    accuracy_real: float
    accuracy_majority: float
    near_copies: float
    near_by_chance: float
    near: float


def image_report(
    real: Pictures, synthetic: Pictures, *, low: int, high: int, outside: Outside, seed: int = 0
) -> ImageReport:
    """Scores of synthetic pictures against a sample of the real ones. At least two of each are needed."""
    order = np.random.default_rng(seed).permutation(len(real[1]))[: 2 * MOST_PICTURES]
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    train, test = real[1][first], real[1][second]
    train_x, test_x, synthetic_x = (prepared(x, low, high) for x in (real[0][first], real[0][second], synthetic[0]))
    classes = 1 + max(int(labels.max()) for labels in (real[1], synthetic[1]))
    answers = torch.from_numpy(test)
    counts = np.bincount(train, minlength=classes)
    near, copies, chance = near_copies(train_x, test_x, synthetic_x)
    return ImageReport(
        synthetic_pictures=len(synthetic[1]),
        real_pictures=len(real[1]),
        unreadable_pictures=outside.pictures,
        unknown_labels=outside.labels,
        accuracy_synthetic=accuracy(trained(synthetic_x, synthetic[1], classes, seed=seed), test_x, answers),
        accuracy_real=accuracy(trained(train_x, train, classes, seed=seed), test_x, answers),
        accuracy_majority=float((test == counts.argmax()).mean()),
        near_copies=copies,
        near_by_chance=chance,
        near=near,
    )


def prepared(pixels: UInt16Array, low: int, high: int) -> Tensor:
    """Pictures [n, channels, h, w] in [0, 1] whose longer side has at most LARGEST_SIDE pixels."""
    found = torch.from_numpy((pixels.astype(np.float32) - low) / (high - low)).permute(0, 3, 1, 2)
    height, width = found.shape[2:]
    ratio = LARGEST_SIDE / max(height, width)
    if ratio >= 1:
        return found.contiguous()
    return functional.adaptive_avg_pool2d(found, (max(4, round(ratio * height)), max(4, round(ratio * width))))


def trained(pictures: Tensor, labels: IntArray, classes: int, *, seed: int) -> SmallNetwork:
    """The network after EPOCHS passes over the pictures; torch's global state stays as it was."""
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallNetwork(pictures.shape[1], classes)
        answers = torch.from_numpy(labels)
        orders = [torch.randperm(len(pictures)) for _ in range(EPOCHS)]
        batches = [order[i : i + BATCH] for order in orders for i in range(0, len(order), BATCH)]
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=len(batches))
        for batch in batches:
            optimizer.zero_grad()
            functional.cross_entropy(network(pictures[batch] - 0.5), answers[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a busy machine the threads of such a small network only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def accuracy(network: SmallNetwork, pictures: Tensor, answers: Tensor) -> float:
    """Share of pictures that the network labels rightly."""
    with _one_thread(), torch.inference_mode():
        guesses = torch.cat([network(pictures[i : i + 500] - 0.5).argmax(dim=1) for i in range(0, len(pictures), 500)])
    return float((guesses == answers).float().mean())


def near_copies(train: Tensor, test: Tensor, synthetic: Tensor) -> tuple[float, float, float]:
    """What counts as near, and the shares of synthetic and of other real pictures that are near one of `train`."""
    first, others, made = (x[:MOST_COMPARED].flatten(1) for x in (train, test, synthetic))
    root = float(first.shape[1]) ** 0.5
    by_chance = torch.cdist(others, first).min(dim=1).values / root
    closest = torch.cdist(made, first).min(dim=1).values / root
    near = float(torch.quantile(by_chance, NEAR_QUANTILE))
    return near, float((closest <= near).float().mean()), float((by_chance <= near).float().mean())


def write_image_report(report: ImageReport, folder: Path) -> None:
    """Write report.json and report.md to the run's internal folder."""
    write_whole(folder / "report.json", json.dumps(asdict(report), indent=1))
    write_whole(folder / "report.md", in_words(report))


def in_words(report: ImageReport) -> str:
    """The report as a person reads it."""
    return (
        "# Internal report: for the steward alone\n\n"
        "Computed on real pictures without noise. Never hand it out, and do not choose between runs by it.\n\n"
        "| | |\n|---|---|\n"
        f"| synthetic and sampled real pictures | {report.synthetic_pictures}, {report.real_pictures} |\n"
        f"| unreadable pictures in the source | {report.unreadable_pictures} |\n"
        f"| undeclared labels in the source | {report.unknown_labels} |\n"
        f"| accuracy on real pictures, trained on synthetic ones | {report.accuracy_synthetic:.3f} |\n"
        f"| the same, trained on as many real ones as are tested | {report.accuracy_real:.3f} |\n"
        f"| the same, always the most frequent class | {report.accuracy_majority:.3f} |\n"
        f"| synthetic pictures nearer than {report.near:.3f} to a real one | {report.near_copies:.4f} |\n"
        f"| other real pictures as near | {report.near_by_chance:.4f} |\n\n"
        "Many more near synthetic pictures than near real ones are an alarm for copying; few prove nothing.\n"
    )
