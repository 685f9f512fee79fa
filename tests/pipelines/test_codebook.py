"""`synth schema draft --dictionary`: what a person wrote down becomes the draft, and nothing else does."""

from __future__ import annotations

import csv
import tempfile
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipelines.codebook import HEADINGS, levels_of, range_of
from pipelines.drafting import Draft, draft_schema
from synth.config import load_run
from synth.errors import InvalidConfig, UnconfirmedDomain
from synth.schema import load_schema, parse_schema

TABLE = pa.table(
    {
        "nr": ["p1"],
        "age": [4711],
        "temp": [4712.5],
        "sex": [1],
        "adm_type": ["01"],
        "admitted": [date(2047, 11, 1)],
        "died": [True],
        "smoker": [0],
        "grade": ["secret grade"],
        "ward": ["secret ward"],
        "note": ["secret note"],
    }
)
DICTIONARY = """\
Variable;Type;Label;Min;Max;Values;Unit;Decimals;Missing codes;Required
nr;identifier;Hospital number;;;;;;;
age;integer;Age: at admission;0;110;;years;;999;yes
temp;decimal(3,1);Body temperature;25,0;45,0;;°C;1;;
sex;coded;Sex at birth;;;1=female, 2=male, 9=unknown;;;9;
ADM_TYPE;code;"How they
came";;;01 = emergency, from home, 02=urgent;;;;
admitted;date;;2015-01-01;2025-12-31;;;;;
died;boolean;;;;;;;;
smoker;binary;Smokes;;;"0=no; 1=yes";;;;
grade;ordinal;;;;I|II|III;;;;yes
ward;code;;;;see B;;;;
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "patients.parquet")
    return tmp_path / "patients.parquet"


def drafted(table: Path, dictionary: str) -> tuple[Draft, dict[str, Any]]:
    path = table.with_name("dict.csv")
    path.write_text(dictionary, encoding="utf-8")
    draft = draft_schema(table, path)
    raw = YAML(typ="safe", pure=True).load(draft.text)
    return draft, {column["name"]: column for column in raw["columns"]}


def test_what_the_dictionary_declares_stands_in_the_draft(table: Path) -> None:
    draft, columns = drafted(table, DICTIONARY)
    common = {"nullable": True}
    assert columns["nr"] == common | {"name": "nr", "kind": "id", "description": "Hospital number"}
    assert columns["age"] == {
        "name": "age",
        "kind": "integer",
        "bounds": [0, 110],
        "missing_codes": [999],  # no age of 110
        "nullable": True,
        "unit": "years",
        "description": "Age: at admission",
    }
    assert (columns["temp"]["bounds"], columns["temp"]["decimals"]) == ([25, 45], 1)
    assert columns["sex"]["categories"] == [1, 2] and columns["sex"]["labels"] == {1: "female", 2: "male"}
    assert columns["adm_type"]["categories"] == ["01", "02"]
    assert columns["adm_type"]["labels"] == {"01": "emergency, from home", "02": "urgent"}
    assert columns["adm_type"]["description"] == "How they came"
    assert columns["admitted"]["bounds"] == ["2015-01-01", "2025-12-31"]
    assert columns["admitted"]["resolution"] == "day"
    assert columns["died"]["kind"] == columns["smoker"]["kind"] == "boolean"
    assert columns["grade"]["ordered"] and columns["grade"]["nullable"] is False
    open_columns = [name for name, column in columns.items() if column.get("domain") == "unconfirmed"]
    assert open_columns == ["ward", "note"]
    assert draft.notes[-1] == "2 columns still need a domain: ward, note"
    assert "line 12: ward: its values cannot be read; its domain is left to you" in draft.notes[0]
    assert len(draft.notes) == 2
    for value in ("secret", "4711", "4712", "2047"):  # nothing is from the data
        assert value not in draft.text


def test_one_line_less_confirms_what_the_dictionary_gave(table: Path, tmp_path: Path) -> None:
    draft, _ = drafted(table.with_name("patients.parquet"), DICTIONARY)
    path = tmp_path / "schema.yaml"
    kept = [line for line in draft.text.splitlines() if "ward" not in line and "note" not in line]
    path.write_text("\n".join(kept))
    with pytest.raises(UnconfirmedDomain, match="remove `domains: unconfirmed`"):
        load_schema(path).refuse_unconfirmed()
    path.write_text("\n".join(line for line in kept if line != "domains: unconfirmed"))
    load_schema(path).refuse_unconfirmed()
    path.write_text(draft.text.replace("\ndomains: unconfirmed\n", "\n"))
    with pytest.raises(UnconfirmedDomain, match="the domain of ward, note is a draft"):
        load_schema(path).refuse_unconfirmed()


def test_a_line_a_level(table: Path) -> None:
    _, columns = drafted(
        table,
        "name,code,label,description\nadm_type,,,How they came\n,01,from home\n,02,other\nage,,,Years\n",
    )
    assert columns["adm_type"]["categories"] == ["01", "02"]
    assert columns["adm_type"]["labels"] == {"01": "from home", "02": "other"}
    assert columns["adm_type"]["description"] == "How they came"
    assert columns["age"]["description"] == "Years" and columns["age"]["domain"] == "unconfirmed"


def test_a_dictionary_as_redcap_exports_it(table: Path) -> None:
    _, columns = drafted(
        table,
        '"Variable / Field Name","Form Name","Field Type","Field Label","Choices, Calculations, OR Slider Labels",'
        '"Text Validation Type OR Show Slider Number","Text Validation Min","Text Validation Max"\n'
        'sex,visit,radio,Sex,"1, Female | 2, Male",,,\nage,visit,text,Age,,integer,0,110\n',
    )
    assert columns["sex"]["labels"] == {1: "Female", 2: "Male"}
    assert (columns["age"]["kind"], columns["age"]["bounds"]) == ("integer", [0, 110])


def test_a_dictionary_in_parquet(table: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"column": ["age"], "min": [0.0], "max": [110.0]}), tmp_path / "dict.parquet")
    assert "bounds: [0, 110]" in draft_schema(table, tmp_path / "dict.parquet").text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("grade,integer,0,9,", "integer cannot be held by string, the type in the file"),
        ("age,integer,9,0,", "bounds are reversed"),
        ("age,integer,0,high,", "its bounds are no numbers such as 12.5"),
        ("age,integer,0,,", "its range cannot be read"),
        ("sex,code,,,01=female; 02=male", "its codes are text (also a number with a zero in front)"),
        ("sex,code,,,1=female; 2=male; 1=other", "its values cannot be read"),
        ("gone,integer,0,9,", "describes what the file lacks, left out: gone"),
    ],
)
def test_what_does_not_go_together_is_one_line(table: Path, line: str, told: str) -> None:
    draft, columns = drafted(table, f"name,type,min,max,values\nnote,,,,a|b\n{line}\n")
    assert len([note for note in draft.notes if told in note]) == 1 and len(draft.notes) == 2
    assert columns["note"]["categories"] == ["a", "b"]
    assert all(column["domain"] == "unconfirmed" for name, column in columns.items() if name != "note")


@pytest.mark.parametrize(
    ("dictionary", "told"),
    [
        ("", "is empty"),
        ("age,sex\n1,2\n", "no heading in its first line is one for names"),
        ("name,type\nfoo,integer\n", "describes no column of the file"),
        ("name,type\nage,integer,3\n", "line 2: has more cells than headings"),
        ("name,type\nage,integer\nage,float\n", "line 3: age is described twice"),
        ("name,code\nsex,1\nsex,1\n", "line 3: sex is described twice"),
        ("name,type\n,integer\nage,\n", "line 2: names no column"),
        ('name,type\nage,"integer\n', "is no table"),
    ],
)
def test_a_dictionary_that_is_none(table: Path, dictionary: str, told: str) -> None:
    with pytest.raises(InvalidConfig, match=told) as caught:
        drafted(table, dictionary)
    assert len(caught.value.problems) == 1


def test_from_the_command_line(table: Path, synth: Any) -> None:
    dictionary = table.with_name("dict.csv")
    dictionary.write_text("name,min,max\nage,0,110\n")
    outcome = synth("schema", "draft", table, "--dictionary", dictionary)
    assert outcome.code == 0 and "bounds: [0, 110]" in outcome.out
    assert outcome.err.startswith("10 columns still need a domain: nr, temp, ") and outcome.err.count("\n") == 1
    dictionary.write_bytes(b"name;label\nage;gr\xf6\xdfe\n")
    outcome = synth("schema", "draft", table, "--dictionary", dictionary)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert f"{dictionary}: is no table; save" in outcome.err
    assert synth("schema", "draft", table, "--dictionary", table.with_name("none.csv")).code == 2


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("1=female; 2=male", (("1", "female"), ("2", "male"))),
        ("female|male", (("female", ""), ("male", ""))),
        ("[a, b]", (("a", ""), ("b", ""))),
        ("'a' = \"A: b\"\nc = d", (("a", "A: b"), ("c", "d"))),
        ("0 - no; 1 - yes", (("0", "no"), ("1", "yes"))),
        ("1: no, 2: yes", (("1", "no"), ("2", "yes"))),
        ("01 = in, from home, 02 = out", (("01", "in, from home"), ("02", "out"))),
        ("1=no; yes", None),
        ("1, 2, …, 9", None),
        ("any text that a person may write, or none", None),
        ("", None),
        ("a", None),
    ],
)
def test_levels(text: str, levels: object) -> None:
    assert levels_of(text) == levels


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0-120", ("0", "120")),
        ("-5 to 5 °C", ("-5", "5")),
        ("[25.0, 45]", ("25.0", "45")),
        ("2015-01-01 – 2025-12-31", ("2015-01-01", "2025-12-31")),
        ("18+", None),
        ("0-120-3", None),
    ],
)
def test_ranges(text: str, span: object) -> None:
    assert range_of(text) == span


CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "integer",
            "date",
            "id",
            "ordinal",
            "boolean",
            "id",
            "target",
            "1=a; 2=b",
            "01|02",
            "0-9",
            "9",
            "-1",
            "1e308",
            "2020-01-01",
            "yes",
        ]
    ),
    st.lists(st.sampled_from(["1", "01", "a", "=", ";", "|", ",", "-", " ", '"', "\n", "{", "no", "é"])).map("".join),
)
FIELDS = st.lists(st.sampled_from([names[0] for field, names in HEADINGS.items() if field != "name"]), unique=True)


@given(headings=FIELDS, data=st.data(), separator=st.sampled_from(",;\t"))
def test_whatever_is_drafted_is_a_schema(headings: list[str], data: st.DataObject, separator: str) -> None:
    names = data.draw(st.lists(st.sampled_from([*TABLE.column_names, "gone"]), min_size=1, max_size=6))
    text = StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerow(["variable", *headings])
    for name in names:
        writer.writerow([name, *(data.draw(CELLS) for _ in headings)])
    with tempfile.TemporaryDirectory() as folder:
        table, dictionary = Path(folder, "t.parquet"), Path(folder, "d.csv")
        pq.write_table(TABLE, table)
        dictionary.write_bytes(text.getvalue().encode("utf-8", "replace"))
        try:
            draft = draft_schema(table, dictionary)
        except InvalidConfig as error:
            assert len(error.problems) == 1
            return
    raw = YAML(typ="safe", pure=True).load(draft.text.replace("[fill in]", "[one]"))
    schema = parse_schema(raw, file="draft")
    assert [column.name for column in schema.columns] == TABLE.column_names
    with pytest.raises(UnconfirmedDomain):
        schema.refuse_unconfirmed()
    assert all(note.isprintable() for note in draft.notes)


def test_roles_say_what_is_an_id_and_what_is_the_target(table: Path) -> None:
    text = "Variable Name,Role,Type,Description,Units,Missing Values\n"
    text += "nr,ID,Integer,Number,,no\nage,Feature,Integer,,years,yes\n"
    draft, columns = drafted(table, text + "died,Target,Binary,Outcome,,no\n")
    assert columns["nr"]["kind"] == "id" and columns["age"]["kind"] == "integer"
    assert (columns["nr"]["nullable"], columns["age"]["nullable"]) == (False, True)
    assert "\ntarget: died\n" in draft.text and "nr" not in draft.notes[-1]
    text += "died,Target,Binary,,,no\nsmoker,Target,Binary,,,no\n"
    assert "\n# target: NAME" in drafted(table, text)[0].text  # which of them is not for us to say


def test_what_is_to_be_read_comes_before_what_is_the_dictionarys(table: Path) -> None:
    draft, _ = drafted(table, DICTIONARY)
    lines = draft.text.splitlines()
    assert (
        "  - {name: sex, kind: categorical, categories: [1, 2], nullable: true, missing_codes: [9], "
        'description: "Sex at birth", labels: {1: female, 2: male}}' in lines
    )
    assert "  - {name: ward, kind: categorical, categories: [fill in], domain: unconfirmed, nullable: true}" in lines


# ---- init --source ----


def test_init_drafts_what_it_is_told_about(table: Path, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    Path("dict.csv").write_text(DICTIONARY, encoding="utf-8")
    start = ("init", "work", "--source", table.name, "--dictionary", "dict.csv")
    outcome = synth(*start, "--person", "note", "--target", "died")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 3
    assert outcome.err.splitlines()[-1] == "1 column still needs a domain: ward"
    schema = load_schema(Path("work/schema.yaml"))
    assert (schema.privacy_unit, schema.max_rows_per_person, schema.target) == ("note", 1, "died")
    assert load_run(Path("work/run.yaml")).config.source.path == table.resolve()
    kept = [line for line in Path("work/schema.yaml").read_text().splitlines() if "ward" not in line]
    Path("work/schema.yaml").write_text("\n".join(line for line in kept if line != "domains: unconfirmed"))
    assert synth("plan", "work/run.yaml", "--ledger", "sqlite:///ledger.db").code == 0  # nothing else is to be edited
    assert "work: holds schema.yaml" in synth(*start).err


def test_init_without_a_person_column_says_what_that_means(table: Path, synth: Any) -> None:
    outcome = synth("init", table.parent / "work", "--source", table)
    assert outcome.code == 0 and outcome.err.startswith("no person column is named")
    assert load_schema(table.parent / "work" / "schema.yaml").privacy_unit == "row"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--person", "nr"), "name it with --source"),
        (("--source", "patients.parquet", "--person", "nots"), "--person nots: no such column (did you mean note?)"),
        (("--source", "patients.parquet", "--target", "dead"), "--target dead: no such column"),
        (("--source", "none.csv"), "no such file"),
        (("--source", "run.yaml"), "--source is a file or a folder"),
    ],
)
def test_init_refuses_what_does_not_go_together(
    table: Path, synth: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(table.parent)
    outcome = synth("init", "work", *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert told in outcome.err and not Path("work").exists()


def test_a_letter_for_not_applicable_beside_numbers(tmp_path: Path) -> None:
    """As the excerpts of the American Community Survey have it: N where there is no number, and a level as well."""
    (tmp_path / "people.csv").write_text("children,density,married,industry,weight\nN,2.5,N,N,?\n2,N,1,4711,70\n")
    (tmp_path / "dict.csv").write_text(
        "variable,description,range,value,value label,missing values\n"
        "children,Own children,0 to 19,,,\nchildren,,,N,not in a household,\ndensity,,0 to 600,,,\ndensity,,,N,none,\n"
        "married,,,1,Yes,\nmarried,,,2,No,\nmarried,,,N,below 15,\nindustry,Industry code,,,,\nindustry,,,N,below 16,\n"
        "weight,,0 to 300,,,?\n"
    )
    draft = draft_schema(tmp_path / "people.csv", tmp_path / "dict.csv")
    columns = {column["name"]: column for column in YAML(typ="safe", pure=True).load(draft.text)["columns"]}
    assert (columns["children"]["kind"], columns["children"]["bounds"]) == ("integer", [0, 19])
    assert columns["density"]["kind"] == "continuous" and columns["weight"]["kind"] == "integer"
    assert columns["married"]["categories"] == ["1", "2", "N"]
    assert columns["children"]["missing_codes"] == ["N"] and columns["weight"]["missing_codes"] == ["?"]
    assert "missing_codes" not in columns["married"]  # there N is a level
    assert columns["industry"]["domain"] == "unconfirmed"  # one level is no list of all there is
    assert "industry: its values cannot be read; its domain is left to you" in draft.notes[0]
    assert "4711" not in draft.text
