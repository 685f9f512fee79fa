"""Rows as PostgreSQL's `record_send` writes them, one string of bytes a row, to Arrow columns without a value a cell.

A record is the number of its fields and, for each, the type's oid, the length in bytes (−1 for NULL) and the value in
the type's own binary form; all numbers are big-endian (PostgreSQL 17, src/backend/utils/adt/rowtypes.c). All fields of
a column are gone over at once: each row has a place in the joined bytes, which moves on by the field's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Places = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_WORD = 4

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
    if not len(places):
        return np.empty(0, dtype=form)
    # What would stand at every byte: a view, of which only the places are read.
    everywhere = np.ndarray((len(content) - np.dtype(form).itemsize + 1,), form, buffer=content, strides=(1,))
    found: npt.NDArray[Any] = everywhere[places]
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
    count = len(places)
    # All of the bytes as strings, in turn a field and what lies between it and the next; then every other one.
    ends = np.column_stack([places, places + size]).reshape(-1)
    both = pa.Array.from_buffers(
        pa.large_binary(), max(0, 2 * count - 1), [None, pa.py_buffer(ends), pa.py_buffer(content)]
    )
    fields = both.take(pa.array(np.arange(0, 2 * count, 2)[:count]))
    there = pa.array(~missing).buffers()[1]
    known = pa.Array.from_buffers(pa.large_binary(), count, [there, *fields.buffers()[1:]])
    return known.cast(pa.string())  # which looks whether it is UTF-8: a database without an encoding sends any bytes
