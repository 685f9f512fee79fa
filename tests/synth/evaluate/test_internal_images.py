"""The steward's report on pictures whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from synth.evaluate.internal.images import image_report, near_copies, prepared, write_image_report
from synth.images.encode import Outside


def pictures(count: int, seed: int, *, told: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Class 1 is bright in its upper half; with `told` off it is class 0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pixels = rng.integers(0, 60, (count, 12, 12, 1))
    bright = labels if told else 1 - labels
    pixels[bright == 1, :6] += 150
    return pixels.astype(np.uint16), labels


def test_utility_and_copies(tmp_path: Path) -> None:
    real = pictures(400, 0)
    outside = Outside(pictures=3, labels=1)
    good = image_report(real, pictures(250, 1), low=0, high=255, outside=outside)
    wrong = pictures(250, 2, told=False)
    copied = image_report(
        real, tuple(np.concatenate(both) for both in zip(wrong, real, strict=True)), low=0, high=255, outside=outside
    )
    assert good.accuracy_synthetic > 0.95 and good.accuracy_real > 0.95
    assert image_report(real, wrong, low=0, high=255, outside=outside).accuracy_synthetic < 0.1
    assert good.accuracy_majority < 0.7
    assert copied.near_copies > 0.2 > 0.1 > good.near_copies
    write_image_report(good, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["unreadable_pictures"] == 3
    assert "never hand it out" in (tmp_path / "report.md").read_text().lower()


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
