"""The constants of a DP-SGD run. All of them are public choices, and none may follow from the data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DpSgdConfig(BaseModel):
    """What the accountant and the training step both read (Abadi et al. 2016, Algorithm 1).

    The number of people appears nowhere: a rate or a step count computed from n would give two
    neighbouring tables two different mechanisms. One step releases

        (sum over sampled people of clip(gradient, max_grad_norm) + noise_scale · N(0, I)) / expected_batch_size

    where clip(g, C) = g · min(1, C / |g|) and |·| is the L2 norm over all parameters together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate: float = Field(gt=0, le=1, description="q, the probability with which each person joins a step")
    steps: int = Field(gt=0, description="T, the number of steps; neither more nor, by choice on private data, fewer")
    expected_batch_size: float = Field(gt=0, allow_inf_nan=False, description="divides the noised sum; people")
    # Far smaller or larger ones would leave the range in which float32 weights clip to the last digits.
    max_grad_norm: float = Field(ge=1e-6, le=1e6, description="C, the L2 bound on one person's gradient")
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False, description="σ, noise in units of max_grad_norm")

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the noise in each coordinate of the clipped sum: σC."""
        return self.noise_multiplier * self.max_grad_norm
