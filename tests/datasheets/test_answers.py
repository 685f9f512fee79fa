"""answers.yaml: what is accepted, what is refused, and what counts as a gap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datasheets import Answers, load_answers, template
from datasheets.questions import questions, sections, steward_questions
from synth.errors import InvalidConfig


def load(tmp_path: Path, text: str) -> Answers:
    path = tmp_path / "answers.yaml"
    path.write_text(text, encoding="utf-8")
    return load_answers(path)


def refused(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, text)
    return caught.value.problems


def test_texts_and_metadata_are_read(tmp_path: Path) -> None:
    answers = load(
        tmp_path,
        "title: Seriously ill adults\nkeywords: [health, health, hospital]\n"
        "collection.consent: no\nmotivation.purpose: >-\n  To find\n  out.\n",
    )
    assert answers.title == "Seriously ill adults"
    assert answers.keywords == ("health", "hospital")
    assert answers.text("collection.consent") == "no"  # YAML 1.2: a word, not false
    assert answers.text("motivation.purpose") == "To find out."


@pytest.mark.parametrize("text", ["", "# only a comment\n\n", "motivation.purpose: ''", "motivation.purpose:\n"])
def test_empty_is_a_gap(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).text("motivation.purpose") is None


def test_absent_file_is_no_answers(tmp_path: Path) -> None:
    assert load_answers(tmp_path / "nothing.yaml") == load_answers(None) == Answers()


def test_licence_and_contact_answer_their_questions(tmp_path: Path) -> None:
    answers = load(tmp_path, "licence: CC-BY-4.0\ncontact: data@example.org\n")
    assert answers.text("distribution.licence") == "Licence: CC-BY-4.0"
    assert answers.text("maintenance.contact") == "Contact: data@example.org"


def test_a_text_for_the_rest_of_a_section(tmp_path: Path) -> None:
    answers = load(tmp_path, "collection.others: Routine care.\nuses.others: ''\nuses.existing: None.\n")
    assert answers.others == {"collection": "Routine care."}
    assert answers.text("collection.ethics") is None
    asked = steward_questions()
    assert answers.text_of_section(asked["collection.ethics"]) == "Routine care."
    for name in ("collection.consent", "collection.comments", "uses.existing"):
        assert answers.text_of_section(asked[name]) is None
    assert refused(tmp_path, "collection.other: a\nuses.others: 3\npeople.others: b\n") == (
        "collection.other: unknown question or key (did you mean collection.others?)",
        "uses.others: must be text, not a number; put it in quotes",
        "people.others: unknown question or key (did you mean uses.others?)",
    )


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    problems = refused(
        tmp_path,
        "motivation.purpse: a\nlicense: b\nuses.tasks: 3\ncomposition.count: 12\nkeywords: health\n5: c\n",
    )
    assert problems == (
        "motivation.purpse: unknown question or key (did you mean motivation.purpose?)",
        "license: unknown question or key (did you mean licence?)",
        "uses.tasks: must be text, not a number; put it in quotes",
        "composition.count: is answered by the run itself; say more under the section's `comments`",
        "keywords: must be a list of words, such as [health, synthetic]",
        "a key is a number, not the id of a question; see `synth init` for the ids",
    )


@pytest.mark.parametrize("text", ["a: [", "- a list", "licence: a\nlicence: b\n", 'title: "\\ud800"\n'])
def test_broken_files_are_refused(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig):
        load_answers(tmp_path)


def test_template_asks_every_question_of_the_steward_and_holds_no_answer(tmp_path: Path) -> None:
    text = template()
    for question in questions():
        asked = f"\n{question.id}:" in text or f"\n# {question.id}:" in text
        assert asked == (question.id in steward_questions())
    assert all(f"\n{section.others}:" in text for section in sections())
    assert load(tmp_path, text) == Answers()


def test_template_begins_with_all_that_an_approval_wants(tmp_path: Path) -> None:
    first, rest = template().split("# You may stop here.")
    filled = re.sub(r': ""', ": Answered.", re.sub(r"^# (?=[a-z.]+: )", "", first, flags=re.MULTILINE))
    answers = load(tmp_path, filled)
    for question in steward_questions().values():
        assert question.calls_for_comments or answers.text(question.id) or answers.text_of_section(question)
        assert question.text in " ".join(rest.replace("# ", "").split())  # in full, for whoever wants it
        assert bool(question.brief) == question.own_answer
    # Every line to fill in says what for; a proposal is no answer before somebody made it one.
    assert all("  # " in line for line in first.splitlines() if line.endswith('""') or '"" ' in line)
    proposed = [question for question in steward_questions().values() if question.proposed]
    assert [question.id for question in proposed] == ["uses.tasks", "uses.forbidden"]
    assert all(load(tmp_path, template()).text(question.id) is None for question in proposed)
    assert all(answers.text(question.id) == question.proposed for question in proposed)


def test_what_an_approval_wants_is_read_in_two_minutes() -> None:
    first, _ = template().split("# You may stop here.")
    assert len(first.split()) < 400
