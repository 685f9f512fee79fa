"""Processes that use one ledger and nothing else: many at once, or one that is killed at a chosen database call.

    python ledger_children.py race URL COUNT      exit codes of COUNT processes that reserve at the same moment
    python ledger_children.py kill URL            what every possible kill leaves behind

Both fork from here, so that a child costs milliseconds, and print JSON.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from synth.errors import PrivacyRefusal, SynthError
from synth.privacy import ledger_postgres, ledger_table
from synth.privacy.accounting import mu_of
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger

# Who comes last waits for all others; on a slow machine with a slow disk, longer than a user would.
ledger_table.LOCK_TIMEOUT_SECONDS = 600.0
ledger_postgres.CONNECT_TIMEOUT_SECONDS = 600

EVENT = GaussianEvent(name="r", sensitivity=1, replace_one_sensitivity=1, noise_scale=1 / mu_of(1, 1e-5))


def reserve(ledger: Ledger, run_id: str) -> None:
    ledger.reserve(population="patients", dataset="d", run_id=run_id, events=[EVENT], delta=1e-5)


def forked(work: Callable[[], None]) -> int:
    """Do the work in a process of its own; its id. The process ends with the exit code of the work's error."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        work()
        code = 0
    except SynthError as error:
        code = error.exit_code
        sys.stderr.write(f"{error}\n")
    finally:
        os._exit(code)


def race(url: str, count: int) -> list[int]:
    gate, open_gate = os.pipe()

    def run(number: int) -> None:
        os.close(open_gate)
        os.read(gate, 1)  # returns when the last writer has closed its end
        ledger = Ledger.open(url)
        reserve(ledger, f"run {number}")
        ledger.spend(f"run {number}", EVENT)

    children = [forked(lambda number=number: run(number)) for number in range(count)]
    os.close(open_gate)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def life(url: str, mark: Callable[[str], None]) -> None:
    """A run's whole account. `mark` notes each answer that the caller got to act on."""
    ledger = Ledger.open(url)
    reserve(ledger, "killed")
    mark("granted")
    ledger.spend("killed", EVENT)
    mark("drawn")
    ledger.settle("killed")
    mark("settled")


def kill_at(number: int, say: Callable[[str], None]) -> None:
    """From now on, let this process die before or after its n-th database call, naming the place."""
    calls = 0

    def boundary(place: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            say(f"place {' '.join(place.split())[:60]}")
            os.kill(os.getpid(), signal.SIGKILL)

    engine = sa.engine.Engine
    sa.event.listen(engine, "before_cursor_execute", lambda *a: boundary(f"before {a[2]}"))
    sa.event.listen(engine, "after_cursor_execute", lambda *a: boundary(f"after {a[2]}"))
    sa.event.listen(engine, "commit", lambda *_: boundary("before commit"))
    sa.event.listen(sa.pool.Pool, "checkin", lambda *_: boundary("after commit"))


def empty(url: str) -> None:
    if url.startswith("sqlite"):
        for path in Path(url.removeprefix("sqlite:///")).parent.glob("ledger.db*"):
            path.unlink()
        return
    connected(url).execute("DROP SCHEMA IF EXISTS synth_ledger CASCADE")


@functools.cache
def connected(url: str) -> Any:
    import psycopg

    return psycopg.connect(url, autocommit=True)


def killed(url: str, number: int, reader: Ledger) -> dict[str, object]:
    """Kill a run at its n-th database call, and say what it knew and what the ledger says."""
    empty(url)
    reading, writing = os.pipe()

    def run() -> None:
        def say(line: str) -> None:
            os.write(writing, f"{line}\n".encode())

        kill_at(number, say)
        life(url, say)

    child = forked(run)
    os.close(writing)
    with os.fdopen(reading) as stream:
        lines = stream.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    account = reader.population("patients")
    charged = account.charged if account else ()
    ledger = Ledger.open(url)
    reserve(ledger, "retry")  # nothing is left locked
    try:
        ledger.void("killed")
        voided = True
    except PrivacyRefusal:
        voided = False
    return {
        "code": code,
        "place": next((line.removeprefix("place ") for line in lines if line.startswith("place ")), None),
        "knew": [line for line in lines if not line.startswith("place ")],
        "charged": [run.run_id for run in charged],
        "epsilon": account.epsilon if account else 0.0,
        "spent": sum(len(run.spent) for run in charged),
        "could_be_voided": voided,
        "entries": ledger.verify_chain(),
    }


def main() -> None:
    what, url, *rest = sys.argv[1:]
    if what == "race":
        print(json.dumps(race(url, int(rest[0]))))
        return
    found: list[dict[str, object]] = []
    reader = Ledger.open(url, create=False)
    while not found or found[-1]["code"] == -signal.SIGKILL:
        found.append(killed(url, len(found) + 1, reader))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
