"""A command run under limits of processor time, clock time and memory, and what it used.

Processor time is user plus system of the process and of every descendant that was waited for: on a shared machine
seconds of the clock say little.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "timeout", "failed"]
GRACE_SECONDS = 5  # between the polite signal at the limit and the last one
# One thread each: OpenMP, BLAS and XLA start one a core otherwise.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True)
class Limits:
    """What a run may use; the clock is generous, since the machine may be busy."""

    cpu_seconds: int
    wall_seconds: int
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Used:
    """What a command took and how it ended. `reason` is one line, without paths; empty when it ended well."""

    status: Status
    reason: str
    stdout: str
    cpu_seconds: float
    seconds: float
    peak_mb: float


def run_limited(
    command: Sequence[str | Path], folder: Path, limits: Limits, environment: Mapping[str, str] | None = None
) -> Used:
    """Run a command with one thread under limits; its output is kept in `folder` (stdout.txt, stderr.txt)."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + GRACE_SECONDS))
        if limits.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))

    started, late = time.monotonic(), threading.Event()
    with (folder / "stdout.txt").open("w") as stdout, (folder / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(  # noqa: S603  (no shell; the arguments are the caller's)
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
            preexec_fn=limit,
            start_new_session=True,
        )

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        watch = threading.Timer(limits.wall_seconds, stop)
        watch.daemon = True
        watch.start()
        try:
            _, code, used = os.wait4(process.pid, 0)
        except BaseException:
            # It is in a session of its own, so whoever stops us has to stop it through us.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            watch.cancel()
            # What it started and left behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.returncode = os.waitstatus_to_exitcode(code)
    cpu = used.ru_utime + used.ru_stime
    status, reason = _ending(process.returncode, late.is_set(), cpu, limits, folder / "stderr.txt")
    return Used(status, reason, (folder / "stdout.txt").read_text(), cpu, time.monotonic() - started, peak_mb(used))


def _ending(code: int, late: bool, cpu: float, limits: Limits, stderr: Path) -> tuple[Status, str]:
    if code == 0:
        return "ok", ""
    if late:
        return "timeout", f"{limits.wall_seconds} seconds of the clock were not enough"
    # The limit counts clock ticks and the usage does not, so that the two may differ by some percent.
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu >= 0.9 * limits.cpu_seconds):
        return "timeout", f"{limits.cpu_seconds} seconds of processor time were not enough"
    return "failed", last_line(stderr.read_text(errors="replace")) or f"ended with {code}"


def last_line(text: str) -> str:
    """The last line that says something, short and without paths of this machine."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"/[\w.+-]+(?:/[\w.+-]*)+", "…", lines[-1])[:200] if lines else ""


def peak_mb(used: resource.struct_rusage) -> float:
    """Peak resident set in MB: reported in bytes on macOS, in KiB elsewhere."""
    return used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
