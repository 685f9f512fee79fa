"""Rows as PostgreSQL's `record_send` writes them, one string of bytes a row, to Arrow columns without a value a cell.

A record is the number of its fields and, for each, the type's oid, the length in bytes (−1 for NULL) and the value in
the type's own binary form; all numbers are big-endian (PostgreSQL 17, src/backend/utils/adt/rowtypes.c). All fields of
a column are gone over at once: each row has a place in the joined bytes, which moves on by the field's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Places = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_WORD = 4
_MOST_BYTES = 2**31 - 1
"""Of a column of text in one batch."""
_AT_ONCE = 1 << 22
"""Bytes of text; each takes 16 while its place is worked out."""

# In binary form PostgreSQL counts days and microseconds from 2000.
_DAYS, _MICROS = 10_957, 946_684_800_000_000
_LAST_DAY, _LAST_MICRO = 2**31 - 1 - _DAYS, 2**63 - 1 - _MICROS  # the greatest number stands for infinity

_BINARY: dict[pa.DataType, str] = {
    pa.bool_(): "u1",
    pa.int16(): ">i2",
    pa.int32(): ">i4",
    pa.int64(): ">i8",
    pa.float32(): ">f4",
    pa.float64(): ">f8",
    pa.date32(): ">i4",
    pa.timestamp("us"): ">i8",
    pa.timestamp("us", tz="UTC"): ">i8",
}


def columns_of(records: Sequence[bytes], kinds: Sequence[pa.DataType], as_text: Sequence[bool]) -> list[pa.Array]:
    """The columns of some rows.

    Args:
        records: a row each, with as many fields as there are kinds.
        kinds: the columns' types: those of `_BINARY`, or text.
        as_text: which columns were sent as text; what is of another kind is parsed.

    Raises ValueError where a value is not of its kind, as UTF-8 or a number, or a batch's text is too long.
    """
    content = np.frombuffer(b"".join(records), dtype=np.uint8)
    lengths = np.fromiter(map(len, records), dtype=np.int64, count=len(records))
    places = np.cumsum(lengths) - lengths + _WORD
    columns = []
    for kind, text in zip(kinds, as_text, strict=True):
        size = _fixed(content, places + _WORD, ">i4").astype(np.int64)
        places = places + 2 * _WORD
        missing = size < 0
        size[missing] = 0
        if text:
            column = _texts(content, places, size, missing).cast(kind)
        else:
            there = np.where(missing, 0, places)  # behind the last row there are no bytes
            column = _numbers(_fixed(content, there, _BINARY[kind]), missing, kind)
        columns.append(column)
        places = places + size
    return columns


def _fixed(content: Bytes, places: Places, form: str) -> npt.NDArray[Any]:
    """Numbers of one form, each at its place."""
    width = np.dtype(form).itemsize
    if not len(places):
        return np.empty(0, dtype=form)
    found: npt.NDArray[Any] = content[places[:, None] + np.arange(width)].view(form)[:, 0]
    return found


def _numbers(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    native = values.astype(values.dtype.newbyteorder("="))
    if pa.types.is_date(kind):
        days = np.minimum(native.astype(np.int64), _LAST_DAY) + _DAYS
        return pa.array(np.maximum(days, -(2**31)).astype(np.int32), mask=missing).view(kind)
    if pa.types.is_timestamp(kind):
        return pa.array(np.minimum(native, _LAST_MICRO) + _MICROS, mask=missing).view(kind)
    return pa.array(native.astype(bool) if pa.types.is_boolean(kind) else native, kind, mask=missing)


def _texts(content: Bytes, places: Places, size: Places, missing: npt.NDArray[np.bool_]) -> pa.Array:
    ends = np.concatenate([[0], np.cumsum(size)])
    if ends[-1] > _MOST_BYTES:
        raise ValueError("a batch's text is too long")
    picked = np.empty(ends[-1], dtype=np.uint8)
    cuts = np.unique(np.searchsorted(ends, np.arange(0, ends[-1] + _AT_ONCE, _AT_ONCE)).clip(max=len(size)))
    for start, stop in pairwise(cuts.tolist()):
        if stop - start == 1:
            picked[ends[start] : ends[stop]] = content[places[start] : places[start] + size[start]]
        else:
            ahead = np.repeat(places[start:stop] - ends[start:stop], size[start:stop])
            picked[ends[start] : ends[stop]] = content[ahead + np.arange(ends[start], ends[stop])]
    there = pa.array(~missing).buffers()[1]
    texts = pa.Array.from_buffers(
        pa.string(), len(size), [there, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(picked)]
    )
    texts.validate(full=True)  # a database without an encoding sends any bytes
    return texts
