"""Revocation lists: signed words that a bundle, and whatever else was made of its run, must no longer be used.

A list is one canonical JSON file of DSSE envelopes, one a revocation, in the order they were added. It only grows. Each
entry is signed by itself, so a list can be merged, mirrored and published by anyone. What a list cannot show is that an
entry was left out: get it from the publisher, and get it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synth.errors import UserError, VerificationFailed
from synth.files import PRIVATE_FOLDER, canonical_json, locked, write_whole
from synth.release.attestation import Moment, OneLine, Signed, payload, read_statement, signer_of
from synth.release.dsse import Envelope, decoded, signed, to_base64
from synth.release.keys import SigningKey
from synth.release.manifest import canonical_object

LIST_FILE = "revocations.json"
LIST_FORMAT = "dp-synth-revocations/1"
REVOCATION_TYPE = "urn:dp-synth:revocation:v1"


class _Predicate(Signed):
    run: str
    state: Literal["revoked"]
    time: Moment
    reason: OneLine | None
    public_key: str


@dataclass(frozen=True)
class Revocation:
    """One entry: which manifest, and who took it back when and why."""

    manifest: str
    run: str
    time: str
    reason: str | None
    key_id: str
    envelope: Envelope


def revocation(manifest: str, *, run: str, key: SigningKey, time: str, reason: str | None = None) -> Revocation:
    """A signed entry about the manifest with that SHA-256. Raises ValidationError for a reason of several lines."""
    said = _Predicate(run=run, state="revoked", time=time, reason=reason, public_key=to_base64(key.public.der))
    return _read(signed(payload(manifest, said.model_dump(mode="json"), REVOCATION_TYPE), key), "the revocation")


def read_list(path: Path) -> tuple[Revocation, ...]:
    """Every entry of a list, each with a valid signature. Raises VerificationFailed for any other file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a revocation list") from None
    value = canonical_object(content, {"format", "entries"}, str(path))
    if value["format"] != LIST_FORMAT or not isinstance(value["entries"], list):
        raise VerificationFailed(f"{path}: is not a revocation list of format {LIST_FORMAT}")
    entries = tuple(
        _read(decoded(entry, name=f"{path}: entry {i}"), f"{path}: entry {i}")
        for i, entry in enumerate(value["entries"])
    )
    if len({(entry.manifest, entry.key_id) for entry in entries}) != len(entries):
        raise VerificationFailed(f"{path}: holds an entry twice")
    return entries


def add_to_list(path: Path, entry: Revocation) -> None:
    """Append an entry, making the list if there is none; nothing happens when that key has revoked it there already."""
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        with locked(path.parent):
            entries = read_list(path) if path.exists() else ()
            if any((one.manifest, one.key_id) == (entry.manifest, entry.key_id) for one in entries):
                return
            envelopes = [one.envelope.encoded() for one in (*entries, entry)]
            write_whole(path, canonical_json({"format": LIST_FORMAT, "entries": envelopes}))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); the bundle is not on this list") from None


def revoked(manifest: str, run: str, lists: Sequence[Path]) -> Revocation | None:
    """The first entry about that manifest or run on any of the lists, each of which has to be there and whole.

    What is taken back are a run's rows and model: they stay so under another manifest, with other answers about them.
    """
    entries = (entry for path in lists for entry in read_list(path))
    return next((entry for entry in entries if manifest == entry.manifest or run == entry.run), None)


def _read(envelope: Envelope, name: str) -> Revocation:
    manifest, said = read_statement(envelope, _Predicate, REVOCATION_TYPE, name=name)
    key = signer_of(envelope, said.public_key, name=name)
    return Revocation(manifest, said.run, said.time, said.reason, key.key_id, envelope)
