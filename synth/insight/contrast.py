"""Contrast: how the columns change from one class of the target to another, or between groups of another column."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth.facts import ContrastFacts, PairFacts, ShiftFacts
from synth.insight.meaning import Meaning, class_names, meaning_of, rounded
from synth.insight.pairs import class_shares, pair_shares
from synth.insight.shifts import SEEN, Noised, clearest_first, seen, shift_of
from synth.tables.measurements import Measurements
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, IntArray

LEAST_GROUP = 3.0
"""A group counts when it is so many times the noise of its size."""
MOST_GROUPS = 6


@dataclass(frozen=True)
class Groups:
    """Groups of rows by the bins of one column.

    Attributes:
        by: the column.
        names: what each group is.
        members: bins of each group.
    """

    by: str
    names: tuple[str, ...]
    members: tuple[IntArray, ...]


def contrast_of(measured: Measurements, model: TableModel, pairs: Sequence[PairFacts]) -> ContrastFacts | None:
    """By class of the target; without one, by the column that others depend on most. None where nothing can be told."""
    if model.target is not None and len(model.class_share) > 1:
        return _by_class(measured, model, model.target)
    by = _most_connected(pairs)
    return None if by is None else _by_column(measured, model, by)


def groups_of(model: TableModel, name: str, mass: FloatArray) -> Groups:
    """The largest levels of a column, or the lower and upper half of its known values; `mass` is that of its bins."""
    meaning = meaning_of(model, name)
    if meaning.ordered:
        known = np.nonzero(~np.isnan(meaning.centre))[0]
        below = np.cumsum(mass[known]) - mass[known] / 2
        upper = below > mass[known].sum() / 2
        cut = min(max(1, int(np.argmax(upper)) if upper.any() else 1), max(1, len(known) - 1))
        halves = [part for part in (known[:cut], known[cut:]) if len(part)]
        names = tuple(meaning.between(int(part[0]), int(part[-1])) for part in halves)
        return Groups(name, names, tuple(halves))
    largest = np.sort(np.argsort(-mass, kind="stable")[:MOST_GROUPS])
    return Groups(name, tuple(meaning.level(int(b)) for b in largest), tuple(largest[:, None]))


def _by_class(measured: Measurements, model: TableModel, target: str) -> ContrastFacts | None:
    sizes = measured.class_sizes
    kept = np.nonzero(sizes > LEAST_GROUP * measured.class_size_noise)[0]
    kept = np.sort(kept[np.argsort(-sizes[kept], kind="stable")][:MOST_GROUPS])
    if len(kept) < 2:
        return None
    shifts = []
    for name in model.encoding.names:
        if name != target:
            noised = measured.one_way[name][kept] / sizes[kept][:, None]
            noise = measured.one_way_noise[name] / sizes[kept]
            people = sizes[kept] / model.schema.max_rows_per_person
            shifts.append(
                _clearest(meaning_of(model, name), name, class_shares(model, name)[kept], noised, noise, people)
            )
    names = class_names(model)
    return ContrastFacts(
        by=target,
        groups=tuple(names[c] for c in kept),
        shares=tuple(rounded(float(model.class_share[c])) for c in kept),
        shifts=clearest_first(shifts),
    )


def _by_column(measured: Measurements, model: TableModel, by: str) -> ContrastFacts | None:
    mass = class_shares(model, by).T @ model.class_share
    groups = groups_of(model, by, mass)
    if len(groups.names) < 2 or min(float(mass[members].sum()) for members in groups.members) <= 0:
        return None
    shifts = []
    for name in model.encoding.names:
        if name == by:
            continue
        table = pair_shares(model, by, name)
        rows = np.array([table[members].sum(axis=0) for members in groups.members])
        people = rows.sum(axis=1) * measured.total
        noised, noise = _noised(measured, by, name, groups, people)
        shares = rows / rows.sum(axis=1, keepdims=True)
        people = people / model.schema.max_rows_per_person
        shifts.append(_clearest(meaning_of(model, name), name, shares, noised, noise, people))
    return ContrastFacts(
        by=by,
        groups=groups.names,
        shares=tuple(rounded(float(mass[members].sum())) for members in groups.members),
        shifts=clearest_first(shifts),
    )


def _noised(
    measured: Measurements, by: str, name: str, groups: Groups, people: FloatArray
) -> tuple[FloatArray | None, FloatArray]:
    """A column's shares within groups as the noised pair table has them [groups, bins], and their noise [groups]."""
    turned = (name, by) in measured.pairs
    table = measured.pairs.get((name, by) if turned else (by, name))
    if table is None:
        return None, people
    counts, noise = table.best()
    rows = np.array([(counts.T if turned else counts)[members].sum(axis=0) for members in groups.members])
    return rows / people[:, None], noise * np.sqrt([len(members) for members in groups.members]) / people


def _clearest(
    meaning: Meaning,
    name: str,
    shares: FloatArray,
    noised: FloatArray | None,
    noise: FloatArray,
    people: FloatArray,
) -> ShiftFacts:
    """The two groups between which a column changes most clearly.

    Args:
        meaning: what the column's bins stand for.
        name: the column.
        shares: the model's shares of its bins within each group [groups, bins].
        noised: the same as one noised table has them; None where there is none.
        noise: standard deviation of these [groups].
        people: independent observations in each group [groups].
    """
    two = len(shares) == 2
    found = []
    for i, j in itertools.combinations(range(len(shares)), 2):
        known = None
        if noised is not None:
            of_two = [(float(values[i]), float(values[j])) for values in (noise, people)]
            known = Noised(noised[i], noised[j], *of_two)
        found.append(shift_of(meaning, name, shares[i], shares[j], known, None if two else (i, j)))
    # What the table shows goes before what only the model says.
    return max(found, key=lambda shift: (1, shift.distance) if seen(shift) else (0, shift.z or shift.distance))


def _most_connected(pairs: Sequence[PairFacts]) -> str | None:
    """The column with the most dependence that noise does not explain."""
    total: dict[str, float] = {}
    for pair in pairs:
        if pair.dependence_z > SEEN:
            for name in pair.columns:
                total[name] = total.get(name, 0.0) + pair.dependence
    return max(total, key=lambda name: (total[name], name)) if total else None
