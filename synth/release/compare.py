"""Compare: what changed from one bundle to another, from their public files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.errors import VerificationFailed
from synth.files import sha256_file
from synth.release.manifest import ATTESTATION, MANIFEST, listed_files
from synth.release.verify import Verified, examine
from synth.yaml_file import read_yaml

WEIGHTS = "model/generator.safetensors"
SCORES = (
    "valid_rows",
    "mean_one_way_distance",
    "mean_one_way_noise",
    "mean_two_way_distance",
    "mean_two_way_noise",
    "measured_pairs",
)
FOR_SECTION = "one text for the whole section"
"""Stands behind such an answer: the same words given to the question itself are a change."""

Pair = dict[str, Any]
"""A value of both bundles: {"a": …, "b": …}, None where one has none."""


def compare(a: Path, b: Path, *, revocations: Sequence[Path] = ()) -> dict[str, Any]:
    """The differences of two intact bundles as plain values, with what stayed the same left out but for the headline.

    Raises VerificationFailed when one of them is not intact: differences to a damaged bundle mean nothing.
    """
    found = [_examined(path, revocations) for path in (a, b)]
    try:
        return {
            "a": _headline(a, found[0]),
            "b": _headline(b, found[1]),
            "privacy": _both(_privacy(a), _privacy(b)),
            "rows": {"a": _rows(a), "b": _rows(b)},
            "schema": _schemas(_schema(a), _schema(b)),
            "model": _models(a, b),
            "scores": _scores(_json(a, "quality.json"), _json(b, "quality.json")),
            "answers": _answers(_json(a, "datasheet.json"), _json(b, "datasheet.json")),
            "files": _files(a, b),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VerificationFailed(f"{a}, {b}: hold a document that is not of this software") from None


def _examined(bundle: Path, revocations: Sequence[Path]) -> Verified:
    try:
        return examine(bundle, revocations=revocations)
    except VerificationFailed as error:
        raise VerificationFailed(str(error) if str(bundle) in str(error) else f"{bundle}: {error}") from None


def _headline(bundle: Path, found: Verified) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "run": found.run_id,
        "created": _statement(bundle)["created"],
        "state": found.state,
        "by": found.by,
        "key_id": found.key_id,
    }


def _privacy(bundle: Path) -> dict[str, Any]:
    stated = _statement(bundle)
    return {
        **{key: stated[key] for key in ("epsilon", "delta", "privacy_unit", "max_rows_per_person")},
        **{f"population_{key}": value for key, value in stated["population"].items()},
        "not_covered": stated["not_covered"],
    }


def _rows(bundle: Path) -> int:
    rows: int = _statement(bundle)["output_rows"]["rows"]
    return rows


def _schemas(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    columns = [{column["name"]: column for column in schema.pop("columns", [])} for schema in (a, b)]
    before, after = columns
    changed = {name: _changes(before[name], after[name]) for name in before if name in after}
    return {
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "changed": {name: found for name, found in changed.items() if found},
        "declarations": _changes(a, b),
    }


def _models(a: Path, b: Path) -> dict[str, Any]:
    before, after = ({**_json(path, "model/config.json"), "schema": None} for path in (a, b))
    return {"changed": _changes(before, after), "same_weights": sha256_file(a / WEIGHTS) == sha256_file(b / WEIGHTS)}


def _scores(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    distances = [
        {
            ", ".join(score["columns"]): {"distance": score["distance"], "noise": score["noise"]}
            for kind in ("one_way", "two_way")
            for score in scores[kind]
        }
        for scores in (a, b)
    ]
    return {
        "overall": _both({key: a.get(key) for key in SCORES}, {key: b.get(key) for key in SCORES}),
        "columns": _both(*distances),
    }


def _answers(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The steward's answers that changed. The run's own repeat its numbers, which stand elsewhere in the comparison."""
    before, after = ({"title": sheet["title"], **dict(_written(sheet))} for sheet in (a, b))
    return {"changed": _changes(before, after), "gaps": {"a": a["gaps"], "b": b["gaps"]}}


def _written(sheet: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [
        (question["id"], f"{part['text']} [{FOR_SECTION}]" if part.get("for_section") else part["text"])
        for section in sheet["sections"]
        for question in section["questions"]
        for part in question["answers"]
        if part["origin"] == "steward"
    ]


def _files(a: Path, b: Path) -> dict[str, list[str]]:
    before, after = (
        {**listed_files(path), **{name: sha256_file(path / name) for name in (MANIFEST, ATTESTATION)}}
        for path in (a, b)
    )
    common = sorted(set(before) & set(after))
    return {
        "added": sorted(set(after) - set(before)),
        "removed": sorted(set(before) - set(after)),
        "changed": [name for name in common if before[name] != after[name]],
        "same": [name for name in common if before[name] == after[name]],
    }


def _both(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: {"a": a.get(key), "b": b.get(key)} for key in dict.fromkeys([*a, *b])}


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: pair for key, pair in _both(a, b).items() if pair["a"] != pair["b"]}


def _statement(bundle: Path) -> dict[str, Any]:
    statement: dict[str, Any] = _json(bundle, "privacy.json")["x_synth"]
    return statement


def _schema(bundle: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(json.dumps(read_yaml(bundle / "schema.yaml"), default=str))  # dates as text
    return schema


def _json(bundle: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((bundle / name).read_bytes())
    return value
