"""A small hospital, measured, and a model of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from synth.schema import Schema
from synth.tables.decode import decoder_of
from synth.tables.measure import Measurements
from synth.tables.model import TableModel, new_generator
from synth.tables.targets import encoding_of

Person = tuple[str | None, ...]


@pytest.fixture(scope="session")
def hospital(schema_of: Callable[..., Schema]) -> Schema:
    """A small table with a column of every kind and a class."""
    names = ("number", "age", "income", "weight", "city", "dose", "smoker", "admitted", "died")
    return schema_of(*names, target="died", smoker={"nullable": True})


@pytest.fixture(scope="session")
def patients() -> list[Person]:
    """Cells of the learned columns of `hospital`: correlated, with nulls and values that people share."""
    rng = np.random.default_rng(5)
    people: list[Person] = []
    for _ in range(400):
        died = rng.random() < 0.3
        age = int(np.clip(rng.normal(70 if died else 40, 12), 0, 99))
        income = None if rng.random() < 0.2 else "1000" if rng.random() < 0.4 else f"{rng.gamma(2, 500):.1f}"
        day = np.datetime64("1989-01-01") + rng.integers(0, 2000)
        weight = f"{np.clip(rng.normal(70, 15), 3, 200):.4f}"
        city = ["Rome", "Oslo", None][rng.choice(3, p=[0.6, 0.3, 0.1])]
        dose = ["0.5", "1", "2.0"][rng.integers(3)]
        smoker = [None, "yes", "no"][rng.integers(3)]
        people.append((str(age), income, weight, city, dose, smoker, str(day), str(died).lower()))
    return people


@pytest.fixture(scope="session")
def hospital_run(toy_run: Any, hospital: Schema, patients: list[Person]) -> tuple[Any, Measurements]:
    run = toy_run(hospital, epsilon=20.0)
    return run, run.measure([run.codes_of(person, i) for i, person in enumerate(patients)])[1]


def model_of(run: Any, measured: Measurements, *, members: int = 2, points: int = 12) -> TableModel:
    """A model that was never trained: random generators, but real measurements, bins and decoders."""
    encoding = encoding_of(measured)
    generators = []
    for number in range(members):
        generator = new_generator(
            classes=len(measured.class_sizes),
            sizes=encoding.sizes,
            latent_points=points,
            latent_size=4,
            hidden_size=8,
            seed=number,
        )
        generators.append(generator.eval())
    return TableModel(
        schema=run.schema,
        encoding=encoding,
        target=run.layout.target,
        class_share=measured.class_sizes / measured.class_sizes.sum(),
        class_of_cell=measured.class_of_cell,
        decoders={name: decoder_of(measured, run.codecs[name]) for name in run.layout.columns},
        members=tuple(generators),
        rows=round(measured.total),
    )


@pytest.fixture(scope="session")
def model(hospital_run: tuple[Any, Measurements]) -> TableModel:
    return model_of(*hospital_run)


@pytest.fixture(scope="session")
def untrained() -> Callable[..., TableModel]:
    return model_of
