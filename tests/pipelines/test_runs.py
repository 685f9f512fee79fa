"""`synth runs`: the list of runs, the pointer to the latest bundle, and what pruning removes and never removes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from synth.run_folder import RunFolder, hold
from synth.runs import GRACE, LATEST, point_to, prune

STATES = {
    "a-failed": "failed",
    "b-candidate": "candidate",
    "c-rejected": "rejected",
    "d-approved": "approved",
    "e-revoked": "revoked",
    "f-damaged": "damaged",
    "g-audit": "audit",
    "h-candidate": "candidate",
    "i-newest": "candidate",
}


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, quick_run: Callable[[Path], Path], every_answer: str
) -> Path:
    """The folder of a finished run in which every question is answered."""
    clinic = clinic_at(tmp_path_factory.mktemp("runs") / "clinic")
    (clinic.folder / "answers.yaml").write_text(every_answer)
    return quick_run(clinic.run_yaml).parent


def call(*arguments: object) -> None:
    """Run `synth …` in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def states(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a run of each state, a day apart."""
    folder = tmp_path_factory.mktemp("states")
    directory, key = folder / "out", folder / "ada.key"
    for day, (name, state) in enumerate(STATES.items(), start=1):
        shutil.copytree(made, directory / name)
        started = json.loads((made / "internal" / "run.json").read_text()) | {"created": f"2025-01-0{day}T03:00:00Z"}
        (directory / name / "internal" / "run.json").write_text(json.dumps(started))
        if state in {"failed", "audit"}:
            shutil.rmtree(directory / name / "bundle")
    (directory / "g-audit" / "internal" / "audit.html").write_text("an audit")
    (directory / "a-failed" / "private").mkdir()
    call("key", "new", key)
    signed = ("--by", "Ada", "--key", key, "--ledger", f"sqlite:///{made.parent.parent / 'ledger.db'}")
    for verb, name in (("reject", "c-rejected"), ("approve", "d-approved"), ("approve", "e-revoked")):
        call(verb, directory / name / "bundle", *signed)
    with pytest.MonkeyPatch.context() as patch:  # its entry names the run, which all of these share: on one list alone
        patch.setenv("SYNTH_REVOCATIONS", str(folder / "revocations.json"))
        call("revoke", directory / "e-revoked" / "bundle", "--key", key)
    (directory / "f-damaged" / "bundle" / "dictionary.md").write_text("other")
    return directory


@pytest.fixture
def out(states: Path, tmp_path: Path) -> Path:
    """A copy, to be pruned."""
    return Path(shutil.copytree(states, tmp_path / "out"))


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_dir()}


def test_every_state_is_listed_the_newest_first(out: Path, synth: Any) -> None:
    found = json.loads(synth("runs", out, "--json").out)["runs"]
    assert {run["run"]: run["state"] for run in found} == STATES
    assert [run["run"] for run in found] == sorted(STATES, reverse=True)
    assert {run["epsilon"] for run in found} == {1.0}
    assert [run["run"] for run in found if not run["private_gone"]] == ["a-failed"]
    assert [run["run"] for run in found if run["latest"]] == ["i-newest"]
    assert {run["charged"] for run in found} == {None}


def test_the_list_for_people(out: Path, synth: Any) -> None:
    printed = synth("runs", out).out
    assert all(state in printed for state in STATES.values())


def test_a_run_yaml_names_its_folder_and_its_ledger(made: Path, synth: Any) -> None:
    (found,) = json.loads(synth("runs", made.parent.parent / "run.yaml", "--json").out)["runs"]
    assert (found["run"], found["state"], found["charged"]) == (made.name, "candidate", True)
    noted = json.loads((made / "internal" / "durations.json").read_text())
    assert found["seconds"] == pytest.approx(sum(entry["seconds"] for entry in noted), abs=1e-3)
    assert "0:00:" in synth("runs", made.parent.parent / "run.yaml").out


def test_a_run_at_work_is_drafting_and_stays(out: Path, synth: Any) -> None:
    with hold(RunFolder(out / "a-failed")), hold(RunFolder(out / "b-candidate")):  # the second is documented again
        found = json.loads(synth("runs", out, "--json").out)["runs"]
        assert next(run["state"] for run in found if run["run"] == "a-failed") == "drafting"
        synth("runs", out, "--prune", "--keep", 0)
        assert (out / "a-failed" / "private").is_dir() and "b-candidate" in names(out)
        assert "h-candidate" not in names(out)


def test_pruning_never_takes_what_was_released_or_is_the_latest(out: Path, synth: Any) -> None:
    kept = {"d-approved", "e-revoked", "f-damaged", "g-audit", "i-newest"}
    told = synth("runs", out, "--prune", "--keep", 0, "--dry-run").out
    assert [line.split()[2] for line in told.splitlines()] == ["h-candidate", "c-rejected", "b-candidate", "a-failed"]
    assert names(out) == set(STATES) and (out / "a-failed" / "private").is_dir()
    assert synth("runs", out, "--prune", "--keep", 0).code == 0
    assert names(out) == kept
    assert synth("runs", out, "--prune", "--keep", 0).out == "nothing to remove\n"


def test_the_newest_of_those_that_may_go_stay(out: Path, synth: Any) -> None:
    gone = json.loads(synth("runs", out, "--prune", "--keep", 2, "--json").out)
    assert [run["run"] for run in gone["removed"]] == ["b-candidate", "a-failed"]
    assert names(out) == set(STATES) - {"a-failed", "b-candidate"}


def test_working_files_of_dead_runs_go(out: Path, synth: Any) -> None:
    synth("runs", out, "--prune", "--keep", 9)
    assert "a-failed" in names(out) and not (out / "a-failed" / "private").exists()


def test_what_a_killed_prune_has_left_goes(out: Path, synth: Any) -> None:
    (out / ".z-half.pruned" / "internal").mkdir(parents=True)
    synth("runs", out, "--prune", "--keep", 9)
    assert not (out / ".z-half.pruned").exists()


def test_a_run_that_has_just_begun_stays(out: Path) -> None:
    started = datetime(2025, 1, 1, 3, tzinfo=UTC)

    def gone(now: datetime) -> list[str]:
        return [run.run for run in prune(out, keep=0, revocations=lambda _: [], dry_run=True, now=now)]

    assert gone(started + GRACE) == []
    assert gone(started + GRACE * 1.01) == ["a-failed"]


def test_the_pointer_moves_to_a_whole_bundle_and_is_never_pruned(out: Path, synth: Any) -> None:
    point_to(out / "b-candidate" / "bundle", always=False)
    assert not (out / LATEST).exists()  # no schedule uses this folder
    point_to(out / "b-candidate" / "bundle", always=True)
    assert (out / LATEST).read_text() == "b-candidate/bundle\n"
    point_to(out / "h-candidate" / "bundle", always=False)
    assert (out / LATEST).read_text() == "h-candidate/bundle\n"
    synth("runs", out, "--prune", "--keep", 0)
    assert {"h-candidate"} == names(out) & {"b-candidate", "h-candidate", "i-newest"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--prune"], "--keep"),
        (["--keep", "3"], "--prune"),
        (["--dry-run"], "--prune"),
    ],
)
def test_mistakes(out: Path, synth: Any, options: list[str], word: str) -> None:
    outcome = synth("runs", out, *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert word in outcome.err
    assert synth("runs", out / "none").code == 2
