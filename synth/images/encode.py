"""Encode: one pass over the private pictures into a working file of coefficients.

The working file lies in the run's private folder and is deleted when the run settles. Everything that is measured
reads coefficients, never pictures. Beside it stays a random sample of the pictures, for the steward's own report.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import save

from synth.config import Source
from synth.errors import InvalidSource
from synth.image_schema import ImageSchema
from synth.images.labelled import Labelled
from synth.images.noticed import Noticed, Places
from synth.images.picture import blank
from synth.images.pictures import pixel_file
from synth.images.reading import PictureReader
from synth.images.source import open_images
from synth.images.transform import Transform
from synth.images.unreadable import Why
from synth.privacy.contributions import bound_and_number
from synth.working_file import reading, write_content, writing

BATCH_ROWS = 256
BATCH_VALUES = 1 << 22
"""Pixel values computed at a time: larger pictures come in smaller batches."""
SAMPLE_BYTES = 64 << 20
SAMPLE_ROWS = 5_000

IntArray = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Outside:
    """What of the source was mapped by the declared rules, or should be looked at: for the steward alone.

    Attributes:
        pictures: how many could not be read.
        labels: how many are not declared.
        noticed: how many pictures there is something to say about, by what it is.
        places: where the first of them are.
    """

    pictures: int
    labels: int
    noticed: dict[str, int] = field(default_factory=dict)
    places: Places = field(default_factory=dict)


def encode_source(
    source: Source,
    schema: ImageSchema,
    transform: Transform,
    destination: Path,
    *,
    sample: Path,
    pixels: Path | None = None,
) -> Outside:
    """Encode a source as a run does: at most m pictures a person. Raises InvalidSource; otherwise as `encode`."""
    opened, stays, persons = open_images(source, schema), None, None
    if schema.person_column is not None:
        stays, persons = bound_and_number(opened.persons(), max_rows_per_person=schema.max_rows_per_person)
    return encode(
        opened.rows(), schema, transform, destination, sample=sample, stays=stays, pixels=pixels, persons=persons
    )


def encode(
    rows: Iterable[Labelled],
    schema: ImageSchema,
    transform: Transform,
    destination: Path,
    *,
    sample: Path,
    stays: npt.NDArray[np.bool_] | None = None,
    pixels: Path | None = None,
    persons: IntArray | None = None,
) -> Outside:
    """Write the coefficients and classes of all rows to the working file `destination`, and some pictures to `sample`.

    A picture that cannot be read becomes the blank one, a label that is not declared a random class. Raises
    InvalidSource when there are no rows, or no picture can be read at all.

    Args:
        rows: the source, row by row.
        schema: the public schema.
        transform: the feature map.
        destination: the working file to write.
        sample: where the sampled pictures go (safetensors).
        stays: which rows are encoded at all [rows], after contribution bounding; None for all of them.
        pixels: where the pixels of every encoded picture go too, for a critic; None without one.
        persons: for each row that stays, the number of its person; None when each row is a person.
    """
    rng = np.random.default_rng(int.from_bytes(os.urandom(32), "big"))
    fields = pa.schema([pa.field("label", pa.int32()), pa.field("coefficients", pa.list_(pa.int32(), transform.size))])
    kept, at_once = Sample(schema, rng), batch_rows(schema)
    pictures = labels = seen = files = 0
    noticed = Noticed()
    batch: list[UInt16Array] = []
    classes: list[int] = []
    with (
        writing(destination, fields) as writer,
        nullcontext() if pixels is None else pixel_file(pixels, schema) as beside,
        PictureReader(schema.image) as reader,
    ):

        def flush() -> None:
            if batch:
                values = pa.array(transform.coefficients(np.stack(batch)).astype(np.int32).reshape(-1))
                arrays = [pa.array(classes, pa.int32()), pa.FixedSizeListArray.from_arrays(values, transform.size)]
                writer.write_batch(pa.record_batch(arrays, schema=fields))
                if beside is not None:
                    whose = None if persons is None else persons[kept.offered - len(batch) : kept.offered]
                    beside.append(np.stack(batch), classes, whose)
                batch.clear()
                classes.clear()

        for row in rows:
            seen += 1
            files += row.place == 0
            if stays is not None and (seen > len(stays) or not stays[seen - 1]):
                continue
            found = reader.read(row.content, row.place)
            noticed.note(found, row=files, picture=1 + row.place)
            pictures += found.pixels is None
            labels += row.label is None
            batch.append(blank(schema.image) if found.pixels is None else found.pixels)
            classes.append(int(rng.integers(len(schema.target.classes))) if row.label is None else row.label)
            kept.offer(batch[-1], classes[-1])
            if len(batch) == at_once:
                flush()
        flush()
    if stays is not None and seen != len(stays):
        raise InvalidSource("source: changed while it was being read; run again on a file at rest")
    if kept.offered == 0:
        raise InvalidSource("source: has no rows" + ("" if stays is None else " that belong to a person"))
    if pictures == kept.offered:
        raise InvalidSource(
            "source: none of its pictures could be read; they should be PNG, JPEG, TIFF, DICOM or NIfTI files, and of "
            "a folder, named by the labels from that folder on" + _shared(noticed)
        )
    write_content(sample, save({"pixels": np.stack(kept.pixels), "labels": np.array(kept.labels, dtype=np.int64)}))
    return Outside(pictures=pictures, labels=labels, noticed=dict(noticed.counts), places=dict(noticed.places))


def _shared(noticed: Noticed) -> str:
    """Why no picture could be read, when it is the same for all: then it tells of no single one."""
    whys = [why for why in Why if noticed.counts[why]]
    return f"; each is: {whys[0]}" if len(whys) == 1 else ""


def batch_rows(schema: ImageSchema) -> int:
    """Pictures computed at a time."""
    return max(1, min(BATCH_ROWS, BATCH_VALUES // math.prod(schema.image.shape)))


def read_coefficients(path: Path) -> Iterator[tuple[IntArray, IntArray]]:
    """Classes [n] and coefficients [n, features] of the working file, a batch at a time, memory-mapped."""
    with reading(path) as reader:
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            values = batch.column("coefficients").flatten().to_numpy().reshape(batch.num_rows, -1)
            yield batch.column("label").to_numpy().astype(np.int64), values.astype(np.int64)


class Sample:
    """A uniform random sample of what is offered (reservoir sampling, Vitter 1985, algorithm R)."""

    def __init__(self, schema: ImageSchema, rng: np.random.Generator, *, most: int = SAMPLE_ROWS) -> None:
        height, width, channels = schema.image.shape
        self._most = max(1, min(most, SAMPLE_BYTES // (2 * height * width * channels)))
        self._rng = rng
        self.offered = 0
        self.pixels: list[UInt16Array] = []
        self.labels: list[int] = []

    def offer(self, pixels: UInt16Array, label: int) -> None:
        """Keep it, perhaps in the place of another."""
        self.offered += 1
        if len(self.pixels) < self._most:
            self.pixels.append(pixels)
            self.labels.append(label)
            return
        place = int(self._rng.integers(self.offered))
        if place < self._most:
            self.pixels[place], self.labels[place] = pixels, label
