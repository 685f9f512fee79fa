"""Conditions: from text to a part of a column's domain, and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import UserError
from synth.schema import Schema, parse_schema
from synth.tables.codec import Codec, codecs_of
from synth.tables.comparison import Comparison, parse_comparison
from synth.tables.conditions import parse_balance, parse_conditions
from synth.tables.pieces import Region

WORDS = st.text(st.sampled_from('ab" |=<>!:\\,é') | st.characters(codec="utf-8"), min_size=0, max_size=8)
LEVELS = ["a|b", "a", "b", '"', 'x"y', "", " ", "=5", ">=2", "a:b"]


@pytest.fixture(scope="module")
def codecs(schema_of: Callable[..., Schema]) -> dict[str, Codec]:
    names = ("age", "income", "weight", "sex", "city", "stage", "dose", "died", "smoker", "admitted", "seen", "risk")
    risk = {"kind": "categorical", "categories": ["low", "middle", "high"], "ordered": True, "nullable": True}
    return codecs_of(schema_of(*names, risk=risk))


def held(codecs: dict[str, Codec], *texts: str) -> tuple[list[tuple[float, float]], bool]:
    (region,) = parse_conditions(codecs, texts).values()
    return [(low, high) for low, high in region.intervals.tolist()], region.missing


class TestText:
    @given(WORDS.filter(bool), st.sampled_from(["=", "!="]), st.lists(st.none() | WORDS, min_size=1, max_size=4))
    def test_of_values_comes_back(self, column: str, operator: str, values: list[str | None]) -> None:
        comparison = Comparison(column, operator, tuple(values))
        assert parse_comparison(str(comparison)) == comparison

    @given(WORDS.filter(bool), st.sampled_from([">", ">=", "<", "<="]), WORDS)
    def test_of_bounds_comes_back(self, column: str, operator: str, value: str) -> None:
        comparison = Comparison(column, operator, (value,))
        assert parse_comparison(str(comparison)) == comparison

    @given(WORDS)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            comparison = parse_comparison(text)
        except ValueError as error:
            assert str(error)
        else:
            assert parse_comparison(str(comparison)) == comparison

    @pytest.mark.parametrize(
        ("text", "column", "operator", "values"),
        [
            ("ward=north|east", "ward", "=", ("north", "east")),
            (" ward = north | east ", "ward", "=", ("north", "east")),
            ('ward="north|east"', "ward", "=", ("north|east",)),
            ('ward="a ""b"""|c', "ward", "=", ('a "b"', "c")),
            ("ward=", "ward", "=", (None,)),
            ("ward=north|", "ward", "=", ("north", None)),
            ('ward=""', "ward", "=", ("",)),
            ("a=x=1", "a", "=", ("x=1",)),
            ("a>=-1.5", "a", ">=", ("-1.5",)),
            ("a>b", "a", ">", ("b",)),
            ('"p<0.05"!=yes', "p<0.05", "!=", ("yes",)),
            ('a=5" pipe', "a", "=", ('5" pipe',)),
        ],
    )
    def test_examples(self, text: str, column: str, operator: str, values: tuple[str | None, ...]) -> None:
        assert parse_comparison(text) == Comparison(column, operator, values)

    @pytest.mark.parametrize("level", LEVELS)
    def test_every_level_can_be_named(self, level: str) -> None:
        column = {"name": "a=b|c", "kind": "categorical", "categories": LEVELS, "nullable": True}
        of = codecs_of(parse_schema({"dataset": "t", "columns": [column]}, file="s"))
        at = float(LEVELS.index(level))
        assert held(of, str(Comparison("a=b|c", "=", (level,)))) == ([(at, at)], False)
        assert held(of, str(Comparison("a=b|c", "=", (level, None)))) == ([(at, at)], True)


class TestRegions:
    @pytest.mark.parametrize(
        ("texts", "intervals", "missing"),
        [
            (["age>=65"], [(65, 99)], False),
            (["age>64.5"], [(65, 99)], False),
            (["age<80", "age>=65"], [(65, 79)], False),
            (["age<=1e300"], [(0, 99)], False),
            (["age=3|1|3"], [(1, 1), (3, 3)], False),
            (["age!=0|50"], [(1, 49), (51, 99)], False),
            (["age!=5", "age<7"], [(0, 4), (6, 6)], False),
            (["income>=12.34"], [(124, 50_000)], False),
            (["income>12.3"], [(124, 50_000)], False),
            (["income<=12.34"], [(0, 123)], False),
            (["income<12.3"], [(0, 122)], False),
            (["income=12.30"], [(123, 123)], False),
            (["admitted=1989-01-02 00:00:00"], [(6941, 6941)], False),
            (["income="], [], True),
            (["income!="], [(0, 50_000)], False),
            (["income!=0"], [(1, 50_000)], True),
            (["weight>=70"], [(70, 250)], False),
            (["weight>70"], [(np.nextafter(70, 99), 250)], False),
            (["weight<70"], [(2.5, np.nextafter(70, 0))], False),
            (["weight!=70"], [(2.5, np.nextafter(70, 0)), (np.nextafter(70, 99), 250)], False),
            (["city=Oslo|"], [(1, 1)], True),
            (["city=||Oslo"], [(1, 1)], True),
            (["city!=Oslo"], [(0, 0), (2, 2)], True),
            (["city!=Oslo", "city!="], [(0, 0), (2, 2)], False),
            (["stage>1"], [(1, 1), (2, 2)], False),
            (["dose<=1.5"], [(0, 0), (1, 1)], False),
            (["risk>=middle"], [(1, 1), (2, 2)], False),
            (["risk<high"], [(0, 0), (1, 1)], False),
            (["smoker!=yes"], [(0, 0)], True),
            (["admitted>=1989-01-02", "admitted<1989-01-05"], [(6941, 6943)], False),
            (["admitted>1989-01-02T12:00"], [(6942, 9131)], False),
            (["admitted<=1989-01-02T12:00"], [(6940, 6941)], False),
            (["seen>=2020-12-31T23:59:58+00:00"], [(1609459198, 1609459199)], False),
        ],
    )
    def test_examples(
        self, codecs: dict[str, Codec], texts: list[str], intervals: list[tuple[float, float]], missing: bool
    ) -> None:
        assert held(codecs, *texts) == (intervals, missing)

    @given(st.integers(-5, 105), st.sampled_from([">", ">=", "<", "<="]))
    def test_of_whole_numbers_hold_what_compares(self, codecs: dict[str, Codec], edge: int, operator: str) -> None:
        meets = {">": edge.__lt__, ">=": edge.__le__, "<": edge.__gt__, "<=": edge.__ge__}[operator]
        expected = [age for age in range(100) if meets(age)]
        try:
            intervals, _ = held(codecs, f"age{operator}{edge}")
        except UserError as error:
            assert "nothing declared for age" in str(error)
            intervals = []
        assert [age for age in range(100) if any(low <= age <= high for low, high in intervals)] == expected

    @pytest.mark.parametrize(
        ("texts", "words"),
        [
            (["age>=200"], "nothing declared for age (from 0 to 99)"),
            (["age<0"], "nothing declared for age"),
            (["age>60", "age<30"], "contradicts the other conditions on age"),
            (["age=5", "age!=5"], "contradicts"),
            (["sex=male", "sex=female"], "contradicts"),
            (["city=", "city=Rome"], "contradicts"),
            (["sex!=female|male"], "nothing declared for sex"),
            (["age>"], "> takes one value"),
            (["age>5|6"], "> takes one value"),
            (["age=64.5"], "is between two values of age (from 0 to 99)"),
            (["age!=3|64.5"], "is between two values of age"),
            (["income=12.34"], "is between two values of income"),
            (["admitted=1989-01-02T12:00"], "is between two values of admitted"),
            (["age>old"], "needs a number"),
            (["age>nan"], "needs a number"),
            (["weight<inf"], "needs a number"),
            (["weight<1e999"], "needs a number"),
            (["age>1e999999999"], "needs a number"),
            (["admitted>=soon"], "needs a date"),
            (["sex>male"], "sex has no order"),
            (["died>=true"], "died has no order"),
            (["risk>huge"], "outside the declared domain of risk (levels low, middle, high)"),
            (["city=Rome|Oslo|Paris"], "outside the declared domain of city"),
            (['city="Rome'], "double quotes"),
            (["died!="], "never missing"),
            (['"age'], "write COLUMN=VALUE"),
            (["=5"], "write COLUMN=VALUE"),
            ([""], "write COLUMN=VALUE"),
        ],
    )
    def test_mistakes(self, codecs: dict[str, Codec], texts: list[str], words: str) -> None:
        with pytest.raises(UserError) as caught:
            parse_conditions(codecs, texts)
        assert words in str(caught.value)
        assert caught.value.exit_code == 2


class TestBalance:
    @pytest.mark.parametrize(
        ("text", "where", "shares"),
        [
            ("died", [], [0.5, 0.5]),
            ("city", [], [0.25] * 4),
            ("city", ["city!="], [1 / 3, 1 / 3, 1 / 3, 0]),
            ("city=Rome:0.5", [], [0.5, np.nan, np.nan, np.nan]),
            ("city=Rome:0.5", ["city!=Oslo"], [0.5, 0, np.nan, np.nan]),
            ('city="Rome":0.5|:0.1', [], [0.5, np.nan, np.nan, 0.1]),
            ("died=true:1", [], [np.nan, 1]),
            ("died=true:0.3|false:0.7", [], [0.7, 0.3]),
        ],
    )
    def test_examples(self, codecs: dict[str, Codec], text: str, where: list[str], shares: list[float]) -> None:
        balance = parse_balance(codecs, text, parse_conditions(codecs, where))
        assert balance.shares == pytest.approx(np.array(shares), nan_ok=True)

    @pytest.mark.parametrize(
        ("text", "where", "words"),
        [
            ("age", [], "age has no levels (it is integer)"),
            ("dyed", [], "did you mean died?"),
            ("died>0.5", [], "write COLUMN"),
            ("died=true", [], "write VALUE:SHARE"),
            ("died=true:half", [], "a number from 0 to 1"),
            ("died=true:nan", [], "a number from 0 to 1"),
            ("died=true:-1", [], "a number from 0 to 1"),
            ("died=true:0.5|yes:0.1", [], "two shares"),
            ("died=true:0.5|false:0.2", [], "add up to 0.7"),
            ("city=Rome:0.9|Oslo:0.9", [], "add up to 1.8"),
            ("died=maybe:0.5", [], "outside the declared domain"),
            ("died=:0.5", [], "never missing"),
            ("city=Rome:0.5", ["city!=Rome"], "what --where leaves out"),
            ("", [], "not a learned column"),
        ],
    )
    def test_mistakes(self, codecs: dict[str, Codec], text: str, where: list[str], words: str) -> None:
        with pytest.raises(UserError) as caught:
            parse_balance(codecs, text, parse_conditions(codecs, where))
        assert words in str(caught.value)
        assert str(caught.value).startswith("--balance")


def test_an_empty_region_is_empty() -> None:
    assert Region(np.empty((0, 2)), missing=False).empty
    assert not Region(np.empty((0, 2)), missing=True).empty
