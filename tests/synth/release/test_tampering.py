"""What can be done to an approved bundle, and that verify finds it."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from synth.errors import UserError, VerificationFailed
from synth.files import canonical_json
from synth.release import ATTESTATION, MANIFEST, REQUIRED, seal, verify
from synth.release.dsse import PAYLOAD_TYPE, Envelope, Signature, pae, signed

POSITIONS = 1000
Change = Callable[[dict[str, Any]], Any]


def envelope_of(bundle: Path) -> Any:
    return json.loads((bundle / ATTESTATION).read_bytes())


def put(bundle: Path, envelope: Any) -> None:
    (bundle / ATTESTATION).write_bytes(canonical_json(envelope))


def statement_of(bundle: Path) -> Any:
    return json.loads(base64.b64decode(envelope_of(bundle)["payload"]))


def test_a_flipped_bit_anywhere(approved: Path) -> None:
    """1,000 of the positions of all files, a bit of each: every one is found."""
    rng = random.Random(1)
    places = [
        (path, place) for path in sorted(approved.rglob("*")) if path.is_file() for place in range(path.stat().st_size)
    ]
    assert {path.relative_to(approved).as_posix() for path, _ in places} > {ATTESTATION, MANIFEST, *REQUIRED}
    chosen = rng.sample(places, POSITIONS)
    assert {path.name for path, _ in chosen} == {path.name for path, _ in places}
    for path, place in chosen:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(VerificationFailed):
            verify(approved)
        path.write_bytes(whole)
    assert verify(approved).approved


def test_files_deleted_added_and_swapped(approved: Path) -> None:
    files = [path for path in sorted(approved.rglob("*")) if path.is_file()]
    for one, other in pairwise(files):
        contents = one.read_bytes(), other.read_bytes()
        one.unlink()
        with pytest.raises(VerificationFailed):
            verify(approved)
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
        with pytest.raises(VerificationFailed):
            verify(approved)
        one.write_bytes(contents[0])
        other.write_bytes(contents[1])
        extra = one.with_name(f"{one.name}.bak")
        extra.write_bytes(contents[0])
        with pytest.raises(VerificationFailed, match="in the bundle and not in the manifest"):
            verify(approved)
        extra.unlink()
    assert verify(approved).approved


def test_an_old_approval_on_a_changed_bundle(approved: Path, steward: Any) -> None:
    old = (approved / ATTESTATION).read_bytes()
    (approved / "data" / "part-00000.parquet").write_text("other rows")
    seal(approved)
    assert verify(approved).state == "candidate"
    (approved / ATTESTATION).write_bytes(old)
    with pytest.raises(VerificationFailed, match="about another manifest"):
        verify(approved, keys=[steward.public_file])


def test_an_approval_of_another_run(
    approved: Path, tmp_path: Path, make: Callable[..., Path], values: dict[str, Any], steward: Any
) -> None:
    values["privacy.json"]["x_synth"]["run"] = "toy-2"
    other = make(tmp_path / "other", values)
    shutil.copy(approved / ATTESTATION, other / ATTESTATION)
    with pytest.raises(VerificationFailed, match="about another manifest"):
        verify(other)


class TestKeys:
    def test_demanded(self, approved: Path, steward: Any, stranger: Any, tmp_path: Path) -> None:
        assert not verify(approved).origin_checked
        assert verify(approved, keys=[steward.public_file]).origin_checked
        assert verify(approved, keys=[stranger.public_file, steward.public_file]).origin_checked
        with pytest.raises(VerificationFailed, match="is signed by key"):
            verify(approved, keys=[stranger.public_file])
        with pytest.raises(UserError, match="No such file"):
            verify(approved, keys=[tmp_path / "nowhere.pub"])

    def test_rotated(self, approved: Path, tmp_path: Path, steward: Any, stranger: Any) -> None:
        both = tmp_path / "team.pub"
        both.write_bytes(stranger.public_file.read_bytes() + steward.public_file.read_bytes())
        assert verify(approved, keys=[both]).key_id == steward.key.public.key_id

    def test_an_approval_by_somebody_else(self, approved: Path, steward: Any, stranger: Any) -> None:
        """Who signs in the steward's name is told apart by the key alone."""
        seal(approved)
        stranger.name = "Ada"
        stranger.approves(approved)
        assert verify(approved).by == "Ada"
        with pytest.raises(VerificationFailed, match="is signed by key"):
            verify(approved, keys=[steward.public_file])

    def test_swapped(self, approved: Path, steward: Any, stranger: Any) -> None:
        payload = base64.b64decode(envelope_of(approved)["payload"])
        mine, theirs = steward.key.public.key_id, stranger.key.public.key_id
        sig = steward.key.sign(pae(PAYLOAD_TYPE, payload))
        foreign = stranger.key.sign(pae(PAYLOAD_TYPE, payload))
        swapped = {
            "fingerprint": Envelope(payload, (Signature(theirs, sig),)),
            "signature": Envelope(payload, (Signature(mine, foreign),)),
            "both": Envelope(payload, (Signature(theirs, foreign),)),
            "upper case": Envelope(payload, (Signature(mine.upper(), sig),)),
            "no key id": Envelope(payload, (Signature("", sig),)),
            "no signature": Envelope(payload, (Signature(mine, b""),)),
            "two": Envelope(payload, (Signature(mine, sig), Signature(theirs, foreign))),
            "twice": Envelope(payload, (Signature(mine, sig), Signature(mine, sig))),
            "signed without its type": Envelope(payload, (Signature(mine, steward.key.sign(payload)),)),
            "unsigned": Envelope(payload),
        }
        for name, envelope in swapped.items():
            put(approved, envelope.encoded())
            for keys in ([], [steward.public_file], [stranger.public_file]):
                with pytest.raises(VerificationFailed):
                    verify(approved, keys=keys)
                    pytest.fail(name)
        put(approved, Envelope(payload, (Signature(mine, sig),)).encoded())
        assert verify(approved).approved


def _set(*keys: str, to: Any) -> Change:
    def change(statement: dict[str, Any]) -> None:
        inner = statement
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return change


def _drop(key: str) -> Change:
    return lambda statement: statement["predicate"].pop(key)


SIGNED_BUT_WRONG: dict[str, Change] = {
    "a better epsilon": _set("predicate", "epsilon", to=0.1),
    "a better delta": _set("predicate", "delta", to=1e-9),
    "a better epsilon of the population": _set("predicate", "population_epsilon", to=0.1),
    "another run": _set("predicate", "run", to="toy-2"),
    "another population": _set("predicate", "population", to="others"),
    "another ledger entry": _set("predicate", "ledger_head", to="0" * 64),
    "fewer candidates": _set("predicate", "candidates", to={"count": 0, "counted": "at the decision"}),
    "more candidates at the run": _set("predicate", "candidates", to={"count": 2, "counted": "at the run"}),
    "nothing unprotected, without a declaration": _set("predicate", "not_covered", to=[]),
    "a state of its own": _set("predicate", "state", to="released"),
    "a candidate, signed": _set("predicate", "state", to="candidate"),
    "an unknown key": _set("predicate", "more", to=1),
    "an unknown key beside": _set("more", to=1),
    "a missing key": _drop("by"),
    "a missing reason": _drop("reason"),
    "a number as text": _set("predicate", "epsilon", to="0.5"),
    "a truth as a number": _set("predicate", "delta", to=True),
    "a time that is none": _set("predicate", "time", to="2025-02-30T00:00:00Z"),
    "a time elsewhere": _set("predicate", "time", to="2025-03-01T12:00:00+01:00"),
    "a time in another spelling": _set("predicate", "time", to="2025-3-01T12:00:00Z"),
    "a name that rewrites the terminal": _set("predicate", "by", to="\x1b[2JAda"),
    "a key that is none": _set("predicate", "public_key", to="QQ=="),
    "a key in loose base64": lambda s: _set("predicate", "public_key", to=s["predicate"]["public_key"] + "\n")(s),
    "another statement type": _set("_type", to="https://in-toto.io/Statement/v0.1"),
    "another predicate type": _set("predicateType", to="urn:dp-synth:revocation:v1"),
    "another subject": _set("subject", to=[{"name": "data", "digest": {"sha256": "0" * 64}}]),
    "no subject": _set("subject", to=[]),
    "two subjects": lambda s: s["subject"].append(s["subject"][0]),
    "another digest": lambda s: s["subject"][0].update(digest={"md5": "0"}),
    "a digest more": lambda s: s["subject"][0]["digest"].update(sha1="0"),
    "a predicate that is a list": _set("predicate", to=[]),
}


@pytest.mark.parametrize("change", SIGNED_BUT_WRONG.values(), ids=SIGNED_BUT_WRONG)
def test_even_a_signed_statement_has_to_be_right(approved: Path, steward: Any, change: Change) -> None:
    statement = statement_of(approved)
    put(approved, signed(canonical_json(statement), steward.key).encoded())
    assert verify(approved).approved
    change(statement)
    put(approved, signed(canonical_json(statement), steward.key).encoded())
    with pytest.raises(VerificationFailed, match=ATTESTATION):
        verify(approved, keys=[steward.public_file])


def test_a_signed_payload_has_one_encoding(approved: Path, steward: Any) -> None:
    statement = statement_of(approved)
    twice = canonical_json(statement)[:-1] + b',"_type":"https://in-toto.io/Statement/v1"}'
    for payload in (json.dumps(statement).encode(), twice, canonical_json(statement) + b"\n", b"\xff", b"[" * 100_000):
        put(approved, signed(payload, steward.key).encoded())
        with pytest.raises(VerificationFailed, match="not canonical JSON"):
            verify(approved)


def test_links(approved: Path, tmp_path: Path) -> None:
    for name in ("datasheet.md", ATTESTATION, MANIFEST):
        whole = tmp_path / "elsewhere"
        (approved / name).rename(whole)
        (approved / name).symlink_to(whole)
        with pytest.raises(VerificationFailed):
            verify(approved)
        (approved / name).unlink()
        whole.rename(approved / name)
    assert verify(approved).approved
