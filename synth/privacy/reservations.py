"""What the ledger's entries say: caps, overlaps, and reservations with the steps that may follow them.

    reserve ─┬─ spend … spend ─┬─ settle      charged in full
             │                 └─ (nothing)   open: charged in full, also after a crash; may go on
             └─ void                          costs nothing; only before the first spend

The same transition serves a new entry (a wrong one is refused) and the replay of stored ones (a wrong
one was never written by this software).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from synth.errors import PrivacyRefusal
from synth.files import canonical_json
from synth.privacy.accounting import MAX_EPSILON
from synth.privacy.composition import composed_mu, cost_of_run, epsilon_of
from synth.privacy.events import Event
from synth.privacy.ledger_chain import Entry

REMEMBERED = 1 << 14  # payloads; each is read again and again, and never changes


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def text(self) -> str:
        """Canonical JSON, as it is stored."""
        return canonical_json(self.model_dump(mode="json")).decode()


class ReservePayload(_Payload):
    """What a run is going to do. Names and public constants of its mechanisms only: nothing measured."""

    delta: float = Field(gt=0, lt=1)
    events: tuple[Event, ...] = Field(min_length=1)


class SpendPayload(_Payload):
    """The reserved event whose mechanism starts to draw."""

    event: Event


class EndPayload(_Payload):
    """Settling and voiding say nothing more.

    The hash of a settling entry is published, and everything under it but the times is public too. The nonce, which
    never leaves the ledger, keeps anyone from searching for the times, which tell how long the rows took to read.
    """

    nonce: str = Field(default="", pattern="^([0-9a-f]{32})?$")


class Cap(_Payload):
    """No further run of the population may lift its composed privacy loss above (ε, δ)."""

    epsilon: float = Field(gt=0, le=MAX_EPSILON)
    delta: float = Field(gt=0, lt=1)


class Overlap(_Payload):
    """People of the entry's population may be in `other` too. Cannot be taken back."""

    other: str = Field(min_length=1)


P = TypeVar("P", bound=_Payload)


@lru_cache(maxsize=REMEMBERED)
def read_payload(kind: type[P], text: str) -> P:
    """The payload that a canonical JSON text holds. Raises ValueError for any other text."""
    return kind.model_validate_json(text)


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """One run's claim on a population's budget. `time` is UTC, ISO 8601.

    `runs_left` is known right after reserving: how many more runs like this one fit under the cap; None without a cap.
    """

    run_id: str
    population: str
    dataset: str
    time: str
    delta: float
    events: tuple[Event, ...]
    spent: tuple[Event, ...] = ()
    state: Literal["open", "settled", "void"] = "open"
    runs_left: int | None = None

    @property
    def charged(self) -> bool:
        """Whether it counts. A run that was neither settled nor voided counts in full."""
        return self.state != "void"

    @property
    def unspent(self) -> tuple[Event, ...]:
        """The events that were reserved and not spent."""
        return tuple((Counter(self.events) - Counter(self.spent)).elements())

    @property
    def mu(self) -> float | None:
        """Gaussian-DP parameter of all its events, add/remove of one unit; None with DP-SGD, which has none."""
        return composed_mu(cost_of_run(self.events))

    @property
    def epsilon(self) -> float:
        """ε of all its events at its own δ, rounded up."""
        return epsilon_of(cost_of_run(self.events), self.delta)


def follow(run: Reservation | None, entry: Entry) -> Reservation:
    """The reservation as this entry leaves it. Raises PrivacyRefusal when the entry may not follow."""
    name = f"run {entry.run_id!r}"
    if entry.kind == "reserve":
        if run is not None:
            raise PrivacyRefusal(f"{name} is in the ledger already; a retry takes a new run id")
        return _reserved(entry, read_payload(ReservePayload, entry.payload))
    if run is None:
        raise PrivacyRefusal(f"{name} has no reservation; reserve before the first private read")
    if (entry.population, entry.dataset) != (run.population, run.dataset):
        raise ValueError(f"{name} belongs to another population or dataset")
    if run.state != "open":
        raise PrivacyRefusal(f"{name} is {run.state}; nothing can follow, start a new run")
    if entry.kind == "spend":
        return _spent(run, read_payload(SpendPayload, entry.payload).event)
    read_payload(EndPayload, entry.payload)
    if entry.kind == "settle":
        return replace(run, state="settled")
    if entry.kind != "void":
        raise ValueError(f"{entry.kind!r} is no step of a run")
    if run.spent:
        raise PrivacyRefusal(f"{name} has drawn noise, so it can be settled, never voided")
    return replace(run, state="void")


def _reserved(entry: Entry, payload: ReservePayload) -> Reservation:
    if not entry.run_id or not entry.dataset:
        raise PrivacyRefusal("a reservation names its run and its dataset")
    return Reservation(
        run_id=entry.run_id,
        population=entry.population,
        dataset=entry.dataset,
        time=entry.time,
        delta=payload.delta,
        events=payload.events,
    )


def _spent(run: Reservation, event: Event) -> Reservation:
    if event not in run.unspent:
        raise PrivacyRefusal(
            f"run {run.run_id!r} has no unspent reservation for {event.name!r}; each event is drawn once"
        )
    return replace(run, spent=(*run.spent, event))
