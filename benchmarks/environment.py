"""A virtual environment a peer: made from its pinned requirements on first use, and again when they change."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from limits import last_line

PYTHON = "python3.11"  # the one release that all peers support


class NotInstalled(Exception):
    """A peer's packages cannot be had here; the message says why."""


def interpreter(requirements: Path, parent: Path) -> Path:
    """The interpreter of the environment that holds exactly these requirements. Raises NotInstalled."""
    folder = parent / requirements.stem
    stamp = folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    if (base := shutil.which(PYTHON)) is None:
        raise NotInstalled(f"{PYTHON} is not on PATH")
    shutil.rmtree(folder, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    _run([base, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)])
    stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no shell)
    if done.returncode != 0:
        raise NotInstalled(last_line(done.stderr) or last_line(done.stdout) or "pip failed")
