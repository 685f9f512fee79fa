"""The sweep that removes sampling noise, for rows that rules hold in: no proposal that breaks one is taken.

What pairs of bins the ruled model expects is counted from many more draws than there are rows, and for columns without
rules computed given the points of those draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from synth.tables.model import TableModel
from synth.tables.pieces import BoolArray, FloatArray, IntArray, Pieces
from synth.tables.ruled import RuledPosterior, met_at
from synth.tables.rules import Function, Rule
from synth.tables.sample import bins_at, cumulatives, inverse, residual_of, sweep
from synth.tables.sums import summed

DRAWS_A_ROW = 16
MOST_NUMBERS = 1 << 28
"""Rows times states that are drawn for it, at most: a few seconds."""


@dataclass(frozen=True)
class Swept:
    """The columns that are swept within one class, and what is expected of them.

    Attributes:
        names: encoded columns but those that others determine.
        sizes: bins of each, summing to D.
        shares: each column's distribution at each latent point, of ruled ones given the rules [K, D].
        weights: weight of each latent point given the rules [K].
        joint: expected shares of bins of two ruled columns, by their places in `names`.
        distributions: cumulative distributions that proposals follow: the model's own.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    shares: FloatArray
    weights: FloatArray
    joint: dict[tuple[int, int], FloatArray]
    distributions: tuple[FloatArray, ...]


def swept_columns(model: TableModel, posterior: RuledPosterior, rows: int, rng: np.random.Generator) -> list[Swept]:
    """What is expected within each class, for batches of up to `rows` rows."""
    classes, points, _ = model.shares.shape
    states = sum(states.size for states in posterior.columns.states.values())
    draws = min(DRAWS_A_ROW * max(rows, 1000), max(MOST_NUMBERS // states, 2 * rows))
    point, ruled, _ = posterior.draw(model, draws, rng)
    results = {rule.result for rule in model.rules if isinstance(rule, Function)}
    names = tuple(name for name in model.encoding.names if name not in results)
    places = [model.encoding.place(name) for name in names]
    sizes = tuple(place.stop - place.start for place in places)
    swept = []
    for c in range(classes):
        own = slice(*np.searchsorted(point, [c * points, (c + 1) * points]))
        at = point[own] - c * points
        seen = np.bincount(at, minlength=points).astype(np.float64)
        blocks, joint = [model.shares[c][:, place].astype(np.float64) for place in places], {}
        distributions = tuple(
            next(cumulatives(block.astype(np.float32), (size,), {})) for block, size in zip(blocks, sizes, strict=True)
        )
        held = [j for j, name in enumerate(names) if name in ruled]
        for j in held:
            counts = np.bincount(at * sizes[j] + ruled[names[j]][own], minlength=points * sizes[j])
            blocks[j] = counts.reshape(points, sizes[j]) / np.maximum(seen, 1.0)[:, None]
            for i in held[: held.index(j)]:
                both = ruled[names[i]][own] * sizes[j] + ruled[names[j]][own]
                table = np.bincount(both, minlength=sizes[i] * sizes[j]).reshape(sizes[i], sizes[j])
                joint[i, j] = table / max(len(at), 1)
        shares = np.concatenate(blocks, axis=1) if blocks else np.empty((points, 0))
        swept.append(Swept(names, sizes, shares, seen / max(len(at), 1), joint, distributions))
    return swept


def swept_rows(
    model: TableModel,
    swept: Swept,
    pieces: Mapping[str, Pieces],
    point: IntArray,
    ruled_bins: Mapping[str, IntArray],
    positions: dict[str, FloatArray],
    rng: np.random.Generator,
) -> dict[str, IntArray]:
    """Bins of rows of one class, by column, after the sweep; positions of ruled columns are changed with them.

    Args:
        model: the model.
        swept: what is expected within the class.
        pieces: values of each encoded column.
        point: latent points of the rows within the class, ascending [rows].
        ruled_bins: bins of the ruled columns.
        positions: positions of the ruled columns.
        rng: randomness of the draws.
    """
    rows = len(point)
    bins = np.empty((rows, len(swept.names)), dtype=np.int64)
    place = np.cumsum([0, *swept.sizes])
    for j, name in enumerate(swept.names):
        if name in ruled_bins:
            bins[:, j] = ruled_bins[name]
        else:
            own = swept.shares[:, place[j] : place[j + 1]].astype(np.float32)
            bins[:, j] = bins_at(point, own, (swept.sizes[j],), rng)[:, 0]
    if rows > 1 and swept.names:
        residual = residual_of(bins, swept.shares.astype(np.float32), swept.weights, swept.sizes)
        for (i, j), share in swept.joint.items():
            one, two = slice(place[i], place[i + 1]), slice(place[j], place[j + 1])
            counts = np.bincount(bins[:, i] * swept.sizes[j] + bins[:, j], minlength=share.size)
            residual[one, two] = counts.reshape(share.shape) - rows * share
            residual[two, one] = residual[one, two].T
        proposals = _Proposals(model, swept, pieces, point, bins, positions, rng)
        sweep(bins, residual, swept.sizes, proposals.propose, rng, keep=proposals.keep)
    return {name: bins[:, j] for j, name in enumerate(swept.names)}


class _Proposals:
    """New bins for a column; where rules are about it, with new positions, and only those that meet them."""

    def __init__(
        self,
        model: TableModel,
        swept: Swept,
        pieces: Mapping[str, Pieces],
        point: IntArray,
        bins: IntArray,
        positions: dict[str, FloatArray],
        rng: np.random.Generator,
    ) -> None:
        self.model, self.swept, self.pieces, self.point, self.rng = model, swept, pieces, point, rng
        self.bins, self.positions = bins, positions
        self.old = bins[:, 0].copy()
        self.summed = summed(model.rules)
        self.changed: dict[str, FloatArray] = {}

    def propose(self, j: int) -> IntArray:
        """Proposed bins of a column [rows]."""
        name, self.old, self.changed = self.swept.names[j], self.bins[:, j].copy(), {}
        if name in self.summed:
            return self.old  # one column of a sum cannot change by itself
        proposed = inverse(self.swept.distributions[j], self.point, self.rng.random(len(self.point)))
        if name not in self.positions:
            return proposed
        self.changed = {name: self.pieces[name].draw(proposed, self.rng)}
        follow_functions(self.model.rules, self.changed)
        rules = [rule for rule in self.model.rules if set(rule.columns) & set(self.changed)]
        good = met_at(self.model, rules, {**self.positions, **self.changed})
        return np.where(good, proposed, self.old)

    def keep(self, j: int) -> None:
        """Take the positions of rows whose bins have changed."""
        moved: BoolArray = self.bins[:, j] != self.old
        for name, found in self.changed.items():
            self.positions[name] = np.where(moved, found, self.positions[name])


def follow_functions(rules: tuple[Rule, ...], changed: dict[str, FloatArray]) -> None:
    """Add what is determined by columns that have changed."""
    functions = [rule for rule in rules if isinstance(rule, Function)]
    for _ in functions:  # one may determine what another starts from
        for rule in functions:
            if rule.source in changed:
                changed[rule.result] = rule.of(changed[rule.source])
