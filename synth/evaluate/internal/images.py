"""The internal report on pictures: synthetic ones against real ones, for the steward alone.

Utility by a small network with a fixed recipe: trained on synthetic pictures and tested on real ones, beside trained
on other real pictures. Distances by that network's features. Closest pictures are a smoke alarm for copying, never a
pass mark (arXiv 2505.01524). A run's own report halves a sample of the pictures it has learned; `synth evaluate` takes
pictures that the run has not seen, and attacks membership with them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.durations import Duration
from synth.evaluate.internal.image_features import FeatureScores, feature_scores
from synth.evaluate.internal.membership import FEWEST_ROWS, Membership, attacks_by_distance
from synth.evaluate.internal.page import image_page
from synth.files import write_whole
from synth.image_schema import ImageSchema
from synth.images.contact_sheet import side_by_side
from synth.images.encode import Outside
from synth.images.noticed import Places
from synth.images.png import write_png
from synth.threads import torch_threads

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
FEWEST_PICTURES = 20
SHEET_PICTURES, SHEET_COLUMNS = 24, 8


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
class ClassScore:
    """One class: its shares of real and of synthetic pictures, and the share of its real test pictures that the network
    finds when it has learned from synthetic and from real pictures; None without any."""

    name: str
    real: float
    synthetic: float
    found_synthetic: float | None
    found_real: float | None


@dataclass(frozen=True)
class ImageReport:
    """Scores against real pictures.

    Attributes:
        train, test: real pictures compared with; `learned` says whether the run has learned the test pictures, too.
        unreadable_pictures, unknown_labels: rows of the source that were mapped by the declared rules; None when the
            source was not read.
        accuracy_synthetic: the network trained on synthetic pictures, tested on `test`.
        accuracy_real: trained on `train` instead; accuracy_majority: always the most frequent class.
        features: synthetic pictures against `test`, by features; features_real: `train` against `test`.
        accuracy_moments, features_moments: the same of pictures of the moments alone; None where the model has no more.
        near_copies: share of synthetic pictures closer to one of `train` than `near`.
        near_by_chance: the same of `test`.
        near: the distance (root mean square, in units of the value range) that counts as near.
        membership: attacks on `train` with `test` as other people; None where the run has learned both.
        noticed: how many pictures of the source could not be read or should be looked at, by what there is to say.
        places: of each, where the first of them are: row of the source and picture in its file, from 1.
    """

    synthetic_pictures: int
    train: int
    test: int
    learned: bool
    unreadable_pictures: int | None
    unknown_labels: int | None
    accuracy_synthetic: float
    accuracy_real: float
    accuracy_majority: float
    classes: tuple[ClassScore, ...]
    features: FeatureScores
    features_real: FeatureScores
    accuracy_moments: float | None
    features_moments: FeatureScores | None
    near_copies: float
    near_by_chance: float
    near: float
    noticed: dict[str, int]
    places: Places
    membership: Membership | None


def halved(pictures: Pictures, *, seed: int = 0) -> tuple[Pictures, Pictures]:
    """Two random halves of at most MOST_PICTURES each."""
    order = np.random.default_rng(seed).permutation(len(pictures[1]))[: 2 * MOST_PICTURES]
    first, second = np.array_split(order, 2)
    return (pictures[0][first], pictures[1][first]), (pictures[0][second], pictures[1][second])


def image_report(
    train: Pictures,
    test: Pictures,
    synthetic: Pictures,
    schema: ImageSchema,
    *,
    learned: bool,
    outside: Outside | None = None,
    moments: Pictures | None = None,
    mu: float | None = None,
    seed: int = 0,
) -> ImageReport:
    """Scores of synthetic pictures. At least FEWEST_PICTURES of each kind say anything.

    Args:
        train: real pictures that the run has learned.
        test: others, which the run has learned too when `learned`.
        synthetic: the bundle's pictures.
        schema: their form and classes.
        outside: what of the source was mapped by the declared rules.
        moments: pictures of the moments alone; None where the model adds nothing to them.
        mu: what the privacy statement promises, for the attacks; None when unknown.
        seed: of the network.
    """
    low, high = schema.image.low, schema.image.high
    train_x, test_x, synthetic_x = (prepared(pixels, low, high) for pixels, _ in (train, test, synthetic))
    names = [str(name) for name in schema.target.classes.values()]
    taught_by_real = trained(train_x, train[1], len(names), seed=seed)
    taught = trained(synthetic_x, synthetic[1], len(names), seed=seed)
    guesses, guesses_real = answers(taught, test_x), answers(taught_by_real, test_x)
    seen = [features_of(taught_by_real, x[:MOST_COMPARED]) for x in (train_x, test_x, synthetic_x)]
    near, copies, chance = near_copies(train_x, test_x, synthetic_x)
    before = None
    if moments is not None:
        x = prepared(moments[0], low, high)
        right = answers(trained(x, moments[1], len(names), seed=seed), test_x) == test[1]
        before = float(right.mean()), feature_scores(seen[1], features_of(taught_by_real, x[:MOST_COMPARED]))
    return ImageReport(
        synthetic_pictures=len(synthetic[1]),
        train=len(train[1]),
        test=len(test[1]),
        learned=learned,
        unreadable_pictures=None if outside is None else outside.pictures,
        unknown_labels=None if outside is None else outside.labels,
        accuracy_synthetic=float((guesses == test[1]).mean()),
        accuracy_real=float((guesses_real == test[1]).mean()),
        accuracy_majority=float((test[1] == np.bincount(train[1]).argmax()).mean()),
        classes=tuple(
            ClassScore(
                name=name,
                real=float((test[1] == c).mean()),
                synthetic=float((synthetic[1] == c).mean()),
                found_synthetic=_share(guesses[test[1] == c] == c),
                found_real=_share(guesses_real[test[1] == c] == c),
            )
            for c, name in enumerate(names)
        ),
        features=feature_scores(seen[1], seen[2]),
        features_real=feature_scores(seen[1], seen[0]),
        accuracy_moments=None if before is None else before[0],
        features_moments=None if before is None else before[1],
        near_copies=copies,
        near_by_chance=chance,
        near=near,
        noticed={} if outside is None else outside.noticed,
        places={} if outside is None else outside.places,
        membership=None if learned else attacked(train_x, test_x, synthetic_x, mu=mu),
    )


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None


def attacked(train: Tensor, test: Tensor, synthetic: Tensor, *, mu: float | None) -> Membership | None:
    """Membership attacks by the distance of pixels; half of `test` serves as reference. None for too few pictures."""
    others, reference = torch.tensor_split(test, 2)
    people = min(MOST_COMPARED, len(train), len(others))
    records = min(MOST_COMPARED, len(reference), len(synthetic))
    if min(people, records) < FEWEST_ROWS:
        return None
    near = [
        [
            torch.cdist(group[:people].flatten(1), table[:records].flatten(1)).min(dim=1).values.double().numpy()
            for group in (train, others)
        ]
        for table in (synthetic, reference)
    ]
    return attacks_by_distance(near[0], near[1], reference_size=records, mu=mu)


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
    with torch_threads(1), torch.random.fork_rng(devices=[]):
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


def answers(network: SmallNetwork, pictures: Tensor) -> IntArray:
    """The class that the network gives each picture [n]."""
    return np.asarray(_in_batches(lambda x: network(x).argmax(dim=1), pictures).numpy(), dtype=np.int64)


def features_of(network: SmallNetwork, pictures: Tensor) -> npt.NDArray[np.float64]:
    """What the network's last hidden layer makes of pictures [n, 128]."""
    return np.asarray(_in_batches(network.layers[:-1], pictures).double().numpy())


def _in_batches(work: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    with torch_threads(1), torch.inference_mode():
        return torch.cat([work(pictures[i : i + 500] - 0.5) for i in range(0, len(pictures), 500)])


def near_copies(train: Tensor, test: Tensor, synthetic: Tensor) -> tuple[float, float, float]:
    """What counts as near, and the shares of synthetic and of other real pictures that are near one of `train`."""
    first, others, made = (x[:MOST_COMPARED].flatten(1) for x in (train, test, synthetic))
    root = float(first.shape[1]) ** 0.5
    by_chance = torch.cdist(others, first).min(dim=1).values / root
    closest = torch.cdist(made, first).min(dim=1).values / root
    near = float(torch.quantile(by_chance, NEAR_QUANTILE))
    return near, float((closest <= near).float().mean()), float((by_chance <= near).float().mean())


def write_image_report(
    report: ImageReport,
    real: Pictures,
    synthetic: Pictures,
    schema: ImageSchema,
    folder: Path,
    *,
    name: str,
    durations: Sequence[Duration] = (),
) -> Path:
    """Write NAME.html, with some pictures of each class, and NAME.json, each whole; returns the page's path.

    `durations` are the run's stages so far, for the report that a run leaves.
    """
    took = [asdict(duration) for duration in durations]
    write_whole(folder / f"{name}.json", json.dumps(asdict(report) | ({"durations": took} if took else {}), indent=1))
    sheets = [[_sheet(pictures, c, schema) for pictures in (real, synthetic)] for c in range(len(report.classes))]
    page = folder / f"{name}.html"
    write_whole(page, image_page(report, schema.dataset, sheets, took))
    return page


def _sheet(pictures: Pictures, label: int, schema: ImageSchema) -> str | None:
    """The first pictures of a class side by side, as a data URI; None without any."""
    pixels = pictures[0][pictures[1] == label][:SHEET_PICTURES]
    if not len(pixels):
        return None
    png = write_png(side_by_side(pixels, SHEET_COLUMNS, schema.image.low), schema.image.bits)
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
