"""Drawn rows under rules against the brute force: the probability of every row of small tables, cut by the rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from synth.errors import UserError
from synth.schema import parse_schema
from synth.tables import states
from synth.tables.conditions import parse_balance, parse_conditions
from synth.tables.decode import ColumnDecoder
from synth.tables.model import TableModel, new_generator
from synth.tables.rows import sample_rows
from synth.tables.ruled import ruled_posterior
from synth.tables.rules import met_by
from synth.tables.targets import Encoding

ROWS = 20_000
# Chi-square tests at 1e-6 on rows of fixed seeds: they pass or fail alike on every machine.


def with_rules(model: TableModel, *rules: Any) -> TableModel:
    raw = model.schema.model_dump(mode="json", exclude_defaults=True)
    return replace(model, schema=parse_schema({**raw, "rules": list(rules)}, file="s"))


def drawn(
    model: TableModel, rows: int = ROWS, *, where: list[str] | None = None, balance: str | None = None
) -> pa.Table:
    conditions = parse_conditions(model.codecs, where or [])
    asked = None if balance is None else parse_balance(model.codecs, balance, conditions)
    table = pa.Table.from_batches(list(sample_rows(model, rows, seed=1, conditions=conditions, balance=asked)))
    assert met_by(model.rules, model.codecs, lambda name: table.column(name).combine_chunks(), rows).all()
    return table


NEVER: dict[str, tuple[list[str], Callable[..., bool]]] = {
    "two columns": (
        ["not (sex = male and age >= 2)"],
        lambda sex, grade, age, died: not (sex == "male" and age is not None and age >= 2),
    ),
    "a chain, with missing": (
        [
            "not (sex = male and died = true)",
            "not (sex = female and grade = 1|2)",
            "not (grade = and age <= 3)",
        ],
        lambda sex, grade, age, died: (
            not (
                (sex == "male" and died)
                or (sex == "female" and grade in (1, 2))
                or (grade is None and age is not None and age <= 3)
            )
        ),
    ),
    "three at once": (
        ["not (sex = male and died = true and age > 1)", "not (sex = female and grade != 2)"],
        lambda sex, grade, age, died: (
            not ((sex == "male" and died and age is not None and age > 1) or (sex == "female" and grade in (1, 3)))
        ),
    ),
    "a circle": (
        ["not (sex = male and died = true)", "not (died = true and age >= 2)", "not (age < 2 and sex = female)"],
        lambda sex, grade, age, died: (
            not (
                (sex == "male" and died)
                or (died and age is not None and age >= 2)
                or (age is not None and age < 2 and sex == "female")
            )
        ),
    ),
    "four at once, twice on two": (
        [
            "not (sex = male and grade = 1|3 and age = 0|1|2 and died = false)",
            "not (sex = male and grade = 2)",
            "not (grade = 3 and sex = female)",
        ],
        lambda sex, grade, age, died: (
            not (
                (sex == "male" and grade in (1, 3) and age in (0, 1, 2) and not died)
                or (sex == "male" and grade == 2)
                or (sex == "female" and grade == 3)
            )
        ),
    ),
}


@pytest.fixture(scope="module", params=["died", None], ids=["class", "no class"])
def model(tiny: Any, request: pytest.FixtureRequest) -> TableModel:
    return tiny.model(target=request.param)


@pytest.mark.parametrize("name", NEVER)
class TestNever:
    def test_rows_follow_the_joint_distribution_cut(self, tiny: Any, model: TableModel, name: str) -> None:
        rules, meets = NEVER[name]
        found = tiny.counted(drawn(with_rules(model, *rules)))
        assert tiny.fits(found, tiny.given(model, meets))

    def test_with_conditions(self, tiny: Any, model: TableModel, name: str) -> None:
        rules, meets = NEVER[name]
        ruled = with_rules(model, *rules)
        where = ["age!=3", "grade<=2"]
        expected = tiny.given(model, lambda s, g, a, d: meets(s, g, a, d) and a != 3 and g in (1, 2))
        assert tiny.fits(tiny.counted(drawn(ruled, where=where)), expected)

    @pytest.mark.parametrize(
        ("text", "axis", "shares"), [("died", 3, [0.5, 0.5]), ("grade=2:0.6", 1, [None, 0.6, None, None])]
    )
    def test_with_asked_shares(
        self, tiny: Any, model: TableModel, name: str, text: str, axis: int, shares: list[float | None]
    ) -> None:
        rules, meets = NEVER[name]
        table = tiny.given(model, meets)
        now = table.sum(axis=tuple(i for i in range(4) if i != axis))
        open_ = np.array([share is None for share in shares])
        asked = np.where(open_, 0.4 * now / now[open_].sum() if open_.any() else 0, [share or 0 for share in shares])
        factor = np.divide(asked, now, out=np.zeros(len(now)), where=now > 0)
        expected = table * factor.reshape([-1 if i == axis else 1 for i in range(4)])
        rows = drawn(with_rules(model, *rules), balance=text)
        assert tiny.fits(tiny.counted(rows), expected)
        held = tiny.counted(rows).sum(axis=tuple(i for i in range(4) if i != axis))[~open_]
        assert np.abs(held - ROWS * asked[~open_]).max() <= 1


# Three ordered columns of different kinds whose values fall on each other, coarse bins, missing among them.
LINE: list[dict[str, Any]] = [
    {"name": "a", "kind": "integer", "bounds": [0, 6], "nullable": True},
    {"name": "b", "kind": "continuous", "bounds": [1, 5], "decimals": 1},
    {"name": "c", "kind": "integer", "bounds": [2, 8], "nullable": True},
]
MOMENTS: list[dict[str, Any]] = [
    {"name": "a", "kind": "datetime", "bounds": ["2020-01-01", "2020-01-04"], "resolution": "day", "nullable": True},
    {"name": "b", "kind": "datetime", "bounds": ["2020-01-01", "2020-01-04"], "resolution": "hour"},
    {"name": "c", "kind": "datetime", "bounds": ["2020-01-01T12:00", "2020-01-05"], "resolution": "day"},
]


def small_model(columns: list[dict[str, Any]], *, bins: int = 3) -> TableModel:
    """A random model whose bins hold several values each, unevenly."""
    schema = parse_schema({"dataset": "line", "columns": columns}, file="s")
    names = tuple(column["name"] for column in columns)
    bare = TableModel(schema, Encoding(names, (1,) * 3), None, np.ones(1), np.zeros(1, dtype=np.int64), {}, (), 1)
    decoders, sizes = {}, []
    rng = np.random.default_rng(3)
    for name, codec in bare.codecs.items():
        home = np.sort(np.arange(codec.size) * bins // codec.size)
        if codec.missing is not None:
            home[-1] = home[-2] + 1
        share = rng.uniform(0.2, 1, codec.size)
        share /= np.bincount(home, weights=share)[home]
        decoders[name] = ColumnDecoder(home, share, np.empty(0), np.empty(0), np.empty(0))
        sizes.append(int(home.max()) + 1)
    member = new_generator(classes=1, sizes=sizes, latent_points=7, latent_size=3, hidden_size=8, seed=5)
    member.head.weight.data *= 5
    return replace(bare, encoding=Encoding(names, tuple(sizes)), decoders=decoders, members=(member.eval(),))


def every_value(model: TableModel, name: str) -> list[Any]:
    codec = model.codecs[name]
    positions = np.arange(codec.lattice.low, codec.lattice.high + 1)
    missing = np.zeros(len(positions), dtype=bool)
    values = codec.decode_positions(positions, missing).to_pylist()
    return [*values, *([None] if codec.missing is not None else [])]


def joint_of(model: TableModel) -> np.ndarray:
    table = np.zeros([model.codecs[name].size for name in model.encoding.names])
    for k in range(model.shares.shape[1]):
        factors = [
            model.shares[0, k, model.encoding.place(name)].astype(float)[decoder.bin_of_cell] * decoder.share
            for name, decoder in model.decoders.items()
        ]
        table += np.einsum("a,b,c->abc", *factors) / model.shares.shape[1]
    return table


def at_most(one: Any, other: Any) -> bool:
    return one is None or other is None or one <= other


def below(one: Any, other: Any) -> bool:
    return one is None or other is None or one < other


ORDERS: dict[str, tuple[list[str], Callable[..., bool]]] = {
    "one": (["a <= b"], lambda a, b, c: at_most(a, b)),
    "strict": (["b > a"], lambda a, b, c: below(a, b)),
    "a chain": (["a<=b", "c > b"], lambda a, b, c: at_most(a, b) and below(b, c)),
    "a star": (["a >= c", "b < a"], lambda a, b, c: at_most(c, a) and below(b, a)),
    "a circle": (["a <= b", "b <= c", "a < c"], lambda a, b, c: at_most(a, b) and at_most(b, c) and below(a, c)),
}


class TestOrder:
    @pytest.mark.parametrize("columns", [LINE, MOMENTS], ids=["numbers", "dates"])
    @pytest.mark.parametrize("cuts", [192, 3], ids=["decided", "undecided"])
    @pytest.mark.parametrize("name", ORDERS)
    def test_rows_follow_the_joint_distribution_cut(
        self, columns: list[dict[str, Any]], cuts: int, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(states, "MOST_CUTS", cuts)
        rules, meets = ORDERS[name]
        plain = small_model(columns)
        values = [every_value(plain, each) for each in "abc"]
        expected = joint_of(plain)
        for at in np.ndindex(expected.shape):
            expected[at] *= meets(*(of[i] for of, i in zip(values, at, strict=True)))
        expected /= expected.sum()
        table = drawn(with_rules(plain, *rules))
        found = np.zeros(expected.shape)
        places = [[of.index(v) for v in table.column(each).to_pylist()] for of, each in zip(values, "abc", strict=True)]
        np.add.at(found, tuple(places), 1)
        assert not found[expected == 0].any()
        for axes in (0, 1, 2):  # every two columns: cells enough for a chi-square
            seen, hoped = found.sum(axis=axes).ravel(), ROWS * expected.sum(axis=axes).ravel()
            often = hoped >= 5
            seen, hoped = np.append(seen[often], seen[~often].sum()), np.append(hoped[often], hoped[~often].sum())
            if hoped[-1] < 5:
                seen, hoped = seen[:-1], hoped[:-1]
            assert stats.chisquare(seen, hoped * seen.sum() / hoped.sum()).pvalue > 1e-6

    def test_with_a_condition_and_a_zero_on_the_same_columns(self) -> None:
        model = with_rules(small_model(LINE), "a <= b", "not (a = 2 and b >= 3)", "not (b = 2.5 and c = 4)")
        table = drawn(model, where=["b>=2", "a!="])
        assert set(table.column("a").to_pylist()) <= {0, 1, 2, 3, 4, 5}
        assert min(table.column("b").to_pylist()) >= 2
        assert (2, 2.5) in set(zip(table.column("a").to_pylist(), table.column("b").to_pylist(), strict=True))

    @pytest.mark.parametrize("rule", ["start <= end", "start < end", "end >= whole", "whole < tenth"])
    def test_values_of_any_fineness(self, rule: str) -> None:
        columns = [
            {"name": "start", "kind": "continuous", "bounds": [0, 1e6]},
            {"name": "end", "kind": "continuous", "bounds": [-3.5, 1e6], "nullable": True},
            {"name": "whole", "kind": "integer", "bounds": [0, 900_000]},
            {"name": "tenth", "kind": "continuous", "bounds": [0, 1000], "decimals": 1},
        ]
        schema = parse_schema({"dataset": "line", "columns": columns, "rules": [rule]}, file="s")
        names = tuple(column["name"] for column in columns)
        bare = TableModel(schema, Encoding(names, (1,) * 4), None, np.ones(1), np.zeros(1, dtype=np.int64), {}, (), 1)
        decoders = {}
        for name, codec in bare.codecs.items():
            size = codec.size
            home, share = np.zeros(size, dtype=np.int64), np.full(size, 1 / size)
            home[size // 2 :] = 1
            share = 1 / np.bincount(home)[home]
            decoders[name] = ColumnDecoder(home, share, np.empty(0), np.empty(0), np.empty(0))
        member = new_generator(classes=1, sizes=[2] * 4, latent_points=5, latent_size=3, hidden_size=8, seed=5)
        model = replace(bare, encoding=Encoding(names, (2,) * 4), decoders=decoders, members=(member.eval(),))
        drawn(model, 20_000)


class TestFunction:
    def test_follows_its_column(self, tiny: Any, model: TableModel) -> None:
        """All but the result is as without the rule; the result follows, whatever the model has for it."""
        rule = {"determines": ["sex", "age"], "map": {"female": 2, "male": 5}}
        without = tiny.joint(model).sum(axis=2)
        table = drawn(with_rules(model, rule))
        assert set(zip(table.column("sex").to_pylist(), table.column("age").to_pylist(), strict=True)) == {
            ("female", 2),
            ("male", 5),
        }
        found = tiny.counted(table)
        expected = np.zeros(found.shape)
        expected[0, :, 2], expected[1, :, 5] = without[0], without[1]
        assert tiny.fits(found, expected)

    def test_with_conditions_on_the_result(self, tiny: Any, model: TableModel) -> None:
        rule = {"determines": ["grade", "age"], "map": {1: 2, 2: 5, 3: 5}}
        ruled = with_rules(model, rule, "not (age = 5 and sex = male)")
        table = drawn(ruled, where=["age>=4"])
        without = tiny.joint(model).sum(axis=2)
        expected = np.zeros((2, 4, 7, 2))
        expected[0, 1, 5], expected[0, 2, 5] = without[0, 1], without[0, 2]
        assert tiny.fits(tiny.counted(table), expected / expected.sum())
        whole = tiny.counted(drawn(ruled))
        assert whole[:, 3, 6].sum() == whole[:, 3].sum() > 0  # missing has missing


class TestWhatCannotBe:
    def test_is_said_when_rows_are_drawn(self, tiny: Any) -> None:
        model = with_rules(tiny.model(), "not (sex = male and age >= 0)", "not (sex = female and grade = 1|2|3)")
        where = parse_conditions(model.codecs, ["age=3", "grade=2"])
        with pytest.raises(UserError, match="--where: the declared rules leave no such rows"):
            ruled_posterior(model, where)

        with pytest.raises(UserError, match="--balance grade: under the declared rules the model never makes"):
            drawn(model, 10, where=["age=3", "sex=female"], balance="grade=2:0.5")

    def test_a_rule_that_the_model_never_meets(self, tiny: Any) -> None:
        model = tiny.model()
        for member in model.members:
            member.class_bias.data[:, 0] = -1e4  # nobody is female
        ruled = with_rules(model, "not (sex = male and age >= 0)", "not (sex = male and age = )")
        with pytest.raises(UserError, match="rules: they leave no row"):
            ruled_posterior(ruled, {})


class TestSeeds:
    def test_the_same_seed_gives_the_same_rows_and_ids_are_numbered_on(self, tiny: Any) -> None:
        model = with_rules(tiny.model(), *NEVER["a chain, with missing"][0])
        first, second = (drawn(model, 300) for _ in range(2))
        assert first.equals(second)


def test_a_model_keeps_its_rules(tiny: Any, tmp_path: Any) -> None:
    rules = ["not (sex = male and age >= 2)", {"determines": ["died", "grade"], "map": {True: 1, False: 3}}]
    model = with_rules(tiny.model(), *rules)
    model.save(tmp_path)
    again = TableModel.load(tmp_path)
    assert [rule.text for rule in again.rules] == ["not (sex = male and age >= 2)", "died -> grade"]
    assert drawn(again, 200).equals(drawn(model, 200))
