"""Equal pixels: one hash a picture, and how likely a bundle's random draw would hold the very same picture by chance.

Given its released model a bundle knows nothing of the picture that is asked about, whatever that is. A pixel strictly
inside the range of values is equal only when the model's Gaussian value falls into an interval of one level's length,
so any set of such pixels is equal with probability at most Π step/(√(2π) σ_j), σ_j² the variance of the j-th given
those before. With a residual all of this is said given what that sees of the picture: what it adds is then a constant,
and the value still Gaussian, with less variance. The pixels are taken in the order of a pivoted Cholesky factorisation:
the least certain first.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from synth.images.model import ImageModel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]

PLACES = 256
"""Pixels of a picture that the bound looks at."""
AT_ONCE = 8
SMALLEST = -80.0
"""Natural logarithm of a chance that is not followed further down."""


def print_of(pixels: UInt16Array, bits: int) -> int:
    """A hash of 64 bits of height, width, channels, bits and pixels: the same in whatever file they were."""
    shape = np.array([*pixels.shape, bits], dtype="<u8").tobytes()
    digest = hashlib.blake2b(shape + np.ascontiguousarray(pixels, dtype="<u2").tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


class PixelChance:
    """The chance of equal pixels, by a bundle's model and how many pictures of each class [classes] it has."""

    def __init__(self, model: ImageModel, sizes: IntArray) -> None:
        form = model.schema.image
        self.places = np.unique(np.linspace(0, math.prod(form.shape) - 1, PLACES).astype(np.int64))
        self._low, self._high, self._sizes = form.low, form.high, sizes
        self._step = 1.0 / (form.high - form.low)
        d = model.means.shape[1]
        basis = np.empty((len(self.places), d))
        for start in range(0, d, AT_ONCE):
            some = np.eye(d)[start : start + AT_ONCE]
            seen = model.transform.values(some, form.height, form.width).reshape(len(some), -1)
            basis[:, start : start + AT_ONCE] = seen[:, self.places].T
        loads = [basis @ factor.astype(np.float64) for factor in model.factors]
        self._covariances = [load @ model.unforeseen(label) @ load.T for label, load in enumerate(loads)]

    def __call__(self, pixels: UInt16Array) -> float:
        """Probability, at most, that a picture [height, width, channels] of the form is among the bundle's."""
        values = pixels.reshape(-1)[self.places]
        inside = np.flatnonzero((self._low < values) & (values < self._high))
        some = np.ix_(inside, inside)
        each = [math.exp(log_most_equal(covariance[some], self._step)) for covariance in self._covariances]
        return min(1.0, float(self._sizes @ np.array(each)))


def log_most_equal(covariance: FloatArray, step: float) -> float:
    """Logarithm of a bound on the chance that Gaussian values fall into given intervals of length `step`, all."""
    left = np.diagonal(covariance).copy()
    columns: list[FloatArray] = []
    log = 0.0
    while len(columns) < len(left) and log > SMALLEST:
        at = int(left.argmax())
        factor = step / math.sqrt(2 * math.pi * max(float(left[at]), 1e-300))
        if factor >= 1:
            break
        log += math.log(factor)
        column = covariance[:, at] - sum((c * c[at] for c in columns), np.zeros(len(left)))
        columns.append(column / math.sqrt(left[at]))
        left = np.maximum(left - columns[-1] ** 2, 0.0)
        left[at] = 0.0
    return log
