"""Which defect is caught by what: a game whose bound passes the claim, or a guard of the product that refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import games
import planted
import torch
from games import Bound, Game
from replay import CRITIC, SYNTHESIZER, TABLE, told_without_noise
from replay import SCHEMA as REPLAYED

from synth import stages
from synth.errors import PrivacyRefusal, SynthError, VerificationFailed
from synth.privacy.audit.synthetic_rows import ClaimRefuted
from synth.release import seal, verify

Plant = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Found:
    """What looking for a defect has shown.

    `runs` of the product, or of its part, were looked at; `bound` and `claimed` are ε, where a game was played.
    """

    caught: bool
    runs: int
    seconds: float
    bound: float | None = None
    claimed: float | None = None


@dataclass(frozen=True)
class Case:
    """A defect, and one way to catch it. `look` does not plant: it is to find nothing in the honest build."""

    defect: str
    plant: Plant
    by: Literal["audit", "replay", "guard"]
    what: str
    look: Callable[[Plant], Found]

    def run(self) -> Found:
        """Look for the defect where it is planted."""
        return self.look(self.plant)

    def run_honest(self) -> Found:
        """Look for it where it is not."""
        return self.look(planted.nothing)


def audit(game: Game) -> Callable[[Plant], Found]:
    """Play a game."""

    def look(plant: Plant) -> Found:
        start = time.perf_counter()
        with plant():
            shown: Bound = game(games.REPORTED)
        return Found(shown.refutes, shown.runs, time.perf_counter() - start, shown.bound, shown.claimed)

    return look


def replayed(streams: int) -> Callable[[Plant], Found]:
    """Replay pairs of runs, with up to so many sets of noised values, until something was told without noise."""

    def look(plant: Plant) -> Found:
        start = time.perf_counter()
        with plant():
            for seed in range(streams):
                if told_without_noise(seed=seed):
                    return Found(True, 2 * (seed + 1), time.perf_counter() - start)
        return Found(False, 2 * streams, time.perf_counter() - start)

    return look


def guarded(refusal: type[SynthError], text: str, work: Callable[[Plant], object]) -> Callable[[Plant], Found]:
    """Do what a run does, and see whether the product refuses with these words."""

    def look(plant: Plant) -> Found:
        start, caught = time.perf_counter(), False
        try:
            work(plant)
        except refusal as error:
            if text not in str(error):
                raise
            caught = True
        return Found(caught, 1, time.perf_counter() - start)

    return look


def _inside(work: Callable[[], object]) -> Callable[[Plant], object]:
    def planted_first(plant: Plant) -> None:
        with plant():
            work()

    return planted_first


def _run_up_to_its_audit(*, m: int = 1) -> None:
    """A run as far as its own audit, which refuses what planted records contradict."""
    person = {"name": "who", "kind": "id"}
    schema = REPLAYED | {"columns": [person, *REPLAYED["columns"]], "privacy_unit": "who", "max_rows_per_person": m}
    people = TABLE.append_column("who", [["somebody"]])
    with games.started(people, schema, synthesizer=SYNTHESIZER) as (folder, ledger):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        stages.train(folder)
        stages.sample(folder)
        stages.audit(folder)


def _plan_after_reading(plant: Plant) -> None:
    """The defect comes after the reservation, when the number of rows is known."""
    with games.started(TABLE, REPLAYED) as (folder, ledger):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        with plant():
            stages.measure(folder, ledger)


def _refined_run() -> None:
    """A run with a critic, as far as the critic's last step."""
    with games.started(TABLE, REPLAYED, synthesizer=SYNTHESIZER | CRITIC) as (folder, ledger):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        stages.train(folder)
        stages.refine(folder, ledger)


def _settled_run() -> None:
    """A run whose account is closed."""
    with games.started(TABLE, REPLAYED, synthesizer=SYNTHESIZER) as (folder, ledger):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        stages.settle(folder, ledger)


def _whole_run() -> None:
    """A run to its sealed bundle, which is then held against the ledger."""
    from pipelines.documents import document  # here: it is no part of what the other cases need

    with games.started(TABLE, REPLAYED, synthesizer=SYNTHESIZER) as (folder, ledger):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        stages.train(folder)
        stages.sample(folder)
        stages.audit(folder)
        stages.evaluate(folder)
        stages.settle(folder, ledger)
        document(folder)
        seal(folder.draft)
        verify(folder.draft, ledger=ledger)


def _sampler(plant: Plant) -> Found:
    start = time.perf_counter()
    with plant():
        caught = games.sampler_p_value() < NEVER
    return Found(caught, 1, time.perf_counter() - start)


NEVER = 1e-9
"""A p-value that sound coins do not bring about."""

TABLES = partial(games.measurement_game)
PERSONS = partial(games.measurement_game, m=10, rows_each=10)
CROWD = partial(games.measurement_game, m=1, rows_each=20)
DP_SGD = partial(games.dp_sgd_game)
DP_SGD_PERSONS = partial(games.dp_sgd_game, rows_each=10)

ON_TABLES = "one-run audit of a run's noised tables"
ON_STEPS = "one-run audit of DP-SGD steps, orthogonal gradients"
OWN = "the audit that every run makes of itself refuses"
REPLAY = "replay: with all noised values equal, neighbours' bundles differ"

NAMED = (
    "no noise",
    "noise ten times too small",
    "no clipping",
    "clipping the mean instead of each person",
    "shuffled batches",
    "data-derived bounds",
    "exact class shares",
    "n-dependent steps",
    "a fixed seed",
    "ledger skipped",
    "rows of one person clipped one by one",
    "a stop by a private score",
)
"""The defects that must be caught, whatever else is."""

UNFINISHED = "a critic that was not trained for all steps of the config is refused"

all_steps_of_a_critic = guarded(PrivacyRefusal, "steps of this DP-SGD run were taken", _inside(_refined_run))
own_audit = guarded(ClaimRefuted, "planted records contradict", _inside(_run_up_to_its_audit))
own_audit_of_persons = guarded(ClaimRefuted, "planted records contradict", _inside(partial(_run_up_to_its_audit, m=10)))

CASES = (
    Case("no noise", planted.no_noise, "audit", ON_TABLES, audit(TABLES)),
    Case("no noise", planted.no_noise, "audit", ON_STEPS, audit(DP_SGD)),
    Case("no noise", planted.no_noise, "guard", OWN, own_audit),
    Case("noise ten times too small", planted.noise_ten_times_too_small, "audit", ON_TABLES, audit(TABLES)),
    Case("noise ten times too small", planted.noise_ten_times_too_small, "audit", ON_STEPS, audit(DP_SGD)),
    Case("noise ten times too small", planted.noise_ten_times_too_small, "guard", OWN, own_audit),
    Case("no clipping", planted.no_clipping, "audit", ON_STEPS, audit(DP_SGD)),
    Case(
        "no clipping",
        planted.clipping_by_norms_of_zero,
        "guard",
        "the critic is refused at construction: a row's norm is not autograd's",
        guarded(PrivacyRefusal, "differs from autograd's", _inside(games.dp_sgd_game)),
    ),
    Case("clipping the mean instead of each person", planted.mean_clipped, "audit", ON_STEPS, audit(DP_SGD)),
    Case(
        "shuffled batches",
        planted.shuffled_batches,
        "audit",
        "membership of a person whose gradient is opposite to the others'",
        audit(games.sampling_game),
    ),
    Case("shuffled batches", planted.shuffled_batches, "guard", "inclusions and batch sizes are binomial", _sampler),
    Case("data-derived bounds", planted.data_derived_bounds, "replay", REPLAY, replayed(1)),
    Case("exact class shares", planted.exact_class_shares, "replay", REPLAY, replayed(1)),
    Case("n-dependent steps", planted.steps_from_n, "replay", REPLAY, replayed(1)),
    Case("n-dependent steps", planted.noise_planned_from_n, "replay", REPLAY, replayed(1)),
    Case(
        "n-dependent steps",
        planted.noise_planned_from_n,
        "guard",
        "the ledger refuses an event that was not reserved before the first read",
        guarded(PrivacyRefusal, "has no unspent reservation", _plan_after_reading),
    ),
    Case(
        "n-dependent steps",
        planted.epochs_of_n,
        "guard",
        "the critic refuses a step beyond those of the config",
        guarded(PrivacyRefusal, "steps of this DP-SGD run have been taken", _inside(games.dp_sgd_game)),
    ),
    Case("n-dependent steps", planted.epochs_of_n, "guard", UNFINISHED, all_steps_of_a_critic),
    Case(
        "a fixed seed",
        planted.fixed_seed,
        "audit",
        "one-run audit with the noise of a run on a known table",
        audit(games.repeated_noise_game),
    ),
    Case(
        "ledger skipped",
        partial(planted.ledger_skipped, "reserve"),
        "guard",
        "no reservation: the first release is refused before it is drawn",
        guarded(PrivacyRefusal, "has no reservation", _inside(_settled_run)),
    ),
    Case(
        "ledger skipped",
        partial(planted.ledger_skipped, "spend"),
        "guard",
        "a release was never spent: the run cannot settle, so there is no bundle",
        guarded(PrivacyRefusal, "never spent", _inside(_settled_run)),
    ),
    Case(
        "ledger skipped",
        partial(planted.ledger_skipped, "reserve", "spend"),
        "guard",
        "no reservation: the run cannot settle, so there is no bundle",
        guarded(PrivacyRefusal, "has no reservation", _inside(_settled_run)),
    ),
    Case(
        "ledger skipped",
        partial(planted.ledger_skipped, "reserve", "spend", "settle", "population", "run", "settlement"),
        "guard",
        "the bundle fails verification against the ledger",
        guarded(VerificationFailed, "does not hold the entry", _inside(_whole_run)),
    ),
    Case(
        "rows of one person clipped one by one",
        planted.rows_clipped_one_by_one,
        "audit",
        ON_STEPS + ", persons of 10 rows",
        audit(DP_SGD_PERSONS),
    ),
    Case("a stop by a private score", planted.best_step_by_private_score, "replay", REPLAY, replayed(12)),
    Case("a stop by a private score", planted.critic_stops_by_private_loss, "guard", UNFINISHED, all_steps_of_a_critic),
    # Beyond the twelve:
    Case("as many output rows as real ones", planted.exact_number_of_rows, "replay", REPLAY, replayed(1)),
    Case(
        "sensitivity of one row for a person of several",
        planted.rows_of_a_person_not_counted,
        "audit",
        ON_TABLES + ", persons of 10 rows",
        audit(PERSONS),
    ),
    Case(
        "sensitivity of one row for a person of several",
        planted.rows_of_a_person_not_counted,
        "guard",
        OWN,
        own_audit_of_persons,
    ),
    Case(
        "contributions not bounded before counting",
        planted.contributions_not_bounded,
        "audit",
        ON_TABLES + ", persons of 20 rows of which 1 may count",
        audit(CROWD),
    ),
    Case(
        "empty Poisson batch skipped",
        planted.empty_batches_skipped,
        "audit",
        "membership of the only person: was anything released?",
        audit(games.lonely_game),
    ),
    Case(
        "noise stream shared by a fork",
        planted.stream_shared_by_a_fork,
        "audit",
        "one-run audit with the noise of the forked process",
        audit(games.forked_noise_game),
    ),
    Case(
        "noise from torch's generator",
        planted.torch_noise,
        "audit",
        "one-run audit with the noise of a run on a known table",
        audit(games.repeated_noise_game),
    ),
)

HONEST: dict[str, Game] = {
    ON_TABLES: TABLES,
    ON_TABLES + ", persons of 10 rows": PERSONS,
    ON_TABLES + ", persons of 20 rows of which 1 may count": CROWD,
    ON_STEPS: DP_SGD,
    ON_STEPS + ", persons of 10 rows": DP_SGD_PERSONS,
    "one-run audit with the noise of a run on a known table": games.repeated_noise_game,
    "one-run audit with the noise of the forked process": games.forked_noise_game,
    "membership of the only person: was anything released?": games.lonely_game,
    "membership of a person whose gradient is opposite to the others'": games.sampling_game,
}
"""Every game, for the honest build."""


def one_thread() -> None:
    """Two threads on a busy machine are slower than one."""
    torch.set_num_threads(1)
