"""Membership inference: can someone who holds a person's row and the synthetic rows tell whether it was learned?

Two attacks, on training people and on held-out people. *Closest record*: a row is called a member when a synthetic row
is near. *Density ratio* (DOMIAS, van Breugel, Sun, Qian and van der Schaar 2023, arXiv 2302.12580): when the
synthetic rows are nearer than rows of a reference table of other people, so that a row is not called a member for
being common; densities are estimated by the nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from synth.evaluate.internal.intervals import ALARM_P_VALUE, Estimate, area_under_curve, wilson
from synth.evaluate.internal.nearest import Space
from synth.evaluate.internal.rows import fingerprints
from synth.tables.codec import Codec

FloatArray = npt.NDArray[np.float64]
Distances = npt.NDArray[np.floating[Any]]

FALSE_ALARMS = 0.01
FEWEST_ROWS = 20
CURVE_POINTS = 41


@dataclass(frozen=True)
class MembershipAttack:
    """One attack.

    Attributes:
        area: area under its ROC curve; 0.5 is guessing.
        caught: share of members found at a false alarm rate of FALSE_ALARMS.
        curve: share of members found at false alarm rates on an even grid from 0 to 1.
        alarm: whether chance hardly explains an area so far above one half; broken: above the promised area.
    """

    name: str
    area: Estimate
    caught: Estimate
    curve: tuple[float, ...]
    alarm: bool
    broken: bool


@dataclass(frozen=True)
class Membership:
    """The attacks, and what the privacy statement leaves possible.

    Attributes:
        members, others: training and held-out people that were attacked; reference: rows of other people.
        promised_area: area that no attack on one person's row can exceed, from the stated mu; None when unknown.
        promised_curve: the same as a curve.
    """

    members: int
    others: int
    reference: int
    attacks: tuple[MembershipAttack, ...]
    promised_area: float | None
    promised_curve: tuple[float, ...] | None


def membership(
    training: FloatArray,
    held_out: FloatArray,
    synthetic: FloatArray,
    codecs: Mapping[str, Codec],
    *,
    most: int,
    mu: float | None,
) -> Membership | None:
    """Attack at most `most` people of either group; half of the held-out rows serve as reference. None if too few."""
    other, reference = np.array_split(held_out, 2)
    people = min(most, len(training), len(other))
    if people < FEWEST_ROWS:
        return None
    # A reference row that equals an attacked one says nothing of how common it is otherwise, and would favour whoever
    # happens to have a twin there.
    attacked = fingerprints(np.concatenate([training[:people], other[:people]]))
    reference = reference[~np.isin(fingerprints(reference), attacked)]
    if len(reference) < FEWEST_ROWS:
        return None
    space = Space.of(synthetic, codecs)
    rows = min(len(reference), len(synthetic))
    near = {}
    for name, table in (("synthetic", synthetic[:rows]), ("reference", reference[:rows])):
        points = space.points(table)
        near[name] = [space.nearest(space.points(g[:people]), points)[0][:, 0] for g in (training, other)]
    return attacks_by_distance(near["synthetic"], near["reference"], reference_size=rows, mu=mu)


def attacks_by_distance(
    synthetic: Sequence[Distances], reference: Sequence[Distances], *, reference_size: int, mu: float | None
) -> Membership:
    """Both attacks, from how far members and others are from the nearest synthetic and the nearest reference record.

    Args:
        synthetic: distances of members, and of others; reference: the same to records of the reference table.
        reference_size: records of the reference table.
        mu: what the privacy statement promises; None when unknown.
    """
    closest = [-distance for distance in synthetic]
    ratio = [np.log(far + 1e-3) - np.log(near + 1e-3) for near, far in zip(synthetic, reference, strict=True)]
    promised = None if mu is None else float(norm.cdf(mu / np.sqrt(2)))
    return Membership(
        members=len(synthetic[0]),
        others=len(synthetic[1]),
        reference=reference_size,
        attacks=(
            _attack("density ratio", *ratio, promised=promised),
            _attack("closest record", *closest, promised=promised),
        ),
        promised_area=promised,
        promised_curve=None if mu is None else promised_curve(mu),
    )


def promised_curve(mu: float) -> tuple[float, ...]:
    """The most that any attack can find at each false alarm rate, by mu-Gaussian privacy (Dong, Roth and Su 2022)."""
    return tuple(float(norm.cdf(norm.ppf(rate) + mu)) for rate in np.linspace(0, 1, CURVE_POINTS))


def _attack(name: str, members: npt.ArrayLike, others: npt.ArrayLike, *, promised: float | None) -> MembershipAttack:
    a, b = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    allowed = int(FALSE_ALARMS * len(b))  # a threshold that at most so many of the others pass
    threshold = np.sort(b)[::-1][allowed]
    cuts = np.quantile(b, 1 - np.linspace(0, 1, CURVE_POINTS)[1:-1])
    surely = area_under_curve(a, b, confidence=1 - 2 * ALARM_P_VALUE)
    return MembershipAttack(
        name=name,
        area=area_under_curve(a, b),
        caught=wilson(int((a > threshold).sum()), len(a)),
        curve=(0.0, *(float((a >= cut).mean()) for cut in cuts), 1.0),
        alarm=surely.low > 0.5,
        broken=promised is not None and surely.low > promised,
    )
