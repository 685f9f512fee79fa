"""What a run costs as its table grows in columns: CPU seconds and peak memory of every stage, beside the estimate.

    python benchmarks/wide.py [--columns 38 75 150 300] [--rows 50000] [--synthesizer JSON] [--out benchmarks]

The tables are made of data/support2: its columns side by side as often as it takes, each time with other patients, so
that columns of one time go together and those of different times do not. Each size runs in a process of its own, on one
core; Linux only. How seconds and peaks are taken is in scale.py.
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
from pathlib import Path
from typing import Any

from scale import measure

SUPPORT2 = Path(__file__).parents[1] / "data" / "support2"
COLUMNS = ("columns", "stage", "cpu_seconds", "seconds", "peak_mb", "estimate_mb", "pairs", "measured")


def main() -> None:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, nargs="+", default=[38, 75, 150, 300])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--synthesizer", type=json.loads, default={}, help="as in run.yaml, for shorter fits")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    found: list[dict[str, Any]] = []
    for columns in args.columns:
        print(columns, "columns", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            found += in_a_process(columns, args.rows, args.synthesizer, Path(folder))
    write(found, args.rows, args.synthesizer, args.out)


def make_table(columns: int, rows: int, folder: Path) -> None:
    """wide.parquet and schema.yaml; names of later times carry their number."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from synth.yaml_file import read_yaml

    people, rng = pq.read_table(SUPPORT2 / "support2.parquet"), np.random.default_rng(0)
    schema: Any = read_yaml(SUPPORT2 / "schema.yaml")
    kept: list[dict[str, Any]] = []
    table: dict[str, Any] = {}
    time = 0
    while len(kept) < columns:
        some = people.take(pa.array(rng.integers(0, people.num_rows, rows)))
        for column in schema["columns"]:
            if len(kept) == columns or column["kind"] == "id" or (time and column["name"] == schema["target"]):
                continue
            name = f"{column['name']}_{time}" if time else column["name"]
            kept.append(column | {"name": name})
            table[name] = some[column["name"]]
        time += 1
    pq.write_table(pa.table(table), folder / "wide.parquet")
    target = schema["target"] if schema["target"] in table else None
    declared = {"dataset": "wide", "target": target, "columns": kept}
    (folder / "schema.yaml").write_text(json.dumps(declared))


def in_a_process(columns: int, rows: int, synthesizer: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The lines of one size."""
    from pipelines.planning import plan_report

    make_table(columns, rows, folder)
    run_yaml = folder / "run.yaml"
    config = {
        "source": {"path": "wide.parquet"},
        "schema": "schema.yaml",
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
        "synthesizer": synthesizer,
        "ledger": {"url": "sqlite:///ledger.db"},
    }
    run_yaml.write_text(json.dumps(config))
    plan = plan_report(run_yaml, f"sqlite:///{folder / 'plan.db'}")
    about = {
        "columns": columns,
        "estimate_mb": round(plan["memory_bytes"] / 2**20),
        "pairs": plan["pairs"],
        "measured": plan["pairs_measured"],
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--one", str(run_yaml)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return [about | line for line in json.loads(done.stdout)]


def write(found: list[dict[str, Any]], rows: int, synthesizer: dict[str, Any], folder: Path) -> None:
    """wide.csv and wide.md."""
    with (folder / "wide.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    sizes = list(dict.fromkeys(line["columns"] for line in found))
    by_size = [[line for line in found if line["columns"] == size] for size in sizes]

    def row(name: str, values: list[str]) -> str:
        return f"| {name} | " + " | ".join(values) + " |"

    lines = [
        "# The cost of a run as its table grows in columns\n",
        f"Written by `python benchmarks/wide.py`: columns of SUPPORT2 side by side, {rows:,} rows, ε = 1, as many "
        f"synthetic rows, {platform.machine()}, one core, Python {platform.python_version()}. Seconds are CPU time of "
        "the process; *peak* is the largest resident memory in any stage, without pages of files, *estimate* what "
        f"`synth plan` says. The fit is {f'`{json.dumps(synthesizer)}`' if synthesizer else 'the default one'}.\n",
        row("columns", [str(size) for size in sizes]),
        "|---|" + "---|" * len(sizes),
        row("pairs", [f"{some[0]['pairs']:,}" for some in by_size]),
        row("pairs measured", [f"{some[0]['measured']:,}" for some in by_size]),
        *(
            row(f"{stage}, seconds", [f"{line['cpu_seconds']:.1f}" for line in found if line["stage"] == stage])
            for stage in dict.fromkeys(line["stage"] for line in found)
        ),
        row("all, seconds", [f"{sum(line['cpu_seconds'] for line in some):.0f}" for some in by_size]),
        row("peak, MB", [f"{max(line['peak_mb'] for line in some):,}" for some in by_size]),
        row("estimate, MB", [f"{some[0]['estimate_mb']:,}" for some in by_size]),
    ]
    (folder / "wide.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
