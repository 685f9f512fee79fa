"""The datasheet as one frozen value: seven sections, every answer with its subject, origin and trace."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from datasheets.answers import Answers
from datasheets.automatic import ANSWERS
from datasheets.questions import SUBJECT_LABELS, Question, Subject, sections
from datasheets.reading import Reading
from synth.facts import PublicFacts

GAP = "Not answered by the steward."
NO_COMMENT = "None."
FOR_SECTION = "one text for this whole section, not for this question alone"
ABOUT = {
    "description": "About the source",
    "region": "Region",
    "curator": "Published by",
    "contact": "Contact",
    "licence": "Licence",
    "citation": "Cite as",
}
"""Keys of answers.yaml that head the datasheet."""


class Part(BaseModel):
    """An answer, or a part of one, about one subject. `text` is None where the steward owes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Subject
    origin: Literal["automatic", "steward"]
    text: str | None
    trace: tuple[str, ...] = ()
    for_section: bool = False
    """Whether the steward gave the text for the whole section and not for this question."""

    @property
    def is_gap(self) -> bool:
        """Whether the steward has not answered."""
        return self.text is None

    @property
    def label(self) -> str:
        """`About the source`, and so on."""
        return SUBJECT_LABELS[self.subject]

    @property
    def source(self) -> str:
        """Where the answer comes from, in words."""
        if self.origin == "automatic":
            return "from the run"
        return f"from the steward: {FOR_SECTION}" if self.for_section else "from the steward"


class Entry(BaseModel):
    """A question with the parts of its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    parts: tuple[Part, ...]

    @property
    def is_gap(self) -> bool:
        """Whether any part is missing."""
        return any(part.is_gap for part in self.parts)


class AnsweredSection(BaseModel):
    """One of the seven sections, answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    entries: tuple[Entry, ...]

    @property
    def gaps(self) -> tuple[str, ...]:
        """Ids of the questions with a missing part."""
        return tuple(entry.question.id for entry in self.entries if entry.is_gap)


class Datasheet(BaseModel):
    """All seven sections in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    about: tuple[tuple[str, str], ...]
    """What the steward says first: pairs of a heading and a text."""
    sections: tuple[AnsweredSection, ...]

    @property
    def gaps(self) -> tuple[str, ...]:
        """Ids of all questions with a missing part, in order."""
        return tuple(gap for section in self.sections for gap in section.gaps)

    @property
    def answered_for_section(self) -> tuple[str, ...]:
        """Ids of the questions whose answer was given for their whole section, in order."""
        return tuple(
            entry.question.id
            for section in self.sections
            for entry in section.entries
            if any(part.for_section for part in entry.parts)
        )

    def text(self, question: str, subject: Subject) -> str | None:
        """The text about one subject under one question, None if it is a gap or there is no such part.

        One for a whole section says so: where it is shown, nothing else would.
        """
        for section in self.sections:
            for entry in section.entries:
                for part in entry.parts:
                    if entry.question.id == question and part.subject == subject and part.text:
                        return f"({FOR_SECTION.capitalize()}.) {part.text}" if part.for_section else part.text
        return None


def build_datasheet(facts: PublicFacts, answers: Answers) -> Datasheet:
    """Combine what the run knows with what the steward wrote."""
    automatic = _automatic_parts(facts)
    return Datasheet(
        title=answers.title or facts.run.name,
        about=tuple((name, text) for key, name in ABOUT.items() if (text := getattr(answers, key))),
        sections=tuple(
            AnsweredSection(
                id=section.id,
                title=section.title,
                entries=tuple(
                    Entry(
                        question=question,
                        parts=(*automatic.get(question.id, ()), *_steward_parts(question, answers)),
                    )
                    for question in section.questions
                ),
            )
            for section in sections()
        ),
    )


def datasheet_json(facts: PublicFacts, sheet: Datasheet) -> dict[str, Any]:
    """The datasheet as JSON: headline, sections, and the list of gaps."""
    privacy = facts.privacy
    return {
        "title": sheet.title,
        "run": {"id": facts.run.run_id, "created": facts.run.created, "dataset": facts.run.dataset},
        "synthetic": True,
        "about": dict(sheet.about),
        "rows": facts.data.rows,
        "privacy": {
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "privacy_unit": privacy.privacy_unit,
            "neighboring_relation": privacy.neighboring_relation,
            "population_epsilon": privacy.population_epsilon,
            "population_delta": privacy.population_delta,
        },
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "questions": [_entry_json(entry) for entry in section.entries],
            }
            for section in sheet.sections
        ],
        "gaps": list(sheet.gaps),
        "answered_for_section": list(sheet.answered_for_section),
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.question.id,
        "question": entry.question.text,
        "answers": [
            {
                "subject": part.subject,
                "origin": part.origin,
                "gap": part.is_gap,
                "for_section": part.for_section,
                "text": part.text,
                "trace": list(part.trace),
            }
            for part in entry.parts
        ],
    }


def _automatic_parts(facts: PublicFacts) -> dict[str, list[Part]]:
    parts: dict[str, list[Part]] = {}
    for answer in ANSWERS:
        reading = Reading(facts)
        text = answer.write(reading)
        part = Part(subject=answer.about, origin="automatic", text=text, trace=reading.trace)
        parts.setdefault(answer.question, []).append(part)
    return parts


def _steward_parts(question: Question, answers: Answers) -> tuple[Part, ...]:
    if question.answered_by == "automatic":
        return ()
    own = answers.text(question.id) or (NO_COMMENT if question.calls_for_comments else None)
    shared = answers.text_of_section(question) if own is None else None
    return (
        Part(
            subject=question.steward_subject,
            origin="steward",
            text=own or shared,
            for_section=shared is not None,
        ),
    )
