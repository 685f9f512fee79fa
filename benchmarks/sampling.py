"""What drawing rows costs: time by CPU clock and peak memory, each figure in a process of its own, on one core.

    python benchmarks/sampling.py BUNDLE [--rows 100000 1000000 3000000] [--out benchmarks]

BUNDLE is one of the Adult table (`synth run data/adult/run.yaml`). Rows go to Parquet on disk, as `synth sample` writes
them. Seconds are those of the process on its core, so that other work on the machine does not count; they hold the
reading of the model and leave out starting Python. Completed rows have three cells in ten empty.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RARE = "education=Preschool"
RARE_ROWS = 10_000
EMPTY_CELLS = 0.3
COLUMNS = ("what", "rows", "seconds", "rows_a_minute", "before_mb", "peak_mb")


def main() -> None:
    """Measure every row of the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 3_000_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.bundle, **json.loads(args.one))))
        return
    orders: list[dict[str, Any]] = [{"what": "rows", "rows": rows} for rows in args.rows]
    orders += [{"what": f"--where {RARE}", "rows": rows} for rows in (RARE_ROWS, args.rows[0])]
    orders += [{"what": "--balance income", "rows": args.rows[0]}]
    orders += [{"what": "--complete", "rows": rows} for rows in args.rows[:2]]
    table = [in_a_process(args.bundle, order) for order in orders]
    write(table, args.out, rare_share(args.bundle))


def in_a_process(bundle: Path, order: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    print(order, file=sys.stderr)
    command = [sys.executable, __file__, str(bundle), "--one", json.dumps(order)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(bundle: Path, what: str, rows: int) -> dict[str, Any]:
    """Seconds and memory of drawing rows in this process, with everything imported and the model warm."""
    import pyarrow as pa
    import torch

    from pipelines.sampling import complete_to_file, sample_to_file

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    option, _, value = what.partition(" ")
    asked: dict[str, Any] = {"where": [value] if option == "--where" else []}
    asked |= {"balance": value} if option == "--balance" else {}
    with tempfile.TemporaryDirectory() as folder:
        output, partial = Path(folder) / "rows.parquet", Path(folder) / "partial.parquet"
        sample_to_file(bundle, rows=100, where=[], seed=0, output=output)
        if option == "--complete":
            empty_some(bundle, rows, partial)
        start, before = time.process_time(), peak_mb()
        if option == "--complete":
            complete_to_file(bundle, partial=partial, output=output, rows=None, log_likelihood=False, seed=0)
        else:
            sample_to_file(bundle, rows=rows, seed=0, output=output, **asked)
        seconds = time.process_time() - start
    return {
        "what": what,
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_a_minute": round(rows / seconds * 60),
        "before_mb": round(before),
        "peak_mb": round(peak_mb()),
    }


def empty_some(bundle: Path, rows: int, path: Path) -> None:
    """Rows of the bundle, over and over, with cells emptied at random; written batch by batch."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    real = pq.read_table(next((bundle / "data").glob("*.parquet"))).to_batches(max_chunksize=10_000)
    schema = pa.schema([pa.field(field.name, field.type) for field in real[0].schema])
    made = 0
    with pq.ParquetWriter(path, schema) as writer:
        while made < rows:
            for batch in real:
                some = batch.slice(0, rows - made)
                made += some.num_rows
                masks = (pa.array(rng.random(some.num_rows) < EMPTY_CELLS) for _ in schema)
                cells = [pc.if_else(mask, None, column) for mask, column in zip(masks, some.columns, strict=True)]
                writer.write_batch(pa.record_batch(cells, schema=schema))


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def rare_share(bundle: Path) -> float:
    """How often the model makes the rare level without a condition."""
    import numpy as np
    import pyarrow as pa

    from synth.tables.likelihood import log_likelihood
    from synth.tables.model import TableModel

    column, _, level = RARE.partition("=")
    return float(np.exp(log_likelihood(TableModel.load(bundle / "model"), pa.table({column: [level]})))[0])


def write(table: list[dict[str, Any]], folder: Path, rare: float) -> None:
    """sampling.csv and sampling.md."""
    with (folder / "sampling.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    lines = [
        "# The cost of drawing rows\n",
        f"Written by `python benchmarks/sampling.py BUNDLE`: a model of Adult (15 columns), {platform.machine()}, "
        f"one core, Python {platform.python_version()}. Seconds are CPU time of the process, from reading the model's "
        "files to the finished Parquet file; imports were done before. *MB before* is the process's peak after a first "
        "draw of 100 rows (for `--complete`, after writing the partial table). Plain rows include the sweep that "
        f"removes sampling noise. Without a condition {rare:.2%} of the model's rows have `{RARE}`.\n",
        "| | rows | seconds | rows a minute | MB before | MB peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in table:
        name = "rows" if row["what"] == "rows" else f"`{row['what']}`"
        cells = (f"{row['rows']:,}", row["seconds"], f"{row['rows_a_minute']:,}", row["before_mb"], row["peak_mb"])
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    (folder / "sampling.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
