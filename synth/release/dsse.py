"""Dead Simple Signing Envelope (DSSE 1.0): a payload, its type, and signatures over both.

What is signed is the pre-authentication encoding (PAE) of type and payload, so neither can be read as the other.
An envelope here has one encoding: canonical JSON, canonical base64, no unknown keys. Anything else is refused.
https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from synth.errors import VerificationFailed
from synth.release.keys import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Signature:
    """`key_id` says which key made `sig`; it is a hint until the key has been compared to it."""

    key_id: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """An in-toto payload and its signatures, none for a candidate."""

    payload: bytes
    signatures: tuple[Signature, ...] = ()

    def encoded(self) -> dict[str, Any]:
        """The envelope as JSON values."""
        return {
            "payload": to_base64(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": one.key_id, "sig": to_base64(one.sig)} for one in self.signatures],
        }

    def signed_by(self, key: PublicKey) -> bool:
        """Whether the envelope carries exactly one signature, by this key and under its fingerprint."""
        if len(self.signatures) != 1 or self.signatures[0].key_id != key.key_id:
            return False
        return key.verifies(self.signatures[0].sig, pae(PAYLOAD_TYPE, self.payload))


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: `DSSEv1 LEN(type) type LEN(payload) payload`, lengths in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def signed(payload: bytes, key: SigningKey) -> Envelope:
    """The payload in an envelope with one signature."""
    signature = Signature(key_id=key.public.key_id, sig=key.sign(pae(PAYLOAD_TYPE, payload)))
    return Envelope(payload, (signature,))


def decoded(value: Any, *, name: str) -> Envelope:
    """The envelope that JSON values stand for. Raises VerificationFailed; `name` says whose they are."""
    fields = _object(value, {"payload", "payloadType", "signatures"}, name)
    if fields["payloadType"] != PAYLOAD_TYPE:
        raise VerificationFailed(f"{name}: payload is not an in-toto statement")
    payload = from_base64(fields["payload"], what=f"{name}: payload")
    if not isinstance(fields["signatures"], list):
        raise VerificationFailed(f"{name}: signatures are not a list")
    signatures = []
    for one in fields["signatures"]:
        signature = _object(one, {"keyid", "sig"}, f"{name}: a signature")
        if not isinstance(signature["keyid"], str):
            raise VerificationFailed(f"{name}: a key id is not text")
        sig = from_base64(signature["sig"], what=f"{name}: a signature")
        signatures.append(Signature(key_id=signature["keyid"], sig=sig))
    return Envelope(payload, tuple(signatures))


def to_base64(content: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(content).decode("ascii")


def from_base64(text: Any, *, what: str) -> bytes:
    """The bytes of the one base64 text that stands for them; stray bits, breaks and other alphabets are refused."""
    try:
        content = base64.b64decode(text, validate=True)
        same = to_base64(content) == text
    except (binascii.Error, TypeError, ValueError):
        same = False
    if not same:
        raise VerificationFailed(f"{what} is not base64 in its canonical form")
    return content


def _object(value: Any, keys: set[str], name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise VerificationFailed(f"{name}: has unknown or missing keys")
    return value
