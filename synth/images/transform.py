"""The public feature map: low-frequency coefficients of the orthonormal discrete cosine transform (DCT-II).

Colour is rotated to a grey axis and two axes of colour difference first; the latter keep half the frequencies, as the
eye does. Coefficients are in units of the value range, on a grid of 2^-GRID_BITS: whole numbers in the working file.
The products with the rounded basis are whole numbers below 2^53, so a picture's coefficients are exact and do not
depend on which pictures are computed beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from synth.image_schema import ImageFormat

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GRID_BITS = 12
MAX_FEATURES = 512
MOST_MOMENTS = 1 << 24
"""Second moments of all classes together: 128 MiB of whole numbers."""

OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3.0], [2.0], [6.0]])
"""Grey, red against green, yellow against blue; rows are orthonormal."""


def dct_basis(size: int, count: int) -> FloatArray:
    """The first `count` rows [count, size] of the orthonormal DCT-II of a line of `size` pixels."""
    angle = np.pi * np.outer(np.arange(count), 2 * np.arange(size) + 1) / (2 * size)
    basis = np.cos(angle) * math.sqrt(2 / size)
    basis[0] = math.sqrt(1 / size)
    return basis


@dataclass(frozen=True)
class Transform:
    """The feature map of a declared form; `limit` features at most, in ascending order of frequency.

    A feature's frequency is in half periods per shorter side of the picture (for a square, √(u² + v²)); that of a
    colour difference counts twice.
    """

    form: ImageFormat
    limit: int = MAX_FEATURES

    @cached_property
    def _places(self) -> list[tuple[float, int, int, int]]:
        """(frequency, axis of colour, row, column) of the features."""
        height, width, channels = self.form.shape
        side = min(height, width)
        most = math.ceil(2 * math.sqrt(self.limit)) + 1
        found = [
            # Rounded, so that the order is the same on every machine.
            (round(math.hypot(u * side / height, v * side / width), 9) * (2 if axis else 1), axis, u, v)
            for axis in range(channels)
            for u in range(min(height, most * math.ceil(height / side)))
            for v in range(min(width, most * math.ceil(width / side)))
        ]
        return sorted(found)[: self.limit]

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self._places)

    @cached_property
    def frequency(self) -> FloatArray:
        """Frequency of every feature [features], ascending."""
        return np.array([place[0] for place in self._places])

    @cached_property
    def weight(self) -> FloatArray:
        """Public weight of every feature, frequency^½: it evens out the spectrum of pictures before clipping."""
        return np.sqrt(np.maximum(self.frequency, 1.0))

    @cached_property
    def _index(self) -> tuple[IntArray, IntArray, IntArray]:
        axis, row, column = (np.array([place[i] for place in self._places]) for i in (1, 2, 3))
        return axis, row, column

    def prefix(self, most: float) -> int:
        """How many features whole shells of equal frequency hold: at most `most`, but at least the first shell."""
        whole = [i for i in range(1, self.size) if self.frequency[i] > self.frequency[i - 1] + 1e-9] + [self.size]
        return max((i for i in whole if i <= most), default=whole[0])

    @property
    def longest(self) -> float:
        """The longest a vector of coefficients can be: √(height·width·channels)."""
        return math.sqrt(math.prod(self.form.shape))

    @cached_property
    def _rounded(self) -> tuple[FloatArray, FloatArray, int]:
        """Both bases in whole numbers of 2^-bits, and bits: chosen so that no sum passes 2^52."""
        height, width, _ = self.form.shape
        bits = math.floor((52 - self.form.bits - math.ceil(math.log2(height * width) / 2) - 1) / 2)
        _, row, column = self._index
        bases = (dct_basis(height, int(row.max()) + 1), dct_basis(width, int(column.max()) + 1))
        return np.rint(bases[0] * 2.0**bits), np.rint(bases[1] * 2.0**bits), bits

    def coefficients(self, pixels: npt.NDArray[np.integer]) -> IntArray:
        """Coefficients [n, features] of pictures [n, height, width, channels], in units of 2^-GRID_BITS."""
        down, across, bits = self._rounded
        values = np.moveaxis(pixels.astype(np.float64) - self.form.low, 3, 1)
        exact = down @ values @ across.T
        scaled = exact * (2.0 ** (GRID_BITS - 2 * bits) / (self.form.high - self.form.low))
        if self.form.channels == 3:
            red, green, blue = (scaled[:, i] for i in range(3))
            scaled = np.stack([a * red + b * green + c * blue for a, b, c in OPPONENT], axis=1)
        axis, row, column = self._index
        return np.rint(scaled[:, axis, row, column]).astype(np.int64)

    def pixels(self, coefficients: FloatArray) -> npt.NDArray[np.uint16]:
        """Pictures [n, height, width, channels] of the first coefficients [n, d], in units of 1; the others are 0."""
        return self.rounded(self.values(coefficients, self.form.height, self.form.width))

    def rounded(self, values: FloatArray) -> npt.NDArray[np.uint16]:
        """Numbers in units of the value range, clipped to it and rounded to pixels."""
        low, high = self.form.low, self.form.high
        return np.rint(low + np.clip(values, 0.0, 1.0) * (high - low)).astype(np.uint16)

    def values(self, coefficients: FloatArray, height: int, width: int) -> FloatArray:
        """The same as numbers, not clipped [n, height, width, channels], on any grid that carries the frequencies."""
        axis, row, column, down, across = self._on_grid(coefficients.shape[1], height, width)
        grid = np.zeros((len(coefficients), self.form.channels, len(down), len(across)))
        grid[:, axis, row, column] = coefficients
        found = np.moveaxis(down.T @ grid @ across, 1, 3)
        return np.asarray(found @ OPPONENT if self.form.channels == 3 else found)

    def analysed(self, values: FloatArray, count: int) -> FloatArray:
        """The first coefficients [n, count] of `values` [n, height, width, channels]."""
        height, width = values.shape[1:3]
        axis, row, column, down, across = self._on_grid(count, height, width)
        cells = (self.form.height * self.form.width) / (height * width)  # pixels of the form in one of the grid
        turned = values @ OPPONENT.T if self.form.channels == 3 else values
        return np.asarray((down @ np.moveaxis(turned, 3, 1) @ across.T)[:, axis, row, column] * cells)

    def _on_grid(
        self, count: int, height: int, width: int
    ) -> tuple[IntArray, IntArray, IntArray, FloatArray, FloatArray]:
        """Places of the first features, and both bases with the form's own lengths, seen on another grid."""
        axis, row, column = (index[:count] for index in self._index)
        down = dct_basis(height, int(row.max()) + 1) * math.sqrt(height / self.form.height)
        across = dct_basis(width, int(column.max()) + 1) * math.sqrt(width / self.form.width)
        return axis, row, column, down, across

    def grid_for(self, count: int) -> tuple[int, int]:
        """Height and width of a grid that is fine enough to see where the first features leave the range of values."""
        _, row, column = (index[:count] for index in self._index)
        return (
            min(self.form.height, 3 * int(row.max()) + 8),
            min(self.form.width, 3 * int(column.max()) + 8),
        )


def transform_of(form: ImageFormat, classes: int) -> Transform:
    """The feature map of a declared form; so many features that the moments of all classes fit into memory."""
    return Transform(form, limit=min(MAX_FEATURES, math.isqrt(MOST_MOMENTS // classes)))
