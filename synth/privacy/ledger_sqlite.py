"""A ledger in an SQLite file, readable by its owner only.

`BEGIN IMMEDIATE` is the lock. Before anything is read the file's pages are checked, because a damaged page can make
SQLite leave out the last rows without a word, which no hash chain shows.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from synth.errors import LedgerUnavailable, SynthError, UserError, VerificationFailed
from synth.files import PRIVATE_FILE, PRIVATE_FOLDER
from synth.privacy import ledger_table
from synth.privacy.ledger_table import ENTRIES, LAYOUT_VERSION, METADATA, T, read_entries, write_entries

APPLICATION_ID = 0x53594E4C  # "SYNL": tells a ledger from any other SQLite file

# The third one stops INSERT OR REPLACE, which removes rows without firing a DELETE trigger.
GUARDS = (
    """CREATE TRIGGER entries_are_never_updated BEFORE UPDATE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_are_only_appended BEFORE INSERT ON entries
       WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM entries)
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)


class SqliteFile:
    """The file at `path`; a `ledger_table.Database`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.NullPool)
        sa.event.listen(self._engine, "begin", _begin)

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def exposed(self) -> bool:
        """False: no network is between."""
        return False

    def protection(self) -> str:
        """Nothing: no connection is made."""
        return ""

    def overpowered(self) -> bool:
        """False: a file has no users."""
        return False

    def exists(self) -> bool:
        """Whether the file is there. Raises UserError for a folder."""
        if self.path.is_dir():
            raise UserError(f"ledger {self.path}: is a folder; name a file in it")
        return self.path.exists()

    def make(self) -> None:
        """Make the file (0600) and its missing folders (0700)."""
        if self.exists():
            return
        missing = [folder for folder in self.path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        try:
            # SQLite gives its journal the mode of the file, so that stays private too.
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
        except FileExistsError:
            return

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        """One transaction on a sound file."""
        with self._engine.connect().execution_options(ledger_write=write) as connection, connection.begin():
            if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
                raise VerificationFailed(f"ledger {self.path}: the database file is damaged")
            yield connection

    def version(self, connection: sa.Connection) -> int | None:
        """The file's layout; None for an empty file."""
        application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        tables = connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'table'").scalars().all()
        if application == 0 and not tables:
            return None
        if application != APPLICATION_ID:
            raise UserError(f"ledger {self.path}: is a database, but not a ledger; name another file")
        if ENTRIES.name not in tables:
            raise VerificationFailed(f"ledger {self.path}: its table of entries was removed")
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def lay_out(self, connection: sa.Connection) -> None:
        """Make table, triggers and version."""
        METADATA.create_all(connection)
        for guard in GUARDS:
            connection.exec_driver_sql(guard)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {LAYOUT_VERSION}")

    def migrate(self, connection: sa.Connection, version: int) -> None:
        """Write the entries into a table of the present layout; SQLite cannot change a table's checks in place."""
        entries = read_entries(connection)
        ENTRIES.drop(connection)  # takes its triggers with it, and fires none
        self.lay_out(connection)
        write_entries(connection, entries)

    def explained(self, work: Callable[[], T]) -> T:
        """Do the work; what the file system and SQLite raise becomes one line that says what to do."""
        try:
            return work()
        except OSError as error:
            raise UserError(f"ledger {self.path}: {error.strerror}; name a file that you may write") from error
        except UnicodeDecodeError:  # what SQLite itself says about a damaged file need not be text
            raise VerificationFailed(f"ledger {self.path}: the database file is damaged") from None
        except sa.exc.DBAPIError as error:
            raise self._explanation(error) from error

    def _explanation(self, error: sa.exc.DBAPIError) -> SynthError:
        code = getattr(error.orig, "sqlite_errorcode", None)
        match code if code is None else code & 0xFF:
            case sqlite3.SQLITE_NOTADB:
                return UserError(f"ledger {self.path}: is not a database; name another file")
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return UserError(f"ledger {self.path}: cannot be written; check its permissions")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                waited = f"{ledger_table.LOCK_TIMEOUT_SECONDS:.0f} s"
                return LedgerUnavailable(f"ledger {self.path}: another process has held it for {waited}; try again")
            case sqlite3.SQLITE_FULL:
                return LedgerUnavailable(f"ledger {self.path}: the disk is full; make room and try again")
            case sqlite3.SQLITE_CORRUPT | None:  # None: Python could not decode what lies there
                return VerificationFailed(f"ledger {self.path}: the database file is damaged")
            case _:
                return SynthError(f"ledger {self.path}: database fault, {type(error.orig).__name__}")

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that vanished is an error here, never a fresh ledger with nothing spent.
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=ledger_table.LOCK_TIMEOUT_SECONDS, isolation_level=None)


def _begin(connection: sa.Connection) -> None:
    # EXTRA is FULL that also syncs the folder: a reservation outlives a power cut right after it.
    connection.exec_driver_sql("PRAGMA synchronous = EXTRA")
    write = connection.get_execution_options().get("ledger_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
