"""What a run costs as its table grows: seconds and peak memory of every stage, each size in a process of its own.

    python benchmarks/scale.py [--rows 1000000 2000000 4000000 10000000] [--url postgresql://...] [--steps 400]
                               [--drawn 100000] [--out benchmarks]

The tables are rows of data/adult (15 columns) drawn with replacement, so they say nothing new of anybody; they lie in
a temporary folder. With `--url` they are read from that PostgreSQL database instead, in a table made for it and dropped
again. What scale.csv holds of other sizes and sources stays. CPU seconds are those of the process on one core, so that
other work on the machine does not count (the server's own are not in them); seconds by the clock stand beside them.
Peaks are of resident memory less file pages, taken a stage at a time; Linux only. How long the fit takes depends on no
row, and drawing on the synthetic rows alone: `--steps` and `--drawn` make them short.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ADULT = Path(__file__).parents[1] / "data" / "adult"
ROWS_AT_ONCE = 500_000
TABLE = "synth_scale_benchmark"
QUERY = "select * from synth_scale_benchmark"
STAGES = ("encode", "measure", "train", "sample", "audit", "evaluate", "settle", "document", "seal")
GROWING = {"encode", "measure", "sample", "evaluate"}
OF_DRAWN = {"sample", "evaluate"}
"""What grows with the synthetic rows."""
PROJECTED = 100_000_000
COLUMNS = ("source", "rows", "steps", "drawn", "stage", "cpu_seconds", "seconds", "peak_mb")


def main() -> None:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000, 4_000_000, 10_000_000])
    parser.add_argument("--url", help="a PostgreSQL database to read from")
    parser.add_argument("--steps", type=int, help="of the fit, one generator; as a run has it without this")
    parser.add_argument("--drawn", type=int, help="synthetic rows; as many as there are people without this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            make_table(rows, work / "people.parquet")
            if args.url:
                load(work / "people.parquet", args.url)
            place = {"url": args.url, "query": QUERY} if args.url else {"path": "people.parquet"}
            found = in_a_process(place, work, steps=args.steps, drawn=args.drawn)
            if args.url:
                load(None, args.url)
        source = "PostgreSQL" if args.url else "Parquet"
        settings = {"source": source, "rows": rows, "steps": args.steps, "drawn": args.drawn}
        write([settings | line for line in found], args.out)


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


def load(path: Path | None, url: str) -> None:
    """The rows of a Parquet file as a table of a database; without a file, no such table."""
    import io

    import psycopg
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    if path is None:
        with psycopg.connect(url) as connection:
            connection.execute(f"drop table if exists {TABLE}")
        return
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


def in_a_process(place: dict[str, str], work: Path, *, steps: int | None, drawn: int | None) -> list[dict[str, Any]]:
    """The lines of one size."""
    config: dict[str, Any] = {
        "source": place,
        "schema": str(ADULT / "schema.yaml"),
        "privacy": {"epsilon": 1.0, "delta": 1e-9},
        "ledger": {"url": "sqlite:///ledger.db"},
        "synthesizer": {} if steps is None else {"steps": steps, "members": 1},
        "output": {} if drawn is None else {"rows": drawn},
    }
    (work / "run.yaml").write_text(json.dumps(config))
    command = [sys.executable, __file__, "--one", str(work / "run.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


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
            start, by_clock = time.process_time(), time.monotonic()
            with Peak() as peak:
                work(folder, ledger) if name in charged else work(folder)
            spent = {"cpu_seconds": time.process_time() - start, "seconds": time.monotonic() - by_clock}
            found.append(
                {"stage": name} | {kind: round(t, 2) for kind, t in spent.items()} | {"peak_mb": round(peak.mb)}
            )
            print(found[-1], file=sys.stderr)
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
    """scale.csv, in which a source's size replaces what was there of it, and scale.md."""
    new, file = {(str(line["source"]), str(line["rows"])) for line in found}, folder / "scale.csv"
    lines = [{key: "" if value is None else str(value) for key, value in line.items()} for line in found]
    if file.exists():
        with file.open(newline="") as stream:
            lines += [line for line in csv.DictReader(stream) if (line["source"], line["rows"]) not in new]
    lines.sort(key=lambda line: (line["source"], int(line["rows"])))
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    (folder / "scale.md").write_text(page(lines))


def page(found: list[dict[str, str]]) -> str:
    """The table, and what it comes to for more rows."""
    lines = [
        "# The cost of a run as its table grows\n",
        "Written by `python benchmarks/scale.py`: rows of Adult (15 columns) drawn with replacement, ε = 1, "
        f"{platform.machine()}, one thread on {os.cpu_count()} cores shared with other work, Python "
        f"{platform.python_version()}. Each cell has CPU seconds of the process, then seconds by the clock, which that "
        "other work lengthens, and the database's server on the same machine; *MB* is the largest resident memory in "
        "any stage, without pages of files. `measure` holds four passes over the encoded rows: fine histograms, bins "
        "within classes, all 91 pair tables and all 364 of three columns. A fit of few steps, of one generator, "
        "stands for the default one, as "
        "it sees no row. The last column is a straight line through the CPU seconds and the MB at "
        f"{PROJECTED:,} rows, for stages that see every row; of drawing and scoring, through the sizes with as many "
        "synthetic rows as people.\n",
    ]
    for source in dict.fromkeys(line["source"] for line in found):
        mine = [line for line in found if line["source"] == source]
        sizes = list(dict.fromkeys(int(line["rows"]) for line in mine))
        first = {int(line["rows"]): line for line in reversed(mine)}
        lines += [
            f"## From {source}\n",
            "| stage | " + " | ".join(f"{rows:,}" for rows in sizes) + " | projected |",
            "|---|" + "---|" * (len(sizes) + 1),
            "| synthetic rows | " + " | ".join(f"{int(first[n]['drawn'] or n):,}" for n in sizes) + " | |",
            "| steps of the fit | " + " | ".join(first[n]["steps"] or "default" for n in sizes) + " | |",
        ]
        for stage in dict.fromkeys(line["stage"] for line in mine):
            of_stage = [line for line in mine if line["stage"] == stage]
            cells = " | ".join(f"{float(line['cpu_seconds']):.1f}, {float(line['seconds']):.0f}" for line in of_stage)
            lines.append(f"| {stage} | {cells} | {projected(stage, of_stage)} |")
        peaks = [max(int(line["peak_mb"]) for line in mine if int(line["rows"]) == rows) for rows in sizes]
        more = at_projected(sizes, peaks) if len(sizes) > 2 else "–"  # between two of them chance decides
        lines.append(f"| **MB** | {' | '.join(f'{peak:,}' for peak in peaks)} | {more} |\n")
        most = {line["stage"]: float(line["cpu_seconds"]) for line in mine if int(line["rows"]) == sizes[-1]}
        lines.append(
            f"At {sizes[-1]:,} rows encoding does {sizes[-1] / most['encode']:,.0f} rows a CPU second, and one of the "
            f"four counting passes {4 * sizes[-1] / most['measure']:,.0f} on average.\n"
        )
    if any(line["source"] == "PostgreSQL" for line in found):
        lines.append(
            "From a database a row comes as one value of Python, whose cells Arrow takes apart column by column; "
            "the counting passes read the same encoded file whatever the source is.\n"
        )
    return "\n".join(lines)


def projected(stage: str, lines: list[dict[str, str]]) -> str:
    """CPU seconds of a stage at PROJECTED rows; a dash for one that does not grow with them."""
    if stage not in GROWING:
        return "–"
    if stage in OF_DRAWN:
        lines = [line for line in lines if not line["drawn"]]
    return at_projected([int(line["rows"]) for line in lines], [float(line["cpu_seconds"]) for line in lines])


def at_projected(rows: list[int], values: Sequence[float]) -> str:
    """Where a straight line through these is at PROJECTED rows; a dash where there is none to draw."""
    import numpy as np

    if len(rows) < 2:
        return "–"
    slope, level = np.polyfit(rows, values, 1)
    return f"{max(0.0, level + slope * PROJECTED):,.0f}"


if __name__ == "__main__":
    main()
