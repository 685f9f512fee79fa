"""The latent map: what lies together, what its ends are called, and when there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synth.insight.latent_map import DOTS, LEAST_DOTS, map_of
from synth.tables.model import TableModel

CORNERS = ((0.98, 0.02), (0.02, 0.98))


@pytest.fixture
def model(hand: Any) -> TableModel:
    """Two classes, each with four kinds of points: both of sex, young or missing age. Sex differs more than age."""
    rng = np.random.default_rng(0)
    sex, age = np.empty((2, 80, 2)), np.empty((2, 80, 4))
    for k in range(80):
        sex[:, k] = CORNERS[k % 2]
        age[:, k] = (0.7, 0.1, 0.1, 0.1) if k % 4 < 2 else (0.1, 0.1, 0.1, 0.7)
    for table in (sex, age):
        table *= np.exp(rng.normal(0, 0.05, table.shape))
        table /= table.sum(axis=2, keepdims=True)
    model: TableModel = hand.model({"sex": sex, "age": age})
    return model


def test_ends_and_groups(model: TableModel) -> None:
    found = map_of(model)
    assert found is not None
    first, second = found.axes
    assert first.part > second.part > 0.1 and first.part + second.part > 0.9
    assert {first.low[0], first.high[0]} == {"sex = female", "sex = male"}
    assert {second.low[0], second.high[0]} == {"age known", "age missing"}
    points = np.array(found.points)
    assert np.abs(points[:, :2]).max() == 1.0
    assert sum(group.share for group in found.groups) == pytest.approx(1, abs=1e-3)
    # Every group lies in one of the four corners, and is told by what is special there.
    for number, group in enumerate(found.groups):
        own = points[points[:, 3] == number]
        assert len({(x > 0, y > 0) for x, y in own[:, :2]}) == 1
        assert {shift.column for shift in group.apart} == {"sex", "age"}
        assert sum(group.members) == pytest.approx(1, abs=1e-3)


def test_dots_stand_for_equally_many_rows(model: TableModel, hand: Any) -> None:
    found = map_of(model)
    assert found is not None and found.by == "died" and found.classes == ("false", "true")
    many = np.tile(model.shares, (1, 10, 1))
    model.__dict__["shares"] = many
    whole = map_of(model)
    assert whole is not None
    counts = np.bincount([kind for _, _, kind, _ in whole.points])
    assert counts.tolist() == [round(0.75 * DOTS), round(0.25 * DOTS)]
    object.__setattr__(model, "class_share", np.array([1 - 1e-6, 1e-6]))
    rare = map_of(model)
    assert rare is not None
    assert np.bincount([kind for _, _, kind, _ in rare.points]).tolist() == [DOTS, LEAST_DOTS]


def test_the_same_model_gives_the_same_map(model: TableModel) -> None:
    assert map_of(model) == map_of(model)


def test_no_map_of_points_that_are_alike(hand: Any) -> None:
    assert map_of(hand.model({"sex": [[[0.5, 0.5]] * 20] * 2, "age": [[[0.25] * 4] * 20] * 2})) is None
    few = hand.model({"sex": [[[1.0, 0.0], [0.0, 1.0]]], "age": [[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]}, target=None)
    assert map_of(few) is None


def test_no_map_of_points_that_differ_in_every_way_alike(hand: Any) -> None:
    """Fourteen columns, each with its own say: no two directions hold a fifth of it."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(14)]
    columns = [{"name": name, "kind": "categorical", "categories": ["a", "b"]} for name in names]
    points = {name: [[CORNERS[k] for k in rng.integers(0, 2, 200)]] for name in names}
    bins = {name: [0, 1] for name in names}
    assert map_of(hand.model(points, target=None, columns=columns, bins=bins)) is None
    assert map_of(hand.model(dict([*points.items()][:5]), target=None, columns=columns, bins=bins)) is not None


def test_without_a_target_the_column_in_which_points_differ_most_gives_the_colours(hand: Any) -> None:
    rng = np.random.default_rng(0)
    sex = np.array([[CORNERS[k % 2] for k in range(40)]])
    age = rng.dirichlet([20.0] * 4, (1, 40))
    found = map_of(hand.model({"sex": sex, "age": age}, target=None))
    assert found is not None and (found.by, found.classes) == ("sex", ("female", "male"))
    assert all((x > 0) == (found.points[0][0] > 0) for x, _, kind, _ in found.points if kind == found.points[0][2])


def test_many_classes_are_put_together(hand: Any) -> None:
    columns = [{"name": "city", "kind": "categorical", "categories": list("abcdefg")}, hand.columns[0]]
    sex = np.array([[CORNERS[k % 2] for k in range(10)]] * 7)
    share = (0.3, 0.02, 0.2, 0.03, 0.15, 0.25, 0.05)
    model = hand.model(
        {"sex": sex}, class_share=share, target="city", columns=columns, bins={"sex": [0, 1], "city": range(7)}
    )
    found = map_of(model)
    assert found is not None and found.classes == ("a", "c", "e", "f", "any other")
    assert {kind for _, _, kind, _ in found.points} == set(range(5))
