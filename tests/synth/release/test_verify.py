"""Seal and verify: a bundle is intact, or the first thing wrong with it is named."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from synth.errors import UserError, VerificationFailed
from synth.files import canonical_json
from synth.privacy.ledger import Ledger
from synth.release import ATTESTATION, MANIFEST, REQUIRED, publish, seal, verify

Tamper = Callable[[Path], object]


def rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_bytes())
    path.write_bytes(canonical_json(change(value) or value))


def resealed(bundle: Path, change: Callable[[Any], Any]) -> None:
    rewritten(bundle / MANIFEST, change)
    (bundle / ATTESTATION).unlink()
    manifest = (bundle / MANIFEST).read_bytes()
    seal(bundle)
    (bundle / MANIFEST).write_bytes(manifest)


def payload_of(bundle: Path) -> Any:
    return json.loads(base64.b64decode(json.loads((bundle / ATTESTATION).read_bytes())["payload"]))


class TestIntact:
    def test_a_sealed_bundle(self, charged: Path, ledger: Ledger) -> None:
        found = verify(charged, ledger=ledger)
        assert found.as_dict() == {
            "run_id": "toy-1",
            "epsilon": 0.5,
            "delta": 1e-5,
            "files": len(REQUIRED) + 1,
            "credentials": 0,
            "state": "candidate",
            "by": None,
            "key_id": None,
            "time": None,
            "reason": None,
            "approved": False,
            "origin_checked": False,
            "ledger_checked": True,
            "manifest": _hash(charged / MANIFEST),
            "intact": True,
        }
        assert not verify(charged).ledger_checked

    def test_the_attestation_binds_the_manifest(self, bundle: Path) -> None:
        statement = payload_of(bundle)
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["subject"][0]["name"] == MANIFEST
        assert statement["predicate"]["state"] == "candidate"
        assert statement["predicate"]["epsilon"] == 0.5

    def test_the_manifest_lists_every_other_file(self, bundle: Path) -> None:
        listed = set(json.loads((bundle / MANIFEST).read_bytes())["files"])
        present = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
        assert present - listed == {MANIFEST, ATTESTATION}

    def test_sealing_again_changes_nothing(self, bundle: Path) -> None:
        before = [(bundle / name).read_bytes() for name in (MANIFEST, ATTESTATION)]
        seal(bundle)
        assert [(bundle / name).read_bytes() for name in (MANIFEST, ATTESTATION)] == before

    def test_publishing_is_one_rename(self, bundle: Path, tmp_path: Path) -> None:
        publish(bundle, tmp_path / "published", created="2025-01-31T10:15:00Z")
        times = {path.stat().st_mtime for path in [tmp_path / "published", *(tmp_path / "published").rglob("*")]}
        assert times == {datetime(2025, 1, 31, 10, 15, tzinfo=UTC).timestamp()}  # when it was written says nothing
        assert not bundle.exists()
        assert verify(tmp_path / "published").files == len(REQUIRED) + 1


def flip(bundle: Path) -> None:
    path = bundle / "data" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def replace_by_link(bundle: Path) -> None:
    path = bundle / "data" / "part-00000.parquet"
    path.rename(bundle.parent / "elsewhere")
    path.symlink_to(bundle.parent / "elsewhere")


def pad_payload(envelope: dict[str, Any]) -> None:
    statement = json.loads(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


def better_epsilon(envelope: dict[str, Any]) -> None:
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["epsilon"] = 0.1
    envelope["payload"] = base64.b64encode(canonical_json(statement)).decode()


def drop(name: str) -> Tamper:
    return lambda bundle: (bundle / name).unlink()


def envelope(change: Callable[[Any], Any]) -> Tamper:
    return lambda bundle: rewritten(bundle / ATTESTATION, change)


def manifest(change: Callable[[Any], Any]) -> Tamper:
    return lambda bundle: resealed(bundle, change)


def statement(**changes: Any) -> Tamper:
    """A privacy statement that says something else, in a bundle that is consistent otherwise."""

    def tamper(bundle: Path) -> None:
        changed = json.loads((bundle / "privacy.json").read_bytes())
        changed["x_synth"].update(changes)
        (bundle / "privacy.json").write_text(json.dumps(changed))
        rewritten(bundle / MANIFEST, lambda m: m["files"].update({"privacy.json": _hash(bundle / "privacy.json")}))

    return tamper


def _hash(path: Path) -> str:
    from synth.files import sha256_file

    return sha256_file(path)


TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    "a changed byte": (flip, "data/part-00000.parquet: has been changed"),
    "a changed document": (lambda b: (b / "datasheet.md").write_text("x"), "datasheet.md: has been changed"),
    "an extra file": (lambda b: (b / "extra.txt").write_text("x"), "extra.txt: is in the bundle and not"),
    "a hidden extra file": (lambda b: (b / "data" / ".x").write_text("x"), "data/.x: is in the bundle and not"),
    "a missing file": (drop("quality.html"), "quality.html: is in the manifest and not"),
    "a link instead of a file": (replace_by_link, "part-00000.parquet: is neither a file nor a folder"),
    "a link to a folder": (lambda b: (b / "more").symlink_to("/"), "more: is neither a file nor a folder"),
    "a pipe": (lambda b: os.mkfifo(b / "pipe"), "pipe: is neither a file nor a folder"),
    "an empty folder": (lambda b: (b / "Eve was here").mkdir(), "Eve was here: is an empty folder"),
    "no manifest": (drop(MANIFEST), "has no manifest.json"),
    "no attestation": (drop(ATTESTATION), "has no attestation.json"),
    "a manifest that is not canonical": (
        lambda b: (b / MANIFEST).write_text(json.dumps(json.loads((b / MANIFEST).read_text()), indent=1)),
        "manifest.json: is not canonical",
    ),
    "a manifest with a key twice": (
        lambda b: (b / MANIFEST).write_text((b / MANIFEST).read_text()[:-1] + ',"format":"x"}'),
        "manifest.json: is not canonical",
    ),
    "a manifest that is no JSON": (lambda b: (b / MANIFEST).write_bytes(b"\xff{"), "manifest.json: is not canonical"),
    "a manifest that is a list": (lambda b: (b / MANIFEST).write_text("[]"), "manifest.json: is not canonical"),
    "a manifest without end": (lambda b: (b / MANIFEST).write_text("[" * 100_000), "manifest.json: is not canonical"),
    "an unknown key in the manifest": (manifest(lambda m: {**m, "more": 1}), "manifest.json: has unknown or missing"),
    "a missing key in the manifest": (manifest(lambda m: {"format": m["format"]}), "manifest.json: has unknown or"),
    "another format": (manifest(lambda m: {**m, "format": "x"}), "manifest.json: not of format"),
    "files that are no mapping": (manifest(lambda m: {**m, "files": []}), "manifest.json: not of format"),
    "a required file that is not listed": (
        manifest(lambda m: m["files"].pop("privacy.json") and None),
        "manifest.json: does not list privacy.json",
    ),
    "no data that is listed": (
        manifest(lambda m: m["files"].pop("data/part-00000.parquet") and None),
        "manifest.json: does not list any data file",
    ),
    "a file outside of the bundle": (
        manifest(lambda m: m["files"].update({"../ledger.db": "0"})),
        "../ledger.db: is in the manifest and not in the bundle",
    ),
    "an attestation that is not canonical": (
        lambda b: (b / ATTESTATION).write_text((b / ATTESTATION).read_text() + "\n"),
        "attestation.json: is not canonical",
    ),
    "an unknown key in the attestation": (envelope(lambda e: {**e, "by": "me"}), "attestation.json: has unknown or"),
    "another payload type": (envelope(lambda e: {**e, "payloadType": "text"}), "is not an in-toto statement"),
    "a signature that is none": (
        envelope(lambda e: {**e, "signatures": [{"sig": "x"}]}),
        "a signature: has unknown or",
    ),
    "signatures that are no list": (envelope(lambda e: {**e, "signatures": {}}), "signatures are not a list"),
    "an empty signature": (
        envelope(lambda e: {**e, "signatures": [{"keyid": "", "sig": ""}]}),
        "is not what a statement of this software holds",
    ),
    "bad base64": (envelope(lambda e: {**e, "payload": "***"}), "payload is not base64"),
    "base64 with a line break": (envelope(lambda e: {**e, "payload": e["payload"] + "\n"}), "is not base64"),
    "a payload that is no text": (envelope(lambda e: {**e, "payload": 3}), "is not base64"),
    "a payload of other bytes": (envelope(pad_payload), "does not belong to this manifest"),
    "a better epsilon in the attestation": (envelope(better_epsilon), "does not belong to this manifest"),
    "a better epsilon in the statement": (statement(epsilon=0.1), "does not belong to this manifest"),
    "no epsilon": (statement(epsilon=None), "privacy.json: is not a privacy statement"),
    "an epsilon that is no number": (statement(epsilon=float("nan")), "privacy.json: is not a privacy statement"),
    "a population that is no name": (statement(population=3), "privacy.json: is not a privacy statement"),
}


class TestTampering:
    @pytest.mark.parametrize(("tamper", "words"), TAMPERINGS.values(), ids=TAMPERINGS)
    def test_is_found(self, bundle: Path, tamper: Tamper, words: str) -> None:
        tamper(bundle)
        with pytest.raises(VerificationFailed) as caught:
            verify(bundle)
        assert words in str(caught.value)
        assert caught.value.exit_code == 4

    @pytest.mark.parametrize("name", [*REQUIRED, "data/part-00000.parquet"])
    def test_of_any_file(self, bundle: Path, name: str) -> None:
        path = bundle / name
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(VerificationFailed, match=name):
            verify(bundle)


class TestDemands:
    def test_a_signature_that_a_candidate_does_not_have(self, bundle: Path, tmp_path: Path) -> None:
        with pytest.raises(VerificationFailed, match="unsigned candidate") as caught:
            verify(bundle, keys=[tmp_path / "steward.pub"])
        assert caught.value.exit_code == 4

    def test_a_ledger_that_holds_the_entry(self, bundle: Path, tmp_path: Path, event: Any) -> None:
        other = Ledger.open(f"sqlite:///{tmp_path / 'other.db'}")
        other.reserve(population="people", dataset="toy", run_id="toy-2", events=[event], delta=1e-5)
        with pytest.raises(VerificationFailed, match="another ledger, or one that was rolled back"):
            verify(bundle, ledger=other)

    def test_a_bundle(self, tmp_path: Path, bundle: Path) -> None:
        for path in (tmp_path / "nothing", bundle / MANIFEST):
            with pytest.raises(UserError, match="no such folder"):
                verify(path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(VerificationFailed, match="not a finished bundle"):
            verify(tmp_path / "empty")
