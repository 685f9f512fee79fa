"""Processes that train together: on what, how they start and end, and that none may come apart from the others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from synth.errors import SynthError, UserError
from synth.ranks import Ranks, accelerator_of, join, refuse_apart, strategy_of, together


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
    charged: list[int] = []
    with pytest.raises(SynthError, match="has not started"):
        together(tmp_path, 2, charge=lambda: charged.append(1))
    assert not charged


def test_whoever_is_alone_meets_nobody() -> None:
    join(Ranks())
    assert not dist.is_initialized() and strategy_of(Ranks()) == "auto"
    refuse_apart([torch.ones(2)], Ranks())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(SynthError, match="no numbers"):
        refuse_apart([torch.ones(3), torch.tensor([1.0, bad])], Ranks())


ONE_OF_TWO = """
import os, sys, torch
from pathlib import Path
from synth.errors import SynthError
from synth.ranks import Ranks, join, refuse_apart
from synth.refinement import gathered, part_of
rank = int(sys.argv[2])
ranks = Ranks(rank, 2, "cpu", Path(sys.argv[1]))
join(ranks)
refuse_apart([torch.ones(3)], ranks)
print("as one", flush=True)
try:
    refuse_apart([torch.ones(2), 1 + rank * torch.full((1,), 2.0**-23)], ranks)
except SynthError as error:
    print(error, flush=True)
own = torch.arange(10.0).reshape(5, 2)[[*part_of(5)]].requires_grad_(True)
rows = gathered(own, 5)
(rows @ rows.T).square().sum().backward()
print(own.grad.tolist(), flush=True)
os._exit(0)
"""


def test_processes_that_differ_in_one_bit_are_refused_and_share_a_gradient(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, str(tmp_path / "meeting"), str(rank)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    first, second = (process.communicate()[0] for process in both)
    assert "as one\n" in first and "as one\n" in second
    assert "come apart" in second and "come apart" not in first
    rows = torch.arange(10.0).reshape(5, 2).requires_grad_(True)
    (rows @ rows.T).square().sum().backward()
    assert rows.grad is not None
    found = [row for told in (first, second) for row in json.loads(told.splitlines()[-1])]
    torch.testing.assert_close(torch.tensor(found), rows.grad)
