"""Rules between columns: what the steward declares that no row can break, as public knowledge.

    discharged >= admitted                         two numbers or two dates, by >=, >, <= or <
    not (sex = male and pregnant = true)           never together; each part as on the command line (`comparison.py`)
    {determines: [state, country], map: {…}}       every level of the first column has one value of the second
    total = a + b - c                              numbers that add up (`sums.py`)

A rule holds where a value it is about is missing; a part of `not (…)` says `COLUMN =` where it means missing.
Drawn rows meet every rule (`ruled.py`). What is measured is not filtered: a rule is about the output alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.schema import (
    RESOLUTION_SECONDS,
    AnyColumn,
    ContinuousColumn,
    DatetimeColumn,
    Determined,
    EstimableColumn,
    IntegerColumn,
    Schema,
)
from synth.tables.codec import Codec, LevelCodec, OrderedCodec, codec_of, codecs_of
from synth.tables.comparison import Comparison, parse_comparison, split_name, value_of
from synth.tables.conditions import domain_of, region_of, whole_domain
from synth.tables.pieces import FloatArray, Region
from synth.tables.sums import Sum, circle_of, sum_of
from synth.yaml_file import nearest

BoolArray = npt.NDArray[np.bool_]

_NEVER = re.compile(r"not\s*\((.*)\)\s*", re.DOTALL)
_ORDERS = ("<=", "<", ">=", ">")
_WORDS = re.compile(r'"(?:[^"]|"")*"|\band\b', re.IGNORECASE)


@dataclass(frozen=True)
class Order:
    """`lower` is at most `upper` (below it, if `strict`)."""

    text: str
    lower: str
    upper: str
    strict: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is about."""
        return self.lower, self.upper

    def holds(self, codecs: Mapping[str, Codec], values: Mapping[str, pa.Array]) -> BoolArray:
        """Which rows meet it; `values` has the columns in their output types."""
        low, high = _numbers(values[self.lower]), _numbers(values[self.upper])
        meets = low < high if self.strict else low <= high
        return np.asarray(meets | _null(values[self.lower]) | _null(values[self.upper]))


@dataclass(frozen=True)
class Never:
    """What never comes together: not every column's value lies in its part of the domain."""

    text: str
    parts: tuple[tuple[str, Region], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is about."""
        return tuple(name for name, _ in self.parts)

    def holds(self, codecs: Mapping[str, Codec], values: Mapping[str, pa.Array]) -> BoolArray:
        """Which rows meet it; `values` has the columns in their output types."""
        met = [lies_in(region, codecs[name].positions(values[name])[0]) for name, region in self.parts]
        return np.asarray(~np.all(met, axis=0))


@dataclass(frozen=True)
class Function:
    """Each level of `source` has one value of `result`; missing has missing.

    Attributes:
        position: position of the result by level of the source.
    """

    text: str
    source: str
    result: str
    position: FloatArray

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is about."""
        return self.source, self.result

    def of(self, levels: FloatArray) -> FloatArray:
        """Position of the result for levels of the source, NaN for missing."""
        known = ~np.isnan(levels)
        return np.where(known, self.position[np.where(known, levels, 0).astype(np.int64)], np.nan)

    def holds(self, codecs: Mapping[str, Codec], values: Mapping[str, pa.Array]) -> BoolArray:
        """Which rows meet it; `values` has the columns in their output types."""
        expected = self.of(codecs[self.source].positions(values[self.source])[0])
        missing = _null(values[self.source]) | _null(values[self.result])
        return np.asarray(missing | (codecs[self.result].positions(values[self.result])[0] == expected))


Rule = Order | Never | Function | Sum


def rules_of(schema: Schema) -> tuple[Rule, ...]:
    """The declared rules of a schema that has none of `problems_of_rules`."""
    codecs = codecs_of(schema)
    rules = (_rule(declared, schema, codecs) for declared in schema.rules)
    return tuple(rule for rule in rules if rule is not None)


def met_by(
    rules: Sequence[Rule], codecs: Mapping[str, Codec], values: Callable[[str], pa.Array], rows: int
) -> BoolArray:
    """Which of the rows meet all rules; `values` gives a column in its output type."""
    good = np.ones(rows, dtype=bool)
    for rule in rules:
        good &= rule.holds(codecs, {name: values(name) for name in rule.columns})
    return good


def problems_of_rules(schema: Schema) -> list[str]:
    """What is wrong with the declared rules, one phrase a problem."""
    rules: list[Rule] = []
    codecs, problems = codecs_of(schema), []
    for declared in schema.rules:
        try:
            if (rule := _rule(declared, schema, codecs)) is not None:
                rules.append(rule)
        except ValueError as error:
            problems.append(f"rule {text_of(declared)}: {error}")
    return problems + _problems_between(rules, codecs)


def parts_of(rules: Sequence[Rule]) -> list[tuple[Rule, ...]]:
    """Rules in groups that have no column in common with each other."""
    parts: list[tuple[Rule, ...]] = []
    for rule in rules:
        near = [part for part in parts if any(set(rule.columns) & set(other.columns) for other in part)]
        parts = [part for part in parts if part not in near] + [(*(other for part in near for other in part), rule)]
    return parts


def text_of(declared: str | Determined) -> str:
    """A declared rule in one line."""
    return declared if isinstance(declared, str) else " -> ".join(declared.determines)


def lies_in(region: Region, positions: FloatArray) -> BoolArray:
    """Which positions lie in a region; NaN is missing."""
    inside = np.isnan(positions) & region.missing
    for low, high in region.intervals:
        inside |= (positions >= low) & (positions <= high)
    return inside


def line_of(codec: Codec, positions: FloatArray) -> FloatArray:
    """Where positions lie on the line that columns of one kind share: numbers as they are, moments in seconds."""
    column = codec.column
    if isinstance(column, DatetimeColumn):
        return positions * RESOLUTION_SECONDS[column.resolution]
    if isinstance(column, ContinuousColumn) and column.decimals is not None:
        return np.asarray(np.round(positions / 10**column.decimals, column.decimals))
    return positions


def last_at(codec: Codec, points: FloatArray) -> FloatArray:
    """The last position of a column at or below each point of the line."""
    column, scale = codec.column, 1.0
    if isinstance(codec, OrderedCodec) and not codec.lattice.whole:
        return points
    if isinstance(column, DatetimeColumn):
        scale = 1 / RESOLUTION_SECONDS[column.resolution]
    elif isinstance(column, ContinuousColumn):
        scale = 10.0 ** (column.decimals or 0)
    found = np.floor(points * scale)
    # The product is inexact in its last digits.
    found += line_of(codec, found + 1) <= points
    return np.asarray(found - (line_of(codec, found) > points))


def _rule(declared: str | Determined, schema: Schema, codecs: Mapping[str, Codec]) -> Rule | None:
    """A declared rule; None for one that estimated bounds have left nothing to rule out."""
    if isinstance(declared, Determined):
        return _function(declared, schema, codecs)
    text = " ".join(declared.split())
    never = _NEVER.fullmatch(declared.strip())
    if never:
        return _never(text, never.group(1), codecs, schema)
    return sum_of(text, lambda name: _named(name, schema), codecs) or _order(text, schema)


def _order(text: str, schema: Schema) -> Order:
    left, rest = split_name(text)
    operator = next((each for each in _ORDERS if rest.startswith(each)), "")
    if "->" in text:
        raise ValueError("write {determines: [COLUMN, COLUMN], map: {VALUE: VALUE, …}}")
    if not left or not operator:
        raise ValueError(
            "write COLUMN >= COLUMN (or >, <=, <), TOTAL = COLUMN + COLUMN, or not (COLUMN = VALUE and COLUMN = VALUE)"
        )
    right = value_of(rest[len(operator) :]) or ""
    if right not in [column.name for column in schema.columns] and re.fullmatch(r"[-+.\d][-+.:\dTeE ]*", right):
        raise ValueError("compares a column with a value; a limit of one column is its `bounds`")
    one, two = _named(left, schema), _named(right, schema)
    if one.name == two.name:
        raise ValueError("compares a column with itself")
    for column in (one, two):
        if not isinstance(column, (IntegerColumn, ContinuousColumn, DatetimeColumn)):
            raise ValueError(f"{column.name} is {column.kind}; only numbers and dates are compared")
    if isinstance(one, DatetimeColumn) != isinstance(two, DatetimeColumn):
        raise ValueError("compares a date with a number")
    lower, upper = (left, right) if operator[0] == "<" else (right, left)
    return Order(text, lower, upper, len(operator) == 1)


def _never(text: str, body: str, codecs: Mapping[str, Codec], schema: Schema) -> Never | None:
    comparisons = []
    for part in _split_and(body):
        try:
            comparisons.append((part, parse_comparison(part)))
        except ValueError as error:
            raise ValueError(f"part {part.strip()!r}: {error}; a value that holds `and` is in double quotes") from None
    regions: dict[str, Region] = {}
    for part, comparison in comparisons:
        name = _named(comparison.column, schema).name
        region = _met(codecs[name], comparison)
        region = regions[name].and_(region) if name in regions else region
        if region.empty and _found(codecs[name].column):
            return None
        if region.empty:
            domain = domain_of(codecs[name].column)
            raise ValueError(f"nothing declared for {name} ({domain}) is like {part.strip()!r}")
        regions[name] = region
    if len(regions) < 2:
        raise ValueError("is about one column; narrow that column's bounds or categories instead")
    return Never(text, tuple(regions.items()))


def _met(codec: Codec, comparison: Comparison) -> Region:
    """As for conditions, but missing meets a part only when that names it.

    A rule is written before bounds are estimated, so it may name values that turn out to lie outside of them.
    """
    if _found(codec.column):
        region = region_of(codec_of(codec.column.unbounded), comparison).and_(whole_domain(codec, missing=True))
    else:
        region = region_of(codec, comparison)
    return replace(region, missing=comparison.operator == "=" and None in comparison.values)


def _found(column: AnyColumn) -> TypeGuard[EstimableColumn]:
    """Whether a column has bounds that were not there when its rules were written."""
    return isinstance(column, EstimableColumn) and column.bounds_are in {"estimated", "assumed"}


def _split_and(body: str) -> list[str]:
    """Parts between the word `and`, where that stands outside quotes."""
    parts, start = [], 0
    for word in _WORDS.finditer(body):
        if not word.group().startswith('"'):
            parts.append(body[start : word.start()])
            start = word.end()
    return [*parts, body[start:]]


def _function(declared: Determined, schema: Schema, codecs: Mapping[str, Codec]) -> Function:
    source, result = (_named(name, schema) for name in declared.determines)
    if source.name == result.name:
        raise ValueError("determines a column from itself")
    own, other = codecs[source.name], codecs[result.name]
    if not isinstance(own, LevelCodec):
        raise ValueError(f"{source.name} is {source.kind}; only categorical and boolean columns determine others")
    if isinstance(result, EstimableColumn) and result.bounds_are == "to estimate":
        raise ValueError(f"its map names values of {result.name}, whose bounds are estimated; declare them")
    if result.name == schema.target:
        raise ValueError(f"{result.name} is the target, which no other column determines; turn the rule round")
    if source.nullable and not result.nullable:
        raise ValueError(f"{source.name} can be missing, and then {result.name} is: it needs `nullable: true` too")
    position = np.full(len(own.levels), np.nan)
    levels = _positions(own, list(declared.map)).astype(np.int64)
    twice = np.nonzero(np.bincount(levels, minlength=len(position)) > 1)[0]
    if len(twice):
        raise ValueError(f"map names {own.levels[twice[0]]} of {source.name} twice")
    position[levels] = _positions(other, list(declared.map.values()))
    absent = [str(own.levels[i]) for i in np.nonzero(np.isnan(position))[0]]
    if absent:
        raise ValueError(f"map has no value for {', '.join(absent[:8])} of {source.name}")
    return Function(text_of(declared), source.name, result.name, position)


def _positions(codec: Codec, values: Sequence[object]) -> FloatArray:
    """Positions of values of the declared domain."""
    array = pa.array([str(value) for value in values])
    positions, inside = codec.positions(array)[0], codec.valid(array)
    if not inside.all() or np.isnan(positions).any():
        first = values[int(np.nonzero(~inside | np.isnan(positions))[0][0])]
        raise ValueError(
            f"map: {first} is outside the declared domain of {codec.column.name} ({domain_of(codec.column)})"
        )
    return positions


def _named(name: str, schema: Schema) -> AnyColumn:
    known = [column.name for column in schema.learned_columns]
    if name in known:
        return schema.column(name)
    if name in [column.name for column in schema.columns]:
        raise ValueError(f"{name} is an id, which is never learned")
    raise ValueError(f"{name or 'a name'} is not a declared column{nearest(name, known)}")


def _problems_between(rules: Sequence[Rule], codecs: Mapping[str, Codec]) -> list[str]:
    """Rules that nothing can meet, as far as the schema alone tells."""
    problems = [
        f"rule {rule.text}: rules out every row"
        for rule in rules
        if isinstance(rule, Never) and all(_covers(codecs[name], region) for name, region in rule.parts)
    ]
    results = [rule.result for rule in rules if isinstance(rule, Function)]
    problems += [f"rules: {n} is determined twice" for n in sorted({n for n in results if results.count(n) > 1})]
    source = {rule.result: rule.source for rule in rules if isinstance(rule, Function)}
    for name in source:
        above = [name]
        while above[-1] in source and len(above) <= len(source):
            above.append(source[above[-1]])
        if above[-1] in source:
            return [*problems, f"rules: {', '.join(source)} determine each other; give one of them up"]
    sums = [rule for rule in rules if isinstance(rule, Sum)]
    problems += [
        f"rule {rule.text}: {name} is determined by {source[name]}, and a sum cannot change it; leave the sum out"
        for rule in sums
        for name in rule.columns
        if name in source
    ]
    if circle := circle_of(sums):
        return [*problems, f"rules: {', '.join(circle)} share two columns or go round in a circle; leave one out"]
    orders = [rule for rule in rules if isinstance(rule, Order)]
    if circle := _circle(orders):
        return [*problems, f"rules: {', '.join(circle)} go round in a circle; leave one out"]
    low = {n: _ends(codecs[n])[0] for rule in orders for n in rule.columns}
    high = {n: _ends(codecs[n])[1] for n in low}
    for _ in orders:  # the longest chain is no longer
        for rule in orders:
            low[rule.upper] = max(low[rule.upper], low[rule.lower])
            high[rule.lower] = min(high[rule.lower], high[rule.upper])
    problems += [
        f"rule {rule.text}: the declared bounds leave nothing that meets it"
        for rule in orders
        if low[rule.lower] > high[rule.upper] or (rule.strict and low[rule.lower] == high[rule.upper])
    ]
    return problems


def _ends(codec: Codec) -> tuple[float, float]:
    assert isinstance(codec, OrderedCodec)
    low, high = line_of(codec, np.array([codec.lattice.low, codec.lattice.high]))
    return float(low), float(high)


def _covers(codec: Codec, region: Region) -> bool:
    """Whether a region is all of a column's domain."""
    if codec.missing is not None and not region.missing:
        return False
    ((start, end),) = whole_domain(codec, missing=False).intervals
    step = float(isinstance(codec, LevelCodec) or codec.lattice.whole)
    covered = start - step
    for low, high in region.intervals:
        if low > covered + step:
            return False
        covered = high
    return bool(covered >= end)


def _circle(orders: Sequence[Order]) -> list[str]:
    """Orders that lead from a column back to itself, if any do."""
    left = list(orders)
    while True:
        lower, upper = {o.lower for o in left}, {o.upper for o in left}
        on = [o for o in left if o.lower in upper and o.upper in lower]
        if len(on) == len(left):
            return [o.text for o in on]
        left = on


def _numbers(array: pa.Array) -> npt.NDArray[np.int64] | FloatArray:
    """Numbers of a column in its output type, exact; moments as microseconds. What is null has any number."""
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    return np.asarray(array.fill_null(0).to_numpy(zero_copy_only=False))


def _null(array: pa.Array) -> BoolArray:
    return np.asarray(array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False))
