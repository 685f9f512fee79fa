"""The rendered documents: complete, safe, canonical, the same every time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser

import pytest

from datasheets import DOCUMENTS, Answers, FileDigest, document
from datasheets.questions import questions
from datasheets.render import blocks, cell, markdown
from synth.errors import SynthError
from synth.facts import MarginalScore, PublicFacts
from synth.files import canonical_json

HOSTILE = "<script>alert('x')</script> & | **bold** [link](javascript:x)\n\n# heading\n\n- <img src=x>"


@pytest.fixture
def written(facts: PublicFacts, files: Mapping[str, FileDigest]) -> dict[str, bytes]:
    return document(facts, Answers(), files)


class Tags(HTMLParser):
    """Collects tags, and checks that they are balanced."""

    VOID = frozenset({"meta", "br", "rect"})

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_all_documents_are_written(written: Mapping[str, bytes]) -> None:
    assert tuple(sorted(written)) == DOCUMENTS


def test_same_input_same_bytes(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    backwards = dict(reversed(files.items()))
    assert document(facts, Answers(), files) == document(facts, Answers(), backwards)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(".json")])
def test_json_is_canonical(written: Mapping[str, bytes], name: str) -> None:
    assert canonical_json(json.loads(written[name])) == written[name]


@pytest.mark.parametrize("name", ["datasheet.html", "quality.html"])
def test_html_is_self_contained_and_balanced(written: Mapping[str, bytes], name: str) -> None:
    page = Tags(written[name])
    assert not page.open
    assert not {"script", "link", "img", "iframe", "object"} & set(page.names)
    assert not [value for key, value in page.attributes if key == "src" or "//" in str(value)]
    assert b"url(" not in written[name]
    assert b"@import" not in written[name]


def test_html_contents_point_to_what_exists(written: Mapping[str, bytes]) -> None:
    page = Tags(written["datasheet.html"])
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    targets = {str(value)[1:] for key, value in page.attributes if key == "href" and str(value)[0] == "#"}
    assert targets <= set(ids)


@pytest.mark.parametrize("name", ["datasheet.html", "datasheet.md", "datasheet.json"])
def test_every_question_and_the_headline_stand_in_every_format(written: Mapping[str, bytes], name: str) -> None:
    text = written[name].decode()
    for question in questions():
        assert question.id in text
    for word in ("1e-5", "1.835", "20250131T101500-4f2a", "support2"):
        assert word in text.replace("0.00001", "1e-5")


def test_every_answer_names_its_subject(written: Mapping[str, bytes]) -> None:
    text = written["datasheet.md"].decode()
    sheet = json.loads(written["datasheet.json"])
    answers = [a for s in sheet["sections"] for q in s["questions"] for a in q["answers"]]
    assert len(re.findall(r"^\*\*About the .+?:\*\*", text, re.MULTILINE)) == len(answers)
    assert {answer["subject"] for answer in answers} == {"source", "synthetic", "both"}
    assert sheet["gaps"] == [
        q["id"] for s in sheet["sections"] for q in s["questions"] if any(a["gap"] for a in q["answers"])
    ]


def test_a_text_for_a_section_is_marked_wherever_it_stands(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    given = Answers(others={"collection": "Routine care.", "uses": HOSTILE})
    written = document(facts, given, files)
    sheet = json.loads(written["datasheet.json"])
    shared = [q["id"] for s in sheet["sections"] for q in s["questions"] if any(a["for_section"] for a in q["answers"])]
    assert sheet["answered_for_section"] == shared and len(shared) == 10 + 3
    mark = "from the steward: one text for this whole section, not for this question alone"
    for name in ("datasheet.md", "datasheet.html"):
        text = written[name].decode()
        assert text.count(mark) == len(shared) and "<script" not in text
        assert (
            "Answered for the section" in text
            and "Answered for the section" not in document(facts, Answers(), files)[name].decode()
        )
    terms = json.loads(written["croissant.json"])
    said = [terms["rai:dataCollectionRawData"], terms["rai:dataSocialImpact"], *terms["rai:dataBiases"]]
    assert sum("ne text for this whole section" in text for text in said) == 3


def test_hostile_text_becomes_text(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    columns = ({"name": "a<script>|b", "kind": "boolean", "description": HOSTILE, "unit": "</td>"},)
    hostile = facts.model_copy(update={"data": facts.data.model_copy(update={"columns": columns})})
    answers = Answers(title=HOSTILE, texts={"motivation.purpose": HOSTILE, "uses.tasks": HOSTILE})
    written = document(hostile, answers, files)
    for name in ("datasheet.html", "datasheet.md", "dictionary.md", "quality.html"):
        text = written[name].decode()
        assert "<script" not in text
        assert "<img" not in text
        assert "</td>" not in text or name == "quality.html"
    assert "\n# heading" not in written["datasheet.md"].decode()
    row = next(line for line in written["dictionary.md"].decode().splitlines() if line.startswith("| a"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 8


def test_blocks_divide_paragraphs_and_lists() -> None:
    assert blocks("one\ntwo\n\n- a\n- b\n\nthree") == [
        ("p", ["one", "two"]),
        ("ul", ["a", "b"]),
        ("p", ["three"]),
    ]
    assert blocks("lead:\n- a") == [("p", ["lead:"]), ("ul", ["a"])]
    assert blocks("  ") == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# a", "\\# a"),
        ("1. a", "1\\. a"),
        ("a_b|c", "a\\_b\\|c"),
        ("---", "\\---"),
        ("- a", "- a"),
        ("> a", "&gt; a"),
        ("2.5", "2.5"),
        ("-5", "-5"),
        ("1)", "1\\)"),
    ],
)
def test_markdown_shows_the_text_itself(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_cells_are_one_line() -> None:
    assert cell("a\n b | c") == "a b \\| c"


def test_dictionary_describes_each_column(written: Mapping[str, bytes]) -> None:
    text = written["dictionary.md"].decode()
    assert "| age | continuous | float64 | 18 to 110, 1 decimal | years | no |  |" in text
    assert "| admitted | datetime | timestamp\\[us\\] | 1989-01-01 to 1995-01-01, by day |" in text
    assert "| stage | categorical | int64 | 3 levels: 1, 2, 3 |  | no | Stage at admission |" in text
    assert "| died | boolean (target) | bool |" in text
    assert "| female | Female \\| F |" in text


@pytest.mark.parametrize(
    ("hierarchy", "words"),
    [
        ({"prefix": (1, 2)}, "3 levels: 1, 2, 3, in groups by their first 1 and 2 characters |"),
        ({"groups": {"early": (1, 2), "late|": (3,)}}, "3 levels: 1, 2, 3, in groups: early, late\\| |"),
    ],
)
def test_dictionary_names_a_hierarchy(
    facts: PublicFacts, files: Mapping[str, FileDigest], hierarchy: dict[str, object], words: str
) -> None:
    columns = tuple(c | {"hierarchy": hierarchy} if c["name"] == "stage" else c for c in facts.data.columns)
    changed = facts.model_copy(update={"data": facts.data.model_copy(update={"columns": columns})})
    assert words in document(changed, Answers(), files)["dictionary.md"].decode()


def test_quality_is_worst_first_with_the_noise_beside(written: Mapping[str, bytes]) -> None:
    scores = json.loads(written["quality.json"])
    assert [score["columns"] for score in scores["two_way"]] == [["age", "died"], ["age", "sex"]]
    assert scores["two_way"][0] == {"columns": ["age", "died"], "distance": 0.09, "noise": 0.03}
    page = written["quality.html"].decode()
    assert page.index("age × died") < page.index("age × sex")
    assert '<td class="number">0.0900</td><td class="number">0.0300</td>' in page


def test_quality_page_stays_short_and_says_so(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    many = tuple(MarginalScore(columns=("a", f"b{i}"), distance=i / 100, noise=0.0) for i in range(50))
    long = facts.model_copy(update={"quality": facts.quality.model_copy(update={"two_way": many})})
    written = document(long, Answers(), files)
    assert "10 more, all closer to their noise level, are in quality.json." in written["quality.html"].decode()
    assert len(json.loads(written["quality.json"])["two_way"]) == 50


def test_a_run_without_pairs_has_a_quality_page(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    none = {"two_way": (), "mean_two_way_distance": None, "mean_two_way_noise": None}
    bare = facts.model_copy(update={"quality": facts.quality.model_copy(update=none)})
    assert "None measured." in document(bare, Answers(), files)["quality.html"].decode()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_infinite_promise_is_refused(facts: PublicFacts, files: dict[str, FileDigest], value: float) -> None:
    privacy = facts.privacy.model_copy(update={"replace_one_epsilon": value})
    with pytest.raises(SynthError, match=r"privacy\.replace_one_epsilon"):
        document(facts.model_copy(update={"privacy": privacy}), Answers(), files)


def test_what_the_steward_says_first_heads_the_datasheet(facts: PublicFacts, files: Mapping[str, FileDigest]) -> None:
    answers = Answers(description=HOSTILE, contact="data@example.org", licence="https://spdx.org/licenses/MIT.html")
    written = document(facts, answers, files)
    for name in ("datasheet.html", "datasheet.md"):
        head = written[name].decode().split("Motivation")[0]
        assert all(word in head for word in ("About the source", "data@example.org", "licenses/MIT"))
        assert "Published by" not in head  # what is not said has no line
        assert "<script" not in head
    assert json.loads(written["datasheet.json"])["about"]["Contact"] == "data@example.org"


def test_the_audit_is_told_in_a_whole_sentence(written: Mapping[str, bytes]) -> None:
    right = "Right were 556 of the 1,000 surest, 303 of the 500 surest, 159 of the 250 surest guesses."
    assert right in written["datasheet.html"].decode()
    assert right in written["quality.html"].decode()


def test_levels_without_labels_stand_in_a_line(facts: PublicFacts, files: Mapping[str, FileDigest]) -> None:
    levels = [f"{number:02}" for number in range(20)]
    column = {"name": "code", "kind": "categorical", "categories": levels}

    def dictionary(**more: object) -> str:
        data = facts.data.model_copy(update={"columns": ({**column, **more},), "target": None})
        return document(facts.model_copy(update={"data": data}), Answers(), files)["dictionary.md"].decode()

    assert f"## Values of code\n\n{', '.join(levels)}\n" in dictionary()
    assert "| 07 | nightly |\n| 08 |  |\n" in dictionary(labels={"07": "nightly"})
