"""Nearness: whether one picture of many stands out as the likeness of another, and how often chance shows as much.

Pictures are compared by correlation, after what all share is taken off: brightness, and each class's mean picture.
Whatever picture is asked about, the pictures of a bundle that does not come from it are independent draws, so that
their Fisher transforms z = artanh r have one distribution. The largest of many such values lie as those of an
exponential tail do: that is the limit for vectors of any dimension, and where the tail still falls faster than it did,
the test errs on the safe side. Then the spacings j·(z_(j) − z_(j+1)) are independent with one scale (Rényi 1953), and
the first beside the sum S of the k−1 after it gives P(z_(1) − z_(2) ≥ g) = (1 + g/S)^−(k−1), whatever that scale is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from synth.image_schema import ImageFormat

FloatArray = npt.NDArray[np.float64]
UInt16Array = npt.NDArray[np.uint16]

SIDE = 32
"""Pictures are compared with at most so many pixels a side, each the mean of those it covers."""
TAILS = (50, 100, 200)
"""Numbers of spacings; the largest p-value of all of them counts."""
FEWEST = 20
CLOSEST = 1.0 - 1e-6
"""A correlation above it is that of a picture with itself."""
TINY = 1e-9


def on_grid(pixels: UInt16Array, form: ImageFormat) -> FloatArray:
    """A picture [h, w, channels] of any size on the grid of comparison [height ≤ SIDE, width ≤ SIDE, channels]."""
    size = min(SIDE, form.height), min(SIDE, form.width)
    if pixels.shape[:2] == size:
        return pixels.astype(np.float64)
    # Bicubic where it grows: of what lies between its pixels nothing is known, and blocks would be no likeness.
    way = Image.Resampling.BOX if pixels.shape[0] >= size[0] else Image.Resampling.BICUBIC
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(pixels, 2, 0)]
    scaled = [np.asarray(plane.resize((size[1], size[0]), way)) for plane in planes]
    return np.stack(scaled, axis=2).astype(np.float64)


class Likeness:
    """Takes off what all pictures share: a constant, and the span of mean pictures [classes, height, width, channels].

    A class more must leave enough to compare, so of many classes only their common mean is taken off.
    """

    def __init__(self, means: FloatArray, sizes: FloatArray) -> None:
        flat = means.reshape(len(means), -1)
        self.mean = np.average(means, axis=0, weights=np.maximum(sizes, TINY))
        known = flat[sizes > 0] if len(flat) <= flat.shape[1] // 4 else self.mean.reshape(1, -1)
        span = np.concatenate([np.ones((1, flat.shape[1])), known])
        _, length, rows = np.linalg.svd(span / np.linalg.norm(span, axis=1, keepdims=True).clip(TINY), False)
        self._shared = rows[length > 1e-6]

    def vectors(self, pictures: FloatArray) -> FloatArray:
        """Unit vectors [n, values] of pictures [n, height, width, channels]; zero for one of which nothing is left."""
        flat = pictures.reshape(len(pictures), -1)
        return unit(flat - flat @ self._shared.T @ self._shared)


def unit(rows: FloatArray) -> FloatArray:
    """Rows [n, values] in length 1; those of next to no length become 0."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-3 * np.sqrt(rows.shape[1]), rows / np.maximum(length, TINY), 0.0)


def best_within(crop: FloatArray, pictures: FloatArray, mean: FloatArray) -> FloatArray:
    """How well a part of a picture [h, w, channels] fits into each of `pictures` [n, H, W, channels], at best [n].

    It is slid over all places, without a change of size; the mean picture [H, W, channels] is taken off both.
    """
    h, w = crop.shape[:2]
    best = np.full(len(pictures), -1.0)
    for y in range(pictures.shape[1] - h + 1):
        for x in range(pictures.shape[2] - w + 1):
            part = np.s_[..., y : y + h, x : x + w, :]
            own = (crop - mean[part]).reshape(1, -1)
            theirs = (pictures[part] - mean[part]).reshape(len(pictures), -1)
            own, theirs = own - own.mean(), theirs - theirs.mean(axis=1, keepdims=True)
            best = np.maximum(best, unit(theirs) @ unit(own)[0])
    return best


def fisher(correlation: FloatArray) -> FloatArray:
    """Fisher's z of correlations."""
    return np.asarray(np.arctanh(np.clip(correlation, -CLOSEST, CLOSEST)))


class Highest:
    """The TAILS[-1] + 1 highest z of `asked` pictures each, over all that they are compared with, and where the first
    of them is."""

    def __init__(self, asked: int) -> None:
        self.z = np.full((asked, TAILS[-1] + 1), -np.inf)
        self.where = np.full(asked, -1, dtype=np.int64)
        self.compared = np.zeros(asked, dtype=np.int64)

    def offer(self, z: FloatArray, first: npt.NDArray[np.int64]) -> None:
        """Take in z [asked, n] of n pictures with numbers `first` [n]; −∞ is not compared."""
        if not z.size:
            return
        at = z.argmax(axis=1)
        top = np.take_along_axis(z, at[:, None], axis=1)[:, 0]
        self.where = np.where(top > self.z.max(axis=1), first[at], self.where)
        self.compared += np.isfinite(z).sum(axis=1)
        both = np.concatenate([self.z, z], axis=1)
        self.z = np.partition(both, both.shape[1] - self.z.shape[1], axis=1)[:, -self.z.shape[1] :]

    def sorted(self) -> FloatArray:
        """Descending [asked, TAILS[-1] + 1]."""
        return np.asarray(-np.sort(-self.z, axis=1))


def chance_of_gap(z: FloatArray, compared: npt.NDArray[np.int64]) -> FloatArray:
    """How often the highest of so many independent values stands so far above the others [n], from z [n, ≥ k + 1].

    `z` are the highest of `compared` [n] values, descending. 1 where these are fewer than 2·FEWEST.
    """
    out = np.ones(len(z))
    for i, (row, n) in enumerate(zip(z, compared, strict=True)):
        half = int(n) // 2
        if half >= FEWEST:
            out[i] = max(_gap(row, k) for k in {min(k, half) for k in TAILS})
    return out


def _gap(z: FloatArray, k: int) -> float:
    spacings = (z[:k] - z[1 : k + 1]) * np.arange(1, k + 1)
    rest = float(spacings[1:].sum())
    return float(np.exp(-(k - 1) * np.log1p(spacings[0] / rest))) if rest > 0 else 1.0
