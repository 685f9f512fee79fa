"""Least privilege in PostgreSQL: the grants of docs/ as they stand, and what each role may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from synth.privacy.ledger import Ledger
from synth.privacy.ledger_chain import KINDS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PASSWORD = "correct-horse"
ROLES = ("synth_owner", "synth_runner", "synth_reader", "synth_source")


@pytest.fixture
def url(postgres: str, certificate: Path) -> Callable[..., str]:
    """The url of a database as a role, over TLS that is checked."""

    def of(role: str, database: str = "ledger") -> str:
        place = postgres.rpartition("@")[2].replace("127.0.0.1", "localhost").replace("/ledger", f"/{database}")
        return f"postgresql://{role}:{PASSWORD}@{place}?sslmode=verify-full&sslrootcert={certificate}"

    return of


@pytest.fixture
def granted(postgres: str, postgres_server: str, url: Callable[..., str], clinic: Any, synth: Any) -> Iterator[Any]:
    """A clinic whose table is in a database, as operations.md has it done."""
    with psycopg.connect(postgres, autocommit=True) as administrator:
        for role in ROLES:
            administrator.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        administrator.execute("ALTER DATABASE ledger OWNER TO synth_owner")
        administrator.execute("CREATE DATABASE ward")
    try:
        assert synth("budget", "cap", "clinic-patients", 1.6, "--ledger", url("synth_owner")).code == 0
        for _ in range(2):  # again after an upgrade
            execute(url("synth_owner"), (DOCS / "grants.sql").read_text())
        with psycopg.connect(f"{postgres_server}/ward") as owner:
            owner.execute("CREATE SCHEMA ward")
            clinic.copy_into(owner, "ward.patients")
            owner.execute((DOCS / "grants_source.sql").read_text())
        yield clinic
    finally:
        with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as administrator:
            for database in ("ledger", "ward"):
                administrator.execute(f"DROP DATABASE {database} WITH (FORCE)")
            for role in ROLES:
                administrator.execute(f"DROP ROLE {role}")


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def refused(url: str, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, statement)


def configured(clinic: Any, monkeypatch: Any, *, source: str, ledger: str, query: str) -> None:
    monkeypatch.setenv("DB_URL", source)
    monkeypatch.setenv("LEDGER_URL", ledger)
    clinic.run |= {"source": {"url": "${DB_URL}", "query": query}, "ledger": {"url": "${LEDGER_URL}"}}
    clinic.run_yaml.write_text(json.dumps(clinic.run))


APPEND = "INSERT INTO synth_ledger.entries SELECT seq + 1, time, population, dataset, run_id, '{}', payload, hash, hash"
CHANGES = (
    "UPDATE synth_ledger.entries SET payload = ''",
    "UPDATE synth_ledger.entries SET seq = seq WHERE false",
    "DELETE FROM synth_ledger.entries",
    "TRUNCATE synth_ledger.entries",
    "DROP TABLE synth_ledger.entries",
    "ALTER TABLE synth_ledger.entries DISABLE TRIGGER entries_of_the_owner",
    "DROP TRIGGER entries_are_never_changed ON synth_ledger.entries",
    "CREATE OR REPLACE FUNCTION synth_ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$",
    "SET session_replication_role = replica",
    "SET ROLE synth_owner",
    "INSERT INTO synth_ledger.layout VALUES (3)",
    "DELETE FROM synth_ledger.layout",
    "CREATE TABLE synth_ledger.mine (a int)",
    "CREATE TABLE public.mine (a int)",
    "CREATE TEMPORARY TABLE mine (a int)",
    "CREATE SCHEMA mine",
)


def test_each_role_does_its_own_and_no_more(
    granted: Any, synth: Any, url: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, reader, source = url("synth_runner"), url("synth_reader"), url("synth_source", "ward")
    query = "select * from synth_source.patients"
    configured(granted, monkeypatch, source=source, ledger=runner, query=query)

    # The runner runs, where the tables are: it can make nothing.
    assert Ledger.open(runner).protection().startswith("encrypted")
    assert [Ledger.open(each).overpowered() for each in (runner, reader, url("synth_owner"))] == [False, False, True]
    outcome = synth("run", granted.run_yaml)
    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err
    kinds = [entry.kind for entry in Ledger.open(url("synth_owner")).history()]
    assert (kinds[:2], kinds[-1]) == (["cap", "reserve"], "settle")

    # It appends what runs append, and sets no cap.
    last = f"{APPEND} FROM synth_ledger.entries ORDER BY seq DESC LIMIT 1"
    refused(runner, *CHANGES, *(last.format(kind) for kind in ("cap", "overlap", "of-another-kind")))
    for role in (runner, reader):
        capped = synth("budget", "cap", "clinic-patients", 100, "--ledger", role)
        assert (capped.code, len(capped.err.splitlines())) == (2, 1) and "lacks a right" in capped.err
        assert PASSWORD not in capped.err

    # The reader shows and checks, and appends nothing.
    for command in (("show",), ("history",), ("verify", "--bundle", outcome.bundle)):
        shown = synth("budget", *command, "--ledger", reader)
        assert shown.code == 0, shown.err
    refused(reader, *CHANGES, *(last.format(kind) for kind in KINDS))

    # The source's role reads the view, no other column or table, and the ledger not at all.
    refused(
        source,
        "SELECT note FROM ward.patients",
        "TABLE ward.patients",
        "DELETE FROM synth_source.patients",
        "CREATE TABLE synth_source.mine (a int)",
    )
    granted.run["privacy"]["epsilon"] = 0.2
    configured(granted, monkeypatch, source=source, ledger=runner, query="select * from ward.patients")
    other = synth("run", granted.run_yaml)
    assert other.code == 2 and "grant SELECT on what source.query reads" in other.err
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        execute(url("synth_source"), "SELECT 1")

    # Nothing of it was spent.
    after = Ledger.open(url("synth_owner"))
    assert [entry.kind for entry in after.history()] == kinds
    assert after.verify_chain() == len(kinds)


def test_tables_that_are_not_there_are_made_by_their_owner_alone(
    postgres: str, url: Callable[..., str], synth: Any
) -> None:
    """A role without rights says so in a line."""
    execute(postgres, f"CREATE ROLE synth_runner LOGIN PASSWORD '{PASSWORD}'")
    try:
        outcome = synth("budget", "cap", "clinic-patients", 1, "--ledger", url("synth_runner"))
        assert (outcome.code, len(outcome.err.splitlines())) == (2, 1) and "lacks a right" in outcome.err
        assert not Ledger.open(postgres, create=False).overpowered()  # there is nothing to change
    finally:
        execute(postgres, "DROP ROLE synth_runner")


def test_what_operators_are_told_is_what_is_tested() -> None:
    text = (DOCS / "operations.md").read_text()
    for name in (*ROLES, "docs/grants.sql", "(grants_source.sql)", "synth_source.patients"):
        assert name in text, name


def test_what_a_runner_may_append_is_all_but_caps_and_overlaps() -> None:
    listed = re.search(r"NEW\.kind NOT IN \((.*?)\)", (DOCS / "grants.sql").read_text())
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed.group(1))) == {*KINDS} - {"cap", "overlap"}
