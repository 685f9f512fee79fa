"""What the run's own audit says of the sound build, and of noise that is too small: bounds, alarms and time.

Each run plants canaries beside the first rows of a shipped sample table, which is public, and audits one fresh run of
the measuring. With --repetitions the shadow tables of `synth audit` are made too, once for each ε.

    python benchmarks/audit.py [--runs 20] [--repetitions 100] [--out benchmarks]
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from synth.ingest import read_batches
from synth.privacy.audit import one_run
from synth.privacy.audit.long import SHADOW_ROWS, SMALL_FIT
from synth.privacy.audit.shadow import ShadowAudit, shadow_audit
from synth.privacy.audit.synthetic_rows import AUDITED_ROWS, encode_free_rows
from synth.privacy.noise import NoiseSource
from synth.schema import load_schema
from synth.tables.codec import codecs_of
from synth.tables.layout import layout_of, plan_of

DATA = Path(__file__).resolve().parents[1] / "data"
CLAIMS = {"adult": (0.3, 1.0, 3.0, 10.0), "support2": (1.0,), "pbcseq": (1.0,)}
"""Table → the ε it is audited at. A person has several rows in pbcseq."""
DELTA = 1e-5
FACTORS = (1, 3, 10)
"""The noise is divided by these; 1 is the sound build."""
PLANTED_RUNS = 3
SHADOWED, SHADOWED_AT = "adult", (1.0, 10.0)


@dataclass(frozen=True)
class Row:
    """One table at one ε and one factor, over some runs."""

    table: str
    epsilon: float
    noise_divided_by: int
    runs: int
    refuted: int
    median_bound: float
    largest_bound: float
    largest_noise_bound: float
    median_seconds: float


def audited(folder: Path, table: str, epsilon: float, factor: int, runs: int) -> Row:
    """Audit `runs` fresh measurements of a table."""
    schema = load_schema(DATA / table / "schema.yaml")
    codecs = codecs_of(schema)
    layout = layout_of(schema, codecs)
    plan = plan_of(layout, codecs, epsilon=epsilon, delta=DELTA, max_rows_per_person=schema.max_rows_per_person)
    base = folder / "base.arrow"
    encode_free_rows(read_batches(DATA / table / f"{table}.parquet", schema), schema, base, rows=AUDITED_ROWS)

    class Divided(NoiseSource):
        def standard_normal(self, count: int) -> npt.NDArray[np.float64]:
            return super().standard_normal(count) / factor

    found, seconds = [], []
    with mock.patch.object(one_run, "NoiseSource", Divided):
        for _ in range(runs):
            start = time.perf_counter()
            found.append(one_run.one_run_audit(base, schema, layout=layout, plan=plan, delta=DELTA, folder=folder))
            seconds.append(time.perf_counter() - start)
    bounds = [audit.facts.epsilon_lower_bound for audit in found]
    return Row(
        table=table,
        epsilon=epsilon,
        noise_divided_by=factor,
        runs=runs,
        refuted=sum(audit.refuted for audit in found),
        median_bound=statistics.median(bounds),
        largest_bound=max(bounds),
        largest_noise_bound=max(audit.facts.noise_epsilon_lower_bound for audit in found),
        median_seconds=statistics.median(seconds),
    )


def shadowed(folder: Path, table: str, epsilon: float, repetitions: int) -> tuple[ShadowAudit, float]:
    """Shadow tables of one table, and the seconds they took."""
    schema = load_schema(DATA / table / "schema.yaml")
    codecs = codecs_of(schema)
    layout = layout_of(schema, codecs)
    plan = plan_of(layout, codecs, epsilon=epsilon, delta=DELTA, max_rows_per_person=schema.max_rows_per_person)
    base = folder / "small.arrow"
    encode_free_rows(read_batches(DATA / table / f"{table}.parquet", schema), schema, base, rows=SHADOW_ROWS)
    start = time.perf_counter()
    found = shadow_audit(
        base,
        schema,
        layout=layout,
        mechanism=one_run.measuring(schema, layout, plan, one_run.free),
        settings=SMALL_FIT,
        delta=DELTA,
        folder=folder,
        repetitions=repetitions,
    )
    return found, time.perf_counter() - start


def markdown(rows: list[Row], shadows: list[tuple[str, float, ShadowAudit, float]], command: str) -> str:
    """The figures as a page."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}"
    lines = [
        "# The audit on the shipped tables",
        "",
        f"Written by `{command}`: {machine}. Other work ran on the machine.",
        "",
        f"{one_run.CANARIES:,} canaries beside at most {AUDITED_ROWS:,} rows, δ = {DELTA:g}. *bound* is the lower bound"
        f" on ε from the guesses at {100 * one_run.CONFIDENCE:g} % confidence, whatever the mechanism; *noise bound*"
        f" the one from the noise that was seen at {100 * one_run.NOISE_CONFIDENCE:.10g} %, if it is Gaussian."
        " *refuted* counts runs that `synth run` would have stopped. Noise divided by 1 is the build as it is. An audit"
        " can refute ε, never prove it.",
        "",
        "| table | ε claimed | noise divided by | runs | refuted | bound, median | bound, largest |"
        " noise bound, largest | seconds, median |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.table} | {r.epsilon:g} | {r.noise_divided_by} | {r.runs} | {r.refuted} | {r.median_bound:.3f} |"
        f" {r.largest_bound:.3f} | {r.largest_noise_bound:.3f} | {r.median_seconds:.2f} |"
        for r in rows
    ]
    if shadows:
        lines += [
            "",
            "Shadow tables (`synth audit --bundle`): the whole pipeline again and again on"
            f" {SHADOW_ROWS:,} rows, half of the times with one outlying record. *reach* is what an attack that is"
            " always right would show with so many repetitions.",
            "",
            "| table | ε claimed | repetitions | the attack sees | in, called in | out, called in | bound |"
            " bound if Gaussian | reach | seconds |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {table} | {epsilon:g} | {found.repetitions} | {a.sees} | {a.true_positives} of {a.members} |"
            f" {a.false_positives} of {a.non_members} | {a.epsilon_lower_bound:.3f} |"
            f" {a.gaussian_epsilon_lower_bound:.3f} | {found.reach:.2f} | {seconds:.0f} |"
            for table, epsilon, found, seconds in shadows
            for a in found.attacks
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything and write audit.md and audit.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=0, help="of the shadow tables; 0 for none")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments: Any = parser.parse_args()
    rows, shadows = [], []
    with tempfile.TemporaryDirectory() as name:
        for table, epsilons in CLAIMS.items():
            for epsilon in epsilons:
                for factor in FACTORS:
                    runs = arguments.runs if factor == 1 else PLANTED_RUNS
                    rows.append(audited(Path(name), table, epsilon, factor, runs))
        if arguments.repetitions:
            for epsilon in SHADOWED_AT:
                shadows.append((SHADOWED, epsilon, *shadowed(Path(name), SHADOWED, epsilon, arguments.repetitions)))
    command = f"python benchmarks/audit.py --runs {arguments.runs} --repetitions {arguments.repetitions}"
    (arguments.out / "audit.md").write_text(markdown(rows, shadows, command))
    with (arguments.out / "audit.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows([getattr(row, field) for field in Row.__dataclass_fields__] for row in rows)


if __name__ == "__main__":
    main()
