"""Backup and restore: whole or not at all, unchanged, and from any database to any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.errors import SynthError, UserError, VerificationFailed
from synth.files import canonical_json
from synth.privacy.ledger import GENESIS, Ledger
from synth.privacy.ledger_chain import Entry

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def used(tmp_path: Path, reserve: Callable[..., Any]) -> Ledger:
    """A ledger in SQLite with every kind of entry."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'used.db'}")
    ledger.set_cap("patients", 3)
    run = reserve(ledger, "a")
    ledger.spend("a", run.events[0])
    ledger.settle("a")
    reserve(ledger, "b", population="staff")
    ledger.void("b")
    ledger.declare_overlap("patients", "staff")
    reserve(ledger, "c", 0.5, population="staff")
    return ledger


class TestRestore:
    def test_the_same_ledger_elsewhere(self, used: Ledger, ledger_url: str, reserve: Callable[..., Any]) -> None:
        moved = Ledger.open(ledger_url)
        assert moved.restore(used.backup()) == 8
        assert (moved.history(), moved.head()) == (used.history(), used.head())
        assert moved.populations() == used.populations()
        assert moved.backup() == used.backup()
        reserve(moved, "d")  # it goes on from there
        assert moved.verify_chain() == 9

    def test_there_and_back(self, used: Ledger, ledger_url: str, tmp_path: Path) -> None:
        moved = Ledger.open(ledger_url)
        moved.restore(used.backup())
        back = Ledger.open(f"sqlite:///{tmp_path / 'back.db'}")
        back.restore(moved.backup())
        assert back.history() == used.history()

    def test_only_into_an_empty_ledger(self, used: Ledger, ledger_url: str) -> None:
        target = Ledger.open(ledger_url)
        target.set_cap("patients", 1)
        before = target.history()
        with pytest.raises(UserError, match="has entries"):
            target.restore(used.backup())
        assert target.history() == before

    def test_an_empty_ledger_has_a_backup(self, ledger_url: str, tmp_path: Path) -> None:
        empty = Ledger.open(ledger_url)
        assert json.loads(empty.backup())["head"] == GENESIS
        assert Ledger.open(f"sqlite:///{tmp_path / 'other.db'}").restore(empty.backup()) == 0

    def test_a_broken_ledger_is_not_backed_up(self, ledger_url: str, used: Ledger) -> None:
        target = Ledger.open(ledger_url)
        target.restore(used.backup())
        last = target.history()[-1]
        forged = Entry(**(vars(last) | {"seq": 9, "previous": last.hash, "hash": "0" * 64}))
        target._store.append(lambda entries: forged)
        with pytest.raises(VerificationFailed, match="ledger entry 9 "):
            target.backup()


def entry(number: int, **fields: Any) -> Change:
    return lambda value: value["entries"][number].update(fields)


def cut(value: dict[str, Any]) -> None:
    del value["entries"][-1]


def resealed(value: dict[str, Any]) -> None:
    """A cap lifted, and the entry's own hash made to fit again."""
    changed = Entry(**(value["entries"][0] | {"payload": '{"delta":0.00001,"epsilon":100}'})).sealed()
    value["entries"][0] = vars(changed)


TAMPERED = {
    "another payload": (entry(0, payload='{"delta":0.00001,"epsilon":4}'), "changed"),
    "a cap lifted and sealed": (resealed, "entry 2 does not follow"),
    "another population": (entry(1, population="nobody"), "changed"),
    "a missing tail": (cut, "changed"),
    "a missing middle": (lambda value: value["entries"].pop(3), "missing"),
    "two swapped": (lambda value: value["entries"].insert(2, value["entries"].pop(3)), "missing"),
    "another head": (lambda value: value.update(head="0" * 64), "changed"),
    "no head": (lambda value: value.pop("head"), "changed"),
    "one more key": (lambda value: value.update(more=1), "changed"),
    "one more field": (entry(0, more=1), "changed"),
    "a number as text": (entry(0, seq="1"), "changed"),
    "an unknown kind": (entry(0, kind="refund"), "changed"),
    "entries of another shape": (lambda value: value.update(entries=[1]), "changed"),
}


@pytest.mark.parametrize(("change", "why"), TAMPERED.values(), ids=list(TAMPERED))
def test_a_changed_backup_is_refused(used: Ledger, tmp_path: Path, change: Change, why: str) -> None:
    value = json.loads(used.backup())
    change(value)
    target = Ledger.open(f"sqlite:///{tmp_path / 'target.db'}")
    with pytest.raises(VerificationFailed, match=why):
        target.restore(canonical_json(value))
    assert target.history() == ()


def test_every_changed_byte_is_refused(used: Ledger, tmp_path: Path) -> None:
    content = used.backup()
    target = Ledger.open(f"sqlite:///{tmp_path / 'target.db'}")
    for place in range(0, len(content), 7):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        with pytest.raises(SynthError):
            target.restore(changed)
    assert target.history() == ()


def test_other_spellings_of_the_same_json_are_refused(used: Ledger, tmp_path: Path) -> None:
    target = Ledger.open(f"sqlite:///{tmp_path / 'target.db'}")
    with pytest.raises(VerificationFailed):
        target.restore(json.dumps(json.loads(used.backup()), indent=1).encode())


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"entries": 1}', b"[" * 100_000])
def test_what_is_no_backup_is_a_mistake(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="is not a ledger's backup"):
        Ledger.open(f"sqlite:///{tmp_path / 'target.db'}").restore(content)


@pytest.mark.parametrize("newer", [{"layout": 99}, {"format": "dp-synth-ledger/2"}, {"layout": "2"}])
def test_a_newer_backup_is_refused_by_name(used: Ledger, tmp_path: Path, newer: dict[str, Any]) -> None:
    content = canonical_json(json.loads(used.backup()) | newer)
    with pytest.raises(UserError, match="newer software"):
        Ledger.open(f"sqlite:///{tmp_path / 'target.db'}").restore(content)
