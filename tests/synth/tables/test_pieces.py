"""What lies within a bin, value by value, and what of it lies in a region."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.schema import parse_schema
from synth.tables.codec import OrderedCodec, codec_of
from synth.tables.decode import ColumnDecoder
from synth.tables.pieces import Pieces, Region, multiples
from synth.tables.spread import even_pieces, pieces_of

EMPTY = np.empty(0)


def ordered(**column: Any) -> OrderedCodec:
    codec = codec_of(parse_schema({"dataset": "t", "columns": [{"name": "a", **column}]}, file="s").columns[0])
    assert isinstance(codec, OrderedCodec)
    return codec


def decoder_for(
    codec: OrderedCodec, seed: int, *, bins: int = 6, singles: int = 5, rounded: bool = True
) -> ColumnDecoder:
    """A decoder with random runs of cells as bins, random shares, single values and rounding."""
    rng = np.random.default_rng(seed)
    cells = codec.lattice.cells
    cuts = np.sort(rng.choice(np.arange(1, cells), min(bins, cells) - 1, replace=False))
    home = np.searchsorted(cuts, np.arange(cells), side="right")
    if codec.missing is not None:
        home = np.append(home, home.max() + 1)
    weight = rng.random(len(home)) + 0.01
    share = weight / np.bincount(home, weights=weight)[home]
    at = (
        np.sort(rng.choice(codec.lattice.singles, singles, replace=False))
        if codec.lattice.singles
        else np.empty(0, int)
    )
    positions = codec.lattice.position_of_single(at)
    held = rng.random(len(at)) / max(len(at), 1)
    digits = rng.dirichlet(np.ones(len(codec.lattice.units) + 1)) if rounded and codec.lattice.units else EMPTY
    return ColumnDecoder(home, share, positions, held, digits)


def by_hand(codec: OrderedCodec, decoder: ColumnDecoder, points: int = 1) -> dict[tuple[int, float], float]:
    """Probability of each value within its bin: every position of every cell, with every rounding unit.

    Real cells are stood for by `points` positions each.
    """
    lattice, home = codec.lattice, decoder.bin_of_cell
    digits = decoder.digits if len(decoder.digits) else np.array([0.0] * len(lattice.units) + [1.0])
    table: dict[tuple[int, float], float] = defaultdict(float)
    for cell in range(lattice.cells):
        low, end = lattice.edges[cell], lattice.edges[cell + 1]
        inside = [i for i in range(len(decoder.singles)) if low <= decoder.singles[i] < end]
        for i in inside:
            table[home[cell], decoder.singles[i]] += decoder.share[cell] * decoder.single_share[i]
        rest = decoder.share[cell] * (1 - sum(decoder.single_share[i] for i in inside))
        steps = np.arange(low, end) if lattice.whole else low + (np.arange(points) + 0.5) / points * (end - low)
        for position in steps:
            value = position
            for first in reversed(range(len(digits))):
                # A value that starts with a unit keeps what the finer ones make of it where that unit does not fit.
                if first < len(lattice.units):
                    unit = lattice.units[first]
                    rounded = float(multiples(np.floor([position / unit + 0.5]), np.array([unit]))[0])
                    within = lattice.low <= rounded <= lattice.high
                    if within and home[lattice.cell_of(np.array([rounded]))[0]] == home[cell]:
                        value = rounded
                table[home[cell], value] += rest * digits[first] / len(steps)
    if codec.missing is not None:
        table[home[codec.missing], math.nan] = decoder.share[codec.missing]
    return table


def values_of(pieces: Pieces) -> dict[tuple[int, float], float]:
    """Probability of each value of pieces that are all grids."""
    table: dict[tuple[int, float], float] = defaultdict(float)
    for bin_, mass, first, last, step in zip(
        pieces.bin, pieces.mass, pieces.first, pieces.last, pieces.step, strict=True
    ):
        assert step > 0
        numbers = [math.nan] if math.isnan(first) else np.arange(first, last + 1)
        for number in numbers:
            table[bin_, float(multiples(np.array([number]), np.array([step]))[0])] += mass / len(numbers)
    return table


def same(found: dict[tuple[int, float], float], expected: dict[tuple[int, float], float]) -> None:
    plain = [
        {(b, "missing" if math.isnan(v) else v): p for (b, v), p in t.items() if p > 1e-12} for t in (found, expected)
    ]
    assert plain[0].keys() == plain[1].keys()
    assert plain[0] == pytest.approx(plain[1], rel=1e-9, abs=1e-12)


WHOLE: list[dict[str, Any]] = [
    {"kind": "integer", "bounds": [0, 1999]},
    {"kind": "integer", "bounds": [-750, 1503], "nullable": True},
    {"kind": "continuous", "bounds": [0, 70], "decimals": 1},
    {"kind": "integer", "bounds": [3, 40], "nullable": True},
    {"kind": "datetime", "bounds": ["2020-01-01", "2020-01-02 20:00"], "resolution": "minute"},
]


@pytest.mark.parametrize("column", WHOLE, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
class TestWholePositions:
    def test_every_value_as_by_hand(self, column: dict[str, Any], seed: int) -> None:
        codec = ordered(**column)
        decoder = decoder_for(codec, seed)
        pieces = pieces_of(codec, decoder)
        same(values_of(pieces), by_hand(codec, decoder))
        assert pieces.bin_mass == pytest.approx(1)

    def test_a_region_holds_what_lies_in_it(self, column: dict[str, Any], seed: int) -> None:
        codec = ordered(**column)
        decoder = decoder_for(codec, seed)
        low, high = codec.lattice.low, codec.lattice.high
        ends = np.sort(np.random.default_rng(seed).integers(int(low), int(high) + 1, 4)).astype(float)
        region = Region(np.array([[ends[0], ends[1]], [ends[2] + 1, max(ends[3], ends[2] + 1)]]), missing=seed == 1)
        inside = {
            (b, v): p
            for (b, v), p in by_hand(codec, decoder).items()
            if (region.missing if math.isnan(v) else any(a <= v <= z for a, z in region.intervals))
        }
        same(values_of(pieces_of(codec, decoder).within(region)), inside)


class TestRealPositions:
    POINTS = 12

    @pytest.mark.parametrize("bounds", [[2.5, 250], [-3, 4]])
    @pytest.mark.parametrize("rounded", [True, False])
    def test_intervals_as_by_hand(self, bounds: list[float], rounded: bool) -> None:
        codec = ordered(kind="continuous", bounds=bounds)
        decoder = decoder_for(codec, 3, rounded=rounded)
        pieces = pieces_of(codec, decoder)
        assert pieces.bin_mass == pytest.approx(1)
        expected = by_hand(codec, decoder, points=self.POINTS)
        bins, values = np.array([*expected]).T
        chances = np.array([*expected.values()])
        ends = np.linspace(*bounds, 8)
        for low, high in zip(ends[:-1] + 1e-9, ends[1:], strict=True):
            here = (values >= low) & (values <= high)
            inside = np.bincount(bins[here].astype(int), weights=chances[here], minlength=pieces.bins)
            found = pieces.within(Region(np.array([[low, high]]), False)).bin_mass
            # An end cuts one cell, whose positions were only sampled.
            assert found == pytest.approx(inside, abs=2 * decoder.share.max() / self.POINTS + 1e-9)

    def test_single_values_are_cut_exactly(self) -> None:
        codec = ordered(kind="continuous", bounds=[0, 100])
        single = codec.lattice.position_of_single(codec.lattice.single_of(np.array([0.3])))
        assert single.tolist() == [0.3]
        cells = codec.lattice.cells
        decoder = ColumnDecoder(np.zeros(cells, int), np.full(cells, 1 / cells), single, np.array([1.0]), EMPTY)
        pieces = pieces_of(codec, decoder)

        def mass(low: float, high: float) -> float:
            return float(pieces.within(Region(np.array([[low, high]]), False)).mass.sum())

        below = float(np.nextafter(0.3, 0))
        assert mass(0.3, 0.3) == pytest.approx(1 / cells)
        assert mass(0, 0.3) - mass(0, below) == pytest.approx(1 / cells)


class TestDraws:
    @pytest.mark.parametrize(
        "column", [*WHOLE, {"kind": "continuous", "bounds": [2.5, 250], "nullable": True}], ids=str
    )
    def test_follow_the_pieces_and_stay_in_the_region(self, column: dict[str, Any]) -> None:
        codec = ordered(**column)
        decoder = decoder_for(codec, 5)
        low, high = codec.lattice.low, codec.lattice.high
        region = Region(np.array([[low + 0.2 * (high - low), low + 0.7 * (high - low)]]), missing=True)
        inside = pieces_of(codec, decoder).within(region)
        asked = np.repeat(np.nonzero(inside.bin_mass > 0)[0], 3000)
        drawn = inside.draw(asked, np.random.default_rng(0))
        known = ~np.isnan(drawn)
        assert np.all((drawn[known] >= region.intervals[0, 0]) & (drawn[known] <= region.intervals[0, 1]))
        assert np.array_equal(decoder.bin_of_cell[codec.lattice.cell_of(drawn[known])], asked[known])
        # Of each bin, the share below a cut; the seed is fixed, and 5.5 standard deviations would miss one draw in 2e7.
        cut = Region(np.array([[low, low + 0.5 * (high - low)]]), False)
        part = inside.within(cut).bin_mass / np.maximum(inside.bin_mass, 1e-300)
        for bin_ in np.unique(asked):
            found = np.mean(drawn[asked == bin_] <= cut.intervals[0, 1])
            assert found == pytest.approx(part[bin_], abs=5.5 * 0.5 / math.sqrt(3000))

    @pytest.mark.parametrize("column", WHOLE, ids=str)
    def test_give_every_value_its_share(self, tiny: Any, column: dict[str, Any]) -> None:
        codec = ordered(**column)
        decoder = decoder_for(codec, 7)
        table = values_of(pieces_of(codec, decoder))
        drawn = pieces_of(codec, decoder).draw(np.zeros(60_000, dtype=np.int64), np.random.default_rng(2))
        values = sorted(value for bin_, value in table if bin_ == 0)
        counts = np.array([(drawn == value).sum() for value in values])
        assert counts.sum() == 60_000
        assert tiny.fits(counts, np.array([table[0, value] for value in values]))

    def test_each_piece_gets_its_expected_number_in_any_order(self) -> None:
        codec = ordered(kind="integer", bounds=[0, 99_999])
        pieces = even_pieces(codec, decoder_for(codec, 3))
        asked = np.random.default_rng(0).integers(0, pieces.bins, 5000)
        drawn = pieces.draw(asked, np.random.default_rng(1))
        of = np.searchsorted(pieces.first, drawn, side="right") - 1
        expected = np.bincount(asked, minlength=pieces.bins)[pieces.bin] * pieces.mass
        assert np.abs(np.bincount(of, minlength=len(expected)) - expected).max() < 1 + 1e-6
        for bin_ in range(pieces.bins):
            # Ranks in random order: five standard deviations, by a fixed seed.
            own = np.argsort(np.argsort(drawn[asked == bin_]))
            assert abs(np.corrcoef(own, np.arange(len(own)))[0, 1]) < 5 / math.sqrt(len(own))

    def test_no_rows(self) -> None:
        codec = ordered(kind="integer", bounds=[0, 1999])
        drawn = pieces_of(codec, decoder_for(codec, 0)).draw(np.empty(0, int), np.random.default_rng(0))
        assert drawn.shape == (0,)


def test_even_pieces_know_only_the_grid() -> None:
    codec = ordered(kind="integer", bounds=[0, 1999])
    decoder = decoder_for(codec, 1)
    plain = ColumnDecoder(decoder.bin_of_cell, decoder.share, EMPTY, EMPTY, EMPTY)
    same(values_of(even_pieces(codec, decoder)), by_hand(codec, plain))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=3), st.booleans(), st.integers(0, 20))
def test_regions_intersect(ends: list[tuple[int, int]], missing: bool, cut: int) -> None:
    taken, intervals = -1, []
    for low, high in sorted((min(e), max(e)) for e in ends):
        if low > taken:
            intervals.append((low, high))
            taken = high
    region = Region(np.array(intervals, dtype=float).reshape(-1, 2), missing)
    both = region.and_(Region(np.array([[cut, 20.0]]), True))
    inside = {x for x in range(21) if any(a <= x <= b for a, b in intervals)}
    assert {x for x in range(21) if any(a <= x <= b for a, b in both.intervals)} == {x for x in inside if x >= cut}
    assert (both.missing, both.empty) == (missing, not (missing or any(x >= cut for x in inside)))
