"""The attestation: an in-toto statement about the manifest, unsigned for a candidate, signed once somebody decided.

in-toto Statement v1 (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) in a DSSE envelope. Its
subject is the manifest by SHA-256, so a decision about one bundle says nothing of any other: not of a changed one,
nor of one with other answers in its datasheet. What it says of ε and δ has to be what privacy.json says.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from synth.errors import VerificationFailed
from synth.files import canonical_json, sha256_file
from synth.release.dsse import Envelope, from_base64
from synth.release.keys import PublicKey
from synth.release.manifest import ATTESTATION, MANIFEST, canonical_object

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:dp-synth:release:v1"
DECISION_UNPROTECTED = "The decision to release"
"""What stays unprotected unless whoever decided declares that it used public scores only."""


def _one_line(text: str) -> str:
    # Shown on terminals: no line breaks, escape sequences or characters that turn the direction of writing.
    if not text.isprintable() or text != text.strip():
        raise ValueError("should be one line of printable text")
    return text


def _moment(text: str) -> str:
    if datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") != text:
        raise ValueError("should be a time in UTC")
    return text


OneLine = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]
Moment = Annotated[str, AfterValidator(_moment)]


class Signed(BaseModel):
    """Base of everything read from a statement: frozen, no unknown keys, no value turned into another kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Claims(Signed):
    """What privacy.json says of a bundle. Each number is part of what is signed."""

    run: str
    population: str
    epsilon: float
    delta: float
    population_epsilon: float
    population_delta: float
    ledger_head: str
    candidates: int  # charged runs of the population when this run settled, this one included


class Candidates(Signed):
    """How many candidates (charged runs) the population had had, and when they were counted."""

    count: int
    counted: Literal["at the run", "at the decision"]


class Decision(Signed):
    """What somebody decided about a bundle. `public_key` is the DER of the key that signs it, in base64."""

    run: str
    state: Literal["approved", "rejected"]
    by: OneLine
    time: Moment
    population: str
    epsilon: float
    delta: float
    population_epsilon: float
    population_delta: float
    ledger_head: str
    candidates: Candidates
    basis: Literal["public scores only", "not declared"]
    not_covered: tuple[str, ...]
    reason: OneLine | None
    public_key: str

    def refuse_unless(self, claims: Claims) -> None:
        """Raises VerificationFailed unless the decision is about these claims."""
        said = self.model_dump(include=set(Claims.model_fields) - {"candidates"})
        meant = claims.model_dump(exclude={"candidates"})
        least, counted = claims.candidates, self.candidates
        fits = counted.count >= least if counted.counted == "at the decision" else counted.count == least
        if said != meant or not fits:
            raise VerificationFailed(f"{ATTESTATION}: does not belong to this manifest and privacy statement")
        if self.not_covered != unprotected(self.basis):
            raise VerificationFailed(f"{ATTESTATION}: what it leaves unprotected does not follow from its basis")


T = TypeVar("T", bound=Signed)


def unprotected(basis: Literal["public scores only", "not declared"]) -> tuple[str, ...]:
    """What the decision itself leaves unprotected."""
    return () if basis == "public scores only" else (DECISION_UNPROTECTED,)


def claims_of(bundle: Path) -> Claims:
    """The claims in privacy.json. Raises VerificationFailed when it is not a statement of this software."""
    try:
        stated = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
        population = stated["population"]
        return Claims(
            run=stated["run"],
            population=population["name"],
            epsilon=stated["epsilon"],
            delta=stated["delta"],
            population_epsilon=population["epsilon"],
            population_delta=population["delta"],
            ledger_head=stated["ledger_head"],
            candidates=population["candidates"],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise VerificationFailed("privacy.json: is not a privacy statement of this software") from None


def candidate(bundle: Path, claims: Claims) -> Envelope:
    """The unsigned envelope that follows from the bundle's other files."""
    said = claims.model_dump(include={"run", "population", "epsilon", "delta", "ledger_head"})
    return Envelope(payload(manifest_digest(bundle), {**said, "state": "candidate"}, PREDICATE_TYPE))


def payload(digest: str, predicate: dict[str, Any], predicate_type: str) -> bytes:
    """An in-toto statement about the manifest with that SHA-256, as canonical JSON."""
    return canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": MANIFEST, "digest": {"sha256": digest}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def read_statement(envelope: Envelope, kind: type[T], predicate_type: str, *, name: str) -> tuple[str, T]:
    """The manifest's SHA-256 and the predicate of a signed statement. Raises VerificationFailed; `name` says whose."""
    statement = canonical_object(
        envelope.payload, {"_type", "subject", "predicateType", "predicate"}, f"{name}: payload"
    )
    try:
        # Validated as JSON, where a list may stand for a tuple.
        predicate = kind.model_validate_json(json.dumps(statement["predicate"]))
        digest = statement["subject"][0]["digest"]["sha256"]
        same = payload(digest, predicate.model_dump(mode="json"), predicate_type) == envelope.payload
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "predicate"
        raise VerificationFailed(f"{name}: {where} is not what a statement of this software holds") from None
    except (KeyError, IndexError, TypeError, ValueError):
        same = False
    if not same or not isinstance(digest, str):
        raise VerificationFailed(f"{name}: is not an in-toto statement of type {predicate_type} about one manifest")
    return digest, predicate


def signer_of(envelope: Envelope, public_key: str, *, name: str) -> PublicKey:
    """The key named in a statement, once it is shown to have signed it. Raises VerificationFailed.

    That proves that nobody changed the statement after the key's holder signed it, not who the holder is.
    """
    try:
        key = PublicKey.from_der(from_base64(public_key, what=f"{name}: public key"))
    except ValueError:
        raise VerificationFailed(f"{name}: public key is not an ed25519 key") from None
    if len(envelope.signatures) != 1:
        raise VerificationFailed(f"{name}: carries {len(envelope.signatures)} signatures instead of one")
    if envelope.signatures[0].key_id != key.key_id:
        raise VerificationFailed(f"{name}: its key id is not the fingerprint of the key that it names")
    if not envelope.signed_by(key):
        raise VerificationFailed(f"{name}: the signature does not fit: the statement or the signature has been changed")
    return key


def manifest_digest(bundle: Path) -> str:
    """SHA-256 of the manifest."""
    return sha256_file(bundle / MANIFEST)
