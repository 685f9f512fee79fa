"""The run folder: every path a run writes, named once.

RUN/bundle/     what can be handed to anyone, once approved; appears whole when the run is sealed
RUN/internal/   for the steward alone (0700)
RUN/private/    working files (0700), there while the run is held

A run that ends early keeps of its working files what it can go on from, once everything that it drew is saved whole
(`RunFolder.saved`): noised measurements, checkpoints, public facts and the draft of its bundle. What holds private rows
goes when the run lets go of its folder, or, after a kill, at the next start; and so does everything of a run that
cannot go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from synth.config import Database, Run, parse_run
from synth.errors import InvalidConfig, PrivacyRefusal, SynthError, UserError
from synth.files import PRIVATE_FOLDER, canonical_json, write_whole
from synth.image_schema import load_any_schema
from synth.privacy.outputs import DRAFT, refuse_in_bundle
from synth.yaml_file import read_yaml

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.02
KEPT_DAYS = 30
"""How long the noised working files of a run that has died are kept, from its start."""
MEASURED = "measurements.json"
"""Written last of all that is measured: its presence says that every release is saved whole."""
BOUNDS = "bounds"
"""The note that bounds were estimated and are saved."""
MEASURES = "measures"
"""The note that a run on a table has begun to draw its measurements: it has drawn more than bounds."""
CRITIC = "critic"
"""The note that is false from before a critic's first step until the refined model is saved, and then true."""
SPLIT = "split"
"""The note that is false from before coins hold people out until nobody asks for the split any more, and then true.

The split is private rows, and is not kept. New coins would measure and score the same person, which costs more than
what was charged.
"""

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
    def drew(self) -> Path:
        """A mark that stays: this run has asked to spend, so whatever the ledger says it may have drawn."""
        return self.internal / "drew"

    @property
    def bounds(self) -> Path:
        """Bounds that the run has estimated, by column; absent without any."""
        return self.internal / "bounds.json"

    @property
    def pixels(self) -> Path:
        """The pictures themselves, for a critic."""
        return self.private / "pixels.arrow"

    @property
    def seen(self) -> Path:
        """The same as an array."""
        return self.private / "pixels.npy"

    @property
    def bins(self) -> Path:
        """The rows as bins and class, for a critic."""
        return self.private / "bins.npy"

    @property
    def synthetic_codes(self) -> Path:
        """The synthetic rows, encoded as the private ones are, to be scored."""
        return self.private / "synthetic.arrow"

    @property
    def checkpoints(self) -> Path:
        """Where a fit to the noised measurements stands."""
        return self.private / "checkpoints"

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
        origin = Path(self.started()["file"])
        raw = read_yaml(self.internal / "run.yaml")
        declared = load_any_schema(self.internal / "schema.yaml")
        found = json.loads(self.bounds.read_text()) if self.bounds.exists() else {}
        config = parse_run(raw, file=origin)
        if self.path in _DATABASES:
            config = config.model_copy(update={"source": _DATABASES[self.path]})
        return Run(file=origin, config=config, declared=declared, found=found)

    def created(self) -> str:
        """When the run started: UTC, ISO 8601."""
        return self.started()["created"]

    def started(self) -> dict[str, str]:
        """What the run was started with: its `file`, when it was `created`, what it `makes`, and by which `software`
        with which `settings` (a digest)."""
        started: dict[str, str] = json.loads((self.internal / "run.json").read_text())
        return started

    def note(self, stage: str, value: Any) -> None:
        """Keep a stage's public facts for the documents."""
        self.facts.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        write_whole(self.facts / f"{stage}.json", json.dumps(value))

    def noted(self, stage: str) -> Any:
        """The public facts a stage has kept."""
        return json.loads((self.facts / f"{stage}.json").read_text())

    def has_noted(self, stage: str) -> bool:
        """Whether a stage has kept its public facts, which it does last."""
        return (self.facts / f"{stage}.json").is_file()

    @property
    def measured(self) -> bool:
        """Whether the noised measurements are saved whole."""
        return (self.private / MEASURED).is_file()

    @property
    def estimated(self) -> bool:
        """Whether the run has estimated bounds, and saved them whole."""
        return self.has_noted(BOUNDS)

    @property
    def saved(self) -> bool:
        """Whether the run has drawn something, and everything that it has drawn is saved whole."""
        drawn = self.measured or (self.estimated and not self.has_noted(MEASURES))
        return drawn and all(self.noted(note) for note in (CRITIC, SPLIT) if self.has_noted(note))

    def forget(self) -> None:
        """Delete all working files. From the first of them on, nobody takes the run for one that can go on."""
        for mark in (self.facts / f"{BOUNDS}.json", self.private / MEASURED):
            mark.unlink(missing_ok=True)
        shutil.rmtree(self.private, ignore_errors=True)

    def forget_rows(self) -> None:
        """Delete the working files that hold private rows; all of them when the run cannot go on from the rest."""
        if self.bundle.exists() or not self.saved:
            self.forget()
            return
        # What may stay is named, and not what has to go: a working file of a new kind goes.
        stays = {MEASURED, "measurements.safetensors", self.checkpoints.name, self.facts.name, self.draft.name}
        leave = [path for path in self.private.iterdir() if path.name not in stays]
        for path in (*leave, *self.private.rglob(".*.partial")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

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
        started = {
            "file": str(run.file),
            "created": moment.isoformat().replace("+00:00", "Z"),
            "makes": name or "bundle",
            "software": software(),
            "settings": _settings(run),
        }
        write_whole(folder.internal / "run.json", json.dumps(started))
    except OSError as error:
        folder.delete()
        raise _cannot_write(config.output.directory, error) from None
    return folder


def go_on_in(folder: RunFolder, run: Run) -> None:
    """Let this process go on with a run: a password that no copy of its run.yaml holds is taken from the original."""
    if isinstance(run.config.source, Database):
        _DATABASES[folder.path] = run.config.source


def difference(folder: RunFolder, run: Run) -> str | None:
    """What of a run is not as it was started, in words; None when it would start in the same way now."""
    started = folder.started()
    if started.get("software") != software():
        return f"was started by {started.get('software', 'an earlier version')}, and this is {software()}"
    try:
        run_yaml, schema = (folder.internal / "run.yaml").read_bytes(), (folder.internal / "schema.yaml").read_bytes()
    except OSError:
        return "has lost the copies of its run.yaml and schema.yaml"
    if run_yaml != _without_password(run.file):
        return "was started from another run.yaml: it has been changed since"
    if schema != run.config.schema_file.read_bytes():
        return "was started with another schema.yaml: it has been changed since"
    if started.get("settings") != _settings(run):
        return "was started with other values of the environment variables in run.yaml"
    return None


def software() -> str:
    """The name and version of this software."""
    return f"dp-synth {metadata.version('dp-synth')}"


def _settings(run: Run) -> str:
    """A digest of what run.yaml says once the environment has filled it in, but for where rows and ledger are."""
    return hashlib.sha256(canonical_json(run.config.model_dump(mode="json", exclude={"source", "ledger"}))).hexdigest()


def _without_password(run_file: Path) -> bytes:
    """run.yaml as it is, but for passwords in URLs. Raises InvalidConfig where one cannot be cut out."""
    content, raw = run_file.read_bytes(), read_yaml(run_file)
    for name in ("source", "ledger"):
        section = raw.get(name)
        url = section.get("url") if isinstance(section, dict) else None
        if isinstance(url, str):
            content = _without_password_of(url, content, run_file, f"{name}.url")
    return content


def _without_password_of(url: str, content: bytes, run_file: Path, place: str) -> bytes:
    # After the user's name, or among the parameters; what the environment fills in is no password yet.
    bare = re.sub(r"(://[^:@/?]*):(?!\$\{\w+\}@).*@", r"\1@", url)
    bare = re.sub(r"([?&])(?:ssl)?password=(?!\$\{\w+\}(?:&|$))[^&]*", r"\1", bare)
    if bare != url and url.encode() not in content:  # it is written in escapes, or over two lines
        problem = f"{place}: holds a password; take the url from the environment, as ${{DB_URL}}"
        raise InvalidConfig(str(run_file), [problem])
    return content.replace(url.encode(), bare.encode())


def _cannot_write(directory: Path, error: OSError) -> UserError:
    return UserError(f"output.directory {directory}: cannot be written ({error.strerror}); name another folder")


@contextmanager
def hold(folder: RunFolder) -> Iterator[None]:
    """Keep the run alive: its working files exist inside of this, and nobody else deletes them.

    On the way out, however that comes about, those that hold private rows are deleted, and all of them unless the run
    can go on. What a killed process leaves is deleted by the next run that starts (`delete_leftovers`).
    """
    with try_lock(folder.path, patience_seconds=0.5) as free:  # others look at a dead run for a moment
        if not free:
            raise SynthError(f"run {folder.run_id} is under way in another process")
        try:
            folder.forget_rows()
            folder.private.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            yield
        finally:
            folder.forget_rows()
            if folder.saved:
                logger.warning(
                    "warning: run %s is not finished; --resume goes on from what it has saved", folder.run_id
                )


def under_way(folder: RunFolder) -> bool:
    """Whether a living process holds the run."""
    with try_lock(folder.path) as free:
        return not free


def delete_leftovers(directory: Path, *, now: datetime | None = None) -> None:
    """Delete working files that dead runs have left below `directory`; runs still alive are not touched.

    A run that can go on keeps those without private rows for KEPT_DAYS, or until a later run of the same run.yaml has
    its bundle.
    """
    too_old = (now or datetime.now(UTC)) - timedelta(days=KEPT_DAYS)
    finished: set[str] = set()  # run.yaml files of which a run has a bundle; the latest runs come first
    for folder in runs_below(directory):
        with contextlib.suppress(OSError, ValueError):  # one that vanishes meanwhile is somebody else's doing
            started = folder.started()
            if folder.bundle.exists():
                finished.add(started.get("file", ""))
            if not folder.private.exists():
                continue
            with try_lock(folder.path) as free:
                if not free:
                    continue
                if started.get("file") in finished or _moment(folder) < too_old:
                    folder.forget()
                else:
                    folder.forget_rows()


def runs_below(directory: Path) -> list[RunFolder]:
    """The folders of all runs below `directory`, the latest first."""
    found = []
    for record in directory.glob("*/internal/run.json"):
        folder = RunFolder(record.parent.parent)
        try:
            found.append((_moment(folder), record.stat().st_mtime_ns, folder.run_id, folder))
        except (OSError, ValueError, LookupError, TypeError):
            continue  # not a run of ours
    return [folder for *_, folder in sorted(found, key=lambda run: run[:3], reverse=True)]


def _moment(folder: RunFolder) -> datetime:
    return datetime.fromisoformat(folder.created()).astimezone(UTC)


@contextmanager
def try_lock(folder: Path, *, patience_seconds: float = 0.0) -> Iterator[bool]:
    """Lock a folder if nobody has; yields whether that worked. The lock dies with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    limit = time.monotonic() + patience_seconds
    try:
        while not (free := _lock(descriptor)) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        yield free
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def private_umask() -> int:
    """Files of this process are its owner's alone from here on; returns the umask before."""
    return os.umask(0o077)
