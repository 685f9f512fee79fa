"""Linkability and attribute inference: attacks by the nearest synthetic rows.

Giomi, Boenisch, Wehmeyer and Tasnadi 2022 (arXiv 2211.10459), sections 5.2 and 5.3. Each attack runs on training
people and on held-out people; only what it wins on the former beyond the latter is a leak. The rest is what anyone
may learn from good statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synth.evaluate.internal.groups import Groups
from synth.evaluate.internal.intervals import Risk, risk_of
from synth.evaluate.internal.nearest import Points, Space
from synth.tables.codec import Codec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NEIGHBOURS = 10


def linkability(
    training: FloatArray,
    held_out: FloatArray,
    synthetic: FloatArray,
    codecs: Mapping[str, Codec],
    *,
    rng: np.random.Generator,
) -> Risk | None:
    """Two halves of the columns as two files: are a person's nearest synthetic rows by either half the same row?

    A link counts when the NEIGHBOURS nearest rows by one half and by the other have a row in common. The naive guess
    draws both sets at random. None for a single column.
    """
    columns = rng.permutation(len(codecs)).tolist()
    halves = [columns[: len(columns) // 2], columns[len(columns) // 2 :]]
    if not halves[0]:
        return None
    space = Space.of(synthetic, codecs)
    points = space.points(synthetic)
    groups = []
    for table in (training, held_out):
        people = space.points(table)
        near = [space.nearest(people, points, columns=half, k=NEIGHBOURS)[1] for half in halves]
        groups.append((int(in_common(near[0], near[1]).sum()), len(people)))
    drawn = [rng.integers(len(points), size=(len(training), NEIGHBOURS)) for _ in halves]
    return risk_of("linkability", groups[0], groups[1], (int(in_common(drawn[0], drawn[1]).sum()), len(training)))


def attribute_inference(
    training: FloatArray,
    held_out: FloatArray,
    synthetic: FloatArray,
    codecs: Mapping[str, Codec],
    *,
    rng: np.random.Generator,
) -> list[Risk]:
    """For each column, a person's other values are known: does the nearest synthetic row tell the one that is not?

    A guess counts when it is the same level, or the same of twenty groups of equal size of a number. The naive guess is
    the value of a random synthetic row. Worst risk first.
    """
    if len(codecs) < 2:
        return []
    space, groups = Space.of(synthetic, codecs), Groups(synthetic, codecs)
    points, secrets = space.points(synthetic), groups.of(synthetic)
    right = [_right_guesses(space, space.points(t), groups.of(t), points, secrets) for t in (training, held_out)]
    risks = []
    for i, name in enumerate(codecs):
        guesses = secrets[rng.integers(len(secrets), size=len(training)), i]
        naive = int((guesses == groups.of(training)[:, i]).sum())
        found = [(int(r[:, i].sum()), len(r)) for r in right]
        risks.append(risk_of(name, found[0], found[1], (naive, len(training))))
    return sorted(risks, key=lambda risk: -risk.risk.value)


def in_common(first: IntArray, second: IntArray) -> BoolArray:
    """Whether the rows of two index arrays [rows, k] share an index."""
    return np.asarray((first[:, :, None] == second[:, None, :]).any(axis=(1, 2)))


def _right_guesses(space: Space, people: Points, truth: IntArray, points: Points, secrets: IntArray) -> BoolArray:
    """Whether the nearest synthetic row by all other columns has the person's group, [people, columns]."""
    columns = range(people.shape[1])
    right = np.empty(truth.shape, dtype=bool)
    for part, total in space.distances(people, points, columns):
        for i in columns:
            nearest = (total - space.column_distance(people[part], points, i)).argmin(axis=1)
            right[part, i] = secrets[nearest, i] == truth[part, i]
    return right
