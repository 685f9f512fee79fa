"""Runs that are killed, stopped, or race: what was reserved stays spent, and nothing half-written is left for long.

All runs here are under way at the same time, in one output directory and on one ledger, each stopped in another stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STALLED = Path(__file__).with_name("stalled.py")
PATIENCE_SECONDS = 900
# stage → where its run is stopped, and whether after that call
KILLED = {
    "encode": ("synth.tables.stages:encode_rows", True),  # reserved, nothing drawn
    "measure": ("synth.tables.stages:save_measurements", False),  # everything drawn, nothing saved
    "train": ("synth.tables.stages:fit", True),
    "sample": ("synth.tables.stages:write_parts", True),
    "audit": ("synth.tables.stages:audit_of_rows", True),
    "evaluate": ("synth.tables.stages:internal_scores", True),
    "settle": ("synth.privacy.ledger:Ledger.settle", True),  # the ledger has settled, the stage has not ended
    "document": ("pipelines.documents:documents_of", True),
    "seal": ("synth.release:publish", False),  # between settle and the bundle
}
STOPPED = {
    "SIGTERM": ("synth.tables.stages:fit", True, signal.SIGTERM),
    "SIGINT": ("synth.tables.stages:sample_rows_by", True, signal.SIGINT),
}
RACERS = ("first", "second")


@dataclass(frozen=True)
class Stalled:
    """A run that waits at its place."""

    folder: Path
    name: str

    def path(self, what: str) -> Path:
        return self.folder / f"{self.name}.{what}"

    @property
    def pid(self) -> int:
        return int(self.path("pid").read_text())

    @property
    def err(self) -> list[str]:
        return self.path("err").read_text().splitlines()

    @property
    def out(self) -> str:
        return self.path("out").read_text()

    def order(self, place: str, after: bool, arguments: list[str]) -> dict[str, Any]:
        files = {what: str(self.path(what)) for what in ("pid", "ready", "go", "ended", "out", "err")}
        return {"name": self.name, "place": place, "after": after, "arguments": arguments, **files}


@dataclass(frozen=True)
class Aftermath:
    """What was found once every run had ended."""

    clinic: Any
    racing: Any
    stalled: dict[str, Stalled]
    codes: dict[str, int]
    alive: dict[str, set[str]]  # run id → its folders while all runs were under way
    dead: dict[str, set[str]]  # run id → its folders when all had been killed or stopped
    with_rows: set[str]  # runs with private rows in their folders, then
    account: dict[str, Any]  # budget show, then


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, process: Any) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("killed")
    clinic, racing = clinic_at(folder / "clinic"), clinic_at(folder / "racing")
    capped = process("budget", "cap", "clinic-patients", 1, "--ledger", racing.ledger_url)
    assert capped.code == 0, capped.err
    stalled = {name: Stalled(folder, name) for name in (*KILLED, *STOPPED, *RACERS)}
    orders = [stalled[name].order(*at, ["run", str(clinic.run_yaml)]) for name, at in KILLED.items()]
    orders += [
        stalled[name].order(place, after, ["run", str(clinic.run_yaml)]) for name, (place, after, _) in STOPPED.items()
    ]
    # Both have passed the first look at the cap when the first of them reserves.
    orders += [stalled[name].order("synth.stages:reserve", False, ["run", str(racing.run_yaml)]) for name in RACERS]
    (folder / "orders.json").write_text(json.dumps(orders))
    runs = subprocess.Popen(
        [sys.executable, STALLED, folder / "orders.json"], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    try:
        _wait_until_ready(stalled.values())
        alive = _folders(clinic.out)
        for name in KILLED:
            os.kill(stalled[name].pid, signal.SIGKILL)
        for name, (_, _, number) in STOPPED.items():
            os.kill(stalled[name].pid, number)
        for name in RACERS:
            stalled[name].path("go").touch()
        printed, _ = runs.communicate(timeout=PATIENCE_SECONDS)
    finally:
        for run in stalled.values():
            if runs.poll() is None and run.path("pid").exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.pid, signal.SIGKILL)
        runs.wait(PATIENCE_SECONDS)
    shown = process("budget", "show", "clinic-patients", "--ledger", clinic.ledger_url, "--json")
    yield Aftermath(
        clinic=clinic,
        racing=racing,
        stalled=stalled,
        codes=json.loads(printed),
        alive=alive,
        dead=_folders(clinic.out),
        with_rows=_with_rows(clinic.out),
        account=json.loads(shown.out),
    )


def _wait_until_ready(stalled: Iterable[Stalled]) -> None:
    limit = time.monotonic() + PATIENCE_SECONDS
    waiting = list(stalled)
    while waiting:
        for run in waiting:
            assert not run.path("ended").exists(), f"{run.name} has ended before its place: {run.err}"
        assert time.monotonic() < limit, f"not at their places: {[run.name for run in waiting]}"
        time.sleep(0.05)
        waiting = [run for run in waiting if not run.path("ready").exists()]


def _folders(out: Path) -> dict[str, set[str]]:
    return {run.name: {path.name for path in run.iterdir()} for run in out.iterdir()}


def _with_rows(out: Path) -> set[str]:
    return {path.parent.parent.name for path in out.glob("*/private/encoded.arrow")}


def test_runs_at_the_same_time_leave_each_others_working_files(aftermath: Aftermath) -> None:
    assert len(aftermath.alive) == len(KILLED) + len(STOPPED)
    assert all({"private", "internal"} <= folders for folders in aftermath.alive.values())


@pytest.mark.parametrize("stage", KILLED)
def test_a_killed_run_says_nothing_and_leaves_no_bundle(aftermath: Aftermath, stage: str) -> None:
    assert aftermath.codes[stage] == -signal.SIGKILL
    assert aftermath.stalled[stage].out == ""
    stages = ["prepare", "reserve", *KILLED]
    so_far = stages[: stages.index(stage) + 1]
    assert {line.split(":")[0] for line in aftermath.stalled[stage].err} <= set(so_far)


def test_no_bundle_of_any(aftermath: Aftermath) -> None:
    assert not any("bundle" in folders for folders in aftermath.dead.values())


def test_all_of_them_stay_spent(aftermath: Aftermath) -> None:
    account = aftermath.account
    assert set(account["charged_runs"]) == set(aftermath.dead)
    assert len(account["charged_runs"]) == len(KILLED) + len(STOPPED)
    assert account["void_runs"] == []
    settled = len(account["charged_runs"]) - len(account["open_runs"])
    assert settled == len(("settle", "document", "seal"))
    # k runs at (1, 1e-5) compose to sqrt(k) times the mu of one
    assert account["mu"] == pytest.approx(len(aftermath.dead) ** 0.5 * 0.26805, abs=1e-4)


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_ends_with_one_line(aftermath: Aftermath, name: str) -> None:
    run = aftermath.stalled[name]
    assert aftermath.codes[name] == 1
    assert run.out == ""
    ours = [line for line in run.err if line.split(":")[0] not in {"prepare", "reserve", "encode", "measure", "train"}]
    assert len(ours) == 2 and ours[1] == "synth: stopped; what was reserved stays spent"
    assert re.fullmatch("warning: run clinic-[0-9TZ]+-[0-9a-f]+ is not finished; --resume .*", ours[0])


def test_a_stopped_run_deletes_its_private_rows(aftermath: Aftermath) -> None:
    """A killed one cannot, and so has them until the next start; but for those that died after they had settled."""
    assert len(aftermath.with_rows) == len(KILLED) - len(("document", "seal"))
    assert all("private" in folders for folders in aftermath.dead.values())


def test_the_latest_that_can_is_resumed(aftermath: Aftermath, synth: Any) -> None:
    outcome = synth("run", aftermath.clinic.run_yaml, "--resume")
    assert outcome.bundle.parent.name in aftermath.dead
    assert synth("verify", outcome.bundle, "--ledger", aftermath.clinic.ledger_url).code == 0
    shown = json.loads(
        synth("budget", "show", "clinic-patients", "--ledger", aftermath.clinic.ledger_url, "--json").out
    )
    assert shown["charged_runs"] == aftermath.account["charged_runs"]
    assert shown["epsilon"] == aftermath.account["epsilon"]
    assert _with_rows(aftermath.clinic.out) == set()


def test_the_next_run_works_and_deletes_what_the_killed_have_left(aftermath: Aftermath, synth: Any) -> None:
    outcome = synth("run", aftermath.clinic.run_yaml)
    assert outcome.bundle.is_dir()
    assert not any("private" in folders for folders in _folders(aftermath.clinic.out).values())
    assert set(_folders(aftermath.clinic.out)) == {*aftermath.dead, outcome.bundle.parent.name}
    assert synth("verify", outcome.bundle, "--ledger", aftermath.clinic.ledger_url).code == 0


def test_of_two_runs_with_room_for_one_exactly_one_succeeds(aftermath: Aftermath, synth: Any) -> None:
    winner, loser = sorted(RACERS, key=aftermath.codes.__getitem__)
    assert (aftermath.codes[winner], aftermath.codes[loser]) == (0, 3)
    won, lost = aftermath.stalled[winner], aftermath.stalled[loser]
    assert Path(won.out.strip()).is_dir()
    assert lost.out == ""
    *before, refusal = lost.err
    assert "its cap is epsilon 1 " in refusal and all(line.startswith("prepare: ") for line in before)
    assert _folders(aftermath.racing.out) == {Path(won.out.strip()).parent.name: {"bundle", "internal"}}
    shown = synth("budget", "show", "clinic-patients", "--ledger", aftermath.racing.ledger_url, "--json")
    assert len(json.loads(shown.out)["charged_runs"]) == 1
