"""At most m rows a person, chosen at random; and what a whole person can move is what the events state."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from synth.errors import InvalidConfig, InvalidSource
from synth.ingest import read_batches, read_persons
from synth.privacy import budget
from synth.privacy.accounting import compose_mu, mu_of
from synth.privacy.contributions import bound_and_number, bound_contributions
from synth.privacy.noise import NoiseSource
from synth.schema import Schema, parse_schema
from synth.tables.codec import codecs_of
from synth.tables.count import read_codes
from synth.tables.encode import encode
from synth.tables.layout import layout_of, plan_of
from synth.tables.measure import Measurer

FALSE_ALARM = 1e-9  # rows drawn without replacement spread less than the chi-square says, so rarer still


def in_batches(values: list[Any], size: int) -> list[pa.Array]:
    return [pa.array(values[i : i + size]) for i in range(0, len(values), size)]


@settings(deadline=None, max_examples=60)
@given(
    persons=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=80),
    most=st.integers(1, 4),
    batch=st.integers(1, 30),
)
def test_everyone_keeps_as_many_rows_as_allowed_and_nobody_else_any(
    persons: list[int | None], most: int, batch: int
) -> None:
    stays = bound_contributions(in_batches(persons, batch), max_rows_per_person=most)
    assert len(stays) == len(persons)
    kept = Counter(p for p, s in zip(persons, stays, strict=True) if s)
    there = Counter(p for p in persons if p is not None)
    assert kept == Counter({person: min(rows, most) for person, rows in there.items()})


@settings(deadline=None, max_examples=60)
@given(persons=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=80), most=st.integers(1, 4))
def test_rows_that_stay_bear_the_number_of_their_person(persons: list[int | None], most: int) -> None:
    stays, numbers = bound_and_number(in_batches(persons, 7), max_rows_per_person=most)
    kept = [p for p, s in zip(persons, stays, strict=True) if s]
    assert len(numbers) == len(kept) and numbers.dtype == np.int64
    pairs = set(zip(kept, numbers.tolist(), strict=True))
    assert len(pairs) == len({person for person, _ in pairs}) == len({number for _, number in pairs})
    assert {number for _, number in pairs} == set(range(len(pairs)))


def test_which_rows_stay_is_a_fair_draw() -> None:
    rows, runs = 6, 3000
    counts = np.zeros(rows)
    for _ in range(runs):
        counts += bound_contributions([pa.array(["a"] * rows)], max_rows_per_person=2)
    assert counts.sum() == 2 * runs
    assert chisquare(counts).pvalue > FALSE_ALARM


def test_another_person_in_the_file_does_not_change_how_many_rows_stay() -> None:
    alone = bound_contributions([pa.array(["a"] * 5)], max_rows_per_person=3)
    beside = bound_contributions([pa.array(["a", "b"] * 5)], max_rows_per_person=3)
    assert alone.sum() == 3
    assert beside[0::2].sum() == beside[1::2].sum() == 3


@pytest.mark.parametrize(
    "persons",
    [pa.array([5.0, 5.0, None, 5.0]), pa.array([5, 5, None, 5]), pa.array(["5", "5", None, "5"])],
)
def test_a_person_is_the_same_whatever_the_type(persons: pa.Array) -> None:
    assert bound_contributions([persons.slice(0, 1), persons.slice(1)], max_rows_per_person=1).sum() == 1
    mixed = bound_contributions([persons, pa.array(["5"]), pa.array([5.0])], max_rows_per_person=1)
    assert mixed.sum() == 1


def test_no_rows_and_no_allowance() -> None:
    assert len(bound_contributions([], max_rows_per_person=1)) == 0
    with pytest.raises(ValueError, match="at least 1"):
        bound_contributions([], max_rows_per_person=0)


def visits(most: int, unit: str = "patient") -> Schema:
    columns = [
        {"name": "patient", "kind": "id"},
        {"name": "ward", "kind": "categorical", "categories": ["a", "b"]},
        {"name": "stay", "kind": "integer", "bounds": [0, 600]},
        {"name": "died", "kind": "boolean"},
    ]
    raw = {"dataset": "visits", "privacy_unit": unit, "max_rows_per_person": most, "target": "died"}
    return parse_schema({**raw, "columns": columns}, file="schema.yaml")


class Exact(NoiseSource):
    """Keeps the exact vectors, each divided by its noise, and adds none."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[Any, float]] = []

    def add_to(self, exact: Any, noise_scale: float) -> Any:
        self.drawn.append((np.asarray(exact, dtype=float), noise_scale))
        return np.asarray(exact, dtype=float)


def released(folder: Path, schema: Schema, rows: list[tuple[str, str, str, str]], frozen: Any = None) -> Any:
    """The exact vectors a run would noise, and the cost of moving from `frozen` to them, in noise scales."""
    source = folder / "visits.csv"
    source.write_text("patient,ward,stay,died\n" + "".join(",".join(row) + "\n" for row in rows))
    codecs = codecs_of(schema)
    stays = bound_contributions(read_persons(source, schema), max_rows_per_person=schema.max_rows_per_person)
    encode(read_batches(source, schema), codecs, folder / "codes", stays=stays)
    layout = layout_of(schema, codecs)
    plan = plan_of(layout, codecs, epsilon=1, delta=1e-5, max_rows_per_person=schema.max_rows_per_person)
    noise = Exact()
    measurer = Measurer(
        read=lambda keys: read_codes(folder / "codes", keys),
        codecs=codecs,
        layout=layout,
        plan=plan,
        noise=noise,
        charge=lambda name: None,
        public_rows=None,
    )
    fine = measurer._fine(np.arange(2)) if frozen is None else frozen
    noise.drawn.clear()
    measurer._fine(np.arange(2))
    measurer._pair_tables(measurer._one_way(fine), layout.pairs)
    return plan, fine, noise.drawn


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_person_of_many_equal_rows_moves_exactly_what_the_events_state(tmp_path: Path, most: int) -> None:
    """The worst person puts all rows into the same cells; the steps of the run then cost exactly the stated μ."""
    schema = visits(most)
    others = [(f"p{i}", "ab"[i % 2], str(i % 600), "true" if i % 3 else "false") for i in range(300)]
    worst = [("hoarder", "b", "600", "true")] * 7
    plan, fine, without = released(tmp_path, schema, others)
    _, _, beside = released(tmp_path, schema, others + worst, frozen=fine)
    moved = [np.linalg.norm(b - a) / scale for (a, _), (b, scale) in zip(without, beside, strict=True)]
    assert np.sqrt(np.sum(np.square(moved))) == pytest.approx(compose_mu(plan.events), rel=1e-9)
    assert compose_mu(plan.events) == pytest.approx(mu_of(1, 1e-5), rel=1e-9)
    fine_event = next(event for event in plan.events if event.name == budget.FINE)
    noises = np.array([plan.class_noise, *plan.fine_noise.values(), *plan.coarse_noise.values()])
    assert len(noises) == 4
    assert fine_event.mu == pytest.approx(most * np.linalg.norm(1 / noises), rel=1e-9)


def test_rows_that_belong_to_nobody_are_not_measured(tmp_path: Path) -> None:
    rows = [("", "a", "1", "true")] * 5 + [("p1", "b", "2", "false")]
    _, _, drawn = released(tmp_path, visits(2), rows)
    assert max(vector.sum() for vector, _ in drawn) == 1
    with pytest.raises(InvalidSource, match="belong to a person"):
        released(tmp_path, visits(2), rows[:5])


@pytest.mark.parametrize(
    ("unit", "most", "problem"),
    [("patien", 1, "did you mean patient"), ("ward", 1, "its kind is id"), ("row", 2, "needs the person column")],
)
def test_a_person_column_must_be_one(unit: str, most: int, problem: str) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        visits(most, unit)


def test_a_source_that_changes_between_the_passes_is_refused(tmp_path: Path) -> None:
    schema = visits(1)
    source = tmp_path / "visits.csv"
    source.write_text("patient,ward,stay,died\np1,a,1,true\np2,b,2,false\n")
    stays = bound_contributions(read_persons(source, schema), max_rows_per_person=1)
    for text in ("p1,a,1,true\n", "p1,a,1,true\np2,b,2,false\np3,a,1,true\n"):
        source.write_text("patient,ward,stay,died\n" + text)
        with pytest.raises(InvalidSource, match="changed while"):
            encode(read_batches(source, schema), codecs_of(schema), tmp_path / "codes", stays=stays)


@pytest.mark.parametrize("nobody", ["", "NA", "None", " null "])
def test_words_for_nobody_are_no_person(nobody: str) -> None:
    stays = bound_contributions([pa.array([nobody, "p1", nobody])], max_rows_per_person=3)
    assert stays.tolist() == [False, True, False]
