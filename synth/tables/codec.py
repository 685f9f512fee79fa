"""Columns in and out: Arrow values to block codes and back, one codec a column.

`encode` never fails on a value: what lies outside the declared domain is mapped by the declared rule, and only
counted (the count goes to the internal report). No value ever appears in an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synth.errors import InvalidSource
from synth.schema import (
    RESOLUTION_SECONDS,
    AnyColumn,
    BooleanColumn,
    CategoricalColumn,
    ContinuousColumn,
    DatetimeColumn,
    IntegerColumn,
    Schema,
    level_key,
)
from synth.tables.blocks import NONE, Block
from synth.tables.lattice import MAX_SINGLES, Lattice, lattice_of, most_singles

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TRUE_WORDS = {"true", "t", "yes", "y", "1", "1.0"}
FALSE_WORDS = {"false", "f", "no", "n", "0", "0.0"}
MICROS = {"s": 1e6, "ms": 1e3, "us": 1.0}


@dataclass(frozen=True)
class Encoded:
    """Codes of one column for a batch of rows: block key → codes; and how many values were outside the domain."""

    codes: dict[str, IntArray]
    outside: int


class LevelCodec:
    """Categorical and boolean columns: one cell a level, and one for missing."""

    def __init__(self, column: CategoricalColumn | BooleanColumn) -> None:
        self.column = column
        levels: tuple[Any, ...] = column.categories if isinstance(column, CategoricalColumn) else (False, True)
        self.levels = levels
        self.missing = len(levels) if column.nullable else None
        self.size = len(levels) + column.nullable
        self.blocks = (Block(column.name, "cells", self.size),)
        self.ordered = False
        self.to_estimate = False
        self.partitions = column.partitions if isinstance(column, CategoricalColumn) else ()
        self._index = {level_key(level): i for i, level in enumerate(levels)}

    def encode(self, array: pa.Array, rng: np.random.Generator) -> Encoded:
        """Codes of a batch. Levels match by value; everything else follows the column's rule."""
        code, null = self._codes(array)
        bad = (code == NONE) & ~null
        if bad.any():
            if self.column.outside == "refuse":
                raise _refused(self.column)
            if self.column.outside == "other" and isinstance(self.column, CategoricalColumn):
                level = self.column.other_level
                assert level is not None  # the schema demands one with this rule
                code[bad] = level
        _fill_missing(code, self.missing, len(self.levels), rng, self.column, null)
        return Encoded({self.blocks[0].key: code}, int(bad.sum()))

    def valid(self, array: pa.Array) -> BoolArray:
        """Which values of an output column lie in the declared domain."""
        code, null = self._codes(array)
        return np.where(null, self.column.nullable, code != NONE)

    def positions(self, array: pa.Array) -> tuple[FloatArray, BoolArray]:
        """Level of each value (NaN where there is none) and which values were null to begin with."""
        code, null = self._codes(array)
        return np.where(code == NONE, np.nan, code), null

    def _codes(self, array: pa.Array) -> tuple[IntArray, BoolArray]:
        """The level of each value, NONE where it has none; and which values are null."""
        plain = _plain(array)
        uniques = plain.dictionary_encode()
        table = np.array([self._code(value) for value in uniques.dictionary.to_pylist()] or [NONE], dtype=np.int64)
        null = plain.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        index = uniques.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return np.where(null, NONE, table[index]), null

    def _code(self, value: Any) -> int:
        if isinstance(value, Decimal):
            value = float(value)
        if isinstance(self.column, BooleanColumn):
            word = str(value).strip().casefold()
            return 1 if word in TRUE_WORDS else 0 if word in FALSE_WORDS else NONE
        if isinstance(value, str) and self.column.numeric:
            value = _number(value)
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, (str, int, float)):
            value = str(value)
        return self._index.get(level_key(value), NONE)

    def decode(self, cells: IntArray) -> pa.Array:
        """Arrow values of cells, in the column's output type."""
        return pa.array(self.levels_array()[cells], type=self.arrow_type, from_pandas=True)

    def levels_array(self) -> npt.NDArray[np.object_]:
        """The value of each cell; None for missing."""
        values: list[Any] = list(self.levels)
        if isinstance(self.column, CategoricalColumn) and self.column.numeric:
            values = [int(v) if self.column.whole else float(v) for v in values]
        elif isinstance(self.column, CategoricalColumn):
            values = [str(v) for v in values]
        return np.array([*values, *([None] if self.column.nullable else [])], dtype=object)

    @property
    def arrow_type(self) -> pa.DataType:
        """Type of the output column."""
        if isinstance(self.column, BooleanColumn):
            return pa.bool_()
        if self.column.numeric:
            return pa.int64() if self.column.whole else pa.float64()
        return pa.string()


class OrderedCodec:
    """Integer, continuous and datetime columns: cells of a public grid, single values, digits, and missing."""

    def __init__(
        self, column: IntegerColumn | ContinuousColumn | DatetimeColumn, *, most_singles: int = MAX_SINGLES
    ) -> None:
        self.column = column
        self.lattice: Lattice = lattice_of(column, most_singles=most_singles)
        cells = self.lattice.cells
        self.missing = cells if column.nullable else None
        self.size = cells + column.nullable
        self.ordered = True
        self.to_estimate = column.bounds_are == "to estimate"
        blocks = [Block(column.name, "cells", self.size)]
        if self.lattice.singles:
            blocks.append(Block(column.name, "singles", self.lattice.singles))
        if self.lattice.units:
            blocks.append(Block(column.name, "digits", len(self.lattice.units) + 1))
        self.blocks = tuple(blocks)

    @property
    def widths(self) -> FloatArray:
        """Width of each cell; 1 for the missing cell."""
        return np.append(np.diff(self.lattice.edges), np.ones(int(self.missing is not None)))

    def encode(self, array: pa.Array, rng: np.random.Generator) -> Encoded:
        """Codes of a batch; values beyond the bounds are clipped unless the column says otherwise."""
        positions, null = self.positions(array)
        low, high = self.lattice.low, self.lattice.high
        bad = ~np.isnan(positions) & ((positions < low) | (positions > high))
        unreadable = np.isnan(positions) & ~null
        if (bad.any() or unreadable.any()) and self.column.outside == "refuse":
            raise _refused(self.column)
        if self.column.outside == "missing":
            positions = np.where(bad, np.nan, positions)
        positions = np.clip(positions, low, high)
        lost = np.isnan(positions)
        if lost.any() and self.missing is None:
            if self.column.outside == "refuse":
                raise _refused(self.column)
            positions[lost] = self._anywhere(int(lost.sum()), rng)
            lost = np.zeros_like(lost)
        known = np.where(lost, low, positions)
        codes = {self.blocks[0].key: np.where(lost, self.size - 1, self.lattice.cell_of(known))}
        for block in self.blocks[1:]:
            code = self.lattice.single_of(known) if block.role == "singles" else self.lattice.unit_of(known)
            codes[block.key] = np.where(lost, NONE, code)
        return Encoded(codes, int(bad.sum() + unreadable.sum()))

    def valid(self, array: pa.Array) -> BoolArray:
        """Which values of an output column lie in the declared domain."""
        positions, null = self.positions(array)
        inside = (positions >= self.lattice.low) & (positions <= self.lattice.high)
        return np.where(null, self.column.nullable, inside)

    def _anywhere(self, count: int, rng: np.random.Generator) -> FloatArray:
        if self.lattice.whole:
            return rng.integers(int(self.lattice.low), int(self.lattice.high) + 1, count).astype(np.float64)
        return rng.uniform(self.lattice.low, self.lattice.high, count)

    def positions(self, array: pa.Array) -> tuple[FloatArray, BoolArray]:
        """Positions (NaN where there is none) and which values were null to begin with."""
        null = array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        if isinstance(self.column, DatetimeColumn):
            values = _micros(array)
            unit = RESOLUTION_SECONDS[self.column.resolution] * 1_000_000
            return np.floor(values / unit), null
        values = _floats(array)
        if isinstance(self.column, ContinuousColumn):
            if self.column.decimals is None:
                return values, null
            with np.errstate(over="ignore"):  # an overflow is out of bounds like any other, and told to nobody
                return np.round(values * 10**self.column.decimals), null
        return np.round(values), null

    def decode_positions(self, positions: FloatArray, missing: BoolArray) -> pa.Array:
        """Arrow values of positions, in the column's output type; null where `missing`."""
        if isinstance(self.column, DatetimeColumn):
            unit = RESOLUTION_SECONDS[self.column.resolution] * 1_000_000
            return pa.array(positions.astype(np.int64) * unit, mask=missing).cast(self.arrow_type)
        if isinstance(self.column, IntegerColumn):
            return pa.array(positions.astype(np.int64), mask=missing)
        if self.column.decimals is not None:
            positions = np.round(positions / 10**self.column.decimals, self.column.decimals)
        # Adding zero turns -0.0 into 0.0.
        return pa.array(np.clip(positions, *self.column.bounds) + 0.0, mask=missing, type=pa.float64())

    @property
    def arrow_type(self) -> pa.DataType:
        """Type of the output column."""
        if isinstance(self.column, DatetimeColumn):
            return pa.timestamp("us")
        return pa.int64() if isinstance(self.column, IntegerColumn) else pa.float64()


Codec = LevelCodec | OrderedCodec


def codec_of(column: AnyColumn, *, most_singles: int = MAX_SINGLES) -> Codec:
    """The codec of a learned column; `most_singles` as in `Lattice`."""
    if isinstance(column, (CategoricalColumn, BooleanColumn)):
        return LevelCodec(column)
    if isinstance(column, (IntegerColumn, ContinuousColumn, DatetimeColumn)):
        return OrderedCodec(column, most_singles=most_singles)
    raise TypeError(f"column {column.name} of kind {column.kind} is not learned")


def codecs_of(schema: Schema) -> dict[str, Codec]:
    """Codecs of all learned columns, by name, in the schema's order."""
    columns = schema.learned_columns
    return {column.name: codec_of(column, most_singles=most_singles(len(columns))) for column in columns}


def _refused(column: AnyColumn) -> InvalidSource:
    return InvalidSource(
        f"source: column {column.name} holds a value outside its declared domain and the schema says "
        "`outside: refuse`; correct the source or widen the domain"
    )


def _fill_missing(
    code: IntArray,
    missing: int | None,
    levels: int,
    rng: np.random.Generator,
    column: AnyColumn,
    null: BoolArray,
) -> None:
    """What has no level becomes missing when that is declared, else a random declared level."""
    lost = code == NONE
    if not lost.any():
        return
    if missing is not None:
        code[lost] = missing
        return
    if column.outside == "refuse" and null.any():
        raise _refused(column)
    code[lost] = rng.integers(0, levels, int(lost.sum()))


def _plain(array: pa.Array) -> pa.Array:
    """The values themselves, where they are stored as a dictionary (which may hold nulls of its own)."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _floats(array: pa.Array) -> FloatArray:
    """Numbers as float64, NaN where there is none."""
    array = _plain(array)
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _parse(array, _number)
    values = array.cast(pa.float64(), safe=False).fill_null(math.nan)
    return np.array(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _micros(array: pa.Array) -> FloatArray:
    """Moments as microseconds since 1970 (UTC for those with a zone), NaN where there is none."""
    array = _plain(array)
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _parse(array, _moment_micros)
    day, unit = pa.types.is_date32(array.type), getattr(array.type, "unit", "ms")
    ticks = array.cast(pa.int32() if day else pa.int64()).fill_null(0).to_numpy()
    # In double precision: a moment that no microsecond timestamp can hold is still only out of bounds.
    micros = ticks // 1000 if unit == "ns" else ticks * (86_400e6 if day else MICROS[unit])
    return np.where(array.is_null().to_numpy(zero_copy_only=False), np.nan, micros)


def _parse(array: pa.Array, parse: Any) -> FloatArray:
    """Parse each distinct text once; NaN where it says nothing the parser knows."""
    uniques = pc.dictionary_encode(array)
    table = np.array([parse(text) for text in uniques.dictionary.to_pylist()] or [math.nan], dtype=np.float64)
    index = uniques.indices.fill_null(0).to_numpy(zero_copy_only=False)
    null = array.is_null().to_numpy(zero_copy_only=False)
    return np.where(null, math.nan, table[index])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _moment_micros(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return math.nan
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() * 1e6
