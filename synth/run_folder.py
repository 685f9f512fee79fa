"""The run folder: every path a run writes, named once.

RUN/bundle/     what can be handed to anyone, once approved; appears whole when the run is sealed
RUN/internal/   for the steward alone (0700)
RUN/private/    working files (0700), deleted when the run settles and at the next start
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from synth.config import Run, parse_run
from synth.errors import UserError
from synth.files import PRIVATE_FOLDER, write_whole
from synth.schema import load_schema
from synth.yaml_file import read_yaml


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
    def draft(self) -> Path:
        """The bundle while it is being written."""
        return self.path / "private" / "bundle.partial"

    @property
    def internal(self) -> Path:
        """The steward's folder."""
        return self.path / "internal"

    @property
    def private(self) -> Path:
        """Working files."""
        return self.path / "private"

    @property
    def codes(self) -> Path:
        """The encoded rows."""
        return self.private / "encoded.arrow"

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
        return Run(file=origin, config=parse_run(raw, file=origin), table=load_schema(self.internal / "schema.yaml"))

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

    def delete_private(self) -> None:
        """Delete the working files."""
        shutil.rmtree(self.private, ignore_errors=True)


def create_run_folder(run: Run, *, now: datetime | None = None) -> RunFolder:
    """Make a new run folder with a copy of the run's configuration. Raises UserError when it cannot."""
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    run_id = f"{run.name}-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    folder = RunFolder(run.config.output.directory / run_id)
    try:
        run.config.output.directory.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        for path in (folder.path, folder.internal, folder.private):
            path.mkdir(mode=PRIVATE_FOLDER)
    except OSError as error:
        raise UserError(
            f"output.directory {run.config.output.directory}: cannot be written ({error.strerror}); name another folder"
        ) from None
    # Copies with `${NAME}` still in place: what the environment fills in is never written out.
    write_whole(folder.internal / "run.yaml", run.file.read_bytes())
    write_whole(folder.internal / "schema.yaml", run.config.schema_file.read_bytes())
    write_whole(
        folder.internal / "run.json",
        json.dumps({"file": str(run.file), "created": moment.isoformat().replace("+00:00", "Z")}),
    )
    return folder


def hold(folder: RunFolder) -> TextIO:
    """Mark the run as alive for as long as the returned handle stays open."""
    handle = (folder.path / ".alive").open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def delete_leftovers(directory: Path) -> None:
    """Delete working files that killed runs have left below `directory`; runs still alive are not touched."""
    for private in sorted(directory.glob("*/private")) if directory.is_dir() else []:
        marker = private.parent / ".alive"
        if not (private.parent / "internal" / "run.json").is_file() or not marker.is_file():
            continue
        with marker.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(private, ignore_errors=True)


def private_umask() -> int:
    """Files of this process are its owner's alone from here on; returns the umask before."""
    return os.umask(0o077)
