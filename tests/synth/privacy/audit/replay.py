"""Replay: a run on a table and on its neighbour, with every noised value and every coin the same.

What was paid for is the noised values. Everything public is computed from those, the config and the schema; so with the
same noised values two tables must leave the same bytes. Whatever differs was told without noise, and no ε covers it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from games import FloatArray, started
from torch import Tensor

from synth import stages
from synth.privacy.dp_sgd import step
from synth.privacy.noise import NoiseSource
from synth.run_folder import RunFolder
from synth.tables import stages as table_stages

SCHEMA: dict[str, Any] = {
    "privacy_unit": "row",
    "target": "ill",
    "columns": [
        {"name": "age", "kind": "integer", "bounds": [0, 120]},
        {"name": "sex", "kind": "categorical", "categories": ["f", "m"]},
        {"name": "ill", "kind": "boolean"},
    ],
}
SYNTHESIZER = {"steps": 5, "members": 1, "latent_points": 8, "hidden_size": 8, "learning_rate": 0.05}
CRITIC = {"critic_share": 0.4, "critic": {"steps": 8, "sample_rate": 1.0, "hidden_size": 8, "learning_rate": 0.05}}
TABLE = pa.table({"age": [20], "sex": ["f"], "ill": [False]})
NEIGHBOUR = pa.concat_tables([TABLE, pa.table({"age": [99], "sex": ["m"], "ill": [True]})])
OF_THE_RUN_ITSELF = "ledger_head"
"""The hash of the ledger's last entry, of run id, time and a nonce. Run id and time are in the bundle too."""


class Recorded(NoiseSource):
    """Answers whatever it likes and keeps the answers, or gives those of another run.

    Under Gaussian noise either table may bring about any answer. Those to counts are of a few hundred people, so that
    there are several bins.
    """

    def __init__(self, answers: list[FloatArray] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.given, self.answers = answers, list[FloatArray]()
        self.asked: list[tuple[tuple[int, ...], float]] = []
        self.rng = np.random.default_rng(seed)

    def add_to(self, exact: npt.NDArray[Any], noise_scale: float) -> FloatArray:
        """Noised counts."""
        return self._answer(np.round(self.rng.uniform(0, 400, exact.shape), 3), noise_scale)

    def choose(self, scores: FloatArray, noise_scale: float) -> int:
        """A choice among scores."""
        return int(self._answer(np.array(self.rng.integers(len(scores))), noise_scale))

    def noised_sum(self, sums: Sequence[Tensor], noise_scale: float, source: NoiseSource) -> list[Tensor]:
        """Noised gradients."""
        made = [noise_scale * self.rng.standard_normal(part.shape) for part in sums]
        return [torch.from_numpy(self._answer(part, noise_scale)) for part in made]

    def _answer(self, answer: FloatArray, noise_scale: float) -> FloatArray:
        place = len(self.answers)
        if self.given is not None and place < len(self.given) and self.given[place].shape == answer.shape:
            answer = self.given[place]
        self.answers.append(answer)
        self.asked.append((answer.shape, noise_scale))
        return answer


@contextmanager
def same_coins() -> Iterator[None]:
    """What is drawn after the measurements (weights, thinning, sampling) comes out alike in all runs."""
    honest = np.random.default_rng
    torch.manual_seed(0)
    with (
        patch.object(secrets, "randbits", lambda bits: 12345 % 2**bits),
        patch.object(np.random, "default_rng", lambda seed=None: honest(0 if seed is None else seed)),
    ):
        yield


def told_without_noise(*, seed: int = 0, critic: bool = False) -> set[str]:
    """Names of the public outputs that differ between the table and its neighbour; empty for a sound build."""
    first = Recorded(seed=seed)
    told = published(TABLE, first, critic=critic)
    second = Recorded(first.answers)
    other = published(NEIGHBOUR, second, critic=critic)
    different = {name for name in told.keys() | other.keys() if told.get(name) != other.get(name)}
    return different | ({"what is asked of the noise"} if first.asked != second.asked else set())


def published(source: pa.Table, noise: Recorded, *, critic: bool) -> dict[str, str]:
    """All that a run on this table would put into its bundle, by name, shortened."""
    synthesizer = SYNTHESIZER | (CRITIC if critic else {})
    with (
        started(source, SCHEMA, synthesizer=synthesizer) as (folder, ledger),
        patch.object(table_stages, "NoiseSource", lambda: noise),
        patch.object(step, "noised_sum", noise.noised_sum),
        same_coins(),
    ):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        stages.train(folder)
        stages.refine(folder, ledger)
        stages.sample(folder)
        stages.evaluate(folder)
        if not critic:  # the accountant of DP-SGD is slow
            stages.settle(folder, ledger)
        return dict(_outputs(folder))


def _outputs(folder: RunFolder) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.model.iterdir()):
        yield f"model/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
    tables = [pq.read_table(path) for path in sorted(folder.data.glob("*.parquet"))]
    yield "rows", str(pa.concat_tables(tables).to_pydict())
    for room in sorted(folder.facts.glob("*.json")):
        noted = folder.noted(room.stem)
        for name, value in (noted if isinstance(noted, dict) else {"": noted}).items():
            if name != OF_THE_RUN_ITSELF:
                yield f"{room.stem}.{name}", json.dumps(value)
