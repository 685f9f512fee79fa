"""The critic of pictures under DP-SGD: norms and clipped sums equal a loop's, and it is accepted as private."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from synth.image_schema import ImageFormat
from synth.images.critic import EXAMPLE_ROWS, ImageCritic
from synth.privacy.dp_sgd import DpSgdConfig, PrivateCritic

CONFIG = DpSgdConfig(sample_rate=0.1, steps=1, expected_batch_size=1, max_grad_norm=1, noise_multiplier=1)
FORMS = (
    {"height": 8, "width": 8},
    {"height": 28, "width": 28},
    {"height": 21, "width": 13, "channels": 3},
    {"height": 40, "width": 8, "bits": 16, "value_range": [100, 4000]},
)


def critic_of(form: dict[str, Any], classes: int = 3, hidden_size: int = 8) -> ImageCritic:
    return ImageCritic(ImageFormat.model_validate(form), classes=classes, hidden_size=hidden_size)


def some_pictures(critic: ImageCritic, count: int) -> list[torch.Tensor]:
    form = critic.form
    pixels = torch.randint(form.low, form.high + 1, (count, form.height * form.width * form.channels))
    return [pixels, torch.arange(count) % critic.classes]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("persons", [None, torch.tensor([0, 1, 1, 2, 0, 0])])
def test_norms_and_sums_equal_a_loops(
    equals_loop: Callable[..., None], form: dict[str, Any], persons: torch.Tensor | None
) -> None:
    critic = critic_of(form)
    real = some_pictures(critic, 6)
    equals_loop(critic, critic.real_losses, real, persons, tolerance=1e-4)
    equals_loop(critic, critic.fake_losses, [critic.seen(real[0]), real[1]], persons, tolerance=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [1, 2, 12])
def test_it_is_accepted_as_private_on_made_up_pictures(form: dict[str, Any], classes: int) -> None:
    critic = critic_of(form, classes)
    pixels, labels = critic.example()
    assert len(pixels) == len(labels) == EXAMPLE_ROWS == len(pixels.unique(dim=0))
    assert critic.form.low <= int(pixels.min()) and int(pixels.max()) <= critic.form.high
    assert int(labels.max()) < classes
    PrivateCritic(critic, critic.real_losses, [pixels, labels], CONFIG)


def test_the_class_bears_on_the_score_and_values_outside_the_range_do_not() -> None:
    critic = critic_of({"height": 8, "width": 8, "value_range": [10, 200]})
    pixels, _ = some_pictures(critic, 3)
    labels = torch.arange(3)
    assert not torch.allclose(critic(critic.seen(pixels), labels), critic(critic.seen(pixels), labels.flip(0)))
    pixels[0, :2] = torch.tensor([10, 200])
    beyond = pixels.clone()
    beyond[0, :2] = torch.tensor([0, 255])
    assert torch.equal(critic.seen(beyond), critic.seen(pixels))
    assert critic.seen(pixels).shape == (3, 1, 8, 8)
    assert (float(critic.seen(pixels).min()), float(critic.seen(pixels).max())) == (-1, 1)


def test_hinge_losses() -> None:
    critic = critic_of(FORMS[0])
    pixels, labels = some_pictures(critic, 4)
    x = critic.seen(pixels)
    torch.testing.assert_close(critic.real_losses(pixels, labels), (1 - critic(x, labels)).clamp(min=0))
    torch.testing.assert_close(critic.fake_losses(x, labels), (1 + critic(x, labels)).clamp(min=0))
