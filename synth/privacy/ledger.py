"""The durable privacy budget: who has spent how much of which population's privacy.

    ledger = Ledger.open("sqlite:///ledger.db")
    ledger.refuse_if_over_cap(population, events)        before the source is opened
    ledger.reserve(population=…, dataset=…, run_id=…, events=…, delta=…)    before the first private read
    ledger.spend(run_id, event)                          before an event's first noise draw
    ledger.settle(run_id)                                at the end; or void(run_id) if nothing was drawn

A run that stops without settle or void stays charged in full. Nothing measured on private data is ever
written here: events hold names and the constants of their mechanisms, all fixed by the config.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from synth.errors import UserError
from synth.privacy.accounting import MAX_EPSILON
from synth.privacy.events import Composable, Event
from synth.privacy.ledger_backup import backup_of, entries_of
from synth.privacy.ledger_books import DEFAULT_DELTA, Books, PopulationBudget, format_epsilon, little_left, replay
from synth.privacy.ledger_chain import GENESIS, Entry, Kind, head_of, verify_links
from synth.privacy.ledger_location import locate, resolve_ledger_url
from synth.privacy.ledger_store import LedgerStore
from synth.privacy.reservations import Cap, EndPayload, Overlap, Reservation, ReservePayload, SpendPayload, follow

__all__ = [
    "DEFAULT_DELTA",
    "GENESIS",
    "Cap",
    "Entry",
    "Ledger",
    "PopulationBudget",
    "Reservation",
    "format_epsilon",
    "little_left",
    "resolve_ledger_url",
]

LONGEST_NAME = 200


class _OverCap(Exception):
    """A reservation would pass the cap; why is said once the ledger is free again."""


class Ledger:
    """One ledger. Keeps no connection and no state between calls, so every answer is of now.

    Reading what is charged verifies the chain first: budgets are never added up from a broken one
    (VerificationFailed). `history` and `export` show a broken chain as it is.
    """

    def __init__(self, store: LedgerStore, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    @classmethod
    def open(
        cls, url: str, *, create: bool = True, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> Ledger:
        """Open the ledger at `url`: `sqlite:///path`, or `postgresql://user:password@host:port/database`.

        With `create`, what is missing is made: a file (0600, in folders of 0700), or the tables in a PostgreSQL
        database. Without, it reads as empty and nothing can be appended. Raises UserError or NotBuiltYet, neither of
        which repeats the URL.
        """
        return cls(LedgerStore(locate(url), create=create), clock=clock)

    @property
    def place(self) -> str:
        """Where it is, for people: the file's path, or that it is PostgreSQL. Free of secrets."""
        return self._store.place

    @property
    def exposed(self) -> bool:
        """Whether its URL lets others on the network read or forge what it says."""
        return self._store.exposed

    def protection(self) -> str:
        """How the connection to it is protected, in words; nothing for a file."""
        return self._store.protection()

    def overpowered(self) -> bool:
        """Whether its user has rights on the entries that neither running nor reading needs."""
        return self._store.overpowered()

    def refuse_if_over_cap(self, population: str, events: Sequence[Event]) -> None:
        """Raise BudgetExceeded when reserving `events` now would pass the cap. Writes nothing."""
        self._books().refuse_if_over_cap(_named("population", population), events)

    def reserve(
        self, *, population: str, dataset: str, run_id: str, events: Sequence[Event], delta: float
    ) -> Reservation:
        """Charge all of a run's events, before its first private read. The result's `runs_left` is set.

        Raises BudgetExceeded when the cap would be passed, PrivacyRefusal when `run_id` was used
        before, ValueError for no events or a δ outside (0, 1).
        """
        payload = ReservePayload(delta=delta, events=tuple(events)).text()
        _named("population", population)
        _named("dataset", dataset)
        _named("run id", run_id)

        # Whatever takes time and decides nothing is worked out after the lock is gone: others wait for it.
        books = Books(runs={}, caps={})

        def decide(entries: tuple[Entry, ...]) -> Entry:
            nonlocal books
            books = _verified(entries)
            entry = self._draft(entries, "reserve", population, dataset, run_id, payload)
            follow(books.runs.get(run_id), entry)
            if not books.fits(population, events):
                raise _OverCap
            return entry

        try:
            run = follow(None, self._store.append(decide))
        except _OverCap:
            run = None
        if run is None:
            raise books.over_cap(population, events)
        return replace(run, runs_left=books.with_run(run).runs_left(population, events))

    def spend(self, run_id: str, event: Event) -> Entry:
        """Note that a mechanism starts to draw, before its first draw. The run cannot be voided any more.

        Raises PrivacyRefusal unless `event` was reserved by this open run and not yet spent.
        """
        return self._step(run_id, "spend", SpendPayload(event=event).text())

    def settle(self, run_id: str) -> Entry:
        """End a run as spent in full, whatever it drew. Raises PrivacyRefusal if it is not open."""
        return self._step(run_id, "settle", EndPayload(nonce=secrets.token_hex(16)).text())

    def void(self, run_id: str) -> Entry:
        """End a run that drew no noise: it costs nothing. Raises PrivacyRefusal after the first spend."""
        return self._step(run_id, "void", EndPayload(nonce=secrets.token_hex(16)).text())

    def close_failed(self, run_id: str) -> Entry | None:
        """End a run that failed with an error: void if nothing was drawn, else spent in full.

        Does nothing when the run holds no open reservation. A killed or cancelled run must not come here, nor one
        that can be resumed: it stays open, an open reservation counts in full, and it may still settle.
        """
        run = self._books().runs.get(run_id)
        if run is None or run.state != "open":
            return None
        return self.settle(run_id) if run.spent else self.void(run_id)

    def set_cap(self, population: str, epsilon: float, delta: float | None = None) -> Entry:
        """Set the population's cap; the latest one counts. δ: the smallest one recorded, else 1e-5.

        A cap below what is spent already is allowed and refuses every further run.
        Raises UserError unless 0 < ε ≤ 500 and 0 < δ < 1.
        """
        _named("population", population)

        def decide(entries: tuple[Entry, ...]) -> Entry:
            recorded = _verified(entries).smallest_delta(population)
            at = delta if delta is not None else recorded if recorded is not None else DEFAULT_DELTA
            try:
                payload = Cap(epsilon=epsilon, delta=at).text()
            except ValidationError as error:
                raise UserError(
                    f"cap of {population!r}: epsilon must be above 0 and at most {MAX_EPSILON:g}, "
                    f"delta strictly between 0 and 1, not {epsilon:g} and {at:g}"
                ) from error
            return self._draft(entries, "cap", population, None, None, payload)

        return self._store.append(decide)

    def declare_overlap(self, population: str, other: str) -> Entry:
        """Say that people of `population` may be in `other` too: from now on the runs on either count for both.

        So do those on all that further overlaps tie to them, and all of their caps bind. It cannot be taken back.
        Raises UserError for a population with itself and for an overlap that is declared already.
        """
        if _named("population", population) == _named("population", other):
            raise UserError(f"overlap: name two populations; runs on {population!r} add up as it is")

        def decide(entries: tuple[Entry, ...]) -> Entry:
            if frozenset({population, other}) in _verified(entries).overlaps:
                raise UserError(f"overlap: {population!r} and {other!r} are declared already")
            return self._draft(entries, "overlap", population, None, None, Overlap(other=other).text())

        return self._store.append(decide)

    def backup(self) -> bytes:
        """The whole ledger as canonical JSON, its chain verified. `restore` takes it, also in another database."""
        entries = self._store.read()
        _verified(entries)
        return backup_of(entries)

    def restore(self, content: bytes) -> int:
        """Write a backup's entries, all or none, and return how many. The hashes stay as they were.

        Raises VerificationFailed when the backup was changed, UserError when this ledger is not empty.
        """
        restored = entries_of(content)
        _verified(restored)

        def decide(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
            if entries:
                raise UserError(f"ledger {self.place}: has entries; restore into an empty one only")
            return restored

        return len(self._store.extend(decide))

    def population(self, name: str) -> PopulationBudget | None:
        """The population's account, None when the ledger has never heard of it."""
        return self._books().budget_of(name)

    def charged(self, run_id: str) -> bool:
        """Whether the run counts for a population. False for one that the ledger has never heard of."""
        run = self._books().runs.get(run_id)
        return run is not None and run.charged

    def knows(self, run_id: str) -> bool:
        """Whether the run has ever reserved, whatever became of it."""
        return run_id in self._books().runs

    def run(self, run_id: str) -> Reservation | None:
        """A run's reservation as it stands now; None for one that the ledger has never heard of."""
        return self._books().runs.get(run_id)

    def settlement(self, run_id: str) -> Entry | None:
        """The entry that ended a run as spent; None while it is open, or when it was void."""
        entries = self._store.read()
        _verified(entries)
        return next((entry for entry in entries if (entry.kind, entry.run_id) == ("settle", run_id)), None)

    def charged_events(self, population: str) -> list[Composable]:
        """Everything that counts against the population, overlaps included; each run as `cost_of_run` has it."""
        return self._books().charged_events(population)

    def runs_left(self, population: str, events: Sequence[Event]) -> int | None:
        """How many more runs with these events fit under the cap; None without a cap."""
        return self._books().runs_left(population, events)

    def populations(self) -> tuple[PopulationBudget, ...]:
        """The accounts of all populations with a run, a cap or an overlap, by name."""
        books = self._books()
        budgets = (books.budget_of(name) for name in books.populations())
        return tuple(budget for budget in budgets if budget is not None)

    def history(self, population: str | None = None) -> tuple[Entry, ...]:
        """The entries as they lie there, oldest first, unverified."""
        return tuple(e for e in self._store.read() if population is None or e.population == population)

    def export(self, population: str | None = None) -> list[dict[str, Any]]:
        """`history` as rows; `payload` stays canonical JSON text, so that hashes can be recomputed."""
        return [asdict(entry) for entry in self.history(population)]

    def head(self) -> str:
        """Hash of the last entry, `GENESIS` for an empty ledger."""
        return head_of(self._store.read())

    def verify_chain(self) -> int:
        """How many entries there are, all of them intact. Raises VerificationFailed naming the first bad one.

        A tail that was cut off does not show here: look up the heads that bundles carry (`settled_at`).
        """
        entries = self._store.read()
        _verified(entries)
        return len(entries)

    def settled_at(self, head: str, *, population: str, run_id: str) -> bool:
        """Whether the entry with this hash ends that run on that population: what a bundle's head has to be."""
        entries = self._store.read()
        _verified(entries)
        found = next((entry for entry in entries if entry.hash == head), None)
        return found is not None and (found.kind, found.population, found.run_id) == ("settle", population, run_id)

    def _books(self) -> Books:
        return _verified(self._store.read())

    def _step(self, run_id: str, kind: Kind, payload: str) -> Entry:
        def decide(entries: tuple[Entry, ...]) -> Entry:
            run = _verified(entries).runs.get(run_id)
            entry = self._draft(
                entries, kind, run.population if run else "", run.dataset if run else None, run_id, payload
            )
            follow(run, entry)
            return entry

        return self._store.append(decide)

    def _draft(
        self,
        entries: tuple[Entry, ...],
        kind: Kind,
        population: str,
        dataset: str | None,
        run_id: str | None,
        payload: str,
    ) -> Entry:
        return Entry(
            seq=len(entries) + 1,
            time=self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            population=population,
            dataset=dataset,
            run_id=run_id,
            kind=kind,
            payload=payload,
            previous=head_of(entries),
        ).sealed()


def _verified(entries: tuple[Entry, ...]) -> Books:
    verify_links(entries)
    return replay(entries)


def _named(what: str, name: str) -> str:
    # A stray space would open a second account; control characters would reach terminals.
    if not name or name != name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UserError(f"{what}: 1 to {LONGEST_NAME} printable characters, without spaces at either end")
    return name
