"""Before a run: everything that can be checked without reading a row. Light, so that a mistake is told at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from synth.config import Database, Run, Source, load_run
from synth.errors import InvalidConfig, InvalidSource, NotBuiltYet, PrivacyRefusal, UserError
from synth.files import identities
from synth.images.credentials import of_steward
from synth.images.public import read_public
from synth.images.source import open_images
from synth.ingest import check_header
from synth.privacy.boundary import guarded
from synth.privacy.budget import TablePlan
from synth.privacy.events import Event
from synth.privacy.image_budget import ImagePlan, plan_images
from synth.privacy.ledger import Ledger
from synth.run_folder import RunFolder, create_run_folder, delete_leftovers
from synth.tables.codec import codecs_of
from synth.tables.layout import Layout, layout_of, plan_of
from synth.tables.plan import refuse_too_large
from synth.working_file import working_key

logger = logging.getLogger(__name__)

MAX_DELTA = 1e-3
MAX_SCORED_CLASSES = 30
"""Boosting grows a set of trees for each class."""


def prepare(run_file: Path, ledger: Ledger, *, run_id: str | None = None) -> RunFolder:
    """Check a run and make its folder, under a new id or the one that is given. Raises as `check` does."""
    delete_leftovers(load_run(run_file).config.output.directory)  # also where this run is refused
    run = check(run_file, ledger)
    return create_run_folder(run, run_id=run_id)


def check(run_file: Path, ledger: Ledger) -> Run:
    """Everything that can refuse a run before a row is read; nothing is written.

    In this order: the files' own validity, unconfirmed domains, the table's size, the population's cap, and only then
    the header of the source. Raises InvalidConfig, NotBuiltYet, UnconfirmedDomain, BudgetExceeded or InvalidSource.
    """
    run = load_run(run_file)
    working_key()  # half a key is refused before anything is reserved
    run.declared.refuse_unconfirmed()
    refuse_large_delta(run)
    if run.images is None:
        refuse_too_large(*plan_run(run), codecs_of(run.table))
    ledger.refuse_if_over_cap(run.declared.ledger_population, events_of(run))
    check_source(run)
    return run


def check_source(run: Run) -> None:
    """Look at the header of the source alone: names and physical types. Raises InvalidSource."""
    with guarded("prepare"):
        if run.images is None:
            check_header(run.rows, run.table)
            check_holdout(run)
        else:
            open_images(run.files, run.images)
            if (public := run.config.synthesizer.public) is not None:
                read_public(public, run.images.image, source=run.files)
            if run.config.output.c2pa is not None:
                of_steward(run.config.output.c2pa)


def exposures(source: Source | Database | None, ledger: Ledger | None) -> Iterator[str]:
    """What others on the network could read or forge, by the URLs alone: a line for each."""
    remedy = "can be read and forged on its way over the network: add ?sslmode=verify-full to"
    if isinstance(source, Database):
        from synth.database import PLACE, exposed  # the driver is loaded where it is used

        if exposed(source):
            yield f"source {PLACE}: {remedy} source.url"
    if ledger is not None and ledger.exposed:
        yield f"ledger {ledger.place}: {remedy} its url"


def refuse_unscorable(run: Run, layout: Layout) -> None:
    """Raise InvalidConfig when there is nothing that a classifier could predict on held-out people."""
    if layout.target is None:
        problem = "needs a target in the schema and a column besides it; declare `target`, or leave it at 0"
    elif layout.classes > MAX_SCORED_CLASSES:
        problem = (
            f"the target has {layout.classes} classes and the score is for at most {MAX_SCORED_CLASSES}; leave it at 0"
        )
    else:
        return
    raise InvalidConfig(str(run.file), [f"evaluation.holdout: {problem}"])


def refuse_unordered(run: Run) -> None:
    """Raise NotBuiltYet where people are held out by row, and bounds estimated, from rows that come in no fixed order.

    Two passes would hold out two sets of people.
    """
    by_row = run.config.evaluation.share > 0 and run.asked.person_column is None
    if by_row and run.asked.columns_to_estimate and isinstance(run.rows, Database):
        names = ", ".join(column.name for column in run.asked.columns_to_estimate)
        raise NotBuiltYet(
            f"{run.file}: evaluation.holdout: a share is not offered for a database without a person column where "
            f"bounds are estimated ({names}); declare the bounds, or hold out a file of people"
        )


def check_holdout(run: Run) -> None:
    """Look at the header of a separate file of held-out people. Raises InvalidSource or UserError."""
    file = run.config.evaluation.file
    if file is None:
        return
    source = run.config.source
    if isinstance(source, Source) and identities(file) & identities(source.path):
        raise UserError(f"evaluation.holdout {file}: is the source; name a file of other people, or a share of it")
    try:
        check_header(file, run.table)
    except InvalidSource as error:
        raise InvalidSource(f"evaluation.holdout: {error}") from None


def refuse_large_delta(run: Run) -> None:
    """Raise PrivacyRefusal when δ would allow one person's row to be published: it must be below one over the rows.

    A private number of rows is not known here; `measure` compares δ with the noised one and says so.
    """
    delta, rows = run.config.privacy.delta, run.declared.row_count
    if delta > MAX_DELTA:
        raise PrivacyRefusal(f"privacy.delta: {delta:g} promises too little; use at most {MAX_DELTA:g}, such as 1e-5")
    if rows != "private" and delta * rows >= 1:
        raise PrivacyRefusal(f"privacy.delta: {delta:g} is not below one over the declared {rows} rows; use less")


def events_of(run: Run) -> tuple[Event, ...]:
    """What a run will spend, from config and schema alone."""
    return plan_run(run)[1].events if run.images is None else plan_images_of(run).events


def plan_images_of(run: Run) -> ImagePlan:
    """What a run on images will spend, from config and schema alone."""
    privacy, m = run.config.privacy, run.declared.max_rows_per_person
    return plan_images(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        max_rows_per_person=m,
        critic_share=run.config.synthesizer.share_of_critic,
        critic_steps=run.critic.steps,
        critic_sample_rate=run.critic.sample_rate,
    )


def note_large_delta(folder: RunFolder, delta: float, noised_rows: float) -> None:
    """Keep for the statement whether δ is below one over the noised number of rows, and warn when it is not."""
    large = delta * noised_rows >= 1
    if large:
        logger.warning("warning: δ=%g is not below one over the noised number of rows; use a smaller one", delta)
    folder.note("delta", {"large": large})


def plan_run(run: Run) -> tuple[Layout, TablePlan]:
    """What a run will measure and what it will spend, from config and schema alone.

    So it is also once bounds have been estimated: with others a column never has more histograms than with all that
    its kind can hold, which is what it is planned with.
    """
    table = run.asked
    codecs = codecs_of(table)
    layout = layout_of(table, codecs)
    privacy = run.config.privacy
    plan = plan_of(
        layout,
        codecs,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        max_rows_per_person=table.max_rows_per_person,
        critic_share=run.config.synthesizer.share_of_critic,
        critic_steps=run.critic.steps,
        critic_sample_rate=run.critic.sample_rate,
        holdout="file" if run.config.evaluation.file is not None else run.config.evaluation.share,
    )
    if run.config.evaluation.holds_out:
        refuse_unscorable(run, layout)
        refuse_unordered(run)
    return layout, plan
