"""A data dictionary, as people keep them: one line a column, or one a level, under headings of many names.

What it says is public knowledge that a person wrote; the data are not looked at. What cannot be understood is left
open and told, never guessed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synth.errors import InvalidConfig
from synth.ingest import separator_of

HEADINGS: dict[str, tuple[str, ...]] = {
    "name": (
        *("variable", "column", "field", "name", "variable name", "column name", "field name"),
        *("variable field name", "attribute", "item"),
    ),
    "kind": (
        *("text validation type or show slider number", "type", "kind", "data type", "datatype", "variable type"),
        *("column type", "field type", "format"),
    ),
    "description": (
        *("description", "label", "meaning", "variable label", "column label", "field label", "definition", "title"),
        *("column description", "variable description", "field description", "question"),
    ),
    "level label": (
        *("value label", "level label", "code label", "category label", "value description", "code description"),
        *("value meaning", "code meaning"),
    ),
    "low": ("min", "minimum", "lower", "lowest", "lower bound", "min value", "minimum value", "text validation min"),
    "high": ("max", "maximum", "upper", "highest", "upper bound", "max value", "maximum value", "text validation max"),
    "range": ("range", "bounds", "valid range", "allowed range", "value range", "limits"),
    "values": (
        *("values", "codes", "levels", "categories", "value", "code", "level", "allowed values", "permitted values"),
        *("valid values", "value labels", "choices", "options", "coding", "code list", "codelist"),
        "choices calculations or slider labels",
    ),
    "unit": ("unit", "units", "unit of measure", "unit of measurement"),
    "decimals": ("decimals", "decimal places"),
    "missing codes": ("missing codes", "missing code", "missing value codes", "na codes"),
    "nullable": (
        *("missing", "missing values", "nullable", "optional", "null allowed", "nulls allowed", "allow null"),
        "missing allowed",
    ),
    "role": ("role", "variable role"),
    "required": ("required", "mandatory", "not null", "required field"),
}
"""Headings by what they hold, in lower case and without signs; of several the first counts."""
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_MOMENT = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?)?"
_RANGE = re.compile(
    rf"[\[(]?\s*({_MOMENT}|{NUMBER})\s*(?:-|–|—|to|\.\.+|…|,|;|:)\s*({_MOMENT}|{NUMBER})\s*[\])]?(?:\s+[^\s\d]+)?"
)
_DASHED = re.compile(r"(\S+)\s+[-–—]\s+(.+)", re.DOTALL)
_SIGN = re.compile(r"[^\w\s]")
_COMMA = re.compile(r"^([-+]?\d+),(\d+)$")
TARGETS = {"target", "outcome", "response", "dependent"}
"""Roles of the column that the others are to tell."""
LONGEST_BARE = 4
"""Words of an entry between commas; a longer one is prose."""

Level = tuple[str, str]
"""A code as it is written, zeros in front and all, and what it means."""


@dataclass(frozen=True)
class Described:
    """What a dictionary says of one column. Texts are as they stand there; None and empty are "not said".

    Attributes:
        line: where, for messages.
        kinds: words for its role and its type, the most telling first.
        missing: codes for missing values.
        target: whether its role is that of the target.
        doubts: what could not be understood, in words.
    """

    name: str
    line: int
    kinds: tuple[str, ...] = ()
    description: str = ""
    unit: str = ""
    bounds: tuple[str, str] | None = None
    levels: tuple[Level, ...] = ()
    decimals: str = ""
    nullable: bool | None = None
    missing: tuple[str, ...] = ()
    target: bool = False
    doubts: tuple[str, ...] = ()


Row = Mapping[str, str]


def read_codebook(path: Path, *, columns: Sequence[str]) -> tuple[Described, ...]:
    """Read a dictionary: CSV with commas, semicolons or tabs, or Parquet. `columns` are the names of the file.

    Raises InvalidConfig when it is no table, no heading of it is one for names, or it describes a column twice.
    """
    lines = list(_lines(path))
    if not lines:
        raise InvalidConfig(str(path), ["is empty; write a line of headings (name, type, values) and one a column"])
    _, headings = lines[0]
    normal = [" ".join(re.findall(r"[^\W_]+", heading.casefold())) for heading in headings]
    name = _name_heading(path, normal, lines[1:], columns)
    found: dict[str, list[tuple[int, Row]]] = {}
    current = ""
    for number, cells in lines[1:]:
        if len(cells) > len(normal) and any(cells[len(normal) :]):
            raise InvalidConfig(
                str(path), [f"line {number}: has more cells than headings; quote cells that hold a comma"]
            )
        row = dict(reversed(list(zip(normal, cells, strict=False))))  # of equal headings the first
        if not any(row.values()):
            continue
        current = row.get(name, "") or current
        if not current:
            raise InvalidConfig(str(path), [f"line {number}: names no column under {name!r}; fill it in"])
        found.setdefault(current, []).append((number, row))
    return tuple(_described(path, column, rows, heading=name) for column, rows in found.items())


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and stripped cells, the headings first."""
    try:
        with path.open("rb") as stream:
            parquet = stream.read(4) == b"PAR1"
        if parquet:
            table = pq.read_table(path)
            yield 1, [str(name) for name in table.column_names]
            for i, row in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
                yield i + 2, ["" if cell is None else _stripped(str(cell)) for cell in row]
            return
        with path.open(encoding="utf-8-sig", newline="") as text:
            separator = separator_of(text)
            reader = csv.reader(text, delimiter=separator, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    stripped = [_stripped(cell) for cell in cells]
                    # Where semicolons stand between cells, a comma stands for the point.
                    yield reader.line_num, [_COMMA.sub(r"\1.\2", c) for c in stripped] if separator == ";" else stripped
    except FileNotFoundError:
        raise InvalidConfig(str(path), ["no such file; name the data dictionary"]) from None
    except OSError as error:
        raise InvalidConfig(str(path), [f"cannot be read ({error.strerror or 'damaged'})"]) from None
    except (UnicodeDecodeError, csv.Error, pa.ArrowException):
        raise InvalidConfig(
            str(path),
            ["is no table; save the data dictionary as CSV in UTF-8, with one line of headings, or as Parquet"],
        ) from None


def _stripped(cell: str) -> str:
    return cell.replace("\u2212", "-").strip()


def _name_heading(
    path: Path, headings: Sequence[str], lines: Sequence[tuple[int, list[str]]], columns: Sequence[str]
) -> str:
    """The heading under which most names of the file stand."""
    known = {column.casefold() for column in columns}

    def hits(heading: str) -> int:
        at = headings.index(heading)
        return sum(cells[at].casefold() in known for _, cells in lines if at < len(cells))

    there = [heading for heading in HEADINGS["name"] if heading in headings]
    if not there:
        raise InvalidConfig(
            str(path), ["no heading in its first line is one for names; call it name, variable, field or column"]
        )
    best = max(there, key=hits)
    if not hits(best):
        raise InvalidConfig(
            str(path), [f"describes no column of the file under {best!r}; is it that file's dictionary?"]
        )
    return best


def _described(path: Path, name: str, rows: Sequence[tuple[int, Row]], *, heading: str) -> Described:
    """What one column's lines say together. `heading` is that of the names, whatever else it could be."""

    def said(field: str, *, but: str = "") -> str:
        there = (row[h] for h in HEADINGS[field] if h not in {heading, but} for _, row in rows if row.get(h))
        return next(there, "")

    doubts, label = [], ""
    if len(rows) == 1:
        levels = levels_of(values) if (values := said("values")) else ()
    else:
        codes = [(number, row, _of(row, "values")) for number, row in rows]
        label = _label_heading(rows)
        levels = tuple(
            (code.strip(), (meaning or row.get(label, "")).strip())
            for _, row, cell in codes
            if cell
            for code, _, meaning in [cell.partition("=")]
        )
        twice = [number for number, _, cell in codes[1:] if not cell]
        if twice or len({code for code, _ in levels}) < len(levels):
            where = twice[0] if twice else rows[-1][0]
            raise InvalidConfig(
                str(path), [f"line {where}: {name} is described twice; keep one line a column, or a level"]
            )
        values = ""
    low, high = said("low"), said("high")
    bounds: tuple[str, str] | None = (low, high) if low and high else None
    if bounds is None and (text := said("range") or (values if levels is None else "")) and (span := range_of(text)):
        bounds, levels = span, levels or ()
    if (low or high or said("range")) and bounds is None:
        doubts.append("its range")
    if levels is None:
        doubts.append("its values")
    nullable = said("nullable")
    if (optional := _truth(nullable)) is None and (must := _truth(said("required"))) is not None:
        optional = not must
    # Under "missing" may stand codes (999 = unknown), and also how many were counted.
    told = said("missing codes") or (nullable if "=" in nullable or _SIGN.fullmatch(nullable) else "")
    missing = tuple(code for code, _ in _entries(told) or ())
    if bounds is not None:  # beside a range, N for "not applicable" is no number
        missing += tuple(code for code, _ in levels or () if not re.fullmatch(NUMBER, code))
    elif levels is not None and len(levels) == 1:
        levels = ()  # N again, and not a list of all there is
        doubts.append("its values")
    return Described(
        name=name,
        line=rows[0][0],
        kinds=tuple(
            word for h in (*HEADINGS["role"], *HEADINGS["kind"]) for _, row in rows[:1] if (word := row.get(h, ""))
        ),
        description=said("description", but=label),
        unit=said("unit"),
        bounds=bounds,
        levels=tuple(level for level in levels or () if level[0] not in missing),
        decimals=said("decimals"),
        nullable=True if missing else optional,
        missing=missing,
        target=said("role").casefold() in TARGETS,
        doubts=tuple(doubts),
    )


def _of(row: Row, field: str) -> str:
    return next((row[heading] for heading in HEADINGS[field] if row.get(heading)), "")


def _label_heading(rows: Sequence[tuple[int, Row]]) -> str:
    """The heading of what each level means: one for that, else one that says something else on each line."""
    for heading in (*HEADINGS["level label"], "label", "meaning", "description"):
        if len({row[heading] for _, row in rows if row.get(heading)}) > 1:
            return heading
    return ""


def _truth(text: str) -> bool | None:
    word = text.casefold()
    if word in {"yes", "y", "true", "x", "allowed"}:
        return True
    return False if word in {"no", "n", "false", "none", "never", "not allowed"} else None


def levels_of(text: str) -> tuple[Level, ...] | None:
    """Codes and their meanings from one cell; None where it is no list of at least two.

    >>> levels_of("1=female; 2=male")
    (('1', 'female'), ('2', 'male'))
    >>> levels_of("female|male")
    (('female', ''), ('male', ''))
    >>> levels_of("01 = admitted, from home, 02 = other")
    (('01', 'admitted, from home'), ('02', 'other'))
    """
    found = _entries(text)
    return found if found is not None and len(found) > 1 else None


def _entries(text: str) -> tuple[Level, ...] | None:
    text = text.strip()
    if text[:1] + text[-1:] in {"[]", "{}", "()"}:
        text = text[1:-1]
    separator = next((mark for mark in ("\n", ";", "|") if mark in text), ",")
    pieces = [piece.strip() for piece in text.split(separator) if piece.strip()]
    if separator == "," and any("=" in piece for piece in pieces):
        pieces = re.split(r",\s*(?=[^,=]*=)", text)  # a meaning may hold a comma
    split = [(_bare(code), _bare(meaning)) for code, meaning in _split(pieces, separator)]
    codes = [code for code, _ in split]
    prose = separator == "," and any(len(code.split()) > LONGEST_BARE for code in codes)
    mixed = any("=" in code for code in codes)
    if not split or prose or mixed or len(set(codes)) < len(codes) or {"", "…", "..."} & set(codes):
        return None
    return tuple(split)


def _split(pieces: Sequence[str], separator: str) -> list[Level]:
    marks = ["=", ":"] if separator == "," else ["=", ":", ","]  # 1, Female | 2, Male
    for mark in marks:
        if all(mark in piece for piece in pieces):
            return [(code, meaning) for code, _, meaning in (piece.partition(mark) for piece in pieces)]
    dashed = [_DASHED.fullmatch(piece) for piece in pieces]
    found = [(match[1], match[2]) for match in dashed if match]
    return found if len(found) == len(pieces) else [(piece, "") for piece in pieces]


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def range_of(text: str) -> tuple[str, str] | None:
    """Two numbers or two dates from one cell, as they are written; None where it is no range.

    >>> range_of("0-120"), range_of("[25.0, 45]"), range_of("2015-01-01 to 2025-12-31"), range_of("adults")
    (('0', '120'), ('25.0', '45'), ('2015-01-01', '2025-12-31'), None)
    """
    match = _RANGE.fullmatch(text.strip())
    return (match[1], match[2]) if match else None
