"""Bounds from noised histograms: what one person moves, what noise alone does, and what comes out of little noise."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from synth.errors import UserError
from synth.privacy import budget
from synth.privacy.budget import TablePlan
from synth.privacy.noise import NoiseSource
from synth.schema import EstimableColumn, Schema
from synth.tables.bounds import (
    ASSUMED_NUMBERS,
    CUT,
    FALSE_ALARM,
    Tally,
    bounds_of,
    ends_of,
    estimate_bounds,
    meeting_rules,
    summed,
    tally,
    threshold,
)
from synth.tables.codec import codecs_of
from synth.tables.ladder import ladder_of
from synth.tables.layout import details_of, layout_of, plan_of
from synth.tables.rules import rules_of

SchemaOf = Callable[..., Schema]
Row = tuple[str | None, ...]
NAMES = ("count", "cost", "lab", "seen")
DECLARED: dict[str, dict[str, Any]] = {
    "count": {"kind": "integer", "bounds": "estimate", "nullable": True},
    "cost": {"kind": "continuous", "bounds": "estimate", "decimals": 2},
    "lab": {"kind": "continuous", "bounds": "estimate", "nullable": True},
    "seen": {"kind": "datetime", "bounds": "estimate", "resolution": "day"},
}
CELLS = st.tuples(
    st.sampled_from([None, "0", "1", "17", "-17", "1999", "9e15", "-1e17", "word", "inf"]),
    st.sampled_from(["0", "0.01", "-3.5", "20.00", "19.99", "1e13", "nan"]),
    st.sampled_from([None, "0", "-0.0", "5e-324", "1e-31", "2.5", "-2.5", "1e308", "-inf"]),
    st.sampled_from(["0001-01-01", "1999-12-31", "2000-01-01", "9999-12-31", "no date"]),
)
PERSON = st.lists(CELLS, min_size=1, max_size=3)
"""A person's rows, of which at most three count."""


class Seeded(NoiseSource):
    """Noise that is the same each time, or none."""

    def __init__(self, seed: int | None = None) -> None:
        self.rng = None if seed is None else np.random.default_rng(seed)

    def add_to(self, exact: Any, noise_scale: float) -> Any:
        return exact + (0.0 if self.rng is None else noise_scale * self.rng.standard_normal(exact.shape))


@pytest.fixture(scope="module")
def toy(schema_of: SchemaOf) -> Schema:
    return schema_of(*NAMES, **DECLARED)


@pytest.fixture(scope="module")
def plan(toy: Schema) -> TablePlan:
    codecs = codecs_of(toy)
    return plan_of(layout_of(toy, codecs), codecs, epsilon=1.0, delta=1e-5, max_rows_per_person=3)


def batch(rows: Sequence[Row]) -> list[pa.RecordBatch]:
    cells = list(zip(*rows, strict=True)) or [()] * len(NAMES)
    return [pa.record_batch([pa.array(c, pa.string()) for c in cells], names=list(NAMES))]


def vector(schema: Schema, people: Iterable[Sequence[Row]]) -> np.ndarray:
    """All that is released before noise, in one vector."""
    rows = [row for person in people for row in person]
    counts = tally(batch(rows), schema.columns_to_estimate)
    return np.concatenate([np.concatenate([counts[name].coarse, counts[name].fine]) for name in NAMES])


class TestCounting:
    @settings(max_examples=20)
    @given(st.lists(CELLS, max_size=8))
    def test_as_one_value_after_the_other(self, toy: Schema, rows: list[Row]) -> None:
        """A twin that finds each value's bin by going through all of them."""
        found = tally(batch(rows), toy.columns_to_estimate)
        for place, column in enumerate(toy.columns_to_estimate):
            ladder, codec = ladder_of(column), codecs_of(toy)[column.name]
            expected: Counter[int] = Counter()
            for row in rows:
                (position,), _ = codec.positions(pa.array([row[place]], pa.string()))
                if math.isfinite(position):
                    expected[sum(1 for start in ladder.starts if start <= position)] += 1
            assert {i: n for i, n in enumerate(found[column.name].fine) if n} == expected
            coarse = Counter[int]()
            for i, n in expected.items():
                coarse[int(ladder.coarse[i])] += n
            assert {i: n for i, n in enumerate(found[column.name].coarse) if n} == coarse

    def test_batches_add_up(self, toy: Schema) -> None:
        rows: list[Row] = [("17", "1", "2.5", "1999-12-31"), ("18", "2", None, "2000-01-01")]
        apart = tally([*batch(rows[:1]), *batch(rows[1:])], toy.columns_to_estimate)
        whole = tally(batch(rows), toy.columns_to_estimate)
        for name in NAMES:
            assert (apart[name].fine == whole[name].fine).all() and (apart[name].coarse == whole[name].coarse).all()


class TestSensitivity:
    """Neighbours are whole people with up to three rows each; the plan's numbers bound what they move."""

    @given(st.lists(PERSON, max_size=3), PERSON, PERSON)
    def test_no_person_moves_more_than_is_charged(
        self, toy: Schema, plan: TablePlan, others: list[list[Row]], one: list[Row], other: list[Row]
    ) -> None:
        event = next(event for event in plan.releases if event.name == budget.BOUNDS)
        without, with_one, with_other = (vector(toy, [*others, *more]) for more in ([], [one], [other]))
        assert np.linalg.norm(with_one - without) <= event.sensitivity + 1e-9
        assert np.linalg.norm(with_one - with_other) <= event.replace_one_sensitivity + 1e-9

    def test_somebody_moves_as_much(self, toy: Schema, plan: TablePlan) -> None:
        event = next(event for event in plan.releases if event.name == budget.BOUNDS)
        one: list[Row] = [("17", "1", "2.5", "1999-12-31")] * 3
        other: list[Row] = [("170", "100", "25", "2020-12-31")] * 3
        assert np.linalg.norm(vector(toy, [one])) == pytest.approx(event.sensitivity)
        apart = np.linalg.norm(vector(toy, [one]) - vector(toy, [other]))
        assert apart == pytest.approx(event.replace_one_sensitivity)

    def test_the_planned_noise_is_drawn_after_the_charge(self, toy: Schema, plan: TablePlan) -> None:
        log: list[Any] = []

        class Watched(Seeded):
            def add_to(self, exact: Any, noise_scale: float) -> Any:
                log.append((noise_scale, exact.dtype.kind))
                return super().add_to(exact, noise_scale)

        def rows() -> Iterable[pa.RecordBatch]:
            yield from batch([("17", "1", "2.5", "1999-12-31")])
            log.append("read")

        noise_scale = plan.bounds_noise
        assert noise_scale is not None
        estimate_bounds(
            rows(), toy.columns_to_estimate, noise=Watched(), noise_scale=noise_scale, charge=lambda: log.append("paid")
        )
        assert log == ["read", "paid", *[(noise_scale, "i")] * (2 * len(NAMES))]


def found_in(column: EstimableColumn, values: Any, noise_scale: float = 1.0, seed: int | None = None) -> Any:
    """Bounds from exact counts of values, or from noised ones."""
    ladder = ladder_of(column)
    fine = np.bincount(ladder.bin_of(np.asarray(values, dtype=float)), minlength=ladder.bins)
    noise = Seeded(seed)
    coarse = noise.add_to(summed(fine, ladder), noise_scale)
    ends = ends_of(ladder, Tally(coarse, noise.add_to(fine, noise_scale)), noise_scale)
    return None if ends is None else bounds_of(column, *ends)


class TestBounds:
    def test_reach_over_all_that_is_there(self, toy: Schema) -> None:
        count, cost, lab, seen = toy.columns_to_estimate
        many = 20_000
        assert found_in(count, np.repeat(np.arange(18, 91), many // 73)) == [18, 94]
        assert found_in(count, np.repeat(np.arange(1989, 2006), many // 17)) == [1900, 2199]
        assert found_in(count, [0] * many) == [0, 0]
        assert found_in(count, [-5] * many + [0] * many) == [-5, 0]
        assert found_in(cost, [1999] * many + [150] * many) == [1.5, 19.99]
        assert found_in(lab, [-2.25] * many + [0.0] * many + [1e-40] * many) == [-2.4, 1e-30]
        days = np.repeat(np.arange(7000, 9000), 10)  # from 1989-03-02 to 1994-08-22
        assert found_in(seen, days) == ["1989-01-01T00:00:00", "1994-12-31T00:00:00"]

    @given(st.integers(-(10**15), 10**15), st.integers(0, 10**6))
    def test_contain_what_is_there_but_for_little(self, toy: Schema, start: int, width: int) -> None:
        values = np.linspace(start, start + width, 4000).round()
        low, high = found_in(toy.columns_to_estimate[0], values)
        assert ((values < low) | (values > high)).sum() <= 2 * CUT * len(values)

    def test_no_single_row_moves_them(self, toy: Schema) -> None:
        count, _, lab, _ = toy.columns_to_estimate
        ages = np.repeat(np.arange(20, 100), 50)
        assert found_in(count, [*ages, 10**15, -(10**9)]) == found_in(count, ages) == [20, 99]
        assert found_in(lab, [*ages, 1e305]) == found_in(lab, ages)

    def test_take_what_is_near_zero_together(self, toy: Schema) -> None:
        """A decade of five people in each of its bins: none stands out or is next to what does, but they all do."""
        _, _, lab, _ = toy.columns_to_estimate
        near = [1.5, 3.0, 7.0, 0.15, 0.3, 0.7]
        assert found_in(lab, [70.0] * 40) == [50.0, 100.0]
        assert found_in(lab, [*[70.0] * 40, *near]) == [50.0, 100.0]
        assert found_in(lab, [*[70.0] * 40, *near * 5]) == [0.0, 100.0]
        apart = found_in(lab, [*[70.0] * 40, *(-value for value in near * 5)])
        assert apart == [-100.0, 100.0] == found_in(lab, [*[-70.0] * 40, *near * 5])

    def test_keep_a_thin_tail(self, toy: Schema) -> None:
        """Below the threshold each, but above GROWS: the bins from 100 to 499."""
        ages = [*np.repeat(np.arange(20, 100), 50), *[150] * 5, *[300] * 5]
        assert found_in(toy.columns_to_estimate[0], ages) == [20, 319]

    def test_nothing_is_found_where_nothing_stands_out(self, toy: Schema) -> None:
        count, *_ = toy.columns_to_estimate
        assert found_in(count, []) is None
        assert found_in(count, [3] * 5) is None  # 5.6 standard deviations are the threshold
        assert found_in(count, [3] * 6) == [2, 4]
        batches = batch([("17", "1", "2.5", "1999-12-31")] * 5)
        found = estimate_bounds(batches, toy.columns_to_estimate, noise=Seeded(), noise_scale=1.0, charge=lambda: None)
        assert {said["bounds_are"] for said in found.values()} == {"assumed"}
        known = toy.with_bounds(found)
        assert known.column("count").bounds == known.column("cost").bounds == ASSUMED_NUMBERS
        assert [end.year for end in known.column("seen").bounds] == [1900, 2099]
        assert not known.columns_to_estimate

    def test_noise_alone_is_hardly_ever_taken_for_people(self, toy: Schema) -> None:
        """By the union bound over the coarse bins, and as the threshold says."""
        for column in toy.columns_to_estimate:
            ladder = ladder_of(column)
            assert ladder.coarse_bins * norm.sf(threshold(ladder, 7.0) / 7.0) <= FALSE_ALARM * (1 + 1e-9)
            assert threshold(ladder, 7.0) < 6.2 * 7.0

    @pytest.mark.parametrize("seed", range(20))
    def test_with_noise_too(self, toy: Schema, seed: int) -> None:
        """Seeded: 20,000 people under the noise of ε = 1 for one column. Hardly one in a hundred is cut off."""
        rng = np.random.default_rng(seed)
        count, _, lab, _ = toy.columns_to_estimate
        for column, values in (
            (count, rng.normal(50, 15, 20_000).clip(18, 95).round()),
            (lab, rng.normal(0, 1, 20_000)),
        ):
            low, high = found_in(column, values, noise_scale=23.6, seed=seed)
            assert ((values < low) | (values > high)).mean() < 0.01
            assert low >= min(-20, values.min()) and high <= 500

    def test_never_have_more_histograms_than_were_planned(self, toy: Schema) -> None:
        planned = len(details_of(layout_of(toy, codecs_of(toy)), codecs_of(toy)))
        for low, high in itertools.combinations([0.0, 1.0, 600.0, 2e6, 9e15], 2):
            found = {
                column.name: {"bounds": bounds_of(column, low, min(high, 2.5e6 if column.kind == "datetime" else high))}
                for column in toy.columns_to_estimate
                if column.kind != "datetime" or low < 2.5e6
            }
            known = toy.with_bounds({name: said | {"bounds_are": "estimated"} for name, said in found.items()})
            assert len(details_of(layout_of(known, codecs_of(known)), codecs_of(known))) <= planned


class TestRules:
    def declare(self, schema_of: SchemaOf, *rules: Any, **columns: dict[str, Any]) -> Schema:
        schema = schema_of(*columns, **columns)
        return Schema.model_validate(
            schema.model_dump(exclude={"columns"}) | {"columns": columns_of(columns), "rules": rules}
        )

    def found(self, **bounds: list[Any]) -> dict[str, dict[str, Any]]:
        return {name: {"bounds": both, "bounds_are": "estimated"} for name, both in bounds.items()}

    def test_an_order_that_could_not_hold_makes_bounds_wider(self, schema_of: SchemaOf) -> None:
        schema = self.declare(
            schema_of,
            "out >= in",
            **{"in": DECLARED["count"], "out": {"kind": "continuous", "bounds": "estimate", "decimals": 1}},
        )
        kept = self.found(**{"in": [0, 9], "out": [5.0, 19.9]})
        assert meeting_rules(schema, kept) == kept
        apart = meeting_rules(schema, self.found(**{"in": [50, 99], "out": [5.5, 19.9]}))
        assert apart == self.found(**{"in": [5, 99], "out": [5.5, 99.0]})

    def test_declared_bounds_stay_as_they_are(self, schema_of: SchemaOf) -> None:
        schema = self.declare(
            schema_of,
            "out >= in",
            **{"in": DECLARED["seen"], "out": {**DECLARED["seen"], "bounds": ["2020-01-01"] * 2}},
        )
        found = meeting_rules(schema, self.found(**{"in": ["2025-01-01T00:00:00", "2029-12-31T00:00:00"]}))
        assert list(found) == ["in"]
        assert found["in"]["bounds"] == ["2020-01-01T00:00:00", "2029-12-31T00:00:00"]

    def test_what_lies_outside_of_them_is_never_met(self, schema_of: SchemaOf) -> None:
        schema = self.declare(
            schema_of,
            "not (age > 120 and died = true)",
            "not (age < 18 and died = true)",
            "not (age = 500 and died = true)",
            age=DECLARED["count"],
            died={"kind": "boolean"},
        )
        assert len(rules_of(schema)) == 3
        known = schema.with_bounds(self.found(age=[10, 99]))
        (rule,) = rules_of(known)
        assert rule.text == "not (age < 18 and died = true)"
        ages = pa.array([10, 17, 18, 99])
        assert rule.holds(codecs_of(known), {"age": ages, "died": pa.array([True] * 4)}).tolist() == [
            False,
            False,
            True,
            True,
        ]

    def test_rules_that_leave_nothing_are_told(self, schema_of: SchemaOf) -> None:
        schema = self.declare(
            schema_of,
            "not (age < 200 and cost < 200)",
            age=DECLARED["count"] | {"nullable": False},
            cost=DECLARED["cost"],
        )
        with pytest.raises(
            UserError, match=r"within the estimated bounds, rule not .age < 200 .* every row; .* charged"
        ):
            meeting_rules(schema, self.found(age=[10, 99], cost=[0.0, 19.99]))


def columns_of(columns: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, **declared} for name, declared in columns.items()]
