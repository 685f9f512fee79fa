"""Rows as the internal report sees them: a bounded sample in memory, and a fingerprint of every row.

Real, training and synthetic rows pass through the same rules of the schema, so that they can be compared cell by cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from synth.tables.codec import Codec, LevelCodec, OrderedCodec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Fingerprints = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """A uniform sample of a table's rows.

    Attributes:
        matrix: [rows, columns] positions of ordered columns, level numbers of the others, NaN where missing.
        fingerprints: [total] one 64-bit hash a row of the whole table; equal rows have equal ones.
    """

    matrix: FloatArray
    fingerprints: Fingerprints

    @property
    def total(self) -> int:
        """Rows of the table, sampled or not."""
        return len(self.fingerprints)

    def take(self, most: int) -> FloatArray:
        """The first `most` sampled rows: a uniform sample too, since the sample is in random order."""
        return self.matrix[:most]


def read_rows(
    batches: Iterable[pa.RecordBatch], codecs: Mapping[str, Codec], *, most: int, rng: np.random.Generator
) -> Rows:
    """A uniform sample of at most `most` rows, in random order, in one pass that holds that and a batch."""
    kept, keys = np.empty((0, len(codecs))), np.empty(0)
    prints: list[Fingerprints] = []
    for batch in batches:
        matrix = np.column_stack([_cells(codec, batch.column(name), rng) for name, codec in codecs.items()])
        prints.append(fingerprints(matrix))
        keys = np.concatenate([keys, rng.random(len(matrix))])
        kept = np.concatenate([kept, matrix])
        chosen = np.argsort(keys)[:most]  # the rows with the smallest of independent random keys
        kept, keys = kept[chosen], keys[chosen]
    return Rows(kept, np.concatenate(prints) if prints else np.empty(0, dtype=np.uint64))


def fingerprints(matrix: npt.NDArray[np.float64] | IntArray) -> Fingerprints:
    """One hash a row [rows]; different rows share one with probability about 2^-64."""
    frame = pd.DataFrame(matrix + 0)  # adding zero makes -0.0 and 0.0 one value
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), dtype=np.uint64)


def is_ordered(codecs: Mapping[str, Codec]) -> BoolArray:
    """Which columns of the matrix are positions on a line; the others are level numbers."""
    return np.array([isinstance(codec, OrderedCodec) for codec in codecs.values()])


def frame_of(matrix: FloatArray, codecs: Mapping[str, Codec]) -> pd.DataFrame:
    """The rows as a table of numbers and level names, for libraries that want one; moments stay numbers."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for i, (name, codec) in enumerate(codecs.items()):
        if isinstance(codec, OrderedCodec):
            columns[name] = matrix[:, i]  # of one type, whether a table happens to miss a value or not
        else:
            names = np.array([*(str(level) for level in codec.levels), None], dtype=object)
            columns[name] = names[np.where(np.isnan(matrix[:, i]), len(codec.levels), matrix[:, i]).astype(np.int64)]
    return pd.DataFrame(columns)


def _cells(codec: Codec, array: pa.Array, rng: np.random.Generator) -> FloatArray:
    if isinstance(codec, LevelCodec):
        code = codec.encode(array, rng).codes[codec.blocks[0].key].astype(np.float64)
        return np.where(code == codec.missing, np.nan, code)
    positions, _ = codec.positions(array)
    if codec.column.outside == "missing":
        inside = (positions >= codec.lattice.low) & (positions <= codec.lattice.high)
        return np.where(inside, positions, np.nan)
    return np.clip(positions, codec.lattice.low, codec.lattice.high)
