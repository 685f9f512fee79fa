"""Completion under rules: empty cells of ruled columns, given the cells that are there and the rules.

A known cell is a state of its column, so the same messages give the probability of the rules at each latent point. Rows
whose known cells stand alike are drawn together. A rule between known cells alone is none that a filling could mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.tables.codec import OrderedCodec
from synth.tables.conditions import whole_domain
from synth.tables.decode import values_at
from synth.tables.likelihood import Evidence, evidence_row, log_joint, rows_at_once
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, IntArray, Pieces
from synth.tables.rule_tree import RuleTree, chosen
from synth.tables.ruled import RuledColumns, ruled_columns
from synth.tables.rules import Function, Order, line_of, met_by
from synth.tables.sums import Sum, summed

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Filled:
    """What was filled in.

    Attributes:
        rows: which rows could be filled by the rules [rows].
        point: their latent points [rows].
        positions: ruled column → positions of its empty cells [rows].
    """

    rows: BoolArray
    point: IntArray
    positions: dict[str, FloatArray]


@dataclass(frozen=True)
class _Asked:
    """Arguments of `RuledFiller.fill`."""

    rows: Mapping[str, IntArray]
    null: Mapping[str, BoolArray]
    values: Mapping[str, pa.Array]
    rng: np.random.Generator


FIRST_ROUNDS = 20
MOST_ROUNDS = 200
"""Draws of a row at most, before it is said that no filling meets the rules."""
ROWS_CUT_TOGETHER = 64
ROWS_SUMMED_TOGETHER = 16


class RuledFiller:
    """Draws latent points, and the empty cells of ruled columns; holds what is the same for all rows."""

    def __init__(self, model: TableModel, evidence: Evidence, pieces: Mapping[str, Pieces]) -> None:
        self.model, self.pieces = model, pieces
        results = {rule.result for rule in model.rules if isinstance(rule, Function)}
        # What determines a column says all about it: the model's own shares of it are no evidence.
        columns = {n: v for n, v in evidence.columns.items() if n not in results}
        self.evidence = Evidence(evidence.prior, columns | evidence_of_sums(model))
        self.there = {name: whole_domain(model.codecs[name], missing=False) for name in results | summed(model.rules)}
        self.columns = ruled_columns(model, pieces, self.there)

    def fill(
        self,
        rows: Mapping[str, IntArray],
        null: Mapping[str, BoolArray],
        values: Mapping[str, pa.Array],
        rng: np.random.Generator,
    ) -> Filled:
        """Latent points and empty ruled cells of all rows with such cells.

        Args:
            rows: column → row of its evidence for each row.
            null: column → which cells are empty.
            values: column → its cells in the output type, for columns that are there.
            rng: randomness of the draws.
        """
        length, names = len(next(iter(null.values()))), self.columns.names
        wanted = np.any([null[name] for name in names], axis=0)
        null, values, rows, wrong = self._with_what_follows(null, values, rows)
        asked = _Asked({n: index for n, index in rows.items() if n in self.evidence.columns}, null, values, rng)
        filled = Filled(
            np.zeros(length, dtype=bool),
            np.zeros(length, dtype=np.int64),
            {name: np.full(length, np.nan) for name in names},
        )
        for name in summed(self.model.rules) & set(values):
            filled.positions[name] = self.model.codecs[name].positions(values[name])[0]
        left = self._fill(self.columns, np.nonzero(wanted & ~wrong)[0], asked, filled, FIRST_ROUNDS)
        # Known cells where the cuts are wide: rare, and worth cuts of their own.
        together = ROWS_SUMMED_TOGETHER if summed(self.model.rules) else ROWS_CUT_TOGETHER
        for start in range(0, len(left), together):
            some = left[start : start + together]
            around = {}
            for name in {n for rule in self.model.rules if isinstance(rule, (Order, Sum)) for n in rule.columns}:
                at = some[~null[name][some]]
                if len(at):
                    codec = self.model.codecs[name]
                    around[name] = np.unique(line_of(codec, codec.positions(values[name].take(pa.array(at)))[0]))
            finer = ruled_columns(self.model, self.pieces, self.there, around)
            self._fill(finer, some, asked, filled, MOST_ROUNDS)
        return filled

    def _with_what_follows(
        self, null: Mapping[str, BoolArray], values: Mapping[str, pa.Array], rows: Mapping[str, IntArray]
    ) -> tuple[dict[str, BoolArray], dict[str, pa.Array], dict[str, IntArray], BoolArray]:
        """Empty cells that known ones leave a single value for, by sums, made known; and rows that this breaks."""
        model, sums = self.model, [rule for rule in self.model.rules if isinstance(rule, Sum)]
        before, null, values, rows = null, dict(null), dict(values), dict(rows)
        length = len(next(iter(null.values())))
        wrong = np.zeros(length, dtype=bool)
        at = {n: np.full(length, np.nan) for n in summed(sums)}
        at |= {n: model.codecs[n].positions(values[n])[0] for n in at if n in values}
        for rule in [each for _ in sums for each in sums]:  # one may follow from another
            lost = np.isnan([at[name] for name in rule.columns])
            for i, (name, unit) in enumerate(zip(rule.columns, rule.units, strict=True)):
                here = lost[i] & (lost.sum(axis=0) == 1) & ~wrong
                rest = {other: np.where(here & (other == name), 0.0, at[other]) for other in rule.columns}
                found, codec = -rule.excess(rest) / unit, model.codecs[name]
                assert isinstance(codec, OrderedCodec)
                inside = (found == np.round(found)) & (found >= codec.lattice.low) & (found <= codec.lattice.high)
                wrong |= here & ~inside
                here &= inside
                if here.any():
                    at[name] = np.where(here, found, at[name])
                    cell = codec.lattice.cell_of(np.where(here, found, codec.lattice.low))
                    rows[name] = np.where(here, evidence_row(model, name, cell), rows[name])
                    null[name] = null[name] & ~here
                    values[name] = values_at(codec, at[name])
        for each in model.rules:
            if all(name in values for name in each.columns):
                now, then = (np.any([of[name] for name in each.columns], axis=0) for of in (null, before))
                wrong |= then & ~now & ~each.holds(model.codecs, values)
        return null, values, rows, wrong

    def _fill(self, columns: RuledColumns, wanted: IntArray, asked: _Asked, filled: Filled, rounds: int) -> IntArray:
        """Fill rows, those whose known cells stand alike together; returns those that took too many draws."""
        key = np.full((len(wanted), len(columns.names)), -1, dtype=np.int64)
        for i, name in enumerate(columns.names):
            known = ~asked.null[name][wanted]
            if known.any():
                held = asked.values[name].take(pa.array(wanted[known]))
                parting = columns.states[name].parting
                key[known, i] = parting.of(self.model.codecs[name].positions(held)[0])
        alike, group = np.unique(key, axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        ends = np.searchsorted(group.ravel()[order], np.arange(len(alike) + 1))
        left = [wanted[:0]]
        for i, at in enumerate(alike):
            given = {name: int(state) for name, state in zip(columns.names, at, strict=True) if state >= 0}
            some = wanted[order[ends[i] : ends[i + 1]]]
            left.append(self._fill_alike(columns, some, given, asked, filled, rounds))
        return np.concatenate(left)

    def _fill_alike(
        self,
        columns: RuledColumns,
        left: IntArray,
        given: Mapping[str, int],
        asked: _Asked,
        filled: Filled,
        rounds: int,
    ) -> IntArray:
        """Fill rows with the same columns known, in the same states of theirs; returns those not done."""
        tree = columns.tree(given)
        up = self._upward(columns, tree, given)
        with np.errstate(divide="ignore"):
            ruled = np.log(tree.probability(up))
        open_ = [rule for rule in columns.rules if not set(rule.columns) <= set(given)]
        for _ in range(rounds):
            point, possible = self._points(left, ruled, asked)
            left, point = left[possible], point[possible]
            if not len(left):
                break
            states, held = tree.draw(up, point, asked.rng), pa.array(left)
            known = {n: self.model.codecs[n].positions(asked.values[n].take(held))[0] for n in given}
            positions, sums = columns.values_in(states, known, asked.rng)
            own = {n: values_at(self.model.codecs[n], p) for n, p in positions.items()}
            own |= {n: asked.values[n].take(held) for n in given}
            good = sums & met_by(open_, self.model.codecs, own.__getitem__, len(left))
            done = left[good]
            filled.rows[done], filled.point[done] = True, point[good]
            for name, found in positions.items():
                filled.positions[name][done] = found[good]
            left = left[~good]
        return left

    def _points(self, some: IntArray, ruled: FloatArray, asked: _Asked) -> tuple[IntArray, BoolArray]:
        """A latent point of each row, and for which rows there is one at all."""
        point, possible = np.zeros(len(some), dtype=np.int64), np.zeros(len(some), dtype=bool)
        step = rows_at_once(self.evidence)
        for start in range(0, len(some), step):
            part = slice(start, start + step)
            logs = np.zeros((len(some[part]), 1)) + self.evidence.prior + ruled
            if asked.rows:
                logs = log_joint(self.evidence, {n: index[some[part]] for n, index in asked.rows.items()}) + ruled
            best = logs.max(axis=1, keepdims=True)
            possible[part] = np.isfinite(best[:, 0])
            point[part] = chosen(np.exp(logs - np.where(np.isfinite(best), best, 0.0)), asked.rng)
        return point, possible

    def _upward(self, columns: RuledColumns, tree: RuleTree, given: Mapping[str, int]) -> dict[str, FloatArray]:
        shares = dict(columns.shares)
        for name, state in given.items():
            alone = np.zeros(len(columns.states[name].parting.first))
            alone[state] = 1.0
            shares[name] = np.broadcast_to(alone, (len(self.evidence.prior), len(alone)))
        return tree.upward(shares)


def evidence_of_sums(model: TableModel) -> dict[str, FloatArray]:
    """What a cell of a summed column says, as `Evidence` has it; that there is one is left to the tree of rules."""
    with np.errstate(divide="ignore"):
        return {n: np.log(np.pad(s.T, ((0, 1), (0, 0)), constant_values=1.0)) for n, s in model.kept_shares.items()}


def broken_by_given(model: TableModel, null: Mapping[str, BoolArray], values: Mapping[str, pa.Array]) -> BoolArray:
    """Which rows break a rule by cells that are there, whatever is filled in."""
    broken = np.zeros(len(next(iter(null.values()))), dtype=bool)
    for rule in model.rules:
        if all(name in values for name in rule.columns):
            there = ~np.any([null[name] for name in rule.columns], axis=0)
            broken |= there & ~rule.holds(model.codecs, values)
    return broken
