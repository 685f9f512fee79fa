"""Encode: one pass over the private rows into a working file of block codes.

The working file lies in the run's private folder and is deleted when the run settles. Everything after this
stage reads codes, never values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import InvalidSource
from synth.files import PRIVATE_FILE
from synth.tables.codec import Codec


def encode(
    batches: Iterable[pa.RecordBatch],
    codecs: Mapping[str, Codec],
    destination: Path,
    *,
    stays: npt.NDArray[np.bool_] | None = None,
) -> dict[str, int]:
    """Write the codes of all rows to `destination` (Arrow IPC) and return, per column, how many values lay outside.

    Values that the schema maps to a random level take operating-system entropy. The counts are private: they
    belong in the internal report. Raises InvalidSource when there are no rows.

    Args:
        batches: the declared columns of the source.
        codecs: codecs of the learned columns.
        destination: the working file to write.
        stays: which rows are encoded at all [rows], after contribution bounding; None for all of them.
    """
    rng = np.random.default_rng(int.from_bytes(os.urandom(32), "big"))
    outside = dict.fromkeys(codecs, 0)
    fields = [pa.field(block.key, pa.int32()) for codec in codecs.values() for block in codec.blocks]
    schema = pa.schema(fields)
    rows = seen = 0
    descriptor = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for whole in batches:
            batch = whole
            if stays is not None:
                if seen + whole.num_rows > len(stays):
                    raise InvalidSource("source: changed while it was being read; run again on a file at rest")
                batch = whole.filter(pa.array(stays[seen : seen + whole.num_rows]))
            seen += whole.num_rows
            if batch.num_rows == 0:
                continue
            columns = []
            for name, codec in codecs.items():
                encoded = codec.encode(batch.column(name), rng)
                outside[name] += encoded.outside
                columns += [pa.array(encoded.codes[block.key].astype(np.int32)) for block in codec.blocks]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            rows += batch.num_rows
    if stays is not None and seen != len(stays):
        raise InvalidSource("source: changed while it was being read; run again on a file at rest")
    if rows == 0:
        raise InvalidSource("source: has no rows" + ("" if stays is None else " that belong to a person"))
    return outside
