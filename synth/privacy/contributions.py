"""Contribution bounding: at most m rows a person, chosen at random, before anything else looks at the rows.

One streamed pass over the person column. A person's rows get independent random keys from operating-system entropy
and the m smallest keys stay, so that which rows stay depends on nothing in them. People are told apart by a keyed
128-bit hash: the key is forgotten with the run, and two people share a hash with probability below 2^-60 for ten
billion of them. The pass keeps 32 bytes a row in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
UIntArray = npt.NDArray[np.uint64]

_KEY_BYTES = 32
NOBODY = frozenset({"", "NA", "NaN", "nan", "null", "NULL", "None"})
"""Texts that stand for no person at all: taken for one, they would be one person of many strangers."""


def bound_contributions(persons: Iterable[pa.Array], *, max_rows_per_person: int) -> BoolArray:
    """Which rows stay, in the order they came [rows]; see `bound_and_number`."""
    return bound_and_number(persons, max_rows_per_person=max_rows_per_person)[0]


def bound_and_number(persons: Iterable[pa.Array], *, max_rows_per_person: int) -> tuple[BoolArray, IntArray]:
    """Which rows stay, in the order they came [rows], and for each that stays the number of its person [rows kept].

    Numbers count from 0 without gaps, in an order that a forgotten key has shuffled.

    Args:
        persons: the person column, batch by batch; any type. Values match by their text.
        max_rows_per_person: m, at least 1.

    A row without a person (null, or NaN) never stays: nobody could say whose it is.
    """
    if max_rows_per_person < 1:
        raise ValueError(f"max_rows_per_person must be at least 1, not {max_rows_per_person}")
    key = os.urandom(_KEY_BYTES)
    parts = [_hashes(batch, key) for batch in persons]
    if not parts:
        return np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.int64)
    known = np.concatenate([k for _, k in parts])
    hashes = np.concatenate([h for h, _ in parts])[known]
    rows = len(hashes)
    draws = np.frombuffer(os.urandom(8 * rows), dtype=np.uint64)
    order = np.lexsort((draws, hashes[:, 1], hashes[:, 0]))
    same = np.zeros(rows, dtype=np.bool_)
    same[1:] = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    # Rank of each row within its person: how far it stands from the person's first row in this order.
    position = np.arange(rows)
    first = np.maximum.accumulate(np.where(same, 0, position))
    chosen = np.empty(rows, dtype=np.bool_)
    chosen[order] = position - first < max_rows_per_person
    stays = np.zeros(len(known), dtype=np.bool_)
    stays[known] = chosen
    number = np.empty(rows, dtype=np.int64)
    number[order] = np.cumsum(~same) - 1
    return stays, number[chosen]


def _hashes(persons: pa.Array, key: bytes) -> tuple[UIntArray, BoolArray]:
    """Keyed hashes [rows, 2] of a batch of persons, and which rows have one."""
    known = ~np.asarray(persons.is_null(nan_is_null=True).to_numpy(zero_copy_only=False), dtype=np.bool_)
    encoded = persons.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    table = [_hash(value, key) for value in values]
    nobody = np.array([isinstance(v, str) and v.strip() in NOBODY for v in values] or [False])
    known &= ~nobody[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    digests = np.frombuffer(b"".join(table) or bytes(16), dtype=np.uint64).reshape(-1, 2)
    index = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return digests[index], known


def _hash(value: object, key: bytes) -> bytes:
    # A whole float is the same person as the whole number: a null turns a column of numbers into floats.
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return hashlib.blake2b(text.encode(), digest_size=16, key=key).digest()
