"""Distances worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.evaluate.distance import noise_distance, noisy_distance, total_variation

HISTOGRAMS = arrays(np.float64, 5, elements=st.floats(0.01, 1e6))


class TestTotalVariation:
    @pytest.mark.parametrize(
        ("first", "second", "distance"),
        [
            ([1, 1], [5, 5], 0.0),
            ([1, 0], [0, 7], 1.0),
            ([3, 1], [1, 1], 0.25),
            ([[2, 0], [0, 2]], [[1, 1], [1, 1]], 0.5),
        ],
    )
    def test_by_hand(self, first: list[float], second: list[float], distance: float) -> None:
        assert total_variation(first, second) == pytest.approx(distance)

    @given(HISTOGRAMS, HISTOGRAMS, HISTOGRAMS)
    def test_is_a_distance(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        assert 0 <= total_variation(a, b) <= 1
        assert total_variation(a, b) == pytest.approx(total_variation(b, a))
        assert total_variation(a, 3 * a) == pytest.approx(0, abs=1e-12)
        assert total_variation(a, c) <= total_variation(a, b) + total_variation(b, c) + 1e-12

    @pytest.mark.parametrize(("first", "second"), [([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, 1], [1, 1, 1])])
    def test_refuses_what_has_no_distance(self, first: list[float], second: list[float]) -> None:
        with pytest.raises(ValueError, match="histogram"):
            total_variation(first, second)


class TestNoisyDistance:
    def test_by_hand(self) -> None:
        assert noisy_distance([3, 1], [2.0, 2.0], 4.0) == pytest.approx(0.25)
        assert noisy_distance([3, 1], [-400.0, 400.0], 4.0) == 1.0
        assert noisy_distance([0, 0], [1.0, 1.0], 2.0) == pytest.approx(0.5)

    def test_what_noise_alone_would_show(self) -> None:
        rng = np.random.default_rng(0)
        exact, noise, total = np.full(200, 500.0), np.full(200, 30.0), 100_000.0
        shown = [noisy_distance(exact, exact + noise * rng.standard_normal(200), total) for _ in range(200)]
        assert noise_distance(noise, total) == pytest.approx(np.mean(shown), rel=0.02)

    def test_noise_by_hand(self) -> None:
        assert noise_distance([1.0, 3.0], 10.0) == pytest.approx(0.2 * math.sqrt(2 / math.pi))
        assert noise_distance([1e9], 10.0) == 1.0
