"""Sum states: the states of summed columns, as the tables of sums and the draws of their values see them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synth.tables.codec import OrderedCodec
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, Pieces, Region
from synth.tables.posterior import restricted
from synth.tables.rule_tree import Adds
from synth.tables.spread import pieces_of
from synth.tables.states import States
from synth.tables.sum_tables import (
    Marks,
    Summed,
    bin_ends,
    cells_of_bins,
    even_marks,
    marked_units,
    marks_of,
    steps_of,
    total_pieces,
)
from synth.tables.sum_values import Part, Placing, part_of
from synth.tables.sums import Sum


def summed_pieces(model: TableModel, name: str, region: Region | None, *, total: bool) -> Pieces:
    """The values of a summed column, within a region if there is one."""
    codec, decoder = model.codecs[name], model.decoders[name]
    if not total:
        return pieces_of(codec, decoder) if region is None else restricted(codec, decoder, region)
    every = total_pieces(codec, decoder)
    return every if region is None else every.within(region)


def part_in(model: TableModel, name: str, states: States, region: Region | None) -> Part:
    """A summed column by its states, whose values are held to a region if there is one."""
    codec, decoder = model.codecs[name], model.decoders[name]
    assert isinstance(codec, OrderedCodec)
    ends = np.append(bin_ends(codec, decoder), codec.lattice.high)
    starts = np.append(codec.lattice.low, ends[:-1] + 1)
    known = ~np.isnan(states.first[: states.size])
    home, part = states.home[known], states.parting.of(states.first[: states.size][known])
    low, high = np.full(states.size, np.nan), np.full(states.size, np.nan)
    low[known] = np.maximum(starts[home], states.parting.first[part])
    high[known] = np.minimum(ends[home], states.parting.last[part])
    if region is not None and len(region.intervals):
        low, high = np.maximum(low, region.intervals[0, 0]), np.minimum(high, region.intervals[-1, 1])
    state = np.full((len(ends) + (codec.missing is not None), len(states.parting.first)), -1)
    state[home, part] = np.nonzero(known)[0]
    placing = Placing(codec, decoder.bin_of_cell, states.parting.last, state, region)
    return part_of(states, placing, low, high)


def steps_between(
    model: TableModel, rule: Sum, parts: Mapping[str, Part], shares: Mapping[str, FloatArray]
) -> tuple[list[Adds], dict[str, int]]:
    """The steps of a sum between states, and its hidden columns with how many states each has."""
    columns = {
        name: _summed(model, name, parts[name], unit, shares[name].mean(axis=0)) for name, unit in marked_units(rule)
    }
    return steps_of(rule, columns)


def _summed(model: TableModel, name: str, part: Part, unit: float, share: FloatArray) -> Summed:
    """A column's states, then the parts of its domain that known cells are in."""
    codec, decoder, states, parting = part.placing.codec, model.decoders[name], part.states, part.states.parting
    marks, whole = marks_of(states.pieces, part.low, part.high, unit), even_marks(parting.first, parting.last, unit)
    found = part.placing.state.max(axis=0)
    values, weight = whole.values.copy(), whole.weight.copy()
    # Parts lie within bins: what a state holds is all that is known of its part.
    values[found >= 0], weight[found >= 0] = marks.values[found[found >= 0]], marks.weight[found[found >= 0]]
    cells = cells_of_bins(codec, decoder)
    missing = np.isnan(part.low)
    cell = np.where(missing, len(cells.ends), states.home)
    return Summed(
        marks.plus(Marks(values, weight, whole.low, whole.high)),
        np.append(share, np.zeros(len(parting.first))),
        cells,
        np.append(cell, cells.of(parting.first)),
    )
