"""`synth audit`: the long audit of a run's mechanism."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.budget import ledger_of
from pipelines.options import AsJson, LedgerOfRun
from synth.errors import SynthError


def audit(
    run_yaml: Annotated[Path, typer.Argument(help="The run.yaml to follow.", show_default=False)],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Audit on this bundle's synthetic rows: free.", show_default=False)
    ] = None,
    public_table: Annotated[
        Path | None,
        typer.Option(
            "--public-table",
            help="Audit on this table (images: in Parquet): free. That it is public, and no copy of private "
            "rows, is your declaration.",
            show_default=False,
        ),
    ] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(
            "--repetitions",
            min=0,
            help="Repetitions of the pipeline on shadow tables. Default: 100.",
            show_default=False,
        ),
    ] = None,
    canaries: Annotated[
        int | None,
        typer.Option("--canaries", help="Planted records of the one-run audit. Default: 2000.", show_default=False),
    ] = None,
    ledger: LedgerOfRun = None,
    as_json: AsJson = False,
) -> None:
    """Attack the run's own mechanism and bound its ε from below. It can refute ε, never prove it.

    With --bundle or --public-table it costs nothing. Without either it is made on the private rows, once, and reserves
    and spends the ε and δ of the run. The report is internal: the last line of stdout is its path. A refuted claim ends
    with exit 1, but on private rows, where the page alone says it.
    """
    from synth.config import load_run
    from synth.privacy.audit.long import long_audit
    from synth.privacy.ledger import Ledger
    from synth.run_folder import private_umask

    private_umask()

    def opened(create: bool) -> Ledger:
        return Ledger.open(ledger_of(ledger, load_run(run_yaml).config.ledger.url), create=create)

    try:
        with contextlib.redirect_stdout(sys.stderr):
            report = long_audit(
                run_yaml,
                ledger=opened,
                bundle=bundle,
                public_table=public_table,
                repetitions=repetitions,
                canaries=canaries,
            )
    except KeyboardInterrupt:
        raise SynthError("stopped; what was reserved for private rows stays spent") from None
    page = report.page.resolve()
    typer.echo(json.dumps({"report": str(page), "refuted": report.refuted}) if as_json else str(page))
    if report.refuted is None:
        typer.echo("what was found depends on the private rows, so it stands in the page alone: read it", err=True)
    elif report.refuted:
        raise SynthError("audit: the claim is refuted; publish nothing made by this version until the fault is found")
