"""Rows: synthetic records of the declared types, drawn from a released model. No budget is spent.

Conditions are exact. Given a latent point and a class the columns are independent, so the posterior over points
and classes given any set of columns is p(z, c | x_S) ∝ p(c)/K · Π p_i(x_i | z, c), and nothing is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import UserError
from synth.schema import AnyColumn
from synth.tables.codec import LevelCodec, codec_of
from synth.tables.decode import arrow_schema, decode_column
from synth.tables.model import TableModel
from synth.tables.sample import draw_bins, split_by_share

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Condition:
    """One column held at one value: the cell it lies in, and the value itself."""

    column: str
    cell: int
    value: pa.Scalar


def parse_conditions(model: TableModel, texts: list[str]) -> tuple[Condition, ...]:
    """Conditions written COLUMN=VALUE; an empty VALUE means missing. Raises UserError naming what is wrong."""
    conditions = tuple(_parse_condition(model, text) for text in texts)
    names = [condition.column for condition in conditions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--where {twice[0]}: given twice; a column can be held at one value")
    return conditions


def _parse_condition(model: TableModel, text: str) -> Condition:
    name, sign, value = text.partition("=")
    name = name.strip()
    if not sign or name.endswith((">", "<", "!")):
        raise UserError(f"--where {text}: write COLUMN=VALUE (ranges are not offered by this version)")
    if name not in model.codecs:
        near = get_close_matches(name, list(model.codecs), n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; columns are {', '.join(model.codecs)}"
        raise UserError(f"--where {text}: {name} is not a learned column{hint}")
    codec = model.codecs[name]
    column: AnyColumn = codec.column
    if not value.strip():
        if codec.missing is None:
            raise UserError(f"--where {text}: {name} is never missing (nullable: false)")
        return Condition(name, codec.missing, pa.scalar(None, codec.arrow_type))
    checked = codec_of(column.model_copy(update={"outside": "refuse"}))
    try:
        encoded = checked.encode(pa.array([value.strip()]), np.random.default_rng(0))
    except UserError:
        allowed = _domain(column)
        raise UserError(f"--where {text}: outside the declared domain of {name} ({allowed})") from None
    cell = int(encoded.codes[codec.blocks[0].key][0])
    if isinstance(codec, LevelCodec):
        return Condition(name, cell, codec.decode(np.array([cell]))[0])
    positions, _ = codec.positions(pa.array([value.strip()]))
    return Condition(name, cell, codec.decode_positions(positions, np.array([False]))[0])


def _domain(column: AnyColumn) -> str:
    if column.kind == "categorical":
        shown = ", ".join(str(level) for level in column.categories[:8])
        return f"levels {shown}{', …' if len(column.categories) > 8 else ''}"
    if column.kind == "boolean":
        return "true or false"
    return f"from {column.bounds[0]} to {column.bounds[1]}" if column.kind != "id" else "no values"


def sample_rows(
    model: TableModel, rows: int, *, seed: int | None = None, conditions: tuple[Condition, ...] = ()
) -> Iterator[pa.RecordBatch]:
    """`rows` synthetic rows, a batch at a time; the same seed and model give the same rows on one machine.

    Raises UserError when the model gives the conditions no probability at all.
    """
    rng = np.random.default_rng(seed)
    weights = point_weights(model, conditions)
    made = 0
    while made < rows:
        size = min(ROWS_AT_ONCE, rows - made)
        yield _batch(model, size, made, weights, conditions, rng)
        made += size


def point_weights(model: TableModel, conditions: tuple[Condition, ...]) -> FloatArray:
    """Posterior weight of each class and latent point given the conditions [classes, K]; sums to 1."""
    classes, points, _ = model.shares.shape
    logs = np.repeat(np.log(np.maximum(model.class_share, 1e-300))[:, None], points, axis=1)
    logs[model.class_share <= 0] = -np.inf
    for condition in conditions:
        if condition.column == model.target and condition.column not in model.encoding.names:
            logs[np.arange(classes) != model.class_of_cell[condition.cell]] = -np.inf
            continue
        # The value's share of its bin is the same at every point, so it cancels; it may be zero after denoising.
        bin_ = int(model.decoders[condition.column].bin_of_cell[condition.cell])
        place = model.encoding.place(condition.column).start + bin_
        with np.errstate(divide="ignore"):
            logs += np.log(model.shares[:, :, place].astype(np.float64))
    best = logs.max()
    if not np.isfinite(best):
        raise UserError("--where: the model holds no such rows (the values are each known, but never together)")
    weights = np.exp(logs - best)
    return np.asarray(weights / weights.sum())


def _batch(
    model: TableModel,
    rows: int,
    first_id: int,
    weights: FloatArray,
    conditions: tuple[Condition, ...],
    rng: np.random.Generator,
) -> pa.RecordBatch:
    names = model.encoding.names
    fixed = {
        names.index(c.column): int(model.decoders[c.column].bin_of_cell[c.cell])
        for c in conditions
        if c.column in names
    }
    per_class = split_by_share(rows, weights.sum(axis=1), rng)
    parts = [
        draw_bins(int(n), model.shares[c], weights[c] / weights[c].sum(), model.encoding.sizes, rng, fixed=fixed)
        for c, n in enumerate(per_class)
        if n
    ]
    order = rng.permutation(rows)
    bins = np.concatenate(parts)[order]
    labels = np.repeat(np.arange(len(per_class)), per_class)[order]
    held = {condition.column: condition.value for condition in conditions}
    columns: list[pa.Array] = []
    for column in model.schema.columns:
        if column.kind == "id":
            columns.append(pa.array([f"{column.name}-{i:09d}" for i in range(first_id + 1, first_id + rows + 1)]))
        elif column.name in held:
            columns.append(pa.repeat(held[column.name], rows))
        elif column.name in names:
            codec, decoder = model.codecs[column.name], model.decoders[column.name]
            columns.append(decode_column(codec, decoder, bins[:, names.index(column.name)], rng))
        else:
            codec = model.codecs[column.name]
            assert isinstance(codec, LevelCodec)
            columns.append(codec.decode(labels))
    return pa.record_batch(columns, schema=arrow_schema(model.schema, model.codecs))
