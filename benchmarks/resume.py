"""Kill runs at random moments, resume them, and look whether they are what they would have been.

    python benchmarks/resume.py [--trials 50] [--seed 1] [--prefect] [--out benchmarks]

Each trial is a real `synth run` on the visits of `data/pbcseq`, in a process of its own, killed by SIGKILL: in turn a
random time after its first line, and before a random one of all the files that it opens for writing, renames or deletes
(what lies on disk changes nowhere else). Then `synth run --resume`, of which a third is killed again, up to three times
in all. Every tenth trial has a critic trained by DP-SGD. Without `--prefect` the flow runs by its own wiring alone:
Prefect's engine takes most of the time, and writes nothing into a run's folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import cli, quiet
from synth.config import load_run
from synth.prepare import events_of
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("reserve", "encode", "measure", "train", "refine", "sample", "audit", "evaluate", "settle", "seal")
SYNTHESIZER = {"members": 2, "steps": 30, "latent_points": 16, "hidden_size": 16}
CHECKPOINT_EVERY = 10
CRITIC = {"critic_share": 0.3, "critic": {"steps": 10, "sample_rate": 0.1}}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
CANARIES = 300
MOST_DEATHS = 3
AGAIN = 1 / 3


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: the signal), what it wrote, and how long it took from its first
    line on: Prefect takes seconds to start before it."""

    code: int
    err: str
    seconds: float


class Clinic:
    """A folder with a run.yaml, its ledger, and a log of who has drawn noise for a release."""

    def __init__(self, folder: Path, *, critic: bool) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("pbcseq.parquet", "schema.yaml"):
            shutil.copy(ROOT / "data" / "pbcseq" / name, folder)
        run = {
            "source": {"path": "pbcseq.parquet"},
            "schema": "schema.yaml",
            "privacy": {"epsilon": 10.0, "delta": 1e-4},
            "synthesizer": SYNTHESIZER | (CRITIC if critic else {}),
            "output": {"directory": "out"},
            "ledger": {"url": "sqlite:///ledger.db"},
        }
        (folder / "run.yaml").write_text(json.dumps(run))

    @property
    def url(self) -> str:
        """Of its ledger."""
        return f"sqlite:///{self.folder / 'ledger.db'}"

    @property
    def draws(self) -> Counter[str]:
        """How many processes have drawn for the releases, and for the critic."""
        log = self.folder / "draws"
        return Counter(log.read_text().split() if log.exists() else [])

    def synth(self, *arguments: str, at_change: int | None = None, at_second: float | None = None) -> Ended:
        """Run `synth …` in a fork, killed before its n-th change of a file, or some seconds after its first line."""
        files = {what: self.folder.parent / f"{what}.txt" for what in ("out", "err")}
        for file in files.values():
            file.write_text("")
        pid = os.fork()
        if pid == 0:
            self._child(arguments, files, at_change)
        started = time.monotonic()
        while os.waitid(os.P_PID, pid, _LOOK) is None:
            if not files["err"].stat().st_size:
                started = time.monotonic()
            if at_second is not None and time.monotonic() - started > at_second:
                os.kill(pid, signal.SIGKILL)  # of no effect on one that has ended
            time.sleep(0.02)
        _, status = os.waitpid(pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), files["err"].read_text(), time.monotonic() - started)

    def _child(self, arguments: tuple[str, ...], files: dict[str, Path], at_change: int | None) -> None:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
        log = os.open(self.folder / "draws", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _tell(log)
        seen = 0

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(args[2], int) and args[2] & WRITES
            if (writes or event in CHANGES) and str(self.folder) in str(args[0]):
                seen += 1
                if seen == at_change:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        sys.argv = ["synth", *arguments]
        code = 1
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stderr.flush()
            os.write(log, f"changes:{seen}\n".encode())
            os._exit(code)


_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _tell(log: int) -> None:
    """Let this process note in the log that it draws for a release, once for each kind."""
    stages: Any = importlib.import_module("synth.tables.stages")
    steps: Any = importlib.import_module("synth.privacy.dp_sgd")
    said: set[str] = set()

    def say(word: str) -> None:
        if word not in said:
            said.add(word)
            os.write(log, f"{word}\n".encode())

    class Telling(NoiseSource):
        def standard_normal(self, count: int) -> Any:
            say("releases")
            return super().standard_normal(count)

    step = steps.PrivateCritic.private_step

    def private_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        say("critic")
        return step(self, *args, **kwargs)

    stages.NoiseSource = Telling
    steps.PrivateCritic.private_step = private_step


def trial(
    clinic: Clinic, chance: np.random.Generator, *, by_time: bool, whole: Ended, changes: int
) -> dict[str, Any] | None:
    """Kill a run, resume it until it is finished or refused; None when it has ended before its moment."""
    run_yaml = str(clinic.folder / "run.yaml")
    if by_time:
        first = clinic.synth("run", run_yaml, at_second=float(chance.uniform(0.0, whole.seconds)))
    else:
        first = clinic.synth("run", run_yaml, at_change=int(chance.integers(1, changes + 1)))
    if first.code != -signal.SIGKILL:
        return None
    deaths, before = 1, account(clinic)
    while True:
        again = (
            {"at_change": int(chance.integers(1, changes + 1))}
            if deaths < MOST_DEATHS and chance.random() < AGAIN
            else {}
        )
        last = clinic.synth("run", run_yaml, "--resume", **again)
        if last.code != -signal.SIGKILL:
            break
        deaths += 1
    outcome = "finished" if last.code == 0 else "never reserved" if before is None and not account(clinic) else "lost"
    return {
        "stage": stage_of(first.err),
        "moment": "time" if by_time else "change",
        "deaths": deaths,
        "outcome": outcome,
        "wrong": list(faults(clinic, outcome, last)),
    }


def without_prefect() -> None:
    """Leave the flow's own wiring, and nothing of Prefect's engine."""
    flow: Any = importlib.import_module("pipelines.flow")
    server: Any = importlib.import_module("pipelines.server")
    for name, value in [*vars(flow).items()]:
        if hasattr(value, "task_key") or name == "synth_run":
            setattr(flow, name, value.fn)
    server.prefect_server = contextlib.nullcontext


def account(clinic: Clinic) -> Any:
    """The population's account; None before anything is reserved."""
    budgets = Ledger.open(clinic.url, create=False).populations()
    return budgets[0] if budgets else None


def stage_of(err: str) -> str:
    """The stage that a run was in, from the last one it has told of: that one, or the next."""
    told = [line.split(":")[0] for line in err.splitlines() if line.split(":")[0] in STAGES]
    return f"{told[-1]} or later" if told else "before reserve"


def faults(clinic: Clinic, outcome: str, last: Ended) -> Any:
    """What is not as the contract has it, in words."""
    ledger, budget, draws = Ledger.open(clinic.url, create=False), account(clinic), clinic.draws
    ledger.verify_chain()
    kinds = Counter(entry.kind for entry in ledger.history())
    if draws["releases"] > 1 or draws["critic"] > 1:
        yield "a release was drawn by two processes"
    if kinds["reserve"] > 1 or kinds["settle"] > 1:
        yield "charged twice"
    if outcome == "finished":
        bundle = Path((clinic.folder.parent / "out.txt").read_text().splitlines()[-1])
        if clinic.synth("verify", str(bundle), "--ledger", clinic.url).code != 0:
            yield "the bundle does not verify"
        if budget.charged[0].state != "settled" or budget.charged[0].unspent:
            yield "the account is not settled"
        if {path.name for path in bundle.parent.iterdir()} != {"bundle", "internal"}:
            yield "working files are left"
    elif last.code != 2 or last.err.count("\n") != 1 or "without --resume" not in last.err:
        yield "not refused by one line"
    elif any((clinic.folder / "out").glob("*/private")):
        yield "working files of a lost run are left"
    if (draws["releases"] or outcome == "finished") and (budget is None or round(budget.epsilon, 2) != 10.0):
        yield "the account shows less than was spent"
    if budget is not None and budget.candidates + len(budget.void) != 1:
        yield "more than one candidate"


def report(rows: list[dict[str, Any]], facts: str) -> str:
    """The outcome as a page."""
    outcomes = ("never reserved", "lost", "finished")
    stages = ["before reserve", *(f"{stage} or later" for stage in STAGES)]
    lines = ["| the killed run had last told of | " + " | ".join(outcomes) + " |", "|---" * 4 + "|"]
    for stage in stages:
        counts = Counter(row["outcome"] for row in rows if row["stage"] == stage)
        if counts:
            lines.append(f"| {stage} | " + " | ".join(str(counts[outcome]) for outcome in outcomes) + " |")
    wrong = Counter(fault for row in rows for fault in row["wrong"])
    deaths = Counter(row["deaths"] for row in rows)
    return "\n".join(
        [
            "# Runs that were killed and resumed",
            "",
            facts,
            "",
            *lines,
            "",
            f"Killed once: {deaths[1]}, twice: {deaths[2]}, three times: {deaths[3]}. *Lost* is a run that was killed "
            "after its first draw and before what it drew was saved whole: it stays spent, and is refused. A run that "
            "is finished was charged once, its releases were drawn by one process alone, its bundle verifies against "
            "its ledger, and no working file is left.",
            "",
            f"Broken promises: {sum(wrong.values())}." + "".join(f" {n} × {fault}." for fault, n in wrong.items()),
            "",
        ]
    )


def main() -> None:
    """Kill, resume, and write resume.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the moments; the runs draw their own noise")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    parser.add_argument("--prefect", action="store_true", help="with Prefect's engine")
    options = parser.parse_args()
    chance = np.random.default_rng(options.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ |= {"PREFECT_HOME": str(place / "prefect"), "XDG_DATA_HOME": str(place / "data")}
        quiet.quiet_prefect()
        for module in ("pipelines.flow", "pipelines.running", "pipelines.server"):
            importlib.import_module(module)
        if not options.prefect:
            without_prefect()
        stages: Any = importlib.import_module("synth.tables.stages")
        stages.audit_of_rows = functools.partial(stages.audit_of_rows, canaries=CANARIES)  # most of a run's time
        train: Any = importlib.import_module("synth.tables.train")
        train.CHECKPOINT_EVERY = CHECKPOINT_EVERY
        whole: dict[bool, tuple[Ended, int]] = {}
        for critic in (False, True):  # the very first run lays out Prefect's database, and takes longer
            for turn in range(1 if critic else 2):
                clinic = Clinic(place / f"whole-{critic}-{turn}" / "clinic", critic=critic)
                events_of(load_run(clinic.folder / "run.yaml"))  # a critic's cost takes long; forks know it from here
                ended = clinic.synth("run", str(clinic.folder / "run.yaml"))
                assert ended.code == 0, ended.err
            whole[critic] = ended, next(int(word[8:]) for word in clinic.draws if word.startswith("changes:"))
        number = 0
        while len(rows) < options.trials:
            critic, by_time = len(rows) % 10 == 9, len(rows) % 2 == 0
            clinic = Clinic(place / f"trial-{number}" / "clinic", critic=critic)
            ended, changes = whole[critic]
            number += 1
            row = trial(clinic, chance, by_time=by_time, whole=ended, changes=changes)
            shutil.rmtree(clinic.folder.parent)
            if row is not None:
                rows.append(row)
                print(len(rows), row, flush=True)
    timed = sum(row["moment"] == "time" for row in rows)
    facts = (
        f"Written by `python benchmarks/resume.py --trials {options.trials} --seed {options.seed}"
        f"{' --prefect' * options.prefect}`: `synth run` on "
        f"`data/pbcseq`, killed by SIGKILL: {timed} times a random time after its first line, else before a random one "
        f"of the {whole[False][1]} changes it makes to files ({whole[True][1]} with a critic, as every tenth has). "
        "A third of the resumed runs was killed again. "
        f"{platform.machine()}, Python {platform.python_version()}."
    )
    (options.out / "resume.md").write_text(report(rows, facts))
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
