"""YAML as people write it, and what goes wrong with it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synth.errors import InvalidConfig
from synth.yaml_file import fill_environment, keys_of, nearest, problems_of, read_yaml

Write = Callable[[str, str | bytes], Path]


class TestWhatAWordMeans:
    @pytest.mark.parametrize("word", ["no", "yes", "on", "off", "n", "y", "No", "YES"])
    def test_yaml_1_2_words_stay_words(self, write: Write, word: str) -> None:
        assert read_yaml(write("a.yaml", f"categories: [{word}, 'x']")) == {"categories": [word, "x"]}

    def test_true_and_false_are_booleans(self, write: Write) -> None:
        assert read_yaml(write("a.yaml", "a: true\nb: false")) == {"a": True, "b": False}

    @pytest.mark.parametrize(("text", "number"), [("1e-5", 1e-5), ("1.0e-5", 1e-5), ("1E5", 1e5), ("10", 10), ("0", 0)])
    def test_numbers(self, write: Write, text: str, number: float) -> None:
        value = read_yaml(write("a.yaml", f"delta: {text}"))["delta"]
        assert value == number
        assert isinstance(value, (int, float))

    def test_dates_with_or_without_quotes(self, write: Write) -> None:
        value = read_yaml(write("a.yaml", "bounds: [1989-01-31, '1989-01-31']"))["bounds"]
        assert value == [datetime.date(1989, 1, 31), "1989-01-31"]


def test_a_file_is_parsed_once_and_again_when_it_has_changed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.yaml", "parsed: once")
    first = read_yaml(path)
    with monkeypatch.context() as patch:
        patch.setattr("synth.yaml_file.YAML", None)
        assert read_yaml(path) == first
    path.write_text("parsed: twice")
    assert read_yaml(path) == {"parsed": "twice"}


def test_what_is_done_to_a_value_is_not_read_again(write: Write) -> None:
    path = write("a.yaml", "columns: [{name: age}]")
    read_yaml(path)["columns"][0]["name"] = "sex"
    assert read_yaml(path) == {"columns": [{"name": "age"}]}


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ("a: 1\nb: [1, 2\n", r"line 3"),
            ("a: 1\n  b: 2\n", r"line 2"),
            ("a: 'x\n", r"line 2"),
            ("a: 1\na: 2\n", r"line 2"),
            ("a: !!python/name:os.system\n", r"line 1"),
            ("a: *nobody\n", r"line 1"),
            ("a:\t- 1\n\t- 2", r"line"),
        ],
    )
    def test_broken_yaml_names_the_line(self, write: Write, text: str, where: str) -> None:
        with pytest.raises(InvalidConfig, match=rf"broken YAML, {where}"):
            read_yaml(write("a.yaml", text))

    @pytest.mark.parametrize("code", ["01", "-007", "00"])
    def test_a_code_that_would_lose_its_zero(self, write: Write, code: str) -> None:
        with pytest.raises(InvalidConfig, match=rf'line 1, column 5: {code} is a number with .* write "{code}"'):
            read_yaml(write("a.yaml", f"a: [{code}]"))
        assert read_yaml(write("a.yaml", f'a: ["{code}", 0.5, 2020-01-01]'))["a"][:2] == [code, 0.5]

    def test_a_date_that_is_none(self, write: Write) -> None:
        with pytest.raises(InvalidConfig, match="broken YAML, line 2, column 4: 1989-02-31 is no date"):
            read_yaml(write("a.yaml", "b: 1\na: 1989-02-31"))

    def test_a_variable_without_quotes(self, write: Write) -> None:
        with pytest.raises(InvalidConfig, match=r'line 1, .*; a value with \$\{…\} is quoted: "\$\{NAME\}"'):
            read_yaml(write("a.yaml", "source: {path: ${NAME}}"))

    @pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "word", "3"])
    def test_not_a_mapping(self, write: Write, text: str) -> None:
        with pytest.raises(InvalidConfig, match="must be a mapping"):
            read_yaml(write("a.yaml", text))

    def test_absent_folder_and_not_text(self, write: Write, tmp_path: Path) -> None:
        for path, words in (
            (tmp_path / "no.yaml", "no such file"),
            (tmp_path, "is a folder"),
            (write("b.yaml", b"a: \xff\xfe"), "not UTF-8"),
        ):
            with pytest.raises(InvalidConfig, match=words) as caught:
                read_yaml(path)
            assert caught.value.file == str(path)

    @given(st.binary(max_size=40))
    def test_nothing_but_invalid_config(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.mktemp("yaml") / "a.yaml"
        path.write_bytes(content)
        try:
            assert isinstance(read_yaml(path), dict)
        except InvalidConfig as error:
            assert "\n" not in str(error)


class TestEnvironment:
    def test_fills_strings_at_any_depth(self) -> None:
        raw = {"ledger": {"url": "${WHERE}/a.db"}, "list": ["${WHERE}", 3, None], "kept": "$WHERE {WHERE}"}
        filled, missing = fill_environment(raw, {"WHERE": "/srv"})
        assert filled == {"ledger": {"url": "/srv/a.db"}, "list": ["/srv", 3, None], "kept": "$WHERE {WHERE}"}
        assert missing == []

    def test_names_what_is_not_set(self) -> None:
        assert fill_environment({"a": "${NO}", "b": ["${NEITHER}"]}, {})[1] == ["NO", "NEITHER"]

    def test_a_value_is_not_filled_twice(self) -> None:
        assert fill_environment("${A}", {"A": "${B}", "B": "x"}) == ("${B}", [])


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(ge=1)
    kind: str = "a"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner
    renamed: int = Field(default=0, alias="called")


class TestProblems:
    def problems(self, raw: object) -> list[str]:
        with pytest.raises(ValidationError) as caught:
            Outer.model_validate(raw)
        return problems_of(caught.value, known=keys_of(Outer, Inner))

    def test_keys_are_those_a_user_writes(self) -> None:
        assert keys_of(Outer, Inner) == {"inner", "called", "size", "kind"}

    def test_all_are_found_each_with_its_place(self) -> None:
        assert self.problems({"inner": {"size": 0, "sizze": 2}, "called": "many", "zzz": 1}) == [
            "inner.size: should be greater than or equal to 1",
            "inner.sizze: unknown key (did you mean size?); remove it or correct its spelling",
            "called: should be a valid integer, unable to parse string as an integer",
            "zzz: unknown key; remove it or correct its spelling",
        ]

    def test_absent_and_not_a_section(self) -> None:
        assert self.problems({}) == ["inner: is required and absent"]
        assert self.problems({"inner": "x"}) == ["inner: should be a mapping of keys to values"]

    @given(st.text(min_size=6, alphabet="0123456789abcdef"))
    def test_no_value_is_repeated(self, secret: str) -> None:
        text = " ".join(self.problems({"inner": {"size": f"s{secret}", "kind": [f"s{secret}"]}, "called": {}}))
        assert f"s{secret}" not in text

    def test_nearest(self) -> None:
        assert nearest("epsilonn", ["delta", "epsilon"]) == " (did you mean epsilon?)"
        assert nearest("zzzz", ["delta", "epsilon"]) == ""
        assert not re.search("None", nearest("x", []))
