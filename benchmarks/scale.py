"""What a run costs as its table grows: CPU seconds and peak memory of every stage, each size in a process of its own.

    python benchmarks/scale.py [--rows 1000000 2000000 4000000 10000000] [--url postgresql://...] [--out benchmarks]

The tables are rows of data/adult (15 columns) drawn with replacement, so they say nothing new of anybody; they lie in
a temporary folder. With `--url` the same rows are also read from that PostgreSQL database, in a table made for it and
dropped again. Seconds are those of the process on one core, so that other work on the machine does not count (the
server's own are not in them). Peaks are of resident memory less file pages, taken a stage at a time; Linux only.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADULT = Path(__file__).parents[1] / "data" / "adult"
ROWS_AT_ONCE = 500_000
TABLE = "synth_scale_benchmark"
QUERY = "select * from synth_scale_benchmark"
STAGES = ("encode", "measure", "train", "sample", "audit", "evaluate", "settle", "document", "seal")
GROWING = {"encode", "measure", "sample", "evaluate"}
PROJECTED = 100_000_000
COLUMNS = ("source", "rows", "stage", "seconds", "peak_mb")


def main() -> None:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000, 4_000_000, 10_000_000])
    parser.add_argument("--url", help="a PostgreSQL database to read from, too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    found: list[dict[str, Any]] = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            make_table(rows, work / "people.parquet")
            found += in_a_process("Parquet", rows, {"path": "people.parquet"}, work)
            if args.url:
                load(work / "people.parquet", args.url)
                found += in_a_process("PostgreSQL", rows, {"url": args.url, "query": QUERY}, work)
    write(found, args.out)


def make_table(rows: int, path: Path) -> None:
    """Rows of the Adult table, drawn with replacement."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    people, rng = pq.read_table(ADULT / "adult.parquet"), np.random.default_rng(0)
    with pq.ParquetWriter(path, people.schema) as writer:
        for start in range(0, rows, ROWS_AT_ONCE):
            some = rng.integers(0, people.num_rows, min(ROWS_AT_ONCE, rows - start))
            writer.write_table(people.take(pa.array(some)))


def load(path: Path, url: str) -> None:
    """The rows of a Parquet file as a table of a database."""
    import io

    import psycopg
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    with psycopg.connect(url) as connection, pq.ParquetFile(path) as file:
        kinds = [
            f'"{field.name}" {"text" if pa.types.is_string(field.type) else "bigint"}' for field in file.schema_arrow
        ]
        connection.execute(f"drop table if exists {TABLE}")
        connection.execute(f"create table {TABLE} ({', '.join(kinds)})")
        with connection.cursor().copy(f"copy {TABLE} from stdin with (format csv)") as copy:
            for batch in file.iter_batches():
                text = io.BytesIO()
                pa.csv.write_csv(batch, text, pa.csv.WriteOptions(include_header=False))
                copy.write(text.getvalue())


def in_a_process(source: str, rows: int, place: dict[str, str], work: Path) -> list[dict[str, Any]]:
    """The lines of one size."""
    print(source, rows, file=sys.stderr)
    config = {
        "source": place,
        "schema": str(ADULT / "schema.yaml"),
        "privacy": {"epsilon": 1.0, "delta": 1e-9},
        "ledger": {"url": f"sqlite:///{source}.db"},
    }
    (work / "run.yaml").write_text(json.dumps(config))
    command = [sys.executable, __file__, "--one", str(work / "run.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return [{"source": source, "rows": rows} | line for line in json.loads(done.stdout)]


def measure(run_yaml: Path) -> list[dict[str, Any]]:
    """Seconds and peak of each stage of a run in this process, with everything imported."""
    import pyarrow as pa

    from pipelines import documents
    from synth import stages
    from synth.prepare import prepare
    from synth.privacy.ledger import Ledger
    from synth.run_folder import hold

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    ledger = Ledger.open(f"sqlite:///{run_yaml.parent / 'ledger.db'}")
    folder = prepare(run_yaml, ledger)
    charged = {"measure", "settle"}
    found = []
    with hold(folder):
        stages.reserve(folder, ledger)
        for name in STAGES:
            work: Callable[..., Any] = getattr(documents if name == "document" else stages, name)
            start = time.process_time()
            with Peak() as peak:
                work(folder, ledger) if name in charged else work(folder)
            seconds = time.process_time() - start
            found.append({"stage": name, "seconds": round(seconds, 2), "peak_mb": round(peak.mb)})
    return found


class Peak:
    """The largest resident memory of this process while it is open, less pages of files, which the system may drop."""

    def __enter__(self) -> Peak:
        self.mb, self._done = anonymous_mb(), threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.mb = max(self.mb, anonymous_mb())


def anonymous_mb() -> float:
    """Resident memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def write(found: list[dict[str, Any]], folder: Path) -> None:
    """scale.csv and scale.md."""
    with (folder / "scale.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    (folder / "scale.md").write_text(page(found))


def page(found: list[dict[str, Any]]) -> str:
    """The table, and what it comes to for more rows."""
    import numpy as np

    lines = [
        "# The cost of a run as its table grows\n",
        "Written by `python benchmarks/scale.py`: rows of Adult (15 columns) drawn with replacement, ε = 1, as many "
        f"synthetic rows as people, {platform.machine()}, one core, Python {platform.python_version()}. Seconds are "
        "CPU time of the process; *MB* is the largest resident memory in any stage, without pages of files. `measure` "
        "holds three passes over the encoded rows: fine histograms, bins within classes, and all 91 pair tables. The "
        f"last column is a straight line through the sizes at {PROJECTED:,} rows, for stages that see every row.\n",
    ]
    for source in dict.fromkeys(line["source"] for line in found):
        mine = [line for line in found if line["source"] == source]
        sizes = list(dict.fromkeys(line["rows"] for line in mine))
        lines += [
            f"## From {source}\n",
            "| stage, seconds | " + " | ".join(f"{rows:,}" for rows in sizes) + " | projected |",
            "|---|" + "---|" * (len(sizes) + 1),
        ]
        for stage in dict.fromkeys(line["stage"] for line in mine):
            seconds = [line["seconds"] for line in mine if line["stage"] == stage]
            projected = "–"
            if len(sizes) > 1 and stage in GROWING:
                slope, level = np.polyfit(sizes, seconds, 1)
                projected = f"{max(0.0, level + slope * PROJECTED):,.0f}"
            lines.append(f"| {stage} | " + " | ".join(f"{s:.1f}" for s in seconds) + f" | {projected} |")
        peaks = [max(line["peak_mb"] for line in mine if line["rows"] == rows) for rows in sizes]
        lines.append("| **MB** | " + " | ".join(f"{peak:,}" for peak in peaks) + " | |\n")
        most = {line["stage"]: line["seconds"] for line in mine if line["rows"] == sizes[-1]}
        lines.append(
            f"At {sizes[-1]:,} rows encoding does {sizes[-1] / most['encode']:,.0f} rows a second, and one of the "
            f"three counting passes {3 * sizes[-1] / most['measure']:,.0f} on average.\n"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
