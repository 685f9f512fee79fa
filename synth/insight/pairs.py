"""Pairs: how clearly the noised tables show that two columns depend on each other, and how far the model is from them.

Every comparison is in units of the noise that was added, and of the sampling of people that follows from the model.
"""

from __future__ import annotations

import math

import numpy as np

from synth.facts import PairFacts
from synth.insight.meaning import rounded
from synth.insight.shifts import beyond_chance
from synth.tables.measurements import Measurements, Pair
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray


def known_pairs(measured: Measurements, model: TableModel) -> tuple[PairFacts, ...]:
    """All measured pairs, the target with every column among them, as it was measured class by class."""
    most = model.schema.max_rows_per_person
    found = [
        _pair((a, b), pair_shares(model, a, b), *table.best(), measured, most)
        for (a, b), table in measured.pairs.items()
    ]
    if model.target is not None and len(model.class_share) > 1:
        known = {frozenset(pair) for pair in measured.pairs}
        for name in model.encoding.names:
            pair = (model.target, name)
            if name != model.target and frozenset(pair) not in known:
                shares = class_shares(model, name) * model.class_share[:, None]
                found.append(_pair(pair, shares, measured.one_way[name], measured.one_way_noise[name], measured, most))
    return tuple(found)


def unmeasured_pairs(model: TableModel, pairs: tuple[PairFacts, ...]) -> int:
    """Of how many pairs of columns there is no noised table."""
    columns = {*model.encoding.names, *([] if model.target is None else [model.target])}
    return math.comb(len(columns), 2) - len(pairs)


def pair_shares(model: TableModel, a: str, b: str) -> FloatArray:
    """The model's shares of two columns' bins [bins a, bins b], adding up to 1; before rules."""
    one, other = (model.shares[:, :, model.encoding.place(name)].astype(np.float64) for name in (a, b))
    weight = model.class_share / model.shares.shape[1]
    return np.asarray(np.einsum("c,cka,ckb->ab", weight, one, other, optimize=True))


def class_shares(model: TableModel, name: str) -> FloatArray:
    """The model's shares of a column's bins within every class [classes, bins]; rows sum to 1."""
    return np.asarray(model.shares[:, :, model.encoding.place(name)].mean(axis=1, dtype=np.float64))


def _pair(
    pair: Pair, shares: FloatArray, noised: FloatArray, noise: float, measured: Measurements, rows_per_person: int
) -> PairFacts:
    total, cells = measured.total, noised.size
    alone = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    off = float(((shares * total - noised) ** 2).sum())
    return PairFacts(
        columns=pair,
        cells=cells,
        noise=rounded(noise),
        share_error=rounded(min(1.0, noise * math.sqrt(cells / 4) / total)),
        dependence=rounded(0.5 * float(np.abs(shares - alone).sum())),
        dependence_z=rounded(_dependence_z(noised, noise, alone * total, rows_per_person)),
        residual=rounded(math.sqrt(off / cells) / noise),
        residual_z=rounded(beyond_chance(off, cells * noise**2, cells * noise**4)),
    )


def _dependence_z(noised: FloatArray, noise: float, alone: FloatArray, rows_per_person: int) -> float:
    """How far a noised table is from independence, beyond noise and the sampling of people; `alone` if independent.

    Rows and columns are taken out of the difference: what is left of independent columns is chance, however common
    their own values are. The rows of one person count as one observation.
    """
    rows, columns = noised.shape
    if min(rows, columns) < 2:
        return 0.0
    left = noised - alone
    left = left - left.mean(axis=0) - left.mean(axis=1)[:, None] + left.mean()
    variance = noise**2 + rows_per_person * alone
    # Taking means out is a projection P, the Kronecker product of one for rows and one for columns; with independent
    # cells the traces of PV and PVPV need its diagonal and its squared entries alone.
    kept = [np.where(np.eye(size) > 0, (1 - 1 / size) ** 2, 1 / size**2) for size in (rows, columns)]
    expected = float(variance.sum()) * (1 - 1 / rows) * (1 - 1 / columns)
    return beyond_chance(float((left**2).sum()), expected, float((variance * (kept[0] @ variance @ kept[1])).sum()))
