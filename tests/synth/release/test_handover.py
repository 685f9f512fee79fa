"""Hand over: exactly the approved bytes, or nothing."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from synth.errors import NotApproved, UserError, VerificationFailed
from synth.release import ATTESTATION, hand_over, handover, seal, verify


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_approved_bytes(approved: Path, tmp_path: Path, steward: Any) -> None:
    found = hand_over(approved, tmp_path / "new" / "release", keys=[steward.public_file])
    assert found.approved and found.origin_checked
    assert contents(tmp_path / "new" / "release") == contents(approved)
    assert verify(tmp_path / "new" / "release", keys=[steward.public_file]).by == "Ada"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["release"]
    times = {path.stat().st_mtime for path in (tmp_path / "new" / "release").rglob("*")}
    assert times == {datetime(2025, 1, 31, 10, 15, tzinfo=UTC).timestamp()}


def test_nothing_but_an_approved_bundle(bundle: Path, tmp_path: Path, steward: Any) -> None:
    with pytest.raises(NotApproved, match=r"NOT approved.*synth approve"):
        hand_over(bundle, tmp_path / "out")
    steward.rejects(bundle)
    with pytest.raises(NotApproved, match="rejected by Ada") as caught:
        hand_over(bundle, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_nothing_damaged_or_of_another_hand(approved: Path, tmp_path: Path, stranger: Any) -> None:
    with pytest.raises(VerificationFailed, match="signed by key"):
        hand_over(approved, tmp_path / "out", keys=[stranger.public_file])
    (approved / "datasheet.md").write_text("better")
    with pytest.raises(VerificationFailed, match=r"datasheet\.md"):
        hand_over(approved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_to_a_place_that_is_free(approved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = contents(approved)
    for name in ("empty", "file", "link", "bundle"):
        with pytest.raises(UserError, match="exists already"):
            hand_over(approved, tmp_path / name)
    with pytest.raises(UserError, match="lies inside of the bundle"):
        hand_over(approved, approved / "copy")
    with pytest.raises(UserError, match="cannot be written"):
        hand_over(approved, tmp_path / "file" / "copy")
    assert contents(approved) == before and list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("change", ["a byte", "the decision"])
def test_what_changes_while_it_is_copied(
    approved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: Any, change: str
) -> None:
    copy = handover._copy

    def meddle(bundle: Path, target: Path) -> None:
        if change == "the decision":
            seal(bundle)
            stranger.approves(bundle)
        copy(bundle, target)
        if change == "a byte":
            (target / "datasheet.md").write_text("better")

    monkeypatch.setattr(handover, "_copy", meddle)
    with pytest.raises(VerificationFailed):
        hand_over(approved, tmp_path / "out" / "release")
    assert list((tmp_path / "out").iterdir()) == []  # nor anything half-made


def test_a_failed_copy_leaves_nothing(approved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="No space left"):
        hand_over(approved, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    assert os.listdir(approved)  # noqa: PTH208


def test_a_release_can_be_released_again(approved: Path, tmp_path: Path) -> None:
    hand_over(approved, tmp_path / "one")
    hand_over(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / ATTESTATION).read_bytes() == (approved / ATTESTATION).read_bytes()
