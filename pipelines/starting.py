"""`synth init`: a folder to start from, with a schema that is drafted where a source is named."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from datasheets import template
from pipelines.drafting import Draft, draft_schema, quoted
from synth.errors import UserError
from synth.files import PRIVATE_FOLDER, write_whole

NAMES = ("schema.yaml", "run.yaml", "answers.yaml")
PLACE = (
    "source: {path: data.parquet}               # Parquet or CSV, or a folder of such files; relative to this file\n"
)
"""The line of run.yaml that a named source takes the place of."""
ONE_ROW_EACH = (
    "no person column is named, so the privacy unit is a row: right only if nobody has two (else: --person COLUMN)"
)


def write_start(
    directory: Path,
    source: Path | None = None,
    dictionary: Path | None = None,
    *,
    person: str | None = None,
    target: str | None = None,
) -> tuple[list[Path], tuple[str, ...]]:
    """Write schema.yaml, run.yaml and answers.yaml; returns their paths, and lines for whoever fills them in.

    With a source (a file or folder) the schema is drafted from it and run.yaml names it; else both are examples.

    Raises UserError when one of the files exists or cannot be written, or options do not go together.
    """
    if source is None and (dictionary or person or target):
        raise UserError("--dictionary, --person and --target are about a source; name it with --source")
    if taken := [name for name in NAMES if (directory / name).exists()]:
        raise UserError(f"{directory}: holds {', '.join(taken)} already; name another folder")
    texts, notes = _texts(directory, source, dictionary, person=person, target=target)
    try:
        directory.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(directory / name, text)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror})") from None
    return [directory / name for name in texts], notes


def _texts(
    directory: Path, source: Path | None, dictionary: Path | None, *, person: str | None, target: str | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    folder = resources.files("pipelines") / "templates"
    schema, run = ((folder / name).read_text(encoding="utf-8") for name in NAMES[:2])
    notes: tuple[str, ...] = ()
    if source is not None:
        if source.suffix.lower() in {".yaml", ".yml"}:
            raise UserError(
                f"{source}: --source is a file or a folder; for a query, `synth schema draft` takes the run.yaml"
            )
        draft: Draft = draft_schema(source, dictionary, person=person, target=target)
        schema, notes = draft.text, draft.notes
        if person is None and "kind: image" not in schema:
            notes = (*notes, ONE_ROW_EACH)
        place = os.path.relpath(source.resolve(), directory.resolve())
        assert PLACE in run
        run = run.replace(PLACE, f"source: {{path: {quoted(place)}}}\n")
    return dict(zip(NAMES, (schema, run, template()), strict=True)), notes
