"""A picture: the bytes of a PNG or JPEG file as pixels of the declared form. Nothing else of a file gets past here.

A file that cannot be read is not an error: one broken picture must not decide about anything that is seen in public,
so the caller puts a blank one in its place and counts it for the steward alone.
"""

from __future__ import annotations

import math
import warnings
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from synth.image_schema import ImageFormat
from synth.images.png import is_deep, read_deep
from synth.images.unreadable import MOST_BYTES, MOST_PIXELS, Unreadable, Why

UInt16Array = npt.NDArray[np.uint16]
FloatArray = npt.NDArray[np.float64]

FORMATS = ("PNG", "JPEG")
DEEP_GREY_MODES = {"I;16", "I;16L", "I;16B", "I"}
GREY_MODES = {"1", "L", "LA", "La"}
LUMINANCE = (299, 587, 114)
"""ITU-R BT.601, in thousandths: red, green, blue."""


class PictureFile:
    """A PNG or JPEG file as the decoding process opens it.

    Attributes:
        count: always one. burned_in: never known.
    """

    count, burned_in = 1, False

    def __init__(self, content: bytes, form: ImageFormat) -> None:
        """Decode it. Raises Unreadable."""
        self._pixels = decoded(content, form)
        if self._pixels is None:
            raise Unreadable(Why.DAMAGED)

    def pixels(self, _: int) -> UInt16Array:
        """The picture [h, w, 1 or 3], of the form's bits."""
        assert self._pixels is not None
        return self._pixels


def read_picture(content: bytes | None, form: ImageFormat) -> UInt16Array | None:
    """Pixels [height, width, channels] of the declared form; None when the file cannot be read.

    A picture of other bits is scaled to the declared ones (255 and 65535 are both white), one of other channels
    becomes luminance or equal channels, transparency is left out, values are clipped to the declared range, and
    another size follows the declared rule.
    """
    found = decoded(content, form)
    return None if found is None else formed(found, form)


def decoded(content: bytes | None, form: ImageFormat) -> UInt16Array | None:
    """Pixels [h, w, 1 or 3] of the form's bits, in the size and channels they have; None when they cannot be read."""
    if content is None or not 0 < len(content) <= MOST_BYTES:
        return None
    try:
        pixels, bits = _pixels(content)
    except Exception:  # decoders raise whatever they like on a damaged file, and each of them means the same here
        return None
    return _with_bits(pixels, bits, form.bits)


def formed(pixels: UInt16Array, form: ImageFormat) -> UInt16Array:
    """Pixels [h, w, 1 or 3] of the form's bits in the declared form: its channels, range and size."""
    return resized(np.clip(with_channels(pixels, form.channels), form.low, form.high), form)


def blank(form: ImageFormat) -> UInt16Array:
    """The public picture that stands for one that cannot be read: the lowest value everywhere."""
    return np.full(form.shape, form.low, dtype=np.uint16)


def resized(pixels: UInt16Array, form: ImageFormat) -> UInt16Array:
    """A picture of any size [h, w, channels] in the declared size, by the declared rule."""
    height, width = pixels.shape[:2]
    if (height, width) == (form.height, form.width):
        return pixels
    if form.resize == "stretch":
        return _scaled(pixels, form.height, form.width)
    ratios = form.height / height, form.width / width
    if form.resize == "crop":
        # Cut first: what stands out of a long, thin picture would be larger than any memory once it is scaled.
        (y, top, high), (x, left, wide) = (
            _middle(side, asked / max(ratios)) for side, asked in ((height, form.height), (width, form.width))
        )
        return _scaled(pixels[y, x], form.height, form.width, (left, top, left + wide, top + high))
    inner = _scaled(pixels, max(1, round(min(ratios) * height)), max(1, round(min(ratios) * width)))
    out = blank(form)
    top, left = (form.height - inner.shape[0]) // 2, (form.width - inner.shape[1]) // 2
    out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out


def _middle(side: int, length: float) -> tuple[slice, float, float]:
    """The pixels that hold the middle `length` of a side, and where in them it begins and how long it is."""
    length = min(length, float(side))
    start = (side - length) / 2
    first, last = math.floor(start), min(side, math.ceil(start + length))
    return slice(first, last), start - first, min(length, last - start)


def _scaled(
    pixels: UInt16Array, height: int, width: int, box: tuple[float, float, float, float] | None = None
) -> UInt16Array:
    """A part of a picture (left, top, right, bottom; or all of it) in another size."""
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR, box))
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    low, high = int(pixels.min()), int(pixels.max())
    return np.asarray(np.clip(np.rint(np.stack(channels, axis=2)), low, high), dtype=np.uint16)


def _pixels(content: bytes) -> tuple[UInt16Array, int]:
    """Pixels [h, w, 1 or 3] as they are in the file, and how many bits they have. Raises anything."""
    if is_deep(content):
        return read_deep(content, MOST_PIXELS), 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a decoder that only warns has guessed
        with Image.open(BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError("size")
            image = ImageOps.exif_transpose(opened)
            if image.mode in DEEP_GREY_MODES:
                return np.clip(np.asarray(image)[:, :, None], 0, 65535).astype(np.uint16), 16
            grey = image.mode in GREY_MODES
            array = np.asarray(image.convert("L" if grey else "RGB"))
    return array.reshape(*array.shape[:2], -1).astype(np.uint16), 8


def with_channels(pixels: UInt16Array, channels: int) -> UInt16Array:
    """Pixels [h, w, 1 or 3] with 1 channel (luminance) or 3."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    grey = (pixels.astype(np.int64) @ np.array(LUMINANCE) + 500) // 1000
    return np.asarray(grey[:, :, None], dtype=np.uint16)


def _with_bits(pixels: UInt16Array, found: int, declared: int) -> UInt16Array:
    if found == declared:
        return pixels
    wide = pixels.astype(np.int64)
    return np.asarray(wide * 257 if declared == 16 else (wide + 128) // 257, dtype=np.uint16)
