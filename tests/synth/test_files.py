"""Files that appear whole, for their owner alone."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import files
from synth.files import canonical_json, locked, sha256_file, write_whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_whole(path, "grüß")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.txt"]  # noqa: PTH208


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_whole(tmp_path / "folder" / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder" / "a.txt").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_lock_is_on_the_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever held it may have put another folder in its place meanwhile."""
    folder, flock = tmp_path / "bundle", files.fcntl.flock
    folder.mkdir()

    def exchanged_meanwhile(descriptor: int, how: int) -> None:
        if not (tmp_path / "before").exists():
            folder.rename(tmp_path / "before")
            folder.mkdir()
        flock(descriptor, how)

    monkeypatch.setattr(files.fcntl, "flock", exchanged_meanwhile)
    with locked(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            flock(descriptor, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB)
        os.close(descriptor)


def test_hash(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_canonical_json_by_hand() -> None:
    assert (
        canonical_json({"b": 1.0, "a": [True, None, "é"], "c": 1e-5})
        == '{"a":[true,null,"é"],"b":1,"c":0.00001}'.encode()
    )


@given(JSON)
def test_canonical_json_is_one_spelling_of_the_value(value: object) -> None:
    once = canonical_json(value)
    assert json.loads(once) == value
    assert canonical_json(json.loads(once)) == once


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_canonical_json_refuses_what_has_no_one_spelling(value: float) -> None:
    with pytest.raises(ValueError, match=r"\d|nan|inf|domain|exceeds"):
        canonical_json(value)
