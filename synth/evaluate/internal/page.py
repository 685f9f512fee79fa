"""The internal report as one self-contained page: inline SVG, no script, nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from synth.evaluate.internal.charts import HeatMap, Scale, heat_map, overlay_chart, polyline, scale_of, steps
from synth.evaluate.internal.headline import headline
from synth.evaluate.internal.overlays import Overlay

if TYPE_CHECKING:
    from synth.evaluate.internal.fidelity import Association
    from synth.evaluate.internal.images import ImageReport
    from synth.evaluate.internal.report import Report

SHOWN_PAIRS = 15
SHOWN_TELLTALES = 10
SHOWN_OVERLAYS = 60
MOST_COLUMNS_DRAWN = 40
ALARM_SHARE = 0.05
"""So many more near synthetic pictures than near real ones, as a share, ring the alarm."""


def full_page(report: Report, alarms: Sequence[str]) -> str:
    """The page of the full report."""
    f, d, u = report.fidelity, report.disclosure, report.utility
    distance = {score.columns[0]: score for score in f.columns}
    both = [line.score for line in u.models] + [line.score for line in u.subgroups] if u else []
    scores = [estimate for score in both for estimate in (score.real, score.synthetic)]
    low = 0.5 if u and u.metric != "R²" else 0.0
    return _render(
        "evaluation.html",
        report=report,
        alarms=alarms,
        unit=Scale(0.0, 1.0),
        overlays=[
            overlay_chart(o, distance[o.column].distance, distance[o.column].chance)
            for o in f.overlays[:SHOWN_OVERLAYS]
        ],
        maps=[
            _distance_map([(s.columns, s.distance) for s in f.pairs], f.association.columns),
            *_association_maps(f.association),
        ],
        shown_pairs=f.pairs[:SHOWN_PAIRS],
        pair_scale=scale_of([s.distance for s in f.pairs[:1]], low=0.0, high=0.01),
        missing_scale=scale_of([x for m in f.missing for x in (m.real, m.synthetic)], low=0.0, high=0.01),
        utility_scale=scale_of([s for s in scores if s is not None], low=low, high=low + 0.1),
        telltales=report.detection.telltales[:SHOWN_TELLTALES],
        detection_scale=scale_of([*report.detection.models.values()], low=0.5, high=1.0),
        telltale_scale=scale_of([t.drop for t in report.detection.telltales[:SHOWN_TELLTALES]], low=0.0, high=0.01),
        risk_scale=scale_of([risk.risk for risk in d.risks], low=-0.02, high=0.05),
        inference_scale=scale_of([risk.risk for risk in d.inference], low=-0.02, high=0.05),
        closest=_closest(report),
    )


def quick_page(scores: Mapping[str, Any]) -> str:
    """The page of the report that every run leaves, from its dictionary."""
    overlays = [Overlay(**entry) for entry in scores["overlays"]]
    distance = {entry["column"]: entry["distance"] for entry in scores["columns"]}
    pairs = [(tuple(entry["columns"]), entry["distance"]) for entry in scores["pairs"]]
    drawn = {entry["column"] for entry in scores["columns"][:MOST_COLUMNS_DRAWN]}
    names = [name for name in sorted(distance, key=list(distance).index) if name in drawn]
    return _render(
        "report.html",
        scores=scores,
        headline=headline(scores),
        overlays=[overlay_chart(o, distance.get(o.column), None) for o in overlays[:SHOWN_OVERLAYS]],
        maps=[_distance_map(pairs, names)] if pairs else [],
        pair_scale=scale_of([distance for _, distance in pairs[:1]], low=0.0, high=0.01),
        shown_pairs=scores["pairs"][:SHOWN_PAIRS],
    )


def image_page(
    report: ImageReport,
    dataset: str,
    sheets: Sequence[Sequence[str | None]],
    durations: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page on pictures; a sheet of real and one of synthetic pictures for each class, as data URIs."""
    found = [x for c in report.classes for x in (c.found_synthetic, c.found_real) if x is not None]
    return _render(
        "images.html",
        report=report,
        dataset=dataset,
        classes=list(zip(report.classes, sheets, strict=True)),
        found_scale=scale_of(found, low=0.0, high=1.0),
        alarm=report.near_copies > report.near_by_chance + ALARM_SHARE,
        durations=durations,
    )


def _distance_map(pairs: Sequence[tuple[tuple[str, ...], float]], names: Sequence[str]) -> HeatMap:
    at = {name: i for i, name in enumerate(names)}
    values = {}
    for (a, b), distance in pairs:
        if a in at and b in at:
            values[at[a], at[b]] = values[at[b], at[a]] = distance
    return heat_map(
        "Distance of every pair", "Total variation distance of each two-way table; darker is worse.", names, values
    )


def _association_maps(association: Association) -> list[HeatMap]:
    columns = range(len(association.columns))
    both = {
        (i, j): (association.real if i > j else association.synthetic)[i][j] for i in columns for j in columns if i != j
    }
    apart = {
        (i, j): abs(association.real[i][j] - association.synthetic[i][j]) for i in columns for j in columns if i != j
    }
    return [
        heat_map(
            "Association",
            "Cramér's V of every pair: real rows below the diagonal, synthetic above. Good rows make it symmetric.",
            association.columns,
            both,
        ),
        heat_map("Association, difference", "How far Cramér's V is off; darker is worse.", association.columns, apart),
    ]


def _closest(report: Report) -> dict[str, Any] | None:
    found = report.disclosure.closest
    if found is None:
        return None
    sets = (found.synthetic_to_training, found.synthetic_to_held_out, found.held_out_to_training)
    tallest = max(max(bars) for bars in sets)
    return {
        "bars": len(sets[0]),
        "near": 100 * min(1.0, found.near / found.furthest),
        "paths": [steps([share / tallest for share in bars]) for bars in sets],
    }


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("synth.evaluate.internal"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(decimals=_decimals, percent=_percent, whole=_whole, polyline=polyline)
    return environment


def _decimals(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def _whole(value: int) -> str:
    return f"{value:,}"
