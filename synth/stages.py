"""The stages of a run, in order. Each takes the run's folder and leaves files; none needs Prefect.

    (prepare) → reserve → encode → measure → train → (refine) → sample → audit → (score) → evaluate → settle
    → (document) → seal

Private rows are seen by `encode`, `measure`, `refine`, `score` and the internal half of `evaluate` alone. Nothing is
drawn before the ledger holds the reservation, and each event is marked as spent before its first draw. What a table
and images do in a stage is in `synth.tables.stages` and `synth.images.stages`; what holds for both is here.

A run that died goes through all stages again, and each leaves out what is done: a stage keeps its note last of all, so
whoever finds the note finds the stage's output whole (`once`).
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, Protocol

from synth import release
from synth.config import Run
from synth.durations import timed
from synth.errors import PrivacyRefusal, UserError
from synth.facts import (
    AuditFacts,
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
from synth.parquet import synthetic_metadata
from synth.prepare import events_of, note_large_delta
from synth.privacy.audit.one_run import Audit
from synth.privacy.audit.synthetic_rows import refuse_refuted
from synth.privacy.boundary import guarded_stage, without_values
from synth.privacy.composition import composed_mu, cost_of_run, epsilon_of, replace_one_epsilon_of
from synth.privacy.events import Event
from synth.privacy.ledger import Ledger, little_left
from synth.privacy.statement import accountant, noise_protection, not_covered, renyi_epsilon
from synth.ranks import ranks_of
from synth.resume import obstacle
from synth.run_folder import CRITIC, SPLIT, RunFolder, delete_leftovers, software
from synth.schema import public_yaml
from synth.tables import stages as table_stages
from synth.tables.workers import HERE, Workers

logger = logging.getLogger(__name__)

P = ParamSpec("P")

LIBRARIES = ("numpy", "pyarrow", "pytorch-lightning", "safetensors", "scipy", "torch")


class Recipe(Protocol):
    """What differs between a table and images, stage by stage; each of the two modules is one."""

    def encode(self, folder: RunFolder, charge: Callable[[Event], None], /) -> None:
        """One pass over the private rows into the run's working file, once bounds to be estimated are."""

    def measure(self, folder: RunFolder, charge: Callable[[Event], None], workers: Workers, /) -> None:
        """All noised releases, each charged before its first draw, then saved whole."""

    def noised_rows(self, folder: RunFolder) -> float:
        """The noised number of rows, from the saved measurements."""

    def train(self, folder: RunFolder) -> None:
        """Fit the model to the noised measurements and save it."""

    def refine(self, folder: RunFolder, charge: Callable[[Event], None]) -> None:
        """Refine the fitted model against a critic; nothing for a run without one. Keeps the note CRITIC."""

    def refine_beside(self, folder: RunFolder, rank: int, *, wait: Callable[[], None]) -> Mapping[str, Any]:
        """What one of several processes does to refine a run; what it has to tell."""

    def sample(
        self, folder: RunFolder, rows: int | None, metadata: Mapping[str, str], workers: Workers, /
    ) -> DataFacts:
        """Draw and write the synthetic rows."""

    def audit(self, folder: RunFolder, work: Path) -> Audit:
        """Audit the mechanism on the synthetic rows."""

    def evaluate(self, folder: RunFolder) -> tuple[QualityFacts, Callable[[], None]]:
        """Public scores, and what writes the internal report when it is called."""


def recipe_of(run: Run) -> Recipe:
    """The recipe of a run; from the schema alone."""
    return table_stages if run.images is None else image_stages


def once(note: str) -> Callable[[Callable[Concatenate[RunFolder, P], None]], Callable[Concatenate[RunFolder, P], None]]:
    """A stage that does nothing where the run's folder has this note already: the run died later, and goes on."""

    def decorate(work: Callable[Concatenate[RunFolder, P], None]) -> Callable[Concatenate[RunFolder, P], None]:
        @functools.wraps(work)
        def stage(folder: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> None:
            if not folder.has_noted(note):
                work(folder, *args, **kwargs)

        return stage

    return decorate


@guarded_stage
@timed
def reserve(folder: RunFolder, ledger: Ledger) -> None:
    """Reserve the run's whole budget. Raises BudgetExceeded; nothing has been read yet.

    A run that is resumed has reserved before: its reservation has to stand, and what it drew has to be there. Raises
    UserError otherwise.
    """
    run = folder.run()
    if (earlier := ledger.run(folder.run_id)) is not None:
        if reason := obstacle(folder, earlier):
            raise UserError(f"run {folder.run_id} {reason}; start a new run without --resume")
        logger.info("reserve: run %s goes on; nothing more is charged", folder.run_id)
        return
    ranks_of(run)  # a GPU that is missing is told before anything is spent
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
@once("quality")
@timed
def encode(folder: RunFolder, ledger: Ledger | None = None) -> None:
    """One pass over the private rows into the run's working file; again when a run goes on to a stage that wants it.

    Only a run that estimates bounds draws noise here, and needs its ledger.
    """

    def charge(event: Event) -> None:
        if ledger is None:
            raise PrivacyRefusal(f"encode: {event.name!r} needs the ledger; nothing was drawn")
        _spend(ledger, folder, event)

    if has_score(folder):
        folder.note(SPLIT, False)
    recipe_of(folder.run()).encode(folder, charge)


@guarded_stage
@once("delta")
@timed
def measure(folder: RunFolder, ledger: Ledger, workers: Workers = HERE) -> None:
    """All noised releases, each marked as spent in the ledger before its first draw, then saved whole."""
    run = folder.run()
    recipe = recipe_of(run)
    if not folder.measured:
        recipe.measure(folder, lambda event: _spend(ledger, folder, event), workers)
    note_large_delta(folder, run.config.privacy.delta, recipe.noised_rows(folder))


@guarded_stage
@once("model")
@timed
def train(folder: RunFolder) -> None:
    """Fit the model to the noised measurements and save it. No private row is opened."""
    folder.model.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    recipe_of(folder.run()).train(folder)


def has_critic(folder: RunFolder) -> bool:
    """Whether the run refines its generator against a critic; from the config alone."""
    return folder.run().has_critic


@guarded_stage
@once(CRITIC)
@timed
def refine(folder: RunFolder, ledger: Ledger) -> None:
    """Refine the fitted generator against a critic trained by DP-SGD; nothing for a run without one."""
    recipe_of(folder.run()).refine(folder, lambda event: _spend(ledger, folder, event))


@guarded_stage
@once("data")
@timed
def sample(folder: RunFolder, workers: Workers = HERE) -> None:
    """Draw the synthetic rows from the model and write them as Parquet. No private row is opened."""
    run = folder.run()
    asked = run.config.output.rows
    shutil.rmtree(folder.data, ignore_errors=True)  # of a draw that was cut short
    folder.data.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    mark = synthetic_metadata(
        epsilon=run.config.privacy.epsilon,
        delta=run.config.privacy.delta,
        privacy_unit=run.declared.unit,
        run_id=folder.run_id,
        schema_sha256=sha256_text(public_yaml(run.published)),
    )
    facts = recipe_of(run).sample(folder, None if asked == "auto" else asked, mark, workers)
    folder.note("data", facts.model_dump(mode="json"))
    logger.info("sample: %d synthetic rows", facts.rows)


@guarded_stage
@once("audit")
@timed
def audit(folder: RunFolder) -> None:
    """Audit the mechanism on the run's own synthetic rows. No private row is opened, so what is found is public.

    Raises ClaimRefuted when it contradicts the claim: the run ends here, charged in full.
    """
    with TemporaryDirectory(dir=folder.private) as work:
        found = recipe_of(folder.run()).audit(folder, Path(work))
    if found.refuted:
        folder.forget()  # before anyone knows: who resumed would ask for another verdict on the same release
    write_whole(folder.internal / "audit.json", json.dumps(found.facts.model_dump(mode="json"), indent=1))
    facts = refuse_refuted(found)
    folder.note("audit", facts.model_dump(mode="json"))
    logger.info("audit: ε=%g claimed; planted records show ε ≥ %g", facts.claimed_epsilon, facts.epsilon_lower_bound)


def has_score(folder: RunFolder) -> bool:
    """Whether the run has a charged score on held-out people; from the config alone."""
    return folder.run().config.evaluation.holds_out


@guarded_stage
@once("quality")  # its facts are among those scores
@timed
def score(folder: RunFolder, ledger: Ledger) -> None:
    """Noise how a classifier trained on the synthetic rows does on held-out people; nothing for a run without any."""
    table_stages.score(folder, lambda event: _spend(ledger, folder, event))


@guarded_stage
@once("quality")
@timed
def evaluate(folder: RunFolder) -> None:
    """Public scores for the bundle, and the internal report for the steward."""
    quality, report = recipe_of(folder.run()).evaluate(folder)
    try:
        report()
    except Exception as error:
        # Whether the bundle appears must not depend on a score of the exact rows.
        without_values("evaluate", error, folder.internal)
    folder.note("quality", quality.model_dump(mode="json"))
    if has_score(folder):
        folder.note(SPLIT, True)
    logger.info("evaluate: public scores made; the internal report is for the steward alone")


@guarded_stage
@once("privacy")
@timed
def settle(folder: RunFolder, ledger: Ledger) -> None:
    """Close the run's account as spent and keep the public statement of what it cost. Working rows are deleted."""
    run = folder.run()
    events = events_of(run)
    cost = cost_of_run(events)
    population = run.declared.ledger_population
    reservation, budget = ledger.run(folder.run_id), ledger.population(population)
    if reservation is not None and (forgotten := reservation.unspent):
        # A run that fails is free if it has spent nothing: a release that forgets to spend must not go unseen.
        raise PrivacyRefusal(f"settle: {forgotten[0].name!r} was reserved and never spent; nothing may be published")
    if reservation is None or budget is None:
        raise PrivacyRefusal(f"settle: run {folder.run_id} has no reservation in this ledger; nothing may be published")
    delta = run.config.privacy.delta
    # Worked out before the account is closed: nothing that can fail comes between that and the statement.
    statement = functools.partial(
        PrivacyFacts,
        epsilon=epsilon_of(cost, delta),
        delta=delta,
        mu=composed_mu(cost),
        renyi_epsilon=renyi_epsilon(events, delta),
        replace_one_epsilon=replace_one_epsilon_of(cost, delta),
        privacy_unit=run.declared.unit,
        max_rows_per_person=run.declared.max_rows_per_person,
        neighboring_relation="add-or-remove-one",
        row_count=run.declared.row_count,
        events=events,
        noise_protection=noise_protection(events),
        accountant=accountant(events),
        not_covered=not_covered(
            run.declared,
            large_delta=bool(folder.noted("delta")["large"]),
            public_pictures=run.config.synthesizer.public is not None,
        ),
        population_epsilon=budget.epsilon,
        population_delta=budget.delta,
        population_overlaps=budget.overlaps,
        population_cap=budget.cap.epsilon if budget.cap else None,
        population_candidates=budget.candidates,
    )
    # A run that died right after this has its entry already: it is charged once, whatever happens.
    entry = ledger.settlement(folder.run_id) or ledger.settle(folder.run_id)
    facts = statement(ledger_head=entry.hash)
    folder.note("privacy", facts.model_dump(mode="json"))
    folder.forget_rows()
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
            software=software(),
            libraries={name: metadata.version(name) for name in LIBRARIES},
        ),
        privacy=PrivacyFacts.model_validate(folder.noted("privacy")),
        data=DataFacts.model_validate(folder.noted("data")),
        model=(ModelFacts if run.images is None else ImageModelFacts).model_validate(folder.noted("model")),
        quality=QualityFacts.model_validate(folder.noted("quality")),
        audit=AuditFacts.model_validate(folder.noted("audit")),
    )


@guarded_stage
@timed
def seal(folder: RunFolder) -> Path:
    """Seal the draft and make it the bundle in one rename. Earlier runs of the same run.yaml that died are replaced."""
    release.seal(folder.draft)
    release.publish(folder.draft, folder.bundle, created=folder.created())
    logger.info("seal: the bundle is complete")
    delete_leftovers(folder.path.parent)
    return folder.bundle


def give_up(folder: RunFolder, ledger: Ledger) -> None:
    """After a failure: charge nothing if nothing was drawn, everything otherwise.

    A run that can be resumed keeps its account open, which charges it in full too. A run that was not charged and has
    nothing to tell the steward leaves no folder either.
    """
    if folder.saved and obstacle(folder, ledger.run(folder.run_id)) is None:
        return
    folder.forget()  # first: an account that closes with this in place is one that a finished run has settled
    ledger.close_failed(folder.run_id)
    if not ledger.charged(folder.run_id) and not any(folder.internal.glob("failure-*.txt")):
        folder.delete()


def _spend(ledger: Ledger, folder: RunFolder, event: Event) -> None:
    """Mark an event as spent before its first draw, in the run's folder too: a ledger may be restored from a backup."""
    write_whole(folder.drew, "")
    ledger.spend(folder.run_id, event)
