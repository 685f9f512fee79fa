"""Games against the product as it is: an attacker who knows everything but the coins guesses them.

Each game returns the lower bound on ε that its guesses show, beside the ε that the accountant claims. How many guesses
are made, and every threshold, is fixed beforehand. A sound build exceeds its claim with probability at most
1 − confidence a game. The games on tables run the stages; those on DP-SGD run the sampler and the step.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats
from torch import nn

from synth import stages
from synth.prepare import prepare
from synth.privacy.accounting import epsilon_of as gaussian_epsilon_of
from synth.privacy.accounting import mu_of
from synth.privacy.audit.bounds import one_run_epsilon, shadow_epsilon
from synth.privacy.audit.canaries import fair_coins
from synth.privacy.dp_sgd import DpSgdConfig, PoissonBatches, PrivateCritic, SecureStream
from synth.privacy.events import PoissonGaussianEvent
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource
from synth.privacy.pld import epsilon_of
from synth.run_folder import RunFolder, hold
from synth.tables.measurements import Measurements, load_measurements

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

EPSILON, DELTA = 1.0, 1e-5


class Level(NamedTuple):
    """How sure a bound is, and the δ at which a claim is held to it. The accountants claim whole curves."""

    confidence: float
    delta: float


REPORTED = Level(0.999, DELTA)
CERTAIN = Level(1 - 1e-8, 1e-12)
"""For what must not fail by chance. The theorem of the one-run audit has a term in canaries × δ, so δ is small too."""


@dataclass(frozen=True)
class Bound:
    """What a game showed: ε is at least `bound`, while `claimed` was promised at the same δ; from so many runs."""

    bound: float
    claimed: float
    runs: int

    @property
    def refutes(self) -> bool:
        """Whether the claim cannot stand."""
        return self.bound > self.claimed


Game = Callable[[Level], Bound]


def one_run(scores: FloatArray, included: BoolArray, level: Level, *, claimed: float) -> Bound:
    """Guess "in" for the quarter of the canaries with the highest scores, "out" for that with the lowest."""
    quarter = len(scores) // 4
    order = np.argsort(scores, kind="stable")
    correct = int((~included[order[:quarter]]).sum() + included[order[-quarter:]].sum())
    bound = one_run_epsilon(2 * quarter, correct, canaries=len(scores), delta=level.delta, confidence=level.confidence)
    return Bound(bound, claimed, runs=1)


def claim_of_tables(delta: float) -> float:
    """ε at δ of a run that claims (EPSILON, DELTA) by way of its μ."""
    return gaussian_epsilon_of(mu_of(EPSILON, DELTA), delta)


# ---- tables: the stages on a table of two columns ----

LEVELS = 256
BASE_ROWS = 35  # of each level: enough for a bin of its own, so that both histograms tell of a canary


@contextmanager
def started(
    source: pa.Table, schema: dict[str, Any], *, synthesizer: dict[str, Any] | None = None
) -> Iterator[tuple[RunFolder, Ledger]]:
    """A run on a table of its own, prepared and held, with a ledger of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        pq.write_table(source, place / "people.parquet")
        (place / "schema.yaml").write_text(json.dumps({"dataset": "toy", "row_count": "private"} | schema))
        run = {
            "source": {"path": "people.parquet"},
            "schema": "schema.yaml",
            "privacy": {"epsilon": EPSILON, "delta": DELTA},
            "output": {"directory": "out", "rows": "auto"},
            "synthesizer": synthesizer or {},
        }
        (place / "run.yaml").write_text(json.dumps(run))
        ledger = Ledger.open(f"sqlite:///{place / 'ledger.db'}")
        folder = prepare(place / "run.yaml", ledger)
        with hold(folder):
            yield folder, ledger


def measured(source: pa.Table, schema: dict[str, Any]) -> Measurements:
    """The noised measurements of a run: all that its model and its rows are made from."""
    with started(source, schema) as (folder, ledger):
        stages.reserve(folder, ledger)
        stages.encode(folder)
        stages.measure(folder, ledger)
        return load_measurements(folder.private)


def _table(included: BoolArray, *, m: int, rows_each: int) -> tuple[pa.Table, dict[str, Any]]:
    """m·BASE_ROWS known rows of every level, and `rows_each` rows of canary i, if it is in, at level i."""
    base = np.repeat(np.arange(LEVELS), m * BASE_ROWS)
    canaries = np.repeat(np.flatnonzero(included), rows_each)
    columns: dict[str, Any] = {"level": np.concatenate([base, canaries])}
    place = {"name": "level", "kind": "categorical", "categories": list(range(LEVELS))}
    if m == 1 and rows_each == 1:
        return pa.table(columns), {"privacy_unit": "row", "columns": [place]}
    columns["who"] = np.concatenate([np.arange(len(base)) // m, len(base) + canaries])
    who = {"name": "who", "kind": "id"}
    return pa.table(columns), {"privacy_unit": "who", "max_rows_per_person": m, "columns": [who, place]}


def _scores(noised: Measurements, *, m: int) -> FloatArray:
    """Log-likelihood ratio of each level's canary, but for a constant [LEVELS]."""
    bins = noised.bin_of_cell["level"]
    base = np.full(LEVELS, float(m * BASE_ROWS))
    fine = (noised.fine["level"] - base) / noised.fine_noise["level"] ** 2
    one_way = noised.one_way["level"][0] - np.bincount(bins, weights=base)
    return fine + one_way[bins] / noised.one_way_noise["level"] ** 2


def measurement_game(level: Level = REPORTED, *, m: int = 1, rows_each: int = 1) -> Bound:
    """One-run audit of a run's noised tables: each canary is a person with `rows_each` rows in a level of its own."""
    included = fair_coins(LEVELS)
    noised = measured(*_table(included, m=m, rows_each=rows_each))
    return one_run(_scores(noised, m=m), included, level, claimed=claim_of_tables(level.delta))


def repeated_noise_game(level: Level = REPORTED) -> Bound:
    """The attacker runs the same software on a table it knows, and takes that run's noise for the other's."""
    included = fair_coins(LEVELS)
    known, unknown = [], []
    for coins, scores in ((np.zeros(LEVELS, dtype=np.bool_), known), (included, unknown)):
        seed_every_generator()
        # The fine histograms alone: they are drawn first, and the rest of the stream depends on their bins.
        scores.append(measured(*_table(coins, m=1, rows_each=1)).fine["level"])
    return one_run(unknown[0] - known[0], included, level, claimed=claim_of_tables(level.delta))


def seed_every_generator() -> None:
    """What a library under the run may do at any time."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def forked_noise_game(level: Level = REPORTED) -> Bound:
    """One noise source, forked: the child's release is of a table that is known, the parent's has the canaries."""
    source, scale = NoiseSource(), 1 / mu_of(EPSILON, DELTA)
    source.standard_normal(1)
    included = fair_coins(LEVELS)
    read, write = os.pipe()
    with warnings.catch_warnings():
        # The child computes, writes and exits: none of the parent's threads is missed.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.write(write, source.add_to(np.zeros(LEVELS, dtype=np.int64), scale).tobytes())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        known = np.frombuffer(stream.read())
    os.waitpid(child, 0)
    scores = source.add_to(included.astype(np.int64), scale) - known
    return one_run(scores, included, level, claimed=claim_of_tables(level.delta))


# ---- DP-SGD: the step, with a gradient of its own for every canary ----

CANARIES = 512
STEPS = DpSgdConfig(sample_rate=0.5, steps=16, expected_batch_size=128, max_grad_norm=1, noise_multiplier=8)
HUGE = 100.0  # norms of the canaries' gradients, in clipping norms


@lru_cache
def claim(config: DpSgdConfig, delta: float) -> float:
    """ε of all steps by the project's accountant."""
    event = PoissonGaussianEvent(
        name="steps",
        sample_rate=config.sample_rate,
        noise_multiplier=config.noise_multiplier,
        steps=config.steps,
    )
    return epsilon_of([event], delta)


def gradients_seen(rows: torch.Tensor, config: DpSgdConfig, persons: Any = None) -> FloatArray:
    """The sum of all released gradients, in clipping norms [D], of a linear critic: a row is its own gradient."""
    critic = nn.Linear(rows.shape[1], 1, bias=False)
    private = PrivateCritic(critic, lambda x: critic(x)[:, 0], [torch.randn(4, rows.shape[1])], config)
    seen = torch.zeros(rows.shape[1], dtype=torch.float64)
    for batch in PoissonBatches([rows], config, persons=persons):
        critic.weight.grad = None
        private.private_step(batch.columns, persons=batch.persons)
        if critic.weight.grad is not None:
            seen += critic.weight.grad[0]
    return (seen * config.expected_batch_size / config.max_grad_norm).numpy()


def dp_sgd_game(level: Level = REPORTED, *, rows_each: int = 1) -> Bound:
    """One-run audit with Dirac canaries (Steinke et al. 2023, section 5): each has a coordinate to itself."""
    included = fair_coins(CANARIES)
    who = np.repeat(np.flatnonzero(included), rows_each)
    scores = gradients_seen(HUGE * torch.eye(CANARIES)[who], STEPS, who if rows_each > 1 else None)
    return one_run(scores, included, level, claimed=claim(STEPS, level.delta))


def lonely_game(level: Level = REPORTED, *, runs: int = 100) -> Bound:
    """One person or nobody: was anything released at all? Half of `runs` are with the person."""
    half = runs // 2
    people = {True: torch.full((1, 1), HUGE), False: torch.empty(0, 1)}
    called = {member: sum(bool(gradients_seen(rows, STEPS)[0]) for _ in range(half)) for member, rows in people.items()}
    bound = shadow_epsilon(called[True], called[False], half, half, delta=level.delta, confidence=level.confidence)
    return Bound(bound, claim(STEPS, level.delta), runs)


EPOCH = 16
EPOCHS = DpSgdConfig(
    sample_rate=1 / EPOCH, steps=16 * EPOCH, expected_batch_size=2, max_grad_norm=1, noise_multiplier=1.5
)
EPOCHS_DELTA = 0.1
"""The accountant claims a whole curve; the sampler shows most where δ is large."""


def sampling_game(level: Level = REPORTED, *, runs: int = 400) -> Bound:
    """Everybody's gradient is known, the target's is the opposite: do the batches' sums tell that it is there?

    Against batches of one size (2, and 1 at the end of an epoch without the target) the target takes somebody's place:
    the attacker correlates with the shift that this makes. Half of `runs` are with the target.
    """
    half, stream = runs // 2, SecureStream()
    without = np.append(np.full(EPOCH - 1, 2.0), 1.0)
    shift = np.full(EPOCH, 2.0 * (1 - 1 / EPOCH)) - without  # 31 people of +1 and one of -1, two at a time
    called = {}
    for member in (True, False):
        gradients = torch.ones(2 * EPOCH - 1 + member, dtype=torch.float64)
        if member:
            gradients[-1] = -1
        called[member] = 0
        for _ in range(half):
            sums = np.array([float(batch.columns[0].sum()) for batch in PoissonBatches([gradients], EPOCHS)])
            noised = (sums + EPOCHS.noise_scale * stream.standard_normal(EPOCHS.steps)).reshape(-1, EPOCH)
            called[member] += bool(((noised - without) @ shift).mean() > shift @ shift / 2)
    bound = shadow_epsilon(called[True], called[False], half, half, delta=EPOCHS_DELTA, confidence=level.confidence)
    return Bound(bound, claim(EPOCHS, EPOCHS_DELTA), runs)


def sampler_p_value() -> float:
    """How well inclusions fit independent coins: the smaller p-value of two, of people's counts and of batch sizes."""
    people, config = 300, DpSgdConfig(**(STEPS.model_dump() | {"sample_rate": 0.1, "steps": 400}))
    table = np.zeros((config.steps, people), dtype=np.bool_)
    for step, batch in enumerate(PoissonBatches([torch.arange(people)], config)):
        table[step, batch.columns[0].numpy()] = True
    return min(
        _binomial_p_value(table.sum(0), config.steps, config.sample_rate),
        _binomial_p_value(table.sum(1), people, config.sample_rate),
    )


def _binomial_p_value(counts: npt.NDArray[np.int64], trials: int, rate: float) -> float:
    """Chi-square of counts against Bin(trials, rate), in cells of some thirty expected each."""
    edges = np.unique(stats.binom.ppf(np.linspace(0, 1, len(counts) // 30)[1:-1], trials, rate))
    edges = np.concatenate([[-1], edges, [trials]])
    expected = np.diff(stats.binom.cdf(edges, trials, rate)) * len(counts)
    return float(stats.chisquare(np.histogram(counts, edges + 0.5)[0], expected).pvalue)
