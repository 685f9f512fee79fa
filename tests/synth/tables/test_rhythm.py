"""Factors of last digits from noised counts. Seeds are fixed, so every result is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.tables.rhythm import LEAST_FACTOR, STRENGTHS, rhythm_of

PLACE = np.arange(120) % 10
CURVE = 150 * np.exp(-(np.linspace(-2, 2, 120) ** 2))
HEAPED = np.array([3.0, 0.4, 0.8, 0.4, 0.8, 1.6, 0.8, 0.4, 0.8, 1.0])


@settings(max_examples=60)
@given(
    arrays(np.float64, 40, elements=st.floats(-1e6, 1e6)),
    arrays(np.float64, 40, elements=st.floats(1e-3, 1e3)),
    arrays(np.float64, 40, elements=st.floats(1e-12, 1e6)),
)
def test_are_factors(noised: np.ndarray, noise: np.ndarray, curve: np.ndarray) -> None:
    found = rhythm_of(noised, noise, curve, np.arange(40) % 10)
    assert found.shape == (10,)
    assert np.isfinite(found).all() and (found >= LEAST_FACTOR).all()


def test_finds_the_factors() -> None:
    noised = CURVE * HEAPED[PLACE] + 10 * np.random.default_rng(0).standard_normal(120)
    assert rhythm_of(noised, np.full(120, 10.0), CURVE, PLACE) == pytest.approx(HEAPED, abs=0.15)


def test_a_crowd_on_one_value_is_no_rhythm() -> None:
    """Half of all people say 40: that says nothing about 30 and 50."""
    noised = CURVE + 10 * np.random.default_rng(1).standard_normal(120)
    noised[60] += CURVE.sum()
    assert rhythm_of(noised, np.full(120, 10.0), CURVE, PLACE).tolist() == [1.0] * 10


def test_a_curve_that_misses_a_few_cells_is_no_rhythm() -> None:
    """Beside a crowd at the end the curve is too high: that says nothing about cells of the same places elsewhere."""
    curve = np.where(np.arange(120) < 114, 5.0, 400.0)
    noised = 5 + 50 * np.random.default_rng(3).standard_normal(120)
    assert rhythm_of(noised, np.full(120, 50.0), curve, PLACE).tolist() == [1.0] * 10


def test_noise_alone_shows_none() -> None:
    alarms = sum(
        (rhythm_of(CURVE + 60 * noise, np.full(120, 60.0), CURVE, PLACE) != 1).any()
        for noise in np.random.default_rng(2).standard_normal((200, 120))
    )
    assert alarms <= 2


def test_twin_without_single_values() -> None:
    """Where no cell is far off, a factor is the mean of a normal one given its least squares, written out."""
    factors = 1 + 0.2 * np.array([1.0, -1, 0.5, -0.5, 0, 1, -1, 0.5, -0.5, 0])
    curve, noise = CURVE + 50, np.linspace(8, 12, 120)
    noised = curve * factors[PLACE] + 0.5 * noise * np.sin(np.arange(120))
    seen, variance = np.empty(10), np.empty(10)
    for p in range(10):
        known = sum((curve[i] / noise[i]) ** 2 for i in range(p, 120, 10))
        seen[p] = sum(noised[i] * curve[i] / noise[i] ** 2 for i in range(p, 120, 10)) / known
        variance[p] = 1 / known
    seen_and_variance = list(zip(seen, variance, strict=True))
    chances = [
        math.prod(math.exp(-((s - 1) ** 2) / (2 * (t**2 + v))) / math.sqrt(t**2 + v) for s, v in seen_and_variance)
        for t in STRENGTHS
    ]
    found = rhythm_of(noised, noise, curve, PLACE)
    for p in range(10):
        means = [1 + t**2 / (t**2 + variance[p]) * (seen[p] - 1) for t in STRENGTHS]
        assert found[p] == pytest.approx(np.average(means, weights=chances), rel=1e-9)
