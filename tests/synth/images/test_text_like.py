"""Text drawn into pictures is noticed, and anatomy is not taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file

from synth.image_schema import ImageFormat
from synth.images.dicom import DicomFile
from synth.images.text_like import is_text_like

WITHOUT = [
    "693_J2KI.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPGExtended.dcm",
    "liver_1frame.dcm",
    "rtdose.dcm",
]
WITH = ["examples_palette.dcm", "examples_rgb_color.dcm", "examples_jpeg2k.dcm"]


def packaged(name: str) -> np.ndarray:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return DicomFile(Path(found).read_bytes(), ImageFormat(height=8, width=8)).pixels(0)


@pytest.mark.parametrize("name", WITHOUT)
@pytest.mark.parametrize("size", [11, 24])
def test_a_name_in_a_corner_is_noticed(name: str, size: int) -> None:
    pixels = packaged(name)
    assert not is_text_like(pixels)
    if min(pixels.shape[:2]) < 128:
        return
    image = Image.fromarray(pixels[:, :, 0].astype(np.uint8))
    ImageDraw.Draw(image).text((5, 5), "SMITH^JOHN 1961", fill=255, font=ImageFont.load_default(size))
    assert is_text_like(np.asarray(image).astype(np.uint16)[:, :, None])


@pytest.mark.parametrize("name", WITH)
def test_what_ultrasound_machines_write_is_noticed(name: str) -> None:
    assert is_text_like(packaged(name))


def test_pictures_of_any_size_and_without_contrast() -> None:
    for shape in ((1, 1, 1), (16, 65, 3), (200, 8, 1), (64, 300, 1)):
        assert not is_text_like(np.full(shape, 7, np.uint16))
    stripes = np.zeros((16, 80, 1), np.uint16)
    stripes[:, ::4] = 65_535
    assert is_text_like(stripes) and not is_text_like(stripes[:8])
