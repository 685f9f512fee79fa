"""The run folder: every path a run writes, named once.

RUN/bundle/     what can be handed to anyone, once approved; appears whole when the run is sealed
RUN/internal/   for the steward alone (0700)
RUN/private/    working files (0700), there only while the run is held; a killed run's go at the next start
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synth.config import Database, Run, parse_run
from synth.errors import InvalidConfig, PrivacyRefusal, SynthError, UserError
from synth.files import PRIVATE_FOLDER, write_whole
from synth.image_schema import load_any_schema
from synth.privacy.outputs import DRAFT, refuse_in_bundle
from synth.yaml_file import read_yaml

_DATABASES: dict[Path, Database] = {}
"""Of this process's runs: a password that is written in a run.yaml is in no copy of it."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run's id, also the folder's name."""
        return self.path.name

    @property
    def bundle(self) -> Path:
        """The finished bundle."""
        return self.path / "bundle"

    @property
    def replaced(self) -> Path:
        """The bundle before, while a newly documented one takes its place."""
        return self.path / "bundle.replaced"

    @property
    def draft(self) -> Path:
        """The bundle while it is being written."""
        return self.path / "private" / DRAFT

    @property
    def internal(self) -> Path:
        """The steward's folder."""
        return self.path / "internal"

    @property
    def private(self) -> Path:
        """Working files."""
        return self.path / "private"

    @property
    def answers(self) -> Path:
        """The steward's answers that the bundle was written with; absent without any."""
        return self.internal / "answers.yaml"

    @property
    def next_answers(self) -> Path:
        """The answers of a newly documented bundle, while it takes the place of the one before."""
        return self.internal / "answers.next.yaml"

    @property
    def public_facts(self) -> Path:
        """The facts that the bundle's documents are written from, kept to write them again."""
        return self.internal / "facts.json"

    @property
    def codes(self) -> Path:
        """The encoded rows."""
        return self.private / "encoded.arrow"

    @property
    def held_out(self) -> Path:
        """The encoded rows of held-out people; no stage but the score opens them."""
        return self.private / "held_out.arrow"

    @property
    def bins(self) -> Path:
        """The rows as bins and class, for a critic."""
        return self.private / "bins.npy"

    @property
    def synthetic_codes(self) -> Path:
        """The synthetic rows, encoded as the private ones are, to be scored."""
        return self.private / "synthetic.arrow"

    @property
    def facts(self) -> Path:
        """Public facts gathered so far, a JSON file a stage."""
        return self.private / "facts"

    @property
    def model(self) -> Path:
        """The fitted model."""
        return self.draft / "model"

    @property
    def data(self) -> Path:
        """The synthetic rows."""
        return self.draft / "data"

    def run(self) -> Run:
        """The run's config and schema as they were when it started."""
        origin = Path(json.loads((self.internal / "run.json").read_text())["file"])
        raw = read_yaml(self.internal / "run.yaml")
        declared = load_any_schema(self.internal / "schema.yaml")
        config = parse_run(raw, file=origin)
        if self.path in _DATABASES:
            config = config.model_copy(update={"source": _DATABASES[self.path]})
        return Run(file=origin, config=config, declared=declared)

    def created(self) -> str:
        """When the run started: UTC, ISO 8601."""
        return str(json.loads((self.internal / "run.json").read_text())["created"])

    def note(self, stage: str, value: Any) -> None:
        """Keep a stage's public facts for the documents."""
        self.facts.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        write_whole(self.facts / f"{stage}.json", json.dumps(value))

    def noted(self, stage: str) -> Any:
        """The public facts a stage has kept."""
        return json.loads((self.facts / f"{stage}.json").read_text())

    def delete(self) -> None:
        """Delete the whole run, for one that has come to nothing."""
        shutil.rmtree(self.path, ignore_errors=True)


def create_run_folder(
    run: Run, *, name: str | None = None, run_id: str | None = None, now: datetime | None = None
) -> RunFolder:
    """Make a new run folder with a copy of the run's configuration. Raises UserError when it cannot.

    Its id is `run_id`, or a new one that starts with `name`, by default the run's. Raises PrivacyRefusal when the
    folder of a given id is there: a run happens once.
    """
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    run_id = run_id or f"{name or run.name}-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
    config = run.config
    refuse_in_bundle(config.output.directory, named=f"output.directory {config.output.directory}")
    folder = RunFolder(config.output.directory / run_id)
    asked = _without_password(run.file)
    try:
        config.output.directory.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        folder.path.mkdir(mode=PRIVATE_FOLDER)
    except OSError as error:
        if folder.path.is_dir():
            raise PrivacyRefusal(f"run {run_id}: was started before; a retry is a new run") from None
        raise _cannot_write(config.output.directory, error) from None
    try:
        folder.internal.mkdir(mode=PRIVATE_FOLDER)
        if isinstance(config.source, Database):
            _DATABASES[folder.path] = config.source
        # Copies with `${NAME}` still in place: what the environment fills in is never written out.
        write_whole(folder.internal / "run.yaml", asked)
        write_whole(folder.internal / "schema.yaml", config.schema_file.read_bytes())
        if config.answers.exists():
            write_whole(folder.answers, config.answers.read_bytes())
        started = {"file": str(run.file), "created": moment.isoformat().replace("+00:00", "Z")}
        write_whole(folder.internal / "run.json", json.dumps(started))
    except OSError as error:
        folder.delete()
        raise _cannot_write(config.output.directory, error) from None
    return folder


def _without_password(run_file: Path) -> bytes:
    """run.yaml as it is, but for a password in the source's URL. Raises InvalidConfig where it cannot be cut out."""
    content = run_file.read_bytes()
    source = read_yaml(run_file).get("source")
    url = source.get("url") if isinstance(source, dict) else None
    if not isinstance(url, str):
        return content
    # After the user's name, or among the parameters; what the environment fills in is no password yet.
    bare = re.sub(r"(://[^:@/?]*):(?!\$\{\w+\}@).*@", r"\1@", url)
    bare = re.sub(r"([?&])(?:ssl)?password=(?!\$\{\w+\}(?:&|$))[^&]*", r"\1", bare)
    if bare != url and url.encode() not in content:  # it is written in escapes, or over two lines
        problem = "source.url: holds a password; take the url from the environment, as ${DB_URL}"
        raise InvalidConfig(str(run_file), [problem])
    return content.replace(url.encode(), bare.encode())


def _cannot_write(directory: Path, error: OSError) -> UserError:
    return UserError(f"output.directory {directory}: cannot be written ({error.strerror}); name another folder")


@contextmanager
def hold(folder: RunFolder) -> Iterator[None]:
    """Keep the run alive: its working files exist inside of this, and nobody else deletes them.

    They are deleted on the way out, however that comes about. What a killed process leaves is deleted by the next
    run that starts (`delete_leftovers`).
    """
    with try_lock(folder.path) as free:
        if not free:
            raise SynthError(f"run {folder.run_id} is under way in another process")
        try:
            folder.private.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            yield
        finally:
            shutil.rmtree(folder.private, ignore_errors=True)


def delete_leftovers(directory: Path) -> None:
    """Delete working files that killed runs have left below `directory`; runs still alive are not touched."""
    for private in sorted(directory.glob("*/private")):
        if not (private.parent / "internal" / "run.json").is_file():
            continue  # not a run of ours
        with try_lock(private.parent) as free:
            if free:
                shutil.rmtree(private, ignore_errors=True)


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Lock a folder if nobody has; yields whether that worked. The lock dies with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def private_umask() -> int:
    """Files of this process are its owner's alone from here on; returns the umask before."""
    return os.umask(0o077)
