"""Encode: one pass over the private rows into a working file of block codes.

The working file lies in the run's private folder and is deleted when the run settles. Everything after this
stage reads codes, never values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from synth.errors import InvalidSource
from synth.files import PRIVATE_FILE
from synth.tables.codec import Codec


def encode(batches: Iterable[pa.RecordBatch], codecs: Mapping[str, Codec], destination: Path) -> dict[str, int]:
    """Write the codes of all rows to `destination` (Arrow IPC) and return, per column, how many values lay outside.

    Values that the schema maps to a random level take operating-system entropy. The counts are private: they
    belong in the internal report. Raises InvalidSource when there are no rows.
    """
    rng = np.random.default_rng(int.from_bytes(os.urandom(32), "big"))
    outside = dict.fromkeys(codecs, 0)
    fields = [pa.field(block.key, pa.int32()) for codec in codecs.values() for block in codec.blocks]
    schema = pa.schema(fields)
    rows = 0
    descriptor = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            columns = []
            for name, codec in codecs.items():
                encoded = codec.encode(batch.column(name), rng)
                outside[name] += encoded.outside
                columns += [pa.array(encoded.codes[block.key].astype(np.int32)) for block in codec.blocks]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            rows += batch.num_rows
    if rows == 0:
        raise InvalidSource("source: has no rows")
    return outside
