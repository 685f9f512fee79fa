"""Likeness beside what chance shows, and the bound on equal pixels, against what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.image_schema import ImageSchema
from synth.images.equal_pixels import PixelChance, log_most_equal, print_of
from synth.images.model import ImageModel
from synth.images.nearness import (
    TAILS,
    Highest,
    Likeness,
    best_within,
    chance_of_gap,
    fisher,
    on_grid,
    unit,
)
from synth.images.sample import draw_pixels

# All draws here have fixed seeds.


def gaps(z: np.ndarray) -> np.ndarray:
    """The p-value of each row [n, values], all of them offered in three parts."""
    highest = Highest(len(z))
    for some in np.array_split(np.arange(z.shape[1]), 3):
        highest.offer(z[:, some], some)
    assert (highest.where == z.argmax(axis=1)).all()
    return chance_of_gap(highest.sorted(), highest.compared)


class TestGap:
    def test_it_is_exact_for_an_exponential_tail(self) -> None:
        # One tail alone (n = 2·TAILS[0]), so that the p-value is that of one F test: uniform. 2,000 of them stray from
        # their share by a standard deviation of .011 at most.
        p = gaps(np.random.default_rng(0).exponential(3.0, (2_000, 2 * TAILS[0])))
        for share in (0.01, 0.05, 0.2, 0.5):
            assert abs((p < share).mean() - share) < 0.05 * math.sqrt(share)

    @pytest.mark.parametrize("values", [40, 300, 3_000])
    @pytest.mark.parametrize("dimensions", [4, 20])
    def test_of_independent_vectors_it_errs_on_the_safe_side(self, values: int, dimensions: int) -> None:
        rng = np.random.default_rng(1)
        vectors = unit(rng.normal(size=(values, dimensions)))
        asked = unit(rng.normal(size=(500, dimensions)))
        p = gaps(fisher(asked @ vectors.T))
        for share in (0.002, 0.01, 0.05):
            assert (p < share).mean() <= share + 3 * math.sqrt(share / 500)

    def test_one_that_stands_out(self) -> None:
        z = np.random.default_rng(2).normal(0, 0.2, (50, 400))
        z[:, 7] = 3.0
        assert gaps(z).max() < 1e-5

    def test_too_few_or_all_alike_tell_nothing(self) -> None:
        assert gaps(np.eye(3, 39) * 5).tolist() == [1.0] * 3
        assert gaps(np.zeros((1, 100))).tolist() == [1.0]


class TestLikeness:
    def test_brightness_contrast_and_what_a_class_shares_are_taken_off(self) -> None:
        rng = np.random.default_rng(3)
        means = rng.normal(100, 30, (2, 9, 9, 1))
        likeness = Likeness(means, np.array([5.0, 5.0]))
        one = means[1] + rng.normal(0, 9, (9, 9, 1))
        other = 12 + 0.8 * one + 3 * means[0]
        a, b, flat = likeness.vectors(np.stack([one, other, np.full((9, 9, 1), 7.0)]))
        assert a @ b == pytest.approx(1) and np.linalg.norm(flat) == 0

    def test_a_part_is_found_where_it_was_cut_out(self) -> None:
        pictures = np.random.default_rng(4).normal(size=(30, 9, 8, 1))
        best = best_within(pictures[11, 2:7, 1:6] * 2 + 5, pictures, np.zeros((9, 8, 1)))
        assert best.argmax() == 11 and best[11] == pytest.approx(1)

    def test_a_size_that_is_a_multiple_is_undone(self, image_schema: Callable[..., ImageSchema]) -> None:
        form = image_schema(height=9, width=8).image
        pixels = np.random.default_rng(5).integers(0, 256, (9, 8, 1)).astype(np.uint16)
        assert np.abs(on_grid(np.kron(pixels, np.ones((3, 3, 1), np.uint16)), form) - pixels).max() < 1e-3


def toy_model(schema: ImageSchema, d: int, scale: float) -> ImageModel:
    rng = np.random.default_rng(6)
    means, factors = rng.normal(0, 0.1, (2, d)), rng.normal(0, scale, (2, d, d))
    means[:, 0] = 4.0
    return ImageModel(schema, np.array([0.3, 0.7]), means.astype(np.float32), factors.astype(np.float32), rows=100)


class TestEqualPixels:
    @given(st.integers(0, 2**32 - 1), st.integers(1, 6))
    def test_the_bound_is_the_density_at_its_highest(self, seed: int, n: int) -> None:
        load = np.random.default_rng(seed).normal(size=(n, n + 3))
        covariance = load @ load.T
        step = 1e-4  # so short that no factor is above 1
        density = -0.5 * (n * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1])
        assert log_most_equal(covariance, step) == pytest.approx(n * math.log(step) + density, abs=1e-6)

    def test_no_picture_is_drawn_more_often(self, image_schema: Callable[..., ImageSchema]) -> None:
        """Pictures of four levels and three coefficients: the most frequent one of 20,000, beside the bound for it."""
        model = toy_model(image_schema(classes=2, value_range=[0, 3]), 3, 0.3)
        labels = np.arange(20_000) % 2
        drawn = draw_pixels(model, labels, np.random.default_rng(7))
        chance = PixelChance(model, np.array([10_000, 10_000]))
        _, first, counts = np.unique(drawn.reshape(len(drawn), -1), axis=0, return_index=True, return_counts=True)
        often = counts.argsort()[::-1][:5]
        assert counts[often[0]] > 20
        for i in often:
            # `chance` says how many of the 20,000 there are on average, at most; it is cut off at 1, so by scale.
            whole = PixelChance(model, np.array([1e-4, 1e-4]))(drawn[first[i]])
            assert counts[i] <= whole * 1e8 + 5 * math.sqrt(counts[i])
        assert chance(drawn[0]) == 1.0

    def test_flat_pictures_are_never_proof(self, image_schema: Callable[..., ImageSchema]) -> None:
        schema = image_schema(classes=2)
        chance = PixelChance(toy_model(schema, 40, 0.3), np.array([3, 7]))
        inside = np.random.default_rng(8).integers(1, 255, schema.image.shape).astype(np.uint16)
        assert chance(np.zeros(schema.image.shape, np.uint16)) == 1.0 and chance(inside) < 1e-20

    def test_a_hash_is_of_shape_bits_and_pixels(self) -> None:
        pixels: Any = np.arange(12, dtype=np.uint16).reshape(3, 4, 1)
        alike = [pixels.reshape(4, 3, 1), pixels + 1, pixels.reshape(2, 2, 3)]
        assert print_of(pixels, 8) == print_of(pixels.astype(">u2"), 8)
        assert len({print_of(p, 8) for p in [pixels, *alike]} | {print_of(pixels, 16)}) == 5
