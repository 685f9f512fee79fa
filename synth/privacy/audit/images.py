"""The one-run audit of a run on images. On its own synthetic pictures it is post-processing, so free and public.

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
from synth.images.encode import encode, encode_source, read_coefficients
from synth.images.labelled import Labelled
from synth.images.measure import ImageMeasurements, ImageMeasurer
from synth.images.png import write_png
from synth.images.sample import arrow_schema
from synth.images.source import class_of
from synth.images.transform import Transform
from synth.parquet import write_file
from synth.privacy.audit.canaries import CROWDING, MAX_PLANTED_ROWS, BoolArray, Canaries, fair_coins, planted
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


def measuring(
    schema: ImageSchema, transform: Transform, plan: ImagePlan, charge: Callable[[str], None] = free
) -> ImageMechanism:
    """The mechanism of a run as it is. Where a private picture is among the files, the caller brings a charge."""

    def mechanism(files: Sequence[Path]) -> ImageMeasurements:
        return ImageMeasurer(
            read=lambda: (batch for file in files for batch in read_coefficients(file)),
            transform=transform,
            classes=len(schema.target.classes),
            plan=plan,
            noise=NoiseSource(),
            charge=charge,
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
    """The audit that a run makes of itself, on the first AUDITED_ROWS synthetic rows; see `one_run_audit_of_images`."""
    base = folder / "base.arrow"
    encode(synthetic_rows(batches, schema, AUDITED_ROWS), schema, transform, base, sample=folder / "sample")
    return one_run_audit_of_images(
        base, schema, transform, plan, delta=delta, folder=folder, canaries=canaries, mechanism=mechanism
    )


def one_run_audit_of_images(
    base: Path,
    schema: ImageSchema,
    transform: Transform,
    plan: ImagePlan,
    *,
    delta: float,
    folder: Path,
    canaries: int = CANARIES,
    mechanism: ImageMechanism | None = None,
) -> Audit:
    """Plant canaries beside the pictures of `base`, measure once with fresh noise, and bound ε from below.

    Args:
        base: encoded pictures, each known to the attacker.
        schema: the public schema.
        transform: the feature map.
        plan: the releases and the claim.
        delta: δ of the claim.
        folder: working files, an existing folder of the caller's.
        canaries: how many to plant; fewer of large pictures, or with many rows a person.
        mechanism: what is audited; by default the run's own measuring, charging nothing. A caller whose base holds
            private pictures brings one that charges.
    """
    encoded = folder / "canaries.arrow"
    most = min(
        MOST_PIXELS // math.prod(schema.image.shape), MAX_PLANTED_ROWS // (CROWDING * schema.max_rows_per_person)
    )
    pixels, labels = draw_blobs(schema, transform, max(8, min(canaries, most)))
    found = planted(records_of(schema, pixels, labels), fair_coins(len(labels)), schema)
    encode_included(found, schema, transform, folder, encoded)
    measured = (mechanism or measuring(schema, transform, plan))([base, encoded])

    rest, rows = rest_of(measured, base)
    suspects = measured.vectors(labels, transform.coefficients(pixels))
    scores = _scores(rest, suspects, labels, measured.moment_noise, rows=(found.rows_kept, found.rows_each))
    return judge(
        rows=rows,
        planted=found,
        correct=correct_guesses(scores, found.included),
        noise_mu=_noise_mu(rest, suspects, labels, found, measured.moment_noise),
        mu=next(event.mu for event in plan.releases if event.name == SECOND_MOMENTS),
        delta=delta,
        covers=COVERS if plan.critic is None else f"{COVERS}, and not the critic trained by DP-SGD",
    )


def rest_of(measured: ImageMeasurements, base: Path) -> tuple[FloatArray, int]:
    """The noised second moments less those of the known pictures [classes, d + 1, d + 1], and how many these are."""
    known, rows = np.zeros(measured.moments.shape), 0
    for label, x in read_coefficients(base):
        _add(known, measured.vectors(label, x), label)
        rows += len(label)
    return measured.moments - known, rows


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


def draw_blobs(schema: ImageSchema, transform: Transform, count: int) -> tuple[npt.NDArray[np.uint16], IntArray]:
    """Saturated random blobs [count, height, width, channels] and random classes [count]; they are no secret."""
    rng = np.random.default_rng()
    z = rng.standard_normal((count, min(transform.size, 64))) * transform.longest / 4
    return transform.pixels(z), rng.integers(0, len(schema.target.classes), count)


def records_of(schema: ImageSchema, pixels: npt.NDArray[np.uint16], labels: IntArray) -> pa.RecordBatch:
    """Pictures [n, height, width, channels] and classes [n] as rows."""
    files = [{"bytes": write_png(picture, schema.image.bits), "path": None} for picture in pixels]
    values = np.array(schema.target.values, dtype=np.int64)[labels]
    expected = arrow_schema(schema)
    return pa.record_batch([pa.array(files, expected.field(0).type), pa.array(values)], schema=expected)


def encode_included(
    found: Canaries, schema: ImageSchema, transform: Transform, folder: Path, destination: Path
) -> None:
    """The included canaries as a source of their own, read and bounded as any source is."""
    chosen = np.repeat(np.flatnonzero(found.included), found.rows_each)
    table = found.records.take(pa.array(chosen))
    if schema.person_column is not None:
        table = table.append_column(schema.person_column, pa.array([f"canary-{i}" for i in chosen]))
    path = folder / "canaries.parquet"
    write_file([table], table.schema, path, {})
    encode_source(Source(path=path), schema, transform, destination, sample=folder / "sample")


def synthetic_rows(batches: Iterable[pa.RecordBatch], schema: ImageSchema, most: int) -> Iterator[Labelled]:
    """The first rows of a bundle; each is nobody's and counts by itself."""
    left = most
    for batch in batches:
        for row in batch.slice(0, left).to_pylist():
            yield Labelled(row[IMAGE_COLUMN]["bytes"], class_of(row[schema.target.name], schema.target))
        left -= min(left, batch.num_rows)
        if left == 0:
            return
