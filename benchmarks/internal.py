"""What the internal report costs, and how many copied rows it takes to notice, on the shipped tables.

    python benchmarks/internal.py --table adult,support2 > benchmarks/internal.md

Each table is split, learned once at ε = 1, and reported on by `synth evaluate` with one thread. Then training rows are
written over synthetic rows, chosen at random, and the count of copies judges the result: the alarm that the report
shows. Written as Markdown to stdout. Computed on real rows: for public tables only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from limits import Limits, run_limited
from tables import TABLES, open_table
from tabular import Table, say, synth_command, synth_program

from synth.evaluate.internal.copies import copies
from synth.evaluate.internal.rows import read_rows
from synth.ingest import read_batches
from synth.tables.codec import codecs_of

PLANTED = (0, 20, 40, 100, 400)
LIMITS = Limits(cpu_seconds=3600, wall_seconds=4 * 3600)
HEAD = """# The internal report: time, and what it notices

Printed by `benchmarks/internal.py` at ε = 1, δ = 1e-5, with defaults and one thread: `synth evaluate BUNDLE --real
test.parquet` on a table split 80/20. Processor seconds are what to compare; the clock ran on a shared machine.

| table | columns | training rows | processor seconds | seconds | peak MB | JSON and page, kB |
|---|---|---|---|---|---|---|"""
COPIES = """
## Copies

Training rows written over synthetic rows, chosen at random. `by chance` are held-out rows that synthetic rows repeat.
Rows that occur more than once in the two real tables do not count. Silence is no pass mark.

| table | planted | copied | by chance | p | alarm |
|---|---|---|---|---|---|"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = [name for name, known in TABLES.items() if known.shipped]
    parser.add_argument("--table", default=",".join(shipped), help="comma-separated: " + ", ".join(shipped))
    asked = parser.parse_args()
    costs, found = [], []
    for name in asked.table.split(","):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            table = open_table(TABLES[name], None, folder / "table")
            say(f"{name}: learning")
            bundle = learned(table, folder)
            say(f"{name}: evaluating")
            costs.append(f"| {name} | {len(table.columns)} | {evaluated(table, bundle, folder)} |")
            found += [f"| {name} | {line} |" for line in noticed(table, bundle)]
    print("\n".join([HEAD, *costs, COPIES, *found]))


def learned(table: Table, folder: Path) -> Path:
    """The bundle of one run at ε = 1."""
    command = synth_command(table, folder, epsilon=1.0, delta=1e-5, synthesizer={})
    used = run_limited(command, folder, LIMITS, {"SYNTH_LEDGER": ""})
    if used.status != "ok":
        raise SystemExit(f"synth run: {used.reason}")
    return Path(used.stdout.splitlines()[-1])


def evaluated(table: Table, bundle: Path, folder: Path) -> str:
    """Training rows, processor seconds, seconds, peak MB and size of the full report, as cells."""
    out = folder / "report"
    used = run_limited([synth_program(), "evaluate", bundle, "--real", table.test, "--out", out], folder, LIMITS)
    if used.status != "ok":
        raise SystemExit(f"synth evaluate: {used.reason}")
    size = sum(file.stat().st_size for file in out.iterdir()) / 1000
    rows = sum(batch.num_rows for batch in read_batches(table.train, table.schema))
    return f"{rows:,} | {used.cpu_seconds:.0f} | {used.seconds:.0f} | {used.peak_mb:.0f} | {size:.0f}"


def noticed(table: Table, bundle: Path) -> list[str]:
    """Planted, copied, by chance, p and alarm, a line for each number of planted rows."""
    rng = np.random.default_rng(0)
    codecs = codecs_of(table.schema)
    synthetic, training, held_out = (
        read_rows(read_batches(path, table.schema), codecs, most=1, rng=rng).fingerprints
        for path in (bundle / "data" / "part-00000.parquet", table.train, table.test)
    )
    lines = []
    for planted in PLANTED:
        drawn = synthetic.copy()
        drawn[rng.choice(len(drawn), planted, replace=False)] = rng.choice(training, planted, replace=False)
        alarm = copies(drawn, training, held_out)
        rings = "yes" if alarm.alarm else "no"
        lines.append(f"{planted} | {alarm.copied} | {alarm.by_chance} | {alarm.p_value:.1g} | {rings}")
    return lines


if __name__ == "__main__":
    main()
