"""What catches which planted defect, with how many runs and how long; and what the same games say of the honest build.

Defects are planted from outside by `tests/synth/privacy/audit/planted.py`; the games and guards are those of the tests.

    python benchmarks/defects.py [--repeats 20] [--out benchmarks]
"""

from __future__ import annotations

import argparse
import csv
import importlib
import logging
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("defect", "by", "what", "caught", "repeats", "runs", "seconds", "bound", "claimed", "delta")
HONEST = "none (the honest build)"


def loaded() -> tuple[Any, Any]:
    """The tests' `suite` and `games`."""
    sys.path.insert(0, str(ROOT / "tests" / "synth" / "privacy" / "audit"))
    return importlib.import_module("suite"), importlib.import_module("games")


def measured_case(case: Any, repeats: int, games: Any) -> dict[str, Any]:
    """A defect, looked for `repeats` times when noise decides, else once."""
    found = [case.run() for _ in range(repeats if case.by == "audit" else 1)]
    row = {
        "defect": case.defect,
        "by": case.by,
        "what": case.what,
        "caught": sum(f.caught for f in found),
        "repeats": len(found),
        "runs": max(f.runs for f in found),
        "seconds": round(statistics.median(f.seconds for f in found), 2),
    }
    if case.by == "audit":
        row |= {"bound": round_down(min(f.bound for f in found)), "claimed": found[0].claimed}
        row["delta"] = delta_of(case.what, games)
    return row


def measured_honest(what: str, game: Any, repeats: int, games: Any) -> dict[str, Any]:
    """The same game, `repeats` times on the build as it is: the largest bound counts."""
    start = time.perf_counter()
    shown = [game(games.REPORTED) for _ in range(repeats)]
    return {
        "defect": HONEST,
        "by": "audit",
        "what": what,
        "caught": sum(bound.refutes for bound in shown),
        "repeats": repeats,
        "runs": shown[0].runs,
        "seconds": round((time.perf_counter() - start) / repeats, 2),
        "bound": round_up(max(bound.bound for bound in shown)),
        "claimed": shown[0].claimed,
        "delta": delta_of(what, games),
    }


def delta_of(what: str, games: Any) -> float:
    """δ of a game's claim."""
    return float(games.EPOCHS_DELTA if what.startswith("membership of a person whose") else games.DELTA)


def round_down(bound: float) -> float:
    """The least bound, never better than it was."""
    return float(np.floor(bound * 100) / 100)


def round_up(bound: float) -> float:
    """The largest bound, never better than it was."""
    return float(np.ceil(bound * 100) / 100)


def markdown(rows: list[dict[str, Any]], command: str) -> str:
    """The result file."""
    machine = f"{platform.machine()}, Python {platform.python_version()}, one thread"
    planted_rows = [row for row in rows if row["defect"] != HONEST]
    honest = [row for row in rows if row["defect"] == HONEST]
    games = sum(row["repeats"] for row in honest)
    runs = sum(row["repeats"] * row["runs"] for row in honest)
    lines = [
        "# Planted defects",
        "",
        f"Written by `{command}`: {machine}. Other work ran on the machine.",
        "",
        "Each defect is planted in the product by a test-only seam and looked for in one or more ways:",
        "",
        "- **audit**: an attacker who knows everything but the coins guesses them; *bound* is the lower bound on ε at",
        "  99.9 % confidence, the least of all repeats, and a bound above the *claimed* ε (at δ) catches the defect;",
        "- **replay**: a run on a table and on its neighbour with every noised value equal; whatever public output",
        "  differs was told without noise, and no ε covers it;",
        "- **guard**: the product refuses, or a test of its parts does.",
        "",
        "*Runs* are of the product, or of the audited part of it, for one look; *seconds* are for one look (median).",
        "",
        "| defect | by | what | caught | runs | seconds | bound | claimed ε | δ |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['defect']} | {row['by']} | {row['what']} | {row['caught']} of {row['repeats']} | {row['runs']} "
            f"| {row['seconds']:.2f} | {_shown(row, 'bound')} | {_shown(row, 'claimed')} | {_shown(row, 'delta')} |"
            for row in planted_rows
        ),
        "",
        "## The honest build",
        "",
        f"The same games on the build as it is, {honest[0]['repeats']} times each ({runs} runs in all); *bound* is the",
        "largest of all repeats, at 99.9 % confidence. By the theorems alone a sound build passes its claim in at most",
        f"one game of a thousand: {games} games have a false alarm with probability at most {games / 1000:.2f}. The",
        "tests therefore hold the honest build to bounds of confidence 1 − 10⁻⁸.",
        "",
        "| game | games | above the claim | runs each | seconds each | largest bound | claimed ε | δ |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['what']} | {row['repeats']} | {row['caught']} | {row['runs']} | {row['seconds']:.2f} "
            f"| {_shown(row, 'bound')} | {_shown(row, 'claimed')} | {_shown(row, 'delta')} |"
            for row in honest
        ),
        "",
    ]
    return "\n".join(lines)


def _shown(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return "–"
    return f"{value:g}" if name == "delta" else f"{value:.2f}"


def main() -> None:
    """Run all and write defects.md and defects.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="looks for each defect that noise may hide")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of defects.md and defects.csv")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    suite, games = loaded()
    suite.one_thread()
    rows = []
    for case in suite.CASES:
        rows.append(measured_case(case, options.repeats, games))
        print(rows[-1], file=sys.stderr)
    for what, game in suite.HONEST.items():
        rows.append(measured_honest(what, game, max(20, options.repeats), games))
        print(rows[-1], file=sys.stderr)
    with (options.out / "defects.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    command = f"python benchmarks/defects.py --repeats {options.repeats}"
    (options.out / "defects.md").write_text(markdown(rows, command), encoding="utf-8")


if __name__ == "__main__":
    main()
