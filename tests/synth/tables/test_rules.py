"""Rules as they are written, what is wrong with them, and which rows meet them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidConfig
from synth.schema import Schema, parse_schema, public_yaml
from synth.tables.codec import codec_of, codecs_of
from synth.tables.rules import Function, Never, Order, last_at, line_of, parts_of, rules_of

COLUMNS: list[dict[str, Any]] = [
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    {"name": "place", "kind": "categorical", "categories": ["Here and there", "x|y", "(z)"], "nullable": True},
    {"name": "pregnant", "kind": "boolean", "nullable": True},
    {"name": "age", "kind": "integer", "bounds": [0, 99]},
    {"name": "since", "kind": "continuous", "bounds": [0, 50], "decimals": 1, "nullable": True},
    {"name": "cost", "kind": "continuous", "bounds": [-10, 50]},
    {"name": "old", "kind": "integer", "bounds": [100, 120]},
    {"name": "admitted", "kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"], "resolution": "day"},
    {"name": "discharged", "kind": "datetime", "bounds": ["1989-01-01", "1996-01-01"], "nullable": True},
    {"name": "at least, and >= so", "kind": "integer", "bounds": [0, 9]},
    {"name": "nbr", "kind": "id"},
]


def schema_with(*rules: Any, **changes: Any) -> Schema:
    return parse_schema({"dataset": "toy", "columns": COLUMNS, "rules": list(rules), **changes}, file="s")


def rule(declared: Any) -> Any:
    (found,) = rules_of(schema_with(declared))
    return found


def problems(*rules: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as caught:
        schema_with(*rules)
    return caught.value.problems


class TestOrders:
    @pytest.mark.parametrize(
        ("text", "lower", "upper", "strict"),
        [
            ("discharged >= admitted", "admitted", "discharged", False),
            ("admitted<discharged", "admitted", "discharged", True),
            ("since > age", "age", "since", True),
            (" cost <= age ", "cost", "age", False),
            ('"at least, and >= so" <= age', "at least, and >= so", "age", False),
            ('age > "at least, and >= so"', "at least, and >= so", "age", True),
        ],
    )
    def test_are_read(self, text: str, lower: str, upper: str, strict: bool) -> None:
        found = rule(text)
        assert isinstance(found, Order)
        assert (found.lower, found.upper, found.strict) == (lower, upper, strict)

    def test_hold_where_a_value_is_missing(self) -> None:
        day = [datetime(1990, 1, 1), datetime(1990, 1, 1), datetime(1990, 1, 2), datetime(1990, 1, 1)]
        end = [datetime(1990, 1, 1), datetime(1990, 1, 1, 0, 0, 1), datetime(1990, 1, 1), None]
        values = {"admitted": pa.array(day, pa.timestamp("us")), "discharged": pa.array(end, pa.timestamp("us"))}
        assert rule("admitted <= discharged").holds({}, values).tolist() == [True, True, False, True]
        assert rule("admitted < discharged").holds({}, values).tolist() == [False, True, False, True]

    def test_compare_numbers_by_value(self) -> None:
        values = {"age": pa.array([1, 2, 3, 2]), "since": pa.array([1.0, 1.9, 3.1, None])}
        assert rule("age <= since").holds({}, values).tolist() == [True, False, True, True]
        assert rule("since > age").holds({}, values).tolist() == [False, False, True, True]


class TestNevers:
    @pytest.mark.parametrize(
        ("text", "columns"),
        [
            ("not (sex = male and pregnant = true)", ("sex", "pregnant")),
            ("not(sex=male AND pregnant=true and age>=60)", ("sex", "pregnant", "age")),
            ('not (place = "Here and there" and sex = male)', ("place", "sex")),
            ('not (place = "x|y"|"(z)" and age != 3)', ("place", "age")),
            ("not (age >= 10 and age < 20 and sex = male)", ("age", "sex")),
            ('not ("at least, and >= so" > 4 and admitted >= 1994-01-01)', ("at least, and >= so", "admitted")),
        ],
    )
    def test_are_read(self, text: str, columns: tuple[str, ...]) -> None:
        found = rule(text)
        assert isinstance(found, Never)
        assert found.columns == columns

    def test_missing_meets_a_part_that_names_it_alone(self) -> None:
        codecs = codecs_of(schema_with())
        values = {
            "sex": pa.array(["male"] * 4),
            "pregnant": pa.array([True, False, None, None]),
            "since": pa.array([1.0, 2.0, 3.0, None]),
        }
        assert rule("not (sex=male and pregnant=true)").holds(codecs, values).tolist() == [False, True, True, True]
        assert rule("not (sex=male and pregnant!=true)").holds(codecs, values).tolist() == [True, False, True, True]
        assert rule("not (sex=male and pregnant=|true)").holds(codecs, values).tolist() == [False, True, False, False]
        assert rule("not (pregnant= and since=)").holds(codecs, values).tolist() == [True, True, True, False]


class TestFunctions:
    def test_are_read_and_hold(self) -> None:
        found = rule({"determines": ["place", "since"], "map": {"Here and there": 1.5, "x|y": 2, "(z)": "1.5"}})
        assert isinstance(found, Function)
        values = {
            "place": pa.array(["Here and there", "x|y", "(z)", None, "(z)"]),
            "since": pa.array([1.5, 2.1, 1.5, 3.0, None]),
        }
        assert found.holds(codecs_of(schema_with()), values).tolist() == [True, False, True, True, True]

    def test_are_kept_in_the_public_schema(self) -> None:
        schema = schema_with(
            {"determines": ["pregnant", "discharged"], "map": {True: "1990-01-01", False: "1991-05-01"}}
        )
        (before,) = rules_of(schema)
        again = parse_schema(schema.model_dump(mode="json", exclude_defaults=True), file="s")
        (after,) = rules_of(again)
        assert isinstance(before, Function) and isinstance(after, Function)
        assert np.array_equal(before.position, after.position)
        assert "determines: [pregnant, discharged]" in public_yaml(schema)


class TestProblems:
    @pytest.mark.parametrize(
        ("declared", "words"),
        [
            ("discharged >= admited", "admited is not a declared column (did you mean admitted?)"),
            ("agee < since", "agee is not a declared column (did you mean age?)"),
            ("age >= 18", "compares a column with a value; a limit of one column is its `bounds`"),
            ("admitted >= 1990-01-01", "compares a column with a value"),
            ("age >= admitted", "compares a date with a number"),
            ("age >= sex", "sex is categorical; only numbers and dates are compared"),
            ("age <= nbr", "nbr is an id"),
            ("age <= age", "compares a column with itself"),
            ("age = since", "write COLUMN >= COLUMN"),
            ("age", "write COLUMN >= COLUMN"),
            ("", "write COLUMN >= COLUMN"),
            ("age <", "a name is not a declared column"),
            ("sex -> age", "write {determines: [COLUMN, COLUMN]"),
            ("old <= age", "the declared bounds leave nothing that meets it"),
            ("not (sex = man and age > 3)", "outside the declared domain of sex"),
            ("not (sex = male and agee > 3)", "did you mean age?"),
            ("not (sex = male and place = Here and there)", "a value that holds `and` is in double quotes"),
            ("not (sex = male)", "is about one column; narrow that column's bounds or categories instead"),
            ("not (sex = male and sex != male and age = 3)", "nothing declared for sex"),
            ("not (sex = male and age = )", "age is never missing"),
            ("not (sex = female|male and age >= 0)", "rules out every row"),
            ("not (sex != x and age != 3)", "outside the declared domain"),
            ("not (cost >= -10 and age >= 0)", "rules out every row"),
            ({"determines": ["sex", "age"], "map": {"male": 3}}, "map has no value for female of sex"),
            ({"determines": ["sex", "age"], "map": {"male": 3, "female": 100}}, "outside the declared domain of age"),
            ({"determines": ["age", "sex"], "map": {3: "male"}}, "age is integer; only categorical and boolean"),
            ({"determines": ["place", "age"], "map": {"(z)": 3}}, "it needs `nullable: true` too"),
            ({"determines": ["sex", "sex"], "map": {"male": "male"}}, "determines a column from itself"),
            ({"determines": ["sex", "nope"], "map": {"male": 1}}, "nope is not a declared column"),
            ({"determines": ["sex", "age"]}, "map: is required and absent"),
            ({"determins": ["sex", "age"], "map": {"male": 1}}, "did you mean determines?"),
            (3, "should be a valid string"),
        ],
    )
    def test_say_what_to_do(self, declared: Any, words: str) -> None:
        (problem, *_) = [each for each in problems(declared) if words in each]
        assert problem.startswith("rule")

    def test_are_told_together(self) -> None:
        found = problems("agee < since", "not (sex = male)", "age >= admitted", "old <= age")
        assert [each.split(":")[0] for each in found] == [
            "rule agee < since",
            "rule not (sex = male)",
            "rule age >= admitted",
            "rule old <= age",
        ]

    @pytest.mark.parametrize(
        ("rules", "words"),
        [
            (["age < since", "since <= cost", "cost <= age"], "go round in a circle"),
            (["age <= since", "age >= since"], "go round in a circle"),
            (["old <= cost", "cost <= since"], "the declared bounds leave nothing"),
        ],
    )
    def test_of_several_rules(self, rules: list[str], words: str) -> None:
        assert any(words in each for each in problems(*rules))
        for each in rules[:-1]:
            assert rule(each) if "old" not in each else problems(each)

    def test_a_column_is_determined_once(self) -> None:
        one = {"determines": ["sex", "age"], "map": {"male": 3, "female": 4}}
        assert problems(one, {**one, "map": {"male": 4, "female": 4}}) == ("rules: age is determined twice",)

    def test_the_target_determines_and_is_not_determined(self) -> None:
        with pytest.raises(InvalidConfig, match="age is the target"):
            schema_with({"determines": ["sex", "age"], "map": {"male": 3, "female": 4}}, target="age")

    @given(
        st.lists(
            st.sampled_from(
                [*(c["name"] for c in COLUMNS), "not (", ")", " and ", "=", "+", "<=", ">", "|", '"', "male", "3", " "]
            ),
            max_size=9,
        )
    )
    def test_any_text_is_a_rule_or_a_plain_mistake(self, words: list[str]) -> None:
        try:
            (found,) = rules_of(schema_with("".join(words)))
        except InvalidConfig as error:
            assert str(error).startswith("s: ") and "\n" not in str(error)
        else:
            assert set(found.columns) <= {c["name"] for c in COLUMNS}
            assert rules_of(schema_with(found.text))[0].columns == found.columns


def test_parts_share_no_column() -> None:
    texts = ["a >= b", "not (c = 1 and d = 1)", "e > f", "not (b = 1 and e = 1)", "not (d = 2 and g = 1)"]
    columns = [{"name": name, "kind": "integer", "bounds": [0, 9]} for name in "abcdefg"]
    rules = rules_of(parse_schema({"dataset": "t", "columns": columns, "rules": texts}, file="s"))
    parts = {frozenset(rule.text for rule in part) for part in parts_of(rules)}
    assert parts == {frozenset(texts[i] for i in (0, 2, 3)), frozenset(texts[i] for i in (1, 4))}
    assert parts_of(()) == []


class TestTheCommonLine:
    @given(st.integers(0, 500), st.sampled_from(["age", "since", "cost", "admitted"]), st.floats(-60, 600))
    def test_the_last_position_at_a_point(self, steps: int, name: str, away: float) -> None:
        """No position lies between it and the point, also for decimals that no double holds."""
        codec = codec_of(schema_with().column(name))
        for point in (float(line_of(codec, np.array([float(steps)]))[0]), away):
            (found,) = last_at(codec, np.array([point]))
            assert line_of(codec, np.array([found]))[0] <= point
            after = np.nextafter(found, np.inf) if name == "cost" else found + 1
            assert line_of(codec, np.array([after]))[0] > point
