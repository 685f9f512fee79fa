"""The one frozen type from which everything public is written.

A bundle's datasheet, quality page, privacy statement and metadata read `PublicFacts` and nothing else.
Each field is public knowledge (schema, config), already paid for (noised), or computed from those.
Facts about the source itself (its size, digest, path, durations, memory, exact scores) have no field here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from synth.privacy.events import Event


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
    mu: float | None  # Gaussian-DP parameter of the whole run, add/remove of one unit; DP-SGD has none
    renyi_epsilon: float | None = None  # by a second, usually looser accountant, where DP-SGD took part
    replace_one_epsilon: float  # the same run, when one unit's record is replaced by another
    privacy_unit: Literal["row", "person"]
    max_rows_per_person: int
    neighboring_relation: Literal["add-or-remove-one"]
    row_count: Literal["private"] | int  # a number is the steward's public declaration
    events: tuple[Event, ...]
    noise_protection: str  # how the noise itself is protected
    accountant: str
    not_covered: tuple[str, ...]  # what the (ε, δ) does not protect; "none" is never implied
    population_epsilon: float  # all charged runs on these people together, at population_delta
    population_delta: float
    population_overlaps: tuple[str, ...]  # other populations, declared to share people, whose runs count too
    population_cap: float | None
    population_candidates: int  # charged runs of the population so far, this one included
    ledger_head: str  # hash of the ledger's chain after this run's reservation was settled


class PictureSheet(Facts):
    """Synthetic pictures side by side: draws of a class, pictures between four draws, or between two classes."""

    file: str  # relative to the bundle, e.g. pictures/class-0.png
    shows: Literal["draws", "within", "between"]
    classes: tuple[str, ...]  # declared names: one, or from which to which
    width: int  # pixels of the whole sheet
    height: int


class DataFacts(Facts):
    """The synthetic table."""

    rows: int
    rows_chosen_by: Literal["noised count", "declared row count", "config"]
    columns: tuple[dict[str, Any], ...]  # the public schema's columns, as declared
    rules: tuple[str, ...] = ()  # between columns, as declared; every row meets them
    target: str | None
    classes: int
    files: tuple[str, ...]  # relative to the bundle, e.g. data/part-00000.parquet
    sheets: tuple[PictureSheet, ...] = ()  # of images, from the released model alone
    sheets_signed_by: Literal["run", "steward"] | None = None  # whose key signs their content credentials (C2PA)


class CriticFacts(Facts):
    """The critic that refined the generator by DP-SGD: public constants, and what follows from noised counts."""

    share: float  # of what remained of the budget after bins and class sizes
    steps: int
    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    expected_batch_size: float  # sample rate times the noised or declared number of people; divides the noised sum
    fakes: int  # generated rows in a step
    hidden_size: int
    parameters: int
    learning_rate: float
    weight: float  # of the critic's verdict beside the moments, in the generator's loss


class TableCriticFacts(CriticFacts):
    """A critic of whole rows."""

    chi: float  # of the refined generator, as below


class ImageCriticFacts(CriticFacts):
    """A critic of pictures."""

    generator_steps: int  # of all steps, after so many the generator made one of its own
    most_critic_steps: int  # the most steps of the critic that one of the generator was made to wait for
    residual_parameters: int  # of what the generator adds to the pictures of the moments' model
    drift: float  # of second moments, from that model's: in units of the noise they were measured with


class ModelFacts(Facts):
    """The generator and how it was fitted. All of it follows from the noised measurements, and the critic's steps."""

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
    measured_triples: int = 0
    bins: dict[str, int]  # column → number of bins in the pair stage
    chi: float  # mean squared residual over noise variance; about 1 means fitted to the noise
    critic: TableCriticFacts | None = None


class PublicPicturesFacts(Facts):
    """Pictures that the steward declares public, and what was learned of them. Nothing of them is charged."""

    pictures: int
    sha256: str  # of the sorted SHA-256 digests of their files: whoever has the same files finds the same
    declared: str  # the steward's words: what they are, why they are public, licence
    steps: int  # of learning
    residual_parameters: int  # of what adds detail to a picture


class ImageModelFacts(Facts):
    """The generator of pictures. All of it follows from the noised measurements, and the critic's steps."""

    kind: str
    parameters: int
    coefficients: int  # measured coefficients of a picture
    coefficients_offered: int  # the most that could have been, from the schema
    largest_frequency: float  # of a measured coefficient, in half periods per shorter side
    feature_part: float  # of the squared length of a measured vector that is for coefficients
    clip: float  # length at which centred, weighted vectors were clipped, in units of the value range
    rounds: int  # of correcting the model by what its clipped pictures lack of the denoised moments
    critic: ImageCriticFacts | None = None
    public: PublicPicturesFacts | None = None


class MarginalScore(Facts):
    """Distance of one column or pair of the synthetic table to its paid-for noised counterpart.

    `distance` is a total variation distance in [0, 1]; `noise` is what noise alone would show.
    """

    columns: tuple[str, ...]
    distance: float
    noise: float


class MomentScore(Facts):
    """Distance of one class's synthetic pictures to their paid-for noised second moments.

    Both are means of uuᵀ with ‖u‖ ≤ 1 (`synth.images.measure`); `noise` is what noise alone would show.
    """

    class_value: int
    distance: float
    noise: float


class HeldOutFacts(Facts):
    """The charged score: a classifier trained on synthetic rows, tested on held-out people.

    Everything follows from the noised pair (correct, wrong), public constants and noised class sizes.
    """

    holdout: float | None  # each person's chance to be held out of the source; None: a file of their own
    target: str
    recipe: str  # of the classifier
    training_rows: int  # synthetic rows that it learned from
    correct: float  # held-out rows that it gets right, noised; may be negative
    wrong: float  # the same for wrong ones
    noise_scale: float  # of both numbers, in rows
    accuracy: float | None  # of the held-out rows; None where noise drowns it
    low: float  # ends of the interval for it, for what the noise alone makes unsure
    high: float
    confidence: float  # of that interval
    sampling_error: float | None  # standard deviation, at most, over draws of as many other people; beside the noise
    base_rate: float  # what the most frequent class alone would reach, from noised class sizes


class PairFacts(Facts):
    """How well the dependence of two columns is known: the model and the noised table of their counts.

    A z says how far something is beyond what chance would show, in standard deviations: 0 ± 1 where it is chance.
    """

    columns: tuple[str, str]
    cells: int
    noise: float  # standard deviation of each noised count, in people
    share_error: float  # of the share of people in a quarter of the cells, by noise alone (standard deviation)
    dependence: float  # of the model: total variation distance from independence, in [0, 1]
    dependence_z: float  # of the noised table: how clearly it shows any, beyond noise and the sampling of people
    residual: float  # root mean square of model less noised count, in units of the noise; about 1 for a fit to noise
    residual_z: float  # beyond noise


class ShiftFacts(Facts):
    """How a column is distributed in one group of rows and in another, by the model."""

    column: str
    groups: tuple[int, int] | None = None  # which two of several groups, where it is not clear
    distance: float  # total variation distance of its bins, in [0, 1]
    error: float | None  # of that, by the noise of the one table that shows it (standard deviation); None: unknown
    z: float | None  # how clearly that noised table shows any change, beyond noise and the sampling of people
    what: Literal["mean", "share"]  # of the known values; of one level or of missing ones
    level: str  # of a share
    values: tuple[float | str, float | str]  # in the one group and in the other; dates as text
    value_error: float | None  # of their difference, as above; of dates in days


class ContrastFacts(Facts):
    """How each column's distribution changes between groups of rows, by the model.

    The largest change first, of those that a noised table shows; then the others.
    """

    by: str  # the column that makes the groups
    groups: tuple[str, ...]
    shares: tuple[float, ...]  # of the groups
    shifts: tuple[ShiftFacts, ...]


class AxisFacts(Facts):
    """What a direction on the map means."""

    part: float  # of all that differs between latent points, in [0, 1]
    low: tuple[str, ...]  # what goes with its low end, the most telling column first
    high: tuple[str, ...]


class GroupFacts(Facts):
    """A group of latent points that are alike."""

    share: float  # of all rows
    members: tuple[float, ...]  # share of each of the map's classes within it
    apart: tuple[ShiftFacts, ...]  # what sets it apart: all rows first, the group second


class MapFacts(Facts):
    """The latent points of the model, side by side when they make similar rows."""

    by: str  # the column that makes the classes
    classes: tuple[str, ...]
    axes: tuple[AxisFacts, AxisFacts]
    points: tuple[tuple[float, float, int, int], ...]  # place on both axes, class, group
    groups: tuple[GroupFacts, ...]


class InsightFacts(Facts):
    """What an analyst can learn from the released model and the paid-for measurements together. Of tables alone."""

    pairs: tuple[PairFacts, ...]  # the measured ones
    unmeasured: int  # pairs of columns of which no table was measured
    contrast: ContrastFacts | None  # None: there is nothing to compare
    map: MapFacts | None  # None: the model hardly distinguishes rows, or in too many ways for a map


class QualityFacts(Facts):
    """Public scores only: from synthetic rows, config, paid-for measurements and the charged score."""

    one_way: tuple[MarginalScore, ...]
    two_way: tuple[MarginalScore, ...]  # the measured pairs
    three_way: tuple[MarginalScore, ...] = ()  # the measured triples, on groups of bins
    mean_one_way_distance: float
    mean_one_way_noise: float
    mean_two_way_distance: float | None
    mean_two_way_noise: float | None
    moments: tuple[MomentScore, ...] = ()  # of images, a class each
    held_out: HeldOutFacts | None = None
    insight: InsightFacts | None = None
    valid_rows: int  # rows whose every cell has the declared type and lies in the declared domain
    rows: int


class AuditFacts(Facts):
    """What the run's own audit found. It read synthetic rows and planted records only; it can refute ε, never prove it.

    Lower bounds are rounded down, and 0 says that the attack showed nothing.
    """

    rows: int  # synthetic rows that the audited mechanism was given beside the canaries
    canaries: int  # planted records, each in by a fair coin of its own
    rows_per_canary: int  # rows of a canary that the mechanism counts
    guesses: tuple[int, ...]  # how many coins were guessed; every one of these numbers was fixed beforehand
    correct: tuple[int, ...]  # how many of them rightly
    delta: float
    claimed_epsilon: float  # of the audited releases, at delta
    epsilon_lower_bound: float  # from the guesses, whatever the mechanism
    confidence: float  # of that bound, over all numbers of guesses together
    noise_epsilon_lower_bound: float  # from the noise that was seen, if it is Gaussian
    noise_confidence: float  # of that bound
    refuting_confidence: float  # what a contradiction needs to stop a run
    covers: str  # which releases were audited


class PublicFacts(Facts):
    """Everything that may be published about a run."""

    run: RunFacts
    privacy: PrivacyFacts
    data: DataFacts
    model: ModelFacts | ImageModelFacts
    quality: QualityFacts
    audit: AuditFacts | None = None
