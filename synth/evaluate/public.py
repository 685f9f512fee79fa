"""Public scores: from synthetic rows, the config and paid-for measurements. No private row is opened here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from synth.evaluate.distance import noise_distance, noisy_distance
from synth.evaluate.histograms import Codes, histograms
from synth.facts import MarginalScore, QualityFacts
from synth.schema import Schema
from synth.tables.codec import Codec
from synth.tables.measurements import Measurements
from synth.tables.rules import Rule


class ValidRows:
    """Counts rows, and those that are valid, while they pass through.

    A row is valid when every cell has the declared type and lies in the declared domain, and it meets every rule.
    """

    def __init__(self, codecs: Mapping[str, Codec], rules: Sequence[Rule] = ()) -> None:
        self.codecs, self.rules = codecs, rules
        self.rows = self.valid = 0

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches as they are."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        good = np.ones(batch.num_rows, dtype=bool)
        for name, codec in self.codecs.items():
            column = batch.column(name)
            good &= codec.valid(column) if column.type == codec.arrow_type else False
        for rule in self.rules:
            if good.any() and all(batch.column(name).type == self.codecs[name].arrow_type for name in rule.columns):
                good &= rule.holds(self.codecs, {name: batch.column(name) for name in rule.columns})
        self.rows += batch.num_rows
        self.valid += int(good.sum())


def public_scores(
    measured: Measurements,
    schema: Schema,
    synthetic: Callable[[Sequence[str]], Iterable[Codes]],
    *,
    valid_rows: int,
    rows: int,
) -> QualityFacts:
    """Distances of the synthetic rows to the noised measurements, with the noise's own share beside each.

    Args:
        measured: the paid-for measurements.
        schema: the public schema.
        synthetic: opens the encoded synthetic rows: the codes of the named blocks, batch by batch.
        valid_rows: synthetic rows within the declared types and domains that meet every declared rule.
        rows: synthetic rows.
    """
    total = measured.total
    lookup = dict(measured.bin_of_cell)
    if schema.target is not None:
        lookup.setdefault(schema.target, measured.class_of_cell)
    groups: list[tuple[str, ...]] = [*((name,) for name in lookup), *measured.pairs]
    counts = histograms(synthetic([f"cells:{name}" for name in lookup]), lookup, groups)
    one_way = []
    for name in measured.bin_of_cell:
        noised = measured.one_way[name].sum(axis=0)
        noise = measured.one_way_noise[name] * math.sqrt(len(measured.class_sizes))
        one_way.append(
            MarginalScore(
                columns=(name,),
                distance=noisy_distance(counts[(name,)], noised, total),
                noise=noise_distance(np.full(len(noised), noise), total),
            )
        )
    if schema.target is not None and schema.target not in measured.bin_of_cell:
        one_way.append(
            MarginalScore(
                columns=(schema.target,),
                distance=noisy_distance(counts[(schema.target,)], measured.class_sizes, total),
                noise=noise_distance(np.full(len(measured.class_sizes), measured.class_size_noise), total),
            )
        )
    two_way = []
    for (a, b), table in measured.pairs.items():
        noised, noise = table.best()
        two_way.append(
            MarginalScore(
                columns=(a, b),
                distance=noisy_distance(counts[(a, b)], noised.ravel(), total),
                noise=noise_distance(np.full(noised.size, noise), total),
            )
        )
    return QualityFacts(
        one_way=tuple(one_way),
        two_way=tuple(two_way),
        three_way=_three_way(measured, synthetic),
        mean_one_way_distance=_mean([s.distance for s in one_way]),
        mean_one_way_noise=_mean([s.noise for s in one_way]),
        mean_two_way_distance=_mean([s.distance for s in two_way]) if two_way else None,
        mean_two_way_noise=_mean([s.noise for s in two_way]) if two_way else None,
        valid_rows=valid_rows,
        rows=rows,
    )


def _three_way(
    measured: Measurements, synthetic: Callable[[Sequence[str]], Iterable[Codes]]
) -> tuple[MarginalScore, ...]:
    """The measured triples, on the groups they were measured on."""
    if not measured.triples:
        return ()
    lookup = {name: groups[measured.bin_of_cell[name]] for name, groups in measured.group_of_bin.items()}
    counts = histograms(synthetic([f"cells:{name}" for name in lookup]), lookup, [*measured.triples])
    return tuple(
        MarginalScore(
            columns=triple,
            distance=noisy_distance(counts[triple], table.noised.ravel(), measured.total),
            noise=noise_distance(np.full(table.noised.size, table.noise), measured.total),
        )
        for triple, table in measured.triples.items()
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
