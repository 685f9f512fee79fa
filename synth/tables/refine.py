"""Refine: the fitted generators go on against a critic that is trained on the private rows by DP-SGD.

The generators start where the fit to the moments ended and are held there by those moments (`Targets.loss`, measured in
the noise of the release), while the critic adds what no pair table holds. What this has in common with images is in
`synth.refinement`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from synth.privacy.dp_sgd import DpSgdConfig, PoissonBatches, PrivateBatch
from synth.privacy.dp_sgd.processes import rank_and_world_size
from synth.ranks import Ranks
from synth.refinement import (
    ALONE_HERE,
    RefineSettings,
    Refining,
    newly_drawn,
    parameters_of,
    part_of,
    train,
)
from synth.tables.count import Codes
from synth.tables.critic import Critic
from synth.tables.generator import Generator
from synth.tables.measurements import Measurements
from synth.tables.targets import Encoding, encoding_of
from synth.tables.train import moments_of
from synth.threads import torch_threads
from synth.working_file import private_array

FAKES = 1024
"""Generated rows in a step."""
AVERAGE = 0.98


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
    have the same generators in the end.
    """
    encoding = encoding_of(measured)
    average, module = train(
        lambda: Refinement(members, measured, encoding, settings, config),
        PoissonBatches([private.rows], config, persons=private.persons),
        settings,
        charge=charge,
        ranks=ranks,
    )
    refined = tuple(cast(Generator, member) for member in average)
    targets = moments_of(measured, encoding)
    with torch_threads(settings.threads), torch.inference_mode():
        chi = float(targets.loss(_points(refined))) / max(1, targets.cells)
    return Refined(refined, chi, parameters_of(module.critic))


class Refinement(Refining[nn.ModuleList, Critic]):
    """Generators and a private critic in turns: one step of DP-SGD, then one step of the generators."""

    def __init__(
        self,
        members: Sequence[Generator],
        measured: Measurements,
        encoding: Encoding,
        settings: RefineSettings,
        config: DpSgdConfig,
    ) -> None:
        classes = len(measured.class_sizes)
        critic = newly_drawn(lambda: Critic(sizes=encoding.sizes, classes=classes, hidden_size=settings.hidden_size))
        super().__init__(
            nn.ModuleList(members), critic, [critic.example()], fakes=FAKES, settings=settings, config=config
        )
        self.encoding = encoding
        self._class_share = torch.from_numpy(measured.class_sizes / measured.class_sizes.sum()).float()
        with torch.no_grad():
            # Held to the noised values themselves, the generators would go on where their fit was stopped, and learn
            # the noise.
            self._anchor = moments_of(measured, encoding).held(_points(self.generator))

    def setup(self, stage: str) -> None:
        """Move what is no parameter to the device."""
        self._anchor, self._class_share = self._anchor.to(self.device), self._class_share.to(self.device)

    def training_step(self, batch: PrivateBatch, batch_idx: int) -> None:
        """One step of each side."""
        shares = _points(self.generator)
        chosen, fakes = self.fakes(shares)
        self.step_critic(batch, [fakes])
        if self.listens(batch_idx):
            moments = self._anchor.loss(shares) / self._anchor.cells
            loss = moments - self.settings.weight * self.verdict(chosen, fakes)
            self.step_generator(loss, batch_idx, decay=AVERAGE)

    def fakes(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """This process's part of FAKES generated rows: the column distributions they are drawn from [n, D], and they
        themselves, one-hot and with their class [n, D + C]. Classes come by the noised shares, latent points evenly."""
        count = len(part_of(FAKES))
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
            mine = slice((j - part_of(FAKES).start) % columns, None, columns)
            scores = self.critic.exchanged(fakes[mine], j)
            total = total + (chosen[mine, start : start + size] * scores).sum()
        return total * columns * rank_and_world_size()[1] / FAKES


def _points(members: Iterable[nn.Module]) -> Tensor:
    """Column distributions of all members' banks within every class [C, K of all, D]."""
    return torch.cat([member.all_points() for member in members], dim=1)  # type: ignore[operator]
