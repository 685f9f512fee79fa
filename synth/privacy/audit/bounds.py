"""Lower bounds on ε from attacks that were counted: pure mathematics, no data.

Each bound holds with the stated confidence over the mechanism's noise and the attacker's coins. A bound above the
claimed ε refutes the claim. A bound below it proves nothing: a better attack may exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv, expit, ndtri
from scipy.stats import binom

from synth.privacy.accounting import epsilon_of

GRID = 0.01
"""Step of the scan over ε where bisection is not known to be sound."""

MAX_EPSILON = 50.0


def one_run_p_value(guesses: int, correct: int, epsilon: float, *, canaries: int, delta: float) -> float:
    """Largest probability that an (ε, δ)-DP mechanism lets `correct` or more of `guesses` be right.

    Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), Theorem 5.2: each of m canaries is in by a fair coin of its own,
    the attacker guesses r of the coins and abstains on the others. With W ~ Bin(r, e^ε / (1 + e^ε)),

        P[right ≥ v] ≤ P[W ≥ v] + 2mδ · max_i P[v > W ≥ v − i] / i.

    δ = 0 is Theorem 3.1 (Proposition 5.1). Raises ValueError unless 0 ≤ v ≤ r ≤ m, ε ≥ 0 and 0 ≤ δ ≤ 1.
    """
    _check_counts(guesses, correct, canaries, delta)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, not {epsilon}")
    right = float(expit(epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    steepest = float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, tail + 2 * canaries * delta * steepest)


def one_run_epsilon(guesses: int, correct: int, *, canaries: int, delta: float, confidence: float = 0.999) -> float:
    """Lower bound on ε from one run: of `canaries` fair coins, `correct` of `guesses` were guessed rightly.

    The supremum of the ε that `one_run_p_value` rejects at 1 − confidence, rounded down; 0 when it rejects none. The
    number of guesses must not depend on how right they are. Valid when adding or removing one canary is (ε, δ)-DP.

    Raises ValueError as `one_run_p_value`, and unless 0 < confidence < 1.
    """
    alpha = _alpha(confidence)

    def rejected(epsilon: float) -> bool:
        return one_run_p_value(guesses, correct, epsilon, canaries=canaries, delta=delta) < alpha

    if 2 * canaries * delta <= 1:
        # For each i the derivative of the p-value in W's success probability, with the pmf of r − 1 trials, is
        # r·pmf(v − 1)·(1 − 2mδ/i) + r·pmf(v − 1 − i)·2mδ/i, which is not negative here. So their maximum grows with ε.
        return _largest(rejected)
    # A scan from below that ends at the first failure is sound whatever the shape: had it passed a true ε, then it
    # rejected the first grid point above that ε, at which the mechanism is DP too.
    steps = 0
    while steps * GRID < MAX_EPSILON and rejected((steps + 1) * GRID):
        steps += 1
    return steps * GRID


def clopper_pearson(successes: int, trials: int, *, alpha: float) -> tuple[float, float]:
    """Two-sided exact interval of a binomial probability: each side is missed with probability at most alpha / 2.

    Clopper & Pearson 1934. Raises ValueError unless 0 ≤ successes ≤ trials and 0 < alpha < 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..{trials}, not {successes}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha}")
    missed = trials - successes
    low = 0.0 if successes == 0 else float(betaincinv(successes, missed + 1, alpha / 2))
    # From the lower tail of the failures, which keeps precision where the probability is close to 1.
    high = 1.0 if missed == 0 else 1.0 - float(betaincinv(missed, successes + 1, alpha / 2))
    return low, high


def shadow_epsilon(
    true_positives: int,
    false_positives: int,
    members: int,
    non_members: int,
    *,
    delta: float,
    confidence: float = 0.999,
) -> float:
    """Lower bound on ε from membership inference over independent shadow runs.

    `true_positives` of `members` runs with the target record, and `false_positives` of `non_members` runs without it,
    were called "in". (ε, δ)-DP demands TPR ≤ e^ε·FPR + δ and TNR ≤ e^ε·FNR + δ, so ε is at least the larger of
    log((TPR − δ) / FPR) and log((TNR − δ) / FNR), taken at Clopper-Pearson limits that hold together (Jagielski,
    Ullman, Oprea 2020; Nasr et al. 2021). The attack's threshold must not have been chosen on these runs.

    Returns 0 when neither direction shows anything. Raises ValueError as `clopper_pearson`.
    """
    true_low, false_high = _rates(true_positives, false_positives, members, non_members, confidence)
    return max(
        _log_ratio(true_low - delta, false_high),
        _log_ratio((1 - false_high) - delta, 1 - true_low),
    )


def shadow_mu(
    true_positives: int, false_positives: int, members: int, non_members: int, *, confidence: float = 0.999
) -> float:
    """Lower bound on μ from the same counts, for a claim of μ-Gaussian-DP; 0 when they show nothing.

    Of μ-GDP follows Φ⁻¹(TPR) − Φ⁻¹(FPR) ≤ μ (Dong, Roth, Su 2022; Nasr et al. 2023, "Tight auditing of differentially
    private machine learning", section 4). A run here claims μ first and derives (ε, δ) from it, so a bound above the
    claimed μ refutes the claim. It is stronger than `shadow_epsilon`, and narrower: it says nothing about a mechanism
    that is (ε, δ)-DP without being Gaussian-DP.
    """
    true_low, false_high = _rates(true_positives, false_positives, members, non_members, confidence)
    if true_low <= 0 or false_high >= 1:
        return 0.0
    return max(0.0, float(ndtri(true_low) - ndtri(false_high)))


def shadow_gaussian_epsilon(
    true_positives: int,
    false_positives: int,
    members: int,
    non_members: int,
    *,
    delta: float,
    confidence: float = 0.999,
) -> float:
    """`shadow_mu` converted to ε at δ: what ε a Gaussian-DP mechanism with such errors has at least."""
    mu = shadow_mu(true_positives, false_positives, members, non_members, confidence=confidence)
    # `epsilon_of` rounds up at the sixth decimal; a lower bound is rounded down.
    return max(0.0, epsilon_of(mu, delta) - 2e-6)


def _rates(
    true_positives: int, false_positives: int, members: int, non_members: int, confidence: float
) -> tuple[float, float]:
    """TPR from below and FPR from above; both hold at once with the confidence, as each misses by at most half."""
    alpha = _alpha(confidence)
    true_low, _ = clopper_pearson(true_positives, members, alpha=alpha)
    _, false_high = clopper_pearson(false_positives, non_members, alpha=alpha)
    return true_low, false_high


def _log_ratio(numerator: float, denominator: float) -> float:
    if numerator <= 0 or denominator <= 0:
        return 0.0
    return max(0.0, math.log(numerator / denominator))


def _largest(rejected: Callable[[float], bool]) -> float:
    """The largest rejected ε, to 1e-6 and from below; `rejected` is true up to a point and false beyond."""
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, MAX_EPSILON
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def _alpha(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, not {confidence}")
    return 1 - confidence


def _check_counts(guesses: int, correct: int, canaries: int, delta: float) -> None:
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"0 ≤ correct ≤ guesses ≤ canaries is needed, not {correct=} {guesses=} {canaries=}")
    if not 0 <= delta <= 1:
        raise ValueError(f"delta must lie in 0..1, not {delta}")
