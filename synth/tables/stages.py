"""What a run on a table does in its stages. Each takes the run's folder and leaves files; `synth.stages` guards them.

Private rows are seen by `encode`, `measure`, `refine` and the report alone, those of held-out people by `score`.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synth.config import Run
from synth.durations import so_far
from synth.errors import InvalidSource
from synth.evaluate.held_out import MOST_TRAINING_ROWS, Classifier, held_out_facts
from synth.evaluate.internal import internal_scores, write_internal_report
from synth.evaluate.internal.rules import BrokenRows, rule_scores
from synth.evaluate.public import ValidRows, public_scores
from synth.facts import DataFacts, HeldOutFacts, InsightFacts, ModelFacts, QualityFacts, TableCriticFacts
from synth.files import write_whole
from synth.ingest import at_rest, read_batches, read_persons, watch
from synth.insight import insight_facts
from synth.parquet import read_parts, write_parts
from synth.prepare import plan_run
from synth.privacy.audit.one_run import Audit
from synth.privacy.audit.synthetic_rows import audit_of_rows, first_rows
from synth.privacy.budget import BOUNDS
from synth.privacy.contributions import bound_and_number, bound_contributions
from synth.privacy.dp_sgd import DpSgdConfig
from synth.privacy.events import Event, PoissonGaussianEvent
from synth.privacy.holdout import held_out_persons, held_out_rows, tossed_once
from synth.privacy.noise import NoiseSource
from synth.ranks import MEETING, REFINED, ranks_of, together
from synth.refinement import RefineSettings, charging, constants_of
from synth.refinement import settings_of as settings_of_refining
from synth.run_folder import BOUNDS as ESTIMATED
from synth.run_folder import CRITIC, MEASURES, RunFolder
from synth.tables.bounds import estimate_bounds, meeting_rules
from synth.tables.codec import codecs_of
from synth.tables.count import WorkingFile, read_codes
from synth.tables.decode import arrow_schema, decoder_of
from synth.tables.encode import PERSON, Aside, rows_not_held_out, rows_that_stay, without_refused
from synth.tables.encode import encode as encode_rows
from synth.tables.layout import Layout
from synth.tables.measure import Measurer
from synth.tables.measurements import Measurements, load_measurements, save_measurements
from synth.tables.model import TableModel
from synth.tables.refine import FAKES, BinnedRows, Refined, bin_rows, binned_rows
from synth.tables.refine import refine as refine_generators
from synth.tables.rows import sample_rows_by
from synth.tables.rules import rules_of
from synth.tables.train import LATENT_SIZE, FitSettings, fit, settings_of
from synth.tables.workers import HERE, Workers
from synth.working_file import working_key

if TYPE_CHECKING:
    from synth.database import Snapshot  # the driver is loaded where it is used

logger = logging.getLogger(__name__)

OUTSIDE = "outside.json"
"""How many source values lay outside their domain, by column: for the steward alone."""
BROKEN_RULES = "broken_rules.json"
"""How many source rows break each declared rule: for the steward alone."""
SCORE = "held_out.json"
"""The noised pair of right and wrong predictions on held-out people."""
EXACT_SCORE = "held_out_exact.json"
"""The pair without noise: for the steward alone."""


def encode(folder: RunFolder, charge: Callable[[Event], None]) -> None:
    """One pass over the private rows into the run's working file; before it another, if bounds are to be estimated."""
    run = folder.run()
    stays, numbers, most = None, None, run.table.max_rows_per_person
    share = run.config.evaluation.share
    aside = Aside(folder.held_out, held_out_rows(share)) if share > 0 else None
    refuse_changed = watch(run.rows)
    with at_rest(run.rows) as source:
        if run.table.person_column is not None:
            persons = read_persons(source, run.table)
            if share > 0 or run.has_critic:
                stays, numbers = bound_and_number(persons, max_rows_per_person=most)
            else:
                stays = bound_contributions(persons, max_rows_per_person=most)
            if aside is not None and numbers is not None:
                aside = replace(aside, held_out=held_out_persons(numbers, share))
        if run.table.columns_to_estimate:
            aside = None if aside is None else replace(aside, held_out=tossed_once(aside.held_out))
            if run.config.evaluation.file is not None:  # what refuses the run in this file does so before the draw too
                _encode_file(run, run.config.evaluation.file, folder.held_out)

            def charge_at_rest(event: Event) -> None:
                # Rows that have changed since people were counted are not bounded to m of a person.
                refuse_changed()
                charge(event)

            _estimate(folder, run, source, stays, aside, charge_at_rest)
            run = folder.run()
        codecs = codecs_of(run.table)
        rules = BrokenRows(rules_of(run.table), codecs)
        batches = rules.watch(read_batches(source, run.table))
        drawn = numbers if run.has_critic else None  # a critic draws people
        outside = encode_rows(batches, codecs, folder.codes, stays=stays, persons=drawn, aside=aside)
    if run.config.evaluation.file is not None:
        _encode_file(run, run.config.evaluation.file, folder.held_out)
    write_whole(folder.private / OUTSIDE, json.dumps(outside))
    write_whole(folder.private / BROKEN_RULES, json.dumps({"rows": rules.rows, "counts": rules.counts}))
    logger.info("encode: the declared columns are encoded")


def _estimate(
    folder: RunFolder,
    run: Run,
    source: Path | Snapshot,
    stays: npt.NDArray[np.bool_] | None,
    aside: Aside | None,
    charge: Callable[[Event], None],
) -> None:
    """Estimate bounds from the rows that are learned from, charged before the draw; saved whole, and never again."""
    _, plan = plan_run(run)
    event = next(event for event in plan.releases if event.name == BOUNDS)
    columns = run.table.columns_to_estimate
    assert plan.bounds_noise is not None
    # What refuses the run in any other column does so before the draw, while it costs nothing.
    refusing = {name: codec for name, codec in codecs_of(run.table).items() if codec.column.outside == "refuse"}
    names = [*refusing, *(column.name for column in columns)]
    batches = without_refused(rows_that_stay(read_batches(source, run.table, names), stays), refusing)
    found = estimate_bounds(
        batches if aside is None else rows_not_held_out(batches, aside.held_out),
        columns,
        noise=NoiseSource(),
        noise_scale=plan.bounds_noise,
        charge=lambda: charge(event),
    )
    write_whole(folder.bounds, json.dumps(meeting_rules(run.table, found)))
    folder.note(ESTIMATED, True)
    logger.info("encode: bounds of %s are estimated", ", ".join(found))
    assumed = [name for name, said in found.items() if said["bounds_are"] == "assumed"]
    if assumed:
        logger.warning(
            "warning: nothing in %s stands out of the noise; fixed bounds are assumed. Declare them, or raise epsilon",
            ", ".join(assumed),
        )


def _encode_file(run: Run, file: Path, destination: Path) -> None:
    """The same pass over a separate file of held-out people, who may be in the source too."""
    stays, most = None, run.table.max_rows_per_person
    try:
        with at_rest(file) as rows:
            if run.table.person_column is not None:
                stays = bound_contributions(read_persons(rows, run.table), max_rows_per_person=most)
            encode_rows(read_batches(rows, run.table), codecs_of(run.table), destination, stays=stays)
    except InvalidSource as error:
        raise InvalidSource(f"evaluation.holdout: {error}") from None


def measure(folder: RunFolder, charge: Callable[[Event], None], workers: Workers = HERE) -> None:
    """All noised releases, each charged before its first draw, then saved whole. Workers count; noise is drawn here."""
    run = folder.run()
    layout, plan = plan_run(run)
    events = {event.name: event for event in plan.events}  # of the very plan that is drawn from
    count = run.table.row_count

    def spend(name: str) -> None:
        folder.note(MEASURES, True)
        charge(events[name])

    measured = Measurer(
        read=lambda keys: WorkingFile(folder.codes, tuple(keys), workers),
        codecs=codecs_of(run.table),
        layout=layout,
        plan=plan,
        noise=NoiseSource(),
        charge=spend,
        # With a person column the measured rows are those left after bounding, and with held-out people those that
        # coins have left: fewer than declared, by a private number.
        public_rows=None
        if count == "private" or run.table.person_column or run.config.evaluation.share > 0
        else int(count),
    ).measure()
    save_measurements(measured, folder.private)
    logger.info("measure: %d noised releases made and saved", len(plan.measured))


def noised_rows(folder: RunFolder) -> float:
    """The noised number of rows, those of held-out people included: training has a public share of them."""
    return _rows_of_all(folder.run(), load_measurements(folder.private))


def _rows_of_all(run: Run, measured: Measurements) -> float:
    return measured.total / (1 - run.config.evaluation.share)


def train(folder: RunFolder) -> None:
    """Fit the generator to the noised measurements and save the model. No private row is opened."""
    run = folder.run()
    measured = load_measurements(folder.private)
    codecs = codecs_of(run.table)
    layout, _ = plan_run(run)
    settings = fit_settings(run, layout)
    fitted = fit(measured, settings, checkpoints=folder.checkpoints)
    total, count = float(measured.class_sizes.sum()), run.table.row_count
    model = TableModel(
        schema=run.table,
        encoding=fitted.encoding,
        target=layout.target,
        class_share=measured.class_sizes / total,
        class_of_cell=measured.class_of_cell,
        decoders={name: decoder_of(measured, codecs[name]) for name in layout.columns},
        members=fitted.members,
        rows=max(1, round(_rows_of_all(run, measured))) if count == "private" else int(count),
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
        measured_triples=len(measured.triples),
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
    Until that is saved, the note CRITIC says that what was drawn is not.
    """
    run = folder.run()
    event, recipe = plan_run(run)[1].critic, run.critic
    if event is None:
        return
    measured, model = load_measurements(folder.private), TableModel.load(folder.model)
    draw = charging(folder, charge, event)
    settings, config = _refine_settings(run, event, measured)
    if ranks_of(run).count == 1:
        private = _bin_rows(folder, measured)
        refined = refine_generators(model.members, measured, private, settings, config, charge=draw)
    else:
        if working_key() is None:  # else each of them has the rows in memory
            _bin_rows(folder, measured)
        found = together(folder.path, ranks_of(run).count, charge=draw)
        refined = Refined(TableModel.load(folder.private / REFINED).members, **found)
    replace(model, members=refined.members).save(folder.model)
    critic = TableCriticFacts(
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
    folder.note(CRITIC, True)
    logger.info("refine: the generator is refined by %d steps of its critic", event.steps)


def refine_beside(folder: RunFolder, rank: int, *, wait: Callable[[], None]) -> Mapping[str, Any]:
    """What one of several processes does to refine a run; what it has to tell. Its first one saves the refined model.

    It waits before it draws: the run charges.
    """
    run = folder.run()
    event = plan_run(run)[1].critic
    assert event is not None
    measured, model = load_measurements(folder.private), TableModel.load(folder.model)
    settings, config = _refine_settings(run, event, measured)
    if working_key() is None:
        private = binned_rows(folder.bins, functools.partial(read_codes, folder.codes), person=_person_key(run))
    else:
        private = _bin_rows(folder, measured)
    ranks = ranks_of(run, rank=rank, meeting=folder.private / MEETING)
    refined = refine_generators(model.members, measured, private, settings, config, charge=wait, ranks=ranks)
    if rank == 0:
        replace(model, members=refined.members).save(folder.private / REFINED)
    return {"chi": refined.chi, "critic_parameters": refined.critic_parameters}


def _bin_rows(folder: RunFolder, measured: Measurements) -> BinnedRows:
    run = folder.run()
    return bin_rows(
        functools.partial(read_codes, folder.codes),
        measured,
        target=plan_run(run)[0].target,
        person=_person_key(run),
        destination=folder.bins,
    )


def _person_key(run: Run) -> str | None:
    return PERSON if run.table.person_column is not None else None


def _refine_settings(
    run: Run, event: PoissonGaussianEvent, measured: Measurements
) -> tuple[RefineSettings, DpSgdConfig]:
    people = measured.total / run.table.max_rows_per_person
    return settings_of_refining(run, run.critic), constants_of(event, run.critic, people=people)


def sample(folder: RunFolder, rows: int | None, metadata: Mapping[str, str], workers: Workers = HERE) -> DataFacts:
    """Draw the synthetic rows from the model and write them as Parquet; as many as the model says without `rows`."""
    model = TableModel.load(folder.model)
    rows = model.rows if rows is None else rows
    batches = sample_rows_by(workers, folder.model, rows)
    parts = write_parts(batches, arrow_schema(model.schema, model.codecs), folder.data, metadata)
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


def score(folder: RunFolder, charge: Callable[[Event], None]) -> None:
    """Noise how often a classifier trained on the synthetic rows is right about held-out people; nothing without any.

    Charged before the draw. The noised pair is saved whole before anything else, and never drawn again.
    """
    run = folder.run()
    layout, plan = plan_run(run)
    saved = folder.private / SCORE
    if plan.score is None or layout.target is None or saved.exists():
        return
    codecs, measured = codecs_of(run.table), load_measurements(folder.private)
    keys = [f"cells:{name}" for name in codecs]
    encode_rows(first_rows(read_parts(folder.data), MOST_TRAINING_ROWS), codecs, folder.synthetic_codes)
    synthetic = read_codes(folder.synthetic_codes, keys)
    classifier = Classifier(synthetic, codecs, target=layout.target, class_of_cell=measured.class_of_cell)
    exact = classifier.count(read_codes(folder.held_out, keys))
    charge(plan.score)
    correct, wrong = NoiseSource().add_to(exact, plan.score.noise_scale).tolist()
    found = {"correct": correct, "wrong": wrong, "training_rows": classifier.training_rows}
    write_whole(saved, json.dumps(found))
    write_whole(folder.private / EXACT_SCORE, json.dumps(exact.tolist()))
    logger.info("score: right and wrong predictions on held-out people are noised")


def _held_out_facts(folder: RunFolder, measured: Measurements) -> HeldOutFacts | None:
    run = folder.run()
    layout, plan = plan_run(run)
    if plan.score is None or layout.target is None:
        return None
    return held_out_facts(
        **json.loads((folder.private / SCORE).read_text()),
        noise_scale=plan.score.noise_scale,
        holdout=run.config.evaluation.share or None,
        target=layout.target,
        class_sizes=measured.class_sizes,
        max_rows_per_person=run.table.max_rows_per_person,
    )


def evaluate(folder: RunFolder) -> tuple[QualityFacts, Callable[[], None]]:
    """Public scores of the synthetic rows, and what writes the internal report when it is called."""
    run = folder.run()
    measured = load_measurements(folder.private)
    codecs = codecs_of(run.table)
    seen = ValidRows(codecs, rules_of(run.table))
    encode_rows(seen.watch(read_parts(folder.data)), codecs, folder.synthetic_codes)
    synthetic = functools.partial(read_codes, folder.synthetic_codes)
    quality = public_scores(measured, run.table, synthetic, valid_rows=seen.valid, rows=seen.rows)
    quality = quality.model_copy(
        update={"held_out": _held_out_facts(folder, measured), "insight": _insight_facts(folder, measured)}
    )
    return quality, lambda: _report_to_the_steward(folder, measured)


def _insight_facts(folder: RunFolder, measured: Measurements) -> InsightFacts | None:
    """What the public report shows beside scores; a run that has been paid for does not end for want of a picture."""
    try:
        return insight_facts(measured, TableModel.load(folder.model))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        logger.warning("evaluate: the pictures of the public report could not be made (%s)", type(error).__name__)
        return None


def _report_to_the_steward(folder: RunFolder, measured: Measurements) -> None:
    scores = internal_scores(
        measured,
        codecs_of(folder.run().table),
        functools.partial(read_codes, folder.codes),
        functools.partial(read_codes, folder.synthetic_codes),
        json.loads((folder.private / OUTSIDE).read_text()),
        rng=np.random.default_rng(0),
    )
    if (folder.private / EXACT_SCORE).exists():
        correct, wrong = json.loads((folder.private / EXACT_SCORE).read_text())
        scores["held_out"] = {"correct": correct, "wrong": wrong}
    scores["bounds"] = [
        {"column": name, "low": low, "high": high, "are": said["bounds_are"]}
        for name, said in folder.run().found.items()
        for low, high in [said["bounds"]]
    ]
    if folder.run().table.rules:
        broken = json.loads((folder.private / BROKEN_RULES).read_text())
        scores["rules"] = rule_scores(broken, TableModel.load(folder.model))
    scores["durations"] = [asdict(duration) for duration in so_far(folder.internal)]
    write_internal_report(scores, folder.internal)
