"""Train: fit the generator to the noised moments. Post-processing, so it may run as long as it likes.

The loss is an integral probability metric with a quadratic critic per class whose optimum has a closed form (mean
and covariance feature matching, McGAN, Mroueh et al. 2017): the precision-weighted squared residuals between the
generator's moments and the measured ones. Divided by the number of measured cells it is called chi; a fit to the
noise level has chi of about 1. When to stop is decided on an independent half of the noise (`Targets.thinned`).
"""

from __future__ import annotations

import copy
import logging
import math
import secrets
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from synth.config import Synthesizer
from synth.tables.block_targets import BlockTargets, block_targets_of
from synth.tables.checkpoint import SafetensorsCheckpointIO
from synth.tables.generator import Generator
from synth.tables.measurements import Measurements
from synth.tables.model import new_generator
from synth.tables.plan import fits_as_matrices
from synth.tables.targets import Encoding, Targets, encoding_of, targets_of
from synth.threads import torch_threads

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 20
CHECK_EVERY = 10
PATIENCE = 60
"""Steps without a better check after which a fit ends early: from there on it would learn the noise."""
THINNING = 0.4
LATENT_SIZE = 64
CHECKPOINT_EVERY = 200
LAST, FITTED = "last.ckpt", "fitted.ckpt"
"""A generator's latest checkpoint, and the generator once it is fitted."""


@dataclass(frozen=True)
class FitSettings:
    """How generators are fitted; follows from config, ε and the schema alone.

    Attributes:
        members: generators fitted to the same measurements, each with noise thinned by its own draw.
        steps: optimiser steps of each.
        latent_points: latent points in each one's bank.
        hidden_size: width of a block.
        learning_rate: Adam's peak rate.
        accelerator: as in Lightning.
        threads: CPU threads of torch.
    """

    members: int
    steps: int
    latent_points: int
    hidden_size: int
    learning_rate: float
    accelerator: Literal["auto", "cpu", "gpu"]
    threads: int


def settings_of(config: Synthesizer, *, epsilon: float, classes: int) -> FitSettings:
    """Fill in what the config leaves open. More budget carries more detail: longer steps, and more, and more points."""
    steps = (600 if epsilon < 3 else 800) if config.steps == "auto" else config.steps
    points = 512 if epsilon < 3 else 768
    # The fit works on classes x points rows a step: many classes share a larger bank.
    points = max(64, min(points, 2048 // classes)) if config.latent_points == "auto" else config.latent_points
    # Where most is noise, long steps are past the best fit before it is looked at.
    rate = (3e-3 if epsilon < 1 else 1e-2) if config.learning_rate == "auto" else config.learning_rate
    return FitSettings(
        members=config.members,
        steps=steps,
        latent_points=points,
        hidden_size=config.hidden_size,
        learning_rate=rate,
        accelerator=config.accelerator,
        # Two threads on a busy two-core machine can be many times slower than one.
        threads=1 if config.threads == "auto" else config.threads,
    )


@dataclass(frozen=True)
class Fit:
    """Fitted generators and how well they agree with what was measured.

    `chi` is the mean squared residual of the whole mixture over the noise variance.
    """

    encoding: Encoding
    members: tuple[Generator, ...]
    chi: float


def fit(measured: Measurements, settings: FitSettings, *, checkpoints: Path) -> Fit:
    """Fit every member to the measurements. Checkpoints (of noised facts only) go to the given folder.

    A fit to the same measurements that died goes on from the checkpoints it finds there.
    """
    encoding = encoding_of(measured)
    if not encoding.names:
        raise ValueError("nothing to fit: there are no columns beside the target")
    targets = moments_of(measured, encoding)
    with torch_threads(settings.threads):
        members = tuple(
            _fit_member(measured, encoding, targets, settings, checkpoints, number=i + 1)
            for i in range(settings.members)
        )
        with torch.inference_mode():
            shares = torch.cat([member.all_points() for member in members], dim=1)
            chi = float(targets.loss(shares)) / max(1, targets.cells)
    return Fit(encoding=encoding, members=members, chi=chi)


def _fit_member(
    measured: Measurements,
    encoding: Encoding,
    targets: Moments,
    settings: FitSettings,
    checkpoints: Path,
    *,
    number: int,
) -> Generator:
    files, folder = SafetensorsCheckpointIO(), checkpoints / f"member{number}"
    last, fitted = folder / LAST, folder / FITTED
    # The fit is post-processing: any seed will do. One that goes on needs its own, by which its noise was thinned.
    seed = int(files.load_checkpoint(last)["seed"]) if last.exists() else secrets.randbits(63)
    generator = new_generator(
        classes=len(measured.class_sizes),
        sizes=encoding.sizes,
        latent_points=settings.latent_points,
        latent_size=LATENT_SIZE,
        hidden_size=settings.hidden_size,
        seed=seed,
    )
    if fitted.exists():
        generator.load_state_dict(files.load_checkpoint(fitted))
        return generator.eval()
    start_from_one_ways(generator, measured, encoding)
    module = MomentFit(generator, targets, steps=settings.steps, learning_rate=settings.learning_rate, seed=seed)
    with quiet_lightning():
        steps: Any = DataLoader(range(settings.steps), batch_size=None)  # type: ignore[arg-type]
        _trainer(settings, folder, number).fit(module, steps, ckpt_path=last if last.exists() else None)
    generator.load_state_dict(module.best)
    files.save_checkpoint(dict(generator.state_dict()), fitted)
    return generator.cpu().eval()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's log lines and advice."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # A step number is all a batch holds: loader workers would only cost, and one epoch has no log interval.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*checkpoint that ended before the epoch ended.*")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        yield


def start_from_one_ways(generator: Generator, measured: Measurements, encoding: Encoding) -> None:
    """Set the class biases so that the generator starts near the measured one-ways."""
    with torch.no_grad():
        for name in encoding.names:
            logits = np.log(measured.profiles[name] + 1e-6)
            generator.class_bias[:, encoding.place(name)] = torch.from_numpy(logits).float()


def _trainer(settings: FitSettings, folder: Path, number: int) -> pl.Trainer:
    terminal = sys.stderr.isatty()
    callbacks: list[Callback] = [
        ModelCheckpoint(
            dirpath=folder,
            filename=Path(LAST).stem,
            every_n_train_steps=CHECKPOINT_EVERY,
            save_top_k=1,
            enable_version_counter=False,  # of a fit that goes on, the file is there already
        ),
        TQDMProgressBar(refresh_rate=10) if terminal else _PlainProgress(number, settings.members),
    ]
    return pl.Trainer(
        max_steps=settings.steps,
        accelerator=settings.accelerator,
        devices=1,
        gradient_clip_val=1.0,
        logger=False,
        callbacks=callbacks,
        plugins=[SafetensorsCheckpointIO()],
        enable_model_summary=False,
        enable_progress_bar=terminal,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


class _PlainProgress(Callback):
    """A few plain lines where there is no terminal."""

    def __init__(self, number: int, members: int) -> None:
        self._what = f"train: generator {number} of {members}"

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, steps = trainer.global_step, trainer.max_steps
        if step in {steps // 2, steps} or trainer.should_stop:
            chi = float(trainer.callback_metrics["chi"])
            logger.info("%s, step %d of %d, chi %.2f", self._what, step, steps, chi)


Moments = Targets | BlockTargets
"""What a generator is fitted to."""


def moments_of(measured: Measurements, encoding: Encoding) -> Moments:
    """Measurements arranged for the fit: as matrices of all bins by all bins, or pair by pair where these are large."""
    if fits_as_matrices(len(measured.class_sizes), encoding.width):
        return targets_of(measured, encoding)
    return block_targets_of(measured, encoding)


class MomentFit(pl.LightningModule):
    """One generator fitted to one set of noised moments.

    `best` holds the averaged weights of the step that agreed best with the independent half of the noise. `seed`
    decides how the noise is thinned; the generator was drawn by it too.
    """

    def __init__(self, generator: Generator, targets: Moments, *, steps: int, learning_rate: float, seed: int) -> None:
        super().__init__()
        self.generator = generator
        self.steps, self.learning_rate, self.seed = steps, learning_rate, seed
        randomness = torch.Generator().manual_seed(seed ^ 1)  # the weights are drawn by the seed itself
        self._fit: Moments
        self._check: Moments
        self._fit, self._check = targets.thinned(THINNING, randomness)
        self._average = copy.deepcopy(generator).requires_grad_(False)
        self.best: Mapping[str, Tensor] = copy.deepcopy(generator.state_dict())
        self.best_check = math.inf
        self.best_step = 0

    def setup(self, stage: str) -> None:
        """Move the targets to the device of the fit."""
        self._fit, self._check = self._fit.to(self.device), self._check.to(self.device)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with a short warm-up and a cosine decay."""
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=self.learning_rate, betas=(0.9, 0.99))

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / WARM_UP_STEPS)
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step on the whole bank; the batch is only a step number."""
        loss = self._fit.loss(self.generator.all_points(), with_pseudo=True) / self._fit.cells
        self.log("chi", loss.detach(), prog_bar=True)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the seed and the best weights so far too; the last ones and their average are there anyway."""
        checkpoint |= {"seed": self.seed, "best": (self.best_step, self.best_check, dict(self.best))}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from what was kept."""
        self.best_step, self.best_check, self.best = checkpoint["best"]

    def on_train_start(self) -> None:
        """A checkpoint is written before its step has ended in `on_train_batch_end`; this ends it."""
        if self.global_step:
            self._follow()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average the weights; now and then compare with the independent half of the noise."""
        self._follow()

    def _follow(self) -> None:
        decay = min(0.98, (self.global_step + 1) / (self.global_step + 10))
        with torch.no_grad():
            for mean, value in zip(self._average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
            if self.global_step % CHECK_EVERY == 0 or self.global_step == self.steps:
                check = float(self._check.loss(self._average.all_points())) / self._check.cells
                if check < self.best_check:
                    self.best_check, self.best_step = check, self.global_step
                    self.best = copy.deepcopy(self._average.state_dict())
                elif self.global_step - self.best_step >= PATIENCE:
                    self.trainer.should_stop = True
