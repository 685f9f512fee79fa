"""What pairs imply of three columns, and the choice of the triples that differ from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.privacy.events import SelectionEvent
from synth.privacy.noise import NoiseSource
from synth.tables.measurements import PairTable
from synth.tables.pair_choice import distance_from
from synth.tables.triple_choice import (
    choose_triples,
    grouped_pairs,
    implied_triples,
    without_interaction,
)


class Known:
    """What is measured of single columns and pairs: one class, exact profiles, pairs with noise."""

    def __init__(self, shares: Mapping[str, np.ndarray], pairs: Mapping[tuple[str, str], np.ndarray], noise: float):
        self.total = 10_000.0
        self.class_sizes = np.array([self.total])
        self.profiles = {name: share[None] for name, share in shares.items()}
        self.pairs = {pair: PairTable(None, 0.0, table, noise) for pair, table in pairs.items()}


def pairs_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return table.sum(axis=0), table.sum(axis=1), table.sum(axis=2)


def implied(table: np.ndarray) -> np.ndarray:
    return without_interaction(*(pair[None] for pair in pairs_of(table)))[0]


class TestWithoutInteraction:
    @given(arrays(float, (3, 2, 4), elements=st.floats(1, 100)))
    def test_has_the_pairs_and_no_interaction(self, table: np.ndarray) -> None:
        found = implied(table)
        for wanted, pair in zip(pairs_of(table), pairs_of(found), strict=True):
            assert pair == pytest.approx(wanted, rel=0.02)
        # Every ratio of odds ratios is one: there is no term of all three columns.
        log = np.log(found)
        for i, k in itertools.product(range(2), range(3)):
            ratio = [log[i, 0, z] - log[i + 1, 0, z] - log[i, 1, z] + log[i + 1, 1, z] for z in (k, k + 1)]
            assert ratio[0] == pytest.approx(ratio[1], abs=1e-6)

    def test_of_independent_columns_it_is_their_product(self) -> None:
        table = 1000 * np.einsum("a,b,c->abc", [0.2, 0.8], [0.5, 0.3, 0.2], [0.9, 0.1])
        assert implied(table) == pytest.approx(table)

    def test_of_a_parity_it_is_even(self) -> None:
        table = np.array([[[50.0, 0], [0, 50]], [[0, 50], [50, 0]]])
        assert implied(table) == pytest.approx(np.full((2, 2, 2), 25.0))

    def test_a_level_that_nobody_has_stays_empty(self) -> None:
        table = np.zeros((2, 2, 2))
        table[0] = [[30, 10], [5, 55]]
        assert implied(table) == pytest.approx(table)


class TestGroupedPairs:
    def test_are_nearer_to_the_truth_than_the_noised_table(self) -> None:
        """Whether two columns are independent or not."""
        rng = np.random.default_rng(0)
        share = np.full(8, 1 / 8)
        for slope in (0.0, 0.6):
            tilt = 1 + slope * np.outer(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8))
            truth = 10_000 / 64 * tilt
            noised = truth + rng.normal(0, 60, size=truth.shape)
            known = Known({"a": share, "b": share}, {("a", "b"): noised}, 60.0)
            found = grouped_pairs(known, {"a": np.arange(8), "b": np.arange(8)})["a", "b"]  # type: ignore[arg-type]
            assert np.abs(found - truth).sum() < 0.8 * np.abs(noised - truth).sum()
            assert (found >= 0).all()
            assert found.sum() == pytest.approx(10_000)

    def test_without_noise_they_are_what_was_measured(self) -> None:
        table = np.array([[4000.0, 1000], [2000, 3000]])
        shares = {"a": table.sum(axis=1) / 1e4, "b": table.sum(axis=0) / 1e4}
        found = grouped_pairs(Known(shares, {("a", "b"): table}, 1e-6), {"a": np.arange(2), "b": np.arange(2)})  # type: ignore[arg-type]
        assert found["a", "b"] == pytest.approx(table, rel=1e-6)

    def test_bins_are_added_up_and_unmeasured_pairs_are_independent(self) -> None:
        shares = {"a": np.array([0.1, 0.2, 0.7]), "b": np.array([0.4, 0.6])}
        groups = {"a": np.array([0, 1, 0]), "b": np.array([0, 1])}
        found = grouped_pairs(Known(shares, {}, 1.0), groups)["a", "b"]  # type: ignore[arg-type]
        assert found == pytest.approx(10_000 * np.outer([0.8, 0.2], [0.4, 0.6]))


def event(selections: int, noise_scale: float) -> SelectionEvent:
    return SelectionEvent(
        name="s", selections=selections, sensitivity=1, replace_one_sensitivity=2, noise_scale=noise_scale
    )


class TestScores:
    @given(data=st.data())
    def test_one_row_moves_a_score_by_one_at_most(self, data: st.DataObject) -> None:
        counts = data.draw(arrays(np.int64, (2, 3, 2), elements=st.integers(0, 1000)))
        expected = data.draw(arrays(float, (2, 3, 2), elements=st.floats(0, 1000)))
        more = counts.copy()
        more[data.draw(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 1)))] += 1
        found = [distance_from(expected, table) for table in (counts, more)]
        assert abs(found[0][0] - found[1][0]) <= 1
        assert found[0][1] == found[1][1]

    def test_are_a_distance_and_that_of_chance(self) -> None:
        expected = np.full((2, 2, 2), 100.0)
        counts = expected.astype(np.int64)
        counts[0, 0, 0] += 30
        assert distance_from(expected, counts) == (30, pytest.approx(8 * math.sqrt(2 * 100 / math.pi)))

    def test_chance_alone_is_worth_nothing(self) -> None:
        rng = np.random.default_rng(1)
        expected = np.full((6, 6, 6), 40.0)
        scores = np.array([np.subtract(*distance_from(expected, rng.poisson(expected))) for _ in range(200)])
        # A score has a standard deviation of about the root of 216 · 40 · (1 − 2/π).
        assert abs(scores.mean()) < 5 * math.sqrt(216 * 40 * 0.363 / 200)

    def test_a_parity_stands_out_among_independent_columns(self) -> None:
        rng = np.random.default_rng(2)
        table = rng.integers(0, 2, size=(10_000, 5))
        table[:, 4] = table[:, 1] ^ table[:, 2]
        names = "abcde"
        exact, pairs = {}, {}
        for three in itertools.combinations(range(5), 3):
            cells = np.ravel_multi_index(table[:, three].T, (2, 2, 2))
            exact[names[three[0]], names[three[1]], names[three[2]]] = np.bincount(cells, minlength=8).reshape(2, 2, 2)
        for one, two in itertools.combinations(range(5), 2):
            counts = np.bincount(2 * table[:, one] + table[:, two], minlength=4).reshape(2, 2)
            pairs[names[one], names[two]] = counts + rng.normal(0, 30, size=(2, 2))
        known: Any = Known(dict.fromkeys(names, np.full(2, 0.5)), pairs, 30.0)
        groups = dict.fromkeys(names, np.arange(2))
        expected = implied_triples(known, groups, list(exact))
        scores = np.array([np.subtract(*distance_from(expected[triple], counts)) for triple, counts in exact.items()])
        assert [*exact][int(np.argmax(scores))] == ("b", "c", "e")
        assert np.sort(scores)[-1] > 10 * abs(np.sort(scores)[-2])


class TestChoice:
    @given(st.integers(1, 30), st.integers(0, 2**31))
    def test_each_at_most_once_in_order(self, selections: int, seed: int) -> None:
        worth = np.random.default_rng(seed).normal(size=30)
        chosen = choose_triples(worth, event(selections, 1.0), NoiseSource())
        assert len(chosen) == selections
        assert chosen == sorted(set(chosen))

    def test_without_noise_the_best(self) -> None:
        worth = np.array([3.0, 900, -5, 800, 700])
        assert choose_triples(worth, event(3, 1e-3), NoiseSource()) == [1, 3, 4]

    def test_much_noise_takes_any(self) -> None:
        found = {choose_triples(np.array([0.0, 100.0]), event(1, 1e6), NoiseSource())[0] for _ in range(60)}
        assert found == {0, 1}
