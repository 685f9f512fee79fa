"""Public scores: from synthetic rows, the config and paid-for measurements. No private row is opened here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.evaluate.distance import noise_distance, noisy_distance
from synth.facts import MarginalScore, QualityFacts
from synth.schema import Schema
from synth.tables.codec import Codec
from synth.tables.measure import Measurements
from synth.tables.rules import Rule

IntArray = npt.NDArray[np.int64]


def cells_of(
    batches: Iterable[pa.RecordBatch], codecs: Mapping[str, Codec], rules: Sequence[Rule] = ()
) -> tuple[dict[str, IntArray], int, int]:
    """Cells of every learned column of the synthetic rows, how many rows are valid, and how many there are.

    A row is valid when every cell has the declared type and lies in the declared domain, and it meets every rule.
    """
    rng = np.random.default_rng(0)
    parts: dict[str, list[IntArray]] = {name: [] for name in codecs}
    rows = valid = 0
    for batch in batches:
        good = np.ones(batch.num_rows, dtype=bool)
        for name, codec in codecs.items():
            column = batch.column(name)
            encoded = codec.encode(column, rng)
            parts[name].append(encoded.codes[codec.blocks[0].key])
            good &= codec.valid(column) if column.type == codec.arrow_type else False
        for rule in rules:
            if good.any() and all(batch.column(name).type == codecs[name].arrow_type for name in rule.columns):
                good &= rule.holds(codecs, {name: batch.column(name) for name in rule.columns})
        rows += batch.num_rows
        valid += int(good.sum())
    empty = np.empty(0, dtype=np.int64)
    return {name: np.concatenate(part) if part else empty for name, part in parts.items()}, valid, rows


def public_scores(
    measured: Measurements, schema: Schema, cells: Mapping[str, IntArray], *, valid_rows: int, rows: int
) -> QualityFacts:
    """Distances of the synthetic rows to the noised measurements, with the noise's own share beside each.

    Args:
        measured: the paid-for measurements.
        schema: the public schema.
        cells: cells of the synthetic rows, by column.
        valid_rows: synthetic rows within the declared types and domains that meet every declared rule.
        rows: synthetic rows.
    """
    total = measured.total
    one_way = []
    for name, lookup in measured.bin_of_cell.items():
        synthetic = np.bincount(lookup[cells[name]], minlength=int(lookup.max()) + 1)
        noised = measured.one_way[name].sum(axis=0)
        noise = measured.one_way_noise * math.sqrt(len(measured.class_sizes))
        one_way.append(
            MarginalScore(
                columns=(name,),
                distance=noisy_distance(synthetic, noised, total),
                noise=noise_distance(np.full(len(noised), noise), total),
            )
        )
    if schema.target is not None and schema.target not in measured.bin_of_cell:
        synthetic = np.bincount(measured.class_of_cell[cells[schema.target]], minlength=len(measured.class_sizes))
        one_way.append(
            MarginalScore(
                columns=(schema.target,),
                distance=noisy_distance(synthetic, measured.class_sizes, total),
                noise=noise_distance(np.full(len(measured.class_sizes), measured.class_size_noise), total),
            )
        )
    two_way = []
    for (a, b), table in measured.pairs.items():
        joint = np.zeros([int(measured.bin_of_cell[n].max()) + 1 for n in (a, b)])
        np.add.at(joint, (measured.bin_of_cell[a][cells[a]], measured.bin_of_cell[b][cells[b]]), 1)
        noised, noise = table.best()
        two_way.append(
            MarginalScore(
                columns=(a, b),
                distance=noisy_distance(joint, noised, total),
                noise=noise_distance(np.full(joint.size, noise), total),
            )
        )
    return QualityFacts(
        one_way=tuple(one_way),
        two_way=tuple(two_way),
        mean_one_way_distance=_mean([s.distance for s in one_way]),
        mean_one_way_noise=_mean([s.noise for s in one_way]),
        mean_two_way_distance=_mean([s.distance for s in two_way]) if two_way else None,
        mean_two_way_noise=_mean([s.noise for s in two_way]) if two_way else None,
        valid_rows=valid_rows,
        rows=rows,
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
