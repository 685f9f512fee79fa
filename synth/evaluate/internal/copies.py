"""Copies and near-copies of training rows: a smoke alarm, never a pass mark.

Silence proves nothing: rows can leak without being copied, and distances to closest records miss that
(arXiv 2505.01524). The alarm compares what cannot differ without a leak: a row that is in one of two exchangeable
tables is as likely to be in either of them, for synthetic rows that know neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from synth.evaluate.internal.intervals import ALARM_P_VALUE
from synth.evaluate.internal.nearest import Space
from synth.tables.codec import Codec

FloatArray = npt.NDArray[np.float64]
Fingerprints = npt.NDArray[np.uint64]

NEAR_QUANTILE = 0.01
HISTOGRAM_BARS = 30
FEWEST_ROWS = 20
RARE_COINCIDENCES = 0.01
"""Real rows rarely coincide when at most this share of them does."""


@dataclass(frozen=True)
class CopyAlarm:
    """Distinct real rows that synthetic rows repeat.

    Attributes:
        copied: distinct rows of the table that could have been copied, found among the synthetic rows.
        by_chance: the same of the comparison; share: what `copied` should be of both together when nothing leaks.
        synthetic_rows: synthetic rows that equal (or nearly equal) such a row, repeats included.
        compared_with: what the comparison was.
        p_value: probability of so many copies, or more, without a leak (exact binomial tests, one-sided).
        alarm: whether chance hardly explains them.
    """

    copied: int
    by_chance: int
    share: float
    synthetic_rows: int
    compared_with: Literal["held-out rows", "other rows of the same table"]
    p_value: float
    alarm: bool


@dataclass(frozen=True)
class ClosestRecords:
    """Histograms of distances to the closest record, on equal bars from 0 to `furthest`; shares.

    `near` is the distance below which a synthetic row counts as a near-copy.
    """

    rows: int
    furthest: float
    near: float
    synthetic_to_training: tuple[float, ...]
    synthetic_to_held_out: tuple[float, ...]
    held_out_to_training: tuple[float, ...]


def copies(synthetic: Fingerprints, training: Fingerprints, held_out: Fingerprints) -> CopyAlarm:
    """Copies of training rows against copies of held-out rows, over all rows of the three tables.

    Only rows that occur once in both real tables together count: such a row is in the training table with
    probability len(training) / (len(training) + len(held_out)), whatever the synthetic rows are.
    """
    pool, counts = np.unique(np.concatenate([training, held_out]), return_counts=True)
    drawn = np.unique(synthetic)
    single = pool[counts == 1]
    found = np.intersect1d(single, drawn)
    copied = np.intersect1d(found, training)
    return _alarm(
        len(copied),
        len(found) - len(copied),
        len(training) / max(len(training) + len(held_out), 1),
        int(np.isin(synthetic, copied).sum()),
        "held-out rows",
        other_p_value=_beyond_coincidence(
            len(np.intersect1d(training, drawn)),
            int((counts > 1).sum()),
            len(synthetic) * len(training),
            len(training) + len(held_out),
        ),
    )


def copies_within(synthetic: Fingerprints, real: Fingerprints, *, rng: np.random.Generator) -> CopyAlarm:
    """Copies of real rows without a held-out table: one half of the real rows, and what the other half repeats of it.

    Synthetic rows drawn like people repeat as many single rows of the first half as equally many people do. It is
    a weaker comparison: rows can also be common because the generator prefers what is common.
    """
    shuffled = rng.permutation(real)
    first, second = np.array_split(shuffled, 2)
    rows = min(len(second), len(synthetic))
    drawn = rng.permutation(synthetic)[:rows]
    values, counts = np.unique(first, return_counts=True)
    single = values[counts == 1]
    copied, repeated = (np.intersect1d(single, table) for table in (drawn, second[:rows]))
    both = np.intersect1d(copied, repeated)
    return _alarm(
        len(copied) - len(both),
        len(repeated) - len(both),
        0.5,
        int(np.isin(drawn, np.setdiff1d(copied, both)).sum()),
        "other rows of the same table",
    )


def near_copies(
    synthetic: FloatArray, training: FloatArray, held_out: FloatArray, codecs: Mapping[str, Codec], *, probes: int
) -> tuple[CopyAlarm, ClosestRecords] | None:
    """Synthetic rows very close to a training row and not to a held-out row, against the reverse.

    Very close is closer than NEAR_QUANTILE of the held-out rows are to their closest training row. Both real tables
    have the same number of rows here, so either is as likely to be the closer one. None when there are too few rows.
    """
    rows = min(len(training), len(held_out))
    probes = min(probes, len(synthetic), rows)
    if probes < FEWEST_ROWS:
        return None
    space = Space.of(synthetic, codecs)
    real = [space.points(table[:rows]) for table in (training, held_out)]
    probe = space.points(synthetic[:probes])
    (to_training, which), (to_held_out, which_held_out) = (space.nearest(probe, table) for table in real)
    usual = space.nearest(real[1][:probes], real[0])[0][:, 0]
    near = float(np.quantile(usual, NEAR_QUANTILE))
    t, h = to_training[:, 0] <= near, to_held_out[:, 0] <= near
    alarm = _alarm(
        len(np.unique(which[t & ~h, 0])),
        len(np.unique(which_held_out[h & ~t, 0])),
        0.5,
        int((t & ~h).sum()),
        "held-out rows",
    )
    found = [to_training[:, 0], to_held_out[:, 0], usual]
    furthest = max(float(np.quantile(np.concatenate(found), 0.995)), 1e-6)
    bars = [_histogram(distances, furthest) for distances in found]
    return alarm, ClosestRecords(probes, furthest, near, *bars)


def _beyond_coincidence(copied: int, coincidences: int, tried: int, people: int) -> float:
    """Probability of so many copies when synthetic rows meet training rows as often as people meet each other.

    It helps where few rows are held out. `tried` pairs of a synthetic and a training row gave `copied` distinct
    rows, people * (people - 1) / 2 pairs of people gave `coincidences`: of rare meetings, each falls to either side in
    proportion to the pairs. Where people coincide often, a generator that prefers what is common would look guilty,
    so that nothing is said (1).
    """
    pairs = people * (people - 1) / 2
    if coincidences > RARE_COINCIDENCES * people or copied == 0:
        return 1.0
    return float(binomtest(copied, copied + coincidences, tried / (tried + pairs), alternative="greater").pvalue)


def _histogram(distances: npt.NDArray[np.float32], furthest: float) -> tuple[float, ...]:
    counts, _ = np.histogram(np.minimum(distances, furthest), bins=HISTOGRAM_BARS, range=(0, furthest))
    return tuple(float(share) for share in counts / max(len(distances), 1))


def _alarm(
    copied: int,
    by_chance: int,
    share: float,
    rows: int,
    compared_with: Literal["held-out rows", "other rows of the same table"],
    *,
    other_p_value: float = 1.0,
) -> CopyAlarm:
    together = copied + by_chance
    p_value = float(binomtest(copied, together, share, alternative="greater").pvalue) if together and share < 1 else 1.0
    if other_p_value < 1:
        p_value = min(1.0, 2 * min(p_value, other_p_value))  # two looks at the same question
    return CopyAlarm(copied, by_chance, share, rows, compared_with, p_value, p_value < ALARM_P_VALUE)
