"""A small hospital, measured, and a model of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats

from synth.schema import Schema, parse_schema
from synth.tables.decode import ColumnDecoder, decoder_of
from synth.tables.measurements import Measurements
from synth.tables.model import TableModel, new_generator
from synth.tables.targets import Encoding, encoding_of

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


TINY_COLUMNS: list[dict[str, Any]] = [
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    {"name": "grade", "kind": "categorical", "categories": [1, 2, 3], "nullable": True},
    {"name": "age", "kind": "integer", "bounds": [0, 5], "nullable": True},
    {"name": "died", "kind": "boolean"},
]
TINY_DECODERS = {
    "sex": ([0, 1], [1.0, 1.0]),
    "grade": ([0, 0, 1, 2], [0.3, 0.7, 1.0, 1.0]),
    "age": ([0, 0, 0, 1, 2, 2, 3], [0.2, 0.5, 0.3, 1.0, 0.9, 0.1, 1.0]),
    "died": ([0, 1], [1.0, 1.0]),
}
TINY_VALUES: dict[str, list[Any]] = {
    "sex": ["female", "male"],
    "grade": [1, 2, 3, None],
    "age": [0, 1, 2, 3, 4, 5, None],
    "died": [False, True],
}
TINY_CLASS_SHARE = np.array([0.8, 0.2])
NONE = np.empty(0)


class Tiny:
    """A table so small that a model's probability of every row can be written down."""

    values = TINY_VALUES

    @staticmethod
    def model(
        *, target: str | None = "died", points: int = 5, class_share: np.ndarray = TINY_CLASS_SHARE
    ) -> TableModel:
        """A model of `TINY_COLUMNS` with two random generators, far from uniform."""
        schema = parse_schema({"dataset": "tiny", "target": target, "columns": TINY_COLUMNS}, file="s")
        names = tuple(name for name in TINY_VALUES if name != target)
        sizes = tuple(max(TINY_DECODERS[name][0]) + 1 for name in names)
        members = []
        for seed in range(2):
            member = new_generator(
                classes=2 if target else 1, sizes=sizes, latent_points=points, latent_size=3, hidden_size=8, seed=seed
            )
            member.head.weight.data *= 6
            member.class_bias.data += torch.log(torch.arange(1, sum(sizes) + 1) % 4 + 1)
            members.append(member.eval())
        return TableModel(
            schema=schema,
            encoding=Encoding(names=names, sizes=sizes),
            target=target,
            class_share=class_share if target else np.ones(1),
            class_of_cell=np.arange(2) if target else np.zeros(1, dtype=np.int64),
            decoders={
                name: ColumnDecoder(
                    np.array(TINY_DECODERS[name][0]), np.array(TINY_DECODERS[name][1]), NONE, NONE, NONE
                )
                for name in names
            },
            members=tuple(members),
            rows=100,
        )

    @staticmethod
    def joint(model: TableModel) -> np.ndarray:
        """The model's probability of every row [sex, grade, age, died], latent point by latent point."""
        table = np.zeros([len(values) for values in TINY_VALUES.values()])
        classes, points, _ = model.shares.shape
        for c, k in itertools.product(range(classes), range(points)):
            factors = []
            for name, values in TINY_VALUES.items():
                if name in model.encoding.names:
                    home, share = TINY_DECODERS[name]
                    own = model.shares[c, k, model.encoding.place(name)].astype(float)
                    factors.append(own[home] * share)
                else:
                    factors.append(np.eye(len(values))[c])
            table += model.class_share[c] / points * np.einsum("a,b,c,d->abcd", *factors)
        return table

    @staticmethod
    def counted(drawn: pa.Table) -> np.ndarray:
        """How often each row came [sex, grade, age, died]."""
        table = np.zeros([len(values) for values in TINY_VALUES.values()])
        places = [[values.index(v) for v in drawn.column(name).to_pylist()] for name, values in TINY_VALUES.items()]
        np.add.at(table, tuple(places), 1)
        return table

    @staticmethod
    def given(model: TableModel, meets: Callable[..., bool]) -> np.ndarray:
        """The joint distribution of the rows that meet a condition."""
        table = Tiny.joint(model)
        for at in np.ndindex(table.shape):
            table[at] *= bool(meets(*(values[i] for values, i in zip(TINY_VALUES.values(), at, strict=True))))
        return table / table.sum()

    @staticmethod
    def fits(found: np.ndarray, expected: np.ndarray) -> bool:
        """Whether counts fit a distribution: no impossible row, and a chi-square over the rows expected five times."""
        if found[expected == 0].any():
            return False
        counts = found.sum() * expected
        often = counts >= 5
        observed, hoped = np.append(found[often], found[~often].sum()), np.append(counts[often], counts[~often].sum())
        if hoped[-1] < 5:
            observed, hoped = observed[:-1], hoped[:-1]
        return bool(stats.chisquare(observed, hoped * observed.sum() / hoped.sum()).pvalue > 1e-6)


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    return Tiny
