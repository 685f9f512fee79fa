"""What all reservations on a population add up to, and whether one more fits under its cap.

Where the steward has declared that populations overlap, the runs on all of them count for each: whoever is in several
is protected by their composition, which is what the balance states and every one of their caps bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from synth.errors import BudgetExceeded, PrivacyRefusal, VerificationFailed
from synth.privacy.accounting import (
    EPSILON_DECIMALS,
    MAX_EPSILON,
    compose_mu,
    epsilon_of,
    mu_of,
)
from synth.privacy.composition import composed_mu, cost_of_run, only_gdp, replace_one_epsilon_of, within
from synth.privacy.composition import epsilon_of as epsilon_of_events
from synth.privacy.events import Composable, Event, GaussianEvent
from synth.privacy.ledger_chain import Entry
from synth.privacy.reservations import Cap, Overlap, Reservation, follow, read_payload

DEFAULT_DELTA = 1e-5
MOST_RUNS = 10_000
"""Runs with DP-SGD are counted no further: each try asks the accountant."""
BISECTIONS = 12


@dataclass(frozen=True, kw_only=True)
class PopulationBudget:
    """All runs that count for one population, composed at `delta`. ε values are rounded up, what is left down.

    `overlaps` names the other populations whose runs count too. `cap` is the tightest among theirs and its own, set on
    `capped_population`. `mu` is None where DP-SGD took part.
    `epsilon_left` is the largest ε at the cap's δ that one more Gaussian run may have, and
    `mu_squared_left` its μ²; `runs_left` is how many more runs like the latest one fit.
    All are None without a cap, and `runs_left` without a run.
    """

    population: str
    overlaps: tuple[str, ...]
    delta: float
    charged: tuple[Reservation, ...]
    void: tuple[Reservation, ...]
    cap: Cap | None
    capped_population: str | None
    mu: float | None
    epsilon: float
    replace_one_epsilon: float
    mu_squared_left: float | None
    epsilon_left: float | None
    runs_left: int | None

    @property
    def candidates(self) -> int:
        """How many runs count, whatever became of what they made."""
        return len(self.charged)

    @property
    def open(self) -> tuple[Reservation, ...]:
        """The charged runs that have not settled: at work, or dead."""
        return tuple(run for run in self.charged if run.state == "open")


@dataclass(frozen=True, kw_only=True)
class Books:
    """Every run by its id, every population's latest cap, and each declared overlap."""

    runs: Mapping[str, Reservation]
    caps: Mapping[str, Cap]
    overlaps: frozenset[frozenset[str]] = frozenset()

    def populations(self) -> tuple[str, ...]:
        """Names of all populations with a run, a cap or an overlap, sorted."""
        named = {run.population for run in self.runs.values()} | set(self.caps)
        return tuple(sorted(named.union(*self.overlaps)))

    def with_run(self, run: Reservation) -> Books:
        """The books with one more run, or with its next state."""
        return replace(self, runs={**self.runs, run.run_id: run})

    def connected(self, population: str) -> frozenset[str]:
        """The population and all that a chain of declared overlaps ties to it."""
        found, waiting = {population}, [population]
        while waiting:
            name = waiting.pop()
            near = {other for pair in self.overlaps if name in pair for other in pair} - found
            found |= near
            waiting += near
        return frozenset(found)

    def runs_of(self, population: str) -> tuple[Reservation, ...]:
        """The runs that count for the population or were void, in the order of their reservations."""
        names = self.connected(population)
        return tuple(run for run in self.runs.values() if run.population in names)

    def smallest_delta(self, population: str) -> float | None:
        """The smallest δ that a run which counts for the population was reserved at."""
        return min((run.delta for run in self.runs_of(population)), default=None)

    def charged_events(self, population: str) -> list[Composable]:
        """Everything that counts against the population; of each run what `cost_of_run` says."""
        return [event for run in self.runs_of(population) if run.charged for event in cost_of_run(run.events)]

    def tightest_cap(self, population: str) -> tuple[str, Cap] | None:
        """The cap that binds first, and the population it was set on: its own or an overlapping one's."""
        found = [(name, self.caps[name]) for name in self.connected(population) if name in self.caps]
        # Of equal caps its own is named, then the first by name, so that the answer is always the same.
        return min(found, key=lambda it: (mu_of(it[1].epsilon, it[1].delta), it[0] != population, it[0]), default=None)

    def budget_of(self, population: str) -> PopulationBudget | None:
        """The population's account, None when the ledger has never heard of it."""
        if population not in self.populations():
            return None
        runs = self.runs_of(population)
        charged = tuple(run for run in runs if run.charged)
        capped, cap = self.tightest_cap(population) or (None, None)
        delta = cap.delta if cap else self.smallest_delta(population) or DEFAULT_DELTA
        events = self.charged_events(population)
        left = None if cap is None else mu_squared_beside(events, cap)
        return PopulationBudget(
            population=population,
            overlaps=tuple(sorted(self.connected(population) - {population})),
            delta=delta,
            charged=charged,
            void=tuple(run for run in runs if not run.charged),
            cap=cap,
            capped_population=capped,
            mu=composed_mu(events),
            epsilon=epsilon_of_events(events, delta),
            replace_one_epsilon=replace_one_epsilon_of(events, delta),
            mu_squared_left=left,
            epsilon_left=None if left is None else largest_epsilon(left, delta),
            runs_left=self.runs_left(population, charged[-1].events) if charged else None,
        )

    def runs_left(self, population: str, events: Sequence[Event]) -> int | None:
        """How many more runs with these events fit under the cap; None without a cap."""
        tightest = self.tightest_cap(population)
        if tightest is None:
            return None
        if not self.fits(population, events):
            return 0
        cap, charged, run = tightest[1], self.charged_events(population), cost_of_run(events)
        before, each = only_gdp(charged), only_gdp(run)
        if before is not None and each is not None:
            left = mu_of(cap.epsilon, cap.delta) ** 2 - compose_mu(before) ** 2
            return max(1, int(left / compose_mu(each) ** 2 + 1e-9))
        return _most(lambda runs: within([*charged, *run * runs], cap.epsilon, cap.delta))

    def refuse_if_over_cap(self, population: str, events: Sequence[Event]) -> None:
        """Raise BudgetExceeded when these events on top of all charged ones pass the cap."""
        if not self.fits(population, events):
            raise self.over_cap(population, events)

    def over_cap(self, population: str, events: Sequence[Event]) -> BudgetExceeded:
        """What to say of events that do not fit."""
        budget, tightest = self.budget_of(population), self.tightest_cap(population)
        assert budget is not None and tightest is not None  # else they would fit
        capped, cap = tightest
        owner = "its cap" if capped == population else f"the cap of {capped!r}, which it overlaps,"
        would_be = format_epsilon(
            epsilon_of_events([*self.charged_events(population), *cost_of_run(events)], cap.delta)
        )
        limit, spent, left = map(format_epsilon, (cap.epsilon, budget.epsilon, budget.epsilon_left or 0.0))
        remedy = (
            f"lower the run's epsilon to at most {left}, or" if budget.epsilon_left else "nothing is left unless you"
        )
        return BudgetExceeded(
            f"population {population!r}: {owner} is epsilon {limit} at delta {cap.delta:g}, {spent} is spent "
            f"and this run would make it {would_be}; {remedy} "
            "have the steward raise the cap (synth budget cap)"
        )

    def fits(self, population: str, events: Sequence[Event]) -> bool:
        """Whether these events on top of all charged ones stay within every cap that binds; True without one."""
        caps = [self.caps[name] for name in self.connected(population) if name in self.caps]
        if not caps:
            return True
        together = [*self.charged_events(population), *cost_of_run(events)]
        return all(within(together, cap.epsilon, cap.delta) for cap in caps)


def mu_squared_beside(events: Sequence[Composable], cap: Cap) -> float:
    """The largest μ² that a Gaussian run may have beside these events under a cap; 0 if none. Rounded down."""
    whole = mu_of(cap.epsilon, cap.delta) ** 2
    gaussian = only_gdp(events)
    if gaussian is not None:
        return max(0.0, whole - compose_mu(gaussian) ** 2)

    def fits(mu_squared: float) -> bool:
        mu = math.sqrt(mu_squared)
        run = GaussianEvent(name="one more", sensitivity=mu, replace_one_sensitivity=mu, noise_scale=1.0)
        return within([*events, run], cap.epsilon, cap.delta)

    low, high = 0.0, whole
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _most(fits: Callable[[int], bool]) -> int:
    """The largest number up to MOST_RUNS that fits, given that 1 does and that what fits fits with fewer too."""
    low, high = 1, 2
    while high <= MOST_RUNS and fits(high):
        low, high = high, 2 * high
    high = min(high, MOST_RUNS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_epsilon(mu_squared: float, delta: float) -> float:
    """The largest ε, in steps of 1e-6, whose Gaussian calibration at δ needs at most this μ²; 0 if none."""
    epsilon = min(MAX_EPSILON, epsilon_of(math.sqrt(mu_squared), delta))
    while epsilon > 0 and mu_of(epsilon, delta) ** 2 > mu_squared:
        epsilon = max(0.0, round(epsilon - 10.0**-EPSILON_DECIMALS, EPSILON_DECIMALS))
    return epsilon


def replay(entries: Iterable[Entry]) -> Books:
    """Read all entries into books. Raises VerificationFailed for one that cannot follow those before it."""
    runs: dict[str, Reservation] = {}
    caps: dict[str, Cap] = {}
    overlaps: set[frozenset[str]] = set()
    for entry in entries:
        try:
            if entry.kind == "cap":
                caps[entry.population] = read_payload(Cap, entry.payload)
            elif entry.kind == "overlap":
                overlaps.add(frozenset({entry.population, read_payload(Overlap, entry.payload).other}))
            else:
                run = follow(runs.get(entry.run_id or ""), entry)
                runs[run.run_id] = run
        except (ValueError, PrivacyRefusal) as error:  # pydantic's errors are ValueErrors
            raise VerificationFailed(f"ledger entry {entry.seq} does not fit those before it") from error
    return Books(runs=runs, caps=caps, overlaps=frozenset(overlaps))


def little_left(population: str) -> str:
    """What to tell people when `runs_left` is 0."""
    return f"population {population!r}: what is left under its cap does not suffice for another run like the latest"


def format_epsilon(epsilon: float) -> str:
    """ε for people: all six decimals that matter and no more."""
    return f"{epsilon:.6f}".rstrip("0").rstrip(".") if epsilon <= MAX_EPSILON else f"above {MAX_EPSILON:g}"
