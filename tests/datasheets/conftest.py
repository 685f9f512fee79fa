"""A run of a made-up hospital table, as public facts."""

from __future__ import annotations

import datetime

import pytest

from datasheets import FileDigest
from synth.facts import (
    AuditFacts,
    DataFacts,
    MarginalScore,
    ModelFacts,
    PrivacyFacts,
    PublicFacts,
    QualityFacts,
    RunFacts,
)
from synth.privacy.accounting import compose_mu
from synth.privacy.budget import plan_table

COLUMNS = (
    {"name": "patient_nbr", "kind": "id"},
    {
        "name": "age",
        "kind": "continuous",
        "bounds": [18, 110],
        "decimals": 1,
        "unit": "years",
        "outside": "clip",
    },
    {"name": "num_comorbidities", "kind": "integer", "bounds": [0, 9], "nullable": True},
    {
        "name": "sex",
        "kind": "categorical",
        "categories": ["female", "male"],
        "labels": {"female": "Female | F", "male": "Male"},
    },
    {"name": "stage", "kind": "categorical", "categories": [1, 2, 3], "description": "Stage at\nadmission"},
    {"name": "dose group", "kind": "categorical", "categories": [0.5, 1.0]},
    {
        "name": "admitted",
        "kind": "datetime",
        "bounds": [datetime.datetime(1989, 1, 1), "1995-01-01T00:00:00"],
        "resolution": "day",
    },
    {"name": "died", "kind": "boolean"},
)


PLAN = plan_table(
    epsilon=1.0,
    delta=1e-5,
    histograms=dict.fromkeys(("age", "sex", "edu", "city", "income", "stage"), 12),
    classes=2,
    details=2,
    detail_weight=2.0,
    candidate_pairs=15,
    classes_known=True,
    pairs_by_class=True,
)


@pytest.fixture
def facts() -> PublicFacts:
    return PublicFacts(
        run=RunFacts(
            run_id="20250131T101500-4f2a",
            name="support2",
            created="2025-01-31T10:15:00Z",
            dataset="support2",
            population="support2-patients",
            software="dp-synth 0.1.0",
            libraries={"torch": "2.7.0", "numpy": "2.2.1"},
        ),
        privacy=PrivacyFacts(
            epsilon=1.0,
            delta=1e-5,
            mu=compose_mu(PLAN.events),
            replace_one_epsilon=1.460213,
            privacy_unit="row",
            max_rows_per_person=1,
            neighboring_relation="add-or-remove-one",
            row_count="private",
            events=PLAN.events,
            noise_protection="Gaussian noise from a ChaCha stream, rounded to a public grid.",
            accountant="Exact composition of Gaussian mechanisms (mu-GDP).",
            not_covered=("The decision to release.", "The time at which the run was made."),
            population_epsilon=1.835,
            population_delta=1e-5,
            population_overlaps=("hospital-staff",),
            population_cap=4.0,
            population_candidates=3,
            ledger_head="9f" * 32,
        ),
        data=DataFacts(
            rows=9105,
            rows_chosen_by="noised count",
            columns=COLUMNS,
            target="died",
            classes=2,
            files=("data/part-00000.parquet",),
        ),
        model=ModelFacts(
            kind="moment-matched generator",
            parameters=284_113,
            members=2,
            latent_points=512,
            latent_size=64,
            hidden_size=256,
            steps=400,
            learning_rate=3e-3,
            measured_pairs=2,
            candidate_pairs=15,
            bins={"age": 32, "num_comorbidities": 11, "sex": 2},
            chi=1.03,
        ),
        audit=AuditFacts(
            rows=9105,
            canaries=1000,
            rows_per_canary=1,
            guesses=(1000, 500, 250),
            correct=(556, 303, 159),
            delta=1e-5,
            claimed_epsilon=1.0,
            epsilon_lower_bound=0.061903,
            confidence=0.999,
            noise_epsilon_lower_bound=0.934161,
            noise_confidence=1 - 1e-9,
            refuting_confidence=1 - 1e-6,
            covers="the noised tables of counts",
        ),
        quality=QualityFacts(
            one_way=(
                MarginalScore(columns=("age",), distance=0.012, noise=0.011),
                MarginalScore(columns=("sex",), distance=0.001, noise=0.004),
            ),
            two_way=(
                MarginalScore(columns=("age", "sex"), distance=0.02, noise=0.03),
                MarginalScore(columns=("age", "died"), distance=0.09, noise=0.03),
            ),
            mean_one_way_distance=0.0065,
            mean_one_way_noise=0.0075,
            mean_two_way_distance=0.055,
            mean_two_way_noise=0.03,
            valid_rows=9105,
            rows=9105,
        ),
    )


@pytest.fixture
def files() -> dict[str, FileDigest]:
    return {
        "data/part-00000.parquet": FileDigest(sha256="ab" * 32, bytes=120_000),
        "schema.yaml": FileDigest(sha256="cd" * 32, bytes=900),
        "model/generator.safetensors": FileDigest(sha256="ef" * 32, bytes=2_300_000),
        "model/generator.json": FileDigest(sha256="01" * 32, bytes=4_000),
    }
