"""Drawing from the mixture, and the sweep that removes sampling noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from synth.tables import sample
from synth.tables.sample import bins_at, draw_bins, draw_points, split_by_share

SIZES = (3, 4, 2)
UNLIKELY = 1e-6


@pytest.fixture(scope="module")
def mixture() -> tuple[np.ndarray, np.ndarray]:
    """Column distributions of five latent points [K, D], and their weights."""
    rng = np.random.default_rng(2)
    columns = [rng.dirichlet(np.full(size, 0.5), 5) for size in SIZES]
    return np.concatenate(columns, axis=1).astype(np.float32), np.array([0.4, 0.3, 0.2, 0.1, 0.0])


def joint(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mixture's probability of every row, by enumeration."""
    table = np.zeros(SIZES)
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    for row in itertools.product(*map(range, SIZES)):
        places = [offsets[j] + bin_ for j, bin_ in enumerate(row)]
        table[row] = (weights * shares[:, places].astype(float).prod(axis=1)).sum()
    return table


def table_of(bins: np.ndarray) -> np.ndarray:
    table = np.zeros(SIZES)
    np.add.at(table, tuple(bins.T), 1)
    return table


def residual(bins: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> float:
    """Squared residual of all pair counts against the model's."""
    exact, found = len(bins) * joint(shares, weights), table_of(bins)
    return sum(((found.sum(axis=axis) - exact.sum(axis=axis)) ** 2).sum() for axis in range(3))


class TestSplit:
    @given(st.integers(0, 10_000), st.lists(st.floats(0, 10), min_size=1, max_size=8), st.integers(0, 99))
    def test_is_whole_and_near_the_shares(self, total: int, share: list[float], seed: int) -> None:
        shares = np.array(share) + 1e-6
        groups = split_by_share(total, shares, np.random.default_rng(seed))
        assert groups.sum() == total
        assert np.all(np.abs(groups - total * shares / shares.sum()) < 1 + 1e-6)
        assert np.all(groups >= 0)

    def test_rounds_at_random(self) -> None:
        rng = np.random.default_rng(0)
        drawn = np.array([split_by_share(1, np.array([0.3, 0.7]), rng)[0] for _ in range(3000)])
        assert drawn.mean() == pytest.approx(0.3, abs=0.05)

    def test_a_group_without_share_gets_nothing(self) -> None:
        groups = split_by_share(1000, np.array([0.5, 0.0, 0.5]), np.random.default_rng(0))
        assert groups.tolist() == [500, 0, 500]


class TestDraws:
    @pytest.mark.parametrize("rows", [0, 1, 2, 57])
    def test_shape_and_range(self, mixture: tuple[np.ndarray, np.ndarray], rows: int) -> None:
        bins = draw_bins(rows, *mixture, SIZES, np.random.default_rng(0))
        assert bins.shape == (rows, 3)
        assert np.all((bins >= 0) & (bins < np.array(SIZES)))

    def test_the_same_seed_draws_the_same_rows(self, mixture: tuple[np.ndarray, np.ndarray]) -> None:
        first, second, third = (draw_bins(200, *mixture, SIZES, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, second)
        assert not np.array_equal(first, third)

    def test_single_rows_follow_the_mixture(self, mixture: tuple[np.ndarray, np.ndarray]) -> None:
        rng = np.random.default_rng(3)
        rows = np.concatenate([draw_bins(1, *mixture, SIZES, rng) for _ in range(6000)])
        expected = 6000 * joint(*mixture)
        enough = expected > 5
        found = np.append(table_of(rows)[enough], table_of(rows)[~enough].sum())
        expected = np.append(expected[enough], max(expected[~enough].sum(), 1e-9))
        assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > UNLIKELY

    def test_many_rows_follow_it_more_closely_than_chance(self, mixture: tuple[np.ndarray, np.ndarray]) -> None:
        shares, weights = mixture
        bins = draw_bins(20_000, shares, weights, SIZES, np.random.default_rng(4))
        distance = 0.5 * np.abs(table_of(bins) / 20_000 - joint(shares, weights)).sum()
        assert distance < 0.02

    def test_a_point_without_weight_is_never_drawn(self) -> None:
        shares = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], dtype=np.float32)
        bins = draw_bins(500, shares, np.array([0.0, 1.0]), (2, 2), np.random.default_rng(0))
        assert np.all(bins == 1)

    def test_a_bin_without_factor_is_never_drawn(self, mixture: tuple[np.ndarray, np.ndarray]) -> None:
        shares, weights = mixture
        rng = np.random.default_rng(0)
        point = draw_points(300, weights, rng)
        bins = bins_at(point, shares, SIZES, rng, factors={1: np.array([0.0, 0.0, 3.0, 0.0])})
        assert np.all(bins[:, 1] == 2)
        assert len(np.unique(bins[:, 0])) == 3

    def test_factors_weigh_bins(self, mixture: tuple[np.ndarray, np.ndarray]) -> None:
        shares, _ = mixture
        factor = np.array([0.5, 2.0, 0.0])
        point = np.repeat(np.arange(5), 4000)
        bins = bins_at(point, shares, SIZES, np.random.default_rng(1), factors={0: factor})
        for k in range(5):
            expected = shares[k, :3] * factor
            found = np.bincount(bins[point == k, 0], minlength=3) / 4000
            assert found == pytest.approx(expected / expected.sum(), abs=0.045)


class TestRefinement:
    @pytest.mark.parametrize("rows", [50, 400, 3000])
    def test_lowers_the_squared_residual_of_pair_counts(
        self, mixture: tuple[np.ndarray, np.ndarray], rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def drawn() -> float:
            seeds = (np.random.default_rng(seed) for seed in range(4))
            return float(np.mean([residual(draw_bins(rows, *mixture, SIZES, rng), *mixture) for rng in seeds]))

        refined = drawn()
        monkeypatch.setattr(sample, "SWEEPS", 0)
        assert refined < 0.6 * drawn()

    def test_keeps_its_books(self, mixture: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
        """Proposals taken one by one never raise the residual that a slow recount finds."""
        shares, weights = mixture
        monkeypatch.setattr(sample, "PROPOSALS_AT_ONCE", 1)
        last = np.inf
        for sweeps in range(4):
            monkeypatch.setattr(sample, "SWEEPS", sweeps)
            total = full_residual(draw_bins(60, shares, weights, SIZES, np.random.default_rng(7)), shares, weights)
            assert total <= last + 1e-6
            last = total

    def test_sees_nothing_but_the_model(self, mixture: tuple[np.ndarray, np.ndarray]) -> None:
        shares, weights = mixture[0].copy(), mixture[1].copy()
        draw_bins(500, shares, weights, SIZES, np.random.default_rng(0))
        assert np.array_equal(shares, mixture[0])
        assert np.array_equal(weights, mixture[1])


def full_residual(bins: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> float:
    """Squared residual of pair counts (each counted in both orders) and one-way counts."""
    exact, found = len(bins) * joint(shares, weights), table_of(bins)
    pairs = sum(((found.sum(axis=axis) - exact.sum(axis=axis)) ** 2).sum() for axis in range(3))
    ones = sum(
        ((found.sum(axis=axes) - exact.sum(axis=axes)) ** 2).sum() for axes in itertools.combinations(range(3), 2)
    )
    return float(2 * pairs + ones)
