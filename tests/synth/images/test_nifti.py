"""NIfTI: slices across an axis that means the same in every file, and values by the declared range."""

from __future__ import annotations

import gzip
from typing import Any

import nibabel
import numpy as np
import pytest

from synth.image_schema import ImageFormat
from synth.images.nifti import NiftiFile, is_nifti
from synth.images.unreadable import Unreadable, Why

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
RAS = np.eye(4)


def nifti(volume: np.ndarray, affine: np.ndarray = RAS, kind: Any = nibabel.Nifti1Image) -> bytes:
    image = kind(volume, affine)
    image.header["descrip"] = b"zq-canary-descrip"
    return bytes(image.to_bytes())


def opened(content: bytes, **reading: Any) -> NiftiFile:
    nifti = {"value_range": [0, 255]} | reading
    form = ImageFormat.model_validate({"height": 8, "width": 8, "nifti": nifti})
    assert form.nifti is not None
    return NiftiFile(content, form, form.nifti)


def why(content: bytes, **reading: Any) -> Why:
    with pytest.raises(Unreadable) as raised:
        opened(content, **reading).pixels(0)
    return raised.value.why


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
def test_slices_across_each_axis(kind: Any, packed: bool) -> None:
    content = nifti(VOLUME, kind=kind)
    assert is_nifti(content)
    content = gzip.compress(content) if packed else content
    for axis in range(3):
        file = opened(content, axis=axis)
        assert file.count == VOLUME.shape[axis]
        for place in range(file.count):
            # The second of the axes that are left runs upwards, as in a viewer.
            assert (file.pixels(place)[:, :, 0] == VOLUME.take(place, axis).T[::-1]).all()


def test_the_same_volume_stored_in_another_order_gives_the_same_slices() -> None:
    # Stored from head to foot, then front to back, then left to right.
    stored = VOLUME.transpose(2, 1, 0)[::-1, ::-1]
    affine = np.array([[0.0, 0, 1, 0], [0, -1, 0, 4], [-1, 0, 0, 5], [0, 0, 0, 1]])
    for axis in range(3):
        first, second = (opened(content, axis=axis) for content in (nifti(VOLUME), nifti(stored, affine)))
        assert first.count == second.count
        for place in range(first.count):
            assert (first.pixels(place) == second.pixels(place)).all()


def test_values_follow_the_scaling_and_the_declared_range() -> None:
    image = nibabel.Nifti1Image(np.array([[[0], [10], [20], [30]]] * 4, dtype=np.int16), RAS)
    image.header.set_slope_inter(2, -10)  # -10, 10, 30, 50
    # nibabel writes what it is given; what is meant by it stands in the header.
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([2, -10], dtype="<f4").tobytes()
    found = opened(bytes(content), value_range=[0, 40]).pixels(0)[:, 0, 0]
    assert found[::-1].tolist() == [0, 64, 191, 255]
    floats = np.array([[[np.nan], [-np.inf], [np.inf], [0.5]]] * 4, dtype=np.float32)
    found = opened(nifti(floats), value_range=[0, 1]).pixels(0)[:, 0, 0]
    assert found[::-1].tolist() == [0, 0, 255, 128]


def test_flat_and_coloured_volumes() -> None:
    assert opened(nifti(VOLUME[:, :, 0])).count == 1
    assert opened(nifti(VOLUME[:, :, :, None, None])).count == 6
    colour = np.zeros((4, 5, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"] = 200
    assert (opened(nifti(colour)).pixels(1) == [0, 200, 0]).all()


def test_what_is_refused() -> None:
    assert why(nifti(np.zeros((4, 4, 4, 3), np.int16))) == Why.SERIES
    assert why(nifti(VOLUME.astype(np.complex64))) == Why.PIXELS
    assert why(nifti(VOLUME)[:-1]) == Why.DAMAGED
    bomb = bytearray(nifti(VOLUME))
    bomb[42:48] = np.array([32767] * 3, dtype="<i2").tobytes()
    assert why(bytes(bomb)) == Why.DAMAGED
    assert why(gzip.compress(b"no volume" * 100)) == Why.UNKNOWN
    assert not is_nifti(b"ni1\0" * 100)
