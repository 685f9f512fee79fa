"""The closed form against known values, an independent library, and the properties it must have."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given
from hypothesis import strategies as st

from synth.privacy.accounting import (
    compose_mu,
    compose_replace_one_mu,
    delta_of,
    epsilon_of,
    mu_of,
    round_up,
)
from synth.privacy.events import GaussianEvent

EPSILONS = st.floats(1e-3, 50)
DELTAS = st.sampled_from([1e-9, 1e-6, 1e-5, 1e-3, 0.05])
MUS = st.floats(1e-3, 12)
STEP = 1e-6  # a stated ε is rounded up to this


def gaussian(noise_scale: float, sensitivity: float = 1.0) -> GaussianEvent:
    return GaussianEvent(
        name="counts",
        sensitivity=sensitivity,
        replace_one_sensitivity=math.sqrt(2) * sensitivity,
        noise_scale=noise_scale,
    )


def test_the_known_mu() -> None:
    assert mu_of(1, 1e-5) == pytest.approx(0.26805, abs=5e-6)
    assert mu_of(1, 1e-5) ** 2 / 2 == pytest.approx(0.0359, abs=5e-5)  # ρ-equivalent


@pytest.mark.parametrize(("delta", "sigma"), [(1e-6, 4.22468), (1e-5, 3.73063)])
def test_the_known_noise_of_one_gaussian(delta: float, sigma: float) -> None:
    assert 1 / mu_of(1, delta) == pytest.approx(sigma, abs=1e-5)


def test_noise_calibrated_by_rdp_is_worth_less_epsilon() -> None:
    assert epsilon_of(1 / 4.530877117, 1e-6) == pytest.approx(0.9274, abs=5e-5)


@pytest.mark.parametrize(("k", "epsilon"), [(1, 1), (2, 1.465), (3, 1.835), (4, 2.155), (12, 4.018), (52, 9.587)])
def test_the_known_compositions_of_equal_runs(k: int, epsilon: float) -> None:
    runs = [gaussian(1 / mu_of(1, 1e-5))] * k
    assert epsilon_of(compose_mu(runs), 1e-5) == pytest.approx(epsilon, abs=5e-4)


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-5, 1e-3])
@pytest.mark.parametrize("sigma", [0.3, 0.7, 1, 2, 5, 20, 100])
def test_one_gaussian_equals_the_reference(sigma: float, delta: float) -> None:
    stated = epsilon_of(1 / sigma, delta)
    reference = dp_accounting.get_epsilon_gaussian(sigma, delta)
    assert reference <= stated + 1e-9
    assert stated == pytest.approx(reference, abs=1e-3)


@pytest.mark.parametrize("delta", [1e-6, 1e-5, 1e-3])
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1, 3, 10])
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_calibration_equals_the_reference(epsilon: float, delta: float, k: int) -> None:
    mu = mu_of(epsilon, delta)
    each = math.sqrt(k) / mu
    assert each >= dp_accounting.get_sigma_gaussian(epsilon, delta) * math.sqrt(k) * (1 - 1e-7)
    stated = epsilon_of(compose_mu([gaussian(each)] * k), delta)
    assert stated == pytest.approx(epsilon, abs=1e-3)
    assert stated == pytest.approx(dp_accounting.get_epsilon_gaussian(1 / mu, delta), abs=1e-3)


@pytest.mark.parametrize("sigmas", [(2.0,), (3.0, 5.0), (4.0, 4.0, 9.0, 30.0), (12.0, 1.5, 7.0), (0.8, 2.5)])
def test_composition_lies_between_two_privacy_loss_distributions(sigmas: tuple[float, ...]) -> None:
    bounds = [_composed(sigmas, pessimistic=pessimistic).get_epsilon_for_delta(1e-5) for pessimistic in (False, True)]
    stated = epsilon_of(compose_mu([gaussian(sigma) for sigma in sigmas]), 1e-5)
    assert bounds[0] <= stated <= bounds[1] + STEP
    assert stated == pytest.approx(bounds[1], abs=1e-3)


def _composed(sigmas: tuple[float, ...], *, pessimistic: bool) -> pld.PrivacyLossDistribution:
    parts = [
        pld.from_gaussian_mechanism(sigma, value_discretization_interval=1e-4, pessimistic_estimate=pessimistic)
        for sigma in sigmas
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.compose(part)
    return whole


def test_replace_one_of_one_hot_tables_is_a_sensitivity_of_root_two() -> None:
    events = [gaussian(3), gaussian(8, sensitivity=2)]
    assert compose_replace_one_mu(events) == pytest.approx(math.sqrt(2) * compose_mu(events), rel=1e-14)


def test_nothing_costs_nothing() -> None:
    assert compose_mu([]) == 0
    assert epsilon_of(0, 1e-5) == 0
    assert delta_of(0, 0) == 0


def test_no_noise_to_speak_of_promises_nothing() -> None:
    assert math.isinf(epsilon_of(1e3, 1e-5))
    assert delta_of(1, 1e6) == 1


@given(MUS, EPSILONS)
def test_delta_is_a_probability_that_grows_with_mu_and_falls_with_epsilon(mu: float, epsilon: float) -> None:
    here = delta_of(epsilon, mu)
    assert 0 <= here <= 1
    assert delta_of(epsilon, mu * 1.01) >= here >= delta_of(epsilon * 1.01, mu)


@given(MUS, DELTAS)
def test_a_stated_epsilon_is_never_below_the_true_one_nor_far_above(mu: float, delta: float) -> None:
    stated = epsilon_of(mu, delta)
    assert delta_of(stated, mu) <= delta
    if stated > 2 * STEP:
        assert delta_of(stated - 2 * STEP, mu) > delta


@given(MUS, DELTAS, st.floats(1.0001, 3))
def test_epsilon_grows_with_mu_and_falls_with_delta(mu: float, delta: float, factor: float) -> None:
    assert epsilon_of(mu * factor, delta) >= epsilon_of(mu, delta) >= epsilon_of(mu, delta * factor)


@given(EPSILONS, DELTAS)
def test_calibration_never_passes_its_target(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert delta_of(epsilon, mu) <= delta
    assert epsilon_of(mu, delta) <= round_up(epsilon)


@given(EPSILONS, DELTAS)
def test_calibration_wastes_nothing(epsilon: float, delta: float) -> None:
    assert delta_of(epsilon, mu_of(epsilon, delta) * (1 + 1e-5)) > delta


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_composition_has_no_order(sigmas: list[float], random: object) -> None:
    events = [gaussian(sigma) for sigma in sigmas]
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert compose_mu(shuffled) == compose_mu(events)


@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=6))
def test_more_events_cost_more_but_never_their_sum(sigmas: list[float]) -> None:
    mus = [gaussian(sigma).mu for sigma in sigmas]
    assert max(mus) <= compose_mu([gaussian(sigma) for sigma in sigmas]) <= sum(mus)


@pytest.mark.parametrize(("epsilon", "mu"), [(-1, 1), (math.nan, 1), (1, -1), (1, math.nan)])
def test_delta_of_refuses_what_is_no_epsilon(epsilon: float, mu: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        delta_of(epsilon, mu)


@pytest.mark.parametrize("delta", [0, 1, -0.1, math.nan])
def test_delta_lies_between_zero_and_one(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        epsilon_of(1, delta)
    with pytest.raises(ValueError, match="delta"):
        mu_of(1, delta)


@pytest.mark.parametrize("epsilon", [0, -1, 501, math.inf, math.nan])
def test_calibration_refuses_an_epsilon_out_of_range(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        mu_of(epsilon, 1e-5)
