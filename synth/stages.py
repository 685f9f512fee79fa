"""The stages of a run, in order. Each takes the run's folder and leaves files; none needs Prefect.

    (prepare) → reserve → encode → measure → train → (refine) → sample → audit → evaluate → settle → (document) → seal

Private rows are seen by `encode`, `measure`, `refine` and the internal half of `evaluate` alone. Nothing is drawn
before the ledger holds the reservation, and each event is marked as spent before its first draw. What a run on images
does otherwise than one on a table is in `synth.images.stages`.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from synth import release
from synth.config import Run
from synth.errors import PrivacyRefusal
from synth.evaluate.internal import internal_scores, write_internal_report
from synth.evaluate.internal.rules import BrokenRows, rule_scores
from synth.evaluate.public import cells_of, public_scores
from synth.facts import (
    AuditFacts,
    CriticFacts,
    DataFacts,
    ImageModelFacts,
    ModelFacts,
    PrivacyFacts,
    PublicFacts,
    QualityFacts,
    RunFacts,
)
from synth.files import PRIVATE_FOLDER, sha256_text, write_whole
from synth.images import stages as image_stages
from synth.ingest import at_rest, read_batches, read_persons
from synth.parquet import synthetic_metadata, write_parts
from synth.prepare import events_of, note_large_delta, plan_run
from synth.privacy.audit.one_run import Audit
from synth.privacy.audit.synthetic_rows import audit_of_rows, refuse_refuted
from synth.privacy.boundary import guarded_stage, without_values
from synth.privacy.composition import composed_mu, epsilon_of, replace_one_epsilon_of
from synth.privacy.contributions import bound_and_number, bound_contributions
from synth.privacy.dp_sgd import DpSgdConfig
from synth.privacy.events import Event
from synth.privacy.ledger import Ledger, little_left
from synth.privacy.noise import NoiseSource
from synth.privacy.statement import accountant, noise_protection, not_covered, renyi_epsilon
from synth.run_folder import RunFolder
from synth.schema import public_yaml
from synth.tables.codec import codecs_of
from synth.tables.count import read_codes
from synth.tables.decode import arrow_schema, decoder_of
from synth.tables.encode import PERSON
from synth.tables.encode import encode as encode_rows
from synth.tables.measure import (
    Layout,
    Measurements,
    Measurer,
    load_measurements,
    save_measurements,
)
from synth.tables.model import TableModel
from synth.tables.refine import FAKES, RefineSettings, bin_rows
from synth.tables.refine import refine as refine_generators
from synth.tables.rows import sample_rows
from synth.tables.rules import rules_of
from synth.tables.train import LATENT_SIZE, FitSettings, fit, settings_of

logger = logging.getLogger(__name__)

OUTSIDE = "outside.json"
"""How many source values lay outside their domain, by column: for the steward alone."""
BROKEN_RULES = "broken_rules.json"
"""How many source rows break each declared rule: for the steward alone."""

IntArray = npt.NDArray[np.int64]

LIBRARIES = ("numpy", "pyarrow", "pytorch-lightning", "safetensors", "scipy", "torch")


@guarded_stage
def reserve(folder: RunFolder, ledger: Ledger) -> None:
    """Reserve the run's whole budget. Raises BudgetExceeded; nothing has been read yet."""
    run = folder.run()
    reservation = ledger.reserve(
        population=run.declared.ledger_population,
        dataset=run.declared.dataset,
        run_id=folder.run_id,
        events=events_of(run),
        delta=run.config.privacy.delta,
    )
    logger.info("reserve: (ε=%g, δ=%g) reserved for this run", run.config.privacy.epsilon, run.config.privacy.delta)
    if reservation.runs_left == 0:
        logger.warning("warning: %s", little_left(reservation.population))


@guarded_stage
def encode(folder: RunFolder) -> None:
    """One pass over the private rows into the run's working file."""
    run = folder.run()
    if run.images is not None:
        return image_stages.encode(folder)
    codecs = codecs_of(run.table)
    stays, numbers, most = None, None, run.table.max_rows_per_person
    with at_rest(run.rows) as source:
        if run.table.person_column is not None:
            persons = read_persons(source, run.table)
            if run.config.synthesizer.share_of_critic > 0:
                stays, numbers = bound_and_number(persons, max_rows_per_person=most)  # a critic draws people
            else:
                stays = bound_contributions(persons, max_rows_per_person=most)
        rules = BrokenRows(rules_of(run.table), codecs)
        batches = rules.watch(read_batches(source, run.table))
        outside = encode_rows(batches, codecs, folder.codes, stays=stays, persons=numbers)
    write_whole(folder.private / OUTSIDE, json.dumps(outside))
    write_whole(folder.private / BROKEN_RULES, json.dumps({"rows": rules.rows, "counts": rules.counts}))
    logger.info("encode: the declared columns are encoded")


@guarded_stage
def measure(folder: RunFolder, ledger: Ledger) -> None:
    """All noised releases, each marked as spent in the ledger before its first draw, then saved whole."""
    run = folder.run()
    if run.images is not None:
        due = {event.name: event for event in events_of(run)}
        return image_stages.measure(folder, lambda name: _charge(ledger, folder.run_id, due[name]))
    layout, plan = plan_run(run)
    events = {event.name: event for event in plan.events}  # of the very plan that is drawn from
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
    note_large_delta(folder, run.config.privacy.delta, measured.total)
    logger.info("measure: %d noised releases made and saved", len(plan.releases))


@guarded_stage
def train(folder: RunFolder) -> None:
    """Fit the generator to the noised measurements and save the model. No private row is opened."""
    run = folder.run()
    if run.images is not None:
        return image_stages.train(folder)
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


def has_critic(folder: RunFolder) -> bool:
    """Whether the run refines its generator against a critic; from the config alone."""
    return folder.run().config.synthesizer.share_of_critic > 0


@guarded_stage
def refine(folder: RunFolder, ledger: Ledger) -> None:
    """Refine the fitted generator against a critic trained by DP-SGD, for a run whose critic has a share.

    The critic's event is spent before the first person is drawn. The refined model takes the fitted one's place.
    """
    run = folder.run()
    layout, plan = plan_run(run)
    event, recipe = plan.critic, run.config.synthesizer.critic
    if event is None:
        return
    measured, model = load_measurements(folder.private), TableModel.load(folder.model)
    private = bin_rows(
        lambda keys: read_codes(folder.codes, keys),
        measured,
        target=layout.target,
        person=PERSON if run.table.person_column is not None else None,
        destination=folder.bins,
    )
    # What divides the noised sum follows from a count that is paid for, or declared; the rate itself is a constant.
    people = measured.total / run.table.max_rows_per_person
    config = DpSgdConfig(
        sample_rate=event.sample_rate,
        steps=event.steps,
        expected_batch_size=max(1.0, event.sample_rate * people),
        max_grad_norm=recipe.max_grad_norm,
        noise_multiplier=event.noise_multiplier,
    )
    refined = refine_generators(
        model.members,
        measured,
        private,
        RefineSettings(
            learning_rate=recipe.learning_rate,
            hidden_size=recipe.hidden_size,
            weight=recipe.weight,
            max_rows_per_person=run.table.max_rows_per_person,
            accelerator=run.config.synthesizer.accelerator,
            threads=fit_settings(run, layout).threads,
        ),
        config,
        charge=lambda: _charge(ledger, folder.run_id, event),
    )
    replace(model, members=refined.members).save(folder.model)
    critic = CriticFacts(
        share=run.config.synthesizer.share_of_critic,
        **config.model_dump(),
        fakes=FAKES,
        hidden_size=recipe.hidden_size,
        parameters=refined.critic_parameters,
        learning_rate=recipe.learning_rate,
        weight=recipe.weight,
        chi=refined.chi,
    )
    facts = ModelFacts.model_validate(folder.noted("model")).model_copy(update={"critic": critic})
    folder.note("model", facts.model_dump(mode="json"))
    logger.info("refine: the generator is refined by %d steps of its critic", event.steps)


@guarded_stage
def sample(folder: RunFolder) -> None:
    """Draw the synthetic rows from the model and write them as Parquet. No private row is opened."""
    run = folder.run()
    if run.images is not None:
        return image_stages.sample(folder)
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
            schema_sha256=sha256_text(public_yaml(run.table)),
        ),
    )
    facts = DataFacts(
        rows=rows,
        rows_chosen_by=chosen_by,
        columns=tuple(column.model_dump(mode="json", exclude_defaults=True) for column in run.table.columns),
        rules=tuple(rule.text for rule in model.rules),
        target=model.target,
        classes=len(model.class_share),
        files=tuple(f"data/{name}" for name in parts),
    )
    folder.note("data", facts.model_dump(mode="json"))
    logger.info("sample: %d synthetic rows", rows)


@guarded_stage
def audit(folder: RunFolder) -> None:
    """Audit the mechanism on the run's own synthetic rows. No private row is opened, so what is found is public.

    Raises ClaimRefuted when it contradicts the claim: the run ends here, charged in full.
    """
    run = folder.run()
    with TemporaryDirectory(dir=folder.private) as work:
        found = _audit_of_table(folder, run, work) if run.images is None else image_stages.audit(folder, Path(work))
    write_whole(folder.internal / "audit.json", json.dumps(found.facts.model_dump(mode="json"), indent=1))
    facts = refuse_refuted(found)
    folder.note("audit", facts.model_dump(mode="json"))
    logger.info("audit: ε=%g claimed; planted records show ε ≥ %g", facts.claimed_epsilon, facts.epsilon_lower_bound)


@guarded_stage
def evaluate(folder: RunFolder) -> None:
    """Public scores for the bundle, and the internal report for the steward."""
    run = folder.run()
    if run.images is not None:
        return image_stages.evaluate(folder)
    codecs = codecs_of(run.table)
    measured = load_measurements(folder.private)
    cells, valid, rows = cells_of(_synthetic_batches(folder), codecs, rules_of(run.table))
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
    if folder.run().table.rules:
        broken = json.loads((folder.private / BROKEN_RULES).read_text())
        scores["rules"] = rule_scores(broken, TableModel.load(folder.model))
    write_internal_report(scores, folder.internal)


@guarded_stage
def settle(folder: RunFolder, ledger: Ledger) -> None:
    """Close the run's account as spent and keep the public statement of what it cost. Working rows are deleted."""
    run = folder.run()
    events = events_of(run)
    population = run.declared.ledger_population
    if forgotten := ledger.unspent(folder.run_id):
        # A run that fails is free if it has spent nothing: a release that forgets to spend must not go unseen.
        raise PrivacyRefusal(f"settle: {forgotten[0].name!r} was reserved and never spent; nothing may be published")
    budget = ledger.population(population)
    if budget is None:
        raise PrivacyRefusal(f"settle: run {folder.run_id} has no reservation in this ledger; nothing may be published")
    delta = run.config.privacy.delta
    # Worked out before the account is closed: nothing that can fail comes between that and the statement.
    statement = functools.partial(
        PrivacyFacts,
        epsilon=epsilon_of(events, delta),
        delta=delta,
        mu=composed_mu(events),
        renyi_epsilon=renyi_epsilon(events, delta),
        replace_one_epsilon=replace_one_epsilon_of(events, delta),
        privacy_unit=run.declared.unit,
        max_rows_per_person=run.declared.max_rows_per_person,
        neighboring_relation="add-or-remove-one",
        row_count=run.declared.row_count,
        events=events,
        noise_protection=noise_protection(events),
        accountant=accountant(events),
        not_covered=not_covered(run.declared, large_delta=bool(folder.noted("delta")["large"])),
        population_epsilon=budget.epsilon,
        population_delta=budget.delta,
        population_overlaps=budget.overlaps,
        population_cap=budget.cap.epsilon if budget.cap else None,
        population_candidates=budget.candidates,
    )
    facts = statement(ledger_head=ledger.settle(folder.run_id).hash)
    folder.note("privacy", facts.model_dump(mode="json"))
    folder.codes.unlink(missing_ok=True)
    folder.bins.unlink(missing_ok=True)
    logger.info("settle: ε=%g spent; this population has spent ε=%g in all", facts.epsilon, facts.population_epsilon)


def public_facts(folder: RunFolder) -> PublicFacts:
    """Everything that may be published about a run that has settled."""
    run = folder.run()
    return PublicFacts(
        run=RunFacts(
            run_id=folder.run_id,
            name=run.name,
            created=folder.created(),
            dataset=run.declared.dataset,
            population=run.declared.ledger_population,
            software=f"dp-synth {metadata.version('dp-synth')}",
            libraries={name: metadata.version(name) for name in LIBRARIES},
        ),
        privacy=PrivacyFacts.model_validate(folder.noted("privacy")),
        data=DataFacts.model_validate(folder.noted("data")),
        model=(ModelFacts if run.images is None else ImageModelFacts).model_validate(folder.noted("model")),
        quality=QualityFacts.model_validate(folder.noted("quality")),
        audit=AuditFacts.model_validate(folder.noted("audit")),
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
    if not ledger.charged(folder.run_id) and not any(folder.internal.glob("failure-*.txt")):
        folder.delete()


def _audit_of_table(folder: RunFolder, run: Run, work: str) -> Audit:
    layout, plan = plan_run(run)
    return audit_of_rows(
        _synthetic_batches(folder),
        run.table,
        layout=layout,
        plan=plan,
        delta=run.config.privacy.delta,
        folder=Path(work),
    )


def _charge(ledger: Ledger, run_id: str, event: Event) -> None:
    ledger.spend(run_id, event)


def _synthetic_batches(folder: RunFolder) -> Iterator[pa.RecordBatch]:
    for path in sorted(folder.data.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches()
