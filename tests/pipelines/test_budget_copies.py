"""`synth budget backup`, `restore` and `verify --bundle`; and a whole run on PostgreSQL."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from synth.files import canonical_json
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger
from synth.release import REQUIRED, seal

EVENT = GaussianEvent(name="all", sensitivity=1, replace_one_sensitivity=math.sqrt(2), noise_scale=4)


class Used(NamedTuple):
    """A ledger with three settled runs, and the folder of their bundles."""

    url: str
    ledger: Ledger
    bundles: Path
    early: Path  # a copy of the ledger from before the last run


@pytest.fixture
def used(tmp_path: Path) -> Used:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(f"sqlite:///{path}")
    for run_id in ("first", "second", "third"):
        if run_id == "third":
            shutil.copy(path, tmp_path / "early.db")
        ledger.reserve(population="patients", dataset="visits", run_id=run_id, events=[EVENT], delta=1e-5)
        ledger.spend(run_id, EVENT)
        bundle(tmp_path / "bundles" / run_id / "bundle", run_id, ledger.settle(run_id).hash)
    return Used(f"sqlite:///{path}", ledger, tmp_path / "bundles", tmp_path / "early.db")


def bundle(folder: Path, run_id: str, head: str) -> None:
    for name in (*REQUIRED, "data/part-00000.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    population = {"name": "patients", "epsilon": 0.5, "delta": 1e-5, "candidates": 1}
    claims = {"run": run_id, "population": population, "epsilon": 0.5, "delta": 1e-5, "ledger_head": head}
    (folder / "privacy.json").write_bytes(canonical_json({"x_synth": claims}))
    seal(folder)


class TestVerifyAgainstBundles:
    def test_all_are_there(self, used: Used, synth: Callable[..., Any]) -> None:
        done = synth("budget", "verify", "--bundle", used.bundles, "--ledger", used.url)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[1] == "bundles: 3, each with its run's entry in this ledger"
        one, two = (used.bundles / name / "bundle" for name in ("first", "second"))
        found = synth("budget", "verify", "patients", "--bundle", one, "--bundle", two, "--ledger", used.url, "--json")
        assert json.loads(found.out)["bundles"] == [
            {"bundle": str(one), "run": "first"},
            {"bundle": str(two), "run": "second"},
        ]

    def test_a_copy_put_back_is_found(self, used: Used, synth: Callable[..., Any]) -> None:
        url = f"sqlite:///{used.early}"
        assert synth("budget", "verify", "--ledger", url).code == 0  # the chain cannot show it
        failed = synth("budget", "verify", "--bundle", used.bundles, "--ledger", url)
        assert (failed.code, failed.out) == (4, "")
        assert "third/bundle" in failed.err and "rolled back" in failed.err and failed.err.count("\n") == 1

    def test_a_copy_put_back_and_used_on_is_found(self, used: Used, synth: Callable[..., Any]) -> None:
        Ledger.open(f"sqlite:///{used.early}").set_cap("patients", 3)
        failed = synth("budget", "verify", "--bundle", used.bundles, "--ledger", f"sqlite:///{used.early}")
        assert (failed.code, "rolled back" in failed.err) == (4, True)

    def test_a_head_of_another_run_is_found(self, used: Used, synth: Callable[..., Any], tmp_path: Path) -> None:
        """A bundle that was never charged can name an entry that is there; it is not the end of its run."""
        bundle(tmp_path / "uncharged", "uncharged", used.ledger.head())
        failed = synth("budget", "verify", "--bundle", tmp_path / "uncharged", "--ledger", used.url)
        assert (failed.code, "uncharged" in failed.err) == (4, True)

    def test_a_changed_bundle_is_found(self, used: Used, synth: Callable[..., Any]) -> None:
        (used.bundles / "second" / "bundle" / "schema.yaml").write_text("changed")
        failed = synth("budget", "verify", "--bundle", used.bundles, "--ledger", used.url)
        assert (failed.code, "schema.yaml" in failed.err, "second/bundle" in failed.err) == (4, True, True)

    def test_no_bundle_there(self, used: Used, synth: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        failed = synth("budget", "verify", "--bundle", tmp_path / "empty", "--ledger", used.url)
        assert (failed.code, "no bundle there" in failed.err) == (2, True)


class TestBackup:
    def test_it_moves_a_ledger(self, used: Used, synth: Callable[..., Any], tmp_path: Path, ledger_url: str) -> None:
        file = tmp_path / "kept.json"
        moved = ledger_url.replace("ledger.db", "moved.db")
        done = synth("budget", "backup", file, "--ledger", used.url)
        assert (done.code, done.out) == (0, f"{file}: 9 entries, head {used.ledger.head()}\n")
        assert file.stat().st_mode & 0o077 == 0
        done = synth("budget", "restore", file, "--ledger", moved)
        assert (done.code, done.out) == (0, f"restored: 9 entries, head {used.ledger.head()}\n")
        shown, there = (synth("budget", "show", "--json", "--ledger", url).out for url in (used.url, moved))
        assert shown == there
        assert synth("budget", "verify", "--bundle", used.bundles, "--ledger", moved).code == 0
        again = synth("budget", "restore", file, "--ledger", moved)
        assert (again.code, "has entries" in again.err) == (2, True)

    def test_nothing_is_overwritten(self, used: Used, synth: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "kept.json").write_text("mine")
        assert synth("budget", "backup", tmp_path / "kept.json", "--ledger", used.url).code == 2
        assert (tmp_path / "kept.json").read_text() == "mine"

    def test_a_changed_backup_exits_4(self, used: Used, synth: Callable[..., Any], tmp_path: Path) -> None:
        file = tmp_path / "kept.json"
        assert json.loads(synth("budget", "backup", file, "--ledger", used.url, "--json").out)["entries"] == 9
        file.write_bytes(file.read_bytes().replace(b'"noise_scale', b'"noise_sca1e', 1))
        target = f"sqlite:///{tmp_path / 'target.db'}"
        assert synth("budget", "restore", file, "--ledger", target).code == 4
        assert json.loads(synth("budget", "verify", "--json", "--ledger", target).out)["entries"] == 0


def test_a_run_on_postgresql(
    clinic: Any, process: Callable[..., Any], synth: Callable[..., Any], postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole pipeline; the url comes from the environment and is written nowhere, Prefect's database included."""
    clinic.run["ledger"] = {"url": "${CLINIC_LEDGER}"}
    clinic.write()
    monkeypatch.setenv("CLINIC_LEDGER", postgres)
    assert synth("budget", "cap", "clinic-patients", "1.2", "--ledger", postgres).code == 0
    done = process("run", clinic.run_yaml, environment={"PREFECT_HOME": str(clinic.folder / "prefect")})
    assert done.bundle.is_dir()
    assert "does not suffice for another run" in done.err
    shown = json.loads(synth("budget", "show", "clinic-patients", "--ledger", postgres, "--json").out)
    assert (len(shown["charged_runs"]), shown["open_runs"], shown["runs_left"]) == (1, [], 0)
    assert synth("verify", done.bundle, "--ledger", postgres).code == 0
    refused = synth("run", clinic.run_yaml)
    assert (refused.code, "cap" in refused.err) == (3, True)
    secrets = (postgres.encode(), b"correct-horse", b"ledgerkeeper")
    left = [path for path in clinic.folder.rglob("*") if path.is_file()]
    assert any("prefect.db" in path.name for path in left)
    for path in left:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path
    for line in (done.out, done.err, refused.err):
        assert not any(secret.decode() in line for secret in secrets)
