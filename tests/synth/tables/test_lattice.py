"""The public grid of an ordered column."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synth.schema import SMALLEST_SPAN, parse_schema
from synth.tables.blocks import NONE
from synth.tables.lattice import MAX_EXACT_CELLS, MAX_SINGLES, Lattice, lattice_of


def lattice(**column: Any) -> Lattice:
    schema = parse_schema({"dataset": "t", "columns": [{"name": "a", **column}]}, file="s")
    return lattice_of(schema.columns[0])


def integer(low: int, high: int, **more: Any) -> Lattice:
    return lattice(kind="integer", bounds=[low, high], **more)


def real(low: float, high: float, **more: Any) -> Lattice:
    return lattice(kind="continuous", bounds=[low, high], **more)


def wide(low: float, high: float, scale: str) -> Lattice:
    """Bounds either way round; one point where the schema refuses them as too close."""
    low, high = sorted([low, high])
    return real(low, low if high - low < SMALLEST_SPAN else high, scale=scale)


WHOLE = st.integers(-(2**53) + 1, 2**53 - 1)
REAL = st.floats(-1e300, 1e300)
SCALES = st.sampled_from(["linear", "log"])
LATTICES = st.one_of(
    st.builds(lambda a, b, s: integer(min(a, b), max(a, b), scale=s), WHOLE, WHOLE, SCALES),
    st.builds(lambda a, n, s: integer(a, a + n, scale=s), st.integers(-9999, 9999), st.integers(0, 9999), SCALES),
    st.builds(wide, REAL, REAL, SCALES),
    st.builds(lambda a, n, s: wide(a, a + n, s), st.floats(-1e6, 1e6), st.floats(0, 1e6), SCALES),
    st.builds(lambda a, e, s: wide(a, a + 10.0**e, s), st.floats(-1e-300, 1e-300), st.integers(-323, -280), SCALES),
    st.builds(lambda n, d: real(-n, n, decimals=d), st.integers(0, 500), st.integers(0, 6)),
)


class TestCells:
    @given(LATTICES)
    def test_cover_the_bounds_without_gap_or_overlap(self, grid: Lattice) -> None:
        assert np.all(np.diff(grid.edges) > 0)
        assert grid.edges[0] == grid.low
        assert grid.edges[-1] > grid.high
        assert 1 <= grid.cells <= 2 * MAX_EXACT_CELLS

    @given(LATTICES)
    def test_run_into_eight_parts_or_stay_alone(self, grid: Lattice) -> None:
        runs = grid.run_of_cell
        if grid.cells < 32:
            assert runs is None
        else:
            assert runs is not None and (np.diff(runs) >= 0).all()
            held = np.bincount(runs)
            assert len(held) == 8 and held.sum() == grid.cells and np.ptp(held) <= 1

    @given(LATTICES)
    def test_have_a_last_digit_where_they_are_single_positions(self, grid: Lattice) -> None:
        place = grid.place_of_cell
        if grid.whole and 40 <= grid.count <= MAX_EXACT_CELLS:
            assert place is not None
            assert place.tolist() == [int(position) % 10 for position in range(int(grid.low), int(grid.high) + 1)]
        else:
            assert place is None

    def test_have_a_day_of_the_week_or_an_hour_of_the_day(self) -> None:
        days = lattice(kind="datetime", bounds=["2024-01-01", "2024-03-31"], resolution="day").place_of_cell
        hours = lattice(kind="datetime", bounds=["2024-01-01", "2024-01-07"], resolution="hour").place_of_cell
        assert days is not None and hours is not None
        # The first of January 2024 was a Monday, as the 22nd was.
        assert days[0] == days[21] and len(set(days[:7])) == 7 and days.max() == 6
        assert hours[:24].tolist() == list(range(24)) and hours[24] == 0

    @given(LATTICES, st.lists(st.floats(0, 1), max_size=10))
    def test_every_position_has_its_cell(self, grid: Lattice, parts: list[float]) -> None:
        span = np.array([0.0, 1.0, *parts])
        positions = np.clip(grid.low * (1 - span) + grid.high * span, grid.low, grid.high)
        if grid.whole:
            positions = np.round(positions)
        cell = grid.cell_of(positions)
        assert np.all((cell >= 0) & (cell < grid.cells))
        assert np.all((grid.edges[cell] <= positions) & (positions < grid.edges[cell + 1]))

    @given(st.integers(-9999, 9999), st.integers(0, MAX_EXACT_CELLS - 1), SCALES)
    def test_a_small_domain_has_a_cell_a_value(self, low: int, more: int, scale: str) -> None:
        grid = integer(low, low + more, scale=scale)
        assert grid.cells == more + 1
        assert np.array_equal(grid.cell_of(np.arange(low, low + more + 1.0)), np.arange(more + 1))
        assert (grid.singles, grid.units) == (0, ())

    @pytest.mark.parametrize("scale", ["linear", "log"])
    @pytest.mark.parametrize("value", [0, 5, -2.5])
    def test_a_constant_has_one_cell(self, scale: str, value: float) -> None:
        assert (real(value, value, scale=scale).cells, real(value, value, scale=scale).singles) == (1, 0)

    def test_a_log_scale_is_finer_near_the_lower_bound(self) -> None:
        widths = np.diff(real(1, 1e6, scale="log").edges)
        assert widths[0] < 1e-4 * widths[-1]

    def test_a_linear_scale_is_fine_near_zero_too(self) -> None:
        grid = integer(-1_000_000, 1_000_000)
        near = grid.cell_of(np.arange(-3.0, 4.0))
        assert len(set(near.tolist())) == 7
        assert np.diff(grid.edges).max() <= 2_000_001 / 256 + 1


class TestSingles:
    @given(LATTICES)
    def test_are_few_and_inside_the_bounds(self, grid: Lattice) -> None:
        assert 0 <= grid.singles <= MAX_SINGLES + 1
        if grid.singles:
            ends = grid.position_of_single(np.array([0, grid.singles - 1]))
            tolerance = 1e-9 * max(abs(grid.low), abs(grid.high))
            assert grid.low - tolerance <= ends[0] <= ends[1] <= grid.high + tolerance

    @pytest.mark.parametrize("grid", [integer(0, 5000), real(0, 500, decimals=1), real(-3, 700), integer(-9, 10**7)])
    def test_round_trip(self, grid: Lattice) -> None:
        index = np.arange(grid.singles)
        assert np.array_equal(grid.single_of(grid.position_of_single(index)), index)

    @pytest.mark.parametrize(
        ("grid", "held", "not_held"),
        [
            (integer(0, 5_000_000), [0, 1999, 400_001, 400_010, 4_000_010, 5_000_000], [4_000_009]),
            (integer(-9, 5_000_001), [-9, 1999, 4_000_010, 5_000_001], [4_000_009]),
            (integer(-5_000_003, -1), [-5_000_003, -4_000_010, -1999, -1], [-4_000_009]),
            (integer(-5_000_003, 5_000_003), [-5_000_003, -99, 0, 99, 5_000_003], [-4_000_009, 4_000_009]),
            (integer(10**9, 10**12 + 1), [10**9 + 7, 10**12, 10**12 + 1], [10**11 + 7]),
        ],
    )
    def test_of_a_large_domain_are_near_zero_round_or_at_its_ends(
        self, grid: Lattice, held: list[int], not_held: list[int]
    ) -> None:
        positions = np.array(held, dtype=float)
        assert np.array_equal(grid.position_of_single(grid.single_of(positions)), positions)
        assert (grid.single_of(np.array(not_held, dtype=float)) == NONE).all()
        everything = grid.position_of_single(np.arange(grid.singles))
        assert (np.diff(everything) > 0).all() and (everything % grid.single_step == 0).all()

    def test_days_of_thousands_of_years(self) -> None:
        grid = lattice(kind="datetime", bounds=["0001-01-01", "9999-12-31"], resolution="day")
        days = np.array([date.fromisoformat(day).toordinal() for day in ("0001-01-01", "1899-12-31", "9999-12-31")])
        positions = (days - date(1970, 1, 1).toordinal()).astype(float)
        assert (grid.single_of(positions) >= 0).all()

    def test_far_from_zero_too(self) -> None:
        grid = real(1e6, 1e6 + 100)
        values = 1e6 + np.array([50.0, 50.5, 50 + grid.single_step / 3])
        assert (grid.single_of(values) > 0).tolist() == [True, True, False]
        assert grid.unit_of(values)[2] > grid.unit_of(values)[1] > grid.unit_of(values)[0]

    def test_a_value_between_them_is_none(self) -> None:
        grid = real(0, 100)
        assert grid.single_of(np.array([50.0, 50.0 + grid.single_step / 3]))[1] == NONE
        assert grid.single_of(np.array([50.0]))[0] > 0


class TestUnits:
    @pytest.mark.parametrize(
        ("grid", "units"),
        [
            (integer(0, 99_999), (1000.0, 100.0, 10.0)),
            (real(0, 100, decimals=2), (100.0, 10.0)),
            (real(0, 100), (1.0, 0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6)),
            (lattice(kind="datetime", bounds=["2020-01-01", "2021-01-01"]), (86400.0, 3600.0, 60.0)),
            (lattice(kind="datetime", bounds=["2020-01-01", "2021-01-01"], resolution="hour"), (24.0,)),
            (lattice(kind="datetime", bounds=["1990-01-01", "2021-01-01"], resolution="day"), ()),
        ],
    )
    def test_are_public(self, grid: Lattice, units: tuple[float, ...]) -> None:
        assert grid.units == pytest.approx(units)

    def test_the_coarsest_that_divides(self) -> None:
        grid = integer(0, 99_999)
        assert grid.unit_of(np.array([5000.0, 5100, 5110, 5111, 0])).tolist() == [0, 1, 2, 3, -1]

    @example(real(0, SMALLEST_SPAN), 0.5)
    @given(LATTICES, st.floats(0, 1))
    def test_a_code_for_every_position(self, grid: Lattice, part: float) -> None:
        position = np.array([np.clip(grid.low * (1 - part) + grid.high * part, grid.low, grid.high)])
        assert -1 <= int(grid.unit_of(position)[0]) <= len(grid.units)


class TestPositions:
    def test_count(self) -> None:
        assert integer(3, 7).count == 5
        assert real(0, 1, decimals=2).count == 101
        assert math.isinf(real(0, 1).count)
        assert lattice(kind="datetime", bounds=["1970-01-01", "1970-01-02"], resolution="hour").count == 25

    def test_of_dates_lie_within_the_bounds(self) -> None:
        grid = lattice(kind="datetime", bounds=["1970-01-02T01:00", "1970-01-05T23:00"], resolution="day")
        assert (grid.low, grid.high) == (2, 4)
