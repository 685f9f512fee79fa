"""The audit of images passes a sound mechanism and catches broken ones.

A sound mechanism is refuted with probability below 1e-6 (theorem) and 1e-9 (noise); each defect here is far outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.image_schema import ImageSchema, parse_image_schema
from synth.images.encode import read_coefficients
from synth.images.measure import ImageMeasurements, ImageMeasurer
from synth.images.png import write_png
from synth.images.sample import arrow_schema
from synth.images.transform import Transform, transform_of
from synth.privacy.audit.images import audit_of_images
from synth.privacy.image_budget import ImagePlan, plan_images
from synth.privacy.noise import NoiseSource

DELTA = 1e-5


class Quiet(NoiseSource):
    """Noise ten times too small."""

    def add_to(self, exact: Any, noise_scale: float) -> Any:
        return super().add_to(exact, noise_scale / 10)


class Silent(NoiseSource):
    """No noise."""

    def add_to(self, exact: Any, noise_scale: float) -> Any:
        return exact.astype(np.float64)


def declared(**changes: Any) -> ImageSchema:
    raw = {
        "dataset": "toy",
        "kind": "image",
        "image": {"height": 10, "width": 10},
        "target": {"classes": {0: "dark", 1: "bright"}},
    }
    return parse_image_schema(raw | changes, file="schema.yaml")


def rows(schema: ImageSchema, count: int = 300) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    pixels = (rng.integers(0, 100, (count, *schema.image.shape)) + 100 * labels[:, None, None, None]).astype(np.uint16)
    files = [{"bytes": write_png(picture, 8), "path": None} for picture in pixels]
    expected = arrow_schema(schema)
    return [pa.record_batch([pa.array(files, expected.field(0).type), pa.array(labels)], schema=expected)]


def broken(schema: ImageSchema, transform: Transform, plan: ImagePlan, noise: NoiseSource) -> Any:
    def mechanism(files: Sequence[Path]) -> ImageMeasurements:
        return ImageMeasurer(
            read=lambda: (batch for file in files for batch in read_coefficients(file)),
            transform=transform,
            classes=2,
            plan=plan,
            noise=noise,
            charge=lambda _: None,
        ).measure()

    return mechanism


def audit(schema: ImageSchema, folder: Path, *, epsilon: float = 1.0, noise: NoiseSource | None = None) -> Any:
    transform, m = transform_of(schema.image, 2), schema.max_rows_per_person
    plan = plan_images(epsilon=epsilon, delta=DELTA, max_rows_per_person=m)
    mechanism = None if noise is None else broken(schema, transform, plan, noise)
    batches = rows(schema)
    return audit_of_images(
        batches, schema, transform, plan, delta=DELTA, folder=folder, canaries=200, mechanism=mechanism
    )


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_a_sound_mechanism_passes_and_the_noise_is_seen(tmp_path: Path, epsilon: float) -> None:
    found = audit(declared(), tmp_path, epsilon=epsilon)
    assert not found.refuted
    facts = found.facts
    assert (facts.rows, facts.canaries, facts.rows_per_canary) == (300, 200, 1)
    assert 0 <= facts.noise_epsilon_lower_bound < facts.claimed_epsilon < epsilon
    if epsilon == 10:  # 7.5 ± .6 in thirty runs; at ε = 1 so few pictures leave the clipping length to chance
        assert facts.noise_epsilon_lower_bound > 2


def test_persons_are_planted_whole(tmp_path: Path) -> None:
    found = audit(declared(privacy_unit="patient", max_rows_per_person=2), tmp_path)
    assert not found.refuted and found.facts.rows_per_canary == 2


@pytest.mark.parametrize("noise", [Quiet(), Silent()], ids=["ten times too small", "none"])
def test_too_little_noise_is_caught(tmp_path: Path, noise: NoiseSource) -> None:
    assert audit(declared(), tmp_path, noise=noise).refuted


def test_guesses_get_better_with_epsilon(tmp_path: Path) -> None:
    assert audit(declared(), tmp_path, noise=Silent()).facts.correct[0] > 190
