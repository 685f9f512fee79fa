"""The steward's half of the datasheet: answers.yaml, and the commented file to start it from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from datasheets.questions import Question, questions, sections, steward_questions
from synth.errors import InvalidConfig
from synth.yaml_file import nearest, read_yaml

METADATA_KEYS: dict[str, str] = {
    "title": "A title for readers; the run's name is used without one.",
    "description": "One paragraph on what the source is about.",
    "curator": "Who publishes the synthetic data: a person or an organisation.",
    "contact": "Where questions go: an e-mail address or a web page. Answers maintenance.contact too.",
    "licence": "The licence of the synthetic data: an SPDX address such as https://spdx.org/licenses/CC-BY-4.0.html. "
    "Answers distribution.licence too.",
    "citation": "How to cite it.",
    "region": "What region the data describe, or whose law applies.",
    "keywords": "A list of words to find it by.",
}
ALSO_ANSWERS = {"licence": "distribution.licence", "contact": "maintenance.contact"}


class Answers(BaseModel):
    """What the steward wrote. `texts` maps a question's id to a text that is never empty.

    `others` does the same by section: a text for every question of it that has no answer of its own and needs none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    title: str | None = None
    description: str | None = None
    curator: str | None = None
    contact: str | None = None
    licence: str | None = None
    citation: str | None = None
    region: str | None = None
    keywords: tuple[str, ...] = ()

    def text(self, question: str) -> str | None:
        """The steward's text for a question, from its own key or a key such as `licence`; None is a gap."""
        if question in self.texts:
            return self.texts[question]
        for key, answered in ALSO_ANSWERS.items():
            if answered == question and (value := getattr(self, key)):
                return f"{key.capitalize()}: {value}"
        return None

    def text_of_section(self, question: Question) -> str | None:
        """The text for the question's whole section; None where there is none, or the question is not one it covers."""
        return self.others.get(question.section) if question.in_others else None


def load_answers(path: Path | None) -> Answers:
    """Read answers.yaml. An absent or empty file is no answers at all: every steward question is a gap.

    Raises InvalidConfig with all problems together: broken YAML, unknown ids or keys, wrong types.
    """
    if path is None or not path.exists() or _is_blank(path):
        return Answers()
    return parse_answers(read_yaml(path), file=str(path))


def parse_answers(raw: Mapping[Any, Any], *, file: str) -> Answers:
    """Validate the mapping an answers.yaml holds. `file` names it in errors."""
    problems: list[str] = []
    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    by_key = {section.others: section.id for section in sections()}
    for key, value in raw.items():
        if key == "keywords":
            metadata["keywords"] = _keywords(value, problems)
        elif key in METADATA_KEYS:
            metadata[key] = _text(key, value, problems)
        elif key in steward_questions():
            if text := _text(key, value, problems):
                texts[key] = text
        elif key in by_key:
            if text := _text(key, value, problems):
                others[by_key[key]] = text
        else:
            problems.append(_unknown(key))
    if problems:
        raise InvalidConfig(file, problems)
    return Answers(texts=texts, others=others, **metadata)


INTRODUCTION = """\
# Your half of the datasheet (Gebru et al. 2021). All of it is published: nothing about any one person.
# An approval wants a text in each line of parts 1 and 2, and in no other. "No.", "Not known." and "Not applicable."
# are answers. Long texts: `>-` instead of quotes, and the text on the next lines, indented.
"""
PROPOSED = "Proposed, for you to confirm by removing the #, or to change. No answers before that:"


def template() -> str:
    """A commented answers.yaml holding every key and question that a steward may answer, all empty.

    First what an approval wants, a line each; the rest is for those who say more.
    """
    needed = [question for question in steward_questions().values() if question.own_answer]
    lines = [INTRODUCTION, "# ---- 1. Each by itself ----", ""]
    lines += [_asked(_shortest_key(question), question.brief) for question in needed if not question.proposed]
    lines += ["", f"# {PROPOSED}"]
    lines += [
        f'# {question.id}: "{question.proposed}"   # {question.brief}' for question in needed if question.proposed
    ]
    lines += ["", "# ---- 2. One text a section, which the datasheet marks as one ----", ""]
    lines += [_asked(section.others, section.brief) for section in sections()]
    lines += ["", "# You may stop here.", "", "# ---- 3. What heads the datasheet ----", ""]
    lines += [_asked(key, meaning) for key, meaning in METADATA_KEYS.items() if key not in ALSO_ANSWERS]
    lines += ["", "# ---- 4. The questions in full. A text here stands in the place of its section's ----"]
    for section in sections():
        lines += ["", f"# {section.title}"]
        for question in section.questions:
            if question.answered_by != "automatic":
                in_part_1 = question.own_answer and _shortest_key(question) == question.id
                lines += ["", *_comment(question), *([] if in_part_1 else [f'{question.id}: ""'])]
    return "\n".join(lines) + "\n"


def _asked(key: str, meaning: str) -> str:
    """A line to fill in, and what it asks for."""
    empty = f"{key}: []" if key == "keywords" else f'{key}: ""'
    return f"{empty:<25}  # {meaning}"


def _shortest_key(question: Question) -> str:
    """The key that answers it: one such as `licence`, which other documents want too, else its id."""
    return next((key for key, answered in ALSO_ANSWERS.items() if answered == question.id), question.id)


def _comment(question: Question) -> list[str]:
    about = {"source": "the source", "synthetic": "the synthetic data", "both": "both"}[question.steward_subject]
    note = f"(answer for {about}" + ("; the run adds its own part" if question.answered_by == "mixed" else "")
    note += f"; `{_shortest_key(question)}` in part 1 answers it" if question.own_answer else ""
    note += ")"
    return textwrap.wrap(f"{question.text} {note}", width=100, initial_indent="# ", subsequent_indent="# ")


def _is_blank(path: Path) -> bool:
    if not path.is_file():
        return False
    lines = path.read_bytes().splitlines()
    return all(not line.strip() or line.strip().startswith(b"#") for line in lines)


def _text(key: str, value: Any, problems: list[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        problems.append(f"{key}: must be text, not {_type_name(value)}; put it in quotes")
        return None
    if not _encodable(value):
        problems.append(f"{key}: holds a character that cannot be written as UTF-8")
        return None
    return value.strip() or None


def _keywords(value: Any, problems: list[str]) -> tuple[str, ...]:
    words = [] if value is None else value
    if not isinstance(words, list) or not all(isinstance(word, str) and _encodable(word) for word in words):
        problems.append("keywords: must be a list of words, such as [health, synthetic]")
        return ()
    return tuple(dict.fromkeys(stripped for word in words if (stripped := word.strip())))


def _unknown(key: Any) -> str:
    if not isinstance(key, str):
        return f"a key is {_type_name(key)}, not the id of a question; see `synth init` for the ids"
    if key in {question.id for question in questions()}:
        return f"{key}: is answered by the run itself; say more under the section's `comments`"
    known = [*METADATA_KEYS, *steward_questions(), *(section.others for section in sections())]
    return f"{key}: unknown question or key{nearest(key, known)}"


def _encodable(text: str) -> bool:
    # A lone surrogate is valid in a YAML escape, and has no place in UTF-8 or canonical JSON.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _type_name(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")
