"""One estimate from several synthetic sets: the combining rules, and what they leave out.

An analyst computes an estimate q_i and its usual variance u_i on each of M sets as if their rows had been observed.
With q̄ and ū their means and b the variance of the q_i between sets (divisor M − 1):

    sets from one fitted model    T = ū + b/M          ν = (M − 1)·(1 + ū/(b/M))²          (Reiter 2003)
    sets from M models, each      T = (1 + 1/M)·b − ū  ν = (M − 1)·(1 − ū/((1 + 1/M)·b))²  (Raghunathan, Reiter,
    drawn from its posterior                                                                Rubin 2003)

and q̄ ± t_ν·√T is an interval. Reiter's rule is that of partially synthetic data; it is also right for rows drawn
whole from one plainly fitted model, as those of `synth sample --sets` are, when each set has as many rows as the model
was learned from (Raab, Nowok, Dibben 2016): ū stands for the sampling of the source, b/M for that of the rows. The
second rule is for sets of which each has a model drawn by itself, which one bundle does not give.

NOTE: neither covers the noise of differential privacy, nor the model's error. Both are shared by all sets from one
model, so that no number of sets shows them, and the intervals are too short by as much. Where the noise of an estimate
is known (a count of a measured table has the noise that the datasheet states), its variance belongs into `shared`.
What it takes to have them covered is a posterior over models given the noised measurements: Räisä, Jälkö, Kaski,
Honkela 2023, "Noise-aware statistical inference with differentially private synthetic data".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

FEWEST_SETS = 2


@dataclass(frozen=True)
class Combined:
    """An estimate from several sets.

    Attributes:
        estimate: q̄; variance: T, at least 0, with `shared` in it; degrees_of_freedom: ν, may be infinite.
        between: b; within: ū.
    """

    estimate: float
    variance: float
    degrees_of_freedom: float
    between: float
    within: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval at `confidence`, of what the rule covers."""
        half = float(t.ppf(0.5 + confidence / 2, self.degrees_of_freedom)) * math.sqrt(self.variance)
        return self.estimate - half, self.estimate + half


def combine_one_model(estimates: Sequence[float], variances: Sequence[float], *, shared: float = 0.0) -> Combined:
    """Sets from one fitted model, each of as many rows as it was learned from (Reiter 2003).

    Raises ValueError for fewer than two sets, or a variance below 0.

    Args:
        estimates: q_i; variances: u_i, as if the set's rows had been observed.
        shared: variance that all sets share and none shows, as of the noise in what is estimated.
    """
    q, b, u = _moments(estimates, variances, shared)
    among = b / len(estimates)
    freedom = math.inf if among == 0 else (len(estimates) - 1) * (1 + u / among) ** 2
    return Combined(q, u + among + shared, freedom, b, u)


def combine_posterior_models(
    estimates: Sequence[float], variances: Sequence[float], *, shared: float = 0.0, relative_size: float = 1.0
) -> Combined:
    """Sets from models of which each was drawn from its posterior by itself (Raghunathan, Reiter, Rubin 2003).

    With few sets T can fall below 0; then ū times `relative_size` stands for it (Reiter 2002), which is on the safe
    side. Raises ValueError as `combine_one_model`.

    Args:
        estimates: q_i; variances: u_i; shared: as there.
        relative_size: rows of a set over rows of the source.
    """
    q, b, u = _moments(estimates, variances, shared)
    among = (1 + 1 / len(estimates)) * b
    if among <= u:
        return Combined(q, relative_size * u + shared, len(estimates) - 1.0, b, u)
    return Combined(q, among - u + shared, (len(estimates) - 1) * (1 - u / among) ** 2, b, u)


def _moments(estimates: Sequence[float], variances: Sequence[float], shared: float) -> tuple[float, float, float]:
    """q̄, b and ū."""
    if len(estimates) < FEWEST_SETS or len(estimates) != len(variances):
        raise ValueError(f"at least {FEWEST_SETS} sets, each with its estimate and its variance")
    if min(*variances, shared) < 0:
        raise ValueError("a variance is at least 0")
    return float(np.mean(estimates)), float(np.var(estimates, ddof=1)), float(np.mean(variances))
