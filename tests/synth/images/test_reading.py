"""Files of any kind by their content, and the process that decodes other kinds: whatever it meets, it answers."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid

from synth.errors import SynthError
from synth.image_schema import ImageFormat
from synth.images import decoder, isolated, nifti, picture
from synth.images.decoder import OPEN, PLACE, READ, Decoder, answer, kind_of
from synth.images.isolated import Gone, Isolated
from synth.images.reading import PictureReader
from synth.images.unreadable import Unreadable, Why

FileOf = Callable[..., bytes]
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def form(**image: Any) -> ImageFormat:
    return ImageFormat.model_validate({"height": 8, "width": 8} | image)


NIFTI = {"value_range": [0, 255]}


def volume(slices: int) -> bytes:
    return bytes(nibabel.Nifti1Image(np.repeat(GREY.T[:, ::-1, None], slices, axis=2), np.eye(4)).to_bytes())


def test_every_kind_is_known_by_its_content(file_of: FileOf, dicom_of: FileOf) -> None:
    files = [
        file_of(GREY),
        file_of(GREY, "TIFF"),
        dicom_of(GREY),
        dicom_of(GREY, uid.RLELossless),
        volume(1),
        gzip.compress(volume(3)),
    ]
    with PictureReader(form(dicom={"window": "stored"}, nifti=NIFTI)) as reader:
        for file in files:
            found = reader.read(file)
            assert found.pixels is not None and (found.pixels[:, :, 0] == GREY).all(), found.why
        large = np.random.default_rng(0).integers(0, 1 << 16, (1500, 1200)).astype(np.uint16)
        assert reader.read(dicom_of(large)).pixels is not None  # more than a pipe holds, there and back
        smooth = reader.read(file_of(np.full((8, 8), 90, np.uint8), "JPEG"))
        assert smooth.pixels is not None and (smooth.pixels == 90).all()
        assert [reader.count(file) for file in files] == [1] * len(files)


def test_why_a_file_gives_no_picture(file_of: FileOf, dicom_of: FileOf, capfd: pytest.CaptureFixture[str]) -> None:
    odd = dicom_of(GREY).replace(b"zq-canary-id", b"zq-canary\xff\xfe\n")
    cases: list[tuple[bytes | None, Why]] = [
        (None, Why.ABSENT),
        (b"", Why.ABSENT),
        (b"zq-canary", Why.UNKNOWN),
        (odd[:300] + b"zq-canary" + odd[300:], Why.NO_PIXELS),
        (file_of(GREY)[:50], Why.DAMAGED),
        (dicom_of(GREY)[:-9], Why.DAMAGED),
        (dicom_of(GREY, PixelData=None), Why.NO_PIXELS),
        (file_of(GREY, "TIFF")[:40], Why.DAMAGED),
        (volume(1), Why.UNDECLARED),
        (gzip.compress(b"x"), Why.UNDECLARED),
        (file_of(GREY, "BMP"), Why.UNKNOWN),
    ]
    with PictureReader(form()) as reader:
        for content, why in cases:
            found = reader.read(content)
            assert (found.pixels, found.why) == (None, why)
            assert reader.count(content) == 1
    with PictureReader(form(dicom={"frames": {"index": 3}}, nifti=NIFTI)) as reader:
        assert reader.read(dicom_of(GREY)).why == Why.NO_PLACE
        assert reader.read(gzip.compress(b"x")).why == Why.UNKNOWN
        assert reader.read(volume(1), place=1).why == Why.NO_PLACE
        assert reader.read(file_of(GREY), place=1).why == Why.DAMAGED
    assert capfd.readouterr() == ("", ""), "what libraries say goes nowhere"


def asked(known: Decoder, content: bytes) -> list[Any]:
    """What a decoder says of a file, and its pictures' first pixels."""
    says, _ = answer(known, OPEN + content)
    places = range(int(str(says.get("count", 0))))
    return [says, *(int(known.read(place)[0, 0, 0]) for place in places)]


def test_frames_and_slices_by_the_declared_rule(dicom_of: FileOf) -> None:
    content = dicom_of(np.stack([np.full((8, 8), 10 * i, np.uint8) for i in range(5)]))
    rules: list[tuple[Any, list[int]]] = [
        ("first", [0]),
        ("middle", [20]),
        ("all", [0, 10, 20, 30, 40]),
        ({"index": 3}, [30]),
        ({"every": 2}, [0, 20, 40]),
    ]
    for rule, chosen in rules:
        says, *found = asked(Decoder(form(dicom={"window": "stored", "frames": rule})), content)
        assert found == chosen and says == {"count": len(chosen), "burned_in": False}
    known = Decoder(form(nifti=NIFTI | {"slices": {"every": 3}}))
    assert asked(known, volume(7))[0]["count"] == 3
    assert answer(known, READ + PLACE.pack(3)) == ({"why": "NO_PLACE"}, b"")


def test_what_is_too_much_of_one_file(dicom_of: FileOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MOST_PICTURES", 6)
    monkeypatch.setattr(nifti, "MOST_VOLUME_BYTES", 1_000)
    known = Decoder(form(nifti=NIFTI | {"slices": "all"}, dicom={"frames": "all"}))
    assert asked(known, volume(7)) == [{"why": "MANY"}]
    assert asked(known, gzip.compress(volume(20))) == [{"why": "LARGE"}]
    assert asked(known, dicom_of(GREY, NumberOfFrames=2_000_000_000)) == [{"why": "MANY"}]
    monkeypatch.setattr(known, "open", out_of_memory)
    with pytest.raises(MemoryError):  # the process ends, and the next file meets a new one
        asked(known, volume(1))


def out_of_memory(content: bytes) -> tuple[int, bool]:
    raise MemoryError(len(content))


def test_whatever_ends_the_process_ends_one_file_alone(dicom_of: FileOf) -> None:
    content = dicom_of(GREY)
    with PictureReader(form(dicom={"window": "stored"})) as reader:
        assert reader.read(content).pixels is not None
        process = reader._isolated._process
        assert process is not None
        for blow in (signal.SIGSEGV, signal.SIGKILL):
            process = reader._isolated._process
            assert process is not None
            os.kill(process.pid, blow)
            process.wait()
            assert reader.read(dicom_of(GREY)).why == Why.GAVE_UP
            assert reader.read(content).pixels is not None


def test_a_process_that_takes_too_long_is_ended(dicom_of: FileOf) -> None:
    slow = Isolated(form(), seconds=120)
    slow.ask(OPEN, dicom_of(GREY))
    process = slow._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    slow._seconds = 0.05
    with pytest.raises(Gone):
        slow.ask(READ, PLACE.pack(0))
    assert process.returncode == -signal.SIGKILL and slow._process is None
    slow.close()


def test_a_process_that_cannot_be_started_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated.sys, "executable", "/bin/false")
    with pytest.raises(SynthError, match="does not start"), PictureReader(form()) as reader:
        reader.read(b"II*\0")


def test_what_a_file_may_ask_for_is_limited(dicom_of: FileOf) -> None:
    with PictureReader(form()) as reader:
        assert reader.read(dicom_of(GREY, BurnedInAnnotation="YES")).burned_in
        assert not reader.read(dicom_of(GREY)).burned_in
        process = reader._isolated._process
        assert process is not None
        limits = Path(f"/proc/{process.pid}/limits")
        if limits.exists():  # of Linux
            said = {line[:26].strip(): line[26:].split()[0] for line in limits.read_text().splitlines()}
            assert said["Max address space"] == str(decoder.MOST_MEMORY)
            assert said["Max core file size"] == said["Max file size"] == "0"


@given(st.binary(max_size=300), st.sampled_from(["dicom", "tiff", "nifti", "gzip"]))
def test_rubbish_is_answered(content: bytes, kind: str) -> None:
    head = {"dicom": b"\0" * 128 + b"DICM", "tiff": b"II*\0", "nifti": b"\0" * 344 + b"n+1\0", "gzip": b"\x1f\x8b"}
    file = head[kind] + content
    assert kind_of(file) == {"gzip": "nifti"}.get(kind, kind)
    says, pixels = answer(Decoder(form(nifti=NIFTI)), OPEN + file)
    assert set(says) <= {"why", "count", "burned_in"} and pixels == b""


@given(st.integers(132, 1_200), st.integers(0, 255))
def test_a_damaged_header_is_answered(dicom_of: FileOf, at: int, value: int) -> None:
    content = bytearray(dicom_of(GREY))
    content[at % len(content)] = value
    known = Decoder(form())
    says, _ = answer(known, OPEN + bytes(content))
    if "why" not in says:
        says, pixels = answer(known, READ + PLACE.pack(0))
        assert "why" in says or len(pixels) == 2 * np.prod(says["shape"])  # type: ignore[arg-type]
    if "why" in says:
        assert says["why"] in Why.__members__


NOISY = """
import os, sys
from synth.images import decoder
kept = decoder.answer
def answer(known, request):
    os.write(1, b"zq-canary"), os.write(2, b"zq-canary"), print("zq-canary", file=sys.stderr)
    return kept(known, request)
decoder.answer = answer
decoder.main()
"""


def test_a_library_that_prints_disturbs_nothing(dicom_of: FileOf, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(
        isolated.subprocess, "Popen", lambda command, **options: popen([command[0], "-c", NOISY], **options)
    )
    with PictureReader(form(dicom={"window": "stored"})) as reader:
        found = reader.read(dicom_of(GREY))
        assert found.pixels is not None and (found.pixels[:, :, 0] == GREY).all()


def test_pictures_of_strangers_are_decoded_apart(
    file_of: FileOf, dicom_of: FileOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PNG and JPEG too: a decoder that cannot work in this process works in the other."""
    monkeypatch.setattr(picture, "_pixels", None)
    with PictureReader(form(height=4, width=5, dicom={"window": "stored"})) as reader:
        for file in (file_of(GREY), file_of(GREY, "TIFF"), dicom_of(GREY)):
            assert reader.count_apart(file) == 1
            assert (reader.read_apart(file)[:, :, 0] == GREY).all()  # in its own size
        smooth = file_of(np.full((8, 8), 90, np.uint8), "JPEG")
        assert (reader.read_apart(smooth) == 90).all()
        for damaged, why in ((file_of(GREY)[:40], Why.DAMAGED), (b"", Why.ABSENT), (b"GIF89a", Why.UNKNOWN)):
            with pytest.raises(Unreadable) as error:
                reader.count_apart(damaged)
            assert error.value.why is why
