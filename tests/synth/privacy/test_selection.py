"""Choices by the exponential mechanism: what they cost, and that they are made as they are accounted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_ndtr, logit, ndtr
from scipy.stats import chi2, norm

from synth.privacy.accounting import compose_mu, delta_of
from synth.privacy.composition import composed_mu, epsilon_of, within
from synth.privacy.events import GaussianEvent, SelectionEvent, half_range_of_choice, mu_of_choice
from synth.privacy.noise import NoiseSource

RANGES = st.floats(1e-6, 8.0)


def chances(scores: np.ndarray) -> np.ndarray:
    weight = np.exp(scores - scores.max())
    return np.asarray(weight / weight.sum())


class TestCost:
    @given(half_range=RANGES, a=st.floats(1e-9, 1 - 1e-9))
    def test_the_gaussian_dominates_the_worst_choice(self, half_range: float, a: float) -> None:
        """As trade-off functions: at every false-alarm rate a, a shift under logistic noise misses at least as much."""
        worst = 1 - expit(logit(a) + 2 * half_range)
        assert 1 - norm.cdf(norm.ppf(a) + mu_of_choice(half_range)) <= worst * (1 + 1e-9) + 1e-15

    def test_the_slope_that_the_proof_rests_on_grows(self) -> None:
        y = np.linspace(0, 30, 30_001)
        slope = np.exp(norm.logpdf(y) - log_ndtr(y) - log_ndtr(-y))
        assert (np.diff(slope) > 0).all()

    @given(epsilon_zero=st.floats(0.01, 6), a=st.floats(0.001, 0.999))
    def test_the_logistic_shift_is_the_conjugate_of_the_envelope(self, epsilon_zero: float, a: float) -> None:
        """f(a) = sup over α of 1 − δ(α) − α·a, with δ the largest over all mechanisms of two losses ε₀ apart."""
        q = math.exp(-epsilon_zero)
        alpha = np.exp(np.linspace(-epsilon_zero, epsilon_zero, 20_001))
        envelope = (1 - np.sqrt(alpha * q)) ** 2 / (1 - q)
        assert (1 - envelope - alpha * a).max() == pytest.approx(1 - expit(logit(a) + epsilon_zero), abs=1e-6)
        t = np.linspace(0, epsilon_zero, 2001)[:, None]  # the losses are t and t − ε₀
        chance = (1 - np.exp(t - epsilon_zero)) / (np.exp(t) - np.exp(t - epsilon_zero))
        some = alpha[::500]
        of_two = np.maximum(chance * (np.exp(t) - some), 0) + np.maximum(
            (1 - chance) * (np.exp(t - epsilon_zero) - some), 0
        )
        assert of_two.max(axis=0) == pytest.approx(envelope[::500], abs=1e-5)

    @settings(max_examples=200)
    @given(
        scores=st.lists(st.floats(-5, 5), min_size=2, max_size=7),
        moves=st.lists(st.floats(-1, 1), min_size=7, max_size=7),
        half_range=st.floats(0.01, 4),
        epsilon=st.floats(0, 6),
        choices=st.integers(1, 2),
    )
    def test_no_table_gives_more_away(
        self, scores: list[float], moves: list[float], half_range: float, epsilon: float, choices: int
    ) -> None:
        """The brute-force twin: exact chances with and without a person, for one choice and for two."""
        here = chances(half_range * np.array(scores))
        there = chances(half_range * (np.array(scores) + np.array(moves[: len(scores)])))
        if choices == 2:
            here, there = np.outer(here, here).ravel(), np.outer(there, there).ravel()
        event = SelectionEvent(
            name="s", selections=choices, sensitivity=1, replace_one_sensitivity=2, noise_scale=1 / half_range
        )
        limit = delta_of(epsilon, event.mu) + 1e-12
        assert np.maximum(here - math.exp(epsilon) * there, 0).sum() <= limit
        assert np.maximum(there - math.exp(epsilon) * here, 0).sum() <= limit

    @given(mu=st.floats(1e-6, 6))
    def test_the_range_of_a_cost_costs_no_more(self, mu: float) -> None:
        assert mu * (1 - 1e-7) <= mu_of_choice(half_range_of_choice(mu)) <= mu

    def test_known_values(self) -> None:
        assert mu_of_choice(1e-4) == pytest.approx(math.sqrt(math.pi / 2) * 1e-4, rel=1e-6)
        assert float(ndtr(mu_of_choice(0.5) / 2)) == pytest.approx(1 / (1 + math.exp(-0.5)))

    def test_choices_compose_with_gaussian_releases(self) -> None:
        choice = SelectionEvent(name="s", selections=9, sensitivity=1, replace_one_sensitivity=2, noise_scale=20)
        release = GaussianEvent(name="g", sensitivity=1, replace_one_sensitivity=1.5, noise_scale=4)
        mu = math.sqrt(9 * mu_of_choice(1 / 20) ** 2 + 1 / 16)
        assert composed_mu([choice, release]) == pytest.approx(mu) == compose_mu([choice, release])
        epsilon = epsilon_of([choice, release], 1e-5)
        assert within([choice, release], epsilon, 1e-5)
        assert not within([choice, choice, release], epsilon, 1e-5)
        assert choice.replace_one_mu == pytest.approx(3 * mu_of_choice(1 / 10))


class TestChoice:
    def test_has_the_chances_that_are_accounted(self) -> None:
        scores, scale, draws = np.array([0.0, 3.0, 1.0, 4.0, -2.0]), 2.5, 40_000
        source = NoiseSource()
        seen = np.bincount([source.choose(scores, scale) for _ in range(draws)], minlength=len(scores))
        expected = draws * chances(scores / scale)
        statistic = float(((seen - expected) ** 2 / expected).sum())
        assert statistic < chi2.isf(1e-7, len(scores) - 1)  # fails one honest run in ten million

    @pytest.mark.parametrize("noise_scale", [0.0, -1.0, math.inf, math.nan])
    def test_wants_noise(self, noise_scale: float) -> None:
        with pytest.raises(ValueError, match="noise_scale"):
            NoiseSource().choose(np.zeros(2), noise_scale)

    @pytest.mark.parametrize("scores", [[], [math.inf, 1.0], [math.nan]])
    def test_wants_finite_scores(self, scores: list[float]) -> None:
        with pytest.raises(ValueError, match="score"):
            NoiseSource().choose(np.array(scores), 1.0)
