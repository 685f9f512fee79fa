"""What a steward looks at first: the head of the report that every run leaves, in at most 150 words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAMED = 3
"""Columns named in a line; the tables below name all."""


@dataclass(frozen=True)
class Line:
    """One thing to look at. `alarm`: whether it may well be a reason against the bundle."""

    about: str
    text: str
    alarm: bool = False


def headline(scores: Mapping[str, Any]) -> tuple[Line, ...]:
    """The lines for the scores of a run, in the order of what they may stop."""
    return (
        _copies(scores["copies"]),
        _outside(scores),
        *_bounds(scores),
        *_rules(scores),
        _furthest(scores),
    )


def _copies(alarm: Mapping[str, Any]) -> Line:
    if alarm["alarm"]:
        found = f"{alarm['copied']:,} distinct rows, {alarm['by_chance']:,} by chance"
        return Line("Copies", f"the alarm rings ({found}). Hand out nothing before you know why.", alarm=True)
    return Line("Copies", "quiet, which is no pass mark.")


def _outside(scores: Mapping[str, Any]) -> Line:
    estimated = {entry["column"] for entry in scores.get("bounds", ())}
    outside = [entry for entry in scores["columns"] if entry["outside"] and entry["column"] not in estimated]
    found = sorted(outside, key=lambda entry: -entry["outside"])
    if not found:
        return Line("Outside the declared domain", "no cell.")
    rows = scores["real_rows"]
    named = [f"{entry['column']} ({entry['outside']:,} of {rows:,} cells)" for entry in found[:NAMED]]
    more = f" and {len(found) - NAMED} columns more" if len(found) > NAMED else ""
    text = (
        f"{', '.join(named)}{more}. They were replaced before anything was learned. If many: look for codes of missing "
        "values (missing_codes), other spellings, narrow bounds, other forms of dates and decimals; then run again."
    )
    return Line("Outside the declared domain", text, alarm=True)


def _bounds(scores: Mapping[str, Any]) -> tuple[Line, ...]:
    found = scores.get("bounds", ())
    assumed = [entry["column"] for entry in found if entry["are"] == "assumed"]
    if assumed:
        names = ", ".join(assumed[:NAMED]) + (", …" if len(assumed) > NAMED else "")
        text = f"nothing in {names} stood out of the noise, so a fixed range was taken. Declare bounds."
        return (Line("Bounds that were estimated", text, alarm=True),)
    outside = {entry["column"]: entry["outside"] for entry in scores["columns"]}
    named = [
        f"{name} {entry['low']} to {entry['high']}" + (f" (cuts off {outside[name]:,} cells)" if outside[name] else "")
        for name, entry in ((entry["column"], entry) for entry in found[:NAMED])
    ]
    more = ", …" if len(found) > NAMED else ""
    return (Line("Bounds that were estimated", f"{', '.join(named)}{more}."),) if found else ()


def _rules(scores: Mapping[str, Any]) -> tuple[Line, ...]:
    broken = [entry for entry in scores.get("rules", ()) if entry["source_breaks"]]
    if not broken:
        return ()
    worst = max(broken, key=lambda entry: float(entry["source_breaks"]) / max(1, entry["source_rows"]))
    share = f"{worst['source_breaks']:,} of {worst['source_rows']:,} rows"
    return (Line("Rules that the source breaks", f"{len(broken)}, the worst in {share}. Read them again."),)


def _furthest(scores: Mapping[str, Any]) -> Line:
    named = [f"{entry['column']} {entry['distance']:.2f}" for entry in scores["columns"][:NAMED]]
    text = f"{', '.join(named)} (0 is equal, 1 disjoint). Their charts come first: is what is lost there needed?"
    return Line("Furthest from the source", text)
