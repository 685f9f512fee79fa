"""Revocation lists: signed entries, one form, only growing."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.errors import NotApproved, UserError, VerificationFailed
from synth.files import canonical_json
from synth.release import ATTESTATION, MANIFEST, Word, decide, examine, hand_over, read_list, revoke, seal, verify


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return tmp_path / "lists" / "revocations.json"


def test_revoking_says_so_and_changes_no_byte(approved: Path, listed: Path, steward: Any) -> None:
    before = {path: path.read_bytes() for path in approved.rglob("*") if path.is_file()}
    entry = revoke(approved, steward.key, lists=[listed], reason="somebody withdrew")
    assert {path: path.read_bytes() for path in before} == before
    assert read_list(listed) == (entry,)
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    with pytest.raises(VerificationFailed, match=r"intact, and REVOKED on .*: somebody withdrew"):
        verify(approved, revocations=[listed])
    assert examine(approved, revocations=[listed]).state == "revoked"
    assert verify(approved).approved  # who has no list cannot know


def test_an_entry_is_an_in_toto_statement(approved: Path, listed: Path, steward: Any) -> None:
    revoke(approved, steward.key, lists=[listed])
    (entry,) = json.loads(listed.read_bytes())["entries"]
    statement = json.loads(base64.b64decode(entry["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:dp-synth:revocation:v1"
    assert statement["subject"] == [
        {"name": MANIFEST, "digest": {"sha256": examine(approved).manifest}},
    ]
    assert set(statement["predicate"]) == {"public_key", "reason", "run", "state", "time"}


def test_a_revoked_bundle_stays_so(approved: Path, listed: Path, steward: Any, tmp_path: Path) -> None:
    revoke(approved, steward.key, lists=[listed])
    with pytest.raises(NotApproved, match="REVOKED"):
        hand_over(approved, tmp_path / "out", revocations=[listed])
    seal(approved)  # the attestation of a candidate again
    assert examine(approved, revocations=[listed]).state == "revoked"


def test_a_revoked_run_stays_so_under_another_manifest(
    approved: Path, listed: Path, steward: Any, tmp_path: Path, make: Callable[..., Path], values: dict[str, Any]
) -> None:
    """The same rows with another answer about them, and so with a manifest that no list names."""
    revoke(approved, steward.key, lists=[listed])
    values["datasheet.json"]["title"] = "Another title"
    again = make(tmp_path / "again", values)
    assert examine(again).manifest != examine(approved).manifest
    assert examine(again, revocations=[listed]).state == "revoked"
    with pytest.raises(NotApproved, match="REVOKED"):
        decide(again, Word(state="approved", by="Ada"), steward.key, revocations=[listed])
    steward.approves(again)  # who has no list cannot know
    with pytest.raises(NotApproved, match="REVOKED"):
        hand_over(again, tmp_path / "out", revocations=[listed])
    values["privacy.json"]["x_synth"]["run"] = "toy-2"
    assert examine(make(tmp_path / "other", values), revocations=[listed]).state == "candidate"


def test_by_another_key(approved: Path, listed: Path, steward: Any, stranger: Any) -> None:
    """The key that approved may be lost or the reason itself; the words name the one that revoked."""
    revoke(approved, stranger.key, lists=[listed])
    with pytest.raises(VerificationFailed, match=stranger.key.public.key_id):
        verify(approved, keys=[steward.public_file], revocations=[listed])


def test_a_list_only_grows(
    approved: Path, listed: Path, tmp_path: Path, make: Callable[..., Path], values: dict[str, Any], steward: Any
) -> None:
    values["privacy.json"]["x_synth"]["run"] = "toy-2"
    other = make(tmp_path / "other", values)
    steward.approves(other)
    first = revoke(approved, steward.key, lists=[listed])
    assert revoke(approved, steward.key, lists=[listed], reason="again") is not None
    assert read_list(listed) == (first,)  # the same words once
    second = revoke(other, steward.key, lists=[listed, tmp_path / "beside.json"])
    assert read_list(listed) == (first, second)
    assert read_list(tmp_path / "beside.json") == (second,)


def test_only_what_is_approved_can_be_revoked(bundle: Path, listed: Path, steward: Any) -> None:
    with pytest.raises(UserError, match="NOT approved"):
        revoke(bundle, steward.key, lists=[listed])
    steward.rejects(bundle)
    with pytest.raises(UserError, match="rejected by Ada"):
        revoke(bundle, steward.key, lists=[listed])
    assert not listed.exists()


def test_a_reason_is_one_line(approved: Path, listed: Path, steward: Any) -> None:
    with pytest.raises(UserError, match="--reason"):
        revoke(approved, steward.key, lists=[listed], reason="two\nlines")


def _signature(entry: dict[str, Any], sig: str) -> dict[str, Any]:
    return entry | {"signatures": [entry["signatures"][0] | {"sig": sig}]}


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no list": lambda value: [],
    "another format": lambda value: value | {"format": "x"},
    "an unknown key": lambda value: value | {"more": 1},
    "no entries": lambda value: value | {"entries": {}},
    "an entry that is none": lambda value: value | {"entries": [1]},
    "an entry twice": lambda value: value | {"entries": value["entries"] * 2},
    "an unsigned entry": lambda value: value | {"entries": [value["entries"][0] | {"signatures": []}]},
    "a signature of zeros": lambda v: (
        v | {"entries": [_signature(v["entries"][0], base64.b64encode(bytes(64)).decode())]}
    ),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_list(approved: Path, listed: Path, steward: Any, damage: Callable[[Any], Any]) -> None:
    revoke(approved, steward.key, lists=[listed])
    listed.write_bytes(canonical_json(damage(json.loads(listed.read_bytes()))))
    with pytest.raises(VerificationFailed, match=r"revocations\.json"):
        verify(approved, revocations=[listed])
    before = listed.read_bytes()
    with pytest.raises(VerificationFailed):
        revoke(approved, steward.key, lists=[listed])
    assert listed.read_bytes() == before


def test_an_approval_is_no_revocation(approved: Path, listed: Path) -> None:
    entry = json.loads((approved / ATTESTATION).read_bytes())
    listed.parent.mkdir()
    listed.write_bytes(canonical_json({"format": "dp-synth-revocations/1", "entries": [entry]}))
    with pytest.raises(VerificationFailed, match="entry 0"):
        verify(approved, revocations=[listed])


def test_a_list_that_is_not_there(approved: Path, tmp_path: Path, steward: Any) -> None:
    with pytest.raises(UserError, match="No such file"):
        verify(approved, revocations=[tmp_path / "nowhere.json"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not on this list"):
        revoke(approved, steward.key, lists=[tmp_path / "file" / "revocations.json"])
