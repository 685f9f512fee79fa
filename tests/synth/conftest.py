"""Schemas in a few words, and a toy run: people as text, and a stand-in for the noise that keeps every exact vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.privacy.noise import NoiseSource
from synth.schema import Schema, parse_schema
from synth.tables.codec import codecs_of
from synth.tables.layout import layout_of, plan_of
from synth.tables.measure import Measurer
from synth.tables.measurements import Measurements

COLUMNS: dict[str, dict[str, Any]] = {
    "age": {"kind": "integer", "bounds": [0, 99]},
    "income": {"kind": "continuous", "bounds": [0, 5000], "decimals": 1, "nullable": True},
    "weight": {"kind": "continuous", "bounds": [2.5, 250]},
    "sex": {"kind": "categorical", "categories": ["female", "male"]},
    "city": {"kind": "categorical", "categories": ["Rome", "Oslo", "other"], "nullable": True},
    "stage": {"kind": "categorical", "categories": [1, 2, 3]},
    "dose": {"kind": "categorical", "categories": [0.5, 1, 2]},
    "died": {"kind": "boolean"},
    "smoker": {"kind": "boolean", "nullable": True},
    "admitted": {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"], "resolution": "day"},
    "seen": {"kind": "datetime", "bounds": ["2020-01-01", "2020-12-31 23:59:59"], "nullable": True},
    "number": {"kind": "id"},
}
"""One column of every kind, by name; a test changes what it is about."""


@pytest.fixture(scope="session")
def schema_of() -> Callable[..., Schema]:
    """`schema_of("age", "died", target="died", age={"bounds": [0, 9]})`: a schema of known or new columns."""

    def build(*names: str, target: str | None = None, row_count: Any = "private", **changes: dict[str, Any]) -> Schema:
        columns = [{"name": n, **COLUMNS.get(n, {}), **changes.pop(n, {})} for n in names]
        assert not changes, f"changes to columns that are not there: {list(changes)}"
        raw = {"dataset": "toy", "row_count": row_count, "target": target, "columns": columns}
        return parse_schema(raw, file="schema.yaml")

    return build


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """`write("run.yaml", text)`: a file in the test's own folder."""

    def place(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return place


Person = tuple[str | None, ...]


@dataclass(frozen=True)
class Release:
    """A noised vector, or the scores of a choice: the event it was charged to, what was exact, and what went out."""

    event: str
    exact: np.ndarray
    noise_scale: float
    answer: Any
    choice: bool = False


@dataclass
class Recorder(NoiseSource):
    """Keeps what it is asked to noise. With `answers` it gives those out again instead of drawing.

    Two runs with the same answers have released the same outputs so far, so that everything they choose from them
    (classes, bins, expected tables, pairs) is the same and only the exact vectors can differ.
    """

    answers: Sequence[Any] | None = None
    seed: int = 0
    releases: list[Release] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def charge(self, event: str) -> None:
        self.log.append(("charge", event))

    def add_to(self, exact: np.ndarray, noise_scale: float) -> np.ndarray:
        if self.answers is None:
            answer = exact + np.round(noise_scale * self.rng.standard_normal(exact.shape), 6)
        else:
            answer = self.answers[len(self.releases)]
            assert answer.shape == exact.shape, "the shape of a release follows the data"
        return self.keep(Release(self.event(), exact.copy(), noise_scale, answer))

    def choose(self, scores: np.ndarray, noise_scale: float) -> int:
        if self.answers is None:
            answer = int(np.argmax(scores / noise_scale + self.rng.gumbel(size=len(scores))))
        else:
            answer = self.answers[len(self.releases)]
        return self.keep(Release(self.event(), scores.copy(), noise_scale, answer, choice=True))

    def event(self) -> str:
        """What was charged last."""
        assert self.log, "a draw before anything was charged"
        return self.log[-1][1]

    def keep(self, release: Release) -> Any:
        self.log.append(("draw", release.event))
        self.releases.append(release)
        return release.answer


class ToyRun:
    """The measured half of a run, on people whose cells are all text, as in a CSV file."""

    def __init__(self, schema: Schema, *, epsilon: float, delta: float = 1e-5, max_rows_per_person: int = 1) -> None:
        self.schema, self.codecs = schema, codecs_of(schema)
        self.layout = layout_of(schema, self.codecs)
        self.plan = plan_of(
            self.layout, self.codecs, epsilon=epsilon, delta=delta, max_rows_per_person=max_rows_per_person
        )
        self.keys = [block.key for codec in self.codecs.values() for block in codec.blocks]

    def codes_of(self, person: Person, identity: int) -> dict[str, int]:
        """A person's codes; `identity` fixes the random level of a cell that has none, whoever else is there."""
        rng = np.random.default_rng([11, identity])
        codes: dict[str, int] = {}
        for codec, cell in zip(self.codecs.values(), person, strict=True):
            encoded = codec.encode(pa.array([cell], pa.string()), rng)
            codes |= {key: int(code[0]) for key, code in encoded.codes.items()}
        return codes

    def measure(
        self, people: Sequence[dict[str, int]], *, answers: Sequence[np.ndarray] | None = None, seed: int = 0
    ) -> tuple[Recorder, Measurements]:
        """All releases of a run on these people's codes."""
        recorder = Recorder(answers=answers, seed=seed)
        batch = {key: np.array([codes[key] for codes in people], dtype=np.int32) for key in self.keys}
        measurer = Measurer(
            read=lambda keys: iter([{key: batch[key] for key in keys}]),
            codecs=self.codecs,
            layout=self.layout,
            plan=self.plan,
            noise=recorder,
            charge=recorder.charge,
            public_rows=None if self.schema.row_count == "private" else int(self.schema.row_count),
        )
        return recorder, measurer.measure()


@pytest.fixture(scope="session")
def toy_run() -> type[ToyRun]:
    return ToyRun
