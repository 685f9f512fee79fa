"""Before a run: everything that can be checked without reading a row. Light, so that a mistake is told at once."""

from __future__ import annotations

from pathlib import Path

from synth.config import Run, load_run
from synth.errors import PrivacyRefusal
from synth.ingest import check_header
from synth.privacy.boundary import guarded
from synth.privacy.budget import TablePlan
from synth.privacy.ledger import Ledger
from synth.run_folder import RunFolder, create_run_folder, delete_leftovers
from synth.tables.codec import codecs_of
from synth.tables.measure import Layout, layout_of, plan_of
from synth.tables.plan import refuse_too_large

MAX_DELTA = 1e-3


def prepare(run_file: Path, ledger: Ledger) -> RunFolder:
    """Check a run and make its folder.

    In this order: the files' own validity, unconfirmed domains, the table's size, the population's cap, and only then
    the header of the source. Raises InvalidConfig, NotBuiltYet, UnconfirmedDomain, BudgetExceeded or InvalidSource.
    """
    run = load_run(run_file)
    run.table.refuse_unconfirmed()
    refuse_large_delta(run)
    layout, plan = plan_run(run)
    refuse_too_large(layout, codecs_of(run.table))
    ledger.refuse_if_over_cap(run.table.ledger_population, plan.events)
    with guarded("prepare"):
        check_header(run.config.source.path, run.table)
    delete_leftovers(run.config.output.directory)
    return create_run_folder(run)


def refuse_large_delta(run: Run) -> None:
    """Raise PrivacyRefusal when δ would allow one person's row to be published: it must be below one over the rows.

    A private number of rows is not known here; `measure` compares δ with the noised one and says so.
    """
    delta, rows = run.config.privacy.delta, run.table.row_count
    if delta > MAX_DELTA:
        raise PrivacyRefusal(f"privacy.delta: {delta:g} promises too little; use at most {MAX_DELTA:g}, such as 1e-5")
    if rows != "private" and delta * rows >= 1:
        raise PrivacyRefusal(f"privacy.delta: {delta:g} is not below one over the declared {rows} rows; use less")


def plan_run(run: Run) -> tuple[Layout, TablePlan]:
    """What a run will measure and what it will spend, from config and schema alone."""
    codecs = codecs_of(run.table)
    layout = layout_of(run.table, codecs)
    privacy = run.config.privacy
    plan = plan_of(
        layout,
        codecs,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        max_rows_per_person=run.table.max_rows_per_person,
    )
    return layout, plan
