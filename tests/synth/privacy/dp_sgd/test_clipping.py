"""The clipped sum as a whole: Opacus as an independent check, precision, chunks, empty batches, losses it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from synth.errors import PrivacyRefusal
from synth.privacy.dp_sgd import GhostClipping

Ghost = Callable[..., GhostClipping]


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def mlp(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )


def first(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: network(x)[:, 0]


@pytest.mark.filterwarnings("ignore")  # about hooks, by Opacus
@pytest.mark.parametrize(
    ("network", "x"),
    [
        (mlp(), torch.randn(20, 6)),
        (
            nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Flatten(), nn.Linear(40, 1)),
            torch.randn(9, 5, 6),
        ),
        (
            nn.Sequential(
                nn.Conv2d(2, 8, 4, 2, 1, groups=2), nn.GroupNorm(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1)
            ),
            torch.randn(9, 2, 8, 8),
        ),
        (nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 1)), torch.randint(0, 7, (9, 3))),
    ],
)
def test_equals_opacus_hooks(ghost: Ghost, network: nn.Module, x: Tensor) -> None:
    from opacus import GradSampleModule

    hooked = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    hooked(x)[:, 0].square().sum().backward()
    per_row = torch.cat([p.grad_sample.flatten(1) for p in hooked.parameters()], 1)
    bound = float(per_row.norm(dim=1).median())
    clipping = ghost(network, lambda x: network(x)[:, 0].square(), bound)
    wanted = (per_row * (bound / per_row.norm(dim=1)).clamp(max=1)[:, None]).sum(0)
    torch.testing.assert_close(clipping.norms([x]), per_row.norm(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flat(clipping.clipped_sum([x])), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("persons", [None, torch.arange(30) % 7])
@pytest.mark.parametrize("chunk", [1, 4, 29, 100])
def test_chunks_give_the_same_sum(ghost: Ghost, persons: Tensor | None, chunk: int) -> None:
    network, x = mlp().double(), torch.randn(30, 6, dtype=torch.float64)
    whole = ghost(network, first(network), 0.5).clipped_sum([x], persons)
    parts = ghost(network, first(network), 0.5, chunk).clipped_sum([x], persons)
    torch.testing.assert_close(flat(parts), flat(whole), rtol=1e-12, atol=1e-12)


def test_empty_batch_sums_to_zero_without_a_forward_pass(ghost: Ghost) -> None:
    network = mlp()
    clipping = ghost(network, lambda x: pytest.fail("called"))
    assert flat(clipping.clipped_sum([torch.zeros(0, 6)])).norm() == 0
    assert flat(clipping.clipped_sum([torch.zeros(0, 6)], torch.zeros(0, dtype=torch.long))).norm() == 0


def test_no_hook_stays_and_no_gradient_is_set(ghost: Ghost) -> None:
    network = mlp()
    ghost(network, first(network)).clipped_sum([torch.randn(3, 6)])
    assert all(not module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_person_without_a_finite_gradient_counts_as_absent(ghost: Ghost, poison: float) -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1))
    x = torch.randn(5, 6)
    clipping = ghost(network, lambda x: network(x)[:, 0] ** 2)
    without = flat(clipping.clipped_sum([x[1:]]))
    x[0] = poison
    torch.testing.assert_close(flat(clipping.clipped_sum([x])), without)
    persons = torch.tensor([0, 0, 1, 1, 2])
    torch.testing.assert_close(
        flat(clipping.clipped_sum([x], persons)), flat(clipping.clipped_sum([x[2:]], persons[2:]))
    )


@contextmanager
def medium_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu", torch.bfloat16), medium_products])
@pytest.mark.parametrize("persons", [None, torch.zeros(2, dtype=torch.long)])
def test_reduced_precision_outside_norm_and_sum_only(
    ghost: Ghost, mode: Callable[[], object], persons: Tensor | None
) -> None:
    networks = [
        (mlp(64), torch.randn(40, 2, 6)),
        (
            nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1),
                          nn.ReLU(), nn.Flatten(), nn.Linear(256, 1)),
            torch.randn(40, 2, 3, 8, 8),
        ),
    ]  # fmt: skip
    for network, batches in networks:
        clipping = ghost(network, first(network), 1e-3)
        for rows in batches:
            rows = rows if persons is not None else rows[:1]
            with mode():  # type: ignore[attr-defined]
                norm = clipping.norms([rows], persons)
                total = flat(clipping.clipped_sum([rows], persons))
            assert norm.dtype == total.dtype == torch.float32
            assert norm.item() > 1e-3
            # In bfloat16 the norm of the sum would miss C in the third digit.
            assert total.double().norm().item() == pytest.approx(1e-3, rel=1e-4)
            assert total.double().norm().item() <= 1e-3 * (1 + 1e-5)
    assert torch.get_float32_matmul_precision() == "highest"


def test_half_precision_and_frozen_layers(ghost: Ghost) -> None:
    network = mlp()
    network[0].requires_grad_(False)
    clipping = ghost(network, first(network))
    assert list(clipping.layers) == ["2", "4"]
    assert len(flat(clipping.clipped_sum([torch.randn(3, 6)]))) == 16 * 17 + 17
    half = mlp().bfloat16()
    assert all(
        part.dtype == torch.float32 for part in ghost(half, first(half)).clipped_sum([torch.randn(3, 6).bfloat16()])
    )


@pytest.mark.parametrize(
    "losses",
    [
        lambda network, x: network(x),
        lambda network, x: network(x).mean(),
        lambda network, x: network(x).mean(0),
        lambda network, x: network(x[: len(x) // 2])[:, 0],
        lambda network, x: x[:, 0],
        lambda network, x: network(x)[:, 0].detach(),
    ],
)
def test_losses_are_a_differentiable_vector_at_every_step(ghost: Ghost, losses: Callable[..., Tensor]) -> None:
    network = mlp()
    clipping = ghost(network, lambda x: losses(network, x))
    with pytest.raises(PrivacyRefusal, match="the row losses must"):
        clipping.clipped_sum([torch.randn(4, 6)])


def test_layers_that_do_not_see_one_entry_per_row_are_refused(ghost: Ghost) -> None:
    packed = nn.Sequential(nn.Unflatten(0, (-1, 2)), nn.Linear(6, 3), nn.Flatten(0, 1), nn.Linear(3, 1))
    with pytest.raises(PrivacyRefusal, match="reshapes its batch"):
        ghost(packed, first(packed)).clipped_sum([torch.randn(4, 6)])


def test_input_changed_in_place_after_use_is_refused(ghost: Ghost) -> None:
    layer = nn.Linear(6, 6)

    def losses(x: Tensor) -> Tensor:
        with torch.no_grad():
            h = x.clone()
        out = layer(h)
        h.mul_(2)
        return out.sum(1)

    with pytest.raises((PrivacyRefusal, RuntimeError), match=r"in.?place"):
        ghost(layer, losses).clipped_sum([torch.randn(4, 6)])


def test_layer_under_no_grad_is_refused(ghost: Ghost) -> None:
    layer, out = nn.Linear(6, 6), nn.Linear(6, 1)

    def losses(x: Tensor) -> Tensor:
        with torch.no_grad():
            h = layer(x)
        return out(h)[:, 0]

    with pytest.raises(PrivacyRefusal, match="without a graph"):
        ghost(nn.ModuleList([layer, out]), losses).clipped_sum([torch.randn(4, 6)])


@pytest.mark.parametrize(
    "persons", [torch.zeros(3), torch.zeros(2, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long)]
)
def test_person_index_is_one_whole_number_per_row(ghost: Ghost, persons: Tensor) -> None:
    network = mlp()
    with pytest.raises(ValueError, match="persons must be a vector"):
        ghost(network, first(network)).clipped_sum([torch.randn(3, 6)], persons)
