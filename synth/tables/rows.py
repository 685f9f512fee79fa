"""Rows: synthetic records of the declared types, drawn from a released model. No budget is spent.

Conditions are exact and nothing is rejected (`posterior.py`): rows under conditions, and rows with asked shares, are
drawn one by one as the model has them. Without either, a sweep over the whole batch also removes sampling noise.
Where the schema declares rules, every row meets them (`ruled.py`), before the sweep and after it.

Rows come in blocks. Each block has a seed of its own, so it is the same whoever draws it, and whatever else is drawn.
"""

from __future__ import annotations

import copy
import functools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.errors import UserError
from synth.tables.conditions import Balance
from synth.tables.decode import arrow_schema, values_at
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, Pieces, Region
from synth.tables.posterior import Posterior, posterior_of
from synth.tables.ruled import RuledPosterior, ruled_posterior
from synth.tables.ruled_sweep import Swept, swept_columns, swept_rows
from synth.tables.sample import bins_at, draw_bins, draw_points, split_by_share
from synth.tables.workers import Workers

IntArray = npt.NDArray[np.int64]

ROWS_AT_ONCE = 50_000
"""Part of what a seed means: rows are drawn in blocks of this size, whoever reads them."""


def sample_rows(
    model: TableModel,
    rows: int,
    *,
    seed: int | None = None,
    conditions: Mapping[str, Region] | None = None,
    balance: Balance | None = None,
) -> Iterator[pa.RecordBatch]:
    """`rows` synthetic rows, a block at a time.

    The same seed, model, number of rows, conditions and balance give the same rows on one machine.

    Raises UserError when the model gives the conditions no probability at all.
    """
    yield from map(_drawn(model, rows, seed, conditions or {}, balance), blocks_of(rows))


def sample_rows_by(workers: Workers, folder: Path, rows: int, *, seed: int | None = None) -> Iterator[pa.RecordBatch]:
    """`rows` synthetic rows of the model saved in `folder`, as `sample_rows` has them, drawn by workers who see it."""
    common = secrets.randbits(128) if seed is None else seed
    return workers.map(functools.partial(_block, folder, rows, common), blocks_of(rows))


def blocks_of(rows: int) -> range:
    """The numbers of the blocks that so many rows come in."""
    return range(-(-rows // ROWS_AT_ONCE))


def _block(folder: Path, rows: int, seed: int, block: int) -> pa.RecordBatch:
    return _drawn_from(folder, rows, seed)(block)


@functools.lru_cache(maxsize=1)  # a worker draws many blocks of one model
def _drawn_from(folder: Path, rows: int, seed: int) -> Callable[[int], pa.RecordBatch]:
    return _drawn(TableModel.load(folder), rows, seed, {}, None)


def _drawn(
    model: TableModel, rows: int, seed: int | None, conditions: Mapping[str, Region], balance: Balance | None
) -> Callable[[int], pa.RecordBatch]:
    """What draws a block by its number, from a seed of the block's own."""
    seeds = np.random.SeedSequence(seed)
    rng = np.random.default_rng(seeds)  # of the first block, and of what is worked out once before it
    if model.rules:
        make = _ruled_rows(model, rows, conditions, balance, rng)
    else:
        make = _plain_rows(model, conditions, balance)

    def draw(block: int) -> pa.RecordBatch:
        first = block * ROWS_AT_ONCE
        own = np.random.SeedSequence(seeds.entropy, spawn_key=(block,))
        randomness = np.random.default_rng(own) if block else copy.deepcopy(rng)
        return make(first, min(ROWS_AT_ONCE, rows - first), randomness)

    return draw


Make = Callable[[int, int, np.random.Generator], pa.RecordBatch]
"""Makes so many rows, of which the first has this number."""


def _plain_rows(model: TableModel, conditions: Mapping[str, Region], balance: Balance | None) -> Make:
    """Rows of a model without rules."""
    posterior = posterior_of(model, conditions, balance)
    plain = not conditions and balance is None

    def make(first: int, size: int, rng: np.random.Generator) -> pa.RecordBatch:
        bins, classes = (_refined if plain else _exact)(model, posterior, size, rng)
        order = rng.permutation(size)
        return _records(model, posterior.pieces, bins[order], classes[order], {}, first, rng)

    return make


def _ruled_rows(
    model: TableModel, rows: int, conditions: Mapping[str, Region], balance: Balance | None, rng: np.random.Generator
) -> Make:
    """Rows of a model with rules: each part of a balance is drawn by itself."""
    parts = [(1.0, conditions)] if balance is None else balanced_parts(model, conditions, balance)
    try:
        drawn = [(share, ruled_posterior(model, part)) for share, part in parts]
    except UserError:
        if balance is None:
            raise
        raise UserError(
            f"--balance {balance.column}: under the declared rules the model never makes one of the levels asked for"
        ) from None
    # Without conditions there is one posterior, and its rows are swept.
    swept = [] if conditions or balance else swept_columns(model, drawn[0][1], min(rows, ROWS_AT_ONCE), rng)

    def make(first: int, size: int, rng: np.random.Generator) -> pa.RecordBatch:
        sizes = split_by_share(size, np.array([share for share, _ in drawn]), rng)
        batches = [
            _ruled(model, posterior, int(n), swept, rng) for n, (_, posterior) in zip(sizes, drawn, strict=True) if n
        ]
        batch = pa.Table.from_batches(batches).combine_chunks().take(pa.array(rng.permutation(size)))
        for i, column in enumerate(model.schema.columns):
            if column.kind == "id":
                batch = batch.set_column(i, batch.schema.field(i), fresh_ids(column.name, first, size))
        return batch.to_batches()[0]

    return make


def balanced_parts(
    model: TableModel, conditions: Mapping[str, Region], balance: Balance
) -> list[tuple[float, dict[str, Region]]]:
    """The parts that a balance asks for, with their shares: each named level, and all others as one.

    A balance gives no share to what the conditions leave out.
    """
    cells = np.arange(len(balance.shares), dtype=np.float64)
    missing = model.codecs[balance.column].missing
    parts = []

    def part(share: float, which: IntArray) -> None:
        at = cells[which[which != missing]]
        region = Region(np.stack([at, at], axis=1), missing is not None and bool((which == missing).any()))
        parts.append((share, {**conditions, balance.column: region}))

    for cell in np.nonzero(balance.shares > 0)[0]:
        part(float(balance.shares[cell]), np.array([cell]))
    rest = 1.0 - float(np.nansum(balance.shares))
    if rest > 1e-9:
        part(rest, np.nonzero(np.isnan(balance.shares))[0])
    return parts


def _ruled(
    model: TableModel, posterior: RuledPosterior, rows: int, swept: Sequence[Swept], rng: np.random.Generator
) -> pa.RecordBatch:
    """Rows that meet all rules, by ascending latent point."""
    classes, points, width = model.shares.shape
    point, ruled, positions = posterior.draw(model, rows, rng)
    names, pieces = model.encoding.names, posterior.plain.pieces
    bins = np.zeros((rows, len(names)), dtype=np.int64)
    for c in range(classes if swept else 0):
        own = slice(*np.searchsorted(point, [c * points, (c + 1) * points]))
        at = {name: found[own] for name, found in positions.items()}
        before = {name: found[own] for name, found in ruled.items()}
        found = swept_rows(model, swept[c], pieces, point[own] - c * points, before, at, rng)
        for name, own_bins in found.items():
            bins[own, names.index(name)] = own_bins
        for name, own_positions in at.items():
            positions[name][own] = own_positions
    if not swept:
        factors = {names.index(name): pieces[name].bin_mass for name in posterior.plain.held if name not in ruled}
        shares = model.shares.reshape(classes * points, width)
        bins = bins_at(point, shares, model.encoding.sizes, rng, factors=factors)
    return _records(model, pieces, bins, point // points, positions, 0, rng)


def _refined(model: TableModel, posterior: Posterior, rows: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Bins and classes of rows, class by class, with the sweep."""
    share = posterior.weights.sum(axis=1)
    per_class = split_by_share(rows, share, rng)
    parts = [
        draw_bins(int(n), model.shares[c], posterior.weights[c] / share[c], model.encoding.sizes, rng)
        for c, n in enumerate(per_class)
        if n
    ]
    return np.concatenate(parts), np.repeat(np.arange(len(per_class)), per_class)


def _exact(model: TableModel, posterior: Posterior, rows: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Bins and classes of rows drawn from the posterior."""
    classes, points, width = model.shares.shape
    shares, names = model.shares.reshape(classes * points, width), model.encoding.names
    factors = {names.index(name): posterior.pieces[name].bin_mass for name in posterior.held}
    weights = posterior.weights.ravel()
    if posterior.balanced is None:
        point = draw_points(rows, weights, rng)
        return bins_at(point, shares, model.encoding.sizes, rng, factors=factors), point // points
    # Bins of the balanced column first, so that its shares hold up to rounding and not on average alone.
    lead = names.index(posterior.balanced)
    own = shares[:, model.encoding.place(posterior.balanced)] * factors[lead]
    joint = weights / np.maximum(own.sum(axis=1), 1e-300) * own.T
    both = draw_points(rows, joint.ravel(), rng)
    lead_bin, point = np.divmod(both, classes * points)
    order = np.argsort(point, kind="stable")
    lead_bin, point = lead_bin[order], point[order]
    bins = bins_at(point, shares, model.encoding.sizes, rng, factors=factors)
    bins[:, lead] = lead_bin
    return bins, point // points


def _records(
    model: TableModel,
    pieces: Mapping[str, Pieces],
    bins: IntArray,
    classes: IntArray,
    known: Mapping[str, FloatArray],
    first_id: int,
    rng: np.random.Generator,
) -> pa.RecordBatch:
    """Rows of the declared types; `known` has the positions of columns that are drawn already."""
    names, columns = model.encoding.names, []
    for column in model.schema.columns:
        if column.kind == "id":
            columns.append(fresh_ids(column.name, first_id, len(bins)))
        elif column.name in known:
            columns.append(values_at(model.codecs[column.name], known[column.name]))
        elif column.name in names:
            positions = pieces[column.name].draw(bins[:, names.index(column.name)], rng)
            columns.append(values_at(model.codecs[column.name], positions))
        else:
            columns.append(class_values(model, classes))
    return pa.record_batch(columns, schema=arrow_schema(model.schema, model.codecs))


def class_values(model: TableModel, classes: IntArray) -> pa.Array:
    """Values of the target, where it is the class itself."""
    assert model.target is not None
    codec = model.codecs[model.target]
    cells = classes.astype(np.float64)
    if codec.missing is not None:
        cells[classes == codec.missing] = np.nan
    return values_at(codec, cells)


def fresh_ids(name: str, first: int, rows: int) -> pa.Array:
    """Ids that nobody has, numbered on from `first`."""
    return pa.array([f"{name}-{i:09d}" for i in range(first + 1, first + rows + 1)])
