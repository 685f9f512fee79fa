"""The page of a comparison, and a plot for each table, from the CSV file and nothing else.

python benchmarks/page.py benchmarks/peers.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from contestants import CONTESTANTS
from plots import plot
from verdicts import SHOWN, TITLES, Row, Summary, Verdict, number, summarize, verdicts

from synth.files import write_whole

HEAD = """# Beside other synthesizers

Written by `benchmarks/bench.py` from [{csv}]({csv}), one line a run; do not edit. What the scores mean, and on which
terms the peers run, is in [README.md](README.md). Each figure is the median of the runs that ended well. δ = 1e-5.

| target | against |
|---|---|
| `tvd2`, `tvd3` at most .6 times | the best private peer on that score |
| the gap of `auc_gbm` and `auc_lr` to the real rows at most .5 times | the best private peer on that score |
| `c2st` closer to .5 | the best private peer on that score |
| processor time at most a twentieth | the fastest AIM that ended, else the limit at which one was stopped |

A missed target is **bold**, with what stands against it.
"""
COLUMNS = ("method", "runs", *SHOWN)
DIGITS = {"cpu_seconds": 0, "seconds": 0, "peak_mb": 0}


def write_page(rows: Sequence[Row], csv_file: Path) -> None:
    """The page and the plots beside the CSV file."""
    write_whole(csv_file.with_suffix(".md"), page(rows, csv_file.name))
    for table in tables(rows):
        write_whole(csv_file.with_name(plot_name(csv_file.name, table)), plot(rows, table))


def page(rows: Sequence[Row], csv_name: str) -> str:
    """The page as Markdown."""
    parts = [HEAD.format(csv=csv_name), overview(rows)]
    for table in tables(rows):
        tuned = any(row["tuned"] == "yes" for row in rows if row["table"] == table)
        parts.append(f"## {table}\n")
        parts.append(
            "The constants of our recipe were chosen on this table.\n"
            if tuned
            else "The constants of our recipe were not chosen on this table.\n"
        )
        parts.append(f"![{table}: scores of every method]({plot_name(csv_name, table)})\n")
        for epsilon in epsilons(rows, table):
            parts.append(section(summarize(rows, table, epsilon), epsilon))
    return "\n".join(parts)


def tables(rows: Sequence[Row]) -> list[str]:
    """The tables in the order of the file."""
    return list(dict.fromkeys(row["table"] for row in rows))


def epsilons(rows: Sequence[Row], table: str) -> list[str]:
    """The ε that were run on a table, small to large."""
    return sorted({row["epsilon"] for row in rows if row["table"] == table and row["epsilon"]}, key=float)


def plot_name(csv_name: str, table: str) -> str:
    """The file of a table's plot."""
    return f"{Path(csv_name).stem}-{table}.svg"


def overview(rows: Sequence[Row]) -> str:
    """A line a table and ε: ours over the best peer, target by target."""
    lines = [
        "## Ours over the best peer\n",
        "| table | tuned on | ε | " + " | ".join(TITLES.values()) + " |",
        "|---|---|---|" + "---|" * len(TITLES),
    ]
    for table in tables(rows):
        tuned = any(row["tuned"] == "yes" for row in rows if row["table"] == table)
        for epsilon in epsilons(rows, table):
            judged = {each.score: each for each in verdicts(summarize(rows, table, epsilon))}
            cells = [_ratio(judged[score]) if score in judged else "–" for score in TITLES]
            lines.append(f"| {table} | {'yes' if tuned else 'no'} | {epsilon} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def section(found: Sequence[Summary], epsilon: str) -> str:
    """The scores of every method at one ε, and the targets."""
    lines = [f"### ε = {epsilon}\n", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for each in found:
        cells = [number(each.scores.get(name), DIGITS.get(name, 3)) for name in SHOWN]
        lines.append(f"| {each.contestant.title} | {each.runs} | " + " | ".join(cells) + " |")
    judged = verdicts(found)
    if judged:
        lines += ["", "| target | ours | best peer | ratio | wanted | |", "|---|---|---|---|---|---|"]
        lines += [_line(verdict) for verdict in judged]
    problems = [f"- {each.contestant.title}: {each.problem}" for each in found if each.problem]
    return "\n".join(lines + (["", *problems] if problems else [])) + "\n"


def _line(verdict: Verdict) -> str:
    digits = DIGITS.get(verdict.score, 3)
    best = f"{verdict.peer}, {number(verdict.best, digits)}"
    note = "met" if verdict.met else f"**missed**: {verdict.reason}"
    title, wanted = TITLES[verdict.score], f"{verdict.limit:g}"
    return f"| {title} | {number(verdict.ours, digits)} | {best} | {_ratio(verdict)} | {wanted} | {note} |"


def _ratio(verdict: Verdict) -> str:
    ratio = number(verdict.ratio, 2)
    return ratio if verdict.met else f"**{ratio}**"


def main() -> None:
    """Write the page again from a CSV file."""
    csv_file = Path(sys.argv[1])
    with csv_file.open(newline="", encoding="utf-8") as stream:
        rows: list[Mapping[str, str]] = list(csv.DictReader(stream))
    write_page([row for row in rows if row["method"] in CONTESTANTS], csv_file)


if __name__ == "__main__":
    main()
