"""The published accuracy on held-out people beside the exact one, of a finished run on a public table.

    python benchmarks/holdout.py out/adult-…

The exact one comes from the run's internal report: of a private table it must not be printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def line(run: Path) -> str:
    """One row of the table in README.md. Raises KeyError for a run without held-out people."""
    told = json.loads((run / "bundle" / "quality.json").read_text())["held_out"]
    statement = json.loads((run / "bundle" / "privacy.json").read_text())["x_synth"]
    exact = json.loads((run / "internal" / "report.json").read_text())["held_out"]
    rows = exact["correct"] + exact["wrong"]
    accuracy = "not told" if told["accuracy"] is None else f"{told['accuracy']:.4f}"
    return (
        f"| {statement['dataset']} | {statement['epsilon']:g} | {told['holdout'] or 'file'} | {rows:,} "
        f"| {told['noise_scale']:.2f} | {accuracy} | {told['low']:.4f} to {told['high']:.4f} "
        f"| {exact['correct'] / rows:.4f} | {told['base_rate']:.4f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+")
    for folder in parser.parse_args().run:
        print(line(folder))
