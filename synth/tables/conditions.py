"""Conditions: what the drawn rows shall be like, as parts of the columns' domains.

Several conditions on a column all hold (`comparison.py` says how they are written). A balance asks for shares of a
column's levels: COLUMN alone for equal shares, or COLUMN=VALUE:SHARE|VALUE:SHARE|….
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import UserError
from synth.schema import EPOCH, RESOLUTION_SECONDS, AnyColumn, CategoricalColumn, ContinuousColumn, DatetimeColumn
from synth.tables.codec import Codec, LevelCodec, OrderedCodec, codec_of
from synth.tables.comparison import Comparison, parse_comparison, split_name, split_values, value_of
from synth.tables.pieces import Region
from synth.yaml_file import nearest

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVELS_SHOWN = 8


@dataclass(frozen=True)
class Balance:
    """Asked shares of a column's cells: NaN where a cell takes its part of what the others leave."""

    column: str
    shares: FloatArray


def parse_conditions(codecs: Mapping[str, Codec], texts: Sequence[str]) -> dict[str, Region]:
    """The part of each named column's domain that meets all its conditions.

    Raises UserError for a condition that cannot be understood or that nothing meets.
    """
    regions: dict[str, Region] = {}
    for text in texts:
        try:
            comparison = parse_comparison(text)
            codec = _codec(codecs, comparison.column)
            region = region_of(codec, comparison)
        except ValueError as error:
            raise UserError(f"--where {text}: {error}") from None
        name = comparison.column
        if region.empty:
            raise UserError(f"--where {text}: nothing declared for {name} ({domain_of(codec.column)}) is like that")
        regions[name] = regions[name].and_(region) if name in regions else region
        if regions[name].empty:
            raise UserError(f"--where {text}: contradicts the other conditions on {name}; nothing meets them all")
    return regions


def region_of(codec: Codec, comparison: Comparison) -> Region:
    """The part of a column's domain that meets one condition. Raises ValueError saying what is wrong.

    `!=` leaves out the named values alone, so missing stays; a range never includes missing.
    """
    column, values = codec.column, comparison.values
    if None in values and codec.missing is None:
        raise ValueError(f"{column.name} is never missing (nullable: false)")
    if comparison.operator not in {"=", "!="}:
        assert values[0] is not None
        return _beyond(codec, comparison.operator, values[0])
    positions = np.unique([_position(codec, value) for value in values if value is not None])
    if comparison.operator == "=":
        return Region(np.stack([positions, positions], axis=1).reshape(-1, 2), None in values)
    lows = [domain_start(codec), *next_position(codec, positions, 1)]
    highs = [*next_position(codec, positions, -1), domain_end(codec)]
    others = [(low, high) for low, high in zip(lows, highs, strict=True) if low <= high]
    return Region(np.array(others).reshape(-1, 2), codec.missing is not None and None not in values)


def whole_domain(codec: Codec, *, missing: bool) -> Region:
    """All of a column's values, with or without missing."""
    return Region(np.array([[domain_start(codec), domain_end(codec)]]), missing)


def domain_start(codec: Codec) -> float:
    """The first position of a column."""
    return codec.lattice.low if isinstance(codec, OrderedCodec) else 0.0


def domain_end(codec: Codec) -> float:
    """The last position of a column."""
    return codec.lattice.high if isinstance(codec, OrderedCodec) else float(len(codec.levels) - 1)


def domain_of(column: AnyColumn) -> str:
    """A column's declared domain in a few words."""
    if column.kind == "categorical":
        shown = ", ".join(str(level) for level in column.categories[:LEVELS_SHOWN])
        return f"levels {shown}{', …' if len(column.categories) > LEVELS_SHOWN else ''}"
    if column.kind == "boolean":
        return "true or false"
    return f"from {column.bounds[0]} to {column.bounds[1]}" if column.kind != "id" else "no values"


def parse_balance(codecs: Mapping[str, Codec], text: str, conditions: Mapping[str, Region]) -> Balance:
    """Asked shares from COLUMN (equal shares) or COLUMN=VALUE:SHARE|… (the others keep their proportions).

    Raises UserError for what cannot be understood or contradicts the conditions.
    """
    try:
        name, rest = split_name(text)
        codec = _codec(codecs, name)
        if not isinstance(codec, LevelCodec):
            raise ValueError(f"{name} has no levels (it is {codec.column.kind}); name a categorical or boolean column")
        if rest and not rest.startswith("="):
            raise ValueError("write COLUMN or COLUMN=VALUE:SHARE|VALUE:SHARE")
        allowed = _allowed(codec, conditions.get(name))
        shares = _asked(codec, rest[1:]) if rest else np.where(allowed, 1 / allowed.sum(), 0.0)
        if (shares[~allowed] > 0).any():
            raise ValueError(f"asks for what --where leaves out of {name}")
        open_ = np.isnan(shares) & allowed
        total = float(np.nansum(shares))
        if total > 1 + 1e-9 or (total < 1 - 1e-9 and not open_.any()):
            raise ValueError(f"the shares add up to {total:g}, not to 1")
    except ValueError as error:
        raise UserError(f"--balance {text}: {error}") from None
    return Balance(name, np.where(allowed, shares, 0.0))


def _allowed(codec: LevelCodec, region: Region | None) -> BoolArray:
    """Which cells a region of a column of levels holds."""
    cells = np.arange(codec.size)
    if region is None:
        return np.ones(codec.size, dtype=bool)
    inside = np.any([(cells >= low) & (cells <= high) for low, high in region.intervals] or [cells < 0], axis=0)
    if codec.missing is not None:
        inside[codec.missing] = region.missing
    return np.asarray(inside)


def _asked(codec: LevelCodec, text: str) -> FloatArray:
    shares = np.full(codec.size, np.nan)
    for item in split_values(text):
        value, colon, share = item.rpartition(":")
        if not colon:
            raise ValueError("write VALUE:SHARE, such as true:0.5")
        level = value_of(value)
        if level is None and codec.missing is None:
            raise ValueError(f"{codec.column.name} is never missing (nullable: false)")
        cell = codec.missing if level is None else int(_position(codec, level))
        try:
            asked = float(share)
        except ValueError:
            asked = math.nan
        if not 0 <= asked <= 1:
            raise ValueError("a share is a number from 0 to 1")
        if not np.isnan(shares[cell]):
            raise ValueError(f"gives {value.strip() or 'missing'} two shares")
        shares[cell] = asked
    return shares


def _codec(codecs: Mapping[str, Codec], name: str) -> Codec:
    if name not in codecs:
        hint = nearest(name, codecs).strip(" ()")
        raise ValueError(f"{name} is not a learned column; {hint or 'columns are ' + ', '.join(codecs)}")
    return codecs[name]


def _position(codec: Codec, text: str) -> float:
    """Position of a value of the declared domain. A value between two of them is none: no row would have it."""
    column = codec.column
    checked = codec_of(column.model_copy(update={"outside": "refuse"}))
    value = pa.array([text])
    try:
        encoded = checked.encode(value, np.random.default_rng(0))
    except UserError:
        bar = isinstance(codec, LevelCodec) and any("|" in str(level) for level in codec.levels)
        hint = "; a value that holds | is written in double quotes" if bar else ""
        raise ValueError(f"outside the declared domain of {column.name} ({domain_of(column)}){hint}") from None
    if isinstance(codec, LevelCodec):
        return float(encoded.codes[codec.blocks[0].key][0])
    position = float(codec.positions(value)[0][0])
    if codec.lattice.whole and Decimal(position) != _exact(codec, text):
        raise ValueError(f"is between two values of {column.name} ({domain_of(column)}); ask for one, or for a range")
    return position


def next_position(codec: Codec, positions: FloatArray, side: int) -> FloatArray:
    """The positions beside others, on the left (-1) or on the right (1)."""
    if isinstance(codec, OrderedCodec) and not codec.lattice.whole:
        return np.nextafter(positions, side * np.inf)
    return positions + side


def _beyond(codec: Codec, operator: str, text: str) -> Region:
    """Positions on one side of a value, which need not be in the domain."""
    if isinstance(codec, LevelCodec):
        return _levels_beyond(codec, operator, text)
    low, high = codec.lattice.low, codec.lattice.high
    below, strict = operator[0] == "<", len(operator) == 1
    if not codec.lattice.whole:
        edge = float(_number(text))
        if strict:
            edge = float(np.nextafter(edge, -np.inf if below else np.inf))
    else:
        exact = _exact(codec, text)
        exact = min(max(exact, Decimal(low) - 2), Decimal(high) + 2)  # a number of a billion digits stays small
        if below:
            edge = math.ceil(exact) - 1 if strict else math.floor(exact)
        else:
            edge = math.floor(exact) + 1 if strict else math.ceil(exact)
    interval = (low, min(high, edge)) if below else (max(low, edge), high)
    return Region(np.array([interval] if interval[0] <= interval[1] else [], dtype=float).reshape(-1, 2), False)


def _levels_beyond(codec: LevelCodec, operator: str, text: str) -> Region:
    """Levels on one side of a value: of numbers by value, of declared order by place."""
    column = codec.column
    if isinstance(column, CategoricalColumn) and column.numeric:
        ranks = [Decimal(str(level)) for level in column.categories]
        edge = _number(text)
    elif isinstance(column, CategoricalColumn) and column.ordered:
        ranks = [Decimal(i) for i in range(len(column.categories))]
        edge = Decimal(int(_position(codec, text)))
    else:
        raise ValueError(f"{column.name} has no order; write = or != (a categorical column may say `ordered: true`)")
    meets = {">": edge.__lt__, ">=": edge.__le__, "<": edge.__gt__, "<=": edge.__ge__}[operator]
    inside = [float(i) for i, rank in enumerate(ranks) if meets(rank)]
    return Region(np.array([inside, inside]).T.reshape(-1, 2), False)


def _exact(codec: OrderedCodec, text: str) -> Decimal:
    """Where a value lies among the column's whole positions, or between them."""
    column = codec.column
    exact = _moment(text, column) if isinstance(column, DatetimeColumn) else _number(text)
    return exact.scaleb(column.decimals or 0) if isinstance(column, ContinuousColumn) else exact


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("needs a number") from None
    if not number.is_finite() or abs(number.adjusted()) > 400:
        raise ValueError("needs a number")
    return number


def _moment(text: str, column: DatetimeColumn) -> Decimal:
    """Exact number of the column's resolution since 1970."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise ValueError("needs a date such as 1989-01-31 or 1989-01-31 12:00:00") from None
    microseconds = (moment - EPOCH) // timedelta(microseconds=1)
    return Decimal(microseconds) / (RESOLUTION_SECONDS[column.resolution] * 1_000_000)
