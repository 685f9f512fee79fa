"""Layout: what a table's run measures, from the schema alone, and the releases that follow from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from synth.privacy.budget import MOST_LEVELS, SMOOTH_CELLS, TablePlan, plan_table, precision_of
from synth.schema import Schema
from synth.tables.blocks import DETAIL_WEIGHT, NONE, Block
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.measurements import IntArray, Pair, Triple
from synth.tables.rules import Function, rules_of

NUMERIC_TARGET_CLASSES = 5
MAX_CLASSES_IN_PAIRS = 24


@dataclass(frozen=True)
class Layout:
    """What is measured, from the schema alone.

    Attributes:
        columns: columns with one-way histograms within classes (a categorical target is the class itself).
        target: the target's name, or None.
        classes: number of classes; for a numeric target the most there can be.
        cut_target: whether the target is numeric and must be cut into classes.
        tied: pairs that a declared rule joins, so that they go together whatever the rows say.
    """

    columns: tuple[str, ...]
    target: str | None
    classes: int
    cut_target: bool
    tied: tuple[Pair, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All candidate pairs of columns."""
        return tuple(itertools.combinations(self.columns, 2))

    @property
    def triples(self) -> Iterator[Triple]:
        """All triples of columns."""
        return itertools.combinations(self.columns, 3)


def layout_of(schema: Schema, codecs: Mapping[str, Codec]) -> Layout:
    """The layout of a schema."""
    layout = _without_rules(schema, codecs)
    # What another column determines follows from it, however little is known of the pair.
    joined = [set(rule.columns) for rule in rules_of(schema) if not isinstance(rule, Function)]
    return replace(layout, tied=tuple(pair for pair in layout.pairs if any(set(pair) <= names for names in joined)))


def _without_rules(schema: Schema, codecs: Mapping[str, Codec]) -> Layout:
    target = schema.target
    if target is None:
        return Layout(columns=tuple(codecs), target=None, classes=1, cut_target=False)
    codec = codecs[target]
    others = tuple(name for name in codecs if name != target)
    if not others:
        # A table of one column has nothing to condition: its only column is learned as it is.
        return Layout(columns=(target,), target=None, classes=1, cut_target=False)
    if codec.ordered:
        classes = NUMERIC_TARGET_CLASSES + (codec.missing is not None)
        return Layout(columns=tuple(codecs), target=target, classes=classes, cut_target=True)
    return Layout(columns=others, target=target, classes=codec.size, cut_target=False)


def plan_of(
    layout: Layout,
    codecs: Mapping[str, Codec],
    *,
    epsilon: float,
    delta: float,
    max_rows_per_person: int = 1,
    critic_share: float = 0.0,
    critic_steps: int = 0,
    critic_sample_rate: float = 0.0,
    holdout: float | Literal["file"] = 0.0,
) -> TablePlan:
    """The releases of a run, fixed from schema and config before the first read."""
    return plan_table(
        epsilon=epsilon,
        delta=delta,
        histograms={name: _free_cells(codecs[name]) for name in layout.columns},
        coarse=[name for name in layout.columns if runs_of(codecs[name]) is not None],
        classes=layout.classes,
        details=len(details_of(layout, codecs)),
        detail_weight=DETAIL_WEIGHT * precision_of(SMOOTH_CELLS),
        candidate_pairs=len(layout.pairs),
        candidate_triples=math.comb(len(layout.columns), 3),
        classes_known=not layout.cut_target,
        pairs_by_class=1 < layout.classes <= MAX_CLASSES_IN_PAIRS,
        max_rows_per_person=max_rows_per_person,
        critic_share=critic_share,
        critic_steps=critic_steps,
        critic_sample_rate=critic_sample_rate,
        holdout=holdout,
        estimated_columns=sum(codec.to_estimate for codec in codecs.values()),
    )


def runs_of(codec: Codec) -> IntArray | None:
    """The run of each cell, NONE of the missing cell; None when a column's cells are not counted in runs too."""
    if not isinstance(codec, OrderedCodec) or (runs := codec.lattice.run_of_cell) is None:
        return None
    return runs if codec.missing is None else np.append(runs, NONE)


def _free_cells(codec: Codec) -> int:
    return min(codec.size, SMOOTH_CELLS if codec.ordered else MOST_LEVELS)


def details_of(layout: Layout, codecs: Mapping[str, Codec]) -> list[Block]:
    """Blocks of single values and digits, which are counted over all classes."""
    return [block for name in layout.columns for block in codecs[name].blocks[1:]]
