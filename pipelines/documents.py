"""The document stage: public facts and the steward's answers in, the bundle's documents out; and once more, later.

A run keeps its public facts beside the bundle, so that a candidate can get new answers without a new run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from datasheets import DOCUMENTS, Answers, FileDigest, load_answers
from datasheets import document as documents_of
from synth.errors import UserError, VerificationFailed
from synth.facts import PublicFacts
from synth.files import sha256_file, write_whole
from synth.privacy.boundary import guarded_stage
from synth.release import ATTESTATION, MANIFEST, examine, in_words, open_questions, publish, seal
from synth.run_folder import RunFolder, hold
from synth.schema import public_yaml

FROM_FACTS_ALONE = ("dictionary.md", "quality.html", "quality.json")
"""Documents that no answer changes: they show whether facts belong to a bundle."""


@guarded_stage
def document(folder: RunFolder) -> None:
    """Write schema.yaml and every document into the draft of the bundle, and keep the facts they are written from."""
    from synth import stages  # torch: of no use to who documents again

    facts = stages.public_facts(folder)
    write_whole(folder.public_facts, facts.model_dump_json())
    write_whole(folder.draft / "schema.yaml", public_yaml(folder.run().declared))
    _write(folder.draft, facts, load_answers(folder.answers))


def document_again(bundle: Path, answers_file: Path) -> tuple[str, ...]:
    """Write a candidate's documents again with other answers, and seal it again; returns what is still unanswered.

    No private row is opened and no budget is spent: rows, model, scores and statement stay as they are. The bundle is
    exchanged as a whole. Raises UserError for a bundle that was decided about, or is not in its run's folder.
    """
    folder = RunFolder(bundle.resolve().parent)
    _put_back(folder)
    found = examine(bundle)
    if found.state != "candidate":
        raise UserError(f"{bundle}: is {in_words(found)}; only a candidate can be documented again")
    if folder.bundle != bundle.resolve() or not folder.public_facts.is_file():
        raise UserError(
            f"{bundle}: the facts of its run are not beside it; name the bundle in the folder that `synth run` made"
        )
    if not answers_file.is_file():
        raise UserError(f"{answers_file}: no such file; name the answers.yaml that you have filled in")
    answers = load_answers(answers_file)
    facts = _facts_of(folder)
    with hold(folder):
        shutil.copytree(bundle, folder.draft)
        _write(folder.draft, facts, answers)
        seal(folder.draft)
        folder.bundle.rename(folder.replaced)
        try:
            publish(folder.draft, folder.bundle, created=facts.run.created)
        finally:
            _put_back(folder)
        write_whole(folder.answers, answers_file.read_bytes())
    return open_questions(bundle)


def _put_back(folder: RunFolder) -> None:
    """End an exchange, also one that was killed: the new bundle stays if it is there, else the old one."""
    if folder.replaced.is_dir():
        if folder.bundle.exists():
            shutil.rmtree(folder.replaced)
        else:
            folder.replaced.rename(folder.bundle)


def _facts_of(folder: RunFolder) -> PublicFacts:
    """The run's public facts, once they are shown to be those that the bundle was written from."""
    try:
        facts = PublicFacts.model_validate_json(folder.public_facts.read_bytes())
    except ValueError:
        raise VerificationFailed(f"{folder.public_facts}: does not hold public facts of this version") from None
    again = documents_of(facts, Answers(), _digests(folder.bundle))
    same = all((folder.bundle / name).read_bytes() == again[name] for name in FROM_FACTS_ALONE)
    if not same or _statement((folder.bundle / "privacy.json").read_bytes()) != _statement(again["privacy.json"]):
        raise VerificationFailed(
            f"{folder.public_facts}: does not give the bundle's documents; it was changed, or the run was made with "
            f"another version than {facts.run.software}"
        )
    return facts


def _statement(document: bytes) -> object:
    return json.loads(document)["x_synth"]


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
