"""NIfTI: the slices of one volume as pixels, turned so that the declared axis means the same in every file.

NIfTI-1 and NIfTI-2 in one file, `.nii` or `.nii.gz`. Of the header only the shape, the type, the scaling and the
orientation are looked at.
"""

from __future__ import annotations

import gzip
from io import BytesIO

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.orientations import apply_orientation, io_orientation

from synth.image_files import NiftiReading
from synth.image_schema import ImageFormat
from synth.images.unreadable import MOST_PIXELS, Unreadable, Why
from synth.images.voi import levels_as_pixels, spread

UInt16Array = npt.NDArray[np.uint16]

GZIP_MAGIC = b"\x1f\x8b"
MOST_VOLUME_BYTES = 1 << 30
COLOUR = ("R", "G", "B")


def is_nifti(content: bytes) -> bool:
    """Whether these bytes begin like NIfTI in one file."""
    return content[344:348] == b"n+1\0" or content[4:8] == b"n+2\0"


class NiftiFile:
    """A NIfTI file whose header is read.

    Attributes:
        count: its slices across the declared axis.
        burned_in: never known.
    """

    burned_in = False

    def __init__(self, content: bytes, form: ImageFormat, reading: NiftiReading) -> None:
        """Read the header. Raises Unreadable, or anything on a damaged file."""
        if content.startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=BytesIO(content)) as stream:
                content = stream.read(MOST_VOLUME_BYTES + 1)
            if len(content) > MOST_VOLUME_BYTES:
                raise Unreadable(Why.LARGE)
        if not is_nifti(content):
            raise Unreadable(Why.UNKNOWN)
        kind = nibabel.Nifti1Image if content[344:348] == b"n+1\0" else nibabel.Nifti2Image
        image = kind.from_bytes(content)
        proxy = image.dataobj
        assert isinstance(proxy, ArrayProxy)
        shape = list(proxy.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if not 2 <= len(shape) <= 3:
            raise Unreadable(Why.SERIES)
        if min(shape) < 1 or np.prod(shape, dtype=object) * proxy.dtype.itemsize + proxy.offset > len(content):
            raise Unreadable(Why.DAMAGED)  # before so much memory is asked for
        colour = proxy.dtype.names is not None
        if (proxy.dtype.names or COLOUR)[:3] != COLOUR or (not colour and proxy.dtype.kind not in "iuf"):
            raise Unreadable(Why.PIXELS)
        stored = np.asarray(proxy.get_unscaled()).reshape([*shape, 1][:3])  # type: ignore[no-untyped-call]
        self._turned = apply_orientation(stored, io_orientation(image.affine))  # type: ignore[no-untyped-call]
        self._colour, self._slope, self._intercept = colour, float(proxy.slope), float(proxy.inter)
        self._form, self._reading = form, reading
        self.count = int(self._turned.shape[reading.axis])

    def pixels(self, place: int) -> UInt16Array:
        """One slice [h, w, 1 or 3] of the form's bits: the head or front at the top, the left at the left."""
        found = self._turned.take(place, axis=self._reading.axis).T[::-1]
        if found.size > MOST_PIXELS:
            raise Unreadable(Why.LARGE)
        if self._colour:
            channels = np.stack([found[name] for name in COLOUR], axis=2)
            return levels_as_pixels(spread(channels.astype(np.float64), 0, 255), self._form.bits)
        values = found.astype(np.float64) * self._slope + self._intercept
        return levels_as_pixels(spread(values, *self._reading.value_range), self._form.bits)[:, :, None]
