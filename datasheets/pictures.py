"""Pictures of the quality page: where everything goes that the templates draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from datasheets.insight import BEYOND, SURE, apart_in_words, percent, shift_in_words, strongest_first
from datasheets.reading import number, plural
from synth.facts import AxisFacts, ContrastFacts, InsightFacts, MapFacts, PairFacts, ShiftFacts

MOST_COLUMNS = 40
"""Columns of the matrix, at most."""
MOST_SHIFTS = 20
MOST_PAIRS = 8
LEAST_MEMBERS = 0.01
"""A class of less than this share of a group is not told of."""
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Square:
    """All squares of one colour on the matrix, as one SVG path in a grid of squares of side 1."""

    colour: str
    path: str


@dataclass(frozen=True)
class Matrix:
    """Columns by columns: below the diagonal what was measured, above it how far the model is from that.

    `names` numbers the rows, and the columns alike.
    """

    names: tuple[str, ...]
    of: int  # columns of the table
    squares: tuple[Square, ...]
    summary: str


@dataclass(frozen=True)
class PairsView:
    """What the page shows of pairs."""

    matrix: Matrix
    strongest: tuple[PairFacts, ...]
    farthest: tuple[PairFacts, ...]
    best: PairFacts
    worst: PairFacts
    seen: int
    off: int


@dataclass(frozen=True)
class ShiftView:
    """A line of a contrast: ends of its bar and of its error bar on a scale of 100."""

    shift: ShiftFacts
    words: str
    within_noise: bool
    width: float
    low: float
    high: float


@dataclass(frozen=True)
class ContrastView:
    """What the page shows of a contrast."""

    facts: ContrastFacts
    groups: str
    shifts: tuple[ShiftView, ...]
    hidden: int
    within_noise: int


@dataclass(frozen=True)
class DotView:
    """A latent point on a square of side 200, y downwards."""

    x: float
    y: float
    kind: int


@dataclass(frozen=True)
class GroupView:
    """A group of latent points: its letter, where that stands, its share and in words what sets it apart."""

    letter: str
    x: float
    y: float
    share: str
    members: tuple[str, ...]
    apart: tuple[str, ...]


@dataclass(frozen=True)
class MapView:
    """What the page shows of the latent map."""

    facts: MapFacts
    dots: tuple[DotView, ...]
    groups: tuple[GroupView, ...]
    across: AxisFacts
    up: AxisFacts
    summary: str


def pairs_view(insight: InsightFacts, order: Sequence[str]) -> PairsView | None:
    """The pairs as they stand on the page, columns in the order of the schema; None where none is measured."""
    pairs = insight.pairs
    if not pairs:
        return None
    seen = [pair for pair in strongest_first(pairs) if pair.dependence_z >= BEYOND]
    off = sorted((p for p in pairs if p.residual_z >= BEYOND), key=lambda p: (-p.residual, p.columns))
    by_error = sorted(pairs, key=lambda p: (p.share_error, p.columns))
    return PairsView(
        matrix=_matrix(pairs, order, insight.unmeasured),
        strongest=tuple(seen[:MOST_PAIRS]),
        farthest=tuple(off[:MOST_PAIRS]),
        best=by_error[0],
        worst=by_error[-1],
        seen=len(seen),
        off=len(off),
    )


def contrast_view(contrast: ContrastFacts, units: Mapping[str, str]) -> ContrastView:
    """A contrast as it stands on the page."""
    shown = contrast.shifts[:MOST_SHIFTS]
    scale = max([1e-9, *(shift.distance + SURE * (shift.error or 0.0) for shift in shown)])
    lines = []
    for shift in shown:
        error = SURE * (shift.error or 0.0)
        lines.append(
            ShiftView(
                shift=shift,
                words=shift_in_words(shift, units.get(shift.column, ""), contrast.groups),
                within_noise=_within(shift),
                width=round(100 * shift.distance / scale, 2),
                low=round(100 * max(0.0, shift.distance - error) / scale, 2),
                high=round(100 * min(1.0, shift.distance + error) / scale, 2),
            )
        )
    groups = ", ".join(f"{name} ({percent(s)})" for name, s in zip(contrast.groups, contrast.shares, strict=True))
    return ContrastView(
        facts=contrast,
        groups=groups,
        shifts=tuple(lines),
        hidden=len(contrast.shifts) - len(shown),
        within_noise=sum(map(_within, contrast.shifts)),
    )


def map_view(found: MapFacts, units: Mapping[str, str]) -> MapView:
    """The latent map as it stands on the page."""
    dots = tuple(DotView(round(100 + 94 * x, 1), round(100 - 94 * y, 1), kind) for x, y, kind, _ in found.points)
    groups = []
    for g, group in enumerate(found.groups):
        middle = _middle([dot for dot, point in zip(dots, found.points, strict=True) if point[3] == g])
        members = [
            f"{name}: {percent(share)}"
            for name, share in zip(found.classes, group.members, strict=True)
            if share >= LEAST_MEMBERS
        ]
        groups.append(
            GroupView(
                letter=LETTERS[g],
                x=middle.x,
                y=middle.y,
                share=percent(group.share),
                members=tuple(members),
                apart=tuple(apart_in_words(shift, units.get(shift.column, "")) for shift in group.apart),
            )
        )
    across, up = found.axes
    summary = (
        f"{plural(len(dots), 'dot')}, coloured by {found.by}. From left to right: {' and '.join(across.low)},"
        f" to {' and '.join(across.high)}. From bottom to top: {' and '.join(up.low)}, to {' and '.join(up.high)}."
        " The groups are told below."
    )
    return MapView(found, dots, tuple(groups), across, up, summary)


def _middle(dots: Sequence[DotView]) -> DotView:
    """The dot with most of the others around it."""
    return min(dots, key=lambda dot: median(math.hypot(dot.x - other.x, dot.y - other.y) for other in dots))


def _within(shift: ShiftFacts) -> bool:
    return shift.z is not None and shift.z < BEYOND


def _matrix(pairs: Sequence[PairFacts], order: Sequence[str], unmeasured: int) -> Matrix:
    connected: dict[str, float] = {}
    for pair in pairs:
        for name in pair.columns:
            strength = pair.dependence if pair.dependence_z >= BEYOND else 1e-6
            connected[name] = connected.get(name, 0.0) + strength
    first = sorted(connected, key=lambda name: (-connected[name], name))[:MOST_COLUMNS]
    names = [name for name in order if name in first]
    number_of = {name: i for i, name in enumerate(names)}
    paths: dict[str, list[str]] = {}
    for pair in pairs:
        if all(name in number_of for name in pair.columns):
            low, high = sorted(number_of[name] for name in pair.columns)
            for colour, x, y in ((_seen(pair), low, high), (_off(pair), high, low)):
                paths.setdefault(colour, []).append(f"M{x} {y}h1v1h-1z")
    seen = sum(pair.dependence_z >= BEYOND for pair in pairs)
    off = sum(pair.residual_z >= BEYOND for pair in pairs)
    summary = (
        f"Matrix of {plural(len(names), 'column')}. Of {plural(len(pairs), 'measured pair')} {number(seen)} show a"
        f" dependence beyond the noise, and in {number(off)} the model is farther from the measurement than noise"
        f" explains. {plural(unmeasured, 'pair')} of columns were not measured."
    )
    squares = tuple(Square(colour, "".join(path)) for colour, path in sorted(paths.items()))
    return Matrix(tuple(names), len(connected), squares, summary)


def _seen(pair: PairFacts) -> str:
    """The colour of a measured dependence."""
    if pair.dependence_z < BEYOND:
        return "none"
    return "weak" if pair.dependence < 0.1 else "clear" if pair.dependence < 0.3 else "strong"


def _off(pair: PairFacts) -> str:
    """The colour of the distance of model and measurement."""
    if pair.residual_z < BEYOND:
        return "fits"
    return "near" if pair.residual < 1.5 else "off" if pair.residual < 3 else "far"
