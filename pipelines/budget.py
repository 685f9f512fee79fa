"""`synth budget`: what the ledger says about each population, and its cap."""

from __future__ import annotations

import csv
import io
from typing import Annotated

import typer

from pipelines.budget_copies import backup, restore, verify
from pipelines.budget_ledger import ledger_of, open_ledger
from pipelines.budget_view import (
    facts,
    history_table,
    lines,
    overview_table,
    print_json,
    print_table,
    readable,
    warn_of_little,
)
from pipelines.options import AsJson, LedgerUrl
from synth.privacy.ledger import Entry

__all__ = ["budget", "ledger_of"]

budget = typer.Typer(
    name="budget",
    no_args_is_help=True,
    help=(
        "How much privacy has been spent, on whom, and how much is left.\n\n"
        "Runs on the same population add up, whatever the dataset is called. A run counts from the moment "
        "it reserves; one that crashed counts in full.\n\n"
        "The ledger is --ledger, else $SYNTH_LEDGER, else ledger.url of ./run.yaml, else one in your "
        "data folder."
    ),
)

budget.command()(verify)
budget.command()(backup)
budget.command()(restore)

Population = Annotated[str | None, typer.Argument(help="Only this population (schema.yaml names it).")]


@budget.command()
def show(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """Spent, cap and what is left, for one population or all.

    ε is composed over all charged runs at the cap's δ, or at the smallest δ recorded. "Left" is the
    largest ε that one more run may ask for at that δ; it is not cap minus spent, because runs compose
    better than their sum. Where populations were declared to overlap, the runs on all of them count, and
    the tightest of their caps. A line on stderr warns when another run like the latest would not fit.
    """
    book = open_ledger(ledger)
    if population is None:
        accounts = book.populations()
        warn_of_little(accounts)
        if as_json:
            print_json({"populations": [facts(account) for account in accounts]})
        elif accounts:
            print_table(overview_table(accounts))
        else:
            typer.echo(f"no population yet: ledger {book.place} has no entries")
        return
    account = book.population(population)
    if account is None:
        if as_json:
            print_json({"population": population, "known": False, "cap": None})
        else:
            typer.echo(f"{population}: new population, no cap")
        return
    warn_of_little([account])
    if as_json:
        print_json(facts(account))
    else:
        for line in lines(account):
            typer.echo(line)


@budget.command()
def history(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """Every entry of the ledger, oldest first: reserve, spend, settle, void, cap, overlap.

    Shown as it lies there; `synth budget verify` says whether it was tampered with.
    """
    entries = open_ledger(ledger).history(population)
    if as_json:
        print_json({"entries": [readable(entry) for entry in entries]})
    elif entries:
        print_table(history_table(entries))
    else:
        typer.echo("no entries")


@budget.command()
def export(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """All entries with their hashes on stdout, as CSV or with --json as JSON.

    `payload` is canonical JSON text: whoever holds a full export can recompute the chain.
    """
    rows = open_ledger(ledger).export(population)
    if as_json:
        print_json({"entries": rows})
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Entry.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    typer.echo(text.getvalue(), nl=False)


@budget.command()
def cap(
    population: Annotated[str, typer.Argument(help="The population, as schema.yaml names it.")],
    epsilon: Annotated[float, typer.Argument(help="No run may lift the composed ε above this.")],
    delta: Annotated[
        float | None, typer.Option(help="δ of the cap. Default: the smallest one recorded, else 1e-5.")
    ] = None,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set how much may ever be spent on a population. The latest cap counts.

    A run that would pass it is refused before it opens its source (exit 3). For example, three years of
    quarterly releases at ε = 1, δ = 1e-5 compose to ε = 4.02: synth budget cap my-patients 4.1
    """
    book = open_ledger(ledger, create=True)
    new = book.population(population) is None
    book.set_cap(population, epsilon, delta)
    if new:
        typer.echo(
            f"note: {population!r} is new in ledger {book.place}; the cap binds runs whose schema.yaml has this very "
            "name as `population`",
            err=True,
        )
    account = book.population(population)
    assert account is not None
    warn_of_little([account])
    if as_json:
        print_json(facts(account))
        return
    for line in lines(account):
        typer.echo(line)


@budget.command()
def overlap(
    population: Annotated[str, typer.Argument(help="A population, as schema.yaml names it.")],
    other: Annotated[str, typer.Argument(help="Another one, which may have people in common with it.")],
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say that people of one population may be in another too. It cannot be taken back.

    From then on the runs on either count for both, those of the past included: each one's balance is what
    a person who is in both has lost, and the caps of both bind every run. Overlaps chain: with A B and
    B C declared, all three count together, though nobody may be in A and C. That errs on the safe side.

    The ledger only grows, so there is no undoing: name the populations exactly as schema.yaml does. A
    name that is in no run yet is allowed, so that an overlap can be declared before the first run.
    """
    book = open_ledger(ledger, create=True)
    book.declare_overlap(population, other)
    accounts = [account for name in (population, other) if (account := book.population(name)) is not None]
    warn_of_little(accounts)
    if as_json:
        print_json({"populations": [facts(account) for account in accounts]})
        return
    for account in accounts:
        for line in lines(account):
            typer.echo(line)
