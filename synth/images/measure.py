"""Measure: the only stage whose outputs carry information about the people, and it pays for all of it.

Four Gaussian releases (`synth.privacy.image_budget`), each charged before its first draw and drawn once:

1. how long the coefficient vectors are: where to clip them, and about how many pictures there are;
2. class sizes and class means;
3. how long the vectors are once their class's mean is taken off and frequencies are weighted;
4. second moments within every class, of as many coefficients as the noised number of pictures allows.

Everything computed from the returned `ImageMeasurements` is post-processing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from synth.files import write_whole
from synth.images.transform import GRID_BITS, Transform
from synth.privacy.bounded import bounded_integers, lengths
from synth.privacy.image_budget import CENTRED_LENGTHS, LENGTHS, MEANS, SECOND_MOMENTS, ImagePlan
from synth.privacy.noise import NoiseSource
from synth.tables.bins import project_to_simplex

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Batches = Iterable[tuple[IntArray, IntArray]]

UNIT = 1 << 11
"""Whole numbers in a length of 1: sums stay exact and below 2^50 for 2^28 pictures."""
LENGTH_BINS = 48
BINS_PER_HALVING = 4
CLIPPED_SHARE = 0.5
"""About so many vectors are longer than the clipping length, which is the median: noise grows with its square, and in
a noisy histogram a median is found where the end of a tail is not. What clipping takes from the moments is given back
by `fit`. Chosen on public data."""
FEATURE_PART = 0.8
"""Part of ‖u‖² for the coefficients; the rest is for the constant coordinate that carries counts and means."""
FEATURES_FACTOR = 3.0
"""About FEATURES_FACTOR·√(pictures a class · μ) coefficients are measured; chosen on public data."""


@dataclass(frozen=True)
class ImageMeasurements:
    """All that a run has learned about the people, noised. Coefficients are in units of the value range.

    Attributes:
        centres: what was taken off before the second moments, the noised class means [classes, d].
        class_sizes: noised pictures in each class [classes].
        class_size_noise: noise scale of a class size.
        clip: clipping length of the centred, weighted vectors.
        weight: weight of each coefficient before clipping [d].
        moments: noised Σ uuᵀ by class [classes, d + 1, d + 1], u = (√.8·weight·(x − centre)/clip, √.2).
        moment_noise: noise scale of its diagonal; elsewhere it is smaller by √2.
    """

    centres: FloatArray
    class_sizes: FloatArray
    class_size_noise: float
    clip: float
    weight: FloatArray
    moments: FloatArray
    moment_noise: float

    @property
    def total(self) -> float:
        """Estimated number of pictures, at least 1."""
        return max(1.0, float(np.maximum(self.class_sizes, 0).sum()))

    def vectors(self, labels: IntArray, coefficients: IntArray) -> FloatArray:
        """u [n, d + 1] of pictures of known classes [n] and coefficients [n, ≥ d], rounded as it was measured."""
        x = _units(coefficients[:, : self.features])
        return outer_vectors((x - self.centres[labels]) * self.weight, self.clip) / UNIT

    def clipped(self, label: int, x: FloatArray) -> FloatArray:
        """What second moments see of a class's coefficients [n, d]: centred, weighted, no longer than the clip."""
        centred = (x - self.centres[label]) * self.weight
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(centred * (self.clip / np.maximum(length, self.clip)))

    @property
    def features(self) -> int:
        """Measured coefficients, d."""
        return int(self.centres.shape[1])


class ImageMeasurer:
    """Makes a run's releases from its working file, charging each before it draws."""

    def __init__(
        self,
        *,
        read: Callable[[], Batches],
        transform: Transform,
        classes: int,
        plan: ImagePlan,
        noise: NoiseSource,
        charge: Callable[[str], None],
    ) -> None:
        """Bind the working file to the plan.

        Args:
            read: opens the working file and yields classes [n] and coefficients [n, features], batch by batch.
            transform: the feature map.
            classes: number of declared classes.
            plan: the releases and their noise.
            noise: the noise source.
            charge: called with an event's name before that event's first draw.
        """
        self._read, self._transform, self._classes, self._plan = read, transform, classes, plan
        self._noise, self._charge = noise, charge

    def measure(self) -> ImageMeasurements:
        """All releases, in order."""
        longest = self._transform.longest
        clip, rows = self._clipping(LENGTHS, lambda _, x: _units(x), longest)
        d = self._transform.prefix(wanted_coefficients(rows, self._classes, self._plan))
        sizes, means = self._means(clip, d)
        weight = self._transform.weight[:d]

        def centred(labels: IntArray, x: IntArray) -> FloatArray:
            return (_units(x[:, :d]) - means[labels]) * weight

        clip, _ = self._clipping(CENTRED_LENGTHS, centred, 2 * longest * float(weight.max()))
        moments = self._second_moments(lambda labels, x: outer_vectors(centred(labels, x), clip), d)
        noise = self._plan.noise(SECOND_MOMENTS)
        # The constant coordinate counts too; the two counts are averaged by their precision.
        first, second = math.sqrt(2) * self._plan.noise(MEANS), noise / (1 - FEATURE_PART)
        share = second**2 / (first**2 + second**2)
        counted = moments[:, d, d] / _constant_square()
        return ImageMeasurements(
            centres=means,
            class_sizes=share * sizes + (1 - share) * counted,
            class_size_noise=math.hypot(share * first, (1 - share) * second),
            clip=clip,
            weight=weight,
            moments=moments,
            moment_noise=noise,
        )

    def _clipping(
        self, name: str, vectors: Callable[[IntArray, IntArray], FloatArray], longest: float
    ) -> tuple[float, float]:
        """A release of a histogram of lengths: the clipping length, and about how many pictures there are."""
        edges = longest * 2.0 ** (-np.arange(LENGTH_BINS)[::-1] / BINS_PER_HALVING)
        counts = np.zeros(LENGTH_BINS, dtype=np.int64)
        for labels, x in self._read():
            place = np.searchsorted(edges, lengths(vectors(labels, x), longest))
            place = np.minimum(place, LENGTH_BINS - 1)
            counts += np.bincount(place, minlength=LENGTH_BINS)
        self._charge(name)
        noised = self._noise.add_to(counts, self._plan.noise(name))
        total = max(1.0, float(noised.sum()))
        above = np.cumsum(project_to_simplex(noised, total))
        return float(edges[int(np.searchsorted(above, (1 - CLIPPED_SHARE) * total))]), total

    def _means(self, clip: float, d: int) -> tuple[FloatArray, FloatArray]:
        """Class sizes [classes], and class means [classes, d] drawn towards the mean of all classes."""
        half = UNIT * UNIT // 2
        constant = math.isqrt(half)
        sums = np.zeros((self._classes, d + 1), dtype=np.int64)
        for labels, x in self._read():
            vectors = bounded_integers(_units(x[:, :d]), clip, half)
            rows = np.column_stack([vectors, np.full(len(labels), constant)])
            np.add.at(sums, labels, rows)
        self._charge(MEANS)
        noise = self._plan.noise(MEANS) * UNIT
        noised = self._noise.add_to(sums, noise)
        sizes: FloatArray = noised[:, d] / constant
        scale = clip / math.sqrt(half)
        pooled = scale * noised[:, :d].sum(axis=0) / max(1.0, sizes.sum())
        known = np.maximum(sizes, 1.0)[:, None]
        apart = scale * noised[:, :d] / known - pooled
        # Empirical Bayes: by how much the classes' means differ beyond their noise, together over all coefficients.
        variance = (scale * noise / known) ** 2
        signal = np.maximum(np.square(apart).mean(axis=1, keepdims=True) - variance, 0.0)
        means: FloatArray = pooled + apart * signal / (signal + variance)
        # On the grid of the working file, so that what is taken off is a public constant of few digits.
        return sizes, np.asarray(np.rint(means * 2.0**GRID_BITS) / 2.0**GRID_BITS)

    def _second_moments(self, vectors: Callable[[IntArray, IntArray], IntArray], d: int) -> FloatArray:
        sums = np.zeros((self._classes, d + 1, d + 1), dtype=np.int64)
        for labels, x in self._read():
            u = vectors(labels, x).astype(np.float64)
            for label in np.unique(labels):
                part = u[labels == label]
                sums[label] += (part.T @ part).astype(np.int64)  # whole numbers below 2^53: exact in any order
        self._charge(SECOND_MOMENTS)
        scale = self._plan.noise(SECOND_MOMENTS) * UNIT * UNIT
        upper = np.triu_indices(d + 1, 1)
        out = np.zeros(sums.shape)
        for c, exact in enumerate(sums):
            # √2 times an entry off the diagonal, with noise of the same scale, is the entry with noise smaller by √2.
            off = self._noise.add_to(exact[upper], scale / math.sqrt(2))
            out[c][upper] = off
            out[c] += out[c].T
            out[c][np.diag_indices(d + 1)] = self._noise.add_to(np.diagonal(exact), scale)
        return np.asarray(out / (UNIT * UNIT))


def outer_vectors(centred: FloatArray, clip: float) -> IntArray:
    """u [n, d + 1] of centred, weighted coefficients [n, d], in whole numbers of 1/UNIT; ‖u‖ ≤ UNIT exactly."""
    most = math.floor(FEATURE_PART * UNIT * UNIT)
    constant = np.full(len(centred), math.isqrt(UNIT * UNIT - most))
    return np.column_stack([bounded_integers(centred, clip, most), constant])


def wanted_coefficients(rows: float, classes: int, plan: ImagePlan) -> float:
    """About how many coefficients so many pictures and this budget carry; `rows` is noised or declared."""
    return FEATURES_FACTOR * math.sqrt(max(1.0, rows) * plan.mu / plan.max_rows_per_person / classes)


def _units(x: IntArray) -> FloatArray:
    return np.asarray(x * 2.0**-GRID_BITS, dtype=np.float64)


def _constant_square() -> float:
    """The square of u's constant coordinate, as rounded."""
    return math.isqrt(UNIT * UNIT - math.floor(FEATURE_PART * UNIT * UNIT)) ** 2 / UNIT**2


def save_measurements(measured: ImageMeasurements, folder: Path) -> None:
    """Write the measurements to the run's private folder: each release is drawn once and saved whole."""
    arrays = {name: getattr(measured, name) for name in ("centres", "class_sizes", "weight", "moments")}
    write_whole(folder / "measurements.safetensors", save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    scalars = {name: getattr(measured, name) for name in ("class_size_noise", "clip", "moment_noise")}
    write_whole(folder / "measurements.json", json.dumps(scalars))


def load_measurements(folder: Path) -> ImageMeasurements:
    """Read what `save_measurements` wrote."""
    fields: dict[str, Any] = load_file(folder / "measurements.safetensors")
    return ImageMeasurements(**fields, **json.loads((folder / "measurements.json").read_text()))
