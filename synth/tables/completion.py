"""Completion: the empty cells of a partial table, filled from a released model given the row's other cells.

Exact: a row's latent point is drawn from its posterior given the cells that are there, then each empty cell from its
own distribution at that point. Every null is filled, and never with missing: a null says that there is a value which
nobody knows. It costs no budget, but the result holds the rows of the partial table and is as private as they are.
What is filled meets the declared rules, except in rows whose own cells leave no way to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synth.errors import InvalidSource
from synth.ingest import holds
from synth.missing_codes import without_codes
from synth.tables.codec import Codec, LevelCodec
from synth.tables.conditions import whole_domain
from synth.tables.decode import arrow_schema, values_at
from synth.tables.likelihood import Evidence, cells_of, evidence_of, evidence_row, log_joint, rows_at_once
from synth.tables.model import TableModel
from synth.tables.pieces import Pieces
from synth.tables.posterior import restricted
from synth.tables.rows import class_values, fresh_ids
from synth.tables.rule_tree import chosen
from synth.tables.ruled_completion import Filled, RuledFiller, broken_by_given
from synth.tables.rules import Rule, parts_of
from synth.tables.sample import cumulatives, inverse

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BATCH_ROWS = 32_768


class PartialTable:
    """A Parquet file with rows to complete, its header checked against the model.

    Columns of the schema may be absent (all their cells are filled); other columns are carried along as they are.
    Raises InvalidSource for what is not such a file.
    """

    def __init__(self, path: Path, model: TableModel) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self.schema: pa.Schema = file.schema_arrow
                self.rows: int = file.metadata.num_rows
        except OSError as error:
            raise InvalidSource(f"{path}: cannot be read ({error.strerror or 'no such file'})") from None
        except pa.ArrowException:
            raise InvalidSource(f"{path}: is not a Parquet file, or damaged; write it as Parquet") from None
        names = self.schema.names
        problems = [f"column {name} appears twice" for name in sorted({n for n in names if names.count(n) > 1})]
        known = [name for name in model.codecs if name in names]
        for name in known:
            kind, column = self.schema.field(names.index(name)).type, model.schema.column(name)
            if not holds(kind, column):
                problems.append(f"column {name} is {kind} and cannot hold kind {column.kind}")
        if not known:
            problems.append(f"has none of the model's columns ({', '.join(model.codecs)})")
        if problems:
            raise InvalidSource(f"{path}: {'; '.join(problems)}")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, at most BATCH_ROWS at a time. Raises InvalidSource for a damaged file."""
        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(batch_size=BATCH_ROWS)
        except (pa.ArrowException, OSError):
            # The library's message can quote what it failed on, so it is replaced.
            raise InvalidSource(f"{self.path}: damaged; write it again") from None


def completed_schema(model: TableModel, partial: pa.Schema) -> pa.Schema:
    """The declared columns in their order and types, then the partial table's others; nothing of its metadata."""
    declared = arrow_schema(model.schema, model.codecs)
    ids = {column.name for column in model.schema.columns if column.kind == "id"}
    plain = {field.name: pa.field(field.name, field.type) for field in partial}
    first = [plain[field.name] if field.name in ids and field.name in plain else field for field in declared]
    return pa.schema([*first, *(field for name, field in plain.items() if name not in declared.names)])


def complete(
    model: TableModel,
    partial: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    *,
    seed: int | None = None,
    on_broken: Callable[[int], object] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of `batches`, in order, with every empty cell of a learned column filled.

    Cells that are there stay as they are, in the declared type. The same seed, model and batches give the same rows on
    one machine. Ids are carried along; an absent id column gets fresh ones. `on_broken` is told of each batch how many
    rows break a declared rule by their own cells, or leave no way to meet one: such rows are filled by the rules that
    share no column with that one.

    Raises InvalidSource for a value outside its declared domain, naming the column and no value.
    """
    rng = np.random.default_rng(seed)
    filler = _Filler(model)
    schema, done = completed_schema(model, partial), 0
    for batch in batches:
        found, null = {}, {}
        for name, codec in model.codecs.items():
            if name in batch.schema.names:
                found[name], null[name] = _known(codec, without_codes(batch.column(name), codec.column.missing_codes))
            else:
                null[name] = np.ones(batch.num_rows, dtype=bool)
        cells = {name: cells for name, (cells, _) in found.items()}
        filled, broken = filler.fill(cells, null, {name: values for name, (_, values) in found.items()}, rng)
        if broken and on_broken is not None:
            on_broken(broken)
        columns = []
        for field in schema:
            name = field.name
            if name in found:
                columns.append(pc.replace_with_mask(found[name][1], pa.array(null[name]), filled[name]))
            elif name in filled:
                columns.append(filled[name])
            elif name in batch.schema.names:
                columns.append(batch.column(name))
            else:
                columns.append(fresh_ids(name, done, batch.num_rows))
        done += batch.num_rows
        yield pa.record_batch(columns, schema=schema)


class _Filler:
    """Draws the empty cells of rows; holds what is the same for all rows."""

    def __init__(self, model: TableModel) -> None:
        self.model = model
        self.evidence: Evidence = evidence_of(model)
        self.pieces: dict[str, Pieces] = {}
        self.cumulative: dict[str, FloatArray] = {}
        classes, points, width = model.shares.shape
        shares = model.shares.reshape(classes * points, width)
        for name in model.encoding.names:
            codec = model.codecs[name]
            there = restricted(codec, model.decoders[name], whole_domain(codec, missing=False))
            place = model.encoding.place(name)
            size = place.stop - place.start
            self.pieces[name] = there
            (self.cumulative[name],) = cumulatives(shares[:, place], (size,), {0: there.bin_mass})
        self.ruled = RuledFiller(model, self.evidence, self.pieces) if model.rules else None
        self.fewer: dict[tuple[str, ...], RuledFiller] = {}

    def fill(
        self,
        cells: dict[str, IntArray],
        null: dict[str, BoolArray],
        values: Mapping[str, pa.Array],
        rng: np.random.Generator,
    ) -> tuple[dict[str, pa.Array], int]:
        """Values of each column's empty cells, in order; and how many rows break rules whatever is filled in."""
        model = self.model
        rows = {}
        for name, empty in null.items():
            any_value = len(self.evidence.columns[name]) - 1
            known = evidence_row(model, name, np.where(empty, 0, cells[name])) if name in cells else 0
            rows[name] = np.where(empty, any_value, known)
        wanted = np.any([*null.values()], axis=0)
        point = np.zeros(len(wanted), dtype=np.int64)
        ruled, drawn, broken = np.zeros(len(wanted), dtype=bool), {}, 0
        if self.ruled is not None:
            by_rules = self.ruled.fill(rows, null, values, rng)
            ruled, point, drawn = by_rules.rows, by_rules.point, by_rules.positions
            stuck = np.any([null[name] for name in drawn], axis=0) & ~ruled
            broken = int((broken_by_given(model, null, values) | stuck).sum())
            for some, found in self._by_fewer_rules(np.nonzero(stuck)[0], rows, null, values, rng):
                some, here = some[found.rows], np.nonzero(found.rows)[0]
                ruled[some], point[some] = True, found.point[here]
                for name, positions in found.positions.items():
                    drawn[name][some] = positions[here]
        wanted = np.nonzero(wanted & ~ruled)[0]
        step = rows_at_once(self.evidence)
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            logs = log_joint(self.evidence, {name: index[some] for name, index in rows.items()})
            point[some] = chosen(np.exp(logs - logs.max(axis=1, keepdims=True)), rng)
        filled = {}
        for name, empty in null.items():
            here = point[empty]
            if name in self.pieces:
                bins = inverse(self.cumulative[name], here, rng.random(len(here)))
                positions = self.pieces[name].draw(bins, rng)
                if name in drawn:
                    by_rule = drawn[name][empty]
                    positions = np.where(ruled[empty] & ~np.isnan(by_rule), by_rule, positions)
                filled[name] = values_at(model.codecs[name], positions)
            else:
                filled[name] = class_values(model, here // model.shares.shape[1])
        return filled, broken

    def _by_fewer_rules(
        self,
        stuck: IntArray,
        rows: Mapping[str, IntArray],
        null: Mapping[str, BoolArray],
        values: Mapping[str, pa.Array],
        rng: np.random.Generator,
    ) -> Iterator[tuple[IntArray, Filled]]:
        """Rows whose own cells leave no way to meet one rule, by all parts of the rules that they can meet."""
        parts = parts_of(self.model.rules)
        if not len(stuck) or len(parts) < 2:
            return

        def filled(some: IntArray, rules: tuple[Rule, ...]) -> Filled:
            key = tuple(rule.text for rule in rules)
            if key not in self.fewer:
                self.fewer[key] = RuledFiller(self.model.ruled_by(rules), self.evidence, self.pieces)
            of = (
                {name: array[some] for name, array in rows.items()},
                {name: empty[some] for name, empty in null.items()},
            )
            held = {name: array.take(pa.array(some)) for name, array in values.items()}
            return self.fewer[key].fill(*of, held, rng)

        can = np.ones((len(stuck), len(parts)), dtype=bool)
        for i, part in enumerate(parts):
            open_ = np.any([null[name][stuck] for rule in part for name in rule.columns], axis=0)
            can[:, i] = filled(stuck, part).rows | ~open_
        for kept in np.unique(can, axis=0):
            rules = tuple(rule for part, keep in zip(parts, kept, strict=True) if keep for rule in part)
            some = stuck[(can == kept).all(axis=1)]
            if rules:
                yield some, filled(some, rules)


def _known(codec: Codec, array: pa.Array) -> tuple[tuple[IntArray, pa.Array], BoolArray]:
    """Cells and values of a column in its output type, and which are null."""
    cells, null = cells_of(codec, array)
    if isinstance(codec, LevelCodec):
        return (cells, values_at(codec, np.where(null, np.nan, cells))), null
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        values = array.cast(codec.arrow_type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # text, or finer than the declared type
        values = values_at(codec, codec.positions(array)[0])
    return (cells, values), null
