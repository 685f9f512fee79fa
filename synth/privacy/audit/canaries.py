"""Canaries: records that are planted in a table, each by a fair coin of its own, to see whether the coins show.

They are drawn from the public schema alone, cell by cell, so that they look like nobody and unlike each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.parquet import write_file
from synth.schema import Declaration, Schema
from synth.tables.codec import Codec, OrderedCodec

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

CROWDING = 10
"""A canary person brings this many times the rows that may stay, so that a bound that does not hold is seen."""

MAX_PLANTED_ROWS = 200_000
"""With many rows a person there are fewer canaries."""


@dataclass(frozen=True)
class Canaries:
    """Planted records.

    Attributes:
        records: one row a canary, the learned columns of the schema [m].
        included: whose coin fell on "in" [m].
        rows_each: rows that an included canary brings to the source, all of them equal.
        rows_kept: rows of a canary that a sound run counts: one, or the most that a person may have.
    """

    records: pa.RecordBatch
    included: BoolArray
    rows_each: int
    rows_kept: int


def fair_coins(count: int) -> BoolArray:
    """`count` fair coins from operating-system entropy."""
    return np.unpackbits(np.frombuffer(os.urandom((count + 7) // 8), dtype=np.uint8))[:count].astype(np.bool_)


def draw_canaries(
    schema: Schema, codecs: Mapping[str, Codec], *, count: int, rng: np.random.Generator | None = None
) -> Canaries:
    """Canaries of cells drawn evenly from the declared domains (missing is one where it is declared), and their coins.

    Args:
        schema: the public schema.
        codecs: codecs of its learned columns.
        count: how many canaries; fewer when the rows of all of them would pass MAX_PLANTED_ROWS.
        rng: picks the cells; they are no secret. The coins always take operating-system entropy.
    """
    rng = rng or np.random.default_rng()
    count = max(1, min(count, MAX_PLANTED_ROWS // _rows_each(schema)))
    records = pa.record_batch(
        {name: values_of_cells(codec, rng.integers(0, codec.size, count), rng) for name, codec in codecs.items()}
    )
    return planted(records, fair_coins(count), schema)


def planted(records: pa.RecordBatch, included: BoolArray, schema: Declaration) -> Canaries:
    """Records as canaries. Equal rows are the worst case of a person with several: they meet in the same cells."""
    kept = schema.max_rows_per_person if schema.person_column else 1
    return Canaries(records, included, rows_each=_rows_each(schema), rows_kept=kept)


def _rows_each(schema: Declaration) -> int:
    return CROWDING * schema.max_rows_per_person if schema.person_column else 1


def values_of_cells(codec: Codec, cells: IntArray, rng: np.random.Generator) -> pa.Array:
    """A value of each cell of a column's declared domain, in the column's output type."""
    if not isinstance(codec, OrderedCodec):
        return codec.decode(cells)
    missing = cells == codec.missing if codec.missing is not None else np.zeros(len(cells), dtype=np.bool_)
    known = np.where(missing, 0, cells)
    low, high = codec.lattice.edges[known], codec.lattice.edges[known + 1]
    positions = low + rng.random(len(cells)) * (high - low)
    if codec.lattice.whole:
        positions = np.floor(positions)
    return codec.decode_positions(np.minimum(positions, codec.lattice.high), missing)


def write_included(canaries: Canaries, schema: Schema, path: Path) -> None:
    """Write the included canaries as a source of their own: Parquet, with the person column where there is one."""
    rows = np.repeat(np.flatnonzero(canaries.included), canaries.rows_each)
    table = canaries.records.take(pa.array(rows))
    person = schema.person_column
    if person is not None:
        table = table.append_column(person, pa.array([f"canary-{i}" for i in rows]))
    write_file([table], table.schema, path, {})
