"""Runs and drafts from PostgreSQL and from a folder of files: the rows arrive, and nothing of how stays behind."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from pipelines.evaluating import _source_of
from synth.config import load_run
from synth.errors import InvalidConfig, NotBuiltYet
from synth.run_folder import RunFolder, create_run_folder

PASSWORD = "zq-canary-password"
QUERIED = "zq-canary-query"


@pytest.fixture(scope="module")
def canary() -> ModuleType:
    """The values of `test_canary`, and its search."""
    spec = importlib.util.spec_from_file_location("canary_helpers", Path(__file__).with_name("test_canary.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def to_database(
    clinic: Any, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Move the clinic's table into a database of its own, read by a role that may read nothing else."""
    with closing(psycopg.connect(f"{postgres_server}/postgres", autocommit=True)) as server:
        server.execute("CREATE DATABASE clinic_db")
        server.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{PASSWORD}'")
        with closing(psycopg.connect(f"{postgres_server}/clinic_db", autocommit=True)) as owner:

            def move(query: str) -> psycopg.Connection[Any]:
                clinic.copy_into(owner, "patients")
                owner.execute("GRANT SELECT ON patients TO clerk")
                host = postgres_server.rpartition("@")[2]
                monkeypatch.setenv("CLINIC_DB", f"postgresql://clerk:{PASSWORD}@{host}/clinic_db")
                monkeypatch.setenv("CLINIC_QUERY", query)
                clinic.run["source"] = {"url": "${CLINIC_DB}", "query": "${CLINIC_QUERY}"}
                clinic.write()
                clinic.source.unlink()
                return owner

            yield move
        server.execute("DROP DATABASE clinic_db WITH (FORCE)")
        server.execute("DROP ROLE clerk")


def test_a_run_from_a_database_tells_nothing(
    clinic: Any, synth: Any, home: Path, temporary: Path, to_database: Any, canary: Any, monkeypatch: Any
) -> None:
    for name, value in (
        ("age", canary.WHOLE),
        ("bmi", canary.NUMBER),
        ("sex", canary.TEXT),
        ("ward", canary.TEXT),
        ("grade", canary.WHOLE),
        ("admitted", canary.DATE),
        ("note", canary.UNDECLARED),
    ):
        clinic.put(name, [value, *clinic.table[name].to_pylist()[1:]], clinic.table[name].type)
    people = [canary.IDENTIFIER, canary.IDENTIFIER, canary.IDENTIFIER, *clinic.table["patient_nbr"].to_pylist()[3:]]
    clinic.put("patient_nbr", people)
    clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 3}
    clinic.run["output"]["rows"] = 250
    to_database(f"select * from patients where note <> '{QUERIED}' order by random()")
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 0, outcome.err

    table = pq.read_table(outcome.bundle / "data" / "part-00000.parquet")
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types == {
        "patient_nbr": "string",
        "age": "int64",
        "bmi": "double",
        "sex": "string",
        "ward": "string",
        "grade": "int64",
        "admitted": "timestamp[us]",
        "died": "bool",
    }
    report = json.loads((outcome.bundle.parent / "internal" / "report.json").read_text())
    outside = {entry["column"]: entry["outside"] for entry in report["columns"]}
    assert outside == dict.fromkeys(("age", "bmi", "sex", "ward", "grade", "admitted"), 1) | {"died": 0}
    secrets = (PASSWORD.encode(), QUERIED.encode(), b"clinic_db", b"clerk", b"127.0.0.1:" + _port())
    canary.assert_no_canary(canary.bytes_below(clinic.folder, home, temporary), secrets)
    canary.assert_no_canary(iter([("stdout", outcome.out.encode()), ("stderr", outcome.err.encode())]), secrets)

    assert "a database" in _source_of(outcome.bundle, clinic.run_yaml)[1][0]
    (kept,) = clinic.out.iterdir()
    assert "${CLINIC_DB}" in (kept / "internal" / "run.yaml").read_text()


def _port() -> bytes:
    """The database's, as the environment names it."""
    return os.environ["CLINIC_DB"].rpartition(":")[2].partition("/")[0].encode()


def test_a_connection_that_dies_in_the_middle_costs_and_tells_nothing(
    clinic: Any, synth: Any, home: Path, temporary: Path, to_database: Any, canary: Any
) -> None:
    clinic.put("note", [canary.UNDECLARED] * clinic.table.num_rows)
    to_database(
        "select patient_nbr, bmi, sex, ward, grade, admitted, died, "
        "case when patient_nbr = 'P00390' and pg_terminate_backend(pg_backend_pid()) then 1 else age end as age "
        f"from patients where note <> '{QUERIED}'"
    )
    outcome = synth("run", clinic.run_yaml)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == "synth: source (PostgreSQL): the connection was lost; run again"
    secrets = (PASSWORD.encode(), QUERIED.encode(), b"clinic_db", b"clerk", b"pg_terminate_backend")
    canary.assert_no_canary(canary.bytes_below(clinic.folder, home, temporary), secrets)
    canary.assert_no_canary(iter([("stderr", outcome.err.encode())]), secrets)
    shown = json.loads(synth("budget", "show", "clinic-patients", "--ledger", clinic.ledger_url, "--json").out)
    assert (len(shown["charged_runs"]), len(shown["void_runs"]), shown["open_runs"]) == (0, 1, [])
    assert list(clinic.out.iterdir()) == []


def test_a_draft_of_a_query(clinic: Any, synth: Any, to_database: Any) -> None:
    to_database("select *, age::numeric / 2 as half from patients")
    clinic.schema_yaml.unlink()  # there is none yet
    outcome = synth("schema", "draft", clinic.run_yaml)
    assert outcome.code == 0, outcome.err
    assert "from the names and types of a query's columns" in outcome.out
    kinds = {line.split("name: ")[1].split(",")[0]: line.split("kind: ")[1].split(",")[0]
             for line in outcome.out.splitlines() if "kind: " in line and "name: " in line}  # fmt: skip
    assert kinds == {
        "patient_nbr": "categorical",
        "age": "integer",
        "bmi": "continuous",
        "sex": "categorical",
        "ward": "categorical",
        "grade": "integer",
        "admitted": "datetime",
        "died": "boolean",
        "note": "categorical",
        "half": "continuous",
    }
    assert outcome.out.count("domain: unconfirmed") == 10 + 1  # and once in the comments above
    assert PASSWORD not in outcome.out + outcome.err


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_draft_of_a_folder(clinic: Any, synth: Any, suffix: str) -> None:
    clinic.write_csv() if suffix == "csv" else None
    folder = clinic.folder / "table"
    folder.mkdir()
    (clinic.folder / f"patients.{suffix}").rename(folder / f"part.{suffix}")
    outcome = synth("schema", "draft", folder)
    assert outcome.code == 0, outcome.err
    assert "dataset: table\n" in outcome.out and outcome.out.count("kind: ") == 9 + 1
    assert ("a guess from its first rows" in outcome.out) == (suffix == "csv")


def test_a_url_on_the_command_line_is_not_repeated(synth: Any) -> None:
    outcome = synth("schema", "draft", f"postgresql://ada:{PASSWORD}@host/db")
    assert outcome.code == 2 and "run.yaml" in outcome.err and PASSWORD not in outcome.err


def test_a_run_from_a_folder_of_files(clinic: Any, synth: Any) -> None:
    folder = clinic.folder / "patients"
    folder.mkdir()
    for start in range(0, clinic.table.num_rows, 150):
        pq.write_table(clinic.table.slice(start, 150), folder / f"part-{start}.parquet")
    clinic.source.unlink()
    clinic.run["source"] = {"path": "patients"}
    clinic.run_yaml.write_text(json.dumps(clinic.run))
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 0, outcome.err
    assert pq.read_schema(outcome.bundle / "data" / "part-00000.parquet").names[0] == "patient_nbr"
    assert _source_of(outcome.bundle, clinic.run_yaml)[0] == folder
    assert _source_of(outcome.bundle, folder / "part-150.parquet")[0] is None  # they were learned
    (folder / "z.csv").write_text("age\n1\n")
    refused = synth("run", clinic.run_yaml)
    assert refused.code == 2 and "z.csv" in refused.err


URLS = {
    f"postgresql://ada:{PASSWORD}@127.0.0.1:1/db": "postgresql://ada@127.0.0.1:1/db",
    f"postgresql://ada:a@{PASSWORD}/@127.0.0.1:1/db": "postgresql://ada@127.0.0.1:1/db",
    f"postgresql://ada@127.0.0.1:1/db?password={PASSWORD}&sslmode=require": (
        "postgresql://ada@127.0.0.1:1/db?&sslmode=require"
    ),
    "postgresql://ada:${DB_PASSWORD}@127.0.0.1:1/db": "postgresql://ada:${DB_PASSWORD}@127.0.0.1:1/db",
    "postgresql://127.0.0.1:1/db?password=${DB_PASSWORD}": "postgresql://127.0.0.1:1/db?password=${DB_PASSWORD}",
}


@pytest.mark.parametrize(("url", "copied"), URLS.items(), ids=["user", "odd", "parameter", "filled in", "filled"])
def test_a_password_in_run_yaml_is_in_no_copy(clinic: Any, monkeypatch: Any, url: str, copied: str) -> None:
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    clinic.run["source"] = {"url": url, "query": "select * from patients"}
    clinic.run_yaml.write_text(json.dumps(clinic.run))
    folder = create_run_folder(load_run(clinic.run_yaml))
    text = (folder.internal / "run.yaml").read_text()
    assert PASSWORD not in text and text.count(copied) == 1
    assert PASSWORD in RunFolder(folder.path).run().config.source.url.get_secret_value()  # this process knows it


def test_a_password_that_cannot_be_cut_out_is_refused(clinic: Any) -> None:
    text = json.dumps(clinic.run | {"source": {"url": f"postgresql://ada:{PASSWORD}@h/db", "query": "select 1"}})
    clinic.run_yaml.write_text(text.replace("zq-", "\\u007aq-"))
    with pytest.raises(InvalidConfig, match="holds a password; take the url from the environment") as caught:
        create_run_folder(load_run(clinic.run_yaml))
    assert PASSWORD not in str(caught.value) and not clinic.out.exists()


def test_images_do_not_come_from_a_database(clinic: Any) -> None:
    images = {"dataset": "x", "kind": "image", "privacy_unit": "row", "target": {"name": "label", "classes": {0: "a"}}}
    images["image"] = {"height": 8, "width": 8, "channels": 1, "bits": 8, "value_range": [0, 255], "resize": "pad"}
    clinic.schema_yaml.write_text(json.dumps(images))
    clinic.run |= {"source": {"url": "postgresql://h/d", "query": "select 1"}, "synthesizer": {}}
    clinic.run_yaml.write_text(json.dumps(clinic.run))
    with pytest.raises(NotBuiltYet, match="a database is offered for tables alone"):
        load_run(clinic.run_yaml)
