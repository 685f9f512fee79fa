"""A PostgreSQL database as source: one SELECT, run in a read-only snapshot, of which only declared columns are fetched.

With a person column the rows are read twice, and what is decided in the first pass is matched to the second by
position. So the result is then held by the server (`WITH HOLD`): the query runs once, whatever order or chance it has,
and both passes read the same rows. What the driver raises can quote values, the query and the URL, so nothing of it is
repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from synth import tls
from synth.config import Database
from synth.errors import InvalidSource, SynthError
from synth.records import columns_of

T = TypeVar("T")
Row = tuple[Any, ...]

PLACE = "(PostgreSQL)"  # neither host nor user: what an environment variable filled in is never written out
CONNECT_TIMEOUT_SECONDS = 30
MOST_CELLS = 2_000_000
"""Of one batch: a wide table comes in shorter ones."""

_TEXT = {25: "text", 1043: "varchar", 1042: "bpchar", 19: "name"}
_DATE, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1114, 1184
# By oid, which PostgreSQL never changes for its own types. What a domain is made of counts.
TYPES: dict[int, pa.DataType] = {
    16: pa.bool_(),
    21: pa.int16(),
    23: pa.int32(),
    20: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1700: pa.float64(),
    **dict.fromkeys(_TEXT, pa.string()),
    _DATE: pa.date32(),
    _TIMESTAMP: pa.timestamp("us"),
    _TIMESTAMPTZ: pa.timestamp("us", tz="UTC"),
}
_NUMERIC = b"numeric"
SHOWN = b"type"
"""Key of a field's metadata: the type's name in the database. A type that TYPES lacks is a field of type null."""

# Digits: two persons numbered by floats must not become one text.
_BEGIN = (
    sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
    sql.SQL("SET LOCAL extra_float_digits = 1"),
)
_HELD = sql.SQL("DECLARE synth_source SCROLL CURSOR WITH HOLD FOR SELECT record_send(ROW({})) FROM {}")
_STREAMED = sql.SQL("DECLARE synth_source NO SCROLL CURSOR WITHOUT HOLD FOR SELECT record_send(ROW({})) FROM {}")


def header_of(database: Database) -> pa.Schema:
    """Names and types of the query's columns; no row is fetched. Raises InvalidSource."""
    with snapshot(database) as rows:
        return rows.header()


def header_and_rows(database: Database) -> tuple[pa.Schema, bool]:
    """The header, and whether there is any row at all. Raises InvalidSource."""
    with snapshot(database) as rows:
        return rows.header(), rows.any()


def exposed(database: Database) -> bool:
    """Whether its URL lets others on the network read or forge the rows; nothing is opened."""
    try:
        return tls.exposed(conninfo_to_dict(_libpq(database.url.get_secret_value())))
    except psycopg.ProgrammingError:  # no URL at all, which connecting says
        return False


@contextmanager
def snapshot(database: Database) -> Iterator[Snapshot]:
    """A connection on which all passes see the same rows. Raises InvalidSource when there is none to be had."""
    connection = _explained(lambda: _connect(database.url.get_secret_value()), connecting=True)
    try:
        yield Snapshot(connection, database.query.get_secret_value())
    finally:
        connection.close()


class Snapshot:
    """The rows of one query as they are at one moment. Every method raises InvalidSource."""

    def __init__(self, connection: psycopg.Connection[Row], query: str) -> None:
        self._connection = connection
        # The line break ends a comment at the query's end.
        self._source = sql.SQL("({}\n) AS source").format(sql.SQL(query.strip().removesuffix(";")))
        self._kinds: tuple[pa.DataType, ...] | None = None
        self._as_text: tuple[bool, ...] = ()
        self._held = False
        _explained(lambda: [self._execute(statement) for statement in _BEGIN])

    def header(self) -> pa.Schema:
        """Names and types of the query's columns."""
        select = sql.SQL("SELECT * FROM {} LIMIT 0").format(self._source)
        found = _explained(lambda: self._execute(select).description) or []
        return pa.schema(
            [
                pa.field(column.name, TYPES.get(column.type_code, pa.null()), metadata={SHOWN: column.type_display})
                for column in found
            ]
        )

    def any(self) -> bool:
        """Whether there is a row."""
        select = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(self._source)
        found = _explained(lambda: self._execute(select).fetchone())
        return bool(found and found[0])

    def batches(self, names: Sequence[str], *, person: str | None, most_rows: int) -> Iterator[pa.RecordBatch]:
        """All rows: the named columns and, last, the person column as text. Each pass has them in the same order.

        Without a person column the order may differ between passes: there is nothing to be matched.
        """
        if self._kinds is None:
            self._declare(names, person)
        elif self._held:
            _explained(lambda: self._execute(sql.SQL("MOVE ABSOLUTE 0 FROM synth_source")))
        else:
            _explained(lambda: self._execute(sql.SQL("CLOSE synth_source")))
            self._declare(names, person)
        kinds = self._kinds
        assert kinds is not None
        columns = [*names] if person is None else [*names, person]
        at_once = max(1, min(most_rows, MOST_CELLS // len(columns)))
        fetch = sql.SQL("FETCH FORWARD {} FROM synth_source").format(sql.SQL(str(at_once)))
        while (batch := _explained(lambda: self._fetch(fetch, columns, kinds))).num_rows:
            yield batch

    def _declare(self, names: Sequence[str], person: str | None) -> None:
        header = self.header()
        kinds, as_text, chosen = [], [], []
        for name in names:
            places = header.get_all_field_indices(name)
            if len(places) != 1 or pa.types.is_null(header.field(places[0]).type):
                raise InvalidSource(f"source {PLACE}: its columns have changed since they were checked; run again")
            field = header.field(places[0])
            kinds.append(field.type)
            # Text as text, without the blanks that fill up a char(n); and numbers of any length.
            as_text.append(pa.types.is_string(field.type) or field.metadata[SHOWN].startswith(_NUMERIC))
            chosen.append(sql.SQL("{}::text" if as_text[-1] else "{}").format(sql.Identifier(name)))
        if person is not None:
            kinds.append(pa.string())
            as_text.append(True)
            chosen.append(sql.SQL("{}::text").format(sql.Identifier(person)))
        self._held = person is not None
        declare = (_HELD if self._held else _STREAMED).format(sql.SQL(", ").join(chosen), self._source)
        _explained(lambda: self._execute(declare))
        if self._held:
            _explained(lambda: self._execute(sql.SQL("COMMIT")))  # here the server runs the query and keeps its rows
        self._kinds, self._as_text = tuple(kinds), tuple(as_text)

    def _fetch(self, fetch: sql.Composed, names: list[str], kinds: Sequence[pa.DataType]) -> pa.RecordBatch:
        records = [record for (record,) in self._execute(fetch).fetchall()]
        return pa.record_batch(columns_of(records, kinds, self._as_text), names=names)

    def _execute(self, statement: sql.Composable) -> psycopg.Cursor[Row]:
        # In binary form the protocol itself refuses several statements at once.
        return self._connection.execute(statement.as_bytes(self._connection), binary=True)


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:", 1)


def _connect(url: str) -> psycopg.Connection[Row]:
    url = _libpq(url)
    return psycopg.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        client_encoding="utf8",
        fallback_application_name="synth",
        connect_timeout=conninfo_to_dict(url).get("connect_timeout", CONNECT_TIMEOUT_SECONDS),
    )


def _explained(work: Callable[[], T], *, connecting: bool = False) -> T:
    """Do the work; what goes wrong becomes one line that says what to do."""
    try:
        return work()
    except psycopg.Error as error:
        explanation = _explanation(error, connecting=connecting)
    except (ValueError, OverflowError):  # Arrow's and Unicode's errors are of these
        explanation = InvalidSource(f"source {PLACE}: a column could not be read in its announced type, as UTF-8 text")
    raise explanation  # outside of the handler: what would be attached to it can quote values


def _explanation(error: psycopg.Error, *, connecting: bool) -> SynthError:
    state = error.sqlstate or ""
    if connecting:
        if trouble := tls.trouble(error):
            return InvalidSource(f"source {PLACE}: {trouble}")
        return InvalidSource(
            f"source {PLACE}: cannot be reached, or refuses the login; check that it runs, and host, port, database, "
            "user, password and sslmode in source.url"
        )
    match state:
        case "42501":
            return InvalidSource(f"source {PLACE}: its user lacks a right; grant SELECT on what source.query reads")
        case "25006" | "25001":
            return InvalidSource(
                f"source {PLACE}: source.query writes or locks, and a source is only read; make it one plain SELECT"
            )
        case "42P01" | "3F000":
            return InvalidSource(f"source {PLACE}: source.query names a table that is not there; name its schema too")
        case "42703":
            return InvalidSource(f"source {PLACE}: source.query names a column that is not there; try it in psql")
        case "57014" | "55P03":
            return InvalidSource(f"source {PLACE}: the server cut source.query off (a timeout); raise it and run again")
        case "53100" | "53200" | "53400":
            return InvalidSource(f"source {PLACE}: the server lacks disk or memory for source.query; make room")
        case "40001":
            return InvalidSource(f"source {PLACE}: the server cancelled source.query (a conflict); run again")
    lost = isinstance(error, psycopg.OperationalError) and (not state or state.startswith(("08", "57P", "25P")))
    if lost:
        return InvalidSource(f"source {PLACE}: the connection was lost; run again")
    if state.startswith(("42", "0A")):
        return InvalidSource(f"source {PLACE}: source.query is not one SELECT that it understands; try it in psql")
    if state.startswith(("21", "22", "P0")) or isinstance(error, psycopg.DataError):
        return InvalidSource(
            f"source {PLACE}: source.query fails on what the tables hold; its text is withheld, try it in psql"
        )
    return SynthError(f"source {PLACE}: database fault, {type(error).__name__}")
