"""`synth plan`: what a run would cost and how good it can be, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from synth.config import load_run
from synth.prepare import plan_run
from synth.privacy.accounting import compose_mu, compose_replace_one_mu, epsilon_of
from synth.privacy.ledger import Ledger
from synth.tables.codec import codecs_of
from synth.tables.plan import memory_bytes, plan_columns, refuse_too_large

RUNS_A_YEAR = {"monthly": 12, "weekly": 52}
MOST_RUNS = 10_000


def plan_report(run_file: Path, ledger_url: str) -> dict[str, Any]:
    """Everything `synth plan` prints, as plain values. The source is not opened."""
    run = load_run(run_file)
    run.table.refuse_unconfirmed()
    codecs = codecs_of(run.table)
    layout, plan = plan_run(run)
    refuse_too_large(layout, codecs)
    delta = run.config.privacy.delta
    name = run.table.ledger_population
    population = Ledger.open(ledger_url, create=False).population(name)
    mu = compose_mu(plan.events)
    report: dict[str, Any] = {
        "run": run.name,
        "population": name,
        "epsilon": run.config.privacy.epsilon,
        "delta": delta,
        "replace_one_epsilon": epsilon_of(compose_replace_one_mu(plan.events), delta),
        "events": [event.model_dump() for event in plan.events],
        "columns": [column.__dict__ for column in plan_columns(layout, plan, codecs)],
        "classes": layout.classes,
        "pairs": len(layout.pairs),
        "pairs_chosen_by_scores": plan.score_noise is not None,
        "memory_bytes": memory_bytes(layout, codecs),
        "spent_epsilon": population.epsilon if population else 0.0,
        "cap": population.cap.epsilon if population and population.cap else None,
        "epsilon_left": population.epsilon_left if population else None,
        "runs_left": None,
        "epsilon_after_a_year": {
            cadence: _epsilon_after(population.mu if population else 0.0, mu, runs, delta)
            for cadence, runs in RUNS_A_YEAR.items()
        },
    }
    if population and population.mu_squared_left is not None:
        report["runs_left"] = min(MOST_RUNS, int(population.mu_squared_left / mu**2 + 1e-9))
    return report


def _epsilon_after(spent_mu: float, mu: float, runs: int, delta: float) -> float:
    return epsilon_of((spent_mu**2 + runs * mu**2) ** 0.5, delta)


def print_plan(report: dict[str, Any]) -> None:
    """The report as a person reads it."""
    say = typer.echo
    say(f"Plan of {report['run']}, population {report['population']}. Nothing was opened but the configuration.\n")
    say(
        f"Spends    ε={report['epsilon']:g} at δ={report['delta']:g} "
        f"(ε={report['replace_one_epsilon']:g} if a person's record is replaced)"
    )
    say(f"Before    ε={report['spent_epsilon']:g} spent on this population; {_cap(report)}")
    yearly = ", ".join(f"{cadence} ε={value:g}" for cadence, value in report["epsilon_after_a_year"].items())
    say(f"A year    of such runs would bring the population to: {yearly}")
    say(f"Memory    at most about {report['memory_bytes'] / 2**30:.1f} GiB; it does not grow with the rows")
    pairs = "the most telling are chosen by noised scores" if report["pairs_chosen_by_scores"] else "all are measured"
    say(f"Pairs     {report['pairs']}; {pairs}; {report['classes']} classes\n")
    table = Table(title="Noise (standard deviation, in people) of one cell", title_justify="left")
    for heading in ("column", "kind", "cells", "bins at most", "noise in its histogram", "noise in a pair"):
        table.add_column(heading, justify="left" if heading in {"column", "kind"} else "right")
    for column in report["columns"]:
        pair = "" if column["pair_noise"] is None else f"{column['pair_noise']:.0f}"
        table.add_row(
            column["name"],
            column["kind"],
            str(column["cells"]),
            str(column["most_bins"]),
            f"{column['noise']:.0f}",
            pair,
        )
    Console().print(table)
    say("A group of people can be told from nothing when it is several times larger than the noise of its cell.")


def _cap(report: dict[str, Any]) -> str:
    if report["cap"] is None:
        return "no cap is set (`synth budget cap`)"
    return f"cap ε={report['cap']:g}; room for {report['runs_left']} such runs"
