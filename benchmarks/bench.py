"""Run dp-synth beside other synthesizers on public tables, score all of them alike, and write the page.

    python benchmarks/bench.py                                              the whole grid
    python benchmarks/bench.py --table adult --epsilon 1 --peers ours,mst   a part of it
    python benchmarks/bench.py --peers ours --again                         after a change of the recipe

Each run is a row of `peers.csv`, written when it ends; a row that is there is not run again unless `--again`. A peer
runs in a virtual environment of its own, with one thread, under limits of processor time and memory; what fails or
takes too long is a row that says so. The scores are computed here, on real rows: for public tables only.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from coding import coding_of, one_row_a_person
from contestants import CONTESTANTS, Contestant
from environment import NotInstalled, interpreter
from limits import Limits, Used, last_line, run_limited
from page import write_page
from score import distances_of_others
from tables import TABLES, KnownTable, open_table
from tabular import REPOSITORY, Table, read_table, say, synth_command

from synth.errors import UserError
from synth.files import write_whole

HERE = Path(__file__).resolve().parent
SCORES = ("rows", "tvd1", "tvd2", "tvd2_max", "tvd3", "auc_gbm", "f1_gbm", "auc_lr", "f1_lr", "c2st", "c2st_raw")
COSTS = ("cpu_seconds", "seconds", "peak_mb")
KEY = ("table", "epsilon", "method", "run")
FIELDS = (*KEY, "tuned", "status", "reason", "version", *SCORES, *COSTS)
SECONDS_PER_MINUTE = 60
WALL_PER_CPU = 4  # a busy machine may take this many times longer by the clock
Row = dict[str, str]


@dataclass(frozen=True)
class Job:
    """One run of the grid; ε is None for what spends none."""

    known: KnownTable
    contestant: Contestant
    epsilon: float | None
    run: int

    @property
    def key(self) -> tuple[str, ...]:
        """What tells a row of the CSV file from the others."""
        return (
            self.known.name,
            "" if self.epsilon is None else f"{self.epsilon:g}",
            self.contestant.name,
            str(self.run),
        )


@dataclass(frozen=True)
class Bench:
    """What all jobs share; `rows`: how many a peer draws, None for as many as there are training rows."""

    delta: float
    data: Path | None
    work: Path
    limits: Limits
    rows: int | None = None


def main() -> None:
    """Run what is asked for and not there yet; write the page from everything that is there."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows = read_rows(asked.out)
    seconds = asked.cpu_minutes * SECONDS_PER_MINUTE
    limits = Limits(seconds, seconds * WALL_PER_CPU, asked.memory_gb * 10**9)
    bench = Bench(asked.delta, asked.data, asked.work, limits)
    jobs = grid(asked.table, asked.peers, asked.epsilon, asked.runs)
    for i, job in enumerate(jobs, 1):
        if job.key in rows and not asked.again:
            continue
        say(f"{i} of {len(jobs)}: {' '.join(job.key)}")
        try:
            row = row_of(job, bench)
        except UserError as problem:
            say(f"  left out: {problem}")
            continue
        say("  " + " ".join(f"{name} {row[name]}" for name in FIELDS[len(KEY) + 1 :] if row.get(name)))
        write_rows(asked.out, read_rows(asked.out) | {job.key: row})
        rows = read_rows(asked.out)  # in the file's order, which is the page's
        write_page(list(rows.values()), asked.out)
    write_page(list(rows.values()), asked.out)
    say(f"written: {asked.out.with_suffix('.md')}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", type=_names(TABLES), default=list(TABLES), help="comma-separated: " + ", ".join(TABLES)
    )
    parser.add_argument(
        "--peers",
        type=_names(CONTESTANTS),
        default=list(CONTESTANTS),
        help="comma-separated: " + ", ".join(CONTESTANTS),
    )
    parser.add_argument("--epsilon", type=_numbers, default=[0.3, 1.0, 3.0], help="comma-separated; default 0.3,1,3")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--runs", type=int, default=3, help="runs of each method (seeds 1, 2, …)")
    parser.add_argument(
        "--data", type=Path, help="folder of tables that are not shipped: TABLE/train.parquet, test.parquet"
    )
    parser.add_argument("--cpu-minutes", type=int, default=40, help="processor time a run may take")
    parser.add_argument("--memory-gb", type=int, default=16, help="address space that a peer's process may take")
    parser.add_argument("--again", action="store_true", help="run also what is in the CSV file already")
    parser.add_argument("--out", type=Path, default=HERE / "peers.csv", help="the CSV file; the page stands beside it")
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "build" / "peers", help="environments and working files"
    )
    asked = parser.parse_args()
    if min(asked.epsilon, default=0) <= 0 or min(asked.runs, asked.cpu_minutes, asked.memory_gb) < 1:
        parser.error("--epsilon, --runs, --cpu-minutes and --memory-gb are above 0")
    return asked


def _names(known: dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",") if word]


def grid(tables: Sequence[str], peers: Sequence[str], epsilons: Sequence[float], runs: int) -> list[Job]:
    """Every run that is asked for: the first run of everything before the second of anything."""
    jobs = []
    for run in range(1, runs + 1):
        for epsilon in epsilons:
            for table in tables:
                for contestant in (CONTESTANTS[name] for name in peers):
                    spent = epsilon if contestant.private else None
                    if run == 1 or contestant.seeds:
                        jobs.append(Job(TABLES[table], contestant, spent, run))
    return list({job.key: job for job in jobs}.values())


def row_of(job: Job, bench: Bench) -> Row:
    """Run one job and score what came of it. Raises UserError when the table is not there."""
    folder = bench.work / "runs" / "-".join(part or "all" for part in job.key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = open_table(job.known, bench.data, bench.work / "tables" / job.known.name)
    known = dict(zip(KEY, job.key, strict=True)) | {"tuned": "yes" if job.known.tuned else "no", "version": ""}
    if job.contestant.name == "others":
        found = distances_of_others(read_table(table.train), table.columns, job.run)
        return known | {"status": "ok", "reason": ""} | {name: f"{found[name]:.5g}" for name in found}
    try:
        synthetic, used, known["version"] = synthesize(job, table, folder, bench)
    except NotInstalled as problem:
        return known | {"status": "not installed", "reason": str(problem)}
    cost = {name: f"{getattr(used, name):.5g}" for name in COSTS} if used.seconds else {}
    row = known | {"status": used.status, "reason": used.reason} | cost
    if synthetic is None:
        return row
    try:
        scores = table.score(read_table(synthetic))
    except (ValueError, KeyError) as problem:
        return row | {"status": "failed", "reason": last_line(f"its rows could not be scored: {problem}")}
    shutil.rmtree(folder)
    return row | {name: f"{scores[name]:.5g}" for name in SCORES if name in scores}


def synthesize(job: Job, table: Table, folder: Path, bench: Bench) -> tuple[Path | None, Used, str]:
    """The synthetic rows (None when there are none), what they took, and which version made them."""
    if job.contestant.name == "real":
        return table.train, Used("ok", "", "", 0.0, 0.0, 0.0), ""
    if job.contestant.name == "resampled":
        # What a model without any error has, if its rows are drawn one by one.
        drawn = read_table(table.train).sample(frac=1.0, replace=True, random_state=job.run, ignore_index=True)
        drawn.to_parquet(folder / "drawn.parquet")
        return folder / "drawn.parquet", Used("ok", "", "", 0.0, 0.0, 0.0), ""
    if job.contestant.kind == "ours":
        assert job.epsilon is not None
        command = synth_command(table, folder, epsilon=job.epsilon, delta=bench.delta, synthesizer={})
        # The ledger of the environment is the user's own: not for benchmarks.
        used = run_limited(command, folder, replace(bench.limits, memory_bytes=None), {"SYNTH_LEDGER": ""})
        made = Path(used.stdout.splitlines()[-1]) / "data" if used.status == "ok" else None
        return made, used, revision()
    return run_peer(job, table, folder, bench)


def run_peer(job: Job, table: Table, folder: Path, bench: Bench) -> tuple[Path | None, Used, str]:
    """Hand the coded table to a peer's script and decode what it hands back. Raises NotInstalled."""
    who = job.contestant
    script = HERE / "peers" / f"{who.script}.py"
    python, version = Path(sys.executable), revision()
    if who.own_environment:
        python = interpreter(script.with_suffix(".txt"), bench.work / "environments")
        version = script.with_suffix(".txt").read_text().splitlines()[0].removeprefix("# ").split(":")[0]
    rng = np.random.default_rng(job.run)
    train = read_table(table.train)
    # Methods that know of no persons get one row of each: ε is then a person's, as ours is.
    kept = one_row_a_person(train, table.schema.person_column, rng) if who.private else train
    coding = coding_of(table.schema, kept, who.binning)
    coding.encode(kept).to_parquet(folder / "table.parquet")
    task = {
        "method": who.method,
        "epsilon": job.epsilon if job.epsilon is not None else math.inf,
        "delta": bench.delta,
        "seed": job.run,
        "rows": bench.rows or len(train),
        "columns": coding.describe(),
    }
    (folder / "task.json").write_text(json.dumps(task))
    used = run_limited([python, script, folder], folder, bench.limits)
    if used.status != "ok":
        return None, used, version
    found, made = folder / "synthetic.parquet", folder / "decoded.parquet"
    if not found.exists():
        return None, replace(used, status="failed", reason="it left no rows"), version
    try:
        coding.decode(read_table(found), rng).to_parquet(made)
    except (OSError, ValueError, TypeError) as problem:
        reason = last_line(f"its output could not be read: {problem}")
        return None, replace(used, status="failed", reason=reason), version
    return made, used, version


def revision() -> str:
    """The last commit that changed dp-synth itself, with + when files of it have changed since."""
    rooms = ("synth", "datasheets", "pipelines")
    return _git("log", "-1", "--format=%h", "--", *rooms) + ("+" if _git("status", "--porcelain", "--", *rooms) else "")


def _git(*words: str) -> str:
    command = [shutil.which("git") or "git", *words]
    try:
        said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)  # noqa: S603  (no shell)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def read_rows(path: Path) -> dict[tuple[str, ...], Row]:
    """The rows that are there, by key."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {tuple(row[name] for name in KEY): dict(row) for row in csv.DictReader(stream)}


def write_rows(path: Path, rows: dict[tuple[str, ...], Row]) -> None:
    """The whole CSV file in one rename, in an order that does not depend on when a row came."""
    text = StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows, key=_order))
    write_whole(path, text.getvalue())


def _order(key: tuple[str, ...]) -> tuple[int, float, int, int]:
    table, epsilon, method, run = key
    names, methods = list(TABLES), list(CONTESTANTS)
    return (
        names.index(table) if table in names else len(names),
        float(epsilon or "inf"),
        methods.index(method) if method in methods else len(methods),
        int(run),
    )


if __name__ == "__main__":
    main()
