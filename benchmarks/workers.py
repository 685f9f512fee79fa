"""How much faster two Dask workers are than one: the counting passes over a large table, and drawing rows.

    python benchmarks/workers.py [--rows 4000000] [--rounds 7] [--out benchmarks]

The table is the encoded rows of data/adult (15 columns) drawn with replacement. The passes are those of a run: all
fine histograms, all bins within classes, all pair tables within classes; their counts are compared with those of
this process. One worker and two take turns, in clusters that are both there throughout, so that whatever else the
machine does falls on both. What else it did is measured too: processor time of the machine that was not ours, in
cores. Where others leave less than two cores, the clock cannot show what two workers can do; so processor seconds on
the critical path are counted as well: those of this process and of the busiest worker, as if they never overlapped.
Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

ADULT = Path(__file__).parents[1] / "data" / "adult"
COLUMNS = ("work", "round", "workers", "seconds", "path_seconds", "others")
COUNTING, DRAWING = "counting passes", "drawing rows"
QUIET = 0.1
"""Cores that others may use in a round that counts as quiet."""
WAIT_SECONDS = 60
DRAWN_ROWS = 200_000
TARGET = 1.6


def main() -> None:
    """Measure and write workers.csv and workers.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    # As Dask gives its workers: sums of floats in another order are other bits, and so other rows.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from pipelines.dask_workers import dask_workers
    from synth.config import Scale
    from synth.tables.workers import HERE

    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_:
        passes, draw = prepare(Path(folder), args.rows)
        crews = {}
        for workers in (1, 2):
            own = Path(folder) / f"workers-{workers}"
            own.mkdir()
            crews[workers] = open_.enter_context(dask_workers(Scale(workers=workers), own))
        works: Mapping[str, Callable[[Any], Any]] = {COUNTING: passes, DRAWING: draw}
        for work, do in works.items():
            expected = do(HERE)
            for crew in crews.values():
                assert do(crew) == expected, "workers count or draw something else"  # and everything is imported
            for number in range(args.rounds):
                wait_for_quiet()
                for workers in (1, 2) if number % 2 else (2, 1):
                    times = timed(partial(do, crews[workers]))
                    found.append(dict(zip(COLUMNS, (work, number, workers, *times), strict=True)))
                    print(found[-1], file=sys.stderr)
    write(found, args)


def prepare(folder: Path, rows: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """What counts a large working file and what draws from a model, given workers."""
    import numpy as np
    import pyarrow as pa

    from synth import stages
    from synth.ingest import BATCH_ROWS, read_batches
    from synth.prepare import prepare as prepare_run
    from synth.privacy.ledger import Ledger
    from synth.run_folder import RunFolder, hold
    from synth.tables.codec import codecs_of
    from synth.tables.count import WorkingFile, count_binned, count_histograms, count_pairs
    from synth.tables.encode import encode
    from synth.tables.layout import layout_of
    from synth.tables.measurements import Measurements, load_measurements
    from synth.tables.rows import sample_rows_by

    run_yaml = folder / "run.yaml"
    run_yaml.write_text(
        f"source: {{path: {ADULT / 'adult.parquet'}}}\nschema: {ADULT / 'schema.yaml'}\n"
        "privacy: {epsilon: 1, delta: 1.0e-5}\nledger: {url: 'sqlite:///ledger.db'}\nsynthesizer: {steps: 50}\n"
    )
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    run: RunFolder = prepare_run(run_yaml, ledger)
    measured: Measurements
    with hold(run):
        stages.reserve(run, ledger)
        stages.encode(run)
        stages.measure(run, ledger)
        stages.train(run)
        measured = load_measurements(run.private)
        run.model.rename(folder / "model")
    schema = run.run().table
    codecs = codecs_of(schema)
    layout, blocks = layout_of(schema, codecs), [block for codec in codecs.values() for block in codec.blocks]
    encode(read_batches(ADULT / "adult.parquet", schema), codecs, folder / "few.arrow")
    with pa.memory_map(str(folder / "few.arrow")) as stream:
        few, rng = pa.ipc.open_file(stream).read_all(), np.random.default_rng(0)
        with (folder / "many.arrow").open("wb") as sink, pa.ipc.new_file(sink, few.schema) as writer:
            for start in range(0, rows, BATCH_ROWS):
                some = few.take(pa.array(rng.integers(0, few.num_rows, min(BATCH_ROWS, rows - start))))
                writer.write_table(some.combine_chunks())

    def passes(workers: Any) -> dict[Any, bytes]:
        file = WorkingFile(folder / "many.arrow", tuple(block.key for block in blocks), workers)
        common: dict[str, Any] = {
            "class_key": f"cells:{layout.target}",
            "class_of_cell": measured.class_of_cell,
        }
        bins = measured.bin_of_cell
        counts: dict[Any, Any] = {}
        counts |= count_histograms(file, blocks=blocks, **common)
        counts |= count_binned(file, bin_of_cell=bins, **common)
        counts |= count_pairs(file, pairs=layout.pairs, bin_of_cell=bins, **common)
        return {key: table.tobytes() for key, table in counts.items()}

    def draw(workers: Any) -> int:
        drawn = sample_rows_by(workers, folder / "model", DRAWN_ROWS, seed=1)
        return hash(tuple(str(batch.slice(0, 1000)) for batch in drawn))

    return passes, draw


def timed(work: Callable[[], Any]) -> tuple[float, float, float]:
    """Seconds on the clock and on the critical path of processor time, and the cores that others used meanwhile."""
    before, busy, start = own_seconds(), machine_seconds(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - start, own_seconds()
    ours = {process: spent - before.get(process, 0.0) for process, spent in after.items()}
    path = ours.pop(os.getpid()) + max(ours.values(), default=0.0)
    others = (machine_seconds() - busy - sum(ours.values()) - after[os.getpid()] + before[os.getpid()]) / seconds
    return round(seconds, 2), round(path, 2), round(max(0.0, others), 2)


def wait_for_quiet() -> None:
    """Wait for a second in which others use little, for a while at most."""
    limit = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < limit:
        if timed(partial(time.sleep, 1))[2] < QUIET:
            return


def machine_seconds() -> float:
    """Processor seconds that the whole machine has worked, all cores together."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> dict[int, float]:
    """Processor seconds of this process and of those that it has started, by process."""
    parents, spent = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # one that has ended
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            spent[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return {process: spent[process] for process in parents if os.getpid() in (process, parents[process])}


def write(found: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """workers.csv and workers.md."""
    with (args.out / "workers.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    (args.out / "workers.md").write_text(page(found, args.rows))


def page(found: list[dict[str, Any]], rows: int) -> str:
    """The table and what follows from it."""
    lines = [
        "# Two Dask workers beside one\n",
        f"Written by `python benchmarks/workers.py`: {rows:,} encoded rows of Adult (15 columns) drawn with "
        "replacement, counted as a run does (fine histograms, bins within classes, all pairs within classes), and "
        f"{DRAWN_ROWS:,} rows drawn from its model; {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}. One worker and two take turns; counts and rows were the same as those of one "
        "process. Medians; *others* is what other work on the machine used, in cores, and rounds in which it stayed "
        f"below {QUIET} with both are quiet. The *path* is the processor time of the run's own process and of the "
        "busiest worker added up: about what the clock would show if nobody else used the machine.\n",
        "| work | rounds | others | one worker, s | two, s | times as fast | path of one, s | of two, s | shorter |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    verdict = ""
    for work in dict.fromkeys(line["work"] for line in found):
        mine = [line for line in found if line["work"] == work]
        loud = {line["round"] for line in mine if line["others"] >= QUIET}
        for name, some in (("quiet", [x for x in mine if x["round"] not in loud]), ("all", mine)):
            if not some:
                continue
            clock, path = medians(some, "seconds"), medians(some, "path_seconds")
            others = statistics.median(x["others"] for x in some)
            lines.append(
                f"| {work} | {len(some) // 2}, {name} | {others:.2f} | {clock[1]:.2f} | {clock[2]:.2f} | "
                f"{clock[1] / clock[2]:.2f} | {path[1]:.2f} | {path[2]:.2f} | {path[1] / path[2]:.2f} |"
            )
            if work == COUNTING and not verdict:
                verdict = (
                    f"\nThe aim for the counting passes is {TARGET} times: {clock[1] / clock[2]:.2f} by the clock "
                    f"({name} rounds, others on {others:.2f} of {os.cpu_count()} cores), {path[1] / path[2]:.2f} by "
                    "the path.\n"
                )
    return "\n".join(lines) + "\n" + verdict


def medians(lines: list[dict[str, Any]], column: str) -> dict[int, float]:
    """The median of a column, by the number of workers."""
    return {workers: statistics.median(x[column] for x in lines if x["workers"] == workers) for workers in (1, 2)}


if __name__ == "__main__":
    main()
