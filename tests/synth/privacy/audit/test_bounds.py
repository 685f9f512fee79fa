"""Bounds against enumeration, scipy, and what the papers' own numbers say."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from synth.privacy.accounting import delta_of
from synth.privacy.audit import bounds


def right_by_enumeration(epsilon: float, canaries: int, at_least: int) -> float:
    """P[at least so many coins are seen] after ε-DP randomized response of each: all outcomes are added up."""
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    return math.fsum(
        math.prod(truth if seen else 1 - truth for seen in outcome)
        for outcome in itertools.product((True, False), repeat=canaries)
        if sum(outcome) >= at_least
    )


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 2.5])
def test_the_p_value_is_that_of_randomized_response(epsilon: float) -> None:
    for correct in range(9):
        p = bounds.one_run_p_value(8, correct, epsilon, canaries=8, delta=0.0)
        assert p == pytest.approx(right_by_enumeration(epsilon, 8, correct), rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_the_bound_misses_randomized_response_no_more_often_than_stated(epsilon: float, confidence: float) -> None:
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    missed = math.fsum(
        float(binom.pmf(right, 40, truth))
        for right in range(41)
        if bounds.one_run_epsilon(40, right, canaries=40, delta=0.0, confidence=confidence) > epsilon
    )
    assert missed <= 1 - confidence


def test_delta_is_paid_for_as_the_theorem_says() -> None:
    m, r, v, epsilon, delta = 12, 9, 8, 0.7, 0.01
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    tail = math.fsum(float(binom.pmf(k, r, truth)) for k in range(v, r + 1))
    steepest = max(math.fsum(float(binom.pmf(k, r, truth)) for k in range(v - i, v)) / i for i in range(1, v + 1))
    stated = bounds.one_run_p_value(r, v, epsilon, canaries=m, delta=delta)
    assert stated == pytest.approx(tail + 2 * m * delta * steepest, rel=1e-12)


def test_a_mechanism_that_fails_with_probability_delta_is_within_the_theorem() -> None:
    """With probability δ a coin is published, else it passes randomized response: (ε, δ)-DP."""
    epsilon, delta, m = 0.5, 0.05, 10
    truth = delta + (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon))
    for v in range(m + 1):
        happens = float(binom.sf(v - 1, m, truth))
        assert happens <= bounds.one_run_p_value(m, v, epsilon, canaries=m, delta=delta) + 1e-12


def test_all_guesses_right_gives_what_can_be_worked_by_hand() -> None:
    # q^100 = 0.05 at the bound: q = 0.05^(1/100), ε = log(q / (1 - q))
    q = 0.05**0.01
    found = bounds.one_run_epsilon(100, 100, canaries=100, delta=0.0, confidence=0.95)
    assert found == pytest.approx(math.log(q / (1 - q)), abs=2e-6)
    assert found <= math.log(q / (1 - q))


def test_guesses_by_chance_show_nothing() -> None:
    assert bounds.one_run_epsilon(100, 50, canaries=100, delta=1e-5) == 0
    assert bounds.one_run_epsilon(0, 0, canaries=100, delta=1e-5) == 0


counts = st.integers(1, 60).flatmap(
    lambda m: st.integers(1, m).flatmap(lambda r: st.tuples(st.just(m), st.just(r), st.integers(0, r - 1)))
)


@given(counts, st.sampled_from([0.0, 1e-6, 1e-3, 0.2]), st.sampled_from([0.9, 0.99]))
def test_more_right_guesses_never_show_less(counted: tuple[int, int, int], delta: float, confidence: float) -> None:
    m, r, v = counted
    less = bounds.one_run_epsilon(r, v, canaries=m, delta=delta, confidence=confidence)
    more = bounds.one_run_epsilon(r, v + 1, canaries=m, delta=delta, confidence=confidence)
    # Below the grid of the scan nothing is told apart.
    assert more >= less - 1e-9


@given(counts, st.floats(0, 4), st.floats(0, 4), st.sampled_from([0.0, 1e-4, 1e-3]))
def test_the_p_value_grows_with_epsilon_where_bisection_is_used(
    counted: tuple[int, int, int], one: float, other: float, delta: float
) -> None:
    m, r, v = counted
    low, high = sorted((one, other))
    below = bounds.one_run_p_value(r, v, low, canaries=m, delta=delta)
    assert below <= bounds.one_run_p_value(r, v, high, canaries=m, delta=delta) + 1e-12


@given(counts, st.sampled_from([1e-6, 1e-3, 0.05]))
def test_delta_and_more_confidence_never_raise_a_bound(counted: tuple[int, int, int], delta: float) -> None:
    m, r, v = counted
    pure = bounds.one_run_epsilon(r, v, canaries=m, delta=0.0, confidence=0.9)
    assert bounds.one_run_epsilon(r, v, canaries=m, delta=delta, confidence=0.9) <= pure
    assert bounds.one_run_epsilon(r, v, canaries=m, delta=0.0, confidence=0.999) <= pure


@pytest.mark.parametrize(("guesses", "correct", "canaries"), [(5, 6, 10), (11, 5, 10), (5, -1, 10)])
def test_impossible_counts_are_refused(guesses: int, correct: int, canaries: int) -> None:
    with pytest.raises(ValueError, match="correct"):
        bounds.one_run_epsilon(guesses, correct, canaries=canaries, delta=0.0)


def test_a_confidence_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        bounds.one_run_epsilon(1, 1, canaries=1, delta=0.0, confidence=1.0)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-6, 0.5))
def test_clopper_pearson_is_scipys(counted: tuple[int, int], alpha: float) -> None:
    k, n = counted
    theirs = binomtest(k, n).proportion_ci(confidence_level=1 - alpha, method="exact")
    assert bounds.clopper_pearson(k, n, alpha=alpha) == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-9)


def test_shadow_epsilon_worked_by_hand() -> None:
    # All right in 100 and 100: TPR ≥ a and FPR ≤ 1 - a with a = (0.001 / 2)^(1/100); log((a - δ) / (1 - a))
    a = 0.0005**0.01
    found = bounds.shadow_epsilon(100, 0, 100, 100, delta=1e-5, confidence=0.999)
    assert found == pytest.approx(math.log((a - 1e-5) / (1 - a)), rel=1e-9)


def test_both_directions_of_error_count() -> None:
    """An attack that only ever says "out" for sure is as good as one that only ever says "in" for sure."""
    sure_in = bounds.shadow_epsilon(60, 0, 200, 200, delta=1e-5)
    sure_out = bounds.shadow_epsilon(200, 140, 200, 200, delta=1e-5)
    assert sure_in == pytest.approx(sure_out)
    assert sure_in > 1


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.0, 1e-5, 0.1]))
def test_shadow_bounds_grow_with_the_attack(true: int, false: int, delta: float) -> None:
    here = bounds.shadow_epsilon(true, false, 50, 50, delta=delta)
    if true < 50 and true >= false:
        assert bounds.shadow_epsilon(true + 1, false, 50, 50, delta=delta) >= here
    assert bounds.shadow_epsilon(true, false, 50, 50, delta=delta, confidence=0.9999) <= here


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_the_gaussian_bound_holds_for_the_exact_errors_of_a_gaussian(mu: float) -> None:
    """With the best test of μ-GDP at any threshold and counts rounded against the claim, the bound stays below μ."""
    for threshold in (-1.0, 0.0, 1.0, 2.0):
        true, false = (int(10_000 * norm.sf(threshold - shift)) for shift in (mu, 0.0))
        found = bounds.shadow_mu(true, false + 1, 10_000, 10_000)
        assert 0.4 * mu < found <= mu
        epsilon = bounds.shadow_gaussian_epsilon(true, false + 1, 10_000, 10_000, delta=1e-5)
        assert delta_of(epsilon, mu) >= 1e-5  # not above the ε of μ itself
