"""Held-out people: whose coin falls how, what it costs to be in one of two parts, and what the ledger keeps of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from synth.errors import BudgetExceeded, PrivacyRefusal
from synth.privacy import accounting, budget, pld
from synth.privacy.budget import HOLDOUT_FILE_SHARE, TablePlan, plan_table
from synth.privacy.composition import composed_mu, cost_of_run, epsilon_of, only_gdp, replace_one_epsilon_of
from synth.privacy.events import Event, GaussianEvent, HeldOutEvent, PoissonGaussianEvent
from synth.privacy.holdout import coins, held_out_persons, held_out_rows, tossed_once
from synth.privacy.ledger import Ledger
from synth.privacy.reservations import ReservePayload
from synth.privacy.statement import ACCOUNTANT, accountant
from synth.schema import Schema
from synth.tables.codec import codecs_of
from synth.tables.count import read_codes
from synth.tables.encode import PERSON, Aside, encode

DELTA = 1e-5
RARE = 5e-7  # on either side: a sound build fails such a bound once in a million runs
MakeEvent = Callable[[float], GaussianEvent]


def score_of(mu: float, *, replaced: float = math.sqrt(2)) -> HeldOutEvent:
    return HeldOutEvent(
        name="score", holdout=0.1, sensitivity=mu, replace_one_sensitivity=replaced * mu, noise_scale=1.0
    )


def training_of(mu: float) -> GaussianEvent:
    return GaussianEvent(name="tables", sensitivity=mu, replace_one_sensitivity=math.sqrt(2) * mu, noise_scale=1.0)


class TestCoins:
    @pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.97])
    def test_fall_with_their_probability(self, probability: float) -> None:
        count = 40_000
        assert binom.ppf(RARE, count, probability) <= coins(count, probability).sum()
        assert coins(count, probability).sum() <= binom.isf(RARE, count, probability)

    def test_each_by_itself(self) -> None:
        first, second = coins(40_000, 0.5), coins(40_000, 0.5)
        for other in (second, np.roll(first, 1)):  # another draw, and the neighbour's coin
            assert binom.ppf(RARE, 40_000, 0.5) <= (first == other).sum() <= binom.isf(RARE, 40_000, 0.5)

    def test_no_count_is_aimed_at(self) -> None:
        # Twenty draws of a thousand coins agree in their count with probability below 0.026^19.
        assert len({int(coins(1000, 0.5).sum()) for _ in range(20)}) > 1

    def test_of_nobody_and_of_probability_zero(self) -> None:
        assert not coins(1000, 0.0).any()
        assert len(coins(0, 0.3)) == len(held_out_persons(np.zeros(0, dtype=np.int64), 0.3)(0, 0)) == 0

    @pytest.mark.parametrize("probability", [-0.1, 1.0, math.nan])
    def test_refuse_what_is_no_probability(self, probability: float) -> None:
        with pytest.raises(ValueError, match="probability"):
            coins(1, probability)

    @given(st.lists(st.integers(0, 6), max_size=40), st.floats(0.05, 0.95))
    def test_all_rows_of_a_person_fall_together(self, persons: list[int], probability: float) -> None:
        numbers = np.unique(np.array(persons, dtype=np.int64), return_inverse=True)[1]
        chosen = held_out_persons(numbers, probability)
        fell = [*chosen(0, len(numbers) // 2), *chosen(len(numbers) // 2, len(numbers))]
        assert len(fell) == len(numbers)
        assert len({(number, fallen) for number, fallen in zip(numbers, fell, strict=True)}) == len(set(persons))

    def test_how_many_people_are_held_out_is_binomial(self) -> None:
        persons = np.repeat(np.arange(20_000), 3)
        held_out = held_out_persons(persons, 0.2)(0, 60_000)[::3].sum()
        assert binom.ppf(RARE, 20_000, 0.2) <= held_out <= binom.isf(RARE, 20_000, 0.2)


class TestTossedOnce:
    @given(st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(1, 9), min_size=1))
    def test_two_passes_find_the_same_coins(self, first: list[int], second: list[int]) -> None:
        """In batches of any sizes; a pass that goes on further tosses what is new."""
        asked: list[tuple[int, int]] = []
        tossed = np.random.default_rng(0).random(max(sum(first), sum(second))) < 0.5

        def toss(start: int, stop: int) -> np.ndarray:
            asked.append((start, stop))
            return tossed[start:stop]

        held_out = tossed_once(toss)
        for sizes in (first, second):
            ends = np.cumsum([0, *sizes])
            found = [held_out(int(start), int(stop)) for start, stop in itertools.pairwise(ends)]
            assert [len(batch) for batch in found] == sizes
            assert np.concatenate(found).tolist() == tossed[: ends[-1]].tolist()
        assert [number for span in asked for number in range(*span)] == [*range(len(tossed))]

    def test_a_second_pass_copies_nothing(self) -> None:
        held_out = tossed_once(held_out_rows(0.5))
        for start in range(0, 100, 10):
            held_out(start, start + 10)
        batches = [held_out(start, start + 20) for start in range(0, 100, 20)]
        assert len({id(batch.base) for batch in batches}) == 1


class TestTheTwoFiles:
    @pytest.fixture
    def batches(self) -> list[pa.RecordBatch]:
        """Three batches of rows whose age is their number."""
        return [pa.record_batch({"age": pa.array(range(s, s + 30))}) for s in (0, 30, 60)]

    def test_every_row_is_in_one_of_them(
        self, schema_of: Callable[..., Schema], tmp_path: Path, batches: list[pa.RecordBatch]
    ) -> None:
        chosen = np.arange(90) % 4 == 1
        aside = Aside(tmp_path / "held_out", lambda start, stop: chosen[start:stop])
        encode(batches, codecs_of(schema_of("age")), tmp_path / "codes", aside=aside)
        assert ages(tmp_path / "codes") == np.flatnonzero(~chosen).tolist()
        assert ages(tmp_path / "held_out") == np.flatnonzero(chosen).tolist()
        assert (tmp_path / "held_out").stat().st_mode & 0o777 == 0o600

    def test_with_persons_and_bounding(
        self, schema_of: Callable[..., Schema], tmp_path: Path, batches: list[pa.RecordBatch]
    ) -> None:
        stays = np.arange(90) % 3 > 0
        persons = np.arange(60) // 2
        aside = Aside(tmp_path / "held_out", held_out_persons(persons, 0.4))
        codecs = codecs_of(schema_of("age"))
        encode(batches, codecs, tmp_path / "codes", stays=stays, persons=persons, aside=aside)
        seen = {}
        for name in ("codes", "held_out"):
            parts = read_codes(tmp_path / name, ["cells:age", PERSON])
            rows = [pair for part in parts for pair in zip(part["cells:age"], part[PERSON], strict=True)]
            assert all(np.flatnonzero(stays).tolist().index(age) // 2 == person for age, person in rows)
            seen[name] = rows
        assert sorted(age for rows in seen.values() for age, _ in rows) == np.flatnonzero(stays).tolist()
        assert not {p for _, p in seen["codes"]} & {p for _, p in seen["held_out"]}

    def test_rows_have_coins_of_their_own(
        self, schema_of: Callable[..., Schema], tmp_path: Path, batches: list[pa.RecordBatch]
    ) -> None:
        aside = Aside(tmp_path / "held_out", held_out_rows(0.5))
        encode(batches * 100, codecs_of(schema_of("age")), tmp_path / "codes", aside=aside)
        held_out = len(ages(tmp_path / "held_out"))
        assert held_out + len(ages(tmp_path / "codes")) == 9000
        assert binom.ppf(RARE, 9000, 0.5) <= held_out <= binom.isf(RARE, 9000, 0.5)

    def test_one_part_may_be_empty(self, schema_of: Callable[..., Schema], tmp_path: Path) -> None:
        """Else whether a run fails would tell how coins fell on few people."""
        aside = Aside(tmp_path / "held_out", lambda start, stop: np.ones(stop - start, dtype=bool))
        encode([pa.record_batch({"age": [4, 5]})], codecs_of(schema_of("age")), tmp_path / "codes", aside=aside)
        assert (ages(tmp_path / "codes"), ages(tmp_path / "held_out")) == ([], [4, 5])


def ages(path: Path) -> list[int]:
    return [int(age) for batch in read_codes(path, ["cells:age"]) for age in batch["cells:age"]]


class TestTheCostOfARun:
    def test_is_that_of_training_when_the_score_is_hidden_by_it(self, event_of: MakeEvent) -> None:
        training = (event_of(1), event_of(0.5))
        mu = (1 - 1e-9) * accounting.compose_mu(training)
        assert cost_of_run([*training, score_of(mu)]) == training
        assert epsilon_of(cost_of_run([score_of(mu / 2), *training]), DELTA) == epsilon_of(training, DELTA)

    def test_is_that_of_the_score_when_that_is_larger(self) -> None:
        cost = cost_of_run([training_of(0.3), training_of(0.4), score_of(0.7)])
        assert composed_mu(cost) == pytest.approx(0.7)
        assert replace_one_epsilon_of(cost, DELTA) == accounting.epsilon_of(0.7 * math.sqrt(2), DELTA)

    def test_known_values(self) -> None:
        """(1, 1e-5) needs μ = 0.26805; the larger of two, not the sum, which would be (1.465, 1e-5)."""
        mu = accounting.mu_of(1, DELTA)
        assert epsilon_of(cost_of_run([training_of(mu), score_of(mu)]), DELTA) == 1
        assert epsilon_of([training_of(mu), score_of(mu).alone], DELTA) == pytest.approx(1.465, abs=5e-4)

    def test_either_relation_has_its_own_larger_part(self) -> None:
        cost = cost_of_run([training_of(1.0), score_of(0.9, replaced=2.0)])
        assert composed_mu(cost) == pytest.approx(1.0)
        gaussian = only_gdp(cost)
        assert gaussian is not None
        assert accounting.compose_replace_one_mu(gaussian) == pytest.approx(1.8)

    def test_scores_of_one_run_add_up_among_themselves(self) -> None:
        assert composed_mu(cost_of_run([training_of(0.1), score_of(0.3), score_of(0.4)])) == pytest.approx(0.5)

    def test_beside_dp_sgd(self) -> None:
        critic = PoissonGaussianEvent(name="critic", sample_rate=0.02, noise_multiplier=2.0, steps=50)
        training = (training_of(0.3), critic)
        assert cost_of_run([*training, score_of(0.3)]) == training
        larger = cost_of_run([*training, score_of(0.5)])
        assert larger[1:] == (critic,)
        assert pld.epsilon_of(larger, DELTA) == pld.epsilon_of((training_of(0.5), critic), DELTA)

    def test_what_was_not_asked_for_by_run_is_not_added_up(self) -> None:
        for add in (composed_mu, only_gdp, lambda events: epsilon_of(events, DELTA)):
            with pytest.raises(TypeError, match="cost_of_run"):
                add([training_of(1.0), score_of(0.5)])

    @pytest.mark.parametrize(("training", "score"), [(0.8, 0.8), (0.8, 0.3), (0.3, 0.8), (2.0, 2.0)])
    @pytest.mark.parametrize("holdout", [0.05, 0.5, 0.9])
    def test_a_loop_over_outcomes_finds_no_more(self, training: float, score: float, holdout: float) -> None:
        """The divergences of the mixture itself, by a sum over a grid of what both releases may give out."""
        at = np.linspace(-9, 13, 1101)
        x, y = norm.pdf(at)[:, None], norm.pdf(at)[None, :]
        mixed = (1 - holdout) * norm.pdf(at - training)[:, None] * y + holdout * x * norm.pdf(at - score)[None, :]
        without = x * y
        cell = (at[1] - at[0]) ** 2
        larger = composed_mu(cost_of_run([training_of(training), score_of(score)]))
        assert larger is not None
        for epsilon in (0.0, 0.1, 0.5, 1.0, 2.0):
            bound = accounting.delta_of(epsilon, larger)
            for one, other in ((mixed, without), (without, mixed)):
                assert np.maximum(one - math.exp(epsilon) * other, 0).sum() * cell <= bound + 1e-6


class TestThePlan:
    @staticmethod
    def planned(**changes: object) -> TablePlan:
        shape = {"epsilon": 1.0, "delta": DELTA, "histograms": {"a": 9, "b": 40}, "classes": 2, "details": 4}
        shape |= {"detail_weight": 2.0, "candidate_pairs": 45, "classes_known": True, "pairs_by_class": True} | changes
        return plan_table(**shape)  # type: ignore[arg-type]

    @given(st.floats(0.01, 50), st.integers(1, 500), st.floats(0.001, 0.999), st.integers(0, 400), st.booleans())
    def test_held_out_people_cost_nothing_more(
        self, epsilon: float, m: int, holdout: float, pairs: int, known: bool
    ) -> None:
        shape = {"epsilon": epsilon, "max_rows_per_person": m, "candidate_pairs": pairs, "classes_known": known}
        plan, without = self.planned(holdout=holdout, **shape), self.planned(**shape)
        assert plan.releases == without.releases
        assert cost_of_run(plan.events) == plan.releases
        assert isinstance(plan.score, HeldOutEvent) and plan.score.holdout == holdout
        mu = accounting.compose_mu(plan.releases)
        assert (1 - 1e-8) * mu <= plan.score.alone.mu <= mu  # no more noise than that, either
        assert (plan.score.sensitivity, plan.score.replace_one_sensitivity) == (m, pytest.approx(m * math.sqrt(2)))

    def test_people_of_a_file_take_their_share(self) -> None:
        plan = self.planned(holdout="file", max_rows_per_person=3)
        whole = accounting.mu_of(1, DELTA)
        assert isinstance(plan.score, GaussianEvent)
        assert plan.score.mu == pytest.approx(whole * math.sqrt(HOLDOUT_FILE_SHARE))
        assert composed_mu(cost_of_run(plan.events)) == pytest.approx(whole, rel=1e-12)
        assert epsilon_of(cost_of_run(plan.events), DELTA) <= 1

    @pytest.mark.parametrize("holdout", [0.2, "file"])
    def test_beside_a_critic(self, holdout: float | str) -> None:
        critic = {"critic_share": 0.5, "critic_steps": 20, "critic_sample_rate": 0.1}
        plan = self.planned(holdout=holdout, **critic)
        assert 1 - 2e-3 < epsilon_of(cost_of_run(plan.events), DELTA) <= 1
        assert plan.critic is not None and plan.score is not None
        if holdout == 0.2:
            assert plan.critic == self.planned(**critic).critic
        assert plan.events == (*plan.releases, plan.critic, plan.score)


class TestTheLedger:
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Ledger:
        return Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")

    @staticmethod
    def reserve(ledger: Ledger, run_id: str, *events: Event) -> int | None:
        return ledger.reserve(
            population="patients", dataset="visits", run_id=run_id, events=events, delta=DELTA
        ).runs_left

    def test_of_each_run_the_larger_part_counts(self, ledger: Ledger) -> None:
        """Two runs, with the larger part in training and in the score: √(.8² + .6²), not the larger of all."""
        self.reserve(ledger, "one", training_of(0.8), score_of(0.2))
        self.reserve(ledger, "two", training_of(0.1), score_of(0.6))
        account = ledger.population("patients")
        assert account is not None and account.mu == pytest.approx(1.0)
        assert [run.mu for run in account.charged] == [pytest.approx(0.8), pytest.approx(0.6)]
        assert account.epsilon == accounting.epsilon_of(account.mu, DELTA)
        assert ledger.charged_events("patients")[0] == training_of(0.8)

    def test_a_cap_has_room_for_as_many_runs_as_without_the_score(self, ledger: Ledger) -> None:
        mu = accounting.mu_of(1, DELTA)
        ledger.set_cap("patients", accounting.epsilon_of(mu * math.sqrt(3), DELTA), DELTA)
        run = (training_of(mu), score_of(mu))
        assert ledger.runs_left("patients", run) == 3
        assert [self.reserve(ledger, f"run {i}", *run) for i in range(3)] == [2, 1, 0]
        with pytest.raises(BudgetExceeded):
            self.reserve(ledger, "one more", *run)
        with pytest.raises(BudgetExceeded):
            ledger.refuse_if_over_cap("patients", run)

    def test_the_score_is_drawn_once_and_must_be(self, ledger: Ledger) -> None:
        training, score = training_of(0.8), score_of(0.5)
        self.reserve(ledger, "one", training, score)
        ledger.spend("one", training)
        assert (reserved := ledger.run("one")) is not None and reserved.unspent == (score,)
        with pytest.raises(PrivacyRefusal):
            ledger.spend("one", score.alone)  # as if nobody had been held out
        ledger.spend("one", score)
        with pytest.raises(PrivacyRefusal):
            ledger.spend("one", score)
        assert (reserved := ledger.run("one")) is not None and reserved.unspent == ()

    def test_a_backup_keeps_it_beside_older_entries(self, ledger: Ledger, tmp_path: Path, event_of: MakeEvent) -> None:
        self.reserve(ledger, "old", event_of(1))
        older = ledger.history()
        self.reserve(ledger, "new", training_of(0.8), score_of(0.9))
        other = Ledger.open(f"sqlite:///{tmp_path / 'other.db'}")
        assert other.restore(ledger.backup()) == 2
        assert other.verify_chain() == 2
        assert other.history()[:1] == older and other.history() == ledger.history()
        assert other.population("patients") == ledger.population("patients")

    def test_what_is_written_reads_the_same(self) -> None:
        events = (training_of(0.8), score_of(0.9))
        text = ReservePayload(delta=DELTA, events=events).text()
        assert ReservePayload.model_validate_json(text).events == events
        plain = ReservePayload(delta=DELTA, events=events[:1]).text()
        assert "held" not in plain and "holdout" not in plain  # what came before is written as it was


def test_the_statement_says_that_the_larger_counts() -> None:
    assert accountant([training_of(1.0)]) == ACCOUNTANT
    said = accountant([training_of(1.0), score_of(1.0)])
    assert said.startswith(ACCOUNTANT) and "the larger of the two, not their sum" in said
    assert "the larger of the two" not in accountant([training_of(1.0), score_of(1.0).alone])
    assert budget.ACCURACY in {event.name for event in TestThePlan.planned(holdout=0.1).events}
