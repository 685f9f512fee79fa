"""A decoding plugin of pydicom: the JPEG families of DICOM by imagecodecs (libjpeg-turbo, CharLS, OpenJPEG).

One library reads them all, 12-bit and lossless JPEG included. Interface: pydicom 3, "Decoding plugins".
"""

from __future__ import annotations

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
SYNTAXES = JPEG | JPEG_LS | JPEG_2000
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, (NAME,))


def is_available(syntax: str) -> bool:
    """Whether this plugin decodes a transfer syntax: pydicom asks."""
    return syntax in SYNTAXES


def decode_frame(content: bytes, runner: DecodeRunner) -> bytes:
    """One frame, without any change of colours. Raises anything on a damaged one."""
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


def register() -> None:
    """Make pydicom know this plugin, once a process."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, decode_frame.__name__))
