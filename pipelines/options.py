"""Options that several commands share, so that they mean and say the same."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
LedgerUrl = Annotated[
    str | None,
    typer.Option("--ledger", metavar="URL", help="The ledger: sqlite:///ledger.db, postgresql://user@host/database"),
]
LedgerOfRun = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help="Ledger url, sqlite:///PATH or postgresql://… Default: $SYNTH_LEDGER, else ledger.url of the run.yaml.",
    ),
]
