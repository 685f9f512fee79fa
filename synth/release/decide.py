"""Approve or reject a candidate, and revoke what was approved: signed by the steward, bound to the manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from synth.errors import NotApproved, UserError, VerificationFailed
from synth.files import canonical_json, locked, write_whole
from synth.release.attestation import PREDICATE_TYPE, Candidates, Decision, claims_of, payload, unprotected
from synth.release.dsse import signed, to_base64
from synth.release.keys import SigningKey
from synth.release.manifest import ATTESTATION, listed_files
from synth.release.revocation import Revocation, add_to_list, revocation
from synth.release.verify import Verified, examine, in_words

COMMENTS = ".comments"
"""Every section of a datasheet ends in "Any other comments?". Silence answers it; older datasheets list it as a gap."""


@dataclass(frozen=True)
class Word:
    """A steward's decision about a candidate, in their own words.

    Attributes:
        state: approved or rejected.
        by: who decides.
        public_scores_only: declares that the decision used public scores only.
        reason: why, when they say so.
        candidates: charged runs of the population by now, from its ledger; None where the ledger is not at hand.
    """

    state: Literal["approved", "rejected"]
    by: str
    public_scores_only: bool = False
    reason: str | None = None
    candidates: int | None = None


def decide(
    bundle: Path,
    word: Word,
    key: SigningKey,
    *,
    now: datetime | None = None,
    revocations: Sequence[Path] = (),
) -> Verified:
    """Sign the decision about an intact, undecided bundle into its attestation; returns what it then is.

    Raises UserError when it was decided before, or lacks answers that an approval needs; NotApproved when it was
    rejected or revoked; VerificationFailed when it is not intact.
    """
    listed_files(bundle)  # there has to be a bundle before it can be held
    with locked(bundle):
        found = examine(bundle, revocations=revocations)
        if found.state in {"rejected", "revoked"}:
            raise NotApproved(f"{bundle}: {in_words(found)}; it stays so, make a new run")
        if found.state == "approved":
            remedy = "" if word.state == "approved" else "; `synth revoke` takes an approval back"
            raise UserError(f"{bundle}: is {in_words(found)} already{remedy}")
        if word.state == "approved":
            refuse_open_questions(bundle)
        decision = _decision(bundle, word, key, now).model_dump(mode="json")
        envelope = signed(payload(found.manifest, decision, PREDICATE_TYPE), key)
        write_whole(bundle / ATTESTATION, canonical_json(envelope.encoded()))
        return examine(bundle, revocations=revocations)


def revoke(
    bundle: Path, key: SigningKey, *, lists: Sequence[Path], reason: str | None = None, now: datetime | None = None
) -> Revocation:
    """Sign that an approved bundle must no longer be used, and put that on every list. Its bytes stay as they are.

    Any key may sign: the one that approved may be lost, or be the reason. Whoever verifies sees which it was.
    """
    found = examine(bundle)
    if not found.approved:
        raise UserError(f"{bundle}: is {in_words(found)}, so there is no approval to revoke; `synth reject` rejects it")
    try:
        entry = revocation(found.manifest, run=found.run_id, key=key, time=_moment(now), reason=reason)
    except ValidationError as error:
        raise _misuse(error) from None
    for path in lists:
        add_to_list(path, entry)
    return entry


def open_questions(bundle: Path) -> tuple[str, ...]:
    """Ids of the datasheet's questions that the steward has not answered, without the calls for comments."""
    return tuple(gap for gap in _listed(bundle, "gaps") if not gap.endswith(COMMENTS))


def answered_for_section(bundle: Path) -> tuple[str, ...]:
    """Ids of the questions whose answer was given for their whole section. They count as answered."""
    return _listed(bundle, "answered_for_section")


def _listed(bundle: Path, key: str) -> tuple[str, ...]:
    """Ids in a list of the bundle's datasheet; older datasheets have gaps alone."""
    try:
        sheet = json.loads((bundle / "datasheet.json").read_bytes())
        return tuple(str(entry) for entry in (sheet["gaps"] if key == "gaps" else sheet.get(key, [])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise VerificationFailed(f"{bundle}: datasheet.json is not a datasheet of this software") from None


def refuse_open_questions(bundle: Path) -> None:
    """Raises UserError listing the questions that an approval still needs an answer to."""
    if missing := open_questions(bundle):
        raise UserError(
            f"{bundle}: {len(missing)} questions of its datasheet have no answer: {', '.join(missing)}; answer them in "
            "answers.yaml (`Not applicable.` is one; SECTION.others answers what needs none of its own), then run "
            "`synth document BUNDLE --answers answers.yaml`, which costs no budget"
        )


def _decision(bundle: Path, word: Word, key: SigningKey, now: datetime | None) -> Decision:
    claims = claims_of(bundle)
    basis: Literal["public scores only", "not declared"]
    basis = "public scores only" if word.public_scores_only else "not declared"
    candidates = Candidates(
        count=claims.candidates if word.candidates is None else word.candidates,
        counted="at the run" if word.candidates is None else "at the decision",
    )
    try:
        decision = Decision(
            state=word.state,
            by=word.by,
            time=_moment(now),
            basis=basis,
            not_covered=unprotected(basis),
            reason=word.reason,
            public_key=to_base64(key.public.der),
            candidates=candidates,
            **claims.model_dump(exclude={"candidates"}),
        )
    except ValidationError as error:
        raise _misuse(error) from None
    decision.refuse_unless(claims)
    return decision


def _misuse(error: ValidationError) -> UserError:
    names = sorted({f"--{part}" for item in error.errors() for part in item["loc"]})
    return UserError(f"{', '.join(names)}: should be one line of 1 to 1000 printable characters")


def _moment(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
