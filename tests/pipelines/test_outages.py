"""A Prefect server or a PostgreSQL that dies in the middle of a run: nothing is overspent or half-published.

PostgreSQL is the ledger and the source; it, the Prefect server and the worker are processes of their own, started once.
It dies by an immediate shutdown, which clients are told of, or by SIGKILL for all of its processes, which nobody is.
The moments are told by the ledger, by the run's folder and by who waits for a lock. What happened is told by the
fixture `outages`; the tests look at what is left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from operations import Operations, call, family, signal_all_of, wait_for

from synth.privacy.accounting import mu_of
from synth.privacy.ledger import Ledger
from synth.privacy.ledger_postgres import LOCK
from synth.release import examine

KINDS = {"int64": "bigint", "double": "double precision", "timestamp[us]": "timestamp", "bool": "boolean"}
FIT = {"steps": 800}  # long enough to be caught at work


@dataclass
class Outages:
    """What was done, in this order, and how each run ended."""

    clinic: Any
    ledger: Ledger
    alone: bool = False  # whether the first run had its bundle while no server was there
    ends: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)  # which run each was
    accounts: dict[str, Any] = field(default_factory=dict)  # the population's account, when each had ended
    pointed: dict[str, str] = field(default_factory=dict)  # what `latest` said then

    @property
    def reserved(self) -> int:
        return sum(entry.kind == "reserve" for entry in self.ledger.history())

    @property
    def newest(self) -> Any:
        """The latest reservation, as it stands."""
        return self.ledger.run([entry.run_id for entry in self.ledger.history() if entry.kind == "reserve"][-1])


@pytest.fixture(scope="module")
def outages(tmp_path_factory: Any, clinic_at: Any, home: Path, postgres_cluster: Any) -> Iterator[Outages]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("outages")
    clinic = clinic_at(folder / "clinic")
    clinic.run |= {
        "source": {"url": "${CLINIC_DB}", "query": "select * from patients"},
        "ledger": {"url": "${LEDGER_DB}"},
    }
    clinic.run["synthesizer"] |= FIT
    clinic.write()
    clinic.source.unlink()
    operations = Operations(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLINIC_DB", f"{postgres_cluster.url}/clinic")
        patch.setenv("LEDGER_DB", f"{postgres_cluster.url}/ledger")
        fill(postgres_cluster, clinic)
        told = Outages(clinic, Ledger.open(f"{postgres_cluster.url}/ledger"))
        told.ledger.set_cap("clinic-patients", 3.0, 1e-5)
        try:
            operations.serve()
            with temporary_settings({PREFECT_API_URL: operations.url}):
                live(told, operations, postgres_cluster)
            yield told
        finally:
            operations.end()


def fill(cluster: Any, clinic: Any) -> None:
    """The clinic's table in a database, and an empty database for the ledger."""
    with closing(psycopg.connect(f"{cluster.url}/postgres", autocommit=True)) as server:
        for name in ("clinic", "ledger"):
            server.execute(f"CREATE DATABASE {name}")
    with closing(psycopg.connect(f"{cluster.url}/clinic", autocommit=True)) as database:
        columns = ", ".join(f"{field.name} {KINDS.get(str(field.type), 'text')}" for field in clinic.table.schema)
        database.execute(f"CREATE TABLE patients ({columns})")
        with database.cursor() as cursor, cursor.copy("COPY patients FROM STDIN") as copy:
            for row in clinic.table.to_pylist():
                copy.write_row(tuple(row.values()))


def live(told: Outages, operations: Operations, cluster: Any) -> None:
    made = call("deploy", told.clinic.run_yaml, "--cron", "0 3 1 1 *", "--work-pool", "nightly", "--json")
    assert made.exit_code == 0, made.output
    deployment = json.loads(made.stdout)["id"]
    worker = operations.worker("ada")

    def end(what: str, flow_run: str) -> None:
        told.ends[what] = operations.ended(flow_run)
        told.runs[what] = told.newest.run_id
        told.accounts[what] = told.ledger.population("clinic-patients")
        pointer = told.clinic.out / "latest"
        told.pointed[what] = pointer.read_text().strip() if pointer.exists() else ""

    flow_run = at_work(told, operations, worker, deployment)
    operations.kill_server()
    kill(cluster)
    cluster.start()
    bundle = told.clinic.out / told.newest.run_id / "bundle"
    assert not bundle.exists()
    signal_all_of(worker, signal.SIGCONT)
    told.alone = wait_for(bundle.exists, "the run's bundle")
    assert operations.serve_again() == "healthy"
    end("both came back", flow_run)

    end("no source", without_source(told, operations, cluster, deployment, cluster.stop))
    end("source killed", without_source(told, operations, cluster, deployment, lambda: kill(cluster)))

    flow_run = at_work(told, operations, worker, deployment)
    kill(cluster)
    signal_all_of(worker, signal.SIGCONT)
    wait_for(lambda: operations.state(flow_run)["type"] != "RUNNING", "the end of the run")
    cluster.start()
    end("no ledger", flow_run)

    end("next slot", operations.trigger(deployment))


def at_work(told: Outages, operations: Operations, worker: Any, deployment: str) -> str:
    """A run that has drawn all its noise, and stands still; the worker does not."""
    before = told.reserved
    flow_run = operations.trigger(deployment)
    wait_for(lambda: told.reserved > before and not told.newest.unspent, "the last draw")
    signal_all_of(worker, signal.SIGSTOP)
    worker.send_signal(signal.SIGCONT)
    return flow_run


def without_source(
    told: Outages, operations: Operations, cluster: Any, deployment: str, die: Callable[[], None]
) -> str:
    """A run whose database dies while it waits for its first row.

    It is held up where it reserves, until its source is locked too.
    """
    with closing(psycopg.connect(f"{cluster.url}/ledger")) as book:
        book.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        before, flow_run = told.reserved, operations.trigger(deployment)
        wait_for(lambda: waits(cluster), "the run's reservation")
        with closing(psycopg.connect(f"{cluster.url}/clinic")) as source:
            source.execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
            book.rollback()
            wait_for(lambda: told.reserved > before and waits(cluster), "the run's first row")
            die()
    wait_for(lambda: operations.state(flow_run)["type"] != "RUNNING", "the end of the run")
    cluster.start()
    return flow_run


def kill(cluster: Any) -> None:
    """SIGKILL for PostgreSQL and all of its processes: none of them writes or says anything any more."""
    number = cluster.folder / "data" / "postmaster.pid"
    all_of_it = family(int(number.read_text().split()[0]))
    assert len(all_of_it) > 1
    for pid in all_of_it:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(living(pid) for pid in all_of_it), "the end of PostgreSQL")
    # Nobody may have reaped it yet, and then its number in these would be taken for a living server's.
    for left in (number, *cluster.folder.glob(".s.PGSQL.*")):
        left.unlink()


def living(pid: int) -> bool:
    """Whether a process runs, and is not only waiting to be reaped."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(listed.strip()) and not listed.strip().startswith("Z")


def waits(cluster: Any) -> bool:
    """Whether anybody waits for a lock."""
    with closing(psycopg.connect(f"{cluster.url}/postgres")) as server:
        found = server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return found is not None and found[0] > 0


def test_a_run_goes_on_while_the_server_is_away_and_tells_it_later(outages: Outages) -> None:
    assert outages.alone
    assert outages.ends["both came back"][:2] == ("COMPLETED", "Completed"), outages.ends


@pytest.mark.parametrize(
    ("what", "ending"),
    [("no source", "SourceRefused"), ("source killed", "SourceRefused"), ("no ledger", "LedgerUnavailable")],
)
def test_a_run_that_needs_a_dead_database_fails_and_stays_spent(outages: Outages, what: str, ending: str) -> None:
    kind, name, message = outages.ends[what]
    assert (kind, name) == ("FAILED", ending), outages.ends
    assert message.endswith("; what was reserved stays spent")
    assert outages.ledger.run(outages.runs[what]).state == "open"


def test_the_next_slot_runs(outages: Outages) -> None:
    assert outages.ends["next slot"][:2] == ("COMPLETED", "Completed"), outages.ends


def test_nothing_is_overspent(outages: Outages) -> None:
    entries = outages.ledger.history()
    kinds = Counter((entry.run_id, entry.kind) for entry in entries if entry.run_id)
    assert len({run for run, _ in kinds}) == 5 == len(set(outages.runs.values()))
    assert {count for (_, kind), count in kinds.items() if kind != "spend"} == {1}
    assert {run for run, kind in kinds if kind == "settle"} == set(finished(outages).values())
    assert outages.ledger.verify_chain() == len(entries)
    one = mu_of(1.0, 1e-5)
    for number, account in enumerate(outages.accounts.values(), 1):
        assert account.candidates == number  # each reservation counts, and none twice
        assert account.mu == pytest.approx(one * number**0.5, rel=1e-9)


def test_nothing_is_half_published(outages: Outages) -> None:
    whole = finished(outages)
    bundles = {path.parent.name: path for path in outages.clinic.out.glob("*/bundle")}
    assert bundles.keys() == set(whole.values())
    for bundle in bundles.values():
        assert examine(bundle, ledger=outages.ledger).state == "candidate"
    first, last = (f"{run}/bundle" for run in whole.values())
    assert [*outages.pointed.values()] == [first, first, first, first, last]


def test_nothing_of_the_rows_is_left(outages: Outages) -> None:
    assert not [*outages.clinic.out.glob("*/private")]
    assert {path.name for path in outages.clinic.out.iterdir()} == {"latest", *outages.runs.values()}


def finished(outages: Outages) -> dict[str, str]:
    return {what: outages.runs[what] for what in ("both came back", "next slot")}
