"""A folder of files as one table: read by name, every header checked, nothing else lying there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth.errors import InvalidSource
from synth.ingest import at_rest, check_header, header_of, read_batches, read_persons
from synth.schema import Schema, parse_schema

SchemaOf = Callable[..., Schema]
SECRET = "canary-7731"


@pytest.fixture
def schema(schema_of: SchemaOf) -> Schema:
    return schema_of("age", "sex")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three Parquet files, the middle one without rows, and what other programs leave beside them."""
    folder = tmp_path / "patients"
    folder.mkdir()
    for name, ages in (("part-2.parquet", [3, 4]), ("part-1.pq", []), ("part-0.PARQUET", [1, 2])):
        sexes = pa.array(["male"] * len(ages), pa.string())
        pq.write_table(pa.table({"age": pa.array(ages, pa.int64()), "sex": sexes, "note": sexes}), folder / name)
    for name in ("_SUCCESS", "._part-0.crc", ".DS_Store"):
        (folder / name).write_text(SECRET)
    return folder


def csv_files(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def rows_of(path: Path, schema: Schema) -> list[tuple[Any, ...]]:
    check_header(path, schema)
    return [tuple(row.values()) for batch in read_batches(path, schema) for row in batch.to_pylist()]


def refused(path: Path, schema: Schema) -> str:
    with pytest.raises(InvalidSource) as caught:
        check_header(path, schema)
    message = str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in message and SECRET not in message
    return message


def test_parquet_files_by_name(folder: Path, schema: Schema) -> None:
    assert rows_of(folder, schema) == [(n, "male") for n in (1, 2, 3, 4)]
    assert header_of(folder).field("age").type == pa.int64()


def test_csv_files_by_name(tmp_path: Path, schema: Schema) -> None:
    folder = csv_files(tmp_path / "t", b="sex,age\nmale,2\n", a="age,sex\n1,female\n", c="age,sex\n")
    assert rows_of(folder, schema) == [("1", "female"), ("2", "male")]


def test_persons_match_rows_across_files(tmp_path: Path) -> None:
    columns = [{"name": "p", "kind": "id"}, {"name": "age", "kind": "integer", "bounds": [0, 99]}]
    schema = parse_schema({"dataset": "t", "privacy_unit": "p", "columns": columns}, file="s")
    folder = csv_files(tmp_path / "t", a="p,age\nx1,1\nx2,2\n", b="p,age\nx1,1\nx3,3\n")
    check_header(folder, schema)
    persons = [p for part in read_persons(folder, schema) for p in part.to_pylist()]
    ages = [a for batch in read_batches(folder, schema) for a in batch.column("age").to_pylist()]
    assert [p[1:] for p in persons] == ages == ["1", "2", "1", "3"]


@pytest.mark.parametrize("change", ["written", "added", "removed", "replaced"])
def test_a_change_of_any_file_between_two_passes_is_refused(folder: Path, change: str) -> None:
    with at_rest(folder) as source:
        assert source == folder
    file = folder / "part-2.parquet"
    with pytest.raises(InvalidSource, match="changed while"), at_rest(folder):
        match change:
            case "written":
                file.write_bytes(file.read_bytes() * 2)
            case "added":
                (folder / "part-3.parquet").write_bytes(file.read_bytes())
            case "removed":
                file.unlink()
            case "replaced":
                other = folder.parent / "other"
                other.write_bytes(file.read_bytes())
                other.replace(file)


class TestRefusals:
    @pytest.mark.parametrize("name", ["notes.txt", "patients.xlsx", "more"])
    def test_what_is_no_data(self, folder: Path, schema: Schema, name: str) -> None:
        (folder / name).mkdir() if name == "more" else (folder / name).write_text(SECRET)
        assert f"is a folder and holds {name}, which is no .parquet" in refused(folder, schema)

    def test_a_folder_with_a_data_file_s_name(self, folder: Path, schema: Schema) -> None:
        (folder / "part-9.parquet").mkdir()
        assert "holds part-9.parquet, which is no" in refused(folder, schema)

    def test_two_formats(self, folder: Path, schema: Schema) -> None:
        (folder / "z.csv").write_text("age,sex,note\n1,male,x\n")
        assert "z.csv: is of another format than part-0.PARQUET" in refused(folder, schema)

    @pytest.mark.parametrize(
        ("table", "word"),
        [
            ({"age": [1], "sex": ["male"]}, "has other columns or types"),
            ({"age": [1], "sex": ["male"], "note": [1]}, "has other columns or types"),
            ({"age": [1.5], "sex": ["male"], "note": ["x"]}, "has other columns or types"),
            ({"age": [1], "note": ["x"]}, "column sex is missing"),
            ({"age": ["x"], "sex": ["male"], "note": ["x"]}, "column age is string"),
        ],
    )
    def test_another_header(self, folder: Path, schema: Schema, table: dict[str, Any], word: str) -> None:
        pq.write_table(pa.table(table), folder / "part-9.parquet")
        message = refused(folder, schema)
        assert "part-9.parquet" in message and word in message

    def test_another_header_of_csv_is_not_repeated(self, tmp_path: Path, schema: Schema) -> None:
        folder = csv_files(tmp_path / "t", a="age,sex\n1,male\n", b=f"age,sex,{SECRET}\n1,male,x\n")
        assert "b.csv: has other columns or types than a.csv" in refused(folder, schema)

    @pytest.mark.parametrize(("content", "word"), [("", "is empty"), ("PAR1", "damaged or truncated")])
    def test_a_damaged_file_among_good_ones(self, folder: Path, schema: Schema, content: str, word: str) -> None:
        (folder / "part-1.pq").write_text(content)
        message = refused(folder, schema)
        assert "part-1.pq" in message and word in message

    def test_no_files_and_no_rows(self, tmp_path: Path, schema: Schema) -> None:
        (tmp_path / "none").mkdir()
        assert "is a folder without Parquet or CSV files" in refused(tmp_path / "none", schema)
        assert "no rows" in refused(csv_files(tmp_path / "t", a="age,sex\n", b="age,sex\n"), schema)
