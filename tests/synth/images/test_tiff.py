"""TIFF: bits, byte orders, pages, and which way is up."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synth.image_schema import ImageFormat
from synth.images.tiff import MAGIC, TiffFile
from synth.images.unreadable import Unreadable, Why

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
DEEP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365


def tiff(pixels: np.ndarray | Image.Image, **options: Any) -> bytes:
    out = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, "TIFF", **options)
    return out.getvalue()


def read(content: bytes, bits: int = 16, page: int = 0) -> np.ndarray:
    assert content.startswith(MAGIC)
    return TiffFile(content, ImageFormat(height=8, width=8, bits=bits)).pixels(page)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_grey_of_8_and_16_bits(compression: str | None) -> None:
    assert (read(tiff(GREY, compression=compression), 8)[:, :, 0] == GREY).all()
    assert (read(tiff(GREY, compression=compression))[:, :, 0] == GREY * np.uint16(257)).all()
    assert (read(tiff(DEEP, compression=compression))[:, :, 0] == DEEP).all()
    assert (read(tiff(DEEP, compression=compression), 8)[:, :, 0] == np.rint(DEEP / 257)).all()


def test_other_byte_orders_and_directions_of_grey() -> None:
    assert (read(directory(DEEP, ">", 1))[:, :, 0] == DEEP).all()
    assert (read(directory(DEEP, "<", 0))[:, :, 0] == 65535 - DEEP).all()
    assert (read(directory(GREY, "<", 0), 8)[:, :, 0] == 255 - GREY).all()


def directory(pixels: np.ndarray, order: str, photometric: int, orientation: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, by the definition."""
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = 8 * pixels.itemsize
    tags = [
        (256, 4, pixels.shape[1]),
        (257, 4, pixels.shape[0]),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (274, 3, orientation),
        (277, 3, samples),
        (278, 4, pixels.shape[0]),
        (279, 4, len(data)),
    ]
    letter: Any = {"<": "little", ">": "big"}[order]
    out = (b"II*\0" if order == "<" else b"MM\0*") + (8 + len(data) + 6).to_bytes(4, letter) + data
    out += b"".join(bits.to_bytes(2, letter) for _ in range(3))
    out += len(tags).to_bytes(2, letter)
    for tag, kind, value in tags:
        count = samples if tag == 258 else 1
        body = value.to_bytes(4 if kind == 4 else 2, letter).ljust(4, b"\0")
        if count > 2:
            body = (8 + len(data)).to_bytes(4, letter)
        out += tag.to_bytes(2, letter) + kind.to_bytes(2, letter) + count.to_bytes(4, letter) + body
    return out + b"\0\0\0\0"


def test_16_bit_colour_keeps_its_bits() -> None:
    colour = np.stack([DEEP, DEEP[::-1], DEEP + np.uint16(7)], axis=2)
    for order in "<>":
        assert (read(directory(colour, order, 2)) == colour).all()


def test_colour_palette_and_bilevel() -> None:
    colour = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
    assert (read(tiff(colour), 8) == colour).all()
    assert (read(tiff(Image.fromarray(colour).convert("RGBA")), 8) == colour).all()
    palette = Image.fromarray(GREY).convert("P")
    assert (read(tiff(palette), 8) == GREY[:, :, None]).all()
    assert read(tiff(Image.fromarray(GREY).convert("1")), 8).max() == 255


def test_pages_are_apart() -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy()), Image.fromarray(GREY[:, ::-1].copy())]
    content = tiff(pages[0], save_all=True, append_images=pages[1:])
    assert TiffFile(content, ImageFormat(height=8, width=8)).count == 3
    for i in (2, 0, 1):
        assert (read(content, 8, page=i)[:, :, 0] == np.asarray(pages[i])).all()


def test_which_way_is_up() -> None:
    exif = Image.Exif()
    exif[274] = 3  # half a turn
    for pixels in (GREY, DEEP):
        bits = 8 * pixels.itemsize
        assert (read(tiff(pixels, exif=exif), bits)[:, :, 0] == pixels[::-1, ::-1]).all()


def test_what_is_refused() -> None:
    floats = tiff(Image.fromarray(GREY.astype(np.float32)))
    turned = directory(np.stack([DEEP] * 3, axis=2), "<", 2, orientation=3)
    for content in (floats, turned):
        with pytest.raises(Unreadable) as raised:
            read(content)
        assert raised.value.why == Why.PIXELS
    bomb = bytearray(directory(GREY, "<", 1))
    at = bomb.index((256).to_bytes(2, "little") + (4).to_bytes(2, "little"))
    for tag in range(2):
        bomb[at + 12 * tag + 8 : at + 12 * tag + 12] = (9_000).to_bytes(4, "little")
    with pytest.raises(Unreadable) as raised:
        read(bytes(bomb))
    assert raised.value.why == Why.LARGE
