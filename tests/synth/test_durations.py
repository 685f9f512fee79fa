"""Durations: what a stage leaves, also when it fails, and that a run never fails for want of them."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from synth import durations
from synth.durations import FILE, Duration, noted_in, so_far, timed
from synth.errors import UserError


@dataclass(frozen=True)
class Folder:
    internal: Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Each look at a clock finds it a second, or half a second of a processor, further."""
    clocks = {"_clock": iter(range(100)), "_cpu_seconds": iter(n / 2 for n in range(100))}
    for name, times in clocks.items():
        monkeypatch.setattr(durations, name, times.__next__)
    monkeypatch.setattr(durations, "_peak_bytes", lambda: 7)
    return Folder(tmp_path)


@timed
def works(folder: Folder, answer: int) -> int:
    """A stage."""
    return answer


@timed
def fails(folder: Folder) -> None:
    """Another."""
    raise ValueError("no")


def test_each_time_is_noted(folder: Folder) -> None:
    assert noted_in(folder.internal) == ()
    assert works(folder, 3) == 3
    with pytest.raises(ValueError, match="no"):
        fails(folder)
    works(folder, 4)
    assert noted_in(folder.internal) == tuple(Duration(stage, 1, 0.5, 7) for stage in ("works", "fails", "works"))
    assert stat.S_IMODE((folder.internal / FILE).stat().st_mode) == 0o600


def test_a_refusal_leaves_what_was_noted(folder: Folder) -> None:
    @timed
    def refused(folder: Folder) -> None:
        raise UserError("the run is finished")

    works(folder, 1)
    with pytest.raises(UserError, match="finished"):
        refused(folder)
    assert noted_in(folder.internal) == so_far(folder.internal) == (Duration("works", 1, 0.5, 7),)


def test_a_stage_under_way_counts_so_far(folder: Folder) -> None:
    @timed
    def looks(folder: Folder) -> tuple[Duration, ...]:
        return so_far(folder.internal)

    works(folder, 1)
    assert looks(folder) == (Duration("works", 1, 0.5, 7), Duration("looks", 1, 0.5, 7))
    assert noted_in(folder.internal)[-1] == Duration("looks", 2, 1, 7)
    assert so_far(folder.internal) == noted_in(folder.internal)


@pytest.mark.parametrize("content", ["", "{", '[{"stage": "works"}]', "7"])
def test_what_cannot_be_read_or_written_stops_nobody(folder: Folder, content: str) -> None:
    (folder.internal / FILE).write_text(content)
    assert works(folder, 1) == 1
    assert noted_in(folder.internal) == (Duration("works", 1, 0.5, 7),)
    (folder.internal / FILE).unlink()
    (folder.internal / FILE).mkdir()
    assert works(folder, 2) == 2


def test_the_real_clocks_go_forward(tmp_path: Path) -> None:
    works(Folder(tmp_path), 1)
    (noted,) = noted_in(tmp_path)
    assert noted.seconds >= 0 and noted.cpu_seconds >= 0
    assert noted.peak_bytes > 2**20
