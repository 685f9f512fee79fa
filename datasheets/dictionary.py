"""The data dictionary: what each column of the synthetic table holds, from the public schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from datasheets.reading import plain, plural
from synth.facts import PublicFacts

LEVELS_IN_TABLE = 12
OUTPUT_TYPES = {
    "integer": "int64",
    "continuous": "float64",
    "boolean": "bool",
    "datetime": "timestamp[us]",
    "categorical": "string",
    "id": "string",
    "image": "struct<bytes: binary, path: string>",
}
BOUNDS_ARE = {
    "estimated": " (estimated with noise)",
    "assumed": " (assumed: nothing stood out of the noise)",
}


class ColumnEntry(BaseModel):
    """One column, ready to be written down. `levels` pairs each listed value with its label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    output_type: str
    domain: str
    unit: str
    description: str
    nullable: bool
    target: bool
    levels: tuple[tuple[str, str], ...]

    @property
    def labelled(self) -> bool:
        """Whether any listed value has a label."""
        return any(label for _, label in self.levels)


def data_dictionary(facts: PublicFacts) -> tuple[ColumnEntry, ...]:
    """An entry for each column, in the order of the table."""
    return tuple(_entry(column, facts.data.target) for column in facts.data.columns)


def numeric_levels(column: Mapping[str, Any]) -> str | None:
    """`int64` or `float64` for a categorical column whose levels are all numbers, else None."""
    levels = column.get("categories") or ()
    if not levels or any(isinstance(level, (str, bool)) for level in levels):
        return None
    return "int64" if all(float(level).is_integer() for level in levels) else "float64"


def output_type(column: Mapping[str, Any]) -> str:
    """The type of the column in the Parquet files."""
    kind = str(column["kind"])
    if kind == "categorical":
        return numeric_levels(column) or OUTPUT_TYPES[kind]
    return OUTPUT_TYPES.get(kind, "string")


def _entry(column: Mapping[str, Any], target: str | None) -> ColumnEntry:
    labels = {plain(value): str(label) for value, label in (column.get("labels") or {}).items()}
    levels = [plain(level) for level in column.get("categories") or ()]
    listed = levels if len(levels) > LEVELS_IN_TABLE or labels else []
    extra = [value for value in labels if value not in levels]
    return ColumnEntry(
        name=str(column["name"]),
        kind=str(column["kind"]),
        output_type=output_type(column),
        domain=_domain(column, levels),
        unit=str(column.get("unit") or ""),
        description=str(column.get("description") or ""),
        nullable=bool(column.get("nullable")),
        target=column["name"] == target,
        levels=tuple((value, labels.get(value, "")) for value in [*listed, *extra]),
    )


def _hierarchy(declared: Mapping[str, Any]) -> str:
    """Which levels were learned together where they are rare."""
    if declared.get("groups"):
        return f", in groups: {', '.join(declared['groups'])}"
    lengths = [plain(length) for length in declared.get("prefix") or ()]
    return f", in groups by their first {' and '.join(lengths)} characters" if lengths else ""


def _domain(column: Mapping[str, Any], levels: list[str]) -> str:
    kind = column["kind"]
    if kind == "categorical":
        count = plural(len(levels), "level")
        listed = f"{count}: {', '.join(levels)}" if len(levels) <= LEVELS_IN_TABLE else f"{count}, listed below"
        return listed + _hierarchy(column.get("hierarchy") or {})
    if kind == "boolean":
        return "true, false"
    if kind == "image":
        low, high = column["value_range"]
        channels = plural(column["channels"], "channel")
        size = f"{column['height']} × {column['width']} pixels (height × width)"
        values = f"{channels}, {column['bits']} bits, values {low} to {high}"
        return f"PNG files in `bytes`, {size}, {values}; `path` is null"
    if kind == "id":
        return "fresh values; not from the source"
    bounds = column.get("bounds")
    if not isinstance(bounds, (list, tuple)):
        return "not declared"
    low, high = (plain(bound) for bound in bounds)
    if column.get("resolution") == "day":
        low, high = (moment.removesuffix("T00:00:00") for moment in (low, high))
    text = f"{low} to {high}"
    if column.get("decimals") is not None:
        text += f", {plural(column['decimals'], 'decimal')}"
    if column.get("resolution"):
        text += f", by {column['resolution']}"
    return text + BOUNDS_ARE.get(str(column.get("bounds_are")), "")
