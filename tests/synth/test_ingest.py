"""The source: its header is checked without looking at a row, and only declared columns are read."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import ingest
from synth.errors import InvalidSource
from synth.ingest import TELLING_CELLS, at_rest, check_header, header_of, read_batches
from synth.schema import Schema, parse_schema

Write = Callable[[str, str | bytes], Path]
SchemaOf = Callable[..., Schema]
SECRET = "canary-7731"


@pytest.fixture
def schema(schema_of: SchemaOf) -> Schema:
    return schema_of("age", "sex", "number", target="sex")


def rows_of(path: Path, schema: Schema) -> list[dict[str, Any]]:
    return pa.Table.from_batches(list(read_batches(path, schema))).to_pylist()


def refused(path: Path, schema: Schema) -> str:
    with pytest.raises(InvalidSource) as caught:
        check_header(path, schema)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


KINDS = {
    "integer": {"bounds": [0, 1]},
    "continuous": {"bounds": [0, 1]},
    "boolean": {},
    "datetime": {"bounds": ["1989-01-01", "1995-01-01"]},
    "categorical": {"categories": ["x"]},
}
AGE = [{"name": "age", "kind": "integer", "bounds": [0, 100]}]
FORMS = [
    ("integer", "7", "seven"),
    ("continuous", "7.5", "7,5"),
    ("datetime", "1990-12-31", "31.12.1990"),
    ("boolean", "no", "nein"),
]


class TestReading:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_what_spreadsheets_write(self, write: Write, schema: Schema, separator: str) -> None:
        text = '\ufeffage,sex,number\r\n1,"male",x\r\n,,"a;b"\r\n\r\n'.replace(",", separator)
        path = write("a.csv", text.encode())
        check_header(path, schema)
        assert rows_of(path, schema) == [{"age": "1", "sex": "male"}, {"age": None, "sex": None}]
        assert header_of(path).names == ["age", "sex", "number"]

    @pytest.mark.parametrize(
        ("text", "separator"),
        [
            ("Größe, cm;sex\n150;male\n", ";"),  # as spreadsheets write it, without quotes
            ("Größe, cm;sex\n", ","),  # without a row nobody can tell
            ("a,b;c\n1,2\n", ","),
            ("a;b,c\n1;2\n", ";"),
            ("a,b\n1,2,3\n", ","),  # wrong either way: the reader says so
            ("a\n1;2\n", ","),
            ("a b\tc\n1,5\t2\n", "\t"),
            ("a;b;c\n1;2\n", ";"),  # a row that is cut short, or none: the header says enough
            ("a;b\n\n1;2\n", ";"),
            ("", ","),
        ],
    )
    def test_the_separator_parts_header_and_first_row_alike(self, text: str, separator: str) -> None:
        stream = StringIO(text)
        assert ingest.separator_of(stream) == separator
        assert stream.read() == text

    @pytest.mark.parametrize("kind", ["parquet", "csv"])
    def test_only_the_declared_columns_in_the_declared_order(self, tmp_path: Path, schema: Schema, kind: str) -> None:
        table = pa.table({"note": [SECRET] * 2, "sex": ["male", None], "age": [3, 4], "number": ["x", "y"]})
        path = tmp_path / f"rows.{kind}"
        pq.write_table(table, path) if kind == "parquet" else pa.csv.write_csv(table, path)
        found = rows_of(path, schema)
        assert [list(row) for row in found] == [["age", "sex"]] * 2
        assert [row["sex"] for row in found] == ["male", None]
        assert [int(row["age"]) for row in found] == [3, 4]

    @pytest.mark.parametrize("kind", ["parquet", "csv"])
    def test_a_batch_at_a_time(
        self, tmp_path: Path, schema: Schema, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ingest, "BATCH_ROWS", 10)
        table = pa.table({"age": range(35), "sex": ["male"] * 35})
        path = tmp_path / "rows"
        pq.write_table(table, path) if kind == "parquet" else pa.csv.write_csv(table, path)
        sizes = [batch.num_rows for batch in read_batches(path, schema)]
        assert max(sizes) <= 10
        assert sum(sizes) == 35

    def test_the_name_says_nothing_about_the_format(self, tmp_path: Path, schema: Schema) -> None:
        pq.write_table(pa.table({"age": [1], "sex": ["male"]}), tmp_path / "rows.csv")
        assert rows_of(tmp_path / "rows.csv", schema) == [{"age": 1, "sex": "male"}]

    @pytest.mark.parametrize(
        "text",
        ["age,sex\n5,male\n", "\ufeffage,sex\r\n5,male\r\n", 'sex,"age"\n"male","5"\n', "age,z,sex,z\n5,1,male,2\n"],
    )
    def test_spellings_of_csv(self, write: Write, schema: Schema, text: str) -> None:
        assert rows_of(write("a.csv", text), schema) == [{"age": "5", "sex": "male"}]

    def test_line_breaks_and_quotes_inside_a_cell(self, write: Write, schema: Schema) -> None:
        assert rows_of(write("a.csv", 'age,sex\n5,"ma\nle""x"\n'), schema)[0]["sex"] == 'ma\nle"x'

    @pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "null", "NULL", "None"])
    def test_csv_words_for_nothing(self, write: Write, schema: Schema, word: str) -> None:
        assert rows_of(write("a.csv", f"age,sex\n{word},male\n"), schema)[0]["age"] is None

    def test_a_declared_level_is_never_nothing(self, write: Write, schema_of: SchemaOf) -> None:
        schema = schema_of("age", "type", type={"kind": "categorical", "categories": ["None", "Brick"]})
        found = rows_of(write("a.csv", "age,type\n1,None\nNA,Brick\n2,NA\n"), schema)
        assert [row["type"] for row in found] == ["None", "Brick", None]
        assert found[1]["age"] is None

    def test_a_level_of_one_column_is_nothing_in_another(self, write: Write, schema_of: SchemaOf) -> None:
        schema = schema_of("age", "type", type={"kind": "categorical", "categories": ["None", "Brick"]})
        found = rows_of(write("a.csv", "age,type\nNone,None\n7,Brick\n"), schema)
        assert [tuple(row.values()) for row in found] == [(None, "None"), ("7", "Brick")]

    @pytest.mark.parametrize("change", ["written", "replaced"])
    def test_a_file_that_changes_between_two_passes_is_refused(self, write: Write, tmp_path: Path, change: str) -> None:
        path = write("a.csv", "age,sex\n5,male\n")
        with at_rest(path):
            pass
        with pytest.raises(InvalidSource, match="changed while"), at_rest(path):
            if change == "written":
                path.write_text("age,sex\n6,male\n7,male\n")
            else:
                other = tmp_path / "other.csv"
                other.write_bytes(path.read_bytes())
                other.replace(path)


class TestHeader:
    @pytest.mark.parametrize("kind", ["parquet", "csv"])
    def test_missing_and_doubled_columns_are_named_together(self, tmp_path: Path, schema: Schema, kind: str) -> None:
        table = pa.Table.from_arrays([pa.array([1])] * 3, names=["sex", "sex", "agee"])
        path = tmp_path / "rows"
        if kind == "parquet":
            pq.write_table(table, path)
        else:
            path.write_text("sex,sex,agee\n1,1,1\n")
        message = refused(path, schema)
        # The first line of a CSV file without a header is a person's row: nothing of it is repeated.
        assert ("column age is missing (did you mean agee?)" in message) == (kind == "parquet")
        assert ("agee" in message) == (kind == "parquet")
        assert "column age is missing" in message
        assert "column sex appears 2 times" in message

    @pytest.mark.parametrize("name", ["sex", "number"])
    def test_columns_that_are_not_read_may_be_missing_or_doubled(
        self, write: Write, schema_of: SchemaOf, name: str
    ) -> None:
        check_header(write("a.csv", f"age,{name},{name}\n1,1,1\n"), schema_of("age", "number"))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "the file is empty"),
            (b"age,sex\n", "has a header and no rows"),
            (b"age,sex\n\n\n", "has a header and no rows"),
            (b"PAR1 and no more", "damaged or truncated Parquet"),
            (b"\xff\xfe\x00", "neither Parquet nor UTF-8 CSV"),
            (b"age,sex\n1,\xff\n", "neither Parquet nor UTF-8 CSV"),
            (b"age|sex\n1|male\n", "column age is missing"),
        ],
    )
    def test_files_that_are_no_source(self, write: Write, schema: Schema, content: bytes, words: str) -> None:
        assert words in refused(write("a.csv", content), schema)

    @pytest.mark.parametrize(("kind", "good", "bad"), FORMS)
    def test_text_that_is_never_of_its_kind(
        self, tmp_path: Path, schema: Schema, kind: str, good: str, bad: str
    ) -> None:
        """Decimal commas, dates with points, words: each cell would be replaced, and the budget spent on that."""
        declared = parse_schema(
            {"dataset": "t", "columns": [{"name": "a", "kind": kind, **KINDS[kind]}, *AGE]}, file="s"
        )
        path, column = tmp_path / "a.csv", [bad] * TELLING_CELLS

        def write(cells: list[str]) -> Path:
            lines = [f'"{cell}",{i}' if "," in cell else f"{cell},{i}" for i, cell in enumerate(cells)]
            path.write_text("\n".join(["a,age", *lines]))
            return path

        message = refused(write(column), declared)
        assert "column a holds no cell that reads as " in message
        assert bad not in message
        check_header(write([*column, good]), declared)  # one that reads suffices
        check_header(write(column[1:]), declared)  # and a few that do not say nothing
        check_header(write(["NA"] * TELLING_CELLS), declared)
        # With codes for missing values a refusal would tell how many have none of them, whatever these are.
        coded = {"name": "a", "kind": kind, **KINDS[kind], "nullable": True, "missing_codes": ["?"]}
        check_header(write(column), parse_schema({"dataset": "t", "columns": [coded, *AGE]}, file="s"))
        if kind == "datetime":
            pq.write_table(pa.table({"a": pa.array(column).dictionary_encode(), "age": range(len(column))}), path)
            assert "a date (2024-12-31" in refused(path, declared)

    def test_text_that_calls_itself_parquet(self, write: Write, schema: Schema) -> None:
        assert "is not a Parquet file" in refused(write("a.parquet", "age,sex\n1,male\n"), schema)

    def test_nothing_and_a_folder(self, tmp_path: Path, schema: Schema) -> None:
        assert "no such file" in refused(tmp_path / "no.csv", schema)
        assert "is a folder" in refused(tmp_path, schema)

    def test_parquet_without_rows(self, tmp_path: Path, schema: Schema) -> None:
        pq.write_table(pa.table({"age": pa.array([], pa.int64()), "sex": pa.array([], pa.string())}), tmp_path / "a")
        assert "has no rows" in refused(tmp_path / "a", schema)

    def test_a_truncated_parquet_file(self, tmp_path: Path, schema: Schema) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"age": range(1000), "sex": ["male"] * 1000}), path)
        path.write_bytes(path.read_bytes()[:-20])
        assert "damaged or truncated" in refused(path, schema)

    def test_a_quick_look_for_drafting(self, write: Write, tmp_path: Path) -> None:
        pq.write_table(pa.table({"age": [1]}), tmp_path / "a")
        assert header_of(tmp_path / "a").field("age").type == pa.int64()
        assert header_of(write("a.csv", "age,when\n1.5,2020-01-01\n")).names == ["age", "when"]
        with pytest.raises(InvalidSource, match="not CSV with one header line"):
            header_of(write("b.csv", "age,when\n1\n1,2,3\n"))


NUMBERS = [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(5, 2), pa.dictionary(pa.int32(), pa.int64())]
TEXTS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
MOMENTS = [pa.timestamp("s"), pa.timestamp("ns", tz="Europe/Rome"), pa.date32(), pa.date64()]
OTHERS = [pa.list_(pa.int64()), pa.binary(), pa.struct([("a", pa.int64())]), pa.time32("s")]
HELD = {
    "integer": [*NUMBERS, pa.null()],
    "continuous": [*NUMBERS, pa.null()],
    "boolean": [pa.bool_(), *NUMBERS, pa.null()],
    "datetime": [*MOMENTS, *TEXTS, pa.null()],
    "categorical": [*TEXTS, *NUMBERS, pa.bool_(), pa.null()],
}


class TestTypes:
    @pytest.mark.parametrize("kind", HELD)
    def test_which_parquet_type_can_hold_a_kind(self, tmp_path: Path, kind: str) -> None:
        schema = parse_schema({"dataset": "t", "columns": [{"name": "a", "kind": kind, **KINDS[kind]}]}, file="s")
        for number, arrow in enumerate([*NUMBERS, *TEXTS, *MOMENTS, *OTHERS, pa.bool_(), pa.null()]):
            path = tmp_path / str(number)
            pq.write_table(pa.table({"a": pa.array([None], arrow)}), path)
            # Parquet itself widens some types; what counts is what is read back.
            if arrow in HELD[kind]:
                check_header(path, schema)
            else:
                assert f"cannot hold kind {kind}" in refused(path, schema), arrow

    def test_all_misfits_are_named_together(self, tmp_path: Path, schema_of: SchemaOf) -> None:
        pq.write_table(pa.table({"age": ["x"], "died": ["x"], "admitted": [1]}), tmp_path / "a")
        message = refused(tmp_path / "a", schema_of("age", "died", "admitted"))
        assert message.count("cannot hold kind") == 3


class TestNoValueInAnError:
    @pytest.mark.parametrize(
        "content",
        [
            f"age,sex\n1,male\n{SECRET}\n",
            f"age,sex\n1,{SECRET},{SECRET}\n",
            b"age,sex\n1,male\n2," + SECRET.encode() + b"\xff\n",
        ],
    )
    def test_damage_found_while_reading(self, write: Write, schema: Schema, content: str | bytes) -> None:
        with pytest.raises(InvalidSource) as caught:
            rows_of(write("a.csv", content), schema)
        assert SECRET not in str(caught.value)
        assert "UTF-8" in str(caught.value)  # what a user can look for
        assert caught.value.__suppress_context__

    def test_a_damaged_page(self, tmp_path: Path, schema: Schema) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"age": range(5000), "sex": ["male", SECRET] * 2500}), path, compression="snappy")
        content = bytearray(path.read_bytes())
        content[4:2000] = b"\xff" * 1996
        path.write_bytes(content)
        with pytest.raises(InvalidSource, match="damaged") as caught:
            rows_of(path, schema)
        assert SECRET not in str(caught.value)


CELLS = st.sampled_from(["Rome", "Oslo", "Lima, Peru", 'say "hi"', "two\nlines", " Rome", "true", "5", None])


@given(st.lists(st.tuples(st.integers(-5, 120), CELLS, st.dates(datetime.date(1985, 1, 1))), min_size=1, max_size=20))
def test_csv_equals_parquet(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]) -> None:
    columns = [
        {"name": "age", "kind": "integer", "bounds": [0, 99]},
        {"name": "city", "kind": "categorical", "categories": ["Rome", "Oslo"], "nullable": True},
        {"name": "day", "kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"]},
    ]
    schema = parse_schema({"dataset": "t", "columns": columns}, file="s")
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("age", "city", "day"))})
    table = table.set_column(1, "city", table.column("city").cast(pa.string()))
    folder = tmp_path_factory.mktemp("same")
    pq.write_table(table, folder / "a.parquet")
    pa.csv.write_csv(table, folder / "a.csv")
    first, second = rows_of(folder / "a.parquet", schema), rows_of(folder / "a.csv", schema)
    assert [{k: None if v is None else str(v) for k, v in row.items()} for row in first] == second
