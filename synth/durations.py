"""How long the stages of a run took and how much memory it came to: in its internal folder, for the steward alone.

Both follow from how large the source is, so they are no facts, and neither Prefect nor a bundle is told. A run that is
resumed adds to what stands there; a stage that is killed leaves nothing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from synth.errors import UserError
from synth.files import write_whole
from synth.privacy.boundary import HasInternal

P = ParamSpec("P")
T = TypeVar("T")
Folder = TypeVar("Folder", bound=HasInternal)

FILE = "durations.json"
_MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Duration:
    """One stage, once.

    Attributes:
        stage: its name.
        seconds: on the clock.
        cpu_seconds: of this process and of those it has started and seen end; of workers on Dask there is nothing.
        peak_bytes: the most memory this process has held until then.
    """

    stage: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class _Started:
    stage: str
    clock: float
    cpu: float

    def until_now(self) -> Duration:
        seconds, cpu_seconds = _clock() - self.clock, _cpu_seconds() - self.cpu
        return Duration(self.stage, round(seconds, 3), round(cpu_seconds, 3), _peak_bytes())


_under_way: ContextVar[_Started | None] = ContextVar("_under_way", default=None)


def timed(work: Callable[Concatenate[Folder, P], T]) -> Callable[Concatenate[Folder, P], T]:
    """A stage that leaves how long it took, also when it fails. Its first argument is the run's folder.

    Of one that is refused (UserError) nothing is left: a run that has its bundle already stays as it was.
    """

    @functools.wraps(work)
    def stage(folder: Folder, /, *args: P.args, **kwargs: P.kwargs) -> T:
        started = _Started(work.__name__, _clock(), _cpu_seconds())
        token = _under_way.set(started)
        refused = False
        try:
            return work(folder, *args, **kwargs)
        except UserError:
            refused = True
            raise
        finally:
            _under_way.reset(token)
            if not refused:
                _keep(folder.internal, (*noted_in(folder.internal), started.until_now()))

    return stage


def noted_in(internal: Path) -> tuple[Duration, ...]:
    """What has been noted of a run so far, in order; nothing of one that has not begun, or is of an earlier version."""
    try:
        return tuple(Duration(**entry) for entry in json.loads((internal / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return ()


def so_far(internal: Path) -> tuple[Duration, ...]:
    """What has been noted, and the stage that is under way."""
    started = _under_way.get()
    return noted_in(internal) + (() if started is None else (started.until_now(),))


def _keep(internal: Path, durations: Sequence[Duration]) -> None:
    with contextlib.suppress(OSError):  # a run must not fail for want of them
        write_whole(internal / FILE, json.dumps([asdict(duration) for duration in durations], indent=1))


def _clock() -> float:
    return time.perf_counter()


def _cpu_seconds() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MEMORY_UNIT
