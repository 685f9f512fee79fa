"""The combining rules: by hand, by repeating the whole of it many times, and where they are known to fall short."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import t

from synth.combine import Combined, combine_one_model, combine_posterior_models

TIMES, ROWS, SETS = 4000, 50, 5
SLACK = 4 * math.sqrt(0.95 * 0.05 / TIMES)  # of a share of 95 % over as many draws from a seed

Combine = Callable[..., Combined]


class TestByHand:
    def test_one_model(self) -> None:
        found = combine_one_model([1.0, 2.0, 3.0, 6.0], [0.5, 0.5, 1.0, 2.0])
        assert (found.estimate, found.within) == (3.0, 1.0)
        assert found.between == pytest.approx(14 / 3)  # (4 + 1 + 0 + 9) / 3
        assert found.variance == pytest.approx(1 + 14 / 12)
        assert found.degrees_of_freedom == pytest.approx(3 * (1 + 12 / 14) ** 2)
        low, high = found.interval(0.9)
        assert (high - low) / 2 == pytest.approx(t.ppf(0.95, found.degrees_of_freedom) * math.sqrt(1 + 14 / 12))
        assert (low + high) / 2 == pytest.approx(3.0)

    def test_posterior_models(self) -> None:
        found = combine_posterior_models([1.0, 2.0, 3.0, 6.0], [0.5, 0.5, 1.0, 2.0])
        assert found.variance == pytest.approx(1.25 * 14 / 3 - 1)
        assert found.degrees_of_freedom == pytest.approx(3 * (1 - 1 / (1.25 * 14 / 3)) ** 2)

    def test_a_variance_that_would_be_negative(self) -> None:
        found = combine_posterior_models([1.0, 1.1], [3.0, 5.0], relative_size=0.5)
        assert (found.variance, found.degrees_of_freedom) == (2.0, 1.0)

    def test_equal_sets(self) -> None:
        found = combine_one_model([2.0, 2.0], [4.0, 4.0])
        assert (found.variance, found.degrees_of_freedom) == (4.0, math.inf)
        assert found.interval()[1] == pytest.approx(2 + 1.959964 * 2)

    @pytest.mark.parametrize("combine", [combine_one_model, combine_posterior_models])
    def test_shared_variance_is_added(self, combine: Combine) -> None:
        plain, more = (combine([1.0, 5.0], [1.0, 1.0], shared=shared) for shared in (0.0, 7.0))
        assert more.variance == pytest.approx(plain.variance + 7)

    @pytest.mark.parametrize("combine", [combine_one_model, combine_posterior_models])
    @pytest.mark.parametrize("given", [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, 2.0], [1.0, -1.0])])
    def test_refusals(self, combine: Combine, given: tuple[list[float], list[float]]) -> None:
        with pytest.raises(ValueError, match=r"sets|variance"):
            combine(*given)


def coverage(combine: Combine, *, posterior: bool, noise: float = 0.0, shared: float = 0.0) -> float:
    """How often the interval for a mean holds it, over sources of N(0, 1), models of their mean and sets of both."""
    rng = np.random.default_rng(7)
    model = rng.normal(0, 1 / math.sqrt(ROWS), (TIMES, 1)) + noise * rng.normal(size=(TIMES, 1))
    means = model + (rng.normal(0, 1 / math.sqrt(ROWS), (TIMES, SETS)) if posterior else 0)
    rows = means[:, :, None] + rng.normal(size=(TIMES, SETS, ROWS))
    held = 0
    for estimates, variances in zip(rows.mean(axis=2), rows.var(axis=2, ddof=1) / ROWS, strict=True):
        low, high = combine(estimates.tolist(), variances.tolist(), shared=shared).interval()
        held += low <= 0 <= high
    return held / TIMES


class TestCoverage:
    def test_of_sets_from_one_model(self) -> None:
        assert abs(coverage(combine_one_model, posterior=False) - 0.95) < SLACK + 0.005

    def test_of_sets_from_posterior_models(self) -> None:
        assert coverage(combine_posterior_models, posterior=True) > 0.95 - SLACK

    def test_noise_in_the_model_is_not_covered_unless_it_is_told(self) -> None:
        """The limit that the docstring states: as much noise as sampling, and no set shows it."""
        noise = 2 / math.sqrt(ROWS)
        assert coverage(combine_one_model, posterior=False, noise=noise) < 0.75
        told = coverage(combine_one_model, posterior=False, noise=noise, shared=noise**2)
        assert abs(told - 0.95) < SLACK + 0.01
