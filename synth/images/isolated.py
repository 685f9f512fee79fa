"""A process of its own for decoding: what a damaged file does to it, it does to nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import synth
from synth.errors import SynthError
from synth.image_schema import ImageFormat
from synth.images.decoder import LENGTH, send

SECONDS = 120.0
"""A file that takes longer is one that cannot be read."""
SECONDS_TO_START = 300.0
PIECE = 1 << 20
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""Threads would each take of the address space."""


class Gone(Exception):
    """The process has ended, or takes too long."""


class Isolated:
    """A decoding process, started when it is first asked and again when it ended."""

    def __init__(self, form: ImageFormat, *, seconds: float = SECONDS) -> None:
        self._form, self._seconds = form, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *request: bytes) -> tuple[dict[str, Any], bytes]:
        """What the process replies. Raises Gone when it does not, SynthError when it cannot be started."""
        if self._process is None:
            self._process = self._started()
        try:
            reply = self._exchange(self._process, request, self._seconds)
        except Gone:
            self.close()
            raise
        (length,) = LENGTH.unpack(reply[: LENGTH.size])
        says: dict[str, Any] = json.loads(reply[LENGTH.size : LENGTH.size + length])
        return says, reply[LENGTH.size + length :]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):  # what was not sent yet has no reader any more
                    stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        # The folder of this very package, whatever the environment says; -P keeps the working folder out.
        home = str(Path(synth.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "synth.images.decoder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Decoders meet hostile files: no secret of the environment is handed on.
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ}
            | {"PYTHONPATH": paths}
            | ENVIRONMENT,
        )
        try:
            self._exchange(process, [self._form.model_dump_json(exclude_none=True).encode()], SECONDS_TO_START)
        except Gone:
            self._process = process
            self.close()
            raise SynthError(
                "the process that decodes TIFF, DICOM and NIfTI does not start; try `python -m synth.images.decoder`"
            ) from None
        return process

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: Sequence[bytes], seconds: float) -> bytes:
        """One message there and one back. Raises Gone."""
        assert process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, *request)
        except OSError:
            raise Gone from None
        until = time.monotonic() + seconds
        (length,) = LENGTH.unpack(_received(process.stdout.fileno(), LENGTH.size, until))
        return _received(process.stdout.fileno(), length, until)


def _received(descriptor: int, length: int, until: float) -> bytes:
    found = bytearray()
    while len(found) < length:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        piece = os.read(descriptor, min(PIECE, length - len(found))) if ready else b""
        if not piece:
            raise Gone
        found += piece
    return bytes(found)
