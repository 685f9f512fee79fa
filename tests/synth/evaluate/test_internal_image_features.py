"""Distances between sets of features against known values and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from synth.evaluate.internal.image_features import feature_scores, frechet_distance, kernel_distance, reach

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(60, 4)), RNG.normal(0.5, 2.0, size=(50, 4))


def test_frechet_against_the_matrix_root_and_by_hand() -> None:
    cov_a, cov_b = np.cov(A, rowvar=False), np.cov(B, rowvar=False)
    wanted = ((A.mean(0) - B.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(A, B) == pytest.approx(wanted)
    assert frechet_distance(A, A + 3.0) == pytest.approx(4 * 9.0)
    assert frechet_distance(A[:, :1], 2 * A[:, :1]) == pytest.approx(A[:, 0].mean() ** 2 + A[:, 0].var(ddof=1))
    flat = np.hstack([A, np.zeros((60, 1))])  # a feature that never fires
    assert frechet_distance(flat, flat) == pytest.approx(0.0, abs=1e-9)


def test_kernel_distance_against_a_loop() -> None:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    within = [np.mean([kernel(x, y) for x, y in itertools.permutations(s, 2)]) for s in (A, B)]
    assert kernel_distance(A, B) == pytest.approx(sum(within) - 2 * np.mean([kernel(x, y) for x in A for y in B]))


def test_precision_recall_and_coverage_against_loops() -> None:
    def third(points: np.ndarray, i: int) -> float:
        return float(sorted(np.linalg.norm(points - points[i], axis=1))[3])  # itself comes first

    assert reach(A) == pytest.approx([third(A, i) for i in range(len(A))])
    found = feature_scores(A, B)
    ball_a, ball_b = reach(A), reach(B)
    inside = [[np.linalg.norm(a - b) <= r for a, r in zip(A, ball_a, strict=True)] for b in B]
    assert found.precision == pytest.approx(np.mean([any(row) for row in inside]))
    assert found.coverage == pytest.approx(np.mean(np.any(inside, axis=0)))
    held = [any(np.linalg.norm(a - b) <= r for b, r in zip(B, ball_b, strict=True)) for a in A]
    assert found.recall == pytest.approx(np.mean(held))
    same = feature_scores(A, A)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
