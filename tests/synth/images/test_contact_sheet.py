"""Sheets of synthetic pictures, and what lies between pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synth.image_schema import ImageFormat, ImageSchema
from synth.images.contact_sheet import picture_sheets, side_by_side
from synth.images.denoise import ClassGaussians
from synth.images.interpolation import between_classes, transport, within_class
from synth.images.model import ImageModel, model_of
from synth.images.picture import read_picture

D = 6


def covariance(seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((D, D))
    return np.asarray(root @ root.T / D + 0.1 * np.eye(D))


@pytest.fixture
def model(image_schema: Callable[..., ImageSchema]) -> ImageModel:
    """Three classes, of which the second has no share."""
    means = np.random.default_rng(0).uniform(1, 3, (3, D))
    gaussians = ClassGaussians(means, np.stack([covariance(i) for i in range(3)]), np.array([60.0, 0.0, 40.0]))
    return model_of(image_schema(), gaussians, rows=100)


def test_a_sheet_for_each_class_that_is_drawn_and_for_each_and_the_next(model: ImageModel, tmp_path: Path) -> None:
    sheets = {sheet.file: sheet for sheet in picture_sheets(model, tmp_path, np.random.default_rng(0))}
    names = ["between-0-2", "class-0", "class-2", "within-0", "within-2"]
    assert sorted(sheets) == [f"pictures/{name}.png" for name in names]
    assert sorted(path.stem for path in (tmp_path / "pictures").iterdir()) == names
    between = sheets["pictures/between-0-2.png"]
    assert (between.shows, between.classes) == ("between", ("class 0", "class 2"))
    for file, sheet in sheets.items():
        assert (sheet.width, sheet.height) == (71, 71)
        pixels = read_picture((tmp_path / file).read_bytes(), ImageFormat(height=71, width=71))
        assert pixels is not None and (pixels[8::9] == 0).all() and pixels.any()


def test_side_by_side() -> None:
    tiles = side_by_side(np.full((3, 2, 2, 1), 7, dtype=np.uint16), 2, 1)
    assert tiles[:, :, 0].tolist() == [[7, 7, 1, 7, 7], [7, 7, 1, 7, 7], [1] * 5, [7, 7, 1, 1, 1], [7, 7, 1, 1, 1]]


def test_every_picture_within_a_class_is_a_draw_from_it(model: ImageModel) -> None:
    rng, centre = np.random.default_rng(1), model.means[2]
    grids = np.stack([within_class(model, 2, 3, rng).reshape(3, 3, D) for _ in range(20_000)])
    for i, j in ((0, 0), (0, 1), (1, 1), (2, 2)):
        drawn = grids[:, i, j] - centre
        # Seeded; the standard error of an entry is below .03.
        assert np.abs(drawn.mean(axis=0)).max() < 0.08
        assert np.abs(drawn.T @ drawn / len(drawn) - covariance(2)).max() < 0.1
    # Neighbours on the way are nearer to each other than the corners are.
    step = np.square(grids[:, 0, 1] - grids[:, 0, 0]).sum(axis=1).mean()
    assert step < 0.5 * np.square(grids[:, 0, 2] - grids[:, 0, 0]).sum(axis=1).mean()


def test_a_way_between_classes_starts_in_one_and_ends_in_the_other(model: ImageModel) -> None:
    rng = np.random.default_rng(2)
    lines = np.concatenate([between_classes(model, 0, 2, 3, rng).reshape(3, 3, D) for _ in range(4_000)])
    for at, label in ((0, 0), (2, 2)):
        drawn = lines[:, at] - model.means[label]
        assert np.abs(np.cov(drawn.T) - covariance(label)).max() < 0.15  # seeded; standard error below .04
    assert np.allclose(lines[:, 1], (lines[:, 0] + lines[:, 2]) / 2)


@pytest.mark.parametrize("second", [1, 0])
def test_transport_brings_one_covariance_to_the_other_by_the_shortest_way(second: int) -> None:
    a, b = covariance(0), covariance(second)
    moved = transport(np.linalg.cholesky(a), np.linalg.cholesky(b))
    assert np.allclose(moved @ a @ moved.T, b)
    # The gradient of a convex function: symmetric, positive (Brenier); nothing moves when there is nothing to do.
    assert np.allclose(moved, moved.T) and np.linalg.eigvalsh(moved).min() > 0
    assert second or np.allclose(moved, np.eye(D))


def test_a_direction_without_spread_stays_without() -> None:
    flat = np.diag([1.0, 2.0, 0.0])
    moved = transport(flat, np.eye(3))
    assert np.allclose(moved, np.diag([1.0, 0.5, 0.0]))
