"""Files that appear whole: canonical JSON, hashes, atomic writes, private permissions."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rfc8785

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for a JSON value (RFC 8785), so that hashes can be compared."""
    return rfc8785.dumps(value)


def sha256_file(path: Path) -> str:
    """Lower-case hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Lower-case hex SHA-256 of a text as it is written to a file."""
    return hashlib.sha256(text.encode()).hexdigest()


def identities(table: Path) -> set[tuple[int, int]]:
    """Device and number of each file of a table, where links lead; none where there is nothing."""
    try:
        paths = [table, *table.iterdir()] if table.is_dir() else [table]
    except OSError:  # told by who reads it, as is a missing table
        return set()
    found = [path.stat() for path in paths if path.exists()]
    return {(file.st_dev, file.st_ino) for file in found}


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, readable by its owner only. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else holds the folder, and hold it. The lock dies with the process.

    Raises OSError when there is no such folder, before or after the wait.
    """
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it may have put another folder in its place.
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write aside, then rename: a reader sees the old file or the whole new one, never a part.

    The file is readable by its owner only.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    write_new(aside, content.encode() if isinstance(content, str) else content)
    try:
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
