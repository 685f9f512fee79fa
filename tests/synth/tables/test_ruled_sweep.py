"""The sweep under rules: less sampling noise, no rule broken, nothing moved that is expected to stay."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.schema import parse_schema
from synth.tables.conditions import parse_conditions
from synth.tables.model import TableModel
from synth.tables.rows import sample_rows
from synth.tables.rules import met_by

RULES: list[Any] = [
    "not (sex = male and age >= 2)",
    "not (grade = 3 and age = 0|1 and died = true)",
]
ROWS = 4000


def with_rules(model: TableModel, *rules: Any) -> TableModel:
    raw = model.schema.model_dump(mode="json", exclude_defaults=True)
    return replace(model, schema=parse_schema({**raw, "rules": list(rules)}, file="s"))


def noise_of(counts: np.ndarray, expected: np.ndarray) -> float:
    """Squared residual of all pair counts."""
    total = 0.0
    for pair in itertools.combinations(range(4), 2):
        rest = tuple(i for i in range(4) if i not in pair)
        total += float(((counts.sum(axis=rest) - counts.sum() * expected.sum(axis=rest)) ** 2).sum())
    return total


def drawn(model: TableModel, seed: int, where: list[str]) -> pa.Table:
    conditions = parse_conditions(model.codecs, where)
    table = pa.Table.from_batches(list(sample_rows(model, ROWS, seed=seed, conditions=conditions)))
    assert met_by(model.rules, model.codecs, lambda name: table.column(name).combine_chunks(), ROWS).all()
    return table


@pytest.mark.parametrize("target", ["died", None])
def test_removes_most_of_the_noise_of_plain_draws(tiny: Any, target: str | None) -> None:
    """A condition that holds every row makes them plain draws. Seeds are fixed: 5 tables each way."""
    model = with_rules(tiny.model(target=target), *RULES)
    expected = tiny.given(
        model,
        lambda s, g, a, d: (
            not (s == "male" and a is not None and a >= 2) and not (g == 3 and a is not None and a <= 1 and d)
        ),
    )
    plain, swept = (
        np.mean([noise_of(tiny.counted(drawn(model, seed, where)), expected) for seed in range(5)])
        for where in (["sex=female|male"], [])
    )
    assert swept < 0.5 * plain


def test_what_is_determined_moves_with_its_column(tiny: Any) -> None:
    chain = [
        {"determines": ["died", "sex"], "map": {True: "male", False: "female"}},
        {"determines": ["sex", "age"], "map": {"male": 1, "female": 4}},
        "not (age = 4 and grade = 2)",
    ]
    model = with_rules(tiny.model(target=None), *chain)
    rows = drawn(model, 0, []).to_pylist()
    assert {(row["died"], row["sex"], row["age"]) for row in rows} == {(True, "male", 1), (False, "female", 4)}
    assert {row["grade"] for row in rows if row["died"]} == {1, 2, 3, None}
