"""Planted values: whatever stage fails, and whatever a library says of it, no byte outside the source holds one.

Each stage is made to fail in its own body, so that it is the boundary that has to stop the value, with the real
Prefect and its database. Declared categories are public knowledge, so only values that are not declared are looked for.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import re
import sqlite3
import struct
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synth import durations

ROWS = 577
TEXT = "zq-canary-text"
UNDECLARED = "zq-canary-undeclared"
IDENTIFIER = "zq-canary-id"
NUMBER = 8675309.125
WHOLE = 7393911331739391  # too long to turn up in the random digits of ten thousand printed numbers and hashes
DATE = datetime(1971, 7, 8, 9, 10, 11)
FOLDER = "zq-source-folder"
TOOK = 7468219351084227  # what every stage is said to take: seconds, of a processor too, and bytes of memory
MICROS = int((DATE - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
CANARIES = (
    *(word.encode() for word in (TEXT, UNDECLARED, IDENTIFIER)),
    *(str(number).encode() for number in (NUMBER, WHOLE, MICROS)),
    DATE.isoformat().encode(),
    str(DATE).encode(),
    struct.pack("<d", NUMBER),
    struct.pack("<q", WHOLE),
    struct.pack("<d", WHOLE),
    struct.pack("<q", MICROS),
)
# stage → what it calls in its body, and whether noise has been drawn by then
BODIES = {
    "reserve": ("synth.stages.events_of", False),
    "encode": ("synth.tables.stages.encode_rows", False),
    "measure": ("synth.tables.stages.save_measurements", True),
    "train": ("synth.tables.stages.fit", True),
    "sample": ("synth.tables.stages.sample_rows_by", True),
    "audit": ("synth.tables.stages.audit_of_rows", True),
    "score": ("synth.tables.stages.Classifier", True),
    "evaluate": ("synth.tables.stages.public_scores", True),
    "settle": ("synth.stages.composed_mu", True),
    "document": ("pipelines.documents.load_answers", True),
    "seal": ("synth.release.seal", True),
}


@pytest.fixture
def clinic(clinic_at: Any, tmp_path: Path) -> Any:
    """A clinic whose source, in a folder of its own, holds a canary of each kind."""
    clinic = clinic_at(tmp_path / "clinic")
    (clinic.folder / FOLDER).mkdir()
    rows = clinic.table
    while rows.num_rows < ROWS:
        rows = type(rows).from_batches(rows.to_batches() * 2)
    clinic.table = rows.slice(0, ROWS)
    for name, value in (
        ("patient_nbr", IDENTIFIER),
        ("age", WHOLE),
        ("bmi", NUMBER),
        ("sex", TEXT),
        ("ward", TEXT),
        ("grade", WHOLE),
        ("admitted", DATE),
        ("note", UNDECLARED),
    ):
        values = clinic.table[name].to_pylist()
        values[5] = value
        clinic.put(name, values, clinic.table[name].type)
    clinic.run["source"] = {"path": f"{FOLDER}/patients.parquet"}
    clinic.run["output"]["rows"] = 250
    clinic.run["evaluation"] = {"holdout": 0.2}
    clinic.schema["row_count"] = 600  # public, and not the true number
    clinic.write()
    clinic.source.replace(clinic.folder / FOLDER / "patients.parquet")
    return clinic


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every warning is shown, as in a user's process."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


def bytes_below(*places: Path) -> Iterator[tuple[str, bytes]]:
    """Every name and byte below the places, but for the source: as it is, base64-decoded, and read by SQLite."""
    for path in itertools.chain.from_iterable(place.rglob("*") for place in places):
        if FOLDER in path.parts:
            continue
        yield str(path), path.name.encode()
        content = b""
        with contextlib.suppress(FileNotFoundError):  # a journal of Prefect's database comes and goes
            content = path.read_bytes() if path.is_file() else b""
        if content:
            yield str(path), content
            with contextlib.suppress(ValueError):
                yield f"{path}, decoded", base64.b64decode(content)
        if path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                yield f"rows of {path}", "\n".join(database.iterdump()).encode()


def assert_no_canary(found: Iterator[tuple[str, bytes]], more: tuple[bytes, ...] = ()) -> None:
    for place, content in found:
        for canary in (*CANARIES, *more):
            assert canary not in content, f"{canary!r} in {place}"


def shout(*_: object, **__: object) -> None:
    """What a library may do before it fails: log, warn, and quote what it failed on, with a cause that does too."""
    said = f"could not convert {TEXT} {UNDECLARED} {IDENTIFIER} {NUMBER} {WHOLE} {DATE}"
    for name in (None, "pyarrow", "prefect", "pytorch_lightning"):
        logging.getLogger(name).critical(said)
    warnings.warn(said, stacklevel=1)
    try:
        raise KeyError(said)
    except KeyError as error:
        raise ValueError(said) from error


def test_the_search_finds_what_is_planted(clinic: Any, home: Path) -> None:
    planted = (clinic.folder / FOLDER / "patients.parquet").read_bytes()
    plain = clinic.folder / "plain.parquet"
    pq.write_table(clinic.table, plain, compression="none", use_dictionary=False)
    content = plain.read_bytes()
    assert planted and all(canary in content for canary in CANARIES if not canary[:1].isdigit() and b"zq" in canary)
    assert struct.pack("<d", NUMBER) in content and struct.pack("<q", MICROS) in content
    with pytest.raises(AssertionError, match="zq-canary"):
        assert_no_canary(bytes_below(clinic.folder))


@pytest.mark.parametrize("stage", BODIES)
def test_a_failing_stage_tells_nothing(
    clinic: Any, synth: Any, home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    body, drawn = BODIES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(body, shout)
        outcome = synth("run", clinic.run_yaml)
    assert (outcome.code, outcome.out) == (1, "")
    last = outcome.err.splitlines()[-1]
    assert last.startswith(f"synth: {stage} failed with ValueError") and "withheld" in last
    assert_no_canary(iter([("stderr", outcome.err.encode())]), (FOLDER.encode(),))

    (run,) = clinic.out.iterdir()
    # People are held out here, and who they are is not kept: until their scores are done there is no going on.
    resumable = list(BODIES).index(stage) > list(BODIES).index("evaluate")
    assert {path.name for path in run.iterdir()} == {"internal", *(["private"] if resumable else [])}
    if resumable:  # noised or public, all of it
        kept = {path.name for path in (run / "private").iterdir()}
        assert kept <= {"measurements.json", "measurements.safetensors", "checkpoints", "facts", "bundle.partial"}
    failure = (run / "internal" / f"failure-{stage}.txt").read_text()
    assert failure.startswith("ValueError\n") and "in shout" not in failure and "shout" in failure
    assert_no_canary(bytes_below(clinic.folder, home, temporary))

    shown = json.loads(synth("budget", "show", "clinic-patients", "--ledger", clinic.ledger_url, "--json").out)
    if stage == "reserve":
        assert shown["known"] is False
    else:
        assert (len(shown["charged_runs"]), len(shown["void_runs"])) == ((1, 0) if drawn else (0, 1))
        assert len(shown["open_runs"]) == (resumable and stage not in {"document", "seal"})

    (states,) = _prefect(home, "SELECT state_type, state_name FROM flow_run", run.name)
    assert states == ("FAILED", "Failed")
    messages = {row[0] for row in _states(home, run.name)}
    failed = {message for message in messages if message and "Stopped" in message}
    assert failed and all(message.endswith(f"Stopped: {stage}: StageFailed") for message in failed), messages

    if stage == "settle":  # one resumed, and it tells as little
        outcome = synth("run", clinic.run_yaml, "--resume")
        assert outcome.bundle.parent == run
        assert_no_canary(bytes_below(clinic.folder, home, temporary))
        assert_no_canary(iter([("stderr", outcome.err.encode())]), (FOLDER.encode(),))
        parameters = _prefect(home, "SELECT parameters FROM flow_run", run.name)
        assert len(parameters) == 2 and parameters[0] == parameters[1]


def test_a_source_that_is_lost_on_the_way_is_not_named_to_prefect(
    clinic: Any, synth: Any, home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clinic.folder / FOLDER / "patients.parquet"
    from synth.tables import stages

    def lose(*args: Any) -> Any:
        source.unlink(missing_ok=True)
        return real(*args)

    real = stages.read_batches
    monkeypatch.setattr(stages, "read_batches", lose)
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 2
    assert "no such file" in outcome.err.splitlines()[-1]
    assert_no_canary(bytes_below(clinic.folder, home, temporary))
    assert_no_canary(bytes_below(home), (FOLDER.encode(),))
    assert list(clinic.out.iterdir()) == []


@pytest.fixture
def run(clinic: Any, synth: Any, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run that succeeds, although libraries talk of what they see."""
    from synth.tables import stages

    def talk(*args: Any, **kwargs: Any) -> Any:
        with pytest.raises(ValueError, match="zq"):
            shout()
        return real(*args, **kwargs)

    real = stages.encode_rows
    monkeypatch.setattr(stages, "encode_rows", talk)
    monkeypatch.setattr(durations._Started, "until_now", lambda self: durations.Duration(self.stage, *[TOOK] * 3))
    return synth("run", clinic.run_yaml)


def test_a_run_that_succeeds_tells_nothing(clinic: Any, run: Any, home: Path, temporary: Path) -> None:
    assert run.code == 0, run.err
    assert_no_canary(bytes_below(clinic.folder, home, temporary))
    assert_no_canary(iter([("stdout", run.out.encode()), ("stderr", run.err.encode())]), (FOLDER.encode(),))
    table = pq.read_table(run.bundle / "data" / "part-00000.parquet")
    assert table.num_rows == 250 and "note" not in table.column_names
    values = {str(value) for name in table.column_names for value in table[name].to_pylist()}
    assert not values & {TEXT, UNDECLARED, IDENTIFIER, str(NUMBER), str(WHOLE), str(DATE)}
    # What the steward may see: how many values were outside, not which.
    report = json.loads((run.bundle.parent / "internal" / "report.json").read_text())
    assert {entry["column"]: entry["outside"] for entry in report["columns"]} == {
        **dict.fromkeys(("age", "bmi", "sex", "ward", "grade", "admitted"), 1),
        "died": 0,
    }
    # Time and memory too, which follow from how large the source is.
    internal = run.bundle.parent / "internal"
    noted = json.loads((internal / "durations.json").read_text())
    assert [entry["stage"] for entry in noted] == [*BODIES]
    assert report["durations"] == [entry for entry in noted if entry["stage"] not in {"settle", "document", "seal"}]
    assert {entry[key] for entry in noted for key in ("seconds", "cpu_seconds", "peak_bytes")} == {TOOK}
    assert "Time and memory" in (internal / "report.html").read_text()
    took = (str(TOOK).encode(),)
    assert_no_canary(bytes_below(run.bundle, home, temporary), took)
    said = (run.out.encode(), run.err.encode(), clinic.ledger.read_bytes())
    assert_no_canary(iter([("stdout, stderr or ledger", content) for content in said]), took)
    _nothing_of_the_source_is_public(clinic, run.bundle)
    _prefect_knows_the_run_folder_alone(clinic, run.bundle.parent, home)


def test_workers_tell_nothing(
    clinic: Any, synth: Any, home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What workers count is seen by nobody else, whatever libraries say there. WHOLE is among it, for once."""
    from synth.tables import count

    def counted(batches: Any, **how: Any) -> dict[str, Any]:
        for name in (None, "pyarrow", "distributed.worker"):
            logging.getLogger(name).critical(said)
        warnings.warn(said, stacklevel=1)
        return {**real(batches, **how), "canary": np.full(1000, whole)}

    real, said, whole = count._histograms, f"could not convert {TEXT} {WHOLE}", WHOLE
    monkeypatch.setattr(count, "_histograms", counted)
    clinic.run_yaml.write_text(json.dumps(clinic.run | {"scale": {"workers": 2}}))
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 0, outcome.err
    assert_no_canary(bytes_below(clinic.folder, home, temporary))
    assert_no_canary(iter([("stdout", outcome.out.encode()), ("stderr", outcome.err.encode())]), (FOLDER.encode(),))
    _prefect_knows_the_run_folder_alone(clinic, outcome.bundle.parent, home)
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        ((flow_run,),) = _prefect(home, "SELECT id FROM flow_run", outcome.bundle.parent.name)
        tasks = database.execute("SELECT task_key FROM task_run WHERE flow_run_id = ?", (flow_run,)).fetchall()
    assert len(tasks) == len(BODIES), "a task a stage, and none a part"


def _nothing_of_the_source_is_public(clinic: Any, bundle: Path) -> None:
    size = (clinic.folder / FOLDER / "patients.parquet").stat().st_size
    facts = {FOLDER, "patients.parquet", "patients", str(ROWS), str(size)}
    if json.loads((bundle / "quality.json").read_text())["rows"] == ROWS:
        facts.remove(str(ROWS))  # the noised number of rows, which is public, is the real one now and then
    for path in bundle.rglob("*"):
        if path.is_file() and path.suffix != ".parquet" and path.name != "generator.safetensors":
            text = path.read_text().replace("clinic-patients", "")
            # How large the model is follows from noised bins: it may end in any three digits.
            text = re.sub(r"[0-9,]+ parameters", "", text)
            found = {fact for fact in facts if re.search(rf"(?<![\w.]){re.escape(fact)}(?![\w.])", text)}
            assert found - {"patients"} == set(), path


def _prefect_knows_the_run_folder_alone(clinic: Any, run: Path, home: Path) -> None:
    (parameters,) = _prefect(home, "SELECT parameters FROM flow_run", run.name)
    assert json.loads(parameters[0]) == {"folder": str(run), "ledger_url": clinic.ledger_url}
    assert {row[0] for row in _states(home, run.name)} <= {None, "", "All states completed."}
    assert_no_canary(bytes_below(home), (FOLDER.encode(),))


def _prefect(home: Path, query: str, run_id: str) -> list[Any]:
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        return database.execute(f"{query} WHERE parameters LIKE ?", (f"%{run_id}%",)).fetchall()


def _states(home: Path, run_id: str) -> list[Any]:
    """Messages of all states of the flow run and its tasks."""
    ((flow_run,),) = _prefect(home, "SELECT id FROM flow_run", run_id)
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        found: list[Any] = database.execute(
            "SELECT message FROM flow_run_state WHERE flow_run_id = ?1 UNION ALL SELECT message FROM task_run_state "
            "WHERE task_run_id IN (SELECT id FROM task_run WHERE flow_run_id = ?1)",
            (flow_run,),
        ).fetchall()
    return found
