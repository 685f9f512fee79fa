"""The critic sees whole rows, each by itself, and scores exchanged bins as a plain forward pass would."""

from __future__ import annotations

import pytest
import torch

from synth.privacy.dp_sgd import DpSgdConfig, PrivateCritic
from synth.tables.critic import EXAMPLE_ROWS, Critic

SIZES = (3, 1, 4)
CLASSES = 2


@pytest.fixture
def critic() -> Critic:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Critic(sizes=SIZES, classes=CLASSES, hidden_size=8)


def some_rows() -> torch.Tensor:
    return torch.tensor([[0, 0, 3, 1], [2, 0, 0, 0], [1, 0, 2, 1]])


def test_a_row_is_one_hot_in_each_column_and_its_class(critic: Critic) -> None:
    x = critic.one_hot(some_rows())
    assert x.tolist()[0] == [1, 0, 0, 1, 0, 0, 0, 1, 0, 1]
    assert x.sum(dim=1).tolist() == [4, 4, 4]
    assert critic.one_hot(some_rows()[:0]).shape == (0, 10)


@pytest.mark.parametrize("column", range(len(SIZES)))
def test_exchanging_a_bin_is_scoring_the_row_that_has_it(critic: Critic, column: int) -> None:
    rows = some_rows()
    scores = critic.exchanged(critic.one_hot(rows), column)
    assert scores.shape == (len(rows), SIZES[column]) and not scores.requires_grad
    for level in range(SIZES[column]):
        other = rows.clone()
        other[:, column] = level
        torch.testing.assert_close(scores[:, level], critic(critic.one_hot(other)).detach(), rtol=1e-4, atol=1e-5)


def test_hinge_losses(critic: Critic) -> None:
    x = critic.one_hot(some_rows())
    score = critic(x)
    torch.testing.assert_close(critic.real_losses(some_rows()), (1 - score).clamp(min=0))
    torch.testing.assert_close(critic.fake_losses(x), (1 + score).clamp(min=0))


@pytest.mark.parametrize("sizes", [(2,), (2, 2, 2), (40, 1, 7), (500,)])
def test_it_is_accepted_as_private_on_made_up_rows(sizes: tuple[int, ...]) -> None:
    critic = Critic(sizes=sizes, classes=2, hidden_size=8)
    example = critic.example()
    assert example.shape == (EXAMPLE_ROWS, len(sizes) + 1)
    assert len(example.unique(dim=0)) >= 4  # what the refusals ask for
    assert all(int(example[:, j].max()) < size for j, size in enumerate(critic.sizes))
    config = DpSgdConfig(sample_rate=0.1, steps=1, expected_batch_size=1, max_grad_norm=1, noise_multiplier=1)
    PrivateCritic(critic, critic.real_losses, [example], config)
