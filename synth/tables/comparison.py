"""Comparisons: conditions as they are written on the command line.

    COLUMN=VALUE   COLUMN!=VALUE   COLUMN>=VALUE   COLUMN>VALUE   COLUMN<=VALUE   COLUMN<VALUE
    COLUMN=VALUE|VALUE|…           COLUMN!=VALUE|VALUE|…

An empty VALUE means missing. A value or column name in double quotes stands for itself, whatever characters it holds;
a double quote within them is written twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPERATOR = re.compile(">=|<=|!=|>|<|=")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class Comparison:
    """A condition as it is written: a column, an operator and its values (None is missing)."""

    column: str
    operator: str
    values: tuple[str | None, ...]

    def __str__(self) -> str:
        values = "|".join("" if value is None else _written(value, "|") for value in self.values)
        return f"{_written(self.column, '=<>!')}{self.operator}{values}"


def parse_comparison(text: str) -> Comparison:
    """A condition from its text. Raises ValueError saying what to write."""
    name, rest = split_name(text)
    found = _OPERATOR.match(rest)
    if not name or not found:
        raise ValueError("write COLUMN=VALUE (or !=, >=, >, <=, <)")
    operator = found.group()
    values = tuple(value_of(part) for part in split_values(rest[found.end() :]))
    if operator in {"=", "!="}:
        return Comparison(name, operator, values)
    if len(values) > 1 or values[0] is None:
        raise ValueError(f"{operator} takes one value")
    return Comparison(name, operator, values)


def _written(word: str, special: str) -> str:
    """A word as `parse_comparison` reads it, in quotes where it needs them."""
    plain = word and word == word.strip() and not word.startswith('"') and not set(word) & set(special)
    return word if plain else '"' + word.replace('"', '""') + '"'


def split_name(text: str) -> tuple[str, str]:
    """The column's name, and the rest from the operator on."""
    text = text.strip()
    quoted = _QUOTED.match(text)
    if quoted:
        return quoted.group(1).replace('""', '"'), text[quoted.end() :].lstrip()
    found = _OPERATOR.search(text)
    at = found.start() if found else len(text)
    return text[:at].strip(), text[at:]


def split_values(text: str) -> list[str]:
    """Parts between `|` that are not in quotes; quotes open only at a part's start."""
    parts, at = [], 0
    while True:
        blank = len(text[at:]) - len(text[at:].lstrip())
        quoted = _QUOTED.match(text, at + blank)
        bar = text.find("|", quoted.end() if quoted else at)
        parts.append(text[at : bar if bar >= 0 else len(text)])
        if bar < 0:
            return parts
        at = bar + 1


def value_of(part: str) -> str | None:
    """One value: in quotes as it stands, else without the blanks around it; None when there is nothing."""
    part = part.strip()
    if not part.startswith('"'):
        return part or None
    quoted = _QUOTED.fullmatch(part)
    if not quoted:
        raise ValueError('a value that begins with a double quote is written in double quotes, as in "a|b" or "5"""')
    return quoted.group(1).replace('""', '"')
