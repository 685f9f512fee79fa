"""Log-likelihoods against the probability of every row of a tiny table."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.errors import InvalidSource
from synth.tables.likelihood import log_likelihood
from synth.tables.model import TableModel

TYPES = {"sex": pa.string(), "grade": pa.int64(), "age": pa.int64(), "died": pa.bool_()}


def rows_of(values: dict[str, list[Any]], *names: str) -> pa.Table:
    """Every row of some columns."""
    rows = list(itertools.product(*(values[name] for name in names)))
    return pa.table({name: pa.array([row[i] for row in rows], TYPES[name]) for i, name in enumerate(names)})


@pytest.fixture(scope="module", params=["died", None], ids=["class", "no class"])
def model(tiny: Any, request: pytest.FixtureRequest) -> TableModel:
    return tiny.model(target=request.param)


def test_of_every_row_equals_enumeration_and_sums_to_one(tiny: Any, model: TableModel) -> None:
    found = np.exp(log_likelihood(model, rows_of(tiny.values, *tiny.values)))
    assert found == pytest.approx(tiny.joint(model).ravel(), rel=1e-6)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("names", [("sex",), ("died",), ("age", "grade"), ("died", "age", "sex")])
def test_absent_columns_are_summed_out(tiny: Any, model: TableModel, names: tuple[str, ...]) -> None:
    order = list(tiny.values)
    others = tuple(i for i, name in enumerate(order) if name not in names)
    kept = [name for name in order if name in names]
    expected = tiny.joint(model).sum(axis=others).transpose([kept.index(name) for name in names])
    assert np.exp(log_likelihood(model, rows_of(tiny.values, *names))) == pytest.approx(expected.ravel(), rel=1e-6)


def test_real_numbers_have_a_density_that_integrates_to_one(
    model: TableModel, hospital_run: Any, untrained: Any
) -> None:
    hospital: TableModel = untrained(*hospital_run)
    edges = hospital.codecs["weight"].lattice.edges
    middles = (edges[:-1] + edges[1:]) / 2
    density = np.exp(log_likelihood(hospital, pa.table({"weight": middles})))
    assert (density * np.diff(edges)).sum() == pytest.approx(1)


def test_numbers_with_decimals_have_a_probability_a_step(hospital_run: Any, untrained: Any) -> None:
    hospital: TableModel = untrained(*hospital_run)
    incomes = pa.array([*(np.arange(0, 50_001) / 10), None], pa.float64(), from_pandas=True)
    assert np.exp(log_likelihood(hospital, pa.table({"income": incomes}))).sum() == pytest.approx(1)


def test_other_columns_and_the_rows_around_change_nothing(tiny: Any, model: TableModel) -> None:
    table = rows_of(tiny.values, *tiny.values)
    whole = log_likelihood(model, table.append_column("note", pa.array(["x"] * len(table))))
    assert np.array_equal(whole[40:50], log_likelihood(model, table.slice(40, 10)))
    assert np.array_equal(log_likelihood(model, table.to_batches()[0]), log_likelihood(model, table))
    assert log_likelihood(model, table.slice(0, 0)).shape == (0,)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"note": ["x"]}, "none of the model's columns"),
        ({"sex": ["secret"]}, "column sex holds a value outside its declared domain (levels female, male)"),
        ({"age": [9]}, "column age holds a value outside"),
        ({"age": ["5"]}, "column age is string and cannot hold kind integer"),
        ({"died": [None, True]}, "column died holds a null and is not nullable"),
    ],
)
def test_mistakes(model: TableModel, table: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(InvalidSource) as caught:
        log_likelihood(model, pa.table(table))
    assert words in str(caught.value) and "secret" not in str(caught.value)
