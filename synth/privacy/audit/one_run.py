"""The one-run audit: plant canaries by fair coins, run the mechanism once, guess the coins from what it released.

Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv 2305.08846). The attacker is as
strong as the definition allows: it knows every other row, every canary and the stated noise, and sees all noised
tables. What a canary adds to a table is known, so the coins are estimated by generalised least squares.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.special import gammaincinv

from synth.facts import AuditFacts
from synth.ingest import read_batches, read_persons
from synth.privacy.accounting import MAX_EPSILON, compose_mu, epsilon_of
from synth.privacy.audit.bounds import one_run_epsilon
from synth.privacy.audit.canaries import BoolArray, Canaries, draw_canaries, write_included
from synth.privacy.audit.exposure import FloatArray, NoisedTable, tables_of
from synth.privacy.budget import TablePlan
from synth.privacy.contributions import bound_contributions
from synth.privacy.noise import GRID_BITS, NoiseSource
from synth.schema import Schema
from synth.tables.blocks import NONE
from synth.tables.codec import Codec, codecs_of
from synth.tables.count import Codes, read_codes
from synth.tables.encode import encode
from synth.tables.layout import Layout
from synth.tables.measure import Measurer
from synth.tables.measurements import Measurements

if TYPE_CHECKING:
    from synth.database import Snapshot

CANARIES = 1_000
GUESSED = (1.0, 0.5, 0.25)
"""Parts of the canaries that are guessed, the surest first; fixed beforehand, and paid for by a union bound."""

CONFIDENCE = 0.999
"""Of the bound that is published."""

REFUTING_CONFIDENCE = 1 - 1e-6
"""Of a bound from guesses that stops a run. So much the theorem promises for any mechanism; under Gaussian noise as
stated, 1,000 canaries alarm with probability below 1e-9 for any ε from 0.1 on."""

NOISE_CONFIDENCE = 1 - 1e-9
"""Of the bound from the noise. It is tight, so this is how rarely it stops a sound run."""

REFUTING_DELTA = 1e-10
"""At the run's own δ the theorem lets an honest mechanism fail too often for such a confidence; a run claims μ, hence
every point of its curve, and this is the point at which it is held to the claim."""

PRECISIONS = tuple(4.0**power for power in range(12))
"""How many times more precise than stated an attacker takes the tables for, at the choice of likelihood."""

HALF_GRID = 2.0 ** -(GRID_BITS + 1)
"""The most that rounding to the public grid moves a cell, in its noise scale."""

COVERS = "the noised tables of counts: histograms and pair tables"

Mechanism = Callable[[Sequence[Path]], Measurements]
"""Files of encoded rows in, one after the other as one table; noised measurements out."""


@dataclass(frozen=True)
class Audit:
    """An audit's facts and whether they refute the claim."""

    facts: AuditFacts
    refuted: bool


def measuring(schema: Schema, layout: Layout, plan: TablePlan, charge: Callable[[str], None]) -> Mechanism:
    """The mechanism of a run as it is: the stage `measure` on rows from several working files."""

    def mechanism(files: Sequence[Path]) -> Measurements:
        return Measurer(
            read=lambda keys: (batch for file in files for batch in read_codes(file, keys)),
            codecs=codecs_of(schema),
            layout=layout,
            plan=plan,
            noise=NoiseSource(),
            charge=charge,
            public_rows=None,
        ).measure()

    return mechanism


def free(event: str) -> None:
    """Charge nothing: no private row is in the table."""


def encode_source(source: Path | Snapshot, schema: Schema, destination: Path) -> None:
    """Encode a source as a run does: at most m rows a person, then codes. Raises InvalidSource."""
    stays = None
    if schema.person_column is not None:
        persons = read_persons(source, schema)
        stays = bound_contributions(persons, max_rows_per_person=schema.max_rows_per_person)
    encode(read_batches(source, schema), codecs_of(schema), destination, stays=stays)


def one_run_audit(
    base: Path,
    schema: Schema,
    *,
    layout: Layout,
    plan: TablePlan,
    delta: float,
    folder: Path,
    canaries: int = CANARIES,
    mechanism: Mechanism | None = None,
    rng: np.random.Generator | None = None,
) -> Audit:
    """Plant canaries beside the rows of `base`, run the mechanism once, and bound ε from below.

    Args:
        base: encoded rows, each known to the attacker.
        schema: the public schema.
        layout: what the run measures.
        plan: the releases and the claim: ε follows from its events.
        delta: δ of the claim.
        folder: working files, an existing folder of the caller's.
        canaries: how many to plant, at least 8.
        mechanism: what is audited; by default the run's own measuring, charging nothing. A caller whose base holds
            private rows brings one that charges.
        rng: picks the canaries' cells. Coins and noise take operating-system entropy whatever it is.
    """
    if canaries < 8:
        raise ValueError(f"at least 8 canaries are needed, not {canaries}")
    codecs = codecs_of(schema)
    planted = draw_canaries(schema, codecs, count=canaries, rng=rng)
    source, encoded = folder / "canaries.parquet", folder / "canaries.arrow"
    write_included(planted, schema, source)
    encode_source(source, schema, encoded)
    measured = (mechanism or measuring(schema, layout, plan, free))([base, encoded])
    known, suspects = codes_of(base, codecs), codes_of_records(planted, codecs)
    tables = list(tables_of(measured, layout))
    scores = guess_scores(tables, known, suspects, rows=(planted.rows_kept, planted.rows_each))
    correct = correct_guesses(scores, planted.included)
    return judge(
        rows=len(next(iter(known.values()))),
        planted=planted,
        correct=correct,
        noise_mu=noise_mu(tables, known, suspects, planted),
        mu=compose_mu(plan.measured),
        delta=delta,
        covers=covers_of(plan),
    )


def covers_of(plan: TablePlan) -> str:
    """Which releases of a plan are audited, in words."""
    other = ["the histograms for bounds"] if plan.bounds_noise is not None else []
    other += ["the critic trained by DP-SGD"] if plan.critic is not None else []
    return ", and not ".join([COVERS, *other])


def judge(
    *,
    rows: int,
    planted: Canaries,
    correct: Mapping[int, int],
    noise_mu: float,
    mu: float,
    delta: float,
    covers: str = COVERS,
) -> Audit:
    """Bounds from the guesses and the noise, and whether they refute a claim of μ-Gaussian-DP.

    Args:
        rows: rows of the table beside the canaries.
        planted: the canaries.
        correct: number of guesses → how many were right.
        noise_mu: lower bound on μ from `noise_mu`.
        mu: the claimed μ.
        delta: δ at which ε is stated.
        covers: which releases were audited.
    """
    canaries = len(planted.included)
    claimed = epsilon_of(mu, delta)
    noise_epsilon = min(MAX_EPSILON, max(0.0, epsilon_of(noise_mu, delta) - 2e-6))
    strict = best_bound(correct, canaries=canaries, delta=REFUTING_DELTA, confidence=REFUTING_CONFIDENCE)
    facts = AuditFacts(
        rows=rows,
        canaries=canaries,
        rows_per_canary=planted.rows_kept,
        guesses=tuple(correct),
        correct=tuple(correct.values()),
        delta=delta,
        claimed_epsilon=claimed,
        epsilon_lower_bound=best_bound(correct, canaries=canaries, delta=delta, confidence=CONFIDENCE),
        confidence=CONFIDENCE,
        noise_epsilon_lower_bound=noise_epsilon,
        noise_confidence=NOISE_CONFIDENCE,
        refuting_confidence=REFUTING_CONFIDENCE,
        covers=covers,
    )
    return Audit(facts, refuted=strict > epsilon_of(mu, REFUTING_DELTA) or noise_mu > mu)


def best_bound(correct: Mapping[int, int], *, canaries: int, delta: float, confidence: float) -> float:
    """The largest one-run bound over all numbers of guesses, each at its part of the error, rounded down to 1e-6."""
    each = 1 - (1 - confidence) / len(correct)
    best = max(
        one_run_epsilon(guesses, right, canaries=canaries, delta=delta, confidence=each)
        for guesses, right in correct.items()
    )
    return math.floor(best * 1e6) / 1e6


def correct_guesses(scores: FloatArray, included: BoolArray) -> dict[int, int]:
    """For each number of guesses, how many are right: the surest are guessed in if > 0 and out if not [m]."""
    surest = np.argsort(-np.abs(scores), kind="stable")
    right = (scores > 0) == included
    numbers = [max(1, int(len(scores) * part)) for part in GUESSED]
    return {number: int(right[surest[:number]].sum()) for number in numbers}


def guess_scores(tables: Sequence[NoisedTable], known: Codes, suspects: Codes, *, rows: Sequence[int]) -> FloatArray:
    """How sure the attacker is that each canary is in (> 0) or out (< 0) [m].

    With r the tables less the known rows and less half of every canary, V what a row of each canary adds, n the rows
    that count of a canary and W the stated precisions, r = nV'(b - 1/2) + noise, for coins b of variance 1/4. The best
    linear estimate of n(b - 1/2) is (κVWV' + 4/n²)^-1 κVWr; divided by its remaining variance it orders canaries by
    their likelihood ratio. κ is how much more precise the tables are than stated, 1 in a sound run. κ and n are taken
    from the tables by maximum likelihood, so that an attack on a defect makes the most of it.

    Args:
        tables: what was released.
        known: codes of the known rows.
        suspects: codes of all canaries.
        rows: how many rows of a canary may have been counted; the first is what a sound run counts.
    """
    count = len(next(iter(suspects.values())))
    overlap = np.zeros((count, count), dtype=np.float32)
    seen, half = np.zeros(count), np.zeros(count)
    squares, cells = np.zeros(3), 0
    for table in tables:
        cell = table.cell_of(suspects)
        counted = cell != NONE
        # Of one row each; everything is weighted by the stated precision.
        left, halves = table.noised - table.count(known), table.count(suspects) / 2
        weight = 1 / table.noise**2
        seen += np.where(counted, weight * left[cell], 0.0)
        half += np.where(counted, weight * halves[cell], 0.0)
        overlap += ((cell[:, None] == cell[None, :]) & counted[:, None]) * np.float32(weight)
        squares += weight * np.array([left @ left, left @ halves, halves @ halves])
        cells += len(left)
    return scores_of(overlap.astype(np.float64), seen, half, squares, cells, rows=rows)


def scores_of(
    overlap: FloatArray, seen: FloatArray, half: FloatArray, squares: FloatArray, cells: int, *, rows: Sequence[int]
) -> FloatArray:
    """The scores of `guess_scores` from sums over all released numbers [m].

    Args:
        overlap: VWV' [m, m].
        seen: what a row of each canary adds times the weighted rest (released less known) [m]; half: times half of all
            canaries, one row of each.
        squares: the weighted rest times itself, times half of all canaries, and those times themselves [3].
        cells: how many numbers were released.
        rows: as in `guess_scores`.
    """
    values, vectors = eigh(overlap)
    values = np.maximum(values, 0.0)
    turned_seen, turned_half = vectors.T @ seen, vectors.T @ half

    def likelihood(precision: float, each: int) -> float:
        turned = turned_seen - each * turned_half
        explained = precision**2 * float((turned**2 / (precision * values + 4 / each**2)).sum())
        spread = float(np.log1p(precision * values * each**2 / 4).sum())
        around = squares @ np.array([1.0, -2.0 * each, float(each) ** 2])
        return cells * math.log(precision) - spread - precision * float(around) + explained

    precision, each = max(itertools.product(PRECISIONS, rows), key=lambda guess: likelihood(*guess))
    weights = precision * values + 4 / each**2
    estimate = vectors @ (precision * (turned_seen - each * turned_half) / weights)
    remaining = (vectors**2) @ (1 / weights)
    return np.asarray(estimate / remaining)


def noise_mu(tables: Sequence[NoisedTable], known: Codes, suspects: Codes, planted: Canaries) -> float:
    """Lower bound on μ from the noise that was seen, at NOISE_CONFIDENCE.

    All rows are known, so noise is what is left, but for rounding, by which its norm may have lost. Were it Gaussian
    of λ times the stated scale, the sum of squares of n cells over λ² would be χ² with n degrees, which bounds λ from
    above; a canary moves each table of the release by `rows_kept` in one cell. Assumes independent Gaussian noise with
    one λ a release, and nothing about the guesses.
    """
    inside = {key: code[planted.included] for key, code in suspects.items()}
    squares: dict[str, float] = defaultdict(float)
    cells: dict[str, int] = defaultdict(int)
    moved: dict[str, float] = defaultdict(float)
    for table in tables:
        noise = table.noised - table.count(known) - planted.rows_kept * table.count(inside)
        squares[table.event] += float(((noise / table.noise) ** 2).sum())
        cells[table.event] += len(noise)
        moved[table.event] += (planted.rows_kept / table.noise) ** 2
    alpha = (1 - NOISE_CONFIDENCE) / len(cells)
    total = 0.0
    for event, degrees in cells.items():
        norm = math.sqrt(squares[event]) + math.sqrt(degrees) * HALF_GRID
        widest = norm**2 / (2 * float(gammaincinv(degrees / 2, alpha)))
        total += moved[event] / widest
    return math.sqrt(total)


def codes_of(file: Path, codecs: Mapping[str, Codec]) -> dict[str, npt.NDArray[np.int32]]:
    """All codes of a working file, by block."""
    keys = [block.key for codec in codecs.values() for block in codec.blocks]
    parts = list(read_codes(file, keys))
    # Copied: the file is mapped, and gone before the codes are.
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def codes_of_records(planted: Canaries, codecs: Mapping[str, Codec]) -> dict[str, npt.NDArray[np.int32]]:
    """Codes of all canaries, in or out; they lie in their domains, so that nothing random is in them."""
    rng = np.random.default_rng(0)
    codes: dict[str, npt.NDArray[np.int32]] = {}
    for name, codec in codecs.items():
        encoded = codec.encode(planted.records.column(name), rng)
        codes |= {key: code.astype(np.int32) for key, code in encoded.codes.items()}
    return codes
