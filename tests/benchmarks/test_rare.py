"""Rows of a rare level: which levels are rare, and how far picked rows lie from the real ones."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCHEMA = """
dataset: small
columns:
  - {name: number, kind: integer, bounds: [0, 99]}
  - {name: level, kind: categorical, categories: [common, rare, rarer, nobody]}
"""


def test_levels_that_few_have_are_compared_with_the_real_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rare, tabular = importlib.import_module("rare"), importlib.import_module("tabular")
    schema = importlib.import_module("synth.schema")
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    level = np.repeat(["common", "rare", "rarer"], [9978, 20, 2])
    number = np.where(level == "rare", 90, np.arange(10_000) % 50)
    for part in ("train", "test"):
        pd.DataFrame({"number": number, "level": level}).to_parquet(tmp_path / f"{part}.parquet")
    paths = (tmp_path / "train.parquet", tmp_path / "test.parquet", tmp_path / "schema.yaml")
    table = tabular.Table(*paths, schema.load_schema(tmp_path / "schema.yaml"), ())

    levels = rare.rare_levels(rare.real_rows(table), table)
    assert levels == [rare.Level("level", "rare", 40)]
    assert rare.rare_levels(rare.real_rows(table), table, of="number") == []

    told = rare.with_target(table, "level", tmp_path / "told")
    assert (table.schema.target, told.schema.target) == (None, "level")
    assert schema.load_schema(told.schema_file) == told.schema, "the run is given this file"
    assert rare.rare_levels(rare.real_rows(told), told, of="level") == levels
    with pytest.raises(SystemExit, match="--target: no column age"):
        rare.with_target(table, "age", tmp_path / "other")

    def draw(bundle: Path, *, rows: int, where: list[str], output: Path, seed: int) -> None:
        assert where == ["level=rare"]
        pd.DataFrame({"number": np.full(rows, 90), "level": "rare"}).to_parquet(output)

    monkeypatch.setattr(rare, "sample_to_file", draw)
    peer = pd.DataFrame({"number": [90, 10, 90, 10, 7], "level": ["rare", "rare", "rare", "rare", "common"]})
    peer.to_parquet(tmp_path / "peer.parquet")
    row = rare.row_of(levels[0], table, tmp_path, tmp_path / "peer.parquet")
    assert row == {
        "column": "level",
        "level": "rare",
        "real_rows": "40",
        "drawn_anew": "0.0000",
        "all_rows": "0.9381",  # all but the uppermost of twenty bins: 47, 48, 49 and the rare level itself
        "ours": "0.0000",
        "peer_rows": "4",
        "peer": "0.5000",
    }
