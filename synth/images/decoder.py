"""The process in which TIFF, DICOM and NIfTI files are decoded: `python -m synth.images.decoder`.

`isolated` starts it. Decoders in C can crash, print and ask for any memory when a file is damaged. Here they may: what
they print goes nowhere, what they take is limited, no core is dumped, and a reply holds pixels or one of the reasons of
`Why`, never a text of a library. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import struct
import sys
import warnings
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from synth.image_files import Selection, chosen
from synth.image_schema import ImageFormat
from synth.images.unreadable import Unreadable, Why

UInt16Array = npt.NDArray[np.uint16]

LENGTH = struct.Struct(">Q")
PLACE = struct.Struct(">I")
OPEN, READ = b"o", b"r"
MOST_MEMORY = 4 << 30
"""Bytes of address space."""
MOST_PICTURES = 10_000
"""In one file."""
DICOM_MAGIC, DICOM_PREAMBLE = b"DICM", 128
JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8\xff", b"\x89PNG"


class Opened(Protocol):
    """A file of any kind: so many frames, slices or pages, and each of them as pixels of the form's bits."""

    count: int
    burned_in: bool

    def pixels(self, place: int, /) -> UInt16Array:
        """One of them [h, w, 1 or 3]. Raises Unreadable, or anything on a damaged file."""


def kind_of(content: bytes) -> str | None:
    """Whether a file is for this process, by its first bytes alone: dicom, tiff, nifti or nothing."""
    if content[DICOM_PREAMBLE : DICOM_PREAMBLE + len(DICOM_MAGIC)] == DICOM_MAGIC:
        return "dicom"
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if content[:2] == b"\x1f\x8b" or content[344:348] == b"n+1\0" or content[4:8] == b"n+2\0":
        return "nifti"
    return None


class Decoder:
    """Files of one form, one after the other; of one at a time, its pictures."""

    def __init__(self, form: ImageFormat) -> None:
        self._form = form
        self._file: Opened | None = None
        self._places = range(0)

    def open(self, content: bytes) -> tuple[int, bool]:
        """How many pictures a file holds by the declared rule, and whether its header speaks of text in them."""
        self._file = None
        self._file, selection = self._opened(content)
        self._places = chosen(selection, self._file.count)
        if not self._places:
            raise Unreadable(Why.NO_PLACE)
        if len(self._places) > MOST_PICTURES:
            raise Unreadable(Why.MANY)
        return len(self._places), self._file.burned_in

    def read(self, place: int) -> UInt16Array:
        """One picture of the file that was opened last."""
        if self._file is None or place >= len(self._places):
            raise Unreadable(Why.NO_PLACE)
        found = self._file.pixels(self._places[place])
        if found.ndim != 3 or 0 in found.shape:
            raise Unreadable(Why.DAMAGED)
        return found

    def _opened(self, content: bytes) -> tuple[Opened, Selection]:
        form, kind = self._form, kind_of(content)
        # Each brings a library that is slow to load, so only what is met is loaded.
        if kind == "dicom":
            from synth.images.dicom import DicomFile

            return DicomFile(content, form), form.dicom.frames if form.dicom else "first"
        if kind == "tiff":
            from synth.images.tiff import TiffFile

            return TiffFile(content, form), form.tiff.pages if form.tiff else "first"
        if content.startswith((JPEG_MAGIC, PNG_MAGIC)):  # of a stranger: those of a source are read where they are
            from synth.images.picture import PictureFile

            return PictureFile(content, form), "first"
        if kind != "nifti":
            raise Unreadable(Why.UNKNOWN)
        if form.nifti is None:
            raise Unreadable(Why.UNDECLARED)
        from synth.images.nifti import NiftiFile

        return NiftiFile(content, form, form.nifti), form.nifti.slices


def answer(decoder: Decoder, request: bytes) -> tuple[dict[str, object], bytes]:
    """The reply to a request: what it says, and pixels."""
    try:
        if request[:1] == OPEN:
            count, burned_in = decoder.open(request[1:])
            return {"count": count, "burned_in": burned_in}, b""
        pixels = decoder.read(PLACE.unpack(request[1:])[0])
        return {"shape": pixels.shape}, np.ascontiguousarray(pixels, dtype="<u2").tobytes()
    except Unreadable as error:
        return {"why": error.why.name}, b""
    except MemoryError:
        raise  # ends this process: what one file has used up is nothing to the next
    except Exception:  # libraries raise whatever they like on a damaged file, and each of them means the same here
        return {"why": Why.DAMAGED.name}, b""


def send(stream: IO[bytes], *parts: bytes) -> None:
    """Write the parts as one message: its length, then they."""
    stream.write(LENGTH.pack(sum(map(len, parts))))
    for part in parts:
        stream.write(part)
    stream.flush()


def _received(stream: IO[bytes]) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    return stream.read(length)


def main() -> None:
    """Answer requests on standard input, one by one, until it ends."""
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for what, most in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
            resource.setrlimit(what, (most, most))
    requests = sys.stdin.buffer
    form = _received(requests)
    if form is None:
        return
    decoder = Decoder(ImageFormat.model_validate_json(form))
    send(replies, b"ready")
    while (request := _received(requests)) is not None:
        says, pixels = answer(decoder, request)
        head = json.dumps(says).encode()
        send(replies, LENGTH.pack(len(head)), head, pixels)


if __name__ == "__main__":
    main()
