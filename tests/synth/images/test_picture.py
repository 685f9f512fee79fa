"""Files to pixels of the declared form: every kind of file, every size, and whatever is broken."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from synth.image_schema import ImageFormat
from synth.images.picture import blank, read_picture, resized
from synth.images.png import SIGNATURE, is_deep, read_deep, write_png
from synth.parquet import DIGITAL_SOURCE_TYPE

FileOf = Callable[..., bytes]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_written_picture_is_read_back_exactly(channels: int, bits: int) -> None:
    form = ImageFormat(height=9, width=13, channels=channels, bits=bits)
    pixels = RNG.integers(0, 1 << bits, form.shape).astype(np.uint16)
    content = write_png(pixels, bits)
    assert (read_picture(content, form) == pixels).all()
    with Image.open(BytesIO(content)) as image:
        image.load()
        assert image.size == (13, 9)
        assert DIGITAL_SOURCE_TYPE in image.info["XML:com.adobe.xmp"]
        if bits == 8:
            assert (np.asarray(image).reshape(form.shape) == pixels).all()
        elif channels == 1:
            assert (np.asarray(image) == pixels[:, :, 0]).all()


def test_the_mark_of_a_png_is_an_itxt_chunk_before_the_pixels() -> None:
    content = write_png(np.zeros((4, 4, 1), dtype=np.uint16), 8)
    kinds, at = [], len(SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(body)
        kinds.append(body[:4])
        at += 12 + length
    assert kinds == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]


def test_files_of_other_kinds(file_of: FileOf) -> None:
    grey = RNG.integers(0, 256, (8, 8)).astype(np.uint8)
    form = ImageFormat(height=8, width=8)
    assert (read_picture(file_of(grey), form)[:, :, 0] == grey).all()  # type: ignore[index]
    deep = read_picture(file_of(grey), ImageFormat(height=8, width=8, bits=16))
    assert (deep[:, :, 0] == grey.astype(int) * 257).all()  # type: ignore[index]
    shallow = read_picture(file_of(grey.astype(np.uint16) * 257), form)
    assert (shallow[:, :, 0] == grey).all()  # type: ignore[index]
    colour = read_picture(file_of(grey), ImageFormat(height=8, width=8, channels=3))
    assert (colour == grey[:, :, None]).all()
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[:, :, 0] = 200
    assert (read_picture(file_of(red), form) == 60).all()  # .299 of 200
    smooth = np.full((8, 8), 90, dtype=np.uint8)
    assert (read_picture(file_of(smooth, "JPEG"), form) == 90).all()
    for mode in ("1", "P", "LA", "RGBA"):
        out = BytesIO()
        Image.fromarray(smooth).convert(mode).save(out, "PNG")
        found = read_picture(out.getvalue(), form)
        assert found is not None and found.shape == form.shape, mode


def test_values_are_clipped_to_the_declared_range(file_of: FileOf) -> None:
    form = ImageFormat(height=8, width=8, value_range=(10, 200))
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    found = read_picture(file_of(grey), form)
    assert found is not None and found.min() == 10 and found.max() == 200
    assert (blank(form) == 10).all()


def filtered_png(pixels: np.ndarray, kinds: list[int]) -> bytes:
    """A 16-bit colour PNG whose lines carry the given filters, made by the definition."""
    height, width, samples = pixels.shape
    step = 2 * samples
    raw = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    lines = bytearray()
    for y in range(height):
        lines.append(kinds[y % len(kinds)])
        for x in range(raw.shape[1]):
            left = raw[y, x - step] if x >= step else 0
            top = raw[y - 1, x] if y else 0
            corner = raw[y - 1, x - step] if y and x >= step else 0
            guess = left + top - corner
            paeth = min((left, top, corner), key=lambda v: abs(guess - v))
            lines.append((raw[y, x] - [0, left, top, (left + top) // 2, paeth][kinds[y % len(kinds)]]) % 256)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {2: 4, 3: 2, 4: 6}[samples]
    data = zlib.compress(bytes(lines))
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data[:9]), chunk(b"IDAT", data[9:]), chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(parts)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_deep_colour_is_read_whatever_its_filters(samples: int) -> None:
    pixels = RNG.integers(0, 1 << 16, (10, 7, samples)).astype(np.uint16)
    content = filtered_png(pixels, [0, 1, 2, 3, 4])
    assert is_deep(content)
    kept = 3 if samples >= 3 else 1
    assert (read_deep(content, 100) == pixels[:, :, :kept]).all()
    with pytest.raises(ValueError, match="size"):
        read_deep(content, 69)
    form = ImageFormat(height=10, width=7, channels=3, bits=16)
    assert read_picture(content[:-30], form) is None


@given(st.binary(max_size=200), st.booleans())
def test_rubbish_is_unreadable_and_nothing_else(content: bytes, png: bool) -> None:
    form = ImageFormat(height=4, width=4)
    assert read_picture((SIGNATURE if png else b"") + content, form) is None
    assert read_picture(None, form) is None and read_picture(b"", form) is None


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_file_gives_a_picture_of_the_form_or_none(at: int, value: int) -> None:
    form = ImageFormat(height=6, width=6)
    content = bytearray(write_png(np.arange(36, dtype=np.uint16).reshape(6, 6, 1), 8))
    content[at % len(content)] = value
    found = read_picture(bytes(content), form)
    assert found is None or found.shape == form.shape


def test_a_bomb_is_unreadable() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = b"IHDR" + header
    content = SIGNATURE + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    assert read_picture(content, ImageFormat(height=4, width=4)) is None


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["pad", "crop", "stretch"]),
    st.integers(0, 200),
    st.integers(4, 20),
    st.integers(4, 20),
)
def test_every_size_gets_the_declared_one(h: int, w: int, rule: str, value: int, height: int, width: int) -> None:
    form = ImageFormat(height=height, width=width, resize=rule, value_range=(0, 200))
    found = resized(np.full((h, w, 1), value, dtype=np.uint16), form)
    assert found.shape == form.shape
    if rule == "pad":
        # The picture touches both ends of one side, and is in the middle of the other.
        inside = found == value
        assert inside.any() and ((found == 0) | inside).all()
        assert inside.any(axis=1).all() or inside.any(axis=0).all()
    else:
        assert (found == value).all()


def test_resize_rules_by_hand() -> None:
    wide = np.repeat(np.array([[10, 20, 30, 40]], dtype=np.uint16), 2, axis=0)[:, :, None]
    wide = np.kron(wide[:, :, 0], np.ones((4, 4), dtype=np.uint16))[:, :, None]  # 8 high, 16 wide
    pad = resized(wide, ImageFormat(height=16, width=16, resize="pad"))
    assert (pad[:4] == 0).all() and (pad[12:] == 0).all() and (pad[4:12] == wide).all()
    crop = resized(wide, ImageFormat(height=8, width=8, resize="crop"))
    assert (crop == wide[:, 4:12]).all()
    stretch = resized(wide, ImageFormat(height=8, width=8, resize="stretch"))
    assert stretch[0, 0, 0] < stretch[0, 3, 0] < stretch[0, 7, 0]


@pytest.mark.parametrize("rule", ["pad", "crop", "stretch"])
def test_a_long_thin_picture_takes_no_more_memory_than_it_has(rule: str) -> None:
    # Scaled whole, so that it covers the frame, it would be 64 × 256,000,000.
    long = np.full((1, 4_000_000, 1), 9, dtype=np.uint16)
    form = ImageFormat(height=64, width=64, resize=rule)
    tracemalloc.start()
    found = [resized(picture, form) for picture in (long, long.transpose(1, 0, 2))]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * long.nbytes and all((each.max(), each.shape) == (9, (64, 64, 1)) for each in found)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(4, 30), st.integers(4, 30))
def test_what_is_cropped_lies_in_the_middle(h: int, w: int, height: int, width: int) -> None:
    form = ImageFormat(height=height, width=width, resize="crop")
    ramp = np.add.outer(np.arange(h), np.arange(w))[:, :, None].astype(np.uint16)
    found, turned = resized(ramp, form)[:, :, 0], resized((h + w - 2 - ramp).astype(np.uint16), form)[:, :, 0]
    # The middle of the whole is the middle of what is left, from either side.
    assert abs(float(found.mean()) + float(turned.mean()) - (h + w - 2)) <= 1
    assert np.abs(found.astype(int) - (h + w - 2 - turned.astype(int))).max() <= 1
    assert np.abs(found[::-1, ::-1].astype(int) - turned).max() <= 1


def test_how_a_camera_was_held_is_followed(file_of: FileOf) -> None:
    out = BytesIO()
    pixels = np.zeros((8, 4), dtype=np.uint8)
    pixels[:4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    found = read_picture(out.getvalue(), ImageFormat(height=4, width=8))
    assert found is not None and (found[:, 4:, 0] == 200).all() and (found[:, :4, 0] == 0).all()
