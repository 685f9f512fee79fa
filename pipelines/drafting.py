"""`synth init` and `synth schema draft`: files for the steward to fill in."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pyarrow as pa
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from datasheets import template
from synth.config import Database, parse_source
from synth.errors import UserError
from synth.files import PRIVATE_FOLDER, write_whole
from synth.image_schema import FILE_COLUMN, IMAGE_COLUMN
from synth.ingest import header_of
from synth.privacy.boundary import guarded
from synth.yaml_file import read_yaml

HEADER = """\
# Drafted from {looked}. Domains are yours to declare.
# For every column: replace the domain by what is publicly known (a codebook), then remove `domain: unconfirmed`.
# A run refuses unconfirmed columns. Columns you delete here are never read.

dataset: {dataset}
population: {dataset}      # the ledger's key: runs on the same people add up
privacy_unit: row          # each person has one row; or the name of the person column (kind: id)
row_count: private         # or a public number
# target: NAME             # the column the generator is conditioned on
columns:
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


def write_templates(directory: Path) -> list[Path]:
    """Write schema.yaml, run.yaml and answers.yaml. Raises UserError when one of them exists or cannot be written."""
    folder = resources.files("pipelines") / "templates"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in ("schema.yaml", "run.yaml")}
    texts["answers.yaml"] = template()
    taken = [name for name in texts if (directory / name).exists()]
    if taken:
        raise UserError(f"{directory}: holds {', '.join(taken)} already; name another folder")
    try:
        directory.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(directory / name, text)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror})") from None
    return [directory / name for name in texts]


def draft_schema(file: Path) -> str:
    """A schema.yaml for a file, a folder of files or a run.yaml's source: names and kinds, all domains unconfirmed."""
    source, name, labels = _source_of(file)
    with guarded("draft"):
        arrow = header_of(source)
    if labels or any(field.name == IMAGE_COLUMN and pa.types.is_struct(field.type) for field in arrow):
        assert isinstance(source, Path)
        return _draft_of_images(source, arrow.names, dataset=_word(name))
    lines = []
    for field in arrow:
        kind = _kind(field.type)
        parts = [
            f"name: {_quoted(field.name)}",
            f"kind: {kind}",
            DOMAINS[kind],
            "nullable: true",
            "domain: unconfirmed",
        ]
        lines.append("  - {" + ", ".join(part for part in parts if part) + "}")
    if isinstance(source, Database):
        looked = "the names and types of a query's columns"
    elif source.suffix.lower() == ".csv" or (source.is_dir() and any(source.glob("*.[cC][sS][vV]"))):
        looked = f"the names in {source.name}; the kinds are a guess from its first rows"
    else:
        looked = f"the names and types of {source.name}"
    return HEADER.format(looked=looked, dataset=_word(name)) + "\n".join(lines) + "\n"


def _draft_of_images(source: Path, names: list[str], *, dataset: str) -> str:
    """A schema of images from the names of its columns."""
    others = [name for name in names if name not in (IMAGE_COLUMN, FILE_COLUMN)]
    if not others:
        raise UserError(f"{source}: has no column that could be the label")
    return IMAGES.format(
        looked=f"the names in {source.name}",
        dataset=dataset,
        target=_quoted("label" if "label" in others else others[0]),
        columns=", ".join(map(_quoted, others)),
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


def _quoted(name: str) -> str:
    """A column name as YAML text, quoted whenever it is more than a plain word."""
    plain = name.replace("_", "a").isalnum() and name.isascii() and not name[:1].isdigit()
    if plain and name.casefold() not in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}:
        return name
    text = DoubleQuotedScalarString(name).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'
