"""Synthetic rows in Parquet: an explicit schema, replaced metadata, whole files only; and how they are read again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synth.errors import UserError
from synth.files import PRIVATE_FILE

ROWS_IN_PART = 5_000_000
ROWS_AT_ONCE = 65_536
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def synthetic_metadata(
    *, epsilon: float, delta: float, privacy_unit: str, run_id: str, schema_sha256: str
) -> dict[str, str]:
    """Key-value metadata that marks a file as synthetic, says under which guarantee, and names its bundle's schema.

    `schema_sha256` is that of schema.yaml in lower-case hex, as the bundle's manifest lists it.
    """
    return {
        "synthetic": "true",
        "digital_source_type": DIGITAL_SOURCE_TYPE,
        "epsilon": repr(epsilon),
        "delta": repr(delta),
        "privacy_unit": privacy_unit,
        "run": run_id,
        "schema_sha256": schema_sha256,
    }


def drawn_by_us(path: Path) -> bool:
    """Whether a file is one that `synth sample` has written, by the mark in it."""
    try:
        marks = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return marks.get(b"synthetic") == b"true" or b"completed" in marks


def write_parts(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, metadata: Mapping[str, str]
) -> list[str]:
    """Write data/part-*.parquet below `folder` and return the names, a new part every ROWS_IN_PART rows."""
    names: list[str] = []
    stream = iter(batches)
    pending = next(stream, None)
    while pending is not None or not names:
        name = f"part-{len(names):05d}.parquet"
        written = 0

        def part(first: pa.RecordBatch | None) -> Iterable[pa.RecordBatch]:
            nonlocal pending, written
            pending = first
            while pending is not None and written < ROWS_IN_PART:
                written += pending.num_rows
                yield pending
                pending = next(stream, None)

        write_file(part(pending), schema, folder / name, metadata)
        names.append(name)
    return names


def part_files(folder: Path) -> list[Path]:
    """The parts below `folder`, in the order they were written."""
    return sorted(folder.glob("part-*.parquet"))


def read_parts(
    folder: Path, columns: Sequence[str] | None = None, *, batch_rows: int = ROWS_AT_ONCE
) -> Iterator[pa.RecordBatch]:
    """The rows of all parts below `folder`, batch by batch; all columns, or the named ones in the order given."""
    for path in part_files(folder):
        yield from read_file(path, columns, batch_rows=batch_rows)


def read_file(
    path: Path, columns: Sequence[str] | None = None, *, batch_rows: int = ROWS_AT_ONCE
) -> Iterator[pa.RecordBatch]:
    """The rows of one Parquet file, as `read_parts` has them. Raises what pyarrow does for a damaged file."""
    names = None if columns is None else list(columns)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=batch_rows, columns=names):
            yield batch if names is None else batch.select(names)


def write_file(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, metadata: Mapping[str, str]) -> int:
    """Write one Parquet file aside and rename it; returns its number of rows. Raises UserError when it cannot."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    marked = schema.with_metadata({k.encode(): v.encode() for k, v in metadata.items()})
    rows = 0
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with (
            os.fdopen(descriptor, "wb") as sink,
            pq.ParquetWriter(sink, marked, compression="zstd") as writer,
        ):
            for batch in batches:
                writer.write_batch(batch.cast(marked))
                rows += batch.num_rows
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return rows
