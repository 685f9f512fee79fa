"""Person-level privacy on real patients: no one's visits together move a released vector by more than was paid for."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synth.config import Run, load_run
from synth.ingest import read_persons
from synth.privacy import budget

REPOSITORY = Path(__file__).parents[3]
PATIENTS = 312


@pytest.fixture(scope="module")
def persons() -> Any:
    """benchmarks/persons.py"""
    spec = importlib.util.spec_from_file_location("persons", REPOSITORY / "benchmarks" / "persons.py")
    assert spec is not None and spec.loader is not None
    sys.modules["persons"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run() -> Run:
    return load_run(REPOSITORY / "data" / "pbcseq" / "run.yaml")


@pytest.fixture(scope="module")
def visits(persons: Any, run: Run) -> Any:
    return persons.bounded_table(run)


def test_at_most_m_visits_of_every_patient_are_left(run: Run, visits: Any) -> None:
    before = Counter(int(p) for batch in read_persons(run.config.source.path, run.table) for p in batch.to_pylist())
    m = run.table.max_rows_per_person
    assert max(before.values()) == 16 > m
    assert Counter(visits.whose.tolist()) == {person: min(rows, m) for person, rows in before.items()}
    assert len(before) == PATIENTS


def test_no_patient_moves_a_vector_by_more_than_was_paid_for(persons: Any, run: Run, visits: Any) -> None:
    people = persons.people_by_rows(visits)
    most = persons.shares_used(run, visits, [*people[:24], *people[::12]])
    assert max(most.values()) <= 1 + 1e-9, most
    # The bound is no idle one: half of the columns are the same on all visits of a patient, so that no bound for two
    # rows would hold.
    assert most[budget.ONE_WAY] > 2 / run.table.max_rows_per_person, most
