"""Canaries lie in their domains, their coins are fair, and what is written is what was drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from synth.privacy.audit.canaries import CROWDING, draw_canaries, fair_coins, values_of_cells, write_included
from synth.schema import Schema, parse_schema
from synth.tables.codec import codecs_of

ALL = ("age", "income", "weight", "sex", "city", "stage", "dose", "died", "smoker", "admitted", "seen")


def test_records_lie_in_the_declared_domains(schema_of: Callable[..., Schema]) -> None:
    schema = schema_of(*ALL)
    codecs = codecs_of(schema)
    drawn = draw_canaries(schema, codecs, count=500, rng=np.random.default_rng(1))
    assert drawn.records.num_rows == len(drawn.included) == 500
    for name, codec in codecs.items():
        column = drawn.records.column(name)
        assert column.type == codec.arrow_type
        assert codec.valid(column).all()
        assert column.null_count > 0 or not codec.column.nullable


def test_every_cell_has_a_value_of_its_own(schema_of: Callable[..., Schema]) -> None:
    for name, codec in codecs_of(schema_of(*ALL)).items():
        cells = np.arange(codec.size)
        values = values_of_cells(codec, cells, np.random.default_rng(2))
        back = codec.encode(values, np.random.default_rng(3)).codes[f"cells:{name}"]
        # A value is rounded to its decimals: one next to an edge may step over it where cells are narrow.
        assert np.abs(back - cells).max() <= (1 if name == "weight" else 0)


def test_coins_are_fair_and_fresh() -> None:
    coins = fair_coins(40_000)
    # Twelve standard deviations (200 / 2 each): a fair coin misses this with probability below 1e-30.
    assert abs(int(coins.sum()) - 20_000) < 1_200
    assert (fair_coins(200) != fair_coins(200)).any()  # equal with probability 2^-200


def test_a_canary_of_rows_brings_one(schema_of: Callable[..., Schema], tmp_path: Path) -> None:
    schema = schema_of("age", "died")
    drawn = draw_canaries(schema, codecs_of(schema), count=200)
    write_included(drawn, schema, tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.num_rows == int(drawn.included.sum())
    assert table.column_names == ["age", "died"]
    assert (tmp_path / "c.parquet").stat().st_mode & 0o077 == 0


def test_a_canary_of_people_brings_more_rows_than_may_stay(tmp_path: Path) -> None:
    schema = people(max_rows=3)
    drawn = draw_canaries(schema, codecs_of(schema), count=64)
    write_included(drawn, schema, tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet").to_pydict()
    assert drawn.rows_kept == 3
    assert len(table["who"]) == 3 * CROWDING * int(drawn.included.sum())
    assert len(set(zip(table["who"], table["age"], strict=True))) == int(drawn.included.sum())


def test_crowded_schemas_plant_fewer() -> None:
    schema = people(max_rows=1000)
    assert len(draw_canaries(schema, codecs_of(schema), count=1000).included) == 20


def people(*, max_rows: int) -> Schema:
    raw = {
        "dataset": "visits",
        "privacy_unit": "who",
        "max_rows_per_person": max_rows,
        "columns": [{"name": "who", "kind": "id"}, {"name": "age", "kind": "integer", "bounds": [0, 99]}],
    }
    return parse_schema(raw, file="schema.yaml")
