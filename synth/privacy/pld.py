"""What DP-SGD and Gaussian releases cost together, by privacy loss distributions, with a second opinion by Rényi DP.

Privacy loss distributions compose exactly up to a pessimistic discretisation (Doroshenko et al. 2022, "Connect the
dots"), so the ε stated here is an upper bound. Gaussian releases are composed in closed form first and enter as one.
The Rényi accountant (Mironov 2017; Mironov, Talwar, Zhang 2019) is independent of it and looser: a stated ε above it
would be a fault in one of the two.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq

from synth.privacy.accounting import compose_mu, compose_replace_one_mu, delta_of, mu_of, round_up
from synth.privacy.accounting import epsilon_of as gaussian_epsilon_of
from synth.privacy.events import Composable, GdpEvent, PoissonGaussianEvent

Neighbours = Literal["add-or-remove-one", "replace-one"]

DISCRETISATION = 1e-4
COARSE = 20
"""How much coarser, at most, the distributions are with which a calibration finds out where to look."""
MOST_NOISE = 1e6
REMEMBERED = 16
"""Loss distributions that are kept; a large one takes tens of megabytes."""
_RELATION = {
    "add-or-remove-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def epsilon_of(events: Iterable[Composable], delta: float, *, neighbours: Neighbours = "add-or-remove-one") -> float:
    """ε of all events together at δ, rounded up; exact when all are Gaussian. Raises ValueError unless 0 < δ < 1.

    Known values at δ=1e-5: 2250 steps, sample rate .04, noise multiplier 1.5: 6.769, and 13.488 when one unit is
    replaced; 1000 steps, .01, 1: 1.828.
    """
    mu, sampled = _split(events, neighbours)
    if not sampled:
        return gaussian_epsilon_of(mu, delta)
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, not {delta}")
    return _epsilon(mu, sampled, delta, neighbours, DISCRETISATION)


def renyi_epsilon_of(events: Iterable[Composable], delta: float) -> float:
    """The second opinion: ε under add/remove of one unit by Rényi DP; at least the exact value."""
    mu, sampled = _split(events, "add-or-remove-one")
    return _renyi_epsilon(mu, sampled, delta)


def calibrate_noise_multiplier(
    *, sample_rate: float, steps: int, epsilon: float, delta: float, beside: Iterable[Composable] = ()
) -> float:
    """The smallest noise multiplier (rounded up to 1e-6) with which DP-SGD and `beside` are (ε, δ)-DP together.

    `beside` is what the same run spends elsewhere: bins, moments, public scores. Known value: sample rate .01, 10,000
    steps, (1, 1e-5): 3.813. Raises ValueError when `beside` alone leaves nothing.
    """
    elsewhere = tuple(beside)
    mu, others = _split(elsewhere, "add-or-remove-one")
    if elsewhere and epsilon_of(elsewhere, delta) >= epsilon:
        raise ValueError("the other releases leave no budget for DP-SGD")

    def excess(noise_multiplier: float, interval: float = DISCRETISATION) -> float:
        sampled = _merged([*others, (sample_rate, noise_multiplier, steps)])
        return _epsilon(mu, sampled, delta, "add-or-remove-one", interval) - epsilon

    coarse = min(COARSE * DISCRETISATION, max(DISCRETISATION, epsilon / 200))
    return _smallest(excess, coarse=coarse, decimals=6)


def split_mu(epsilon: float, delta: float, shares: dict[str, float]) -> dict[str, float]:
    """μ of each Gaussian part when μ(ε, δ)² is split by `shares`; the rest is left for DP-SGD (`beside`).

    Raises ValueError unless every share is at least 0 and they sum to at most 1.
    """

    if min(shares.values(), default=0.0) < 0 or math.fsum(shares.values()) > 1 + 1e-12:
        raise ValueError(f"shares must be at least 0 and sum to at most 1, not {shares}")
    whole = mu_of(epsilon, delta)
    return {name: whole * math.sqrt(share) for name, share in shares.items()}


def delta_at(events: Iterable[Composable], epsilon: float, *, neighbours: Neighbours = "add-or-remove-one") -> float:
    """δ of all events together at ε (pessimistic)."""
    mu, sampled = _split(events, neighbours)
    if not sampled:
        return delta_of(epsilon, mu)
    return _delta(mu, sampled, epsilon, neighbours)


Sampled = tuple[tuple[float, float, int], ...]
"""Sample rate, noise multiplier and steps of each kind of DP-SGD, in order."""


def _split(events: Iterable[Composable], neighbours: Neighbours) -> tuple[float, Sampled]:
    """μ of the Gaussian events, and the others."""
    everything = tuple(events)
    gaussian = [event for event in everything if isinstance(event, GdpEvent)]
    mu = compose_mu(gaussian) if neighbours == "add-or-remove-one" else compose_replace_one_mu(gaussian)
    sampled = [event for event in everything if isinstance(event, PoissonGaussianEvent)]
    return mu, _merged((event.sample_rate, event.noise_multiplier, event.steps) for event in sampled)


def _merged(sampled: Iterable[tuple[float, float, int]]) -> Sampled:
    # Composition knows no order, so runs with the same settings are one longer run.
    steps: dict[tuple[float, float], int] = {}
    for rate, noise, count in sampled:
        steps[rate, noise] = steps.get((rate, noise), 0) + count
    return tuple(sorted((rate, noise, count) for (rate, noise), count in steps.items()))


@lru_cache(maxsize=1 << 10)
def _epsilon(mu: float, sampled: Sampled, delta: float, neighbours: Neighbours, interval: float) -> float:
    return round_up(float(_whole(mu, sampled, neighbours, interval).get_epsilon_for_delta(delta)))


@lru_cache(maxsize=1 << 10)
def _delta(mu: float, sampled: Sampled, epsilon: float, neighbours: Neighbours) -> float:
    return float(_whole(mu, sampled, neighbours, DISCRETISATION).get_delta_for_epsilon(epsilon))


@lru_cache(maxsize=1 << 10)
def _renyi_epsilon(mu: float, sampled: Sampled, delta: float) -> float:
    accountant = RdpAccountant()
    if mu > 0:
        accountant.compose(dp_accounting.GaussianDpEvent(1 / mu))
    with _without_warnings():
        for rate, noise, steps in sampled:
            inner = dp_accounting.GaussianDpEvent(noise)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, inner), steps)
        return float(accountant.get_epsilon(delta))


@contextmanager
def _without_warnings() -> Iterator[None]:
    # It says which Rényi orders it left out: the bound holds for those that remain.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _whole(mu: float, sampled: Sampled, neighbours: Neighbours, interval: float) -> Any:
    whole = _together(sampled, neighbours, interval)
    return whole.compose(_gaussian(1 / mu, interval)) if mu > 0 else whole


@lru_cache(maxsize=4)
def _together(sampled: Sampled, neighbours: Neighbours, interval: float) -> Any:
    # Kept by itself: who asks how much more fits asks many times with another μ.
    first, *others = (_composed(*settings, neighbours, interval) for settings in sampled)
    for part in others:
        first = first.compose(part)
    return first


@lru_cache(maxsize=REMEMBERED)
def _composed(rate: float, noise: float, steps: int, neighbours: Neighbours, interval: float) -> Any:
    one = privacy_loss_distribution.from_gaussian_mechanism(
        noise,
        sensitivity=1.0,
        value_discretization_interval=interval,
        sampling_prob=rate,
        neighboring_relation=_RELATION[neighbours],
    )
    return one.self_compose(steps)


@lru_cache(maxsize=REMEMBERED)
def _gaussian(standard_deviation: float, interval: float) -> Any:
    # Its sensitivity is already that of the relation in question, so one relation serves both.
    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation, sensitivity=1.0, value_discretization_interval=interval
    )


def _smallest(excess: Callable[..., float], *, coarse: float, decimals: int) -> float:
    """The smallest noise multiplier without excess: found on coarse distributions, then nearby on the fine ones."""
    low, high = 0.3, 1.0
    while excess(high, coarse) > 0:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise ValueError("no noise multiplier meets this target")
    while low > 1e-2 and excess(low, coarse) <= 0:
        low, high = low / 2, low
    # Coarser is more pessimistic: what suffices there suffices on the fine ones too, with a little to spare.
    high = brentq(excess, low, high, args=(coarse,), xtol=1e-4) + 1e-4
    low = high
    step = 0.01
    while excess(low) <= 0:
        low, high, step = low * (1 - step), low, min(0.5, 2 * step)
        if low < 1e-2:
            break
    while excess(high) > 0:
        low, high = high, high * 1.01
    root = brentq(excess, low, high, xtol=10.0 ** -(decimals + 1))
    found = math.ceil(root * 10**decimals) / 10**decimals
    while excess(found) > 0:
        found += 10.0**-decimals
    return float(round(found, decimals))
