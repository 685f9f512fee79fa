"""Seal and verify: the bundle's manifest and attestation, and the check that anyone can repeat.

The manifest lists the SHA-256 of every file except itself and the attestation. The attestation is an in-toto
statement in a DSSE envelope whose subject is the manifest. Before approval it carries no signature and `verify`
derives it again from the bundle: that proves that the files belong together, not who made them.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from synth.errors import UserError, VerificationFailed
from synth.files import canonical_json, sha256_file, write_whole
from synth.privacy.ledger import Ledger

MANIFEST = "manifest.json"
ATTESTATION = "attestation.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:dp-synth:release:v1"
MANIFEST_FORMAT = "dp-synth-manifest/1"
REQUIRED = (
    "croissant.json",
    "datasheet.html",
    "datasheet.json",
    "datasheet.md",
    "dictionary.md",
    "model/config.json",
    "model/generator.safetensors",
    "privacy.json",
    "quality.html",
    "quality.json",
    "schema.yaml",
)


@dataclass(frozen=True)
class Verified:
    """What a verification found.

    Attributes:
        run_id: the run that made the bundle.
        epsilon: the bundle's stated ε; delta: its stated δ.
        files: number of listed files, all intact.
        approved: whether a valid signature was demanded and found.
        ledger_checked: whether the bundle's ledger entry was looked up and found.
    """

    run_id: str
    epsilon: float
    delta: float
    files: int
    approved: bool
    ledger_checked: bool

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "intact": True}


def seal(bundle: Path) -> None:
    """Write the manifest and the unsigned attestation of a finished draft."""
    files = {name: sha256_file(bundle / name) for name in _files_of(bundle) if name not in {MANIFEST, ATTESTATION}}
    write_whole(bundle / MANIFEST, canonical_json({"format": MANIFEST_FORMAT, "files": files}))
    write_whole(bundle / ATTESTATION, canonical_json(_unsigned(bundle)))


def publish(draft: Path, bundle: Path, *, created: str) -> None:
    """Make the sealed draft the bundle, whole or not at all.

    Every file gets the run's published moment as its time: the times of writing would tell how long the private rows
    took to read, and travel along in archives.
    """
    moment = datetime.fromisoformat(created).timestamp()
    for path in [*draft.rglob("*"), draft]:
        os.utime(path, (moment, moment))
    draft.replace(bundle)
    descriptor = os.open(bundle.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(bundle: Path, *, public_key: Path | None = None, ledger: Ledger | None = None) -> Verified:
    """Check that a bundle is intact. Raises VerificationFailed, or UserError when there is no bundle at all.

    Args:
        bundle: the bundle's folder.
        public_key: demand a valid signature by this key; an unsigned candidate then fails.
        ledger: also look up the entry that the bundle says it was charged under.
    """
    if not bundle.is_dir():
        raise UserError(f"{bundle}: no such folder; name a bundle folder (the last line that `synth run` printed)")
    if not (bundle / MANIFEST).is_file():
        raise VerificationFailed(f"{bundle}: has no {MANIFEST}; this is not a finished bundle")
    manifest = _canonical(bundle / MANIFEST, {"format", "files"})
    listed = manifest["files"]
    if manifest["format"] != MANIFEST_FORMAT or not isinstance(listed, dict):
        raise VerificationFailed(f"{MANIFEST}: not of format {MANIFEST_FORMAT}")
    missing = [name for name in REQUIRED if name not in listed]
    if missing or not any(name.startswith("data/part-") for name in listed):
        raise VerificationFailed(f"{MANIFEST}: does not list {', '.join(missing) or 'any data file'}")
    present = set(_files_of(bundle)) - {MANIFEST, ATTESTATION}
    for name in sorted(present | set(listed)):
        if name not in listed:
            raise VerificationFailed(f"{name}: is in the bundle and not in the manifest")
        if name not in present:
            raise VerificationFailed(f"{name}: is in the manifest and not in the bundle")
        if sha256_file(bundle / name) != listed[name]:
            raise VerificationFailed(f"{name}: has been changed since the bundle was sealed")
    statement = _check_attestation(bundle)
    claims = statement["predicate"]
    if public_key is not None:
        raise VerificationFailed(f"{bundle}: is an unsigned candidate, and a signature by {public_key} was demanded")
    if ledger is not None and not ledger.settled_at(
        claims["ledger_head"], population=claims["population"], run_id=claims["run"]
    ):
        raise VerificationFailed(
            "ledger: does not hold the entry this bundle was charged under; it is another ledger, or one that was "
            "rolled back"
        )
    return Verified(
        run_id=claims["run"],
        epsilon=claims["epsilon"],
        delta=claims["delta"],
        files=len(listed),
        approved=False,
        ledger_checked=ledger is not None,
    )


def _check_attestation(bundle: Path) -> dict[str, Any]:
    if not (bundle / ATTESTATION).is_file():
        raise VerificationFailed(f"{bundle}: has no {ATTESTATION}")
    envelope = _canonical(bundle / ATTESTATION, {"payload", "payloadType", "signatures"})
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise VerificationFailed(f"{ATTESTATION}: payload is not an in-toto statement")
    if envelope["signatures"] != []:
        raise VerificationFailed(f"{ATTESTATION}: carries a signature, which this version cannot check")
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise VerificationFailed(f"{ATTESTATION}: payload is not base64") from None
    expected = _unsigned(bundle)
    if envelope != expected:
        raise VerificationFailed(f"{ATTESTATION}: does not belong to this manifest and privacy statement")
    statement: dict[str, Any] = json.loads(payload)
    return statement


def _unsigned(bundle: Path) -> dict[str, Any]:
    """The unsigned envelope that follows from the bundle's other files."""
    try:
        claims = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
        predicate = {
            "run": claims["run"],
            "state": "candidate",
            "population": claims["population"]["name"],
            "epsilon": claims["epsilon"],
            "delta": claims["delta"],
            "ledger_head": claims["ledger_head"],
        }
        if not all(isinstance(v, float | int if k in {"epsilon", "delta"} else str) for k, v in predicate.items()):
            raise TypeError("privacy.json")
        canonical_json(predicate)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise VerificationFailed("privacy.json: is not a privacy statement of this software") from None
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": MANIFEST, "digest": {"sha256": sha256_file(bundle / MANIFEST)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    payload = base64.b64encode(canonical_json(statement)).decode()
    return {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": []}


def _canonical(path: Path, keys: set[str]) -> dict[str, Any]:
    """A JSON object in canonical bytes with exactly these keys."""
    content = path.read_bytes()
    try:
        value = json.loads(content)
        same = canonical_json(value) == content
    except (ValueError, RecursionError):
        same, value = False, None
    if not same or not isinstance(value, dict):
        raise VerificationFailed(f"{path.name}: is not canonical JSON")
    if set(value) != keys:
        raise VerificationFailed(f"{path.name}: has unknown or missing keys")
    return value


def _files_of(bundle: Path) -> list[str]:
    """Names of all files below the bundle; links and other oddities are refused."""
    names = []
    for path in sorted(bundle.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise VerificationFailed(f"{path.relative_to(bundle).as_posix()}: is neither a file nor a folder")
        if path.is_file():
            names.append(path.relative_to(bundle).as_posix())
    return names
