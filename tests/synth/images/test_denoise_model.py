"""From noised moments to a model, from a model to pictures, and the scores of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import UserError, VerificationFailed
from synth.evaluate.image_public import image_scores, moments_of
from synth.image_schema import ImageFormat, ImageSchema
from synth.images.denoise import ClassGaussians, denoise, positive, power_law, shrunk
from synth.images.fit import clipped_pictures, fit, latent_bank, moments
from synth.images.measure import ImageMeasurements
from synth.images.model import ImageModel, is_image_model, model_of
from synth.images.picture import read_picture
from synth.images.sample import arrow_schema, parse_classes, sample_images
from synth.images.transform import Transform

SchemaOf = Callable[..., ImageSchema]


def symmetric_noise(d: int, scale: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(d, d)) * scale
    return (noise + noise.T) / np.sqrt(2)


def test_shrinking_brings_a_noised_matrix_nearer() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(40, 3))
    for truth in (factor @ factor.T, np.zeros((40, 40)), np.diag(1 / np.arange(1.0, 41.0))):
        noised = truth + symmetric_noise(40, 0.3, 1)
        before, after = (np.linalg.norm(found - truth) for found in (noised, shrunk(noised, 0.3)))
        assert after < 0.75 * before
    still = factor @ factor.T
    assert np.allclose(shrunk(still, 1e-9), still)


@given(st.integers(1, 8), st.integers(0, 1000), st.floats(1e-6, 1.0))
def test_covariances_are_positive(d: int, seed: int, least: float) -> None:
    matrix = symmetric_noise(d, 1.0, seed)
    found = positive(matrix, least)
    assert np.linalg.eigvalsh(found).min() >= least * (1 - 1e-6) - 1e-12
    kept = found + np.eye(d)
    assert np.allclose(positive(kept, least / 2), kept)


def test_a_power_law_is_found_under_noise() -> None:
    f = np.arange(1.0, 200.0)
    noise = np.random.default_rng(0).normal(size=len(f)) * 0.001
    law = power_law(3 * f**-1.5 + np.sqrt(2) * noise, f, 0.001)
    assert np.abs(np.log(law[:60] / (3 * f[:60] ** -1.5))).max() < 0.2
    for hopeless in (np.zeros(5), -np.ones(5)):
        assert (power_law(hopeless, np.arange(5.0), 0.1) > 0).all()


def pictures_of_two_classes(form: ImageFormat, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Class 0 is bright on the left, class 1 on the right, each with a strength of its own."""
    rng = np.random.default_rng(3)
    labels = np.arange(count) % 2
    x = np.arange(form.width) / form.width
    strength = rng.uniform(0.3, 0.9, count)[:, None]
    line = np.where(labels[:, None] == 0, strength * (1 - x), strength * x)
    values = np.repeat(line[:, None, :], form.height, axis=1)
    return np.rint(values * 255).astype(np.uint16)[..., None], labels


@pytest.fixture(scope="module")
def learned(toy: Any, image_schema: SchemaOf) -> tuple[Any, ImageModel]:
    schema = image_schema(classes=2)
    pictures, labels = pictures_of_two_classes(schema.image, 3000)
    run = toy(schema.image, classes=2, epsilon=20, limit=48, batch=500)
    _, measured = run.measure(pictures, labels)
    fitted, _ = fit(denoise(measured, run.transform.frequency), run.transform, measured)
    return measured, model_of(schema, fitted, rows=3000)


def test_the_model_has_the_classes_means_and_spreads(learned: tuple[Any, ImageModel]) -> None:
    _, model = learned
    rng = np.random.default_rng(0)
    for label in (0, 1):
        drawn = model.transform.pixels(model.coefficients(label, 500, rng))[..., 0] / 255
        line = drawn.mean(axis=(0, 1))
        expected = 0.6 * (1 - np.arange(8) / 8) if label == 0 else 0.6 * np.arange(8) / 8
        # The noise of the test is seeded; the model's own error is below this by a factor of three.
        assert np.abs(line - expected).max() < 0.06
        brightest = drawn.mean(axis=1)[:, 0 if label == 0 else 7]
        assert 0.1 < brightest.std() < 0.25  # strength is uniform: .173 times 1 or .875


def test_a_saved_model_draws_the_same_pictures(learned: tuple[Any, ImageModel], tmp_path: Path) -> None:
    _, model = learned
    model.save(tmp_path)
    again = ImageModel.load(tmp_path)
    first, second = (pa.Table.from_batches(sample_images(m, 1500, seed=5)) for m in (model, again))
    assert first.equals(second)
    assert is_image_model(tmp_path) and not is_image_model(tmp_path / "gone")
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"coefficients":', '"c":'))
    with pytest.raises(VerificationFailed, match="image model"):
        ImageModel.load(tmp_path)


def test_rows_have_the_declared_types_classes_and_count(learned: tuple[Any, ImageModel]) -> None:
    _, model = learned
    table = pa.Table.from_batches(sample_images(model, 1001, seed=1))
    assert table.schema == arrow_schema(model.schema)
    assert table.num_rows == 1001
    counts = np.bincount(table["label"].to_numpy(), minlength=2)
    assert np.abs(counts - 1001 * model.class_share).max() <= 1  # stratified: rounded, nothing more
    pictures = table["image"].to_pylist()
    assert all(p["path"] is None for p in pictures)
    shapes = {read_picture(p["bytes"], model.schema.image).shape for p in pictures[:50]}  # type: ignore[union-attr]
    assert shapes == {(8, 8, 1)}
    one = pa.Table.from_batches(sample_images(model, 20, classes={1}))
    assert one["label"].unique().to_pylist() == [1]
    with pytest.raises(UserError, match="no picture"):
        list(sample_images(model, 5, classes=set()))


def test_conditions_on_the_label(image_schema: SchemaOf) -> None:
    schema = image_schema()
    assert parse_classes(schema, []) is None
    assert parse_classes(schema, ["label=1"]) == parse_classes(schema, ["label = class 1"]) == {1}
    assert parse_classes(schema, ["label=0|2", "label=2"]) == {2}
    for wrong, words in (("sex=1", "label=VALUE"), ("label", "label=VALUE"), ("label=9", "no such class")):
        with pytest.raises(UserError, match=words):
            parse_classes(schema, [wrong])


def test_public_scores_see_a_fit_and_a_misfit(learned: tuple[Any, ImageModel]) -> None:
    measured, model = learned

    def scores(batches: Any) -> Any:
        sums, sizes, valid, rows = moments_of(batches, model.schema, model.transform, measured)
        return image_scores(measured, model.schema, sums, sizes, valid_rows=valid, rows=rows)

    good = scores(sample_images(model, 3000, seed=0))
    assert good.rows == good.valid_rows == 3000
    assert good.one_way[0].distance < 0.02 and good.mean_two_way_distance is None
    swapped = ImageModel(model.schema, model.class_share, model.means[::-1], model.factors[::-1], model.rows)
    bad = scores(sample_images(swapped, 3000, seed=0))
    for right, wrong in zip(good.moments, bad.moments, strict=True):
        assert right.noise == wrong.noise > 0
        assert right.distance < 0.15 < wrong.distance


def test_an_empty_class_gets_no_share(image_schema: SchemaOf) -> None:
    gaussians = ClassGaussians(np.zeros((3, 2)), np.stack([np.eye(2)] * 3), np.array([60.0, 0.0, 40.0]))
    model = model_of(image_schema(), gaussians, rows=100)
    assert model.class_share.tolist() == [0.6, 0.0, 0.4]
    assert set(pa.Table.from_batches(sample_images(model, 50))["label"].to_pylist()) == {0, 2}


def measured_with(clip: float, weight: np.ndarray, centre: np.ndarray) -> ImageMeasurements:
    """Measurements of one class, of which the fit needs to know how vectors were clipped."""
    d = len(weight)
    return ImageMeasurements(centre[None], np.array([100.0]), 1.0, clip, weight, np.zeros((1, d + 1, d + 1)), 1.0)


def test_clipped_pictures_get_the_moments_asked_for() -> None:
    """Half of what a Gaussian around the darkest value draws is cut off; the fit makes up for it."""
    transform = Transform(ImageFormat(height=8, width=8), limit=6)
    means = np.zeros((1, 6))
    means[0, 0] = 1.0  # an average of 1/8, with a spread as large
    target = ClassGaussians(means, np.eye(6)[None] * 0.5, np.array([100.0]))
    bank = latent_bank(2048, 6)
    assert np.abs(bank.mean(axis=0)).max() < 1e-12 and np.allclose(bank.T @ bank / len(bank), np.eye(6))
    unclipped = measured_with(1e6, np.ones(6), np.zeros(6))

    def misfit(gaussians: ClassGaussians) -> float:
        pictures = clipped_pictures(gaussians.means[0], gaussians.covariances[0], bank, transform, (8, 8))
        mean, covariance = moments(pictures)
        return float(np.linalg.norm(mean - means[0]) + np.linalg.norm(covariance - target.covariances[0]))

    fitted, rounds = fit(target, transform, unclipped)
    assert rounds == 12 and misfit(fitted) < 0.5 * misfit(target)
    assert np.linalg.eigvalsh(fitted.covariances[0]).min() > 0
    # Well within the range of values nothing is cut, so nothing moves.
    inside = ClassGaussians(means * 4, target.covariances / 1e4, target.sizes)
    again, _ = fit(inside, transform, unclipped)
    assert np.allclose(again.means, inside.means) and np.allclose(again.covariances, inside.covariances)


def test_what_the_clipping_of_vectors_took_is_given_back() -> None:
    """The median length as clip, about a centre that is not the mean: the true moments come back from the clipped."""
    transform = Transform(ImageFormat(height=8, width=8), limit=6)
    spread, mean = np.diag([0.04, 0.03, 0.02, 0.01, 0.01, 0.01]), np.array([4.0, 0.1, 0, 0, 0, 0])
    weight, centre = np.array([1.0, 1.0, 1.2, 1.4, 1.4, 1.5]), mean + np.array([0.1, -0.1, 0, 0, 0, 0.05])
    x = np.random.default_rng(0).multivariate_normal(mean, spread, 50_000)
    lengths = np.linalg.norm((x - centre) * weight, axis=1)
    measured = measured_with(float(np.median(lengths)), weight, centre)
    seen_mean, seen_covariance = moments(measured.clipped(0, x))
    squares = np.outer(weight, weight)
    target = ClassGaussians((centre + seen_mean / weight)[None], (seen_covariance / squares)[None], np.array([1.0]))

    def wrong(gaussians: ClassGaussians) -> float:
        spread_off = np.linalg.norm(gaussians.covariances[0] - spread) / np.linalg.norm(spread)
        return float(np.linalg.norm(gaussians.means[0] - mean) + spread_off)

    fitted, _ = fit(target, transform, measured)
    assert wrong(target) > 0.3 and wrong(fitted) < 0.1


def test_a_coarser_grid_sees_the_same_coefficients() -> None:
    transform = Transform(ImageFormat(height=60, width=90, channels=3), limit=40)
    height, width = transform.grid_for(40)
    assert height < 60 and width < 90
    coefficients = np.random.default_rng(0).normal(size=(3, 40))
    for grid in ((60, 90), (height, width)):
        assert np.allclose(transform.analysed(transform.values(coefficients, *grid), 40), coefficients)
    coarse, fine = (transform.values(coefficients, *grid) for grid in ((height, width), (60, 90)))
    assert np.allclose(coarse.max(), fine.max(), rtol=0.1)
