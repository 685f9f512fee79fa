"""The words of the privacy statement that do not depend on a run's numbers."""

from __future__ import annotations

from collections.abc import Iterable

from synth.privacy.accounting import round_up
from synth.privacy.composition import cost_of_run, only_gdp
from synth.privacy.events import Event, HeldOutEvent, SelectionEvent
from synth.privacy.noise import OF_CHOICES, PROTECTION
from synth.schema import Declaration, EstimableColumn, Schema

ACCOUNTANT = (
    "Gaussian mechanisms composed exactly (mu^2 = sum of squared sensitivity over noise variance) and converted to "
    "(epsilon, delta) by the closed form of Balle and Wang (2018); epsilon is rounded up."
)
WITH_DP_SGD = (
    "Gaussian mechanisms composed exactly (mu^2 = sum of squared sensitivity over noise variance), and with the "
    "Poisson-subsampled Gaussian mechanism of DP-SGD by privacy loss distributions, discretised pessimistically in "
    "steps of {interval:g} (Doroshenko et al. 2022); epsilon is rounded up. A second, independent accountant (Renyi "
    "differential privacy, Mironov 2017) gives an upper bound that is usually looser."
)
HELD_OUT = (
    "People were held out by coins of their own with a public probability; each is in the releases for training or in "
    "the score on held-out people, never in both, so that together these cost the larger of the two, not their sum "
    "(the hockey-stick divergence is jointly convex)."
)


SELECTIONS = (
    "A choice by the exponential mechanism whose log-probabilities one unit moves by at most r, up or down, enters "
    "with the mu of the Gaussian mechanism that dominates it, Phi(mu/2) = 1/(1 + exp(-r))."
)


def accountant(events: Iterable[Event]) -> str:
    """How the events of a run were added up."""
    everything = tuple(events)
    also = f" {SELECTIONS}" if _chooses(everything) else ""
    also += f" {HELD_OUT}" if any(isinstance(event, HeldOutEvent) for event in everything) else ""
    if only_gdp(cost_of_run(everything)) is not None:
        return ACCOUNTANT + also
    from synth.privacy.pld import DISCRETISATION

    return WITH_DP_SGD.format(interval=DISCRETISATION) + also


def renyi_epsilon(events: Iterable[Event], delta: float) -> float | None:
    """The second accountant's ε under add/remove of one unit, rounded up; None where all events are Gaussian."""
    everything = cost_of_run(events)
    if only_gdp(everything) is not None:
        return None
    from synth.privacy.pld import renyi_epsilon_of

    return round_up(renyi_epsilon_of(everything, delta))


def noise_protection(events: Iterable[Event]) -> str:
    """How the noise of the events is protected."""
    everything = tuple(events)
    protection = f"{PROTECTION} {OF_CHOICES}" if _chooses(everything) else PROTECTION
    if only_gdp(cost_of_run(everything)) is not None:
        return protection
    from synth.privacy.dp_sgd import PROTECTION as OF_DP_SGD  # needs torch

    return f"{protection} {OF_DP_SGD}"


def _chooses(events: Iterable[Event]) -> bool:
    return any(isinstance(event, SelectionEvent) for event in events)


def not_covered(schema: Declaration, *, large_delta: bool = False, public_pictures: bool = False) -> tuple[str, ...]:
    """Everything the (ε, δ) of a run does not protect, in plain sentences.

    `large_delta` says that δ is not below one over the noised number of rows, `public_pictures` that the model has
    learned from some.
    """
    declared = f"column names, kinds, bounds{_but_estimated(schema)}, categories"
    of_text = (
        "; of columns of text without missing codes also whether any of the first cells reads as the declared number, "
        "date or truth value; of CSV text whose header holds several separators also whether its first row has as many "
        "cells"
    )
    if not isinstance(schema, Schema):
        declared = "the size, the channels and the range of values of the pictures"
        of_text = ""
    items = [
        f"The schema itself: {declared} and the list of classes are declared by the "
        "steward as public knowledge and are published as they are, and so is every text the steward wrote: "
        "descriptions, labels and the answers in the datasheet.",
        "The decision to release: approving, rejecting or repeating a run after reading the internal report is a "
        "choice made on private data.",
        "That the data exist and that a run was made at this time. A run that fails before its first noise draw is "
        "charged nothing; whoever operates it sees that it failed and for which reason, may try again, and may have "
        "changed the schema in between. A run that fails later is charged in full and publishes nothing.",
        "Time, memory and file sizes seen on the machine during the run. They are not published, but the database of "
        "the flow engine (Prefect) holds when each stage began and ended.",
        "Other releases about the same people that this ledger does not know of: under another population name, in "
        "another ledger, or made by other means.",
        _several_rows(schema),
        "How the source was drawn: the unit is counted in rows that reach the software, so a query, a join or a filter "
        "in front of it is the steward's assertion. Before the budget is reserved, the source's header is read: column "
        f"names, physical types, and whether there is any row at all{of_text}.",
    ]
    if schema.row_count != "private":
        items.append("The number of rows: the steward declared it as public.")
    if large_delta:
        items.append(
            "Single people, by delta: delta is not below one over the noised number of rows, and a mechanism may keep "
            "such a delta while it publishes somebody's row. This one adds noise to everything it releases."
        )
    if public_pictures:
        items.append(
            "The pictures that the steward declares public: the model has learned from them without noise, and may "
            "show what they show. That they are public, and that none of them is of the source, is the steward's "
            "assertion."
        )
    columns = schema.learned_columns if isinstance(schema, Schema) else ()
    refused = [column.name for column in columns if column.outside == "refuse"]
    if refused:
        items.append(
            "Whether a value outside the declared domain, or an undeclared empty cell, exists in "
            f"{', '.join(refused)}: the schema asks to refuse the run in that case, and its operator sees it."
        )
    return tuple(items)


def _but_estimated(schema: Declaration) -> str:
    columns = schema.learned_columns if isinstance(schema, Schema) else ()
    # A schema that says "estimated" repeats what another run found: in this one they are declared, and not charged.
    names = [c.name for c in columns if isinstance(c, EstimableColumn) and c.bounds_are == "to estimate"]
    return f" (but for {', '.join(names)}, of which they are estimated with noise)" if names else ""


def _several_rows(schema: Declaration) -> str:
    if schema.person_column is None:
        return (
            "People with several rows: the schema says that each person has one row. If that is wrong, a person is "
            "protected only as well as a group of that many rows."
        )
    return (
        f"Who is one person: people are told apart by the column {schema.person_column}, as the steward declares. A "
        "person under two of its values is protected only as well as two people. Rows without a value are left out."
    )
