"""`synth plan`: what a run would cost and how good it can be, before anything is opened."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table

from synth.config import Run, load_run
from synth.images.plan import expectation_of
from synth.prepare import events_of, exposures, plan_images_of, plan_run, refuse_large_delta
from synth.privacy.budget import TablePlan, bounds_share
from synth.privacy.composition import cost_of_run, epsilon_of, replace_one_epsilon_of
from synth.privacy.ledger import Ledger
from synth.tables.bounds import threshold
from synth.tables.codec import codecs_of
from synth.tables.ladder import ladder_of
from synth.tables.plan import memory_bytes, plan_columns, refuse_too_large

RUNS_A_YEAR = {"monthly": 12, "weekly": 52}
MOST_RUNS = 10_000
SCORED_ROWS = (1_000, 10_000)
NAMED = 6
"""Columns named in a line."""


def plan_report(run_file: Path, ledger_url: str) -> dict[str, Any]:
    """Everything `synth plan` prints, as plain values. The source is not opened."""
    run = load_run(run_file)
    run.declared.refuse_unconfirmed()
    refuse_large_delta(run)
    if run.images is not None:
        expected = expectation_of(run.images, plan_images_of(run), hidden_size=run.critic.hidden_size)
        public = run.config.synthesizer.public
        return {
            **_spending(run, ledger_url),
            "images": asdict(expected),
            "public_steps": None if public is None else public.steps,
            "memory_bytes": expected.memory_bytes,
        }
    codecs = codecs_of(run.table)
    layout, plan = plan_run(run)
    refuse_too_large(layout, plan, codecs)
    return {
        **_spending(run, ledger_url),
        "columns": [column.__dict__ for column in plan_columns(layout, plan, codecs)],
        "bounds": _estimated(run, plan),
        "classes": layout.classes,
        "pairs": len(layout.pairs),
        "pairs_measured": plan.measured_pairs,
        "triples_measured": plan.measured_triples,
        "critic": None if plan.critic is None else plan.critic.model_dump(),
        "score": None if plan.score is None else _score(run, plan.score.noise_scale),
        "memory_bytes": memory_bytes(layout, plan, codecs),
    }


def _estimated(run: Run, plan: TablePlan) -> dict[str, Any] | None:
    """What the estimate of bounds costs, and from how many people on a range is seen."""
    columns = run.asked.columns_to_estimate
    if plan.bounds_noise is None:
        return None
    return {
        "columns": [column.name for column in columns],
        "share": bounds_share(len(columns)),
        "noise": plan.bounds_noise,
        "seen_from": max(threshold(ladder_of(column), plan.bounds_noise) for column in columns),
    }


def _score(run: Run, noise_scale: float) -> dict[str, Any]:
    """What the noise makes of the accuracy on held-out people, by how many of their rows there are."""
    share, rows = run.config.evaluation.share, run.declared.row_count
    expected = [] if rows == "private" or share == 0 else [round(share * rows)]
    return {
        "holdout": share or "file",
        "noise": noise_scale,
        # With a share p of right rows it is the noise times the root of p² + (1 − p)², so at most the noise, over rows.
        "accuracy_noise": {str(count): noise_scale / count for count in (expected or SCORED_ROWS) if count},
    }


def _spending(run: Run, ledger_url: str) -> dict[str, Any]:
    """What the run would cost, and what that means for its population."""
    events, delta, name = events_of(run), run.config.privacy.delta, run.declared.ledger_population
    cost = cost_of_run(events)
    ledger = Ledger.open(ledger_url, create=False)
    population, charged = ledger.population(name), ledger.charged_events(name)
    left = ledger.runs_left(name, events)
    return {
        "run": run.name,
        "population": name,
        "epsilon": run.config.privacy.epsilon,
        "delta": delta,
        "replace_one_epsilon": replace_one_epsilon_of(cost, delta),
        "events": [event.model_dump() for event in events],
        "spent_epsilon": population.epsilon if population else 0.0,
        "cap": population.cap.epsilon if population and population.cap else None,
        "epsilon_left": population.epsilon_left if population else None,
        "runs_left": None if left is None else min(MOST_RUNS, left),
        "warnings": [*exposures(run.config.source, ledger)],
        "epsilon_after_a_year": {
            cadence: epsilon_of([*charged, *cost * runs], delta) for cadence, runs in RUNS_A_YEAR.items()
        },
    }


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
    if "images" in report:
        _print_images(report["images"])
        if report["public_steps"]:
            typer.echo(
                f"Public    detail is learned from public pictures in {report['public_steps']} steps, at no cost"
            )
        return
    say(f"Pairs     {report['pairs']}; {_pairs(report)}{_classes(report)}")
    if report["bounds"] is not None:
        say(f"Bounds    {_bounds(report['bounds'])}")
    if report["critic"] is not None:
        say(f"Critic    {_critic(report['critic'])}")
    if report["score"] is not None:
        say(f"Score     {_scored(report['score'])}")
    say("")
    title = "Noise (standard deviation, in people) of one cell"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("column", "kind", "cells", "bins\nat most", "noise in its\nhistogram", "noise in\na pair"):
        justify: JustifyMethod = "left" if heading in {"column", "kind"} else "right"
        table.add_column(heading, justify=justify, overflow="fold")
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
    wide = None if sys.stdout.isatty() else 240  # a file or a pipe has no edge at which to fold names
    Console(width=wide).print(table)
    say("Were every column to have its most bins; with fewer, columns of few levels get less noise than this.")
    say("A group of people can be told from nothing when it is several times larger than the noise of its cell.")


def _print_images(expected: dict[str, Any]) -> None:
    examples = ", ".join(f"{found} of {rows:,} pictures" for rows, found in expected["measured"].items())
    typer.echo(f"Measures  at most {expected['offered']} coefficients a picture, by the noised number: {examples}")
    typer.echo(f"Noise     {expected['class_size_noise']:.0f} pictures (standard deviation) in the size of a class,")
    typer.echo(f"          {expected['moment_noise']:.1f} pictures at the clipping length in a second moment")
    if (critic := expected["critic"]) is not None:
        typer.echo(f"Critic    {_critic(critic)};")
        typer.echo(
            f"          {critic['operations_a_picture'] / 1e6:,.0f} million operations for each picture in a step"
        )
        typer.echo(f"          and each of {critic['fakes']} generated ones, and")
        typer.echo(f"          {critic['operations_a_generator_step'] / 1e9:,.1f} billion for a step of the generator")
    typer.echo("A class can be learned when it has many times more pictures than its noise and its coefficients.")


def _bounds(estimated: dict[str, Any]) -> str:
    names = estimated["columns"]
    more = f" and {len(names) - NAMED} columns more" if len(names) > NAMED else ""
    return (
        f"{100 * estimated['share']:g}% of the budget estimates those of {', '.join(names[:NAMED])}{more}\n"
        f"          a range (from a number to about twice as much, a decade) is seen once about "
        f"{math.ceil(estimated['seen_from'])} people are in it;\n"
        "          memory and cells stand for the most that such a column can have"
    )


def _pairs(report: dict[str, Any]) -> str:
    if not report["pairs_measured"]:
        return "none is measured, the critic has their share" if report["critic"] else "none is measured"
    triples = report["triples_measured"]
    beyond = f"; and {triples} {'table' if triples == 1 else 'tables'} of three columns" if triples else ""
    if report["pairs_measured"] == report["pairs"]:
        return f"all are measured{beyond}"
    return f"the {report['pairs_measured']} most telling are chosen with noise, and measured{beyond}"


def _classes(report: dict[str, Any]) -> str:
    return f"; {report['classes']} classes" if report["classes"] > 1 else ""


def _critic(event: dict[str, Any]) -> str:
    return (
        f"DP-SGD: {event['steps']} steps, each person in a step with probability {event['sample_rate']:g}, "
        f"noise {event['noise_multiplier']:.4g} clipping norms"
    )


def _scored(score: dict[str, Any]) -> str:
    whom = "people of a file" if score["holdout"] == "file" else f"each person with probability {score['holdout']:g}"
    known = " and ".join(f"{100 * noise:.2g} points with {int(n):,}" for n, noise in score["accuracy_noise"].items())
    return (
        f"accuracy on held-out people ({whom}); noise {score['noise']:.1f} rows in the numbers of right and of wrong: "
        f"at most {known} held-out rows"
    )


def _cap(report: dict[str, Any]) -> str:
    if report["cap"] is None:
        return "no cap is set (`synth budget cap`)"
    return f"cap ε={report['cap']:g}; room for {report['runs_left']} such runs"
