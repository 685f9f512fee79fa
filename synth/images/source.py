"""The source of images: a Parquet file that holds the pictures, or a folder of files with a table of labels.

Read one picture at a time. Of a Parquet file only the pictures' bytes, the label and the person are read, never a
path; of a folder only the files that the labels name, and none outside of it. Header checks look at names and
physical types alone. Errors name the rule, the column and the remedy, never a value or a picture's file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synth.config import Source
from synth.errors import InvalidSource
from synth.image_schema import FILE_COLUMN, IMAGE_COLUMN, ImageSchema, ImageTarget
from synth.images.frames import Frames
from synth.images.labelled import ImageSource, Labelled
from synth.images.unreadable import MOST_BYTES
from synth.ingest import check_names, separator_of

PICTURES_AT_ONCE = 64
_PARQUET_MAGIC = b"PAR1"


def open_images(source: Source, schema: ImageSchema) -> ImageSource:
    """The source, opened. Raises InvalidSource unless it holds the declared columns in fitting types."""
    folder, path = source.folder, source.path
    opened: ImageSource = _Parquet(path, schema) if folder is None else _Folder(folder, path, schema)
    return Frames(opened, schema.image) if schema.image.several else opened


def class_of(value: Any, target: ImageTarget) -> int | None:
    """The class a label stands for: by value (5, 5.0 and "5" are the same) or by the class's name; else None."""
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        for i, name in enumerate(target.classes.values()):
            if text == name.strip():
                return i
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return target.values.index(int(number)) if number.is_integer() and number in target.classes else None


class _Parquet:
    """`image` struct<bytes, path> and a label column."""

    def __init__(self, path: Path, schema: ImageSchema) -> None:
        self._path, self._schema = path, schema
        if path.is_dir():
            raise InvalidSource(
                f"source {path}: is a folder; name a Parquet file, or give `folder` and `labels` instead of `path`"
            )
        try:
            with path.open("rb") as stream:
                magic = stream.read(len(_PARQUET_MAGIC))
            if magic != _PARQUET_MAGIC:
                raise InvalidSource(f"source {path}: is not a Parquet file; images come in Parquet or as a folder")
            with pq.ParquetFile(path) as file:
                found, rows = file.schema_arrow, file.metadata.num_rows
        except FileNotFoundError:
            raise InvalidSource(f"source {path}: no such file") from None
        except (pa.ArrowException, OSError):
            raise InvalidSource(f"source {path}: damaged or unreadable Parquet file; write it again") from None
        check_names(path, found.names, [IMAGE_COLUMN, *_others(schema)])
        image = found.field(IMAGE_COLUMN).type
        named = {field.name: field.type for field in image} if pa.types.is_struct(image) else {}
        content = named.get("bytes")
        if content is None or not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
            raise InvalidSource(
                f"source {path}: column {IMAGE_COLUMN} is {image} and should be struct<bytes: binary, path: string>"
            )
        label = found.field(schema.target.name).type
        if not (pa.types.is_integer(label) or pa.types.is_floating(label) or _is_text(label)):
            raise InvalidSource(f"source {path}: column {schema.target.name} is {label} and cannot hold a class")
        if rows == 0:
            raise InvalidSource(f"source {path}: has no rows")

    def rows(self) -> Iterator[Labelled]:
        target = self._schema.target
        for batch in self._batches([f"{IMAGE_COLUMN}.bytes", target.name]):
            contents = batch.column(IMAGE_COLUMN).field("bytes")
            whole = batch.column(IMAGE_COLUMN).is_valid()
            for content, valid, label in zip(contents, whole, batch.column(target.name), strict=True):
                yield Labelled(content.as_py() if valid.as_py() else None, class_of(label.as_py(), target))

    def persons(self) -> Iterator[pa.Array]:
        assert self._schema.person_column is not None
        for batch in self._batches([self._schema.person_column]):
            yield batch.column(0)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(self._path) as file:
                yield from file.iter_batches(batch_size=PICTURES_AT_ONCE, columns=columns)
        except (pa.ArrowException, OSError):
            # The library's message can quote what it failed on, so it is replaced.
            raise InvalidSource(f"source {self._path.name}: damaged Parquet file; write it again") from None


class _Folder:
    """Files of pictures, and a CSV with the columns `file`, the target's name, and the person column if any."""

    def __init__(self, folder: Path, labels: Path, schema: ImageSchema) -> None:
        self._folder, self._labels, self._schema = folder, labels, schema
        if not folder.is_dir():
            raise InvalidSource(f"source.folder {folder}: no such folder")
        header, some = self._header()
        check_names(labels, header, [FILE_COLUMN, *_others(schema)], hint=False)
        if not some:
            raise InvalidSource(f"source.labels {labels}: has a header and no rows")

    def rows(self) -> Iterator[Labelled]:
        root = self._folder.resolve()
        for file, label in self._cells([FILE_COLUMN, self._schema.target.name]):
            yield Labelled(_content(root, file), class_of(label, self._schema.target))

    def persons(self) -> Iterator[pa.Array]:
        assert self._schema.person_column is not None
        for (person,) in self._cells([self._schema.person_column]):
            yield pa.array([person], pa.string())

    def _header(self) -> tuple[list[str], bool]:
        try:
            with self._labels.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.reader(stream, delimiter=separator_of(stream))
                return next(rows, []), any(rows)
        except FileNotFoundError:
            raise InvalidSource(f"source.labels {self._labels}: no such file") from None
        except (OSError, UnicodeDecodeError, csv.Error):
            raise InvalidSource(f"source.labels {self._labels}: is not UTF-8 CSV text") from None

    def _cells(self, columns: list[str]) -> Iterator[tuple[str, ...]]:
        try:
            with self._labels.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.reader(stream, delimiter=separator_of(stream), strict=True)
                header = next(rows)
                places = [header.index(name) for name in columns]
                for row in rows:
                    if len(row) not in (0, len(header)):
                        raise csv.Error
                    if row:
                        yield tuple(row[place].strip() for place in places)
        except (OSError, UnicodeDecodeError, csv.Error):
            raise InvalidSource(
                f"source.labels {self._labels.name}: is not CSV with one header line and equal rows"
            ) from None


def _content(root: Path, file: str) -> bytes | None:
    """The bytes of a file in the folder; None for one that is not there, or lies elsewhere."""
    try:
        path = (root / file).resolve()
        if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None


def _others(schema: ImageSchema) -> list[str]:
    return [schema.target.name, *([schema.person_column] if schema.person_column else [])]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
