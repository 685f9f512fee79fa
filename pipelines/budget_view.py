"""How `synth budget` shows accounts and entries: text, tables and JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synth.privacy.composition import cost_of_run, epsilon_of
from synth.privacy.ledger import Entry, PopulationBudget, Reservation, format_epsilon, little_left
from synth.privacy.reservations import Cap, Overlap, ReservePayload, SpendPayload

PLAIN_WIDTH = 240  # columns; where stdout is no terminal, rows are not folded short of this


def facts(account: PopulationBudget) -> dict[str, Any]:
    """The account as JSON. An ε above 500 is null: it promises nothing."""
    return {
        "population": account.population,
        "known": True,
        "overlaps": list(account.overlaps),
        "epsilon": _finite(account.epsilon),
        "delta": account.delta,
        "replace_one_epsilon": _finite(account.replace_one_epsilon),
        "mu": account.mu,
        "cap": account.cap.epsilon if account.cap else None,
        "capped_population": account.capped_population,
        "epsilon_left": account.epsilon_left,
        "mu_squared_left": account.mu_squared_left,
        "runs_left": account.runs_left,
        "charged_runs": [run.run_id for run in account.charged],
        "void_runs": [run.run_id for run in account.void],
        "open_runs": [run.run_id for run in account.open],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def lines(account: PopulationBudget) -> list[str]:
    """The account as text, one fact a line."""
    spent = f"ε = {format_epsilon(account.epsilon)} at δ = {account.delta:g}"
    limit, left = "none", ""
    if account.cap is not None:
        limit = f"ε = {format_epsilon(account.cap.epsilon)} at δ = {account.cap.delta:g}"
        if account.capped_population != account.population:
            limit += f", set on {account.capped_population}"
        left = f"; one more run may have ε up to {format_epsilon(account.epsilon_left or 0.0)} at that δ"
    replaced = format_epsilon(account.replace_one_epsilon)
    overlaps = [f"  overlaps      {', '.join(account.overlaps)}; their runs count here too"] if account.overlaps else []
    return [
        account.population,
        *overlaps,
        f"  spent         {spent} (replace-one: ε = {replaced})",
        f"  cap           {limit}{left}",
        f"  charged runs  {account.candidates}, of which open: {_names(account.open)}",
        f"  void runs     {_names(account.void)}",
    ]


def warn_of_little(accounts: Sequence[PopulationBudget]) -> None:
    """One line on stderr for each population whose cap has no room for another run like its latest."""
    for account in accounts:
        if account.runs_left == 0:
            typer.echo(f"warning: {little_left(account.population)}", err=True)


def _names(runs: tuple[Reservation, ...]) -> str:
    return ", ".join(run.run_id for run in runs) or "none"


def overview_table(accounts: Sequence[PopulationBudget]) -> Table:
    """One row a population."""
    return _table(
        ("population", "spent ε", "at δ", "cap ε", "left ε", "charged", "void", "open", "overlaps"),
        [
            (
                account.population,
                format_epsilon(account.epsilon),
                f"{account.delta:g}",
                format_epsilon(account.cap.epsilon) if account.cap else "none",
                "" if account.epsilon_left is None else format_epsilon(account.epsilon_left),
                str(account.candidates),
                str(len(account.void)),
                str(len(account.open)),
                ", ".join(account.overlaps) or "none",
            )
            for account in accounts
        ],
    )


def history_table(entries: Sequence[Entry]) -> Table:
    """One row an entry."""
    return _table(
        ("seq", "time", "kind", "population", "dataset", "run", "what"),
        [(str(e.seq), e.time, e.kind, e.population, e.dataset or "", e.run_id or "", _what(e)) for e in entries],
    )


def readable(entry: Entry) -> dict[str, Any]:
    """The entry with its payload as an object, or as text where that was broken."""
    try:
        payload = json.loads(entry.payload)
    except (TypeError, ValueError):
        payload = str(entry.payload)
    return asdict(entry) | {"payload": payload}


def print_json(value: dict[str, Any]) -> None:
    """One object on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(table: Table) -> None:
    """A table on stdout, folded only to a terminal's width."""
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names are never read as markup
    return table


def _what(entry: Entry) -> str:
    try:
        match entry.kind:
            case "reserve":
                reserved = ReservePayload.model_validate_json(entry.payload)
                epsilon = format_epsilon(epsilon_of(cost_of_run(reserved.events), reserved.delta))
                return f"{len(reserved.events)} events, ε = {epsilon} at δ = {reserved.delta:g}"
            case "spend":
                return SpendPayload.model_validate_json(entry.payload).event.name
            case "cap":
                cap = Cap.model_validate_json(entry.payload)
                return f"ε = {format_epsilon(cap.epsilon)} at δ = {cap.delta:g}"
            case "overlap":
                return f"overlaps {Overlap.model_validate_json(entry.payload).other}"
            case _:
                return ""
    except ValueError:
        return "unreadable: see synth budget verify"
