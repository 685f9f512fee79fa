"""What DP-SGD and Gaussian releases cost together, by privacy loss distributions, with a second opinion by Rényi DP.

Privacy loss distributions compose exactly up to a pessimistic discretisation (Doroshenko et al. 2022, "Connect the
dots"), so the ε stated here is an upper bound. Gaussian releases are composed in closed form first and enter as one.
The Rényi accountant (Mironov 2017; Mironov, Talwar, Zhang 2019) is independent of it and looser: a stated ε above it
would be a fault in one of the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq

from synth.privacy.accounting import compose_mu, compose_replace_one_mu, delta_of, mu_of, round_up
from synth.privacy.accounting import epsilon_of as gaussian_epsilon_of
from synth.privacy.events import Event, GaussianEvent, PoissonGaussianEvent

Neighbours = Literal["add-or-remove-one", "replace-one"]

DISCRETISATION = 1e-4
_RELATION = {
    "add-or-remove-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def epsilon_of(events: Iterable[Event], delta: float, *, neighbours: Neighbours = "add-or-remove-one") -> float:
    """ε of all events together at δ, rounded up; exact when all are Gaussian. Raises ValueError unless 0 < δ < 1.

    Known values at δ=1e-5: 2250 steps, sample rate .04, noise multiplier 1.5: 6.769, and 13.488 when one unit is
    replaced; 1000 steps, .01, 1: 1.828.
    """
    mu, sampled = _split(events, neighbours)
    if not sampled:
        return gaussian_epsilon_of(mu, delta)
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, not {delta}")
    parts = [_distribution(event, neighbours).self_compose(event.steps) for event in sampled]
    if mu > 0:
        parts.append(_gaussian(1 / mu))
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.compose(part)
    return round_up(float(whole.get_epsilon_for_delta(delta)))


def renyi_epsilon_of(events: Iterable[Event], delta: float) -> float:
    """The second opinion: ε under add/remove of one unit by Rényi DP; at least the exact value."""
    accountant = RdpAccountant()
    for event in events:
        if isinstance(event, GaussianEvent):
            accountant.compose(dp_accounting.GaussianDpEvent(1 / event.mu))
        else:
            inner = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sample_rate, inner), event.steps)
    return float(accountant.get_epsilon(delta))


def calibrate_noise_multiplier(
    *, sample_rate: float, steps: int, epsilon: float, delta: float, beside: Iterable[Event] = ()
) -> float:
    """The smallest noise multiplier (rounded up to 1e-3) with which DP-SGD and `beside` are (ε, δ)-DP together.

    `beside` is what the same run spends elsewhere: bins, moments, public scores. Known value: sample rate .01, 10,000
    steps, (1, 1e-5): 3.813. Raises ValueError when `beside` alone leaves nothing.
    """
    others = tuple(beside)
    if others and epsilon_of(others, delta) >= epsilon:
        raise ValueError("the other releases leave no budget for DP-SGD")

    def excess(noise_multiplier: float) -> float:
        event = PoissonGaussianEvent(
            name="calibration", sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps
        )
        return epsilon_of((*others, event), delta) - epsilon

    return _smallest(excess, decimals=3)


def split_mu(epsilon: float, delta: float, shares: dict[str, float]) -> dict[str, float]:
    """μ of each Gaussian part when μ(ε, δ)² is split by `shares`; the rest is left for DP-SGD (`beside`).

    Raises ValueError unless every share is at least 0 and they sum to at most 1.
    """

    if min(shares.values(), default=0.0) < 0 or math.fsum(shares.values()) > 1 + 1e-12:
        raise ValueError(f"shares must be at least 0 and sum to at most 1, not {shares}")
    whole = mu_of(epsilon, delta)
    return {name: whole * math.sqrt(share) for name, share in shares.items()}


def delta_at(events: Iterable[Event], epsilon: float, *, neighbours: Neighbours = "add-or-remove-one") -> float:
    """δ of all events together at ε (pessimistic)."""
    mu, sampled = _split(events, neighbours)
    if not sampled:
        return delta_of(epsilon, mu)
    whole = _gaussian(1 / mu) if mu > 0 else None
    for event in sampled:
        part = _distribution(event, neighbours).self_compose(event.steps)
        whole = part if whole is None else whole.compose(part)
    assert whole is not None
    return float(whole.get_delta_for_epsilon(epsilon))


def _split(events: Iterable[Event], neighbours: Neighbours) -> tuple[float, list[PoissonGaussianEvent]]:
    everything = tuple(events)
    gaussian = [event for event in everything if isinstance(event, GaussianEvent)]
    mu = compose_mu(gaussian) if neighbours == "add-or-remove-one" else compose_replace_one_mu(gaussian)
    return mu, [event for event in everything if isinstance(event, PoissonGaussianEvent)]


def _distribution(event: PoissonGaussianEvent, neighbours: Neighbours) -> Any:
    return privacy_loss_distribution.from_gaussian_mechanism(
        event.noise_multiplier,
        sensitivity=1.0,
        value_discretization_interval=DISCRETISATION,
        sampling_prob=event.sample_rate,
        neighboring_relation=_RELATION[neighbours],
    )


def _gaussian(standard_deviation: float) -> Any:
    # Its sensitivity is already that of the relation in question, so one relation serves both.
    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation, sensitivity=1.0, value_discretization_interval=DISCRETISATION
    )


def _smallest(excess: Callable[[float], float], *, decimals: int) -> float:
    low, high = 0.3, 1.0
    while excess(high) > 0:
        low, high = high, 2 * high
        if high > 1e6:
            raise ValueError("no noise multiplier meets this target")
    while low > 1e-2 and excess(low) <= 0:
        low, high = low / 2, low
    root = brentq(excess, low, high, xtol=10.0 ** -(decimals + 1))
    found = math.ceil(root * 10**decimals) / 10**decimals
    while excess(found) > 0:
        found += 10.0**-decimals
    return float(round(found, decimals))
