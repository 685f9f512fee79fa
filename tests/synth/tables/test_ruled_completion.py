"""Completion under rules against the brute force, and rows whose own cells break them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.schema import parse_schema
from synth.tables import states
from synth.tables.completion import complete, completed_schema
from synth.tables.decode import ColumnDecoder
from synth.tables.model import TableModel, new_generator
from synth.tables.rules import met_by
from synth.tables.targets import Encoding

ROWS = 20_000
TYPES = {"sex": pa.string(), "grade": pa.int64(), "age": pa.int64(), "died": pa.bool_()}
# Chi-square tests at 1e-6 on rows of fixed seeds: they pass or fail alike on every machine.


def with_rules(model: TableModel, *rules: Any) -> TableModel:
    raw = model.schema.model_dump(mode="json", exclude_defaults=True)
    return replace(model, schema=parse_schema({**raw, "rules": list(rules)}, file="s"))


def completed(model: TableModel, table: pa.Table) -> tuple[pa.Table, int]:
    broken: list[int] = []
    batches = complete(model, table.schema, iter(table.to_batches(7000)), seed=0, on_broken=broken.append)
    return pa.Table.from_batches(list(batches), completed_schema(model, table.schema)), sum(broken)


def meets_all(model: TableModel, table: pa.Table) -> np.ndarray:
    return met_by(model.rules, model.codecs, lambda name: table.column(name).combine_chunks(), table.num_rows)


def partial(held: dict[str, Any], rows: int = ROWS) -> pa.Table:
    return pa.table({name: pa.array([value] * rows, TYPES[name]) for name, value in held.items()})


NEVER: dict[str, tuple[list[str], Callable[..., bool]]] = {
    "two columns": (["not (sex = male and age >= 2)"], lambda s, g, a, d: not (s == "male" and a >= 2)),
    "a chain": (
        ["not (sex = male and died = true)", "not (died = false and age = 0|1)", "not (sex = female and grade = 1)"],
        lambda s, g, a, d: not ((s == "male" and d) or (not d and a < 2) or (s == "female" and g == 1)),
    ),
    "three at once": (
        ["not (sex = male and died = true and age > 1)", "not (grade = 2 and died = false)"],
        lambda s, g, a, d: not ((s == "male" and d and a > 1) or (g == 2 and not d)),
    ),
}


@pytest.fixture(scope="module", params=["died", None], ids=["class", "no class"])
def model(tiny: Any, request: pytest.FixtureRequest) -> TableModel:
    return tiny.model(target=request.param)


class TestFills:
    @pytest.mark.parametrize("name", NEVER)
    @pytest.mark.parametrize(
        "held",
        [
            {"grade": 3},
            {"sex": "male", "age": None},
            {"sex": None, "grade": 2, "died": False},
            {"age": 1},
            {"age": 4, "sex": "female"},
        ],
        ids=str,
    )
    def test_follow_the_model_given_the_other_cells_and_the_rules(
        self, tiny: Any, model: TableModel, name: str, held: dict[str, Any]
    ) -> None:
        rules, meets = NEVER[name]
        ruled = with_rules(model, *rules)

        def fits(*row: Any) -> bool:
            cells = dict(zip(tiny.values, row, strict=True))
            same = all(cells[n] == held[n] if held.get(n) is not None else cells[n] is not None for n in cells)
            return same and meets(*row)

        def possible(*row: Any) -> bool:
            return None not in row and fits(*row)

        if not any(possible(*row) for row in every_row(tiny)):
            found, broken = completed(ruled, partial(held, 10))
            assert broken == 10 and None not in found.column("sex").to_pylist()
            return
        found, broken = completed(ruled, partial(held))
        assert broken == 0
        assert meets_all(ruled, found).all()
        assert tiny.fits(tiny.counted(found), tiny.given(model, fits))

    def test_a_determined_column(self, tiny: Any, model: TableModel) -> None:
        """A known result tells what determines it; a known cause has its result."""
        ruled = with_rules(model, {"determines": ["grade", "age"], "map": {1: 2, 2: 5, 3: 5}})
        known, broken = completed(ruled, partial({"grade": 1, "age": None}, 50))
        assert set(known.column("age").to_pylist()) == {2} and broken == 0
        back, broken = completed(ruled, partial({"age": 5}))
        without = tiny.joint(model).sum(axis=2)
        expected = np.zeros((2, 4, 7, 2))
        expected[:, 1, 5], expected[:, 2, 5] = without[:, 1], without[:, 2]
        assert broken == 0 and tiny.fits(tiny.counted(back), expected / expected.sum())

    def test_values_that_a_determined_column_never_has(self, tiny: Any, model: TableModel) -> None:
        ruled = with_rules(model, {"determines": ["grade", "age"], "map": {1: 2, 2: 5, 3: 5}})
        found, broken = completed(ruled, partial({"age": 3}, 30))
        assert broken == 30 and None not in found.column("grade").to_pylist()


def every_row(tiny: Any) -> list[tuple[Any, ...]]:
    return list(itertools.product(*tiny.values.values()))


class TestBroken:
    def test_rows_are_kept_counted_and_filled(self, tiny: Any, model: TableModel) -> None:
        """A rule between cells that are there is nothing to mend; the others hold."""
        ruled = with_rules(model, "not (sex = male and age >= 2)", "not (age >= 2 and died = true)")
        table = pa.table(
            {
                "sex": ["male", "male", "female", "male"],
                "age": pa.array([5, 0, 5, 4], pa.int64()),
                "grade": pa.array([None, None, None, 1], pa.int64()),
            }
        )
        found, broken = completed(ruled, table)
        assert broken == 2
        assert found.column("sex").to_pylist() == ["male", "male", "female", "male"]
        assert [found.column("died")[i].as_py() for i in (0, 2, 3)] == [False] * 3
        assert None not in found.column("grade").to_pylist()

    @pytest.mark.parametrize("known", ["grade", "died"])
    def test_what_one_rule_leaves_nothing_for_still_meets_the_others(self, model: TableModel, known: str) -> None:
        ruled = with_rules(model, "not (sex = male and age >= 0)", "not (grade >= 2 and died = true)")
        held = {"grade": 3} if known == "grade" else {"died": True}
        table = partial({"sex": "male", **held}, rows=300)
        found, broken = completed(ruled, table)
        assert broken == 300
        assert None not in found.column("age").to_pylist()
        if known == "grade":
            assert set(found.column("died").to_pylist()) == {False}
        else:
            assert set(found.column("grade").to_pylist()) == {1}


class TestOrder:
    @pytest.mark.parametrize("cuts", [192, 3])
    def test_dates_before_and_after_known_ones(self, cuts: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(states, "MOST_CUTS", cuts)
        day = {"kind": "datetime", "bounds": ["2020-01-01", "2020-12-31"], "nullable": True}
        columns = [
            {"name": "born", **day, "resolution": "day"},
            {"name": "seen", **day, "resolution": "hour"},
            {"name": "gone", **day, "resolution": "day"},
        ]
        rules = ["born <= seen", "gone > seen"]
        schema = parse_schema({"dataset": "dates", "columns": columns, "rules": rules}, file="s")
        names = ("born", "seen", "gone")
        bare = TableModel(schema, Encoding(names, (6,) * 3), None, np.ones(1), np.zeros(1, dtype=np.int64), {}, (), 1)
        decoders = {}
        for name, codec in bare.codecs.items():
            home = np.append(np.arange(codec.size - 1) * 5 // (codec.size - 1), 5)
            share = 1 / np.bincount(home)[home]
            decoders[name] = ColumnDecoder(home, share, np.empty(0), np.empty(0), np.empty(0))
        member = new_generator(classes=1, sizes=[6] * 3, latent_points=9, latent_size=3, hidden_size=8, seed=5)
        model = replace(bare, decoders=decoders, members=(member.eval(),))
        rng = np.random.default_rng(0)
        months, days = rng.integers(1, 12, 300), rng.integers(2, 28, 300)
        known = [datetime(2020, int(month), int(day)) for month, day in zip(months, days, strict=True)]
        empty = [None] * 300
        for table in (
            {"born": known, "seen": empty, "gone": empty},
            {"born": empty, "seen": known, "gone": empty},
            {"born": empty, "seen": empty, "gone": [None, *known[1:]]},
            {"born": known, "seen": empty, "gone": [datetime(2020, 12, 31)] * 300},
        ):
            found, broken = completed(model, pa.table({n: pa.array(v, pa.timestamp("us")) for n, v in table.items()}))
            assert meets_all(model, found).all() and broken == 0
            assert all(column.null_count == 0 for column in found.columns)
        found, broken = completed(model, pa.table({"born": known[:3], "seen": [datetime(2020, 1, 1)] * 3}))
        assert broken == sum(value > datetime(2020, 1, 1) for value in known[:3])
