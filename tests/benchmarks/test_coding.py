from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.schema import parse_schema

SCHEMA = {
    "dataset": "small",
    "privacy_unit": "person",
    "columns": [
        {"name": "person", "kind": "id"},
        {"name": "count", "kind": "integer", "bounds": [0, 5], "nullable": True},
        {"name": "wide", "kind": "integer", "bounds": [-7, 1000]},
        {"name": "real", "kind": "continuous", "bounds": [0, 1], "nullable": True},
        {"name": "tenth", "kind": "continuous", "bounds": [-2, 40], "decimals": 1},
        {"name": "day", "kind": "datetime", "bounds": ["1969-12-01", "1999-12-31"], "resolution": "day"},
        {"name": "level", "kind": "categorical", "categories": ["a", "b", "c"], "nullable": True},
        {"name": "code", "kind": "categorical", "categories": [7, 5]},
        {"name": "flag", "kind": "boolean"},
    ],
}
BINNINGS = ("width", "fine", "gift", "own")


def rows(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)

    def gaps(values: Any) -> Any:
        return [None if gap else value for value, gap in zip(values, rng.random(n) < 0.2, strict=True)]

    return pd.DataFrame(
        {
            "person": rng.integers(0, max(1, n // 2), n),
            "count": gaps(rng.integers(0, 6, n)),
            "wide": np.where(rng.random(n) < 0.5, 0, rng.integers(-7, 1001, n)),
            "real": gaps(rng.random(n)),
            "tenth": np.round(rng.uniform(-2, 40, n), 1),
            "day": pd.Timestamp("1969-12-01") + pd.to_timedelta(rng.integers(0, 10_000, n), unit="D"),
            "level": gaps(rng.choice(["a", "b", "c"], n)),
            "code": rng.choice([5, 7], n),
            "flag": rng.random(n) < 0.5,
        }
    )


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 10**6), binning=st.sampled_from(BINNINGS))
def test_there_and_back(n: int, seed: int, binning: str) -> None:
    """Back and there again gives the same codes; levels, gaps and single values come back as they were."""
    coding = importlib.import_module("coding")
    schema, table = parse_schema(SCHEMA, file="schema"), rows(n, seed)
    code = coding.coding_of(schema, table, binning)
    coded = code.encode(table)
    sizes = {column["name"]: column.get("size") for column in code.describe()}
    for name, size in sizes.items():
        if size is not None:
            assert coded[name].between(0, size - 1).all(), name
    back = code.decode(coded, np.random.default_rng(seed))
    # A value drawn from a quantile bin may be one that has a bin of its own.
    same = list(coded) if binning != "gift" else ["level", "code", "flag", "count"]
    pd.testing.assert_frame_equal(code.encode(back)[same], coded[same], rtol=1e-9)
    for name, line in code.lines.items():
        inside = coded[name] < len(line.low)
        drawn, bins = line.values(coded[name].to_numpy(), np.random.default_rng(seed)), coded[name][inside]
        assert (drawn[inside] >= line.low[bins]).all() and (drawn[inside] <= line.high[bins]).all()
    for name, low, high in (("wide", -7, 1000), ("real", 0, 1), ("tenth", -2, 40)):
        assert back[name].dropna().between(low, high).all()
    assert list(back["level"].isna()) == list(table["level"].isna())
    assert list(back["real"].isna()) == list(table["real"].isna())
    if binning == "own":
        assert list(back["day"]) == list(table["day"])
        np.testing.assert_allclose(back["tenth"], table["tenth"], atol=1e-9)


def test_public_bins_do_not_look_at_the_rows() -> None:
    coding = importlib.import_module("coding")
    schema = parse_schema(SCHEMA, file="schema")
    for binning in ("width", "fine", "own"):
        described = [coding.coding_of(schema, rows(30, seed), binning).describe() for seed in (1, 2)]
        assert described[0] == described[1]
    gift = [coding.coding_of(schema, rows(300, seed), "gift").lines["real"].low for seed in (1, 2)]
    assert list(gift[0]) != list(gift[1])


def test_bins_worked_by_hand() -> None:
    coding = importlib.import_module("coding")
    schema = parse_schema(SCHEMA, file="schema")
    code = coding.coding_of(schema, rows(5, 0), "width")
    assert list(code.lines["count"].low) == [0, 1, 2, 3, 4, 5]
    assert code.lines["wide"].low[0] == -7 and code.lines["wide"].high[-1] == 1000 and len(code.lines["wide"].low) == 20
    assert (code.lines["wide"].low[1:] == code.lines["wide"].high[:-1] + 1).all()
    cells = pd.Series([0, None, 5, 99])
    assert list(code.lines["count"].codes(cells)) == [0, 6, 5, 5]  # clipped to the public bounds
    skewed = rows(400, 3).assign(wide=[0] * 200 + list(range(1, 201)))
    line = coding.coding_of(schema, skewed, "gift").lines["wide"]
    assert 0 in line.low[line.low == line.high]
    shares = np.bincount(line.codes(skewed["wide"])) / 400
    assert shares.max() == 0.5 and np.sort(shares)[:-1].max() == pytest.approx(0.5 / 20)


def test_an_output_that_is_not_the_domain_s_is_refused() -> None:
    coding = importlib.import_module("coding")
    code = coding.coding_of(parse_schema(SCHEMA, file="schema"), rows(5, 0), "width")
    coded = code.encode(rows(5, 0))
    with pytest.raises(ValueError, match="lacks flag"):
        code.decode(coded.drop(columns="flag"), np.random.default_rng(0))
    with pytest.raises(ValueError, match="unknown code of code"):
        code.decode(coded.assign(code=2), np.random.default_rng(0))


def test_one_row_a_person() -> None:
    coding = importlib.import_module("coding")
    table = rows(50, 1)
    kept = coding.one_row_a_person(table, "person", np.random.default_rng(0))
    assert sorted(kept["person"]) == sorted(set(table["person"]))
    assert coding.one_row_a_person(table, None, np.random.default_rng(0)) is table


def test_marks_of_missing_numbers(tmp_path: Any) -> None:
    exchange = importlib.import_module("exchange")
    columns = [
        {"name": "x", "low": 0.0, "high": 4.0, "whole": False, "nullable": True},
        {"name": "c", "size": 3},
    ]
    table = pd.DataFrame({"x": [1.0, math.nan], "c": [0, 2]})
    table.to_parquet(tmp_path / "table.parquet")
    task = exchange.Task(tmp_path, "m", 1.0, 1e-5, 1, 2, columns)
    marked, filled = exchange.mark_missing(task)
    assert marked.sizes == {"x is missing": 2, "c": 3}
    assert filled.to_dict("list") == {"x": [1.0, 2.0], "x is missing": [0, 1], "c": [0, 2]}
    pd.testing.assert_frame_equal(exchange.unmark_missing(task, filled), table)
