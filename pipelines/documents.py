"""The document stage: public facts and the steward's answers in, the bundle's documents out; and once more, later.

A run keeps its public facts beside the bundle, so that a candidate can get new answers without a new run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from datasheets import DOCUMENTS, Answers, FileDigest, load_answers
from datasheets import document as documents_of
from synth.durations import timed
from synth.errors import NotApproved, SynthError, UserError, VerificationFailed
from synth.facts import PublicFacts
from synth.files import locked, sha256_file, write_whole
from synth.privacy.boundary import guarded_stage
from synth.release import ATTESTATION, MANIFEST, examine, in_words, open_questions, publish, seal
from synth.release.manifest import listed_files
from synth.run_folder import RunFolder, hold
from synth.schema import public_yaml


@guarded_stage
@timed
def document(folder: RunFolder) -> None:
    """Write schema.yaml and every document into the draft of the bundle, and keep the facts they are written from."""
    from synth import stages  # torch: of no use to who documents again

    facts = stages.public_facts(folder)
    write_whole(folder.public_facts, facts.model_dump_json())
    write_whole(folder.draft / "schema.yaml", public_yaml(folder.run().published))
    _write(folder.draft, facts, load_answers(folder.answers))


def document_again(bundle: Path, answers_file: Path, *, revocations: Sequence[Path] = ()) -> tuple[str, ...]:
    """Write a candidate's documents again with other answers, and seal it again; returns what is still unanswered.

    No private row is opened and no budget is spent: rows, model, scores and statement stay as they are. The bundle is
    exchanged as a whole. Raises UserError for a bundle that is approved or is not in its run's folder, NotApproved for
    one that was rejected, or revoked by one of these lists, and VerificationFailed for one that is not intact.
    """
    folder = RunFolder(bundle.resolve().parent)
    if folder.bundle != bundle.resolve() or not folder.public_facts.is_file():
        listed_files(bundle)  # what is no bundle at all is told first
        raise UserError(
            f"{bundle}: the facts of its run are not beside it; name the bundle in the folder that `synth run` made"
        )
    with hold(folder):
        _put_back(folder)
        listed_files(bundle)
        with locked(bundle):  # nobody decides about it meanwhile
            _exchange(folder, bundle, answers_file, revocations)
    return open_questions(bundle)


def _exchange(folder: RunFolder, bundle: Path, answers_file: Path, revocations: Sequence[Path]) -> None:
    found = examine(bundle, revocations=revocations)
    if found.state in {"rejected", "revoked"}:
        raise NotApproved(f"{bundle}: {in_words(found)}; it stays so, make a new run")
    if found.state != "candidate":
        raise UserError(f"{bundle}: is {in_words(found)}; only a candidate can be documented again")
    if not answers_file.is_file():
        raise UserError(f"{answers_file}: no such file; name the answers.yaml that you have filled in")
    answers, content = load_answers(answers_file), answers_file.read_bytes()
    facts = _facts_of(folder)
    shutil.rmtree(folder.draft, ignore_errors=True)  # left by a process that was killed
    shutil.copytree(bundle, folder.draft)
    _write(folder.draft, facts, answers)
    seal(folder.draft)
    write_whole(folder.next_answers, content)
    try:
        folder.bundle.rename(folder.replaced)
        publish(folder.draft, folder.bundle, created=facts.run.created)
    finally:
        _put_back(folder)


def _put_back(folder: RunFolder) -> None:
    """End an exchange, also one that was killed: the new bundle stays, with its answers, if it is there, else the old.

    The bundle before goes last: while it is there, the exchange has not ended.
    """
    if folder.replaced.is_dir():
        if folder.bundle.exists():
            if folder.next_answers.exists():
                folder.next_answers.replace(folder.answers)
            shutil.rmtree(folder.replaced)
        else:
            folder.replaced.rename(folder.bundle)
    folder.next_answers.unlink(missing_ok=True)


def _facts_of(folder: RunFolder) -> PublicFacts:
    """The run's public facts, once they are shown to be those that the bundle was written from.

    They are when they give every document of the bundle, byte by byte, with the answers in force.
    """
    try:
        facts = PublicFacts.model_validate_json(folder.public_facts.read_bytes())
    except ValueError:
        raise VerificationFailed(f"{folder.public_facts}: does not hold public facts of this version") from None
    answers = load_answers(folder.answers)
    there = {name: folder.bundle / name for name in DOCUMENTS if (folder.bundle / name).is_file()}
    try:
        again = documents_of(facts, answers, _digests(folder.bundle))
    except (SynthError, ValueError, LookupError, TypeError, ArithmeticError):  # no facts that a run has
        again = {}
    if {name: path.read_bytes() for name, path in there.items()} != again:
        raise VerificationFailed(
            f"{folder.public_facts}: does not give the bundle's documents with the {folder.answers.name} beside it; "
            f"one of them was changed, or the run was made with another version than {facts.run.software}"
        )
    return facts


def _write(draft: Path, facts: PublicFacts, answers: Answers) -> None:
    for name, content in documents_of(facts, answers, _digests(draft)).items():
        write_whole(draft / name, content)


def _digests(draft: Path) -> dict[str, FileDigest]:
    """Digests of all files but the documents themselves and the seal."""
    written = {*DOCUMENTS, MANIFEST, ATTESTATION}
    files = {path.relative_to(draft).as_posix(): path for path in sorted(draft.rglob("*")) if path.is_file()}
    return {
        name: FileDigest(sha256=sha256_file(path), bytes=path.stat().st_size)
        for name, path in files.items()
        if name not in written
    }
