"""A Prefect server of the tests' own, the workers that work for it, and what is asked of it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from typer.testing import CliRunner

PATIENCE_SECONDS = 600
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # A run that no worker has taken for six polls is called late.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "6",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "2",
}


def wait_for(found: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true."""
    limit = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.3)
    return answer


def signal_all_of(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A signal for a process and all that it has started, however deep."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def family(pid: int) -> list[int]:
    """A process and all that it has started, however deep."""
    children: dict[int, list[int]] = {}
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


@dataclass
class Operations:
    """A Prefect server, and whatever works for it."""

    folder: Path
    webhook: str = ""  # that is told how scheduled runs end
    port: int = 0
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    server: subprocess.Popen[bytes] | None = None
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        own = {"PREFECT_HOME": str(self.folder / "prefect"), "PREFECT_API_URL": self.url}
        return os.environ | SETTINGS | own | ({"SYNTH_NOTIFY": self.webhook} if self.webhook else {})

    def start(self, *arguments: object, log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *map(str, arguments)],
                env=self.environment,
                cwd=self.folder,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def serve(self) -> None:
        """Another process may take a port between the look and the start, so there are several tries."""
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            if self.serve_again() == "healthy":
                return
        raise AssertionError((self.folder / "server.log").read_text())

    def serve_again(self) -> str:
        """Start the server on its port and its database; "healthy", or "dead" where it has ended at once."""
        place = ("--host", "127.0.0.1", "--port", self.port)
        self.server = server = self.start("server", "start", "--no-ui", *place, log="server.log")
        return str(wait_for(functools.partial(self._decided, server), "the server"))

    def kill_server(self) -> None:
        """SIGKILL, and nothing is left of it but its database."""
        assert self.server is not None
        signal_all_of(self.server, signal.SIGKILL)
        self.server.wait()

    def end(self) -> None:
        """Kill whatever was started."""
        self.client.close()
        for process in reversed(self.started):
            signal_all_of(process, signal.SIGKILL)
            process.wait()

    def _decided(self, server: subprocess.Popen[bytes]) -> str:
        with contextlib.suppress(httpx.HTTPError):
            if self.client.get(f"{self.url}/health").status_code == 200:
                return "healthy"
        return "" if server.poll() is None else "dead"

    def worker(self, name: str) -> subprocess.Popen[bytes]:
        return self.start("worker", "start", "--pool", "nightly", "--name", name, log=f"{name}.log")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        def answered() -> httpx.Response | None:
            """None: its database is locked, the machine has no time for it, or it was started anew; ask again."""
            with contextlib.suppress(httpx.TransportError):
                answer = self.client.request(method, f"{self.url}{path}", json=body)
                return None if answer.status_code == 503 else answer.raise_for_status()
            return None

        answer = wait_for(answered, f"{method} {path}")
        return answer.json() if answer.content else None

    def trigger(self, deployment: str) -> str:
        """Ask for a run now; the flow run's id."""
        once = {"idempotency_key": str(uuid4())}  # asked again, it is the same run
        return str(self.ask("POST", f"/deployments/{deployment}/create_flow_run", once)["id"])

    def state(self, flow_run: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/flow_runs/{flow_run}")["state"])

    def ended(self, flow_run: str) -> tuple[str, str, str]:
        """Type, name and message of the state in which a flow run ends."""
        state = wait_for(
            lambda: (found := self.state(flow_run))["type"] in TERMINAL and found, f"the end of {flow_run}"
        )
        return state["type"], state["name"], state["message"] or ""

    def slots(self, deployment: str) -> list[dict[str, Any]]:
        """The runs that the schedule has made, soonest first."""
        asked = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return [run for run in self.ask("POST", "/flow_runs/filter", asked) if run["auto_scheduled"]]

    @property
    def database(self) -> Path:
        return self.folder / "prefect" / "prefect.db"


def call(*arguments: object) -> Any:
    """Run `synth …` in this process, whatever it raises."""
    from pipelines.cli import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])
