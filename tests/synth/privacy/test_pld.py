"""DP-SGD and Gaussian releases together: known values, an independent accountant, and the closed form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.privacy import accounting
from synth.privacy.events import Event, GaussianEvent, PoissonGaussianEvent
from synth.privacy.pld import calibrate_noise_multiplier, delta_at, epsilon_of, renyi_epsilon_of, split_mu

DELTA = 1e-5


def sgd(sample_rate: float, noise_multiplier: float, steps: int) -> PoissonGaussianEvent:
    return PoissonGaussianEvent(name="critic", sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps)


def gaussian(mu: float) -> GaussianEvent:
    return GaussianEvent(name="moments", sensitivity=mu, replace_one_sensitivity=math.sqrt(2) * mu, noise_scale=1.0)


@pytest.mark.parametrize(
    ("event", "pld", "renyi"), [(sgd(0.04, 1.5, 2250), 6.769, 7.329), (sgd(0.01, 1.0, 1000), 1.828, 2.101)]
)
def test_known_values_under_add_or_remove(event: PoissonGaussianEvent, pld: float, renyi: float) -> None:
    assert epsilon_of([event], DELTA) == pytest.approx(pld, abs=6e-4)
    assert renyi_epsilon_of([event], DELTA) == pytest.approx(renyi, abs=1e-3)


def test_known_value_when_one_is_replaced() -> None:
    assert epsilon_of([sgd(0.04, 1.5, 2250)], DELTA, neighbours="replace-one") == pytest.approx(13.488, abs=6e-4)


def test_known_calibration() -> None:
    noise = calibrate_noise_multiplier(sample_rate=0.01, steps=10_000, epsilon=1, delta=DELTA)
    assert noise == pytest.approx(3.813, abs=2e-3)
    assert epsilon_of([sgd(0.01, noise, 10_000)], DELTA) <= 1
    assert epsilon_of([sgd(0.01, noise - 0.002, 10_000)], DELTA) > 1


@pytest.mark.parametrize("mu", [0.05, 0.268, 1.0, 3.0])
def test_a_subsample_of_everyone_is_the_closed_form(mu: float) -> None:
    """With sample rate 1 a step is a plain Gaussian release, whose ε is known exactly."""
    steps = 4
    event = sgd(1.0, math.sqrt(steps) / mu, steps)
    exact = accounting.epsilon_of(mu, DELTA)
    assert exact - 1e-6 <= epsilon_of([event], DELTA) <= exact + 2e-3
    both = accounting.epsilon_of(math.sqrt(2) * mu, DELTA)
    assert both - 1e-6 <= epsilon_of([event, gaussian(mu)], DELTA) <= both + 2e-3


def test_gaussian_events_alone_are_exact() -> None:
    events: list[Event] = [gaussian(0.1), gaussian(0.2)]
    assert epsilon_of(events, DELTA) == accounting.epsilon_of(math.hypot(0.1, 0.2), DELTA)
    replaced = accounting.epsilon_of(math.sqrt(2) * math.hypot(0.1, 0.2), DELTA)
    assert epsilon_of(events, DELTA, neighbours="replace-one") == replaced


@settings(deadline=None, max_examples=15)
@given(
    sample_rate=st.floats(0.001, 0.2),
    noise=st.floats(0.8, 8),
    steps=st.integers(1, 500),
    mu=st.floats(0.01, 1),
)
def test_the_second_accountant_never_says_less(sample_rate: float, noise: float, steps: int, mu: float) -> None:
    events: list[Event] = [sgd(sample_rate, noise, steps), gaussian(mu)]
    stated = epsilon_of(events, DELTA)
    # The Rényi bound is looser; where both are near nothing the discretisation may show.
    assert stated <= renyi_epsilon_of(events, DELTA) + 2e-3
    assert stated >= accounting.epsilon_of(mu, DELTA)
    assert delta_at(events, stated) <= DELTA * (1 + 1e-6)


def test_the_budget_is_split_between_moments_and_critic() -> None:
    parts = split_mu(1.0, DELTA, {"bins": 0.1, "moments": 0.4})
    beside = [gaussian(mu) for mu in parts.values()]
    noise = calibrate_noise_multiplier(sample_rate=0.02, steps=500, epsilon=1.0, delta=DELTA, beside=beside)
    alone = calibrate_noise_multiplier(sample_rate=0.02, steps=500, epsilon=1.0, delta=DELTA)
    assert noise > alone
    assert 0.99 < epsilon_of([*beside, sgd(0.02, noise, 500)], DELTA) <= 1.0


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="leave no budget"):
        calibrate_noise_multiplier(sample_rate=0.1, steps=10, epsilon=1, delta=DELTA, beside=[gaussian(5)])
    with pytest.raises(ValueError, match="sum to at most 1"):
        split_mu(1, DELTA, {"moments": 0.7, "scores": 0.4})
    with pytest.raises(ValueError, match="delta"):
        epsilon_of([sgd(0.1, 1, 1)], 0.0)
