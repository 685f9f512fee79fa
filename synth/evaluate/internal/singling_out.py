"""Singling out: predicates that pick one synthetic row, and how often they pick exactly one real person.

Giomi, Boenisch, Wehmeyer and Tasnadi 2022 (arXiv 2211.10459), section 5.1, after Cohen and Nissim 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from synth.evaluate.internal.intervals import Risk, risk_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PREDICATE_COLUMNS = 4
TRIES_PER_PREDICATE = 20


@dataclass(frozen=True)
class Condition:
    """One condition on a column: its value is, is at most, is at least `value`, or is missing."""

    column: int
    relation: Literal["is", "at most", "at least", "missing"]
    value: float

    def holds(self, matrix: FloatArray) -> BoolArray:
        """Which rows meet it."""
        values = matrix[:, self.column]
        if self.relation == "missing":
            return np.isnan(values)
        if self.relation == "is":
            return np.equal(values, self.value)
        return np.less_equal(values, self.value) if self.relation == "at most" else np.greater_equal(values, self.value)


Predicate = tuple[Condition, ...]


def matches(matrix: FloatArray, predicate: Predicate) -> int:
    """How many rows meet all conditions."""
    found = predicate[0].holds(matrix)
    for condition in predicate[1:]:
        found &= condition.holds(matrix)
    return int(found.sum())


def singling_out(
    training: FloatArray,
    held_out: FloatArray,
    synthetic: FloatArray,
    ordered: BoolArray,
    *,
    attempts: int,
    rng: np.random.Generator,
) -> list[Risk]:
    """Risks of predicates over one column and over several. All tables have the same number of rows."""
    columns = min(PREDICATE_COLUMNS, synthetic.shape[1])
    found = []
    for name, predicates, guesses in (
        (
            "singling out, one column",
            single_column_predicates(synthetic, ordered, attempts, rng),
            [_guess(synthetic, ordered, 1, rng) for _ in range(attempts)],
        ),
        (
            f"singling out, {columns} columns",
            several_column_predicates(synthetic, ordered, columns, attempts, rng),
            [_guess(synthetic, ordered, columns, rng) for _ in range(attempts)],
        ),
    ):
        if predicates:
            groups = [(_hits(table, predicates), len(predicates)) for table in (training, held_out)]
            found.append(risk_of(name, groups[0], groups[1], (_hits(training, guesses), len(guesses))))
    return found


def single_column_predicates(
    synthetic: FloatArray, ordered: BoolArray, most: int, rng: np.random.Generator
) -> list[Predicate]:
    """A value, an end of a line, or a missing value, where one synthetic row has it alone."""
    found: list[Predicate] = []
    for column, values in enumerate(synthetic.T):
        known = values[~np.isnan(values)]
        unique, counts = np.unique(known, return_counts=True)
        found += [(Condition(column, "is", float(value)),) for value in unique[counts == 1]]
        if ordered[column] and len(unique):
            ends: tuple[tuple[Literal["at most", "at least"], int], ...] = (("at most", 0), ("at least", -1))
            found += [(Condition(column, side, float(unique[i])),) for side, i in ends if counts[i] == 1]
        if len(values) - len(known) == 1:
            found.append((Condition(column, "missing", 0.0),))
    return [found[i] for i in rng.permutation(len(found))[:most]]


def several_column_predicates(
    synthetic: FloatArray, ordered: BoolArray, columns: int, most: int, rng: np.random.Generator
) -> list[Predicate]:
    """Conditions of random synthetic rows on random columns that no other synthetic row meets."""
    medians = _medians(synthetic, ordered)
    found: dict[Predicate, None] = {}
    for _ in range(TRIES_PER_PREDICATE * most):
        row = synthetic[rng.integers(len(synthetic))]
        chosen = rng.choice(len(row), columns, replace=False)
        predicate = tuple(_condition(int(i), row[i], ordered, medians) for i in sorted(chosen))
        if matches(synthetic, predicate) == 1:
            found[predicate] = None
        if len(found) == most:
            break
    return list(found)


def _condition(column: int, value: float, ordered: BoolArray, medians: FloatArray) -> Condition:
    if np.isnan(value):
        return Condition(column, "missing", 0.0)  # never NaN: equal conditions must be equal
    if not ordered[column]:
        return Condition(column, "is", float(value))
    return Condition(column, "at least" if value >= medians[column] else "at most", float(value))


def _medians(synthetic: FloatArray, ordered: BoolArray) -> FloatArray:
    return np.array(
        [
            np.nanmedian(values) if line and not np.isnan(values).all() else 0.0
            for values, line in zip(synthetic.T, ordered, strict=True)
        ]
    )


def _guess(synthetic: FloatArray, ordered: BoolArray, columns: int, rng: np.random.Generator) -> Predicate:
    """Conditions whose values come from unrelated rows: what the columns alone are good for."""
    chosen = sorted(rng.choice(synthetic.shape[1], columns, replace=False).tolist())
    values = [synthetic[rng.integers(len(synthetic)), i] for i in chosen]
    return tuple(
        Condition(i, "missing", 0.0)
        if np.isnan(value)
        else Condition(i, ("at least", "at most")[int(rng.integers(2))] if ordered[i] else "is", float(value))
        for i, value in zip(chosen, values, strict=True)
    )


def _hits(table: FloatArray, predicates: Sequence[Predicate]) -> int:
    return sum(matches(table, predicate) == 1 for predicate in predicates)
