"""The ledger, the same in every database: a run's steps, the cap, tampering, and what is stored."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.errors import BudgetExceeded, PrivacyRefusal, UserError, VerificationFailed
from synth.privacy.accounting import epsilon_of, mu_of
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import GENESIS, Ledger, format_epsilon
from synth.privacy.ledger_books import Books

DELTA = 1e-5
PEOPLE = "patients"


def events_of(epsilon: float, *, shares: tuple[float, ...] = (0.25, 0.75), delta: float = DELTA) -> list[GaussianEvent]:
    """Events that together cost (ε, δ), split by shares of μ²."""
    budget = mu_of(epsilon, delta) ** 2
    return [
        GaussianEvent(
            name=f"release {number}",
            sensitivity=1,
            replace_one_sensitivity=math.sqrt(2),
            noise_scale=1 / math.sqrt(share * budget),
        )
        for number, share in enumerate(shares)
    ]


def reserve(ledger: Ledger, run_id: str, epsilon: float = 1, population: str = PEOPLE) -> None:
    ledger.reserve(population=population, dataset="visits", run_id=run_id, events=events_of(epsilon), delta=DELTA)


def take(ledger: Ledger, kind: str, run_id: str, epsilon: float) -> None:
    match kind:
        case "reserve":
            reserve(ledger, run_id, epsilon)
        case "spend":
            ledger.spend(run_id, _first_event(ledger, run_id))
        case "settle":
            ledger.settle(run_id)
        case "void":
            ledger.void(run_id)
        case "cap":
            ledger.set_cap(PEOPLE, epsilon, DELTA)


@pytest.fixture
def ledger(ledger_url: str) -> Ledger:
    return Ledger.open(ledger_url)


class TestARunsSteps:
    def test_settled_run_counts_in_full(self, ledger: Ledger) -> None:
        events = events_of(1)
        reservation = ledger.reserve(population=PEOPLE, dataset="visits", run_id="a", events=events, delta=DELTA)
        assert (reservation.run_id, reservation.state, reservation.events) == ("a", "open", tuple(events))
        for event in events:
            ledger.spend("a", event)
        settled = ledger.settle("a")
        assert settled.hash == ledger.head()
        budget = ledger.population(PEOPLE)
        assert budget is not None
        assert budget.charged[0].state == "settled"
        assert budget.charged[0].spent == tuple(events)
        assert budget.epsilon == pytest.approx(1, abs=2e-6)
        assert budget.mu == pytest.approx(mu_of(1, DELTA))
        assert budget.replace_one_epsilon == epsilon_of(budget.charged[0].mu * math.sqrt(2), DELTA)
        assert (budget.candidates, budget.void, budget.open) == (1, (), ())
        assert (budget.cap, budget.epsilon_left, budget.mu_squared_left) == (None, None, None)
        assert [entry.kind for entry in ledger.history()] == ["reserve", "spend", "spend", "settle"]

    def test_run_that_stopped_counts_in_full(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        ledger.spend("a", events_of(1)[0])
        budget = ledger.population(PEOPLE)
        assert budget is not None
        assert [run.run_id for run in budget.open] == ["a"]
        assert budget.epsilon == pytest.approx(1, abs=2e-6)

    def test_an_open_run_reads_as_a_settled_one_and_settles_once(self, ledger: Ledger) -> None:
        """While a run waits to be resumed, every account says what it says afterwards, but that it is open."""
        ledger.set_cap(PEOPLE, 3, DELTA)
        ledger.declare_overlap("others", PEOPLE)
        reserve(ledger, "a")
        for event in events_of(1):
            ledger.spend("a", event)
        waiting, run = [ledger.population(name) for name in (PEOPLE, "others")], ledger.run("a")
        assert all(budget is not None and budget.candidates == 1 and len(budget.open) == 1 for budget in waiting)
        assert run is not None and (run.state, run.unspent, ledger.settlement("a")) == ("open", (), None)
        entry = ledger.settle("a")
        assert ledger.settlement("a") == entry
        assert ledger.run("a") == replace(run, state="settled")
        settled = [ledger.population(name) for name in (PEOPLE, "others")]
        assert settled == [
            budget and replace(budget, charged=tuple(replace(run, state="settled") for run in budget.charged))
            for budget in waiting
        ]

    def test_what_is_unspent_is_known(self, ledger: Ledger) -> None:
        assert (ledger.run("a"), ledger.settlement("a")) == (None, None)
        reserve(ledger, "a")
        first, second = events_of(1)
        ledger.spend("a", second)
        run = ledger.run("a")
        assert run is not None and run.unspent == (first,)
        reserve(ledger, "b")
        ledger.void("b")
        assert ledger.settlement("b") is None

    def test_void_run_costs_nothing_and_stays_visible(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        ledger.void("a")
        budget = ledger.population(PEOPLE)
        assert budget is not None
        assert (budget.mu, budget.epsilon, budget.candidates) == (0, 0, 0)
        assert [run.run_id for run in budget.void] == ["a"]

    def test_after_a_first_draw_nothing_is_void(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        ledger.spend("a", events_of(1)[1])
        with pytest.raises(PrivacyRefusal, match="never voided"):
            ledger.void("a")
        ledger.settle("a")

    @pytest.mark.parametrize("end", [Ledger.settle, Ledger.void])
    def test_nothing_follows_the_end(self, ledger: Ledger, end: Callable[[Ledger, str], object]) -> None:
        reserve(ledger, "a")
        end(ledger, "a")
        for kind in ("settle", "void", "spend"):
            with pytest.raises(PrivacyRefusal, match="nothing can follow"):
                take(ledger, kind, "a", 1)

    def test_an_event_is_drawn_once(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        event = events_of(1)[0]
        ledger.spend("a", event)
        with pytest.raises(PrivacyRefusal, match="drawn once"):
            ledger.spend("a", event)

    def test_equal_events_are_drawn_as_often_as_reserved(self, ledger: Ledger) -> None:
        twice = [events_of(1)[0]] * 2
        ledger.reserve(population=PEOPLE, dataset="visits", run_id="a", events=twice, delta=DELTA)
        ledger.spend("a", twice[0])
        ledger.spend("a", twice[0])
        with pytest.raises(PrivacyRefusal):
            ledger.spend("a", twice[0])

    def test_only_what_was_reserved_can_be_drawn(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        less_noise = events_of(1)[0].model_copy(update={"noise_scale": 0.5})
        with pytest.raises(PrivacyRefusal, match="release 0"):
            ledger.spend("a", less_noise)

    @pytest.mark.parametrize("step", [Ledger.settle, Ledger.void])
    def test_an_unknown_run_has_no_steps(self, ledger: Ledger, step: Callable[[Ledger, str], object]) -> None:
        with pytest.raises(PrivacyRefusal, match="no reservation"):
            step(ledger, "nobody")
        assert ledger.head() == GENESIS

    def test_a_run_id_serves_once(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        ledger.void("a")
        with pytest.raises(PrivacyRefusal, match="new run id"):
            reserve(ledger, "a", population="others")

    @pytest.mark.parametrize("name", ["", " ", " patients", "two\nlines", "\x1b[31m", "x" * 201])
    def test_names_are_plain(self, ledger: Ledger, name: str) -> None:
        with pytest.raises(UserError, match="printable"):
            reserve(ledger, "a", population=name)
        with pytest.raises(UserError, match="printable"):
            reserve(ledger, name)

    @pytest.mark.parametrize("delta", [0, 1, math.nan])
    def test_a_reservation_has_a_delta(self, ledger: Ledger, delta: float) -> None:
        with pytest.raises(ValueError, match="delta"):
            ledger.reserve(population=PEOPLE, dataset="d", run_id="a", events=events_of(1), delta=delta)

    def test_a_reservation_has_events(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="events"):
            ledger.reserve(population=PEOPLE, dataset="d", run_id="a", events=[], delta=DELTA)

    def test_times_are_utc_in_whole_seconds(self, ledger_url: str) -> None:
        noon = datetime(2025, 3, 1, 12, 0, 7, 999, tzinfo=timezone(timedelta(hours=2)))
        ledger = Ledger.open(ledger_url, clock=lambda: noon)
        assert ledger.set_cap(PEOPLE, 1).time == "2025-03-01T10:00:07Z"


class TestPopulations:
    def test_runs_add_up_across_datasets_but_not_populations(self, ledger: Ledger) -> None:
        for number in range(4):
            ledger.reserve(
                population=PEOPLE,
                dataset=f"table {number}",
                run_id=f"run {number}",
                events=events_of(1),
                delta=DELTA,
            )
        reserve(ledger, "other", epsilon=3, population="staff")
        first, second = ledger.populations()
        assert (first.population, second.population) == (PEOPLE, "staff")
        assert first.epsilon == pytest.approx(2.155, abs=5e-4)
        assert second.epsilon == pytest.approx(3, abs=2e-6)
        assert {entry.run_id for entry in ledger.history("staff")} == {"other"}

    def test_an_unknown_population_is_none(self, ledger: Ledger) -> None:
        assert ledger.population("nobody") is None

    def test_epsilon_is_at_the_smallest_delta_recorded(self, ledger: Ledger) -> None:
        for run_id, delta in (("a", 1e-5), ("b", 1e-6), ("c", 1e-4)):
            ledger.reserve(population=PEOPLE, dataset="d", run_id=run_id, events=events_of(1), delta=delta)
        budget = ledger.population(PEOPLE)
        assert budget is not None
        assert budget.delta == 1e-6
        assert budget.epsilon == epsilon_of(budget.mu, 1e-6)


class TestCap:
    def test_a_cap_can_be_used_whole(self, ledger: Ledger) -> None:
        for cap in (0.1, 1, 3, 100):
            population = f"people {cap}"
            ledger.set_cap(population, cap, DELTA)
            reserve(ledger, f"whole {cap}", epsilon=cap, population=population)
            with pytest.raises(BudgetExceeded, match="nothing is left"):
                reserve(ledger, f"more {cap}", epsilon=0.01, population=population)

    def test_refusal_says_what_and_writes_nothing(self, ledger: Ledger) -> None:
        ledger.set_cap(PEOPLE, 1.5)
        reserve(ledger, "a")
        reserve(ledger, "void")
        ledger.void("void")
        before = ledger.head()
        with pytest.raises(BudgetExceeded) as refused:
            reserve(ledger, "b", epsilon=2)
        assert refused.value.exit_code == 3
        message = str(refused.value)
        for part in (
            "'patients'",
            "cap is epsilon 1.5 at delta 1e-05",
            "1 is spent",
            "make it 2.302",
            "at most 1.04",
        ):
            assert part in message
        assert "\n" not in message
        with pytest.raises(BudgetExceeded):
            ledger.refuse_if_over_cap(PEOPLE, events_of(2))
        ledger.refuse_if_over_cap(PEOPLE, events_of(1))
        ledger.refuse_if_over_cap("strangers", events_of(2))
        assert ledger.head() == before

    def test_others_do_not_wait_for_what_is_worked_out_for_people(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With DP-SGD in the books a message takes seconds; another run must be able to spend meanwhile."""
        ledger.set_cap(PEOPLE, 1.5)

        def meanwhile(name: str) -> None:
            real = getattr(Books, name)

            def slow(books: Books, *args: object) -> object:
                monkeypatch.setattr(Books, name, real)
                reserve(ledger, f"during {name}", population="others")  # would wait for the lock, which nobody frees
                return real(books, *args)

            monkeypatch.setattr(Books, name, slow)

        meanwhile("runs_left")
        reserve(ledger, "a")
        meanwhile("over_cap")
        with pytest.raises(BudgetExceeded):
            reserve(ledger, "b", epsilon=2)
        assert [entry.run_id for entry in ledger.history("others")] == ["during runs_left", "during over_cap"]

    def test_what_is_left_can_be_spent_and_not_more(self, ledger: Ledger) -> None:
        ledger.set_cap(PEOPLE, 2)
        reserve(ledger, "a", epsilon=1.3)
        budget = ledger.population(PEOPLE)
        assert budget is not None and budget.epsilon_left is not None and budget.mu_squared_left is not None
        assert mu_of(budget.epsilon_left, DELTA) ** 2 <= budget.mu_squared_left
        with pytest.raises(BudgetExceeded):
            ledger.refuse_if_over_cap(PEOPLE, events_of(budget.epsilon_left + 1e-5))
        reserve(ledger, "b", epsilon=budget.epsilon_left)

    def test_open_runs_count_against_the_cap(self, ledger: Ledger) -> None:
        ledger.set_cap(PEOPLE, 1)
        reserve(ledger, "crashed")
        with pytest.raises(BudgetExceeded):
            reserve(ledger, "retry")
        ledger.void("crashed")
        reserve(ledger, "another")

    def test_the_latest_cap_counts_also_below_what_is_spent(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        for epsilon in (0.5, 4, 0.7):
            ledger.set_cap(PEOPLE, epsilon)
        budget = ledger.population(PEOPLE)
        assert budget is not None and budget.cap is not None
        assert (budget.cap.epsilon, budget.epsilon_left, budget.mu_squared_left) == (0.7, 0, 0)
        assert budget.epsilon > budget.cap.epsilon

    def test_its_delta_is_the_smallest_recorded(self, ledger: Ledger) -> None:
        ledger.set_cap("fresh", 1)
        ledger.reserve(population=PEOPLE, dataset="d", run_id="a", events=events_of(1), delta=1e-7)
        ledger.set_cap(PEOPLE, 2)
        ledger.set_cap("chosen", 2, 1e-3)
        deltas = {b.population: b.delta for b in ledger.populations()}
        assert deltas == {"fresh": 1e-5, PEOPLE: 1e-7, "chosen": 1e-3}

    @pytest.mark.parametrize(
        ("epsilon", "delta"),
        [(0, None), (-1, None), (math.inf, None), (math.nan, None), (501, None), (1, 0), (1, 1)],
    )
    def test_a_cap_in_range(self, ledger: Ledger, epsilon: float, delta: float | None) -> None:
        with pytest.raises(UserError, match="epsilon must be above 0"):
            ledger.set_cap(PEOPLE, epsilon, delta)


Raw = Callable[..., None]


@pytest.fixture
def raw(ledger_url: str) -> Raw:
    """Run statements on the bare database; with `unguarded`, after disarming the triggers."""

    def sqlite(*statements: str, unguarded: bool = False) -> None:
        with closing(sqlite3.connect(ledger_url.removeprefix("sqlite:///"), isolation_level=None)) as bare:
            for name in ("entries_are_never_updated", "entries_are_never_deleted", "entries_are_only_appended"):
                if unguarded:
                    bare.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                bare.execute(statement)

    def postgres(*statements: str, unguarded: bool = False) -> None:
        with psycopg.connect(ledger_url, autocommit=True, options="-c search_path=synth_ledger") as bare:
            if unguarded:
                bare.execute("ALTER TABLE entries DISABLE TRIGGER ALL")
            for statement in statements:
                bare.execute(statement)

    return sqlite if ledger_url.startswith("sqlite") else postgres


class TestTampering:
    @pytest.fixture(autouse=True)
    def six_entries(self, ledger: Ledger) -> None:
        """Reserve a, spend, settle, reserve b, void, cap."""
        reserve(ledger, "a")
        ledger.spend("a", events_of(1)[0])
        ledger.settle("a")
        reserve(ledger, "b")
        ledger.void("b")
        ledger.set_cap(PEOPLE, 4)
        assert ledger.verify_chain() == 6

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE entries SET payload = '{}' WHERE seq = 1",
            "UPDATE entries SET seq = seq",
            "DELETE FROM entries",
            "DELETE FROM entries WHERE seq = 6",
            "INSERT INTO entries SELECT * FROM entries WHERE seq = 1 ON CONFLICT (seq) DO UPDATE SET payload = '{}'",
            "INSERT INTO entries"
            " SELECT 9, time, population, dataset, run_id, kind, '{}', previous, hash FROM entries LIMIT 1",
        ],
    )
    def test_the_table_only_grows_at_its_end(self, raw: Raw, ledger: Ledger, statement: str) -> None:
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="append-only"):
            raw(statement)
        assert ledger.verify_chain() == 6

    @pytest.mark.parametrize(
        ("statements", "first_bad"),
        [
            (("UPDATE entries SET payload = replace(payload, '1e-05', '1e-04') || ' ' WHERE seq = 1",), 1),
            (("UPDATE entries SET population = 'nobody' WHERE seq = 4",), 4),
            (("UPDATE entries SET kind = 'void' WHERE seq = 3",), 3),
            (("UPDATE entries SET time = '2000-01-01T00:00:00Z' WHERE seq = 6",), 6),
            (("UPDATE entries SET dataset = NULL WHERE seq = 2",), 2),
            (("UPDATE entries SET run_id = 'b' WHERE seq = 3",), 3),
            (("UPDATE entries SET hash = previous WHERE seq = 2",), 2),
            (("UPDATE entries SET previous = hash WHERE seq = 3",), 3),
            (("DELETE FROM entries WHERE seq = 4",), 4),
            (("DELETE FROM entries WHERE seq = 1",), 1),
            (("DELETE FROM entries WHERE seq = 4", "UPDATE entries SET seq = seq - 1 WHERE seq > 4"), 4),
            (
                (
                    "UPDATE entries SET seq = 99 WHERE seq = 2",
                    "UPDATE entries SET seq = 2 WHERE seq = 5",
                    "UPDATE entries SET seq = 5 WHERE seq = 99",
                ),
                2,
            ),
            (("UPDATE entries SET seq = 9223372036854775807 WHERE seq = 6",), 6),
        ],
    )
    def test_the_chain_names_the_first_bad_entry(
        self, raw: Raw, ledger: Ledger, statements: tuple[str, ...], first_bad: int
    ) -> None:
        raw(*statements, unguarded=True)
        for use in (
            ledger.verify_chain,
            ledger.populations,
            lambda: ledger.settled_at(GENESIS, population=PEOPLE, run_id="a"),
            lambda: reserve(ledger, "c"),
        ):
            with pytest.raises(VerificationFailed, match=f"ledger entry {first_bad} ") as failed:
                use()
            assert failed.value.exit_code == 4
        assert ledger.history()

    def test_a_recomputed_chain_with_an_impossible_step_is_refused(self, raw: Raw, ledger: Ledger) -> None:
        last = ledger.history()[-1]
        forged = replace(last, seq=7, kind="void", run_id="a", dataset="visits", payload="{}", previous=last.hash)
        values = ", ".join(f"'{value}'" for value in vars(forged.sealed()).values())
        raw(f"INSERT INTO entries VALUES ({values})")
        with pytest.raises(VerificationFailed, match="ledger entry 7 "):
            ledger.verify_chain()

    def test_a_cut_tail_shows_only_in_a_recorded_head(self, raw: Raw, ledger: Ledger) -> None:
        earlier = ledger.history()[2].hash
        reserve(ledger, "c")
        recorded = ledger.settle("c").hash
        assert ledger.settled_at(recorded, population=PEOPLE, run_id="c")
        raw("DELETE FROM entries WHERE seq > 4", unguarded=True)
        assert ledger.verify_chain() == 4
        assert not ledger.settled_at(recorded, population=PEOPLE, run_id="c")
        assert ledger.settled_at(earlier, population=PEOPLE, run_id="a")

    def test_an_export_lets_others_recompute_the_chain(self, ledger: Ledger) -> None:
        previous = GENESIS
        for row in ledger.export():
            stated = row.pop("hash")
            # Python's own encoder, sorted and without spaces, agrees with RFC 8785 on these ASCII rows.
            text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            assert row["previous"] == previous
            assert hashlib.sha256(text.encode()).hexdigest() == stated
            previous = stated
        assert previous == ledger.head()
        assert ledger.export("nobody") == []

    def test_a_removed_table_is_noticed(self, raw: Raw, ledger: Ledger) -> None:
        raw("ALTER TABLE entries RENAME TO gone", unguarded=True)
        with pytest.raises(VerificationFailed, match="removed"):
            ledger.verify_chain()

    def test_only_the_entry_that_ends_the_run_is_its_head(self, ledger: Ledger) -> None:
        settled = ledger.history()[2].hash
        assert ledger.settled_at(settled, population=PEOPLE, run_id="a")
        assert not ledger.settled_at(settled, population=PEOPLE, run_id="b")
        assert not ledger.settled_at(settled, population="others", run_id="a")
        assert not ledger.settled_at(ledger.history()[0].hash, population=PEOPLE, run_id="a")
        assert not ledger.settled_at(GENESIS, population=PEOPLE, run_id="a")

    def test_what_was_verified_once_is_still_compared(self, raw: Raw, ledger: Ledger) -> None:
        """Hashes are remembered within a process; a change between two calls shows all the same."""
        for statement in ("UPDATE entries SET payload = replace(payload, '1', '2') WHERE seq = 1",):
            ledger.verify_chain()
            raw(statement, unguarded=True)
            with pytest.raises(VerificationFailed, match="ledger entry 1 "):
                ledger.population(PEOPLE)


class TestWhatIsStored:
    def test_nothing_but_names_and_scales_is_stored(self, ledger: Ledger) -> None:
        reserve(ledger, "a")
        payload = json.loads(ledger.history()[0].payload)
        assert set(payload) == {"delta", "events"}
        assert set(payload["events"][0]) == set(GaussianEvent.model_fields)


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(0.0, "0"), (1.0, "1"), (0.1, "0.1"), (10.0, "10"), (3.000001, "3.000001"), (math.inf, "above 500")],
)
def test_epsilon_for_people(epsilon: float, text: str) -> None:
    assert format_epsilon(epsilon) == text


@pytest.fixture
def fresh_ledger(ledger_url: str, raw: Raw) -> Callable[[], Ledger]:
    """A new, empty ledger at every call, in the same place."""

    def make() -> Ledger:
        if ledger_url.startswith("sqlite"):
            Path(ledger_url.removeprefix("sqlite:///")).unlink(missing_ok=True)
        else:
            raw("DROP SCHEMA IF EXISTS synth_ledger CASCADE")
        return Ledger.open(ledger_url)

    return make


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "spend", "settle", "void", "cap"]),
        st.integers(0, 4),
        st.sampled_from([0.2, 1, 2.5]),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_charged_mu_squared_is_the_sum_of_what_was_reserved_and_not_voided(
    steps: list[tuple[str, int, float]], fresh_ledger: Callable[[], Ledger]
) -> None:
    """A model of a few lines, told only which calls succeeded, agrees with the ledger after every step."""
    ledger = fresh_ledger()
    reserved: dict[str, float] = {}
    spent: set[str] = set()
    ended: set[str] = set()
    cap: float | None = None
    for kind, number, epsilon in steps:
        run_id = f"run {number}"
        live = run_id in reserved and run_id not in ended
        within = cap is None or sum(reserved.values()) + mu_of(epsilon, DELTA) ** 2 <= mu_of(cap, DELTA) ** 2 * (
            1 + 1e-8
        )
        allowed = {
            "reserve": run_id not in ended and not live and within,
            "spend": live and run_id not in spent,
            "settle": live,
            "void": live and run_id not in spent,
            "cap": True,
        }
        if not allowed[kind]:
            with pytest.raises(PrivacyRefusal):
                take(ledger, kind, run_id, epsilon)
            continue
        take(ledger, kind, run_id, epsilon)
        if kind == "reserve":
            reserved[run_id] = mu_of(epsilon, DELTA) ** 2
        elif kind == "spend":
            spent.add(run_id)
        elif kind == "cap":
            cap = epsilon
        else:
            ended.add(run_id)
            if kind == "void":
                del reserved[run_id]
        budget = ledger.population(PEOPLE)
        assert budget is not None
        assert budget.mu**2 == pytest.approx(sum(reserved.values()), rel=1e-12, abs=1e-15)
        assert {run.run_id for run in budget.charged} == set(reserved)
    ledger.verify_chain()


def _first_event(ledger: Ledger, run_id: str) -> GaussianEvent:
    for budget in ledger.populations():
        for run in (*budget.charged, *budget.void):
            if run.run_id == run_id:
                return run.events[0]
    return events_of(1)[0]


def test_a_published_head_cannot_be_searched_for_the_times_under_it(ledger: Ledger) -> None:
    """All else under a settling entry's hash is public; the nonce is 128 bits that never leave the ledger."""
    heads = []
    for name in ("one", "two"):
        ledger.reserve(population="p", dataset="d", run_id=name, events=events_of(0.1), delta=DELTA)
        entry = ledger.settle(name)
        heads.append(json.loads(entry.payload)["nonce"])
    assert all(re.fullmatch("[0-9a-f]{32}", nonce) for nonce in heads)
    assert heads[0] != heads[1]
