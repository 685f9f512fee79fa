"""Every supported layer's norms and clipped sum equal a loop's, in float64, over random shapes and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

Check = Callable[..., None]

few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
small = st.integers(1, 4)
rows = st.integers(1, 6)


def persons_of(kind: str, count: int) -> Tensor | None:
    """No index, everybody's rows apart, or rows of one person at several places."""
    return None if kind == "rows" else torch.randint(0, 3, (count,)) * 7 - 5


people = st.sampled_from(["rows", "persons"])


def squares(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """A loss per row in which no derivative is constant."""
    return lambda x: (network(x).flatten(1).square() + network(x).flatten(1)).sum(1)


def double(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).double()


@few
@given(rows, st.lists(small, max_size=2), small, small, st.booleans(), people)
def test_linear(equals_loop: Check, n: int, between: list[int], a: int, b: int, bias: bool, who: str) -> None:
    network = double(nn.Linear(a, b, bias=bias))
    x = torch.randn(n, *between, a, dtype=torch.float64)
    equals_loop(network, squares(network), [x], persons_of(who, n))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@few
@given(st.data())
def test_conv2d(equals_loop: Check, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 2))
    options = {
        "kernel_size": data.draw(st.tuples(small, small)),
        "stride": data.draw(st.tuples(small, small)),
        "dilation": data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "padding": data.draw(
            st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from(["same", "valid"]))
        ),
        "bias": data.draw(st.booleans()),
        "groups": groups,
    }
    if options["padding"] == "same":
        options["stride"] = (1, 1)
    n, height, width = data.draw(rows), data.draw(st.integers(5, 8)), data.draw(st.integers(5, 8))
    padding = options["padding"] if isinstance(options["padding"], tuple) else (0, 0)
    reach = [d * (k - 1) + 1 for d, k in zip(options["dilation"], options["kernel_size"], strict=True)]
    assume(height + 2 * padding[0] >= reach[0] and width + 2 * padding[1] >= reach[1])
    network = double(nn.Conv2d(groups * data.draw(small), groups * data.draw(small), **options))
    x = torch.randn(n, network[0].in_channels, height, width, dtype=torch.float64)
    equals_loop(network, squares(network), [x], persons_of(data.draw(people), n))


@few
@given(st.data())
def test_conv_transpose2d(equals_loop: Check, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 2))
    stride = data.draw(st.tuples(small, small))
    kernel = data.draw(st.tuples(small, small))
    padding = tuple(data.draw(st.integers(0, size - 1)) for size in kernel)
    network = double(
        nn.ConvTranspose2d(
            groups * data.draw(small),
            groups * data.draw(small),
            kernel,
            stride,
            padding,
            tuple(data.draw(st.integers(0, step - 1)) for step in stride),
            groups,
            data.draw(st.booleans()),
            data.draw(st.integers(1, 2)),
        )
    )
    n = data.draw(rows)
    x = torch.randn(n, network[0].in_channels, data.draw(st.integers(2, 5)), data.draw(st.integers(2, 5))).double()
    try:
        network(x)
    except RuntimeError:
        assume(False)
    equals_loop(network, squares(network), [x], persons_of(data.draw(people), n))


@few
@given(rows, st.lists(small, max_size=2), st.sampled_from([None, 0, 2]), people)
def test_embedding(equals_loop: Check, n: int, between: list[int], padding: int | None, who: str) -> None:
    network = nn.Embedding(4, 3, padding_idx=padding).double()
    index = torch.randint(0, 4, (n, *between))
    equals_loop(network, squares(network), [index], persons_of(who, n))


@few
@given(rows, st.integers(1, 3), st.integers(1, 2), st.lists(small, max_size=2), st.booleans(), people)
def test_group_norm(
    equals_loop: Check, n: int, groups: int, each: int, between: list[int], bias: bool, who: str
) -> None:
    assume(each * torch.Size(between).numel() > 1)
    network = double(nn.GroupNorm(groups, groups * each))
    nn.init.normal_(network[0].weight)
    x = torch.randn(n, groups * each, *between, dtype=torch.float64)
    equals_loop(network, squares(network), [x], persons_of(who, n))


@few
@given(rows, st.lists(small, max_size=2), st.lists(st.integers(2, 4), min_size=1, max_size=2), st.booleans(), people)
def test_layer_norm(equals_loop: Check, n: int, between: list[int], shape: list[int], bias: bool, who: str) -> None:
    network = double(nn.LayerNorm(shape, bias=bias))
    nn.init.normal_(network[0].weight)
    equals_loop(network, squares(network), [torch.randn(n, *between, *shape, dtype=torch.float64)], persons_of(who, n))


class Everything(nn.Module):
    """All layer types at once; a linear layer called twice, and an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.GroupNorm(2, 4),
            nn.Dropout(0.5),
            nn.ConvTranspose2d(4, 3, 3, 2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(3 * 9 * 9, 8),
        )
        self.label = nn.Embedding(5, 8)
        self.mix = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.unused = nn.Linear(3, 3)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.mix(self.image(x)) + self.label(label)
        return self.out(self.norm(self.mix(torch.tanh(h))))


@pytest.mark.parametrize("who", ["rows", "persons"])
def test_all_layers_together(equals_loop: Check, who: str) -> None:
    network = Everything().double().eval()
    x, label = torch.randn(7, 1, 8, 8, dtype=torch.float64), torch.randint(0, 5, (7,))
    equals_loop(network, lambda a, b: network(a, b)[:, 0], [x, label], persons_of(who, 7))


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 4), nn.Conv2d(6, 4, 3), nn.ConvTranspose2d(6, 4, 3), nn.Embedding(9, 4)]
)
def test_layer_called_several_times_counts_once(equals_loop: Check, layer: nn.Module) -> None:
    layer = layer.double()
    if isinstance(layer, nn.Embedding):
        columns = [torch.randint(0, 9, (5,)), torch.randint(0, 9, (5, 3))]
    else:
        shape = (5, 6) if isinstance(layer, nn.Linear) else (5, 6, 4, 4)
        columns = [torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)]

    def losses(a: Tensor, b: Tensor) -> Tensor:
        return layer(a).flatten(1).square().sum(1) - layer(b).flatten(1).sin().sum(1)

    equals_loop(layer, losses, columns)
    equals_loop(layer, losses, columns, torch.tensor([3, 1, 3, 3, 0]))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1)),
        nn.Sequential(nn.Unflatten(1, (1, 20)), nn.Linear(20, 64), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1)),
        nn.Sequential(
            nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(120, 1)
        ),
    ],
)
def test_single_precision_and_many_rows(equals_loop: Check, network: nn.Module) -> None:
    x = torch.randn(257, 20)
    equals_loop(network, lambda x: network(x)[:, 0], [x], tolerance=2e-4)
    equals_loop(network, lambda x: network(x)[:, 0], [x], torch.arange(257) % 50, tolerance=2e-4)
