"""`synth sample`: rows from a bundle's model, or a partial table completed by it."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.errors import NotBuiltYet, UserError, VerificationFailed
from synth.files import PRIVATE_FOLDER
from synth.privacy.boundary import guarded
from synth.privacy.outputs import SEALED, refuse_in_bundle
from synth.threads import torch_threads

if TYPE_CHECKING:
    import pyarrow as pa

    from synth.tables.model import TableModel

COMPLETED = "holds the rows of the input: private, as they are"
LIKELIHOOD_COLUMN = "log_likelihood"
MOST_SETS = 999
TEXT_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".xlsx"}
"""Of an output that would be taken for what it is not."""


def sample(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet file to write.", show_default=False)],
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="How many rows.", show_default=False)] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="COLUMN=VALUE, COLUMN=VALUE|VALUE, or != >= > <= <; repeat for several, all hold. An empty VALUE "
            'means missing; "in double quotes" any character stands for itself.',
        ),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            "--balance",
            help="COLUMN: its levels in equal shares. COLUMN=VALUE:SHARE|…: in these, the others in proportion.",
            show_default=False,
        ),
    ] = None,
    complete: Annotated[
        Path | None,
        typer.Option(
            "--complete",
            help="Parquet file whose empty cells and absent columns to fill, instead of drawing new rows. The output "
            "holds its rows, so it is as private as they are.",
            show_default=False,
        ),
    ] = None,
    log_likelihood: Annotated[
        bool, typer.Option("--log-likelihood", help="With --complete: add each completed row's log-likelihood (nats).")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Repeat the same rows.")] = None,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Of images: write a new folder of DICOM files and labels.csv instead.")
    ] = False,
    sets: Annotated[
        int | None,
        typer.Option(
            "--sets",
            min=2,
            max=MOST_SETS,
            help="Draw so many sets, each of --rows rows, into the new folder OUTPUT; for `synth.combine`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw rows from a bundle's model, or complete a partial table by it. Costs no budget: it is post-processing.

    Conditions are exact for any set of columns: nothing is rejected, however rare the combination.
    """
    if dicom and complete is not None:
        raise UserError("--dicom does not go with --complete: it is for new pictures")
    if dicom and sets is not None:
        raise UserError("--dicom does not go with --sets: draw one folder of pictures at a time")
    if output.suffix.lower() in TEXT_SUFFIXES and not dicom and sets is None:
        raise UserError(f"{output}: rows are written as Parquet, so name a file that ends in .parquet")
    if output.is_dir() and not dicom and sets is None:
        raise UserError(f"{output}: is a folder; name a file to write")
    if complete is not None and output.exists() and complete.exists() and output.samefile(complete):
        raise UserError(f"{output}: is the partial table itself; name another file")
    replaces = not dicom and sets is None and _may_replace(output)
    if complete is None:
        if rows is None:
            raise UserError("--rows is needed: say how many rows to draw (or name a table with --complete)")
        if log_likelihood:
            raise UserError("--log-likelihood goes with --complete")
        if sets is not None:
            sample_sets(bundle, sets, rows=rows, where=where or [], balance=balance, seed=seed, output=output)
            typer.echo(f"{sets} sets of {rows} rows drawn; this cost no budget", err=True)
        else:
            made = sample_to_file(
                bundle, rows=rows, where=where or [], balance=balance, seed=seed, output=output, dicom=dicom
            )
            typer.echo(f"{made} rows drawn; this cost no budget", err=True)
    else:
        if sets is not None:
            raise UserError("--sets does not go with --complete: draw rows, or fill a table")
        if where or balance:
            option = "--where" if where else "--balance"
            raise UserError(f"{option} does not go with --complete: the cells that are there are the conditions")
        made = complete_to_file(
            bundle, partial=complete, rows=rows, log_likelihood=log_likelihood, seed=seed, output=output
        )
        typer.echo(
            f"{made} rows completed; NOT synthetic: the file holds the rows of {complete}, keep it as private as "
            "they are; this cost no budget",
            err=True,
        )
    if replaces:
        typer.echo(f"{output}: the rows that were there are replaced", err=True)
    typer.echo(output.resolve())


def sample_sets(
    bundle: Path, sets: int, *, rows: int, where: list[str], output: Path, balance: str | None, seed: int | None
) -> None:
    """Draw several sets of rows, each by itself, into a new folder that appears whole; a seed gives each its own.

    Raises as `sample_to_file` does, and UserError for a folder that is there already.
    """
    import numpy as np

    if output.exists():
        raise UserError(f"{output}: is there already; name a new folder for the sets")
    _refuse_places(bundle, output)
    aside = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    aside.mkdir(mode=PRIVATE_FOLDER)
    try:
        for number in range(1, sets + 1):
            own = None if seed is None else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            place = aside / f"set-{number:03d}.parquet"
            sample_to_file(bundle, rows=rows, where=where, output=place, balance=balance, seed=own)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sample_to_file(
    bundle: Path,
    *,
    rows: int,
    where: list[str],
    output: Path,
    balance: str | None = None,
    seed: int | None = None,
    dicom: bool = False,
) -> int:
    """Draw rows from the model in `bundle` into one Parquet file, or a folder of DICOM files; returns how many.

    Raises UserError for a missing bundle or an impossible condition, VerificationFailed for a damaged model.
    """
    from synth.images.model import is_image_model
    from synth.parquet import write_file
    from synth.tables.conditions import parse_balance, parse_conditions
    from synth.tables.decode import arrow_schema
    from synth.tables.rows import sample_rows

    if is_image_model(bundle / "model"):
        return _sample_images(bundle, rows, where, output, balance=balance, seed=seed, dicom=dicom)
    if dicom:
        raise UserError("--dicom is for images; the rows of a table go to a Parquet file")
    model, claims = _opened(bundle, output)
    conditions = parse_conditions(model.codecs, where)
    balanced = None if balance is None else parse_balance(model.codecs, balance, conditions)
    metadata = _mark(bundle, claims)
    batches = sample_rows(model, rows, seed=seed, conditions=conditions, balance=balanced)
    return write_file(batches, arrow_schema(model.schema, model.codecs), output, metadata)


def complete_to_file(
    bundle: Path, *, partial: Path, output: Path, rows: int | None, log_likelihood: bool, seed: int | None
) -> int:
    """Complete the rows of `partial` by the model in `bundle` into one private Parquet file; returns how many.

    Raises UserError for files that do not fit, VerificationFailed for a damaged model.
    """
    from synth.parquet import write_file
    from synth.tables.completion import PartialTable, complete, completed_schema

    refuse_in_bundle(output, named=str(output), bundle=bundle)
    model, claims = _opened(bundle, output)
    table = PartialTable(partial, model)
    if rows is not None and rows != table.rows:
        raise UserError(f"--rows {rows}: a completed table has the rows of the partial one; leave --rows out")
    if log_likelihood and LIKELIHOOD_COLUMN in table.schema.names:
        raise UserError(
            f"{partial}: has a column {LIKELIHOOD_COLUMN} already; rename it, or leave --log-likelihood out"
        )
    with guarded("complete"):  # a library's error could quote a value of the partial table
        broken: list[int] = []
        batches = complete(model, table.schema, table.batches(), seed=seed, on_broken=broken.append)
        schema = completed_schema(model, table.schema)
        if log_likelihood:
            batches, schema = _with_likelihood(model, batches), _likelihood_schema(schema)
        made = write_file(batches, schema, output, {"completed": COMPLETED, "run": str(claims["run"])})
    if broken:
        typer.echo(
            f"warning: {sum(broken)} of {made} rows break a declared rule by the cells that are there, or leave no "
            "value that meets one; they are filled without that rule, and those that share a column with it",
            err=True,
        )
    return made


def _likelihood_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return schema.append(pa.field(LIKELIHOOD_COLUMN, pa.float64()))


def _with_likelihood(model: TableModel, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    from synth.tables.likelihood import log_likelihood

    for batch in batches:
        columns = [*batch.columns, pa.array(log_likelihood(model, batch))]
        yield pa.record_batch(columns, schema=_likelihood_schema(batch.schema))


def _opened(bundle: Path, output: Path) -> tuple[TableModel, dict[str, Any]]:
    """The bundle's model and what its privacy statement claims, before anything is written."""
    from synth.images.model import is_image_model

    _refuse_places(bundle, output)
    if is_image_model(bundle / "model"):
        raise NotBuiltYet(f"{bundle}: --complete is offered for tables, not for images, by this version")
    return table_model(bundle), _claims(bundle)


def table_model(bundle: Path) -> TableModel:
    """The table model of a bundle, with its shares worked out. Raises VerificationFailed when it is damaged."""
    from synth.tables.model import TableModel

    with torch_threads(1):
        model = TableModel.load(bundle / "model")
        _ = model.shares  # computed once, and kept
    return model


def _sample_images(
    bundle: Path, rows: int, where: list[str], output: Path, *, balance: str | None, seed: int | None, dicom: bool
) -> int:
    """Draw pictures from an image model into one Parquet file, or a folder of DICOM files; returns how many."""
    from synth.images.model import ImageModel
    from synth.images.sample import arrow_schema, parse_classes, sample_images
    from synth.parquet import write_file

    _refuse_places(bundle, output)
    if balance is not None:
        raise NotBuiltYet("--balance is offered for tables, not for images; draw class by class with --where")
    model, claims = ImageModel.load(bundle / "model"), _claims(bundle)
    metadata = _mark(bundle, claims)
    batches = sample_images(model, rows, seed=seed, classes=parse_classes(model.schema, where))
    if dicom:
        from synth.images.dicom_series import write_series

        return write_series(batches, model.schema, output, metadata)
    return write_file(batches, arrow_schema(model.schema), output, metadata)


def _refuse_places(bundle: Path, output: Path) -> None:
    if not bundle.is_dir():
        raise UserError(f"{bundle}: no such folder; name a bundle folder (the last line that `synth run` printed)")
    if not any((bundle / part).exists() for part in ("manifest.json", "privacy.json", "model")):
        raise UserError(f"{bundle}: is no bundle; name a bundle folder (the last line that `synth run` printed)")
    if not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist")
    refuse_in_bundle(output, named=str(output), bundle=bundle, because=SEALED)


def _may_replace(output: Path) -> bool:
    """Whether a file is in the output's place, which then is replaced: one that was drawn here, or is empty.

    Raises UserError for any other, a source for one.
    """
    from synth.parquet import drawn_by_us

    if not output.exists():
        return False
    if output.is_file() and (not output.stat().st_size or drawn_by_us(output)):
        return True
    raise UserError(f"{output}: is there already and was not written by synth sample; name another file, or move it")


def _mark(bundle: Path, claims: dict[str, Any]) -> dict[str, str]:
    """The metadata of rows drawn from a bundle's model."""
    from synth.files import sha256_file
    from synth.parquet import synthetic_metadata

    if not (bundle / "schema.yaml").is_file():
        raise VerificationFailed(f"{bundle}: has no schema.yaml")
    return synthetic_metadata(
        epsilon=claims["epsilon"],
        delta=claims["delta"],
        privacy_unit=claims["privacy_unit"],
        run_id=claims["run"],
        schema_sha256=sha256_file(bundle / "schema.yaml"),
    )


def _claims(bundle: Path) -> dict[str, Any]:
    """What the bundle's privacy statement claims."""
    try:
        stated = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
        claims = {key: stated[key] for key in ("privacy_unit", "run")}
        return claims | {key: float(stated[key]) for key in ("epsilon", "delta")}
    except (OSError, ValueError, KeyError, TypeError):
        raise VerificationFailed(f"{bundle}: privacy.json is missing or damaged") from None
