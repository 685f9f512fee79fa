"""Sums as they are written, where they hold, and rows that add up, against the brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from synth.detect import chance_of
from synth.errors import InvalidConfig, UserError
from synth.schema import Schema, parse_schema
from synth.tables import sum_tables, sum_values
from synth.tables.codec import codecs_of
from synth.tables.completion import complete, completed_schema
from synth.tables.conditions import parse_conditions
from synth.tables.decode import ColumnDecoder
from synth.tables.model import TableModel, new_generator
from synth.tables.pieces import Region
from synth.tables.rows import sample_rows
from synth.tables.rules import met_by, rules_of
from synth.tables.sums import Sum
from synth.tables.targets import Encoding

ROWS = 20_000
# Chi-square tests at 1e-6 on rows of fixed seeds: they pass or fail alike on every machine.

COLUMNS: list[dict[str, Any]] = [
    {"name": "a", "kind": "integer", "bounds": [0, 50]},
    {"name": "b", "kind": "integer", "bounds": [-5, 20], "nullable": True},
    {"name": "c", "kind": "continuous", "bounds": [0, 9], "decimals": 2},
    {"name": "net-cost", "kind": "continuous", "bounds": [-100, 100], "decimals": 2, "nullable": True},
    {"name": "sum", "kind": "integer", "bounds": [0, 60]},
    {"name": "real", "kind": "continuous", "bounds": [0, 9]},
    {"name": "huge", "kind": "integer", "bounds": [900, 2**52]},
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    {"name": "day", "kind": "datetime", "bounds": ["2020-01-01", "2021-01-01"]},
    {"name": "nbr", "kind": "id"},
]


def schema_with(*rules: Any) -> Schema:
    return parse_schema({"dataset": "toy", "columns": COLUMNS, "rules": list(rules)}, file="s")


class TestWritten:
    @pytest.mark.parametrize(
        ("text", "columns", "units"),
        [
            ("sum = a + b", ("a", "b", "sum"), (1, 1, -1)),
            ("sum=a-b", ("a", "b", "sum"), (1, -1, -1)),
            ('"net-cost" = a + c - b', ("a", "c", "b", "net-cost"), (100, 1, -100, -1)),
            (' "net-cost"  = - c+"a"', ("c", "a", "net-cost"), (-1, 100, -1)),
        ],
    )
    def test_is_read(self, text: str, columns: tuple[str, ...], units: tuple[float, ...]) -> None:
        (found,) = rules_of(schema_with(text))
        assert isinstance(found, Sum)
        assert (found.columns, found.units) == (columns, units)
        assert rules_of(schema_with(found.text)) == (found,)

    @pytest.mark.parametrize(
        ("rules", "words"),
        [
            (["sum = a"], "write COLUMN >= COLUMN (or >, <=, <), TOTAL = COLUMN + COLUMN"),
            (["sum = "], "write COLUMN >= COLUMN"),
            (["sum = a + "], "write TOTAL = COLUMN + COLUMN - COLUMN"),
            (["sum = a + + b"], "write TOTAL = COLUMN + COLUMN - COLUMN"),
            (["sum = a + bb"], "bb is not a declared column (did you mean b?)"),
            (["sum = a + 5"], "5 is not a declared column; only columns are added"),
            (["net-cost = a + net-cost"], "a name that holds + or - is in double quotes"),
            (["sum = a + b - a"], "names a twice"),
            (["sum = a + sum"], "names sum twice"),
            (["sum = a + sex"], "sex is categorical; only numbers are added"),
            (["sum = a + day"], "day is datetime; only numbers are added"),
            (["sum = a + nbr"], "nbr is an id"),
            (["sum = a + real"], "real has no `decimals`"),
            (["sum = a + c"], "sum has 0 decimals and one of its parts has 2; declare as many"),
            (['"net-cost" = huge + c'], "need more than 15 digits"),
            (["sum = huge + a"], "the declared bounds leave nothing that meets it"),
            (["sum = a + b", "a = sum - b"], "share two columns or go round in a circle"),
            (["sum = a + b", '"net-cost" = a - b'], "share two columns or go round in a circle"),
            (
                ["sum = a + b", {"determines": ["sex", "a"], "map": {"male": 1, "female": 2}}],
                "a is determined by sex, and a sum cannot change it",
            ),
        ],
    )
    def test_mistakes_are_told(self, rules: list[Any], words: str) -> None:
        with pytest.raises(InvalidConfig) as caught:
            schema_with(*rules)
        assert any(words in each for each in caught.value.problems), caught.value.problems
        assert all("\n" not in each for each in caught.value.problems)

    @given(st.lists(st.sampled_from(["a", "b", "sum", '"net-cost"', "c", "=", "+", "-", " ", '"', "7"]), max_size=10))
    def test_any_text_is_a_sum_or_a_plain_mistake(self, words: list[str]) -> None:
        try:
            (found,) = rules_of(schema_with("sum = " + "".join(words)))
        except InvalidConfig as error:
            assert str(error).startswith("s: ") and "\n" not in str(error)
        else:
            assert isinstance(found, Sum) and len(set(found.columns)) == len(found.columns) >= 3
            assert rules_of(schema_with(found.text)) == (found,)


CENTS = st.integers(-900, 900)


class TestHolds:
    @given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(-5, 20), CENTS, CENTS), min_size=1))
    def test_where_the_decimals_add_up(self, rows: list[tuple[int, int | None, int, int]]) -> None:
        """Against decimal arithmetic; the third row of four is made to hold."""
        schema = schema_with('"net-cost" = a - c + b')
        (rule,) = rules_of(schema)
        parts = [(Decimal(a), b if b is None else Decimal(b), Decimal(abs(c)) / 100) for a, b, c, _ in rows]
        net = [
            a - c + (b or 0) if i % 4 == 2 else Decimal(n) / 100
            for i, ((a, b, c), (*_, n)) in enumerate(zip(parts, rows, strict=True))
        ]
        values = {
            "a": pa.array([int(a) for a, _, _ in parts]),
            "b": pa.array([None if b is None else int(b) for _, b, _ in parts], pa.int64()),
            "c": pa.array([float(c) for _, _, c in parts]),
            "net-cost": pa.array([float(n) for n in net]),
        }
        expected = [b is None or n == a - c + b for (a, b, c), n in zip(parts, net, strict=True)]
        assert rule.holds(codecs_of(schema), values).tolist() == expected


def model_of(columns: list[dict[str, Any]], *rules: Any, bins: int = 3, points: int = 5, seed: int = 5) -> TableModel:
    """A random model whose bins hold several values each, unevenly."""
    schema = parse_schema({"dataset": "toy", "columns": columns, "rules": list(rules)}, file="s")
    names = tuple(column["name"] for column in columns)
    bare = TableModel(
        schema, Encoding(names, (1,) * len(names)), None, np.ones(1), np.zeros(1, dtype=np.int64), {}, (), 1
    )
    decoders, sizes, rng = {}, [], np.random.default_rng(seed)
    for name, codec in bare.codecs.items():
        values = codec.size - (codec.missing is not None)
        home = np.arange(values) * min(bins, values) // values
        if codec.missing is not None:
            home = np.append(home, home[-1] + 1)
        share = rng.uniform(0.2, 1, codec.size)
        share /= np.bincount(home, weights=share)[home]
        decoders[name] = ColumnDecoder(home, share, np.empty(0), np.empty(0), np.empty(0))
        sizes.append(int(home.max()) + 1)
    member = new_generator(classes=1, sizes=sizes, latent_points=points, latent_size=3, hidden_size=8, seed=seed)
    member.head.weight.data *= 3
    return replace(bare, encoding=Encoding(names, tuple(sizes)), decoders=decoders, members=(member.eval(),))


TWO: list[dict[str, Any]] = [
    {"name": "a", "kind": "integer", "bounds": [0, 7], "nullable": True},
    {"name": "b", "kind": "integer", "bounds": [1, 12]},
    {"name": "t", "kind": "integer", "bounds": [-8, 4], "nullable": True},
]
RULE = "t = a - b"


def values_of(model: TableModel, name: str) -> list[int | None]:
    codec = model.codecs[name]
    known = [int(v) for v in np.arange(codec.lattice.low, codec.lattice.high + 1)]
    return [*known, *([None] if codec.missing is not None else [])]


def joint_of(model: TableModel) -> np.ndarray:
    """Probability of all rows of `TWO` under its rule, value by value: the definition, without states."""
    values = {name: values_of(model, name) for name in "abt"}
    home = {name: model.decoders[name].bin_of_cell for name in "abt"}
    inner = {name: model.decoders[name].share for name in "abt"}
    sizes = tuple(int(home[name].max()) + 1 for name in "abt")
    table = np.zeros(sizes)  # how often parts in two bins add up to a third bin
    rows = list(itertools.product(*(range(len(values[name])) for name in "abt")))
    for i, j, k in rows:
        a, b, t = values["a"][i], values["b"][j], values["t"][k]
        bins = home["a"][i], home["b"][j], home["t"][k]
        if a is None or t is None:
            table[bins] = 1.0
        elif a - b == t:
            table[bins] += inner["a"][i] * inner["b"][j]
    joint = np.zeros(tuple(len(values[name]) for name in "abt"))
    for point in range(model.shares.shape[1]):
        own = [model.bin_shares(name)[point] for name in "abt"]
        weights = [own[0].copy(), own[1].copy(), np.ones(sizes[2])]
        for _, axis in itertools.product(range(sum_tables.ROUNDS), (2, 0, 1)):
            whole = np.einsum("i,j,k,ijk->ijk", *weights, table)
            found = whole.sum(axis=tuple(other for other in range(3) if other != axis)) / whole.sum()
            weights[axis] = weights[axis] * (own[axis] / found) ** sum_tables.STRENGTH
            base, most = (1.0 if axis == 2 else own[axis]), sum_tables.MOST_FACTOR
            weights[axis] = np.clip(weights[axis], base / most, base * most)
        weights[0] /= np.einsum("i,j,k,ijk->", *weights, table)
        for i, j, k in rows:
            a, b, t = values["a"][i], values["b"][j], values["t"][k]
            if a is not None and t is not None and a - b != t:
                continue
            weight = weights[0][home["a"][i]] * weights[1][home["b"][j]] * weights[2][home["t"][k]]
            weight *= inner["a"][i] * inner["b"][j] * (inner["t"][k] if a is None or t is None else 1.0)
            joint[i, j, k] += weight / model.shares.shape[1]
    return joint


def drawn(model: TableModel, rows: int = ROWS, where: list[str] | None = None, seed: int = 1) -> pa.Table:
    conditions = parse_conditions(model.codecs, where or [])
    table = pa.Table.from_batches(list(sample_rows(model, rows, seed=seed, conditions=conditions)))
    assert met_by(model.rules, model.codecs, lambda name: table.column(name).combine_chunks(), rows).all()
    return table


def fits(model: TableModel, table: pa.Table, expected: np.ndarray) -> bool:
    """Whether rows fit a distribution: none that cannot be, and a chi-square over those expected five times."""
    found = np.zeros(expected.shape)
    at = [[values_of(model, name).index(v) for v in table.column(name).to_pylist()] for name in "abt"]
    np.add.at(found, tuple(at), 1)
    if found[expected == 0].any():
        return False
    hoped = found.sum() * expected / expected.sum()
    often = hoped >= 5
    seen, hoped = np.append(found[often], found[~often].sum()), np.append(hoped[often], hoped[~often].sum())
    if hoped[-1] < 5:
        seen, hoped = seen[:-1], hoped[:-1]
    return bool(stats.chisquare(seen, hoped * seen.sum() / hoped.sum()).pvalue > 1e-6)


def held(model: TableModel, meets: Callable[..., bool]) -> np.ndarray:
    joint = joint_of(model)
    for at in np.ndindex(joint.shape):
        joint[at] *= meets(*(values_of(model, name)[i] for name, i in zip("abt", at, strict=True)))
    return joint


class TestDrawn:
    def test_the_joint_distribution_is_one(self) -> None:
        assert joint_of(model_of(TWO, RULE)).sum() == pytest.approx(1)

    @pytest.mark.parametrize("tries", [sum_values.TRIES, 0], ids=["drawn", "anywhere"])
    def test_rows_follow_it(self, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without tries, values that add up are taken anywhere in their states: never a wrong row, if less exactly."""
        monkeypatch.setattr(sum_values, "TRIES", tries)
        model = model_of(TWO, RULE)
        table = drawn(model)
        assert table.column("t").null_count and table.column("a").null_count
        if tries:
            assert fits(model, table, joint_of(model))

    @pytest.mark.parametrize(
        ("where", "meets"),
        [
            (["t=0"], lambda a, b, t: t == 0),
            (["t>=-2", "a!="], lambda a, b, t: t is not None and t >= -2 and a is not None),
            (["b=5"], lambda a, b, t: b == 5),
            (["a<=2", "b>=8"], lambda a, b, t: a is not None and a <= 2 and b >= 8),
            (["t=-1|3|", "a=1|6"], lambda a, b, t: t in (-1, 3, None) and a in (1, 6)),
        ],
        ids=["total", "total and part", "part", "parts", "several values"],
    )
    def test_conditions_on_parts_and_total(self, where: list[str], meets: Callable[..., bool]) -> None:
        """Every bin by itself a value, so that the states decide all."""
        model = model_of(TWO, RULE, bins=99)
        assert fits(model, drawn(model, where=where), held(model, meets))
        coarse = drawn(model_of(TWO, RULE), 2000, where)
        assert all(meets(row["a"], row["b"], row["t"]) for row in coarse.to_pylist())

    def test_what_cannot_be_is_said(self) -> None:
        model = model_of(TWO, RULE)
        with pytest.raises(UserError, match="--where: the declared rules leave no such rows"):
            drawn(model, 5, ["a=7", "b=2", "t=3"])

    def test_shares_that_go_together_stay(self) -> None:
        """Where the model's total is the sum of its parts already, nothing is corrected."""
        columns = [{**column, "nullable": False} for column in TWO]
        model = model_of([*columns[:2], {**columns[2], "bounds": [-12, 6]}], RULE, bins=99)
        own = {name: model.bin_shares(name) for name in "ab"}
        total = np.zeros((len(own["a"]), 19))
        for i, j in itertools.product(range(8), range(12)):
            total[:, i - (j + 1) + 12] += own["a"][:, i] * own["b"][:, j]
        rules = [rule for rule in model.rules if isinstance(rule, Sum)]
        kept = sum_tables.kept_shares(rules, model.codecs, model.decoders, {**own, "t": total})
        assert np.allclose(kept["a"], own["a"]) and np.allclose(kept["b"], own["b"]) and np.allclose(kept["t"], 1)

    def test_the_total_comes_nearer_to_what_was_measured(self) -> None:
        model = model_of(TWO, RULE, bins=99, points=40)
        joint = joint_of(model)
        wanted = model.bin_shares("t").mean(axis=0)
        alone = np.zeros(wanted.shape)
        a, b = (model.bin_shares(name).mean(axis=0) for name in "ab")
        for i, j in itertools.product(range(8), range(12)):
            if -8 <= i - (j + 1) <= 4:
                alone[i - (j + 1) + 8] += a[i] * b[j]
        both = joint[:-1, :, :-1].sum(axis=(0, 1))
        wanted = wanted[:-1] / wanted[:-1].sum()
        assert np.abs(both / both.sum() - wanted).sum() < 0.5 * np.abs(alone[:-1] / alone.sum() - wanted).sum()


FOUR: list[dict[str, Any]] = [
    {"name": "a", "kind": "integer", "bounds": [0, 900], "nullable": True},
    {"name": "b", "kind": "continuous", "bounds": [0, 99], "decimals": 1},
    {"name": "c", "kind": "integer", "bounds": [5, 40]},
    {"name": "d", "kind": "continuous", "bounds": [-50, 80], "decimals": 2},
    {"name": "t", "kind": "continuous", "bounds": [-10, 700], "decimals": 2, "nullable": True},
    {"name": "u", "kind": "continuous", "bounds": [0, 800], "decimals": 2},
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
]
RULES = ["t = a + b - c", "u = t - d", "not (sex = male and t >= 300)", "b <= a"]


def test_values_taken_anywhere_are_good_only_where_they_add_up() -> None:
    """Parts that are held to multiples of three: a total that is none has no such values, and no row is passed off."""
    model = model_of([{**column, "nullable": False} for column in TWO], RULE)
    (rule,) = (rule for rule in model.rules if isinstance(rule, Sum))
    parts = {}
    for name, held_to in (("a", [0, 3, 6]), ("b", [3, 6])):
        codec = model.codecs[name]
        ends = np.array([codec.lattice.high])
        region = Region(np.array([[v, v] for v in held_to], dtype=np.float64), False)
        one_state = np.zeros((1, 1), dtype=np.int64)
        placing = sum_values.Placing(codec, np.zeros(codec.size, dtype=np.int64), ends, one_state, region)
        low, high = np.array([float(held_to[0])]), np.array([float(held_to[-1])])
        parts[name] = sum_values.Part(None, placing, low, high, None)  # type: ignore[arg-type]
    total = np.repeat(np.arange(-8.0, 5.0), 200)
    rows = np.arange(len(total))
    positions = {"a": np.zeros(len(rows)), "b": np.ones(len(rows)), "t": total}
    states = {name: np.zeros(len(rows), dtype=np.int64) for name in "ab"}
    good = sum_values._anywhere(rule, parts, states, positions, ["a", "b"], rows, np.random.default_rng(4))
    assert set(total[good]) == {-6.0, -3.0, 0.0, 3.0}
    assert (positions["a"] - positions["b"] == total)[good].all()
    assert set(positions["a"][good]) == {0.0, 3.0, 6.0} and set(positions["b"][good]) == {3.0, 6.0}


class TestSeveral:
    """Sums of three over mixed decimals, one total in another sum, and other rules about the same columns."""

    def test_every_row_meets_them(self) -> None:
        model = model_of(FOUR, *RULES)
        for where in ([], ["t=120.55"], ["t>=100", "t<110", "d<0"], ["a=250", "u>100"], ["c=7", "t="]):
            drawn(model, 40, where)

    def test_a_partial_row_is_filled_or_told(self) -> None:
        model = model_of(FOUR, *RULES, bins=5)
        rows = drawn(model, 24, ["t!=", "a!="])
        rng = np.random.default_rng(0)
        partial = pa.table(
            {
                name: pa.array(rows.column(name).to_pylist(), rows.column(name).type, mask=rng.random(24) < 0.5)
                for name in rows.column_names
            }
        )
        wrong = {"a": [100, 5, None], "b": [50.0, 4.0, 90.0], "c": [10, 10, 40], "t": [140.5, None, 690.0]}
        partial = pa.concat_tables([partial, pa.table({**wrong, "d": [None, 79.0, 1.0]})], promote_options="permissive")
        broken: list[int] = []
        batches = complete(model, partial.schema, iter(partial.to_batches()), seed=0, on_broken=broken.append)
        found = pa.Table.from_batches(list(batches), completed_schema(model, partial.schema))
        met = met_by(model.rules, model.codecs, lambda name: found.column(name).combine_chunks(), 27)
        # The first row's cells break the sum; the second's leave a u below its bounds; the third can still be filled.
        assert met[:24].all() and met[24:].tolist() == [False, False, True]
        assert broken == [2]
        assert all(found.column(name).null_count == 0 for name in found.column_names)

    def test_filled_cells_follow_the_model(self) -> None:
        model = model_of(TWO, RULE, bins=99)
        for cells in ({"t": -1}, {"a": 3}, {"b": 6}):
            partial = pa.table({name: pa.array([value] * ROWS, pa.int64()) for name, value in cells.items()})
            batches = complete(model, partial.schema, iter(partial.to_batches()), seed=0)
            found = pa.Table.from_batches(list(batches), completed_schema(model, partial.schema))

            def meets(*row: int | None, cells: dict[str, int] = cells) -> bool:
                known = dict(zip("abt", row, strict=True))
                return None not in row and all(known[name] == value for name, value in cells.items())

            assert fits(model, found, held(model, meets))


@pytest.mark.parametrize("bins", [3, 99])
def test_chance_of_a_row_is_never_understated(bins: int) -> None:
    """What `synth detect` says of one draw, beside the probability of each row; its own slack is a factor of four."""
    model = model_of(TWO, RULE, bins=bins)
    joint = joint_of(model)
    at = np.argwhere(joint > 0)
    values = [values_of(model, name) for name in "abt"]
    cells = [[of[i] for of, i in zip(values, row, strict=True)] for row in at]
    matrix = np.array([[np.nan if value is None else value for value in row] for row in cells], dtype=np.float64)
    found, true = chance_of(model, ("a", "b", "t"), matrix, rows=1), joint[tuple(at.T)]
    assert (found >= true * (1 - 1e-9)).all()
    bound = ~np.isnan(matrix).any(axis=1)
    assert (found[bound] <= 4.1 * true[bound]).all()
    assert (chance_of(model, ("a", "b"), matrix[:, :2], rows=1) > 0).all()
