"""`synth budget`: what the ledger says about each population, and its cap."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer

from pipelines.budget_view import (
    facts,
    history_table,
    lines,
    overview_table,
    print_json,
    print_table,
    readable,
)
from synth.config import absolute_ledger_url
from synth.errors import InvalidConfig
from synth.privacy.ledger import Entry, Ledger, resolve_ledger_url
from synth.yaml_file import fill_environment, read_yaml

RUN_YAML = Path("run.yaml")

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

Population = Annotated[str | None, typer.Argument(help="Only this population (schema.yaml names it).")]
LedgerUrl = Annotated[str | None, typer.Option("--ledger", metavar="URL", help="The ledger, e.g. sqlite:///ledger.db")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@budget.command()
def show(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """Spent, cap and what is left, for one population or all.

    ε is composed over all charged runs at the cap's δ, or at the smallest δ recorded. "Left" is the
    largest ε that one more run may ask for at that δ; it is not cap minus spent, because runs compose
    better than their sum.
    """
    book = _open(ledger)
    if population is None:
        accounts = book.populations()
        if as_json:
            print_json({"populations": [facts(account) for account in accounts]})
        elif accounts:
            print_table(overview_table(accounts))
        else:
            typer.echo("no population yet: the ledger has no entries")
        return
    account = book.population(population)
    if account is None:
        if as_json:
            print_json({"population": population, "known": False, "cap": None})
        else:
            typer.echo(f"{population}: new population, no cap")
    elif as_json:
        print_json(facts(account))
    else:
        for line in lines(account):
            typer.echo(line)


@budget.command()
def history(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """Every entry of the ledger, oldest first: reserve, spend, settle, void, cap.

    Shown as it lies there; `synth budget verify` says whether it was tampered with.
    """
    entries = _open(ledger).history(population)
    if as_json:
        print_json({"entries": [readable(entry) for entry in entries]})
    elif entries:
        print_table(history_table(entries))
    else:
        typer.echo("no entries")


@budget.command()
def verify(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """Check the ledger's hash chain; exit 4 names the first entry that was edited, removed or moved.

    The chain is one for all populations, so all of it is checked. A chain cannot show that its latest
    entries were cut off: `synth verify BUNDLE --ledger URL` looks up the head that a bundle carries.
    """
    book = _open(ledger)
    count = book.verify_chain()
    head = book.head()
    named = None if population is None else len(book.history(population))
    if as_json:
        found: dict[str, Any] = {"intact": True, "entries": count, "head": head}
        print_json(found if named is None else found | {"population": population, "population_entries": named})
        return
    if not count:
        typer.echo(f"nothing to verify: no entries in {book.path}")
        return
    of_these = "" if named is None else f" ({named} for {population})"
    typer.echo(f"intact: {count} entries{of_these}, head {head}")


@budget.command()
def export(population: Population = None, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """All entries with their hashes on stdout, as CSV or with --json as JSON.

    `payload` is canonical JSON text: whoever holds a full export can recompute the chain.
    """
    rows = _open(ledger).export(population)
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
    book = _open(ledger, create=True)
    book.set_cap(population, epsilon, delta)
    account = book.population(population)
    assert account is not None
    if as_json:
        print_json(facts(account))
        return
    for line in lines(account):
        typer.echo(line)


def ledger_url_of_run_yaml(file: Path, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The `ledger.url` of a run.yaml, relative to its folder, and a warning when it cannot be had.

    (None, None) without such a file or key. Budgets must stay readable beside a broken run.yaml, so
    nothing is raised; the warning repeats no value of the file, which may hold a password.
    """
    if not file.exists():
        return None, None
    ignored = f"{file}: its ledger.url is ignored"
    try:
        section = read_yaml(file).get("ledger")
    except InvalidConfig as error:
        return None, f"{ignored}: {'; '.join(error.problems)}"
    url = section.get("url") if isinstance(section, dict) else section
    if url is None:
        return None, None
    if not isinstance(section, dict) or not isinstance(url, str):
        return None, f"{ignored}: should be text, as in `ledger: {{url: ...}}`"
    filled, missing = fill_environment(url, environment)
    if missing:
        return None, f"{ignored}: the environment variable {missing[0]} is not set"
    return absolute_ledger_url(filled, file.resolve().parent), None


def ledger_of(option: str | None, of_run_yaml: str | None) -> str:
    """The url of the ledger: the option, else $SYNTH_LEDGER, else of the run.yaml, else in the user's data folder."""
    return resolve_ledger_url(option, os.environ, of_run_yaml, platformdirs.user_data_path("synth"))


def _open(option: str | None, *, create: bool = False) -> Ledger:
    of_run_yaml = None
    if option is None and not os.environ.get("SYNTH_LEDGER"):
        of_run_yaml, warning = ledger_url_of_run_yaml(RUN_YAML, os.environ)
        if warning:
            typer.echo(f"warning: {warning}", err=True)
    return Ledger.open(ledger_of(option, of_run_yaml), create=create)
