"""Events by their ε, and runs that reserve them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from synth.privacy.accounting import mu_of
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger, Reservation

DELTA = 1e-5
Reserve = Callable[..., Reservation]


@pytest.fixture(scope="session")
def event_of() -> Callable[[float], GaussianEvent]:
    """One event that costs (ε, 1e-5)."""

    def make(epsilon: float) -> GaussianEvent:
        return GaussianEvent(
            name="all", sensitivity=1, replace_one_sensitivity=math.sqrt(2), noise_scale=1 / mu_of(epsilon, DELTA)
        )

    return make


@pytest.fixture(scope="session")
def reserve(event_of: Callable[[float], GaussianEvent]) -> Reserve:
    """`reserve(ledger, "run", 1, population="staff")`: a run of ε at δ = 1e-5."""

    def take(ledger: Ledger, run_id: str, epsilon: float = 1, *, population: str = "patients") -> Reservation:
        return ledger.reserve(
            population=population, dataset="visits", run_id=run_id, events=[event_of(epsilon)], delta=DELTA
        )

    return take
