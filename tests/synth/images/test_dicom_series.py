"""Synthetic pictures as DICOM: what is drawn comes back, nobody is named, and every file says what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_voi_lut, pixel_array

from synth.config import Source
from synth.errors import UserError
from synth.image_schema import ImageSchema
from synth.images.denoise import ClassGaussians
from synth.images.dicom_series import LABELS, write_series
from synth.images.model import ImageModel, model_of
from synth.images.picture import read_picture
from synth.images.reading import PictureReader
from synth.images.sample import sample_images
from synth.images.source import open_images

MARK = {"synthetic": "true", "epsilon": "1.0", "delta": "1e-05", "privacy_unit": "row", "run": "r1"}
SchemaOf = Callable[..., ImageSchema]


def model(schema: ImageSchema) -> ImageModel:
    classes, size = len(schema.target.classes), 6
    rng = np.random.default_rng(0)
    gaussians = ClassGaussians(
        means=rng.normal(0, 1, (classes, size)),
        covariances=np.stack([np.eye(size)] * classes),
        sizes=np.ones(classes),
    )
    return model_of(schema, gaussians, rows=9)


@pytest.mark.parametrize(("channels", "bits", "width"), [(1, 8, 7), (1, 16, 8), (3, 8, 7), (3, 16, 8)])
def test_what_is_drawn_comes_back(tmp_path: Path, image_schema: SchemaOf, channels: int, bits: int, width: int) -> None:
    schema = image_schema(height=7, width=width, channels=channels, bits=bits, dicom={"window": "file"})
    drawn = list(sample_images(model(schema), 9, seed=1))
    assert write_series(drawn, schema, tmp_path / "series", MARK) == 9
    rows = [row for batch in drawn for row in batch.to_pylist()]
    source = Source.model_validate({"folder": tmp_path / "series", "labels": tmp_path / "series" / LABELS})
    again = list(open_images(source, schema).rows())
    assert [row.label for row in again] == [row["label"] for row in rows]
    with PictureReader(schema.image) as reader:
        for row, expected in zip(again, rows, strict=True):
            found = reader.read(row.content)
            assert (found.pixels == read_picture(expected["image"]["bytes"], schema.image)).all()
            assert not found.burned_in
    for path in (tmp_path / "series").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "series").stat().st_mode & 0o777 == 0o700


def test_every_file_says_what_it_is(tmp_path: Path, image_schema: SchemaOf) -> None:
    schema = image_schema()
    write_series(sample_images(model(schema), 20, seed=1), schema, tmp_path / "series", MARK)
    files = [dcmread(path) for path in sorted((tmp_path / "series").glob("*.dcm"))]
    assert len({data.SOPInstanceUID for data in files}) == 20 and len({data.StudyInstanceUID for data in files}) == 1
    assert {data.SeriesDescription for data in files} == {f"SYNTHETIC label: class {i}" for i in range(3)}
    assert len({data.SeriesInstanceUID for data in files}) == 3
    for data in files:
        assert data.ImageType == ["DERIVED", "SECONDARY"] and data.SyntheticData == "YES"
        assert data.ConversionType == "SYN" and "epsilon=1.0; delta=1e-05" in data.DerivationDescription
        assert str(data.PatientName) == "SYNTHETIC^NOBODY" and not data.PatientBirthDate
        seen = apply_voi_lut(pixel_array(data), data)
        assert np.abs(seen.astype(float) - pixel_array(data)).max() <= 1, "a viewer shows what a PNG would"
    write_series(sample_images(model(schema), 20, seed=1), schema, tmp_path / "again", MARK)
    second = dcmread(tmp_path / "again" / "0000001.dcm")
    assert second.PixelData == files[0].PixelData and second.StudyInstanceUID != files[0].StudyInstanceUID


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, image_schema: SchemaOf) -> None:
    schema = image_schema()

    def breaking() -> object:
        yield next(iter(sample_images(model(schema), 3)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_series(breaking(), schema, tmp_path / "series", MARK)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").mkdir()
    for folder, words in ((tmp_path / "taken", "exists already"), (tmp_path / "gone" / "x", "cannot be written")):
        with pytest.raises(UserError, match=words):
            write_series(sample_images(model(schema), 3), schema, folder, MARK)
