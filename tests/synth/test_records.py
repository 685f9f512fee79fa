"""Records of `record_send` as columns: beside a twin that goes over them field by field."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.records import columns_of

FORMS = {"h": pa.int16(), "i": pa.int32(), "q": pa.int64(), "f": pa.float32(), "d": pa.float64(), "?": pa.bool_()}
BITS = {"h": 15, "i": 31, "q": 63}


def record(fields: Sequence[bytes | None]) -> bytes:
    """As PostgreSQL writes it; the oid is nothing to the reader."""
    written = [
        struct.pack(">ii", 99, -1) if field is None else struct.pack(">ii", 99, len(field)) + field for field in fields
    ]
    return struct.pack(">i", len(fields)) + b"".join(written)


def cells_of(form: str) -> st.SearchStrategy[Any]:
    if form == "t":
        return st.text(max_size=5).filter(lambda text: "\0" not in text)
    if form == "?":
        return st.booleans()
    if form in BITS:
        return st.integers(-(2 ** BITS[form]), 2 ** BITS[form] - 1)
    return st.floats(width=32, allow_nan=False)


@given(
    st.lists(st.sampled_from([*FORMS, "t"]), min_size=1, max_size=5).flatmap(
        lambda forms: st.tuples(
            st.just(forms), st.lists(st.tuples(*[st.none() | cells_of(form) for form in forms]), max_size=6)
        )
    )
)
def test_what_was_sent_arrives(sent: tuple[list[str], list[tuple[Any, ...]]]) -> None:
    forms, rows = sent
    written = [
        record(
            [
                None if cell is None else cell.encode() if form == "t" else struct.pack(f">{form}", cell)
                for form, cell in zip(forms, row, strict=True)
            ]
        )
        for row in rows
    ]
    kinds = [FORMS.get(form, pa.string()) for form in forms]
    found = columns_of(written, kinds, [form == "t" for form in forms])
    assert [column.type for column in found] == kinds
    assert [*zip(*[column.to_pylist() for column in found], strict=True)] == (rows if rows else [])


def test_days_and_moments_count_from_2000_and_stop_at_the_ends() -> None:
    days, micros = [0, -10_957, 2**31 - 1, -(2**31)], [0, 1, 2**63 - 1, -(2**63)]
    written = [
        record([struct.pack(">i", day), struct.pack(">q", micro)]) for day, micro in zip(days, micros, strict=True)
    ]
    found = columns_of([*written, record([None, None])], [pa.date32(), pa.timestamp("us")], [False, False])
    assert found[0].slice(0, 2).to_pylist() == [date(2000, 1, 1), date(1970, 1, 1)]
    assert found[0].view(pa.int32()).to_pylist()[2:] == [2**31 - 1, -(2**31) + 10_957, None]
    assert found[1].slice(0, 2).to_pylist() == [datetime(2000, 1, 1), datetime(2000, 1, 1) + timedelta(microseconds=1)]
    assert found[1].view(pa.int64()).to_pylist()[2:] == [2**63 - 1, -(2**63) + 946_684_800_000_000, None]


@pytest.mark.parametrize(
    "digits", ["0.1", "-12.50", "1" + "0" * 400, "-1" + "0" * 400, "0." + "0" * 400 + "1", "Infinity", "-Infinity"]
)
def test_numbers_of_any_length_are_the_nearest_floats(digits: str) -> None:
    (found,) = columns_of([record([digits.encode()]), record([None])], [pa.float64()], [True])
    assert found.to_pylist() == [float(digits), None]


def test_what_is_no_number_and_no_text_is_refused() -> None:
    for content, kind in ((b"one", pa.float64()), (b"\xff", pa.string())):
        with pytest.raises(ValueError, match=r"one|UTF8"):
            columns_of([record([content])], [kind], [True])
