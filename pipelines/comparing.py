"""`synth compare`: what changed from one bundle to another, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.options import AsJson
from pipelines.releasing import RevocationList, lists_to_read, shown
from synth.release import compare as compare_bundles

WORST = 10
"""How many columns and pairs are shown, those whose distance moved most; the JSON has all."""


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle folder.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, usually the newer.", show_default=False)],
    revocations: RevocationList = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two bundles: schema, privacy, rows, model, public scores, answers and files.

    Both are verified first. Only public files are read, so the comparison costs nothing and may be published.
    """
    lists = list(dict.fromkeys([*lists_to_read(a, revocations), *lists_to_read(b, revocations)]))
    found = compare_bundles(a, b, revocations=lists)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for line in _lines(found):
        typer.echo(shown(line))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    for name in ("a", "b"):
        one = found[name]
        by = f" by {one['by']}" if one["by"] else ""
        yield f"{name.upper()}  {one['bundle']}: run {one['run']} of {one['created']}, {one['state']}{by}"
    yield from _section("privacy", _pairs(_without_same_lists(found["privacy"])))
    yield from _section("rows", [_pair("rows", found["rows"])])
    yield from _section("schema", _schema(found["schema"]))
    yield from _section("model", _model(found["model"]))
    yield from _section("public scores", _scores(found["scores"]))
    yield from _section("the steward's answers", _answers(found["answers"]))
    yield from _section("files", _files(found["files"]))


def _section(title: str, lines: list[str]) -> Iterator[str]:
    yield title if lines else f"{title}: no change"
    yield from (f"  {line}" for line in lines)


def _schema(schema: Mapping[str, Any]) -> list[str]:
    lines = [f"column {name}: new in B" for name in schema["added"]]
    lines += [f"column {name}: not in B" for name in schema["removed"]]
    for name, changes in schema["changed"].items():
        lines += [_pair(f"column {name}, {key}", pair) for key, pair in changes.items()]
    return lines + _pairs(schema["declarations"])


def _model(model: Mapping[str, Any]) -> list[str]:
    weights = [] if model["same_weights"] else ["weights: another fit"]
    return _pairs(model["changed"]) + weights


def _scores(scores: Mapping[str, Any]) -> list[str]:
    def moved(pair: Mapping[str, Any]) -> float:
        return abs(pair["a"]["distance"] - pair["b"]["distance"]) if pair["a"] and pair["b"] else 0.0

    def told(side: Mapping[str, Any] | None) -> str:
        return f"{side['distance']:.4f} (noise {side['noise']:.4f})" if side else "not measured"

    worst = sorted(scores["columns"].items(), key=lambda item: -moved(item[1]))[:WORST]
    return [
        *_pairs(scores["overall"]),
        *(f"distance of {name}: {told(pair['a'])} → {told(pair['b'])}" for name, pair in worst if moved(pair)),
    ]


def _answers(answers: Mapping[str, Any]) -> list[str]:
    lines = _pairs(answers["changed"])
    gaps = {name: len(ids) for name, ids in answers["gaps"].items()}
    return [*lines, _pair("questions without an answer", gaps)] if lines else []


def _files(files: Mapping[str, list[str]]) -> list[str]:
    lines = [f"{kind}: {', '.join(files[kind])}" for kind in ("added", "removed", "changed") if files[kind]]
    return [*lines, f"same: {len(files['same'])}"] if lines else []


def _without_same_lists(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Long texts are shown where they differ only."""
    return {name: pair for name, pair in pairs.items() if not isinstance(pair["a"], list) or pair["a"] != pair["b"]}


def _pairs(pairs: Mapping[str, Any]) -> list[str]:
    return [line for name, pair in pairs.items() for line in _items(name, pair) or [_pair(name, pair)]]


def _items(name: str, pair: Mapping[str, Any]) -> list[str]:
    """Of lists of sentences or names only those that one side lacks, each on a line; nothing for other values."""
    a, b = pair["a"], pair["b"]
    if not all(isinstance(side, list) and all(isinstance(item, str) for item in side) for side in (a, b)):
        return []
    only_a, only_b = ([item for item in one if item not in other] for one, other in ((a, b), (b, a)))
    return [f"{name}, in A alone: {item}" for item in only_a] + [f"{name}, in B alone: {item}" for item in only_b]


def _pair(name: str, pair: Mapping[str, Any]) -> str:
    a, b = (_text(pair[side]) for side in ("a", "b"))
    return f"{name}: {a}" if a == b else f"{name}: {a} → {b}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
