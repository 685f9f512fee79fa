"""Rows of a rare level: ours drawn by a condition, a peer's picked out of very many, both beside the real ones.

    python benchmarks/rare.py                                        the shipped Adult sample, ε = 1, dpmm's MST
    python benchmarks/rare.py --target native_country                its levels as declared classes (rare_classes.csv)
    python benchmarks/rare.py --table compas --data DIR --peer dpmm-privbayes

Every level of a categorical column that .05 to .5 % of the real rows have is asked for; with `--target`, of that column
alone, which ours is told to be the target: its classes are learned one by one. The distance is the mean total
variation distance of all other columns to the real rows of the level (20-quantile bins of the training rows, as in
`score.py`). The real rows of a level are few, so `drawn anew` says how far as many rows are that are drawn from them;
`all rows` says how far the training rows are, whatever their level: what is no nearer knows nothing of the level.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from bench import HERE, SECONDS_PER_MINUTE, WALL_PER_CPU, Bench, Job, synthesize
from contestants import CONTESTANTS
from limits import Limits
from score import SEED, Coder, Column, one_way_distance, spelled
from tables import TABLES, open_table
from tabular import REPOSITORY, Table, read_table, say

from pipelines.sampling import sample_to_file
from synth.files import write_whole
from synth.schema import load_schema
from synth.yaml_file import read_yaml

LEAST, MOST = 0.0005, 0.005
ROWS = 10_000
FIELDS = ("column", "level", "real_rows", "drawn_anew", "all_rows", "ours", "peer_rows", "peer")
DISTANCES = ("drawn_anew", "all_rows", "ours", "peer")


@dataclass(frozen=True)
class Level:
    """A rare level of a column, and how many real rows have it."""

    column: str
    level: str
    rows: int


def main() -> None:
    """Fit both once, compare level by level, write the CSV file and the page."""
    asked = arguments()
    known = TABLES[asked.table]
    table = open_table(known, asked.data, asked.work / "tables" / known.name)
    seconds = asked.cpu_minutes * SECONDS_PER_MINUTE
    bench = Bench(1e-5, asked.data, asked.work, Limits(seconds, seconds * WALL_PER_CPU, asked.memory_gb * 10**9))
    folder = asked.work / "runs" / "rare"
    shutil.rmtree(folder, ignore_errors=True)
    if asked.target:
        table = with_target(table, asked.target, folder)
    levels = rare_levels(real_rows(table), table, of=asked.target)
    if not levels:
        raise SystemExit(f"{asked.table}: no categorical column that was asked for has a rare level")
    made = {}
    for name, run in (("ours", bench), (asked.peer, replace(bench, rows=asked.peer_rows))):
        say(f"{asked.table}: {name}")
        own = folder / name
        own.mkdir(parents=True)
        rows, used, _ = synthesize(Job(known, CONTESTANTS[name], asked.epsilon, 1), table, own, run)
        if rows is None:
            raise SystemExit(f"{name}: {used.reason}")
        made[name] = rows
    write([row_of(level, table, made["ours"].parent, made[asked.peer]) for level in levels], asked)
    shutil.rmtree(folder)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = [name for name, each in CONTESTANTS.items() if each.kind == "peer"]
    parser.add_argument("--table", choices=TABLES, default="adult")
    parser.add_argument("--target", help="another column than the schema's to be the target")
    parser.add_argument("--peer", choices=peers, default="dpmm-mst")
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="rows that the peer draws to be picked from")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--data", type=Path, help="folder of tables that are not shipped")
    parser.add_argument("--cpu-minutes", type=int, default=40)
    parser.add_argument("--memory-gb", type=int, default=16)
    parser.add_argument("--out", type=Path, help="the CSV file, beside the page; rare.csv or rare_classes.csv")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "peers")
    asked = parser.parse_args()
    asked.out = asked.out or HERE / ("rare_classes.csv" if asked.target else "rare.csv")
    return asked


def with_target(table: Table, target: str, folder: Path) -> Table:
    """The table with a schema that names another target, which is written to `folder`."""
    folder.mkdir(parents=True)
    schema = read_yaml(table.schema_file)
    if target not in [column["name"] for column in schema["columns"]]:
        raise SystemExit(f"--target: no column {target}")
    write_whole(folder / "schema.yaml", json.dumps(schema | {"target": target}))
    return replace(table, schema_file=folder / "schema.yaml", schema=load_schema(folder / "schema.yaml"))


def real_rows(table: Table) -> pd.DataFrame:
    """All real rows: a rare level has few enough."""
    return pd.concat([read_table(table.train), read_table(table.test)], ignore_index=True)


def rare_levels(real: pd.DataFrame, table: Table, of: str | None = None) -> list[Level]:
    """The levels of categorical columns, or `of` one, that few of the real rows have, in the order of the schema."""
    found = []
    for column in (column for column in table.schema.learned_columns if column.kind == "categorical"):
        if of not in (None, column.name):
            continue
        counts = real[column.name].dropna().map(spelled).value_counts()
        found += [
            Level(column.name, level, int(counts[level]))
            for level in map(spelled, column.categories)
            if LEAST <= counts.get(level, 0) / len(real) <= MOST
        ]
    return found


def row_of(level: Level, table: Table, bundle: Path, peer: Path) -> dict[str, str]:
    """Distances of one level: of as many real rows drawn anew, of ours, and of the peer's rows that have it."""
    columns = [column for column in table.columns if column.name != level.column]
    names = [column.name for column in columns]
    real = having(real_rows(table), level)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        sample_to_file(bundle, rows=ROWS, where=[f"{level.column}={level.level}"], output=path, seed=SEED)
        ours = read_table(path)
    picked = having(pd.read_parquet(peer, columns=[level.column, *names]), level)
    anew = real.sample(frac=1.0, replace=True, random_state=SEED)
    train = read_table(table.train)
    shown = {
        "drawn_anew": distance(train, real, anew, columns),
        "all_rows": distance(train, real, train, columns),
        "ours": distance(train, real, ours, columns),
        "peer": distance(train, real, picked, columns) if len(picked) else float("nan"),
    }
    known = {"column": level.column, "level": level.level, "real_rows": str(level.rows), "peer_rows": str(len(picked))}
    return known | {name: f"{value:.4f}" for name, value in shown.items()}


def having(table: pd.DataFrame, level: Level) -> pd.DataFrame:
    """The rows that have the level."""
    return table[table[level.column].map(spelled, na_action="ignore") == level.level]


def distance(train: pd.DataFrame, real: pd.DataFrame, drawn: pd.DataFrame, columns: Sequence[Column]) -> float:
    """Mean one-way total variation distance of two tables, in [0, 1], on bins of the training rows."""
    coder = Coder(train, columns)
    return one_way_distance(coder.codes(real), coder.codes(drawn), coder)


def write(rows: Sequence[dict[str, str]], asked: argparse.Namespace) -> None:
    """The CSV file and the page."""
    out = StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(asked.out, out.getvalue())
    title = CONTESTANTS[asked.peer].title
    closer = sum(float(row["ours"]) < float(row["peer"]) for row in rows if row["peer"] != "nan")
    means = {name: np.nanmean([float(row[name]) for row in rows]) for name in DISTANCES}
    target = f" --target {asked.target}" if asked.target else ""
    lines = [
        "# Rows of a rare class\n" if asked.target else "# Rows of a rare level\n",
        f"Written by `python benchmarks/rare.py{target}`: {asked.table}, ε = {asked.epsilon:g}, one model each, "
        f"{platform.machine()}, Python {platform.python_version()}. Mean one-way distance of all other columns to "
        f"the real rows of the level: of {ROWS:,} rows drawn by `--where`, and of those that have the level among "
        f"{asked.peer_rows:,} rows of {title}. *Drawn anew*: as many rows as there are, drawn from the real ones; "
        "*all rows*: the training rows, whatever their level.\n",
        f"Ours are closer on {closer} of {len(rows)} levels; means: drawn anew {means['drawn_anew']:.3f}, all rows "
        f"{means['all_rows']:.3f}, ours {means['ours']:.3f}, {title} {means['peer']:.3f}.\n",
        f"| level | real rows | drawn anew | all rows | ours | {title} | rows it had |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peer = "–" if row["peer"] == "nan" else row["peer"]
        known = (f"`{row['column']}={row['level']}`", row["real_rows"])
        cells = (*known, row["drawn_anew"], row["all_rows"], row["ours"], peer)
        lines.append(f"| {' | '.join(cells)} | {row['peer_rows']} |")
    write_whole(asked.out.with_suffix(".md"), "\n".join(lines) + "\n")
    say(f"written: {asked.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
