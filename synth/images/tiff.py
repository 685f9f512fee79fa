"""TIFF: the pages of one file as pixels, by Pillow; 16-bit colour, of which Pillow keeps half the bits, by imagecodecs.

A page is 8 or 16 bits a sample (or fewer), grey, palette or colour. Of its tags only those that say how to read the
pixels are looked at.
"""

from __future__ import annotations

from io import BytesIO

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from synth.image_schema import ImageFormat
from synth.images.unreadable import MOST_PIXELS, Unreadable, Why
from synth.images.voi import levels_as_pixels, spread

UInt16Array = npt.NDArray[np.uint16]

DEEP_GREY_MODES = {"I;16", "I;16L", "I;16B"}
GREY_MODES = {"1", "L", "LA", "La"}
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION = 258, 262, 274
WHITE_IS_ZERO = 0


class TiffFile:
    """A TIFF file whose directories are read.

    Attributes:
        count: its pages.
        burned_in: never known.
    """

    burned_in = False

    def __init__(self, content: bytes, form: ImageFormat) -> None:
        """Read the directories. Raises anything on a damaged file."""
        self._content, self._form = content, form
        self._image = Image.open(BytesIO(content), formats=("TIFF",))
        self.count = int(getattr(self._image, "n_frames", 1))

    def pixels(self, page: int) -> UInt16Array:
        """One page [h, w, 1 or 3] of the form's bits. Raises Unreadable, or anything on a damaged file."""
        image = self._image
        image.seek(page)
        if image.width * image.height > MOST_PIXELS:
            raise Unreadable(Why.LARGE)
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(BITS_PER_SAMPLE, (1,)))
        upright = tags.get(ORIENTATION, 1) == 1
        if bits > 16 or image.mode in {"F", "I"}:
            raise Unreadable(Why.PIXELS)
        if image.mode in DEEP_GREY_MODES:
            found = np.asarray(ImageOps.exif_transpose(image))[:, :, None]
            if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow turns over at 8 bits alone
                found = (1 << bits) - 1 - found
        elif bits > 8:
            if image.mode not in {"RGB", "RGBA"} or not upright:
                raise Unreadable(Why.PIXELS)
            found = imagecodecs.tiff_decode(self._content, index=page)[:, :, :3]
        else:
            turned, bits = ImageOps.exif_transpose(image), 8
            found = np.atleast_3d(np.asarray(turned.convert("L" if turned.mode in GREY_MODES else "RGB")))
        return levels_as_pixels(spread(found.astype(np.float64), 0, (1 << bits) - 1), self._form.bits)
