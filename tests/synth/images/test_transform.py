"""The feature map against SciPy's, and there and back again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.fft import dctn

from synth.image_schema import ImageFormat
from synth.images.transform import GRID_BITS, OPPONENT, Transform, dct_basis, transform_of


@pytest.mark.parametrize("size", [4, 7, 28, 64])
def test_basis_is_orthonormal(size: int) -> None:
    basis = dct_basis(size, size)
    assert np.allclose(basis @ basis.T, np.eye(size), atol=1e-12)
    assert np.allclose(OPPONENT @ OPPONENT.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    "form",
    [
        ImageFormat(height=28, width=28),
        ImageFormat(height=9, width=14, bits=16, value_range=(7, 60000)),
        ImageFormat(height=8, width=8, channels=3),
    ],
    ids=["grey", "deep", "colour"],
)
def test_coefficients_are_those_of_scipy(form: ImageFormat) -> None:
    pixels = np.random.default_rng(0).integers(form.low, form.high + 1, (5, *form.shape))
    transform = Transform(form, limit=40)
    values = (pixels - form.low) / (form.high - form.low)
    if form.channels == 3:
        values = values @ OPPONENT.T
    whole = dctn(values, axes=(1, 2), norm="ortho")
    side = min(form.height, form.width)
    down, across = np.arange(form.height) * side / form.height, np.arange(form.width) * side / form.width
    frequency = np.round(np.hypot(down[:, None], across[None, :]), 9)
    found = transform.coefficients(pixels) / 2**GRID_BITS
    places = sorted(
        (frequency[u, v] * (2 if c else 1), c, u, v)
        for c in range(form.channels)
        for u in range(form.height)
        for v in range(form.width)
    )[:40]
    expected = np.stack([whole[:, u, v, c] for _, c, u, v in places], axis=1)
    # Half a step of the grid, and what the rounded basis (15 bits or more) adds.
    assert np.abs(found - expected).max() < 4 * 2.0**-GRID_BITS
    assert transform.frequency == pytest.approx([place[0] for place in places])


def test_all_coefficients_give_the_picture_back(extremes: Callable[[ImageFormat], np.ndarray]) -> None:
    for form in (ImageFormat(height=8, width=6), ImageFormat(height=6, width=6, channels=3, bits=16)):
        transform = Transform(form, limit=10_000)
        # Colour differences count double, so that all of them need a wider list than the grey axis.
        assert transform.size == np.prod(form.shape)
        pictures = extremes(form)
        again = transform.pixels(transform.coefficients(pictures) / 2**GRID_BITS)
        # Each of up to 108 coefficients is off by half a grid step at most.
        most = np.ceil((form.high - form.low) * np.sqrt(108) * 2.0**-GRID_BITS)
        assert np.abs(again.astype(int) - pictures.astype(int)).max() <= most


def test_the_largest_pictures_stay_exact() -> None:
    """Whole numbers below 2^53 all the way: sums do not depend on their order."""
    form = ImageFormat(height=1024, width=1024, bits=16)
    transform = Transform(form, limit=64)
    down, across, _ = transform._rounded
    reach = np.abs(down).sum(axis=1).max() * np.abs(across).sum(axis=1).max() * 65535
    assert reach < 2**53
    white = np.full((1, *form.shape), 65535, dtype=np.uint16)
    assert transform.coefficients(white)[0, 0] == pytest.approx(1024 * 2**GRID_BITS, rel=1e-6)
    assert np.abs(transform.coefficients(white)[0, 1:]).max() <= 1024


def test_prefixes_are_whole_shells() -> None:
    transform = Transform(ImageFormat(height=28, width=28), limit=200)
    for most in range(200):
        size = transform.prefix(most)
        assert size <= max(most, 1)
        assert size == transform.size or transform.frequency[size] > transform.frequency[size - 1] + 1e-9


def test_many_classes_get_fewer_coefficients() -> None:
    form = ImageFormat(height=64, width=64)
    assert transform_of(form, 2).size == 512
    assert transform_of(form, 256).size ** 2 * 256 <= 2**24
