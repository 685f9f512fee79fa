"""Fidelity: how far the synthetic rows' marginals, associations and missing values are from those of real rows.

Beside every distance stands the same distance of real rows to real rows, as many as there are synthetic ones:
what chance alone shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.evaluate.distance import total_variation
from synth.evaluate.internal.groups import Groups
from synth.evaluate.internal.overlays import Overlay, cells_of_column, overlay
from synth.tables.codec import Codec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_PAIRS = 2_000
MOST_TRIPLES = 64
MOST_COLUMNS_DRAWN = 40


@dataclass(frozen=True)
class MarginalDistance:
    """Total variation distance of one marginal in [0, 1]; `chance` is that of real rows to real rows."""

    columns: tuple[str, ...]
    distance: float
    chance: float | None


@dataclass(frozen=True)
class Missingness:
    """Shares of missing cells."""

    column: str
    real: float
    synthetic: float


@dataclass(frozen=True)
class Association:
    """Cramér's V of every pair of the worst columns, corrected for bias; symmetric, in [0, 1]."""

    columns: tuple[str, ...]
    real: tuple[tuple[float, ...], ...]
    synthetic: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Fidelity:
    """All of it, worst first.

    Attributes:
        rows: how many rows each of the tables supplied.
        mean_distance: mean over the marginals of one, two and three columns.
        mean_chance: the same between real rows and real rows.
    """

    rows: int
    mean_distance: tuple[float | None, ...]
    mean_chance: tuple[float | None, ...]
    columns: tuple[MarginalDistance, ...]
    pairs: tuple[MarginalDistance, ...]
    triples: tuple[MarginalDistance, ...]
    missing: tuple[Missingness, ...]
    overlays: tuple[Overlay, ...]
    association: Association


def fidelity(
    real: FloatArray,
    synthetic: FloatArray,
    training: FloatArray | None,
    codecs: Mapping[str, Codec],
    *,
    rng: np.random.Generator,
) -> Fidelity:
    """Distances of synthetic rows to real held-out rows.

    Args:
        real, synthetic, training: [rows, columns]; `training` shows what chance alone does.
        codecs: codecs of the columns, in order.
        rng: picks pairs and triples where there are too many.
    """
    groups = Groups(real, codecs)
    tables = [real, synthetic] if training is None else [real, synthetic, training]
    rows = min(len(table) for table in tables)
    coded = [groups.of(table[:rows]) for table in tables]
    names = list(codecs)
    columns = range(len(names))

    def distances(found: Sequence[tuple[int, ...]]) -> tuple[MarginalDistance, ...]:
        scores = []
        for marginal in found:
            counts = [groups.table(codes, marginal) for codes in coded]
            scores.append(
                MarginalDistance(
                    columns=tuple(names[i] for i in marginal),
                    distance=total_variation(counts[0], counts[1]),
                    chance=total_variation(counts[0], counts[2]) if training is not None else None,
                )
            )
        return tuple(sorted(scores, key=lambda score: -score.distance))

    one_way = distances([(i,) for i in columns])
    pairs = distances(some(list(itertools.combinations(columns, 2)), MOST_PAIRS, rng))
    triples = distances(some_triples(len(names), MOST_TRIPLES, rng))
    worst = [names.index(score.columns[0]) for score in one_way]
    drawn = sorted(worst[:MOST_COLUMNS_DRAWN])
    missing = [
        Missingness(names[i], float(np.isnan(real[:, i]).mean()), float(np.isnan(synthetic[:, i]).mean()))
        for i in columns
        if np.isnan(real[:, i]).any() or np.isnan(synthetic[:, i]).any()
    ]
    return Fidelity(
        rows=rows,
        mean_distance=tuple(_mean([s.distance for s in way]) for way in (one_way, pairs, triples)),
        mean_chance=tuple(_mean([s.chance for s in way if s.chance is not None]) for way in (one_way, pairs, triples)),
        columns=one_way,
        pairs=pairs,
        triples=triples,
        missing=tuple(sorted(missing, key=lambda m: -abs(m.real - m.synthetic))),
        overlays=tuple(_overlay_of(codecs[names[i]], real[:, i], synthetic[:, i]) for i in worst),
        association=Association(
            columns=tuple(names[i] for i in drawn),
            real=_associations(groups, coded[0], drawn),
            synthetic=_associations(groups, coded[1], drawn),
        ),
    )


def cramers_v(table: npt.ArrayLike) -> float:
    """Cramér's V of a two-way table of counts, corrected for bias (Bergsma 2013); 0 where a side has one level."""
    counts = np.asarray(table, dtype=np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    n, (r, c) = counts.sum(), counts.shape
    if n < 2 or min(r, c) < 2:
        return 0.0
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    phi2 = max(0.0, float(((counts - expected) ** 2 / expected).sum() / n - (r - 1) * (c - 1) / (n - 1)))
    small = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return float(min(1.0, np.sqrt(phi2 / small))) if small > 0 else 0.0


def some(candidates: list[tuple[int, ...]], most: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """At most `most` of the candidates, in their order."""
    return [candidates[i] for i in sorted(rng.permutation(len(candidates))[:most])]


def some_triples(columns: int, most: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Triples of columns by number. Of many columns there are too many to list, so these are drawn."""
    if columns <= MOST_COLUMNS_DRAWN:
        return some(list(itertools.combinations(range(columns), 3)), most, rng)
    drawn = {tuple(sorted(rng.choice(columns, 3, replace=False).tolist())) for _ in range(most)}
    return sorted(drawn)


def _associations(groups: Groups, codes: IntArray, columns: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    found = np.eye(len(columns))
    for (i, a), (j, b) in itertools.combinations(enumerate(columns), 2):
        table = groups.table(codes, (a, b)).reshape(groups.sizes[a], groups.sizes[b])
        found[i, j] = found[j, i] = cramers_v(table)
    return tuple(tuple(float(v) for v in row) for row in found)


def _overlay_of(codec: Codec, real: FloatArray, synthetic: FloatArray) -> Overlay:
    size = codec.size + (codec.missing is None and bool(np.isnan(real).any() or np.isnan(synthetic).any()))
    counts = [np.bincount(cells_of_column(codec, values), minlength=size) for values in (real, synthetic)]
    return overlay(codec, *counts)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
