"""`synth evaluate`: the full internal report of a bundle, for the steward alone."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.evaluating_images import evaluate_images
from pipelines.options import AsJson
from synth.errors import NotBuiltYet, SynthError, UserError, VerificationFailed
from synth.files import PRIVATE_FOLDER

if TYPE_CHECKING:
    import pyarrow as pa

    from synth.evaluate.internal.report import Subject
    from synth.image_schema import ImageSchema
    from synth.schema import Schema


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", show_default=False)],
    real: Annotated[
        Path,
        typer.Option(
            "--real",
            help="Rows the run has not seen: Parquet or CSV; pictures: Parquet, or a folder with labels.csv.",
            show_default=False,
        ),
    ],
    training: Annotated[
        Path | None,
        typer.Option("--training", help="The rows that were learned. Default: the run's source.", show_default=False),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="Column to predict. Default: the schema's target.", show_default=False),
    ] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option(
            "--subgroup", help="Score this column's levels one by one; repeat for several.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to. Default: the run's internal folder.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle against real rows: fidelity, utility, detection, disclosure. For the steward alone.

    The report is computed on people's rows without noise: it is written beside the bundle, never into it, and must not
    be handed out. The last line of stdout is the path of the page; the same in JSON lies beside it.
    """
    from synth.run_folder import private_umask

    private_umask()
    with contextlib.redirect_stdout(sys.stderr):
        page = evaluate_bundle(bundle, real=real, training=training, target=target, subgroups=subgroup or [], out=out)
    typer.echo(json.dumps({"page": str(page), "report": str(page.with_suffix(".json"))}) if as_json else str(page))


def evaluate_bundle(
    bundle: Path, *, real: Path, training: Path | None, target: str | None, subgroups: list[str], out: Path | None
) -> Path:
    """Write the full internal report of a bundle and return its page.

    Raises UserError for what is missing or does not fit, VerificationFailed for a damaged bundle.
    """
    from synth.ingest import check_header, read_batches
    from synth.privacy.boundary import guarded
    from synth.schema import Schema
    from synth.tables.codec import LevelCodec, codecs_of

    if not bundle.is_dir():
        raise UserError(f"{bundle}: no such folder; name a bundle folder (the last line that `synth run` printed)")
    schema, claims = _declared(bundle)
    if not isinstance(schema, Schema):
        if target or subgroups:
            raise UserError("--target and --subgroup: are for tables; leave them out for pictures")
        folder = _folder_for(bundle, out)
        return evaluate_images(bundle, schema, mu=_mu(claims), real=real, training=training, folder=folder)
    target = target or schema.target
    learned = {column.name for column in schema.learned_columns}
    for option, name in [("--target", target), *(("--subgroup", name) for name in subgroups)]:
        if name is not None and name not in learned:
            raise UserError(f"{option} {name}: is not a column of the bundle's schema")
    codecs = codecs_of(schema)
    for name in subgroups:
        if not isinstance(codecs[name], LevelCodec):
            raise UserError(f"--subgroup {name}: is not a column of levels; name a categorical or boolean column")
    folder = _folder_for(bundle, out)
    check_header(real, schema)
    source, notes = (training, []) if training is not None else _source_of(bundle, real)
    if source is not None:
        if source.exists() and source.samefile(real):
            raise UserError(
                "--training: is the file of --real; the control group has to be people that were not learned"
            )
        check_header(source, schema)
    with guarded("evaluate", folder):
        # pandas and scikit-learn take seconds to load, and a mistake should not take seconds to be told.
        import numpy as np

        from synth.evaluate.internal.report import SAMPLE_ROWS, full_report, write_report
        from synth.evaluate.internal.rows import read_rows

        rng = np.random.default_rng(0)
        tables = {
            name: read_rows(batches, codecs, most=SAMPLE_ROWS, rng=rng)
            for name, batches in (
                ("real", read_batches(real, schema)),
                ("synthetic", _synthetic(bundle, schema)),
                ("training", read_batches(source, schema) if source else None),
            )
            if batches is not None
        }
        for name, table in tables.items():
            if table.total == 0:
                raise UserError(f"the {name} table has no rows")
        return write_report(
            full_report(
                _subject(bundle, claims, real, source),
                tables["real"],
                tables["synthetic"],
                tables.get("training"),
                codecs,
                target=target,
                subgroups=subgroups,
                created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                notes=notes,
            ),
            folder,
        )


def _declared(bundle: Path) -> tuple[Schema | ImageSchema, Mapping[str, Any]]:
    """The bundle's schema and its privacy statement."""
    from synth.image_schema import load_any_schema
    from synth.parquet import part_files

    try:
        claims = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
        schema = load_any_schema(bundle / "schema.yaml")
        if not part_files(bundle / "data"):
            raise ValueError
        return schema, {**claims, "run": str(claims["run"])} | {key: float(claims[key]) for key in ("epsilon", "delta")}
    except NotBuiltYet:
        raise
    except (OSError, ValueError, KeyError, TypeError, SynthError):
        raise VerificationFailed(f"{bundle}: its schema, data or privacy statement is missing or damaged") from None


def _folder_for(bundle: Path, out: Path | None) -> Path:
    """Where the report goes; made with private permissions when it is new."""
    from synth.privacy.outputs import refuse_in_bundle

    if out is None:
        folder = bundle.resolve().parent / "internal"
        refuse_in_bundle(folder, named=str(folder), bundle=bundle)
        if not folder.is_dir():
            raise UserError(f"{bundle}: no internal folder lies beside it; name a folder of your own with --out")
        return folder
    refuse_in_bundle(out, named=f"--out {out}", bundle=bundle)
    folder = out.resolve()
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made ({error.strerror}); name another folder") from None
    return folder


def _source_of(bundle: Path, real: Path) -> tuple[Path | None, list[str]]:
    """The rows that the run learned from, when they are still where they were; else a note why not."""
    from synth.config import Database
    from synth.run_folder import RunFolder

    left_out = "Comparisons with the rows that were learned were left out"
    try:
        source = RunFolder(bundle.resolve().parent).run().rows
    except (OSError, ValueError, KeyError, TypeError, SynthError):
        return None, [f"{left_out}: no run folder names them. Name them with --training."]
    if isinstance(source, Database):
        return None, [f"{left_out}: the run's source is a database. Write them to a file and name it with --training."]
    if not source.exists():
        return None, [f"{left_out}: the run's source is not where it was. Name it with --training."]
    learned = [source, *source.iterdir()] if source.is_dir() else [source]
    if any(file.samefile(real) for file in learned if file.exists()):
        return None, [
            "These are the rows that were learned, so nothing here says how the synthetic rows do on other people, and "
            "there is no control group. Give --real rows that the run has not seen."
        ]
    return source, [
        "Training rows are the run's source as it is now, also where a run keeps only some rows of a person."
    ]


def _synthetic(bundle: Path, schema: Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    from synth.parquet import read_parts

    try:
        yield from read_parts(bundle / "data", [column.name for column in schema.learned_columns])
    except (pa.ArrowException, OSError, KeyError):
        raise VerificationFailed(f"{bundle}: its data is damaged") from None


def _mu(claims: Mapping[str, Any]) -> float | None:
    """The stated mu, where it stands for the whole statement: only there does it bound what an attack can win."""
    from synth.privacy.accounting import epsilon_of

    mu = claims.get("mu")
    whole = (
        isinstance(mu, float)
        and mu > 0
        and math.isclose(epsilon_of(mu, claims["delta"]), claims["epsilon"], rel_tol=1e-3)
    )
    return mu if whole else None


def _subject(bundle: Path, claims: Mapping[str, Any], real: Path, training: Path | None) -> Subject:
    from synth.evaluate.internal.report import Subject
    from synth.release import verify

    try:
        verify(bundle)
        intact = True
    except SynthError:
        intact = False
    return Subject(
        run=claims["run"],
        epsilon=claims["epsilon"],
        delta=claims["delta"],
        mu=_mu(claims),
        intact=intact,
        real=real.name,
        training=None if training is None else training.name,
    )
