"""What one person can move a release by, found by trying; and that the rest is what the statement says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from synth.image_schema import ImageFormat
from synth.images.measure import (
    LENGTH_BINS,
    UNIT,
    ImageMeasurements,
    ImageMeasurer,
    load_measurements,
    save_measurements,
)
from synth.images.transform import Transform
from synth.privacy.accounting import compose_mu, compose_replace_one_mu, epsilon_of
from synth.privacy.image_budget import MEANS, SECOND_MOMENTS, SHARES, plan_images
from synth.privacy.noise import NoiseSource
from synth.privacy.pld import epsilon_of as epsilon_with_dp_sgd


class Seeded(NoiseSource):
    """The noise of a test that fails always or never."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def standard_normal(self, count: int) -> np.ndarray:
        return self.rng.standard_normal(count)


FORMS = (
    ImageFormat(height=8, width=8),
    ImageFormat(height=6, width=10, bits=16, value_range=(100, 4095)),
    ImageFormat(height=8, width=8, channels=3),
)


def random_pictures(form: ImageFormat, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(form.low, form.high + 1, (count, *form.shape)).astype(np.uint16)


def moved(first: Any, second: Any) -> dict[str, float]:
    """By how many noise scales each release differs, by its name."""
    found: dict[str, float] = {}
    for (name, a, scale), (other, b, same) in zip(first.draws, second.draws, strict=True):
        assert (name, scale) == (other, same), "what is spent follows the data"
        found[name] = found.get(name, 0.0) + float(np.sum(((a - b) / scale) ** 2))
    return {name: value**0.5 for name, value in found.items()}


@pytest.mark.parametrize("form", FORMS, ids=["grey", "deep", "colour"])
@pytest.mark.parametrize("clip_at", [1, LENGTH_BINS // 2, LENGTH_BINS - 1])
def test_no_picture_moves_a_release_by_more_than_its_sensitivity(
    toy: Any, extremes: Callable[..., np.ndarray], form: ImageFormat, clip_at: int
) -> None:
    run = toy(form)
    people = np.concatenate([random_pictures(form, 5, 1), extremes(form)])
    labels = [i % 3 for i in range(len(people))]
    base, _ = run.measure(people, labels)
    # The clipping lengths are whatever noise makes of them: here very short, middling, and the longest there is.
    # The means decide what is taken off: they are pushed far out, as noise could.
    lengths = np.where(np.arange(LENGTH_BINS) == clip_at, 60.0, 0.0)
    answers = [
        lengths if exact.shape == lengths.shape else 3 * given if name == MEANS else given
        for (name, exact, _), given in zip(base.draws, base.given, strict=True)
    ]
    answers = run.measure(people, labels, answers, loosely=True)[0].given
    full, _ = run.measure(people, labels, answers)
    costs = {event.name: event for event in run.plan.events}
    variants = []
    for i in range(len(people)):
        keep = [j for j in range(len(people)) if j != i]
        without, _ = run.measure(people[keep], [labels[j] for j in keep], answers)
        change = moved(full, without)
        assert set(change) == set(costs)
        for name, size in change.items():
            assert size <= costs[name].mu * (1 + 1e-12), (name, i)
        variants.append(without)
        for label in range(3):
            relabelled, _ = run.measure(people, [label if j == i else labels[j] for j in range(len(people))], answers)
            for name, size in moved(full, relabelled).items():
                assert size <= costs[name].replace_one_mu * (1 + 1e-12), (name, i, label)
    # Two data sets that lack one person each are replacements of each other.
    for a in variants[::5]:
        for b in variants:
            for name, size in moved(a, b).items():
                assert size <= costs[name].replace_one_mu * (1 + 1e-12), name


def test_the_bound_is_reached(toy: Any) -> None:
    """A sensitivity that nothing comes near would be a wrong one, too."""
    form = FORMS[0]
    run = toy(form)
    people = random_pictures(form, 6, 2)
    full, measured = run.measure(people, [0] * 6)
    without, _ = run.measure(people[1:], [0] * 5, full.given)
    change, costs = moved(full, without), {event.name: event.mu for event in run.plan.events}
    assert change[SECOND_MOMENTS] <= costs[SECOND_MOMENTS]
    assert change[MEANS] > 0.7 * costs[MEANS]
    # A picture at the clipping length: ‖uuᵀ‖ is 1 but for the rounding.
    far = random_pictures(form, 1, 3) * 0 + form.high
    with_far, _ = run.measure(np.concatenate([people, far]), [0] * 7, full.given)
    assert moved(full, with_far)[SECOND_MOMENTS] > 0.99 * costs[SECOND_MOMENTS]
    assert measured.clip > 0


def test_pictures_add_up_exactly_however_they_are_batched(toy: Any, extremes: Callable[..., np.ndarray]) -> None:
    """No picture's contribution depends, in its last bit, on which others are computed beside it."""
    for form in FORMS:
        people = np.concatenate([random_pictures(form, 40, 4), extremes(form)])
        labels = [i % 3 for i in range(len(people))]
        base, _ = toy(form, batch=7).measure(people, labels)
        other, _ = toy(form, batch=64).measure(people, labels, base.given)
        order = np.random.default_rng(0).permutation(len(people))
        shuffled, _ = toy(form, batch=5).measure(people[order], [labels[i] for i in order], base.given)
        singles = [toy(form).measure(people[i : i + 1], labels[i : i + 1], base.given)[0] for i in range(len(people))]
        for i, (_, exact, _) in enumerate(base.draws):
            assert (exact == other.draws[i][1]).all() and (exact == shuffled.draws[i][1]).all()
            assert (exact == sum(single.draws[i][1] for single in singles)).all()


def test_several_pictures_of_a_person(toy: Any) -> None:
    form = FORMS[0]
    run = toy(form, max_rows_per_person=3)
    people = random_pictures(form, 12, 5)
    people[:3] = people[0]  # one person, three times the same picture in one class
    base, _ = run.measure(people, [0] * 12)
    without, _ = run.measure(people[3:], [0] * 9, base.given)
    for name, size in moved(base, without).items():
        assert size <= {event.name: event.mu for event in run.plan.events}[name]
    one = plan_images(epsilon=1.0, delta=1e-5)
    for several, single in zip(run.plan.events, one.events, strict=True):
        assert several.noise_scale == pytest.approx(3 * single.noise_scale)
        assert several.sensitivity == 3 * single.sensitivity


@pytest.mark.parametrize(
    ("epsilon", "part", "batch", "steps", "noise"),
    [(1.0, 0.5, 2048, 1000, 5.8), (1.0, 0.5, 4096, 2000, 16.2), (10.0, 0.8, 4096, 2000, 1.86)],
)
def test_a_critic_takes_its_part_of_the_second_moments(
    epsilon: float, part: float, batch: int, steps: int, noise: float
) -> None:
    """Of 60,000 pictures: the critic has this part of all μ², and the noise that an independent calculation gives."""
    share = part / SHARES[SECOND_MOMENTS]
    rate = batch / 60_000
    plan = plan_images(epsilon=epsilon, delta=1e-5, critic_share=share, critic_steps=steps, critic_sample_rate=rate)
    alone = plan_images(epsilon=epsilon, delta=1e-5)
    assert plan.critic is not None and alone.critic is None
    assert plan.critic.noise_multiplier == pytest.approx(noise, rel=0.01)
    assert (plan.critic.steps, plan.critic.sample_rate) == (steps, rate)
    assert epsilon * (1 - 1e-5) <= epsilon_with_dp_sgd(plan.events, 1e-5) <= epsilon
    for mine, whole in zip(plan.releases, alone.releases, strict=True):
        left = 1 - share if mine.name == SECOND_MOMENTS else 1
        assert mine.noise_scale == pytest.approx(whole.noise_scale / left**0.5)
    assert plan.mu == pytest.approx(alone.mu * (1 - share) ** 0.5)  # fewer coefficients are worth measuring


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_the_plan_spends_what_was_asked(epsilon: float) -> None:
    plan = plan_images(epsilon=epsilon, delta=1e-5, max_rows_per_person=2)
    assert epsilon_of(compose_mu(plan.events), 1e-5) == pytest.approx(epsilon, abs=2e-6)
    assert compose_replace_one_mu(plan.events) == pytest.approx(2**0.5 * plan.mu)
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_without_noise_the_moments_are_the_pictures_own(toy: Any) -> None:
    """Brute force over the definition, at a budget so large that the noise is nothing."""
    form = FORMS[0]
    run = toy(form, epsilon=99.0)
    people, labels = random_pictures(form, 300, 6), np.arange(300) % 3
    _, measured = run.measure(people, labels)
    x = run.transform.coefficients(people)[:, : measured.features] / 4096
    for c in range(3):
        total = np.zeros((measured.features + 1, measured.features + 1))
        for row in x[labels == c]:
            y = (row - measured.centres[c]) * measured.weight
            y = 0.8**0.5 * y / max(measured.clip, float(np.linalg.norm(y)))
            u = np.append(y, 0.2**0.5)
            total += np.outer(u, u)
        # Noise 0.08 an entry (ε = 99), and rounding 2^-11 of 100 vectors; 8 noise scales: false alarm below 1e-11.
        assert np.abs(total - measured.moments[c]).max() < 8 * measured.moment_noise + 100 * 2 / UNIT
    assert measured.class_sizes == pytest.approx([100, 100, 100], abs=8 * measured.class_size_noise)


def test_fewer_pictures_get_fewer_coefficients(toy: Any) -> None:
    form = ImageFormat(height=16, width=16)
    few = toy(form, limit=200, epsilon=10).measure(random_pictures(form, 20, 7), [0] * 20)[1]
    many = toy(form, limit=200, epsilon=10).measure(random_pictures(form, 900, 7), [0] * 900)[1]
    assert 1 <= few.features < many.features <= 200


def test_noise_does_not_move_the_clipping_length_far() -> None:
    """The end of the tail of 4,000 lengths drowns in noise at ε = 1, their median does not."""
    transform, rng = Transform(ImageFormat(height=8, width=8), limit=24), np.random.default_rng(9)
    coefficients = transform.coefficients(random_pictures(transform.form, 4000, 9))
    labels = np.arange(4000) % 10
    found = []
    for _ in range(12):
        measured = ImageMeasurer(
            read=lambda: [(labels, coefficients)],
            transform=transform,
            classes=10,
            plan=plan_images(epsilon=1.0, delta=1e-5),
            noise=Seeded(rng),
            charge=lambda _: None,
        ).measure()
        x = (coefficients[:, : measured.features] / 4096 - measured.centres[labels]) * measured.weight
        found.append(measured.clip / float(np.median(np.linalg.norm(x, axis=1))))
    # A bin is a fourth of a halving, and a picture's length may lie anywhere in it.
    assert min(found) > 0.8 and max(found) < 1.5, found


def test_measurements_are_saved_whole(toy: Any, tmp_path: Any) -> None:
    _, measured = toy(FORMS[0]).measure(random_pictures(FORMS[0], 10, 8), [0] * 10)
    save_measurements(measured, tmp_path)
    again = load_measurements(tmp_path)
    assert isinstance(again, ImageMeasurements)
    for name in measured.__dataclass_fields__:
        assert np.array_equal(getattr(measured, name), getattr(again, name)), name
