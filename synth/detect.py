"""Detect: whether rows of a table are rows of a bundle, and how sure that is. Reads public files and the table itself.

Rows are compared by value, whatever their order, their columns' order and their types. What chance alone would show is
known exactly for any table: given its released model, the bundle is a random draw that cannot know the table, so a row
of probability p is among the bundle's N rows with probability 1 - (1 - p)^N. This holds for real rows too, however well
or badly the model describes them, and for the very rows that the model was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import poisson

from synth.errors import InvalidSource
from synth.files import sha256_file
from synth.ingest import header_of, read_batches
from synth.parquet import part_files, read_file
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.likelihood import Evidence, evidence_of, log_joint, rows_at_once
from synth.tables.model import TableModel
from synth.tables.pieces import Pieces, multiples
from synth.tables.ruled import ruled_posterior
from synth.tables.ruled_completion import evidence_of_sums
from synth.tables.rules import Function
from synth.tables.spread import pieces_of
from synth.tables.sums import Sum, summed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Prints = npt.NDArray[np.uint64]
Verdict = Literal["whole", "part", "none", "unknown"]

SURE = 1e-6
"""A match is a finding when chance shows as many at most this often."""
SLACK = 2.0
"""Factor on each row's probability: rows are drawn by strata, then swept, so its count is not exactly binomial."""
RULED_SLACK = 2.0
"""A further one where rules hold: their probability is taken from the states, and values decide the rest."""
JUDGED_ROWS = 20_000
"""Different rows of the table, drawn at random, whose probability is computed."""
DIGITS = 6
"""Real numbers without declared decimals are compared to so many digits: single precision keeps them."""
UNKNOWN = np.inf
"""Stands for a value that no row of a bundle has: outside the domain, or unreadable."""
READ_AT_ONCE = 65_536


@dataclass(frozen=True)
class Detection:
    """What was found.

    Attributes:
        verdict: "whole" (every row is the bundle's), "part" (more are than chance explains), "none" (no more than
            chance explains, and the bundle's own would have shown), "unknown" (chance could make every row match).
        rows: rows of the table. found: how many of them are rows of the bundle.
        different: different rows of the table that were judged. different_found: how many of those are in the bundle.
        expected: how many of them chance would find, at most.
        p_value: how often chance would find so many, at most.
        share: estimated share of the table's rows that come from the bundle, beyond chance.
        bundle_rows: rows of the bundle. bundle_found: how many of them are in the table.
        columns: the columns compared. absent: the bundle's others. others: columns that the table alone has.
        metadata: what a Parquet file says about itself; None where it says nothing. Anyone can write such words.
    """

    verdict: Verdict
    rows: int
    found: int
    different: int
    different_found: int
    expected: float
    p_value: float
    share: float
    bundle_rows: int
    bundle_found: int
    columns: tuple[str, ...]
    absent: tuple[str, ...]
    others: tuple[str, ...]
    metadata: dict[str, Any] | None


def detect(file: Path, bundle: Path, *, run_id: str) -> Detection:
    """Compare a Parquet or CSV table, or a folder of such files, with the rows of an intact bundle of run `run_id`.

    Ids are left out: they are numbered alike in every draw. Raises InvalidSource for a file that cannot be read or has
    none of the bundle's columns, VerificationFailed for a damaged model.
    """
    model = TableModel.load(bundle / "model")
    found = header_of(file).names
    names = tuple(name for name in model.codecs if name in found)
    if not names:
        raise InvalidSource(f"{file}: has none of the bundle's columns ({', '.join(model.codecs)}); nothing to compare")
    if twice := sorted({name for name in names if found.count(name) > 1}):
        raise InvalidSource(f"{file}: column {twice[0]} appears twice; rename one")
    own = [_prints(part) for part in _matrices(_bundle_batches(bundle, names), model, names)]
    bundle_prints = np.concatenate(own)
    known = np.unique(bundle_prints)
    matrix, prints = _judged(_matrices(_file_batches(file, model, names), model, names))
    rows = len(prints)
    if not rows:
        raise InvalidSource(f"{file}: has no rows")
    here = np.isin(prints, known)
    matched = np.isin(_prints(matrix), known)
    chance = chance_of(model, names, matrix, rows=len(bundle_prints))
    expected, hits = float(chance.sum()), int(matched.sum())
    p_value = chance_of_as_many(hits, expected)
    by_chance = expected / len(matrix)
    return Detection(
        verdict=_verdict(p_value, expected, len(matrix), bool(here.all())),
        rows=rows,
        found=int(here.sum()),
        different=len(matrix),
        different_found=hits,
        expected=expected,
        p_value=p_value,
        share=0.0 if by_chance >= 1 else min(1.0, max(0.0, (float(here.mean()) - by_chance) / (1 - by_chance))),
        bundle_rows=len(bundle_prints),
        bundle_found=int(np.isin(bundle_prints, prints).sum()),
        columns=names,
        absent=tuple(name for name in model.codecs if name not in names),
        others=tuple(name for name in found if name not in {column.name for column in model.schema.columns}),
        metadata=metadata_of(file, bundle, run_id),
    )


def chance_of(model: TableModel, names: tuple[str, ...], matrix: FloatArray, *, rows: int) -> FloatArray:
    """Probability that each row of `matrix` [n, columns] is among `rows` rows drawn from the model, at most [n].

    A row's probability is Σ_c p(c)/K Σ_k Π_j p_j(value | z_k, c); a column that a rule determines adds nothing, and a
    total no more than its bin.
    """
    evidence, determined = evidence_of(model), {r.result for r in model.rules if isinstance(r, Function)}
    totals = {rule.total for rule in model.rules if isinstance(rule, Sum)}
    if summed(model.rules) <= set(names):
        evidence = Evidence(evidence.prior, evidence.columns | evidence_of_sums(model))
    used, within = {}, np.zeros(len(matrix))
    for j, name in enumerate(names):
        values = matrix[:, j]
        within[np.isinf(values)] = -np.inf
        if name in determined:
            continue
        if name in model.encoding.names:
            pieces = pieces_of(model.codecs[name], model.decoders[name])
            used[name], mass = _places(pieces, values, _half_width(model.codecs[name], values))
            if name in totals:
                used[name], mass = _bins_of(model, name, values), np.ones(len(values))
        else:
            cell = np.where(np.isnan(values), model.codecs[name].missing or 0, values)
            used[name] = model.class_of_cell[np.where(np.isfinite(cell), cell, 0).astype(np.int64)]
            mass = np.where(np.isnan(values) & (model.codecs[name].missing is None), 0.0, 1.0)
        with np.errstate(divide="ignore"):
            within += np.log(mass)
    logs = np.zeros(len(matrix))
    step = rows_at_once(evidence) if used else len(matrix)
    for start in range(0, len(matrix) if used else 0, step):
        some = slice(start, start + step)
        joint = log_joint(evidence, {name: index[some] for name, index in used.items()})
        best = joint.max(axis=1)
        logs[some] = best + np.log(np.exp(joint - best[:, None]).sum(axis=1))
    p = np.minimum(1.0, np.exp(logs + within) * SLACK / _share_that_meets_the_rules(model))
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(rows * np.log1p(-p)))


def chance_of_as_many(found: int, expected: float) -> float:
    """How often at least `found` of rare, independent matches happen where `expected` do on average, at most.

    A sum of independent trials exceeds its mean by more than one less often than a Poisson number does (Hoeffding
    1956); nearer to the mean the sum over all sets of `found` trials, at most expected^found / found!, bounds it.
    """
    if found > expected + 1:
        return float(poisson.sf(found - 1, expected))
    return min(1.0, expected**found / math.factorial(found)) if found <= 2 else 1.0


def _verdict(p_value: float, expected: float, different: int, all_found: bool) -> Verdict:
    if p_value < SURE:
        return "whole" if all_found else "part"
    return "none" if chance_of_as_many(different, expected) < SURE else "unknown"


def _share_that_meets_the_rules(model: TableModel) -> float:
    """Probability that a row of the model without its rules meets them, at least about."""
    if not model.rules:
        return 1.0
    ruled = ruled_posterior(model, {})
    return float((ruled.plain.weights.ravel() * ruled.tree.probability(ruled.up)).sum()) / RULED_SLACK


def _places(pieces: Pieces, positions: FloatArray, half: FloatArray) -> tuple[IntArray, FloatArray]:
    """The bin of each position, and the chance of drawing it within that bin; `half` is how far around it counts."""
    values, back = np.unique(positions, return_inverse=True)  # NaN is one value
    widths = np.zeros(len(values))
    widths[back] = half
    bins, mass = np.zeros(len(values), dtype=np.int64), np.zeros(len(values))
    grid, stretch = pieces.step > 0, pieces.step == 0
    step, length = np.where(grid, pieces.step, 1.0), np.where(stretch, pieces.last - pieces.first, 0.0)
    for i, (value, width) in enumerate(zip(values, widths, strict=True)):
        if math.isnan(value):
            part = pieces.mass * np.isnan(pieces.first)
        elif math.isinf(value):
            continue
        else:
            number = np.round(value / step)
            on = grid & (np.abs(multiples(number, step) - value) <= width + 1e-9 * abs(value))
            on &= (pieces.first <= number) & (number <= pieces.last)
            overlap = np.minimum(pieces.last, value + width) - np.maximum(pieces.first, value - width)
            narrow = np.where(length > 0, length, 1.0)
            inside = np.where(length > 0, np.clip(overlap / narrow, 0.0, 1.0), (overlap >= 0) * 1.0)
            part = pieces.mass * np.where(grid, on / (pieces.last - pieces.first + 1), inside)
            part = np.where(np.isnan(pieces.first), 0.0, part)
        by_bin = np.bincount(pieces.bin, weights=part, minlength=pieces.bins)
        bins[i], mass[i] = int(by_bin.argmax()), min(1.0, float(by_bin.max()))
    return bins[back], mass[back]


def _bins_of(model: TableModel, name: str, positions: FloatArray) -> IntArray:
    """The bin of each position, any for one outside the domain."""
    codec, home = model.codecs[name], model.decoders[name].bin_of_cell
    assert isinstance(codec, OrderedCodec)
    cell = codec.lattice.cell_of(np.where(np.isfinite(positions), positions, codec.lattice.low))
    return np.asarray(home[cell if codec.missing is None else np.where(np.isnan(positions), codec.missing, cell)])


def _half_width(codec: Codec, positions: FloatArray) -> FloatArray:
    """How far around a position values count as the same: of real numbers, half of the last digit compared."""
    if not _is_real(codec):
        return np.zeros(len(positions))
    return 0.5 / _scale(positions)


def _is_real(codec: Codec) -> bool:
    return isinstance(codec, OrderedCodec) and not codec.lattice.whole


def _scale(positions: FloatArray) -> FloatArray:
    """What turns a real number into a whole one of DIGITS digits."""
    size = np.abs(np.where(np.isfinite(positions) & (positions != 0), positions, 1.0))
    return np.asarray(10.0 ** (DIGITS - 1 - np.floor(np.log10(size))))


def _matrices(batches: Iterator[pa.RecordBatch], model: TableModel, names: tuple[str, ...]) -> Iterator[FloatArray]:
    """Rows as positions and level numbers [rows, columns]: NaN is missing, UNKNOWN is no value of the domain."""
    for batch in batches:
        columns = []
        for name in names:
            try:
                columns.append(_cells(model.codecs[name], batch.column(name)))
            except (pa.ArrowException, TypeError, ValueError):  # may quote a value
                kind = batch.column(name).type
                raise InvalidSource(f"column {name} is {kind} and cannot be compared; convert it") from None
        yield np.column_stack(columns)


def _cells(codec: Codec, array: pa.Array) -> FloatArray:
    positions, null = codec.positions(array)
    if isinstance(codec, OrderedCodec):
        outside = (positions < codec.lattice.low) | (positions > codec.lattice.high)
        positions = np.where(outside, UNKNOWN, positions)
        if _is_real(codec):
            with np.errstate(invalid="ignore"):
                scale = _scale(positions)
                positions = np.where(np.isinf(positions), UNKNOWN, np.round(positions * scale) / scale)
    return np.where(null, np.nan, np.where(np.isnan(positions), UNKNOWN, positions)) + 0.0  # -0.0 and 0.0 are one


def _prints(matrix: FloatArray) -> Prints:
    """One hash a row; different rows share one with probability about 2^-64."""
    return np.asarray(pd.util.hash_pandas_object(pd.DataFrame(matrix), index=False), dtype=np.uint64)


def _judged(matrices: Iterator[FloatArray]) -> tuple[FloatArray, Prints]:
    """A random choice of different rows [at most JUDGED_ROWS, columns], and the hash of every row.

    The choice is by hash, so that it is the same for the same rows, and equal rows are chosen once.
    """
    prints: list[Prints] = []
    kept, keys = None, np.empty(0, dtype=np.uint64)
    for matrix in matrices:
        prints.append(_prints(matrix))
        keys, first = np.unique(np.concatenate([keys, prints[-1]]), return_index=True)
        kept = (matrix if kept is None else np.concatenate([kept, matrix]))[first][:JUDGED_ROWS]
        keys = keys[:JUDGED_ROWS]
    if kept is None:
        return np.empty((0, 0)), np.empty(0, dtype=np.uint64)
    return kept, np.concatenate(prints)


def _bundle_batches(bundle: Path, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    for part in part_files(bundle / "data"):
        yield from _parquet_batches(part, names)


def _file_batches(file: Path, model: TableModel, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    if is_parquet(file):
        yield from _parquet_batches(file, names)
    else:
        present = tuple(column for column in model.schema.columns if column.name in names)
        narrowed = {"columns": present, "target": None, "privacy_unit": "row", "rules": ()}
        yield from read_batches(file, model.schema.model_copy(update=narrowed))


def _parquet_batches(file: Path, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    try:
        yield from read_file(file, names, batch_rows=READ_AT_ONCE)
    except (pa.ArrowException, OSError):
        raise InvalidSource(f"{file}: damaged Parquet file; write it again") from None


def is_parquet(file: Path) -> bool:
    """Whether a file begins as Parquet does."""
    if file.is_dir():
        return False  # of several files, read as one source
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def metadata_of(file: Path, bundle: Path, run_id: str) -> dict[str, Any] | None:
    """What a Parquet file says about itself in the words of a bundle's files."""
    file = next(iter(sorted(file.glob("*.parquet"))), file) if file.is_dir() else file
    if not is_parquet(file):
        return None
    raw: Mapping[bytes, bytes] = pq.read_schema(file).metadata or {}
    words = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in raw.items()}
    said: dict[str, Any] = {key: words[key] for key in ("synthetic", "run", "schema_sha256") if key in words}
    if not said:
        return None
    return said | {
        "this_run": said.get("run") == run_id,
        "this_schema": said.get("schema_sha256") == sha256_file(bundle / "schema.yaml"),
    }
