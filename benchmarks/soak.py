"""Short runs back to back: what grows, and whether the ledger's sum is exact.

    python benchmarks/soak.py [--runs 200] [--deployed 10] [--out benchmarks]

A Prefect server of its own is started in a temporary folder. One process then does run after run by the flow that a
worker runs for a deployment, on `data/pbcseq` with few steps, and after each run prunes and measures: its own memory,
files and threads, those of the server, what lies in the temporary, output and database files, and how long the ledger
takes. In the second half, what Prefect knows of all but the latest runs is dated back, so that the server's own
retention (docs/operations.md) removes it. At last a worker does some runs as `synth deploy` has it, a process each.
Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import json
import math
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
from scale import anonymous_mb
from scipy.optimize import brentq
from scipy.stats import norm

ROOT = Path(__file__).resolve().parents[1]
RUN: dict[str, Any] = {
    "source": {"path": "pbcseq.parquet"},
    "schema": "schema.yaml",
    "privacy": {"epsilon": 0.5, "delta": 1e-5},
    "synthesizer": {"steps": 10, "members": 1, "latent_points": 16, "hidden_size": 16},
    "output": {"directory": "out", "rows": 500},
    "ledger": {"url": "sqlite:///ledger.db"},
}
KEPT = 5
"""How many runs a prune leaves."""
KNOWN = 20
"""How many runs Prefect knows once its retention is at work."""
RETENTION = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "5",
}
SETTINGS = RETENTION | {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "OMP_NUM_THREADS": "1",
}
PATIENCE_SECONDS = 900
WARM = 50
"""Runs before which nothing is fitted: caches fill."""
NOTHING = 1e-6
"""A slope below this is rounding."""
TABLES = ("flow_run", "task_run", "events", "event_resources", "artifact", "log")
GROWING = {
    "memory_mb": "memory of the process, MB",
    "files": "open files",
    "threads": "threads",
    "server_mb": "memory of the server, MB",
    "server_files": "open files of the server",
    "temporary": "things in the temporary folder",
    "output": "files in the output folder",
    "output_mb": "bytes in the output folder, MB",
    "prefect_mb": "Prefect's database, MB",
    "prefect_rows": "rows in Prefect's database",
    "ledger_kb": "ledger, kB",
    "ledger_ms": "ledger in a run, all calls, CPU ms",
    "reserve_ms": "of that to reserve, CPU ms",
    "verify_ms": "verifying the chain in a new process, CPU ms",
    "seconds": "seconds a run",
    "cpu_seconds": "CPU seconds a run",
}


def main() -> None:
    """Run, measure and write soak.csv and soak.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--deployed", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_process(args.one, args.runs, args.server)
        return
    # In the background of a script this signal is ignored, and so it would be by a worker, which ends by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clinic = prepare_clinic(folder)
        with server(folder) as (url, pid):
            os.environ |= {"PREFECT_API_URL": url}
            child = [sys.executable, __file__, "--one", str(clinic), "--runs", str(args.runs), "--server", str(pid)]
            subprocess.run(child, check=True)  # noqa: S603
            rows = read_rows(clinic / "soak.csv")
            shutil.copy(clinic / "soak.csv", args.out)
            deployed = deploy(clinic, url, args.deployed) if args.deployed else []
            sums = exact(clinic)
            left = sorted(path.name for path in (folder / "temporary").iterdir())
    (args.out / "soak.md").write_text(page(rows, sums, deployed, left))
    sys.exit(not is_exact(sums))


def prepare_clinic(folder: Path) -> Path:
    """A folder with run.yaml and its table; temporary files and Prefect's home beside it."""
    clinic = folder / "clinic"
    for made in (clinic, folder / "temporary", folder / "prefect"):
        made.mkdir(mode=0o700)
    for file in ("pbcseq.parquet", "schema.yaml"):
        shutil.copy(ROOT / "data" / "pbcseq" / file, clinic)
    (clinic / "run.yaml").write_text(json.dumps(RUN))
    os.environ |= SETTINGS | {
        "PREFECT_HOME": str(folder / "prefect"),
        "XDG_DATA_HOME": str(folder / "data"),
        "TMPDIR": str(folder / "temporary"),
    }
    return clinic


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """A Prefect server: its address, and the id of its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: asked("GET", f"{url}/health"))
        yield url, started.pid
    finally:
        started.terminate()
        started.wait(60)


def asked(method: str, url: str, body: Any = None) -> Any:
    """What the server answers; None while it has no time to."""
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.request(method, url, json=body, timeout=60)
        return None if answer.status_code == 503 else answer.raise_for_status().json()
    return None


def wait_for(found: Callable[[], Any]) -> Any:
    """Ask until the answer is true."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not (answer := found()):
        if time.monotonic() > limit:
            raise TimeoutError
        time.sleep(0.3)
    return answer


def one_process(clinic: Path, runs: int, server_pid: int) -> None:
    """All runs in this process, with a line of soak.csv after each."""
    from pipelines.quiet import quiet_prefect

    quiet_prefect()
    from pipelines.scheduled import scheduled_run
    from synth.privacy import ledger_chain
    from synth.privacy.ledger import Ledger
    from synth.runs import GRACE, prune

    url = f"sqlite:///{clinic / 'ledger.db'}"
    Ledger.open(url)
    spent: dict[str, float] = {}
    watch_ledger(spent)
    with (clinic / "soak.csv").open("w", newline="", buffering=1) as stream:
        writer = csv.DictWriter(stream, ("run", *GROWING, *TABLES), lineterminator="\n")
        writer.writeheader()
        for run in range(1, runs + 1):
            spent.clear()
            start, cpu = time.monotonic(), time.process_time()
            state = scheduled_run(str(clinic / "run.yaml"), url, return_state=True)
            assert state.is_completed(), state
            seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
            # As if this were an hour later: younger runs are not pruned.
            prune(clinic / "out", keep=KEPT, revocations=lambda _: [], now=datetime.now(UTC) + GRACE)
            if run > runs // 2:
                age_prefect(KNOWN)
            gc.collect()
            known = prefect_rows()
            ledger_chain._fingerprint.cache_clear()
            began = time.process_time()
            assert Ledger.open(url).verify_chain()
            verified = time.process_time() - began
            found = {
                "run": run,
                "memory_mb": anonymous_mb(),
                "files": open_files(os.getpid()),
                "threads": threading.active_count(),
                "server_mb": sum(memory_mb(pid) for pid in family(server_pid)),
                "server_files": sum(map(open_files, family(server_pid))),
                "temporary": len(list(Path(tempfile.gettempdir()).rglob("*"))),
                "output": len(list((clinic / "out").rglob("*"))),
                "output_mb": megabytes((clinic / "out").rglob("*")),
                "prefect_mb": megabytes(database().parent.glob("prefect.db*")),
                "prefect_rows": sum(known.values()),
                "ledger_kb": (clinic / "ledger.db").stat().st_size / 1000,
                "ledger_ms": 1000 * sum(spent.values()),
                "reserve_ms": 1000 * spent["reserve"],
                "verify_ms": 1000 * verified,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
            }
            rounded = {name: round(value, 2) for name, value in found.items()}
            writer.writerow(rounded | known)
            print(rounded, file=sys.stderr)


def watch_ledger(spent: dict[str, float]) -> None:
    """Let every call of the ledger add its CPU seconds to `spent`, by name."""
    from synth.privacy.ledger import Ledger

    depth = 0

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                depth -= 1
                if not depth:  # one within another counts once
                    spent[name] = spent.get(name, 0.0) + time.process_time() - start

        return inside

    for name, call in [*vars(Ledger).items()]:
        if callable(call) and not name.startswith("_"):
            setattr(Ledger, name, timed(name, call))


def database() -> Path:
    """Prefect's database."""
    return Path(os.environ["PREFECT_HOME"]) / "prefect.db"


def prefect_rows() -> dict[str, int]:
    """How much Prefect knows."""
    with contextlib.closing(sqlite3.connect(database(), timeout=60)) as connection:
        return {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES}  # noqa: S608


def age_prefect(known: int) -> None:
    """Date all but the latest flow runs and their events back by more than Prefect keeps."""
    with contextlib.closing(sqlite3.connect(database(), timeout=60)) as connection:
        ends = connection.execute("select end_time from flow_run where end_time is not null order by end_time desc")
        old = [end for (end,) in ends][known:]
        if not old:
            return
        then = (datetime.now(UTC) - timedelta(days=365)).strftime("%Y-%m-%d %H:%M:%S.%f")
        for table, column in (("flow_run", "end_time"), ("events", "occurred"), ("event_resources", "occurred")):
            connection.execute(f"update {table} set {column} = ? where {column} <= ?", (then, old[0]))  # noqa: S608
        connection.commit()


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def memory_mb(pid: int) -> float:
    """Resident memory of a process that is no file's."""
    return int(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def open_files(pid: int) -> int:
    """How many files and connections a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def megabytes(paths: Iterator[Path]) -> float:
    """Together; those that vanish meanwhile do not count."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total / 1e6


def exact(clinic: Path) -> dict[str, float]:
    """The population's ε by the ledger, and by hand from the entries as they lie in its file."""
    from synth.privacy.ledger import Ledger

    ledger = Ledger.open(f"sqlite:///{clinic / 'ledger.db'}", create=False)
    (account,) = ledger.populations()
    reserved = [json.loads(entry.payload) for entry in ledger.history() if entry.kind == "reserve"]
    mu = math.sqrt(
        math.fsum((one["sensitivity"] / one["noise_scale"]) ** 2 for each in reserved for one in each["events"])
    )

    def too_large(epsilon: float) -> float:
        delta = norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * norm.cdf(-epsilon / mu - mu / 2)
        return float(delta) - account.delta

    return {
        "entries": ledger.verify_chain(),
        "runs": len(reserved),
        "mu": mu,
        "delta": account.delta,
        "ledger": account.epsilon,
        "by_hand": float(brentq(too_large, 1e-9, 400.0, xtol=1e-13)),
    }


def deploy(clinic: Path, url: str, runs: int) -> list[dict[str, Any]]:
    """Runs of a deployment, each in a process of its own that a worker starts."""
    synth = Path(sys.executable).with_name("synth")
    asked_for = [str(synth), "deploy", str(clinic / "run.yaml"), "--cron", "0 3 1 1 *", "--json"]
    made = json.loads(subprocess.run(asked_for, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "synth"]
    with (clinic / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
    found = []
    try:
        for _ in range(runs):
            start = time.monotonic()
            once(url, made["id"])
            seconds = time.monotonic() - start
            wait_for(lambda: family(worker.pid) == [worker.pid])  # the run's process is gone
            files = open_files(worker.pid)
            found.append({"seconds": seconds, "worker_mb": memory_mb(worker.pid), "worker_files": files})
            print(found[-1], file=sys.stderr)
    finally:
        worker.terminate()
        worker.wait(300)
    return found


def once(url: str, deployment: str) -> None:
    """One run of a deployment, from the moment it is asked for to its end."""
    body = {"idempotency_key": str(uuid4())}  # asked again, it is the same run
    run = wait_for(lambda: asked("POST", f"{url}/deployments/{deployment}/create_flow_run", body))["id"]

    def ended() -> Any:
        found = asked("GET", f"{url}/flow_runs/{run}")
        return found and found["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} and found["state"]

    state = wait_for(ended)
    assert state["type"] == "COMPLETED", state


def read_rows(path: Path) -> list[dict[str, float]]:
    """A CSV file of numbers."""
    with path.open(newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def page(rows: list[dict[str, float]], sums: dict[str, float], deployed: list[dict[str, Any]], left: list[str]) -> str:
    """What was measured, in tables."""
    runs = len(rows)
    moments = sorted({min(moment, runs) for moment in (1, 10, WARM, runs // 2, runs)})
    lines = [
        "# Runs back to back\n",
        f"Written by `python benchmarks/soak.py --runs {runs} --deployed {len(deployed)}`: runs on `data/pbcseq` (312 "
        f"patients, 1,945 visits, {RUN['synthesizer']['steps']} steps, {RUN['output']['rows']} synthetic rows) in one "
        "process, by the flow that a worker runs for a deployment, on a Prefect server of their own; "
        f"`synth runs --prune --keep {KEPT}` after each as if an hour had passed; from run {runs // 2 + 1} on, what "
        f"Prefect knows of all but the latest {KNOWN} runs is dated back by a year, so that the server's own retention "
        f"removes it. *A run* is the slope of a straight line through runs {WARM} to {runs} with twice its standard "
        f"error; for Prefect's database, through runs {WARM} to {runs // 2}, before anything is removed, and through "
        f"runs {runs * 3 // 4} to {runs}. {platform.machine()}, {os.cpu_count()} shared cores, Python "
        f"{platform.python_version()}.\n",
        "| after run | " + " | ".join(map(str, moments)) + " | a run |",
        "|---|" + "---|" * (len(moments) + 1),
    ]
    for name, words in GROWING.items():
        values = " | ".join(f"{rows[moment - 1][name]:,.6g}" for moment in moments)
        if name.startswith("prefect"):
            growth = f"{slope(rows, name, WARM, runs // 2)}; then {slope(rows, name, runs * 3 // 4, runs)}"
        else:
            growth = slope(rows, name, WARM, runs)
        lines.append(f"| {words} | {values} | {growth} |")
    lines += [
        "",
        f"The ledger holds {sums['entries']:,.0f} entries of {sums['runs']:.0f} runs. By hand from the entries, μ = "
        f"√(Σ μ²) = {sums['mu']:.9f}, which is ε = {sums['by_hand']:.9f} at δ = {sums['delta']:g}; the ledger says "
        f"{sums['ledger']:.6f}, rounded up: {'exact' if is_exact(sums) else 'WRONG'}.\n",
        f"In the temporary folder, at the end: {', '.join(left) or 'nothing'}.\n",
    ]
    if deployed:
        lines += [
            f"A worker then did {len(deployed)} runs of a deployment, a process each, of which none was left:\n",
            "| run | seconds | memory of the worker, MB | its open files |",
            "|---|---|---|---|",
            *(
                f"| {number} | {one['seconds']:.0f} | {one['worker_mb']:.1f} | {one['worker_files']} |"
                for number, one in enumerate(deployed, 1)
            ),
            "",
        ]
    return "\n".join(lines)


def is_exact(sums: dict[str, float]) -> bool:
    """Whether the ledger's ε is the one by hand, rounded up to six decimals; 1e-9 is left to the root finder."""
    return -1e-9 <= sums["ledger"] - sums["by_hand"] <= 1e-6 + 1e-9


def slope(rows: list[dict[str, float]], name: str, first: int, last: int) -> str:
    """Growth a run with twice its standard error, over some runs."""
    some = [row for row in rows if first <= row["run"] <= last]
    if len(some) < 3:
        return "–"
    run, value = (np.array([row[key] for row in some]) for key in ("run", name))
    design = np.stack([run - run.mean(), np.ones_like(run)], axis=1)
    found, *_ = np.linalg.lstsq(design, value, rcond=None)
    spread = math.sqrt(
        float(((value - design @ found) ** 2).sum()) / (len(some) - 2) / float((design[:, 0] ** 2).sum())
    )
    return f"{found[0]:+.3g} ± {2 * spread:.1g}" if abs(found[0]) > NOTHING else "0"


if __name__ == "__main__":
    main()
