"""What events cost: exact composition of Gaussian mechanisms and its two conversions.

Gaussian mechanisms compose exactly (Dong, Roth, Su 2022, "Gaussian differential privacy",
Corollary 3.3): with sensitivities Δ_i and noise scales σ_i the whole is μ-GDP with μ² = Σ (Δ_i/σ_i)²,
and (ε, δ) follows from Balle & Wang 2018 (Theorem 8). A choice by the exponential mechanism has a μ too, and joins.

    δ(ε) = Φ(−ε/μ + μ/2) − e^ε · Φ(−ε/μ − μ/2)

Every ε returned here is rounded up and every μ rounded down, so that what is stated is never too good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from scipy.optimize import brentq
from scipy.special import log_ndtr

from synth.privacy.events import GdpEvent

EPSILON_DECIMALS = 6
MAX_EPSILON = 500.0


def compose_mu(events: Iterable[GdpEvent]) -> float:
    """μ of all events together under add/remove of one unit; 0 when there are none."""
    return math.sqrt(math.fsum(event.mu**2 for event in events))


def compose_replace_one_mu(events: Iterable[GdpEvent]) -> float:
    """μ of all events together when one unit's record is replaced by another."""
    return math.sqrt(math.fsum(event.replace_one_mu**2 for event in events))


def delta_of(epsilon: float, mu: float) -> float:
    """δ at which a μ-GDP mechanism is (ε, δ)-DP, in [0, 1]. Raises ValueError unless ε ≥ 0 and μ ≥ 0."""
    if not (epsilon >= 0 and mu >= 0):
        raise ValueError(f"epsilon and mu must be at least 0, not {epsilon=} {mu=}")
    if mu == 0:
        return 0.0
    # In logarithms: the two terms nearly cancel and e^ε overflows long before their product does.
    first = float(log_ndtr(-epsilon / mu + mu / 2))
    second = epsilon + float(log_ndtr(-epsilon / mu - mu / 2))
    if second >= first:
        return 0.0
    return math.exp(first) * -math.expm1(second - first)


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest ε (rounded up to 1e-6) at which a μ-GDP mechanism is (ε, δ)-DP.

    Raises ValueError unless 0 < δ < 1 and μ ≥ 0. Returns infinity above ε = 500, which promises nothing.
    """
    _check_delta(delta)
    if delta_of(0.0, mu) <= delta:
        return 0.0
    if delta_of(MAX_EPSILON, mu) > delta:
        return math.inf
    root = brentq(lambda e: delta_of(e, mu) - delta, 0.0, MAX_EPSILON, xtol=1e-12, rtol=1e-14)
    return round_up(float(root))


def mu_of(epsilon: float, delta: float) -> float:
    """The largest μ (rounded down) that is (ε, δ)-DP.

    Known value: ε=1, δ=1e-5 gives μ=0.26805. Raises ValueError unless ε > 0 and 0 < δ < 1.
    """
    _check_delta(delta)
    if not 0 < epsilon <= MAX_EPSILON:
        raise ValueError(f"epsilon must be above 0 and at most {MAX_EPSILON}, not {epsilon}")
    high = 1.0
    while delta_of(epsilon, high) <= delta:
        high *= 2
    # Aimed a little below ε, so that `epsilon_of` of the result rounds up to ε and not past it.
    aim = max(epsilon - 3e-9, epsilon / 2)
    root = brentq(lambda m: delta_of(aim, m) - delta, 1e-12, high, xtol=1e-18, rtol=1e-13)
    return float(root) * (1 - 1e-12)


def round_up(epsilon: float) -> float:
    """ε rounded up at the sixth decimal: a stated ε is never below the true one."""
    scale = 10.0**EPSILON_DECIMALS
    # The slack absorbs the root finder's tolerance, in the direction that promises less.
    return math.ceil((epsilon + 1e-9) * scale) / scale


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, not {delta}")
