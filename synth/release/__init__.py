"""From a finished draft to what is handed out, and back: seal, verify, approve or reject, hand over, revoke, compare.

    draft ─ seal → candidate ─ approve → approved ─ hand over → released     ─ revoke → revoked
                            └─ reject  → rejected

The manifest lists the SHA-256 of every file but itself and the attestation. The attestation is an in-toto statement
about the manifest in a DSSE envelope: unsigned for a candidate, where `verify` derives it again from the bundle, and
signed with ed25519 by whoever decided. A released bundle is a copy of the approved one, byte by byte.
"""

from __future__ import annotations

from synth.release.compare import compare
from synth.release.decide import Word, answered_for_section, decide, open_questions, revoke
from synth.release.handover import hand_over
from synth.release.keys import KEY_VARIABLE, PublicKey, SigningKey, new_key, public_keys, signing_key
from synth.release.manifest import ATTESTATION, MANIFEST, REQUIRED
from synth.release.revocation import LIST_FILE, Revocation, read_list
from synth.release.seal import publish, seal
from synth.release.verify import Verified, examine, in_words, verify

__all__ = [
    "ATTESTATION",
    "KEY_VARIABLE",
    "LIST_FILE",
    "MANIFEST",
    "REQUIRED",
    "PublicKey",
    "Revocation",
    "SigningKey",
    "Verified",
    "Word",
    "answered_for_section",
    "compare",
    "decide",
    "examine",
    "hand_over",
    "in_words",
    "new_key",
    "open_questions",
    "public_keys",
    "publish",
    "read_list",
    "revoke",
    "seal",
    "signing_key",
    "verify",
]
