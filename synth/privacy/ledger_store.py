"""The ledger's entries in whatever database they lie: one append-only table.

Every append reads all entries and writes one inside a single transaction that holds the ledger's lock, so of two runs
that race for the last of a budget the second sees what the first has reserved. SQL goes through SQLAlchemy Core; what
is particular to a database is in its own module.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from synth.errors import UserError
from synth.privacy.ledger_chain import Entry
from synth.privacy.ledger_table import LAYOUT_VERSION, Database, read_entries, write_entries


class LedgerStore:
    """The entries of one ledger. Holds no open connection between calls.

    Args:
        database: where they lie. With `create`, table, triggers and file are made where they are missing.
        create: False reads a missing or empty database as an empty ledger and never makes one.

    Raises:
        UserError: it is not a ledger, was written by newer software, or cannot be reached or written.
    """

    def __init__(self, database: Database, *, create: bool) -> None:
        self._database = database
        if create:
            database.explained(self._make)
        else:
            self.read()

    @property
    def place(self) -> str:
        """Where they are, for people; free of secrets."""
        return self._database.place

    @property
    def exposed(self) -> bool:
        """Whether its URL lets others on the network read or forge what it says."""
        return self._database.exposed

    def protection(self) -> str:
        """How the connection to it is protected, in words; nothing for a file."""
        return self._database.explained(self._database.protection)

    def overpowered(self) -> bool:
        """Whether its user has rights on the entries that neither running nor reading needs."""
        return self._database.explained(self._database.overpowered)

    def read(self) -> tuple[Entry, ...]:
        """All entries in order, unverified; none when the database is missing or still empty."""
        return self._database.explained(self._read)

    def append(self, decide: Callable[[tuple[Entry, ...]], Entry]) -> Entry:
        """Give all entries to `decide` and write the one that it returns, in one transaction.

        Nobody else can append in between. What `decide` raises passes through and nothing is written.
        """
        return self.extend(lambda entries: (decide(entries),))[0]

    def extend(self, decide: Callable[[tuple[Entry, ...]], tuple[Entry, ...]]) -> tuple[Entry, ...]:
        """As `append`, for several entries that are written all or none."""
        return self._database.explained(lambda: self._extend(decide))

    def _make(self) -> None:
        self._database.make()
        with self._database.transaction(write=True) as connection:
            if not self._made_current(connection):
                self._database.lay_out(connection)

    def _read(self) -> tuple[Entry, ...]:
        if not self._database.exists():
            return ()
        with self._database.transaction(write=False) as connection:
            return () if self._version(connection) is None else read_entries(connection)

    def _extend(self, decide: Callable[[tuple[Entry, ...]], tuple[Entry, ...]]) -> tuple[Entry, ...]:
        if not self._database.exists():
            raise self._gone()
        with self._database.transaction(write=True) as connection:
            if not self._made_current(connection):
                raise self._gone()
            added = decide(read_entries(connection))
            write_entries(connection, added)
        return added

    def _version(self, connection: sa.Connection) -> int | None:
        version = self._database.version(connection)
        if version is not None and not 1 <= version <= LAYOUT_VERSION:
            remedy = "use newer software" if version > LAYOUT_VERSION else "restore it from a backup"
            raise UserError(f"ledger {self.place}: has layout {version}, not {LAYOUT_VERSION}; {remedy}")
        return version

    def _made_current(self, connection: sa.Connection) -> bool:
        """Whether there is a layout; an older one is brought to the present one."""
        version = self._version(connection)
        if version is not None and version < LAYOUT_VERSION:
            self._database.migrate(connection, version)
        return version is not None

    def _gone(self) -> UserError:
        return UserError(f"ledger {self.place}: is missing or empty; put the real one back")
