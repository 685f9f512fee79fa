"""Choose the pairs that are measured, where there are too many columns to measure all.

A pair is worth measuring when its table is far from what independence within classes says, farther than the noise of
measuring it. As in MST (McKenna, Miklau, Sheldon 2021, section 5) the first choices join all columns to one tree, so
that none is left alone; the others are free. Every choice is charged (`synth.privacy.events.SelectionEvent`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from synth.privacy.budget import precision_of
from synth.privacy.events import SelectionEvent
from synth.privacy.noise import NoiseSource
from synth.tables.measurements import FloatArray, IntArray, Measurements, Pair

MAX_GROUPS = 12
"""Into so many groups the bins of a column are merged for the scores, so that many pairs can be counted at once."""
SCORE_UNIT = 16
"""Expected counts are rounded to sixteenths of a row: a row moves a score by at most one, to the last bit."""
FIT_KEEPS = 0.4
"""Part of a table's noise that survives the fit: the generator averages it over all tables."""


def groups_of(mass: FloatArray, in_order: int, most: int = MAX_GROUPS) -> IntArray:
    """Group of each bin [bins]: about equal masses of neighbours where bins stand in order, else the largest alone.

    Args:
        mass: estimated people in each bin.
        in_order: how many of the bins, the first ones, stand in order; each of the others has a group of its own or,
            when there are many, shares the last one with the lightest.
        most: groups of either kind, at most.
    """
    ordered, others = mass[:in_order], mass[in_order:]
    before = np.cumsum(ordered) - ordered / 2
    groups = np.floor(most * before / max(float(ordered.sum()), 1e-300)).clip(0, most - 1)
    groups = np.unique(groups, return_inverse=True)[1]
    rank = np.argsort(np.argsort(-others, kind="stable"), kind="stable")
    first = int(groups.max()) + 1 if in_order else 0
    return np.concatenate([groups, first + np.minimum(rank, most - 1)]).astype(np.int64)


def scores_of(
    measured: Measurements, groups: Mapping[str, IntArray], exact: Mapping[Pair, IntArray]
) -> tuple[FloatArray, FloatArray]:
    """How far the pairs are from independence within classes, in rows, and how far sampling alone would bring them.

    Args:
        measured: has class sizes and profiles.
        groups: column → group of each bin.
        exact: pair → exact counts of the groups [groups a, groups b]. A row adds one to one cell.

    Returns:
        The L1 distances [pairs], private; adding or removing one row moves each by at most one. And what to expect of
        them if the columns were independent [pairs], which follows from what is noised already.
    """
    profiles = {name: _grouped(measured.profiles[name], lookup) for name, lookup in groups.items()}
    found, by_chance = np.empty(len(exact)), np.empty(len(exact))
    for i, ((a, b), counts) in enumerate(exact.items()):
        found[i], by_chance[i] = distance_from((profiles[a] * measured.class_sizes[:, None]).T @ profiles[b], counts)
    return found, by_chance


def distance_from(expected: FloatArray, counts: IntArray) -> tuple[float, float]:
    """How far exact counts are from expected ones (L1, rows), and how far sampling alone would bring them.

    The first is private: adding or removing one row moves it by at most one. The second follows from `expected`.
    """
    distance = np.abs(SCORE_UNIT * counts - np.round(SCORE_UNIT * expected).astype(np.int64)).sum()
    return float(distance) / SCORE_UNIT, float(np.minimum(np.sqrt(2 * expected / math.pi), 2 * expected).sum())


def noise_left(cells: FloatArray, selections: int, mu: float) -> FloatArray:
    """The L1 error (rows) that measuring leaves in a pair table of so many cells [pairs], were its weight average.

    Args:
        cells: cells of each pair's table.
        selections: how many pairs are measured.
        mu: Gaussian-DP parameter of all their tables, for one row.
    """
    weight = np.array([precision_of(size) for size in cells])
    scale = np.sqrt(selections * np.median(weight) / weight) / mu
    return np.asarray(FIT_KEEPS * math.sqrt(2 / math.pi) * cells * scale)


def choose_pairs(
    pairs: Sequence[Pair], worth: FloatArray, event: SelectionEvent, noise: NoiseSource, *, tied: Sequence[Pair] = ()
) -> list[int]:
    """Indices of the pairs to measure, in ascending order, each chosen by the exponential mechanism.

    Pairs that are known to go together need no choice: of what the event pays for, up to half is left unused for them.

    Args:
        pairs: the candidates.
        worth: what each is worth, in rows; one privacy unit moves it by at most the event's sensitivity.
        event: how many are chosen, and with how much noise; charged by the caller.
        noise: makes the choices.
        tied: candidates that are taken first, by what is public.
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair))}
    ends = np.array([(number[a], number[b]) for a, b in pairs])
    tree = np.arange(len(number))  # the tree that each column is in
    free = np.ones(len(pairs), dtype=bool)
    given = [pairs.index(pair) for pair in tied][: event.selections // 2]
    for i in range(event.selections):
        if i < len(given):
            chosen = given[i]
        else:
            joins = free & (tree[ends[:, 0]] != tree[ends[:, 1]])
            candidates = np.nonzero(joins if joins.any() else free)[0]
            chosen = int(candidates[noise.choose(worth[candidates], event.noise_scale)])
        free[chosen] = False
        one, other = tree[ends[chosen]]
        tree[tree == other] = one
    return np.nonzero(~free)[0].tolist()


def _grouped(profile: FloatArray, lookup: IntArray) -> FloatArray:
    """A profile by class [classes, bins], as groups [classes, groups]."""
    member: npt.NDArray[np.bool_] = lookup[:, None] == np.arange(int(lookup.max()) + 1)
    return np.asarray(profile @ member)
