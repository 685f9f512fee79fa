"""Contrasts: by class, by the most connected column, and what is told of several groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synth.insight.contrast import contrast_of, groups_of
from synth.insight.pairs import known_pairs, pair_shares
from synth.tables.model import TableModel

SEX = [[[0.5, 0.5], [0.5, 0.5]], [[0.1, 0.9], [0.1, 0.9]]]
AGE = [[[0.7, 0.1, 0.1, 0.1]] * 2, [[0.6, 0.1, 0.2, 0.1]] * 2]


@pytest.fixture
def model(hand: Any) -> TableModel:
    model: TableModel = hand.model({"sex": SEX, "age": AGE})
    return model


def test_by_class(hand: Any, model: TableModel) -> None:
    found = contrast_of(hand.measured(model, noise=3.0), model, ())
    assert found is not None
    assert (found.by, found.groups, found.shares) == ("died", ("false", "true"), (0.75, 0.25))
    sex, age = found.shifts
    assert (sex.column, sex.distance, sex.level, sex.values) == ("sex", 0.4, "male", (0.5, 0.9))
    assert (age.column, age.distance, age.what) == ("age", pytest.approx(0.1), "mean")
    assert sex.error == pytest.approx(0.5 * np.sqrt(2) * np.hypot(3 / 750, 3 / 250), rel=1e-3)
    assert sex.z is not None and sex.z > 5


def test_of_several_classes_the_two_that_differ_most_clearly(hand: Any) -> None:
    """The third group is small: its noise hides that it differs most."""
    sex = [[[0.5, 0.5]], [[0.8, 0.2]], [[0.3, 0.7]]]
    columns = [c if c["name"] != "grade" else c | {"nullable": False} for c in hand.columns]
    bins = hand.bins | {"grade": [0, 1, 2]}
    model = hand.model({"sex": sex}, class_share=(0.6, 0.35, 0.05), target="grade", columns=columns, bins=bins)
    for noise, groups in ((0.1, (1, 2)), (10.0, (0, 1))):
        found = contrast_of(hand.measured(model, noise=noise), model, ())
        assert found is not None and found.shifts[0].groups == groups
    gone = contrast_of(hand.measured(model, noise=40.0), model, ())
    assert gone is not None and gone.groups == ("1 (mild)", "2")  # no more than noise of the third group is left
    assert contrast_of(hand.measured(model, noise=400.0), model, ()) is None


def test_without_a_target_by_the_column_that_others_depend_on(hand: Any) -> None:
    sex = [[[1.0, 0.0], [0.0, 1.0]]]
    age = [[[0.8, 0.1, 0.0, 0.1], [0.1, 0.1, 0.7, 0.1]]]
    grade = [[[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]]
    model = hand.model({"sex": sex, "grade": grade, "age": age}, target=None)
    tables = {pair: 1000 * pair_shares(model, *pair) for pair in (("sex", "age"), ("sex", "grade"))}
    measured = hand.measured(model, pairs=tables)
    found = contrast_of(measured, model, known_pairs(measured, model))
    assert found is not None
    assert found.by == "sex" and found.groups == ("female", "male")  # a tie with age: the later name
    age_shift, grade_shift = found.shifts
    assert (age_shift.column, age_shift.distance) == ("age", pytest.approx(0.7))
    assert age_shift.error == pytest.approx(0.5 * np.sqrt(4) * np.hypot(2 / 500, 2 / 500), rel=1e-3)
    assert (grade_shift.column, grade_shift.distance) == ("grade", pytest.approx(0, abs=1e-6))
    assert contrast_of(measured, model, ()) is None


def test_a_pair_that_was_not_measured_has_no_error(hand: Any) -> None:
    sex, age = [[[1.0, 0.0], [0.0, 1.0]]], [[[0.8, 0.1, 0.0, 0.1], [0.1, 0.1, 0.7, 0.1]]]
    model = hand.model({"sex": sex, "grade": [[[0.6, 0.3, 0.1]] * 2], "age": age}, target=None)
    measured = hand.measured(model, pairs={("sex", "age"): 1000 * pair_shares(model, "sex", "age")})
    found = contrast_of(measured, model, known_pairs(measured, model))
    assert found is not None
    assert {shift.column: shift.error is None for shift in found.shifts} == {"age": False, "grade": True}


def test_halves_of_an_ordered_column_leave_missing_out(hand: Any) -> None:
    model = hand.model({"age": [[[0.4, 0.3, 0.2, 0.1]]]}, target=None)
    groups = groups_of(model, "age", np.array([0.4, 0.3, 0.2, 0.1]))
    assert groups.names == ("0 to 2", "3 to 5")
    assert [members.tolist() for members in groups.members] == [[0], [1, 2]]


@pytest.mark.parametrize("mass", [[0.0, 0.0, 0.9, 0.1], [0.9, 0.0, 0.0, 0.1], [0.3, 0.3, 0.3, 0.1]])
def test_both_halves_have_bins(hand: Any, mass: list[float]) -> None:
    model = hand.model({"age": [[mass]]}, target=None)
    groups = groups_of(model, "age", np.array(mass))
    assert [*np.concatenate(groups.members)] == [0, 1, 2] and all(len(members) for members in groups.members)


def test_the_largest_levels_of_many(hand: Any) -> None:
    columns = [{"name": "city", "kind": "categorical", "categories": list("abcdefgh")}]
    mass = [0.05, 0.2, 0.15, 0.02, 0.18, 0.1, 0.2, 0.1]
    model = hand.model({"city": [[mass]]}, target=None, columns=columns, bins={"city": range(8)})
    assert groups_of(model, "city", np.array(mass)).names == ("b", "c", "e", "f", "g", "h")
