"""Where the ledger is: its URL, from whom it comes and which database it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from synth.errors import NotBuiltYet, UserError
from synth.privacy.ledger_sqlite import SqliteFile

if TYPE_CHECKING:
    from synth.privacy.ledger_table import Database

SQLITE_EXAMPLE = "write it as sqlite:///path/to/ledger.db"
POSTGRES_EXAMPLE = "write it as postgresql://user:password@host:5432/database"
DRIVERS = {"postgresql", "postgresql+psycopg"}


def resolve_ledger_url(
    option: str | None, environment: Mapping[str, str], run_yaml_url: str | None, user_data_folder: Path
) -> str:
    """Which ledger: the option, else $SYNTH_LEDGER, else ledger.url of run.yaml, else the user's own.

    `run_yaml_url` was made absolute from its file before. An empty variable counts as unset.
    """
    if option is not None:
        return option
    return environment.get("SYNTH_LEDGER") or run_yaml_url or f"sqlite:///{(user_data_folder / 'ledger.db').as_posix()}"


def locate(url: str) -> Database:
    """The database that a ledger's URL names; nothing is opened yet.

    Messages never repeat the URL, which may hold a password.

    Raises:
        NotBuiltYet: another kind of database.
        UserError: not such a URL, or an SQLite one without a file (a ledger in memory would forget).
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise UserError(f"ledger: this is no database URL; {SQLITE_EXAMPLE}, or {POSTGRES_EXAMPLE}")
    if scheme.lower() in DRIVERS:
        from synth.privacy.ledger_postgres import PostgresDatabase  # the driver is loaded where it is used

        return PostgresDatabase(_postgres_url(url))
    if scheme.lower() == "sqlite":
        return SqliteFile(_sqlite_path(url))
    if scheme.lower().startswith("postgres"):
        raise NotBuiltYet(f"ledger: PostgreSQL is reached by psycopg 3 alone; {POSTGRES_EXAMPLE}")
    raise NotBuiltYet(
        f"ledger: is kept in SQLite or PostgreSQL, not in {scheme}; {SQLITE_EXAMPLE}, or {POSTGRES_EXAMPLE}"
    )


def _sqlite_path(url: str) -> Path:
    """The file that `sqlite:///path` names (three slashes and a path; four for an absolute one)."""
    rest = url.partition("://")[2]
    name = rest[1:]
    if not rest.startswith("/") or name in {"", ":memory:"} or "?" in name or not name.isprintable():
        raise UserError(f"ledger: an SQLite URL names a file and has no host and no options; {SQLITE_EXAMPLE}")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"ledger: the home folder in this URL is not known; {SQLITE_EXAMPLE}") from None


def _postgres_url(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        parsed = None
    if parsed is None or not parsed.database or not url.isprintable():
        raise UserError(f"ledger: a PostgreSQL URL names a database; {POSTGRES_EXAMPLE}")
    return parsed.set(drivername="postgresql+psycopg")
