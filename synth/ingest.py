"""The source: opened, its header checked against the schema, and its declared columns read batch by batch.

Only the columns of the schema are ever read. Header checks look at names and physical types alone; they run
before the budget is reserved. Errors name the rule, the column and the remedy, never a value.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from synth.errors import InvalidSource
from synth.schema import AnyColumn, Schema
from synth.yaml_file import nearest

BATCH_ROWS = 65_536
NULL_WORDS = ("", "NA", "NaN", "nan", "null", "NULL", "None")
_PARQUET_MAGIC = b"PAR1"


def check_header(path: Path, schema: Schema) -> None:
    """Raise InvalidSource unless the file can be opened and holds every declared column in a fitting type."""
    _Source.open(path, schema)


def header_of(path: Path) -> pa.Schema:
    """Column names and physical types of a file; for CSV the types that its first megabyte parses as."""
    if _first_bytes(path) == _PARQUET_MAGIC:
        return _parquet_header(path)[0]
    _csv_header(path)
    try:
        with pa.csv.open_csv(path, parse_options=pa.csv.ParseOptions(newlines_in_values=True)) as reader:
            return reader.schema
    except (pa.ArrowException, OSError):
        raise InvalidSource(f"source {path}: is not CSV with one header line and equal rows") from None


def read_batches(path: Path, schema: Schema) -> Iterator[pa.RecordBatch]:
    """The declared columns of the source, at most BATCH_ROWS rows at a time, in the schema's order.

    Raises InvalidSource when the file turns out to be damaged.
    """
    yield from _read(path, schema, [column.name for column in schema.learned_columns])


def read_persons(path: Path, schema: Schema) -> Iterator[pa.Array]:
    """The person column of the source, in the order of `read_batches`. Raises InvalidSource as it does."""
    assert schema.person_column is not None
    for batch in _read(path, schema, [schema.person_column]):
        yield batch.column(0)


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Raise InvalidSource when the file is written or replaced meanwhile: several passes have to see the same rows."""
    before = _state(path)
    yield
    if _state(path) != before:
        raise InvalidSource("source: changed while it was being read; run again on a file at rest")


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path, schema: Schema, names: list[str]) -> Iterator[pa.RecordBatch]:
    source = _Source.open(path, schema)
    try:
        yield from source.batches(names)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        # The library's message can quote the line it failed on, so it is replaced.
        raise InvalidSource(f"source {path.name}: damaged or not in the format its header announces") from None


class _Source:
    """A Parquet or CSV file with a checked header."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path

    @staticmethod
    def open(path: Path, schema: Schema) -> _Source:
        parquet = _first_bytes(path) == _PARQUET_MAGIC
        return _ParquetSource(path, schema) if parquet else _CsvSource(path, schema)

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError


class _ParquetSource(_Source):
    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path, schema)
        arrow, rows = _parquet_header(path)
        _check_names(path, arrow.names, schema)
        problems = []
        for column in schema.learned_columns:
            kind = arrow.field(arrow.names.index(column.name)).type
            if not _holds(kind, column):
                problems.append(f"column {column.name} is {kind} and cannot hold kind {column.kind}")
        if problems:
            raise InvalidSource(f"source {path}: {'; '.join(problems)}; convert the source or correct the schema")
        if rows == 0:
            raise InvalidSource(f"source {path}: has no rows")

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                yield batch.select(names)


class _CsvSource(_Source):
    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path, schema)
        self.levels = {c.name: set(c.categories) for c in schema.learned_columns if c.kind == "categorical"}
        header, has_rows = _csv_header(path)
        _check_names(path, header, schema, hint=False)
        if not has_rows:
            raise InvalidSource(f"source {path}: has a header and no rows")

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        # Every column is read as text and parsed by its codec: type inference would look at values, and a value
        # that does not parse must follow the schema's rule instead of failing the read.
        levels = set().union(*self.levels.values())
        reader = pa.csv.open_csv(
            self.path,
            read_options=pa.csv.ReadOptions(block_size=8 << 20, use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=names,
                column_types={name: pa.string() for name in names},
                strings_can_be_null=True,
                null_values=[word for word in NULL_WORDS if word not in levels],
                quoted_strings_can_be_null=False,
            ),
        )
        with reader:
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield self._without_null_words(batch.slice(start, BATCH_ROWS).select(names))

    def _without_null_words(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A word that is a level of one column still stands for a missing value in the others."""
        words = set(NULL_WORDS).intersection(set().union(*self.levels.values()))
        for i, name in enumerate(batch.schema.names) if words else ():
            here = pa.array(sorted(words - self.levels.get(name, set())), pa.string())
            text = batch.column(i)
            batch = batch.set_column(i, name, pc.if_else(pc.is_in(text, here), pa.scalar(None, pa.string()), text))
        return batch


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InvalidSource(f"source {path}: is a folder; name a Parquet or CSV file")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_PARQUET_MAGIC))
    except FileNotFoundError:
        raise InvalidSource(f"source {path}: no such file") from None
    except OSError as error:
        raise InvalidSource(f"source {path}: cannot be read ({error.strerror})") from None
    if not start:
        raise InvalidSource(f"source {path}: the file is empty")
    if start != _PARQUET_MAGIC and path.suffix.lower() in {".parquet", ".pq"}:
        raise InvalidSource(f"source {path}: is not a Parquet file, whatever its name says")
    return start


def _parquet_header(path: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError):
        raise InvalidSource(f"source {path}: damaged or truncated Parquet file; write it again") from None


def _csv_header(path: Path) -> tuple[list[str], bool]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            return next(rows, []), any(rows)
    except (UnicodeDecodeError, csv.Error):
        raise InvalidSource(f"source {path}: is neither Parquet nor UTF-8 CSV text") from None


def _check_names(path: Path, names: list[str], schema: Schema, *, hint: bool = True) -> None:
    """Raise InvalidSource unless every declared column is there once.

    `hint` tells the nearest name of the file. Not for CSV: the first line of one without a header is a person's row.
    """
    counts = Counter(names)
    problems = []
    person = [schema.person_column] if schema.person_column else []
    for name in [*(column.name for column in schema.learned_columns), *person]:
        if counts[name] == 0:
            problems.append(f"column {name} is missing{nearest(name, names) if hint else ''}")
        elif counts[name] > 1:
            problems.append(f"column {name} appears {counts[name]} times")
    if problems:
        advice = "" if hint else "; a CSV file names its columns in its first line"
        raise InvalidSource(f"source {path}: {'; '.join(problems)}{advice}")


def _holds(kind: pa.DataType, column: AnyColumn) -> bool:
    """Whether a Parquet column of this physical type can hold the declared kind."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return True
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if column.kind in {"integer", "continuous"}:
        return bool(number)
    if column.kind == "boolean":
        return bool(pa.types.is_boolean(kind) or number)
    if column.kind == "datetime":
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or text)
    return bool(text or number or pa.types.is_boolean(kind))
