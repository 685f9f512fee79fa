"""States: a ruled column's values, cut where its rules begin and end to hold.

A state lies in one bin, so the model gives its probability at every latent point, and within one interval between cuts.
Cuts fall on the borders of what rules name, which they decide exactly, and, for columns that are compared, on points of
their common line: a pair of values is left undecided only where both lie between the same two. Levels are grouped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.tables.codec import Codec, LevelCodec, OrderedCodec
from synth.tables.conditions import domain_end, domain_start, next_position
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, IntArray, Pieces, Region, joined, multiples
from synth.tables.rules import Function, Never, Order, Rule, last_at, lies_in, line_of
from synth.tables.sum_tables import bin_ends
from synth.tables.sums import Sum

BoolArray = npt.NDArray[np.bool_]

MOST_CUTS = 192
MOST_NUMBERS = 1 << 23
"""Numbers of one column's shares at all latent points: where there are many points, there are fewer cuts."""
PARTS_OF_A_PIECE = 32


@dataclass(frozen=True)
class Parting:
    """A column's domain in intervals or, for a column of levels, in groups of levels that rules do not tell apart.

    Attributes:
        group: group of each level; None for intervals.
        first, last: positions that the values of each part lie between, ascending; of a group, one of its levels.
    """

    group: IntArray | None
    first: FloatArray
    last: FloatArray

    def of(self, positions: FloatArray) -> IntArray:
        """The part of each position, none of them missing."""
        if self.group is not None:
            return np.asarray(self.group[positions.astype(np.int64)])
        return np.asarray(np.searchsorted(self.last[:-1], positions, side="left"))

    def split(self, pieces: Pieces) -> tuple[Pieces, IntArray]:
        """The pieces cut into parts, in no order, and the part of each; missing is the part after all others."""
        missing, after = np.isnan(pieces.first), len(self.first)
        if self.group is not None:
            level = np.where(missing, 0, pieces.first).astype(np.int64)
            return pieces, np.where(missing, after, self.group[level])
        ends = zip(self.first, self.last, strict=True)
        parts = [pieces.within(Region(np.array([each]), False)) for each in ends]
        parts.append(pieces.chosen(missing))
        fields = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("bin", "mass", "first", "last", "step")
        )
        return Pieces(pieces.bins, *fields), np.repeat(np.arange(after + 1), [len(part.bin) for part in parts])


@dataclass(frozen=True)
class States:
    """The S states of a column, then one for each part of its domain whatever the bin: a known cell is in one of those.

    Attributes:
        pieces: the values; its bins are the S states.
        home: bin of each state [S].
        parting: the parts of the domain.
        first, last: positions that a state's values lie between, NaN for missing [S + parts].
    """

    pieces: Pieces
    home: IntArray
    parting: Parting
    first: FloatArray
    last: FloatArray

    @property
    def size(self) -> int:
        """Number of states, without the parts."""
        return len(self.home)


def states_of(pieces: Pieces, parting: Parting) -> States:
    """The states of a column's pieces."""
    split, part = parting.split(pieces)
    width, some = len(parting.first) + 1, split.mass > 0
    kept = split.chosen(some)
    found, state = np.unique((split.bin * width + part)[some], return_inverse=True)
    of = joined(len(found), [Pieces(len(found), state, kept.mass, kept.first, kept.last, kept.step)])
    ends = [np.where(of.step > 0, multiples(at, of.step), at) for at in (of.first, of.last)]
    first, last = np.full(len(found), np.inf), np.full(len(found), -np.inf)
    with np.errstate(invalid="ignore"):  # missing stays so
        np.minimum.at(first, of.bin, ends[0])
        np.maximum.at(last, of.bin, ends[1])
    return States(of, found // width, parting, np.append(first, parting.first), np.append(last, parting.last))


def results_of(rule: Function, codec: Codec, region: Region | None, parting: Parting) -> States:
    """The states of a column that another determines: its values each, with nothing of the model's own shares."""
    values = np.unique(rule.position)
    whole = isinstance(codec, LevelCodec) or codec.lattice.whole
    step = np.full(len(values), float(whole))
    if codec.missing is not None:
        values, step = np.append(values, np.nan), np.append(step, 1.0)
    pieces = Pieces(len(values), np.arange(len(values)), np.ones(len(values)), values, values, step)
    if region is not None:
        pieces = pieces.within(region)
    home = pieces.bin
    pieces = Pieces(len(home), np.arange(len(home)), pieces.mass, pieces.first, pieces.last, pieces.step)
    own = values[home]
    return States(pieces, home, parting, np.append(own, parting.first), np.append(own, parting.last))


def partings_of(
    model: TableModel,
    rules: Sequence[Rule],
    pieces: Mapping[str, Pieces],
    share: Mapping[str, FloatArray],
    around: Mapping[str, FloatArray],
) -> dict[str, Parting]:
    """How the domain of each ruled column falls into parts.

    Args:
        model: for the codecs, and the number of its latent points.
        rules: what is declared.
        pieces: values of each ruled column.
        share: mean share of the bins of each ruled column.
        around: points of the line to cut on both sides of, beside those chosen here; by the column that has them.
    """
    cuts = _cuts(model, rules, pieces, share, around)
    return {
        name: _groups(codec, rules) if isinstance(codec := model.codecs[name], LevelCodec) else _intervals(codec, own)
        for name, own in cuts.items()
    }


def _intervals(codec: Codec, cuts: FloatArray) -> Parting:
    start, end = domain_start(codec), domain_end(codec)
    inside = np.unique(cuts[(cuts >= start) & (cuts < end)])
    return Parting(None, np.append(start, next_position(codec, inside, 1)), np.append(inside, end))


def _groups(codec: LevelCodec, rules: Sequence[Rule]) -> Parting:
    """Levels that lie in the same parts of all rules, determine the same and are determined alike."""
    name, levels = codec.column.name, np.arange(len(codec.levels), dtype=np.float64)
    marks: list[npt.NDArray[Any]] = [np.zeros(len(levels))]
    for rule in rules:
        if isinstance(rule, Never):
            marks += [lies_in(region, levels) for part, region in rule.parts if part == name]
        elif isinstance(rule, Function) and rule.source == name:
            marks.append(rule.position)
        elif isinstance(rule, Function) and rule.result == name:
            marks.append(np.where(np.isin(levels, rule.position), levels, -1.0))
    _, one, group = np.unique(np.stack(marks, axis=1), axis=0, return_index=True, return_inverse=True)
    return Parting(group.ravel(), levels[one], levels[one])


def _cuts(
    model: TableModel,
    rules: Sequence[Rule],
    pieces: Mapping[str, Pieces],
    share: Mapping[str, FloatArray],
    around: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:
    """Where ordered columns are cut; nothing for columns of levels."""
    cuts: dict[str, list[FloatArray]] = {name: [np.empty(0)] for rule in rules for name in rule.columns}
    for rule in rules:
        if isinstance(rule, Never):
            for name, region in rule.parts:
                ends = region.intervals
                cuts[name] += [next_position(model.codecs[name], ends[:, 0], -1), ends[:, 1]]
        if isinstance(rule, Function):
            known = np.unique(rule.position)
            cuts[rule.result] += [known, next_position(model.codecs[rule.result], known, -1)]
        if isinstance(rule, Sum):
            for name in rule.columns:
                codec = model.codecs[name]
                assert isinstance(codec, OrderedCodec)
                own = around.get(name, np.empty(0))
                cuts[name] += [bin_ends(codec, model.decoders[name])]
                cuts[name] += [last_at(codec, own), last_at(codec, np.nextafter(own, -np.inf))]
    points = model.shares.shape[0] * model.shares.shape[1]
    most = int(np.clip(MOST_NUMBERS // points, 16, MOST_CUTS))
    for group in compared_groups(rules):
        line = _line_cuts({name: (model.codecs[name], pieces[name], share[name]) for name in group}, most)
        known = np.concatenate([np.empty(0), *(around[name] for name in group if name in around)])
        line = np.concatenate([line, known, np.nextafter(known, -np.inf)])
        for name in group:
            cuts[name].append(last_at(model.codecs[name], line))
    return {name: np.unique(np.concatenate(parts)) for name, parts in cuts.items()}


def compared_groups(rules: Sequence[Rule]) -> list[set[str]]:
    """Columns that are compared with each other, directly or over others."""
    groups: list[set[str]] = []
    for rule in rules:
        if isinstance(rule, Order):
            touched = [group for group in groups if group & set(rule.columns)]
            groups = [group for group in groups if group not in touched]
            groups.append(set(rule.columns).union(*touched))
    return groups


def _line_cuts(columns: Mapping[str, tuple[Codec, Pieces, FloatArray]], most: int) -> FloatArray:
    """At most about `most` points of the common line: every value where they are few, else heavy ones and quantiles."""
    at, mass = [], []
    for codec, pieces, share in columns.values():
        there = pieces.chosen(~np.isnan(pieces.first))
        count = np.minimum(np.where(there.step > 0, there.last - there.first + 1, PARTS_OF_A_PIECE), PARTS_OF_A_PIECE)
        piece = np.repeat(np.arange(len(there.bin)), count.astype(np.int64))
        part = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count.astype(np.int64))
        first, last, step = there.first[piece], there.last[piece], there.step[piece]
        number = first + part * (last - first) / np.maximum(count[piece] - 1, 1)
        grid = step > 0
        positions = np.where(grid, multiples(np.round(number), np.where(grid, step, 1.0)), number)
        at.append(line_of(codec, positions))
        mass.append((share[there.bin] * there.mass)[piece] / count[piece])
    points, of = np.unique(np.concatenate(at), return_inverse=True)
    if len(points) <= most:
        return points
    summed = np.bincount(of, weights=np.concatenate(mass))
    weight = np.asarray(summed / summed.sum(), dtype=np.float64)
    heavy = points[weight > 4 / most]
    rest = np.cumsum(np.where(weight > 4 / most, 0.0, weight))
    quantiles = points[np.searchsorted(rest, np.linspace(0, rest[-1], most // 2 + 1)[1:-1])]
    return np.unique(np.concatenate([quantiles, heavy, np.nextafter(heavy, -np.inf)]))
