"""Matrices of rows for the internal report: related columns of every kind, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from synth.evaluate.internal.rows import Rows, fingerprints
from synth.schema import Schema
from synth.tables.codec import Codec, codecs_of

NAMES = ("age", "income", "sex", "city", "admitted", "died")


@pytest.fixture(scope="session")
def codecs(schema_of: Callable[..., Schema]) -> dict[str, Codec]:
    return codecs_of(schema_of(*NAMES, target="died"))


@pytest.fixture(scope="session")
def people() -> Callable[[int, int], np.ndarray]:
    """`people(rows, seed)`: rows of the columns in NAMES; the answer follows from age and sex."""

    def draw(rows: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        age = rng.integers(0, 100, rows)
        income = np.round(rng.gamma(2.0, 400, rows) + 10 * age, 1).clip(0, 5000) * 10
        income[rng.random(rows) < 0.15] = np.nan
        sex = rng.integers(0, 2, rows)
        city = rng.choice([0, 1, 2], rows, p=[0.6, 0.3, 0.1]).astype(float)
        city[rng.random(rows) < 0.1] = np.nan
        admitted = rng.integers(6940, 9131, rows)
        died = rng.random(rows) < 1 / (1 + np.exp(-(age - 60) / 10 - sex))
        return np.column_stack([age, np.round(income), sex, city, admitted, died])

    return draw


@pytest.fixture(scope="session")
def rows_of() -> Callable[[np.ndarray], Rows]:
    """A table that is sampled whole."""
    return lambda matrix: Rows(matrix, fingerprints(matrix))
