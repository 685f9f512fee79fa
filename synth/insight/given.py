"""Given: how every column is distributed among the model's rows that meet conditions. Exact, and nothing is drawn.

Where the schema declares rules, their states decide (`synth.tables.ruled`): exact up to values that fall between the
same cuts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from synth.facts import ShiftFacts
from synth.insight.meaning import meaning_of
from synth.insight.shifts import clearest_first, shift_of
from synth.tables.codec import OrderedCodec
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, IntArray, Region
from synth.tables.posterior import posterior_of, restricted
from synth.tables.ruled import RuledPosterior, ruled_posterior
from synth.tables.rules import Function


@dataclass(frozen=True)
class Given:
    """The model's rows that meet conditions.

    Attributes:
        share: of all rows of the model, in [0, 1]; before rules.
        bins: column → shares of its bins [bins], those with conditions left out.
    """

    share: float
    bins: dict[str, FloatArray]


def given(model: TableModel, conditions: Mapping[str, Region]) -> Given:
    """How columns are distributed under conditions. Raises UserError when the model holds no such rows."""
    classes, points, _ = model.shares.shape
    ruled = ruled_posterior(model, conditions) if model.rules else None
    weights = posterior_of(model, conditions).weights if ruled is None else ruled.weights.reshape(classes, points)
    bins = {}
    for name in model.codecs:
        if name in conditions:
            continue
        if ruled is not None and name in ruled.columns.names:
            bins[name] = _under_rules(model, ruled, name)
        elif name in model.encoding.names:
            block = model.shares[:, :, model.encoding.place(name)].astype(np.float64)
            bins[name] = np.einsum("ck,ckb->b", weights, block)
        else:
            bins[name] = weights.sum(axis=1)
    return Given(_share(model, conditions), bins)


def shifts_between(model: TableModel, one: Given, other: Given) -> tuple[ShiftFacts, ...]:
    """What changes of every column that neither has conditions on, the largest change first."""
    names = [name for name in one.bins if name in other.bins]
    return clearest_first([shift_of(meaning_of(model, n), n, one.bins[n], other.bins[n]) for n in names])


def measured_with(columns: Collection[str], pairs: Collection[frozenset[str]], name: str) -> bool:
    """Whether a column was measured together with each of the others."""
    return all(column == name or frozenset({column, name}) in pairs for column in columns)


def _share(model: TableModel, conditions: Mapping[str, Region]) -> float:
    classes, points, _ = model.shares.shape
    weights = np.repeat(model.class_share[:, None] / points, points, axis=1)
    for name, region in conditions.items():
        if name in model.encoding.names:
            mass = restricted(model.codecs[name], model.decoders[name], region).bin_mass
            weights = weights * (model.shares[:, :, model.encoding.place(name)] @ mass)
        else:
            inside = _cells_within(model, name, region)
            weights = weights * np.isin(np.arange(classes), model.class_of_cell[inside])[:, None]
    return float(min(1.0, weights.sum()))


def _cells_within(model: TableModel, name: str, region: Region) -> IntArray:
    """Levels of the target that lie in a region."""
    codec = model.codecs[name]
    cells = np.arange(codec.size)
    inside = np.any([(cells >= low) & (cells <= high) for low, high in region.intervals] or [cells < 0], axis=0)
    if codec.missing is not None:
        inside[codec.missing] = region.missing
    return np.nonzero(inside)[0]


def _under_rules(model: TableModel, ruled: RuledPosterior, name: str) -> FloatArray:
    """A ruled column's bins: the tree of rules is gone through with the column as its root."""
    columns = ruled.columns
    tree = columns.tree(root=name)
    up = tree.upward(columns.shares)
    others = np.prod([up[root].sum(axis=1) for root in tree.roots if root != name], axis=0)
    states = (ruled.plain.weights.ravel() * others) @ up[name]
    home = columns.states[name].home
    size = len(meaning_of(model, name).centre)
    if any(isinstance(rule, Function) and rule.result == name for rule in model.rules):
        home = _bins_at(model, name, columns.states[name].first[: len(home)])
    found = np.bincount(home, weights=states, minlength=size)
    return np.asarray(found / found.sum())


def _bins_at(model: TableModel, name: str, positions: FloatArray) -> IntArray:
    """The bins of positions of a column; NaN is missing."""
    codec = model.codecs[name]
    lookup = model.decoders[name].bin_of_cell if name in model.encoding.names else model.class_of_cell
    known = np.where(np.isnan(positions), 0.0, positions)
    if isinstance(codec, OrderedCodec):
        cells = codec.lattice.cell_of(np.where(np.isnan(positions), codec.lattice.low, positions))
    else:
        cells = known.astype(np.int64)
    return np.asarray(lookup[np.where(np.isnan(positions), codec.missing or 0, cells)])
