"""The residual: nothing at first, bounded when it is loaded, and a known chance of equal pixels with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file, save_file

from synth.errors import VerificationFailed
from synth.image_schema import ImageSchema
from synth.images.equal_pixels import PixelChance
from synth.images.model import DITHER, ImageModel
from synth.images.residual import PREFIX, Residual
from synth.images.sample import draw_pixels, sample_images

Build = Callable[..., ImageModel]


@pytest.fixture
def model_with(image_schema: Callable[..., ImageSchema]) -> Build:
    """`model_with(loud=False, d=5, spread=.1, …)`: a model of pictures whose residual adds nothing, or something."""

    def build(*, loud: bool = False, d: int = 5, spread: float = 0.1, **image: Any) -> ImageModel:
        rng = np.random.default_rng(0)
        schema = image_schema(classes=2, **image)
        means = np.zeros((2, d), dtype=np.float32)
        means[:, 0] = 0.5 * (schema.image.height * schema.image.width) ** 0.5
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            residual = Residual(channels=schema.image.channels, classes=2, width=4).eval()
            if loud:
                torch.nn.init.normal_(residual.leave.weight, std=0.05)
        factors = (spread * rng.standard_normal((2, d, d))).astype(np.float32)
        return ImageModel(schema, np.array([0.5, 0.5]), means, factors, rows=50, residual=residual)

    return build


FORMS = ({}, {"height": 9, "width": 14}, {"height": 11, "width": 10, "channels": 3}, {"bits": 16})


@pytest.mark.parametrize("form", FORMS)
def test_at_first_the_pictures_are_those_of_the_moments_model(model_with: Build, form: dict[str, Any]) -> None:
    refined = model_with(**form)
    before = replace(refined, residual=None)
    first, second = (pa.Table.from_batches(sample_images(model, 1200, seed=4)) for model in (before, refined))
    assert first.equals(second)


def test_later_they_are_others_and_a_bundle_draws_them_again(model_with: Build, tmp_path: Path) -> None:
    refined = model_with(loud=True)
    refined.save(tmp_path)
    again = ImageModel.load(tmp_path)
    assert again.parameters == refined.parameters > replace(refined, residual=None).parameters
    drawn = [pa.Table.from_batches(sample_images(model, 60, seed=4)) for model in (refined, again)]
    assert drawn[0].equals(drawn[1])
    labels = np.array([0, 1, 1])
    moved, still = (
        draw_pixels(model, labels, np.random.default_rng(2)).astype(int)
        for model in (refined, replace(refined, residual=None))
    )
    assert np.abs(moved - still).max() > 3
    # The class is seen, and so is the picture: what is added differs.
    assert refined.residual is not None
    x = np.full((2, 8, 8, 1), 0.5)
    by_class = refined.residual.added(x, np.array([0, 1]))
    assert not np.allclose(by_class[0], by_class[1])
    assert refined.residual.added(x[:0], labels[:0]).shape == (0, 8, 8, 1)


def test_a_model_without_one_is_written_as_before(model_with: Build, tmp_path: Path) -> None:
    replace(model_with(), residual=None).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config) == {"format", "rows", "coefficients", "schema"}
    assert config["format"] == "dp-synth-image-generator/1"
    assert set(load_file(tmp_path / "generator.safetensors")) == {"class_share", "factors", "means"}
    assert ImageModel.load(tmp_path).residual is None


def _width(config: dict[str, Any], arrays: dict[str, Any], value: int) -> None:
    config["residual"]["width"] = value


def _array(config: dict[str, Any], arrays: dict[str, Any], name: str, change: Callable[[Any], Any]) -> None:
    arrays[PREFIX + name] = change(arrays[PREFIX + name])


DAMAGE: dict[str, Callable[..., Any]] = {
    "another width": lambda c, a: _width(c, a, 5),
    "a width that would fill the memory": lambda c, a: _width(c, a, 1 << 20),
    "no width": lambda c, a: c["residual"].pop("width"),
    "an array of another shape": lambda c, a: _array(c, a, "enter.weight", lambda x: x[:1]),
    "an array of another kind": lambda c, a: _array(c, a, "enter.weight", lambda x: x.astype(np.float64)),
    "an array that is not finite": lambda c, a: _array(c, a, "leave.bias", lambda x: x * np.nan),
    "an array too few": lambda c, a: a.pop(PREFIX + "leave.bias"),
    "an array too many": lambda c, a: a.update({PREFIX + "more": np.zeros(1, dtype=np.float32)}),
    "arrays that the config does not know": lambda c, a: c.pop("residual"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_not_loaded(model_with: Build, tmp_path: Path, damage: str) -> None:
    model_with(loud=True).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    arrays = load_file(tmp_path / "generator.safetensors")
    DAMAGE[damage](config, arrays)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(arrays, tmp_path / "generator.safetensors")
    with pytest.raises(VerificationFailed, match="image model"):
        ImageModel.load(tmp_path)


class TestTheChanceOfEqualPixels:
    def test_what_the_residual_sees_leaves_so_much_unsure(self, model_with: Build) -> None:
        """By conditioning the joint Gaussian of z and F z + τ n: I − Fᵀ (F Fᵀ + τ² I)⁻¹ F."""
        model = model_with()
        f = model.factors[1].astype(np.float64)
        wanted = np.eye(5) - f.T @ np.linalg.inv(f @ f.T + DITHER**2 * np.eye(5)) @ f
        assert np.allclose(model.unforeseen(1), wanted, rtol=0, atol=1e-10)
        assert np.array_equal(replace(model, residual=None).unforeseen(1), np.eye(5))

    def test_is_never_below_what_is_drawn(self, model_with: Build) -> None:
        """Pictures of one coefficient that hardly varies: with a residual the bound is larger, and it still holds."""
        refined = model_with(loud=True, d=2, spread=0.3)
        draws = draw_pixels(refined, np.zeros(20_000, dtype=np.int64), np.random.default_rng(3))
        seen, counts = np.unique(draws.reshape(len(draws), -1), axis=0, return_counts=True)
        most = seen[counts.argmax()].reshape(8, 8, 1)
        bound = PixelChance(refined, np.array([1, 0]))(most)
        assert PixelChance(replace(refined, residual=None), np.array([1, 0]))(most) < bound < 1
        # Seeded. By far the most frequent picture of all: its share is the hardest case for the bound.
        assert counts.max() / len(draws) < bound
