"""Columns under conditions against brute force: every row of a small table, its probability, and the rules it meets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from synth.errors import UserError
from synth.insight.given import given, measured_with, shifts_between
from synth.tables.conditions import parse_conditions
from synth.tables.model import TableModel

VALUES: dict[str, list[Any]] = {
    "sex": ["female", "male"],
    "grade": [1, 2, 3, None],
    "age": [0, 1, 2, 3, 4, 5, None],
    "died": [False, True],
}
WHERE: dict[str, tuple[list[str], Callable[..., bool]]] = {
    "nothing": ([], lambda sex, grade, age, died: True),
    "part of a bin": (["age>=1"], lambda sex, grade, age, died: age is not None and age >= 1),
    "a level of a shared bin, or missing": (["grade=2|"], lambda sex, grade, age, died: grade in (2, None)),
    "the class": (["died=true"], lambda sex, grade, age, died: died),
    "several": (
        ["sex=male", "age<=3", "died!=true"],
        lambda s, g, a, d: s == "male" and a is not None and a <= 3 and not d,
    ),
}
RULES: dict[str, tuple[list[Any], Callable[..., bool]]] = {
    "none": ([], lambda sex, grade, age, died: True),
    "never together": (
        ["not (sex = male and grade = 3)", "not (grade = 1|2 and died = true)"],
        lambda sex, grade, age, died: not (sex == "male" and grade == 3) and not (grade in (1, 2) and died),
    ),
    "determined": (
        [{"determines": ["grade", "age"], "map": {1: 0, 2: 3, 3: 5}}],
        lambda sex, grade, age, died: age == {1: 0, 2: 3, 3: 5, None: None}[grade],
    ),
}


def random_model(hand: Any, target: str | None, rules: list[Any]) -> TableModel:
    rng = np.random.default_rng(3)
    classes = 2 if target else 1
    names = [name for name in VALUES if name != target]
    points = {name: rng.dirichlet(np.ones(max(hand.bins[name]) + 1), (classes, 4)) for name in names}
    model: TableModel = hand.model(points, target=target, rules=rules)
    return model


def brute(hand: Any, model: TableModel, meets: Callable[..., bool], name: str) -> np.ndarray:
    """A column's bins among rows that meet something, row by row; a determined column has no shares of its own."""
    results = {rule.result for rule in model.rules if hasattr(rule, "result")}
    lookup = hand.bins[name]
    found = np.zeros(max(lookup) + 1)
    classes, points, _ = model.shares.shape
    for c, k in itertools.product(range(classes), range(points)):
        for at in itertools.product(*(range(len(v)) for v in VALUES.values())):
            row = [v[i] for v, i in zip(VALUES.values(), at, strict=True)]
            if not meets(*row):
                continue
            chance = model.class_share[c] / points
            for column, cell in zip(VALUES, at, strict=True):
                if column in results:
                    continue
                if column in model.encoding.names:
                    own = model.shares[c, k, model.encoding.place(column)]
                    home = hand.bins[column]
                    chance *= float(own[home[cell]]) / home.count(home[cell])
                else:
                    chance *= float(cell == c)
            found[lookup[at[list(VALUES).index(name)]]] += chance
    return found


@pytest.mark.parametrize("target", ["died", None])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("where", WHERE)
def test_against_every_row(hand: Any, target: str | None, rules: str, where: str) -> None:
    declared, keeps = RULES[rules]
    texts, meets = WHERE[where]
    model = random_model(hand, target, declared)
    conditions = parse_conditions(model.codecs, texts)
    found = given(model, conditions)
    assert set(found.bins) == set(VALUES) - set(conditions)
    for name, shares in found.bins.items():
        expected = brute(hand, model, lambda *row: keeps(*row) and meets(*row), name)
        assert shares == pytest.approx(expected / expected.sum(), abs=1e-6), name
    if rules == "none":
        assert found.share == pytest.approx(brute(hand, model, meets, "sex").sum(), abs=1e-6)


def test_shifts_leave_out_what_either_side_is_held_to(hand: Any) -> None:
    model = random_model(hand, "died", [])
    sides = [given(model, parse_conditions(model.codecs, texts)) for texts in (["sex=male"], ["age>=3"])]
    found = shifts_between(model, *sides)
    assert {shift.column for shift in found} == {"grade", "died"}
    assert [shift.distance for shift in found] == sorted((shift.distance for shift in found), reverse=True)
    for shift in found:
        one, other = (side.bins[shift.column] for side in sides)
        assert shift.distance == pytest.approx(0.5 * np.abs(one - other).sum(), abs=1e-4)


def test_what_the_model_never_makes_is_refused(hand: Any) -> None:
    model = hand.model({"sex": [[[1.0, 0.0]]], "age": [[[0.25] * 4]]}, target=None)
    with pytest.raises(UserError, match="holds no such rows"):
        given(model, parse_conditions(model.codecs, ["sex=male"]))


def test_measured_with() -> None:
    pairs = {frozenset({"a", "b"}), frozenset({"b", "c"})}
    assert measured_with({"b"}, pairs, "a") and measured_with({"a", "c"}, pairs, "b")
    assert not measured_with({"a", "b"}, pairs, "c") and measured_with((), pairs, "c")
