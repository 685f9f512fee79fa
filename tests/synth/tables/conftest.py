"""A toy run: people as text, their codes, and a stand-in for the noise that keeps every exact vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from synth.privacy.noise import NoiseSource
from synth.schema import Schema
from synth.tables.codec import codecs_of
from synth.tables.decode import decoder_of
from synth.tables.measure import Measurements, Measurer, layout_of, plan_of
from synth.tables.model import TableModel, new_generator
from synth.tables.targets import encoding_of

Person = tuple[str | None, ...]


@dataclass(frozen=True)
class Release:
    """One noised vector: the event it was charged to, what was exact, and what went out."""

    event: str
    exact: np.ndarray
    noise_scale: float
    answer: np.ndarray


@dataclass
class Recorder(NoiseSource):
    """Keeps what it is asked to noise. With `answers` it gives those out again instead of drawing.

    Two runs with the same answers have released the same outputs so far, so that everything they choose from them
    (classes, bins, expected tables, pairs) is the same and only the exact vectors can differ.
    """

    answers: Sequence[np.ndarray] | None = None
    seed: int = 0
    releases: list[Release] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def charge(self, event: str) -> None:
        self.log.append(("charge", event))

    def add_to(self, exact: np.ndarray, noise_scale: float) -> np.ndarray:
        assert self.log, "a draw before anything was charged"
        event = self.log[-1][1]
        self.log.append(("draw", event))
        if self.answers is None:
            answer = exact + np.round(noise_scale * self.rng.standard_normal(exact.shape), 6)
        else:
            answer = self.answers[len(self.releases)]
            assert answer.shape == exact.shape, "the shape of a release follows the data"
        self.releases.append(Release(event, exact.copy(), noise_scale, answer))
        return answer


class ToyRun:
    """The measured half of a run, on people whose cells are all text, as in a CSV file."""

    def __init__(self, schema: Schema, *, epsilon: float, delta: float = 1e-5) -> None:
        self.schema, self.codecs = schema, codecs_of(schema)
        self.layout = layout_of(schema, self.codecs)
        self.plan = plan_of(self.layout, self.codecs, epsilon=epsilon, delta=delta)
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


@pytest.fixture(scope="session")
def hospital(schema_of: Callable[..., Schema]) -> Schema:
    """A small table with a column of every kind and a class."""
    names = ("number", "age", "income", "weight", "city", "dose", "smoker", "admitted", "died")
    return schema_of(*names, target="died", smoker={"nullable": True})


@pytest.fixture(scope="session")
def patients() -> list[Person]:
    """Cells of the learned columns of `hospital`: correlated, with nulls and values that people share."""
    rng = np.random.default_rng(5)
    people: list[Person] = []
    for _ in range(400):
        died = rng.random() < 0.3
        age = int(np.clip(rng.normal(70 if died else 40, 12), 0, 99))
        income = None if rng.random() < 0.2 else "1000" if rng.random() < 0.4 else f"{rng.gamma(2, 500):.1f}"
        day = np.datetime64("1989-01-01") + rng.integers(0, 2000)
        weight = f"{np.clip(rng.normal(70, 15), 3, 200):.4f}"
        city = ["Rome", "Oslo", None][rng.choice(3, p=[0.6, 0.3, 0.1])]
        dose = ["0.5", "1", "2.0"][rng.integers(3)]
        smoker = [None, "yes", "no"][rng.integers(3)]
        people.append((str(age), income, weight, city, dose, smoker, str(day), str(died).lower()))
    return people


@pytest.fixture(scope="session")
def hospital_run(hospital: Schema, patients: list[Person]) -> tuple[ToyRun, Measurements]:
    run = ToyRun(hospital, epsilon=20.0)
    return run, run.measure([run.codes_of(person, i) for i, person in enumerate(patients)])[1]


def model_of(run: ToyRun, measured: Measurements, *, members: int = 2, points: int = 12) -> TableModel:
    """A model that was never trained: random generators, but real measurements, bins and decoders."""
    encoding = encoding_of(measured)
    generators = []
    for number in range(members):
        generator = new_generator(
            classes=len(measured.class_sizes),
            sizes=encoding.sizes,
            latent_points=points,
            latent_size=4,
            hidden_size=8,
            seed=number,
        )
        generators.append(generator.eval())
    return TableModel(
        schema=run.schema,
        encoding=encoding,
        target=run.layout.target,
        class_share=measured.class_sizes / measured.class_sizes.sum(),
        class_of_cell=measured.class_of_cell,
        decoders={name: decoder_of(measured, run.codecs[name]) for name in run.layout.columns},
        members=tuple(generators),
        rows=round(measured.total),
    )


@pytest.fixture(scope="session")
def model(hospital_run: tuple[ToyRun, Measurements]) -> TableModel:
    return model_of(*hospital_run)


@pytest.fixture(scope="session")
def untrained() -> Callable[..., TableModel]:
    return model_of
