"""One column of a draft, from what a data dictionary says of it and what kind the file's column is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from pipelines.codebook import NUMBER, Described
from synth.ingest import holds
from synth.schema import LARGEST_WHOLE, AnyColumn
from synth.yaml_file import problems_of

KINDS: dict[str, tuple[str, ...]] = {
    "integer": ("integer", "int", "whole", "whole number", "count", "bigint", "smallint", "int64", "int32", "long"),
    "continuous": ("continuous", "float", "double", "decimal", "real", "float64", "float32", "double precision"),
    "number": ("number", "numeric", "num", "quantitative", "number 1dp", "number 2dp"),
    "datetime": ("datetime", "date", "timestamp", "date ymd", "date dmy", "date mdy", "datetime ymd"),
    "categorical": ("categorical", "category", "nominal", "factor", "enum", "radio", "dropdown", "code", "coded"),
    "ordinal": ("ordinal", "ordered", "ordered factor"),
    "boolean": ("boolean", "bool", "logical", "yesno", "yes no", "truefalse", "binary", "flag"),
    "id": ("id", "identifier", "key", "primary key"),
}
"""Words for kinds. A number is whole or not as the file has it."""
_WORDS = {word: kind for kind, words in KINDS.items() for word in words}
_TRUTHS = {"0", "1", "true", "false", "yes", "no"}
_CODE = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
"""A code that is a number and loses nothing by it: 01 would lose its zero."""
_COLUMN: TypeAdapter[AnyColumn] = TypeAdapter(AnyColumn)


@dataclass(frozen=True)
class Drafted:
    """A column of the draft.

    Attributes:
        values: what schema.yaml says of it, without its domain where that is open.
        kind: as in `values`.
        whole: whether its domain is given by the dictionary.
        target: whether the dictionary calls it the target.
        problem: why something in the dictionary was left out, in words; empty without.
    """

    values: dict[str, Any] = field(default_factory=dict)
    kind: str = "categorical"
    whole: bool = False
    target: bool = False
    problem: str = ""


def drafted(said: Described, *, name: str, guess: str, physical: pa.DataType | None) -> Drafted:
    """A column from its description.

    Args:
        said: what the dictionary says.
        name: the column's name in the file.
        guess: the kind by the file's type, where the dictionary names none.
        physical: the type that the values really have; None for CSV, where all is text.
    """
    kind, ordered = _kind(said, guess)
    base: dict[str, Any] = {"name": name, "kind": kind}
    rest: dict[str, Any] = {"nullable": True if said.nullable is None else said.nullable}
    if said.missing and kind not in {"id", "boolean"}:
        rest["missing_codes"] = [_level(code, text=False) for code in said.missing]
    if text := _one_line(said.unit):
        rest["unit"] = text
    if text := _one_line(said.description):
        rest["description"] = text
    domain, problem = _domain(said, kind, physical)
    if ordered and domain:
        domain["ordered"] = True
    labels = (
        {"labels": domain.pop("labels")} if "labels" in domain else {}
    )  # last, where they push nothing out of sight
    doubts = ", ".join(said.doubts) if not domain else ""
    if doubts:
        problem = f"{doubts} cannot be read"
    if kind in {"boolean", "id"} or domain:
        try:
            column = _COLUMN.validate_python({**base, **domain, **rest, **labels})
            if physical is None or kind == "id" or holds(physical, column):
                return Drafted({**base, **domain, **rest, **labels}, kind, whole=True, target=said.target)
            problem = f"{kind} cannot be held by {physical}, the type in the file"
        except ValidationError as error:
            problem = problems_of(error)[0]
    if problem and kind != guess:
        base["kind"] = kind = guess
    return Drafted({**base, **rest}, kind, whole=False, target=said.target, problem=problem)


def _kind(said: Described, guess: str) -> tuple[str, bool]:
    """The kind, and whether levels stand in order."""
    words = [" ".join(re.findall(r"[a-z0-9]+", re.sub(r"\(.*", "", word.casefold()))) for word in said.kinds]
    kind = next((_WORDS[word] for word in words if word in _WORDS), "")
    if kind == "id":
        return kind, False
    if (
        said.levels
        and not said.bounds
        and not (kind == "boolean" and {c.casefold() for c, _ in said.levels} <= _TRUTHS)
    ):
        return "categorical", kind == "ordinal"
    if kind == "ordinal":
        kind = "categorical"
    elif kind == "number":
        kind = guess if guess in {"integer", "continuous"} else "continuous"
    kind = kind or guess
    if said.bounds and kind not in {"integer", "continuous", "datetime"}:
        kind = "continuous" if re.fullmatch(NUMBER, said.bounds[0]) else "datetime"
    return kind, False


def _domain(said: Described, kind: str, physical: pa.DataType | None) -> tuple[dict[str, Any], str]:
    """Bounds or categories with what belongs to them, or why there are none."""
    if kind == "categorical" and said.levels:
        return _categories(said, physical)
    if kind in {"boolean", "id"} or not said.bounds:
        return {}, ""
    domain: dict[str, Any]
    if kind == "datetime":
        first, last = (_moment(bound) for bound in said.bounds)
        if first is None or last is None:
            return {}, "its bounds are no dates such as 2024-12-31"
        resolution = "day" if max(len(first), len(last)) == len("2024-12-31") else "second"
        return {"bounds": [first, last], "resolution": resolution}, ""
    low, high = (_number(bound) for bound in said.bounds)
    if low is None or high is None:
        return {}, "its bounds are no numbers such as 12.5"
    domain = {"bounds": [low, high]}
    if kind == "continuous" and re.fullmatch(r"\d{1,2}(?:\.0)?", said.decimals):
        domain["decimals"] = int(float(said.decimals))
    labels = {_level(code, text=False): _one_line(meaning) for code, meaning in said.levels if _one_line(meaning)}
    return domain | ({"labels": labels} if labels else {}), ""


def _categories(said: Described, physical: pa.DataType | None) -> tuple[dict[str, Any], str]:
    if physical is not None and pa.types.is_dictionary(physical):
        physical = physical.value_type
    text = physical is not None and (pa.types.is_string(physical) or pa.types.is_large_string(physical))
    text = text or not all(_is_number(code) for code, _ in said.levels)
    if text and physical is not None and pa.types.is_boolean(physical):
        return {}, f"{physical}, the type in the file, holds none of its codes; `kind: boolean` has none"
    if text and physical is not None and (pa.types.is_integer(physical) or pa.types.is_floating(physical)):
        return {}, f"its codes are text (also a number with a zero in front) and the file holds {physical}"
    labels = {_level(code, text=text): _one_line(meaning) for code, meaning in said.levels if _one_line(meaning)}
    domain: dict[str, Any] = {"categories": [_level(code, text=text) for code, _ in said.levels]}
    return domain | ({"labels": labels} if labels else {}), ""


def _is_number(code: str) -> bool:
    return bool(_CODE.fullmatch(code)) and code != "-0" and abs(float(code)) < LARGEST_WHOLE


def _level(code: str, *, text: bool) -> int | float | str:
    if text or not _is_number(code):
        return code
    return int(float(code)) if float(code).is_integer() else float(code)


def _number(text: str) -> int | float | None:
    if not re.fullmatch(NUMBER, text):
        return None
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < LARGEST_WHOLE else value


def _moment(text: str) -> str | None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return text


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
