"""What bins stand for: levels, stretches and moments, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synth.insight.meaning import class_names, meaning_of, rounded, text_of
from synth.tables.model import TableModel


@pytest.fixture
def model(hand: Any) -> TableModel:
    points = {
        "sex": [[[0.5, 0.5]]] * 2,
        "grade": [[[0.5, 0.25, 0.25]]] * 2,
        "age": [[[0.25] * 4]] * 2,
        "seen": [[[0.5, 0.5]]] * 2,
    }
    model: TableModel = hand.model(points)
    return model


def test_levels_have_their_names_and_codes_their_labels(model: TableModel) -> None:
    grade = meaning_of(model, "grade")
    assert [grade.level(bin_) for bin_ in range(3)] == ["1 (mild) or 2", "3", "missing"]
    assert (grade.ordered, grade.missing) == (False, 2)
    assert [meaning_of(model, "sex").level(bin_) for bin_ in (0, 1)] == ["female", "male"]


def test_many_levels_are_cut_short(hand: Any) -> None:
    columns = [{"name": "city", "kind": "categorical", "categories": list("abcdef")}]
    model = hand.model({"city": [[[0.9, 0.1]]]}, target=None, columns=columns, bins={"city": [0, 0, 0, 0, 0, 1]})
    assert meaning_of(model, "city").level(0) == "a or b or c or 2 others"


def test_stretches_and_their_means(model: TableModel) -> None:
    age = meaning_of(model, "age")
    assert [age.level(bin_) for bin_ in range(4)] == ["0 to 2", "3", "4 to 5", "missing"]
    assert age.centre == pytest.approx([1, 3, 4.5, np.nan], nan_ok=True)
    assert age.single.tolist() == [False, True, False, False]
    assert age.between(0, 1) == "0 to 3"
    assert (age.value(3.25), age.unit) == (3.25, 1.0)


def test_moments_are_text(model: TableModel) -> None:
    seen = meaning_of(model, "seen")
    assert seen.level(1) == "2020-01-03 to 2020-01-04"
    assert seen.value(float(seen.centre[0])) in {"2020-01-01", "2020-01-02"}
    assert seen.unit == 1.0


@pytest.mark.parametrize(
    ("column", "unit", "value"),
    [
        ({"kind": "continuous", "bounds": [0, 5], "decimals": 2}, 0.01, 1.5),
        ({"kind": "continuous", "bounds": [0, 500]}, 1.0, 150.0),
        (
            {"kind": "datetime", "bounds": ["2020-01-01", "2020-01-04"], "resolution": "hour"},
            1 / 24,
            "1970-01-07 06:00",
        ),
    ],
)
def test_positions_in_the_columns_own_unit(hand: Any, column: dict[str, Any], unit: float, value: object) -> None:
    from synth.schema import parse_schema
    from synth.tables.codec import codecs_of

    codec = codecs_of(parse_schema({"dataset": "s", "columns": [{"name": "x", **column}]}, file="s"))["x"]
    model = hand.model({"x": [[[1.0]]]}, target=None, columns=[{"name": "x", **column}], bins={"x": [0] * codec.size})
    assert (meaning_of(model, "x").unit, meaning_of(model, "x").value(150.0)) == (pytest.approx(unit), value)


def test_classes(model: TableModel, hand: Any) -> None:
    assert class_names(model) == ("false", "true")
    bins = {"sex": [0, 1], "age": [0, 0, 0, 1, 1, 1, 2]}
    numeric = hand.model({"sex": [[[0.5, 0.5]]] * 3}, class_share=(0.5, 0.25, 0.25), target="age", bins=bins)
    assert class_names(numeric) == ("0 to 2", "3 to 5", "missing")


def test_numbers_in_words() -> None:
    assert [text_of(value) for value in (True, 2.0, 0.5, "x")] == ["true", "2", "0.5", "x"]
    assert rounded(1234567.0) == 1234600.0
