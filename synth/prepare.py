"""Before a run: everything that can be checked without reading a row. Light, so that a mistake is told at once."""

from __future__ import annotations

from pathlib import Path

from synth.config import Run, load_run
from synth.ingest import check_header
from synth.privacy.boundary import guarded
from synth.privacy.budget import TablePlan
from synth.privacy.ledger import Ledger
from synth.run_folder import RunFolder, create_run_folder, delete_leftovers
from synth.tables.codec import codecs_of
from synth.tables.measure import Layout, layout_of, plan_of
from synth.tables.plan import refuse_too_large


def prepare(run_file: Path, ledger: Ledger) -> RunFolder:
    """Check a run and make its folder.

    In this order: the files' own validity, unconfirmed domains, the table's size, the population's cap, and only then
    the header of the source. Raises InvalidConfig, NotBuiltYet, UnconfirmedDomain, BudgetExceeded or InvalidSource.
    """
    run = load_run(run_file)
    run.table.refuse_unconfirmed()
    layout, plan = plan_run(run)
    refuse_too_large(layout, codecs_of(run.table))
    ledger.refuse_if_over_cap(run.table.ledger_population, plan.events)
    with guarded("prepare"):
        check_header(run.config.source.path, run.table)
    delete_leftovers(run.config.output.directory)
    return create_run_folder(run)


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
