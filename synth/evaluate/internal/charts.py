"""Geometry of the report's charts: numbers in, coordinates out. The templates draw them as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synth.evaluate.internal.intervals import Estimate
from synth.evaluate.internal.overlays import Overlay

SPIKE = 4


@dataclass(frozen=True)
class Bar:
    """One bar of an overlay: heights in [0, 1] of the tallest that is drawn whole; `cut` is one that goes on beyond."""

    label: str
    real: float
    synthetic: float
    real_share: float
    synthetic_share: float
    missing: bool
    cut: bool


@dataclass(frozen=True)
class OverlayChart:
    """A column's bars. On a line, `path` is the synthetic outline in a box of len(bars) by 1, y downwards."""

    column: str
    ordered: bool
    bars: tuple[Bar, ...]
    path: str
    ends: tuple[str, ...]
    distance: float | None
    chance: float | None


def overlay_chart(overlay: Overlay, distance: float | None, chance: float | None) -> OverlayChart:
    """The chart of an overlay."""
    labels, real, synthetic = overlay.labels, overlay.real, overlay.synthetic
    heights = sorted((max(pair) for pair in zip(real, synthetic, strict=True)), reverse=True)
    # One spike must not flatten the rest: it is cut and labelled.
    spike = len(heights) > 4 and heights[0] > SPIKE * heights[1] > 0
    tallest = 1.25 * heights[1] if spike else max(heights[0], 1e-9)
    bars = tuple(
        Bar(
            label=label,
            real=min(1.0, r / tallest),
            synthetic=min(1.0, s / tallest),
            real_share=r,
            synthetic_share=s,
            missing=overlay.missing and i == len(labels) - 1,
            cut=max(r, s) > tallest,
        )
        for i, (label, r, s) in enumerate(zip(labels, real, synthetic, strict=True))
    )
    line = [bar for bar in bars if not bar.missing]
    return OverlayChart(
        column=overlay.column,
        ordered=overlay.ordered,
        bars=bars,
        path=steps([bar.synthetic for bar in line]),
        ends=(line[0].label, line[len(line) // 2].label, overlay.upper) if len(line) > 2 else (overlay.upper,),
        distance=distance,
        chance=chance,
    )


def steps(heights: Sequence[float]) -> str:
    """An SVG path along the tops of bars of width 1; a height of 1 is at y = 0."""
    path = [f"M0 {1 - heights[0]:.4f}"] if heights else []
    for i, height in enumerate(heights):
        path.append(f"V{1 - height:.4f}H{i + 1}")
    return "".join(path)


def polyline(values: Sequence[float]) -> str:
    """Points of a curve over an even grid on [0, 1], for a box of 100 by 100, y downwards."""
    last = max(len(values) - 1, 1)
    return " ".join(f"{100 * i / last:.2f},{100 - 100 * value:.2f}" for i, value in enumerate(values))


@dataclass(frozen=True)
class Cell:
    """A square of a heat map: where, how deep its colour in [0, 1], and what it says."""

    row: int
    column: int
    depth: float
    text: str


@dataclass(frozen=True)
class HeatMap:
    """Squares over named rows and columns; `deepest` is the value of the deepest colour."""

    title: str
    caption: str
    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    deepest: float


def heat_map(title: str, caption: str, names: Sequence[str], values: Mapping[tuple[int, int], float]) -> HeatMap:
    """A heat map of values at (row, column), coloured up to the largest."""
    deepest = max([1e-9, *values.values()])
    cells = tuple(
        Cell(row, column, round(value / deepest, 3), f"{names[row]} × {names[column]}: {value:.3f}")
        for (row, column), value in values.items()
    )
    return HeatMap(title, caption, tuple(names), cells, deepest)


@dataclass(frozen=True)
class Scale:
    """Where numbers lie on a meter of width 100."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Position of a value, held within the meter."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)


def scale_of(estimates: Sequence[Estimate | float], *, low: float, high: float) -> Scale:
    """A scale that holds [low, high] and every estimate with its interval."""
    ends = [end for e in estimates for end in ((e.low, e.high) if isinstance(e, Estimate) else (e,))]
    lowest, highest = min([low, *ends]), max([high, *ends])
    return Scale(lowest, highest + 0.02 * (highest - lowest))
