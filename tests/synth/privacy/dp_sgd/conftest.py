"""What the tests of DP-SGD share: a loop over people, the definition everything else is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from synth.privacy.dp_sgd import GhostClipping
from synth.privacy.dp_sgd.refusals import refuse_unsafe_layers


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Loop:
    """Each person's gradient by a backward pass of its own, then the clipped sum."""

    def __init__(self, clipping: GhostClipping, columns: Sequence[Tensor], persons: Tensor | None = None) -> None:
        owner = torch.arange(len(columns[0])) if persons is None else persons
        self.grads = []
        for person in owner.unique():
            losses = clipping.row_losses(*(column[owner == person] for column in columns))
            grads = torch.autograd.grad(losses.sum(), clipping.parameters, allow_unused=True, materialize_grads=True)
            self.grads.append(torch.cat([grad.flatten() for grad in grads]))
        self.norms = torch.stack([grad.norm() for grad in self.grads])
        self.sum = torch.stack(
            [g * min(1.0, clipping.max_grad_norm / max(float(g.norm()), 1e-300)) for g in self.grads]
        ).sum(0)


def clipping_of(
    network: nn.Module, losses: Callable[..., Tensor], max_grad_norm: float = 1.0, chunk: int | None = None
) -> GhostClipping:
    return GhostClipping(refuse_unsafe_layers(network), losses, max_grad_norm, chunk)


@pytest.fixture
def ghost() -> Callable[..., GhostClipping]:
    return clipping_of


@pytest.fixture
def loop() -> type[Loop]:
    return Loop


@pytest.fixture
def equals_loop() -> Callable[..., None]:
    """Assert that norms and clipped sum equal the loop's, with a bound that clips some people and not others."""

    def check(
        network: nn.Module,
        losses: Callable[..., Tensor],
        columns: Sequence[Tensor],
        persons: Tensor | None = None,
        tolerance: float = 1e-9,
    ) -> None:
        typical = Loop(clipping_of(network, losses), columns, persons).norms.median()
        clipping = clipping_of(network, losses, max(float(typical), 1e-3))
        wanted = Loop(clipping, columns, persons)
        found = torch.cat([part.flatten() for part in clipping.clipped_sum(columns, persons)])
        torch.testing.assert_close(clipping.norms(columns, persons), wanted.norms, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(found, wanted.sum, rtol=tolerance, atol=tolerance)

    return check
