"""Choose the triples that are measured: those farthest from what is known of their pairs.

What pairs imply of three columns is the table of largest entropy with these pairs (no interaction of all three), found
by iterative proportional fitting (Deming & Stephan 1940; Darroch & Ratcliff 1972). A triple is worth measuring when its
counts are farther from it than chance and the noise of measuring them. Every choice is charged
(`synth.privacy.events.SelectionEvent`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from synth.privacy.events import SelectionEvent
from synth.privacy.noise import NoiseSource
from synth.tables.bins import project_to_simplex
from synth.tables.empirical_bayes import mixed
from synth.tables.measurements import FloatArray, IntArray, Measurements, Pair, Triple

TRIPLE_GROUPS = 8
"""Into so many groups the bins of a column are merged for tables of three columns."""
FITTING_STEPS = 20
"""Rounds of proportional fitting; pairs are known with noise, so closer would not be nearer."""
STRENGTHS = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
"""Standard deviations that a pair's cells may have around independence, as parts of what is expected there."""
AT_ONCE = 256
"""Triples that are fitted in one array."""


def implied_triples(
    measured: Measurements, groups: Mapping[str, IntArray], triples: Sequence[Triple]
) -> dict[Triple, FloatArray]:
    """Expected people in each cell of three columns, were there no dependence beyond their pairs.

    Args:
        measured: has class sizes, profiles and the noised pair tables. A pair that is not measured is taken to be
            independent within classes.
        groups: column → group of each bin.
        triples: triples of columns.

    Returns:
        triple → [groups of each], ≥ 0.
    """
    tables = grouped_pairs(measured, groups)
    most = max(int(lookup.max()) + 1 for lookup in groups.values())
    expected = {}
    for start in range(0, len(triples), AT_ONCE):
        some = triples[start : start + AT_ONCE]
        sides = np.zeros((3, len(some), most, most))
        for i, (a, b, c) in enumerate(some):
            for side, table in zip(sides[:, i], (tables[b, c], tables[a, c], tables[a, b]), strict=True):
                side[: table.shape[0], : table.shape[1]] = table
        fitted = without_interaction(sides[0], sides[1], sides[2])
        for triple, table in zip(some, fitted, strict=True):
            sizes = (int(groups[name].max()) + 1 for name in triple)
            expected[triple] = table[tuple(slice(size) for size in sizes)]
    return expected


def without_interaction(bc: FloatArray, ac: FloatArray, ab: FloatArray) -> FloatArray:
    """The table of largest entropy with these pairs, for several at once [n, A, B, C].

    Args:
        bc, ac, ab: the pairs, each summed over the column that its name lacks: [n, B, C], [n, A, C], [n, A, B]; ≥ 0.
    """
    table = np.ones((len(ab), ab.shape[1], ab.shape[2], bc.shape[2]))
    table *= (ab.sum(axis=(1, 2)) / table[0].size)[:, None, None, None]
    for _ in range(FITTING_STEPS):
        for axis, wanted in enumerate((bc, ac, ab), start=1):
            found = table.sum(axis=axis)
            factor = np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 0)
            table *= np.expand_dims(factor, axis)
    return table


def choose_triples(worth: FloatArray, event: SelectionEvent, noise: NoiseSource) -> list[int]:
    """Indices of the triples to measure, in ascending order, each chosen by the exponential mechanism.

    Args:
        worth: what each is worth, in rows; one privacy unit moves it by at most the event's sensitivity.
        event: how many are chosen, and with how much noise; charged by the caller.
        noise: makes the choices.
    """
    free = np.arange(len(worth))
    for _ in range(event.selections):
        free = np.delete(free, noise.choose(worth[free], event.noise_scale))
    return sorted(set(range(len(worth))) - set(free.tolist()))


def grouped_pairs(measured: Measurements, groups: Mapping[str, IntArray]) -> dict[Pair, FloatArray]:
    """What is known of each two columns, on groups: people ≥ 0 that sum to all, pair → [groups a, groups b].

    A measured table is drawn to independence within classes as far as its noise explains the difference: a cell differs
    from independence by a normal factor, whose strength is one of a few for each table (empirical Bayes).
    """
    independent, found, variances, likelihood = {}, {}, {}, {}
    for pair in itertools.combinations(groups, 2):
        one, two = (np.eye(int(groups[name].max()) + 1)[groups[name]] for name in pair)
        weighted = measured.profiles[pair[0]] * measured.class_sizes[:, None]
        independent[pair] = (weighted @ one).T @ (measured.profiles[pair[1]] @ two)
        if pair in measured.pairs:
            table, noise = measured.pairs[pair].best()
            found[pair] = one.T @ table @ two
            variances[pair] = noise**2 * np.outer(one.sum(axis=0), two.sum(axis=0))
            spread = _spread(independent[pair]) + variances[pair]
            off = (found[pair] - independent[pair]) ** 2
            likelihood[pair] = -0.5 * (np.log(spread) + off / spread).sum(axis=(1, 2))
    known = dict(independent)
    for pair, chance in zip(found, mixed(np.stack([*likelihood.values()])) if found else (), strict=True):
        spread = _spread(independent[pair])
        kept = np.tensordot(chance, spread / (spread + variances[pair]), axes=1)
        known[pair] = independent[pair] + kept * (found[pair] - independent[pair])
    return {p: project_to_simplex(t.ravel(), measured.total).reshape(t.shape) for p, t in known.items()}


def _spread(expected: FloatArray) -> FloatArray:
    """Variance of each cell around independence, for every strength [strengths, groups a, groups b]."""
    return np.asarray((STRENGTHS[:, None, None] * np.maximum(expected, 1.0)) ** 2)
