"""The boundary: an exception raised with private data in hand becomes an error without values.

Libraries quote the value they failed on. Prefect keeps exception texts in its database, terminals and logs keep
them elsewhere. So every stage that touches private rows runs inside `guarded`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth.errors import SynthError
from synth.files import write_whole


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
        failure = type(error).__name__
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        if internal is not None:
            write_whole(internal / f"failure-{stage}.txt", "\n".join([failure, *places]) + "\n")
    if failure is not None:
        # Raised outside of the handler, so that the original is not even attached as context.
        where = " (its place in the code is in the run's internal folder)" if internal is not None else ""
        raise StageFailed(f"{stage} failed with {failure}; its text is withheld because it may quote the data{where}")
