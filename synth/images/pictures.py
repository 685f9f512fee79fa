"""The private pictures themselves, for a critic: a working file of pixels beside that of the coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.image_schema import ImageSchema
from synth.working_file import Reader, Writer, private_array, reading, writing

IntArray = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class PrivatePictures:
    """Every person's pictures, exact: pixels [n, height·width·channels], classes [n], and whose they are [n]; None when
    each row is a person."""

    pixels: npt.NDArray[np.uint8 | np.int32]
    labels: IntArray
    persons: IntArray | None

    def __repr__(self) -> str:
        return "PrivatePictures(…)"


@dataclass(frozen=True)
class PixelFile:
    """A working file of pixels being written."""

    writer: Writer
    fields: pa.Schema

    def append(self, pixels: UInt16Array, labels: list[int], persons: IntArray | None) -> None:
        """Append pictures [n, height, width, channels], their classes, and the numbers of their persons."""
        flat = pixels.reshape(len(pixels), -1)
        size = self.fields.field("pixels").type.byte_width
        content = flat.astype(np.uint8 if size == flat.shape[1] else np.dtype("<u2")).tobytes()
        who = np.zeros(len(labels), dtype=np.int64) if persons is None else persons
        arrays = [
            pa.array(labels, pa.int32()),
            pa.array(who, pa.int64()),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(pixels), [None, pa.py_buffer(content)]),
        ]
        self.writer.write_batch(pa.record_batch(arrays, schema=self.fields))


@contextmanager
def pixel_file(destination: Path, schema: ImageSchema) -> Iterator[PixelFile]:
    """A working file of pixels to write."""
    size = math.prod(schema.image.shape) * schema.image.bits // 8
    fields = pa.schema([("label", pa.int32()), ("person", pa.int64()), ("pixels", pa.binary(size))])
    with writing(destination, fields) as writer:
        yield PixelFile(writer, fields)


def read_pictures(source: Path, schema: ImageSchema, *, destination: Path) -> PrivatePictures:
    """The working file as arrays: pixels in a file, memory-mapped, that its owner alone can read, or sealed in memory.

    Args:
        source: the working file of pixels.
        schema: the public schema.
        destination: the file to write.
    """
    form = schema.image
    held, stored = (np.uint8, np.dtype(np.uint8)) if form.bits == 8 else (np.int32, np.dtype("<u2"))
    with reading(source) as reader:
        found = _pictures(reader, schema)
        pixels, start = private_array(destination, (len(found.labels), math.prod(form.shape)), held), 0
        for i in range(reader.num_record_batches):
            column = reader.get_batch(i).column("pixels")
            skipped = column.offset * column.type.byte_width
            content = column.buffers()[1][skipped : skipped + len(column) * column.type.byte_width]
            part = np.frombuffer(content, dtype=stored).reshape(len(column), -1)
            pixels[start : start + len(part)] = part
            start += len(part)
        return replace(found, pixels=pixels)


def pictures_beside(source: Path, schema: ImageSchema, file: Path) -> PrivatePictures:
    """The same for another process, with the pixels that `read_pictures` has left in a file."""
    with reading(source) as reader:
        return replace(_pictures(reader, schema), pixels=np.load(file, mmap_mode="r", allow_pickle=False))


def _pictures(reader: Reader, schema: ImageSchema) -> PrivatePictures:
    """All but the pixels."""
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    labels, persons = (np.concatenate([b.column(name).to_numpy() for b in batches]) for name in ("label", "person"))
    return PrivatePictures(
        pixels=np.empty((0, 0), dtype=np.uint8),
        labels=labels.astype(np.int64),
        persons=None if schema.person_column is None else persons.astype(np.int64),
    )
