"""The source: opened, its header checked against the schema, and its declared columns read batch by batch.

Only the columns of the schema are ever read. Header checks look at names and physical types; they run before the
budget is reserved. Text has no physical type but text, so there the first cells say whether a column is of its kind
at all. Errors name the rule, the column and the remedy, never a value.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from synth.config import Database
from synth.errors import InvalidSource
from synth.missing_codes import without_codes
from synth.schema import AnyColumn, Schema
from synth.yaml_file import nearest

if TYPE_CHECKING:
    from synth.database import Snapshot  # the driver is loaded where it is used

BATCH_ROWS = 65_536
SUFFIXES = {".parquet", ".pq", ".csv"}
"""Of the files of a folder. What a single file is called does not matter."""
NULL_WORDS = ("", "NA", "NaN", "nan", "null", "NULL", "None")
SEPARATORS = (",", ";", "\t")
"""What spreadsheets write between cells; `separator_of` tells which."""
CSV_ROWS = "in CSV each row has as many cells as the header, quotes are closed, and the text is UTF-8"
FIRST_CELLS, TELLING_CELLS = 1000, 20
"""How many rows are looked at for the kinds of text columns, and how many cells it takes to say that none fits."""
FORMS = {
    "integer": "a number (12, 1e3)",
    "continuous": "a number with a decimal point (12.5)",
    "datetime": "a date (2024-12-31, 2024-12-31T23:59:59)",
    "boolean": "true or false (yes, no, 1, 0)",
}
_PARQUET_MAGIC = b"PAR1"


def check_header(source: Path | Database, schema: Schema) -> None:
    """Raise InvalidSource unless the source can be opened and holds every declared column in a fitting type.

    Of a folder every file is looked at. Of columns of text, the first cells (see `_check_text`).
    """
    if isinstance(source, Database):
        _check_database(source, schema)
    else:
        _Source.open(source, schema)
        _check_text(source, schema)


def header_of(source: Path | Database, *, missing: Sequence[str] = ()) -> pa.Schema:
    """Column names and physical types of a source; for CSV the types that its first megabyte parses as.

    Of a folder its first file's. `missing` are codes that stand for a missing value in CSV, beside the usual ones.
    """
    if isinstance(source, Database):
        from synth import database

        return database.header_of(source)
    path = _parts_of(source)[0] if source.is_dir() else source
    if _first_bytes(path) == _PARQUET_MAGIC:
        return _parquet_header(path)[0]
    _, _, separator = _csv_header(path)
    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    convert = pa.csv.ConvertOptions(null_values=[*pa.csv.ConvertOptions().null_values, *missing])
    try:
        with pa.csv.open_csv(path, parse_options=parse, convert_options=convert) as reader:
            return reader.schema
    except (pa.ArrowException, OSError):
        raise InvalidSource(
            f"source {path}: is not CSV with one header line and as many cells in each row; save it again"
        ) from None


def read_batches(
    source: Path | Snapshot, schema: Schema, names: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The declared columns of the source, or those named, at most BATCH_ROWS rows at a time, in the schema's order.

    Raises InvalidSource when the source turns out to be damaged.
    """
    learned = [column.name for column in schema.learned_columns]
    yield from _read(source, schema, learned if names is None else [name for name in learned if name in names])


def read_persons(source: Path | Snapshot, schema: Schema) -> Iterator[pa.Array]:
    """The person column of the source, in the order of `read_batches`. Raises InvalidSource as it does."""
    assert schema.person_column is not None
    for batch in _read(source, schema, [schema.person_column]):
        yield batch.column(0)


@contextmanager
def at_rest(source: Path | Database) -> Iterator[Path | Snapshot]:
    """What to read: several passes over it see the same rows.

    For a database it is one snapshot of its own; files are looked at again at the end. Raises InvalidSource when one
    was written or replaced meanwhile, or the database cannot be reached.
    """
    if isinstance(source, Database):
        from synth.database import snapshot

        with snapshot(source) as rows:
            yield rows
        return
    refuse_changed = watch(source)
    yield source
    refuse_changed()


def watch(source: Path | Database) -> Callable[[], None]:
    """What raises InvalidSource when a file has been written or replaced since; a database's snapshot never is."""
    if isinstance(source, Database):
        return lambda: None
    path, before = source, _state(source)

    def refuse_changed() -> None:
        if _state(path) != before:
            raise InvalidSource("source: changed while it was being read; run again on a file at rest")

    return refuse_changed


def _state(path: Path) -> tuple[tuple[str | int, ...], ...] | None:
    """What changes when the file does, or any file of the folder."""
    try:
        files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
        found = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    return tuple((name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found)


def _read(source: Path | Snapshot, schema: Schema, names: list[str]) -> Iterator[pa.RecordBatch]:
    codes = {column.name: column.missing_codes for column in schema.learned_columns if column.missing_codes}
    for batch in _read_plain(source, schema, names):
        for i, name in enumerate(names):
            if name in codes:
                batch = batch.set_column(i, name, without_codes(batch.column(i), codes[name]))
        yield batch


def _read_plain(source: Path | Snapshot, schema: Schema, names: list[str]) -> Iterator[pa.RecordBatch]:
    if not isinstance(source, Path):
        learned = [column.name for column in schema.learned_columns]
        for batch in source.batches(learned, person=schema.person_column, most_rows=BATCH_ROWS):
            yield batch.select(names)
        return
    opened = _Source.open(source, schema)
    try:
        yield from opened.batches(names)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        # The library's message can quote the line it failed on, so it is replaced.
        raise InvalidSource(f"source {source.name}: damaged, or not what its header announces; {CSV_ROWS}") from None


def _check_text(source: Path, schema: Schema) -> None:
    """Raise InvalidSource when a column of text holds nothing that reads as the declared number, date or truth value.

    Otherwise each of its cells would be outside the domain, and the budget spent on whatever stands for those. One
    cell that reads suffices, and a handful that does not says nothing: single values follow the schema's rule.
    Categories are not looked for: who writes the schema could so ask, uncharged, whether anybody has a given value. Nor
    is a column with `missing_codes` looked at: what is left of it would answer how many have none of the given values.
    """
    from synth.tables.codec import codec_of

    columns = [column for column in schema.learned_columns if column.kind in FORMS and not column.missing_codes]
    first = next(_read(source, schema, [column.name for column in columns]), None) if columns else None
    problems = []
    for column, array in zip(columns, first.slice(0, FIRST_CELLS).columns if first is not None else (), strict=False):
        plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        if not (pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)):
            continue
        positions, null = codec_of(column).positions(plain)
        if (~null).sum() >= TELLING_CELLS and np.isnan(positions[~null]).all():
            problems.append(f"column {column.name} holds no cell that reads as {FORMS[column.kind]}")
    if problems:
        raise InvalidSource(
            f"source {source}: {'; '.join(problems)}, as far as its first rows show; "
            "write its cells so, or correct the kind in the schema"
        )


def _check_database(source: Database, schema: Schema) -> None:
    from synth import database

    header, has_rows = database.header_and_rows(source)
    _check_names(database.PLACE, header.names, schema)
    problems = []
    for column in schema.learned_columns:
        field = header.field(column.name)
        if pa.types.is_null(field.type) or not holds(field.type, column):
            shown = field.metadata[database.SHOWN].decode()
            problems.append(f"column {column.name} is {shown} and cannot hold kind {column.kind}")
    if problems:
        raise InvalidSource(
            f"source {database.PLACE}: {'; '.join(problems)}; convert it in source.query (column::text, "
            "column::integer) or correct the schema"
        )
    if not has_rows:
        raise InvalidSource(f"source {database.PLACE}: source.query gives no rows")


class _Source(ABC):
    """Rows with a checked header: a Parquet or CSV file, or a folder of files of one kind.

    `rows` says whether there is a row at all, and `header` what all files of a folder have to share.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def open(path: Path, schema: Schema) -> _Source:
        source = _FolderSource(path, schema) if path.is_dir() else _Source._file(path, schema)
        if not source.has_rows:
            raise InvalidSource(f"source {path}: {source.empty}")
        return source

    @staticmethod
    def _file(path: Path, schema: Schema) -> _FileSource:
        parquet = _first_bytes(path) == _PARQUET_MAGIC
        return _ParquetSource(path, schema) if parquet else _CsvSource(path, schema)

    has_rows: bool
    empty = "has no rows"

    @abstractmethod
    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """The named columns, at most BATCH_ROWS rows at a time."""


class _FileSource(_Source):
    header: frozenset[tuple[str, str]]


class _FolderSource(_Source):
    """Files of one format and header, one after the other, by name."""

    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path)
        self.files = [_Source._file(part, schema) for part in _parts_of(path)]
        first = self.files[0]
        for file in self.files:
            if type(file) is not type(first):
                raise InvalidSource(
                    f"source {file.path}: is of another format than {first.path.name}; keep one of them"
                )
            if file.header != first.header:
                raise InvalidSource(
                    f"source {file.path}: has other columns or types than {first.path.name}; "
                    "all files of a folder are one table"
                )
        self.has_rows = any(file.has_rows for file in self.files)

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            yield from file.batches(names)


def _parts_of(folder: Path) -> list[Path]:
    """The files of a folder that is one table, by name. Raises InvalidSource for what else lies there.

    Names with a dot or an underscore in front are left out: marks and metadata that other programs leave.
    """
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    except OSError as error:
        raise InvalidSource(f"source {folder}: cannot be read ({error.strerror})") from None
    if not found:
        raise InvalidSource(f"source {folder}: is a folder without Parquet or CSV files; name a file or fill it")
    for path in found:
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            raise InvalidSource(
                f"source {folder}: is a folder and holds {path.name}, which is no .parquet, .pq or .csv file; "
                "name a file, or move it away (of pictures, name the folder and their labels in a run.yaml: "
                "source: {folder: …, labels: labels.csv})"
            )
    return found


class _ParquetSource(_FileSource):
    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path)
        arrow, rows = _parquet_header(path)
        self.header = frozenset((field.name, str(field.type)) for field in arrow)
        self.has_rows = rows > 0
        _check_names(path, arrow.names, schema)
        problems = []
        for column in schema.learned_columns:
            kind = arrow.field(arrow.names.index(column.name)).type
            if not holds(kind, column):
                problems.append(f"column {column.name} is {kind} and cannot hold kind {column.kind}")
        if problems:
            raise InvalidSource(f"source {path}: {'; '.join(problems)}; convert the source or correct the schema")

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                yield batch.select(names)


class _CsvSource(_FileSource):
    empty = "has a header and no rows"

    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path)
        self.levels = {c.name: set(c.categories) for c in schema.learned_columns if c.kind == "categorical"}
        header, self.has_rows, self.separator = _csv_header(path)
        self.header = frozenset((name, "") for name in header)
        _check_names(path, header, schema, hint=False)

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        # Every column is read as text and parsed by its codec: type inference would look at values, and a value
        # that does not parse must follow the schema's rule instead of failing the read.
        levels = set().union(*self.levels.values())
        reader = pa.csv.open_csv(
            self.path,
            read_options=pa.csv.ReadOptions(block_size=8 << 20, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
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


def _csv_header(path: Path) -> tuple[list[str], bool, str]:
    """The names, whether there is a row, and what separates cells."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            separator = separator_of(stream)
            rows = csv.reader(stream, delimiter=separator)
            return next(rows, []), any(rows), separator
    except (UnicodeDecodeError, csv.Error):
        raise InvalidSource(f"source {path}: is neither Parquet nor UTF-8 CSV text; export it as one of them") from None


def separator_of(stream: TextIO) -> str:
    """What separates the cells of CSV text, by its header. The stream is at its start again afterwards.

    Where a header holds several of them, it is the one that parts the first row into as many cells. Else a comma.
    """

    def cells(separator: str) -> tuple[int, int]:
        """In the header, and in the first row."""
        stream.seek(0)
        rows = csv.reader(stream, delimiter=separator)
        return len(next(rows, [])), len(next(rows, []))

    parted = {separator: cells(separator) for separator in SEPARATORS}
    stream.seek(0)
    several = [separator for separator, (names, _) in parted.items() if names > 1]
    if len(several) == 1:
        return several[0]
    return next((separator for separator in several if parted[separator][0] == parted[separator][1]), ",")


def _check_names(path: Path | str, names: Sequence[str], schema: Schema, *, hint: bool = True) -> None:
    person = [schema.person_column] if schema.person_column else []
    check_names(path, names, [*(column.name for column in schema.learned_columns), *person], hint=hint)


def check_names(path: Path | str, names: Sequence[str], declared: Sequence[str], *, hint: bool = True) -> None:
    """Raise InvalidSource unless every declared column is there once.

    `hint` tells the nearest name of the file. Not for CSV: the first line of one without a header is a person's row.
    """
    counts = Counter(names)
    problems = []
    for name in declared:
        if counts[name] == 0:
            problems.append(f"column {name} is missing{nearest(name, names) if hint else ''}")
        elif counts[name] > 1:
            problems.append(f"column {name} appears {counts[name]} times")
    if problems:
        advice = "" if hint else "; a CSV file names its columns in its first line"
        raise InvalidSource(f"source {path}: {'; '.join(problems)}{advice}")


def holds(kind: pa.DataType, column: AnyColumn) -> bool:
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
