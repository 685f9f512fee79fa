"""Sum values: rows whose columns add up exactly, given the states that the columns are in.

The parts are drawn in their states, and the total follows, until it lies in its own state. Where that is rare, or the
total is known, a part follows from the others and is kept as often as its state holds such a value. Where that is
rare too (a condition on single values), values are taken anywhere that lets the columns add up: no row is lost by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.tables.codec import OrderedCodec
from synth.tables.pieces import FloatArray, IntArray, Pieces, Region, multiples
from synth.tables.states import States
from synth.tables.sums import Sum

BoolArray = npt.NDArray[np.bool_]

TRIES = 40
TRIES_ANYWHERE = 10
"""A condition may leave gaps between values."""
MOST_POSITIONS = 1 << 18
"""Positions of a column up to which it is known how often each is drawn."""


@dataclass(frozen=True)
class Placing:
    """Which of some states each position of a column lies in.

    Attributes:
        codec: the column's codec.
        bin_of_cell: bin of each of its cells.
        ends: last position of each part of the domain.
        state: state of each bin and part, -1 for none [bins, parts].
        region: what positions are held to, if they are.
    """

    codec: OrderedCodec
    bin_of_cell: IntArray
    ends: FloatArray
    state: IntArray
    region: Region | None

    def of(self, positions: FloatArray) -> IntArray:
        """The state of each position, -1 where it lies in none."""
        lattice = self.codec.lattice
        inside = (positions >= lattice.low) & (positions <= lattice.high)
        if self.region is not None:
            held = np.zeros(positions.shape, dtype=bool)
            for low, high in self.region.intervals:
                held |= (positions >= low) & (positions <= high)
            inside &= held
        known = np.where(inside, positions, lattice.low)
        part = np.searchsorted(self.ends[:-1], known, side="left")
        return np.where(inside, self.state[self.bin_of_cell[lattice.cell_of(known)], part], -1)


@dataclass(frozen=True)
class Part:
    """A column of a sum.

    Attributes:
        states: its states.
        placing: the state of a position.
        low, high: first and last position of each state [states].
        density: at each position its share within its state, in parts of the largest there; None for too many.
    """

    states: States
    placing: Placing
    low: FloatArray
    high: FloatArray
    density: FloatArray | None

    def kept(self, positions: FloatArray, state: IntArray, rng: np.random.Generator) -> BoolArray:
        """Which positions lie in their states, each kept as often as it is drawn there."""
        lattice = self.placing.codec.lattice
        inside: BoolArray = self.placing.of(positions) == state
        if self.density is None:
            return inside
        at = np.where(inside, positions - lattice.low, 0).astype(np.int64)
        return np.asarray(inside & (rng.random(len(at)) < self.density[at]))


def part_of(states: States, placing: Placing, low: FloatArray, high: FloatArray) -> Part:
    """A column of a sum by its states."""
    return Part(states, placing, low, high, _density(states.pieces, placing))


def _density(pieces: Pieces, placing: Placing) -> FloatArray | None:
    lattice = placing.codec.lattice
    if lattice.count > MOST_POSITIONS:
        return None
    there = pieces.chosen((pieces.mass > 0) & ~np.isnan(pieces.first))
    count = (there.last - there.first + 1).astype(np.int64)
    piece = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    at = (multiples(there.first[piece] + offset, there.step[piece]) - lattice.low).astype(np.int64)
    density = np.bincount(at, weights=(there.mass / count)[piece], minlength=int(lattice.count))
    most = np.zeros(pieces.bins)
    np.maximum.at(most, there.bin[piece], density[at])
    scaled = np.zeros(len(density))
    scaled[at] = density[at] / most[there.bin[piece]]
    return scaled


def add_up(
    rule: Sum,
    parts: Mapping[str, Part],
    states: Mapping[str, IntArray],
    positions: dict[str, FloatArray],
    fixed: Collection[str],
    rng: np.random.Generator,
) -> BoolArray:
    """Which rows add up, after positions were changed so that they do.

    Args:
        rule: the sum.
        parts: its columns that are not fixed.
        states: the states of these columns [rows].
        positions: positions of all its columns, drawn in their states [rows]; changed where they are not fixed.
        fixed: columns whose positions stay.
        rng: randomness of the draws.
    """
    unit = dict(zip(rule.columns, rule.units, strict=True))
    good = np.isnan(rule.excess(positions))
    left = np.nonzero(~good)[0]
    free = [name for name in rule.columns if name not in fixed]
    if not free:
        return np.asarray(good | (rule.excess(positions) == 0))

    def follow(rows: IntArray, name: str, *, weighed: bool) -> BoolArray:
        """Set a column to what the others leave it; which rows that suits."""
        some = {each: positions[each][rows] for each in rule.columns}
        found = some[name] - rule.excess(some) / unit[name]
        whole = found == np.round(found)
        found = np.where(whole, found, parts[name].placing.codec.lattice.low)
        state = states[name][rows]
        fits = parts[name].kept(found, state, rng) if weighed else parts[name].placing.of(found) == state
        positions[name][rows] = found
        return np.asarray(whole & fits)

    total, others = rule.total, [name for name in free if name != rule.total]

    def drawn_again(rows: IntArray, names: Collection[str]) -> None:
        for name in names:
            own, state = parts[name], states[name][rows]
            region = own.placing.region
            if name != total or (region is not None and len(region.intervals) > 1):
                positions[name][rows] = own.states.pieces.draw(state, rng)
            else:  # its parts alone say where in its state it lies
                span = own.high[state] - own.low[state] + 1
                positions[name][rows] = own.low[state] + np.floor(rng.random(len(rows)) * span)

    if total in free:
        for _ in range(TRIES if others else 1):
            if not len(left):
                return good
            fits = follow(left, total, weighed=False)
            good[left[fits]] = True
            left = left[~fits]
            drawn_again(left, others)
    # The widest part of the finest unit follows.
    finest = min((abs(unit[name]) for name in others), default=0.0)
    fine = [name for name in others if abs(unit[name]) == finest]
    if not others:
        return good
    if fine and len(left):
        width = np.stack([(parts[name].high - parts[name].low)[states[name]] for name in fine])
        widest = width.argmax(axis=0)
        drawn_again(left, free)
        for i, name in enumerate(fine):
            own = left[widest[left] == i]
            for _ in range(TRIES if len(free) > 1 else 1):
                if not len(own):
                    break
                fits = follow(own, name, weighed=len(free) > 1)
                if total in free:
                    fits &= parts[total].placing.of(positions[total][own]) == states[total][own]
                good[own[fits]] = True
                own = own[~fits]
                drawn_again(own, [other for other in free if other != name])
        left = left[~good[left]]
    for _ in range(TRIES_ANYWHERE if len(free) > 1 else 1):
        if not len(left):
            return good
        good[left] = _anywhere(rule, parts, states, positions, free, left, rng)
        left = left[~good[left]]
    return good


def _anywhere(
    rule: Sum,
    parts: Mapping[str, Part],
    states: Mapping[str, IntArray],
    positions: dict[str, FloatArray],
    free: Collection[str],
    rows: IntArray,
    rng: np.random.Generator,
) -> BoolArray:
    """Positions anywhere in the states such that the columns add up; which rows have such."""
    unit = dict(zip(rule.columns, rule.units, strict=True))
    # Coarse columns first: what is left over has to be a multiple of the last one's unit.
    order = sorted(free, key=lambda name: -abs(unit[name]))
    need = -sum(
        (unit[name] * positions[name][rows] for name in rule.columns if name not in free), start=np.zeros(len(rows))
    )
    ends = {}
    for name in order:
        borders = np.stack([parts[name].low, parts[name].high])[:, states[name][rows]]
        ends[name] = np.sort(unit[name] * borders, axis=0)
    good = np.ones(len(rows), dtype=bool)
    for i, name in enumerate(order):
        later = sum((ends[other] for other in order[i + 1 :]), start=np.zeros((2, len(rows))))
        step = abs(unit[name])
        low = np.ceil(np.maximum(ends[name][0], need - later[1]) / step)
        high = np.floor(np.minimum(ends[name][1], need - later[0]) / step)
        good &= low <= high
        found = np.where(good, low + np.floor(rng.random(len(rows)) * (high - low + 1)), 0.0)
        found = np.minimum(found, np.where(good, high, 0.0))
        need = need - step * found
        position = np.sign(unit[name]) * found
        good &= parts[name].placing.of(position) == states[name][rows]
        positions[name][rows] = np.where(good, position, positions[name][rows])
    return np.asarray(good & (need == 0))
