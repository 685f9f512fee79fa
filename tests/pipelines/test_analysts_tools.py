"""The rows of a bundle in the hands of the analysts' libraries: the types of the schema, and the same values."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from frictionless import Resource, Schema

from synth.parquet import write_file
from synth.schema import parse_schema
from synth.tables.codec import codecs_of
from synth.tables.decode import arrow_schema, values_at

COLUMNS = ["patient_nbr", "age", "bmi", "sex", "ward", "grade", "admitted", "died"]


ODD_COLUMNS = (
    {"name": "visits", "kind": "integer", "bounds": [0, 9], "nullable": True},
    {"name": "smoker", "kind": "boolean", "nullable": True},
    {"name": "stage", "kind": "categorical", "categories": [1, 2, 3], "nullable": True},
    {"name": "dose", "kind": "categorical", "categories": [0.5, 1.0, 2.5]},
    {"name": "code", "kind": "categorical", "categories": ["01", "02"], "nullable": True},
    {
        "name": "seen",
        "kind": "datetime",
        "bounds": ["2015-01-01", "2015-03-01"],
        "resolution": "day",
        "nullable": True,
    },
)
ODD_KINDS = [pa.int64(), pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.timestamp("us")]


@pytest.fixture(scope="module")
def rows(quick_bundle: Path) -> list[dict[str, object]]:
    """The rows by the library that wrote them."""
    found: list[dict[str, object]] = pq.read_table(quick_bundle / "data").to_pylist()
    assert any(row["bmi"] is None for row in found) and any(row["ward"] is None for row in found)
    return found


def test_pyarrow(quick_bundle: Path, rows: list[dict[str, object]]) -> None:
    table = ds.dataset(quick_bundle / "data", format="parquet").to_table()
    text, number, moment = pa.string(), pa.int64(), pa.timestamp("us")
    kinds = [text, number, pa.float64(), text, text, number, moment, pa.bool_()]
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == dict(zip(COLUMNS, kinds, strict=True))
    assert [f.name for f in table.schema if f.nullable] == ["bmi", "ward"]
    assert table.to_pylist() == rows


def test_pandas(quick_bundle: Path, rows: list[dict[str, object]]) -> None:
    frame = pd.read_parquet(quick_bundle / "data")
    kinds = ["object", "int64", "float64", "object", "object", "int64", "datetime64[us]", "bool"]
    assert [str(kind) for kind in frame.dtypes] == kinds
    assert frame.index.equals(pd.RangeIndex(len(rows)))
    assert [None if pd.isna(value) else value for value in frame["bmi"]] == [row["bmi"] for row in rows]
    assert [moment.to_pydatetime() for moment in frame["admitted"]] == [row["admitted"] for row in rows]


def test_polars(quick_bundle: Path, rows: list[dict[str, object]]) -> None:
    frame = pl.read_parquet(quick_bundle / "data" / "part-*.parquet")
    kinds = [pl.String, pl.Int64, pl.Float64, pl.String, pl.String, pl.Int64, pl.Datetime("us"), pl.Boolean]
    assert dict(frame.schema) == dict(zip(COLUMNS, kinds, strict=True))
    assert frame.to_dicts() == rows


def test_duckdb(quick_bundle: Path, rows: list[dict[str, object]]) -> None:
    with duckdb.connect() as connection:
        found = connection.execute("SELECT * FROM read_parquet($1)", [f"{quick_bundle}/data/part-*.parquet"])
        kinds = ["VARCHAR", "BIGINT", "DOUBLE", "VARCHAR", "VARCHAR", "BIGINT", "TIMESTAMP", "BOOLEAN"]
        assert [(name, str(kind)) for name, kind, *_ in found.description] == list(zip(COLUMNS, kinds, strict=True))
        assert [dict(zip(COLUMNS, row, strict=True)) for row in found.fetchall()] == rows
        files = f"{quick_bundle}/data/part-*.parquet"
        marked = connection.execute("SELECT key, value FROM parquet_kv_metadata($1)", [files]).fetchall()
        assert (b"synthetic", b"true") in marked


def test_frictionless(quick_bundle: Path, rows: list[dict[str, object]]) -> None:
    """The rows as they are, and as a text file that an analyst saves, fit the bundle's own table schema."""
    described = json.loads((quick_bundle / "tableschema.json").read_text())
    assert Resource(data=rows, schema=Schema.from_descriptor(described)).validate().valid
    texts = [{name: as_text(value) for name, value in row.items()} for row in rows]
    assert Resource(data=texts, schema=Schema.from_descriptor(described)).validate().valid
    broken = [rows[0] | {"age": 7}, *rows[1:]]
    assert not Resource(data=broken, schema=Schema.from_descriptor(described)).validate().valid


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every cell of every column, in the types that a bundle has."""
    declared = parse_schema({"dataset": "tools", "columns": ODD_COLUMNS}, file="s")
    codecs = codecs_of(declared)
    schema = arrow_schema(declared, codecs)
    arrays = []
    for codec in codecs.values():
        positions = np.arange(12.0) % (10 if codec.ordered else codec.size)
        if codec.missing is not None:
            positions[positions >= (9 if codec.ordered else codec.size - 1)] = np.nan
        arrays.append(values_at(codec, positions))
    path = tmp_path_factory.mktemp("tools") / "rows.parquet"
    write_file([pa.record_batch(arrays, schema=schema)], schema, path, {"synthetic": "true"})
    return path


class TestTypesThatToolsLose:
    """Integers, truth values and codes with missing ones among them, and numbers that are categories."""

    def test_the_file_itself(self, odd: Path) -> None:
        table = pq.read_table(odd)
        assert table.schema.types == ODD_KINDS
        assert [column.null_count > 0 for column in table.columns] == [True, True, True, False, True, True]
        assert table["code"].to_pylist()[:3] == ["01", "02", None] and table["dose"].to_pylist()[:3] == [0.5, 1.0, 2.5]

    def test_pandas(self, odd: Path) -> None:
        """With its nullable types; without, integers with missing ones become floats, as pandas has it."""
        kinds = ["Int64", "boolean", "Int64", "Float64", "string", "datetime64[us]"]
        kept = pd.read_parquet(odd, dtype_backend="numpy_nullable")
        assert [str(kind) for kind in kept.dtypes] == kinds
        plain = pd.read_parquet(odd)
        for name, values in pq.read_table(odd).to_pydict().items():
            assert [None if pd.isna(value) else value for value in kept[name]] == values
            assert [None if pd.isna(value) else value for value in plain[name]] == values

    def test_polars(self, odd: Path) -> None:
        frame = pl.read_parquet(odd)
        assert frame.dtypes == [pl.Int64, pl.Boolean, pl.Int64, pl.Float64, pl.String, pl.Datetime("us")]
        assert frame.to_dict(as_series=False) == pq.read_table(odd).to_pydict()

    def test_duckdb(self, odd: Path) -> None:
        with duckdb.connect() as connection:
            found = connection.execute("SELECT * FROM read_parquet($1)", [str(odd)])
            kinds = ["BIGINT", "BOOLEAN", "BIGINT", "DOUBLE", "VARCHAR", "TIMESTAMP"]
            assert [str(kind) for _, kind, *_ in found.description] == kinds
            assert found.fetchall() == [tuple(row.values()) for row in pq.read_table(odd).to_pylist()]


def as_text(value: object) -> str:
    """A cell as text files have it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value)
