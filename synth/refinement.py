"""Refinement: a fitted generator goes on against a critic that is trained on the private rows by DP-SGD.

What tables and images have in common: the two sides and their steps, the constants, the trainer, and the order in which
things happen (charge, then draw). The critic's steps are the only access to private rows: their number, rate, clipping
norm and noise are constants of the config. What a generator learns from the critic is post-processing. The last weights
are kept, averaged over the steps; none are chosen by a score.
"""

from __future__ import annotations

import copy
import logging
import math
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from torch import Tensor, nn

from synth.config import Critic as CriticConfig
from synth.config import Run
from synth.privacy.dp_sgd import DpSgdConfig, GhostClipping, PoissonBatches, PrivateBatch, PrivateCritic
from synth.privacy.dp_sgd.noising import split_like
from synth.privacy.dp_sgd.processes import rank_and_world_size, sum_over_processes
from synth.privacy.events import Event, PoissonGaussianEvent
from synth.ranks import Ranks, accelerator_of, join, refuse_apart, strategy_of
from synth.run_folder import CRITIC, RunFolder
from synth.tables.train import quiet_lightning
from synth.threads import torch_threads

logger = logging.getLogger(__name__)

ALONE = 0.1
"""Part of the steps in which the critic learns alone, before the generator listens to it."""
ALONE_HERE = Ranks()


class RowCritic(Protocol):
    """A network that scores each row by itself; both losses take columns [B, …] and return [B]."""

    def real_losses(self, *columns: Tensor) -> Tensor:
        """The loss of each real row."""

    def fake_losses(self, *columns: Tensor) -> Tensor:
        """The loss of each generated row."""


G = TypeVar("G", bound=nn.Module)
C = TypeVar("C", bound=nn.Module)


@dataclass(frozen=True)
class RefineSettings:
    """How a generator is refined, beside the constants of DP-SGD; from config and schema alone.

    Attributes:
        learning_rate: Adam's rate, of critic and generator.
        hidden_size: width of the critic.
        weight: of the critic's verdict in the generator's loss, beside the moments.
        max_rows_per_person: m; a row's loss counts 1/m, so that a person with m rows weighs as much as a fake.
        accelerator: as in Lightning.
        threads: CPU threads of torch.
    """

    learning_rate: float
    hidden_size: int
    weight: float
    max_rows_per_person: int
    accelerator: Literal["auto", "cpu", "gpu"]
    threads: int


def settings_of(run: Run, recipe: CriticConfig) -> RefineSettings:
    """The settings of a run."""
    asked = run.config.synthesizer
    return RefineSettings(
        learning_rate=recipe.learning_rate,
        hidden_size=recipe.hidden_size,
        weight=recipe.weight,
        max_rows_per_person=run.declared.max_rows_per_person,
        accelerator=accelerator_of(asked.accelerator, asked.critic.processes),
        # Two threads on a busy two-core machine can be many times slower than one.
        threads=1 if asked.threads == "auto" else asked.threads,
    )


def constants_of(event: PoissonGaussianEvent, recipe: CriticConfig, *, people: float) -> DpSgdConfig:
    """The constants of DP-SGD for what was reserved.

    What divides the noised sum follows from a count of people that is paid for, or declared; the rate is a constant.
    """
    return DpSgdConfig(
        sample_rate=event.sample_rate,
        steps=event.steps,
        expected_batch_size=max(1.0, event.sample_rate * people),
        max_grad_norm=recipe.max_grad_norm,
        noise_multiplier=event.noise_multiplier,
    )


def charging(folder: RunFolder, charge: Callable[[Event], None], event: Event) -> Callable[[], None]:
    """What is called before the first person is drawn. From then on the note CRITIC says that what was drawn is not
    saved, until the refined model is."""

    def draw() -> None:
        folder.note(CRITIC, False)
        charge(event)

    return draw


def newly_drawn(make: Callable[[], C]) -> C:
    """A network with fresh starting weights, which are no noise: any seed will do. torch keeps its own state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(secrets.randbits(63))
        return make()


class Refining(pl.LightningModule, Generic[G, C]):
    """A generator and a private critic in turns. `average` is the generator with its weights averaged over its steps.

    Args:
        generator: where the fit ended; a copy of it is refined.
        critic: a fresh one (a `RowCritic`).
        example: made-up rows, a column each, for `PrivateCritic`.
        fakes: generated rows in a step: a constant, so that their number says nothing about the number of real ones.
        settings: how; config: the constants of DP-SGD.
        physical_batch_size: rows processed at once, for memory.
    """

    def __init__(
        self,
        generator: G,
        critic: C,
        example: Sequence[Tensor],
        *,
        fakes: int,
        settings: RefineSettings,
        config: DpSgdConfig,
        physical_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.steps = settings, config.steps
        self.generator = copy.deepcopy(generator).train().requires_grad_(True)
        self.average = copy.deepcopy(generator).train().requires_grad_(False)
        self.critic = critic
        scored, weight = cast(RowCritic, critic), 1 / settings.max_rows_per_person
        self.private = PrivateCritic(
            critic,
            lambda *columns: weight * scored.real_losses(*columns),
            example,
            config,
            physical_batch_size=physical_batch_size,
        )
        # Fakes are clipped row by row like people, so that where generator and data agree the two sides cancel.
        self._fakes = GhostClipping(_layers(critic), scored.fake_losses, config.max_grad_norm, physical_batch_size)
        self._fakes_in_a_step = fakes

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for each side."""
        rate = self.settings.learning_rate
        return [
            torch.optim.Adam(self.critic.parameters(), lr=rate, betas=(0.5, 0.99)),
            torch.optim.Adam(self.generator.parameters(), lr=rate, betas=(0.5, 0.99)),
        ]

    def step_critic(self, batch: PrivateBatch, fakes: Sequence[Tensor]) -> None:
        """One step of DP-SGD, with this process's rows and fakes. Nothing about the batch is logged."""
        self.private.private_step(batch.columns, persons=batch.persons)
        gradients = self._fakes.clipped_sum(fakes)
        total = sum_over_processes(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for parameter, gradient in zip(self._fakes.parameters, split_like(total, gradients), strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(gradient / self._fakes_in_a_step)
        cast(list[Any], self.optimizers())[0].step()

    def listens(self, step: int) -> bool:
        """Whether the generator has begun to listen to the critic."""
        return step >= ALONE * self.steps

    def step_generator(self, loss: Tensor, step: int, *, decay: float) -> None:
        """One step of the generator, at a rate that falls as a cosine, so that the last weights stand still."""
        optimizer = cast(list[Any], self.optimizers())[1]
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)


def train(
    build: Callable[[], Refining[G, C]],
    batches: PoissonBatches,
    settings: RefineSettings,
    *,
    charge: Callable[[], None],
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    ranks: Ranks = ALONE_HERE,
) -> tuple[G, Refining[G, C]]:
    """Build the two sides and take all steps: the averaged generator, on the CPU, and both sides as they ended.

    `charge` is called once whatever can be refused has been, and before the first person is drawn. Each of several
    processes (`ranks`) calls this with the same rows, and draws from its own share of the people; the run's own
    process, which is none of them, charges.
    """
    with torch_threads(settings.threads):
        module = build()
        charge()
        join(ranks)
        with quiet_lightning():
            _trainer(settings, len(batches), precision, ranks).fit(module, batches)
        module.private.refuse_unfinished()
        refuse_apart([*module.average.parameters(), *module.critic.parameters()], ranks)
    return module.average.cpu().eval().requires_grad_(True), module


def part_of(count: int) -> range:
    """Which of so many generated rows are this process's."""
    rank, processes = rank_and_world_size()
    return range(rank * count // processes, (rank + 1) * count // processes)


def gathered(own: Tensor, count: int) -> Tensor:
    """The rows of all processes [count, …] in order, of which this one's, `part_of(count)`, alone have a gradient.

    What each process derives of a sum over all rows so adds up to what one process alone would derive.
    """
    if len(own) == count:
        return own
    mine, rows = part_of(count), own.new_zeros(count, *own.shape[1:])
    rows[mine.start : mine.stop] = own.detach()
    rows = sum_over_processes(rows)
    return torch.cat([rows[: mine.start], own, rows[mine.stop :]])


def parameters_of(network: nn.Module) -> int:
    """How many numbers a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def _layers(critic: nn.Module) -> Mapping[str, nn.Module]:
    return {name: module for name, module in critic.named_modules() if list(module.parameters(recurse=False))}


def _trainer(
    settings: RefineSettings, steps: int, precision: Literal["32-true", "bf16-mixed"], ranks: Ranks
) -> pl.Trainer:
    terminal = sys.stderr.isatty()
    progress: Callback = TQDMProgressBar(refresh_rate=10) if terminal else _PlainProgress(steps)
    return pl.Trainer(
        max_epochs=1,
        accelerator=settings.accelerator,
        devices=ranks.count,
        strategy=strategy_of(ranks),
        use_distributed_sampler=False,
        precision=precision,
        logger=False,
        callbacks=[progress],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=terminal,
        num_sanity_val_steps=0,
    )


class _PlainProgress(Callback):
    """A few plain lines where there is no terminal."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 in {self._steps // 2, self._steps}:
            logger.info("refine: critic step %d of %d", batch_idx + 1, self._steps)
