"""A decoding plugin of pydicom: the JPEG families of DICOM by imagecodecs (libjpeg-turbo, CharLS, OpenJPEG).

One library reads them all, 12-bit and lossless JPEG included. Interface: pydicom 3, "Decoding plugins".
"""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

NAME = "imagecodecs"
JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1}
JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
JPEG_2000 = {
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
}
J2K_START = b"\xff\x4f\xff\x51"
FRAME_HEADERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""SOF of JPEG-LS and of JPEG, without the tables and extensions that lie among them."""
FILL = 0xFF
SYNTAXES = JPEG | JPEG_LS | JPEG_2000
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, (NAME,))


def is_available(syntax: str) -> bool:
    """Whether this plugin decodes a transfer syntax: pydicom asks."""
    return syntax in SYNTAXES


def decode_frame(content: bytes, runner: DecodeRunner) -> bytes:
    """One frame, without any change of colours. Raises anything on a damaged one."""
    if size_of(content) not in (None, (runner.rows, runner.columns)):
        raise ValueError("size")  # before a decoder asks for as much memory as the frame says
    if runner.transfer_syntax in JPEG:
        # The same colour space in and out: what it is, DICOM's header says, and pydicom converts by it.
        same = None if runner.samples_per_pixel == 1 else "RGB"
        found = imagecodecs.jpeg8_decode(content, colorspace=same, outcolorspace=same)
    elif runner.transfer_syntax in JPEG_LS:
        found = imagecodecs.jpegls_decode(content)
    else:
        found = imagecodecs.jpeg2k_decode(content)
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # undone by the decoder
            runner.set_option("photometric_interpretation", "RGB")
    samples = runner.samples_per_pixel
    if np.shape(found) != (runner.rows, runner.columns, *([samples] if samples > 1 else [])):
        raise ValueError("size")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * found.dtype.itemsize)
    return bytes(found.tobytes())


def size_of(content: bytes) -> tuple[int, int] | None:
    """Height and width by the header of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it has no such header.

    ISO 10918-1 B.2.2, 14495-1 C.2.2 (frame headers), 15444-1 A.5.1 (SIZ).
    """
    if content.startswith(J2K_START):
        width, height, left, top = struct.unpack_from(">4I", content, 8)
        return height - top, width - left
    at = 2
    while content[at : at + 1] == b"\xff" and at + 9 <= len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in FRAME_HEADERS:
            height, width = struct.unpack_from(">2H", content, at + 5)
            return height, width
        at += 1 if marker == FILL else 2 + length
    return None


def register() -> None:
    """Make pydicom know this plugin, once a process."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, decode_frame.__name__))
