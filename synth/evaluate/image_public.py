"""Public scores of images: synthetic pictures against paid-for measurements. No private picture is opened here."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.evaluate.distance import noise_distance, noisy_distance
from synth.facts import MarginalScore, MomentScore, QualityFacts
from synth.image_schema import IMAGE_COLUMN, ImageSchema
from synth.images.encode import batch_rows
from synth.images.measure import ImageMeasurements
from synth.images.picture import read_picture
from synth.images.sample import arrow_schema
from synth.images.source import class_of
from synth.images.transform import Transform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def moments_of(
    batches: Iterable[pa.RecordBatch], schema: ImageSchema, transform: Transform, measured: ImageMeasurements
) -> tuple[FloatArray, IntArray, int, int]:
    """Σ uuᵀ by class as it was measured, pictures in each class, valid rows, and rows of the synthetic pictures.

    A row is valid when its picture is readable and its label is declared; the rest is left out of the moments.
    """
    d, classes = measured.features, len(schema.target.classes)
    sums = np.zeros((classes, d + 1, d + 1))
    sizes = np.zeros(classes, dtype=np.int64)
    rows = valid = 0
    expected = arrow_schema(schema)
    for whole in batches:
        rows += whole.num_rows
        if whole.schema.remove_metadata() != expected:
            continue
        at_once = batch_rows(schema)
        for start in range(0, whole.num_rows, at_once):
            batch = whole.slice(start, at_once)
            labels = [class_of(value.as_py(), schema.target) for value in batch.column(schema.target.name)]
            files = batch.column(IMAGE_COLUMN).field("bytes")
            pictures = [read_picture(file.as_py(), schema.image) for file in files]
            both = [(p, c) for p, c in zip(pictures, labels, strict=True) if p is not None and c is not None]
            valid += len(both)
            if both:
                label = np.array([c for _, c in both], dtype=np.int64)
                u = measured.vectors(label, transform.coefficients(np.stack([p for p, _ in both])))
                for c in np.unique(label):
                    part = u[label == c]
                    sums[c] += part.T @ part
                sizes += np.bincount(label, minlength=classes)
    return sums, sizes, valid, rows


def image_scores(
    measured: ImageMeasurements,
    schema: ImageSchema,
    sums: FloatArray,
    sizes: IntArray,
    *,
    valid_rows: int,
    rows: int,
) -> QualityFacts:
    """Distances of the synthetic pictures to the noised measurements, with the noise's own share beside each.

    Args:
        measured: the paid-for measurements.
        schema: the public schema.
        sums: Σ uuᵀ of the synthetic pictures by class [classes, d + 1, d + 1].
        sizes: synthetic pictures in each class [classes].
        valid_rows: synthetic rows that are readable and declared; rows: all of them.
    """
    total = measured.total
    label = MarginalScore(
        columns=(schema.target.name,),
        distance=noisy_distance(sizes, measured.class_sizes, total),
        noise=noise_distance(np.full(len(sizes), measured.class_size_noise), total),
    )
    width = measured.features + 1
    # width entries of variance noise², and as many pairs of entries of half of it as there are off the diagonal.
    noise = measured.moment_noise * math.sqrt(width * (width + 1) / 2)
    moments = []
    for c, value in enumerate(schema.target.values):
        people = max(1.0, float(measured.class_sizes[c]))
        apart = sums[c] / max(1, int(sizes[c])) - measured.moments[c] / people
        moments.append(MomentScore(class_value=value, distance=float(np.linalg.norm(apart)), noise=noise / people))
    return QualityFacts(
        one_way=(label,),
        two_way=(),
        mean_one_way_distance=label.distance,
        mean_one_way_noise=label.noise,
        mean_two_way_distance=None,
        mean_two_way_noise=None,
        moments=tuple(moments),
        valid_rows=valid_rows,
        rows=rows,
    )
