"""The conditional generator: product distributions over a fixed bank."""

from __future__ import annotations

import pytest
import torch

from synth.tables.generator import Generator
from synth.tables.model import new_generator

SIZES = (3, 1, 7, 2)


def generator(seed: int = 0, classes: int = 2) -> Generator:
    return new_generator(classes=classes, sizes=SIZES, latent_points=10, latent_size=4, hidden_size=8, seed=seed)


def test_shares_of_every_column_sum_to_one() -> None:
    shares = generator().all_points()
    assert shares.shape == (2, 10, sum(SIZES))
    assert bool((shares >= 0).all())
    for column in torch.split(shares, list(SIZES), dim=2):
        assert torch.allclose(column.sum(dim=2), torch.ones(2, 10), atol=1e-6)


def test_a_column_is_the_softmax_of_its_own_logits_alone() -> None:
    model = generator()
    before = model.all_points()
    with torch.no_grad():
        model.class_bias[0, 4:11] += torch.linspace(-2, 2, 7)
    after = model.all_points()
    changed = (before - after).abs().amax(dim=1) > 1e-7
    assert changed[0].tolist() == [False] * 4 + [True] * 7 + [False] * 2
    assert not changed[1].any()


def test_a_large_bias_makes_a_sure_column() -> None:
    model = generator()
    with torch.no_grad():
        model.class_bias[:, 2] += 200.0
    assert torch.allclose(model.all_points()[:, :, :3], torch.tensor([0.0, 0.0, 1.0]))


def test_all_points_are_the_bank_within_every_class() -> None:
    model = generator().eval()
    bank = model.get_buffer("bank")
    for c in range(2):
        direct = model(bank, torch.full((10,), c))
        assert torch.allclose(model.all_points()[c], direct, atol=1e-6)
    assert not torch.allclose(model.all_points()[0], model.all_points()[1])


def test_a_row_depends_on_its_own_point_alone() -> None:
    model = generator()
    z, c = torch.randn(6, 4), torch.zeros(6, dtype=torch.long)
    together = model(z, c)
    alone = torch.cat([model(z[i : i + 1], c[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_bank_is_part_of_the_model_and_not_trained() -> None:
    model = generator()
    assert model.latent_points == 10
    assert "bank" in model.state_dict()
    assert "bank" not in dict(model.named_parameters())
    assert "position" not in model.state_dict()


@pytest.mark.parametrize("seed", [0, 2**40])
def test_a_seed_gives_the_same_model_and_leaves_torch_as_it_was(seed: int) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = generator(seed)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(v, generator(seed).state_dict()[k]) for k, v in first.state_dict().items())
    assert not torch.equal(first.get_buffer("bank"), generator(seed + 1).get_buffer("bank"))


def test_every_parameter_is_reached_by_the_loss() -> None:
    model = generator()
    (model.all_points() ** 2).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())
