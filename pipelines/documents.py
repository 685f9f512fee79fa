"""The document stage: public facts and the steward's answers in, the bundle's documents out."""

from __future__ import annotations

from datasheets import FileDigest, load_answers
from datasheets import document as documents_of
from synth import stages
from synth.files import sha256_file, write_whole
from synth.privacy.boundary import guarded_stage
from synth.run_folder import RunFolder
from synth.schema import public_yaml


@guarded_stage
def document(folder: RunFolder) -> None:
    """Write schema.yaml and every document into the draft of the bundle."""
    write_whole(folder.draft / "schema.yaml", public_yaml(folder.run().table))
    files = {}
    for path in sorted(folder.draft.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder.draft).as_posix()
            files[name] = FileDigest(sha256=sha256_file(path), bytes=path.stat().st_size)
    answers = load_answers(folder.answers)
    for name, content in documents_of(stages.public_facts(folder), answers, files).items():
        write_whole(folder.draft / name, content)
