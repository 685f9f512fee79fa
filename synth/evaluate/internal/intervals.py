"""Rates and areas with confidence intervals, and what an attack gains over its control group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import fisher_exact, norm, rankdata

CONFIDENCE = 0.95
ALARM_P_VALUE = 1e-4
"""An alarm rings by mistake at most once in this many looks, so that a page of twenty scores stays quiet."""


@dataclass(frozen=True)
class Estimate:
    """A number in [0, 1] and its confidence interval at `CONFIDENCE`."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A success rate with Wilson's score interval (1927). Raises ValueError without trials."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")
    z = float(norm.ppf(0.5 + confidence / 2))
    middle = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    return Estimate(successes / trials, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Risk:
    """What an attack wins on people whose rows were learned, beyond what it wins on people whose rows were not.

    Attributes:
        training: success rate on training people; control: on held-out people; naive: of guesses without the rows.
        risk: (training - control) / (1 - control), below 0 when the control group fares worse; in [-1, 1].
        p_value: probability of so large a difference, or larger, without any leak (Fisher's exact test, one-sided).
        alarm: whether chance hardly explains the difference.
    """

    name: str
    attempts: int
    training: Estimate
    control: Estimate
    naive: Estimate | None
    risk: Estimate
    p_value: float
    alarm: bool


def risk_of(name: str, training: tuple[int, int], control: tuple[int, int], naive: tuple[int, int] | None) -> Risk:
    """The risk from (successes, trials) of each group.

    Giomi, Boenisch, Wehmeyer and Tasnadi 2022 (arXiv 2211.10459), section 4: the rates are the centres of their Wilson
    intervals, their errors are propagated to the risk.
    """
    rates = [wilson(*group) for group in (training, control)]
    middle = [(rate.low + rate.high) / 2 for rate in rates]
    half = [(rate.high - rate.low) / 2 for rate in rates]
    left = 1 - middle[1]
    value = (middle[0] - middle[1]) / left
    error = math.hypot(half[0] / left, (1 - middle[0]) / left**2 * half[1])
    table = [[training[0], training[1] - training[0]], [control[0], control[1] - control[0]]]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)
    return Risk(
        name=name,
        attempts=training[1],
        training=rates[0],
        control=rates[1],
        naive=None if naive is None else wilson(*naive),
        risk=Estimate(value, max(-1.0, value - error), min(1.0, value + error)),
        p_value=p_value,
        alarm=p_value < ALARM_P_VALUE,
    )


def area_under_curve(positives: npt.ArrayLike, negatives: npt.ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Area under the ROC curve of scores, with DeLong's interval (DeLong, DeLong and Clarke-Pearson 1988)."""
    a, b = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    together = rankdata(np.concatenate([a, b]))
    above = (together[: len(a)] - rankdata(a)) / len(b)  # per positive, the share of negatives below it
    below = 1 - (together[len(a) :] - rankdata(b)) / len(a)
    value = float(above.mean())
    variance = sum(part.var(ddof=1) / len(part) for part in (above, below) if len(part) > 1)
    half = float(norm.ppf(0.5 + confidence / 2)) * math.sqrt(variance)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))
