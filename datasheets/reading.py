"""Reading public facts so that every number in a text can be traced back to the fact it came from."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from synth.facts import ImageModelFacts, PublicFacts

SHOWN_NAMES = 12


class Reading:
    """Hands out facts by path, such as `privacy.epsilon`, and remembers which were used.

    Texts are written through a reading rather than from the facts directly, so an answer's trace
    lists exactly the facts that its text depends on.
    """

    def __init__(self, facts: PublicFacts) -> None:
        self._facts = facts
        self._paths: dict[str, None] = {}

    def __call__(self, path: str) -> Any:
        """The fact at a dotted path. Raises AttributeError when there is no such fact."""
        self._paths[path] = None
        return resolve(self._facts, path)

    @property
    def of_images(self) -> bool:
        """Whether the run was on images; leaves no trace, since it chooses between texts and is in none."""
        return isinstance(self._facts.model, ImageModelFacts)

    @property
    def trace(self) -> tuple[str, ...]:
        """The paths read so far, in order of first use."""
        return tuple(self._paths)


def resolve(facts: PublicFacts, path: str) -> Any:
    """The fact at a dotted path. Raises AttributeError when there is no such fact."""
    value: Any = facts
    for name in path.split("."):
        value = getattr(value, name)
    return value


@dataclass(frozen=True)
class Automatic:
    """How one question is answered from the facts, for one of its subjects."""

    question: str
    about: Literal["source", "synthetic"]
    write: Callable[[Reading], str]


def number(value: float) -> str:
    """A number for reading: thousands separated, at most six significant digits after rounding."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.6g}"


def exact(value: float) -> str:
    """A number with nothing rounded away, for ε and δ, where rounding could promise too much."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    mantissa, mark, exponent = repr(float(value)).partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa


def plain(value: Any) -> str:
    """A declared value (bound, category, label) as text."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def listed(names: Sequence[str]) -> str:
    """Names joined for a sentence; a long list is cut short and points to the data dictionary."""
    if not names:
        return "none"
    shown = ", ".join(names[:SHOWN_NAMES])
    rest = len(names) - SHOWN_NAMES
    return f"{shown} and {rest} more (see dictionary.md)" if rest > 0 else shown


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 row`, `2 rows`; `several` is the word where it is not the noun with an s."""
    return f"{number(count)} {noun if count == 1 else several or f'{noun}s'}"


def column_names(columns: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """Names of the columns of one kind, in order."""
    return [str(column["name"]) for column in columns if column["kind"] == kind]
