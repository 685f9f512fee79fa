"""`synth deploy`: register a run, or fresh rows from an approved bundle, on a schedule with Prefect."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.ledger_secret import recalled, remembered
from pipelines.options import AsJson, LedgerOfRun
from pipelines.quiet import quiet_prefect
from pipelines.releasing import lists_to_read
from pipelines.secret_blocks import fill_from_blocks
from synth.config import Run, load_run
from synth.errors import NotApproved, UserError, VerificationFailed

if TYPE_CHECKING:
    from pipelines.deployment import Deployment

SHOWN = 3
MOST_SLOTS = 1_000


def deploy(
    run_yaml: Annotated[Path, typer.Argument(help="The run.yaml to follow.", show_default=False)],
    cron: Annotated[str, typer.Option("--cron", help='Five fields, such as "0 3 * * 0".', show_default=False)],
    timezone: Annotated[str, typer.Option("--timezone", help="Of the schedule, such as Europe/Berlin.")] = "UTC",
    resample_only: Annotated[
        bool, typer.Option("--resample-only", help="Draw fresh rows from --bundle each time; costs no budget.")
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="With --resample-only: an approved bundle.", show_default=False)
    ] = None,
    work_pool: Annotated[str, typer.Option("--work-pool", help="Process work pool; made when missing.")] = "synth",
    name: Annotated[
        str | None, typer.Option("--name", help="Of the deployment. Default: the run's name.", show_default=False)
    ] = None,
    ledger: LedgerOfRun = None,
    as_json: AsJson = False,
) -> None:
    """Run on a schedule: register it with the Prefect server that PREFECT_API_URL or the active profile names.

    The run is checked first, as `synth run` does before it reserves. Each slot of the schedule is a run of its own,
    paid for anew; one that the cap refuses ends as RefusedByBudget, and nothing is ever retried. Doing it again brings
    the deployment up to date. The last line of stdout is the deployment's name.
    """
    fill_from_blocks(run_yaml)
    run = load_run(run_yaml)
    _plain(work_pool, "--work-pool")
    quiet_prefect()
    from pipelines.deployment import register, server, slots

    now = datetime.now(UTC)
    coming = slots(cron, timezone, most=SHOWN, now=now)
    facts: dict[str, Any] = {}
    if resample_only:
        made = _resample(run, bundle, name, cron=cron, timezone=timezone, work_pool=work_pool)
    else:
        if bundle is not None:
            raise UserError("--bundle goes with --resample-only")
        made, facts = _scheduled(run, ledger, name, cron=cron, timezone=timezone, work_pool=work_pool, now=now)
    with server() as client:
        deployment_id = register(client, made)
    for warning in facts.pop("warnings", ()):  # after all that could end in an error, which is one line
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        dates = [date.isoformat() for date in coming]
        printed = {"deployment": made.full_name, "id": str(deployment_id), "work_pool": work_pool, "next": dates}
        typer.echo(json.dumps(printed | facts))
        return
    for line in _next_steps(made, coming):
        typer.echo(line, err=True)
    typer.echo(made.full_name)


def _scheduled(
    run: Run, ledger: str | None, name: str | None, *, cron: str, timezone: str, work_pool: str, now: datetime
) -> tuple[Deployment, dict[str, Any]]:
    from datasheets import load_answers
    from pipelines.deployment import Deployment, slots
    from synth.prepare import check, events_of, exposures
    from synth.privacy.composition import cost_of_run, epsilon_of
    from synth.privacy.ledger import Ledger, format_epsilon

    load_answers(run.config.answers)
    word = remembered(ledger, run.config.ledger.url)
    book = Ledger.open(recalled(word, run.config.ledger.url), create=False)
    check(run.file, book)
    population, privacy, events = run.declared.ledger_population, run.config.privacy, events_of(run)
    left = book.runs_left(population, events)
    year = [date for date in slots(cron, timezone, most=MOST_SLOTS, now=now) if date < now + timedelta(days=365)]
    warnings = [*exposures(run.config.source, book)]
    if left is None:
        events_of_year = [*book.charged_events(population), *cost_of_run(events) * len(year)]
        warnings.append(
            f"population {population!r} has no cap: the next {len(year)} slots, at most a year, bring it to "
            f"ε={format_epsilon(epsilon_of(events_of_year, privacy.delta))}; set one with `synth budget cap`"
        )
    elif left < len(year):
        warnings.append(
            f"the cap of population {population!r} leaves {left} such runs, the last on "
            f"{year[left - 1]:%Y-%m-%d}; later slots end as RefusedByBudget and spend nothing"
        )
    deployment = Deployment(
        flow="synth-scheduled",
        entrypoint="pipelines.scheduled.scheduled_run",
        name=_plain(name or run.name, "--name"),
        work_pool=work_pool,
        cron=cron,
        timezone=timezone,
        parameters={"run_file": str(run.file), "ledger": word},
        population=population,
        description=f"Synthetic data of {population}: ε={privacy.epsilon:g}, δ={privacy.delta:g} a run.",
    )
    return deployment, {"population": population, "runs_left": left, "slots_a_year": len(year), "warnings": warnings}


def _resample(
    run: Run, bundle: Path | None, name: str | None, *, cron: str, timezone: str, work_pool: str
) -> Deployment:
    from pipelines.deployment import Deployment
    from synth.release import examine, in_words
    from synth.release.attestation import claims_of

    if bundle is None:
        raise UserError("--resample-only needs --bundle: name an approved bundle")
    found = examine(bundle, revocations=lists_to_read(bundle, None))
    if not found.approved:
        raise NotApproved(f"{bundle}: is {in_words(found)}; `synth approve` comes before a schedule of it")
    population = claims_of(bundle).population
    if population != run.declared.ledger_population:
        raise UserError(
            f"{bundle}: is of population {population!r}, and run.yaml of {run.declared.ledger_population!r}"
        )
    asked = run.config.output.rows
    return Deployment(
        flow="synth-resample",
        entrypoint="pipelines.scheduled.scheduled_resample",
        name=_plain(name or run.name, "--name"),
        work_pool=work_pool,
        cron=cron,
        timezone=timezone,
        parameters={
            "bundle": str(bundle.resolve()),
            "directory": str(run.config.output.directory),
            "name": run.name,
            "rows": _rows_of(bundle) if asked == "auto" else asked,
        },
        population=None,
        description=f"Fresh rows from run {found.run_id}, at no budget.",
    )


def _rows_of(bundle: Path) -> int:
    try:
        return int(json.loads((bundle / "quality.json").read_bytes())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        raise VerificationFailed(f"{bundle}: quality.json does not say how many rows it has") from None


def _plain(name: str, option: str) -> str:
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise UserError(f"{option} {name!r}: use letters, digits, dots and dashes")
    return name


def _next_steps(made: Deployment, coming: list[datetime]) -> Iterator[str]:
    dates = ", ".join(f"{date:%Y-%m-%d %H:%M} UTC" for date in coming)
    yield f"registered: {made.full_name}; next: {dates}"
    yield (
        f"start a worker, if none runs yet: prefect worker start --pool {shlex.quote(made.work_pool)} "
        "(where run.yaml, its source and its ledger can be reached, with the same environment variables)"
    )
    yield f"try it now: prefect deployment run {shlex.quote(made.full_name)}"
