"""What all reservations on a population add up to, and whether one more fits under its cap."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from synth.errors import BudgetExceeded, PrivacyRefusal, VerificationFailed
from synth.privacy.accounting import (
    EPSILON_DECIMALS,
    MAX_EPSILON,
    compose_mu,
    compose_replace_one_mu,
    delta_of,
    epsilon_of,
    mu_of,
)
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger_chain import Entry
from synth.privacy.reservations import Cap, Reservation, follow


@dataclass(frozen=True, kw_only=True)
class PopulationBudget:
    """All runs on one population, composed at `delta`. ε values are rounded up, what is left down.

    `epsilon_left` is the largest ε at the cap's δ that one more Gaussian run may have, and
    `mu_squared_left` the same in the quantity that adds up; both None without a cap.
    """

    population: str
    delta: float
    charged: tuple[Reservation, ...]
    void: tuple[Reservation, ...]
    cap: Cap | None
    mu: float
    epsilon: float
    replace_one_epsilon: float
    mu_squared_left: float | None
    epsilon_left: float | None

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
    """Every run by its id and every population's latest cap."""

    runs: Mapping[str, Reservation]
    caps: Mapping[str, Cap]

    def populations(self) -> tuple[str, ...]:
        """Names of all populations with a run or a cap, sorted."""
        return tuple(sorted({run.population for run in self.runs.values()} | set(self.caps)))

    def runs_of(self, population: str) -> tuple[Reservation, ...]:
        """The population's runs in the order of their reservations."""
        return tuple(run for run in self.runs.values() if run.population == population)

    def smallest_delta(self, population: str) -> float | None:
        """The smallest δ that a run of the population was reserved at."""
        return min((run.delta for run in self.runs_of(population)), default=None)

    def charged_events(self, population: str) -> list[GaussianEvent]:
        """Every event that counts against the population."""
        return [event for run in self.runs_of(population) if run.charged for event in run.events]

    def budget_of(self, population: str) -> PopulationBudget | None:
        """The population's account, None when the ledger has never heard of it."""
        runs, cap = self.runs_of(population), self.caps.get(population)
        delta = cap.delta if cap else self.smallest_delta(population)
        if delta is None:
            return None
        events = self.charged_events(population)
        mu = compose_mu(events)
        left = None if cap is None else max(0.0, mu_of(cap.epsilon, cap.delta) ** 2 - mu**2)
        return PopulationBudget(
            population=population,
            delta=delta,
            charged=tuple(run for run in runs if run.charged),
            void=tuple(run for run in runs if not run.charged),
            cap=cap,
            mu=mu,
            epsilon=epsilon_of(mu, delta),
            replace_one_epsilon=epsilon_of(compose_replace_one_mu(events), delta),
            mu_squared_left=left,
            epsilon_left=None if left is None else largest_epsilon(left, delta),
        )

    def refuse_if_over_cap(self, population: str, events: Sequence[GaussianEvent]) -> None:
        """Raise BudgetExceeded when these events on top of all charged ones pass the cap."""
        cap, budget = self.caps.get(population), self.budget_of(population)
        if cap is None or budget is None or self.fits(population, events):
            return
        would_be = format_epsilon(epsilon_of(self._mu_with(population, events), cap.delta))
        limit, spent, left = map(format_epsilon, (cap.epsilon, budget.epsilon, budget.epsilon_left or 0.0))
        remedy = f"lower the run's epsilon to at most {left}" if budget.epsilon_left else "nothing is left"
        raise BudgetExceeded(
            f"population {population!r}: its cap is epsilon {limit} at delta {cap.delta:g}, {spent} is spent "
            f"and this run would make it {would_be}; {remedy}, "
            "or have the steward raise the cap (synth budget cap)"
        )

    def fits(self, population: str, events: Sequence[GaussianEvent]) -> bool:
        """Whether these events on top of all charged ones stay within the cap; True without a cap."""
        cap = self.caps.get(population)
        if cap is None:
            return True
        # δ at the cap's ε, not ε at its δ: this comparison needs no rounding, so a run may use a cap whole.
        return delta_of(cap.epsilon, self._mu_with(population, events)) <= cap.delta

    def _mu_with(self, population: str, events: Sequence[GaussianEvent]) -> float:
        return compose_mu([*self.charged_events(population), *events])


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
    for entry in entries:
        try:
            if entry.kind == "cap":
                caps[entry.population] = Cap.model_validate(json.loads(entry.payload))
            else:
                run = follow(runs.get(entry.run_id or ""), entry)
                runs[run.run_id] = run
        except (ValueError, PrivacyRefusal) as error:  # pydantic's and json's errors are ValueErrors
            raise VerificationFailed(f"ledger entry {entry.seq} does not fit those before it") from error
    return Books(runs=runs, caps=caps)


def format_epsilon(epsilon: float) -> str:
    """ε for people: all six decimals that matter and no more."""
    return f"{epsilon:.6f}".rstrip("0").rstrip(".") if epsilon <= MAX_EPSILON else f"above {MAX_EPSILON:g}"
