"""Runs of `synth` that stop and wait at a chosen place, each in a process of its own, for tests that kill them.

    python stalled.py ORDERS.json

Libraries are loaded once and each run is a fork. An order names the place (`module:function` or
`module:Class.method`), whether to wait before or after that call, and files: `ready` is written at the place, the run
goes on when `go` appears, and `ended` is written when it ends. This process ends when all runs have ended, and prints
their exit statuses (negative: the signal) as JSON.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import cli, quiet


def wait_at(place: str, *, after: bool, ready: Path, go: Path) -> None:
    """Make the next call of `place` wait for the file `go`, once `ready` is written."""
    module_name, function_name = place.split(":")
    *owners, name = function_name.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module_name))
    real: Callable[..., Any] = getattr(owner, name)

    def stalled(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs) if after else None
        ready.touch()
        while not go.exists():
            time.sleep(0.05)
        return result if after else real(*args, **kwargs)

    setattr(owner, name, stalled)


def start(order: dict[str, Any]) -> int:
    """Fork a run; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT, 0o600), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wait_at(order["place"], after=order["after"], ready=Path(order["ready"]), go=Path(order["go"]))
    sys.argv = ["synth", *order["arguments"]]
    code = 1
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Start all orders and wait for them."""
    orders = json.loads(Path(sys.argv[1]).read_text())
    quiet.quiet_prefect()
    for module in ("pipelines.flow", "pipelines.running", "pipelines.server"):
        importlib.import_module(module)
    running = {}
    for order in orders:
        pid = start(order)
        running[pid] = order
        Path(order["pid"]).with_suffix(".partial").write_text(str(pid))
        Path(order["pid"]).with_suffix(".partial").replace(order["pid"])
    codes = {}
    while running:
        pid, status = os.wait()
        order = running.pop(pid)
        codes[order["name"]] = os.waitstatus_to_exitcode(status)
        Path(order["ended"]).touch()
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
