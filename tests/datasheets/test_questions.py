"""The paper's 57 questions, in its order."""

from __future__ import annotations

from datasheets.automatic import ANSWERS
from datasheets.questions import questions, sections, steward_questions


def test_sections_hold_the_papers_57_questions() -> None:
    counts = {section.id: len(section.questions) for section in sections()}
    assert counts == {
        "motivation": 4,
        "composition": 16,
        "collection": 12,
        "preprocessing": 4,
        "uses": 6,
        "distribution": 7,
        "maintenance": 8,
    }
    assert sum(counts.values()) == len(questions()) == 57


def test_ids_are_unique_and_name_their_section() -> None:
    ids = [question.id for question in questions()]
    assert len(set(ids)) == 57
    assert all(question.id.startswith(f"{question.section}.") for question in questions())


def test_every_section_ends_with_any_other_comments() -> None:
    for section in sections():
        assert section.questions[-1].text == "Any other comments?"


def test_the_few_questions_that_no_text_for_a_section_answers() -> None:
    assert {question.id for question in questions() if question.own_answer} == {
        "composition.errors",
        "collection.consent",
        "uses.tasks",
        "uses.forbidden",
        "distribution.licence",
        "maintenance.contact",
    }
    comments = [question.id for question in questions() if question.calls_for_comments]
    assert comments == [f"{section.id}.comments" for section in sections()]
    assert sum(question.in_others for question in questions()) == 45 - 6


def test_automatic_answers_exist_exactly_where_the_run_answers() -> None:
    answered = {answer.question for answer in ANSWERS}
    expected = {question.id for question in questions() if question.answered_by != "steward"}
    assert answered == expected


def test_automatic_answers_are_about_a_subject_of_their_question() -> None:
    subjects = {question.id: question.subject for question in questions()}
    for answer in ANSWERS:
        assert subjects[answer.question] in {answer.about, "both"}


def test_steward_is_asked_about_the_source_where_the_run_covers_the_synthetic_data() -> None:
    assert steward_questions()["motivation.purpose"].steward_subject == "source"
    assert steward_questions()["uses.tasks"].steward_subject == "synthetic"
    assert steward_questions()["motivation.funding"].steward_subject == "both"
