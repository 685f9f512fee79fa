"""The working file of pixels: back as they were, whose they are, and for their owner's eyes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth.image_schema import ImageSchema, parse_image_schema
from synth.images.pictures import pictures_beside, pixel_file, read_pictures


def schema_of(**image: Any) -> ImageSchema:
    raw = {
        "dataset": "toy",
        "kind": "image",
        "image": {"height": 4, "width": 5, **image},
        "target": {"classes": {0: "a", 1: "b"}},
        "privacy_unit": "patient",
        "max_rows_per_person": 2,
    }
    return parse_image_schema(raw, file="schema.yaml")


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", [{}, {"bits": 16}, {"channels": 3}])
def test_pictures_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any], sealed: bool
) -> None:
    if sealed:
        monkeypatch.setenv("SYNTH_WORKING_KEY", "ab" * 32)
    schema, rng = schema_of(**form), np.random.default_rng(0)
    pixels = rng.integers(0, schema.image.high + 1, (7, *schema.image.shape)).astype(np.uint16)
    pixels[0], pixels[1] = 0, schema.image.high
    labels, persons = [0, 1, 1, 0, 1, 0, 0], np.array([0, 0, 1, 2, 2, 3, 4])
    with pixel_file(tmp_path / "pixels.arrow", schema) as file:
        for part in (slice(0, 3), slice(3, 7)):
            file.append(pixels[part], labels[part], persons[part])
    found = read_pictures(tmp_path / "pixels.arrow", schema, destination=tmp_path / "pixels.npy")
    assert np.array_equal(found.pixels, pixels.reshape(7, -1))
    assert found.labels.tolist() == labels
    assert found.persons is not None and found.persons.tolist() == persons.tolist()
    assert repr(found) == "PrivatePictures(…)"
    assert (tmp_path / "pixels.npy").exists() is not sealed
    if not sealed:
        assert isinstance(found.pixels, np.memmap)
        assert stat.S_IMODE((tmp_path / "pixels.npy").stat().st_mode) == 0o600
        beside = pictures_beside(tmp_path / "pixels.arrow", schema, tmp_path / "pixels.npy")
        assert np.array_equal(beside.pixels, found.pixels) and not beside.pixels.flags.writeable
        assert beside.labels.tolist() == labels and beside.persons is not None
        assert beside.persons.tolist() == persons.tolist()


def test_each_row_a_person(tmp_path: Path, image_schema: Callable[..., ImageSchema]) -> None:
    schema = image_schema(height=4, width=4)
    with pixel_file(tmp_path / "pixels.arrow", schema) as file:
        file.append(np.zeros((2, 4, 4, 1), dtype=np.uint16), [0, 2], None)
    assert read_pictures(tmp_path / "pixels.arrow", schema, destination=tmp_path / "p.npy").persons is None
