"""A table as peers read it: every column a code of a declared domain, or numbers within declared bounds; and back.

Three ways to cut numbers and dates, all known before a peer starts:

    width   whole numbers of at most 32 values stay; else 20 bins of equal width between the public bounds
    fine    the same with 256, for histograms alone
    gift    values that hold a fortieth of the training rows or more stand alone, the rest falls into 20 quantile bins
            of the training rows. Computed from private rows and not charged: a gift to who gets it
    own     numbers as they are, clipped to the public bounds: the peer cuts them itself

A missing cell is the last code of its column. On the way back a value is drawn evenly within its bin, at the declared
decimals or resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from score import numbers, spelled

from synth.schema import (
    RESOLUTION_SECONDS,
    BooleanColumn,
    CategoricalColumn,
    ContinuousColumn,
    DatetimeColumn,
    IntegerColumn,
    Schema,
    level_key,
)

Binning = Literal["width", "fine", "gift", "own"]
FloatArray = npt.NDArray[np.float64]
Ordered = IntegerColumn | ContinuousColumn | DatetimeColumn
MOST_SINGLE_VALUES: Mapping[Binning, int] = {"width": 32, "fine": 256, "gift": 32}
BINS: Mapping[Binning, int] = {"width": 20, "fine": 256, "gift": 20}
HEAVY = 1 / 40


@dataclass(frozen=True)
class Line:
    """An ordered column in units of its resolution: whole steps, or reals rounded to `decimals`.

    `low` and `high` are the bins' bounds, both inclusive, [bins] each; a single value has low = high.
    """

    column: Ordered
    low: FloatArray
    high: FloatArray

    @property
    def whole(self) -> bool:
        """Whether values are whole steps."""
        return _whole_steps(self.column)

    def codes(self, cells: pd.Series[Any]) -> npt.NDArray[np.int64]:
        """The bin of every cell; the number of bins for a missing one."""
        values = _clipped(self.column, cells)
        found = np.full(len(values), len(self.low), dtype=np.int64)
        for i in np.argsort(self.high - self.low)[::-1]:  # the narrowest bin that holds a value is its bin
            found[(values >= self.low[i]) & (values <= self.high[i])] = i
        return found

    def values(self, codes: npt.NDArray[np.int64], rng: np.random.Generator) -> FloatArray:
        """A value evenly from each code's bin, NaN for missing."""
        inside = np.minimum(codes, len(self.low) - 1)
        low, high = self.low[inside], self.high[inside]
        step = 1.0 if self.whole else 0.0
        drawn = low + rng.random(len(codes)) * (high - low + step)
        drawn = np.minimum(np.floor(drawn), high) if self.whole else drawn
        return np.where(codes >= len(self.low), np.nan, drawn)


@dataclass(frozen=True)
class Coding:
    """How the columns of a table become codes of public domains."""

    schema: Schema
    binning: Binning
    lines: Mapping[str, Line]

    def describe(self) -> list[dict[str, Any]]:
        """The domain of every column, as a peer reads it."""
        described: list[dict[str, Any]] = []
        for column in self.schema.learned_columns:
            if isinstance(column, Ordered) and self.binning == "own":
                low, high = _bounds(column)
                number = {"low": low, "high": high, "whole": _whole_steps(column), "nullable": column.nullable}
                described.append({"name": column.name, **number})
            else:
                size = len(self.lines[column.name].low) if column.name in self.lines else len(_levels(column))
                described.append({"name": column.name, "size": size + column.nullable})
        return described

    def encode(self, table: pd.DataFrame) -> pd.DataFrame:
        """Codes, and numbers where the peer cuts them itself (NaN where missing)."""
        out = {}
        for column in self.schema.learned_columns:
            cells = table[column.name]
            if isinstance(column, Ordered):
                line = self.lines.get(column.name)
                if line is None:
                    out[column.name] = _clipped(column, cells)
                else:
                    out[column.name] = np.minimum(line.codes(cells), len(line.low) - 1 + column.nullable)
            else:
                place = {level: i for i, level in enumerate(_levels(column))}
                missing = len(place) if column.nullable else 0
                out[column.name] = np.array(
                    [missing if pd.isna(cell) else place.get(spelled(cell), 0) for cell in cells], dtype=np.int64
                )
        return pd.DataFrame(out)

    def decode(self, codes: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """Codes and numbers back to values of the schema. Raises ValueError where a column or code is not known."""
        out: dict[str, Any] = {}
        for column in self.schema.learned_columns:
            if column.name not in codes:
                raise ValueError(f"the output lacks {column.name}")
            cells = codes[column.name]
            if isinstance(column, Ordered):
                line = self.lines.get(column.name)
                values = cells.to_numpy(dtype=np.float64) if line is None else line.values(_whole(cells), rng)
                out[column.name] = _restored(column, values)
            else:
                spelling = np.array([*_levels(column), *[None] * column.nullable], dtype=object)
                found = _whole(cells)
                if found.min() < 0 or found.max() >= len(spelling):
                    raise ValueError(f"the output holds an unknown code of {column.name}")
                out[column.name] = spelling[found]
        return pd.DataFrame(out)


def coding_of(schema: Schema, train: pd.DataFrame, binning: Binning) -> Coding:
    """The coding of a table; `train` is looked at for `gift` alone."""
    lines = {}
    for column in schema.learned_columns:
        if isinstance(column, Ordered) and binning != "own":
            if binning == "gift":
                low, high = _quantile_bins(_clipped(column, train[column.name]))
            else:
                low, high = _even_bins(column, binning)
            lines[column.name] = Line(column, low, high)
    return Coding(schema, binning, lines)


def one_row_a_person(table: pd.DataFrame, person: str | None, rng: np.random.Generator) -> pd.DataFrame:
    """One row of each person at random, for methods that know of no persons."""
    if person is None:
        return table
    return table.iloc[rng.permutation(len(table))].drop_duplicates(person).reset_index(drop=True)


def _even_bins(column: Ordered, binning: Binning) -> tuple[FloatArray, FloatArray]:
    low, high = _bounds(column)
    whole = _whole_steps(column)
    if whole and high - low < MOST_SINGLE_VALUES[binning]:
        values = np.arange(low, high + 1)
        return values, values
    edges = np.linspace(low, high + whole, BINS[binning] + 1)
    if not whole:
        return edges[:-1], np.append(np.nextafter(edges[1:-1], -np.inf), high)
    edges = np.unique(np.floor(edges))
    return edges[:-1], edges[1:] - 1


def _quantile_bins(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(1), np.zeros(1)
    found, times = np.unique(known, return_counts=True)
    heavy = found[times >= HEAVY * len(known)] if len(found) > MOST_SINGLE_VALUES["gift"] else found
    rest = np.sort(known[~np.isin(known, heavy)])
    pieces = [piece for piece in np.array_split(rest, BINS["gift"]) if len(piece)]
    low = np.unique([piece[0] for piece in pieces]) if pieces else np.zeros(0)
    # From one bin's first value to the next one's: what lies between two is the lower one's.
    high = np.append(np.nextafter(low[1:], -np.inf), rest[-1]) if pieces else np.zeros(0)
    high = np.floor(high) if np.all(np.mod(known, 1) == 0) else high
    return np.append(low, heavy), np.append(high, heavy)


def _whole_steps(column: Ordered) -> bool:
    """Whether values are whole multiples of a declared step; not so for reals without declared decimals."""
    return not isinstance(column, ContinuousColumn) or column.decimals is not None


def _steps_a_unit(column: Ordered) -> float:
    """Steps in one unit of the source: dates are read as microseconds."""
    if isinstance(column, DatetimeColumn):
        return 1e-6 / RESOLUTION_SECONDS[column.resolution]
    return 10.0**column.decimals if isinstance(column, ContinuousColumn) and column.decimals is not None else 1.0


def _bounds(column: Ordered) -> tuple[float, float]:
    if isinstance(column, IntegerColumn) or (isinstance(column, ContinuousColumn) and column.decimals is None):
        low, high = column.bounds
        return float(low), float(high)
    first, last = column.steps
    return float(first), float(last)


def _clipped(column: Ordered, cells: pd.Series[Any]) -> FloatArray:
    values = numbers(cells) * _steps_a_unit(column)
    if _whole_steps(column):
        # A moment belongs to the step that it lies in, a number to the nearest.
        values = np.floor(values + 1e-6) if isinstance(column, DatetimeColumn) else np.round(values)
    return np.clip(values, *_bounds(column))


def _restored(column: Ordered, values: FloatArray) -> Any:
    values = np.clip(values, *_bounds(column))
    if not isinstance(column, ContinuousColumn) or column.decimals is not None:
        values = np.round(values)
    if isinstance(column, DatetimeColumn):
        micros = values * RESOLUTION_SECONDS[column.resolution] * 1e6
        return pd.to_datetime(pd.Series(micros).round().astype("Int64"), unit="us")
    if isinstance(column, ContinuousColumn) and column.decimals is not None:
        return np.round(values / _steps_a_unit(column), column.decimals)
    return values


def _levels(column: Any) -> Sequence[str]:
    """The levels of a column as the scores spell them."""
    if isinstance(column, BooleanColumn):
        return [spelled(False), spelled(True)]
    assert isinstance(column, CategoricalColumn)
    return [level_key(level) for level in column.categories]


def _whole(cells: pd.Series[Any]) -> npt.NDArray[np.int64]:
    return cells.to_numpy(dtype=np.float64).round().astype(np.int64)
