"""`synth runs`: what has become of the runs in an output folder, and removing old ones."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pipelines.budget_ledger import RUN_YAML, ledger_of
from pipelines.budget_view import print_table
from pipelines.options import AsJson, LedgerOfRun
from pipelines.releasing import lists_to_read
from synth.config import load_run
from synth.errors import UserError
from synth.privacy.ledger import Ledger, format_epsilon
from synth.resume import can_be_resumed
from synth.runs import ListedRun, list_runs, prune


def runs(
    where: Annotated[
        Path, typer.Argument(metavar="RUN.yaml|DIR", help="A run.yaml, or the output folder of its runs.")
    ] = RUN_YAML,
    prune_old: Annotated[bool, typer.Option("--prune", help="Remove old runs that nobody needs.")] = False,
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, help="With --prune: how many of them stay.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --prune: only say what would go.")] = False,
    ledger: LedgerOfRun = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first: drafting, resumable, failed, candidate, approved, rejected, revoked or damaged.

    Resumable is the one that `synth run RUN.yaml --resume` goes on with; of a DIR, each that has saved what it drew.

    --prune --keep N removes failed, undecided and rejected runs, but for the newest N of them. It never removes one
    that was approved or revoked, is damaged, is at work or began within the hour, has saved what it drew, or made the
    latest bundle. What a run has spent stays spent.
    """
    directory, book, resumable = _meant(where, ledger)
    if prune_old:
        if keep is None:
            raise UserError("--prune needs --keep: say how many of the runs that may go shall stay")
        gone = prune(directory, keep=keep, revocations=_lists, dry_run=dry_run)
        _tell_pruned(gone, dry_run=dry_run, as_json=as_json)
        return
    if keep is not None or dry_run:
        raise UserError("--keep and --dry-run go with --prune")
    found = list_runs(directory, revocations=_lists, ledger=book, resumable=resumable)
    if as_json:
        typer.echo(json.dumps({"directory": str(directory), "runs": [_plain(run) for run in found]}))
    elif found:
        _print(found)
    else:
        typer.echo(f"{directory}: no runs")


def _meant(where: Path, ledger: str | None) -> tuple[Path, Ledger | None, set[str] | None]:
    """The output folder; the ledger where one is named; and of a run.yaml which of its runs `--resume` goes on with."""
    if where.is_dir():
        return where.absolute(), None if ledger is None else Ledger.open(ledger, create=False), None
    run = load_run(where)
    book = Ledger.open(ledger_of(ledger, run.config.ledger.url), create=False)
    found = can_be_resumed(run, book)
    return run.config.output.directory, book, set() if found is None else {found.run_id}


def _lists(bundle: Path) -> list[Path]:
    return lists_to_read(bundle, None)


def _plain(run: ListedRun) -> dict[str, Any]:
    return asdict(run) | {"bundle": None if run.bundle is None else str(run.bundle)}


def _tell_pruned(gone: tuple[ListedRun, ...], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "removed": [_plain(run) for run in gone]}))
        return
    for run in gone:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {run.run} ({run.state}, {run.created})")
    if not gone:
        typer.echo("nothing to remove")


def _print(found: tuple[ListedRun, ...]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("run", "started", "took", "state", "ε", "charged", "working files"):
        table.add_column(heading, justify="right" if heading in {"took", "ε"} else "left", overflow="fold")
    for run in found:
        table.add_row(
            f"{run.run} (latest)" if run.latest else run.run,
            run.created,
            "?" if run.seconds is None else str(timedelta(seconds=math.ceil(run.seconds))),
            run.state,
            "?" if run.epsilon is None else format_epsilon(run.epsilon),
            {True: "yes", False: "no", None: "?"}[run.charged],
            "gone" if run.private_gone else "there",
        )
    print_table(table)
