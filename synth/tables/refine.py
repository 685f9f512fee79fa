"""Refine: the fitted generators go on against a critic that is trained on the private rows by DP-SGD.

The generators start where the fit to the moments ended and are held there by those moments (`Targets.loss`, measured in
the noise of the release), while the critic adds what no pair table holds. The critic's steps are the only access to
private rows: their number, rate, clipping norm and noise are constants of the config. What the generators learn from
the critic is post-processing. The last weights are kept, averaged over the steps; none are chosen by a score.
"""

from __future__ import annotations

import copy
import logging
import math
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from torch import Tensor, nn

from synth.privacy.dp_sgd import DpSgdConfig, GhostClipping, PoissonBatches, PrivateBatch, PrivateCritic
from synth.privacy.dp_sgd.noising import split_like
from synth.privacy.dp_sgd.processes import rank_and_world_size, sum_over_processes, wait_for_all
from synth.tables.count import Codes
from synth.tables.critic import Critic
from synth.tables.generator import Generator
from synth.tables.measurements import Measurements
from synth.tables.ranks import Ranks, joined, refuse_apart, strategy_of
from synth.tables.targets import Encoding, encoding_of
from synth.tables.train import moments_of, quiet_lightning
from synth.working_file import private_array

logger = logging.getLogger(__name__)

FAKES = 1024
"""Generated rows in a step: a constant, so that their number says nothing about the number of real ones."""
ALONE = 0.1
"""Part of the steps in which the critic learns alone, before the generators listen to it."""
AVERAGE = 0.98
ALONE_HERE = Ranks()


@dataclass(frozen=True)
class RefineSettings:
    """How generators are refined, beside the constants of DP-SGD; from config and schema alone.

    Attributes:
        learning_rate: Adam's rate, of critic and generators.
        hidden_size: width of the critic's layers.
        weight: of the critic's verdict in the generators' loss, beside the moments.
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


@dataclass(frozen=True)
class Refined:
    """Refined generators, how well they still agree with the moments (as in `Fit`), and the size of the critic."""

    members: tuple[Generator, ...]
    chi: float
    critic_parameters: int


@dataclass(frozen=True)
class BinnedRows:
    """Every person's rows as bins and class, exact: whole numbers [rows, columns + 1]; and whose they are [rows]."""

    rows: npt.NDArray[np.int32]
    persons: npt.NDArray[np.int64] | None

    def __repr__(self) -> str:
        return "BinnedRows(…)"


def bin_rows(
    batches: Callable[[Sequence[str]], Iterable[Codes]],
    measured: Measurements,
    *,
    target: str | None,
    person: str | None,
    destination: Path,
) -> BinnedRows:
    """Map the working file's cells to bins, into one array, memory-mapped in the run's private folder or sealed.

    Args:
        batches: opens the working file and yields the named columns, batch by batch.
        measured: gives the bins and the classes.
        target: the target's name; None without one.
        person: the working file's column of person numbers; None when each row is a person.
        destination: the file to write, readable by its owner only.
    """
    names = list(measured.bin_of_cell)
    keys = list(dict.fromkeys([f"cells:{name}" for name in (*names, *([target] if target else []))]))
    rows = sum(len(batch[keys[0]]) for batch in batches(keys[:1]))
    table = private_array(destination, (rows, len(names) + 1))
    persons = None if person is None else np.empty(rows, dtype=np.int64)
    start = 0
    for batch in batches([*keys, *([person] if person else [])]):
        part = slice(start, start + len(batch[keys[0]]))
        for j, name in enumerate(names):
            table[part, j] = measured.bin_of_cell[name][batch[f"cells:{name}"]]
        table[part, -1] = measured.class_of_cell[batch[f"cells:{target}"]] if target else 0
        if persons is not None:
            persons[part] = batch[str(person)]
        start = part.stop
    return BinnedRows(table, persons)


def binned_rows(file: Path, batches: Callable[[Sequence[str]], Iterable[Codes]], *, person: str | None) -> BinnedRows:
    """What `bin_rows` has left in a file, for another process."""
    persons = None if person is None else np.concatenate([batch[person] for batch in batches([person])])
    return BinnedRows(np.load(file, mmap_mode="r", allow_pickle=False), persons)


def refine(
    members: Sequence[Generator],
    measured: Measurements,
    private: BinnedRows,
    settings: RefineSettings,
    config: DpSgdConfig,
    *,
    charge: Callable[[], None],
    ranks: Ranks = ALONE_HERE,
) -> Refined:
    """Refine fitted generators against a private critic. `charge` is called before the first person is drawn.

    Each of several processes (`ranks`) calls this with the same rows, and draws from its own share of the people. All
    have the same generators in the end. One of them charges.
    """
    encoding = encoding_of(measured)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with joined(ranks):
            module = Refinement(members, measured, encoding, settings, config)
            charge()
            wait_for_all()
            with quiet_lightning():
                trainer = _trainer(settings, config.steps, ranks)
                trainer.fit(module, PoissonBatches([private.rows], config, persons=private.persons))
            module.private.refuse_unfinished()
            refuse_apart(module.average.parameters(), ranks)
        refined = tuple(cast(Generator, member.cpu().eval().requires_grad_(True)) for member in module.average)
        targets = moments_of(measured, encoding)
        with torch.inference_mode():
            chi = float(targets.loss(_points(refined))) / max(1, targets.cells)
    finally:
        torch.set_num_threads(threads)
    return Refined(refined, chi, sum(p.numel() for p in module.critic.parameters()))


class Refinement(pl.LightningModule):
    """Generators and a private critic in turns: one step of DP-SGD, then one step of the generators.

    `average` are the generators with their weights averaged over the steps.
    """

    def __init__(
        self,
        members: Sequence[Generator],
        measured: Measurements,
        encoding: Encoding,
        settings: RefineSettings,
        config: DpSgdConfig,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.steps, self.encoding = settings, config.steps, encoding
        self.members = nn.ModuleList([copy.deepcopy(member).train().requires_grad_(True) for member in members])
        self.average = nn.ModuleList([copy.deepcopy(member).train().requires_grad_(False) for member in members])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(secrets.randbits(63))  # starting weights, not noise: any seed will do
            self.critic = Critic(
                sizes=encoding.sizes, classes=len(measured.class_sizes), hidden_size=settings.hidden_size
            )
        weight = 1 / settings.max_rows_per_person
        self.private = PrivateCritic(
            self.critic, lambda rows: weight * self.critic.real_losses(rows), [self.critic.example()], config
        )
        # Fakes are clipped row by row like people, so that where generator and data agree the two sides cancel.
        self._fakes = GhostClipping(_layers(self.critic), self.critic.fake_losses, config.max_grad_norm)
        self._class_share = torch.from_numpy(measured.class_sizes / measured.class_sizes.sum()).float()
        with torch.no_grad():
            # Held to the noised values themselves, the generators would go on where their fit was stopped, and learn
            # the noise.
            self._anchor = moments_of(measured, encoding).held(_points(self.members))

    def setup(self, stage: str) -> None:
        """Move what is no parameter to the device."""
        self._anchor, self._class_share = self._anchor.to(self.device), self._class_share.to(self.device)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for each side."""
        rate = self.settings.learning_rate
        return [
            torch.optim.Adam(self.critic.parameters(), lr=rate, betas=(0.5, 0.99)),
            torch.optim.Adam(self.members.parameters(), lr=rate, betas=(0.5, 0.99)),
        ]

    def training_step(self, batch: PrivateBatch, batch_idx: int) -> None:
        """One step of each side. Nothing about the batch is logged, its size included."""
        critic_step, generator_step = cast(list[Any], self.optimizers())
        shares = _points(self.members)
        chosen, fakes = self.fakes(shares)
        self.private.private_step(batch.columns, persons=batch.persons)
        gradients = self._fakes.clipped_sum([fakes])
        total = sum_over_processes(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for parameter, gradient in zip(self._fakes.parameters, split_like(total, gradients), strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(gradient / FAKES)
        critic_step.step()
        if batch_idx < ALONE * self.steps:
            return
        self._set_rate(generator_step, batch_idx)
        moments = self._anchor.loss(shares) / self._anchor.cells
        generator_step.zero_grad()
        self.manual_backward(moments - self.settings.weight * self.verdict(chosen, fakes))
        self.clip_gradients(generator_step, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        generator_step.step()
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.members.parameters(), strict=True):
                mean.lerp_(value, 1 - AVERAGE)

    def fakes(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """This process's part of FAKES generated rows: the column distributions they are drawn from [n, D], and they
        themselves, one-hot and with their class [n, D + C]. Classes come by the noised shares, latent points evenly."""
        count = len(_part())
        label = torch.multinomial(self._class_share, count, replacement=True)
        chosen = shares[label, torch.randint(shares.shape[1], (count,), device=shares.device)]
        with torch.no_grad():
            rows = torch.zeros(count, sum(self.critic.sizes), device=shares.device)
            for start, size in zip(self.encoding.offsets, self.encoding.sizes, strict=True):
                level = torch.multinomial(chosen[:, start : start + size], 1)
                rows.scatter_(1, level + start, 1.0)
            rows.scatter_(1, label[:, None] + self.encoding.width, 1.0)
        return chosen, rows

    def verdict(self, chosen: Tensor, fakes: Tensor) -> Tensor:
        """The critic's mean score of the generators, with the exact gradient by the columns' distributions.

        Of several processes each has the score of its own part; their mean is that of all.

        Given the others, a column's part in the expected score is Σ_v p(v) · score with v in its place. The fakes are
        divided among the columns. A straight-through draw would follow the critic's slopes at the corners instead,
        and misses what shows only when two columns change together.
        """
        columns = len(self.encoding.sizes)
        total = chosen.new_zeros(())
        for j, (start, size) in enumerate(zip(self.encoding.offsets, self.encoding.sizes, strict=True)):
            mine = slice((j - _part().start) % columns, None, columns)
            scores = self.critic.exchanged(fakes[mine], j)
            total = total + (chosen[mine, start : start + size] * scores).sum()
        return total * columns * rank_and_world_size()[1] / FAKES

    def _set_rate(self, optimizer: Any, step: int) -> None:
        """A cosine decay, so that the last weights stand still."""
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def _part() -> range:
    """Which of the FAKES generated rows are this process's."""
    rank, count = rank_and_world_size()
    return range(rank * FAKES // count, (rank + 1) * FAKES // count)


def _points(members: Iterable[nn.Module]) -> Tensor:
    """Column distributions of all members' banks within every class [C, K of all, D]."""
    return torch.cat([member.all_points() for member in members], dim=1)  # type: ignore[operator]


def _layers(critic: nn.Module) -> Mapping[str, nn.Module]:
    return {name: module for name, module in critic.named_modules() if list(module.parameters(recurse=False))}


def _trainer(settings: RefineSettings, steps: int, ranks: Ranks) -> pl.Trainer:
    terminal = sys.stderr.isatty()
    progress: Callback = TQDMProgressBar(refresh_rate=10) if terminal else _PlainProgress(steps)
    return pl.Trainer(
        max_epochs=1,
        accelerator=settings.accelerator if ranks.count == 1 else ranks.accelerator,
        devices=ranks.count,
        strategy=strategy_of(ranks),
        use_distributed_sampler=False,
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
