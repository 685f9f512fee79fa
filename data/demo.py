"""The demo: one release of SUPPORT2 at ε = 1, and what a steward would want to know of it.

Run by `make demo`, or with the Python of an environment in which synth is installed. Each run of the demo gets
a folder and a ledger of its own below build/demo, so that it can be repeated. Never do that with data you mean
to release: one ledger must see every run on the same people.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "data" / "support2"
POPULATION = "support2-patients"
RUN_YAML = """\
source: {{path: "{sample}/support2.parquet"}}
schema: "{sample}/schema.yaml"
answers: "{sample}/answers.yaml"
privacy: {{epsilon: 1.0, delta: 1.0e-5}}
output: {{directory: out}}
ledger: {{url: "sqlite:///ledger.db"}}
"""


def main() -> int:
    """Run the demo; the exit code is that of the first command that fails."""
    started = time.monotonic()
    folder = new_folder(REPOSITORY / "build" / "demo")
    sample = Path(os.path.relpath(SAMPLE, folder)).as_posix()
    (folder / "run.yaml").write_text(RUN_YAML.format(sample=sample), encoding="utf-8")
    say(f"A demo of its own in {shown(folder)}: fresh run folder, fresh ledger. Runs of the demo do not add up;")
    say("runs on data you release must, so keep one ledger for those.")
    try:
        bundle = Path(synth("run", shown(folder / "run.yaml")).splitlines()[-1])
        ledger = f"sqlite:///{shown(folder / 'ledger.db')}"
        say(synth("budget", "show", POPULATION, "--ledger", ledger))
        say(synth("verify", shown(bundle), "--ledger", ledger))
    except subprocess.CalledProcessError as failure:
        return failure.returncode
    say("\nThree numbers from the bundle's public files")
    for i, line in enumerate(three_numbers(read(bundle / "privacy.json"), read(bundle / "quality.json")), 1):
        say(f"  {i}. {line}")
    say(f"\nThe bundle      {shown(bundle)}")
    say(f"Start reading   {shown(bundle / 'datasheet.html')}")
    say(f"For you alone   {shown(bundle.parent / 'internal')}  (measured against real rows, never hand it out)")
    say(f"Took {time.monotonic() - started:.0f} seconds.")
    return 0


def three_numbers(privacy: dict[str, Any], quality: dict[str, Any]) -> list[str]:
    """What the bundle promises and how good it is, in sentences. All of it is public."""
    statement = privacy["x_synth"]
    # Of all tests whether one person is in the table, the best against a mu-Gaussian-private release is right with
    # probability Phi(mu / 2) when both answers are equally likely (Dong, Roth, Su 2022).
    right = 0.5 * (1 + math.erf(statement["mu"] / 2 / math.sqrt(2)))
    pairs = quality["mean_two_way_distance"] is not None
    way = "two_way" if pairs else "one_way"
    ratio = quality[f"mean_{way}_distance"] / quality[f"mean_{way}_noise"]
    return [
        f"{100 * right:.1f} of 100 guesses: how often someone is right at most who knows everyone else in the table\n"
        "     and guesses whether one more patient is in it (a coin: 50). "
        f"This is ε = {statement['epsilon']:g}, δ = {statement['delta']:g}.",
        f"{100 * quality['valid_rows'] / quality['rows']:.1f} of 100 rows: how many of the {quality['rows']:,} "
        "synthetic rows hold only values that the schema allows.",
        f"{ratio:.2f} times the noise: how far the rows are from the noised measurements, over all measured "
        f"{'pairs of ' if pairs else ''}columns.\n     About 1 is as close as the privacy noise lets anyone get.",
    ]


def synth(*arguments: str) -> str:
    """Run a synth command from the repository's root and return its stdout; progress goes to the terminal."""
    say(f"\n$ synth {' '.join(arguments)}")
    beside = Path(sys.executable).parent / "synth"
    command = str(beside) if beside.exists() else shutil.which("synth") or "synth"
    # The steward's own ledger must not be charged for a demo.
    environment = {name: value for name, value in os.environ.items() if name != "SYNTH_LEDGER"}
    done = subprocess.run(  # noqa: S603  (no shell; every argument is written in this file)
        [command, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    )
    return done.stdout.rstrip()


def new_folder(parent: Path) -> Path:
    """A folder that no run of the demo has used before."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=parent))


def shown(path: Path) -> str:
    """The path as seen from the repository's root."""
    return Path(os.path.relpath(path, REPOSITORY)).as_posix()


def read(path: Path) -> dict[str, Any]:
    """A JSON file of the bundle."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def say(text: str) -> None:
    """A line for the steward."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
