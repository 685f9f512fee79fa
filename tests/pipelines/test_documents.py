"""`synth document`: other answers for the same candidate, and for nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from datasheets import document as documents_of
from datasheets import load_answers
from pipelines import documents
from synth.errors import NotApproved, VerificationFailed
from synth.facts import PublicFacts
from synth.release import ATTESTATION, Word, decide, examine, new_key, revoke, seal, signing_key
from synth.run_folder import RunFolder


@pytest.fixture
def run(quick_bundle: Path, tmp_path: Path) -> RunFolder:
    """A copy of a finished run."""
    return RunFolder(Path(shutil.copytree(quick_bundle.parent, tmp_path / quick_bundle.parent.name)))


@pytest.fixture
def answers(tmp_path: Path, every_answer: str) -> Path:
    """An answers.yaml without a gap, but for the calls for comments."""
    path = tmp_path / "answers.yaml"
    path.write_text(f"title: The Clinic\n{every_answer}")
    return path


@pytest.fixture
def changed(answers: Path) -> Path:
    """The same with one answer changed."""
    path = answers.with_name("changed.yaml")
    path.write_text(answers.read_text().replace("title: The Clinic", "title: Another Clinic"))
    return path


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, (dict, list)) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def altered(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 + 1
        case str():
            return f"{value}x"
        case _:
            return None if value else ["x"]


def test_no_altered_fact_reaches_a_document(run: RunFolder, answers: Path) -> None:
    """Each leaf of the public facts in turn: it is found out, or says nothing in any document."""
    facts = json.loads(run.public_facts.read_bytes())
    given = load_answers(answers)
    names = [path for path in sorted(run.bundle.rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in names}
    files = documents._digests(run.bundle)
    expected = documents_of(PublicFacts.model_validate(facts), given, files)
    found_out = 0
    for path, value in leaves(facts):
        place = tampered = deepcopy(facts)
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = altered(value)
        run.public_facts.write_text(json.dumps(tampered))
        try:
            read = documents._facts_of(run)
        except VerificationFailed:
            found_out += 1
        else:
            assert documents_of(read, given, files) == expected, path
    assert found_out > 100
    assert {path: path.read_bytes() for path in names} == before


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (("model", "kind"), "other recipe"),
        (("model", "steps"), 1),
        (("data", "classes"), 7),
        (("run", "libraries", "torch"), "0.0"),
    ],
)
def test_altered_facts_are_told(run: RunFolder, answers: Path, synth: Any, place: tuple[str, ...], words: Any) -> None:
    facts = json.loads(run.public_facts.read_bytes())
    inner = facts
    for key in place[:-1]:
        inner = inner[key]
    assert place[-1] in inner
    inner[place[-1]] = words
    run.public_facts.write_text(json.dumps(facts))
    outcome = synth("document", run.bundle, "--answers", answers)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (4, "", 1)
    assert "facts.json: does not give the bundle's documents" in outcome.err


def test_again_and_again(run: RunFolder, answers: Path, changed: Path) -> None:
    """The answers in force are those of the last time."""
    first = documents.document_again(run.bundle, answers)
    once = {path: path.read_bytes() for path in run.bundle.rglob("*") if path.is_file()}
    assert first == documents.document_again(run.bundle, changed) == ()
    documents.document_again(run.bundle, answers)
    assert {path: path.read_bytes() for path in run.bundle.rglob("*") if path.is_file()} == once
    assert run.answers.read_bytes() == answers.read_bytes()


def test_answers_that_the_bundle_was_not_written_with(run: RunFolder, answers: Path, synth: Any) -> None:
    run.answers.write_bytes(answers.read_bytes())
    outcome = synth("document", run.bundle, "--answers", answers)
    assert outcome.code == 4 and "answers.yaml beside it" in outcome.err


@pytest.mark.parametrize("stop", ["seal", "publish", "rename", "rmtree"])
def test_a_kill_at_any_place_leaves_bundle_and_answers_that_fit(
    run: RunFolder, answers: Path, changed: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """What a kill leaves is left: nothing is put back until the next time."""
    documents.document_again(run.bundle, answers)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    put_back = documents._put_back
    with monkeypatch.context() as patch:
        if stop == "rename":
            patch.setattr(Path, "rename", killed)
        elif stop == "rmtree":  # after the exchange, before its end
            real = documents.publish
            patch.setattr(documents, "publish", lambda *a, **k: (real(*a, **k), killed()))
        else:
            patch.setattr(documents, stop, killed)
        steps = iter([put_back])
        patch.setattr(documents, "_put_back", lambda folder: next(steps, lambda _: None)(folder))
        with pytest.raises(KeyboardInterrupt):
            documents.document_again(run.bundle, changed)
    documents.document_again(run.bundle, changed)
    assert examine(run.bundle).state == "candidate"
    assert run.answers.read_bytes() == changed.read_bytes()
    assert {path.name for path in run.path.iterdir()} == {"bundle", "internal"}
    assert not run.next_answers.exists()


def test_nobody_decides_meanwhile(run: RunFolder, answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def sealed(draft: Path) -> None:
        descriptor = os.open(run.bundle, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(draft)
        finally:
            os.close(descriptor)
        seal(draft)

    monkeypatch.setattr(documents, "seal", sealed)
    documents.document_again(run.bundle, answers)
    assert held == [run.draft]


class TestDecided:
    """A decision stays, whatever is put back."""

    @pytest.fixture
    def steward(self, tmp_path: Path) -> Any:
        new_key(tmp_path / "ada.key")
        return signing_key(tmp_path / "ada.key", {})

    @pytest.fixture
    def revoked(self, run: RunFolder, answers: Path, steward: Any, tmp_path: Path) -> Path:
        """The list that names a run, whose bundle got the attestation of a candidate back."""
        documents.document_again(run.bundle, answers)
        undecided = (run.bundle / ATTESTATION).read_bytes()
        decide(run.bundle, Word(state="approved", by="Ada"), steward)
        listed = run.path / "revocations.json"
        revoke(run.bundle, steward, lists=[listed])
        (run.bundle / ATTESTATION).write_bytes(undecided)
        return listed

    def test_revoked(self, run: RunFolder, revoked: Path, changed: Path, synth: Any) -> None:
        before = (run.bundle / "manifest.json").read_bytes()
        outcome = synth("document", run.bundle, "--answers", changed)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (3, "", 1)
        assert "REVOKED" in outcome.err
        assert (run.bundle / "manifest.json").read_bytes() == before

    def test_revoked_and_documented_where_no_list_was(
        self, run: RunFolder, revoked: Path, changed: Path, synth: Any, tmp_path: Path
    ) -> None:
        """A new manifest that no list names is of a revoked run still."""
        documents.document_again(run.bundle, changed)
        assert examine(run.bundle).state == "candidate"
        for command in (
            ("approve", run.bundle, "--by", "Ada", "--key", tmp_path / "ada.key"),
            ("release", run.bundle, tmp_path / "out"),
        ):
            outcome = synth(*command)
            assert outcome.code == 3 and "REVOKED" in outcome.err
        assert synth("verify", run.bundle).code == 4

    def test_rejected(self, run: RunFolder, changed: Path, steward: Any) -> None:
        decide(run.bundle, Word(state="rejected", by="Ada"), steward)
        with pytest.raises(NotApproved, match="rejected by Ada"):
            documents.document_again(run.bundle, changed)


def test_a_folder_that_is_no_runs_loses_nothing(run: RunFolder, answers: Path, synth: Any, tmp_path: Path) -> None:
    """A copy elsewhere has neighbours with names that a run would clear."""
    copy = tmp_path / "mine" / "bundle"
    shutil.copytree(run.bundle, copy)
    (copy.parent / "private").mkdir()
    (copy.parent / "private" / "letter.txt").write_text("dear")
    outcome = synth("document", copy, "--answers", answers)
    assert outcome.code == 2 and "the facts of its run are not beside it" in outcome.err
    assert (copy.parent / "private" / "letter.txt").read_text() == "dear"
