"""The one frozen type from which everything public is written.

A bundle's datasheet, quality page, privacy statement and metadata read `PublicFacts` and nothing else.
Each field is public knowledge (schema, config), already paid for (noised), or computed from those.
Facts about the source itself (its size, digest, path, durations, memory, exact scores) have no field here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from synth.privacy.events import GaussianEvent


class Facts(BaseModel):
    """Base of all fact groups: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunFacts(Facts):
    """Which run this is, and with which software."""

    run_id: str
    name: str
    created: str  # UTC, ISO 8601, whole seconds
    dataset: str
    population: str
    software: str  # "dp-synth 0.1.0"
    libraries: dict[str, str]  # name → version


class PrivacyFacts(Facts):
    """The privacy statement. ε values are rounded up."""

    epsilon: float
    delta: float
    mu: float  # Gaussian-DP parameter of the whole run, add/remove of one unit
    replace_one_epsilon: float  # the same run, when one unit's record is replaced by another
    privacy_unit: Literal["row", "person"]
    max_rows_per_person: int
    neighboring_relation: Literal["add-or-remove-one"]
    row_count: Literal["private"] | int  # a number is the steward's public declaration
    events: tuple[GaussianEvent, ...]
    noise_protection: str  # how the noise itself is protected
    accountant: str
    not_covered: tuple[str, ...]  # what the (ε, δ) does not protect; "none" is never implied
    population_epsilon: float  # all charged runs on these people together, at population_delta
    population_delta: float
    population_cap: float | None
    population_candidates: int  # charged runs of the population so far, this one included
    ledger_head: str  # hash of the ledger's chain after this run's reservation was settled


class DataFacts(Facts):
    """The synthetic table."""

    rows: int
    rows_chosen_by: Literal["noised count", "declared row count", "config"]
    columns: tuple[dict[str, Any], ...]  # the public schema's columns, as declared
    target: str | None
    classes: int
    files: tuple[str, ...]  # relative to the bundle, e.g. data/part-00000.parquet


class ModelFacts(Facts):
    """The generator and how it was fitted. All of it follows from the noised measurements."""

    kind: str
    parameters: int
    members: int
    latent_points: int
    latent_size: int
    hidden_size: int
    steps: int
    learning_rate: float
    measured_pairs: int
    candidate_pairs: int
    bins: dict[str, int]  # column → number of bins in the pair stage
    chi: float  # mean squared residual over noise variance; about 1 means fitted to the noise


class MarginalScore(Facts):
    """Distance of one column or pair of the synthetic table to its paid-for noised counterpart.

    `distance` is a total variation distance in [0, 1]; `noise` is what noise alone would show.
    """

    columns: tuple[str, ...]
    distance: float
    noise: float


class QualityFacts(Facts):
    """Public scores only: from synthetic rows, config and paid-for measurements."""

    one_way: tuple[MarginalScore, ...]
    two_way: tuple[MarginalScore, ...]  # the measured pairs
    mean_one_way_distance: float
    mean_one_way_noise: float
    mean_two_way_distance: float | None
    mean_two_way_noise: float | None
    valid_rows: int  # rows whose every cell has the declared type and lies in the declared domain
    rows: int


class PublicFacts(Facts):
    """Everything that may be published about a run."""

    run: RunFacts
    privacy: PrivacyFacts
    data: DataFacts
    model: ModelFacts
    quality: QualityFacts
