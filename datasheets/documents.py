"""Every public document of a bundle, in one pure step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from datasheets.answers import Answers
from datasheets.croissant import FileDigest, croissant
from datasheets.datasheet import build_datasheet, datasheet_json
from datasheets.quality import quality_json
from datasheets.registry import deployment
from datasheets.render import datasheet_html, datasheet_markdown, dictionary_markdown, quality_html
from datasheets.table_schema import table_schema
from synth.errors import SynthError
from synth.facts import PublicFacts
from synth.files import canonical_json

DOCUMENTS = (
    "croissant.json",
    "datasheet.html",
    "datasheet.json",
    "datasheet.md",
    "dictionary.md",
    "privacy.json",
    "quality.html",
    "quality.json",
    "tableschema.json",
)


def document(facts: PublicFacts, answers: Answers, files: Mapping[str, FileDigest]) -> dict[str, bytes]:
    """Every public document by its bundle-relative name.

    Args:
        facts: the public facts of the run.
        answers: the steward's half; absent answers become listed gaps.
        files: digests of the bundle's other files (data, schema, model) by bundle-relative name.

    Raises:
        SynthError: a fact is infinite or not a number, so no truthful statement can be written.
        ValueError: a data file has no digest.
    """
    _refuse_non_finite(facts)
    sheet = build_datasheet(facts, answers)
    return {
        "croissant.json": canonical_json(croissant(facts, answers, sheet, files)),
        "datasheet.html": datasheet_html(facts, sheet).encode(),
        "datasheet.json": canonical_json(datasheet_json(facts, sheet)),
        "datasheet.md": datasheet_markdown(facts, sheet).encode(),
        "dictionary.md": dictionary_markdown(facts).encode(),
        "privacy.json": canonical_json(deployment(facts, answers)),
        "quality.html": quality_html(facts).encode(),
        "quality.json": canonical_json(quality_json(facts)),
        "tableschema.json": canonical_json(table_schema(facts)),
    }


def _refuse_non_finite(facts: PublicFacts) -> None:
    bad = [path for path, value in _numbers(facts.model_dump()) if not math.isfinite(value)]
    if bad:
        raise SynthError(f"public facts must be finite numbers, and these are not: {', '.join(bad)}")


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _numbers(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _numbers(child, path)
