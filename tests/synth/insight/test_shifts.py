"""Shifts: distances, what is told of them, and how clearly noise lets them show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from synth.insight.meaning import Meaning, meaning_of
from synth.insight.shifts import Noised, beyond_chance, clearest_first, shift_of


@pytest.fixture
def meanings(hand: Any) -> dict[str, Meaning]:
    points = {"sex": [[[0.5, 0.5]]], "age": [[[0.25] * 4]], "seen": [[[0.5, 0.5]]]}
    model = hand.model(points, target=None)
    return {name: meaning_of(model, name) for name in points}


def test_of_a_mean(meanings: dict[str, Meaning]) -> None:
    one, other = np.array([0.5, 0.2, 0.2, 0.1]), np.array([0.2, 0.2, 0.5, 0.1])
    shift = shift_of(meanings["age"], "age", one, other)
    assert (shift.what, shift.level, shift.error, shift.z) == ("mean", "", None, None)
    assert shift.distance == pytest.approx(0.3)
    assert shift.values == pytest.approx(((0.5 + 0.6 + 0.9) / 0.9, (0.2 + 0.6 + 2.25) / 0.9), abs=1e-4)


@pytest.mark.parametrize(
    ("other", "level"),
    [([0.1, 0.2, 0.2, 0.5], "missing"), ([0.1, 0.6, 0.2, 0.1], "3"), ([0.0, 0.0, 0.0, 1.0], "missing")],
)
def test_of_one_value_that_moves_most_of_it(meanings: dict[str, Meaning], other: list[float], level: str) -> None:
    one = np.array([0.5, 0.2, 0.2, 0.1])
    shift = shift_of(meanings["age"], "age", one, np.array(other))
    bin_ = {"missing": 3, "3": 1}[level]
    assert (shift.what, shift.level, shift.values) == ("share", level, pytest.approx((one[bin_], other[bin_])))


def test_of_levels_that_move_alike_the_later_is_told(meanings: dict[str, Meaning]) -> None:
    shift = shift_of(meanings["sex"], "sex", np.array([0.5, 0.5]), np.array([0.75, 0.25]))
    assert (shift.level, shift.values) == ("male", (0.5, 0.25))


def test_of_dates(meanings: dict[str, Meaning]) -> None:
    shift = shift_of(meanings["seen"], "seen", np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert shift.what == "mean"
    assert all(str(value).startswith("2020-01-0") for value in shift.values) and shift.values[0] != shift.values[1]


def test_errors_are_those_of_the_noised_table(meanings: dict[str, Meaning]) -> None:
    one, other = np.array([0.5, 0.2, 0.2, 0.1]), np.array([0.2, 0.2, 0.5, 0.1])
    shift = shift_of(meanings["age"], "age", one, other, Noised(one, other, (0.03, 0.04), (1e9, 1e9)))
    assert shift.error == pytest.approx(0.5 * math.sqrt(4) * 0.05)
    # The same by draws of the noise: 20,000 tell a standard deviation to half a per cent, and five are asked for.
    rng = np.random.default_rng(0)
    drawn = [x + s * rng.standard_normal((20_000, 4)) for x, s in ((one, 0.03), (other, 0.04))]
    distance = 0.5 * (drawn[1] - drawn[0]) @ np.sign(other - one + 1e-12)
    assert shift.error == pytest.approx(distance.std(), rel=0.05)
    means = [d[:, :3] @ [1, 3, 4.5] / d[:, :3].sum(axis=1) for d in drawn]
    assert shift.value_error == pytest.approx((means[1] - means[0]).std(), rel=0.05)


def test_z_is_about_normal_where_chance_is_all_there_is() -> None:
    """By draws of people and of noise, with a fixed seed."""
    rng, share, found = np.random.default_rng(1), np.array([0.4, 0.3, 0.2, 0.1]), []
    for _ in range(2000):
        sizes = (300, 500)
        counts = [rng.multinomial(n, share) + rng.normal(0, 6, 4) for n in sizes]
        found.append(Noised(counts[0] / 300, counts[1] / 500, (6 / 300, 6 / 500), sizes).z)
    assert abs(np.mean(found)) < 0.15 and 0.85 < np.std(found) < 1.15
    assert np.mean(np.array(found) > 3) < 0.01


def test_z_sees_what_is_there() -> None:
    one, other = np.array([0.5, 0.5]), np.array([0.3, 0.7])
    assert Noised(one, other, (0.01, 0.01), (1000, 1000)).z > 5
    assert Noised(one, other, (0.3, 0.3), (1000, 1000)).z < 2
    assert Noised(one, other, (0.01, 0.01), (10, 10)).z < 2


@pytest.mark.parametrize("freedom", [1, 5, 60])
def test_beyond_chance_of_equal_errors_is_the_normal_value_of_a_chi_square(freedom: int) -> None:
    from scipy import stats

    for chi in (0.7, 1.0, 1.8):
        tail = stats.chi2.sf(chi * freedom, freedom)
        found = beyond_chance(chi * freedom * 4.0, freedom * 4.0, freedom * 16.0)
        assert found == pytest.approx(stats.norm.isf(tail), abs=0.1)
    assert beyond_chance(1.0, 0.0, 0.0) == 0.0


def test_order(meanings: dict[str, Meaning]) -> None:
    half = np.array([0.5, 0.5])
    near, far = (shift_of(meanings["sex"], n, half, np.array(x)) for n, x in (("a", [0.6, 0.4]), ("b", [0.9, 0.1])))
    assert [shift.column for shift in clearest_first([near, far])] == ["b", "a"]
