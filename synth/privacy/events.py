"""What was done to private data. Events say what happened; accounting says what it costs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from scipy.special import erfinv, expit, log_ndtr, ndtri


class GaussianEvent(BaseModel):
    """One release of a vector under Gaussian noise of the same scale in every coordinate.

    `sensitivity` is the L2 distance that adding or removing one privacy unit can move the exact
    vector; `replace_one_sensitivity` is the same for changing one unit's record into any other.
    `noise_scale` is the standard deviation of the noise in the vector's own units (counts).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: Literal["gaussian"] = "gaussian"
    name: str = Field(min_length=1, description="what was released, e.g. 'one-way histograms'")
    sensitivity: float = Field(gt=0, allow_inf_nan=False)
    replace_one_sensitivity: float = Field(gt=0, allow_inf_nan=False)
    noise_scale: float = Field(gt=0, allow_inf_nan=False)

    @property
    def mu(self) -> float:
        """Gaussian-DP parameter of this event under add/remove of one unit: sensitivity / noise."""
        return self.sensitivity / self.noise_scale

    @property
    def replace_one_mu(self) -> float:
        """Gaussian-DP parameter of this event when one unit's record is replaced by another."""
        return self.replace_one_sensitivity / self.noise_scale


class SelectionEvent(BaseModel):
    """A fixed number of choices, one after the other, each by the exponential mechanism (McSherry, Talwar 2007).

    A choice takes candidate i with probability ∝ exp(score_i / noise_scale), which is what adding Gumbel noise of that
    scale to the scores and taking the largest does. Adding or removing one privacy unit moves any score, up or down, by
    at most `sensitivity` Δ; replacing one by at most `replace_one_sensitivity`.

    The log-probabilities of two neighbours then differ by a function of range 2Δ/noise_scale = ε₀, and among all such
    mechanisms (Dong, Durfee, Rogers 2020, "Optimal differential privacy composition for exponential mechanisms") the
    worst has the trade-off function of a shift by ε₀ under logistic noise: the envelope of their privacy profiles,
    (1 − √(α·e^−ε₀))² / (1 − e^−ε₀) for α = e^ε, is conjugate to f(a) = 1 − σ(logit a + ε₀). A Gaussian shift by μ has
    1 − Φ(Φ⁻¹(a) + μ), which is nowhere larger as soon as logit Φ(y + μ) − logit Φ(y) ≥ ε₀ for all y. The slope
    φ/(Φ·(1 − Φ)) of logit Φ is even and grows with |y|, so the difference is smallest at y = −μ/2, and the choice is
    μ-GDP with Φ(μ/2) = σ(ε₀/2). So a choice composes like a Gaussian release, adaptively too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: Literal["exponential"] = "exponential"
    name: str = Field(min_length=1)
    selections: int = Field(ge=1, le=10_000_000)
    sensitivity: float = Field(gt=0, allow_inf_nan=False)
    replace_one_sensitivity: float = Field(gt=0, allow_inf_nan=False)
    noise_scale: float = Field(gt=0, allow_inf_nan=False)

    @property
    def mu(self) -> float:
        """Gaussian-DP parameter of all choices together under add/remove of one unit."""
        return math.sqrt(self.selections) * mu_of_choice(self.sensitivity / self.noise_scale)

    @property
    def replace_one_mu(self) -> float:
        """The same when one unit's record is replaced by another."""
        return math.sqrt(self.selections) * mu_of_choice(self.replace_one_sensitivity / self.noise_scale)


def mu_of_choice(half_range: float) -> float:
    """μ of one choice by the exponential mechanism whose log-probabilities move by at most ± `half_range`, rounded up.

    Known value: for small ranges √(π/2)·half_range.
    """
    # Φ(μ/2) = σ(r), written twice: near one half, and where σ is nearly 1.
    exact = math.sqrt(8) * erfinv(math.tanh(half_range / 2)) if half_range < 1 else -2 * ndtri(expit(-half_range))
    return float(exact) * (1 + 1e-9)


def half_range_of_choice(mu: float) -> float:
    """By how much log-probabilities may move, up or down, in a choice that costs μ at most; inverse of the above."""
    exact = 2 * math.atanh(math.erf(mu / math.sqrt(8))) if mu < 1 else log_ndtr(mu / 2) - log_ndtr(-mu / 2)
    return float(exact) * (1 - 1e-8)


class PoissonGaussianEvent(BaseModel):
    """A fixed number of steps of the Poisson-subsampled Gaussian mechanism (DP-SGD, Abadi et al. 2016).

    In each step every privacy unit takes part by itself with probability `sample_rate`; what a unit adds to the sum
    has norm at most one clipping norm; the noise of a coordinate is `noise_multiplier` clipping norms. All three are
    constants of the config, never computed from the number of people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: Literal["poisson-subsampled-gaussian"] = "poisson-subsampled-gaussian"
    name: str = Field(min_length=1)
    sample_rate: float = Field(gt=0, le=1, allow_inf_nan=False)
    # The bounds are those within which the accountants' floating point has been tried.
    noise_multiplier: float = Field(gt=0, le=1e6)
    steps: int = Field(ge=1, le=10_000_000)


class HeldOutEvent(BaseModel):
    """One Gaussian release about the people whom coins kept out of every other release of the same run.

    Each privacy unit was held out by a coin of its own with probability `holdout`, a constant of the config. The other
    fields are those of a `GaussianEvent`. A unit is in this release or in the others, never in both, so that a run
    costs the larger of the two: `synth.privacy.composition.cost_of_run` says why, and is to be asked before anything
    is added up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: Literal["gaussian-on-held-out"] = "gaussian-on-held-out"
    name: str = Field(min_length=1)
    holdout: float = Field(gt=0, lt=1, allow_inf_nan=False)
    sensitivity: float = Field(gt=0, allow_inf_nan=False)
    replace_one_sensitivity: float = Field(gt=0, allow_inf_nan=False)
    noise_scale: float = Field(gt=0, allow_inf_nan=False)

    @property
    def alone(self) -> GaussianEvent:
        """The same release as it would stand by itself, without the other people."""
        return GaussianEvent(**self.model_dump(exclude={"mechanism", "holdout"}))


GdpEvent = GaussianEvent | SelectionEvent
"""What has a Gaussian-DP parameter μ, so that it is added up exactly and at once."""
Composable = GdpEvent | PoissonGaussianEvent
"""What can be added up, whichever run it is of."""
Event = Annotated[
    GaussianEvent | SelectionEvent | PoissonGaussianEvent | HeldOutEvent, Field(discriminator="mechanism")
]
"""What a run reserves and spends."""
