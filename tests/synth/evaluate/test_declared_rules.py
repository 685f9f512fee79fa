"""Rows that break a declared rule: no valid rows in public, counted one by one for the steward."""

from __future__ import annotations

import pyarrow as pa

from synth.evaluate.internal.rules import BrokenRows
from synth.evaluate.public import ValidRows
from synth.schema import parse_schema
from synth.tables.codec import codecs_of
from synth.tables.rules import rules_of

SCHEMA = parse_schema(
    {
        "dataset": "toy",
        "columns": [
            {"name": "low", "kind": "integer", "bounds": [0, 9], "nullable": True},
            {"name": "high", "kind": "continuous", "bounds": [0, 5], "decimals": 1},
            {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
        ],
        "rules": ["low <= high", "not (sex = male and low = 0|1)"],
    },
    file="s",
)
CODECS, RULES = codecs_of(SCHEMA), rules_of(SCHEMA)


def test_a_row_that_breaks_one_is_not_valid() -> None:
    batch = pa.record_batch(
        {
            "low": pa.array([1, 1, 3, None, 4], pa.int64()),
            "high": [1.0, 1.0, 2.9, 0.0, 5.0],
            "sex": ["female", "male", "female", "male", "attic"],
        }
    )
    for rules, valid in (((), 4), (RULES, 2)):  # the attic falls out; the second and the third with it
        seen = ValidRows(CODECS, rules)
        seen.add(batch)
        assert (seen.valid, seen.rows) == (valid, 5)


def test_the_source_is_counted_as_it_will_be_measured() -> None:
    """Text and numbers beyond the bounds are read, clipped or missing as everywhere else."""
    seen = BrokenRows(RULES, CODECS)
    first = pa.record_batch({"low": ["1", "7", "x", None], "high": ["0.9", "99", "0", "0"], "sex": ["male"] * 4})
    second = pa.record_batch({"low": pa.array([0, 0]), "high": pa.array([0.0, None]), "sex": ["male", "attic"]})
    assert list(seen.watch(iter([first, second]))) == [first, second]
    assert (seen.rows, seen.counts) == (6, [2, 2])  # 1 > 0.9 and 7 > 5; male with 1 and with 0
