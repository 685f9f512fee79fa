"""The one table that every ledger has, whatever database it lies in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Protocol, TypeVar

import sqlalchemy as sa

from synth.privacy.ledger_chain import Entry

# 1: the kind of an entry was checked by the table. 2: by the replay alone, so a new kind needs no new table.
LAYOUT_VERSION = 2
LOCK_TIMEOUT_SECONDS = 60.0

T = TypeVar("T")

METADATA = sa.MetaData()
ENTRIES = sa.Table(
    "entries",
    METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("population", sa.Text, nullable=False),
    sa.Column("dataset", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)


class Database(Protocol):
    """What differs between databases: connecting, locking, laying out, and what their errors mean."""

    @property
    def place(self) -> str:
        """Where the ledger is, for people; free of secrets."""

    @property
    def exposed(self) -> bool:
        """Whether its URL lets others on the network read or forge what it says."""

    def protection(self) -> str:
        """How the connection to it is protected, in words; nothing for a file."""

    def overpowered(self) -> bool:
        """Whether its user has rights on the entries that neither running nor reading needs."""

    def exists(self) -> bool:
        """Whether there is something to connect to."""

    def make(self) -> None:
        """Make what a connection needs, such as the file."""

    def transaction(self, *, write: bool) -> AbstractContextManager[sa.Connection]:
        """One transaction, committed at the end. With `write`, nobody else can append until then."""

    def version(self, connection: sa.Connection) -> int | None:
        """The layout's version, None when nothing is laid out yet. Raises for a database of something else."""

    def lay_out(self, connection: sa.Connection) -> None:
        """Make table, triggers and version in a database without them."""

    def migrate(self, connection: sa.Connection, version: int) -> None:
        """Bring an older layout to the present one, entry by entry unchanged."""

    def explained(self, work: Callable[[], T]) -> T:
        """Do the work; an error of the database becomes one line that says what to do, without secrets."""


def read_entries(connection: sa.Connection) -> tuple[Entry, ...]:
    """All entries in order, unverified."""
    return tuple(_entries(connection))


def _entries(connection: sa.Connection) -> Iterator[Entry]:
    for row in connection.execute(sa.select(ENTRIES).order_by(ENTRIES.c.seq)):
        seq, time, population, dataset, run_id, kind, payload, previous, stated = row
        yield Entry(
            seq=seq,
            time=time,
            population=population,
            dataset=dataset,
            run_id=run_id,
            kind=kind,
            payload=payload,
            previous=previous,
            hash=stated,
        )


def write_entries(connection: sa.Connection, entries: Iterable[Entry]) -> None:
    """Append entries in order."""
    rows = [asdict(entry) for entry in entries]
    if rows:
        connection.execute(ENTRIES.insert(), rows)
