"""Shadow tables of images: what the attacks see, and their scores beside plain twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth.image_schema import ImageSchema, parse_image_schema
from synth.images.denoise import ClassGaussians
from synth.images.encode import encode
from synth.images.labelled import Labelled
from synth.images.measure import ImageMeasurements
from synth.images.model import ImageModel, model_of
from synth.images.png import write_png
from synth.images.transform import transform_of
from synth.privacy.audit import images as image_audit
from synth.privacy.audit.image_shadow import (
    measured_score,
    model_score,
    nearest_distance,
    shadow_audit_of_images,
)
from synth.privacy.audit.shadow import MEASUREMENTS
from synth.privacy.image_budget import plan_images
from synth.privacy.noise import NoiseSource

DELTA = 1e-5


class Silent(NoiseSource):
    """No noise."""

    def add_to(self, exact: Any, noise_scale: float) -> Any:
        return exact.astype(np.float64)


def schema_of(**changes: Any) -> ImageSchema:
    raw = {
        "dataset": "toy",
        "kind": "image",
        "image": {"height": 8, "width": 8},
        "target": {"classes": {0: "dark", 1: "bright"}},
    }
    return parse_image_schema(raw | changes, file="schema.yaml")


def encoded(schema: ImageSchema, folder: Path, count: int = 60) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    pixels = (rng.integers(0, 100, (count, 8, 8, 1)) + 100 * labels[:, None, None, None]).astype(np.uint16)
    rows = (Labelled(write_png(picture, 8), int(label)) for picture, label in zip(pixels, labels, strict=True))
    encode(rows, schema, transform_of(schema.image, 2), folder / "base.arrow", sample=folder / "sample")
    return folder / "base.arrow"


@pytest.mark.parametrize("person", [{}, {"privacy_unit": "patient", "max_rows_per_person": 2}])
def test_a_pipeline_without_noise_is_seen_through(
    tmp_path: Path, person: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_audit, "NoiseSource", Silent)
    schema = schema_of(**person)
    transform = transform_of(schema.image, 2)
    plan = plan_images(epsilon=1, delta=DELTA, max_rows_per_person=schema.max_rows_per_person)
    done: list[int] = []
    found = shadow_audit_of_images(
        encoded(schema, tmp_path),
        schema,
        transform,
        mechanism=image_audit.measuring(schema, transform, plan),
        delta=DELTA,
        folder=tmp_path,
        repetitions=100,
        progress=done.append,
    )
    assert done == list(range(1, 101))
    (seen,) = (attack for attack in found.attacks if attack.sees == MEASUREMENTS)
    # Nothing in the measurements is random, so this fails on a defect alone.
    assert (seen.true_positives, seen.members, seen.false_positives, seen.non_members) == (25, 25, 0, 25)
    assert seen.epsilon_lower_bound == found.reach > 0


def test_too_few_repetitions_are_refused(tmp_path: Path) -> None:
    schema = schema_of()
    with pytest.raises(ValueError, match="multiple of 4"):
        shadow_audit_of_images(
            tmp_path,
            schema,
            transform_of(schema.image, 2),
            mechanism=lambda _: pytest.fail("measured"),
            delta=DELTA,
            folder=tmp_path,
            repetitions=6,
        )


def test_the_measured_score_is_the_ratio_of_two_gaussian_likelihoods(tmp_path: Path) -> None:
    """By the released vector itself: a diagonal, and √2 times an upper triangle, with noise of one scale."""
    schema, rng = schema_of(), np.random.default_rng(1)
    base, d, noise = encoded(schema, tmp_path), 4, 3.0
    noised = rng.normal(0, 20, (2, d + 1, d + 1))
    measured = ImageMeasurements(
        centres=rng.normal(0, 0.1, (2, d)),
        class_sizes=np.array([30.0, 30.0]),
        class_size_noise=1.0,
        clip=1.5,
        weight=np.ones(d),
        moments=noised + np.swapaxes(noised, 1, 2),
        moment_noise=noise,
    )
    x = rng.integers(-4000, 4000, (1, transform_of(schema.image, 2).size))
    rest, rows = image_audit.rest_of(measured, base)
    assert rows == 60
    u = measured.vectors(np.array([1]), x)[0]

    def released(matrix: np.ndarray) -> np.ndarray:
        return np.concatenate([np.diagonal(matrix), np.sqrt(2) * matrix[np.triu_indices(d + 1, 1)]])

    without = np.square(released(rest[1])).sum()
    with_it = np.square(released(rest[1] - 3 * np.outer(u, u))).sum()
    score = measured_score(measured, base, x, 1, rows_kept=3)
    assert score == pytest.approx((without - with_it) / (2 * noise**2), rel=1e-9)


def model(schema: ImageSchema, sizes: tuple[float, float] = (30.0, 10.0)) -> tuple[ImageModel, np.ndarray]:
    rng = np.random.default_rng(2)
    roots = rng.normal(0, 0.3, (2, 3, 3))
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.01 * np.eye(3)
    gaussians = ClassGaussians(rng.normal(2, 1, (2, 3)), covariances, np.array(sizes))
    return model_of(schema, gaussians, rows=40), covariances


def test_the_models_score_is_its_log_density() -> None:
    made, covariances = model(schema_of())
    x = np.random.default_rng(3).normal(2, 1, made.transform.size)
    apart = x[:3] - made.means[1]
    density = -apart @ np.linalg.solve(covariances[1], apart) / 2 - np.linalg.slogdet(covariances[1])[1] / 2
    assert model_score(made, x, 1) == pytest.approx(np.log(0.25) + density, rel=1e-4)  # the factors are in 32 bits


def test_the_nearest_distance_is_that_to_the_only_picture_of_a_class() -> None:
    made, _ = model(schema_of(), sizes=(0.0, 10.0))
    still = ImageModel(made.schema, made.class_share, made.means, np.zeros_like(made.factors), made.rows)
    only = made.transform.pixels(still.means[1:2].astype(np.float64))[0]
    other = only.copy()
    other[0, 0, 0] = only[0, 0, 0] - 7 if only[0, 0, 0] >= 7 else only[0, 0, 0] + 7
    assert nearest_distance(still, only, 1, rows=5) == 0
    assert nearest_distance(still, other, 1, rows=5) == 7
    assert nearest_distance(still, other, 0, rows=5) == 8 * 255  # the class has no picture
