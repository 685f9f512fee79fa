"""Encode: one pass over the private rows into a working file of block codes.

The working file lies in the run's private folder and is deleted when the run settles. Everything after this
stage reads codes, never values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import InvalidSource
from synth.privacy.holdout import HeldOut
from synth.tables.codec import Codec
from synth.working_file import writing

PERSON = "person"
"""The working file's column of person numbers, where there is one. No block is called so: their keys hold a colon."""


@dataclass(frozen=True)
class Aside:
    """The working file of held-out people, and whose rows go there."""

    destination: Path
    held_out: HeldOut


def encode(
    batches: Iterable[pa.RecordBatch],
    codecs: Mapping[str, Codec],
    destination: Path,
    *,
    stays: npt.NDArray[np.bool_] | None = None,
    persons: npt.NDArray[np.int64] | None = None,
    aside: Aside | None = None,
) -> dict[str, int]:
    """Write the codes of all rows to a working file and return, per column, how many values lay outside.

    Values that the schema maps to a random level take operating-system entropy. The counts are private: they
    belong in the internal report. Raises InvalidSource when there are no rows.

    Args:
        batches: the declared columns of the source.
        codecs: codecs of the learned columns.
        destination: the working file to write.
        stays: which rows are encoded at all [rows], after contribution bounding; None for all of them.
        persons: the number of the person of each row that stays [rows kept], for stages that sample people; they go
            into a column of their own, `PERSON`.
        aside: the rows of held-out people, which go into a second file and not into the first; None for nobody.
    """
    rng = np.random.default_rng(int.from_bytes(os.urandom(32), "big"))
    outside = dict.fromkeys(codecs, 0)
    fields = [pa.field(block.key, pa.int32()) for codec in codecs.values() for block in codec.blocks]
    if persons is not None:
        fields.append(pa.field(PERSON, pa.int64()))
    schema = pa.schema(fields)
    rows = 0
    with ExitStack() as files:
        training = files.enter_context(writing(destination, schema))
        scored = None if aside is None else files.enter_context(writing(aside.destination, schema))
        for batch in rows_that_stay(batches, stays):
            columns = []
            for name, codec in codecs.items():
                encoded = codec.encode(batch.column(name), rng)
                outside[name] += encoded.outside
                columns += [pa.array(encoded.codes[block.key].astype(np.int32)) for block in codec.blocks]
            if persons is not None:
                columns.append(pa.array(persons[rows : rows + batch.num_rows]))
            codes = pa.record_batch(columns, schema=schema)
            if aside is not None and scored is not None:
                held_out = aside.held_out(rows, rows + batch.num_rows)
                scored.write_batch(codes.filter(pa.array(held_out)))
                codes = codes.filter(pa.array(~held_out))
            training.write_batch(codes)
            rows += batch.num_rows
    return outside


def rows_that_stay(batches: Iterable[pa.RecordBatch], stays: npt.NDArray[np.bool_] | None) -> Iterator[pa.RecordBatch]:
    """The rows that contribution bounding leaves, batch by batch; all of them without `stays` [rows].

    Raises InvalidSource when there are none, or others than were bounded.
    """
    rows = seen = 0
    for whole in batches:
        batch = whole
        if stays is not None:
            if seen + whole.num_rows > len(stays):
                raise InvalidSource("source: changed while it was being read; run again on a file at rest")
            batch = whole.filter(pa.array(stays[seen : seen + whole.num_rows]))
        seen += whole.num_rows
        rows += batch.num_rows
        if batch.num_rows:
            yield batch
    if stays is not None and seen != len(stays):
        raise InvalidSource("source: changed while it was being read; run again on a file at rest")
    if rows == 0:
        raise InvalidSource("source: has no rows" + ("" if stays is None else " that belong to a person"))


def without_refused(batches: Iterable[pa.RecordBatch], codecs: Mapping[str, Codec]) -> Iterator[pa.RecordBatch]:
    """The batches themselves. Raises InvalidSource at the first that one of the codecs refuses to encode."""
    rng = np.random.default_rng(0)  # what it would choose is thrown away
    for batch in batches:
        for name, codec in codecs.items():
            codec.encode(batch.column(name), rng)
        yield batch


def rows_not_held_out(batches: Iterable[pa.RecordBatch], held_out: HeldOut) -> Iterator[pa.RecordBatch]:
    """The rows that stay, less those of held-out people."""
    rows = 0
    for batch in batches:
        yield batch.filter(pa.array(~held_out(rows, rows + batch.num_rows)))
        rows += batch.num_rows
