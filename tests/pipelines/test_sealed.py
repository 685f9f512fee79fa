"""Runs with $SYNTH_WORKING_KEY: whatever holds rows or pictures is sealed while it is there, and the run is as ever."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.privacy.ledger import Ledger
from synth.run_folder import RunFolder
from synth.working_file import SEALED, VARIABLE

KEY = "0badc0de" * 8
# What is noised, paid for or public; and exact counts, which docs/operations.md names.
COUNTS = {"outside.json", "broken_rules.json", "held_out_exact.json"}
NOISED = {"measurements.json", "measurements.safetensors", "generator.safetensors", "fitted.ckpt", "held_out.json"}
NOTES = {f"{note}.json" for note in ("audit", "config", "critic", "data", "delta", "measures", "model", "privacy")}
WITHOUT_ROWS = COUNTS | NOISED | NOTES | {"quality.json", "split.json", "part-00000.parquet"}


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The first bytes of every working file as it is when it is deleted."""
    found: dict[str, bytes] = {}
    forget = RunFolder.forget_rows

    def look(folder: RunFolder) -> None:
        files = [path for path in folder.private.rglob("*") if path.is_file()] if folder.private.exists() else []
        found.update({path.name: path.read_bytes()[: len(SEALED)] for path in files})
        forget(folder)

    monkeypatch.setattr(RunFolder, "forget_rows", look)
    monkeypatch.setenv(VARIABLE, KEY)
    return found


def test_a_table_with_held_out_people(clinic: Any, quick_run: Callable[[Path], Path], lying: dict[str, bytes]) -> None:
    clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2}
    clinic.run |= {"evaluation": {"holdout": 0.3}}
    clinic.run["synthesizer"] |= {"critic_share": 0.3, "critic": {"steps": 2}}  # has rows in an array of its own
    bundle = quick_run(clinic.write().run_yaml)
    assert (bundle / "manifest.json").exists()
    assert (bundle.parent / "internal" / "report.html").exists()
    sealed = {name for name, head in lying.items() if head == SEALED}
    assert sealed == {"encoded.arrow", "held_out.arrow", "synthetic.arrow"}
    assert {*lying} - sealed - WITHOUT_ROWS == set()


def test_pictures(tmp_path: Path, quick_run: Callable[[Path], Path], lying: dict[str, bytes]) -> None:
    bundle = quick_run(pictures(tmp_path / "ward") / "run.yaml")
    assert (bundle.parent / "internal" / "report.html").exists()
    rows = {name: head for name, head in lying.items() if name.endswith(".arrow")}
    assert rows == dict.fromkeys(("encoded.arrow", "pictures.arrow"), SEALED)


def pictures(folder: Path) -> Path:
    """The pictures of `test_resume`."""
    spec = importlib.util.spec_from_file_location("resume_helpers", Path(__file__).with_name("test_resume.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.pictures(folder))


def test_half_a_key_costs_nothing(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY[1:])
    outcome = synth("run", clinic.run_yaml)
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1), outcome
    assert "SYNTH_WORKING_KEY: should be 64 hexadecimal digits" in outcome.err and KEY[1:] not in outcome.err
    assert not clinic.out.exists() or not [*clinic.out.iterdir()]
    assert Ledger.open(clinic.ledger_url, create=False).history() == ()


def test_other_commands_need_no_key(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nonsense")
    assert json.loads(synth("plan", clinic.run_yaml, "--json").out)["population"] == "clinic-patients"
