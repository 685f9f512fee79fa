"""Sums: a rule that one column is made of others, `total = a + b - c`, as it is written and where it holds.

In units of the finest resolution of its columns every position is a whole number, so a sum is exact: the signed units
of all its columns, the total's with a minus, add up to zero. Where a value is missing the rule binds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.schema import LARGEST_WHOLE, AnyColumn, ContinuousColumn, IntegerColumn
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.comparison import split_name, value_of
from synth.tables.pieces import FloatArray

BoolArray = npt.NDArray[np.bool_]

_TERM = re.compile(r'\s*([+-])?\s*("(?:[^"]|"")*"|[^\s+\-"][^+\-"]*)')
_NUMBER = re.compile(r"\d[\d.eE]*")


@dataclass(frozen=True)
class Sum:
    """The total is the sum of the others wherever none of them is missing.

    Attributes:
        columns: the parts in their order, then the total.
        units: signed units that a step of each column's position is worth; the total's is negative.
    """

    text: str
    columns: tuple[str, ...]
    units: tuple[float, ...]

    @property
    def total(self) -> str:
        """The column that the others add up to."""
        return self.columns[-1]

    def excess(self, positions: Mapping[str, FloatArray]) -> FloatArray:
        """By how many units the parts exceed the total, NaN where one is missing [rows]."""
        return np.asarray(sum(unit * positions[name] for name, unit in zip(self.columns, self.units, strict=True)))

    def holds(self, codecs: Mapping[str, Codec], values: Mapping[str, pa.Array]) -> BoolArray:
        """Which rows meet it; `values` has the columns in their output types."""
        excess = self.excess({name: codecs[name].positions(values[name])[0] for name in self.columns})
        return np.asarray(np.isnan(excess) | (excess == 0))


def sum_of(text: str, named: Callable[[str], AnyColumn], codecs: Mapping[str, Codec]) -> Sum | None:
    """The sum that a rule declares; None where it declares none. Raises ValueError saying what is wrong.

    Args:
        text: the rule.
        named: the learned column of a name; raises ValueError where there is none.
        codecs: codecs of the learned columns.
    """
    left, rest = split_name(text)
    terms = _terms(rest[1:]) if left and rest.startswith("=") else []
    if len(terms) < 2:
        return None
    names = [*(name for _, name in terms), left]
    dashed = any(set("+-") & set(name) for name in codecs)
    columns = [_added(named, name, dashed=dashed) for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names {twice[0]} twice; a column is in a sum once")
    decimals = [column.decimals or 0 if isinstance(column, ContinuousColumn) else 0 for column in columns]
    finest = max(decimals)
    if decimals[-1] < finest:
        raise ValueError(f"{left} has {decimals[-1]} decimals and one of its parts has {finest}; declare as many")
    signs = [*(-1.0 if sign == "-" else 1.0 for sign, _ in terms), -1.0]
    units = tuple(sign * 10.0 ** (finest - own) for sign, own in zip(signs, decimals, strict=True))
    ends = [_reach(codecs[name], unit) for name, unit in zip(names, units, strict=True)]
    if sum(max(abs(low), abs(high)) for low, high in ends) >= LARGEST_WHOLE:
        raise ValueError("the bounds and decimals need more than 15 digits: declare fewer decimals or narrower bounds")
    if sum(low for low, _ in ends) > 0 or sum(high for _, high in ends) < 0:
        raise ValueError("the declared bounds leave nothing that meets it")
    return Sum(text, tuple(names), units)


def summed(rules: Iterable[object]) -> set[str]:
    """The columns that sums are about."""
    return {name for rule in rules if isinstance(rule, Sum) for name in rule.columns}


def circle_of(rules: Sequence[Sum]) -> list[str]:
    """Sums of which one joins columns that others join already: they cannot be brought in one after the other."""
    part: dict[str, set[str]] = {}
    for rule in rules:
        parts = [part.get(name, {name}) for name in rule.columns]
        whole = set().union(*parts)
        if len(whole) < sum(map(len, parts)):
            return [each.text for each in rules if whole & set(each.columns)]
        part |= dict.fromkeys(whole, whole)
    return []


def _terms(text: str) -> list[tuple[str, str]]:
    """Sign and name of each term."""
    terms: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TERM.match(text, at)
        if not found or (terms and not found.group(1)):
            raise ValueError("write TOTAL = COLUMN + COLUMN - COLUMN")
        terms.append((found.group(1) or "+", value_of(found.group(2)) or ""))
        at = found.end()
    return terms


def _added(named: Callable[[str], AnyColumn], name: str, *, dashed: bool) -> AnyColumn:
    """The column of a name; `dashed` says whether any name holds + or -."""
    try:
        column = named(name)
    except ValueError as error:
        hint = "; a name that holds + or - is in double quotes" if dashed else ""
        raise ValueError(f"{error}{'; only columns are added' if _NUMBER.fullmatch(name) else hint}") from None
    if not isinstance(column, (IntegerColumn, ContinuousColumn)):
        raise ValueError(f"{name} is {column.kind}; only numbers are added")
    if column.bounds_are == "to estimate":
        raise ValueError(f"{name} has `bounds: estimate`, and what adds up depends on them; declare its bounds")
    if isinstance(column, ContinuousColumn) and column.decimals is None:
        raise ValueError(f"{name} has no `decimals`; declare them, so that the sum can be exact")
    return column


def _reach(codec: Codec, unit: float) -> tuple[float, float]:
    """Least and most signed units within a column's bounds."""
    assert isinstance(codec, OrderedCodec)
    one, two = unit * codec.lattice.low, unit * codec.lattice.high
    return min(one, two), max(one, two)
