"""How an image run's budget is split, from the config and the schema alone, before anything is read.

Four Gaussian releases, and the steps of a critic where it has a share of what is left for the fourth. With
B = μ(ε, δ)², a release of sensitivity Δ and noise s costs (Δ/s)².

1. A histogram of the lengths of the pictures' coefficient vectors: one-hot, so Δ = 1 (√2 when one is replaced).
2. Class sizes and means: the row of a picture's class gets (φ/C, 1)/√2 with ‖φ‖ ≤ C. Its length is at most 1;
   replacing moves it by at most √2: within a class 2·1/√2, between classes √(1 + 1).
3. A histogram of the lengths of the centred, weighted vectors: as 1.
4. Second moments by class: uuᵀ with u = (√.8·φ/C, √.2), so ‖uuᵀ‖ = ‖u‖² ≤ 1. Replacing moves it by at most √2, since
   ‖uuᵀ − vvᵀ‖² = ‖u‖⁴ + ‖v‖⁴ − 2⟨u,v⟩² ≤ 2. A symmetric matrix is released as its diagonal and √2 times its upper
   triangle, a vector of the same length.

A critic's share comes off the second moments, and its noise is what (ε, δ) of the whole run then allows.

Classes are disjoint, so each release costs the same however many there are. m pictures a person add up to m times all
of these. All bounds hold after rounding to whole numbers (`bounded.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from synth.privacy.accounting import mu_of
from synth.privacy.budget import critic_event
from synth.privacy.events import Event, GaussianEvent, PoissonGaussianEvent

LENGTHS = "histogram of coefficient lengths"
MEANS = "class sizes and mean coefficients by class"
CENTRED_LENGTHS = "histogram of centred coefficient lengths"
SECOND_MOMENTS = "second moments of coefficients by class"

SHARES = {LENGTHS: 0.01, MEANS: 0.07, CENTRED_LENGTHS: 0.02, SECOND_MOMENTS: 0.90}
"""Parts of μ². They were chosen on public data (benchmarks/images.md)."""


@dataclass(frozen=True)
class ImagePlan:
    """What an image run will release; fixed before the first read.

    Attributes:
        mu: μ of a run without a critic that has this noise of second moments, under add/remove of one unit.
        max_rows_per_person: m.
        releases: the releases that the model is learned from, in order. Noise is in pictures for the histograms, in
            units of one picture's longest vector for the others.
        critic: the steps of the critic trained by DP-SGD; None without one.
    """

    mu: float
    max_rows_per_person: int
    releases: tuple[GaussianEvent, ...]
    critic: PoissonGaussianEvent | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that is charged."""
        return (*self.releases, *(() if self.critic is None else (self.critic,)))

    def noise(self, name: str) -> float:
        """Noise scale of a release."""
        return next(event.noise_scale for event in self.releases if event.name == name)


def plan_images(
    *,
    epsilon: float,
    delta: float,
    max_rows_per_person: int = 1,
    critic_share: float = 0.0,
    critic_steps: int = 0,
    critic_sample_rate: float = 0.0,
) -> ImagePlan:
    """Split (ε, δ) over the releases of an image run, and over the critic when it gets a share.

    Raises UserError when the critic's share is too small for any noise to fit it.

    Args:
        epsilon: the run's ε; delta: its δ.
        max_rows_per_person: m.
        critic_share: share of what clipping lengths, class sizes and means leave that a critic gets, in [0, 1).
        critic_steps: DP-SGD steps of the critic; critic_sample_rate: chance of a person to join one of them.
    """
    mu, m = mu_of(epsilon, delta), max_rows_per_person
    releases = tuple(
        GaussianEvent(
            name=name,
            sensitivity=m,
            replace_one_sensitivity=math.sqrt(2) * m,
            noise_scale=m / (math.sqrt(share * (1 - critic_share if name == SECOND_MOMENTS else 1)) * mu),
        )
        for name, share in SHARES.items()
    )
    return ImagePlan(
        mu=mu * math.sqrt(1 - critic_share),
        max_rows_per_person=m,
        releases=releases,
        critic=None
        if critic_share == 0
        else critic_event(epsilon, delta, releases, steps=critic_steps, sample_rate=critic_sample_rate),
    )
