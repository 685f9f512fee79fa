"""Shifts: how a column is distributed in one group of rows and in another, and how far noise alone would move that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from synth.facts import ShiftFacts
from synth.insight.meaning import Meaning, rounded
from synth.tables.pieces import FloatArray

ALONE = 0.75
"""A single value, or missing, is told of and not the mean where at least this part of the distance is in its share."""

SEEN = 3.0
"""What is so many standard deviations beyond chance counts as seen."""
EQUAL = 1e-6
"""Shares of a model are of single precision."""


@dataclass(frozen=True)
class Noised:
    """The shares of a column's bins in two groups, as the noised table of the column and the groups has them.

    The model has learned from other tables too, so what noise leaves open of its shares is less, as a rule.

    Attributes:
        one: of the one group [bins]; other: of the other. They need not lie in [0, 1].
        noise: standard deviation of a share in either group.
        people: independent observations in either group.
    """

    one: FloatArray
    other: FloatArray
    noise: tuple[float, float]
    people: tuple[float, float]

    @property
    def z(self) -> float:
        """How clearly the two differ, in standard deviations beyond what noise and sampling alone would show."""
        sizes = np.array(self.people)
        share = np.clip((sizes[0] * self.one + sizes[1] * self.other) / sizes.sum(), 0.0, 1.0)
        variance = self.noise[0] ** 2 + self.noise[1] ** 2 + share * (1 - share) * float((1 / sizes).sum())
        return beyond_chance(float(((self.one - self.other) ** 2).sum()), variance.sum(), (variance**2).sum())


def shift_of(
    meaning: Meaning,
    name: str,
    one: FloatArray,
    other: FloatArray,
    noised: Noised | None = None,
    groups: tuple[int, int] | None = None,
) -> ShiftFacts:
    """What changes of a column from one group to another.

    Args:
        meaning: what its bins stand for.
        name: the column's name.
        one: shares of its bins in the one group [bins].
        other: the same in the other.
        noised: what the noised table of the column and the groups has by itself.
        groups: which two of several groups these are.
    """
    distance = 0.5 * float(np.abs(one - other).sum())
    noise = (0.0, 0.0) if noised is None else noised.noise
    both = math.hypot(*noise)
    values: tuple[float | str, float | str]
    told = _told(meaning, one, other)
    if told is None:
        (mean, s), (after, t) = (_mean(meaning, x, n) for x, n in zip((one, other), noise, strict=True))
        values, value_error = (meaning.value(mean), meaning.value(after)), math.hypot(s, t) * meaning.unit
    else:
        values, value_error = (rounded(float(one[told])), rounded(float(other[told]))), both
    return ShiftFacts(
        column=name,
        groups=groups,
        distance=rounded(distance),
        # With the signs of the differences held, a distance is a sum of noised shares.
        error=None if noised is None else rounded(0.5 * math.sqrt(len(one)) * both),
        z=None if noised is None else rounded(noised.z),
        what="mean" if told is None else "share",
        level="" if told is None else meaning.level(told),
        values=values,
        value_error=None if noised is None else rounded(value_error),
    )


def beyond_chance(found: float, expected: float, squares: float) -> float:
    """How far a sum of squared normal errors is beyond its expectation, in standard deviations.

    Args:
        found: the sum.
        expected: its expectation: the trace of the errors' covariance.
        squares: the trace of the square of that covariance.

    The sum is taken for a multiple of a chi-square (Satterthwaite 1946), whose cube root is about normal (Wilson and
    Hilferty 1931).
    """
    if expected <= 0:
        return 0.0
    spread = 2.0 * squares / (9.0 * expected**2)
    return (math.cbrt(found / expected) - (1.0 - spread)) / math.sqrt(spread)


def seen(shift: ShiftFacts) -> bool:
    """Whether a noised table shows the shift, beyond noise and the sampling of people."""
    return shift.z is not None and shift.z >= SEEN


def clearest_first(shifts: list[ShiftFacts]) -> tuple[ShiftFacts, ...]:
    """Shifts that are seen by how far they go, then the others."""
    return tuple(sorted(shifts, key=lambda shift: (not seen(shift), -shift.distance, shift.column)))


def _told(meaning: Meaning, one: FloatArray, other: FloatArray) -> int | None:
    """The bin whose share tells of a shift best; None where the mean does."""
    moved = np.abs(one - other)
    # Of two levels that move alike the later one is told: `true` of a truth value.
    most = int(np.nonzero(moved >= moved.max() - EQUAL)[0][-1])
    there = ~np.isnan(meaning.centre)
    if not meaning.ordered or min(float(one[there].sum()), float(other[there].sum())) <= 0:
        return most
    alone = most == meaning.missing or bool(meaning.single[most])
    return most if alone and moved[most] >= ALONE * 0.5 * float(moved.sum()) > 0 else None


def _mean(meaning: Meaning, shares: FloatArray, noise: float) -> tuple[float, float]:
    """Mean position of the known values, and its standard deviation by the noise of the shares."""
    there = ~np.isnan(meaning.centre)
    known, centre = float(shares[there].sum()), meaning.centre[there]
    mean = float(shares[there] @ centre) / known
    return mean, noise * math.sqrt(float(((centre - mean) ** 2).sum())) / known
