"""Codes for missing values: null wherever one stands, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidConfig
from synth.ingest import read_batches
from synth.missing_codes import without_codes
from synth.schema import Schema, parse_schema
from synth.tables.codec import codecs_of


def schema_of(*columns: dict[str, Any]) -> Schema:
    return parse_schema({"dataset": "t", "privacy_unit": "row", "columns": list(columns)}, file="t")


COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "age", "kind": "integer", "bounds": [0, 110], "nullable": True, "missing_codes": [99, "N"]},
    {"name": "race", "kind": "categorical", "categories": ["a", "b"], "nullable": True, "missing_codes": ["?"]},
    {"name": "code", "kind": "categorical", "categories": ["01"], "nullable": True, "missing_codes": ["1"]},
)


@pytest.mark.parametrize(
    ("array", "codes", "left"),
    [
        (pa.array(["1", " N", "99.0", "9", None]), (99, "N"), ["1", None, None, "9", None]),
        (pa.array(["01", "1", "1.0"]), ("1",), ["01", None, "1.0"]),
        (pa.array(["nan", "inf"]), (1,), ["nan", "inf"]),
        (pa.array([99, 9, None]), (99, "N"), [None, 9, None]),
        (pa.array([99.0, 9.5]), (99, 9.5), [None, None]),
        (pa.array(["?", "a"]).dictionary_encode(), ("?",), [None, "a"]),
        (pa.array([], pa.string()), ("?",), []),
        (pa.array([True]), (1,), [True]),
    ],
)
def test_codes_become_null(array: pa.Array, codes: tuple[Any, ...], left: list[Any]) -> None:
    assert without_codes(array, codes).to_pylist() == left


@given(
    st.lists(st.none() | st.sampled_from(["9", "9.0", "09", "x", " x", "nan", ""])),
    st.lists(st.sampled_from([9, 9.5, "9", "x", ""])),
)
def test_text_is_judged_cell_by_cell(cells: list[str | None], codes: list[Any]) -> None:
    def stands(cell: str) -> bool:
        number = float(cell) if cell.strip() not in {"x", ""} else None
        return any(cell.strip() == code if isinstance(code, str) else number == code for code in codes)

    expected = [None if cell is None or stands(cell) else cell for cell in cells]
    assert without_codes(pa.array(cells, pa.string()), codes).to_pylist() == expected


def test_a_source_is_read_without_them(tmp_path: Path) -> None:
    """They are missing, and not values outside the domain."""
    (tmp_path / "t.csv").write_text("age,race,code\n99,?,1\n30,a,01\nN,c,01\n140,b,2\n")
    schema = schema_of(*COLUMNS)
    (batch,) = read_batches(tmp_path / "t.csv", schema)
    assert batch.to_pydict() == {
        "age": [None, "30", None, "140"],
        "race": [None, "a", "c", "b"],
        "code": [None, "01", "01", "2"],
    }
    rng = np.random.default_rng(0)
    outside = {name: codec.encode(batch.column(name), rng).outside for name, codec in codecs_of(schema).items()}
    assert outside == {"age": 1, "race": 1, "code": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nullable": False}, "`missing_codes` needs `nullable: true`"),
        ({"missing_codes": ["a"]}, "`missing_codes` holds one of the categories"),
        ({"kind": "id", "categories": None}, "an id never is"),
    ],
)
def test_what_cannot_be_a_code_is_refused(change: dict[str, Any], told: str) -> None:
    column = {key: value for key, value in {**COLUMNS[1], **change}.items() if value is not None}
    with pytest.raises(InvalidConfig, match=told):
        schema_of(COLUMNS[0], column)
