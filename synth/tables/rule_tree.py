"""The tree of rules: sums over all values of ruled columns at every latent point, and draws of them.

Given a latent point the columns are independent but for the rules that join them. Where rules and columns form a tree,
messages from its leaves to its roots give the probability of all rules at each point, and draws from the roots to the
leaves follow it (belief propagation, Pearl 1988). A rule that closes a circle takes no part: who draws has to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from synth.tables.pieces import FloatArray, IntArray
from synth.tables.sample import inverse

BoolArray = npt.NDArray[np.bool_]
Beliefs = Mapping[str, FloatArray]

ROWS_AT_ONCE = 4096
NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Pair:
    """Which states of two columns can come together.

    Attributes:
        table: 1 where they can [states of the first column, states of the second].
    """

    columns: tuple[str, str]
    table: FloatArray

    @property
    def about(self) -> tuple[str, ...]:
        """The declared columns that it is about."""
        return self.columns

    def within(self, part: Mapping[str, slice]) -> Pair:
        """For a part of each column's states."""
        one, two = self.columns
        return Pair(self.columns, self.table[part[one], part[two]])

    def of(self, parent: str) -> FloatArray:
        """The table with the parent's states first."""
        return self.table if parent == self.columns[0] else self.table.T

    def message(self, parent: str, children: Sequence[str], up: Beliefs) -> FloatArray:
        """Probability of the rule at each point for each state of the parent [points, states]."""
        return np.asarray(up[children[0]] @ self.of(parent).T)

    def factors(self, parent: str, children: Sequence[str], up: Beliefs, draw: _Draw) -> None:
        """Draw the child's states given the parent's."""
        table = self.of(parent)
        draw(children[0], lambda rows, states: table[states[parent][rows]])


@dataclass(frozen=True)
class Together:
    """Columns of which one at least has to lie outside its part.

    Attributes:
        inside: 1 where a state lies in the column's part [states].
    """

    columns: tuple[str, ...]
    inside: Mapping[str, FloatArray]

    @property
    def about(self) -> tuple[str, ...]:
        """The declared columns that it is about."""
        return self.columns

    def within(self, part: Mapping[str, slice]) -> Together:
        """For a part of each column's states."""
        return Together(self.columns, {name: inside[part[name]] for name, inside in self.inside.items()})

    def outside_of_any(self, names: Sequence[str], up: Beliefs) -> FloatArray:
        """Share of one at least of the columns outside, at each point [points]."""
        logs: FloatArray = np.zeros(1)
        for name in names:
            total = up[name].sum(axis=-1)
            out = up[name] @ (1.0 - self.inside[name])
            with np.errstate(divide="ignore"):
                logs = logs + np.log1p(-np.minimum(out / np.where(total > 0, total, 1.0), 1.0))
        return np.asarray(-np.expm1(logs))

    def message(self, parent: str, children: Sequence[str], up: Beliefs) -> FloatArray:
        """Probability of the rule at each point for each state of the parent [points, states]."""
        total = np.prod([up[name].sum(axis=-1) for name in children], axis=0)
        some = total * self.outside_of_any(children, up)
        return np.asarray(np.where(self.inside[parent] > 0, some[:, None], total[:, None]))

    def factors(self, parent: str, children: Sequence[str], up: Beliefs, draw: _Draw) -> None:
        """Draw the children's states given the parent's, one after the other."""
        for i, name in enumerate(children):
            before = [parent, *children[:i]]
            # What those that come later can still do for the rule; nothing where they are none.
            later = self.outside_of_any(children[i + 1 :], up) if children[i + 1 :] else None
            draw(name, partial(self._factor, name=name, before=before, later=later))

    def _factor(
        self,
        rows: IntArray,
        states: Mapping[str, IntArray],
        *,
        name: str,
        before: Sequence[str],
        later: FloatArray | None,
    ) -> FloatArray:
        open_ = np.all([self.inside[b][states[b][rows]] > 0 for b in before], axis=0)
        left = np.zeros(len(rows)) if later is None else later[states[POINT][rows]]
        return np.where(open_[:, None] & (self.inside[name] > 0), left[:, None], 1.0)


@dataclass(frozen=True)
class Adds:
    """Two columns whose sum lies in a state of a third.

    Attributes:
        columns: the two, then the third.
        table: share of sums in each state of the third, given states of the others [first, second, third].
        about: the declared columns of the sum that it is a step of.
    """

    columns: tuple[str, str, str]
    table: FloatArray
    about: tuple[str, ...]

    def within(self, part: Mapping[str, slice]) -> Adds:
        """For a part of each column's states."""
        return Adds(self.columns, self.table[tuple(part[name] for name in self.columns)], self.about)

    def of(self, order: Sequence[str]) -> FloatArray:
        """The table with its columns in another order."""
        return np.ascontiguousarray(self.table.transpose([self.columns.index(name) for name in order]))

    def message(self, parent: str, children: Sequence[str], up: Beliefs) -> FloatArray:
        """Probability of the rule at each point for each state of the parent [points, states]."""
        table = self.of((parent, *children))
        flat, (one, two) = table.reshape(len(table), -1).T, (up[name] for name in children)
        step = max(1, NUMBERS_AT_ONCE // len(flat))
        parts = [
            (one[start : start + step, :, None] * two[start : start + step, None, :]).reshape(-1, len(flat)) @ flat
            for start in range(0, len(one), step)
        ]
        return np.concatenate(parts)

    def factors(self, parent: str, children: Sequence[str], up: Beliefs, draw: _Draw) -> None:
        """Draw the children's states given the parent's, one after the other."""
        (one, two), table = children, self.of((parent, *children))

        def first(rows: IntArray, states: Mapping[str, IntArray]) -> FloatArray:
            # What the second child can still do for the rule.
            return np.asarray((table[states[parent][rows]] @ up[two][states[POINT][rows]][:, :, None])[:, :, 0])

        draw(one, first)
        draw(two, lambda rows, states: table[states[parent][rows], states[one][rows]])


Factor = Pair | Together | Adds
POINT = ""
"""The latent point among the states of a row."""
_Draw = Callable[[str, Callable[[IntArray, Mapping[str, IntArray]], FloatArray]], None]


@dataclass(frozen=True)
class Branch:
    """A factor, the column it is reached from and those it leads to."""

    factor: Factor
    parent: str
    children: tuple[str, ...]


@dataclass(frozen=True)
class RuleTree:
    """Columns joined by factors; several roots where they fall apart.

    Attributes:
        roots: one column of each part.
        branches: from the roots on.
    """

    roots: tuple[str, ...]
    branches: tuple[Branch, ...]

    def upward(self, shares: Beliefs) -> dict[str, FloatArray]:
        """Each column's shares [points, states] times the probability of all rules beyond it."""
        up = dict(shares)
        for branch in reversed(self.branches):
            up[branch.parent] = up[branch.parent] * branch.factor.message(branch.parent, branch.children, up)
        return up

    def probability(self, up: Beliefs) -> FloatArray:
        """Probability of all rules at each point [points]."""
        return np.asarray(np.prod([up[root].sum(axis=-1) for root in self.roots], axis=0))

    def draw(self, up: Beliefs, point: IntArray, rng: np.random.Generator) -> dict[str, IntArray]:
        """States of each column for rows whose latent points are known and can meet the rules."""
        states: dict[str, IntArray] = {POINT: point}
        for root in self.roots:
            if len(point) < len(up[root]):
                states[root] = chosen(up[root][point], rng)
                continue
            running = np.cumsum(up[root], axis=1)
            cumulative = running / np.where(running[:, -1:] > 0, running[:, -1:], 1.0)
            states[root] = inverse(cumulative, point, rng.random(len(point)))

        def draw(name: str, factor: Callable[[IntArray, Mapping[str, IntArray]], FloatArray]) -> None:
            found = np.empty(len(point), dtype=np.int64)
            for start in range(0, len(point), ROWS_AT_ONCE):
                rows = np.arange(start, min(start + ROWS_AT_ONCE, len(point)))
                found[rows] = chosen(up[name][point[rows]] * factor(rows, states), rng)
            states[name] = found

        for branch in self.branches:
            branch.factor.factors(branch.parent, branch.children, up, draw)
        return {name: found for name, found in states.items() if name != POINT}


def chosen(weights: FloatArray, rng: np.random.Generator) -> IntArray:
    """One index of each row by weight [rows, n]; one with weight."""
    running = np.cumsum(weights, axis=1)
    at = rng.random(len(weights)) * (1 - 1e-12) * running[:, -1]
    return np.asarray((running <= at[:, None]).sum(axis=1).clip(max=weights.shape[1] - 1))


def tree_of(columns: Sequence[str], factors: Sequence[Factor]) -> RuleTree:
    """The tree of the factors, in their order of preference; those that would close a circle are left out."""
    part = {name: {name} for name in columns}
    joining: list[Factor] = []
    for factor in factors:
        parts = {id(part[name]): part[name] for name in factor.columns}
        if len(parts) == len(factor.columns):
            whole = set().union(*parts.values())
            part |= dict.fromkeys(whole, whole)
            joining.append(factor)
    roots, branches, reached = [], [], set[str]()
    for name in columns:
        if name in reached:
            continue
        roots.append(name)
        ahead = [name]
        while ahead:
            parent = ahead.pop(0)
            reached.add(parent)
            for factor in [each for each in joining if parent in each.columns]:
                children = tuple(each for each in factor.columns if each not in reached and each not in ahead)
                if children:
                    branches.append(Branch(factor, parent, children))
                    ahead += children
    return RuleTree(tuple(roots), tuple(branches))
