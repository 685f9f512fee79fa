"""Seal a draft with its manifest and unsigned attestation, and make it the bundle in one rename."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from synth.files import canonical_json, write_whole
from synth.release.attestation import candidate, claims_of
from synth.release.manifest import ATTESTATION, write_manifest


def seal(bundle: Path) -> None:
    """Write the manifest and the unsigned attestation of a finished draft."""
    write_manifest(bundle)
    write_whole(bundle / ATTESTATION, canonical_json(candidate(bundle, claims_of(bundle)).encoded()))


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
