"""Writing rows: Parquet with an explicit schema and replaced metadata, whole files only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synth.errors import UserError
from synth.files import PRIVATE_FILE

ROWS_IN_PART = 5_000_000
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
