"""Where the ledger's entries lie: one append-only table in an SQLite file.

Every append reads all entries and writes one inside a single `BEGIN IMMEDIATE`, so of two runs that
race for the last of a budget the second sees what the first has reserved. SQL goes through
SQLAlchemy Core; what is particular to SQLite is the file, the pragmas and the triggers.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from synth.errors import SynthError, UserError, VerificationFailed
from synth.files import PRIVATE_FILE, PRIVATE_FOLDER
from synth.privacy.ledger_chain import KINDS, Entry

BUSY_TIMEOUT_SECONDS = 60.0
APPLICATION_ID = 0x53594E4C  # "SYNL": tells a ledger from any other SQLite file
LAYOUT_VERSION = 1

METADATA = sa.MetaData()
ENTRIES = sa.Table(
    "entries",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("population", sa.Text, nullable=False),
    sa.Column("dataset", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.CheckConstraint("kind IN ({})".format(", ".join(f"'{kind}'" for kind in KINDS)), name="known_kind"),
)
# The third one stops INSERT OR REPLACE, which removes rows without firing a DELETE trigger.
SQLITE_GUARDS = (
    """CREATE TRIGGER entries_are_never_updated BEFORE UPDATE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_are_only_appended BEFORE INSERT ON entries
       WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM entries)
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)


class LedgerStore:
    """The entries of one SQLite file. Holds no open connection between calls.

    Args:
        path: the file. With `create`, it and its missing folders are made, readable by their owner only.
        create: False reads a missing file as an empty ledger and never makes one.

    Raises:
        UserError: the path is no file, is not a ledger, or cannot be reached or written.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path
        self._engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.NullPool)
        sa.event.listen(self._engine, "begin", _begin)
        with _explained(path):
            if path.is_dir():
                raise UserError(f"ledger {path}: is a folder; name a file in it")
            if create:
                _make_private_file(path)
                with self._transaction(write=True) as connection:
                    _lay_out(connection, path)
            else:
                self.read()

    def read(self) -> tuple[Entry, ...]:
        """All entries in order, unverified; none when the file is missing or still empty."""
        with _explained(self.path):
            if not self.path.exists():
                return ()
            with self._transaction(write=False) as connection:
                return _read(connection) if _is_laid_out(connection, self.path) else ()

    def append(self, decide: Callable[[tuple[Entry, ...]], Entry]) -> Entry:
        """Give all entries to `decide` and write the one that it returns, in one transaction.

        Nobody else can append in between. What `decide` raises passes through and nothing is written.
        """
        with _explained(self.path):
            gone = UserError(f"ledger {self.path}: is missing or empty; put the real one back")
            if not self.path.exists():
                raise gone
            with self._transaction(write=True) as connection:
                if not _is_laid_out(connection, self.path):
                    raise gone
                entry = decide(_read(connection))
                connection.execute(ENTRIES.insert().values(asdict(entry)))
            return entry

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        with self._engine.connect().execution_options(ledger_write=write) as connection, connection.begin():
            yield connection

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that vanished is an error here, never a fresh ledger with nothing spent.
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)


def _begin(connection: sa.Connection) -> None:
    # EXTRA is FULL that also syncs the folder: a reservation outlives a power cut right after it.
    connection.exec_driver_sql("PRAGMA synchronous = EXTRA")
    write = connection.get_execution_options().get("ledger_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _make_private_file(path: Path) -> None:
    missing = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    try:
        # SQLite gives its journal the mode of the file, so that stays private too.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    except FileExistsError:
        return


def _is_laid_out(connection: sa.Connection, path: Path) -> bool:
    """False for an empty file. Raises for a database that is something else."""
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    tables = sa.inspect(connection).get_table_names()
    if application == 0 and not tables:
        return False
    if application != APPLICATION_ID:
        raise UserError(f"ledger {path}: is a database, but not a ledger; name another file")
    if version != LAYOUT_VERSION:
        raise UserError(f"ledger {path}: has layout {version}, not {LAYOUT_VERSION}; use newer software")
    if ENTRIES.name not in tables:
        raise VerificationFailed(f"ledger {path}: its table of entries was removed")
    return True


def _lay_out(connection: sa.Connection, path: Path) -> None:
    if _is_laid_out(connection, path):
        return
    METADATA.create_all(connection)
    for guard in SQLITE_GUARDS:
        connection.exec_driver_sql(guard)
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {LAYOUT_VERSION}")


def _read(connection: sa.Connection) -> tuple[Entry, ...]:
    rows = connection.execute(sa.select(ENTRIES).order_by(ENTRIES.c.seq))
    return tuple(Entry(**row) for row in rows.mappings())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the file system and the database raise into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(f"ledger {path}: {error.strerror}; name a file that you may write") from error
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        match code:
            case sqlite3.SQLITE_NOTADB:
                raise UserError(f"ledger {path}: is not a database; name another file") from error
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                raise UserError(f"ledger {path}: cannot be written; check its permissions") from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise UserError(
                    f"ledger {path}: another process has held it for {BUSY_TIMEOUT_SECONDS:.0f} s; try again"
                ) from error
            case sqlite3.SQLITE_FULL:
                raise UserError(f"ledger {path}: the disk is full; make room and try again") from error
            case sqlite3.SQLITE_CORRUPT:
                raise VerificationFailed(f"ledger {path}: the database file is damaged") from error
            case _:
                raise SynthError(f"ledger {path}: database fault, {type(error.orig).__name__}") from error
