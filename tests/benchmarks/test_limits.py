from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def limits() -> Any:
    return importlib.import_module("limits")


def run(limits: Any, folder: Path, code: str, cpu: int = 60, wall: int = 60, memory: int | None = None) -> Any:
    return limits.run_limited([sys.executable, "-c", code], folder, limits.Limits(cpu, wall, memory))


def test_a_command_that_ends_well(limits: Any, tmp_path: Path) -> None:
    used = run(limits, tmp_path, "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert (used.status, used.reason, used.stdout) == ("ok", "", "1\n")
    assert 0 < used.cpu_seconds < 60 and used.seconds > 0 and used.peak_mb > 1


def test_processor_time_of_children_counts(limits: Any, tmp_path: Path) -> None:
    child = "import time\nwhile time.process_time() < .5: pass"
    used = run(limits, tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    assert used.status == "ok" and used.cpu_seconds > 0.5


def test_too_much_processor_time_is_a_timeout(limits: Any, tmp_path: Path) -> None:
    used = run(limits, tmp_path, "while True: pass", cpu=1)
    assert (used.status, used.reason) == ("timeout", "1 seconds of processor time were not enough")


def test_too_much_time_by_the_clock_is_a_timeout(limits: Any, tmp_path: Path) -> None:
    used = run(limits, tmp_path, "import time; time.sleep(3600)", wall=1)
    assert (used.status, used.reason) == ("timeout", "1 seconds of the clock were not enough")


def test_who_is_interrupted_leaves_nothing_running(
    limits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def interrupted(pid: int, options: int) -> Any:
        killed.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(limits, tmp_path, "import time; time.sleep(3600)")
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)


def test_what_a_command_leaves_behind_is_stopped(limits: Any, tmp_path: Path) -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '3600']).pid)"
    used = run(limits, tmp_path, code)
    assert used.status == "ok"
    left, deadline = Path(f"/proc/{int(used.stdout)}/stat"), time.monotonic() + 60
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # Dead at last (Z), though its new parent may not have noticed.
        while left.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() < deadline


def test_too_much_memory_fails(limits: Any, tmp_path: Path) -> None:
    used = run(limits, tmp_path, "x = bytearray(2 * 10**9)", memory=10**9)
    assert (used.status, used.reason) == ("failed", "MemoryError")


def test_a_failure_says_why_without_paths(limits: Any, tmp_path: Path) -> None:
    used = run(limits, tmp_path, "raise ValueError('no /home/someone/secret.txt there')")
    assert (used.status, used.reason) == ("failed", "ValueError: no … there")
    assert run(limits, tmp_path, "import os; os._exit(3)").reason == "ended with 3"
