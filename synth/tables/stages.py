"""What a run on a table does in its stages. Each takes the run's folder and leaves files; `synth.stages` guards them.

Private rows are seen by `encode`, `measure`, `refine` and the report alone.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from synth.config import Run
from synth.evaluate.internal import internal_scores, write_internal_report
from synth.evaluate.internal.rules import BrokenRows, rule_scores
from synth.evaluate.public import ValidRows, public_scores
from synth.facts import CriticFacts, DataFacts, ModelFacts, QualityFacts
from synth.files import write_whole
from synth.ingest import at_rest, read_batches, read_persons
from synth.parquet import read_parts, write_parts
from synth.prepare import plan_run
from synth.privacy.audit.one_run import Audit
from synth.privacy.audit.synthetic_rows import audit_of_rows
from synth.privacy.contributions import bound_and_number, bound_contributions
from synth.privacy.dp_sgd import DpSgdConfig
from synth.privacy.events import Event
from synth.privacy.noise import NoiseSource
from synth.run_folder import RunFolder
from synth.tables.codec import codecs_of
from synth.tables.count import read_codes
from synth.tables.decode import arrow_schema, decoder_of
from synth.tables.encode import PERSON
from synth.tables.encode import encode as encode_rows
from synth.tables.measure import Layout, Measurements, Measurer, load_measurements, save_measurements
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


def encode(folder: RunFolder) -> None:
    """One pass over the private rows into the run's working file."""
    run = folder.run()
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


def measure(folder: RunFolder, charge: Callable[[Event], None]) -> float:
    """All noised releases, each charged before its first draw, then saved whole; the noised number of rows."""
    run = folder.run()
    layout, plan = plan_run(run)
    events = {event.name: event for event in plan.events}  # of the very plan that is drawn from
    count = run.table.row_count
    measured = Measurer(
        read=functools.partial(read_codes, folder.codes),
        codecs=codecs_of(run.table),
        layout=layout,
        plan=plan,
        noise=NoiseSource(),
        charge=lambda name: charge(events[name]),
        # With a person column the measured rows are those left after bounding, fewer than declared.
        public_rows=None if count == "private" or run.table.person_column else int(count),
    ).measure()
    save_measurements(measured, folder.private)
    logger.info("measure: %d noised releases made and saved", len(plan.releases))
    return measured.total


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


def refine(folder: RunFolder, charge: Callable[[Event], None]) -> None:
    """Refine the fitted generator against a critic trained by DP-SGD, for a run whose critic has a share.

    The critic's event is charged before the first person is drawn. The refined model takes the fitted one's place.
    """
    run = folder.run()
    layout, plan = plan_run(run)
    event, recipe = plan.critic, run.config.synthesizer.critic
    if event is None:
        return
    measured, model = load_measurements(folder.private), TableModel.load(folder.model)
    private = bin_rows(
        functools.partial(read_codes, folder.codes),
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
        charge=lambda: charge(event),
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


def sample(folder: RunFolder, rows: int | None, metadata: Mapping[str, str]) -> DataFacts:
    """Draw the synthetic rows from the model and write them as Parquet; as many as the model says without `rows`."""
    model = TableModel.load(folder.model)
    rows = model.rows if rows is None else rows
    parts = write_parts(sample_rows(model, rows), arrow_schema(model.schema, model.codecs), folder.data, metadata)
    run = folder.run()
    return DataFacts(
        rows=rows,
        rows_chosen_by=run.rows_chosen_by,
        columns=tuple(column.model_dump(mode="json", exclude_defaults=True) for column in run.table.columns),
        rules=tuple(rule.text for rule in model.rules),
        target=model.target,
        classes=len(model.class_share),
        files=tuple(f"data/{name}" for name in parts),
    )


def audit(folder: RunFolder, work: Path) -> Audit:
    """Audit the mechanism on the run's own synthetic rows, in an empty folder. No private row is opened."""
    run = folder.run()
    layout, plan = plan_run(run)
    delta = run.config.privacy.delta
    return audit_of_rows(read_parts(folder.data), run.table, layout=layout, plan=plan, delta=delta, folder=work)


def evaluate(folder: RunFolder) -> tuple[QualityFacts, Callable[[], None]]:
    """Public scores of the synthetic rows, and what writes the internal report when it is called."""
    run = folder.run()
    measured = load_measurements(folder.private)
    codecs = codecs_of(run.table)
    seen = ValidRows(codecs, rules_of(run.table))
    encode_rows(seen.watch(read_parts(folder.data)), codecs, folder.synthetic_codes)
    synthetic = functools.partial(read_codes, folder.synthetic_codes)
    quality = public_scores(measured, run.table, synthetic, valid_rows=seen.valid, rows=seen.rows)
    return quality, lambda: _report_to_the_steward(folder, measured)


def _report_to_the_steward(folder: RunFolder, measured: Measurements) -> None:
    scores = internal_scores(
        measured,
        codecs_of(folder.run().table),
        functools.partial(read_codes, folder.codes),
        functools.partial(read_codes, folder.synthetic_codes),
        json.loads((folder.private / OUTSIDE).read_text()),
        rng=np.random.default_rng(0),
    )
    if folder.run().table.rules:
        broken = json.loads((folder.private / BROKEN_RULES).read_text())
        scores["rules"] = rule_scores(broken, TableModel.load(folder.model))
    write_internal_report(scores, folder.internal)
