"""Sums and draws over the tree of rules against the enumeration of all states."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from synth.tables.rule_tree import Factor, Pair, Together, tree_of

NAMES = ("a", "b", "c", "d", "e")
POINTS = 3


def weight(factors: list[Factor], states: dict[str, int]) -> float:
    """1 where all factors hold, else 0."""
    found = 1.0
    for factor in factors:
        if isinstance(factor, Pair):
            one, two = factor.columns
            found *= factor.table[states[one], states[two]]
        else:
            found *= 1 - min(factor.inside[name][states[name]] for name in factor.columns)
    return found


def enumerated(shares: dict[str, np.ndarray], factors: list[Factor], point: int) -> dict[tuple[int, ...], float]:
    sizes = [range(shares[name].shape[1]) for name in NAMES]
    return {
        states: float(np.prod([shares[name][point, s] for name, s in zip(NAMES, states, strict=True)]))
        * weight(factors, dict(zip(NAMES, states, strict=True)))
        for states in itertools.product(*sizes)
    }


@st.composite
def forests(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], list[Factor]]:
    """Shares of five columns and factors that join new columns to old ones, so that no circle closes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = {name: rng.dirichlet(np.ones(int(rng.integers(2, 5))), POINTS) for name in NAMES}
    size = {name: shares[name].shape[1] for name in NAMES}
    factors: list[Factor] = []
    order = draw(st.permutations(NAMES))
    joined, left = [order[0]], list(order[1:])
    while left:
        count = min(draw(st.integers(0, 3)), len(left))
        new, left = left[: max(count, 1)], left[max(count, 1) :]
        columns = tuple(draw(st.permutations([draw(st.sampled_from(joined)), *new])))
        joined += new
        if count == 0:
            continue  # a column by itself
        if len(columns) == 2:
            table = (rng.random((size[columns[0]], size[columns[1]])) < 0.7).astype(float)
            factors.append(Pair((columns[0], columns[1]), table))
        else:
            factors.append(Together(columns, {n: (rng.random(size[n]) < 0.6).astype(float) for n in columns}))
    return shares, factors


@given(forests())
def test_probability_is_the_sum_over_all_states(made: tuple[dict[str, np.ndarray], list[Factor]]) -> None:
    shares, factors = made
    tree = tree_of(NAMES, factors)
    found = tree.probability(tree.upward(shares))
    for point in range(POINTS):
        assert np.isclose(found[point], sum(enumerated(shares, factors, point).values()), rtol=1e-9, atol=1e-12)


def test_draws_follow_the_enumeration() -> None:
    """Three columns that are never together, a chain behind one of them, and a column by itself; fixed seed."""
    rng = np.random.default_rng(1)
    shares = {name: rng.dirichlet(np.ones(3), POINTS) for name in NAMES}
    factors: list[Factor] = [
        Together(("a", "b", "c"), {"a": np.array([1.0, 1, 0]), "b": np.array([1.0, 0, 1]), "c": np.array([0.0, 1, 1])}),
        Pair(("d", "c"), np.array([[1.0, 0, 1], [0, 1, 0], [1, 1, 0]])),
    ]
    tree = tree_of(NAMES, factors)
    up = tree.upward(shares)
    for rows in (2, 20_000):  # fewer and more than points
        point = np.sort(np.arange(rows) % POINTS)
        states = tree.draw(up, point, rng)
        for k in range(POINTS):
            expected = enumerated(shares, factors, k)
            some = list(zip(*(states[name][point == k] for name in NAMES), strict=True))
            assert all(expected[tuple(map(int, row))] > 0 for row in some)
            hoped = np.array([*expected.values()])
            hoped *= len(some) / hoped.sum()
            if rows > 100:
                seen = np.array([some.count(row) for row in expected])
                often = hoped >= 5
                seen, hoped = np.append(seen[often], seen[~often].sum()), np.append(hoped[often], hoped[~often].sum())
                assert stats.chisquare(seen[hoped > 0], hoped[hoped > 0]).pvalue > 1e-6


def test_a_factor_that_closes_a_circle_is_left_out() -> None:
    every = np.ones((2, 2))
    factors = [Pair(("a", "b"), every), Pair(("b", "c"), every), Pair(("a", "c"), every)]
    tree = tree_of(("a", "b", "c"), factors)
    assert [branch.factor for branch in tree.branches] == factors[:2]
    assert tree.roots == ("a",)
