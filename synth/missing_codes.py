"""Codes that stand for a missing value (999, "?", "N"): where a column declares them, they are read as missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

Code = int | float | str


def without_codes(array: pa.Array, codes: Sequence[Code]) -> pa.Array:
    """The array with null where one of the codes stands.

    Text matches without the space around it, numbers by value: of 999, "999" and "999.0" each is the other. A number
    in quotes is a text, which matches as it is written: "01" is not 1. Columns of dates and truth values have no codes
    unless they are text.
    """
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    numbers = sorted({float(code) for code in codes if not isinstance(code, str)})
    if pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type):
        words = {code.strip() for code in codes if isinstance(code, str)}
        distinct = plain.dictionary_encode()
        found = pa.array([_is_code(text, words, numbers) for text in distinct.dictionary.to_pylist()], pa.bool_())
        hit = found.take(distinct.indices)
    elif pa.types.is_integer(plain.type) or pa.types.is_floating(plain.type) or pa.types.is_decimal(plain.type):
        hit = pc.is_in(plain.cast(pa.float64(), safe=False), pa.array(numbers, pa.float64()))
    else:
        return array
    return pc.if_else(pc.fill_null(hit, False), pa.scalar(None, plain.type), plain)


def _is_code(text: str, words: set[str], numbers: Sequence[float]) -> bool:
    text = text.strip()
    if text in words:
        return True
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value in numbers
