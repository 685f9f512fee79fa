"""Processes that train together: on what, how they start and end, and that none may come apart from the others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from synth.errors import SynthError, UserError
from synth.tables import ranks
from synth.tables.ranks import Ranks, accelerator_of, companions, joined, refuse_apart


@pytest.mark.parametrize(
    ("asked", "processes", "gpus", "found"),
    [
        ("auto", 1, 0, "auto"),
        ("gpu", 1, 0, "gpu"),  # told by Lightning
        ("cpu", 4, 8, "cpu"),
        ("auto", 2, 1, "cpu"),
        ("auto", 2, 2, "gpu"),
        ("gpu", 3, 4, "gpu"),
    ],
)
def test_each_process_has_a_gpu_or_none_has(
    monkeypatch: pytest.MonkeyPatch, asked: Any, processes: int, gpus: int, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert accelerator_of(asked, processes) == found


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes want a GPU each, and 1 are here"):
        accelerator_of("gpu", 2)


def test_a_process_that_does_not_start_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(SynthError, match="has not started"), companions(tmp_path, Ranks(count=2)):
        raise AssertionError("began without it")


def test_whoever_is_alone_meets_nobody(tmp_path: Path) -> None:
    with companions(tmp_path, Ranks()), joined(Ranks()):
        assert not dist.is_initialized()
    refuse_apart([torch.ones(2)], Ranks())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(SynthError, match="no numbers"):
        refuse_apart([torch.ones(3), torch.tensor([1.0, bad])], Ranks())


SECOND = """
import os, sys, torch
from pathlib import Path
from synth.errors import SynthError
from synth.tables.ranks import Ranks, joined, refuse_apart
ranks = Ranks(1, 2, "cpu", Path(sys.argv[1]))
with joined(ranks):
    refuse_apart([torch.ones(3)], ranks)
    try:
        refuse_apart([torch.ones(2), 1 + torch.full((1,), 2.0**-23)], ranks)
    except SynthError as error:
        print(error, flush=True)
os._exit(0)
"""


def test_processes_that_differ_in_one_bit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "as it was")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    hook, mine = sys.excepthook, Ranks(0, 2, "cpu", tmp_path / "meeting")
    second = subprocess.Popen([sys.executable, "-c", SECOND, str(mine.meeting)], stdout=subprocess.PIPE, text=True)
    with joined(mine):
        assert dist.get_backend() == "gloo" and dist.get_world_size() == 2
        for _ in range(2):
            refuse_apart([torch.ones(3)], mine)
    assert "come apart" in second.communicate()[0]
    assert ranks.os.environ["GLOO_SOCKET_IFNAME"] == "as it was" and "NCCL_SOCKET_IFNAME" not in ranks.os.environ
    assert sys.excepthook is hook and not dist.is_initialized()
