"""Likelihood: how probable given cells are under a released model, at each latent point and in all.

What is computed here follows from the rows that are asked about, so it is as private as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import InvalidSource
from synth.ingest import holds
from synth.tables.codec import Codec, codec_of
from synth.tables.conditions import domain_of
from synth.tables.model import TableModel
from synth.tables.posterior import density_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NUMBERS_AT_ONCE = 1 << 18
LEAST_SHARE = 1e-38
"""Shares below the smallest single-precision number come as 0; no row is impossible for that."""


@dataclass(frozen=True)
class Evidence:
    """What each cell says about where a row comes from.

    Attributes:
        prior: log-probability of each class and latent point [C·K].
        columns: column → log-probability of each bin (of the class itself: of each class), and in the last row of
            any value at all, missing left out [bins + 1, C·K].
    """

    prior: FloatArray
    columns: dict[str, FloatArray]


def evidence_of(model: TableModel) -> Evidence:
    """The evidence that a model's columns give."""
    classes, points, width = model.shares.shape
    shares = np.maximum(model.shares.reshape(classes * points, width).T.astype(np.float64), LEAST_SHARE)
    columns = {}
    for name in model.encoding.names:
        codec, block = model.codecs[name], shares[model.encoding.place(name)]
        there = np.ones(classes * points)
        if codec.missing is not None:
            other = np.arange(len(block)) != model.decoders[name].bin_of_cell[codec.missing]
            there = np.maximum(block[other].sum(axis=0), LEAST_SHARE)
        columns[name] = np.log(np.concatenate([block, there[None]]))
    if model.target is not None and model.target not in model.encoding.names:
        of = np.repeat(np.arange(classes), points)
        own = of == np.arange(classes)[:, None]
        columns[model.target] = np.where(np.concatenate([own, (of != _missing_class(model))[None]]), 0.0, -np.inf)
    prior = np.repeat(np.log(np.maximum(model.class_share, LEAST_SHARE) / points), points)
    return Evidence(prior, columns)


def _missing_class(model: TableModel) -> int:
    assert model.target is not None
    missing = model.codecs[model.target].missing
    return -1 if missing is None else int(model.class_of_cell[missing])


def log_joint(evidence: Evidence, rows: dict[str, IntArray]) -> FloatArray:
    """log p(z, c, cells) of each row and each class and latent point [rows, C·K].

    `rows` holds for each column that says something the row of its evidence.
    """
    length = len(next(iter(rows.values())))
    logs = np.repeat(evidence.prior[None], length, axis=0)
    for name, index in rows.items():
        logs += evidence.columns[name][index]
    return logs


def rows_at_once(evidence: Evidence) -> int:
    """How many rows' joint probabilities fit a processor's cache, about."""
    return max(16, NUMBERS_AT_ONCE // len(evidence.prior))


def evidence_row(model: TableModel, name: str, cells: IntArray) -> IntArray:
    """The row of a column's evidence for each of its cells."""
    if name in model.encoding.names:
        return model.decoders[name].bin_of_cell[cells]
    return model.class_of_cell[cells]


def cells_of(codec: Codec, array: pa.Array) -> tuple[IntArray, BoolArray]:
    """The cell of each value on the public grid, and which values are null (their cell is the one after all values').

    Raises InvalidSource, naming the column and no value, for a type that cannot hold the column's kind or a value
    outside the declared domain.
    """
    column = codec.column
    if not holds(array.type, column):
        raise InvalidSource(f"column {column.name} is {array.type} and cannot hold kind {column.kind}; convert it")
    strict = codec_of(column.model_copy(update={"outside": "refuse", "nullable": True}))
    try:
        cells = strict.encode(array, np.random.default_rng(0)).codes[codec.blocks[0].key]
    except InvalidSource:
        raise InvalidSource(
            f"column {column.name} holds a value outside its declared domain ({domain_of(column)}); "
            "correct it, or leave the cell empty"
        ) from None
    return cells, cells == strict.missing


def log_likelihood(model: TableModel, table: pa.Table | pa.RecordBatch) -> FloatArray:
    """Log-likelihood of each row under the model [rows], in nats.

    The density of a row is Σ_c p(c)/K Σ_k Π_j p_j(bin | z_k, c) · share_j(cell | bin) / width_j(cell), over the columns
    of the model that `table` has; the others are summed out, and columns the model does not have are left aside.
    Values lie evenly within a cell of the public grid, and a cell's width is its number of positions: 1 for levels and
    missing, whole numbers for integers, steps of the last decimal or of the resolution, and the plain length for
    real numbers. So it sums to 1 over the declared domain, where real numbers are integrated.

    It is the likelihood of the model before declared rules: under rules it would be larger by one factor for all rows
    that meet them.

    What it returns is about the rows of `table` and as private as they are.

    Raises InvalidSource for a null in a column that is not nullable, for a value outside its declared domain, and
    when `table` has no column of the model.
    """
    names = [name for name in model.codecs if name in table.schema.names]
    if not names:
        raise InvalidSource("the table has none of the model's columns")
    evidence, rows = evidence_of(model), {}
    within = np.zeros(table.num_rows)
    for name in names:
        codec, column = model.codecs[name], table.column(name)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        cells, null = cells_of(codec, array)
        if codec.missing is None and null.any():
            raise InvalidSource(f"column {name} holds a null and is not nullable; fill it or leave the column out")
        rows[name] = evidence_row(model, name, cells)
        if name in model.decoders:
            within += np.log(np.maximum(density_of(codec, model.decoders[name]), LEAST_SHARE))[cells]
    total = np.empty(table.num_rows)
    step = rows_at_once(evidence)
    for start in range(0, table.num_rows, step):
        some = slice(start, start + step)
        logs = log_joint(evidence, {name: index[some] for name, index in rows.items()})
        best = logs.max(axis=1)
        total[some] = best + np.log(np.exp(logs - best[:, None]).sum(axis=1))
    return total + within
