"""What events cost together: by the closed form where it is exact, by loss distributions where DP-SGD took part.

Whoever adds events up asks here. The accountant of DP-SGD is loaded for those who need it and for nobody else, and it
is slow: it is asked only where its independent, faster and looser colleague (Rényi DP) has not settled the question.
Both state upper bounds, so either may.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from synth.privacy import accounting
from synth.privacy.accounting import compose_mu, compose_replace_one_mu, delta_of
from synth.privacy.events import Event, GaussianEvent

CERTAIN_EXCESS = 2.0
"""Above so many times a target the Rényi ε refuses by itself; it is looser than the exact one by a fifth or so."""
LARGEST_BY_DISTRIBUTIONS = 120.0
"""Above this Rényi ε a looser bound is stated: the loss distribution would take gigabytes, and the promise is empty."""


def only_gaussian(events: Iterable[Event]) -> list[GaussianEvent] | None:
    """The events when all of them are Gaussian, else None."""
    everything = list(events)
    gaussian = [event for event in everything if isinstance(event, GaussianEvent)]
    return gaussian if len(gaussian) == len(everything) else None


def composed_mu(events: Iterable[Event]) -> float | None:
    """μ of all events together under add/remove of one unit; None when DP-SGD is among them, which has none."""
    gaussian = only_gaussian(events)
    return None if gaussian is None else compose_mu(gaussian)


def epsilon_of(events: Iterable[Event], delta: float) -> float:
    """ε of all events together at δ under add/remove of one unit, rounded up. Raises ValueError unless 0 < δ < 1."""
    everything = tuple(events)
    mu = composed_mu(everything)
    if mu is not None:
        return accounting.epsilon_of(mu, delta)
    from synth.privacy import pld  # slow to load, and most ledgers never need it

    rough = pld.renyi_epsilon_of(everything, delta)
    return accounting.round_up(rough) if rough > LARGEST_BY_DISTRIBUTIONS else pld.epsilon_of(everything, delta)


def replace_one_epsilon_of(events: Iterable[Event], delta: float) -> float:
    """The same when one unit's record is replaced by another."""
    everything = tuple(events)
    gaussian = only_gaussian(everything)
    if gaussian is not None:
        return accounting.epsilon_of(compose_replace_one_mu(gaussian), delta)
    from synth.privacy import pld

    if pld.renyi_epsilon_of(everything, delta) <= LARGEST_BY_DISTRIBUTIONS:
        return pld.epsilon_of(everything, delta, neighbours="replace-one")
    # Sampling only lowers the loss. Without it a step is a Gaussian release that one replaced unit moves by 2 norms.
    sampled = [event for event in everything if not isinstance(event, GaussianEvent)]
    mu_squared = math.fsum(4 * event.steps / event.noise_multiplier**2 for event in sampled)
    rest = compose_replace_one_mu(event for event in everything if isinstance(event, GaussianEvent))
    return accounting.epsilon_of(math.sqrt(mu_squared + rest**2), delta)


def within(events: Sequence[Event], epsilon: float, delta: float) -> bool:
    """Whether all events together are (ε, δ)-DP under add/remove of one unit."""
    mu = composed_mu(events)
    if mu is not None:
        # δ at ε, not ε at δ: this comparison needs no rounding, so that a budget may be used whole.
        return delta_of(epsilon, mu) <= delta
    from synth.privacy import pld

    rough = pld.renyi_epsilon_of(events, delta)
    if rough <= epsilon:
        return True
    return rough <= CERTAIN_EXCESS * epsilon + 1 and pld.delta_at(events, epsilon) <= delta
