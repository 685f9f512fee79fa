"""Approve and reject: signed, about these bytes, once."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.errors import NotApproved, UserError, VerificationFailed
from synth.files import sha256_file
from synth.release import ATTESTATION, MANIFEST, Word, decide, examine, open_questions, seal, verify
from synth.release.dsse import pae


def envelope_of(bundle: Path) -> Any:
    return json.loads((bundle / ATTESTATION).read_bytes())


def statement_of(bundle: Path) -> Any:
    return json.loads(base64.b64decode(envelope_of(bundle)["payload"]))


def test_an_approval_is_an_in_toto_statement(bundle: Path, steward: Any) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file() and path.name != ATTESTATION}
    found = steward.approves(bundle, reason="good enough", candidates=4)
    assert statement_of(bundle) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": MANIFEST, "digest": {"sha256": sha256_file(bundle / MANIFEST)}}],
        "predicateType": "urn:dp-synth:release:v1",
        "predicate": {
            "state": "approved",
            "by": "Ada",
            "time": "2025-03-01T12:00:00Z",
            "reason": "good enough",
            "run": "toy-1",
            "population": "people",
            "epsilon": 0.5,
            "delta": 1e-5,
            "population_epsilon": 0.5,
            "population_delta": 1e-5,
            "ledger_head": json.loads((bundle / "privacy.json").read_bytes())["x_synth"]["ledger_head"],
            "candidates": {"count": 4, "counted": "at the decision"},
            "basis": "not declared",
            "not_covered": ["The decision to release"],
            "public_key": base64.b64encode(steward.key.public.der).decode(),
        },
    }
    assert (found.state, found.by, found.key_id, found.reason) == (
        "approved",
        "Ada",
        steward.key.public.key_id,
        "good enough",
    )
    assert {path: path.read_bytes() for path in before} == before


def test_the_signature_is_checked_by_the_specification_alone(approved: Path, steward: Any) -> None:
    envelope = envelope_of(approved)
    (one,) = envelope["signatures"]
    message = pae("application/vnd.in-toto+json", base64.b64decode(envelope["payload"]))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert steward.key.public.verifies(base64.b64decode(one["sig"]), message)
    assert set(one) == {"keyid", "sig"}


def test_a_decision_by_public_scores_leaves_nothing_unprotected(bundle: Path, steward: Any) -> None:
    steward.approves(bundle, public_scores_only=True)
    predicate = statement_of(bundle)["predicate"]
    assert (predicate["basis"], predicate["not_covered"]) == ("public scores only", [])
    assert predicate["candidates"] == {"count": 1, "counted": "at the run"}


def test_a_rejection_is_for_good(bundle: Path, steward: Any, stranger: Any) -> None:
    assert steward.rejects(bundle, reason="too blurred").state == "rejected"
    with pytest.raises(VerificationFailed, match=r"intact, and rejected by Ada .*: too blurred"):
        verify(bundle)
    for again in (steward.approves, steward.rejects, stranger.approves):
        with pytest.raises(NotApproved, match="rejected by Ada"):
            again(bundle)
    assert examine(bundle).state == "rejected"


def test_one_decision_a_bundle(approved: Path, steward: Any, stranger: Any) -> None:
    before = (approved / ATTESTATION).read_bytes()
    with pytest.raises(UserError, match=r"approved by Ada .* already"):
        stranger.approves(approved)
    with pytest.raises(UserError, match="synth revoke"):
        steward.rejects(approved)
    assert (approved / ATTESTATION).read_bytes() == before


def test_open_questions_stop_an_approval_and_no_rejection(
    tmp_path: Path, make: Callable[..., Path], values: dict[str, Any], steward: Any
) -> None:
    values["datasheet.json"]["gaps"] = ["motivation.funding", "uses.comments", "distribution.licence"]
    bundle = make(tmp_path / "gaps", values)
    assert open_questions(bundle) == ("motivation.funding", "distribution.licence")  # comments may stay open
    with pytest.raises(UserError, match=r"2 questions .*: motivation.funding, distribution.licence; .*synth document"):
        steward.approves(bundle)
    assert examine(bundle).state == "candidate"
    assert steward.rejects(bundle).state == "rejected"


@pytest.mark.parametrize("sheet", [b"{}", b"no json", b'{"gaps":3}'])
def test_a_datasheet_that_is_none(bundle: Path, steward: Any, sheet: bytes) -> None:
    (bundle / "datasheet.json").write_bytes(sheet)
    seal(bundle)
    with pytest.raises(VerificationFailed, match="not a datasheet"):
        steward.approves(bundle)


def test_a_damaged_bundle_is_not_decided_about(bundle: Path, steward: Any) -> None:
    (bundle / "datasheet.md").write_text("better")
    before = (bundle / ATTESTATION).read_bytes()
    for decision in (steward.approves, steward.rejects):
        with pytest.raises(VerificationFailed, match=r"datasheet\.md"):
            decision(bundle)
    assert (bundle / ATTESTATION).read_bytes() == before
    with pytest.raises(UserError, match="no such folder"):
        steward.approves(bundle / "nowhere")


@pytest.mark.parametrize("words", ["", " ", "Ada ", "Ada\nroot", "\x1b[31mAda", "\u202eadA", "A" * 1001])
def test_a_name_is_one_line_for_a_terminal(bundle: Path, steward: Any, words: str) -> None:
    with pytest.raises(UserError, match="--by: should be one line"):
        decide(bundle, Word(state="approved", by=words), steward.key)
    with pytest.raises(UserError, match="--reason"):
        steward.approves(bundle, reason=words)
    assert examine(bundle).state == "candidate"


def test_fewer_candidates_than_the_bundle_says_are_a_contradiction(bundle: Path, steward: Any) -> None:
    with pytest.raises(VerificationFailed, match="does not belong"):
        steward.approves(bundle, candidates=0)
    assert examine(bundle).state == "candidate"
