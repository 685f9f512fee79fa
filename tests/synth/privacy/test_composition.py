"""Events of both kinds together: in the ledger, under a cap, and in the words of the statement."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from synth.errors import BudgetExceeded, PrivacyRefusal
from synth.privacy import accounting, pld
from synth.privacy.composition import (
    LARGEST_BY_DISTRIBUTIONS,
    composed_mu,
    epsilon_of,
    replace_one_epsilon_of,
    within,
)
from synth.privacy.events import Event, GaussianEvent, PoissonGaussianEvent
from synth.privacy.ledger import Ledger
from synth.privacy.ledger_books import mu_squared_beside, replay
from synth.privacy.ledger_chain import Entry
from synth.privacy.noise import PROTECTION
from synth.privacy.reservations import Cap, ReservePayload
from synth.privacy.statement import ACCOUNTANT, accountant, noise_protection, renyi_epsilon

DELTA = 1e-5
CRITIC = PoissonGaussianEvent(name="critic", sample_rate=0.02, noise_multiplier=2.0, steps=50)
PEOPLE = "patients"
MakeEvent = Callable[[float], GaussianEvent]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")


def reserve(ledger: Ledger, run_id: str, *events: Event) -> int | None:
    reserved = ledger.reserve(population=PEOPLE, dataset="visits", run_id=run_id, events=events, delta=DELTA)
    return reserved.runs_left


class TestTogether:
    def test_gaussian_events_keep_their_closed_form(self, event_of: MakeEvent) -> None:
        events = [event_of(1), event_of(0.5)]
        mu = composed_mu(events)
        assert mu == accounting.compose_mu(events)
        assert epsilon_of(events, DELTA) == accounting.epsilon_of(mu, DELTA)
        replaced = accounting.epsilon_of(accounting.compose_replace_one_mu(events), DELTA)
        assert replace_one_epsilon_of(events, DELTA) == replaced

    def test_dp_sgd_goes_through_loss_distributions(self, event_of: MakeEvent) -> None:
        events = [event_of(1), CRITIC, event_of(0.5)]
        assert composed_mu(events) is None
        assert epsilon_of(events, DELTA) == pld.epsilon_of(events, DELTA)
        assert replace_one_epsilon_of(events, DELTA) == pld.epsilon_of(events, DELTA, neighbours="replace-one")
        assert replace_one_epsilon_of(events, DELTA) > epsilon_of(events, DELTA) > epsilon_of(events[::2], DELTA)

    def test_runs_with_the_same_settings_are_one_longer_run(self) -> None:
        longer = CRITIC.model_copy(update={"steps": 3 * CRITIC.steps, "name": "longer"})
        assert epsilon_of([CRITIC] * 3, DELTA) == epsilon_of([longer], DELTA)

    @pytest.mark.parametrize(("epsilon", "delta"), [*itertools.product([0.1, 0.5, 1.0, 3.0], [1e-7, 1e-5])])
    def test_within_agrees_with_epsilon(self, event_of: MakeEvent, epsilon: float, delta: float) -> None:
        events = [event_of(0.4), CRITIC]
        spent = epsilon_of(events, delta)
        assert within(events, epsilon, delta) == (spent <= epsilon)
        assert within(events, spent, delta)
        assert not within(events, spent - 2e-3, delta)

    def test_what_promises_nothing_is_bounded_without_its_distribution(self) -> None:
        loud = CRITIC.model_copy(update={"noise_multiplier": 0.3, "sample_rate": 1.0, "steps": 100})
        assert epsilon_of([loud], DELTA) >= pld.renyi_epsilon_of([loud], DELTA) > 200
        assert not within([loud], 1.0, DELTA)

    @pytest.mark.parametrize(
        ("rate", "noise", "steps", "mu"),
        [*itertools.product([0.01, 0.1], [0.8, 4.0], [10, 400], [0.0, 0.3])],
    )
    def test_the_second_opinion_is_never_below(self, rate: float, noise: float, steps: int, mu: float) -> None:
        events: list[Event] = [PoissonGaussianEvent(name="c", sample_rate=rate, noise_multiplier=noise, steps=steps)]
        if mu:
            events.append(GaussianEvent(name="g", sensitivity=mu, replace_one_sensitivity=2 * mu, noise_scale=1))
        second = renyi_epsilon(events, DELTA)
        assert second is not None and second >= epsilon_of(events, DELTA)


class TestTheLedger:
    def test_adds_both_kinds_up(self, ledger: Ledger, event_of: MakeEvent) -> None:
        reserve(ledger, "a", event_of(0.5), CRITIC)
        reserve(ledger, "b", event_of(1))
        budget = ledger.population(PEOPLE)
        events = [event_of(0.5), CRITIC, event_of(1)]
        assert budget is not None and budget.mu is None
        assert budget.epsilon == pld.epsilon_of(events, DELTA)
        assert budget.replace_one_epsilon == pld.epsilon_of(events, DELTA, neighbours="replace-one")
        assert budget.charged[0].mu is None and budget.charged[1].mu is not None
        assert budget.charged[0].epsilon == pld.epsilon_of(events[:2], DELTA)

    def test_each_event_is_spent_once_and_only_as_reserved(self, ledger: Ledger, event_of: MakeEvent) -> None:
        reserve(ledger, "a", event_of(0.5), CRITIC)
        for other in ({"steps": 51}, {"sample_rate": 0.01}, {"noise_multiplier": 3.0}):
            with pytest.raises(PrivacyRefusal, match="no unspent reservation"):
                ledger.spend("a", CRITIC.model_copy(update=other))
        ledger.spend("a", CRITIC)
        with pytest.raises(PrivacyRefusal, match="drawn once"):
            ledger.spend("a", CRITIC)
        ledger.close_failed("a")
        assert ledger.charged("a") and not ledger.charged("b")

    def test_the_cap_binds_and_may_be_used_whole(self, ledger: Ledger, event_of: MakeEvent) -> None:
        whole = epsilon_of([event_of(0.5), CRITIC], DELTA)
        ledger.set_cap(PEOPLE, whole, DELTA)
        assert reserve(ledger, "a", event_of(0.5), CRITIC) == 0
        before = ledger.head()
        with pytest.raises(BudgetExceeded, match="is spent and this run would make it"):
            reserve(ledger, "b", CRITIC)
        with pytest.raises(BudgetExceeded):
            ledger.refuse_if_over_cap(PEOPLE, [event_of(0.1)])
        assert ledger.head() == before

    def test_runs_left_are_as_many_as_fit(self, ledger: Ledger, event_of: MakeEvent) -> None:
        run = [event_of(0.3), CRITIC]
        ledger.set_cap(PEOPLE, 1, DELTA)
        left = ledger.runs_left(PEOPLE, run)
        assert left is not None
        assert pld.delta_at(run * left, 1) <= DELTA < pld.delta_at(run * (left + 1), 1)
        assert reserve(ledger, "a", *run) == left - 1
        budget = ledger.population(PEOPLE)
        assert budget is not None and budget.runs_left == left - 1

    def test_what_is_left_beside_dp_sgd_can_be_spent_and_not_more(self, event_of: MakeEvent) -> None:
        cap = Cap(epsilon=1.5, delta=DELTA)
        left = mu_squared_beside([CRITIC, event_of(0.5)], cap)

        def one_more(mu_squared: float) -> list[Event]:
            mu = math.sqrt(mu_squared)
            more = GaussianEvent(name="more", sensitivity=mu, replace_one_sensitivity=mu, noise_scale=1)
            return [CRITIC, event_of(0.5), more]

        assert pld.delta_at(one_more(left), 1.5) <= DELTA < pld.delta_at(one_more(left * 1.01), 1.5)
        assert mu_squared_beside([CRITIC], Cap(epsilon=0.01, delta=DELTA)) == 0

    def test_a_backup_holds_them(self, ledger: Ledger, event_of: MakeEvent, tmp_path: Path) -> None:
        reserve(ledger, "a", event_of(0.5), CRITIC)
        ledger.spend("a", CRITIC)
        other = Ledger.open(f"sqlite:///{tmp_path / 'other.db'}")
        other.restore(ledger.backup())
        assert other.backup() == ledger.backup()
        restored = other.population(PEOPLE)
        assert restored is not None and restored.charged[0].spent == (CRITIC,)


class TestPayloads:
    OLD = (
        '{"delta":0.00001,"events":[{"mechanism":"gaussian","name":"fine histograms and class sizes",'
        '"noise_scale":12.5,"replace_one_sensitivity":2.8284271247461903,"sensitivity":2}]}'
    )

    def test_what_earlier_versions_wrote_reads_and_writes_the_same(self) -> None:
        payload = ReservePayload.model_validate_json(self.OLD)
        assert isinstance(payload.events[0], GaussianEvent)
        assert payload.text() == self.OLD
        entry = Entry(
            seq=1,
            time=datetime(2025, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            population=PEOPLE,
            dataset="visits",
            run_id="old",
            kind="reserve",
            payload=self.OLD,
            previous="",
        )
        assert replay([entry]).charged_events(PEOPLE) == list(payload.events)

    def test_the_mechanism_tells_the_kinds_apart(self) -> None:
        text = ReservePayload(delta=DELTA, events=(CRITIC,)).text()
        assert json.loads(text)["events"][0] == {
            "mechanism": "poisson-subsampled-gaussian",
            "name": "critic",
            "noise_multiplier": 2.0,
            "sample_rate": 0.02,
            "steps": 50,
        }
        assert ReservePayload.model_validate_json(text).events == (CRITIC,)
        with pytest.raises(ValueError, match="mechanism"):
            ReservePayload.model_validate_json(text.replace("poisson-subsampled-gaussian", "gaussian-ish"))


@pytest.mark.parametrize("beyond", [{"steps": 10**18}, {"noise_multiplier": 1e8}])
def test_what_the_accountants_cannot_count_is_no_event(beyond: dict[str, Any]) -> None:
    """The loss of a step would round to nothing, and 10^18 of them to nothing too."""
    with pytest.raises(ValidationError):
        PoissonGaussianEvent(**{"name": "critic", "sample_rate": 0.5, "noise_multiplier": 1.0, "steps": 1, **beyond})


def test_a_large_replace_one_epsilon_is_bounded_without_sampling() -> None:
    """A loss distribution would take gigabytes; the bound is that of plain Gaussian steps, so above the true ε."""
    fierce = PoissonGaussianEvent(name="critic", sample_rate=0.98, noise_multiplier=1.0, steps=165)
    assert pld.renyi_epsilon_of([fierce], DELTA) > LARGEST_BY_DISTRIBUTIONS
    plain = GaussianEvent(
        name="steps", sensitivity=math.sqrt(165), replace_one_sensitivity=2 * math.sqrt(165), noise_scale=1.0
    )
    assert replace_one_epsilon_of([fierce], DELTA) == replace_one_epsilon_of([plain], DELTA)
    assert replace_one_epsilon_of([fierce], DELTA) >= epsilon_of([fierce], DELTA)


class TestTheWords:
    def test_follow_from_whether_dp_sgd_took_part(self, event_of: MakeEvent) -> None:
        plain: list[Event] = [event_of(1)]
        assert (accountant(plain), renyi_epsilon(plain, DELTA), noise_protection(plain)) == (
            ACCOUNTANT,
            None,
            PROTECTION,
        )
        mixed = [*plain, CRITIC]
        for words in ("privacy loss distributions", "steps of 0.0001", "Renyi"):
            assert words in accountant(mixed)
        assert noise_protection(mixed).startswith(PROTECTION) and "DP-SGD noise" in noise_protection(mixed)


def test_a_ledger_without_dp_sgd_needs_neither_its_accountant_nor_torch(tmp_path: Path) -> None:
    script = f"""
import sys
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger
ledger = Ledger.open("sqlite:///{tmp_path / "light.db"}")
event = GaussianEvent(name="all", sensitivity=1, replace_one_sensitivity=2, noise_scale=5)
ledger.set_cap("people", 3)
ledger.reserve(population="people", dataset="d", run_id="a", events=[event], delta=1e-5)
ledger.settle("a")
assert ledger.population("people").runs_left > 0
sys.exit(bool({{"dp_accounting", "torch"}} & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
