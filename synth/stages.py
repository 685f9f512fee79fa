"""The stages of a table run, in order. Each takes the run's folder and leaves files; none needs Prefect.

    (prepare) → reserve → encode → measure → train → sample → evaluate → settle → (document) → seal

Private rows are seen by `encode`, `measure` and the internal half of `evaluate` alone. Nothing is drawn before the
ledger holds the reservation, and each release is marked as spent before its first draw.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from synth import release
from synth.config import Run
from synth.errors import SynthError
from synth.evaluate.internal import internal_scores, write_internal_report
from synth.evaluate.public import cells_of, public_scores
from synth.facts import DataFacts, ModelFacts, PrivacyFacts, PublicFacts, QualityFacts, RunFacts
from synth.files import PRIVATE_FOLDER, write_whole
from synth.ingest import at_rest, read_batches, read_persons
from synth.parquet import synthetic_metadata, write_parts
from synth.prepare import plan_run
from synth.privacy.accounting import compose_mu, compose_replace_one_mu, epsilon_of
from synth.privacy.boundary import guarded_stage, without_values
from synth.privacy.contributions import bound_contributions
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger, little_left
from synth.privacy.noise import PROTECTION, NoiseSource
from synth.privacy.statement import ACCOUNTANT, not_covered
from synth.run_folder import RunFolder
from synth.tables.codec import codecs_of
from synth.tables.count import read_codes
from synth.tables.decode import arrow_schema, decoder_of
from synth.tables.encode import encode as encode_rows
from synth.tables.measure import (
    Layout,
    Measurements,
    Measurer,
    load_measurements,
    save_measurements,
)
from synth.tables.model import TableModel
from synth.tables.rows import sample_rows
from synth.tables.train import LATENT_SIZE, FitSettings, fit, settings_of

logger = logging.getLogger(__name__)

OUTSIDE = "outside.json"
"""How many source values lay outside their domain, by column: for the steward alone."""

IntArray = npt.NDArray[np.int64]

LIBRARIES = ("numpy", "pyarrow", "pytorch-lightning", "safetensors", "scipy", "torch")


@guarded_stage
def reserve(folder: RunFolder, ledger: Ledger) -> None:
    """Reserve the run's whole budget. Raises BudgetExceeded; nothing has been read yet."""
    run = folder.run()
    _, plan = plan_run(run)
    reservation = ledger.reserve(
        population=run.table.ledger_population,
        dataset=run.table.dataset,
        run_id=folder.run_id,
        events=plan.events,
        delta=run.config.privacy.delta,
    )
    logger.info("reserve: (ε=%g, δ=%g) reserved for this run", run.config.privacy.epsilon, run.config.privacy.delta)
    if reservation.runs_left == 0:
        logger.warning("warning: %s", little_left(reservation.population))


@guarded_stage
def encode(folder: RunFolder) -> None:
    """One pass over the private rows into the run's working file."""
    run = folder.run()
    codecs = codecs_of(run.table)
    source, stays = run.config.source.path, None
    with at_rest(source):
        if run.table.person_column is not None:
            persons = read_persons(source, run.table)
            stays = bound_contributions(persons, max_rows_per_person=run.table.max_rows_per_person)
        outside = encode_rows(read_batches(source, run.table), codecs, folder.codes, stays=stays)
    write_whole(folder.private / OUTSIDE, json.dumps(outside))
    logger.info("encode: the declared columns are encoded")


@guarded_stage
def measure(folder: RunFolder, ledger: Ledger) -> None:
    """All noised releases, each marked as spent in the ledger before its first draw, then saved whole."""
    run = folder.run()
    layout, plan = plan_run(run)
    events = {event.name: event for event in plan.events}
    count = run.table.row_count
    measurer = Measurer(
        read=lambda keys: read_codes(folder.codes, keys),
        codecs=codecs_of(run.table),
        layout=layout,
        plan=plan,
        noise=NoiseSource(),
        charge=lambda name: _charge(ledger, folder.run_id, events[name]),
        # With a person column the measured rows are those left after bounding, fewer than declared.
        public_rows=None if count == "private" or run.table.person_column else int(count),
    )
    measured = measurer.measure()
    save_measurements(measured, folder.private)
    if run.config.privacy.delta * measured.total >= 1:
        logger.warning("measure: δ is not below one over the (noised) number of rows; use a smaller one")
    logger.info("measure: %d noised releases made and saved", len(plan.events))


@guarded_stage
def train(folder: RunFolder) -> None:
    """Fit the generator to the noised measurements and save the model. No private row is opened."""
    run = folder.run()
    measured = load_measurements(folder.private)
    codecs = codecs_of(run.table)
    layout, _ = plan_run(run)
    settings = fit_settings(run, layout)
    fitted = fit(measured, settings, checkpoints=folder.private / "checkpoints")
    total, count = float(measured.class_sizes.sum()), run.table.row_count
    model = TableModel(
        schema=run.table,
        encoding=fitted.encoding,
        target=layout.target,
        class_share=measured.class_sizes / total,
        class_of_cell=measured.class_of_cell,
        decoders={name: decoder_of(measured, codecs[name]) for name in layout.columns},
        members=fitted.members,
        rows=max(1, round(measured.total)) if count == "private" else int(count),
    )
    folder.model.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    model.save(folder.model)
    facts = ModelFacts(
        kind="conditional generator fitted to noised class-conditional moments",
        parameters=model.parameters,
        members=settings.members,
        latent_points=settings.latent_points,
        latent_size=LATENT_SIZE,
        hidden_size=settings.hidden_size,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        measured_pairs=len(measured.pairs),
        candidate_pairs=len(layout.pairs),
        bins=dict(zip(fitted.encoding.names, fitted.encoding.sizes, strict=True)),
        chi=fitted.chi,
    )
    folder.note("model", facts.model_dump(mode="json"))


def fit_settings(run: Run, layout: Layout) -> FitSettings:
    """How a run's generators are fitted; from config and schema alone."""
    return settings_of(run.config.synthesizer, epsilon=run.config.privacy.epsilon, classes=layout.classes)


@guarded_stage
def sample(folder: RunFolder) -> None:
    """Draw the synthetic rows from the model and write them as Parquet. No private row is opened."""
    run = folder.run()
    model = TableModel.load(folder.model)
    asked, declared = run.config.output.rows, run.table.row_count
    rows = model.rows if asked == "auto" else asked
    chosen_by = "config" if asked != "auto" else "noised count" if declared == "private" else "declared row count"
    folder.data.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    parts = write_parts(
        sample_rows(model, rows),
        arrow_schema(model.schema, model.codecs),
        folder.data,
        synthetic_metadata(
            epsilon=run.config.privacy.epsilon,
            delta=run.config.privacy.delta,
            privacy_unit=run.table.unit,
            run_id=folder.run_id,
        ),
    )
    facts = DataFacts(
        rows=rows,
        rows_chosen_by=chosen_by,
        columns=tuple(column.model_dump(mode="json", exclude_defaults=True) for column in run.table.columns),
        target=model.target,
        classes=len(model.class_share),
        files=tuple(f"data/{name}" for name in parts),
    )
    folder.note("data", facts.model_dump(mode="json"))
    logger.info("sample: %d synthetic rows", rows)


@guarded_stage
def evaluate(folder: RunFolder) -> None:
    """Public scores for the bundle, and the internal report for the steward."""
    run = folder.run()
    codecs = codecs_of(run.table)
    measured = load_measurements(folder.private)
    cells, valid, rows = cells_of(_synthetic_batches(folder), codecs)
    quality = public_scores(measured, run.table, cells, valid_rows=valid, rows=rows)
    folder.note("quality", quality.model_dump(mode="json"))
    try:
        _report_to_the_steward(folder, measured, cells)
    except Exception as error:
        # Whether the bundle appears must not depend on a score of the exact rows.
        without_values("evaluate", error, folder.internal)
    logger.info("evaluate: public scores made; the internal report is for the steward alone")


def _report_to_the_steward(folder: RunFolder, measured: Measurements, cells: Mapping[str, IntArray]) -> None:
    scores = internal_scores(
        measured,
        codecs_of(folder.run().table),
        lambda keys: read_codes(folder.codes, keys),
        cells,
        json.loads((folder.private / OUTSIDE).read_text()),
        rng=np.random.default_rng(0),
    )
    write_internal_report(scores, folder.internal)


@guarded_stage
def settle(folder: RunFolder, ledger: Ledger) -> None:
    """Close the run's account as spent and keep the public statement of what it cost. Working rows are deleted."""
    run = folder.run()
    _, plan = plan_run(run)
    population = run.table.ledger_population
    entry = ledger.settle(folder.run_id)
    budget = ledger.population(population)
    if budget is None:
        raise SynthError(f"ledger: population {population} is gone while its run was under way")
    mu = compose_mu(plan.events)
    delta = run.config.privacy.delta
    facts = PrivacyFacts(
        epsilon=epsilon_of(mu, delta),
        delta=delta,
        mu=mu,
        replace_one_epsilon=epsilon_of(compose_replace_one_mu(plan.events), delta),
        privacy_unit=run.table.unit,
        max_rows_per_person=run.table.max_rows_per_person,
        neighboring_relation="add-or-remove-one",
        row_count=run.table.row_count,
        events=plan.events,
        noise_protection=PROTECTION,
        accountant=ACCOUNTANT,
        not_covered=not_covered(run.table),
        population_epsilon=budget.epsilon,
        population_delta=budget.delta,
        population_cap=budget.cap.epsilon if budget.cap else None,
        population_candidates=budget.candidates,
        ledger_head=entry.hash,
    )
    folder.note("privacy", facts.model_dump(mode="json"))
    folder.codes.unlink(missing_ok=True)
    logger.info("settle: ε=%g spent; this population has spent ε=%g in all", facts.epsilon, facts.population_epsilon)


def public_facts(folder: RunFolder) -> PublicFacts:
    """Everything that may be published about a run that has settled."""
    run = folder.run()
    return PublicFacts(
        run=RunFacts(
            run_id=folder.run_id,
            name=run.name,
            created=folder.created(),
            dataset=run.table.dataset,
            population=run.table.ledger_population,
            software=f"dp-synth {metadata.version('dp-synth')}",
            libraries={name: metadata.version(name) for name in LIBRARIES},
        ),
        privacy=PrivacyFacts.model_validate(folder.noted("privacy")),
        data=DataFacts.model_validate(folder.noted("data")),
        model=ModelFacts.model_validate(folder.noted("model")),
        quality=QualityFacts.model_validate(folder.noted("quality")),
    )


@guarded_stage
def seal(folder: RunFolder) -> Path:
    """Seal the draft and make it the bundle in one rename."""
    release.seal(folder.draft)
    release.publish(folder.draft, folder.bundle, created=folder.created())
    logger.info("seal: the bundle is complete")
    return folder.bundle


def give_up(folder: RunFolder, ledger: Ledger) -> None:
    """After a failure: charge nothing if nothing was drawn, everything otherwise.

    A run that was not charged and has nothing to tell the steward leaves no folder either.
    """
    ledger.close_failed(folder.run_id)
    charged = any(run.run_id == folder.run_id for account in ledger.populations() for run in account.charged)
    if not charged and not any(folder.internal.glob("failure-*.txt")):
        folder.delete()


def _charge(ledger: Ledger, run_id: str, event: GaussianEvent) -> None:
    ledger.spend(run_id, event)


def _synthetic_batches(folder: RunFolder) -> Iterator[pa.RecordBatch]:
    for path in sorted(folder.data.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches()
