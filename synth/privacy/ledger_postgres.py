"""A ledger in a PostgreSQL database: one schema of its own, `synth_ledger`, so one ledger a database.

A transaction-wide advisory lock puts appends in a row; table, version and triggers are made by the first who opens it
to write. Afterwards a role needs USAGE on the schema, SELECT on its tables and, to append, INSERT on the entries, and
no more (docs/grants.sql): such a role cannot drop the triggers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from synth import tls
from synth.errors import LedgerUnavailable, SynthError, UserError, VerificationFailed
from synth.privacy import ledger_table
from synth.privacy.ledger_table import ENTRIES, LAYOUT_VERSION, METADATA, T

SCHEMA = "synth_ledger"
LOCK = 0x53594E4C  # "SYNL"
CONNECT_TIMEOUT_SECONDS = 30
PLACE = "(PostgreSQL)"  # neither host nor user: what an environment variable filled in is never written out

GUARDS = (
    """CREATE TABLE synth_ledger.layout (version integer PRIMARY KEY)""",
    """CREATE FUNCTION synth_ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$""",
    """CREATE FUNCTION synth_ledger.only_append() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
             IF NEW.seq IS DISTINCT FROM (SELECT COALESCE(MAX(seq), 0) + 1 FROM synth_ledger.entries) THEN
               RAISE EXCEPTION 'the ledger is append-only';
             END IF;
             RETURN NEW;
           END $$""",
    """CREATE TRIGGER entries_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON synth_ledger.entries
        FOR EACH STATEMENT EXECUTE FUNCTION synth_ledger.refuse()""",
    """CREATE TRIGGER entries_are_only_appended BEFORE INSERT ON synth_ledger.entries
        FOR EACH ROW EXECUTE FUNCTION synth_ledger.only_append()""",
    """CREATE TRIGGER layout_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON synth_ledger.layout
        FOR EACH STATEMENT EXECUTE FUNCTION synth_ledger.refuse()""",
    # ALWAYS: also where a session says that it replays a replica's changes.
    "ALTER TABLE synth_ledger.entries ENABLE ALWAYS TRIGGER entries_are_never_changed",
    "ALTER TABLE synth_ledger.entries ENABLE ALWAYS TRIGGER entries_are_only_appended",
    "ALTER TABLE synth_ledger.layout ENABLE ALWAYS TRIGGER layout_is_never_changed",
)


# A row that a policy would hide is an error, never a smaller total.
READING = "SELECT current_setting('server_encoding'), set_config('row_security', 'off', true)"
# A reservation is on disk before anyone relies on it, whatever the server's default is.
WRITING = """
    SELECT set_config('lock_timeout', :timeout, true),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                      WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"""


class PostgresDatabase:
    """The database that `url` names; a `ledger_table.Database`. Nothing repeats the URL."""

    def __init__(self, url: sa.URL) -> None:
        arguments: dict[str, object] = {"prepare_threshold": None}  # so that connection poolers work
        if "connect_timeout" not in url.query:
            arguments["connect_timeout"] = CONNECT_TIMEOUT_SECONDS
        self._engine = sa.create_engine(
            url,
            connect_args=arguments,
            poolclass=sa.NullPool,
            # Each statement sees what was committed before it, so what is read after the lock is all there is.
            isolation_level="READ COMMITTED",
            execution_options={"schema_translate_map": {None: SCHEMA}},
            hide_parameters=True,
        )

    @property
    def place(self) -> str:
        """That it is PostgreSQL, and no more."""
        return PLACE

    @property
    def exposed(self) -> bool:
        """Whether its URL names another machine and asks for no TLS."""
        return tls.exposed(self._engine.dialect.create_connect_args(self._engine.url)[1])

    def protection(self) -> str:
        """Whether the connection is encrypted."""
        with self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            return tls.protection(driver)

    def overpowered(self) -> bool:
        """Whether its role may do more to the entries than read and append; False before there are any."""
        with self.transaction(write=False) as connection:
            asked = f"SELECT has_table_privilege('{SCHEMA}.entries', 'UPDATE, DELETE, TRUNCATE, TRIGGER')"
            return self.version(connection) is not None and bool(connection.exec_driver_sql(asked).scalar_one())

    def exists(self) -> bool:
        """True: only connecting can tell."""
        return True

    def make(self) -> None:
        """Nothing: a database is made by its administrator."""

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        """One transaction; with `write`, under the ledger's lock and on disk before it ends."""
        with self._engine.connect() as connection, connection.begin():
            if connection.exec_driver_sql(READING).scalar_one() != "UTF8":
                raise UserError(f"ledger {PLACE}: its database must be of encoding UTF8; make one that is")
            if write:
                milliseconds = round(ledger_table.LOCK_TIMEOUT_SECONDS * 1000)
                connection.execute(sa.text(WRITING), {"timeout": str(milliseconds)})
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            yield connection

    def version(self, connection: sa.Connection) -> int | None:
        """The latest version in the layout table; None where there is no such schema."""
        found = connection.exec_driver_sql(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'synth_ledger' AND c.relkind = 'r'"
        )
        tables = set(found.scalars())
        if not tables:
            return None
        if "layout" not in tables:
            raise UserError(f"ledger {PLACE}: its schema {SCHEMA} is not a ledger; name another database")
        if ENTRIES.name not in tables:
            raise VerificationFailed(f"ledger {PLACE}: its table of entries was removed")
        version = connection.exec_driver_sql("SELECT max(version) FROM synth_ledger.layout").scalar_one()
        return int(version or 0)

    def lay_out(self, connection: sa.Connection) -> None:
        """Make schema, tables, triggers and version."""
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS synth_ledger")
        METADATA.create_all(connection)
        for statement in GUARDS:
            connection.exec_driver_sql(statement)
        connection.execute(sa.text("INSERT INTO synth_ledger.layout VALUES (:version)"), {"version": LAYOUT_VERSION})

    def migrate(self, connection: sa.Connection, version: int) -> None:
        """Layout 1 was never written to PostgreSQL."""
        raise UserError(f"ledger {PLACE}: has layout {version}, not {LAYOUT_VERSION}; restore it from a backup")

    def explained(self, work: Callable[[], T]) -> T:
        """Do the work; what psycopg raises becomes one line that says what to do."""
        try:
            return work()
        except sa.exc.DBAPIError as error:
            explanation = _explanation(error)
        raise explanation  # outside of the handler: what would be attached to it can quote the URL


def _explanation(error: sa.exc.DBAPIError) -> SynthError:
    fault = error.orig
    state = getattr(fault, "sqlstate", None) or ""
    lost = isinstance(fault, psycopg.OperationalError) and (not state or state.startswith(("08", "57P")))
    match state:
        case "" if error.statement is None:
            if trouble := tls.trouble(error):
                return UserError(f"ledger {PLACE}: {trouble}")
            return LedgerUnavailable(
                f"ledger {PLACE}: cannot be reached, or refuses the login; check that it runs, and host, port, "
                "database, user and password in its url"
            )
        case _ if lost:
            return LedgerUnavailable(
                f"ledger {PLACE}: the connection was lost; what was being reserved may count "
                "(synth budget show), try again"
            )
        case "55P03":
            waited = f"{ledger_table.LOCK_TIMEOUT_SECONDS:.0f} s"
            return LedgerUnavailable(f"ledger {PLACE}: another process has held it for {waited}; try again")
        case "42501":
            return UserError(
                f"ledger {PLACE}: its user lacks a right; docs/grants.sql has what reading and running need; its owner "
                "makes the tables and sets caps"
            )
        case "25006":
            return LedgerUnavailable(f"ledger {PLACE}: this server is read-only; name the primary")
        case "53100":
            return LedgerUnavailable(f"ledger {PLACE}: the server's disk is full; make room and try again")
        case "57014":
            return LedgerUnavailable(f"ledger {PLACE}: the server cut the statement off (statement_timeout); try again")
        case "23505":
            return UserError(f"ledger {PLACE}: something else wrote to it at the same time; try again")
        case "XX001" | "XX002":
            return VerificationFailed(f"ledger {PLACE}: the database is damaged")
        case _:
            return SynthError(f"ledger {PLACE}: database fault, {type(fault).__name__}")
