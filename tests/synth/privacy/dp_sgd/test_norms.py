from __future__ import annotations

import pytest
import torch
from torch import Tensor

from synth.privacy.dp_sgd.norms import lookup_squared_norms, outer_squared_norms


def exact(a: Tensor, g: Tensor) -> Tensor:
    return (g.double().mT @ a.double()).square().sum((1, 2))


@pytest.mark.parametrize(("positions", "sizes"), [(1, (5, 3)), (2, (50, 40)), (30, (4, 3))])
def test_both_ways_equal_the_gradient(positions: int, sizes: tuple[int, int]) -> None:
    a, g = torch.randn(6, positions, sizes[0]), torch.randn(6, positions, sizes[1])
    torch.testing.assert_close(outer_squared_norms(a, g, bias=False).double(), exact(a, g), rtol=1e-5, atol=1e-5)
    with_bias = exact(a, g) + g.double().sum(1).square().sum(1)
    torch.testing.assert_close(outer_squared_norms(a, g, bias=True).double(), with_bias, rtol=1e-5, atol=1e-5)


def test_lookup_adds_positions_of_the_same_entry() -> None:
    g = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]]])
    index = torch.tensor([[4, 4, 1]])
    assert lookup_squared_norms(index, g, padding_index=None).item() == pytest.approx(3**2 + 5**2, rel=1e-5)
    assert lookup_squared_norms(index, g, padding_index=1).item() == pytest.approx(3**2, rel=1e-5)


def cancelling(scale: float) -> tuple[Tensor, Tensor]:
    """Two positions that cancel but for a remainder: their products lose what the gradient keeps."""
    a = torch.randn(400, 1, 60).repeat(1, 2, 1) * scale
    g = torch.randn(400, 1, 50).repeat(1, 2, 1)
    g[:, 1] *= -1
    return a + torch.randn_like(a), g


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5, 1e7])
def test_cancelling_positions_never_give_a_norm_too_small(scale: float) -> None:
    a, g = cancelling(scale)
    norm, found = exact(a, g).sqrt(), outer_squared_norms(a, g, bias=False).double().sqrt()
    assert (found >= norm * (1 - 1e-6)).all()
    if scale == 1:
        assert (found <= norm * 1.001).all()


def test_without_the_allowance_for_rounding_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.privacy.dp_sgd.norms._SLACK", 0.0)
    a, g = cancelling(1e5)
    assert (outer_squared_norms(a, g, bias=False).double().sqrt() < exact(a, g).sqrt() / 2).any()
