"""What was done to private data. Events say what happened; accounting says what it costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


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


Composable = GaussianEvent | PoissonGaussianEvent
"""What can be added up, whichever run it is of."""
Event = Annotated[GaussianEvent | PoissonGaussianEvent | HeldOutEvent, Field(discriminator="mechanism")]
"""What a run reserves and spends."""
