"""How much of what was paid for real people use: a run's exact vectors with and without each of them.

    python benchmarks/persons.py data/pbcseq/run.yaml --people 312

For every person asked for (those with the most rows first), the table is measured twice, with and without all rows of
that person, the noised outputs held fixed. How far each release's exact vectors lie apart, in units of their noise, is
what the person cost; the event's μ is what was paid. A share above 1 would refute the stated sensitivity. Exact vectors
of real people are in memory and nothing of them is written but the largest shares.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.config import Run, load_run
from synth.ingest import read_batches, read_persons
from synth.prepare import plan_run
from synth.privacy.contributions import bound_contributions
from synth.privacy.events import GdpEvent, SelectionEvent, mu_of_choice
from synth.privacy.noise import NoiseSource
from synth.tables.codec import codecs_of
from synth.tables.count import read_codes
from synth.tables.encode import encode
from synth.tables.measure import Measurer

Codes = dict[str, npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Bounded:
    """A table after contribution bounding: whose each row is, and its codes."""

    whose: npt.NDArray[Any]
    codes: Codes

    def without(self, person: Any) -> Codes:
        """The codes of everybody else's rows."""
        stay = self.whose != person
        return {key: codes[stay] for key, codes in self.codes.items()}


@dataclass
class Recorder(NoiseSource):
    """Keeps the exact vectors and scores it is asked about; gives `answers` out again where there are any."""

    answers: Sequence[Any] = ()
    event: str = ""
    drawn: list[tuple[str, npt.NDArray[Any], float]] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def charge(self, event: str) -> None:
        """What is drawn from here on belongs to this event."""
        self.event = event

    def add_to(self, exact: npt.NDArray[Any], noise_scale: float) -> npt.NDArray[np.float64]:
        """As `NoiseSource.add_to`, or the fixed answer."""
        noised: npt.NDArray[np.float64] = self._answer(exact, noise_scale, super().add_to)
        return noised

    def choose(self, scores: npt.NDArray[np.float64], noise_scale: float) -> int:
        """As `NoiseSource.choose`, or the fixed answer."""
        return int(self._answer(scores, noise_scale, super().choose))

    def _answer(self, exact: npt.NDArray[Any], noise_scale: float, draw: Callable[..., Any]) -> Any:
        self.drawn.append((self.event, np.array(exact), noise_scale))
        number = len(self.given)
        self.given.append(self.answers[number] if self.answers else draw(exact, noise_scale))
        return self.given[-1]


def bounded_table(run: Run) -> Bounded:
    """The rows of a run with a person column, as its own stages would encode them."""
    source, table, codecs = run.files.path, run.table, codecs_of(run.table)
    stays = bound_contributions(read_persons(source, table), max_rows_per_person=table.max_rows_per_person)
    with tempfile.TemporaryDirectory() as folder:
        encode(read_batches(source, table), codecs, Path(folder) / "codes", stays=stays)
        keys = [block.key for codec in codecs.values() for block in codec.blocks]
        parts = list(read_codes(Path(folder) / "codes", keys))
    whose = np.concatenate([part.to_numpy(zero_copy_only=False) for part in read_persons(source, table)])[stays]
    return Bounded(whose, {key: np.concatenate([part[key] for part in parts]).astype(np.int32) for key in keys})


def measured(run: Run, codes: Codes, answers: Sequence[Any] = ()) -> Recorder:
    """Every release of the run on these rows."""
    layout, plan = plan_run(run)
    recorder = Recorder(answers=answers)
    Measurer(
        read=lambda keys: iter([{key: codes[key] for key in keys}]),
        codecs=codecs_of(run.table),
        layout=layout,
        plan=plan,
        noise=recorder,
        charge=recorder.charge,
        public_rows=None,
    ).measure()
    return recorder


def shares_used(run: Run, table: Bounded, people: Sequence[Any]) -> dict[str, float]:
    """The largest share of each event's μ that any of these people uses."""
    _, plan = plan_run(run)
    base = measured(run, table.codes)
    paid = {event.name: event.mu for event in plan.events if isinstance(event, GdpEvent)}
    choices = {event.name for event in plan.events if isinstance(event, SelectionEvent)}
    most = dict.fromkeys(paid, 0.0)
    for done, person in enumerate(people, start=1):
        moved: dict[str, float] = defaultdict(float)
        other = measured(run, table.without(person), base.given)
        for (event, exact, scale), (_, without, same_scale) in zip(base.drawn, other.drawn, strict=True):
            assert scale == same_scale
            moves = (exact - without) / scale
            moved[event] += mu_of_choice(float(np.abs(moves).max())) ** 2 if event in choices else np.sum(moves**2)
        for name, mu in paid.items():
            most[name] = max(most[name], math.sqrt(moved[name]) / mu)
        if sys.stderr.isatty():
            print(f"\r{done} of {len(people)} people", end="", file=sys.stderr)
    return most


def people_by_rows(table: Bounded) -> list[Any]:
    """Everybody, those with the most rows first."""
    return [person for person, _ in Counter(table.whose.tolist()).most_common()]


def main() -> None:
    """Print the largest shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run_yaml", type=Path)
    parser.add_argument("--people", type=int, default=100)
    arguments = parser.parse_args()
    run = load_run(arguments.run_yaml)
    table = bounded_table(run)
    people = people_by_rows(table)[: arguments.people]
    print(f"{len(people)} people, at most {run.table.max_rows_per_person} rows each; largest share of what was paid:")
    for event, share in shares_used(run, table, people).items():
        print(f"{share:8.3f}  {event}")


if __name__ == "__main__":
    main()
