"""schema.yaml: what a steward may declare, and every mistake named at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidConfig, NotBuiltYet, UnconfirmedDomain
from synth.schema import MAX_CATEGORIES, CategoricalColumn, Schema, level_key, load_schema, parse_schema, public_yaml

Write = Callable[[str, str | bytes], Path]
SchemaOf = Callable[..., Schema]

INTEGER = {"name": "a", "kind": "integer", "bounds": [0, 9]}
REAL = {"name": "a", "kind": "continuous", "bounds": [0, 9]}
LEVELS = {"name": "a", "kind": "categorical", "categories": ["x", "y"]}
BOOLEAN = {"name": "a", "kind": "boolean"}
MOMENT = {"name": "a", "kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"]}


def problems(*columns: dict[str, Any], **changes: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as caught:
        parse_schema({"dataset": "toy", "columns": list(columns), **changes}, file="schema.yaml")
    assert caught.value.file == "schema.yaml"
    return caught.value.problems


def parsed(column: dict[str, Any]) -> Any:
    return parse_schema({"dataset": "toy", "columns": [column]}, file="schema.yaml").columns[0]


CONTRACT = """
dataset: support2
population: support2-patients
privacy_unit: row
max_rows_per_person: 1
row_count: private
target: died
columns:
  - {name: age, kind: continuous, bounds: [18, 110], decimals: 1}
  - {name: num_comorbidities, kind: integer, bounds: [0, 9]}
  - {name: sex, kind: categorical, categories: [female, male]}
  - {name: edu, kind: integer, bounds: [0, 31], nullable: true}
  - {name: admitted, kind: datetime, bounds: [1989-01-01, 1995-01-01], resolution: day}
  - {name: died, kind: boolean}
  - {name: patient_nbr, kind: id}
"""


class TestTheContract:
    def test_its_example_is_read(self, write: Write) -> None:
        schema = load_schema(write("schema.yaml", CONTRACT))
        assert [column.kind for column in schema.columns] == [
            "continuous",
            "integer",
            "categorical",
            "integer",
            "datetime",
            "boolean",
            "id",
        ]
        assert [column.name for column in schema.learned_columns][-1] == "died"
        assert (schema.ledger_population, schema.row_count, schema.target) == ("support2-patients", "private", "died")
        assert schema.column("admitted").bounds == (datetime(1989, 1, 1), datetime(1995, 1, 1))
        assert schema.column("edu").nullable
        with pytest.raises(KeyError):
            schema.column("agee")

    def test_what_is_left_out_has_a_default(self) -> None:
        schema = parse_schema({"dataset": "toy", "columns": [MOMENT]}, file="schema.yaml")
        column = schema.columns[0]
        assert (schema.ledger_population, schema.target, schema.row_count) == ("toy", None, "private")
        assert (column.resolution, column.nullable, column.outside, column.domain) == (
            "second",
            False,
            None,
            "confirmed",
        )

    def test_a_person_column(self) -> None:
        raw = {"dataset": "toy", "privacy_unit": "who", "max_rows_per_person": 3.0}
        schema = parse_schema({**raw, "columns": [{"name": "who", "kind": "id"}, BOOLEAN]}, file="schema.yaml")
        assert (schema.person_column, schema.max_rows_per_person) == ("who", 3)
        assert [column.name for column in schema.learned_columns] == ["a"]
        assert parse_schema({"dataset": "toy", "columns": [BOOLEAN]}, file="schema.yaml").person_column is None

    def test_survives_its_own_json(self, schema_of: SchemaOf) -> None:
        names = ("age", "income", "weight", "city", "stage", "dose", "died", "smoker", "admitted", "seen", "number")
        schema = schema_of(*names, target="died", row_count=9)
        raw = schema.model_dump(mode="json", exclude_defaults=True)
        assert parse_schema(raw, file="schema.yaml") == schema

    def test_words_that_yaml_1_1_took_for_booleans(self, write: Write) -> None:
        text = "dataset: toy\ncolumns:\n  - {name: a, kind: categorical, categories: [no, yes, metastatic]}\n"
        assert load_schema(write("s.yaml", text)).columns[0].categories == ("no", "yes", "metastatic")

    @pytest.mark.parametrize("bound", ["1989-01-31", "1989-01-31 00:00:00", "1989-01-31T00:00:00"])
    @pytest.mark.parametrize("quote", ["", "'"])
    def test_dates_may_be_quoted(self, write: Write, bound: str, quote: str) -> None:
        day = f"{quote}{bound}{quote}"
        text = f"dataset: toy\ncolumns:\n  - {{name: a, kind: datetime, bounds: [{day}, {day}]}}\n"
        assert load_schema(write("s.yaml", text)).columns[0].bounds == (datetime(1989, 1, 31),) * 2

    def test_an_offset_is_converted_to_utc(self) -> None:
        column = parsed({**MOMENT, "bounds": ["1989-01-01T02:00:00+02:00", "1995-01-01"]})
        assert column.bounds[0] == datetime(1989, 1, 1)

    def test_whole_numbers_may_be_written_with_a_point(self) -> None:
        assert parsed({**INTEGER, "bounds": [0.0, 9.0]}).bounds == (0, 9)


class TestNumericLevels:
    @pytest.mark.parametrize(
        ("levels", "numeric", "whole"),
        [([1, 2.0], True, True), ([0.5, 1], True, False), (["1", "2"], False, False), ([1, "x"], False, False)],
    )
    def test_kind_of_levels(self, levels: list[Any], numeric: bool, whole: bool) -> None:
        column = parsed({**LEVELS, "categories": levels})
        assert (column.numeric, column.whole) == (numeric, whole)

    @given(st.integers(-(2**53) + 1, 2**53 - 1))
    def test_a_number_has_one_spelling(self, number: int) -> None:
        assert level_key(number) == level_key(float(number)) == level_key(str(number))

    @pytest.mark.parametrize(("levels", "index"), [(["x", "Other"], 1), (["OTHER", "x"], 0), (["x", "y"], None)])
    def test_the_other_level_is_found_by_name(self, levels: list[str], index: int | None) -> None:
        assert parsed({**LEVELS, "categories": levels}).other_level == index

    def test_or_declared(self) -> None:
        assert parsed({**LEVELS, "categories": [1, 2], "other": 2.0, "outside": "other"}).other_level == 1


COLUMN_MISTAKES = [
    ({"kind": "boolean"}, "column 1.name: is required and absent"),
    ({"name": "a"}, "column a: kind is required and absent"),
    ({"name": "a", "kind": "interger"}, "column a: kind should be one of 'integer', 'continuous'"),
    ({**BOOLEAN, "nulable": True}, "column a.nulable: unknown key (did you mean nullable?)"),
    ({"name": "a", "kind": "integer"}, "column a.bounds: is required and absent"),
    ({**INTEGER, "bounds": [9, 0]}, "column a: bounds are reversed"),
    ({**REAL, "bounds": [9, 0]}, "column a: bounds are reversed"),
    ({**MOMENT, "bounds": ["1995-01-01", "1989-01-01"]}, "column a: bounds are reversed"),
    ({**INTEGER, "bounds": [1]}, "column a.bounds.1: is required and absent"),
    ({**INTEGER, "bounds": [0, 1, 2]}, "column a.bounds: "),
    ({**INTEGER, "bounds": 5}, "column a.bounds: should be a list"),
    ({**INTEGER, "bounds": [0, 9.5]}, "column a.bounds.1: should be a valid integer"),
    ({**INTEGER, "bounds": [False, 9]}, "column a.bounds.0: should be a number, not true or false"),
    ({**INTEGER, "bounds": [0, "many"]}, "column a.bounds.1: should be a valid integer"),
    ({**INTEGER, "bounds": [0, 2**53]}, "column a: bounds must lie within ±2^53"),
    ({**REAL, "bounds": [True, 9]}, "column a.bounds.0: should be a number, not true or false"),
    ({**REAL, "bounds": [0, float("inf")]}, "column a.bounds.1: should be a finite number"),
    ({**REAL, "bounds": [0, float("nan")]}, "column a.bounds.1: should be a finite number"),
    ({**REAL, "bounds": [-1e308, 1e308]}, "column a: bounds must lie within ±1e300"),
    ({**REAL, "bounds": [0, 5e-324]}, "column a: bounds lie closer together than 1e-300: declare a larger unit"),
    ({**REAL, "decimals": -1}, "column a.decimals: should be greater than or equal to 0"),
    ({**REAL, "bounds": [0.2, 0.8], "decimals": 0}, "column a: the bounds hold no value at the declared decimals"),
    ({**REAL, "bounds": [0, 1e6], "decimals": 12}, "column a: bounds and decimals need more than 15 digits"),
    ({**REAL, "scale": "square"}, "column a.scale: should be 'linear' or 'log'"),
    ({**MOMENT, "bounds": ["once", "1995-01-01"]}, "column a.bounds.0: should be a date such as"),
    ({**MOMENT, "bounds": [1989, 1995]}, "column a.bounds.0: should be a date such as"),
    ({**MOMENT, "bounds": ["0001-01-01T00:00:00+14:00", "1995-01-01"]}, "column a.bounds.0: should lie within"),
    ({**MOMENT, "resolution": "week"}, "column a.resolution: should be 'second', 'minute', 'hour' or 'day'"),
    (
        {**MOMENT, "bounds": ["1989-01-01T08:00", "1989-01-01T20:00"], "resolution": "day"},
        "column a: the bounds hold no moment at the declared resolution",
    ),
    ({"name": "a", "kind": "categorical"}, "column a.categories: is required and absent"),
    ({**LEVELS, "categories": []}, "column a.categories: should hold at least one entry"),
    ({**LEVELS, "categories": "xy"}, "column a.categories: should be a list"),
    ({**LEVELS, "categories": [True, "x"]}, "column a.categories.0: true and false are not categories"),
    ({**LEVELS, "categories": ["x", None]}, "column a.categories.1: null is no category"),
    ({**LEVELS, "categories": ["x", "x"]}, "column a: categories hold the same level twice"),
    ({**LEVELS, "categories": [5, 5.0]}, "column a: categories hold the same level twice"),
    ({**LEVELS, "categories": [5, "5"]}, "column a: categories hold the same level twice"),
    ({**LEVELS, "categories": [1, float("nan")]}, "column a: categories must be finite"),
    ({**LEVELS, "categories": [1, 2**60]}, "column a: numeric categories must lie within ±2^53"),
    ({**LEVELS, "categories": list(range(MAX_CATEGORIES + 1))}, "column a.categories: "),
    ({**LEVELS, "other": "z"}, "column a: `other` must be one of the categories"),
    ({**LEVELS, "outside": "other"}, "column a: `outside: other` needs a level named 'other'"),
    ({**LEVELS, "outside": "clip"}, "column a: `outside: clip` is for numbers and dates"),
    ({**LEVELS, "outside": "missing"}, "column a: `outside: missing` needs `nullable: true`"),
    ({**LEVELS, "outside": "drop"}, "column a.outside: should be 'clip', 'missing', 'other' or 'refuse'"),
    ({**INTEGER, "outside": "other"}, "column a: `outside: other` is for categorical columns"),
    ({**BOOLEAN, "outside": "clip"}, "column a: `outside: clip` is not for booleans"),
    ({**BOOLEAN, "outside": "other"}, "column a: `outside: other` is not for booleans"),
    ({**BOOLEAN, "nullable": "perhaps"}, "column a.nullable: should be a valid boolean"),
    ({**BOOLEAN, "domain": "guessed"}, "column a.domain: should be 'unconfirmed' or 'confirmed'"),
]


class TestMistakes:
    @pytest.mark.parametrize(("column", "problem"), COLUMN_MISTAKES, ids=[m for _, m in COLUMN_MISTAKES])
    def test_of_a_column(self, column: dict[str, Any], problem: str) -> None:
        good = {"name": "good", "kind": "boolean"}
        found = problems(column, good)
        assert any(p.startswith(problem) for p in found), found
        assert not any("at least 1 item" in p for p in found)
        assert not any(p.startswith(("column good", "column 2")) for p in found)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"dataset": None}, "dataset: should be a valid string"),
            ({"dataset": "a b"}, "dataset: String should match pattern"),
            ({"dataset": "../up"}, "dataset: String should match pattern"),
            ({"population": "a/b"}, "population: String should match pattern"),
            ({"columns": []}, "columns: should hold at least one entry"),
            ({"columns": {"a": "integer"}}, "columns: should be a list"),
            ({"columns": [3, BOOLEAN]}, "column 1: should be a mapping of keys to values"),
            ({"colums": []}, "colums: unknown key (did you mean columns?)"),
            ({"row_count": 0}, "row_count: should be greater than or equal to 1"),
            ({"row_count": "public"}, "row_count: should be 'private'"),
            ({"row_count": True}, "row_count: should be a number, not true or false"),
            ({"row_count": 1.5}, "row_count: should be a valid integer"),
            ({"row_count": 10**15}, "row_count: should be less than or equal to"),
            ({"target": "aa"}, "target: aa is not a declared column (did you mean a?)"),
            ({"target": 3}, "target: should be a valid string"),
            ({"privacy_unit": "aa"}, "privacy_unit: aa is neither `row` nor a declared column (did you mean a?)"),
            ({"privacy_unit": "a"}, "privacy_unit: column a tells people apart, so its kind is id"),
            ({"privacy_unit": None}, "privacy_unit: should be a valid string"),
            ({"max_rows_per_person": 3}, "max_rows_per_person: above 1 needs the person column"),
            ({"max_rows_per_person": 0}, "max_rows_per_person: should be greater than or equal to 1"),
            ({"max_rows_per_person": True}, "max_rows_per_person: should be a number, not true or false"),
            ({"columns": [BOOLEAN, BOOLEAN]}, "column a: declared twice"),
            ({"columns": [{"name": "a", "kind": "id"}]}, "columns: only ids are declared"),
            ({"columns": [BOOLEAN, {"name": "i", "kind": "id"}], "target": "i"}, "target: an id column cannot be"),
        ],
    )
    def test_of_the_whole(self, changes: dict[str, Any], problem: str) -> None:
        found = problems(BOOLEAN, **changes)
        assert any(p.startswith(problem) for p in found), found

    def test_all_are_reported_together(self) -> None:
        found = problems(
            {"name": "age", "kind": "integer", "bounds": [9, 0]},
            {"name": "sex", "kind": "categorical", "categories": []},
            {"name": "sex", "kind": "boolean", "colour": "red"},
            {"name": "when", "kind": "date"},
            target="agee",
            row_count=0,
            nmae="x",
        )
        places = sorted(problem.split(":")[0] for problem in found)
        whole = ["nmae", "row_count", "row_count", "target"]
        assert places == sorted(
            ["column age", "column sex", "column sex.categories", "column sex.colour", "column when", *whole]
        )

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(INTEGER)), inner),
            max_leaves=6,
        )
    )
    def test_any_column_is_a_column_or_a_plain_mistake(self, column: Any) -> None:
        try:
            parse_schema({"dataset": "toy", "columns": [column]}, file="s")
        except (InvalidConfig, NotBuiltYet) as error:
            assert str(error).startswith("s: ")


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"kind": "image"}, "images"),
            ({"image": {"height": 8}}, "images"),
        ],
    )
    def test_what_is_not_built_is_never_something_weaker(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(NotBuiltYet, match=words) as caught:
            parse_schema({"dataset": "toy", "columns": [BOOLEAN], **changes}, file="schema.yaml")
        assert caught.value.exit_code == 2

    def test_a_drafted_domain_is_not_public_knowledge(self, schema_of: SchemaOf) -> None:
        schema = schema_of("age", "sex", "died", age={"domain": "unconfirmed"}, died={"domain": "unconfirmed"})
        with pytest.raises(UnconfirmedDomain, match="age, died") as caught:
            schema.refuse_unconfirmed()
        assert caught.value.exit_code == 3
        schema_of("age", age={"domain": "confirmed"}).refuse_unconfirmed()


class TestSteps:
    @pytest.mark.parametrize(
        ("bounds", "decimals", "steps"),
        [
            ((0, 1), 0, (0, 1)),
            ((0.15, 0.75), 1, (2, 7)),
            ((-0.3, 0.3), 1, (-3, 3)),
            ((-1, 84999999.99), 2, (-100, 8499999999)),
            ((0.1, 0.1), 12, (10**11,) * 2),
        ],
    )
    def test_of_decimals(self, bounds: tuple[float, float], decimals: int, steps: tuple[int, int]) -> None:
        assert parsed({**REAL, "bounds": list(bounds), "decimals": decimals}).steps == steps

    def test_of_moments_lie_within_the_bounds(self) -> None:
        column = parsed({**MOMENT, "bounds": ["1970-01-01T12:00", "1970-01-03T12:00"], "resolution": "day"})
        assert column.steps == (1, 2)
        assert parsed({**MOMENT, "bounds": ["1969-12-31", "1970-01-01"], "resolution": "hour"}).steps == (-24, 0)


def test_the_public_schema_says_the_same_without_the_stewards_comments(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    file.write_text(
        "# ask Dr. Secret about this column\n"
        "dataset: ward\ntarget: died\nrow_count: 900\nprivacy_unit: patient\nmax_rows_per_person: 2\ncolumns:\n"
        "  - {name: patient, kind: id}\n"
        "  - {name: 'no', kind: categorical, categories: ['no', 'yes', '5'], labels: {'no': not at all}}\n"
        "  - {name: score, kind: categorical, categories: [1, 2.5]}\n"
        "  - {name: admitted, kind: datetime, bounds: [1989-01-01, 1995-01-01], resolution: day, nullable: true}\n"
        "  - {name: temp, kind: continuous, bounds: [30, 43], decimals: 1, outside: clip}\n"
        "  - {name: died, kind: boolean}  # secret\n"
    )
    schema = load_schema(file)
    public = tmp_path / "public.yaml"
    public.write_text(public_yaml(schema))
    again = load_schema(public)
    assert again.model_copy(update={"population": ""}) == schema
    assert again.ledger_population == schema.ledger_population
    assert "ecret" not in public.read_text()


class TestHierarchy:
    CODES = ("A01", "A02", "A10", "B01", "7")

    def column(self, hierarchy: object, **changes: object) -> CategoricalColumn:
        raw = {"name": "code", "kind": "categorical", "categories": self.CODES, "hierarchy": hierarchy, **changes}
        column = parse_schema({"dataset": "toy", "columns": [raw]}, file="s").columns[0]
        assert isinstance(column, CategoricalColumn)
        return column

    @pytest.mark.parametrize(
        ("hierarchy", "partitions"),
        [
            (None, ()),
            ({"prefix": 1}, ((0, 0, 0, 3, 4),)),
            ({"prefix": [1, 2]}, ((0, 0, 2, 3, 4), (0, 0, 0, 3, 4))),
            ({"groups": {"x": ["A10", 7], "y": ["B01"]}}, ((-1, -1, 0, 1, 0),)),
        ],
    )
    def test_partitions_finest_first(self, hierarchy: object, partitions: tuple[tuple[int, ...], ...]) -> None:
        assert self.column(hierarchy).partitions == partitions

    def test_numbers_by_their_spelling(self) -> None:
        assert self.column({"prefix": 2}, categories=[250.0, 251, 30]).partitions == ((0, 0, 2),)
        assert self.column({"groups": {"x": [250, "30"]}}, categories=[250.0, 251, 30]).partitions == ((0, -1, 0),)

    def test_is_kept_in_the_public_schema(self) -> None:
        schema = parse_schema(
            {
                "dataset": "toy",
                "columns": [
                    {"name": "a", "kind": "categorical", "categories": self.CODES, "hierarchy": {"prefix": 2}},
                    {"name": "b", "kind": "categorical", "categories": ["x"], "hierarchy": {"groups": {"g": ["x"]}}},
                ],
            },
            file="s",
        )
        again = parse_schema(schema.model_dump(mode="json", exclude_defaults=True), file="s")
        assert again == schema and "prefix: [2]" in public_yaml(schema)

    @pytest.mark.parametrize(
        ("hierarchy", "words"),
        [
            ({}, "write one of both"),
            ({"prefix": 2, "groups": {"x": ["A01"]}}, "write one of both"),
            ({"prefix": [3, 1]}, "ascending order"),
            ({"prefix": 0}, "greater than or equal to 1"),
            ({"groups": {"x": ["A01", "C"]}}, "hierarchy: C is not one of the categories"),
            ({"groups": {"x": ["A01"], "y": ["A01"]}}, "hierarchy: A01 stands in two groups"),
            ({"groups": {"x": []}}, "at least one"),
            ({"parent": 3}, "parent"),
        ],
    )
    def test_mistakes_are_told(self, hierarchy: object, words: str) -> None:
        with pytest.raises(InvalidConfig) as caught:
            self.column(hierarchy)
        assert words in str(caught.value) and "\n" not in str(caught.value)
