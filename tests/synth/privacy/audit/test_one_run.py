"""The one-run audit: silent on sound runs, loud on planted defects, and its attack equal to one written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from synth.privacy.accounting import compose_mu, epsilon_of
from synth.privacy.audit import one_run
from synth.privacy.audit.canaries import draw_canaries
from synth.privacy.audit.exposure import NoisedTable, tables_of
from synth.privacy.audit.one_run import Audit, best_bound, codes_of, codes_of_records, one_run_audit
from synth.privacy.audit.synthetic_rows import ClaimRefuted, audit_of_rows, refuse_refuted
from synth.privacy.budget import FINE, ONE_WAY
from synth.privacy.events import PoissonGaussianEvent
from synth.privacy.noise import NoiseSource
from synth.schema import Schema, parse_schema
from synth.tables.codec import codecs_of
from synth.tables.encode import encode
from synth.tables.layout import layout_of, plan_of
from synth.tables.measurements import Measurements

DELTA = 1e-5
ROWS = 600


class Toy:
    """A small table of known rows, and audits of its measuring."""

    def __init__(self, schema: Schema, folder: Path, *, epsilon: float) -> None:
        self.schema, self.folder = schema, folder
        self.codecs = codecs_of(schema)
        self.layout = layout_of(schema, self.codecs)
        self.plan = plan_of(
            self.layout,
            self.codecs,
            epsilon=epsilon,
            delta=DELTA,
            max_rows_per_person=schema.max_rows_per_person,
        )
        self.base = folder / "base.arrow"
        encode([rows_of(schema, ROWS)], self.codecs, self.base)

    def audit(self, canaries: int = 400) -> Audit:
        return one_run_audit(
            self.base,
            self.schema,
            layout=self.layout,
            plan=self.plan,
            delta=DELTA,
            folder=self.folder,
            canaries=canaries,
        )


def rows_of(schema: Schema, rows: int) -> pa.RecordBatch:
    return draw_canaries(schema, codecs_of(schema), count=rows, rng=np.random.default_rng(5)).records.slice(0, rows)


def people(max_rows: int) -> Schema:
    columns = [
        {"name": "who", "kind": "id"},
        {"name": "age", "kind": "integer", "bounds": [0, 99]},
        {"name": "city", "kind": "categorical", "categories": [f"c{i}" for i in range(20)]},
        {"name": "ill", "kind": "boolean"},
    ]
    raw = {"dataset": "visits", "privacy_unit": "who", "max_rows_per_person": max_rows, "columns": columns}
    return parse_schema(raw, file="schema.yaml")


@pytest.fixture
def toy(schema_of: Callable[..., Schema], tmp_path: Path) -> Callable[[float], Toy]:
    schema = schema_of("age", "income", "city", "stage", "admitted", "died", target="died")
    return lambda epsilon: Toy(schema, tmp_path, epsilon=epsilon)


class TenTimesTooSmall(NoiseSource):
    def standard_normal(self, count: int) -> npt.NDArray[np.float64]:
        return super().standard_normal(count) / 10


class NoNoise(NoiseSource):
    def standard_normal(self, count: int) -> npt.NDArray[np.float64]:
        return np.zeros(count)


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_sound_runs_are_never_refuted(toy: Callable[[float], Toy], epsilon: float) -> None:
    """Twenty runs in all, alarming with probability below 1e-7 together.

    The bound from the noise is tight: it alarms with probability 1e-9 a run. The bounds from guesses are
    far from alarm: at ε = 1 they need 324 of 400, 169 of 200 or 91 of 100 coins, where the best attack on μ = 0.268
    gets 221, 117 and 61 in the mean (binomial tails below 2e-11); above ε = 1 they need more, or more than there are.
    """
    audited = toy(epsilon)
    for _ in range(5):
        found = audited.audit()
        assert not found.refuted
        assert found.facts.epsilon_lower_bound <= found.facts.claimed_epsilon
        assert found.facts.claimed_epsilon == pytest.approx(epsilon, abs=1e-5)
        assert refuse_refuted(found) == found.facts


def test_the_noise_bound_is_near_the_claim(toy: Callable[[float], Toy]) -> None:
    found = toy(4.0).audit()
    # Of some 2,000 cells the noise is known to a few per cent: half of the claim is out of reach of chance.
    assert found.facts.noise_epsilon_lower_bound > 2.0


@pytest.mark.parametrize("defect", [TenTimesTooSmall, NoNoise])
def test_noise_that_is_too_small_is_refuted(
    toy: Callable[[float], Toy], monkeypatch: pytest.MonkeyPatch, defect: type[NoiseSource]
) -> None:
    """By the noise: λ is at most 0.12 with overwhelming probability. By the guesses: most of 400 coins show.

    Ten times too small is a μ of 2.7: of the surest 200 coins 189 are right in the mean, deviation 3, and 169 suffice.
    """
    monkeypatch.setattr(one_run, "NoiseSource", defect)
    found = toy(1.0).audit()
    assert found.refuted
    assert found.facts.epsilon_lower_bound > 1.0
    assert found.facts.noise_epsilon_lower_bound > 5.0
    with pytest.raises(ClaimRefuted, match="nothing is published"):
        refuse_refuted(found)


def test_large_claims_are_refuted_by_the_noise(toy: Callable[[float], Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    """The guesses of 400 coins cannot reach ε = 8; the noise that is seen does."""
    monkeypatch.setattr(one_run, "NoiseSource", TenTimesTooSmall)
    found = toy(8.0).audit()
    assert found.facts.epsilon_lower_bound < 8.0
    assert found.refuted


def test_one_release_without_noise_is_enough(toy: Callable[[float], Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    audited = toy(1.0)
    fine = next(iter(audited.plan.fine_noise.values()))

    class Partly(NoiseSource):
        def add_to(self, exact: npt.NDArray[np.int64], noise_scale: float) -> npt.NDArray[np.float64]:
            return exact.astype(np.float64) if noise_scale == fine else super().add_to(exact, noise_scale)

    monkeypatch.setattr(one_run, "NoiseSource", Partly)
    assert audited.audit().refuted


def test_people_whose_rows_are_not_bounded_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the rows are ten times the μ. Of the surest 200 coins 180 or more are right in the mean, and 155 are
    missed with probability below 1e-7; a sound run gets 117 in the mean, and 155 with probability below 2e-8.
    """
    audited = Toy(people(5), tmp_path, epsilon=1.0)
    assert audited.audit().facts.correct[1] < 155
    monkeypatch.setattr(one_run, "bound_contributions", lambda persons, **_: np.ones(_count(persons), dtype=np.bool_))
    found = audited.audit()
    assert found.facts.correct[1] >= 155
    assert found.facts.epsilon_lower_bound > 0.5


def _count(persons: Sequence[pa.Array]) -> int:
    return sum(len(batch) for batch in persons)


def test_scores_are_the_posterior_means_written_out(toy: Callable[[float], Toy]) -> None:
    """For a sound run κ = 1: dense algebra over the cells gives the same order and signs."""
    audited = toy(4.0)
    planted = draw_canaries(audited.schema, audited.codecs, count=30, rng=np.random.default_rng(8))
    known, suspects = codes_of(audited.base, audited.codecs), codes_of_records(planted, audited.codecs)
    tables = list(tables_of(_measured(audited), audited.layout))
    found = one_run.guess_scores(tables, known, suspects, rows=(1, 1))

    adds = np.concatenate([_one_hot(table, suspects) for table in tables], axis=1)
    precision = np.concatenate([np.full(len(t.noised), 1 / t.noise**2) for t in tables])
    left = np.concatenate([t.noised - t.count(known) for t in tables]) - adds.sum(axis=0) / 2
    inverse = np.linalg.inv((adds * precision) @ adds.T + 4 * np.eye(30))
    expected = inverse @ (adds @ (precision * left)) / np.diag(inverse)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_one_cell_that_rounds_to_no_noise_is_no_proof(toy: Callable[[float], Toy]) -> None:
    """The grid is a thousandth of the noise, so a sound single cell is exact now and then."""
    audited = toy(1.0)
    planted = draw_canaries(audited.schema, audited.codecs, count=8)
    known, suspects = codes_of(audited.base, audited.codecs), codes_of_records(planted, audited.codecs)
    inside = int(planted.included.sum())
    alone = NoisedTable(FINE, np.array([ROWS + inside]), 10.0, lambda codes: np.zeros(len(codes["cells:age"]), int))
    many = NoisedTable(FINE, np.append([ROWS + inside], np.zeros(50)), 10.0, alone.cell_of)
    assert one_run.noise_mu([alone], known, suspects, planted) < 1 / 10
    assert one_run.noise_mu([many], known, suspects, planted) > 1 / 10


def test_the_cells_of_a_record_are_where_the_run_counts_it(toy: Callable[[float], Toy]) -> None:
    """Without noise, the tables are the counts of the known rows by `exposure`: nothing is left."""
    audited = toy(1.0)
    known = codes_of(audited.base, audited.codecs)
    tables = list(tables_of(_measured(audited, NoNoise()), audited.layout))
    assert {FINE, ONE_WAY} <= {table.event for table in tables}
    for table in tables:
        # The release is rounded to a grid of at most a thousandth of its noise.
        assert np.abs(table.noised - table.count(known)).max() <= table.noise / 1000


def test_what_a_canary_moves_is_what_the_plan_charges(toy: Callable[[float], Toy]) -> None:
    """Squared shifts over squared noise add up to μ² of the run, but for the class sizes, which are not attacked."""
    audited = toy(1.0)
    tables = list(tables_of(_measured(audited), audited.layout))
    moved = math.fsum(1 / table.noise**2 for table in tables)
    class_sizes = 1 / audited.plan.class_noise**2
    assert moved + class_sizes == pytest.approx(compose_mu(audited.plan.releases) ** 2, rel=1e-9)


def test_a_critic_is_said_not_to_be_covered(toy: Callable[[float], Toy]) -> None:
    audited = toy(1.0)
    alone = audited.audit(canaries=16).facts
    critic = PoissonGaussianEvent(name="critic", sample_rate=0.01, noise_multiplier=1.0, steps=10)
    audited.plan = replace(audited.plan, critic=critic)
    with_critic = audited.audit(canaries=16).facts
    assert "critic" in with_critic.covers
    assert "critic" not in alone.covers
    assert with_critic.claimed_epsilon == alone.claimed_epsilon


def test_bounds_of_several_numbers_of_guesses_share_the_error() -> None:
    alone = best_bound({40: 39}, canaries=40, delta=0.0, confidence=0.99)
    shared = best_bound({40: 39, 20: 10}, canaries=40, delta=0.0, confidence=0.98)
    assert shared == pytest.approx(alone, abs=2e-6)


def test_only_the_first_rows_are_used(toy: Callable[[float], Toy]) -> None:
    audited = toy(1.0)
    found = audit_of_rows(
        [rows_of(audited.schema, 50), rows_of(audited.schema, 50)],
        audited.schema,
        layout=audited.layout,
        plan=audited.plan,
        delta=DELTA,
        folder=audited.folder,
        canaries=16,
        rows=70,
    )
    assert found.facts.rows == 70
    assert found.facts.claimed_epsilon == epsilon_of(compose_mu(audited.plan.releases), DELTA)


def _measured(audited: Toy, noise: NoiseSource | None = None) -> Measurements:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_run, "NoiseSource", lambda: noise or NoiseSource())
        return one_run.measuring(audited.schema, audited.layout, audited.plan, one_run.free)([audited.base])


def _one_hot(table: NoisedTable, codes: one_run.Codes) -> npt.NDArray[np.float64]:
    cell = table.cell_of(codes)
    out = np.zeros((len(cell), len(table.noised)))
    inside = np.flatnonzero(cell >= 0)
    out[inside, cell[inside]] = 1
    return out
