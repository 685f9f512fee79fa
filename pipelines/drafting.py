"""`synth schema draft`: a schema.yaml for the steward to finish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipelines.codebook import Described, read_codebook
from pipelines.codebook_column import Drafted, drafted
from synth.config import Database, parse_source
from synth.errors import UserError
from synth.image_schema import FILE_COLUMN, IMAGE_COLUMN
from synth.ingest import header_of
from synth.privacy.boundary import guarded
from synth.yaml_file import nearest, read_yaml

HEADER = """\
# Drafted from {looked}. All of it is published.
{marked}
dataset: {dataset}
population: {dataset}      # the ledger's key: runs on the same people add up
{unit}
row_count: private         # or a public number
{target}
columns:
"""
MARKED = """\
# `domain: unconfirmed`: nothing is known of the values. Write what is public knowledge (a codebook, common sense; never
# the data) and remove the mark, or delete the line: a column without one is never read. A run refuses the mark.
# Of bounds that nobody knows, `bounds: estimate` has each run estimate them, for a part of its budget.
"""
UNIT_IS_ROW = "privacy_unit: row          # each person has one row; or the name of the person column (kind: id)"
UNIT_IS_PERSON = """\
privacy_unit: {person}
max_rows_per_person: 1     # a person's rows that count, chosen at random; more rows, more noise"""
NO_TARGET = "# target: NAME             # the column the generator is conditioned on"

FROM_DICTIONARY = """\
# All {others}columns are as {dictionary} has them. Read their bounds and categories (what follows is its own text),
# see that they are public and were not computed from the data, and remove this line, which confirms them all:
domains: unconfirmed
"""

IMAGES = """\
# Drafted from {looked}; no picture was looked at. Domains are yours to declare.
# Replace the form and the classes by what is publicly known, then remove `domain: unconfirmed`; a run refuses it.

dataset: {dataset}
population: {dataset}      # the ledger's key: runs on the same people add up
privacy_unit: row          # each person has one picture; or the name of the person column
row_count: private         # or a public number
kind: image
image:
  height: 256
  width: 256
  channels: 1              # or 3
  bits: 8                  # or 16
  resize: pad              # or crop, or stretch
  # dicom: {{window: [40, 400], frames: first}}
  # nifti: {{value_range: [0, 1500], axis: 2, slices: middle}}
  # tiff: {{pages: first}}
  domain: unconfirmed
target:
  name: {target}
  classes: {{0: fill in}}
# columns there are: {columns}
"""

DOMAINS = {
    "integer": "bounds: [0, 1]",
    "continuous": "bounds: [0, 1]",
    "datetime": "bounds: [1900-01-01, 2100-01-01], resolution: day",
    "categorical": "categories: [fill in]",
    "boolean": "",
}


@dataclass(frozen=True)
class Draft:
    """A schema.yaml to finish, and lines for whoever does."""

    text: str
    notes: tuple[str, ...] = ()


def draft_schema(
    file: Path, dictionary: Path | None = None, *, person: str | None = None, target: str | None = None
) -> Draft:
    """A schema.yaml for a file, a folder of files or a run.yaml's source: names and kinds, all domains unconfirmed.

    A data dictionary gives domains too. They are what a person declared, and one line less confirms them all.

    Args:
        file: what to look at.
        dictionary: the data dictionary.
        person: the column that tells people apart, where a person can have several rows.
        target: the column the generator is conditioned on; a dictionary may name one too.
    """
    source, name, labels = _source_of(file)
    with guarded("draft"):
        arrow = header_of(source)
    if labels or any(field.name == IMAGE_COLUMN and pa.types.is_struct(field.type) for field in arrow):
        assert isinstance(source, Path)
        if dictionary is not None:
            raise UserError(f"{dictionary}: a data dictionary is read for tables; leave --dictionary out for pictures")
        if person or target:
            raise UserError("--person and --target are for tables; of pictures, write them into the draft")
        return Draft(_draft_of_images(source, arrow.names, dataset=_word(name)))
    of_text = isinstance(source, Path) and (
        source.suffix.lower() == ".csv" or (source.is_dir() and any(source.glob("*.[cC][sS][vV]")))
    )
    for option, name_given in (("--person", person), ("--target", target)):
        if name_given is not None and name_given not in arrow.names:
            raise UserError(f"{option} {_one_line(name_given)}: no such column{nearest(name_given, arrow.names)}")
    described = () if dictionary is None else read_codebook(dictionary, columns=arrow.names)
    if of_text and (missing := {code for column in described for code in column.missing}):
        with guarded("draft"):
            arrow = header_of(source, missing=sorted(missing))
    columns, notes = _columns(arrow, dictionary, described, of_text=of_text, person=person)
    if isinstance(source, Database):
        looked = "the names and types of a query's columns"
    elif of_text:
        looked = f"the names in {source.name}; the kinds are a guess from its first rows"
    else:
        looked = f"the names and types of {source.name}"
    called = [column.values["name"] for column in columns if column.target and column.kind != "id"]
    target = target or (called[0] if len(called) == 1 else None)
    header = HEADER.format(
        looked=looked,
        marked=MARKED if any(not column.whole for column in columns) else "",
        dataset=_word(name),
        unit=UNIT_IS_ROW if person is None else UNIT_IS_PERSON.format(person=quoted(person)),
        target=NO_TARGET if target is None else f"target: {quoted(target)}",
    )
    if dictionary is not None and any(column.whole for column in columns):
        told = FROM_DICTIONARY.format(
            others="" if all(column.whole for column in columns) else "other ", dictionary=_one_line(dictionary.name)
        )
        header = header.replace("\ncolumns:\n", f"\n{told}columns:\n")
    return Draft(header + "\n".join(_lines(columns)) + "\n", notes)


def _columns(
    arrow: pa.Schema,
    dictionary: Path | None,
    dictionary_says: Sequence[Described],
    *,
    of_text: bool,
    person: str | None,
) -> tuple[tuple[Drafted, ...], tuple[str, ...]]:
    """The columns, and what does not go together or is still to be said."""
    ids = {person: Drafted({"name": person, "kind": "id"}, "id", whole=True)} if person else {}
    if dictionary is None:
        return tuple(ids.get(field.name) or _undescribed(field) for field in arrow), ()
    said = {described.name: described for described in dictionary_says}
    folded = {name.casefold(): name for name in said}
    columns, notes = [], []
    for field in arrow:
        described = said.pop(field.name if field.name in said else folded.get(field.name.casefold(), ""), None)
        if field.name in ids or described is None:
            columns.append(ids.get(field.name) or _undescribed(field))
            continue
        column = drafted(described, name=field.name, guess=_kind(field.type), physical=None if of_text else field.type)
        columns.append(column)
        if column.problem:
            notes.append(
                f"{dictionary}, line {described.line}: {field.name}: {column.problem}; its domain is left to you"
            )
    if said:
        notes.append(f"{dictionary}: describes what the file lacks, left out: {', '.join(said)}")
    if still := [column.values["name"] for column in columns if not column.whole]:
        notes.append(f"{_of_columns(len(still))} a domain: {', '.join(still)}")
    return tuple(columns), tuple(_one_line(note) for note in notes)


def _of_columns(count: int) -> str:
    return "1 column still needs" if count == 1 else f"{count} columns still need"


def _undescribed(field: pa.Field) -> Drafted:
    kind = _kind(field.type)
    return Drafted({"name": field.name, "kind": kind, "nullable": True}, kind)


def _lines(columns: Iterable[Drafted]) -> Iterator[str]:
    """A line a column. Those that the dictionary gives whole wait for one line at the top."""
    for column in columns:
        parts = [f"{key}: {_yaml(value)}" for key, value in column.values.items()]
        if not column.whole and DOMAINS[column.kind]:
            parts.insert(2, DOMAINS[column.kind])
        if not column.whole:
            parts.insert(3 if DOMAINS[column.kind] else 2, "domain: unconfirmed")
        yield "  - {" + ", ".join(parts) + "}"


def _yaml(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(child)}" for key, child in value.items()) + "}"
    return repr(value)


def _draft_of_images(source: Path, names: list[str], *, dataset: str) -> str:
    """A schema of images from the names of its columns."""
    others = [name for name in names if name not in (IMAGE_COLUMN, FILE_COLUMN)]
    if not others:
        raise UserError(f"{source}: has no column that could be the label")
    return IMAGES.format(
        looked=f"the names in {source.name}",
        dataset=dataset,
        target=quoted("label" if "label" in others else others[0]),
        columns=", ".join(map(quoted, others)),
    )


def _word(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip("._-") or "table"


def _source_of(file: Path) -> tuple[Path | Database, str, bool]:
    """What to look at, a name for it, and whether it is a table of pictures' labels.

    A database is named in a run.yaml, which hides its password, and so are a folder of pictures and its labels.
    """
    if str(file).startswith(("postgresql:", "postgres:", "postgresql+psycopg:")):
        raise UserError("a database is named in a run.yaml, as source: {url: …, query: …}; give that file instead")
    if file.suffix.lower() not in {".yaml", ".yml"}:
        return file, file.stem, False
    raw = read_yaml(file)
    source = parse_source(raw, file=file)
    if isinstance(source, Database):
        return source, str(raw.get("name") or "table"), False
    if source.folder is not None:
        return source.path, source.folder.name, True
    return source.path, source.path.stem, False


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "continuous"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "datetime"
    return "categorical"


def quoted(name: str) -> str:
    """A column name as YAML text, quoted whenever it is more than a plain word."""
    plain = name.replace("_", "a").isalnum() and name.isascii() and not name[:1].isdigit()
    if plain and name.casefold() not in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}:
        return name
    text = DoubleQuotedScalarString(name).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + '"'


def _one_line(text: str) -> str:
    """For comments and messages."""
    return "".join(c if c.isprintable() else " " for c in text)
