"""The split of a run's budget: all of it is planned, none of it twice, and all of it before anything is read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.errors import UserError
from synth.privacy import budget
from synth.privacy.accounting import compose_mu, compose_replace_one_mu, epsilon_of, mu_of
from synth.privacy.budget import TablePlan, plan_table
from synth.privacy.composition import epsilon_of as epsilon_of_all
from synth.privacy.events import PoissonGaussianEvent
from synth.privacy.pld import renyi_epsilon_of
from synth.privacy.statement import not_covered
from synth.schema import Schema
from synth.tables.codec import codecs_of
from synth.tables.layout import Layout, layout_of, plan_of

SchemaOf = Callable[..., Schema]
DELTA = 1e-5
EPSILONS = [0.05, 0.2, 0.5, 1.0, 2.0, 3.0, 10.0, 100.0]
SHAPES = st.fixed_dictionaries(
    {
        "epsilon": st.floats(0.01, 100),
        "delta": st.floats(1e-12, 0.1),
        "histograms": st.dictionaries(st.text(min_size=1), st.integers(1, 5000), min_size=1, max_size=40),
        "classes": st.integers(1, 256),
        "details": st.integers(0, 300),
        "detail_weight": st.floats(0.01, 4),
        "candidate_pairs": st.integers(0, 5000),
        "candidate_triples": st.integers(0, 2 * budget.MOST_CANDIDATE_TRIPLES),
        "classes_known": st.booleans(),
        "pairs_by_class": st.booleans(),
        "max_rows_per_person": st.integers(1, 1000),
        "estimated_columns": st.integers(0, 400),
    }
).flatmap(
    lambda shape: st.sets(st.sampled_from(sorted(shape["histograms"]))).map(lambda names: shape | {"coarse": names})
)
EVENT = PoissonGaussianEvent(name=budget.CRITIC, sample_rate=0.1, noise_multiplier=2, steps=3)
PAIRS = (budget.PAIRS_BY_CLASS, budget.PAIRS_SUMMED)
FROM = budget.TRIPLES_FROM
TRIPLES = (budget.TRIPLE_SELECTION, budget.TRIPLES)
IN_OWN_NOISE = (budget.FINE, budget.ONE_WAY, *PAIRS, budget.TRIPLES)


TEN = {f"column{i}": 2 + 3 * i for i in range(10)}


def planned(**changes: Any) -> TablePlan:
    shape = {"epsilon": 1.0, "delta": DELTA, "histograms": TEN, "classes": 2, "details": 4, "detail_weight": 2.0}
    return plan_table(**(shape | {"candidate_pairs": 45, "classes_known": True, "pairs_by_class": True} | changes))


def share_of(plan: TablePlan, *names: str) -> float:
    """The part of the whole budget that some events cost."""
    return sum(event.mu**2 for event in plan.events if event.name in names) / compose_mu(plan.events) ** 2


class TestTheWholeBudget:
    @given(SHAPES)
    def test_is_spent_to_the_last_part_in_a_billion(self, shape: dict[str, Any]) -> None:
        plan = plan_table(**shape)
        spent = math.fsum(event.mu**2 for event in plan.events)
        assert spent == pytest.approx(mu_of(shape["epsilon"], shape["delta"]) ** 2, rel=1e-9)
        assert epsilon_of(compose_mu(plan.events), shape["delta"]) <= shape["epsilon"] + 1.1e-6

    @given(SHAPES)
    def test_the_noise_of_the_histograms_is_what_their_event_costs(self, shape: dict[str, Any]) -> None:
        plan = plan_table(**shape)
        fine = next(event for event in plan.events if event.name == budget.FINE)
        noises = [plan.class_noise, *plan.fine_noise.values(), *plan.coarse_noise.values()]
        assert shape["max_rows_per_person"] * math.hypot(*(1 / s for s in noises)) == pytest.approx(fine.mu, rel=1e-9)
        assert plan.coarse_noise.keys() == shape["coarse"]
        for name, noise in plan.coarse_noise.items():
            cells = plan.fine_noise[name]
            assert noise**-2 == pytest.approx(budget.COARSE_SHARE * (noise**-2 + cells**-2), rel=1e-9)

    @given(st.dictionaries(st.integers(), st.integers(1, 10**6), min_size=1), st.floats(0.01, 10), st.integers(1, 9))
    def test_noise_scales_cost_mu_and_have_the_least_summed_error(
        self, cells: dict[int, int], mu: float, rows: int
    ) -> None:
        scales = budget.noise_scales(cells, mu, rows)
        assert rows * math.hypot(*(1 / s for s in scales.values())) == pytest.approx(mu, rel=1e-9)
        # Of cells * noise at a fixed sum of noise^-2, Lagrange: cells / noise^-3 is the same for all.
        gradients = [cells[key] * scale**3 for key, scale in scales.items()]
        assert gradients == pytest.approx([gradients[0]] * len(gradients), rel=1e-6)

    @given(SHAPES)
    def test_no_event_is_there_twice(self, shape: dict[str, Any]) -> None:
        names = [event.name for event in plan_table(**shape).events]
        assert len(set(names)) == len(names)

    @given(SHAPES)
    def test_replacing_a_person_costs_root_two_or_twice_as_much(self, shape: dict[str, Any]) -> None:
        plan = plan_table(**shape)
        for event in plan.events:
            chosen = event.name in {budget.SELECTION, budget.TRIPLE_SELECTION}
            factor = 2.0 if chosen else math.sqrt(2)
            assert event.replace_one_sensitivity == pytest.approx(factor * event.sensitivity)
        assert math.sqrt(2) * (1 - 1e-12) <= compose_replace_one_mu(plan.events) / compose_mu(plan.events) <= 2

    def test_it_follows_from_config_and_schema_alone(self) -> None:
        public = {"epsilon", "delta", "histograms", "coarse", "classes", "details", "detail_weight"}
        public |= {"candidate_pairs", "candidate_triples", "classes_known", "pairs_by_class", "max_rows_per_person"}
        public |= {"critic_share", "critic_steps", "critic_sample_rate", "holdout", "estimated_columns"}
        assert set(inspect.signature(plan_table).parameters) == public
        assert planned() == planned()

    @given(SHAPES, st.integers(2, 50))
    def test_a_persons_rows_multiply_what_is_counted_in_rows(self, shape: dict[str, Any], m: int) -> None:
        one, many = (plan_table(**(shape | {"max_rows_per_person": rows})) for rows in (1, m))
        for first, second in zip(one.events, many.events, strict=True):
            factor = 1 if first.name in IN_OWN_NOISE else m
            assert second.sensitivity == pytest.approx(factor * first.sensitivity)
            assert second.noise_scale == pytest.approx(factor * first.noise_scale)

    @pytest.mark.parametrize(("epsilon", "delta"), [(0, DELTA), (-1, DELTA), (math.nan, DELTA), (1, 0), (1, 1)])
    def test_refuses_what_is_no_budget(self, epsilon: float, delta: float) -> None:
        with pytest.raises(ValueError, match=r"epsilon|delta"):
            planned(epsilon=epsilon, delta=delta)


class TestTheShares:
    @pytest.mark.parametrize("epsilon", EPSILONS)
    def test_one_ways_take_their_share_and_pairs_the_rest(self, epsilon: float) -> None:
        assert share_of(planned(epsilon=epsilon), *PAIRS) == pytest.approx(1 - budget.one_way_share(epsilon, 45))

    def test_without_pairs_they_take_all(self) -> None:
        assert share_of(planned(candidate_pairs=0), *PAIRS) == 0

    @pytest.mark.parametrize("pairs", [1, budget.MAX_PAIRS_WITHOUT_SELECTION])
    def test_few_pairs_are_all_measured(self, pairs: int) -> None:
        plan = planned(candidate_pairs=pairs)
        assert (plan.selection, plan.measured_pairs) == (None, pairs)

    @pytest.mark.parametrize("epsilon", EPSILONS)
    def test_of_many_pairs_some_are_chosen_first(self, epsilon: float) -> None:
        plan = planned(epsilon=epsilon, histograms=dict.fromkeys(map(str, range(20)), 9), candidate_pairs=190)
        both = share_of(plan, budget.SELECTION, *PAIRS)
        assert share_of(plan, budget.SELECTION) == pytest.approx(budget.SELECTION_SHARE * both)
        names = [event.name for event in plan.events]
        assert names.index(budget.SELECTION) < min(names.index(name) for name in PAIRS if name in names)
        assert 20 <= plan.measured_pairs == plan.selection.selections < 190

    @pytest.mark.parametrize("triples", [1, 20, 21, budget.MOST_CANDIDATE_TRIPLES])
    def test_triples_take_their_share_of_the_pairs(self, triples: int) -> None:
        plan = planned(epsilon=FROM, candidate_triples=triples)
        rest = 1 - budget.one_way_share(FROM, 45)
        assert share_of(plan, *TRIPLES) == pytest.approx(budget.TRIPLES_SHARE * rest)
        assert share_of(plan, *PAIRS) == pytest.approx((1 - budget.TRIPLES_SHARE) * rest)
        assert plan.measured_triples == min(triples, budget.TRIPLES_PER_COLUMN * len(TEN))
        chosen = share_of(plan, budget.TRIPLE_SELECTION)
        assert chosen == pytest.approx((triples > 20) * budget.SELECTION_SHARE * share_of(plan, *TRIPLES))

    @pytest.mark.parametrize(
        "changes",
        [
            {"epsilon": 0.99 * FROM, "candidate_triples": 20},
            {"epsilon": FROM, "candidate_triples": 0},
            {"epsilon": FROM, "candidate_triples": budget.MOST_CANDIDATE_TRIPLES + 1},
        ],
    )
    def test_where_triples_are_not_measured_they_cost_nothing(self, changes: dict[str, Any]) -> None:
        plan = planned(**changes)
        assert (share_of(plan, *TRIPLES), plan.measured_triples, plan.mu_triples) == (0, 0, None)
        assert plan == planned(epsilon=changes["epsilon"])

    def test_a_numeric_target_is_paid_for_first(self) -> None:
        plan = planned(classes_known=False)
        assert plan.events[0].name == budget.TARGET_BINS
        assert share_of(plan, budget.TARGET_BINS) == pytest.approx(budget.TARGET_BINS_SHARE)
        assert share_of(planned(), budget.TARGET_BINS) == 0

    @pytest.mark.parametrize("epsilon", EPSILONS)
    def test_pairs_by_class_and_over_all(self, epsilon: float) -> None:
        plan = planned(epsilon=epsilon)
        by_class = budget.by_class_share_of(epsilon) * share_of(plan, *PAIRS)
        assert share_of(plan, budget.PAIRS_BY_CLASS) == pytest.approx(by_class)
        assert share_of(planned(epsilon=epsilon, pairs_by_class=False), budget.PAIRS_BY_CLASS) == 0


class TestTheCritic:
    """Its calibration takes a second or so, hence few cases."""

    @settings(max_examples=3)
    @given(epsilon=st.floats(0.1, 3), share=st.floats(0.02, 1), pairs=st.sampled_from([0, 1, 45, 200]))
    def test_together_they_are_epsilon_and_never_more(self, epsilon: float, share: float, pairs: int) -> None:
        plan = planned(
            epsilon=epsilon, candidate_pairs=pairs, critic_share=share, critic_steps=10, critic_sample_rate=0.05
        )
        assert plan.events[-1] == plan.critic
        assert epsilon - 1e-3 <= epsilon_of_all(plan.events, DELTA) <= epsilon
        assert renyi_epsilon_of(plan.events, DELTA) >= epsilon_of_all(plan.events, DELTA)

    @given(SHAPES, st.floats(0.01, 0.99))
    def test_it_takes_its_share_of_what_bins_and_class_sizes_leave(self, shape: dict[str, Any], share: float) -> None:
        without = plan_table(**shape)
        with patch.object(budget, "critic_event", lambda *_, **__: EVENT):
            plan = plan_table(**shape, critic_share=share, critic_steps=3, critic_sample_rate=0.1)
        rest = {budget.SELECTION, *PAIRS, *TRIPLES}
        if shape["candidate_pairs"]:
            for before, after in zip(without.releases, plan.releases, strict=True):
                left = 1 - share if before.name in rest else 1
                assert after.mu**2 == pytest.approx(left * before.mu**2)
        else:
            left = 1 - share * (1 - budget.one_way_share(shape["epsilon"], 1))
            assert plan.mu_one_way**2 == pytest.approx(left * without.mu_one_way**2)

    def test_all_of_it_leaves_no_pairs(self) -> None:
        with patch.object(budget, "critic_event", lambda *_, **__: EVENT):
            shape = {"epsilon": FROM, "candidate_pairs": 200, "candidate_triples": 120}
            plan = planned(critic_share=1, critic_steps=3, critic_sample_rate=0.1, **shape)
        assert {event.name for event in plan.events} == {budget.FINE, budget.DETAIL, budget.ONE_WAY, EVENT.name}
        assert (plan.mu_pairs_by_class, plan.mu_pairs_summed, plan.selection) == (None, None, None)
        assert (plan.measured_pairs, plan.measured_triples) == (0, 0)

    def test_a_share_that_no_noise_fits_is_a_mistake(self) -> None:
        with pytest.raises(UserError, match=r"critic_share: at epsilon 0\.01"):
            planned(epsilon=0.01, critic_share=1e-6, critic_steps=400, critic_sample_rate=0.02)


class TestEstimatedBounds:
    @pytest.mark.parametrize(("columns", "share"), [(1, 0.05), (3, 0.15), (4, 0.2), (300, 0.2)])
    def test_they_are_paid_for_first(self, columns: int, share: float) -> None:
        plan = planned(estimated_columns=columns, max_rows_per_person=3)
        event = plan.releases[0]
        assert (event.name, event.noise_scale) == (budget.BOUNDS, plan.bounds_noise)
        assert event.sensitivity == pytest.approx(3 * math.sqrt(2 * columns))
        assert event.replace_one_sensitivity == pytest.approx(math.sqrt(2) * event.sensitivity)
        assert share_of(plan, budget.BOUNDS) == pytest.approx(share)
        assert plan.measured == plan.releases[1:]

    def test_without_any_nothing_is_different(self) -> None:
        assert planned(estimated_columns=0) == planned()
        assert planned().bounds_noise is None


COLUMNS = ("age", "income", "weight", "sex", "city", "stage", "died", "smoker", "admitted", "seen")
WIDE = tuple(f"b{i}" for i in range(16))
UNKNOWN = {
    "count": {"kind": "integer", "bounds": "estimate"},
    "since": {"kind": "datetime", "bounds": "estimate"},
}
NEW = {*WIDE, *UNKNOWN}
LAYOUTS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "no target": (COLUMNS, None),
    "boolean target": (COLUMNS, "died"),
    "nullable target": (COLUMNS, "city"),
    "numeric target": (COLUMNS, "age"),
    "nullable numeric target": (COLUMNS, "income"),
    "date as target": (COLUMNS, "admitted"),
    "one column": (("age",), None),
    "one column, its own target": (("age",), "age"),
    "target and one column": (("income", "died"), "died"),
    "two columns without details": (("sex", "died"), None),
    "bounds to be estimated": (("count", "since", "died"), "died"),
    "a target with bounds to be estimated": (("count", "since", "died"), "count"),
    "many pairs": ((*WIDE, "income"), "income"),
    "many pairs with classes": ((*WIDE, "died"), "died"),
    "many pairs without target": (WIDE, None),
}


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
@pytest.mark.parametrize(("names", "target"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_spends_all_and_no_more(
    schema_of: SchemaOf, names: tuple[str, ...], target: str | None, epsilon: float
) -> None:
    schema = schema_of(*names, target=target, **{n: UNKNOWN.get(n, {"kind": "boolean"}) for n in names if n in NEW})
    codecs = codecs_of(schema)
    plan = plan_of(layout_of(schema, codecs), codecs, epsilon=epsilon, delta=DELTA)
    spent = math.fsum(event.mu**2 for event in plan.events)
    assert spent == pytest.approx(mu_of(epsilon, DELTA) ** 2, rel=1e-9)


class TestLayouts:
    def layout(self, schema: Schema) -> Layout:
        return layout_of(schema, codecs_of(schema))

    def test_a_categorical_target_is_the_class_itself(self, schema_of: SchemaOf) -> None:
        layout = self.layout(schema_of("age", "sex", "city", "number", target="city"))
        assert (layout.columns, layout.classes, layout.cut_target) == (("age", "sex"), 4, False)
        assert layout.pairs == (("age", "sex"),)

    def test_a_numeric_target_is_cut(self, schema_of: SchemaOf) -> None:
        layout = self.layout(schema_of("age", "income", "sex", target="income"))
        assert (layout.columns, layout.classes, layout.cut_target) == (("age", "income", "sex"), 6, True)

    @pytest.mark.parametrize("target", [None, "died"])
    def test_one_column_has_no_class(self, schema_of: SchemaOf, target: str | None) -> None:
        layout = self.layout(schema_of("died", target=target))
        assert (layout.columns, layout.target, layout.classes, layout.pairs) == (("died",), None, 1, ())


class TestTheWords:
    def test_what_is_not_covered_is_said(self, schema_of: SchemaOf) -> None:
        plain = not_covered(schema_of("age"))
        assert any("decision to release" in sentence for sentence in plain)
        assert not any("number of rows" in sentence for sentence in plain)
        more = not_covered(schema_of("age", "died", row_count=100, age={"outside": "refuse"}))
        assert any("The number of rows" in sentence for sentence in more)
        assert any("an undeclared empty cell, exists in age" in sentence for sentence in more)
        assert set(plain) < set(more)
        estimating, taken_over = {"bounds": "estimate"}, {"bounds": [0, 90], "bounds_are": "estimated"}
        of_run = "kinds, bounds (but for age, of which they are estimated with noise), categories"
        assert of_run in not_covered(schema_of("age", age=estimating))[0]
        assert "kinds, bounds, categories" in not_covered(schema_of("age", age=taken_over))[0]
        large = not_covered(schema_of("age"), large_delta=True)
        assert next(item for item in large if item not in plain).startswith("Single people, by delta")
