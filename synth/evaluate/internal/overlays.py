"""A column's histograms of real and synthetic rows, on bars that follow from the public domain alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.schema import DatetimeColumn
from synth.tables.codec import Codec, LevelCodec, OrderedCodec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_BARS = 24
MOST_LEVELS = 10


@dataclass(frozen=True)
class Overlay:
    """Shares of one column's values, bar by bar.

    Attributes:
        column: its name.
        ordered: whether the bars lie along a line.
        labels: what each bar stands for: a level, or where the bar begins; the last level bar may gather the rest.
        upper: where the last bar on a line ends; empty for levels.
        real: share of each bar among real rows; synthetic: among synthetic ones. Both in [0, 1].
        missing: whether the last bar counts missing values.
    """

    column: str
    ordered: bool
    labels: tuple[str, ...]
    upper: str
    real: tuple[float, ...]
    synthetic: tuple[float, ...]
    missing: bool


def cells_of_column(codec: Codec, values: FloatArray) -> IntArray:
    """Cells of the public grid of one column of a sample's matrix."""
    lost = np.isnan(values)
    if isinstance(codec, OrderedCodec):
        cells = codec.lattice.cell_of(np.where(lost, codec.lattice.low, values))
    else:
        cells = np.where(lost, 0, values).astype(np.int64)
    return np.where(lost, codec.size if codec.missing is None else codec.missing, cells)


def overlay(codec: Codec, real: npt.ArrayLike, synthetic: npt.ArrayLike) -> Overlay:
    """Bars of a column from its counts on the public grid (the cell of missing values, if any, last)."""
    a, b = _shares(real), _shares(synthetic)
    domain = codec.lattice.cells if isinstance(codec, OrderedCodec) else len(codec.levels)
    if isinstance(codec, OrderedCodec):
        bar_of_cell, labels = _bars_on_a_line(codec, a[:domain])
    else:
        bar_of_cell, labels = _bars_of_levels(codec, a[:domain] + b[:domain])
    missing = len(a) > domain
    sums = [
        np.append(np.bincount(bar_of_cell, share[:domain], len(labels)), share[domain:] if missing else [])
        for share in (a, b)
    ]
    return Overlay(
        column=codec.column.name,
        ordered=codec.ordered,
        labels=(*labels, "missing") if missing else tuple(labels),
        upper=position_text(codec, codec.lattice.high) if isinstance(codec, OrderedCodec) else "",
        real=tuple(float(x) for x in sums[0]),
        synthetic=tuple(float(x) for x in sums[1]),
        missing=missing,
    )


def position_text(codec: OrderedCodec, position: float) -> str:
    """A position as the schema would write it."""
    value = codec.decode_positions(np.array([position]), np.array([False]))[0].as_py()
    if isinstance(codec.column, DatetimeColumn):
        return f"{value:%Y-%m-%d}" if codec.column.resolution == "day" else f"{value:%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _bars_on_a_line(codec: OrderedCodec, real: FloatArray) -> tuple[IntArray, list[str]]:
    """Bars of equal width, or bars that grow as the grid's cells do: the layout that spreads the real rows more."""
    cells, edges = codec.lattice.cells, codec.lattice.edges
    if cells <= MOST_BARS:
        return np.arange(cells), [position_text(codec, edge) for edge in edges[:-1]]
    middle = (edges[:-1] + edges[1:]) / 2
    equal = np.minimum((middle - edges[0]) / (edges[-1] - edges[0]) * MOST_BARS, MOST_BARS - 1).astype(np.int64)
    growing = np.arange(cells) * MOST_BARS // cells
    best = max((equal, growing), key=lambda bars: _entropy(np.bincount(bars, real, MOST_BARS).astype(np.float64)))
    used, bar_of_cell = np.unique(best, return_inverse=True)
    return bar_of_cell, [position_text(codec, edges[np.argmax(best == bar)]) for bar in used]


def _bars_of_levels(codec: LevelCodec, weight: FloatArray) -> tuple[IntArray, list[str]]:
    """A bar a level in the schema's order; of many levels, the heaviest, and the rest together."""
    names = [str(level) for level in codec.levels]
    if len(names) <= MOST_LEVELS:
        return np.arange(len(names)), names
    heavy = np.sort(np.argsort(-weight, kind="stable")[: MOST_LEVELS - 1])
    bar_of_cell = np.full(len(names), MOST_LEVELS - 1)
    bar_of_cell[heavy] = np.arange(MOST_LEVELS - 1)
    return bar_of_cell, [*(names[i] for i in heavy), f"{len(names) - len(heavy)} others"]


def _shares(counts: npt.ArrayLike) -> FloatArray:
    found = np.asarray(counts, dtype=np.float64)
    return np.asarray(found / max(found.sum(), 1.0), dtype=np.float64)


def _entropy(share: FloatArray) -> float:
    held = share[share > 0]
    return float(-(held * np.log(held)).sum())
