"""A table's scores as a plain SVG: a line a method, a panel a score, a dot a run, darker for larger ε."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from contestants import CONTESTANTS

Row = Mapping[str, str]
PANELS = {
    "tvd2": "two-way distance (0 is perfect)",
    "tvd3": "three-way distance (0 is perfect)",
    "auc_gbm": "AUC of boosting on real rows",
    "c2st": "two-sample test (.5 is perfect)",
}
LOWEST = {"tvd2": 0.0, "tvd3": 0.0, "auc_gbm": 0.5, "c2st": 0.5}
SHADES = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")
UNSHADED = "#555555"
LABELS, PANEL, GAP, LINE, TOP = 190, 190, 24, 22, 46
STYLE = "font-family:sans-serif;font-size:12px"


def plot(rows: Sequence[Row], table: str) -> str:
    """The SVG of one table; runs that did not end well leave their line empty."""
    here = [row for row in rows if row["table"] == table]
    methods = [each for each in CONTESTANTS.values() if any(row["method"] == each.name for row in here)]
    epsilons = sorted({row["epsilon"] for row in here if row["epsilon"]}, key=float)
    shade = {epsilon: SHADES[-1 - i] for i, epsilon in enumerate(reversed(epsilons[-len(SHADES) :]))}
    width = LABELS + len(PANELS) * (PANEL + GAP)
    height = TOP + LINE * len(methods) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="{STYLE}" role="img">',
        f"<title>{escape(table)}: scores of every method</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, method in enumerate(methods):
        y = TOP + LINE * i + LINE / 2
        weight = "bold" if method.kind == "ours" else "normal"
        parts.append(f'<text x="4" y="{y + 4:g}" font-weight="{weight}">{escape(method.title)}</text>')
    for p, (score, title) in enumerate(PANELS.items()):
        parts += _panel(here, score, title, LABELS + p * (PANEL + GAP), [each.name for each in methods], shade)
    for i, epsilon in enumerate(epsilons):
        x = LABELS + i * 90
        parts.append(f'<circle cx="{x}" cy="{height - 12}" r="5" fill="{shade.get(epsilon, UNSHADED)}"/>')
        parts.append(f'<text x="{x + 10}" y="{height - 8}">ε = {escape(epsilon)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    rows: Sequence[Row], score: str, title: str, left: int, methods: Sequence[str], shade: Mapping[str, str]
) -> list[str]:
    values = [float(row[score]) for row in rows if row["status"] == "ok" and row.get(score)]
    low = min([LOWEST[score], *values])
    high = max([LOWEST[score] + 0.05, *values])

    def across(value: float) -> float:
        return left + PANEL * (value - low) / (high - low)

    bottom = TOP + LINE * len(methods)
    parts = [f'<text x="{left}" y="16" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        x = across(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 12}" text-anchor="middle" fill="#555555">{value:.2f}</text>')
    for row in rows:
        if row["status"] == "ok" and row.get(score) and row["method"] in methods:
            y = TOP + LINE * methods.index(row["method"]) + LINE / 2
            colour = shade.get(row["epsilon"], UNSHADED)
            parts.append(f'<circle cx="{across(float(row[score])):.1f}" cy="{y:g}" r="5" fill="{colour}"/>')
    return parts
