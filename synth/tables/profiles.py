"""Profiles: a column's distribution within every class, from noised histograms. Post-processing.

A class differs from the whole table by a factor on each bin, smooth along ordered bins or free in each bin: a Gaussian
prior, whose two strengths each come from a small grid. How common each pair of strengths is among the columns is
learned from all of them (empirical Bayes; nonparametric maximum likelihood over a grid by EM, Laird 1978, JASA 73), so
a column whose classes differ by no more than noise is shrunk to the whole table, and a clear trend stays. The whole is
known better than any class, so classes are held to it: together they have its shares.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.tables.bins import project_to_simplex
from synth.tables.empirical_bayes import mixed

FloatArray = npt.NDArray[np.float64]

STRENGTHS = (0.0, 0.04, 0.1, 0.25, 0.6, 1.5, 4.0)
"""Standard deviations a class's factor may have around one."""
LENGTH = 0.5
"""How far the smooth part reaches, in parts of all ordered bins."""
LEAST_SHARE = 0.2
"""A bin counts as at least this part of an even bin's share: how rare it is, is not known better."""
FLOOR = 1e-6
ROUNDS = 20
"""Of proportional fitting of the classes to the whole."""


@dataclass(frozen=True)
class ByClass:
    """A column's noised histograms.

    Attributes:
        noised: counts within classes plus independent Gaussian noise [classes, bins].
        noise: the standard deviation of that noise.
        summed: the best estimate of the counts over all classes [bins]; need not be ≥ 0.
        ordered: how many bins, the first ones, stand in order; 0 for levels.
    """

    noised: FloatArray
    noise: float
    summed: FloatArray
    ordered: int


@dataclass(frozen=True)
class _Candidates:
    """What each pair of strengths says of a column: log-likelihood [classes, pairs], factors less one times shares
    [classes, pairs, bins]."""

    whole: FloatArray
    likelihood: FloatArray
    difference: FloatArray


def class_profiles(columns: Mapping[str, ByClass], class_sizes: FloatArray) -> dict[str, FloatArray]:
    """Estimated share of each bin within each class, column → [classes, bins]; all > 0, rows sum to 1.

    Args:
        columns: the noised histograms of every column.
        class_sizes: estimated people in each class, ≥ 0, at least one of them > 0.
    """
    profiles, part = {}, class_sizes / class_sizes.sum()
    for smooth in (True, False):
        # Columns of one kind learn from each other.
        some = {
            name: _candidates(column, class_sizes) for name, column in columns.items() if (column.ordered > 2) == smooth
        }
        if not some:
            continue
        chances = mixed(np.concatenate([c.likelihood for c in some.values()]))
        for name, candidates in some.items():
            now, chances = np.split(chances, [len(class_sizes)])
            difference = np.einsum("ck,ckb->cb", now, candidates.difference)
            # Each class was shrunk by itself: what all of them have in common afterwards is noise.
            profile = np.maximum(candidates.whole + difference - part @ difference, 0.0) + FLOOR * candidates.whole
            profiles[name] = _raked(profile, part, candidates.whole)
    return {name: profiles[name] for name in columns}


def _raked(profile: FloatArray, part: FloatArray, whole: FloatArray) -> FloatArray:
    """`profile` scaled by row and column: rows sum to 1, and to `whole` when weighed by `part` (Deming & Stephan 1940).

    Shapes: [classes, bins], [classes], [bins]; all of `profile` and `whole` > 0.
    """
    for _ in range(ROUNDS):
        profile = profile / profile.sum(axis=1, keepdims=True)
        profile = profile * (whole / (part @ profile))
    return np.asarray(profile / profile.sum(axis=1, keepdims=True))


def _candidates(column: ByClass, class_sizes: FloatArray) -> _Candidates:
    """The Gaussian posterior of a column's classes under every pair of strengths."""
    total, classes, bins = max(1.0, float(class_sizes.sum())), len(class_sizes), len(column.summed)
    whole = project_to_simplex(column.summed, total) / total + FLOOR
    whole /= whole.sum()
    part = class_sizes / class_sizes.sum()
    # A class less its part of the sum of all: no class's noise is in it whole.
    sizes = np.maximum(class_sizes, 1.0)
    seen = (column.noised - part[:, None] * column.noised.sum(axis=0)) / sizes[:, None]
    variance = column.noise**2 * ((1 - part) ** 2 + (classes - 1) * part**2) / sizes**2
    scale = np.maximum(whole, LEAST_SHARE / bins)
    smooth = np.zeros((bins, bins))
    place = np.arange(column.ordered) / max(1, column.ordered)
    smooth[: column.ordered, : column.ordered] = np.exp(-((place[:, None] - place) ** 2) / (2 * LENGTH**2))
    smooth *= scale[:, None] * scale
    strengths = [*itertools.product(STRENGTHS if column.ordered > 2 else (0.0,), STRENGTHS)]
    likelihood = np.empty((classes, len(strengths)))
    difference = np.empty((classes, len(strengths), bins))
    for k, (along, free) in enumerate(strengths):
        values, vectors = np.linalg.eigh(along**2 * smooth + np.diag((free * scale) ** 2))
        values, turned = np.maximum(values, 0.0), seen @ vectors
        # With one class nothing differs and nothing is noise.
        spread = np.maximum(values + variance[:, None], 1e-300)
        likelihood[:, k] = -0.5 * (turned**2 / spread + np.log(spread)).sum(axis=1)
        difference[:, k] = (turned * values / spread) @ vectors.T
    return _Candidates(whole, likelihood, difference)
