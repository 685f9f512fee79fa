"""Refining pictures: the pace, the moments' loss, what is charged when, and that a critic teaches."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from synth.image_schema import ImageSchema
from synth.images.denoise import denoise
from synth.images.measure import ImageMeasurements
from synth.images.model import ImageModel, model_of
from synth.images.pictures import PrivatePictures
from synth.images.refine import LADDER, Pace, PictureRefinement, moment_distance, refine
from synth.images.residual import residual_for
from synth.images.sample import draw_pixels
from synth.privacy.dp_sgd import DpSgdConfig
from synth.privacy.noise import NoiseSource
from synth.refinement import RefineSettings

SETTINGS = RefineSettings(
    learning_rate=3e-3, hidden_size=32, weight=1.0, max_rows_per_person=1, accelerator="cpu", threads=1
)
CONFIG = DpSgdConfig(sample_rate=0.1, steps=4, expected_batch_size=30, max_grad_norm=1, noise_multiplier=1)


class TestThePace:
    def test_a_critic_that_tells_them_is_followed_at_once(self) -> None:
        pace = Pace()
        for told in (1.0, 0.9, 0.7, 0.66) * 100:
            pace = pace.after_critic(told)
            assert pace.due and pace.critic_steps == 1
            pace = pace.after_generator()
            assert not pace.due

    def test_one_that_guesses_gets_more_and_more_steps(self) -> None:
        pace, waits, steps = Pace(), [], 0
        for _ in range(2000):
            pace, steps = pace.after_critic(0.5), steps + 1
            if pace.due:
                waits.append(steps)
                pace, steps = pace.after_generator(), 0
        assert waits == sorted(waits) and set(LADDER) <= set(waits) and waits[-1] == LADDER[-1]

    def test_a_single_bad_step_is_no_reason(self) -> None:
        assert Pace().after_critic(0.0).rung == 0
        assert Pace(told=0.66).after_critic(0.0) == Pace(rung=1, told=1.0, waited=1)
        assert Pace(rung=len(LADDER) - 1, told=0.66).after_critic(0.0).critic_steps == LADDER[-1]


class TestTheLossOfTheMoments:
    def test_is_zero_where_nothing_moved(self) -> None:
        u = torch.randn(9, 4)
        assert float(moment_distance(u, u.clone(), torch.arange(9) % 3)) == 0

    def test_has_no_bias(self) -> None:
        """Over all samples of two from a population of three pairs, in two classes: the mean is the exact distance."""
        rng = np.random.default_rng(0)
        u, v = (torch.from_numpy(rng.standard_normal((3, 2))) for _ in range(2))
        labels = torch.tensor([0, 1, 1])
        moved = torch.zeros(2, 2, 2, dtype=torch.float64)
        for i in range(3):
            moved[labels[i]] += (torch.outer(u[i], u[i]) - torch.outer(v[i], v[i])) / 3
        samples = [torch.tensor(pair) for pair in itertools.product(range(3), repeat=2)]
        found = torch.stack([moment_distance(u[s], v[s], labels[s]) for s in samples]).mean()
        torch.testing.assert_close(found, moved.square().sum())


def edges(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of class 0 are bright on the left with a sharp edge, those of class 1 at the top, more or less so."""
    rng = np.random.default_rng(5)
    labels, strength = np.arange(count) % 2, rng.uniform(0.2, 0.4, count)
    side = np.repeat(np.where(np.arange(8) < 4, 1.0, -1.0)[None, :], 8, axis=0)
    values = 0.5 + strength[:, None, None] * np.where(labels[:, None, None] == 0, side, side.T)
    return np.rint(values * 255).astype(np.uint16)[..., None], labels


@pytest.fixture(scope="module")
def learned(toy: Any, image_schema: Callable[..., ImageSchema]) -> tuple[ImageModel, ImageMeasurements, Any]:
    return learned_by(toy, image_schema)


def learned_by(toy: Any, image_schema: Callable[..., ImageSchema]) -> tuple[ImageModel, ImageMeasurements, Any]:
    schema = image_schema(classes=2)
    pixels, labels = edges(600)
    run = toy(schema.image, classes=2, epsilon=20, limit=10, batch=300)
    _, measured = run.measure(pixels, labels)
    model = model_of(schema, denoise(measured, run.transform.frequency), rows=600)
    return model, measured, PrivatePictures(pixels.reshape(600, -1).astype(np.uint8), labels.astype(np.int64), None)


Learned = tuple[ImageModel, ImageMeasurements, PrivatePictures]


def test_it_starts_from_the_moments_model_and_measures_as_it_was_measured(learned: Learned) -> None:
    model, measured, private = learned
    still = replace(model, factors=np.zeros_like(model.factors))
    module = PictureRefinement(still, measured, SETTINGS, CONFIG)
    start, seen, labels = module.drawn(40)
    wanted = model.transform.values(model.means[labels.numpy()].astype(np.float64), 8, 8)[..., 0]
    assert np.allclose(start[:, 0].numpy(), wanted, atol=1e-5)
    assert 0 < float((seen - start).abs().max()) < 0.5
    assert labels.tolist() == sorted(labels.tolist())
    assert torch.equal(module.refined(start, seen, labels, module.generator), start.clamp(0, 1))
    assert float(module.drift(64, module.generator).detach()) == 0
    # u of real pictures, beside what was measured of them but for the grid.
    pixels, classes = torch.from_numpy(np.array(private.pixels[:50])), torch.from_numpy(private.labels[:50])
    u = module.vectors((module.critic.seen(pixels) + 1) / 2, classes).numpy()
    exact = model.transform.coefficients(private.pixels[:50].reshape(-1, 8, 8, 1))
    assert np.allclose(u, measured.vectors(private.labels[:50], exact), atol=4e-3)


def test_it_goes_on_from_what_public_pictures_have_taught(learned: Learned) -> None:
    model, measured, _ = learned
    taught = residual_for(model.schema, SETTINGS.hidden_size)
    torch.nn.init.ones_(taught.leave.bias)
    module = PictureRefinement(replace(model, residual=taught), measured, SETTINGS, CONFIG)
    assert torch.equal(module.generator.leave.bias, taught.leave.bias)
    assert torch.equal(module.average.leave.bias, taught.leave.bias)
    start, seen, labels = module.drawn(8)
    with torch.no_grad():
        assert float((module.refined(start, seen, labels, module.generator) - start.clamp(0, 1)).abs().max()) > 0.1


def test_it_is_charged_before_the_first_draw_and_takes_every_step(
    learned: Learned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from synth.privacy.dp_sgd import PoissonBatches, PrivateCritic

    model, measured, private = learned
    happened: list[str] = []
    draw, step = PoissonBatches.draw, PrivateCritic.private_step
    monkeypatch.setattr(PoissonBatches, "draw", lambda self: happened.append("draw") or draw(self))

    def stepping(self: Any, *arguments: Any, **named: Any) -> None:
        happened.append("step")
        step(self, *arguments, **named)

    monkeypatch.setattr(PrivateCritic, "private_step", stepping)
    persons = np.arange(600) // 2
    with caplog.at_level(logging.DEBUG):
        found = refine(
            model,
            measured,
            replace(private, persons=persons),
            replace(SETTINGS, max_rows_per_person=2),
            CONFIG,
            charge=lambda: happened.append("charge"),
        )
    assert happened[0] == "charge" and happened.count("charge") == 1
    assert happened.count("draw") == happened.count("step") == CONFIG.steps
    assert [r.message for r in caplog.records if r.name.startswith("synth")] == [
        "refine: critic step 2 of 4",
        "refine: critic step 4 of 4",
    ]
    assert found.generator_steps == 3  # the first step of four is the critic's alone
    assert not found.residual.training and float(found.residual.leave.weight.detach().abs().max()) > 0
    assert np.isfinite(found.drift) and found.most_critic_steps == 1


def test_bfloat16_in_the_networks(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: every step is taken, and both sides learn from weights that are not of the step before."""
    from synth.images.critic import ImageCritic

    model, measured, private = learned
    monkeypatch.setattr("synth.images.refine.precision_of", lambda settings: "bf16-mixed")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = ImageCritic.forward

    def watched(self: ImageCritic, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = self.layers(pictures)
        if torch.is_autocast_enabled("cpu") and len(pictures) and not torch.is_grad_enabled():
            assert features.dtype is torch.bfloat16
        elif torch.is_autocast_enabled("cpu") and pictures.requires_grad:
            with torch.autocast("cpu", enabled=False):
                seen.append((features.detach().float(), self.layers(pictures.detach().float()).detach()))
        return forward(self, pictures, labels)

    monkeypatch.setattr(ImageCritic, "forward", watched)
    settings = replace(SETTINGS, learning_rate=0.1)  # so large that a stale weight would show
    found = refine(model, measured, private, settings, CONFIG, charge=lambda: None)
    assert found.generator_steps == len(seen) == 3
    for half, full in seen:
        assert float((half - full).norm() / full.norm()) < 0.05
    assert float(found.residual.enter.weight.detach().abs().max()) > 0


def test_a_persons_pictures_weigh_as_one(learned: Learned) -> None:
    """The critic's loss of a picture is divided by m, so a person of m equal ones has one picture's gradient."""
    model, measured, private = learned
    one = PictureRefinement(model, measured, SETTINGS, CONFIG)
    three = PictureRefinement(model, measured, replace(SETTINGS, max_rows_per_person=3), CONFIG)
    three.critic.load_state_dict(one.critic.state_dict())
    pixels, label = torch.from_numpy(np.array(private.pixels[:1])), torch.tensor([0])
    alone = one.private._clipping.norms([pixels, label])
    together = three.private._clipping.norms([pixels.repeat(3, 1), label.repeat(3)], torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-6)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is drawn, noise included, comes from one seed."""
    drawn = np.random.default_rng(1)
    monkeypatch.setattr(NoiseSource, "_uniform", lambda self, count: 1 - drawn.random(count))
    monkeypatch.setattr("synth.refinement.secrets.randbits", lambda bits: 1)
    torch.manual_seed(1)


@pytest.mark.usefixtures("seeded")
def test_a_critic_teaches_what_was_not_measured(
    toy: Any, image_schema: Callable[..., ImageSchema], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ten lowest frequencies blur the edges. The critic sharpens them, and the measured moments stay."""
    model, measured, private = learned_by(toy, image_schema)
    monkeypatch.setattr("synth.images.refine.FAKES", 128)
    config = DpSgdConfig(sample_rate=0.3, steps=300, expected_batch_size=180, max_grad_norm=1, noise_multiplier=0.01)
    settings = replace(SETTINGS, learning_rate=2e-3, hidden_size=64)
    refined = refine(model, measured, private, settings, config, charge=lambda: None)
    real = private.pixels[private.labels == 0].mean(axis=0).reshape(8, 8) / 255

    def blur(residual: Any) -> float:
        """Root mean square distance of the mean pictures of class 0, in units of the value range."""
        labels = np.zeros(600, dtype=np.int64)
        made = draw_pixels(replace(model, residual=residual), labels, np.random.default_rng(0))
        return float(np.sqrt(np.square(made.mean(axis=0)[..., 0] / 255 - real).mean()))

    assert blur(None) > 0.08
    assert blur(refined.residual) < 0.05  # .02 to .03 with each of four seeds
    assert refined.drift < 2
