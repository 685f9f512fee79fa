"""The boundary: an exception raised with private data in hand becomes an error without values.

Libraries quote the value they failed on. Prefect keeps exception texts in its database, terminals and logs keep
them elsewhere. So every stage that touches private rows runs inside `guarded`.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from synth.errors import SynthError
from synth.files import write_whole

P = ParamSpec("P")
T = TypeVar("T")


class HasInternal(Protocol):
    """A run folder, as far as the boundary needs to know it."""

    @property
    def internal(self) -> Path:
        """The steward's folder."""


Folder = TypeVar("Folder", bound=HasInternal)


class StageFailed(SynthError):
    """A stage failed; the original error's text is withheld, because it may quote a private value."""


@contextmanager
def guarded(stage: str, internal: Path | None = None) -> Iterator[None]:
    """Replace any unplanned exception by a `StageFailed` that names the stage and the kind of error only.

    The places in the code that led there (file, line, function; no values) go to `internal`, when given.
    Planned errors (`SynthError`) pass: their texts are written without values.
    """
    failure = None
    try:
        yield
    except SynthError as error:
        # Its cause may be a library's exception that quotes a value.
        error.__cause__ = error.__context__ = None
        error.__suppress_context__ = True
        raise
    except Exception as error:  # the one place where everything is caught
        failure = without_values(stage, error, internal)
    if failure is not None:
        try:
            raise failure
        except StageFailed as error:
            # The `with` statement still handles the original, so Python has attached it as context: a traceback
            # would quote it. Raising again as it is attaches nothing.
            error.__context__ = None
            raise


def without_values(stage: str, error: Exception, internal: Path | None = None) -> StageFailed:
    """What may be said of an unplanned exception: the stage, its kind, and where in the code it came from."""
    kind = type(error).__name__
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    where = f"at {places[-1]}" if places else "at an unknown place"
    if internal is not None:
        write_whole(internal / f"failure-{stage}.txt", "\n".join([kind, *places]) + "\n")
        where = "its place in the code is in the run's internal folder"
    return StageFailed(f"{stage} failed with {kind}; its text is withheld because it may quote the data ({where})")


def guarded_stage(work: Callable[Concatenate[Folder, P], T]) -> Callable[Concatenate[Folder, P], T]:
    """A stage whose whole body runs inside `guarded`. Its first argument is the run's folder."""

    @functools.wraps(work)
    def stage(folder: Folder, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with guarded(work.__name__, folder.internal):
            return work(folder, *args, **kwargs)

    return stage
