"""The rows of a bundle in the hands of the analysts' libraries: the types of the schema, and the same values."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from frictionless import Resource, Schema

COLUMNS = ["patient_nbr", "age", "bmi", "sex", "ward", "grade", "admitted", "died"]


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


def as_text(value: object) -> str:
    """A cell as text files have it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value)
