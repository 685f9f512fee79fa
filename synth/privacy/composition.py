"""What events cost together: by the closed form where it is exact, by loss distributions where DP-SGD took part.

Whoever adds events up asks here, and asks `cost_of_run` first: what was released about held-out people can be told
from the rest of its own run alone. The accountant of DP-SGD is loaded for those who need it and for nobody else, and it
is slow: it is asked only where its independent, faster and looser colleague (Rényi DP) has not settled the question.
Both state upper bounds, so either may.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from synth.privacy import accounting
from synth.privacy.accounting import compose_mu, compose_replace_one_mu, delta_of
from synth.privacy.events import Composable, Event, GaussianEvent, GdpEvent, HeldOutEvent

CERTAIN_EXCESS = 2.0
"""Above so many times a target the Rényi ε refuses by itself; it is looser than the exact one by a fifth or so."""
LARGEST_BY_DISTRIBUTIONS = 120.0
"""Above this Rényi ε a looser bound is stated: the loss distribution would take gigabytes, and the promise is empty."""


def cost_of_run(events: Iterable[Event]) -> tuple[Composable, ...]:
    """Events that cost at least what this one run costs, with training and held-out people counted as one of the two.

    Let M be a run in which each unit is held out by a coin of its own with probability h: Gaussian releases (together
    of parameter μ_t, perhaps with DP-SGD) read the units that stay, and a Gaussian release of parameter μ_s, which may
    depend on all that the others gave out, reads the held-out ones. Let D' be D and one more unit. Given everybody
    else's coins, M(D') is the mixture (1 − h)·T + h·S of the run with the unit in training and the run with it held
    out. T differs from M(D) in training alone, for the score that follows is the same function of its output; S
    differs in the score alone. The hockey-stick divergence is jointly convex (it is an f-divergence; Balle, Barthe,
    Gaboardi 2018, "Privacy amplification by subsampling"), so that for every ε, in both directions,

        D_ε(M(D') ‖ M(D)) ≤ (1 − h)·D_ε(T ‖ M(D)) + h·D_ε(S ‖ M(D)) ≤ max(D_ε(T ‖ M(D)), D_ε(S ‖ M(D))),

    and averaging over the others' coins keeps it. The first is at most what the training's events cost, the second at
    most δ(ε) of a μ_s-GDP mechanism. Both are at most the cost of the training's events with the parameter of the
    Gaussian ones raised to max(μ_t, μ_s), which is what is returned; DP-SGD beside them only adds to it. The bound
    holds for all ε at once, so it composes with other runs like any mechanism of that cost (Dong, Roth, Su 2022,
    Theorem 3.2). When one unit is replaced by another, both have the same coin and the same holds.

    Events of several runs must not be mixed here: two runs cost the sum of what each costs.
    """
    everything = tuple(events)
    held_out = [event.alone for event in everything if isinstance(event, HeldOutEvent)]
    rest = tuple(event for event in everything if not isinstance(event, HeldOutEvent))
    gaussian = [event for event in rest if isinstance(event, GdpEvent)]
    mu = compose_mu(gaussian), compose_mu(held_out)
    replace_one_mu = compose_replace_one_mu(gaussian), compose_replace_one_mu(held_out)
    if mu[1] <= mu[0] and replace_one_mu[1] <= replace_one_mu[0]:
        return rest
    larger = GaussianEvent(
        name="the larger of training and held-out score",
        sensitivity=max(mu),
        replace_one_sensitivity=max(replace_one_mu),
        noise_scale=1.0,
    )
    return (larger, *(event for event in rest if not isinstance(event, GdpEvent)))


def only_gdp(events: Iterable[Composable]) -> list[GdpEvent] | None:
    """The events when all of them have a Gaussian-DP parameter, else None."""
    everything = list(events)
    if any(isinstance(event, HeldOutEvent) for event in everything):
        raise TypeError("held-out events are added up by run: ask cost_of_run first")
    gaussian = [event for event in everything if isinstance(event, GdpEvent)]
    return gaussian if len(gaussian) == len(everything) else None


def composed_mu(events: Iterable[Composable]) -> float | None:
    """μ of all events together under add/remove of one unit; None when DP-SGD is among them, which has none."""
    gaussian = only_gdp(events)
    return None if gaussian is None else compose_mu(gaussian)


def epsilon_of(events: Iterable[Composable], delta: float) -> float:
    """ε of all events together at δ under add/remove of one unit, rounded up. Raises ValueError unless 0 < δ < 1."""
    everything = tuple(events)
    mu = composed_mu(everything)
    if mu is not None:
        return accounting.epsilon_of(mu, delta)
    from synth.privacy import pld  # slow to load, and most ledgers never need it

    rough = pld.renyi_epsilon_of(everything, delta)
    return accounting.round_up(rough) if rough > LARGEST_BY_DISTRIBUTIONS else pld.epsilon_of(everything, delta)


def replace_one_epsilon_of(events: Iterable[Composable], delta: float) -> float:
    """The same when one unit's record is replaced by another."""
    everything = tuple(events)
    gaussian = only_gdp(everything)
    if gaussian is not None:
        return accounting.epsilon_of(compose_replace_one_mu(gaussian), delta)
    from synth.privacy import pld

    if pld.renyi_epsilon_of(everything, delta) <= LARGEST_BY_DISTRIBUTIONS:
        return pld.epsilon_of(everything, delta, neighbours="replace-one")
    # Sampling only lowers the loss. Without it a step is a Gaussian release that one replaced unit moves by 2 norms.
    sampled = [event for event in everything if not isinstance(event, GdpEvent)]
    mu_squared = math.fsum(4 * event.steps / event.noise_multiplier**2 for event in sampled)
    rest = compose_replace_one_mu(event for event in everything if isinstance(event, GdpEvent))
    return accounting.epsilon_of(math.sqrt(mu_squared + rest**2), delta)


def within(events: Sequence[Composable], epsilon: float, delta: float) -> bool:
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
