"""Rates, areas and risks against other ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from synth.evaluate.internal.intervals import area_under_curve, risk_of, wilson

SCORES = st.lists(st.integers(0, 6), min_size=2, max_size=25)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n + 1), st.just(n + 1))))
def test_wilson_is_that_of_scipy(group: tuple[int, int]) -> None:
    found = wilson(*group)
    interval = binomtest(*group).proportion_ci(method="wilson")
    assert found.value == group[0] / group[1]
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.mark.parametrize("group", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses(group: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson(*group)


@given(SCORES, SCORES)
def test_area_is_the_share_of_ordered_pairs_and_its_variance_is_delongs(a: list[int], b: list[int]) -> None:
    found = area_under_curve(a, b)
    wins = np.array([[(x > y) + 0.5 * (x == y) for y in b] for x in a])
    assert found.value == pytest.approx(wins.mean())
    assert found.value == pytest.approx(roc_auc_score([1] * len(a) + [0] * len(b), a + b))
    variance = wins.mean(axis=1).var(ddof=1) / len(a) + wins.mean(axis=0).var(ddof=1) / len(b)
    half = 1.959963985 * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((max(0, found.value - half), min(1, found.value + half)), abs=1e-8)


def test_risk_by_hand() -> None:
    """z = 1.96: the middles of 60/100 and 20/100 are 61.92/103.84 and 21.92/103.84."""
    found = risk_of("test", (60, 100), (20, 100), (5, 100))
    middles = [61.9207 / 103.8415, 21.9207 / 103.8415]
    assert found.risk.value == pytest.approx((middles[0] - middles[1]) / (1 - middles[1]), abs=1e-5)
    assert found.risk.low < found.risk.value < found.risk.high
    assert (found.training.value, found.control.value) == (0.6, 0.2)
    assert found.naive is not None and found.naive.value == 0.05
    assert found.alarm


def test_equal_groups_are_no_risk() -> None:
    found = risk_of("test", (400, 1000), (400, 1000), None)
    assert found.risk.value == 0
    assert found.risk.low == pytest.approx(-found.risk.high)
    assert not found.alarm and found.p_value > 0.5
