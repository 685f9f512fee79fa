"""A class is pulled to its profile as far as its own counts say less than that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from synth.tables.class_pull import MOST_PULL, ClassPull, class_pull_of
from synth.tables.profiles import ByClass, class_profiles

NOISE = 20.0
SIZES = np.array([6000.0, 3000.0, *[80.0] * 20])


def pull_of(profiles: dict[str, np.ndarray], sizes: np.ndarray, noise: float = NOISE) -> ClassPull:
    measured: Any = SimpleNamespace(class_sizes=sizes, profiles=profiles, one_way_noise=dict.fromkeys(profiles, noise))
    return class_pull_of(measured, list(profiles))


def test_the_difference_is_that_of_the_profile_from_the_whole() -> None:
    profile = np.array([[0.5, 0.3, 0.2], [0.1, 0.4, 0.5]])
    pull = pull_of({"a": profile, "b": np.array([[0.5, 0.5], [0.2, 0.8]])}, np.array([30.0, 10]))
    assert pull.difference.shape == pull.precision.shape == (2, 5)
    assert pull.part.tolist() == [0.75, 0.25]
    # The whole has .4, .325, .275 of the first column.
    assert pull.difference[0, :3].tolist() == pytest.approx([3, -0.75, -2.25], abs=1e-5)
    assert pull.difference.sum(dim=0).tolist() == pytest.approx([0] * 5, abs=1e-5)


def test_a_class_of_a_few_is_held_and_one_of_thousands_is_free() -> None:
    pull = pull_of({"a": np.array([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])}, np.array([1e5, 1.0]))
    assert pull.precision[1].tolist() == pytest.approx([MOST_PULL / NOISE**2] * 4, rel=0.1)
    assert float(pull.precision[0].max()) < 0.01 / NOISE**2


def test_the_only_class_is_the_whole_and_not_pulled() -> None:
    pull = pull_of({"a": np.array([[0.7, 0.2, 0.1]])}, np.array([50.0]))
    assert float(pull.loss(torch.rand(1, 3) * 50)) == pytest.approx(0, abs=1e-9)


def test_an_empty_class_has_a_finite_pull() -> None:
    pull = pull_of({"a": np.array([[0.7, 0.2, 0.1], [0.6, 0.2, 0.2]])}, np.array([50.0, 0.0]))
    assert bool(torch.isfinite(pull.precision).all()) and pull.difference[1].tolist() == [0, 0, 0]


def test_rare_classes_come_nearer_to_the_truth_and_large_ones_stay() -> None:
    """The least loss over all counts, with the pull and without it; twenty classes of 80 people under noise of 20."""
    rng = np.random.default_rng(0)
    bins, columns = 16, 6
    true, noised, profiles = {}, {}, {}
    for name in range(columns):
        whole = rng.dirichlet(np.full(bins, 3.0))
        shares = np.stack([whole * np.exp(s * rng.normal(size=bins)) for s in (0.3, 0.3, *[0.2] * 20)])
        true[str(name)] = SIZES[:, None] * shares / shares.sum(axis=1, keepdims=True)
        noised[str(name)] = true[str(name)] + NOISE * rng.normal(size=(len(SIZES), bins))
    by_class = {name: ByClass(counts, NOISE, counts.sum(axis=0), 0) for name, counts in noised.items()}
    profiles = class_profiles(by_class, SIZES)
    pull = pull_of(profiles, SIZES)
    seen = torch.tensor(np.concatenate(list(noised.values()), axis=1), dtype=torch.float32)

    def least(*, pulled: bool) -> np.ndarray:
        counts = seen.clone().requires_grad_()
        solver = torch.optim.LBFGS([counts], max_iter=300, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            value = ((counts - seen) ** 2).sum() / NOISE**2 + (pull.loss(counts) if pulled else 0.0)
            value.backward()
            return value

        solver.step(loss)
        return counts.detach().numpy()

    exact = np.concatenate(list(true.values()), axis=1)
    plain, held = (np.abs(least(pulled=pulled) - exact).mean(axis=1) for pulled in (False, True))
    assert held[2:].mean() < 0.5 * plain[2:].mean(), "rare classes"
    assert (held[:2] < 1.05 * plain[:2]).all(), "large classes"
