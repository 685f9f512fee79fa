"""Runs on a schedule, with a real Prefect server and a real worker: paid for, refused, killed, and free of values.

The server and the worker are processes of their own, started once. What happened to them is told by the fixture
`history`; the tests look at what is left.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from operations import Operations, call, signal_all_of, wait_for

from pipelines.endings import ALREADY_RAN, SLOT_PASSED
from synth.privacy.ledger import Ledger
from synth.release import examine

TEXT, IDENTIFIER, WHOLE = "zq-canary-text", "zq-canary-id", 7393911331739391
FOLDER = "zq-source-folder"
TOKEN = "zq-webhook-token"
POOL = ("--work-pool", "nightly")


@dataclass
class History:
    """What was done, in this order, and how it ended."""

    operations: Operations
    clinic: Any
    deployed: list[Any] = field(default_factory=list)  # JSON of `synth deploy`, the same run.yaml each time
    slots: list[dict[str, Any]] = field(default_factory=list)
    first: tuple[str, str, str] = ("", "", "")
    doctor: list[Any] = field(default_factory=list)  # without a worker; and as if the schedule had made no runs
    flow_run: str = ""  # id of the first
    again: tuple[str, str, str] = ("", "", "")  # the same flow run, set back to scheduled
    waiting: str = ""  # state of the third while the second was at work
    dead: dict[str, Any] = field(default_factory=dict)  # the account when the worker and the second had been killed
    crashed: tuple[str, str, str] = ("", "", "")  # the second, which said no more
    third: tuple[str, str, str] = ("", "", "")
    refused: tuple[str, str, str] = ("", "", "")
    passed: tuple[str, str, str] = ("", "", "")
    drawn: list[tuple[str, str, str]] = field(default_factory=list)
    unapproved: Any = None
    drifted: tuple[str, str, str] = ("", "", "")
    notices: list[dict[str, str]] = field(default_factory=list)  # as a webhook was told of them


def account(clinic: Any) -> dict[str, Any]:
    return dict(json.loads(call("budget", "show", "clinic-patients", "--ledger", clinic.ledger_url, "--json").stdout))


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory, clinic_at: Any, home: Path, every_answer: str
) -> Iterator[History]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("deploy")
    notices: list[dict[str, str]] = []
    hook = webhook(notices)
    operations = Operations(folder, f"http://127.0.0.1:{hook.server_port}/{TOKEN}")
    try:
        operations.serve()
        told = History(operations, prepared(clinic_at(folder / "clinic"), every_answer), notices=notices)
        with temporary_settings({PREFECT_API_URL: operations.url}), pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.deployment.DEAD_AFTER", timedelta(seconds=75))  # beats come every 30
            live(told, prepared(clinic_at(folder / "drifting"), every_answer))
        yield told
    finally:
        hook.shutdown()
        hook.server_close()
        operations.end()


def webhook(notices: list[dict[str, str]]) -> http.server.HTTPServer:
    """Somebody who takes notices, until it is shut down."""

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notices.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    return hook


def prepared(clinic: Any, every_answer: str) -> Any:
    """A canary of each kind in the source, which has a folder of its own; and every question is answered."""
    (clinic.folder / FOLDER).mkdir()
    for name, value in (("patient_nbr", IDENTIFIER), ("age", WHOLE), ("sex", TEXT), ("note", TEXT)):
        values = clinic.table[name].to_pylist()
        values[5] = value
        clinic.put(name, values, clinic.table[name].type)
    clinic.run["source"] = {"path": f"{FOLDER}/patients.parquet"}
    clinic.write()
    clinic.source.replace(clinic.folder / FOLDER / "patients.parquet")
    (clinic.folder / "answers.yaml").write_text(every_answer)
    return clinic


def live(told: History, drifting: Any) -> None:
    from prefect.blocks.system import Secret

    operations, clinic = told.operations, told.clinic
    call("budget", "cap", "clinic-patients", 1.9, "--ledger", clinic.ledger_url)  # three runs of ε = 1
    for cron in ("0 3 * * 0", "30 4 * * 0", "30 4 * * 0"):
        asked = ("--cron", cron, "--timezone", "Europe/Berlin", *POOL, "--json")
        told.deployed.append(call("deploy", clinic.run_yaml, *asked))
    deployment = json.loads(told.deployed[-1].stdout)["id"]
    told.slots = wait_for(lambda: operations.slots(deployment), "the schedule: SQLAlchemy below 2.1?", 120)
    told.doctor = [call("doctor", "--ledger", clinic.ledger_url, "--json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.deployment.SCHEDULED_AFTER", timedelta(0))
        patch.setattr("pipelines.deployment.SyncPrefectClient.read_flow_runs", lambda *_, **__: [])
        told.doctor.append(call("doctor", "--ledger", clinic.ledger_url, "--json"))

    worker = operations.worker("ada")
    told.flow_run = flow_run = operations.trigger(deployment)
    told.first = operations.ended(flow_run)
    operations.ask("POST", f"/flow_runs/{flow_run}/set_state", {"state": {"type": "SCHEDULED"}, "force": True})
    wait_for(lambda: operations.state(flow_run)["name"] != "Completed", "the retry")
    told.again = operations.ended(flow_run)

    quick = clinic.run_yaml.read_text()
    clinic.run["synthesizer"] |= {"steps": 100_000, "members": 16}  # long enough to be caught at work
    clinic.run_yaml.write_text(json.dumps(clinic.run))
    second = operations.trigger(deployment)
    ledger = Ledger.open(clinic.ledger_url)
    before = sum(entry.kind == "settle" for entry in ledger.history())
    wait_for(
        lambda: (
            (kinds := [entry.kind for entry in ledger.history()]).count("reserve") == before + 1
            and "spend" in kinds[len(kinds) - kinds[::-1].index("reserve") :]
        ),
        "the second run's first draw",
    )
    signal_all_of(worker, signal.SIGSTOP)
    worker.send_signal(signal.SIGCONT)  # the worker goes on, its run stands still
    clinic.run_yaml.write_text(quick)
    third = operations.trigger(deployment)
    told.waiting = wait_for(lambda: (name := operations.state(third)["name"]) != "Scheduled" and name, "the third run")
    signal_all_of(worker, signal.SIGKILL)
    told.dead = account(clinic)

    operations.worker("grace")
    told.crashed = operations.ended(second)
    told.third = operations.ended(third)
    told.refused = operations.ended(operations.trigger(deployment))
    told.passed = pass_by(told, deployment)
    resample(told)
    Secret(value=FOLDER).save("drifting-folder")  # the variable is set nowhere
    drifting.run["source"]["path"] = "${DRIFTING_FOLDER}/patients.parquet"
    drifting.run_yaml.write_text(json.dumps(drifting.run))
    made = call("deploy", drifting.run_yaml, "--cron", "0 3 * * 0", *POOL, "--name", "drift", "--json")
    assert os.environ.pop("DRIFTING_FOLDER") == FOLDER
    source = drifting.folder / FOLDER / "patients.parquet"
    pq.write_table(pq.read_table(source).drop_columns(["sex"]), source)
    told.drifted = operations.ended(operations.trigger(json.loads(made.stdout)["id"]))


def pass_by(told: History, deployment: str) -> tuple[str, str, str]:
    """Move two slots of the schedule into the past, as if no worker had been there, and let one take the older."""
    operations = told.operations
    older, newer = (run["id"] for run in operations.slots(deployment)[:2])
    with closing(sqlite3.connect(operations.database, timeout=60)) as database:
        for flow_run, hours in ((older, 2), (newer, 1)):
            due = (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M:%S.000000")
            database.execute("UPDATE flow_run SET expected_start_time = ? WHERE id = ?", (due, flow_run))
        database.commit()
    now = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    operations.ask("POST", f"/flow_runs/{older}/set_state", {"state": now, "force": True})
    return operations.ended(older)


def resample(told: History) -> None:
    clinic, operations = told.clinic, told.operations
    bundle = Path(told.first[2].rpartition("candidate ")[2])
    asked = ("deploy", clinic.run_yaml, "--cron", "0 5 * * *", *POOL, "--resample-only", "--bundle", bundle)
    told.unapproved = call(*asked)
    call("key", "new", clinic.folder / "ada.key")
    approved = call("approve", bundle, "--by", "Ada", "--key", clinic.folder / "ada.key", "--ledger", clinic.ledger_url)
    assert approved.exit_code == 0, approved.output
    made = call(*asked, "--json")
    assert made.exit_code == 0, made.output
    for _ in range(2):
        told.drawn.append(operations.ended(operations.trigger(json.loads(made.stdout)["id"])))


def test_a_deployment_is_made_once_and_then_brought_up_to_date(history: History) -> None:
    assert [done.exit_code for done in history.deployed] == [0, 0, 0], history.deployed
    first, *others = [json.loads(done.stdout) for done in history.deployed]
    assert first["deployment"] == "synth-scheduled/clinic"
    assert {other["id"] for other in others} == {first["id"]}
    held = history.operations.ask("GET", f"/deployments/{first['id']}")
    (schedule,) = held["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("30 4 * * 0", "Europe/Berlin")
    assert held["parameters"] == {"run_file": str(history.clinic.run_yaml), "ledger": history.clinic.ledger_url}
    assert held["work_pool_name"] == "nightly"
    assert history.operations.ask("GET", "/work_pools/nightly")["type"] == "process"
    queue = history.operations.ask("GET", f"/work_pools/nightly/queues/{held['work_queue_name']}")
    assert (queue["name"], queue["concurrency_limit"]) == ("clinic-patients", 1)
    assert len(history.operations.ask("POST", "/automations/filter", {})) == 1


def test_the_schedule_makes_runs_of_its_own(history: History) -> None:
    """Prefect's scheduler fails, and says so in its own log alone, with libraries that do not fit it."""
    expected = [datetime.fromisoformat(slot["expected_start_time"]) for slot in history.slots]
    printed = [datetime.fromisoformat(date) for date in json.loads(history.deployed[-1].stdout)["next"]]
    assert expected[: len(printed)] == printed
    assert all((date.isoweekday(), date.minute) == (7, 30) for date in expected)


def test_the_doctor_sees_schedules_that_would_not_run(history: History) -> None:
    checks = [next(c for c in json.loads(d.stdout)["checks"] if c["name"] == "prefect") for d in history.doctor]
    assert [check["ok"] for check in checks] == [False, False]
    assert checks[0]["remedy"] == "no worker is at work pool nightly: prefect worker start --pool nightly"
    assert checks[1]["remedy"].endswith("makes no runs: install the server from constraints.txt too")


def test_what_the_cap_leaves_is_said_beforehand(history: History) -> None:
    assert json.loads(history.deployed[0].stdout)["runs_left"] == 3
    assert "leaves 3 such runs, the last on 20" in history.deployed[0].stderr


def test_a_run_completes_and_says_what_it_cost(history: History) -> None:
    kind, name, message = history.first
    assert (kind, name) == ("COMPLETED", "Completed")
    spent, _, bundle = message.partition("; candidate ")
    assert spent == (
        "ε=1 at δ=1e-05 spent; clinic-patients has spent ε=1 in all; left: ε=1.542051 of 1.9; room for 2 more such runs"
    )
    assert examine(Path(bundle), ledger=Ledger.open(history.clinic.ledger_url)).approved  # later, by Ada
    artifacts = history.operations.ask("POST", "/artifacts/filter", {"sort": "ID_DESC"})
    first = next(one["data"] for one in artifacts if bundle in one["data"])
    assert {one["key"] for one in artifacts} == {"synth-clinic"}
    assert "| ε, δ of this run | 1, 1e-05 |" in first
    assert "| left under the cap | ε=1.542051 of 1.9; room for 2 more such runs |" in first


def test_a_slot_runs_once(history: History) -> None:
    assert history.again == ("FAILED", *ALREADY_RAN)
    assert history.operations.ended(history.flow_run) == history.again  # and so it stays: it is not taken for dead


def test_runs_on_the_same_people_wait_for_each_other(history: History) -> None:
    assert history.waiting == "Late"


def test_a_killed_run_stays_spent_and_the_next_one_works(history: History) -> None:
    assert len(history.dead["charged_runs"]) == 2 and len(history.dead["open_runs"]) == 1
    (dead,) = history.dead["open_runs"]
    assert history.crashed == ("CRASHED", "Crashed", "no sign of life; what was reserved stays spent")
    assert history.third[:2] == ("COMPLETED", "Completed"), history.third
    assert {path.name for path in (history.clinic.out / dead).iterdir()} == {"internal"}  # its working files are gone
    after = account(history.clinic)
    assert len(after["charged_runs"]) == 3 and after["open_runs"] == [dead]


def test_the_run_after_the_last_one_is_refused_by_name(history: History) -> None:
    kind, name, message = history.refused
    assert (kind, name) == ("FAILED", "RefusedByBudget")
    assert "its cap is epsilon 1.9 " in message and message.endswith("; nothing was spent")
    assert len(account(history.clinic)["charged_runs"]) == 3


def test_slots_that_no_worker_took_are_not_made_up_for(history: History) -> None:
    assert history.passed == ("CANCELLED", *SLOT_PASSED)


def test_fresh_rows_go_on_without_budget(history: History) -> None:
    assert history.unapproved.exit_code == 1 and "NOT approved" in str(history.unapproved.exception)
    assert [state[:2] for state in history.drawn] == [("COMPLETED", "Completed")] * 2
    files = [Path(state[2].rpartition("; ")[2]) for state in history.drawn]
    assert len(set(files)) == 2
    assert set((history.clinic.out / "resampled").iterdir()) == set(files)
    one, other = (pq.read_table(file) for file in files)
    assert one.num_rows == other.num_rows > 0 and not one.equals(other)
    assert len(account(history.clinic)["charged_runs"]) == 3


def test_a_source_that_has_changed_is_refused_by_name(history: History) -> None:
    kind, name, message = history.drifted
    assert (kind, name) == ("FAILED", "SourceRefused")
    assert message.endswith("; nothing was spent") and "sex" not in message and FOLDER not in message


def test_a_webhook_is_told_how_runs_end(history: History) -> None:
    ends = [history.first, history.again, history.third, history.refused, *history.drawn, history.drifted]
    heard = wait_for(lambda: len(history.notices) == len(ends) and history.notices, "the last notice")
    assert [(notice["state"], notice["message"]) for notice in heard] == [(name, message) for _, name, message in ends]
    assert {notice["flow"] for notice in heard} == {"synth-scheduled", "synth-resample"}
    for notice in heard:
        assert set(notice) == {"flow", "flow_run", "state", "message", "text"}
        assert notice["text"] == f"{notice['flow']} {notice['flow_run']}: {notice['state']}: {notice['message']}"


def test_nothing_is_retried(history: History) -> None:
    runs = history.operations.ask("POST", "/flow_runs/filter", {})
    assert {run["empirical_policy"]["retries"] for run in runs} <= {0, None}
    assert sum(run["run_count"] > 1 for run in runs) == 1  # the one that was set back by hand


def test_prefect_knows_nothing_of_the_source(history: History) -> None:
    with closing(sqlite3.connect(history.operations.database, timeout=60)) as database:
        known = "\n".join(database.iterdump())
    assert str(history.clinic.run_yaml) in known  # what it may know
    for canary in (TEXT, IDENTIFIER, str(WHOLE), FOLDER, "patients.parquet", TOKEN):
        assert canary not in known, canary
    printed = "".join(log.read_text() for log in history.operations.folder.glob("*.log"))
    assert "seal: the bundle is complete" in printed
    for canary in (TEXT, IDENTIFIER, str(WHOLE), TOKEN):
        assert canary not in printed, canary


def test_a_cancelled_run_stays_spent(clinic: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Prefect raises in a flow that is cancelled, after the first draw."""
    from prefect.exceptions import TerminationSignal

    def cancelled(folder: Any) -> None:
        raise TerminationSignal(signal.SIGTERM)

    monkeypatch.setattr("synth.stages.train", cancelled)
    with pytest.raises(TerminationSignal):
        quick_run(clinic.run_yaml)
    (run,) = clinic.out.iterdir()
    assert account(clinic)["open_runs"] == [run.name]
    assert {path.name for path in run.iterdir()} == {"internal", "private"}  # noised, for --resume
    assert not (run / "private" / "encoded.arrow").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--cron", "0 3 * *"], "--cron '0 3 * *': is no schedule"),
        (["--cron", "0 0 30 2 *"], "never comes"),
        (["--cron", "0 3 * * 0", "--timezone", "Mars/Base"], "--timezone Mars/Base"),
        (["--cron", "0 3 * * 0", "--bundle", "."], "--bundle goes with --resample-only"),
        (["--cron", "0 3 * * 0", "--resample-only"], "needs --bundle"),
        (["--cron", "0 3 * * 0", "--name", "a/b"], "--name 'a/b'"),
        (["--cron", "0 3 * * 0", "--ledger", "postgresql://u:secret@h/d"], "${LEDGER_URL}"),
        (["--cron", "0 3 * * 0"], "no Prefect server is named; start one with `prefect server start`"),
    ],
)
def test_mistakes_are_told_in_one_line(clinic: Any, synth: Any, options: list[str], word: str) -> None:
    outcome = synth("deploy", clinic.run_yaml, *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert word in outcome.err and "secret" not in outcome.err
    assert not clinic.out.exists()


def test_a_server_that_does_not_answer(clinic: Any, synth: Any) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with temporary_settings({PREFECT_API_URL: f"http://ada:secret@127.0.0.1:{port}/api"}):
        outcome = synth("deploy", clinic.run_yaml, "--cron", "0 3 * * 0")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"no Prefect server answers at http://127.0.0.1:{port} (" in outcome.err.splitlines()[-1]
    assert "prefect server start" in outcome.err and "secret" not in outcome.err


def test_a_server_that_wants_a_password(clinic: Any, synth: Any) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as guarded:
        threading.Thread(target=guarded.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{guarded.server_port}/api"}):
            outcome = synth("deploy", clinic.run_yaml, "--cron", "0 3 * * 0")
        guarded.shutdown()
    assert outcome.code == 2
    assert "PREFECT_API_AUTH_STRING" in outcome.err.splitlines()[-1]


def test_a_run_that_would_be_refused_is_not_scheduled(clinic: Any, synth: Any) -> None:
    synth("budget", "cap", "clinic-patients", 0.5, "--ledger", clinic.ledger_url)
    assert synth("deploy", clinic.run_yaml, "--cron", "0 3 * * 0").code == 3
