"""The 57 questions of "Datasheets for Datasets" (Gebru et al. 2021), as data."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

Subject = Literal["source", "synthetic", "both"]
AnsweredBy = Literal["automatic", "mixed", "steward"]

SUBJECT_LABELS: dict[Subject, str] = {
    "source": "About the source",
    "synthetic": "About the synthetic data",
    "both": "About the source and the synthetic data",
}


class Question(BaseModel):
    """One question: who answers it, and which of the two datasets it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    section: str
    text: str
    answered_by: AnsweredBy
    subject: Subject
    own_answer: bool = False
    """Whether a text for the whole section leaves it open."""
    brief: str = ""
    """The question in few words, where a steward has to answer it by itself."""
    proposed: str = ""
    """A text for the steward to confirm or to change. It is no answer before that."""

    @property
    def calls_for_comments(self) -> bool:
        """Whether it is a section's "Any other comments?", to which silence is a complete answer."""
        return self.id == f"{self.section}.comments"

    @property
    def in_others(self) -> bool:
        """Whether a text for the whole section may answer it."""
        return self.answered_by != "automatic" and not self.own_answer and not self.calls_for_comments

    @property
    def steward_subject(self) -> Subject:
        """What the steward's part is about: where the run answers for the synthetic data, the source."""
        if self.answered_by == "mixed" and self.subject == "both":
            return "source"
        return self.subject


class Section(BaseModel):
    """One of the seven sections, with its questions in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    brief: str
    """All that a text for the whole section answers, in few words."""
    questions: tuple[Question, ...]

    @property
    def others(self) -> str:
        """The key of answers.yaml that answers, at once, what has no answer of its own."""
        return f"{self.id}.others"


@cache
def sections() -> tuple[Section, ...]:
    """The seven sections in the paper's order."""
    text = resources.files("datasheets").joinpath("questions.yaml").read_text(encoding="utf-8")
    return tuple(
        Section(
            id=entry["section"],
            title=entry["title"],
            brief=entry["brief"],
            questions=tuple(Question(section=entry["section"], **question) for question in entry["questions"]),
        )
        # `pure` selects YAML 1.2; the compiled loader speaks 1.1, where `no` is false.
        for entry in YAML(typ="safe", pure=True).load(text)
    )


@cache
def questions() -> tuple[Question, ...]:
    """All questions in order."""
    return tuple(question for section in sections() for question in section.questions)


@cache
def steward_questions() -> dict[str, Question]:
    """The questions that answers.yaml may answer, by id: the steward's own and the mixed ones."""
    return {question.id: question for question in questions() if question.answered_by != "automatic"}
