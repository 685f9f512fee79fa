"""Many processes on one ledger: a cap is never overspent, and no kill at any database call under-counts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synth.privacy.ledger import Ledger

CHILDREN = Path(__file__).with_name("ledger_children.py")


def children(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, CHILDREN, *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_of_64_racers_exactly_those_that_fit_succeed(ledger_url: str) -> None:
    ledger = Ledger.open(ledger_url)
    ledger.set_cap("patients", 4.02, 1e-5)  # twelve runs of ε = 1 compose to 4.018
    assert sorted(children("race", ledger_url, "64")) == [0] * 12 + [3] * 52
    budget = ledger.population("patients")
    assert budget is not None
    assert budget.candidates == 12
    assert budget.epsilon <= 4.02
    assert ledger.verify_chain() == 1 + 2 * 12


def test_racing_to_create_a_ledger_makes_one(ledger_url: str) -> None:
    assert children("race", ledger_url, "8") == [0] * 8
    ledger = Ledger.open(ledger_url, create=False)
    budget = ledger.population("patients")
    assert budget is not None
    assert (budget.candidates, ledger.verify_chain()) == (8, 16)


def test_a_kill_at_any_database_call_never_under_counts(ledger_url: str) -> None:
    """Before and after every statement and every commit of open, reserve, spend and settle."""
    *kills, whole = children("kill", ledger_url)
    assert (whole["code"], whole["knew"]) == (0, ["granted", "drawn", "settled"])
    places = [kill["place"] for kill in kills]
    assert {kill["code"] for kill in kills} == {-signal.SIGKILL}
    for moment in ("before", "after"):
        assert sum(place.startswith(f"{moment} INSERT INTO") and "entries" in place for place in places) == 3
        assert places.count(f"{moment} commit") == 4
    for kill in kills:
        charged = "killed" in kill["charged"]
        assert charged or "granted" not in kill["knew"], kill
        assert kill["epsilon"] == pytest.approx(1 if charged else 0, abs=2e-6), kill
        if "drawn" in kill["knew"]:
            assert kill["spent"] == 1, kill
        if kill["spent"]:
            assert not kill["could_be_voided"], kill
    # It is no accident of where the kills fell: some died just short of the grant, some just after it counted.
    assert any(not kill["charged"] for kill in kills) and any(kill["charged"] and not kill["knew"] for kill in kills)
