"""Verify: whether a bundle is intact, what was decided about it, and by whom. Offline, without torch or Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from synth.errors import VerificationFailed
from synth.privacy.ledger import Ledger
from synth.release.attestation import (
    PREDICATE_TYPE,
    Claims,
    Decision,
    candidate,
    claims_of,
    manifest_digest,
    read_statement,
    signer_of,
)
from synth.release.credentials import check_credentials
from synth.release.dsse import decoded
from synth.release.keys import public_keys
from synth.release.manifest import ATTESTATION, canonical_object, check_files
from synth.release.revocation import Revocation, revoked

State = Literal["candidate", "approved", "rejected", "revoked"]


@dataclass(frozen=True)
class Verified:
    """What a verification found in a bundle whose files are intact.

    Attributes:
        run_id: the run that made the bundle.
        epsilon: the bundle's stated ε; delta: its stated δ.
        files: number of listed files, all intact.
        credentials: number of pictures with valid content credentials (C2PA); None where the extra that
            reads them is not installed.
        state: what has become of the candidate.
        by: who decided, in the words of the signer; None for a candidate.
        key_id: fingerprint of the key that signed the decision (of a revoked bundle, the revocation).
        time: when that was; reason: why, where it was said.
        origin_checked: whether that key is one of the public keys that were given.
        ledger_checked: whether the bundle's ledger entry was looked up and found.
        manifest: SHA-256 of the manifest: what a decision is about.
    """

    run_id: str
    epsilon: float
    delta: float
    files: int
    credentials: int | None
    state: State
    by: str | None
    key_id: str | None
    time: str | None
    reason: str | None
    origin_checked: bool
    ledger_checked: bool
    manifest: str

    @property
    def approved(self) -> bool:
        """Whether it may be handed out."""
        return self.state == "approved"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "approved": self.approved, "intact": True}


def verify(
    bundle: Path,
    *,
    keys: Sequence[Path] = (),
    ledger: Ledger | None = None,
    revocations: Sequence[Path] = (),
) -> Verified:
    """Check that a bundle is intact, and neither rejected nor revoked. Raises VerificationFailed, or UserError.

    Args:
        bundle: the bundle's folder.
        keys: files of public keys: demand a valid signature by one of them; an unsigned candidate then fails.
        ledger: also look up the entry that the bundle says it was charged under.
        revocations: revocation lists to look the bundle up in.
    """
    found = examine(bundle, keys=keys, ledger=ledger, revocations=revocations)
    if found.state in {"rejected", "revoked"}:
        raise VerificationFailed(f"{bundle}: intact, and {in_words(found)}")
    return found


def examine(
    bundle: Path,
    *,
    keys: Sequence[Path] = (),
    ledger: Ledger | None = None,
    revocations: Sequence[Path] = (),
) -> Verified:
    """The same, but a rejected or revoked bundle is an answer and not an error."""
    files = check_files(bundle)
    credentials = check_credentials(bundle)
    claims = claims_of(bundle)
    manifest = manifest_digest(bundle)
    decision, key_id = _attested(bundle, manifest, claims)
    if keys:
        if decision is None:
            named = ", ".join(str(path) for path in keys)
            raise VerificationFailed(f"{bundle}: is an unsigned candidate, and a signature by {named} was demanded")
        demand_key(bundle, key_id, keys)
    taken_back = revoked(manifest, claims.run, revocations)
    if ledger is not None and not ledger.settled_at(
        claims.ledger_head, population=claims.population, run_id=claims.run
    ):
        empty = "" if ledger.verify_chain() else " (it has no entry at all)"
        raise VerificationFailed(
            f"ledger {ledger.place}: does not hold the entry this bundle was charged under{empty}; it is another "
            "ledger, or one that was rolled back"
        )
    state, said = _state(decision, taken_back)
    return Verified(
        run_id=claims.run,
        epsilon=claims.epsilon,
        delta=claims.delta,
        files=files,
        credentials=credentials,
        state=state,
        by=decision.by if decision else None,
        key_id=taken_back.key_id if taken_back else key_id,
        time=said.time if said else None,
        reason=said.reason if said else None,
        origin_checked=bool(keys),
        ledger_checked=ledger is not None,
        manifest=manifest,
    )


def in_words(found: Verified) -> str:
    """The state of an intact bundle, for a sentence."""
    key = f"key {found.key_id}"
    why = f": {found.reason}" if found.reason else ""
    match found.state:
        case "candidate":
            return "NOT approved"
        case "revoked":
            return f"REVOKED on {found.time} ({key}){why}"
        case decided:
            return f"{decided} by {found.by} on {found.time} ({key}){why}"


def demand_key(bundle: Path, key_id: str | None, keys: Sequence[Path]) -> None:
    """Raises VerificationFailed unless the key that signed is one of those in these files of public keys."""
    if key_id not in {key.key_id for key in public_keys(keys)}:
        named = ", ".join(str(path) for path in keys)
        raise VerificationFailed(f"{bundle}: is signed by key {key_id}, which is not in {named}")


def _state(decision: Decision | None, taken_back: Revocation | None) -> tuple[State, Decision | Revocation | None]:
    # A bundle whose attestation was put back to a candidate's stays revoked.
    if taken_back is not None:
        return "revoked", taken_back
    return (decision.state, decision) if decision is not None else ("candidate", None)


def _attested(bundle: Path, manifest: str, claims: Claims) -> tuple[Decision | None, str | None]:
    """The decision in the attestation and the id of the key that signed it; None and None for a candidate."""
    if not (bundle / ATTESTATION).is_file():
        raise VerificationFailed(f"{bundle}: has no {ATTESTATION}")
    content = (bundle / ATTESTATION).read_bytes()
    envelope = decoded(
        canonical_object(content, {"payload", "payloadType", "signatures"}, ATTESTATION), name=ATTESTATION
    )
    if not envelope.signatures:
        if envelope != candidate(bundle, claims):
            raise VerificationFailed(f"{ATTESTATION}: does not belong to this manifest and privacy statement")
        return None, None
    about, decision = read_statement(envelope, Decision, PREDICATE_TYPE, name=ATTESTATION)
    signer = signer_of(envelope, decision.public_key, name=ATTESTATION)
    if about != manifest:
        raise VerificationFailed(f"{ATTESTATION}: is about another manifest: what was decided is not about this bundle")
    decision.refuse_unless(claims)
    return decision, signer.key_id
