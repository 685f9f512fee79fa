"""The steward's report on pictures whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synth.evaluate.internal.images import (
    Pictures,
    attacked,
    halved,
    image_report,
    near_copies,
    prepared,
    write_image_report,
)
from synth.image_schema import ImageSchema, parse_image_schema
from synth.images.encode import Outside


@pytest.fixture(scope="module")
def schema() -> ImageSchema:
    raw = {
        "dataset": "squares",
        "population": "squares",
        "kind": "image",
        "image": {"height": 12, "width": 12, "channels": 1},
        "target": {"name": "label", "classes": {0: "dark", 1: "bright", 2: "<none>"}},
    }
    return parse_image_schema(raw, file="s")


def pictures(count: int, seed: int, *, told: bool = True) -> Pictures:
    """Class 1 is bright in its upper half; with `told` off it is class 0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pixels = rng.integers(0, 60, (count, 12, 12, 1))
    bright = labels if told else 1 - labels
    pixels[bright == 1, :6] += 150
    return pixels.astype(np.uint16), labels


def together(*parts: Pictures) -> Pictures:
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


def test_utility_features_and_copies(schema: ImageSchema, tmp_path: Path) -> None:
    train, test = halved(pictures(400, 0))
    outside = Outside(pictures=3, labels=1)

    def report(synthetic: Pictures) -> Any:
        return image_report(train, test, synthetic, schema, learned=True, outside=outside)

    good, wrong = report(pictures(250, 1)), report(pictures(250, 2, told=False))
    assert good.accuracy_synthetic > 0.95 and good.accuracy_real > 0.95
    assert wrong.accuracy_synthetic < 0.1
    assert good.accuracy_majority < 0.7
    assert [c.name for c in good.classes] == ["dark", "bright", "<none>"]
    assert all(c.found_synthetic is not None and c.found_synthetic > 0.9 for c in good.classes[:2])
    assert (good.classes[2].real, good.classes[2].found_real) == (0.0, None)
    pixels, labels = pictures(500, 3)
    collapsed = report((pixels[labels == 1], labels[labels == 1]))
    assert collapsed.features.recall < 0.8 < good.features.recall
    assert collapsed.features.frechet > 10 * good.features.frechet
    copied = report(together(pictures(250, 2), train))
    assert copied.near_copies > 0.2 > 0.1 > good.near_copies
    assert good.membership is None
    page = write_image_report(good, test, pictures(250, 1), schema, tmp_path, name="report")
    assert json.loads((tmp_path / "report.json").read_text())["unreadable_pictures"] == 3
    words = page.read_text()
    assert "Never hand this out" in words and "&lt;none&gt;" in words and "<none>" not in words
    assert words.count("data:image/png;base64,") == 4  # two classes, real and synthetic
    assert "No synthetic picture of this class" in words


def test_membership_finds_copies_and_nothing_else(schema: ImageSchema) -> None:
    train, test = halved(pictures(800, 4))
    x, others, fresh = (prepared(p[0], 0, 255) for p in (train, test, pictures(400, 5)))
    leaky, fair = attacked(x, others, x, mu=0.1), attacked(x, others, fresh, mu=0.1)
    assert leaky is not None and fair is not None
    assert all(attack.area.value > 0.99 and attack.broken for attack in leaky.attacks)
    assert not any(attack.alarm for attack in fair.attacks)
    assert attacked(x[:10], others, fresh, mu=None) is None


def test_halves_share_no_picture() -> None:
    pixels = np.arange(9, dtype=np.uint16).reshape(9, 1, 1, 1)
    first, second = halved((pixels, np.arange(9)))
    assert sorted([*first[1], *second[1]]) == list(range(9))
    assert (first[0].reshape(-1) == first[1]).all()


def test_nearest_by_hand() -> None:
    train = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 1.0]]]])
    test = torch.tensor([[[[0.5, 0.5]]], [[[0.1, 0.1]]]])
    near, copies, chance = near_copies(train, test, torch.tensor([[[[1.0, 1.0]]], [[[0.5, 0.5]]]]))
    assert abs(near - 0.104) < 1e-5  # the 1 % quantile of .1 and .5
    assert (copies, chance) == (0.5, 0.5)


def test_large_pictures_are_made_small() -> None:
    found = prepared(np.full((2, 100, 50, 3), 200, dtype=np.uint16), 100, 300)
    assert found.shape == (2, 3, 32, 16)
    assert torch.allclose(found, torch.tensor(0.5))
