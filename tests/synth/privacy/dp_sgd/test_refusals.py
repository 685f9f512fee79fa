"""Each refusal at construction, tripped; and what must not be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from synth.errors import PrivacyRefusal
from synth.privacy.dp_sgd import DpSgdConfig, PrivateCritic

CONFIG = DpSgdConfig(sample_rate=0.1, steps=3, expected_batch_size=10, max_grad_norm=1, noise_multiplier=1)


def build(
    network: nn.Module, x: Tensor | None = None, losses: Callable[[Tensor], Tensor] | None = None
) -> PrivateCritic:
    return PrivateCritic(
        network, losses or (lambda x: network(x)[:, 0]), [torch.randn(6, 8) if x is None else x], CONFIG
    )


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1))
    network[1].weight = network[0].weight
    return network


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(8, 1), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (nn.BatchNorm1d(8), "mixes rows"),
        (nn.BatchNorm1d(8, affine=False, track_running_stats=False), "mixes rows"),
        (nn.SyncBatchNorm(8), "mixes rows"),
        (nn.InstanceNorm1d(8, track_running_stats=True), "without noise"),
        (nn.InstanceNorm1d(8, affine=True), "parameters are supported in"),
        (spectral_norm(nn.Linear(8, 8)), "not the parameter that is clipped"),
        (weight_norm(nn.Linear(8, 8)), "not the parameter that is clipped"),
        (old_spectral_norm(nn.Linear(8, 8)), "not the parameter that is clipped"),
        (nn.PReLU(), "parameters are supported in"),
        (nn.LSTM(8, 8), "parameters are supported in"),
        (nn.MultiheadAttention(8, 2), "parameters are supported in"),
        (type("Odd", (nn.Linear,), {})(8, 8), "parameters are supported in"),
        (nn.Bilinear(8, 8, 8), "parameters are supported in"),
        (nn.Conv2d(8, 8, 3, padding_mode="reflect", padding=1), "padding with zeros"),
        (nn.ConvTranspose2d(8, 8, 3, dilation=2, output_padding=1), "output_padding"),
        (nn.Embedding(8, 8, max_norm=1.0), "changes the weights"),
        (nn.Embedding(8, 8, scale_grad_by_freq=True), "how often others"),
        (nn.Embedding(8, 8, sparse=True), "sparse"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_unsafe_or_unsupported_layers(middle: nn.Module, reason: str) -> None:
    with pytest.raises(PrivacyRefusal, match=reason):
        build(nn.Sequential(nn.Linear(8, 8), middle, nn.Linear(8, 1)))


def half_frozen() -> nn.Module:
    network = nn.Linear(8, 1)
    network.bias.requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (tied(), "are one parameter"),
        (Scaled(), "parameters are supported in"),
        (half_frozen(), "freeze all parameters"),
        (nn.ReLU(), "no trainable parameter"),
    ],
)
def test_unsafe_critics(network: nn.Module, reason: str) -> None:
    with pytest.raises(PrivacyRefusal, match=reason):
        build(network)


def test_all_reasons_are_given_together() -> None:
    with pytest.raises(PrivacyRefusal, match=r"(?s)1 \(BatchNorm1d\).*2 \(PReLU\)"):
        build(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.PReLU()))


class Centred(nn.Module):
    """Subtracts the batch's mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Paired(nn.Module):
    """PacGAN: every row sees the next one too."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.roll(1, 0)], 1)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.mean.lerp_(x.detach().mean(0), 0.1)
        return x


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(Centred(), nn.Linear(8, 1)), "depends on the other rows"),
        (nn.Sequential(Paired(), nn.Linear(16, 1)), "depends on the other rows"),
        (nn.Sequential(Counting(), nn.Linear(8, 1)), "buffer '0.mean' changes"),
        (nn.Sequential(nn.Unflatten(0, (-1, 2)), nn.Flatten(), nn.Linear(16, 1)), "one entry per row"),
        (
            nn.Sequential(nn.Unflatten(0, (-1, 2)), nn.Linear(8, 8), nn.Flatten(0, 1), nn.Linear(8, 1)),
            "number of example",
        ),
        (nn.Sequential(nn.LayerNorm((6, 8)), nn.Linear(8, 1)), "number of example|other rows"),
    ],
)
def test_mixing_rows(network: nn.Module, reason: str) -> None:
    with pytest.raises(PrivacyRefusal, match=reason):
        build(network)


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (lambda f: lambda x: f(x)[:, 0] / len(x), "depends on the number of rows"),
        (lambda f: lambda x: f(x)[:, 0] - f(x).mean(), "depends on the other rows"),
        (lambda f: lambda x: f(x)[:, 0].softmax(0), "depends on the other rows"),
        (lambda f: lambda x: f(x), "neither a mean"),
        (lambda f: lambda x: f(x).mean(), "neither a mean"),
        (lambda f: lambda x: f(x).squeeze(), "neither a mean"),
        (lambda f: lambda x: f(x)[:, 0] + f.weight.square().sum() + 0 * x[:, 0], "differs from autograd's"),
        (lambda f: lambda x: f(x)[:, 0] + nn.functional.linear(x, f.weight)[:, 0] ** 2, "differs from autograd's"),
    ],
)
def test_unsafe_losses(losses: Callable[..., Callable[[Tensor], Tensor]], reason: str) -> None:
    network = nn.Linear(8, 1)
    with pytest.raises(PrivacyRefusal, match=reason):
        build(network, losses=losses(network))


def test_gradient_penalty_on_real_rows_is_refused() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def losses(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        out = network(x)[:, 0]
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return out + (slope.norm(dim=1) - 1) ** 2

    with pytest.raises(PrivacyRefusal, match="gradient penalty belongs"):
        build(network, losses=losses)


def test_sequence_first_layers_are_refused() -> None:
    class Transposed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(0, 1)

    network = nn.Sequential(Transposed(), nn.Linear(8, 4), Transposed(), nn.Flatten(), nn.Linear(24, 1))
    with pytest.raises(PrivacyRefusal):
        build(network, torch.randn(6, 6, 8))


def test_rows_that_mix_in_the_backward_pass_alone_are_refused() -> None:
    network = nn.Linear(8, 1)

    def losses(x: Tensor) -> Tensor:
        out = network(x)[:, 0]
        return out + (out.sum() - out.sum().detach())

    with pytest.raises(PrivacyRefusal, match="differs from autograd's"):
        build(network, losses=losses)


def accepted() -> Iterator[nn.Module]:
    yield nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.LeakyReLU(inplace=True), nn.Linear(8, 1))
    yield nn.Sequential(
        nn.Unflatten(1, (2, 2, 2)), nn.InstanceNorm2d(2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 1)
    )


@pytest.mark.parametrize("network", list(accepted()))
def test_what_is_safe_is_accepted_and_left_as_it_was(network: nn.Module) -> None:
    network[1].eval()
    x, state = torch.randn(6, 8), torch.random.get_rng_state()
    build(network, x)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network[1].training and network[0].training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_any_precision_is_accepted(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(8, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 1)).to(dtype)
    torch.set_float32_matmul_precision("medium")
    try:
        build(network, torch.randn(6, 8, dtype=dtype))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_example_needs_several_rows() -> None:
    with pytest.raises(ValueError, match="at least 4 rows"):
        build(nn.Linear(8, 1), torch.randn(2, 8))
