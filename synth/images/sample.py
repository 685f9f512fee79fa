"""Sample: synthetic pictures and labels from a released model. No budget is spent."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import UserError
from synth.image_schema import IMAGE_COLUMN, ImageSchema
from synth.images.model import DITHER, ImageModel
from synth.images.png import write_png
from synth.images.source import class_of
from synth.tables.sample import split_by_share

ROWS_AT_ONCE = 1_000
"""Part of what a seed means: rows are drawn in batches of at most this size, whoever reads them."""
PIXELS_AT_ONCE = 1 << 24


def arrow_schema(schema: ImageSchema) -> pa.Schema:
    """The output's Arrow schema: the picture as a file in bytes with a path that is always null, and the label."""
    picture = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    return pa.schema(
        [
            pa.field(IMAGE_COLUMN, picture, nullable=False),
            pa.field(schema.target.name, pa.int64(), nullable=False),
        ]
    )


def sample_images(
    model: ImageModel, rows: int, *, seed: int | None = None, classes: Collection[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """`rows` synthetic rows, a batch at a time; of the given classes alone, in their shares, when there are any.

    The same seed, model, number of rows and classes give the same rows on one machine. Raises UserError when the
    model gives the classes no share at all.
    """
    rng = np.random.default_rng(seed)
    share = model.class_share.copy()
    if classes is not None:
        share[[i for i in range(len(share)) if i not in classes]] = 0.0
    if share.sum() <= 0:
        raise UserError("--where: the model has no picture of these classes")
    at_once = _at_once(model)
    labels = rng.permutation(np.repeat(np.arange(len(share)), split_by_share(rows, share, rng)))
    for start in range(0, rows, at_once):
        yield _records(model, labels[start : start + at_once], rng)


def draw_pixels(model: ImageModel, labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """New pictures [rows, height, width, channels] of the given classes [rows]."""
    coefficients = np.empty((len(labels), model.means.shape[1]))
    for label in np.unique(labels):
        chosen = labels == label
        coefficients[chosen] = model.coefficients(int(label), int(chosen.sum()), rng)
    return pictures_of(model, labels, coefficients, rng)


def pictures_of(
    model: ImageModel, labels: npt.NDArray[np.int64], coefficients: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """Pictures [rows, height, width, channels] of classes [rows] and coefficients [rows, d]."""
    if model.residual is None:
        return model.transform.pixels(coefficients)
    form = model.schema.image
    # Drawn by a generator of their own, so that a residual that adds nothing leaves every picture as it was.
    hidden = DITHER * rng.spawn(1)[0].standard_normal(coefficients.shape)
    start, seen = (model.transform.values(x, form.height, form.width) for x in (coefficients, coefficients + hidden))
    return model.transform.rounded(start + model.residual.added(seen, labels))


def drawn_pictures(
    model: ImageModel, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """The same for any number of pictures, a batch at a time."""
    at_once = _at_once(model)
    return np.concatenate([draw_pixels(model, labels[i : i + at_once], rng) for i in range(0, len(labels), at_once)])


def parse_classes(schema: ImageSchema, where: Collection[str]) -> set[int] | None:
    """The classes that `--where` asks for: LABEL=VALUE or LABEL=VALUE|VALUE, by value or by name; all must hold."""
    found: set[int] | None = None
    target = schema.target
    for condition in where:
        name, equals, values = condition.partition("=")
        if not equals or name.strip() != target.name:
            raise UserError(f"--where: a model of images knows conditions of the form {target.name}=VALUE only")
        asked = set()
        for value in values.split("|"):
            label = class_of(value, target)
            if label is None:
                known = ", ".join(f"{v} ({n})" for v, n in target.classes.items())
                raise UserError(f"--where {target.name}: there is no such class; the classes are {known}")
            asked.add(label)
        found = asked if found is None else found & asked
    return found


def _at_once(model: ImageModel) -> int:
    return max(1, min(ROWS_AT_ONCE, PIXELS_AT_ONCE // int(np.prod(model.schema.image.shape))))


def _records(model: ImageModel, labels: npt.NDArray[np.int64], rng: np.random.Generator) -> pa.RecordBatch:
    pictures = draw_pixels(model, labels, rng)
    bits, values = model.schema.image.bits, np.array(model.schema.target.values, dtype=np.int64)
    schema = arrow_schema(model.schema)
    files = [{"bytes": write_png(picture, bits), "path": None} for picture in pictures]
    return pa.record_batch([pa.array(files, schema.field(0).type), pa.array(values[labels])], schema=schema)
