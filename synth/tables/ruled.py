"""Ruled: a model given its declared rules, which every drawn row meets, exactly as the model has such rows.

p(row | rules) is drawn in three steps: a latent point by its weight times the probability of the rules there, the
states of the ruled columns from the tree of rules, their values from the states. What the states leave undecided (two
values between the same cuts) is decided by the values: where those break a rule, all three steps are taken again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import UserError
from synth.tables.decode import values_at
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, IntArray, Pieces, Region
from synth.tables.posterior import Posterior, posterior_of
from synth.tables.rule_tree import Factor, Pair, RuleTree, Together, tree_of
from synth.tables.rules import Function, Never, Order, Rule, lies_in, line_of, met_by
from synth.tables.sample import draw_points
from synth.tables.states import States, partings_of, results_of, states_of
from synth.tables.sum_states import part_in, steps_between, summed_pieces
from synth.tables.sum_values import Part, add_up
from synth.tables.sums import Sum, summed

BoolArray = npt.NDArray[np.bool_]

NOWHERE: Mapping[str, FloatArray] = {}
MOST_TRIES = 1000
"""Draws for each row that is wanted, at most; where cuts are as fine as they can be one or two are enough."""


@dataclass(frozen=True)
class RuledColumns:
    """The columns that rules are about, given conditions.

    Attributes:
        rules: the declared rules.
        states: column → its states.
        shares: column → probability of each state at each class and latent point [C·K, states]; hidden columns, the
            partial sums, have 1 everywhere.
        factors: the rules as the tree takes them, those that determine values first, then sums.
        parts: the columns that are added up, or that others add up to.
    """

    rules: tuple[Rule, ...]
    states: dict[str, States]
    shares: dict[str, FloatArray]
    factors: tuple[Factor, ...]
    parts: dict[str, Part]

    @property
    def names(self) -> tuple[str, ...]:
        """The ruled columns."""
        return tuple(self.states)

    def tree(self, known: Collection[str] = (), root: str | None = None) -> RuleTree:
        """The tree of the rules, but those about known columns alone; the states of a known one are its intervals.

        `root` names a column that is to be the first root.
        """
        part = {name: slice(None) for name in self.shares}
        part |= {n: slice(s.size, None) if n in known else slice(s.size) for n, s in self.states.items()}
        open_ = [factor.within(part) for factor in self.factors if not set(factor.about) <= set(known)]
        hidden = [n for n in self.shares if n not in self.states and any(n in each.columns for each in open_)]
        return tree_of([*sorted(self.names, key=lambda name: name != root), *hidden], open_)

    def values_in(
        self, states: Mapping[str, IntArray], known: Mapping[str, FloatArray], rng: np.random.Generator
    ) -> tuple[dict[str, FloatArray], BoolArray]:
        """Positions in the states of all columns but those that are known, and which rows' sums add up.

        Args:
            states: column → state of each row, as the tree draws them.
            known: column → its positions where they are known.
            rng: randomness of the draws.
        """
        positions = {n: s.pieces.draw(states[n], rng) for n, s in self.states.items() if n not in known}
        positions |= known
        good = np.ones(len(next(iter(positions.values()))), dtype=bool)
        fixed = set(known)
        left = [rule for rule in self.rules if isinstance(rule, Sum) and not set(rule.columns) <= set(known)]
        while left:
            # First what follows from known values, then totals before the sums that they are parts of.
            totals = {each.total for each in left if each.total not in fixed}
            rule = min(
                left, key=lambda each: (len(set(each.columns) - fixed) > 1, len(totals & set(each.columns[:-1])))
            )
            good &= add_up(rule, self.parts, states, positions, fixed & set(rule.columns), rng)
            fixed |= set(rule.columns)
            left.remove(rule)
        return {name: found for name, found in positions.items() if name not in known}, good


@dataclass(frozen=True)
class RuledPosterior:
    """A model given conditions and its rules.

    Attributes:
        plain: the model given the conditions alone.
        columns: the ruled columns.
        weights: weight of each class and latent point [C·K], summing to 1.
        up: column → shares of its states times the probability of all rules beyond it [C·K, states].
    """

    plain: Posterior
    columns: RuledColumns
    tree: RuleTree
    weights: FloatArray
    up: dict[str, FloatArray]

    def draw(
        self, model: TableModel, rows: int, rng: np.random.Generator
    ) -> tuple[IntArray, dict[str, IntArray], dict[str, FloatArray]]:
        """Latent points of rows [rows], ascending, and the bins and positions of their ruled columns.

        Raises UserError when the rules leave next to nothing of what the states say can be.
        """
        parts: list[tuple[IntArray, dict[str, IntArray], dict[str, FloatArray]]] = []
        made = tried = 0
        while made < rows:
            if tried > MOST_TRIES * (rows + 100):
                raise UserError(
                    "rules: next to no row of the model meets them all (and --where); check what they ask for"
                )
            point = draw_points(rows - made, self.weights, rng)
            states = self.tree.draw(self.up, point, rng)
            positions, good = self.columns.values_in(states, {}, rng)
            good &= met_at(model, self.columns.rules, positions)
            tried += len(point)
            made += int(good.sum())
            parts.append(
                (
                    point[good],
                    {name: own.home[states[name][good]] for name, own in self.columns.states.items()},
                    {name: found[good] for name, found in positions.items()},
                )
            )
        point = np.concatenate([part[0] for part in parts] or [np.empty(0, dtype=np.int64)])
        order = np.argsort(point, kind="stable")
        bins = {n: np.concatenate([part[1][n] for part in parts])[order] for n in self.columns.names if parts}
        values = {n: np.concatenate([part[2][n] for part in parts])[order] for n in self.columns.names if parts}
        return point[order], bins, values


def ruled_posterior(model: TableModel, conditions: Mapping[str, Region]) -> RuledPosterior:
    """The model given conditions and its rules.

    Raises UserError when nothing is left of it.
    """
    ruled = {rule.result for rule in model.rules if isinstance(rule, Function)} | summed(model.rules)
    plain = posterior_of(model, {name: region for name, region in conditions.items() if name not in ruled})
    columns = ruled_columns(model, plain.pieces, conditions)
    tree = columns.tree()
    up = tree.upward(columns.shares)
    weights = plain.weights.ravel() * tree.probability(up)
    if not weights.sum() > 0:
        where = "--where: the declared rules leave no such rows" if conditions else "rules: they leave no row"
        raise UserError(f"{where} that the model makes")
    return RuledPosterior(plain, columns, tree, weights / weights.sum(), up)


def ruled_columns(
    model: TableModel,
    pieces: Mapping[str, Pieces],
    conditions: Mapping[str, Region],
    around: Mapping[str, FloatArray] = NOWHERE,
) -> RuledColumns:
    """The states of all ruled columns, cut from their pieces.

    Args:
        model: supplies rules, codecs and shares.
        pieces: values of each encoded column.
        conditions: what columns that others determine, and those of sums, are held to; pieces hold it for the others.
        around: points of the line of compared and summed columns to cut around in any case.
    """
    rules = tuple(sorted(model.rules, key=lambda rule: not isinstance(rule, Function)))
    names = list(dict.fromkeys(name for rule in rules for name in rule.columns))
    bins = {name: model.bin_shares(name) for name in names}
    own = {name: pieces[name] if name in pieces else class_pieces(model, name) for name in names}
    added, totals = summed(rules), {rule.total for rule in rules if isinstance(rule, Sum)}
    for name in added:
        own[name] = summed_pieces(model, name, conditions.get(name), total=name in totals)
    functions = {rule.result: rule for rule in rules if isinstance(rule, Function)}
    partings = partings_of(model, rules, own, {name: share.mean(axis=0) for name, share in bins.items()}, around)
    states, shares = {}, {}
    for name in names:
        codec, rule = model.codecs[name], functions.get(name)
        if rule is not None:
            states[name] = results_of(rule, codec, conditions.get(name), partings[name])
            shares[name] = np.ones((len(bins[name]), states[name].size))
            continue
        states[name] = states_of(own[name], partings[name])
        if name in added:
            shares[name] = model.kept_shares[name][:, states[name].home] * states[name].pieces.bin_mass
            continue
        found = bins[name][:, states[name].home] * states[name].pieces.bin_mass
        reach = found.sum(axis=1, keepdims=True)
        shares[name] = found / np.where(reach > 0, reach, 1.0)
    parts = {name: part_in(model, name, states[name], conditions.get(name)) for name in added}
    steps: list[Factor] = []
    for sum_ in [rule for rule in rules if isinstance(rule, Sum)]:
        found_steps, hidden = steps_between(model, sum_, parts, shares)
        steps += found_steps
        shares |= {name: np.ones((len(shares[sum_.total]), size)) for name, size in hidden.items()}
    others = _factors(model, [rule for rule in rules if not isinstance(rule, Sum)], states)
    determined = [set(rule.columns) for rule in functions.values()]
    lead = [factor for factor in others if set(factor.about) in determined]
    rest = [factor for factor in others if set(factor.about) not in determined]
    return RuledColumns(model.rules, states, shares, (*lead, *steps, *rest), parts)


def class_pieces(model: TableModel, name: str) -> Pieces:
    """The values of the target, where it is the class itself."""
    codec = model.codecs[name]
    cells = np.arange(codec.size, dtype=np.float64)
    if codec.missing is not None:
        cells[codec.missing] = np.nan
    ones = np.ones(codec.size)
    return Pieces(codec.size, np.arange(codec.size), ones, cells, cells, ones)


def met_at(model: TableModel, rules: Sequence[Rule], positions: Mapping[str, FloatArray]) -> BoolArray:
    """Which rows meet all rules, by the values at their positions."""
    values: dict[str, pa.Array] = {}

    def value(name: str) -> pa.Array:
        if name not in values:
            values[name] = values_at(model.codecs[name], positions[name])
        return values[name]

    return met_by(rules, model.codecs, value, len(next(iter(positions.values()))))


def _factors(
    model: TableModel, rules: Sequence[Order | Never | Function], states: Mapping[str, States]
) -> tuple[Factor, ...]:
    """Rules about the same two columns become one table."""
    factors: dict[frozenset[str], Factor] = {}
    for rule in rules:
        key = frozenset(rule.columns)
        if isinstance(rule, Never):
            inside = {n: lies_in(region, states[n].first).astype(np.float64) for n, region in rule.parts}
            if len(key) > 2:
                factors[frozenset([*key, rule.text])] = Together(rule.columns, inside)
                continue
            one, two = rule.columns
            table = 1.0 - np.outer(inside[one], inside[two])
        else:
            table = _possible(model, rule, states)
        known = factors.get(key)
        if isinstance(known, Pair):
            table = known.table * (table if known.columns == rule.columns else table.T)
            factors[key] = Pair(known.columns, table)
        else:
            one, two = rule.columns
            factors[key] = Pair((one, two), table)
    return tuple(factors.values())


def _possible(model: TableModel, rule: Order | Function, states: Mapping[str, States]) -> FloatArray:
    """Which pairs of states hold values that meet a rule; missing goes with everything."""
    one, two = (states[name] for name in rule.columns)
    if isinstance(rule, Function):
        expected = rule.of(one.first)
        same = (expected[:, None] >= two.first) & (expected[:, None] <= two.last)
        return np.asarray(same | (np.isnan(expected)[:, None] & np.isnan(two.first)), dtype=np.float64)
    least = line_of(model.codecs[rule.lower], one.first)[:, None]
    most = line_of(model.codecs[rule.upper], two.last)
    meets = least < most if rule.strict else least <= most
    return np.asarray(meets | np.isnan(least) | np.isnan(most), dtype=np.float64)
