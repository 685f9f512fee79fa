"""A PostgreSQL database as source, a real one: what leaves it, in which types, in one snapshot, and no word of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth import database as database_source
from synth import ingest, records
from synth.config import Database
from synth.errors import InvalidSource
from synth.ingest import at_rest, check_header, header_of, read_batches, read_persons
from synth.schema import Schema, parse_schema
from synth.tables.codec import codecs_of

SchemaOf = Callable[..., Schema]
SECRET = "canary-7731"
PASSWORD = "reader-hunter2"


@pytest.fixture(scope="module")
def admin(postgres_server: str) -> Iterator[psycopg.Connection[Any]]:
    """The owner of a database of its own."""
    with closing(psycopg.connect(f"{postgres_server}/postgres", autocommit=True)) as server:
        server.execute("CREATE DATABASE hospital")
        server.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        with closing(psycopg.connect(f"{postgres_server}/hospital", autocommit=True)) as connection:
            connection.execute("CREATE TABLE patients (age int, sex text, patient int, note text)")
            connection.execute("GRANT SELECT ON patients TO reader")
            connection.execute(f"CREATE TABLE secrets AS SELECT '{SECRET}'::text AS sex, 1 AS age")
            connection.execute(
                "CREATE FUNCTION write() RETURNS int LANGUAGE plpgsql AS "
                "$$ BEGIN DELETE FROM patients; RETURN 1; END $$"
            )
            yield connection
        server.execute("DROP DATABASE hospital WITH (FORCE)")
        server.execute("DROP ROLE reader")


@pytest.fixture
def patients(admin: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Forty rows of ten people; a canary in a column that nobody declares."""
    admin.execute("TRUNCATE patients")
    admin.execute(
        "INSERT INTO patients SELECT n, CASE n %% 2 WHEN 0 THEN 'female' ELSE 'male' END, n %% 10, %s "
        "FROM generate_series(0, 39) n",
        [SECRET],
    )
    return admin


@pytest.fixture
def ask(admin: psycopg.Connection[Any], postgres_server: str) -> Callable[..., Database]:
    """`ask("select …")`: that query as a role that may read `patients` and nothing else."""
    server = postgres_server.rpartition("@")[2]

    def source(query: str = "select * from patients", url: str = f"postgresql://reader:{PASSWORD}@{server}/hospital"):
        return Database.model_validate({"url": url, "query": query})

    return source


@pytest.fixture
def schema(schema_of: SchemaOf) -> Schema:
    return schema_of("age", "sex")


@pytest.fixture
def of_persons() -> Schema:
    columns = [
        {"name": "patient", "kind": "id"},
        {"name": "age", "kind": "integer", "bounds": [0, 99]},
        {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    ]
    raw = {"dataset": "t", "privacy_unit": "patient", "max_rows_per_person": 2, "columns": columns}
    return parse_schema(raw, file="s")


def rows_of(source: Database, schema: Schema) -> list[tuple[Any, ...]]:
    with at_rest(source) as rows:
        return [tuple(row.values()) for batch in read_batches(rows, schema) for row in batch.to_pylist()]


def refused(work: Callable[[], object]) -> str:
    """One line, nothing private in it, and nothing attached."""
    with pytest.raises(InvalidSource) as caught:
        work()
    message = str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in message and message.startswith("source (PostgreSQL): ")
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert not any(word in message for word in (SECRET, PASSWORD, "127.0.0.1", "hospital", "reader", "select *"))
    return message


class TestReading:
    def test_the_declared_columns_in_the_declared_order(self, patients: Any, ask: Any, schema: Schema) -> None:
        check_header(ask(), schema)
        expected = [(n, "male" if n % 2 else "female") for n in range(40)]
        assert sorted(rows_of(ask(), schema)) == expected

    @pytest.mark.parametrize(("most_rows", "most_cells"), [(7, 10**6), (100, 14)])
    def test_a_batch_at_a_time(
        self, patients: Any, ask: Any, schema: Schema, monkeypatch: Any, most_rows: int, most_cells: int
    ) -> None:
        monkeypatch.setattr(ingest, "BATCH_ROWS", most_rows)
        monkeypatch.setattr(database_source, "MOST_CELLS", most_cells)
        with at_rest(ask()) as rows:
            assert [batch.num_rows for batch in read_batches(rows, schema)] == [7, 7, 7, 7, 7, 5]

    @pytest.mark.parametrize("persons", [False, True])
    def test_what_is_not_declared_is_not_even_computed(
        self, patients: Any, ask: Any, schema: Schema, of_persons: Schema, persons: bool
    ) -> None:
        declared = of_persons if persons else schema
        source = ask("select *, note::int as broken from patients")
        check_header(source, declared)
        assert len(rows_of(source, declared)) == 40

    @pytest.mark.parametrize(
        "query",
        [
            "select * from patients;",
            "select * from patients where sex like '%e' -- the {end} of it",
            "with p as (select * from patients) table p",
            "select age, '100%' || sex as other, sex from patients",
        ],
    )
    def test_spellings_of_a_query(self, patients: Any, ask: Any, schema: Schema, query: str) -> None:
        check_header(ask(query), schema)
        assert len(rows_of(ask(query), schema)) == 40

    def test_a_name_that_needs_quotes(self, patients: Any, ask: Any) -> None:
        name = 'Größe "x"; --'
        columns = [{"name": name, "kind": "integer", "bounds": [0, 99]}]
        schema = parse_schema({"dataset": "t", "columns": columns}, file="s")
        source = ask('select age as "Größe ""x""; --" from patients')
        check_header(source, schema)
        assert sorted(rows_of(source, schema)) == [(n,) for n in range(40)]

    def test_blanks_that_fill_a_char_are_not_read(self, admin: Any, ask: Any, schema: Schema) -> None:
        source = ask("select 5 as age, 'male'::char(20) as sex")
        check_header(source, schema)
        assert rows_of(source, schema) == [(5, "male")]

    def test_nulls(self, admin: Any, ask: Any, schema: Schema) -> None:
        assert rows_of(ask("select null::int as age, null::text as sex"), schema) == [(None, None)]

    def test_moments_and_numbers_beyond_all_bounds(self, admin: Any, ask: Any) -> None:
        columns = [
            *({"name": n, "kind": "datetime", "bounds": ["2000-01-01", "2010-01-01"]} for n in ("d", "t", "z")),
            *({"name": n, "kind": "continuous", "bounds": [0, 1], "nullable": True} for n in ("f", "n")),
        ]
        schema = parse_schema({"dataset": "t", "columns": columns}, file="s")
        ends = [("infinity", "Infinity", "1e300"), ("-infinity", "-Infinity", "-1e300")]
        ends += [("0044-03-15 BC", "NaN", "NaN"), ("20000-01-01", "2", "2")]
        values = ", ".join(f"('{t}'::date, '{t}'::timestamp, '{t}'::timestamptz, {f!r}::float8, {n!r}::numeric)"
                           for t, f, n in ends)  # fmt: skip
        with at_rest(ask(f"select * from (values {values}) as x (d, t, z, f, n)")) as rows:
            (batch,) = read_batches(rows, schema)
        rng = np.random.default_rng(0)
        found = {name: codec.encode(batch.column(name), rng) for name, codec in codecs_of(schema).items()}
        for name in ("d", "t", "z"):
            codes = next(iter(found[name].codes.values()))
            assert found[name].outside == 4 and codes[0] == codes[3] and codes[1] == codes[2] != codes[0]
        for name in ("f", "n"):
            codes = next(iter(found[name].codes.values()))
            missing = codecs_of(schema)[name].missing
            assert found[name].outside == 3 and codes[2] == missing and codes[0] == codes[3] != codes[1] != missing

    def test_the_url_of_sqlalchemy(self, patients: Any, ask: Any, schema: Schema) -> None:
        url = ask().url.get_secret_value()
        assert len(rows_of(ask(url=url.replace("postgresql:", "postgresql+psycopg:")), schema)) == 40

    def test_a_quick_look_for_drafting(self, patients: Any, ask: Any) -> None:
        header = header_of(ask("select *, 1.5 as x, now() as seen, '1 day'::interval as stay from patients"))
        assert header.names == ["age", "sex", "patient", "note", "x", "seen", "stay"]
        assert [str(kind) for kind in header.types][-3:] == ["double", "timestamp[us, tz=UTC]", "null"]


class TestOneSnapshot:
    @pytest.mark.parametrize("order", ["order by random()", "", "limit 30"])
    def test_a_person_column_matches_its_rows(
        self, patients: Any, ask: Any, of_persons: Schema, monkeypatch: Any, order: str
    ) -> None:
        monkeypatch.setattr(ingest, "BATCH_ROWS", 7)
        # A new random number on each evaluation, too: the query must run once.
        query = f"select patient, patient * 10 + (age + (random() * 3)::int) % 10 as age, sex from patients {order}"
        passes = []
        with at_rest(ask(query)) as rows:
            for _ in range(2):
                persons = [p for batch in read_persons(rows, of_persons) for p in batch.to_pylist()]
                ages = [a for batch in read_batches(rows, of_persons) for a in batch.column("age").to_pylist()]
                passes.append((persons, ages))
        assert passes[0] == passes[1]
        persons, ages = passes[0]
        assert len(ages) == (30 if "limit" in order else 40)
        assert [int(person) for person in persons] == [age // 10 for age in ages]

    def test_a_pass_over_some_columns_before_one_over_all(
        self, patients: Any, ask: Any, schema: Schema, of_persons: Schema
    ) -> None:
        """As bounds are estimated: of persons both have the same order, without them the same rows."""
        with at_rest(ask("select * from patients order by random()")) as rows:
            persons = [p for batch in read_persons(rows, of_persons) for p in batch.to_pylist()]
            ages = [a for batch in read_batches(rows, of_persons, ["age"]) for a in batch.column(0).to_pylist()]
            again = [a for batch in read_batches(rows, of_persons) for a in batch.column("age").to_pylist()]
        assert ages == again and [int(p) for p in persons] == [age % 10 for age in ages]
        with at_rest(ask()) as rows:
            some = [row for batch in read_batches(rows, schema, ["age"]) for row in batch.to_pylist()]
            every = [row for batch in read_batches(rows, schema) for row in batch.to_pylist()]
        assert sorted(row["age"] for row in every) == sorted(row["age"] for row in some) == list(range(40))
        assert {*some[0]} == {"age"} and {*every[0]} == {"age", "sex"}

    def test_what_others_write_meanwhile_is_not_seen(
        self, patients: Any, ask: Any, schema: Schema, of_persons: Schema
    ) -> None:
        with at_rest(ask()) as rows, at_rest(ask()) as others:
            persons = [p for batch in read_persons(rows, of_persons) for p in batch.to_pylist()]
            before = [row for batch in read_batches(others, schema) for row in batch.to_pylist()]
            patients.execute("INSERT INTO patients VALUES (77, 'male', 3, ''), (78, 'male', 99, '')")
            patients.execute("DELETE FROM patients WHERE age < 5")
            patients.execute("UPDATE patients SET age = 50 WHERE age = 20")
            ages = [a for batch in read_batches(rows, of_persons) for a in batch.column("age").to_pylist()]
            after = [row for batch in read_batches(others, schema) for row in batch.to_pylist()]
        assert [int(p) for p in persons] == [age % 10 for age in ages]
        assert sorted(ages) == list(range(40))
        assert before == after and len(rows_of(ask(), schema)) == 37

    def test_floats_that_look_alike_are_two_persons(self, admin: Any, ask: Any, of_persons: Schema) -> None:
        url = ask().url.get_secret_value() + "?options=-c%20extra_float_digits%3D-10"
        query = "select x as patient, 1 as age, 'male' as sex from unnest(array[0.3, 0.1::float8 + 0.2::float8]) x"
        with at_rest(ask(query, url)) as rows:
            persons = [p for batch in read_persons(rows, of_persons) for p in batch.to_pylist()]
        assert persons == ["0.3", "0.30000000000000004"]


class TestHeader:
    def test_missing_and_doubled_columns_are_named_together(self, admin: Any, ask: Any, schema: Schema) -> None:
        message = refused(lambda: check_header(ask("select 1 as agee, 'x' as sex, 'y' as sex"), schema))
        assert "column age is missing (did you mean agee?); column sex appears 2 times" in message

    @pytest.mark.parametrize(
        ("age", "word"),
        [
            ("'x'::text", "text"),
            ("true", "bool"),
            ("now()", "timestamptz"),
            ("'1 day'::interval", "interval"),
            ("array[1]", "int4[]"),
            ("'{}'::jsonb", "jsonb"),
            ("null", "text"),
        ],
    )
    def test_a_type_that_cannot_hold_the_kind(self, admin: Any, ask: Any, schema: Schema, age: str, word: str) -> None:
        message = refused(lambda: check_header(ask(f"select {age} as age, 'male' as sex"), schema))
        assert f"column age is {word} and cannot hold kind integer; convert it in source.query" in message

    def test_no_rows(self, patients: Any, ask: Any, schema: Schema) -> None:
        message = refused(lambda: check_header(ask("select * from patients where age > 1000"), schema))
        assert "gives no rows" in message

    @pytest.mark.parametrize(
        ("query", "word"),
        [
            ("select * from nowhere", "names a table that is not there"),
            ("select * from nowhere.patients", "names a table that is not there"),
            (f"select {SECRET[:6]} from patients", "names a column that is not there"),
            ("selec * from patients", "is not one SELECT"),
            ("delete from patients returning *", "is not one SELECT"),
            ("with gone as (delete from patients returning *) select * from gone", "is not one SELECT"),
            ("select * from patients; delete from patients", "is not one SELECT"),
            ("select * from patients) as x; delete from patients; select * from (select 1", "is not one SELECT"),
            ("select *, write() from patients for update", "writes or locks"),
            ("select * from patients where write() = 1", "writes or locks"),
            (
                "select * from patients where set_config('transaction_read_only', 'off', true) = 'off'",
                "writes or locks",
            ),
            ("select * from secrets", "grant SELECT"),
            ("select (1 / 0) as age, 'male' as sex", "fails on what the tables hold"),
            ("select pg_sleep(9) as age from patients where pg_sleep(9) is null", "cut source.query off"),
        ],
    )
    def test_queries_that_are_no_source(self, patients: Any, ask: Any, schema: Schema, query: str, word: str) -> None:
        source = ask(query, ask().url.get_secret_value() + "?options=-c%20statement_timeout%3D200")
        assert word in refused(lambda: check_header(source, schema))
        assert patients.execute("SELECT count(*) FROM patients").fetchone() == (40,)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda url: url.replace(PASSWORD, "wrong-hunter2"),
            lambda url: url.replace("reader:", "nobody:"),
            lambda url: url.replace("/hospital", "/elsewhere"),
            lambda url: url.rpartition(":")[0] + ":1/hospital",
            lambda url: url + "?sslmode=require",  # this server has no TLS
            lambda url: url + "?sslmode=nonsense",
            lambda url: url + "?nonsense=1",
        ],
        ids=["password", "user", "database", "port", "tls", "sslmode", "parameter"],
    )
    def test_a_database_that_cannot_be_reached(self, admin: Any, ask: Any, schema: Schema, spoil: Any) -> None:
        url = spoil(ask().url.get_secret_value())
        message = refused(lambda: check_header(ask(url=url), schema))
        told = ("cannot be reached, or refuses the login", "sslmode asks for TLS, which the server does not offer")
        assert told["sslmode=require" in url] in message and "hunter2" not in message


class TestNoValueInAnError:
    def test_a_value_that_the_query_fails_on(self, patients: Any, ask: Any, schema: Schema) -> None:
        source = ask("select note::int as age, sex from patients")
        check_header(source, schema)
        assert "fails on what the tables hold" in refused(lambda: rows_of(source, schema))

    @pytest.mark.parametrize("persons", [False, True])
    def test_a_connection_that_is_lost_on_the_way(
        self,
        patients: Any,
        ask: Any,
        schema: Schema,
        of_persons: Schema,
        monkeypatch: Any,
        caplog: Any,
        capfd: Any,
        persons: bool,
    ) -> None:
        monkeypatch.setattr(ingest, "BATCH_ROWS", 10)

        def lose() -> None:
            with at_rest(ask()) as rows:
                batches = read_batches(rows, of_persons if persons else schema)
                assert next(batches).num_rows == 10
                patients.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'reader'"
                )
                next(batches)

        with caplog.at_level(logging.INFO):
            assert "the connection was lost" in refused(lose)
        assert caplog.text == "" and capfd.readouterr() == ("", "")

    def test_a_source_shows_neither_url_nor_query(self, ask: Any) -> None:
        shown = repr(ask()) + str(ask()) + str(ask().model_dump()) + ask().model_dump_json()
        assert PASSWORD not in shown and "patients" not in shown


COLUMNS: dict[str, tuple[str, pa.DataType, dict[str, Any], st.SearchStrategy[Any]]] = {
    "small": ("int2", pa.int16(), {"kind": "integer", "bounds": [0, 99]}, st.integers(-5, 120)),
    "large": ("int8", pa.int64(), {"kind": "integer", "bounds": [0, 10**6]}, st.integers(-(2**63), 2**63 - 1)),
    "grade": ("int4", pa.int32(), {"kind": "categorical", "categories": [1, 2, 3]}, st.integers(0, 4)),
    "dose": ("numeric", pa.decimal128(6, 2), {"kind": "categorical", "categories": [0.5, 1, 2.25]},
             st.sampled_from([Decimal("0.50"), Decimal("1.00"), Decimal("2.25"), Decimal("7.00")])),
    "price": ("numeric", pa.decimal128(9, 3), {"kind": "continuous", "bounds": [0, 50]},
              st.decimals(-10, 100, places=3)),
    "weight": ("float8", pa.float64(), {"kind": "continuous", "bounds": [2.5, 250], "decimals": 1}, st.floats()),
    "score": ("float4", pa.float32(), {"kind": "continuous", "bounds": [0, 1]}, st.floats(width=32)),
    "city": ("varchar(20)", pa.string(), {"kind": "categorical", "categories": ["Rome", "Oslo, N", 'a "b"\nc', "Å"]},
             st.sampled_from(["Rome", "Oslo, N", 'a "b"\nc', "Å", "", "NA", "else", " Rome"])),
    "day": ("date", pa.date32(), {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"]}, st.dates()),
    "seen": ("timestamp", pa.timestamp("us"), {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"]},
             st.datetimes(datetime(1985, 1, 1), datetime(1999, 1, 1))),
    "sent": ("timestamptz", pa.timestamp("us", tz="UTC"), {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"]},
             st.datetimes(datetime(1985, 1, 1), datetime(1999, 1, 1), timezones=st.just(UTC))),
    "said": ("text", pa.string(), {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"]},
             st.sampled_from(["1990-02-03", "1990-02-03T04:05:06+02:00", "never"])),
    "died": ("bool", pa.bool_(), {"kind": "boolean"}, st.booleans()),
    "smoker": ("int4", pa.int32(), {"kind": "boolean"}, st.integers(0, 2)),
}  # fmt: skip


class TestEqualsParquet:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(rows=st.lists(st.tuples(*(st.none() | values for *_, values in COLUMNS.values())), min_size=1, max_size=12))
    def test_the_codes_are_those_of_parquet(
        self, admin: Any, ask: Any, tmp_path_factory: Any, rows: list[tuple[Any, ...]]
    ) -> None:
        columns = [{"name": name, "nullable": True, **declared} for name, (_, _, declared, _) in COLUMNS.items()]
        schema = parse_schema({"dataset": "t", "columns": columns}, file="s")
        table = pa.table({n: pa.array([row[i] for row in rows], COLUMNS[n][1]) for i, n in enumerate(COLUMNS)})
        path: Path = tmp_path_factory.getbasetemp() / "same.parquet"
        pq.write_table(table, path)
        admin.execute("DROP TABLE IF EXISTS same")
        admin.execute("CREATE TABLE same (" + ", ".join(f"{name} {kind}" for name, (kind, *_) in COLUMNS.items()) + ")")
        admin.execute("GRANT SELECT ON same TO reader")
        marks = ", ".join(["%s"] * len(COLUMNS))
        with admin.cursor() as cursor:
            cursor.executemany(f"INSERT INTO same VALUES ({marks})", rows)
        source = ask("select * from same")
        for where in (path, source):
            check_header(where, schema)
        assert _codes(source, schema) == _codes(path, schema)

    def test_the_types_are_those_of_a_table(self) -> None:
        assert date(1970, 1, 1).toordinal() - date(2000, 1, 1).toordinal() == -records._DAYS
        assert (datetime(2000, 1, 1) - datetime(1970, 1, 1)).total_seconds() * 1e6 == records._MICROS


def _codes(where: Path | Database, schema: Schema) -> list[tuple[int, ...]]:
    """The codes of all rows, in one order whatever they come in."""
    rng, rows = np.random.default_rng(0), []
    with at_rest(where) as source:
        for batch in read_batches(source, schema):
            encoded = [codec.encode(batch.column(name), rng) for name, codec in codecs_of(schema).items()]
            rows += list(zip(*(codes.tolist() for e in encoded for codes in e.codes.values()), strict=True))
    return sorted(rows)
