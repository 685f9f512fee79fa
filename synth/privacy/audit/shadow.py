"""Shadow tables: the whole pipeline many times, with and without one record, and attacks that tell which it was.

Jagielski, Ullman, Oprea 2020, "Auditing differentially private machine learning"; Stadler, Oprisanu, Troncoso 2022. One
repetition measures, trains and samples anew. The record is the worst case that can be named from the known rows: in
every column the value that they show least. Half of the repetitions hold it. Each attack gives every repetition a
score; its threshold is chosen on the first half and judged on the second, so that the counts are those of a fixed test.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import logsumexp

from synth.privacy.audit.bounds import shadow_epsilon, shadow_gaussian_epsilon
from synth.privacy.audit.canaries import planted, values_of_cells, write_included
from synth.privacy.audit.exposure import NoisedTable, tables_of
from synth.privacy.audit.one_run import CONFIDENCE, Mechanism, codes_of, codes_of_records, encode_source
from synth.schema import Schema
from synth.tables.blocks import NONE
from synth.tables.codec import Codec, codecs_of
from synth.tables.count import Codes
from synth.tables.decode import decoder_of
from synth.tables.encode import encode
from synth.tables.layout import Layout
from synth.tables.measurements import Measurements
from synth.tables.model import TableModel
from synth.tables.rows import sample_rows
from synth.tables.train import FitSettings, fit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MIN_REPETITIONS = 8
NEAR = 32
"""An ordered value is near the record's when it lies within this part of the column's cells."""

MEASUREMENTS, MODEL, ROWS = "noised measurements", "likelihood of the model", "synthetic rows"


@dataclass(frozen=True)
class Attack:
    """What one attack told on the repetitions that judge it.

    Attributes:
        sees: what the attack looks at.
        true_positives: repetitions with the record that were called so, of `members`.
        false_positives: repetitions without it that were called so, of `non_members`.
        epsilon_lower_bound: whatever the mechanism, at the audit's confidence over all attacks together.
        gaussian_epsilon_lower_bound: for a mechanism that is Gaussian-DP, as this one claims to be.
    """

    sees: str
    true_positives: int
    members: int
    false_positives: int
    non_members: int
    epsilon_lower_bound: float
    gaussian_epsilon_lower_bound: float


@dataclass(frozen=True)
class ShadowAudit:
    """All attacks, and how high a bound so many repetitions could have reached at most."""

    repetitions: int
    confidence: float
    reach: float
    attacks: tuple[Attack, ...]


def shadow_audit(
    base: Path,
    schema: Schema,
    *,
    layout: Layout,
    mechanism: Mechanism,
    settings: FitSettings,
    delta: float,
    folder: Path,
    repetitions: int,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> ShadowAudit:
    """Run the pipeline `repetitions` times, every second time with the record.

    Args:
        base: encoded rows, known to the attacker. They must cost nothing: every repetition measures them again.
        schema: the public schema.
        layout: what a run measures.
        mechanism: the measuring that is audited.
        settings: how the generator is fitted, small so that many fits are affordable; training is post-processing.
        delta: δ of the claim.
        folder: working files, an existing folder of the caller's.
        repetitions: a multiple of four, at least MIN_REPETITIONS.
        rng: picks the record's values within its cells.
        progress: called with the number of repetitions done.
    """
    refuse_repetitions(repetitions)
    codecs = codecs_of(schema)
    known = codes_of(base, codecs)
    target = planted(rarest_record(known, codecs, rng or np.random.default_rng()), np.array([True]), schema)
    record = codes_of_records(target, codecs)
    source, encoded, drawn = folder / "target.parquet", folder / "target.arrow", folder / "drawn.arrow"
    write_included(target, schema, source)
    held = np.arange(repetitions) % 2 == 0
    scores = np.empty((len(SIGHTS), repetitions))
    for i, inside in enumerate(held):
        if inside:
            encode_source(source, schema, encoded)
        measured = mechanism([base, encoded] if inside else [base])
        model = _model(measured, schema, layout, codecs, settings, folder)
        encode(sample_rows(model, len(next(iter(known.values())))), codecs, drawn)
        rows = codes_of(drawn, codecs)
        scores[:, i] = (
            measured_score(list(tables_of(measured, layout)), known, record),
            model_score(model, record),
            rows_score(rows, record, codecs),
        )
        progress(i + 1)
    return audit_of_scores(scores, held, delta=delta)


def refuse_repetitions(repetitions: int) -> None:
    """Raise ValueError unless the repetitions can be split into quarters."""
    if repetitions < MIN_REPETITIONS or repetitions % 4:
        raise ValueError(f"repetitions must be a multiple of 4 and at least {MIN_REPETITIONS}, not {repetitions}")


def audit_of_scores(scores: FloatArray, held: BoolArray, *, delta: float) -> ShadowAudit:
    """Judge the attacks by what they gave the repetitions [SIGHTS, repetitions], of which `held` hold the record."""
    repetitions = len(held)
    half = repetitions // 2
    attacks = tuple(
        judged(sees, score[:half], held[:half], score[half:], held[half:], delta=delta)
        for sees, score in zip(SIGHTS, scores, strict=True)
    )
    most = half // 2
    reach = shadow_epsilon(most, 0, most, half - most, delta=delta, confidence=EACH)
    return ShadowAudit(repetitions=repetitions, confidence=CONFIDENCE, reach=reach, attacks=attacks)


SIGHTS = (MEASUREMENTS, MODEL, ROWS)
EACH = 1 - (1 - CONFIDENCE) / len(SIGHTS)
"""Confidence of one attack's bound, so that all hold together with CONFIDENCE."""


def rarest_record(known: Codes, codecs: Mapping[str, Codec], rng: np.random.Generator) -> pa.RecordBatch:
    """One record: in every column a value of the cell that the known rows show least, the last of several."""
    values = {}
    for name, codec in codecs.items():
        counts = np.bincount(known[f"cells:{name}"], minlength=codec.size)
        cell = codec.size - 1 - int(np.argmin(counts[::-1]))
        values[name] = values_of_cells(codec, np.array([cell]), rng)
    return pa.record_batch(values)


def measured_score(tables: Sequence[NoisedTable], known: Codes, record: Codes) -> float:
    """Precision-weighted sum of what is left in the record's cells: the likelihood ratio of Gaussian noise."""
    score = 0.0
    for table in tables:
        cell = int(table.cell_of(record)[0])
        if cell != NONE:
            score += float(table.noised[cell] - table.count(known)[cell]) / table.noise**2
    return score


def model_score(model: TableModel, record: Codes) -> float:
    """Log-likelihood of the record's cells under the released model."""
    label = 0 if model.target is None else int(model.class_of_cell[record[f"cells:{model.target}"][0]])
    logs = np.zeros(model.shares.shape[1])
    within = 0.0
    for name in model.encoding.names:
        decoder = model.decoders[name]
        cell = int(record[f"cells:{name}"][0])
        place = model.encoding.place(name).start + int(decoder.bin_of_cell[cell])
        logs += np.log(np.maximum(model.shares[label, :, place].astype(np.float64), 1e-12))
        within += math.log(max(float(decoder.share[cell]), 1e-12))
    share = math.log(max(float(model.class_share[label]), 1e-12))
    return share + within + float(logsumexp(logs)) - math.log(len(logs))


def rows_score(rows: Codes, record: Codes, codecs: Mapping[str, Codec]) -> float:
    """How close the synthetic rows come to the record: the mean of two to the number of near columns."""
    near = np.zeros(len(next(iter(rows.values()))))
    for name, codec in codecs.items():
        apart = np.abs(rows[f"cells:{name}"] - int(record[f"cells:{name}"][0]))
        near += apart <= (codec.size // NEAR if codec.ordered else 0)
    return float(np.mean(2.0**near))


def judged(
    sees: str, tried: FloatArray, tried_held: BoolArray, judging: FloatArray, judging_held: BoolArray, *, delta: float
) -> Attack:
    """Choose the threshold on the tried repetitions, and count how it does on the others.

    It lies halfway between two tried scores that follow each other: at a score itself, half of the scores like it would
    fall below. The others have no part in it, so that their counts are those of a test that was fixed before them.
    """

    def telling(threshold: float) -> tuple[float, float]:
        true, false, members, others = _counts(tried >= threshold, tried_held)
        shown = shadow_epsilon(true, false, members, others, delta=delta, confidence=0.5)
        return shown, true / members - false / others  # a weak attack shows nothing anywhere: the second one decides

    seen = np.unique(tried)[::-1]
    between = seen[1:] + (seen[:-1] - seen[1:]) / 2
    threshold = max([*between, seen[-1]], key=telling)  # the lowest score itself calls everything
    true, false, members, others = _counts(judging >= threshold, judging_held)
    return Attack(
        sees=sees,
        true_positives=true,
        members=members,
        false_positives=false,
        non_members=others,
        epsilon_lower_bound=shadow_epsilon(true, false, members, others, delta=delta, confidence=EACH),
        gaussian_epsilon_lower_bound=shadow_gaussian_epsilon(
            true, false, members, others, delta=delta, confidence=EACH
        ),
    )


def _counts(called: BoolArray, held: BoolArray) -> tuple[int, int, int, int]:
    return int((called & held).sum()), int((called & ~held).sum()), int(held.sum()), int((~held).sum())


def _model(
    measured: Measurements,
    schema: Schema,
    layout: Layout,
    codecs: Mapping[str, Codec],
    settings: FitSettings,
    folder: Path,
) -> TableModel:
    """Train a model as the stage `train` does."""
    logger = logging.getLogger("synth.tables.train")
    level = logger.level
    logger.setLevel(logging.WARNING)  # a hundred fits would bury the audit's own progress
    try:
        with TemporaryDirectory(dir=folder) as checkpoints:  # its own: a fit goes on from what it finds
            fitted = fit(measured, settings, checkpoints=Path(checkpoints))
    finally:
        logger.setLevel(level)
    return TableModel(
        schema=schema,
        encoding=fitted.encoding,
        target=layout.target,
        class_share=measured.class_sizes / float(measured.class_sizes.sum()),
        class_of_cell=measured.class_of_cell,
        decoders={name: decoder_of(measured, codecs[name]) for name in layout.columns},
        members=fitted.members,
        rows=max(1, round(measured.total)),
    )
