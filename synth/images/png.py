"""PNG without loss at 8 and 16 bits, grey and colour, marked as synthetic; and the one kind of PNG Pillow cannot read.

Pillow keeps the upper 8 bits of 16-bit colour, so such files are read and written here. Format: PNG (Third Edition),
W3C 2023: section 5 (chunks), 9 (filters), 11 (IHDR, IDAT, iTXt).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from synth.parquet import DIGITAL_SOURCE_TYPE

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}
SAMPLES = {2: 3, 4: 2, 6: 4}
"""Samples a pixel of the colour types that `read_deep` reads: RGB, grey with alpha, RGB with alpha."""

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)
"""The mark IPTC defines for media made by a trained model (Photo Metadata Standard 2023.1, Digital Source Type)."""


def write_png(pixels: UInt16Array, bits: int) -> bytes:
    """Pixels [height, width, 1 or 3] as a PNG of 8 or 16 bits a sample, with the mark in an iTXt chunk."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    filtered = np.zeros((height, 1 + rows.view(np.uint8).shape[1]), dtype=np.uint8)  # filter type 0: none
    filtered[:, 1:] = rows.view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    # Keyword, no compression, no language, no translated keyword, then the text: what XMP in PNG asks for.
    mark = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode()
    return b"".join(
        [
            SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"iTXt", mark),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)),
            _chunk(b"IEND", b""),
        ]
    )


def is_deep(content: bytes) -> bool:
    """Whether this is a PNG that `read_deep` is for: 16 bits, more than one sample a pixel, not interlaced."""
    if not content.startswith(SIGNATURE) or len(content) < 33 or content[12:16] != b"IHDR":
        return False
    bits, colour, _, _, interlace = content[24:29]
    return bits == 16 and colour in SAMPLES and interlace == 0


def has_chunk(content: bytes, kind: bytes) -> bool:
    """Whether this is a PNG with a chunk of that kind."""
    return content.startswith(SIGNATURE) and next(_chunks(content, kind), None) is not None


def read_deep(content: bytes, most_pixels: int) -> UInt16Array:
    """Pixels [height, width, 1 or 3] of a PNG for which `is_deep` holds; transparency is left out.

    Raises ValueError, struct.error or zlib.error when the file is damaged or has more than `most_pixels` pixels.
    """
    width, height = struct.unpack(">II", content[16:24])
    samples = SAMPLES[content[25]]
    step, line = 2 * samples, 2 * samples * width
    if not 0 < width * height <= most_pixels:
        raise ValueError("size")
    size = height * (1 + line)
    data = zlib.decompressobj().decompress(b"".join(_chunks(content, b"IDAT")), size)
    if len(data) != size:
        raise ValueError("truncated")
    lines = np.frombuffer(data, dtype=np.uint8).reshape(height, 1 + line)
    out = np.zeros((height, line), dtype=np.uint8)
    above = np.zeros(line, dtype=np.uint8)
    for y in range(height):
        out[y] = above = _unfiltered(int(lines[y, 0]), lines[y, 1:], above, step)
    pixels = out.view(">u2").astype(np.uint16).reshape(height, width, samples)
    return pixels[:, :, : 3 if samples >= 3 else 1]


def _unfiltered(kind: int, line: UInt8Array, above: UInt8Array, step: int) -> UInt8Array:
    """One scan line without its filter (section 9.2); arithmetic is modulo 256."""
    if kind == 0:
        return line
    if kind == 1:
        return np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return line + above
    if kind not in (3, 4):
        raise ValueError("filter")
    up = [0] * step + above.tolist()
    raw = [0] * step
    for i, value in enumerate(line.tolist()):
        left, top, corner = raw[i], up[i + step], up[i]
        raw.append((value + ((left + top) // 2 if kind == 3 else _paeth(left, top, corner))) & 255)
    return np.array(raw[step:], dtype=np.uint8)


def _paeth(left: int, top: int, corner: int) -> int:
    guess = left + top - corner
    by_left, by_top, by_corner = abs(guess - left), abs(guess - top), abs(guess - corner)
    if by_left <= by_top and by_left <= by_corner:
        return left
    return top if by_top <= by_corner else corner


def _chunks(content: bytes, kind: bytes) -> Iterator[bytes]:
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == kind:
            yield content[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
