"""Histograms from noised counts: a smooth curve and single values. Seeds are fixed, so every result is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.tables.denoise import BinCounts, denoise

NOISED = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e4, 1e4))
PLACE = np.linspace(-3, 3, 300)
BELL = 200 * np.exp(-(PLACE**2))


@settings(max_examples=40)
@given(NOISED, st.floats(0.01, 1e3), st.floats(1, 1e6), st.data())
def test_gives_a_histogram_of_the_same_cells_and_total(
    noised: np.ndarray, noise: float, total: float, data: st.DataObject
) -> None:
    widths = data.draw(arrays(np.float64, len(noised), elements=st.floats(1e-6, 1e6)))
    estimate = denoise(noised, noise, widths, total)
    assert estimate.mass.shape == estimate.stands_out.shape == noised.shape
    assert (estimate.mass > 0).all()
    assert estimate.mass.sum() == pytest.approx(total)


def test_brings_a_smooth_histogram_and_a_single_value_nearer() -> None:
    exact = BELL.copy()
    exact[40] += 2000
    noised = exact + 20 * np.random.default_rng(0).standard_normal(300)
    estimate = denoise(noised, 20.0, np.ones(300), exact.sum())
    assert np.square(estimate.mass - exact).mean() < 0.1 * np.square(noised - exact).mean()
    assert np.nonzero(estimate.stands_out)[0].tolist() == [40]
    assert estimate.mass[40] == pytest.approx(exact[40], rel=0.05)


def test_without_noise_the_counts_come_back() -> None:
    exact = 1000 + 5 * (np.arange(200) % 7)
    estimate = denoise(exact.astype(float), 1e-3, np.ones(200), float(exact.sum()))
    assert estimate.mass == pytest.approx(exact, rel=0.02)


def test_cells_follow_their_widths() -> None:
    """An even density stays even where cells grow."""
    widths = np.repeat([1.0, 3.0, 10.0], 40)
    exact = 20 * widths
    noised = exact + 5 * np.random.default_rng(1).standard_normal(120)
    assert denoise(noised, 5.0, widths, exact.sum()).mass == pytest.approx(exact, rel=0.1)


def test_empty_tails_become_nearly_empty() -> None:
    noised = np.concatenate([np.full(64, 500.0), np.zeros(192)]) + np.random.default_rng(1).standard_normal(256)
    assert denoise(noised, 1.0, np.ones(256), 32_000.0).mass[100:].sum() < 0.1 * np.maximum(noised[100:], 0).sum()


def test_a_second_release_is_used() -> None:
    rng = np.random.default_rng(2)
    noised = BELL + 60 * rng.standard_normal(300)
    lookup = np.arange(300) // 20
    binned = BinCounts(lookup, np.bincount(lookup, weights=BELL) + 5 * rng.standard_normal(15), 5.0)
    errors = [
        np.abs(denoise(noised, 60.0, np.ones(300), BELL.sum(), binned=b).mass - BELL).sum() for b in ([], [binned])
    ]
    assert errors[1] < 0.5 * errors[0]


def test_runs_of_cells_know_an_empty_tail_better() -> None:
    exact = np.concatenate([np.full(40, 100.0), np.zeros(216)])
    run = np.arange(256) // 32
    tails = np.zeros((20, 2))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counted = BinCounts(run, np.bincount(run, weights=exact) + 80 * rng.standard_normal(8), 80.0)
        noised = exact + 50 * rng.standard_normal(256)
        for i, binned in enumerate(([], [counted])):
            tails[seed, i] = denoise(noised, 50.0, np.ones(256), 4000.0, binned=binned).mass[64:].sum()
    assert tails[:, 1].mean() < 0.7 * tails[:, 0].mean()


def test_a_crowd_on_one_value_is_not_spread_over_its_run() -> None:
    """Of hours a week: half of all people say 40."""
    exact = 40_000 * np.exp(-((np.arange(98) - 40) ** 2) / 450)
    exact *= 20_000 / exact.sum()
    exact[40] += 20_000
    for runs in (8, 12):
        run = np.arange(98) * runs // 98
        for seed in range(5):
            rng = np.random.default_rng(seed)
            counted = BinCounts(run, np.bincount(run, weights=exact) + 200 * rng.standard_normal(runs), 200.0)
            noised = exact + 150 * rng.standard_normal(98)
            estimate = denoise(noised, 150.0, np.ones(98), 40_000.0, binned=[counted])
            assert estimate.stands_out[40] and np.abs(estimate.mass - exact).sum() < 0.08 * 40_000


def test_a_single_value_with_a_bin_of_its_own_was_counted_twice() -> None:
    exact = np.full(60, 100.0)
    exact[30] = 1000.0
    lookup = np.repeat([0, 1, 2], [30, 1, 29])
    sums = np.bincount(lookup, weights=exact)
    noised = exact + np.where(np.arange(60) == 30, 90.0, 0.0)
    estimate = denoise(noised, 10.0, np.ones(60), exact.sum(), binned=[BinCounts(lookup, sums, 10.0)])
    assert estimate.stands_out[30]
    # The two counts, 1,090 and 1,000, weigh the same.
    assert estimate.mass[30] == pytest.approx(1045, rel=0.01)


def test_values_that_people_round_to_are_seen_together() -> None:
    """Three of four people say an even number: none stands out of the noise by itself, all of them together do."""
    exact = BELL * np.where(np.arange(300) % 2, 0.5, 1.5)
    noised = exact + 60 * np.random.default_rng(3).standard_normal(300)
    lookup = np.arange(300) // 20
    sums = np.bincount(lookup, weights=exact)
    for binned in ([], [BinCounts(lookup, sums, 5.0)]):
        estimate = denoise(noised, 60.0, np.ones(300), exact.sum(), binned=binned)
        assert not estimate.stands_out[:120].any()
        assert np.abs(estimate.mass - exact).sum() < 0.75 * np.abs(BELL - exact).sum()
    # Within a bin they take it from the others: the bins were counted too.
    assert np.bincount(lookup, weights=estimate.mass) == pytest.approx(sums, abs=50)


def test_last_digits_are_seen_together() -> None:
    """A third of all heart rates end in 0: few of them stand out of the noise."""
    place = np.arange(300) % 10
    exact = BELL * np.array([3.2, 0.3, 0.8, 0.3, 1.1, 1.7, 1.0, 0.3, 0.9, 0.4])[place]
    errors = np.zeros(2)
    for seed in range(5):
        noised = exact + 60 * np.random.default_rng(seed).standard_normal(300)
        for i, places in enumerate((None, place)):
            errors[i] += np.abs(denoise(noised, 60.0, np.ones(300), exact.sum(), place=places).mass - exact).sum()
    assert errors[1] < 0.5 * errors[0]
