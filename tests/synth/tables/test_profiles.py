"""Shares within classes from noised histograms. Seeds are fixed, so every result is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synth.tables import profiles
from synth.tables.profiles import LENGTH, ByClass, class_profiles

SIZES = np.array([700.0, 300.0])
TREND = np.linspace(0.7, 1.3, 12)
EXACT = np.stack([SIZES[0] * TREND, SIZES[1] * TREND[::-1]]) / 12


@settings(max_examples=40)
@given(
    st.integers(1, 4).flatmap(
        lambda classes: st.tuples(
            arrays(np.float64, classes, elements=st.sampled_from([0.0, 1.0, 1e5])).filter(
                lambda sizes: sizes.sum() > 0
            ),
            st.lists(
                arrays(np.float64, st.tuples(st.just(classes), st.integers(1, 9)), elements=st.floats(-1e4, 1e4)),
                min_size=1,
                max_size=3,
            ),
        )
    ),
    st.floats(1e-2, 1e4),
    st.integers(0, 9),
)
def test_are_distributions(drawn: tuple[np.ndarray, list[np.ndarray]], noise: float, ordered: int) -> None:
    sizes, tables = drawn
    columns = {str(i): ByClass(t, noise, t.sum(axis=0), min(ordered, t.shape[1])) for i, t in enumerate(tables)}
    found = class_profiles(columns, sizes)
    assert list(found) == list(columns)
    for name, profile in found.items():
        assert profile.shape == columns[name].noised.shape
        assert (profile > 0).all()
        assert profile.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("ordered", [0, 12])
def test_without_noise_every_class_is_as_it_is(ordered: int) -> None:
    found = class_profiles({"a": ByClass(EXACT, 1e-3, EXACT.sum(axis=0), ordered)}, SIZES)["a"]
    assert found == pytest.approx(EXACT / SIZES[:, None], rel=1e-3)


def test_what_noise_explains_is_shrunk_to_the_whole() -> None:
    even = np.outer(SIZES, np.full(12, 1 / 12))
    columns = {
        str(i): ByClass(even + 20 * np.random.default_rng(i).standard_normal(even.shape), 20.0, even.sum(axis=0), 12)
        for i in range(8)
    }
    for name, profile in class_profiles(columns, SIZES).items():
        raw = columns[name].noised / SIZES[:, None]
        assert np.abs(profile - 1 / 12).sum() < 0.3 * np.abs(raw - 1 / 12).sum()


def test_a_trend_is_kept() -> None:
    noise = np.random.default_rng(3).standard_normal((8, *EXACT.shape))
    columns = {str(i): ByClass(EXACT + 15 * n, 15.0, EXACT.sum(axis=0), 12) for i, n in enumerate(noise)}
    exact = EXACT / SIZES[:, None]
    found = np.mean([np.abs(profile - exact).sum() for profile in class_profiles(columns, SIZES).values()])
    assert found < 0.5 * np.mean([np.abs(c.noised / SIZES[:, None] - exact).sum() for c in columns.values()])


def test_one_class_is_the_whole() -> None:
    summed = np.array([10.0, 30.0, 60.0])
    found = class_profiles({"a": ByClass(np.array([[1.0, 2.0, 3.0]]), 5.0, summed, 0)}, np.array([100.0]))
    assert found["a"] == pytest.approx(np.array([[0.1, 0.3, 0.6]]), abs=1e-5)


@pytest.mark.parametrize(("ordered", "along"), [(5, 0.3), (0, 0.0)])
def test_twin_with_known_strengths(monkeypatch: pytest.MonkeyPatch, ordered: int, along: float) -> None:
    """With one pair of strengths the estimate is the mean of a Gaussian given its noised value, written out."""
    monkeypatch.setattr(profiles, "STRENGTHS", (0.3,))
    noised = np.array([[30.0, 20.0, 12.0, 40.0, 18.0, 5.0], [60.0, 70.0, 30.0, 10.0, 9.0, 11.0]])
    sizes, summed, noise = np.array([125.0, 190.0]), np.array([90.0, 80.0, 40.0, 60.0, 30.0, 15.0]), 6.0
    found = class_profiles({"a": ByClass(noised, noise, summed, ordered)}, sizes)["a"]
    whole, part = summed / 315, sizes / 315
    means = []
    for c in range(2):
        factors = np.zeros((6, 6))
        for i in range(6):
            for j in range(6):
                if i < ordered and j < ordered:
                    factors[i, j] += along**2 * np.exp(-(((i - j) / ordered / LENGTH) ** 2) / 2)
                factors[i, j] += 0.3**2 * (i == j)
        prior = sizes[c] ** 2 * np.diag(whole) @ factors @ np.diag(whole)
        other = 1 - c
        # The class less its part of the sum of both.
        seen = (1 - part[c]) * noised[c] - part[c] * noised[other]
        variance = noise**2 * ((1 - part[c]) ** 2 + part[c] ** 2)
        means.append(prior @ np.linalg.inv(prior + variance * np.eye(6)) @ seen / sizes[c])
    held = whole + np.stack(means) - (part[0] * means[0] + part[1] * means[1])
    for _ in range(200):
        held /= held.sum(axis=1, keepdims=True)
        held *= whole / (part[0] * held[0] + part[1] * held[1])
    assert found == pytest.approx(held, rel=1e-4)


def test_classes_together_are_the_whole() -> None:
    """The whole is known better than the sum of many classes, each with its own noise."""
    sizes, exact = np.array([500.0, 300.0, 150.0, 50.0, 40.0]), np.geomspace(1, 100, 12)
    exact /= exact.sum()
    noised = np.outer(sizes, exact) + 30 * np.random.default_rng(0).standard_normal((5, 12))
    found = class_profiles({"a": ByClass(noised, 30.0, sizes.sum() * exact, 12)}, sizes)["a"]
    assert sizes @ found == pytest.approx(sizes.sum() * exact, rel=1e-3)
