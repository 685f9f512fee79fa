"""The plan: what a run would cost and hold, from the schema alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from synth.errors import UserError
from synth.privacy.budget import TablePlan
from synth.schema import Determined, Schema
from synth.tables.codec import codecs_of
from synth.tables.layout import Layout, layout_of, plan_of
from synth.tables.measurements import Pair
from synth.tables.plan import (
    MAX_CLASSES,
    MAX_MEMORY_BYTES,
    fits_as_matrices,
    memory_bytes,
    most_bins,
    plan_columns,
    refuse_too_large,
)

SchemaOf = Callable[..., Schema]


def planned(schema: Schema, epsilon: float = 1.0) -> tuple[Layout, Any, list[Any]]:
    codecs = codecs_of(schema)
    layout = layout_of(schema, codecs)
    plan = plan_of(layout, codecs, epsilon=epsilon, delta=1e-5)
    return layout, codecs, plan_columns(layout, plan, codecs)


def room(schema: Schema) -> tuple[Layout, TablePlan, dict[str, Any]]:
    """What memory is estimated from."""
    codecs = codecs_of(schema)
    layout = layout_of(schema, codecs)
    return layout, plan_of(layout, codecs, epsilon=1.0, delta=1e-5), codecs


def test_a_line_a_measured_column(schema_of: SchemaOf) -> None:
    layout, codecs, lines = planned(schema_of("number", "age", "income", "sex", "died", target="died"))
    assert [line.name for line in lines] == list(layout.columns) == ["age", "income", "sex"]
    assert [line.kind for line in lines] == ["integer", "continuous", "categorical"]
    assert [line.cells for line in lines] == [codecs[line.name].size for line in lines]
    assert all(line.noise > 0 and line.pair_noise and line.pair_noise > 0 for line in lines)
    assert all(line.most_bins <= line.cells for line in lines)


@pytest.mark.parametrize("target", [None, "sex", "age"])
def test_more_budget_is_less_noise(schema_of: SchemaOf, target: str | None) -> None:
    schema = schema_of("age", "income", "sex", "died", target=target)
    little, much = planned(schema, 0.5)[2], planned(schema, 5.0)[2]
    assert all(a.noise > b.noise for a, b in zip(little, much, strict=True))
    assert all(a.pair_noise > b.pair_noise for a, b in zip(little, much, strict=True))


def test_pairs_that_rules_join_are_tied(schema_of: SchemaOf) -> None:
    def tied(target: str | None, *rules: Any) -> tuple[Pair, ...]:
        columns = schema_of("age", "stage", "sex", "died", "city", target=target)
        schema = columns.model_copy(update={"rules": rules})
        return layout_of(schema, codecs_of(schema)).tied

    assert tied(None) == ()
    assert tied(None, "not (sex = male and age >= 60)", "not (city = Rome and died = true and age = 3)") == (
        ("age", "sex"),
        ("age", "died"),
        ("age", "city"),
        ("died", "city"),
    )
    # A class is in every table by class; what follows from another column needs no table.
    assert tied("died", "not (died = true and age >= 60)") == ()
    assert tied(None, Determined(determines=("sex", "city"), map={"male": "Rome", "female": "Oslo"})) == ()


def test_one_column_has_no_pairs(schema_of: SchemaOf) -> None:
    assert planned(schema_of("age"))[2][0].pair_noise is None


def test_memory_is_stated_before_the_start(schema_of: SchemaOf) -> None:
    small, large = schema_of("age", "sex"), schema_of("age", "sex", *(f"c{i}" for i in range(20)), **WIDE)
    sizes = [memory_bytes(*room(schema)) for schema in (small, large)]
    assert 0 < sizes[0] < sizes[1] < MAX_MEMORY_BYTES
    for schema in (small, large):
        refuse_too_large(*room(schema))


@pytest.mark.parametrize(
    ("classes", "width", "as_matrices"), [(2, 1536, True), (2, 1537, False), (40, 900, True), (40, 1000, False)]
)
def test_a_wide_table_is_fitted_without_matrices(classes: int, width: int, as_matrices: bool) -> None:
    """By its width, where pair by pair is faster, and by its memory: 28 bytes x (classes + 1) x width², of 1 GiB."""
    assert fits_as_matrices(classes, width) is as_matrices


def test_three_hundred_columns_fit(schema_of: SchemaOf) -> None:
    many = {f"c{i}": {"kind": "continuous", "bounds": [0, 1e6]} for i in range(300)}
    layout, plan, codecs = room(schema_of(*many, "died", target="died", **many))
    assert memory_bytes(layout, plan, codecs) < MAX_MEMORY_BYTES
    assert plan.measured_pairs < len(layout.pairs) / 10


WIDE = {f"c{i}": {"kind": "integer", "bounds": [0, 99]} for i in range(20)}


def test_a_table_that_would_not_fit_is_refused(schema_of: SchemaOf) -> None:
    levels = {"kind": "categorical", "categories": list(range(20_000))}
    schema = schema_of("a", "b", "died", target="died", a=levels, b=levels)
    layout, plan, codecs = room(schema)
    assert most_bins(codecs["a"], 2) == 20_000
    with pytest.raises(UserError, match=r"pair tables would need about .* GiB") as caught:
        refuse_too_large(layout, plan, codecs)
    assert caught.value.exit_code == 2


def test_a_target_with_too_many_classes_is_refused(schema_of: SchemaOf) -> None:
    levels = {"kind": "categorical", "categories": list(range(MAX_CLASSES + 1))}
    schema = schema_of("age", "a", target="a", a=levels)
    layout, plan, codecs = room(schema)
    with pytest.raises(UserError, match=f"target a has {MAX_CLASSES + 1} classes"):
        refuse_too_large(layout, plan, codecs)


def test_the_expected_noise_is_the_noise_that_is_drawn(toy_run: Any, schema_of: SchemaOf) -> None:
    """Of columns whose every level is frequent enough for a bin of its own."""
    schema = schema_of("sex", "smoker", "died", target="died")
    run = toy_run(schema, epsilon=5.0)
    people = [(sex, smoker, died) for sex in ("male", "female") for smoker in ("yes", "no") for died in ("yes", "no")]
    _, measured = run.measure([run.codes_of(people[i % len(people)], i) for i in range(4000)])
    for line in plan_columns(run.layout, run.plan, run.codecs):
        assert line.most_bins == int(measured.bin_of_cell[line.name].max()) + 1
        # The class-conditional histogram's noise, added over the classes.
        assert line.noise == pytest.approx(measured.one_way_noise[line.name] * len(measured.class_sizes) ** 0.5)


def test_a_column_of_many_thousand_levels_is_not_paid_for_by_the_others(schema_of: SchemaOf) -> None:
    noises = {}
    for levels in (1_000, 50_000):
        wide = {"kind": "categorical", "categories": list(range(levels))}
        _, plan, _ = room(schema_of("age", "income", "a", a=wide))
        noises[levels] = plan.fine_noise["age"]
    assert noises[1_000] == noises[50_000]
