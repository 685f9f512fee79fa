"""Refine: the moments' model goes on against a critic that is trained on the private pictures by DP-SGD.

What it adds to its pictures (`Residual`) starts as nothing, or as public pictures have taught it. The critic teaches
what second moments do not hold, while the loss of the moments keeps those about where they were. What this has in
common with tables is in `synth.refinement`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from synth.image_schema import ImageSchema
from synth.images.critic import ImageCritic
from synth.images.measure import FEATURE_PART, ImageMeasurements
from synth.images.model import DITHER, ImageModel
from synth.images.pictures import PrivatePictures
from synth.images.residual import Residual, residual_for
from synth.privacy.dp_sgd import DpSgdConfig, PoissonBatches, PrivateBatch
from synth.privacy.dp_sgd.processes import rank_and_world_size, sum_over_processes
from synth.ranks import Ranks
from synth.refinement import (
    ALONE_HERE,
    RefineSettings,
    Refining,
    gathered,
    newly_drawn,
    parameters_of,
    part_of,
    train,
)
from synth.threads import torch_threads

FAKES = 512
"""Generated pictures in a step."""
PHYSICAL_BATCH = 1024
"""Private pictures whose gradients are held at once."""
AVERAGE = 0.999
"""Weights of so much of the past are averaged; of less as long as there is little of it."""
ANCHOR = 3.0
TOLERANCE = 0.1
"""Weight of the moments' loss, and what it is measured in: the noise of their release, and beside it so large a part of
the moments themselves. Held to next to no noise, nothing could be learned on the way."""
DRIFT_PICTURES = 2048

LADDER = (1, 2, 5, 10, 20, 50)
"""Steps of the critic for one of the generator."""
TOO_FEW = 0.65
"""When the critic tells so few of the generated pictures it gets more steps (Bie, Kamath, Zhang 2023, section 4)."""
MEMORY = 0.95


@dataclass(frozen=True)
class Pace:
    """How many steps the critic takes before the generator takes one. Follows from generated pictures alone.

    How many steps the critic takes in all is fixed beforehand, so this bears on no cost.

    Attributes:
        rung: of the ladder.
        told: running mean of the share of generated pictures that the critic tells, since it is on this rung.
        waited: steps of the critic since the generator's last.
    """

    rung: int = 0
    told: float = 1.0
    waited: int = 0

    @property
    def critic_steps(self) -> int:
        """Steps of the critic for one of the generator."""
        return LADDER[self.rung]

    @property
    def due(self) -> bool:
        """Whether it is the generator's turn."""
        return self.waited >= self.critic_steps

    def after_critic(self, told: float) -> Pace:
        """After a step of the critic before which it told this share of the generated pictures."""
        mean = MEMORY * self.told + (1 - MEMORY) * told
        if mean <= TOO_FEW and self.rung + 1 < len(LADDER):
            return Pace(rung=self.rung + 1, waited=self.waited + 1)
        return replace(self, told=mean, waited=self.waited + 1)

    def after_generator(self) -> Pace:
        """After a step of the generator."""
        return replace(self, waited=0)


@dataclass(frozen=True)
class RefinedPictures:
    """The residual and how it came about; the fields are those of `ImageCriticFacts`."""

    residual: Residual
    critic_parameters: int
    generator_steps: int
    most_critic_steps: int
    drift: float


def refine(
    model: ImageModel,
    measured: ImageMeasurements,
    private: PrivatePictures,
    settings: RefineSettings,
    config: DpSgdConfig,
    *,
    charge: Callable[[], None],
    ranks: Ranks = ALONE_HERE,
) -> RefinedPictures:
    """Refine a fitted model against a private critic. `charge` is called before the first person is drawn.

    Each of several processes (`ranks`) calls this with the same pictures, and draws from its own share of the people.
    All have the same residual in the end.
    """
    residual, module = train(
        lambda: PictureRefinement(model, measured, settings, config),
        PoissonBatches([private.pixels, private.labels], config, persons=private.persons),
        settings,
        charge=charge,
        precision=precision_of(settings),
        ranks=ranks,
    )
    assert isinstance(module, PictureRefinement)
    with torch_threads(settings.threads), torch.inference_mode():
        drift = float(module.cpu().drift(DRIFT_PICTURES, residual))
    return RefinedPictures(
        residual=residual,
        critic_parameters=parameters_of(module.critic),
        generator_steps=module.generator_steps,
        most_critic_steps=module.pace.critic_steps,
        drift=max(0.0, drift),
    )


def precision_of(settings: RefineSettings) -> Literal["32-true", "bf16-mixed"]:
    """bfloat16 in the networks on a GPU; norms, clipping, sums and noise keep full precision (`dp_sgd.precision`)."""
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if on_gpu else "32-true"


def critic_for(schema: ImageSchema, hidden_size: int) -> ImageCritic:
    """A critic of the declared form and classes."""
    return ImageCritic(schema.image, classes=len(schema.target.classes), hidden_size=hidden_size)


class PictureRefinement(Refining[Residual, ImageCritic]):
    """The residual and a private critic: some steps of DP-SGD, then one step of the residual, and so on."""

    def __init__(
        self, model: ImageModel, measured: ImageMeasurements, settings: RefineSettings, config: DpSgdConfig
    ) -> None:
        form, classes = model.schema.image, len(model.class_share)
        critic = newly_drawn(lambda: critic_for(model.schema, settings.hidden_size))
        super().__init__(
            model.residual or newly_drawn(lambda: residual_for(model.schema, settings.hidden_size)),
            critic,
            critic.example(),
            fakes=FAKES,
            settings=settings,
            config=config,
            physical_batch_size=PHYSICAL_BATCH,
        )
        self.pace, self.generator_steps = Pace(), 0
        self._shape = (form.channels, form.height, form.width)
        d = measured.features
        basis = model.transform.values(np.eye(d), form.height, form.width).transpose(0, 3, 1, 2).reshape(d, -1)
        for name, value in {
            "basis": basis,
            "means": model.means,
            "factors": model.factors,
            "share": model.class_share,
            "centres": measured.centres,
            "weight": measured.weight,
        }.items():
            self.register_buffer(f"of_{name}", torch.from_numpy(np.array(value, dtype=np.float32)), persistent=False)
        self._clip = measured.clip
        # A matrix's diagonal has noise s, the rest s/√2: this is what noise alone adds to the squared distance of all.
        cells = classes * (d + 1) * (d + 2) / 2
        self._noise = (measured.moment_noise / measured.total) ** 2 * cells
        size = float(np.square(measured.moments).sum()) / measured.total**2
        self._slack = self._noise + TOLERANCE**2 * max(0.0, size - self._noise)

    def training_step(self, batch: PrivateBatch, batch_idx: int) -> None:
        """A step of the critic, and one of the residual when it is its turn."""
        start, seen, labels = self.drawn(len(part_of(FAKES)))
        with torch.no_grad():
            pictures = self.refined(start, seen, labels, self.generator)
            told = sum_over_processes((self.critic(2 * pictures - 1, labels) < 0).sum()).item() / FAKES
        # Where autocast keeps copies of weights, these have no graph, and later ones would be of before the step.
        torch.clear_autocast_cache()
        self.step_critic(batch, [2 * pictures - 1, labels])
        torch.clear_autocast_cache()
        if not self.listens(batch_idx):
            return
        self.pace = self.pace.after_critic(told)  # the same in each process
        if self.pace.due:
            pictures = self.refined(start, seen, labels, self.generator)
            verdict = self.critic(2 * pictures - 1, labels).sum() / FAKES
            moments = ANCHOR * self.moved(pictures, start.clamp(0, 1), labels, FAKES) / self._slack
            made = self.generator_steps
            decay = min(AVERAGE, (1 + made) / (10 + made))
            # Each process has its part of the gradient; they are averaged.
            loss = rank_and_world_size()[1] * (moments - self.settings.weight * verdict)
            self.step_generator(loss, batch_idx, decay=decay)
            self.pace, self.generator_steps = self.pace.after_generator(), made + 1

    def drawn(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures of the moments' model, not clipped, what its residual sees of them (both [count, channels, height,
        width]), and their classes, in order, by the noised shares."""
        with torch.autocast(self.device.type, enabled=False):
            labels = torch.multinomial(self._of("share"), count, replacement=True).sort().values
            means, factors = self._of("means"), self._of("factors")
            parts = [
                means[label] + torch.randn(size, means.shape[1], device=self.device) @ factors[label].T
                for label, size in enumerate(labels.bincount().tolist())
                if size
            ]
            x = torch.cat(parts)
            seen = x + DITHER * torch.randn_like(x)
            start, seen = ((values @ self._of("basis")).view(-1, *self._shape) for values in (x, seen))
            return start, seen, labels

    def refined(self, start: Tensor, seen: Tensor, labels: Tensor, residual: Residual) -> Tensor:
        """The pictures with what the residual adds, clipped to the range of values."""
        added: Tensor = residual(seen, labels)
        return (start + added).clamp(0, 1)

    def moved(self, pictures: Tensor, start: Tensor, labels: Tensor, count: int) -> Tensor:
        """How far the second moments by class of `count` pictures, of which these are this process's part, are from the
        start's, as a squared distance."""
        with torch.autocast(self.device.type, enabled=False):
            u, v = self.vectors(pictures, labels), self.vectors(start, labels)
            return moment_distance(gathered(u, count), gathered(v, count), gathered(labels, count))

    def vectors(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """u [n, d + 1] of pictures in [0, 1], as they were measured (`synth.images.measure`) but for rounding."""
        x = (pictures.flatten(1) @ self._of("basis").T - self._of("centres")[labels]) * self._of("weight")
        length = x.norm(dim=1, keepdim=True).clamp(min=self._clip)
        constant = torch.full_like(length, math.sqrt(1 - FEATURE_PART))
        return torch.cat([math.sqrt(FEATURE_PART) * x / length, constant], dim=1)

    def drift(self, count: int, residual: Residual) -> Tensor:
        """How far a residual has moved the moments, of so many fresh pictures, in units of what noise alone adds."""
        start, seen, labels = self.drawn(count)
        return self.moved(self.refined(start, seen, labels, residual), start.clamp(0, 1), labels, count) / self._noise

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(f"of_{name}")


def moment_distance(moved: Tensor, start: Tensor, labels: Tensor) -> Tensor:
    """Σ over classes c of ‖E 1(c) uuᵀ − E 1(c) vvᵀ‖², estimated without bias from pairs u, v [n, d] and classes [n].

    ⟨uuᵀ, vvᵀ⟩ = (u·v)², so it is a squared maximum mean discrepancy with a quadratic kernel (Gretton et al. 2012, lemma
    6); where u and v come in pairs and are equal, it is zero and not only so in expectation.
    """
    same = (labels[:, None] == labels[None, :]).fill_diagonal_(False)
    apart = (moved @ moved.T).square() - 2 * (moved @ start.T).square() + (start @ start.T).square()
    return (apart * same).sum() / (len(labels) * (len(labels) - 1))
