"""What a run would cost and hold, from the schema and config alone: noise, expected error, memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synth.errors import UserError
from synth.privacy.budget import TablePlan, noise_scales, precision_of
from synth.tables.bins import bin_limit
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.layout import Layout
from synth.tables.pair_choice import MAX_GROUPS
from synth.tables.triple_choice import TRIPLE_GROUPS

MAX_MEMORY_BYTES = 8 << 30
MAX_MATRIX_BYTES = 1 << 30
MAX_MATRIX_WIDTH = 1536
"""Above either a fit holds its measured pairs one by one, and no table of the others (`synth.tables.block_targets`): it
is the smaller from the first on, and the faster from the second."""
MAX_POINTS = 2048
"""Latent points of all classes together, about, in a fit."""
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
    """Noise per column and pair as the plan fixes it, were the pairs that are measured as large as the average one."""
    sizes = {name: most_bins(codecs[name], len(layout.columns)) for name in layout.columns}
    weights = [precision_of(sizes[a] * sizes[b]) for a, b in layout.pairs]
    total = math.fsum(weights) * plan.measured_pairs / max(1, len(weights))
    noises = noise_scales(sizes, plan.mu_one_way, plan.max_rows_per_person)
    out = []
    for name in layout.columns:
        noise = noises[name] * math.sqrt(layout.classes)
        pair_noise = None
        mu = plan.mu_pairs_summed or (plan.mu_pairs_by_class or 0.0) / math.sqrt(layout.classes)
        if layout.pairs and mu > 0:
            pair_noise = plan.max_rows_per_person * math.sqrt(total / precision_of(sizes[name] ** 2)) / mu
        kind = codecs[name].column.kind
        out.append(ColumnPlan(name, kind, codecs[name].size, sizes[name], noise, pair_noise))
    return out


def most_bins(codec: Codec, columns: int) -> int:
    """The most bins a column of so many can plausibly have in the pair stage; public, from the schema."""
    return min(codec.size, 2 * bin_limit(columns)) if codec.ordered else codec.size


def memory_bytes(layout: Layout, plan: TablePlan, codecs: Mapping[str, Codec]) -> int:
    """An upper estimate of the peak memory of a run, in bytes; it does not grow with the rows.

    Its stages come one after the other, so the largest counts: counting, the fit, or the draw with its table of all
    bins by all bins.
    """
    sizes = sorted((most_bins(codecs[name], len(layout.columns)) for name in layout.columns), reverse=True)
    width, classes = sum(sizes), layout.classes
    pairs = [a * b for a, b in itertools.combinations(sizes, 2)]
    measured = sum(sorted(pairs, reverse=True)[: plan.measured_pairs])
    groups = [min(size, 2 * MAX_GROUPS) for size in sizes]
    scores = 2 * 8 * sum(a * b for a, b in itertools.combinations(groups, 2)) if plan.selection else 0
    # Of ordered columns missing is one more. Tables of all triples: counted, those of a part of the rows, expected.
    three = [min(size, TRIPLE_GROUPS + 1) for size in sizes] if plan.candidate_triples else []
    triples = 3 * 8 * _sum_of_products(three)
    counts = max(scores, 3 * 8 * (classes + 1) * measured) + triples
    # Column by column: the same six of each measured table, and what its gradient needs of the bins it joins.
    blocks = 7 * 4 * (classes + 1) * measured + 3 * 4 * MAX_POINTS * sum(sizes[: plan.measured_pairs])
    # A table that is narrower than it could be is fitted with matrices after all.
    matrices = min(MAX_MATRIX_BYTES, matrix_bytes(classes, min(width, MAX_MATRIX_WIDTH)))
    fit = matrices if fits_as_matrices(classes, width) else max(matrices, blocks)
    fit += 12 * 4 * 2 * MAX_POINTS * width  # activations
    # Of each measured triple, what its gradient needs of the two columns that are joined.
    fit += 3 * 4 * MAX_POINTS * plan.measured_triples * TRIPLE_GROUPS**2
    draw = (8 + 8 + 4) * width**2
    histograms = 3 * 8 * sum(_largest_blocks(codecs[name]) for name in layout.columns)
    return RUNTIME_BYTES + histograms + max(counts, fit, draw)


def _sum_of_products(sizes: Sequence[int]) -> int:
    """Cells of the tables of all three of these columns together (Newton's identity)."""
    one, two, three = (sum(size**power for size in sizes) for power in (1, 2, 3))
    return (one**3 - 3 * one * two + 2 * three) // 6


def _largest_blocks(codec: Codec) -> int:
    """Cells of all of a column's histograms; with bounds that are still to be estimated, the most there can be."""
    size = sum(block.size for block in codec.blocks)
    if isinstance(codec, OrderedCodec) and codec.to_estimate:
        size += codec.lattice.most_singles
    return size


def fits_as_matrices(classes: int, width: int) -> bool:
    """Whether a fit holds matrices of all bins by all bins."""
    return width <= MAX_MATRIX_WIDTH and matrix_bytes(classes, width) <= MAX_MATRIX_BYTES


def matrix_bytes(classes: int, width: int) -> int:
    """Memory of a fit to matrices of all bins by all bins: target, precision, residual, gradient, two thinned."""
    return 7 * 4 * (classes + 1) * width**2


def refuse_too_large(layout: Layout, plan: TablePlan, codecs: Mapping[str, Codec]) -> None:
    """Raise UserError, before anything is read, when the table is larger than this version can fit."""
    if layout.classes > MAX_CLASSES:
        raise UserError(
            f"schema: target {layout.target} has {layout.classes} classes and this version fits at most {MAX_CLASSES}; "
            "declare another target, or none"
        )
    need = memory_bytes(layout, plan, codecs)
    if need > MAX_MEMORY_BYTES:
        raise UserError(
            f"schema: the pair tables would need about {need / 2**30:.0f} GiB and this version uses at most "
            f"{MAX_MEMORY_BYTES >> 30}; leave out columns, or columns with thousands of categories"
        )
