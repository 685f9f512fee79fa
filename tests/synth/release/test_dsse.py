"""DSSE envelopes: what is signed, and that each has one encoding."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import VerificationFailed
from synth.release import SigningKey, new_key, signing_key
from synth.release.dsse import PAYLOAD_TYPE, Envelope, Signature, decoded, from_base64, pae, signed, to_base64

ENVELOPES = st.builds(
    Envelope,
    st.binary(max_size=40),
    st.lists(st.builds(Signature, st.text(max_size=8), st.binary(max_size=8)), max_size=3).map(tuple),
)

# RFC 4648, sections 3.5 and 4: whole groups, then padding over bits that are zero
CANONICAL = re.compile(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    folder = tmp_path_factory.mktemp("keys")
    new_key(folder / "k")
    return signing_key(folder / "k", {})


def test_the_vector_of_the_specification() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md, "Test Vectors"
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_are_of_bytes() -> None:
    assert pae("ε", b"") == b"DSSEv1 2 \xce\xb5 0 "


def parsed(encoded: bytes) -> tuple[str, bytes]:
    """The inverse of PAE, written from the specification."""
    version, length, rest = encoded.split(b" ", 2)
    assert version == b"DSSEv1"
    kind, rest = rest[: int(length)], rest[int(length) + 1 :]
    length, body = rest.split(b" ", 1)
    assert len(body) == int(length)
    return kind.decode(), body


@given(st.text(max_size=20), st.binary(max_size=40))
def test_pae_can_be_read_in_one_way_only(kind: str, body: bytes) -> None:
    assert parsed(pae(kind, body)) == (kind, body)


@given(ENVELOPES)
def test_an_envelope_comes_back(envelope: Envelope) -> None:
    assert decoded(envelope.encoded(), name="it") == envelope


@given(st.text(alphabet="AQgw=+/-_ \n", max_size=9) | st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode()))
def test_bytes_have_one_base64(text: str) -> None:
    if CANONICAL.fullmatch(text):
        assert to_base64(from_base64(text, what="it")) == text
    else:
        with pytest.raises(VerificationFailed):
            from_base64(text, what="it")


@pytest.mark.parametrize(
    "text", ["QQ", "QR==", "QQ==\n", " QQ==", "QQ=", "Q-==", "QQ==QQ==", "Q\u00e9==", None, 3, ["QQ=="]]
)
def test_loose_base64_is_refused(text: Any) -> None:
    with pytest.raises(VerificationFailed, match="canonical"):
        from_base64(text, what="it")
    assert from_base64("QQ==", what="it") == b"A"


@given(payload=st.binary(max_size=60), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_signature_covers_every_bit(key: SigningKey, payload: bytes, place: int, bit: int) -> None:
    envelope = signed(payload, key)
    assert envelope.signed_by(key.public)
    sig = bytearray(envelope.signatures[0].sig)
    sig[place % len(sig)] ^= 1 << bit
    assert not Envelope(payload, (Signature(key.public.key_id, bytes(sig)),)).signed_by(key.public)
    changed = bytearray(payload or b"\0")
    changed[place % len(changed)] ^= 1 << bit
    assert not Envelope(bytes(changed), envelope.signatures).signed_by(key.public)


def test_what_a_signature_is_worth(key: SigningKey) -> None:
    envelope = signed(b"{}", key)
    one = envelope.signatures[0]
    assert one.sig == key.sign(b"DSSEv1 28 application/vnd.in-toto+json 2 {}")
    assert not Envelope(b"{}").signed_by(key.public)
    assert not Envelope(b"{}", (one, one)).signed_by(key.public)
    assert not Envelope(b"{}", (Signature(one.key_id.upper(), one.sig),)).signed_by(key.public)
    assert not Envelope(b"{}", (Signature(one.key_id, key.sign(b"{}")),)).signed_by(key.public)  # without PAE


GOOD: dict[str, Any] = {"payload": "e30=", "payloadType": PAYLOAD_TYPE, "signatures": []}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        GOOD | {"more": 1},
        {key: value for key, value in GOOD.items() if key != "signatures"},
        GOOD | {"payloadType": "application/json"},
        GOOD | {"signatures": {}},
        GOOD | {"signatures": [1]},
        GOOD | {"signatures": [{"sig": "QQ=="}]},
        GOOD | {"signatures": [{"keyid": "k", "sig": "QQ==", "cert": "x"}]},
        GOOD | {"signatures": [{"keyid": 3, "sig": "QQ=="}]},
        GOOD | {"signatures": [{"keyid": "k", "sig": "QR=="}]},
    ],
)
def test_other_shapes_are_refused(value: Any) -> None:
    assert decoded(GOOD, name="it") == Envelope(b"{}")
    with pytest.raises(VerificationFailed, match=r"^it"):
        decoded(value, name="it")
