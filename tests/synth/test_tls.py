"""Which connections may lead over a network without TLS, by what libpq is given."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from synth import database, tls
from synth.config import Database
from synth.privacy.ledger_location import locate

EXPOSED = {
    "postgresql:///ward": False,
    "postgresql://localhost/ward": False,
    "postgresql://127.0.0.1:5433/ward": False,
    "postgresql://[::1]/ward": False,
    "postgresql:///ward?host=/run/postgresql": False,
    "postgresql://db.example/ward": True,
    "postgresql://10.0.0.7/ward": True,
    "postgresql://[2001:db8::1]/ward": True,
    "postgresql://localhost.example/ward": True,
    "postgresql://127.0.0.1,db.example/ward": True,
    "postgresql://db.example/ward?hostaddr=127.0.0.1": False,  # a tunnel
    "postgresql://localhost/ward?hostaddr=10.0.0.7": True,
    "postgresql://db.example/ward?sslmode=disable": True,
    "postgresql://db.example/ward?sslmode=prefer": True,
    "postgresql://db.example/ward?sslmode=require": False,
    "postgresql://db.example/ward?sslmode=verify-ca": False,
    "postgresql://db.example/ward?sslmode=verify-full": False,
    "postgresql://db.example/ward?sslrootcert=system": False,  # means verify-full
    "postgresql://db.example/ward?sslrootcert=system&sslmode=prefer": True,
    "postgresql://db.example/ward?sslrootcert=root.crt": True,
}


@pytest.fixture(autouse=True)
def no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGSSLROOTCERT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("url", "exposed"), EXPOSED.items())
def test_a_network_without_tls(url: str, exposed: bool) -> None:
    assert tls.exposed(conninfo_to_dict(url)) is exposed
    for driver in ("postgresql", "postgresql+psycopg"):
        named = url.replace("postgresql", driver, 1)
        assert database.exposed(Database(url=named, query="select 1")) is exposed
        if "," not in url:  # SQLAlchemy writes several hosts otherwise
            assert locate(named).exposed is exposed


def test_several_hosts_as_sqlalchemy_writes_them() -> None:
    assert locate("postgresql:///ward?host=localhost:5432&host=db.example:5432").exposed
    assert not locate("postgresql:///ward?host=localhost:5432&host=127.0.0.1:5433").exposed


@pytest.mark.parametrize(
    ("variables", "exposed"),
    [
        ({"PGHOST": "db.example"}, True),
        ({"PGHOST": "db.example", "PGSSLMODE": "verify-full"}, False),
        ({"PGHOSTADDR": "10.0.0.7"}, True),
        ({"PGHOST": "localhost", "PGSSLMODE": "disable"}, False),
    ],
)
def test_the_environment_counts(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], exposed: bool) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tls.exposed(conninfo_to_dict("postgresql:///ward")) is exposed


def test_what_is_no_url_is_left_to_who_connects() -> None:
    assert not database.exposed(Database(url="postgresql://ada@[127.0.0.1:1/db", query="select 1"))


def test_a_file_needs_no_protection() -> None:
    ledger = locate("sqlite:///ledger.db")
    assert (ledger.exposed, ledger.protection()) == (False, "")


def test_other_trouble_is_not_of_tls() -> None:
    assert tls.trouble(OSError("connection refused")) is None
