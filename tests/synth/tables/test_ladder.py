"""The public ladder: every value is in exactly one bin, whose ends are bounds that a column can have."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.schema import WIDEST_STEP, EstimableColumn, Schema
from synth.tables.bounds import bounds_of
from synth.tables.codec import OrderedCodec
from synth.tables.ladder import Ladder, ladder_of

SchemaOf = Callable[..., Schema]
KINDS: dict[str, dict[str, Any]] = {
    "integer": {"kind": "integer"},
    "real": {"kind": "continuous"},
    **{f"{d} decimals": {"kind": "continuous", "decimals": d} for d in (0, 2, 12)},
    **{unit: {"kind": "datetime", "resolution": unit} for unit in ("second", "minute", "hour", "day")},
}


@pytest.fixture(scope="module")
def columns(schema_of: SchemaOf) -> dict[str, EstimableColumn]:
    named = {name: declared | {"bounds": "estimate"} for name, declared in KINDS.items()}
    return {column.name: column for column in schema_of(*named, **named).columns_to_estimate}


def stands_for(ladder: Ladder, index: int) -> tuple[float, float]:
    return float(ladder.lows[index]), float(ladder.highs[index])


@pytest.mark.parametrize("name", KINDS)
def test_bins_follow_each_other_without_gaps(columns: dict[str, EstimableColumn], name: str) -> None:
    ladder = ladder_of(columns[name])
    whole = name != "real"
    assert len(ladder.starts) == ladder.bins - 1 == len(ladder.lows) - 1 == len(ladder.highs) - 1
    assert (np.diff(ladder.starts) > 0).all() and (ladder.lows <= ladder.highs).all()
    assert (ladder.lows[1:] == ladder.highs[:-1] + whole).all()  # of real numbers an end is shared, and has a bin
    assert set(np.diff(ladder.coarse)) <= {0, 1} and ladder.coarse[0] == 0
    assert ladder.coarse_bins == ladder.coarse[-1] + 1
    assert np.bincount(ladder.coarse).max() <= 15


@pytest.mark.parametrize("name", KINDS)
def test_every_bin_ends_in_bounds(columns: dict[str, EstimableColumn], name: str) -> None:
    """Bounds from any bin to itself are declared in full, and hold the bin's positions alone."""
    column, ladder = columns[name], ladder_of(columns[name])
    whole = type(column).model_validate(column.model_dump() | {"bounds_are": "estimated"})
    assert ladder_of(whole) is ladder  # a ladder does not follow what was found on it
    for index in np.unique(np.linspace(0, ladder.bins - 1, 97).astype(int)):
        low, high = stands_for(ladder, index)
        bounds = bounds_of(column, low, high)
        found = type(column).model_validate(column.model_dump() | {"bounds": bounds, "bounds_are": "estimated"})
        lattice = OrderedCodec(found).lattice
        assert (lattice.low, lattice.high) == (low, high)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_in_one_bin(columns: dict[str, EstimableColumn], value: float) -> None:
    ladder = ladder_of(columns["real"])
    index = int(ladder.bin_of(np.array([value]))[0])
    low, high = stands_for(ladder, index)
    outermost = index in (0, ladder.bins - 1)
    if value == 0:
        assert (low, high) == (0, 0)
    elif value > 0:
        assert low <= value < high or (outermost and value >= low)
        assert low == 0 or high <= 1.2 * low + 1e-300 or outermost
    else:
        assert low < value <= high or (outermost and value <= high)


@given(st.integers(-(2**53), 2**53))
def test_every_whole_number_is_in_one_bin(columns: dict[str, EstimableColumn], value: int) -> None:
    ladder = ladder_of(columns["integer"])
    low, high = stands_for(ladder, int(ladder.bin_of(np.array([float(value)]))[0]))
    assert low <= value <= high or abs(value) > WIDEST_STEP
    coarse = ladder.coarse[ladder.bin_of(np.array([float(value)]))][0]
    alike = np.flatnonzero(ladder.coarse == coarse)
    first, last = ladder.lows[alike[0]], ladder.highs[alike[-1]]
    digit, power = float(f"{min(abs(first), abs(last)):e}"[0]), len(str(int(min(abs(first), abs(last))))) - 1
    assert value == 0 or (digit in (1, 2, 5) and min(abs(first), abs(last)) == digit * 10**power)


@given(st.datetimes(datetime.min, datetime.max), st.sampled_from(["second", "minute", "hour", "day"]))
def test_every_moment_is_in_its_year_and_decade(
    columns: dict[str, EstimableColumn], moment: datetime, unit: str
) -> None:
    column, ladder = columns[unit], ladder_of(columns[unit])
    position, _ = OrderedCodec(column).positions(pa.array([moment], pa.timestamp("us")))
    index = ladder.bin_of(position)
    assert index[0] == moment.year - 1 and ladder.coarse[index][0] == moment.year // 10
    first, last = (datetime.fromisoformat(end) for end in bounds_of(column, *stands_for(ladder, int(index[0]))))
    assert first == datetime(moment.year, 1, 1) and last.year == moment.year and last.month == 12 and last.day == 31


def test_rungs_are_the_numbers_that_are_written(columns: dict[str, EstimableColumn]) -> None:
    ladder = ladder_of(columns["real"])
    start = int(ladder.bin_of(np.array([0.1]))[0])
    assert ladder.lows[start : start + 3].tolist() == [0.1, 0.11, 0.12]
    assert math.isclose(ladder.lows[0], -1e300) and ladder.highs[-1] == 1e300
    years = ladder_of(columns["integer"])
    assert stands_for(years, int(years.bin_of(np.array([1994.0]))[0])) == (1900, 1999)
    assert stands_for(years, int(years.bin_of(np.array([-7.0]))[0])) == (-7, -7)
