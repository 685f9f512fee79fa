"""From noised histograms to bins: post-processing whose sums and sizes can be checked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.schema import parse_schema
from synth.tables.bins import (
    MAX_BINS,
    MAX_WIDTH,
    MIN_BINS,
    RARE_IN_NOISE,
    merge_levels,
    merge_ordered,
    most_bins,
    project_to_simplex,
    shares_of,
    shrunk,
    spread_within_bins,
)

NOISED = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e4, 1e4))
MASS = arrays(np.float64, st.integers(2, 80), elements=st.integers(0, 10**6).map(lambda n: n / 100))


class TestProjection:
    @given(NOISED, st.floats(0.1, 1e6))
    def test_is_a_histogram_of_the_given_total(self, values: np.ndarray, total: float) -> None:
        projected = project_to_simplex(values, total)
        assert (projected >= 0).all()
        assert projected.sum() == pytest.approx(total, rel=1e-6)

    @given(NOISED, st.floats(1, 1e4), st.integers(0, 2**32))
    def test_no_other_histogram_is_nearer(self, values: np.ndarray, total: float, seed: int) -> None:
        projected = project_to_simplex(values, total)
        other = np.random.default_rng(seed).dirichlet(np.ones(len(values))) * total
        assert np.linalg.norm(projected - values) <= np.linalg.norm(other - values) + 1e-6 * total

    def test_by_hand(self) -> None:
        assert project_to_simplex(np.array([3.0, 1.0, -5.0]), 4.0) == pytest.approx([3, 1, 0])
        assert project_to_simplex(np.array([3.0, 1.0, -5.0]), 2.0) == pytest.approx([2, 0, 0])
        assert project_to_simplex(np.array([0.0, 0.0]), 1.0) == pytest.approx([0.5, 0.5])

    @pytest.mark.parametrize("total", [0.0, -1.0])
    def test_refuses_an_empty_total(self, total: float) -> None:
        with pytest.raises(ValueError, match="positive"):
            project_to_simplex(np.ones(3), total)


def is_a_lookup(bins: np.ndarray) -> bool:
    return bins.dtype.kind == "i" and sorted(set(bins.tolist())) == list(range(int(bins.max()) + 1))


class TestOrderedBins:
    @given(MASS, st.floats(0.01, 100), st.booleans(), st.integers(MIN_BINS, MAX_BINS))
    def test_are_runs_of_cells(self, mass: np.ndarray, noise: float, missing: bool, most: int) -> None:
        bins = merge_ordered(mass, np.zeros(len(mass), bool), noise, missing, most)
        assert is_a_lookup(bins)
        assert np.all(np.diff(bins) >= 0)
        assert np.all(np.diff(bins) <= 1)
        if missing:
            assert (bins == bins[-1]).sum() == 1

    def test_few_cells_stay_as_they_are(self) -> None:
        bins = merge_ordered(np.full(5, 1000.0), np.zeros(5, bool), 1.0, False, 32)
        assert bins.tolist() == [0, 1, 2, 3, 4]

    def test_even_mass_makes_even_bins(self) -> None:
        bins = merge_ordered(np.full(400, 100.0), np.zeros(400, bool), 1.0, False, 32)
        sizes = np.bincount(bins)
        assert 25 <= len(sizes) <= 45
        assert sizes.max() <= 2 * sizes.min() + 1

    def test_a_heavy_value_stays_nearly_alone(self) -> None:
        mass = np.full(400, 10.0)
        mass[137] = 5000.0
        bins = merge_ordered(mass, np.zeros(400, bool), 1.0, False, 32)
        # Crumbs beside it may join it, nothing that counts.
        assert mass[bins == bins[137]].sum() < 1.02 * 5000

    def test_so_does_one_that_stands_out(self) -> None:
        mass = np.full(400, 100.0)
        bins = merge_ordered(mass, np.arange(400) == 50, 5.0, False, 32)
        assert (bins == bins[50]).sum() == 1

    def test_much_noise_makes_fewer_bins(self) -> None:
        mass = np.full(400, 100.0)
        few, many = (len(np.bincount(merge_ordered(mass, np.zeros(400, bool), n, False, 32))) for n in (3000.0, 1.0))
        assert few < many

    @pytest.mark.parametrize(("people", "pair_noise"), [(1.0, 1e6), (1e9, 1.0), (1e4, 0.0), (30_000, 60)])
    def test_their_number_is_bounded(self, people: float, pair_noise: float) -> None:
        assert MIN_BINS <= most_bins(people, pair_noise, 10) <= MAX_BINS
        assert most_bins(people, pair_noise, 300) <= MAX_WIDTH / 300
        assert most_bins(people, pair_noise, 3000) == MIN_BINS

    def test_it_grows_with_people_and_falls_with_noise(self) -> None:
        assert most_bins(1000, 10, 9) <= most_bins(30_000, 10, 9) <= most_bins(30_000, 5, 9)


class TestLevelBins:
    @given(MASS, st.floats(0.01, 1e3), st.booleans())
    def test_are_levels_alone_or_the_rare_in_runs(self, mass: np.ndarray, noise: float, missing: bool) -> None:
        bins = merge_levels(mass, noise, missing, most=8)
        assert is_a_lookup(bins)
        levels = len(mass) - missing
        rare = np.nonzero(mass[:levels] < RARE_IN_NOISE * noise)[0]
        if len(rare) > 1:
            assert (np.diff(bins[rare]) >= 0).all()
            assert len(np.unique(bins[rare])) <= 9
        own = np.bincount(bins)
        assert all(own[bins[i]] == 1 for i in range(levels) if len(rare) < 2 or i not in rare)
        if missing:
            assert own[bins[-1]] == 1

    def test_by_hand(self) -> None:
        assert merge_levels(np.array([50.0, 1, 60, 2, 5]), 1.0, True, most=1).tolist() == [0, 2, 1, 2, 3]
        assert merge_levels(np.array([50.0, 1, 60]), 1.0, False, most=1).tolist() == [0, 1, 2]
        assert merge_levels(np.array([1.0, 2]), 5.0, False, most=1).tolist() == [0, 0]
        # Two runs of half the rare mass; levels that are frequent enough to be alone do not end a run.
        rare = np.array([2.0, 1, 50, 1, 2, 2, 0])
        assert merge_levels(rare, 1.0, False, most=2).tolist() == [1, 1, 0, 1, 2, 2, 2]


class TestLevelBinsOfAHierarchy:
    @given(MASS, st.floats(0.01, 1e3), st.booleans(), st.data())
    def test_the_rare_share_bins_with_the_nearest(
        self, mass: np.ndarray, noise: float, missing: bool, data: st.DataObject
    ) -> None:
        """Against the definition: waiting levels, in the finest group that is frequent enough."""
        levels = len(mass) - missing
        fine = data.draw(st.lists(st.integers(-1, 5), min_size=levels, max_size=levels))
        coarse = [group // 2 for group in fine]
        rare = {i for i in range(levels) if mass[i] < RARE_IN_NOISE * noise}
        rare = rare if len(rare) > 1 else set()
        expected = {frozenset([i]) for i in range(levels) if i not in rare}
        waiting = set(rare)
        for groups in (fine, coarse):
            for own in [{i for i in waiting if groups[i] == group} for group in set(groups) - {-1}]:
                if own and sum(mass[sorted(own)]) >= RARE_IN_NOISE * noise:
                    expected.add(frozenset(own))
                    waiting -= own
        expected |= {frozenset(waiting)} if waiting else set()
        expected |= {frozenset([levels])} if missing else set()
        bins = merge_levels(mass, noise, missing, [fine, coarse], most=1)
        assert is_a_lookup(bins)
        assert {frozenset(np.nonzero(bins == b)[0].tolist()) for b in bins} == expected

    def test_by_hand(self) -> None:
        mass = np.array([50.0, 2, 2, 1, 1, 2, 1, 9])
        fine, coarse = [0, 0, 0, 1, 2, 2, 3, 3], [0, 0, 0, 1, 1, 1, -1, -1]
        # 1 and 2 are enough together, so are 4 and 5; 3 finds nobody left in its coarser group and stays with 6.
        assert merge_levels(mass, 1.0, False, [fine, coarse], most=1).tolist() == [0, 2, 2, 4, 3, 3, 4, 1]
        assert merge_levels(mass, 1.0, False, most=1).tolist() == [0, 2, 2, 2, 2, 2, 2, 1]


class TestSharesWithinBins:
    @given(MASS, st.data())
    def test_sum_to_one(self, mass: np.ndarray, data: st.DataObject) -> None:
        raw = data.draw(st.lists(st.integers(0, 4), min_size=len(mass), max_size=len(mass)))
        bins = np.unique(raw, return_inverse=True)[1]
        noise = data.draw(st.floats(0.01, 1e3))
        for share in (spread_within_bins(mass - 5, bins, noise), shares_of(mass, mass + 1, bins)):
            assert (share > 0).all()
            assert np.bincount(bins, weights=share) == pytest.approx(1)

    def test_noise_shrinks_them_to_an_even_spread(self) -> None:
        counts, bins = np.array([80.0, 20, 5]), np.array([0, 0, 1])
        almost = 1e-3  # the part that is always spread evenly
        assert spread_within_bins(counts, bins, 1e-6) == pytest.approx([0.8, 0.2, 1], abs=almost)
        assert spread_within_bins(counts, bins, 1e6) == pytest.approx([0.5, 0.5, 1], abs=almost)

    def test_an_empty_bin_is_spread_by_width(self) -> None:
        assert 0 < shares_of(np.array([5.0, 0.0]), np.array([1.0, 1e6]), np.zeros(2, dtype=int))[1] < 2e-5
        assert shares_of(np.zeros(3), np.array([1.0, 3.0, 2.0]), np.array([0, 0, 1])) == pytest.approx([0.25, 0.75, 1])


class TestShrunk:
    def test_by_hand(self) -> None:
        noised, towards = np.array([8.0, 2.0]), np.array([5.0, 6.0])
        # The differences 3 and -4 scatter by 25, noise of 2 explains 2 * 4 of it.
        assert shrunk(noised, towards, 2.0, 2) == pytest.approx([5 + 3 * 0.68, 6 - 4 * 0.68])
        assert shrunk(noised, towards, 10.0, 2) == pytest.approx(towards)
        assert shrunk(noised, towards, 1e-9, 2) == pytest.approx(noised)
        assert shrunk(towards, towards, 1.0, 2) == pytest.approx(towards)


def test_a_declared_hierarchy_places_the_measured_bins(toy_run: Any) -> None:
    """Fifty codes of four people each, far below what is measured alone, and two groups with a cause of their own."""
    codes = [f"{letter}{number:02d}" for number in range(25) for letter in "AB"]  # side by side they are not alike
    wards = {"A": "north", "B": "south"}
    columns = [
        {"name": "code", "kind": "categorical", "categories": codes, "hierarchy": {"prefix": 1}},
        {"name": "ward", "kind": "categorical", "categories": list(wards.values())},
    ]
    people = [(code, wards[code[0]]) for code in codes for _ in range(4)]
    found = {}
    for hierarchy in (True, False):
        raw = columns if hierarchy else [{k: v for k, v in columns[0].items() if k != "hierarchy"}, columns[1]]
        run = toy_run(parse_schema({"dataset": "toy", "columns": raw}, file="s"), epsilon=3.0)
        _, measured = run.measure([run.codes_of(person, i) for i, person in enumerate(people)])
        shared = measured.bin_of_cell["code"]
        found[hierarchy] = {(code[0], int(home)) for code, home in zip(codes, shared, strict=True)}
    of_group = {home: {letter for letter, own in found[True] if own == home} for _, home in found[True]}
    assert all(len(letters) == 1 for letters in of_group.values()) and len(of_group) >= 2
    assert any({("A", home), ("B", home)} <= found[False] for _, home in found[False])
