"""tableschema.json: the columns in the form of Frictionless' Table Schema, so that any tool of it can check a copy.

Source: Table Schema 2.0, https://datapackage.org/standard/table-schema/. Tools of version 1 read it as well.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from datasheets.dictionary import ColumnEntry, data_dictionary
from datasheets.reading import plain
from synth.facts import PublicFacts

PROFILE = "https://datapackage.org/profiles/2.0/tableschema.json"
FIELD_TYPES = {
    "int64": "integer",
    "float64": "number",
    "bool": "boolean",
    "timestamp[us]": "datetime",
    "string": "string",
    "struct<bytes: binary, path: string>": "any",
}


def table_schema(facts: PublicFacts) -> dict[str, Any]:
    """The public schema as a Table Schema: type, bounds, levels, whether a cell may be missing."""
    columns = [dict(column) for column in facts.data.columns]
    # An empty cell of a text file is a missing one, unless a column has the empty text among its levels.
    empty_is_a_level = any("" in (column.get("categories") or ()) for column in columns)
    return {
        "$schema": PROFILE,
        "fields": [_field(column, entry) for column, entry in zip(columns, data_dictionary(facts), strict=True)],
        "missingValues": [] if empty_is_a_level else [""],
    }


def _field(column: Mapping[str, Any], entry: ColumnEntry) -> dict[str, Any]:
    kind = FIELD_TYPES[entry.output_type]
    field: dict[str, Any] = {"name": entry.name, "type": kind}
    if entry.description:
        field["description"] = entry.description
    if entry.unit:
        field["unit"] = entry.unit
    if labels := _labels(column, kind):
        field["categories"] = labels
    return field | {"constraints": _constraints(column, kind, required=not entry.nullable)}


def _constraints(column: Mapping[str, Any], kind: str, *, required: bool) -> dict[str, Any]:
    constraints: dict[str, Any] = {"required": required}
    if column["kind"] == "id":
        constraints["unique"] = True
    bounds = column.get("bounds")
    if isinstance(bounds, (list, tuple)):
        low, high = (_moment(bound) if kind == "datetime" else bound for bound in bounds)
        constraints |= {"minimum": low, "maximum": high}
    if levels := column.get("categories"):
        constraints["enum"] = [_level(level, kind) for level in levels]
    return constraints


def _labels(column: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Levels with their labels, for the two types that Table Schema allows it for, and if each has one."""
    labels = {plain(value): str(label) for value, label in (column.get("labels") or {}).items()}
    levels = [_level(level, kind) for level in column.get("categories") or ()]
    if kind not in {"string", "integer"} or not levels or any(plain(level) not in labels for level in levels):
        return []
    return [{"value": level, "label": labels[plain(level)]} for level in levels]


def _level(level: Any, kind: str) -> Any:
    if kind == "integer":
        return int(level)
    return float(level) if kind == "number" else str(level)


def _moment(bound: Any) -> str:
    """A bound of dates as Table Schema writes it: YYYY-MM-DDThh:mm:ss."""
    moment = bound if isinstance(bound, datetime.datetime) else datetime.datetime.fromisoformat(str(bound))
    return moment.isoformat()
