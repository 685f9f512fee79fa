"""Shadow tables of images: measure, denoise, model and sample many times, with and without one outlying picture.

As in `shadow`, with attacks on pictures. The picture is a saturated random blob of the class that the known pictures
show least: it moves the second moments about as far as the definition allows. The rounds of `images.fit` are left out:
they are post-processing, and would take most of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synth.image_schema import ImageSchema
from synth.images.denoise import denoise
from synth.images.encode import batch_rows, read_coefficients
from synth.images.measure import ImageMeasurements
from synth.images.model import ImageModel, model_of
from synth.images.sample import draw_pixels
from synth.images.transform import GRID_BITS, Transform
from synth.privacy.audit.canaries import planted
from synth.privacy.audit.images import ImageMechanism, draw_blobs, encode_included, records_of, rest_of
from synth.privacy.audit.shadow import SIGHTS, ShadowAudit, audit_of_scores, refuse_repetitions
from synth.tables.sample import split_by_share

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint16]

MOST_PIXELS = 1 << 24
"""Of the synthetic pictures of one repetition: of larger pictures there are fewer."""
THINNEST = 1e-6
"""No direction of a model is taken for thinner, in units of the value range."""


def shadow_audit_of_images(
    base: Path,
    schema: ImageSchema,
    transform: Transform,
    *,
    mechanism: ImageMechanism,
    delta: float,
    folder: Path,
    repetitions: int,
    progress: Callable[[int], None] = lambda _: None,
) -> ShadowAudit:
    """Run the pipeline `repetitions` times, every second time with the picture.

    Args:
        base: encoded pictures, known to the attacker. They must cost nothing: every repetition measures them again.
        schema: the public schema.
        transform: the feature map.
        mechanism: the measuring that is audited.
        delta: δ of the claim.
        folder: working files, an existing folder of the caller's.
        repetitions: a multiple of four, at least `shadow.MIN_REPETITIONS`.
        progress: called with the number of repetitions done.
    """
    refuse_repetitions(repetitions)
    sizes = np.zeros(len(schema.target.classes), dtype=np.int64)
    for labels, _ in read_coefficients(base):
        sizes += np.bincount(labels, minlength=len(sizes))
    pixels, _ = draw_blobs(schema, transform, 1)
    label = int(np.argmin(sizes))
    target = planted(records_of(schema, pixels, np.array([label])), np.array([True]), schema)
    x = transform.coefficients(pixels)
    encoded, rows = folder / "target.arrow", min(int(sizes.sum()), max(1, MOST_PIXELS // math.prod(pixels.shape)))
    held = np.arange(repetitions) % 2 == 0
    scores = np.empty((len(SIGHTS), repetitions))
    for i, inside in enumerate(held):
        if inside:
            encode_included(target, schema, transform, folder, encoded)
        measured = mechanism([base, encoded] if inside else [base])
        model = model_of(schema, denoise(measured, transform.frequency), rows=rows)
        scores[:, i] = (
            measured_score(measured, base, x, label, rows_kept=target.rows_kept),
            model_score(model, x[0] * 2.0**-GRID_BITS, label),
            -nearest_distance(model, pixels[0], label, rows),
        )
        progress(i + 1)
    return audit_of_scores(scores, held, delta=delta)


def measured_score(measured: ImageMeasurements, base: Path, x: IntArray, label: int, *, rows_kept: int) -> float:
    """Log-likelihood ratio of the second moments with and without the picture, given the noise that is stated."""
    rest, _ = rest_of(measured, base)
    u = measured.vectors(np.array([label]), x)[0]
    added = rows_kept * float(u @ u)
    return (rows_kept * float(u @ rest[label] @ u) - added**2 / 2) / measured.moment_noise**2


def model_score(model: ImageModel, x: FloatArray, label: int) -> float:
    """Log-likelihood of a picture's coefficients x [≥ d] and class under the released model, but for a constant."""
    factor = model.factors[label].astype(np.float64)  # orthogonal columns, each as long as its direction is wide
    width = np.maximum(np.sqrt(np.square(factor).sum(axis=0)), THINNEST)
    z = factor.T @ (x[: len(width)] - model.means[label]) / width**2
    share = max(float(model.class_share[label]), 1e-12)
    return math.log(share) - float(z @ z) / 2 - float(np.log(width).sum())


def nearest_distance(model: ImageModel, picture: Pixels, label: int, rows: int) -> float:
    """Euclidean distance, in pixel values, of a picture to the nearest of its class among `rows` synthetic ones."""
    rng = np.random.default_rng()
    left = int(split_by_share(rows, model.class_share, rng)[label])
    nearest = math.sqrt(picture.size) * (model.schema.image.high - model.schema.image.low)  # as far as any can be
    at_once = batch_rows(model.schema)
    for start in range(0, left, at_once):
        drawn = draw_pixels(model, np.full(min(at_once, left - start), label), rng).astype(np.float64)
        apart = np.sqrt(np.square(drawn - picture).sum(axis=(1, 2, 3)))
        nearest = min(nearest, float(apart.min()))
    return nearest
