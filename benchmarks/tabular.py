"""Run `synth run` several times on one table, and score, time and weigh each run.

    python benchmarks/tabular.py                                  the shipped Adult sample, split 80/20 on the fly
    python benchmarks/tabular.py --train T.parquet --test E.parquet --schema schema.yaml --runs 5 --out scores.csv

Each run goes through the command line with a fresh ledger. Seconds are wall-clock, memory is the peak resident set of
the process. `real rows` scores the training rows as if they were synthetic (the ceiling), `held-out rows` the test
rows (the sampling floor of the distances). Benchmarks are for public tables: their scores are computed on real rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from limits import peak_mb
from score import Column, score

from synth.schema import Schema, load_schema

REPOSITORY = Path(__file__).resolve().parent.parent
ADULT = REPOSITORY / "data" / "adult"
TEST_SHARE = 0.2
SHOWN = ("rows", "tvd1", "tvd2", "tvd3", "auc_gbm", "auc_lr", "r2_gbm", "c2st", "c2st_raw")
COSTS = ("train_seconds", "seconds", "peak_mb")


@dataclass(frozen=True)
class Table:
    """A table to benchmark on: its real rows in two files, and its public schema."""

    train: Path
    test: Path
    schema_file: Path
    schema: Schema
    target_drop: tuple[str, ...]

    @property
    def columns(self) -> list[Column]:
        """The columns as the scores see them."""
        ordered = {"integer", "continuous", "datetime"}
        return [Column(column.name, column.kind in ordered) for column in self.schema.learned_columns]

    def score(self, synthetic: pd.DataFrame, *, two_sample: bool = True) -> dict[str, float]:
        """All scores of a synthetic table."""
        if self.schema.target is None:
            raise SystemExit(f"{self.schema_file}: names no target, which the utility scores need")
        return score(
            read_table(self.train),
            read_table(self.test),
            synthetic,
            columns=self.columns,
            target=self.schema.target,
            target_drop=self.target_drop,
            two_sample=two_sample,
        )


@dataclass(frozen=True)
class Cost:
    """What a run took. `train_seconds` is NaN when the progress lines do not tell it."""

    seconds: float
    train_seconds: float
    peak_mb: float


def main() -> None:
    """Run, score and print."""
    asked = arguments()
    folder = new_folder(REPOSITORY / "build" / "bench")
    table = table_of(asked, folder)
    rows: dict[str, dict[str, float]] = {}
    for i in range(1, asked.runs + 1):
        bundle, cost = run_synth(table, folder / f"run-{i}", asked)
        scores = table.score(read_table(bundle / "data"))
        rows[f"run {i}"] = scores | {name: getattr(cost, name) for name in COSTS}
        write(rows, table, asked)
        say(f"run {i} of {asked.runs}: " + ", ".join(f"{name} {rows[f'run {i}'][name]:.4g}" for name in shown(rows)))
    runs = list(rows)
    if not asked.no_reference:
        rows["real rows"] = table.score(read_table(table.train))
        rows["held-out rows"] = table.score(read_table(table.test), two_sample=False)
        write(rows, table, asked)
    frame = pd.DataFrame(rows).T[shown(rows)]
    frame.loc["median of runs"] = frame.loc[runs].median()
    print(f"{table.schema.dataset}, ε={asked.epsilon:g}, δ={asked.delta:g}, {asked.runs} runs")
    print(frame.round(4).to_string(na_rep=""))
    say(f"bundles and ledgers: {folder}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help="real rows to learn from (Parquet)")
    parser.add_argument("--test", type=Path, help="real rows kept apart (Parquet)")
    parser.add_argument("--schema", type=Path, help="the table's schema.yaml")
    parser.add_argument("--target-drop", default="", help="columns that give the target away, comma-separated")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="CSV file, a row a run")
    parser.add_argument("--synthesizer", default="{}", help="the synthesizer section of run.yaml, as JSON")
    parser.add_argument("--no-reference", action="store_true", help="do not score the real rows themselves")
    asked = parser.parse_args()
    if asked.runs < 1:
        parser.error("--runs must be at least 1")
    given = [asked.train, asked.test, asked.schema]
    if any(given) and not all(given):
        parser.error("--train, --test and --schema go together; none of them means the shipped Adult sample")
    return asked


def table_of(asked: argparse.Namespace, folder: Path) -> Table:
    """The table that was asked for, else the shipped Adult sample, split."""
    train, test, schema_file = asked.train, asked.test, asked.schema
    if train is None:
        schema_file = ADULT / "schema.yaml"
        train, test = split(ADULT / "adult.parquet", folder)
    drop = tuple(name for name in asked.target_drop.split(",") if name)
    return Table(train.resolve(), test.resolve(), schema_file.resolve(), load_schema(schema_file), drop)


def split(source: Path, folder: Path) -> tuple[Path, Path]:
    """Cut a Parquet file into training and test rows at random, the same way each time."""
    rows = pq.read_table(source)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    cut = round(TEST_SHARE * rows.num_rows)
    parts = {"train": order[cut:], "test": order[:cut]}
    for name, indices in parts.items():
        pq.write_table(rows.take(pa.array(indices)), folder / f"{name}.parquet")
    return folder / "train.parquet", folder / "test.parquet"


def run_synth(table: Table, folder: Path, asked: argparse.Namespace) -> tuple[Path, Cost]:
    """One run through the command line, with a ledger of its own. Returns the bundle and what it took."""
    folder.mkdir()
    command = synth_command(
        table, folder, epsilon=asked.epsilon, delta=asked.delta, synthesizer=json.loads(asked.synthesizer)
    )
    environment = {name: value for name, value in os.environ.items() if name != "SYNTH_LEDGER"}
    started = time.monotonic()
    with (folder / "stdout.txt").open("w+", encoding="utf-8") as stdout:
        process = subprocess.Popen(  # noqa: S603  (no shell; the arguments are written above)
            command, stdout=stdout, stderr=subprocess.PIPE, encoding="utf-8", env=environment
        )
        lines = timed_lines(process)
        used = wait(process)
        seconds = time.monotonic() - started
        stdout.seek(0)
        printed = stdout.read().splitlines()
    if process.returncode != 0:
        raise SystemExit("\n".join([*(line for _, line in lines), f"synth run failed with exit {process.returncode}"]))
    return Path(printed[-1]), Cost(seconds, train_seconds(lines), peak_mb(used))


def synth_command(
    table: Table, folder: Path, *, epsilon: float, delta: float, synthesizer: dict[str, object]
) -> list[str]:
    """Write a run.yaml with a ledger of its own into a folder; the command that runs it."""
    config = {
        "source": {"path": str(table.train)},
        "schema": str(table.schema_file),
        "privacy": {"epsilon": epsilon, "delta": delta},
        "synthesizer": synthesizer,
        "output": {"directory": "out"},
        "ledger": {"url": "sqlite:///ledger.db"},
    }
    # JSON is YAML too.
    (folder / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    return [synth_program(), "run", str(folder / "run.yaml")]


def synth_program() -> str:
    """The command `synth` of this interpreter's environment, else the one on PATH."""
    beside = Path(sys.executable).parent / "synth"
    return str(beside) if beside.exists() else shutil.which("synth") or "synth"


def timed_lines(process: subprocess.Popen[str]) -> list[tuple[float, str]]:
    """The progress lines of a process, each with the time at which it came."""
    assert process.stderr is not None
    return [(time.monotonic(), line.rstrip()) for line in process.stderr]


def wait(process: subprocess.Popen[str]) -> resource.struct_rusage:
    """Wait for a process; the resources that it and the processes it waited for have used."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used


def train_seconds(lines: Sequence[tuple[float, str]]) -> float:
    """Seconds between the end of the measure stage and the last line of the train stage."""
    measured = [moment for moment, line in lines if line.startswith("measure:")]
    trained = [moment for moment, line in lines if line.startswith("train:")]
    return trained[-1] - measured[-1] if measured and trained else float("nan")


def write(rows: dict[str, dict[str, float]], table: Table, asked: argparse.Namespace) -> None:
    """The CSV file, when one was asked for: all scores so far."""
    if asked.out is not None:
        about = {"dataset": table.schema.dataset, "epsilon": asked.epsilon, "delta": asked.delta}
        frame = pd.DataFrame([{"row": name, **about, **scores} for name, scores in rows.items()])
        frame.to_csv(asked.out, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file, or a folder of parts."""
    table: pd.DataFrame = pq.read_table(path).to_pandas()
    return table


def new_folder(parent: Path) -> Path:
    """A folder that no benchmark has used before."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=parent))


def shown(rows: dict[str, dict[str, float]]) -> list[str]:
    """The scores to print, in order."""
    return [name for name in (*SHOWN, *COSTS) if any(name in scores for scores in rows.values())]


def say(text: str) -> None:
    """Progress, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
