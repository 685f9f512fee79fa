"""The latent map: latent points of the model side by side when they make similar rows.

Each dot stands for the same number of people, and lies where the first two principal components of its distributions
put it: the square roots of its shares, whose Euclidean distance is that of Hellinger. Groups are Ward's (1963).
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from synth.facts import AxisFacts, GroupFacts, MapFacts
from synth.insight.contrast import groups_of
from synth.insight.meaning import MISSING, Meaning, class_names, meaning_of, rounded
from synth.insight.shifts import clearest_first, shift_of
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, IntArray

DOTS = 400
LEAST_DOTS = 3
"""Of the smallest class."""
GROUPS = 6
DIRECTIONS = 10
"""Principal components that groups are made in."""
TOLD = 3
"""Columns that an axis or a group is told by."""
LEAST_SPREAD = 0.05
"""A map whose dots differ by less, in squared Hellinger distance along the first axis, shows nothing."""
LEAST_PART = 0.2
"""Two directions that hold less than this part of all differences show next to nothing of them."""
MOST_CLASSES = 5


def map_of(model: TableModel) -> MapFacts | None:
    """The map, or None where the model's latent points hardly differ, or in too many ways to be shown in two."""
    class_of_dot, shares, weight = _dots(model)
    roots = np.sqrt(shares)
    centred = (roots - weight @ roots) * np.sqrt(weight)[:, None]
    left, scale, loadings = np.linalg.svd(centred, full_matrices=False)
    if len(scale) < 2 or scale[0] ** 2 < LEAST_SPREAD or len(shares) <= GROUPS:
        return None
    part = scale**2 / float((scale**2).sum())
    if part[:2].sum() < LEAST_PART:
        return None
    left, loadings = _turned(left, loadings)
    place = (left * scale)[:, :DIRECTIONS] / np.sqrt(weight)[:, None]
    group = _groups(place)
    by, classes, of_dot = _classes(model, class_of_dot, shares, weight)
    meanings = {name: meaning_of(model, name) for name in model.encoding.names}
    axes = [_axis(model, meanings, float(part[i]), loadings[i], place[:, i], shares, weight) for i in (0, 1)]
    groups = [_group(model, meanings, shares, weight, group == g, of_dot, len(classes)) for g in range(group.max() + 1)]
    reach = float(np.abs(place[:, :2]).max())
    return MapFacts(
        by=by,
        classes=classes,
        axes=(axes[0], axes[1]),
        points=tuple(
            (round(float(x / reach), 3), round(float(y / reach), 3), int(c), int(g))
            for (x, y), c, g in zip(place[:, :2], of_dot, group, strict=True)
        ),
        groups=tuple(groups),
    )


def _dots(model: TableModel) -> tuple[IntArray, FloatArray, FloatArray]:
    """Class, distributions [dots, D] and weight of some latent points, evenly from all members; weights sum to 1."""
    points = model.shares.shape[1]
    classes_of, rows, weights = [], [], []
    for c in np.nonzero(model.class_share > 0)[0]:
        count = min(points, max(LEAST_DOTS, round(DOTS * float(model.class_share[c]))))
        chosen = np.linspace(0, points - 1, count).round().astype(np.int64)
        classes_of.append(np.full(count, c))
        rows.append(model.shares[c, chosen].astype(np.float64))
        weights.append(np.full(count, float(model.class_share[c]) / count))
    weight = np.concatenate(weights)
    return np.concatenate(classes_of), np.concatenate(rows), weight / weight.sum()


def _turned(left: FloatArray, loadings: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A direction and its opposite say the same: the largest loading is made positive."""
    at = np.abs(loadings).argmax(axis=1)
    sign = np.where(loadings[np.arange(len(loadings)), at] < 0, -1.0, 1.0)
    return left * sign, loadings * sign[:, None]


def _groups(place: FloatArray) -> IntArray:
    """Group of each dot, the largest first."""
    found = fcluster(linkage(place, method="ward"), GROUPS, criterion="maxclust")
    sizes = np.bincount(found)
    order = [g for g in np.argsort(-sizes, kind="stable") if sizes[g]]
    return np.asarray([order.index(g) for g in found], dtype=np.int64)


def _classes(
    model: TableModel, class_of_dot: IntArray, shares: FloatArray, weight: FloatArray
) -> tuple[str, tuple[str, ...], IntArray]:
    """By what the dots are coloured: the target, or the column in which they differ most."""
    if model.target is not None and len(model.class_share) > 1:
        names, by, of_dot = class_names(model), model.target, class_of_dot
        share = model.class_share
    else:
        by = max(model.encoding.names, key=lambda name: (_spread(shares[:, model.encoding.place(name)], weight), name))
        block = shares[:, model.encoding.place(by)]
        groups = groups_of(model, by, weight @ block)
        mass = np.array([block[:, members].sum(axis=1) for members in groups.members]).T
        names, of_dot = groups.names, mass.argmax(axis=1)
        share = weight @ mass
    if len(names) <= MOST_CLASSES:
        return by, names, of_dot
    kept = np.sort(np.argsort(-share, kind="stable")[: MOST_CLASSES - 1])
    lookup = np.full(len(names), MOST_CLASSES - 1)
    lookup[kept] = np.arange(len(kept))
    return by, (*(names[c] for c in kept), "any other"), lookup[of_dot]


def _spread(block: FloatArray, weight: FloatArray) -> float:
    roots = np.sqrt(block)
    return float(weight @ ((roots - weight @ roots) ** 2).sum(axis=1))


def _axis(
    model: TableModel,
    meanings: dict[str, Meaning],
    part: float,
    loading: FloatArray,
    place: FloatArray,
    shares: FloatArray,
    weight: FloatArray,
) -> AxisFacts:
    """What lies at the ends of an axis, by the columns that make the most of it."""
    share_of = {name: float((loading[model.encoding.place(name)] ** 2).sum()) for name in model.encoding.names}
    low, high = [], []
    for name in sorted(share_of, key=lambda name: (-share_of[name], name))[:TOLD]:
        where = model.encoding.place(name)
        ends = _ends(meanings[name], loading[where], place, shares[:, where], weight)
        low.append(f"{name} {ends[0]}")
        high.append(f"{name} {ends[1]}")
    return AxisFacts(part=rounded(part), low=tuple(low), high=tuple(high))


def _ends(
    meaning: Meaning, loading: FloatArray, place: FloatArray, block: FloatArray, weight: FloatArray
) -> tuple[str, str]:
    """A column at the low and the high end of an axis."""
    missing = meaning.missing
    if not meaning.ordered:
        return f"= {meaning.level(int(loading.argmin()))}", f"= {meaning.level(int(loading.argmax()))}"
    if missing is not None and 2 * loading[missing] ** 2 >= (loading**2).sum():
        return ("known", MISSING) if loading[missing] > 0 else (MISSING, "known")
    there = ~np.isnan(meaning.centre)
    known = block[:, there]
    means = known @ meaning.centre[there] / np.maximum(known.sum(axis=1), 1e-12)
    rises = float(weight @ (place * (means - weight @ means))) >= 0
    return ("low", "high") if rises else ("high", "low")


def _group(
    model: TableModel,
    meanings: dict[str, Meaning],
    shares: FloatArray,
    weight: FloatArray,
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]],
    of_dot: IntArray,
    classes: int,
) -> GroupFacts:
    own = weight * inside / float(weight[inside].sum())
    every, here = weight @ shares, own @ shares
    shifts = [
        shift_of(meanings[name], name, every[model.encoding.place(name)], here[model.encoding.place(name)])
        for name in model.encoding.names
    ]
    return GroupFacts(
        share=rounded(float(weight[inside].sum())),
        members=tuple(rounded(float(x)) for x in np.bincount(of_dot, weights=own, minlength=classes)),
        apart=clearest_first(shifts)[:TOLD],
    )
