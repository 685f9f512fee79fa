"""Schemas and tables in a few words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from synth.schema import Schema, parse_schema

# Time is the machine's, not the code's: a slow minute must not fail a property.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

COLUMNS: dict[str, dict[str, Any]] = {
    "age": {"kind": "integer", "bounds": [0, 99]},
    "income": {"kind": "continuous", "bounds": [0, 5000], "decimals": 1, "nullable": True},
    "weight": {"kind": "continuous", "bounds": [2.5, 250]},
    "sex": {"kind": "categorical", "categories": ["female", "male"]},
    "city": {"kind": "categorical", "categories": ["Rome", "Oslo", "other"], "nullable": True},
    "stage": {"kind": "categorical", "categories": [1, 2, 3]},
    "dose": {"kind": "categorical", "categories": [0.5, 1, 2]},
    "died": {"kind": "boolean"},
    "smoker": {"kind": "boolean", "nullable": True},
    "admitted": {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"], "resolution": "day"},
    "seen": {"kind": "datetime", "bounds": ["2020-01-01", "2020-12-31 23:59:59"], "nullable": True},
    "number": {"kind": "id"},
}
"""One column of every kind, by name; a test changes what it is about."""


@pytest.fixture(scope="session")
def schema_of() -> Callable[..., Schema]:
    """`schema_of("age", "died", target="died", age={"bounds": [0, 9]})`: a schema of known or new columns."""

    def build(*names: str, target: str | None = None, row_count: Any = "private", **changes: dict[str, Any]) -> Schema:
        columns = [{"name": n, **COLUMNS.get(n, {}), **changes.pop(n, {})} for n in names]
        assert not changes, f"changes to columns that are not there: {list(changes)}"
        raw = {"dataset": "toy", "row_count": row_count, "target": target, "columns": columns}
        return parse_schema(raw, file="schema.yaml")

    return build


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """`write("run.yaml", text)`: a file in the test's own folder."""

    def place(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return place
