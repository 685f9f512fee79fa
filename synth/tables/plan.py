"""What a run would cost and hold, from the schema and config alone: noise, expected error, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from synth.errors import UserError
from synth.privacy.budget import TablePlan
from synth.tables.bins import MAX_BINS
from synth.tables.codec import Codec
from synth.tables.layout import Layout
from synth.tables.pair_choice import pair_weight

MAX_MEMORY_BYTES = 8 << 30
MAX_CLASSES = 256
RUNTIME_BYTES = 600 << 20
"""What Python, torch and Prefect hold before any data is there."""


@dataclass(frozen=True)
class ColumnPlan:
    """Expected quality of one column's histogram.

    Attributes:
        name: the column.
        kind: its kind.
        cells: cells of its fine histogram.
        most_bins: the most bins it can have in the pair stage.
        noise: noise scale of a bin of its histogram over all classes, in people.
        pair_noise: noise scale of a cell of a pair table with an equal column, in people; None without pairs.
    """

    name: str
    kind: str
    cells: int
    most_bins: int
    noise: float
    pair_noise: float | None


def plan_columns(layout: Layout, plan: TablePlan, codecs: Mapping[str, Codec]) -> list[ColumnPlan]:
    """Noise per column and pair as the plan fixes it. Pair noise assumes that every candidate pair is measured."""
    sizes = {name: most_bins(codecs[name]) for name in layout.columns}
    weights = [float(pair_weight(sizes[a] * sizes[b])) for a, b in layout.pairs]
    total = math.fsum(weights)
    out = []
    for name in layout.columns:
        noise = plan.one_way_noise * math.sqrt(layout.classes)
        pair_noise = None
        mu = plan.mu_pairs_summed or (plan.mu_pairs_by_class or 0.0) / math.sqrt(layout.classes)
        if layout.pairs and mu > 0:
            pair_noise = plan.max_rows_per_person * math.sqrt(total / float(pair_weight(sizes[name] ** 2))) / mu
        kind = codecs[name].column.kind
        out.append(ColumnPlan(name, kind, codecs[name].size, sizes[name], noise, pair_noise))
    return out


def most_bins(codec: Codec) -> int:
    """The most bins a column can plausibly have in the pair stage; public, from the schema."""
    return min(codec.size, 2 * MAX_BINS) if codec.ordered else codec.size


def memory_bytes(layout: Layout, codecs: Mapping[str, Codec]) -> int:
    """An upper estimate of the peak memory of a run, in bytes; it does not grow with the rows."""
    sizes = [most_bins(codecs[name]) for name in layout.columns]
    width = sum(sizes)
    classes = layout.classes
    # Dense pair matrices: target, precision, and the fit's residual, gradient and two thinned copies, in float32.
    fit = 7 * 4 * (classes + 1) * width**2
    pairs = sum(sizes[i] * sizes[j] for i in range(len(sizes)) for j in range(i + 1, len(sizes)))
    counts = 2 * 8 * (classes + 1) * pairs
    histograms = 2 * 8 * sum(block.size for name in layout.columns for block in codecs[name].blocks) * (classes + 1)
    activations = 12 * 4 * 4096 * width
    return RUNTIME_BYTES + fit + counts + histograms + activations


def refuse_too_large(layout: Layout, codecs: Mapping[str, Codec]) -> None:
    """Raise UserError, before anything is read, when the table is larger than this version can fit."""
    if layout.classes > MAX_CLASSES:
        raise UserError(
            f"schema: target {layout.target} has {layout.classes} classes and this version fits at most {MAX_CLASSES}; "
            "declare another target, or none"
        )
    need = memory_bytes(layout, codecs)
    if need > MAX_MEMORY_BYTES:
        raise UserError(
            f"schema: the pair tables would need about {need / 2**30:.0f} GiB and this version uses at most "
            f"{MAX_MEMORY_BYTES >> 30}; leave out columns, or columns with thousands of categories"
        )
