"""Overlapping populations, and the warning when little is left; the same in every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from synth.errors import BudgetExceeded, UserError
from synth.privacy.ledger import Ledger, PopulationBudget

DELTA = 1e-5


@pytest.fixture
def ledger(ledger_url: str) -> Ledger:
    return Ledger.open(ledger_url)


def account(ledger: Ledger, name: str) -> PopulationBudget:
    found = ledger.population(name)
    assert found is not None
    return found


class TestOverlaps:
    def test_runs_on_either_count_for_both(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        reserve(ledger, "a", population="patients")
        reserve(ledger, "b", population="staff")
        reserve(ledger, "c", population="strangers")
        ledger.declare_overlap("patients", "staff")
        for name, other in (("patients", "staff"), ("staff", "patients")):
            budget = account(ledger, name)
            assert budget.overlaps == (other,)
            assert [run.run_id for run in budget.charged] == ["a", "b"]
            assert budget.epsilon == pytest.approx(1.465, abs=5e-4)  # two runs of (1, 1e-5)
        assert account(ledger, "strangers").overlaps == ()
        assert account(ledger, "strangers").epsilon == pytest.approx(1, abs=2e-6)

    def test_overlaps_chain(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        for name in ("patients", "staff", "donors", "strangers"):
            reserve(ledger, f"run on {name}", population=name)
        ledger.declare_overlap("patients", "staff")
        ledger.declare_overlap("donors", "staff")
        for name in ("patients", "staff", "donors"):
            assert account(ledger, name).epsilon == pytest.approx(1.835, abs=5e-4)  # three runs
        assert account(ledger, "strangers").candidates == 1

    def test_every_cap_of_them_binds(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.set_cap("patients", 10, DELTA)
        ledger.set_cap("staff", 1.5, DELTA)
        ledger.declare_overlap("patients", "staff")
        reserve(ledger, "a")
        budget = account(ledger, "patients")
        assert (budget.cap and budget.cap.epsilon, budget.capped_population) == (1.5, "staff")
        reserve(ledger, "b")
        with pytest.raises(BudgetExceeded, match="the cap of 'staff', which it overlaps, is ") as refused:
            reserve(ledger, "c")
        assert "1.46517 is spent" in str(refused.value)
        with pytest.raises(BudgetExceeded, match="population 'staff': its cap"):
            reserve(ledger, "d", population="staff")
        ledger.set_cap("staff", 20, DELTA)
        assert account(ledger, "staff").capped_population == "patients"

    def test_caps_at_different_deltas_all_bind(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.set_cap("patients", 2, 1e-5)
        ledger.set_cap("staff", 2, 1e-9)  # the tighter one
        ledger.declare_overlap("patients", "staff")
        reserve(ledger, "a")
        assert account(ledger, "patients").delta == 1e-9
        with pytest.raises(BudgetExceeded, match="at delta 1e-09"):
            reserve(ledger, "b")

    def test_declared_over_the_cap_it_refuses_every_further_run(
        self, ledger: Ledger, reserve: Callable[..., Any]
    ) -> None:
        ledger.set_cap("patients", 1.2, DELTA)
        reserve(ledger, "a")
        reserve(ledger, "b", population="staff")
        ledger.declare_overlap("staff", "patients")
        with pytest.raises(BudgetExceeded, match="nothing is left"):
            reserve(ledger, "c", 0.01, population="staff")
        assert account(ledger, "staff").epsilon_left == 0

    def test_void_runs_cost_nothing_here_too(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.declare_overlap("patients", "staff")
        reserve(ledger, "a", population="staff")
        ledger.void("a")
        assert account(ledger, "patients").epsilon == 0

    def test_it_may_come_before_the_first_run(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.declare_overlap("patients", "staff")
        assert [budget.population for budget in ledger.populations()] == ["patients", "staff"]
        assert (account(ledger, "staff").epsilon, account(ledger, "staff").delta) == (0, 1e-5)
        reserve(ledger, "a")
        assert account(ledger, "staff").epsilon == pytest.approx(1, abs=2e-6)

    @pytest.mark.parametrize(("one", "other"), [("patients", "patients"), ("", "staff"), ("patients", " staff")])
    def test_two_plain_names(self, ledger: Ledger, one: str, other: str) -> None:
        with pytest.raises(UserError):
            ledger.declare_overlap(one, other)
        assert ledger.history() == ()

    def test_once_is_enough(self, ledger: Ledger) -> None:
        ledger.declare_overlap("patients", "staff")
        with pytest.raises(UserError, match="declared already"):
            ledger.declare_overlap("staff", "patients")
        assert ledger.verify_chain() == 1


class TestRunsLeft:
    def test_they_are_counted_down_to_none(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.set_cap("patients", 1.84, DELTA)  # three runs of ε = 1 compose to 1.835
        assert account(ledger, "patients").runs_left is None
        for number, left in enumerate((2, 1, 0)):
            assert reserve(ledger, f"run {number}").runs_left == left
            assert account(ledger, "patients").runs_left == left
        with pytest.raises(BudgetExceeded):
            reserve(ledger, "one more")

    def test_what_is_said_is_what_fits(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.set_cap("patients", 1, DELTA)
        left = reserve(ledger, "first", 0.3).runs_left
        for number in range(left):
            assert reserve(ledger, f"run {number}", 0.3).runs_left == left - number - 1
        with pytest.raises(BudgetExceeded):
            reserve(ledger, "one more", 0.3)

    def test_none_without_a_cap(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        assert reserve(ledger, "a").runs_left is None
        assert account(ledger, "patients").runs_left is None

    def test_the_latest_run_is_the_measure(self, ledger: Ledger, reserve: Callable[..., Any]) -> None:
        ledger.set_cap("patients", 2, DELTA)
        assert reserve(ledger, "a", 1.7).runs_left == 0
        assert reserve(ledger, "b", 0.2).runs_left > 0
        assert account(ledger, "patients").runs_left > 0
