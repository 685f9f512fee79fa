"""A search for violations: one person in or out moves what is summed by at most C.

Random tables of people, rows and fakes, then ascent from the worst of them, coordinate by coordinate, over the
person's rows and everybody else's. The honest step must survive; planted defects must not, or the search
has no power.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synth.privacy.dp_sgd import DpSgdConfig, PrivateCritic, SecureStream

C = 1.0
WIDTH = 3
# Noise and its grid far below the 1e-5 that is looked for; the noise itself is switched off.
CONFIG = DpSgdConfig(sample_rate=0.5, steps=10**9, expected_batch_size=7, max_grad_norm=C, noise_multiplier=1e-8)


@dataclass(frozen=True)
class Table:
    """Rows of people, and made-up rows. Person 0 is the one who comes and goes."""

    rows: Tensor
    persons: Tensor
    fakes: Tensor

    def without_the_person(self) -> Table:
        return replace(self, rows=self.rows[self.persons != 0], persons=self.persons[self.persons != 0])


Release = Callable[[Table], Tensor]


class Silence(SecureStream):
    def standard_normal(self, count: int) -> np.ndarray:
        return np.zeros(count)


def critic() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1),
                         nn.GroupNorm(1, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(27, 1))  # fmt: skip


network = critic()
parameters = list(network.parameters())


def gradient(loss: Tensor) -> Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, parameters)])


def zero() -> Tensor:
    return torch.zeros(sum(parameter.numel() for parameter in parameters))


def clip(grad: Tensor) -> Tensor:
    return grad * min(1.0, C / max(float(grad.norm()), 1e-30))


@pytest.fixture(scope="module")
def honest() -> Release:
    """A whole step, with fakes, times the expected batch size."""
    step = PrivateCritic(network, losses, [torch.randn(5, WIDTH)], CONFIG, noise=Silence(), physical_batch_size=4)

    def release(table: Table) -> Tensor:
        step.private_step([table.rows], persons=table.persons, free_loss=lambda: network(table.fakes).mean())
        return torch.cat([parameter.grad.flatten() for parameter in parameters]) * CONFIG.expected_batch_size

    return release


def losses(x: Tensor) -> Tensor:
    return -network(x)[:, 0]


def unclipped(table: Table) -> Tensor:
    return gradient(losses(table.rows).sum()) if len(table.rows) else zero()


def clipping_the_mean(table: Table) -> Tensor:
    # Where a step divides the clipped sum, this defect takes the clipped mean as it is.
    return clip(gradient(losses(table.rows).mean())) * CONFIG.expected_batch_size if len(table.rows) else zero()


def rows_clipped_one_by_one(table: Table) -> Tensor:
    return sum((clip(gradient(losses(row[None]).sum())) for row in table.rows), zero())


def persons_clipped(table: Table) -> Tensor:
    grads = (gradient(losses(table.rows[table.persons == who]).sum()) for who in table.persons.unique())
    return sum((clip(grad) for grad in grads), zero())


def divided_by_the_realised_size(table: Table) -> Tensor:
    return persons_clipped(table) * 7 / max(1, len(table.persons.unique()))


def as_many_fakes_as_reals(table: Table) -> Tensor:
    fakes = table.fakes.repeat(20, 1)[: len(table.rows)]
    return persons_clipped(table) + (gradient(network(fakes).sum()) if len(fakes) else zero())


def moved(release: Release, table: Table) -> float:
    return float((release(table).double() - release(table.without_the_person()).double()).norm())


def random_table(rng: np.random.Generator) -> Table:
    """One to five people of one to four rows, from tiny to huge; person 0 alone against the empty batch included."""
    persons = np.repeat(np.arange(rng.integers(1, 6)), rng.integers(1, 5))
    scale = 10.0 ** rng.uniform(-3, 3, size=(len(persons), 1))
    rows = rng.normal(size=(len(persons), WIDTH)) * scale
    if rng.random() < 0.3:
        rows[:] = rows[0]
    fakes = rng.normal(size=(rng.integers(1, 9), WIDTH)) * 10.0 ** rng.uniform(-2, 2)
    return Table(torch.tensor(rows).float(), torch.tensor(persons), torch.tensor(fakes).float())


def ascend(release: Release, table: Table, steps: int) -> float:
    """Gradient ascent by finite differences, over every cell of every person and of the fakes."""
    worst = moved(release, table)
    reach = 0.3
    for _ in range(steps):
        for name in ("rows", "fakes"):
            cells = getattr(table, name)
            slope = torch.zeros_like(cells)
            for cell in range(cells.numel()):
                nudge = torch.zeros_like(cells).flatten()
                nudge[cell] = 1e-2 * (1 + cells.flatten()[cell].abs())
                up = moved(release, replace(table, **{name: cells + nudge.view_as(cells)}))
                slope.view(-1)[cell] = (up - worst) / nudge[cell]
            if slope.norm() == 0:
                continue
            move = reach * (1 + cells.norm()) * slope / slope.norm()
            there = replace(table, **{name: cells + move})
            if (value := moved(release, there)) > worst:
                table, worst = there, value
            else:
                reach /= 2
    return worst


def search(release: Release, tables: int, climbs: int, seed: int = 3) -> float:
    """The furthest that one person was found to move the release, in units of C."""
    rng = np.random.default_rng(seed)
    found = sorted(((moved(release, table), i, table) for i, table in ((i, random_table(rng)) for i in range(tables))),
                   reverse=True)  # fmt: skip
    # From the worst tables, and from some where the person is not clipped: there the slope is not zero.
    starts = found[: climbs // 2] + [entry for entry in found if entry[0] < 0.9 * C][: climbs - climbs // 2]
    return max([found[0][0], *(ascend(release, table, 4) for _, _, table in starts)]) / C


def test_no_violation_is_found_in_the_honest_step(honest: Release) -> None:
    worst = search(honest, tables=400, climbs=4)
    assert 0.999 < worst <= 1 + 1e-5, worst


@pytest.mark.parametrize(
    "defect",
    [unclipped, clipping_the_mean, rows_clipped_one_by_one, divided_by_the_realised_size, as_many_fakes_as_reals],
)
def test_the_search_finds_planted_defects(defect: Release) -> None:
    assert search(defect, tables=40, climbs=2) > 1.1


def test_the_reference_of_the_defects_is_itself_sound_and_equals_the_step(honest: Release) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        table = random_table(rng)
        fake = gradient(network(table.fakes).mean()) * CONFIG.expected_batch_size
        torch.testing.assert_close(honest(table), persons_clipped(table) + fake, rtol=2e-4, atol=2e-5)
