"""Pairs: what noised tables show of two columns, against tables written by hand and against brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from synth.insight.pairs import class_shares, known_pairs, pair_shares, unmeasured_pairs
from synth.insight.shifts import beyond_chance
from synth.tables.model import TableModel

SEX = [[[0.8, 0.2], [0.2, 0.8]], [[0.5, 0.5], [0.5, 0.5]]]
AGE = [[[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]], [[0.25] * 4, [0.25] * 4]]


@pytest.fixture
def model(hand: Any) -> TableModel:
    model: TableModel = hand.model({"sex": SEX, "age": AGE})
    return model


def test_shares_are_sums_over_latent_points(model: TableModel) -> None:
    expected = np.zeros((2, 4))
    for c, share in enumerate((0.75, 0.25)):
        for k in range(2):
            expected += share / 2 * np.outer(SEX[c][k], AGE[c][k])
    assert pair_shares(model, "sex", "age") == pytest.approx(expected, abs=1e-6)
    assert class_shares(model, "age") == pytest.approx(np.mean(AGE, axis=1), abs=1e-6)


def test_a_model_that_is_its_measurement_is_off_by_nothing(hand: Any, model: TableModel) -> None:
    shares = pair_shares(model, "sex", "age")
    (pair, *_) = known_pairs(hand.measured(model, pairs={("sex", "age"): 1000 * shares}, noise=3.0), model)
    alone = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    assert (pair.columns, pair.cells, pair.noise) == (("sex", "age"), 8, 3.0)
    assert pair.residual == pytest.approx(0, abs=1e-4) and pair.residual_z < -3
    assert pair.dependence == pytest.approx(0.5 * np.abs(shares - alone).sum(), abs=1e-5)
    assert pair.dependence_z > 5
    assert pair.share_error == pytest.approx(3 * math.sqrt(2) / 1000, rel=1e-4)


def test_a_residual_is_in_units_of_the_noise(hand: Any, model: TableModel) -> None:
    off = 1000 * pair_shares(model, "sex", "age")
    off[0, 0] += 40.0
    (pair, *_) = known_pairs(hand.measured(model, pairs={("sex", "age"): off}, noise=4.0), model)
    assert pair.residual == pytest.approx(math.sqrt(10.0**2 / 8), rel=1e-3)
    assert pair.residual_z == pytest.approx(beyond_chance(1600.0, 8 * 16.0, 8 * 256.0), rel=1e-3)


def test_rows_and_columns_by_themselves_are_no_dependence(hand: Any, model: TableModel) -> None:
    """The same table with other totals of rows and columns shows as much."""
    table = 1000 * pair_shares(model, "sex", "age")
    moved = table + np.array([[50.0], [-20.0]]) + np.array([5.0, 30.0, -10.0, 0.0])
    found = [
        known_pairs(hand.measured(model, pairs={("sex", "age"): t}), model)[0].dependence_z for t in (table, moved)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_target_is_known_by_class(hand: Any, model: TableModel) -> None:
    measured = hand.measured(model, pairs={("sex", "age"): np.zeros((2, 4))}, noise=2.0)
    pairs = known_pairs(measured, model)
    assert [pair.columns for pair in pairs] == [("sex", "age"), ("died", "sex"), ("died", "age")]
    assert pairs[2].residual == pytest.approx(0, abs=1e-3)
    assert unmeasured_pairs(model, pairs) == 0
    assert unmeasured_pairs(model, pairs[1:]) == 1


def test_a_numeric_target_counts_once(hand: Any) -> None:
    bins = hand.bins | {"age": [0, 0, 0, 1, 1, 1, 1]}
    columns = [c if c["name"] != "age" else c | {"nullable": False} for c in hand.columns]
    bins["age"] = [0, 0, 0, 1, 1, 1]
    points = {"sex": [[[0.5, 0.5]]] * 2, "age": [[[0.9, 0.1]], [[0.1, 0.9]]]}
    model = hand.model(points, target="age", columns=columns, bins=bins)
    pairs = known_pairs(hand.measured(model, pairs={("sex", "age"): np.full((2, 2), 250.0)}), model)
    assert [pair.columns for pair in pairs] == [("sex", "age")]
    assert unmeasured_pairs(model, pairs) == 0


def test_a_column_of_one_bin_depends_on_nothing(hand: Any) -> None:
    model = hand.model({"sex": [[[0.5, 0.5]]], "age": [[[1.0]]]}, target=None, bins=hand.bins | {"age": [0] * 7})
    (pair,) = known_pairs(hand.measured(model, pairs={("sex", "age"): np.array([[900.0], [100.0]])}), model)
    assert (pair.dependence, pair.dependence_z) == (0, 0)


@pytest.mark.parametrize("rows_per_person", [1, 4])
def test_z_is_about_normal_for_independent_columns(hand: Any, rows_per_person: int) -> None:
    """By draws of people, whose rows are all alike, and of noise; with a fixed seed."""
    age = np.array([0.4, 0.3, 0.2, 0.1])
    model = hand.model({"sex": [[[0.7, 0.3]]], "age": [[age.tolist()]]}, target=None)
    object.__setattr__(model, "schema", model.schema.model_copy(update={"max_rows_per_person": rows_per_person}))
    rng, alone, found = np.random.default_rng(2), np.outer([0.7, 0.3], age), []
    for _ in range(400):
        people = rng.multinomial(1200 // rows_per_person, alone.ravel()).reshape(2, 4)
        noised = rows_per_person * people + rng.normal(0, 5, (2, 4))
        measured = hand.measured(model, total=1200.0, noise=5.0, pairs={("sex", "age"): noised})
        found.append(known_pairs(measured, model)[0].dependence_z)
    assert abs(np.mean(found)) < 0.25 and 0.8 < np.std(found) < 1.2
