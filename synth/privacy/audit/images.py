"""The one-run audit of a run on images, on its own synthetic pictures: post-processing, so free and public.

Planted pictures are saturated random blobs: nothing like a class, unlike each other, and longer than the clipping
length, so that each moves the second moments about as far as the definition allows. The other releases, a tenth of the
budget, are not audited. The attacker and the bounds are those of `one_run`; a picture's whole contribution is the
matrix uuᵀ, and ⟨uuᵀ, vvᵀ⟩ = ⟨u, v⟩² within a class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import gammaincinv

from synth.config import Source
from synth.image_schema import IMAGE_COLUMN, ImageSchema
from synth.images.encode import encode, read_coefficients
from synth.images.measure import ImageMeasurements, ImageMeasurer
from synth.images.png import write_png
from synth.images.sample import arrow_schema
from synth.images.source import Labelled, class_of, open_images
from synth.images.transform import Transform
from synth.parquet import write_file
from synth.privacy.audit.canaries import BoolArray, Canaries, fair_coins, planted
from synth.privacy.audit.one_run import (
    CANARIES,
    HALF_GRID,
    NOISE_CONFIDENCE,
    Audit,
    correct_guesses,
    free,
    judge,
    scores_of,
)
from synth.privacy.contributions import bound_contributions
from synth.privacy.image_budget import SECOND_MOMENTS, ImagePlan
from synth.privacy.noise import NoiseSource

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AUDITED_ROWS = 5_000
MOST_PIXELS = 1 << 24
"""Of all canaries together: of larger pictures there are fewer."""
COVERS = "the noised second moments of coefficients by class"

ImageMechanism = Callable[[Sequence[Path]], ImageMeasurements]
"""Working files in, one after the other as one source; noised measurements out."""


def measuring(schema: ImageSchema, transform: Transform, plan: ImagePlan) -> ImageMechanism:
    """The mechanism of a run as it is, charging nothing: no private picture is among the files."""

    def mechanism(files: Sequence[Path]) -> ImageMeasurements:
        return ImageMeasurer(
            read=lambda: (batch for file in files for batch in read_coefficients(file)),
            transform=transform,
            classes=len(schema.target.classes),
            plan=plan,
            noise=NoiseSource(),
            charge=free,
        ).measure()

    return mechanism


def audit_of_images(
    batches: Iterable[pa.RecordBatch],
    schema: ImageSchema,
    transform: Transform,
    plan: ImagePlan,
    *,
    delta: float,
    folder: Path,
    canaries: int = CANARIES,
    mechanism: ImageMechanism | None = None,
) -> Audit:
    """Plant canaries beside the synthetic pictures, measure once with fresh noise, and bound ε from below.

    Args:
        batches: synthetic rows; the first AUDITED_ROWS are used.
        schema: the public schema.
        transform: the feature map.
        plan: the releases and the claim.
        delta: δ of the claim.
        folder: working files, an existing folder of the caller's.
        canaries: how many to plant.
        mechanism: what is audited; by default the run's own measuring.
    """
    base, encoded = folder / "base.arrow", folder / "canaries.arrow"
    encode(_first_rows(batches, schema), schema, transform, base, sample=folder / "sample")
    pixels, labels = _draw(schema, transform, max(8, min(canaries, MOST_PIXELS // math.prod(schema.image.shape))))
    found = planted(_records(schema, pixels, labels), fair_coins(len(labels)), schema)
    _encode_included(found, schema, transform, folder, encoded)
    measured = (mechanism or measuring(schema, transform, plan))([base, encoded])

    known = np.zeros(measured.moments.shape)
    rows = 0
    for label, x in read_coefficients(base):
        _add(known, measured.vectors(label, x), label)
        rows += len(label)
    suspects = measured.vectors(labels, transform.coefficients(pixels))
    rest = measured.moments - known
    scores = _scores(rest, suspects, labels, measured.moment_noise, rows=(found.rows_kept, found.rows_each))
    return judge(
        rows=rows,
        planted=found,
        correct=correct_guesses(scores, found.included),
        noise_mu=_noise_mu(rest, suspects, labels, found, measured.moment_noise),
        mu=next(event.mu for event in plan.events if event.name == SECOND_MOMENTS),
        delta=delta,
        covers=COVERS,
    )


def _scores(
    rest: FloatArray, suspects: FloatArray, labels: IntArray, noise: float, *, rows: Sequence[int]
) -> FloatArray:
    """How sure the attacker is that each canary is in or out; see `one_run.guess_scores`."""
    same = labels[:, None] == labels[None, :]
    overlap = np.square(suspects @ suspects.T) * same / noise**2
    seen = np.einsum("id,ide,ie->i", suspects, rest[labels], suspects) / noise**2
    halves = np.zeros(rest.shape)
    _add(halves, suspects, labels)
    halves /= 2
    # ⟨A, B⟩ of symmetric matrices is that of the released vectors: diagonals, and √2 times upper triangles.
    squares = np.array([np.sum(rest * rest), np.sum(rest * halves), np.sum(halves * halves)]) / noise**2
    return scores_of(overlap, seen, overlap.sum(axis=1) / 2, squares, _cells(rest), rows=rows)


def _noise_mu(rest: FloatArray, suspects: FloatArray, labels: IntArray, found: Canaries, noise: float) -> float:
    """Lower bound on μ from the noise that was seen; see `one_run.noise_mu`. A canary is taken to move it by ‖uuᵀ‖."""
    inside: BoolArray = found.included
    counted = np.zeros(rest.shape)
    _add(counted, suspects[inside], labels[inside])
    left = (rest - found.rows_kept * counted) / noise
    degrees = _cells(rest)
    norm = math.sqrt(float(np.sum(left**2))) + math.sqrt(degrees) * HALF_GRID
    widest = norm**2 / (2 * float(gammaincinv(degrees / 2, 1 - NOISE_CONFIDENCE)))
    longest = float(np.max(np.sum(suspects**2, axis=1)))
    return found.rows_kept * longest / noise / math.sqrt(widest)


def _cells(moments: FloatArray) -> int:
    classes, width, _ = moments.shape
    return int(classes * width * (width + 1) // 2)


def _add(sums: FloatArray, u: FloatArray, labels: IntArray) -> None:
    for label in np.unique(labels):
        part = u[labels == label]
        sums[label] += part.T @ part


def _draw(schema: ImageSchema, transform: Transform, count: int) -> tuple[npt.NDArray[np.uint16], IntArray]:
    """Saturated random blobs [count, height, width, channels] and random classes [count]; they are no secret."""
    rng = np.random.default_rng()
    z = rng.standard_normal((count, min(transform.size, 64))) * transform.longest / 4
    return transform.pixels(z), rng.integers(0, len(schema.target.classes), count)


def _records(schema: ImageSchema, pixels: npt.NDArray[np.uint16], labels: IntArray) -> pa.RecordBatch:
    files = [{"bytes": write_png(picture, schema.image.bits), "path": None} for picture in pixels]
    values = np.array(schema.target.values, dtype=np.int64)[labels]
    expected = arrow_schema(schema)
    return pa.record_batch([pa.array(files, expected.field(0).type), pa.array(values)], schema=expected)


def _encode_included(
    found: Canaries, schema: ImageSchema, transform: Transform, folder: Path, destination: Path
) -> None:
    """The included canaries as a source of their own, read and bounded as any source is."""
    chosen = np.repeat(np.flatnonzero(found.included), found.rows_each)
    table = found.records.take(pa.array(chosen))
    if schema.person_column is not None:
        table = table.append_column(schema.person_column, pa.array([f"canary-{i}" for i in chosen]))
    path = folder / "canaries.parquet"
    write_file([table], table.schema, path, {})
    source, stays = open_images(Source(path=path), schema), None
    if schema.person_column is not None:
        stays = bound_contributions(source.persons(), max_rows_per_person=schema.max_rows_per_person)
    encode(source.rows(), schema, transform, destination, sample=folder / "sample", stays=stays)


def _first_rows(batches: Iterable[pa.RecordBatch], schema: ImageSchema) -> Iterator[Labelled]:
    left = AUDITED_ROWS
    for batch in batches:
        for row in batch.slice(0, left).to_pylist():
            yield Labelled(row[IMAGE_COLUMN]["bytes"], class_of(row[schema.target.name], schema.target))
        left -= min(left, batch.num_rows)
        if left == 0:
            return
