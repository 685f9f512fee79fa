"""`synth doctor`: ready, or one line for each thing that has to be done."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from importlib import metadata
from typing import Any

import pyarrow.parquet as pq
import pytest

NAMES = ["python", "packages", "prefect", "torch", "run", "ledger", "disk", "key"]


@pytest.fixture
def ready(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clinic with a capped ledger and a key."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)  # the machine's own setting is not what is tested
    synth("budget", "cap", "clinic-patients", 3, "--ledger", clinic.ledger_url)
    synth("key", "new", clinic.folder / "ada.key")
    return clinic


def asked(synth: Any, clinic: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    outcome = synth("doctor", clinic.run_yaml, "--key", clinic.folder / "ada.key", "--json")
    told = json.loads(outcome.out)
    assert told["ok"] is (outcome.code == 0)
    return outcome.code, {check["name"]: check for check in told["checks"]}


def test_a_machine_that_is_ready(ready: Any, synth: Any) -> None:
    before = ready.files()
    outcome = synth("doctor", ready.run_yaml, "--key", ready.folder / "ada.key")
    lines = outcome.out.splitlines()
    assert (outcome.code, lines[-1]) == (0, "ready"), outcome.out
    assert [line.split()[1] for line in lines[:-1]] == NAMES
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert ready.files() == before  # it looks, and leaves nothing


def test_without_a_run_the_machine_alone_is_asked(synth: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    outcome = synth("doctor", "--ledger", f"sqlite:///{home / 'no-ledger.db'}")
    assert outcome.code == 0, outcome.out
    assert "no entries yet" in outcome.out


def test_everything_that_is_wrong_is_told_at_once(ready: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (ready.folder / "ada.key").chmod(0o640)
    pq.write_table(ready.table.drop_columns(["sex"]), ready.source)
    with closing(sqlite3.connect(ready.ledger)) as database:
        triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            database.execute(f"DROP TRIGGER {name}")
        database.execute("UPDATE entries SET population = 'others'")
        database.commit()
    real = metadata.version
    monkeypatch.setattr(
        "pipelines.doctor.metadata.version", lambda name: "99.0" if name == "sqlalchemy" else real(name)
    )
    monkeypatch.setattr("torch.get_num_threads", lambda: 10_000)
    code, checks = asked(synth, ready)
    assert code == 1
    assert {name for name, check in checks.items() if not check["ok"]} == {"packages", "torch", "run", "ledger", "key"}
    assert "sqlalchemy 99.0 is not " in checks["packages"]["found"]
    assert "chmod 600" in checks["key"]["remedy"]


def test_a_mistake_in_the_answers_is_told_before_a_run(ready: Any, synth: Any) -> None:
    (ready.folder / "answers.yaml").write_text('motivation.purpos: "Teaching."\n')
    code, checks = asked(synth, ready)
    assert (code, checks["run"]["ok"]) == (1, False)
    assert "did you mean motivation.purpose?" in checks["run"]["found"]


def test_other_versions_than_tested_are_told_and_will_do(
    ready: Any, synth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version
    monkeypatch.setattr(
        "pipelines.doctor.metadata.version", lambda name: "2.0.1" if name == "sqlalchemy" else real(name)
    )
    _, checks = asked(synth, ready)
    assert checks["packages"]["ok"] and "sqlalchemy 2.0.1" in checks["packages"]["found"]


def test_a_server_that_does_not_answer(ready: Any, synth: Any) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        code, checks = asked(synth, ready)
    assert code == 1
    assert "prefect server start" in checks["prefect"]["found"]


def test_a_run_yaml_with_a_mistake_and_a_key_that_is_not_there(ready: Any, synth: Any) -> None:
    (ready.folder / "ada.key").unlink()
    ready.run_yaml.write_text("source: 7\n")
    outcome = synth("doctor", ready.run_yaml)
    assert outcome.code == 1 and outcome.out.splitlines()[-1] == "to do: run"
    assert synth("doctor", "--key", ready.folder / "ada.key").out.splitlines()[-1] == "to do: key"
