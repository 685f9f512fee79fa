"""Sum tables: a sum as steps that each add one column, between states; and shares that a sum leaves as they are.

What a state holds is a few values with their shares: all of them where they are few, else quantiles. A sum of three
parts or more goes over hidden columns, its partial sums, whose states are cells of the line.

At a latent point the model knows its columns one by one. There the parts are taken as the model has them, their sum is
the total, and sums are then weighed so that total and parts have the shares that the model has of each, as far as that
can be (iterative proportional fitting, Deming and Stephan 1940, with damped steps). A plain condition, total and parts
drawn by themselves and kept where they add up, would instead favour points whose values are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from synth.tables.codec import Codec, OrderedCodec
from synth.tables.decode import ColumnDecoder
from synth.tables.pieces import FloatArray, IntArray, Pieces, joined, multiples
from synth.tables.rule_tree import Adds, tree_of
from synth.tables.spread import even_pieces, pieces_of
from synth.tables.sums import Sum

POINTS = 16
DRAWS = 512
ROUNDS = 12
STRENGTH = 0.2
"""Power of each correction: what parts and total say need not go together, and then full ones swing to and fro."""
HIDDEN_CELLS = 64
MOST_FACTOR = 100.0
"""A share is corrected by no more than this."""
LEAST = 1e-12
"""Share of sums that the points do not show but the ends of the states allow."""
EVEN_PART = 1e-6


@dataclass(frozen=True)
class Marks:
    """What the states of one column hold, in signed units; of a total, whose unit is one, in positions.

    Attributes:
        values: of each state, NaN for missing [states, n].
        weight: their shares within the state [states, n].
        low, high: ends of each state; NaN for missing [states].
    """

    values: FloatArray
    weight: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def missing(self) -> FloatArray:
        """1 for states of missing [states]."""
        return np.isnan(self.low).astype(np.float64)

    def plus(self, other: Marks) -> Marks:
        """These states, then others."""
        fields = zip(
            (self.values, self.weight, self.low, self.high),
            (other.values, other.weight, other.low, other.high),
            strict=True,
        )
        return Marks(*(np.concatenate(both) for both in fields))


def marks_of(pieces: Pieces, low: FloatArray, high: FloatArray, unit: float) -> Marks:
    """The marks of states, which are the bins of `pieces`; `low` and `high` are their first and last positions."""
    values, weight = np.zeros((len(low), POINTS)), np.zeros((len(low), POINTS))
    used = pieces.chosen(pieces.mass > 0)
    there = np.where(np.isnan(used.first), 1.0, used.last - used.first + 1)
    many = np.bincount(used.bin, weights=there, minlength=len(low)) > POINTS
    few = used.chosen(~many[used.bin])
    count = np.where(np.isnan(few.first), 1, few.last - few.first + 1).astype(np.int64)
    piece = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    rank = np.arange(len(piece)) - np.searchsorted(few.bin[piece], few.bin[piece])
    values[few.bin[piece], rank] = multiples(few.first[piece] + offset, few.step[piece])
    weight[few.bin[piece], rank] = (few.mass / count)[piece]
    wide = np.nonzero(many)[0]
    drawn = pieces.draw(np.repeat(wide, DRAWS), np.random.default_rng(0)).reshape(len(wide), DRAWS)
    at = ((np.arange(POINTS) + 0.5) * DRAWS / POINTS).astype(np.int64)
    values[wide], weight[wide] = np.sort(drawn, axis=1)[:, at], 1.0
    whole = weight.sum(axis=1, keepdims=True)
    ends = np.sort(np.stack([unit * low, unit * high]), axis=0)
    return Marks(unit * values, weight / np.where(whole > 0, whole, 1.0), ends[0], ends[1])


def even_marks(low: FloatArray, high: FloatArray, unit: float) -> Marks:
    """The marks of intervals of positions of which no more is known."""
    at = (np.arange(POINTS) + 0.5) / POINTS
    values = np.round(low[:, None] + (high - low)[:, None] * at)
    ends = np.sort(np.stack([unit * low, unit * high]), axis=0)
    return Marks(unit * values, np.full(values.shape, 1 / POINTS), ends[0], ends[1])


@dataclass(frozen=True)
class Summed:
    """A column of a sum, as its steps see it.

    Attributes:
        marks: of its states.
        share: mean share of each state; the last ones, parts that known cells are in, have none [states].
        cells: cells of the line that sums are counted in.
        cell: cell of each state, the one after all others for missing [states].
    """

    marks: Marks
    share: FloatArray
    cells: Cells
    cell: IntArray


@dataclass(frozen=True)
class Cells:
    """Cells of the line, by their last values; -1 is no cell, beyond the ends."""

    low: float
    ends: FloatArray

    def of(self, sums: FloatArray) -> IntArray:
        """The cell of each sum."""
        inside = (sums >= self.low) & (sums <= self.ends[-1])
        return np.where(inside, np.searchsorted(self.ends[:-1], sums, side="left"), -1)


def marked_units(rule: Sum) -> list[tuple[str, float]]:
    """Each column with the units that its marks are in: as fine a total's unit is as any, so it is one."""
    return [*zip(rule.columns[:-1], rule.units[:-1], strict=True), (rule.total, 1.0)]


def steps_of(rule: Sum, columns: Mapping[str, Summed]) -> tuple[list[Adds], dict[str, int]]:
    """The steps of a sum, and its hidden columns with how many states each has."""
    steps, hidden = [], {}
    *_, last, total = rule.columns
    name, partial = rule.columns[0], columns[rule.columns[0]]
    for other in rule.columns[1:-2]:
        cells = _partial_sums(partial, columns[other])
        found = f"{rule.text}: up to {other}"
        table = _table(partial.marks, columns[other].marks, cells)
        # A partial sum is missing where one of its columns is, and nowhere else.
        lost = np.maximum.outer(partial.marks.missing, columns[other].marks.missing)[:, :, None] > 0
        table = np.where(lost, cells.marks.missing, table * (1 - cells.marks.missing))
        steps.append(Adds((name, other, found), table, rule.columns))
        hidden[found] = len(cells.share)
        name, partial = found, cells
    goal = columns[total]
    table = _table(partial.marks, columns[last].marks, goal)
    free = np.maximum.outer(partial.marks.missing, columns[last].marks.missing)[:, :, None] + goal.marks.missing
    steps.append(Adds((name, last, total), np.where(free > 0, 1.0, table), rule.columns))
    return steps, hidden


def _table(one: Marks, two: Marks, goal: Summed) -> FloatArray:
    """Share of the sums of two states that lie in the cell of each state of a third, 0 where none can lie in it."""
    cells, size = goal.cells, len(goal.cells.ends)
    table = np.zeros((len(one.low), len(two.low), size + 1))
    rows = np.arange(len(two.low))[:, None, None]
    for i in np.nonzero(~np.isnan(one.low))[0]:
        sums = one.values[i, None, :, None] + two.values[:, None, :]
        at = cells.of(np.where(np.isnan(sums), np.inf, sums))
        weight = np.where(at >= 0, one.weight[i, None, :, None] * two.weight[:, None, :], 0.0)
        key = (rows * size + np.maximum(at, 0)).ravel()
        counted = np.bincount(key, weights=weight.ravel(), minlength=rows.size * size)
        table[i, :, :size] = counted.reshape(-1, size)
    low, high = np.add.outer(one.low, two.low), np.add.outer(one.high, two.high)
    possible = (low[:, :, None] <= goal.marks.high) & (high[:, :, None] >= goal.marks.low)  # never with missing
    return np.where(possible, np.maximum(table[:, :, goal.cell], LEAST), 0.0)


def _partial_sums(one: Summed, two: Summed) -> Summed:
    """The partial sums of two columns: single ones where they are few or frequent, else quantiles; missing last."""
    a, b = one.marks, two.marks
    sums = a.values[:, None, :, None] + b.values[None, :, None, :]
    weight = (one.share[:, None] * a.weight)[:, None, :, None] * (two.share[:, None] * b.weight)[None, :, None, :]
    known = ~np.isnan(sums) & (weight > 0)
    values, of = np.unique(sums[known], return_inverse=True)
    mass = np.bincount(of.ravel(), weights=weight[known], minlength=len(values))
    cell = np.arange(len(values))
    if len(values) > HIDDEN_CELLS:
        heavy = mass > mass.sum() / HIDDEN_CELLS * 2
        rest = np.cumsum(np.where(heavy, 0.0, mass))
        cell = np.minimum(rest / max(rest[-1], 1e-300) * HIDDEN_CELLS, HIDDEN_CELLS - 1).astype(np.int64)
        starts = np.concatenate([[True], np.diff(cell) > 0])
        starts |= heavy | np.concatenate([[False], heavy[:-1]])
        cell = np.cumsum(starts) - 1
    first = np.searchsorted(cell, np.arange(cell[-1] + 1)) if len(cell) else np.zeros(0, dtype=np.int64)
    last = np.append(first[1:], len(values)) - 1
    running = np.concatenate([[0.0], np.cumsum(mass)])
    span = running[last + 1] - running[first]
    at = running[first][:, None] + span[:, None] * (np.arange(POINTS) + 0.5) / POINTS
    found = np.clip(np.searchsorted(running[1:], at), first[:, None], last[:, None])
    low, high = np.nanmin(a.low) + np.nanmin(b.low), np.nanmax(a.high) + np.nanmax(b.high)
    ends = np.append(values[last][:-1], high)
    marks = Marks(values[found], np.full(found.shape, 1 / POINTS), np.append(low, ends[:-1] + 1), ends)
    none = np.full((1, POINTS), np.nan)
    marks = marks.plus(Marks(none, np.full((1, POINTS), 1 / POINTS), none[:, 0], none[:, 0]))
    return Summed(marks, np.append(span, LEAST), Cells(low, ends), np.arange(len(ends) + 1))


def total_pieces(codec: Codec, decoder: ColumnDecoder) -> Pieces:
    """The values of a total: what its parts add up to need not be as round as the values that were measured."""
    even = even_pieces(codec, decoder)
    return joined(even.bins, [pieces_of(codec, decoder), even.weighted(np.full(len(even.bin), EVEN_PART))])


def bin_ends(codec: OrderedCodec, decoder: ColumnDecoder) -> FloatArray:
    """Last position of each bin but the last."""
    lattice = codec.lattice
    border = np.nonzero(np.diff(decoder.bin_of_cell[: lattice.cells]))[0]
    return np.asarray(lattice.edges[border + 1] - 1)


def cells_of_bins(codec: OrderedCodec, decoder: ColumnDecoder) -> Cells:
    """The bins of a column as cells of the line."""
    return Cells(codec.lattice.low, np.append(bin_ends(codec, decoder), codec.lattice.high))


def kept_shares(
    rules: Sequence[Sum],
    codecs: Mapping[str, Codec],
    decoders: Mapping[str, ColumnDecoder],
    shares: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:
    """What to take for the shares of the summed columns, so that with the sums they stay near what the model has.

    Args:
        rules: the declared sums.
        codecs: codecs of the summed columns.
        decoders: decoders of the summed columns.
        shares: probability of each of their bins at each latent point [C·K, bins].

    Returns:
        Column → weight of each bin at each latent point [C·K, bins]. With the sums they are probabilities: a latent
        point's weights times the tables of all steps add up to 1.
    """
    if not rules:
        return {}
    names = list(dict.fromkeys(name for rule in rules for name in rule.columns))
    totals = list(dict.fromkeys(rule.total for rule in rules))
    factors: list[Adds] = []
    beliefs = {name: shares[name].copy() for name in names}
    for rule in rules:
        columns = {}
        for name, unit in marked_units(rule):
            codec = codecs[name]
            assert isinstance(codec, OrderedCodec)
            columns[name] = _binned(codec, decoders[name], unit, shares[name].mean(axis=0))
        steps, hidden = steps_of(rule, columns)
        # Nothing is made of what the points do not show: it would be made as often as the model has it by itself.
        factors += [replace(step, table=np.where(step.table > LEAST, step.table, 0.0)) for step in steps]
        beliefs |= {name: np.ones((len(shares[names[0]]), size)) for name, size in hidden.items()}
    every = list(beliefs)
    trees = {name: tree_of([name, *(other for other in every if other != name)], factors) for name in names}
    for total in totals:
        beliefs[total] = (shares[total] > 0).astype(np.float64)
    for _ in range(ROUNDS):
        for name in (*totals, *(name for name in names if name not in totals)):
            # At a root the messages of all rules have come together.
            found = trees[name].upward(beliefs)[name]
            found /= np.maximum(found.sum(axis=1, keepdims=True), 1e-300)
            ratio = np.divide(shares[name], found, out=np.ones_like(found), where=found > 0)
            base = 1.0 if name in totals else shares[name]
            beliefs[name] = np.clip(beliefs[name] * ratio**STRENGTH, base / MOST_FACTOR, base * MOST_FACTOR)
    whole = trees[names[0]].upward(beliefs)[names[0]].sum(axis=1, keepdims=True)
    beliefs[names[0]] /= np.where(whole > 0, whole, 1.0)
    return {name: beliefs[name] for name in names}


def _binned(codec: OrderedCodec, decoder: ColumnDecoder, unit: float, share: FloatArray) -> Summed:
    """A column whose states are its bins."""
    lattice, home = codec.lattice, decoder.bin_of_cell
    bins = int(home.max()) + 1
    low, high = np.full(bins, np.nan), np.full(bins, np.nan)
    ends = np.append(bin_ends(codec, decoder), lattice.high)
    held = home[: lattice.cells]
    inside = np.unique(held)
    low[inside], high[inside] = np.append(lattice.low, ends[:-1] + 1), ends
    marks = marks_of(pieces_of(codec, decoder), low, high, unit)
    return Summed(marks, share, cells_of_bins(codec, decoder), np.arange(bins))
