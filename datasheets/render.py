"""Public documents as bytes: Markdown, and HTML that needs no script and nothing from outside."""

from __future__ import annotations

import re
from functools import cache
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from datasheets.datasheet import GAP, Datasheet
from datasheets.dictionary import data_dictionary
from datasheets.insight import percent
from datasheets.pictures import contrast_view, map_view, pairs_view
from datasheets.quality import MOMENTS_READING, reading_of, worst_first
from datasheets.reading import Reading, exact, number, plural
from datasheets.statements import (
    audit_in_words,
    event_in_words,
    held_out_in_words,
    neighbours_in_words,
    not_covered_in_words,
    population_in_words,
    promise_in_words,
    replace_one_in_words,
    unit_in_words,
)
from synth.facts import MarginalScore, PictureSheet, PublicFacts

SCORES_ON_PAGE = 40
SHEETS = {
    "draws": (
        "Pictures",
        "Drawn from the released model, and not chosen.",
        "Synthetic pictures of",
    ),
    "within": (
        "Between pictures of a class",
        "The corners are four draws. In between, the model's latent point moves from one to the other; each picture is"
        " by itself a draw like any other.",
        "Synthetic pictures between four corners of",
    ),
    "between": (
        "Between classes",
        "Each line starts with a draw from the first class, on the left, and moves straight to where optimal transport"
        " between the two classes brings it. What lies in the middle is of neither class.",
        "Synthetic pictures from class",
    ),
}
"""What sheets of pictures show: title, words, and how the text in place of a picture begins."""
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
_BLOCK_START = re.compile(r"^(\s*)(\d*)([#=+-]+|[.)])(?=\s|$)")


def datasheet_markdown(facts: PublicFacts, sheet: Datasheet) -> str:
    """The datasheet for reading as text."""
    return _render("datasheet.md", facts, sheet=sheet, gap_text=GAP)


def datasheet_html(facts: PublicFacts, sheet: Datasheet) -> str:
    """The datasheet as one self-contained, printable page."""
    return _render("datasheet.html", facts, sheet=sheet, gap_text=GAP)


def dictionary_markdown(facts: PublicFacts) -> str:
    """The data dictionary for analysts."""
    estimated = any(column.get("bounds_are") for column in facts.data.columns)
    return _render("dictionary.md", facts, columns=data_dictionary(facts), estimated=estimated)


def quality_html(facts: PublicFacts) -> str:
    """The public scores as one self-contained page, worst first."""
    quality = facts.quality
    groups = [
        (
            "Single columns",
            "one-way",
            quality.one_way,
            quality.mean_one_way_distance,
            quality.mean_one_way_noise,
        ),
        (
            "Measured pairs",
            "two-way",
            quality.two_way,
            quality.mean_two_way_distance,
            quality.mean_two_way_noise,
        ),
    ]
    if quality.three_way:
        distance = fmean(score.distance for score in quality.three_way)
        noise = fmean(score.noise for score in quality.three_way)
        groups.append(("Measured triples, on groups of values", "three-way", quality.three_way, distance, noise))
    if quality.moments:
        groups[1] = ("Second moments of each class", "moments", _moment_scores(facts), None, None)
    tables = [
        {
            "title": title,
            "id": identifier,
            "mean_distance": distance,
            "mean_noise": noise,
            "scores": [_bar(score, _scale(scores)) for score in worst_first(scores)[:SCORES_ON_PAGE]],
            "hidden": max(0, len(scores) - SCORES_ON_PAGE),
        }
        for title, identifier, scores, distance, noise in groups
    ]
    sheets = [
        {"id": shows, "title": title, "words": words, "alt": alt, "sheets": found}
        for shows, (title, words, alt) in SHEETS.items()
        if (found := [_named(sheet) for sheet in facts.data.sheets if sheet.shows == shows])
    ]
    reading = f"{reading_of(facts)} {MOMENTS_READING}" if quality.moments else reading_of(facts)
    return _render("quality.html", facts, tables=tables, reading=reading, sheets=sheets, **_insight(facts))


def _insight(facts: PublicFacts) -> dict[str, Any]:
    """What the page shows of an analyst's insights; nothing of images."""
    insight = facts.quality.insight
    if insight is None:
        return {"contrast": None, "map": None, "pairs": None}
    units = {str(column["name"]): str(column.get("unit") or "") for column in facts.data.columns}
    return {
        "contrast": None if insight.contrast is None else contrast_view(insight.contrast, units),
        "map": None if insight.map is None else map_view(insight.map, units),
        "pairs": pairs_view(insight, list(units)),
    }


def _named(sheet: PictureSheet) -> dict[str, Any]:
    """A sheet as it stands on the page, by the names of its classes."""
    return sheet.model_dump(include={"file", "width", "height"}) | {"name": " to ".join(sheet.classes)}


def _moment_scores(facts: PublicFacts) -> tuple[MarginalScore, ...]:
    """Scores of moments as they stand on the page, by class."""
    return tuple(
        MarginalScore(columns=(f"{facts.data.target} = {s.class_value}",), distance=s.distance, noise=s.noise)
        for s in facts.quality.moments
    )


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """A text as paragraphs (`p`, lines) and lists (`ul`, items): lines that start with `- ` are items."""
    found: list[tuple[str, list[str]]] = []
    for chunk in re.split(r"\n\s*\n", text.strip()):
        for line in chunk.splitlines():
            kind, content = ("ul", line.strip()[2:]) if line.strip().startswith("- ") else ("p", line.strip())
            if found and found[-1][0] == kind and (kind == "ul" or found[-1][1]):
                found[-1][1].append(content)
            else:
                found.append((kind, [content]))
        found.append(("p", []))
    return [(kind, lines) for kind, lines in found if lines]


def markdown(text: str) -> str:
    """A plain text as Markdown that shows exactly that text: nothing in it becomes markup."""
    parts = []
    for kind, lines in blocks(text):
        mark = "- " if kind == "ul" else ""
        parts.append("\n".join(mark + _escape(line) for line in lines))
    return "\n\n".join(parts)


def cell(text: str) -> str:
    """A plain text for a cell of a Markdown table: one line, no bar."""
    return _escape(" ".join(text.split()))


def _escape(line: str) -> str:
    escaped = _MARKDOWN.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BLOCK_START.sub(r"\1\2\\\3", escaped)


def _bar(score: MarginalScore, scale: float) -> dict[str, Any]:
    return {
        "columns": " × ".join(score.columns),
        "distance": score.distance,
        "noise": score.noise,
        "width": round(100 * score.distance / scale, 2),
        "mark": round(100 * score.noise / scale, 2),
        "above": score.distance > score.noise,
    }


def _scale(scores: tuple[MarginalScore, ...]) -> float:
    """The value that fills the whole bar."""
    return max([1e-9, *(max(score.distance, score.noise) for score in scores)])


def _render(name: str, facts: PublicFacts, **values: Any) -> str:
    read = Reading(facts)
    statement = {
        "promise": promise_in_words(read),
        "unit": unit_in_words(read),
        "neighbours": neighbours_in_words(read),
        "replace_one": replace_one_in_words(read),
        "population": population_in_words(read),
        "audit": audit_in_words(read),
        "held_out": None if facts.quality.held_out is None else held_out_in_words(read),
        "not_covered": not_covered_in_words(read),
        "events": [event_in_words(event) for event in facts.privacy.events],
    }
    return _environment().get_template(name).render(facts=facts, statement=statement, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("datasheets"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        blocks=blocks, markdown=markdown, cell=cell, number=number, exact=exact, plural=plural, percent=percent
    )
    return environment
