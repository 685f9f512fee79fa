"""How a scheduled run ends, in words that Prefect may keep: a name to watch for, and a message.

Prefect's database is read by more people than the run's folder, so no message holds a path of the source, or anything
else but what config and ledger say. What happened in full is on the worker's standard error.
"""

from __future__ import annotations

from typing import NamedTuple

from synth.errors import (
    BudgetExceeded,
    InvalidSource,
    LedgerUnavailable,
    NotApproved,
    PrivacyRefusal,
    SynthError,
    UserError,
    VerificationFailed,
)
from synth.facts import PublicFacts
from synth.privacy.ledger import format_epsilon

BY_HAND = "`synth doctor` with the same run.yaml, or the worker's standard error, says what"


class Ending(NamedTuple):
    """The name and the message of a terminal state."""

    name: str
    message: str


ALREADY_RAN = Ending("AlreadyRan", "this flow run has run before; a retry is a new one: `prefect deployment run`")
SLOT_PASSED = Ending("SlotPassed", "the next slot was due before a worker took this one; nothing was spent")

# The first kind that fits counts, so special ones stand before general ones.
REFUSALS: tuple[tuple[type[SynthError], Ending], ...] = (
    (InvalidSource, Ending("SourceRefused", f"the source cannot be read or does not fit schema.yaml; {BY_HAND}")),
    (LedgerUnavailable, Ending("LedgerUnavailable", f"the ledger's database does not answer or is full; {BY_HAND}")),
    (NotApproved, Ending("NotApproved", "the bundle is not approved, or no longer; `synth verify` says what it is")),
    (PrivacyRefusal, Ending("PrivacyRefused", f"the privacy rules refuse; {BY_HAND}")),
    (UserError, Ending("ConfigRefused", f"run.yaml, schema.yaml or what they name has a mistake; {BY_HAND}")),
    (VerificationFailed, Ending("NotVerified", "the ledger or the bundle is not what it claims to be; stop and look")),
)


def ending_of(error: SynthError, *, where: str, charged: bool) -> Ending:
    """How a run ends that raised `error` in stage `where`; `charged`: whether the ledger counts it."""
    spent = "what was reserved stays spent" if charged else "nothing was spent"
    if isinstance(error, BudgetExceeded):  # its words come from the ledger and the config alone
        return Ending("RefusedByBudget", f"{error}; {spent}")
    for kind, ending in REFUSALS:
        if isinstance(error, kind):
            return ending._replace(message=f"{ending.message}; {spent}")
    from synth.privacy.audit.synthetic_rows import ClaimRefuted  # torch: of no use to a refusal

    if isinstance(error, ClaimRefuted):
        return Ending(
            "ClaimRefuted", f"the run's own audit contradicts its claim; publish nothing of this version; {spent}"
        )
    return Ending("Failed", f"{where}: {type(error).__name__}; {BY_HAND}; {spent}")


def spent_in_words(facts: PublicFacts) -> str:
    """What a finished run cost, in a line."""
    privacy = facts.privacy
    return (
        f"ε={format_epsilon(privacy.epsilon)} at δ={privacy.delta:g} spent; "
        f"{facts.run.population} has spent ε={format_epsilon(privacy.population_epsilon)} in all"
    )


def artifact_of(facts: PublicFacts, bundle: str, *, left: str) -> str:
    """A finished run as Markdown: public facts, and where its bundle is."""
    privacy, quality = facts.privacy, facts.quality
    rows = {
        "run": f"`{facts.run.run_id}`",
        "state": "candidate, not approved",
        "ε, δ of this run": f"{format_epsilon(privacy.epsilon)}, {privacy.delta:g}",
        f"ε of {facts.run.population} in all": (
            f"{format_epsilon(privacy.population_epsilon)} at δ={privacy.population_delta:g}, "
            f"{privacy.population_candidates} runs"
        ),
        "left under the cap": left,
        "rows": f"{facts.data.rows:,}, {quality.valid_rows:,} of them valid",
        "mean distance of a column (of noise alone)": (
            f"{quality.mean_one_way_distance:.4f} ({quality.mean_one_way_noise:.4f})"
        ),
        "mean distance of a pair (of noise alone)": _pairs(quality.mean_two_way_distance, quality.mean_two_way_noise),
        "bundle": f"`{bundle}`",
    }
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(
        [
            f"## {_cell(facts.run.name)}",
            "",
            "| fact | value |",
            "|---|---|",
            *lines,
            "",
            "Public facts alone. Next: `synth verify`, then `synth approve` or `synth reject`.",
        ]
    )


def left_in_words(cap: float | None, epsilon: float | None, runs: int | None) -> str:
    """What a population may still spend: ε, and runs like the latest."""
    if cap is None or epsilon is None:
        return "no cap is set"
    return f"ε={format_epsilon(epsilon)} of {format_epsilon(cap)}; room for {runs} more such runs"


def _pairs(distance: float | None, noise: float | None) -> str:
    return "none was measured" if distance is None else f"{distance:.4f} ({noise:.4f})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
