"""How often declared rules bind: in the source, whose rows are measured as they are, and in the model without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from synth.tables.codec import Codec, OrderedCodec
from synth.tables.decode import values_at
from synth.tables.model import TableModel
from synth.tables.rows import sample_rows
from synth.tables.rules import Rule

MODEL_ROWS = 20_000


class BrokenRows:
    """Counts, for each rule, the rows of batches that break it while they pass through."""

    def __init__(self, rules: Sequence[Rule], codecs: Mapping[str, Codec]) -> None:
        self.rules, self.codecs = rules, codecs
        self.counts = [0] * len(rules)
        self.rows = 0

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches as they are."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch, whose columns need not have their output types."""
        names = {name for rule in self.rules for name in rule.columns}
        values = {name: _declared(self.codecs[name], batch.column(name)) for name in names}
        self.rows += batch.num_rows
        for i, rule in enumerate(self.rules):
            self.counts[i] += int((~rule.holds(self.codecs, values)).sum())


def rule_scores(source: Mapping[str, Any], model: TableModel) -> list[dict[str, Any]]:
    """For each rule, how many rows of the source break it, and what share of the model's rows would without rules.

    Args:
        source: `rows` of the source and, by rule, `counts` of those that break it.
        model: the run's model.
    """
    free = replace(model, schema=model.schema.model_copy(update={"rules": ()}))
    seen = BrokenRows(model.rules, model.codecs)
    for batch in sample_rows(free, MODEL_ROWS, seed=0):
        seen.add(batch)
    return [
        {"rule": rule.text, "source_rows": source["rows"], "source_breaks": broken, "model_share": made / seen.rows}
        for rule, broken, made in zip(model.rules, source["counts"], seen.counts, strict=True)
    ]


def _declared(codec: Codec, array: pa.Array) -> pa.Array:
    """Values in the column's output type: what lies beyond bounds is clipped, what is no level is missing."""
    positions, _ = codec.positions(array)
    if isinstance(codec, OrderedCodec):
        positions = np.clip(positions, codec.lattice.low, codec.lattice.high)
    return values_at(codec, positions)
