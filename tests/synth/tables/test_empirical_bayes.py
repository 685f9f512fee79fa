"""Many noised values at once: what they say of each, beside a slow twin and counts that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.tables.bins import shrunk
from synth.tables.empirical_bayes import EM_STEPS, FACTORS, expected_counts, factors_of, mixed


def test_chances_are_those_of_a_slow_loop() -> None:
    likelihood = np.random.default_rng(0).normal(0, 2, size=(5, 3))
    share = [1 / 3] * 3
    for step in range(EM_STEPS + 1):
        chances = []
        for row in likelihood:
            joint = [math.exp(value) * part for value, part in zip(row, share, strict=True)]
            chances.append([value / sum(joint) for value in joint])
        if step < EM_STEPS:
            share = [(sum(chance[k] for chance in chances) + 1 / 3) / 6 for k in range(3)]
    assert mixed(likelihood) == pytest.approx(np.array(chances))


@given(arrays(np.float64, st.integers(1, 80), elements=st.floats(-1e4, 1e6)), st.floats(1e-3, 1e4))
def test_counts_are_possible_and_in_the_order_of_what_was_seen(noised: np.ndarray, noise: float) -> None:
    counts = expected_counts(noised, noise)
    assert (counts >= 0).all()
    assert counts.max() <= max(noised.max(), noise) * (1 + 1e-9)
    assert (np.diff(counts[np.argsort(noised, kind="stable")]) >= -1e-6 * (1 + counts.max())).all()


def test_without_noise_counts_are_what_was_seen() -> None:
    noised = np.array([0.0, 3, 250, 251, 10_000])
    assert expected_counts(noised, 1e-4) == pytest.approx(noised, abs=1e-3)


def test_a_long_tail_is_nearer_than_shrinking_all_alike() -> None:
    # 300 levels, each half as common as one at half its place: few are common, most are in the noise.
    counts, noise = 2000 / np.arange(1, 301), 30.0
    rng = np.random.default_rng(1)
    distances = np.zeros(3)
    for _ in range(20):
        noised = counts + noise * rng.standard_normal(len(counts))
        alike = np.maximum(shrunk(noised, np.full(len(counts), noised.mean()), noise, len(counts) - 1), 0)
        for k, guess in enumerate((expected_counts(noised, noise), alike, np.maximum(noised, 0))):
            distances[k] += np.abs(guess - counts).sum()
    assert distances[0] < 0.7 * distances[1:].min()


class TestFactors:
    @given(
        arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e4, 1e4)),
        st.floats(1e-2, 1e3),
        st.floats(1e-9, 1e4),
    )
    @example(np.array([-1e4]), 1.0, 1.0)  # whose mean rounds to less than the least factor
    def test_lie_among_those_that_can_be(self, noised: np.ndarray, noise: float, height: float) -> None:
        factors = factors_of(noised, np.full(len(noised), noise), np.full(len(noised), height))
        assert ((factors >= FACTORS.min()) & (factors <= FACTORS.max())).all()

    def test_are_one_where_the_counts_lie_on_the_curve(self) -> None:
        rng = np.random.default_rng(0)
        curve, noise = 200 * np.exp(-(np.linspace(-2, 2, 200) ** 2)), np.full(200, 40.0)
        for _ in range(10):
            assert (factors_of(curve + noise * rng.standard_normal(200), noise, curve) == 1).all()

    def test_are_the_counts_own_without_noise(self) -> None:
        curve = np.full(100, 1000.0)
        factors = np.where(np.arange(100) % 5, FACTORS[20], FACTORS[40])
        assert factors_of(factors * curve, np.full(100, 1.0), curve) == pytest.approx(factors, rel=1e-6)
