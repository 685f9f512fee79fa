"""How a run's budget is split, from the config and the schema alone, before anything is read.

The budget is B = μ(ε, δ)². A Gaussian release with sensitivity Δ and noise s costs (Δ/s)². Earlier releases may
choose *what* the later ones measure, never how much is spent: every event below is fixed here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from synth.errors import UserError
from synth.privacy.accounting import compose_mu, mu_of
from synth.privacy.events import (
    Event,
    GaussianEvent,
    GdpEvent,
    HeldOutEvent,
    PoissonGaussianEvent,
    SelectionEvent,
    half_range_of_choice,
)

Table = TypeVar("Table", bound=Hashable)

MAX_PAIRS_WITHOUT_SELECTION = 100
SELECTION_SHARE = 0.1
"""Share of the pairs' budget, and of the triples', for choosing which of them are measured."""
BY_CLASS_SHARE = 0.6
TRIPLES_FROM = 1.0
"""ε from which on tables of three columns are measured; at .3 they gained nothing."""
TRIPLES_SHARE = 0.2
"""Share of the pairs' budget for them, the choice among them included."""
TRIPLES_PER_COLUMN = 2
MOST_CANDIDATE_TRIPLES = 20_000
"""With more, of about fifty columns, none is measured: to count them all would take longer than the rest of a run."""
TARGET_BINS_SHARE = 0.02
BOUNDS_SHARE, MOST_BOUNDS_SHARE = 0.05, 0.2
"""Share of B for each column whose bounds are estimated, and for all of them together at most."""
BOUNDS_LEVELS = 2
"""Histograms of such a column: on a coarse ladder and on a fine one (`synth.tables.ladder`)."""
FINE_SHARE = 0.4
"""Share of the one-ways' budget for the fine histograms, which place the bins; the rest measures the bins."""
COARSE_SHARE = 1 / 3
"""Share of a fine histogram's precision for the counts of runs of its cells: where a column is spread thin over
hundreds of cells, their noises add up to more people than are there."""
SMOOTH_CELLS = 24
"""A fine histogram of ordered cells gets the precision of so many at most: neighbours tell about each other."""
MOST_LEVELS = 1000
"""A histogram of levels gets the precision of so many at most: of many thousands most are rarer than any noise, and
other columns would pay for them."""

BOUNDS = "histograms for bounds"
FINE = "fine histograms and class sizes"
DETAIL = "detail histograms (single values and digits)"
TARGET_BINS = "histogram of the target"
ONE_WAY = "binned one-way histograms by class"
SELECTION = "selection of pairs"
PAIRS_BY_CLASS = "pair tables by class"
PAIRS_SUMMED = "pair tables over all classes"
TRIPLE_SELECTION = "selection of triples"
TRIPLES = "tables of three columns"
CRITIC = "critic trained by DP-SGD"
ACCURACY = "right and wrong predictions on held-out people"

CLASSES = ""
"""The class sizes among the histograms; no column has an empty name."""

HOLDOUT_FILE_SHARE = 0.02
"""Share of B for the score on a separate file of held-out people, who may have been learned from too."""
NO_MORE = 1 + 1e-9
"""Held-out people get so little more noise that no rounding makes their score cost more than the training."""


@dataclass(frozen=True)
class TablePlan:
    """What a table run will release, and with how much noise; fixed before the first read.

    Attributes:
        fine_noise: noise scale of a cell of each column's fine histogram (people).
        coarse_noise: noise scale of a run of such cells, of the columns whose runs are counted too (people).
        class_noise: noise scale of a class size (people).
        mu_one_way: μ spent on the one-way histograms within classes.
        detail_noise: noise scale of a cell of a detail histogram (people); None without detail blocks.
        target_noise: noise scale of a numeric target's histogram; None for other targets.
        selection: the choice of the pairs that are measured; None when all are.
        mu_pairs_by_class: μ spent on pair tables by class; None without pairs or with one class.
        mu_pairs_summed: μ spent on pair tables over all classes; None without pairs.
        candidate_pairs: pairs of columns that could be measured.
        triple_selection: the choice of the triples that are measured; None when all are, or none.
        mu_triples: μ spent on tables of three columns; None without any.
        candidate_triples: triples of columns that could be measured; 0 where none is.
        max_rows_per_person: m, by which every sensitivity in rows is multiplied.
        critic: the steps of the critic trained by DP-SGD; None without one.
        score: the score on held-out people; None without any.
        releases: the releases that the model is learned from, in order.
        bounds_noise: noise scale of a cell of the histograms that bounds are estimated from; None without any.
    """

    fine_noise: Mapping[str, float]
    coarse_noise: Mapping[str, float]
    class_noise: float
    mu_one_way: float
    detail_noise: float | None
    target_noise: float | None
    selection: SelectionEvent | None
    mu_pairs_by_class: float | None
    mu_pairs_summed: float | None
    candidate_pairs: int
    triple_selection: SelectionEvent | None
    mu_triples: float | None
    candidate_triples: int
    max_rows_per_person: int
    critic: PoissonGaussianEvent | None
    score: GaussianEvent | HeldOutEvent | None
    releases: tuple[GdpEvent, ...]
    bounds_noise: float | None = None

    @property
    def measured(self) -> tuple[GdpEvent, ...]:
        """The releases on encoded rows: all but the one that bounds are estimated from, before rows are encoded."""
        return tuple(event for event in self.releases if event.name != BOUNDS)

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that is charged."""
        return (*self.releases, *(event for event in (self.critic, self.score) if event is not None))

    @property
    def measured_pairs(self) -> int:
        """How many pairs are measured; 0 when a critic has their whole share."""
        if self.mu_pairs_by_class is None and self.mu_pairs_summed is None:
            return 0
        return self.candidate_pairs if self.selection is None else self.selection.selections

    @property
    def measured_triples(self) -> int:
        """How many triples are measured."""
        return self.candidate_triples if self.triple_selection is None else self.triple_selection.selections


def precision_of(cells: float) -> float:
    """Relative precision of a table: cells^(2/3) minimises the summed L1 error of several at a fixed budget."""
    return float(cells ** (2.0 / 3.0))


def noise_scales(cells: Mapping[Table, float], mu: float, rows_per_person: int) -> dict[Table, float]:
    """Noise scale of each of several one-hot tables that cost `mu` together: the more cells, the more precise.

    A person moves a table by `rows_per_person` at most, in L2, so the squares of that over the scales sum to μ².
    """
    weights = {key: precision_of(size) for key, size in cells.items()}
    total = math.fsum(weights.values())
    return {key: rows_per_person * math.sqrt(total / weight) / mu for key, weight in weights.items()}


def one_way_share(epsilon: float, candidate_pairs: int) -> float:
    """Share of B for the one-way histograms: more when ε is small, or when there are too many pairs to measure."""
    if candidate_pairs == 0:
        return 1.0
    if candidate_pairs > MAX_PAIRS_WITHOUT_SELECTION:
        return 0.6 if epsilon <= 0.5 else 0.4
    if epsilon <= 0.2:
        return 0.35
    if epsilon <= 0.5:
        return 0.25
    return 0.20 if epsilon <= 2 else 0.15


def plan_table(
    *,
    epsilon: float,
    delta: float,
    histograms: Mapping[str, int],
    coarse: Collection[str] = (),
    classes: int,
    details: int,
    detail_weight: float,
    candidate_pairs: int,
    candidate_triples: int = 0,
    classes_known: bool,
    pairs_by_class: bool,
    max_rows_per_person: int = 1,
    critic_share: float = 0.0,
    critic_steps: int = 0,
    critic_sample_rate: float = 0.0,
    holdout: float | Literal["file"] = 0.0,
    estimated_columns: int = 0,
) -> TablePlan:
    """Split (ε, δ) over the releases of a table run, over the critic when it gets a share, and over a score.

    Raises UserError when the critic's share is too small for any noise to fit it.

    Args:
        epsilon: the run's ε; delta: its δ.
        histograms: the columns that are measured, at least one, and of how many cells each is thought to consist.
        coarse: those of them whose cells are counted in runs too.
        classes: how many class sizes there are: one more fine histogram.
        details: detail histograms over all classes; detail_weight: precision of each, in units of `precision_of`.
        candidate_pairs: pairs of columns that could be measured.
        candidate_triples: triples of columns; they are measured from TRIPLES_FROM on, where there are not too many.
        classes_known: False when a numeric target must first be cut into bins (charged).
        pairs_by_class: whether pairs are measured within classes too.
        max_rows_per_person: m; a person's rows can all fall into the same cells, so it multiplies every sensitivity.
        critic_share: share of what remains after bins and class sizes that a critic gets, in [0, 1].
        critic_steps: DP-SGD steps of the critic; critic_sample_rate: chance of a person to join one of them.
        holdout: chance of a person to be held out of all this for the score; or "file" for people in a file of their
            own, whose score takes a share of B.
        estimated_columns: columns whose bounds are estimated, by two histograms each.
    """
    total = mu_of(epsilon, delta) ** 2
    m = max_rows_per_person
    score: GaussianEvent | HeldOutEvent | None = None
    if holdout == "file":
        score = _event(ACCURACY, m, m / math.sqrt(HOLDOUT_FILE_SHARE * total))
        total -= HOLDOUT_FILE_SHARE * total
    events: list[GdpEvent] = []
    bounds_noise = target_noise = None
    if estimated_columns:
        share, tables = bounds_share(estimated_columns), BOUNDS_LEVELS * estimated_columns
        bounds_noise = m * math.sqrt(tables / (share * total))
        events.append(_event(BOUNDS, m * math.sqrt(tables), bounds_noise))
        total -= share * total
    if not classes_known:
        target_noise = m / math.sqrt(TARGET_BINS_SHARE * total)
        events.append(_event(TARGET_BINS, m, target_noise))
        total -= TARGET_BINS_SHARE * total
    ones = total * one_way_share(epsilon, candidate_pairs)
    if critic_share > 0 and not candidate_pairs:
        # There are no pairs to share with, so the histograms take what the critic leaves.
        ones = total * (1 - critic_share * (1 - one_way_share(epsilon, 1)))
    # Tables that differ in their noise are one event, stated in units of each table's own noise.
    cells = {CLASSES: classes, **histograms}
    fine_weight = math.fsum(precision_of(size) for size in cells.values())
    fine_part = fine_weight / (fine_weight + details * detail_weight)
    mu_fine = math.sqrt(fine_part * FINE_SHARE * ones)
    events.append(_event(FINE, mu_fine, 1.0))
    noises = noise_scales(cells, mu_fine, m)
    detail_noise = None
    if details:
        detail_noise = m * math.sqrt(details / ((1 - fine_part) * FINE_SHARE * ones))
        events.append(_event(DETAIL, m * math.sqrt(details), detail_noise))
    mu_one_way = math.sqrt((1 - FINE_SHARE) * ones)
    events.append(_event(ONE_WAY, mu_one_way, 1.0))
    selection = by_class = summed = triple_selection = mu_triples = None
    if epsilon < TRIPLES_FROM or candidate_triples > MOST_CANDIDATE_TRIPLES or not candidate_pairs:
        candidate_triples = 0
    # The critic's part is left open here: what it costs beside the others is found by its own accountant below.
    rest = (1 - critic_share) * (total - ones)
    if rest <= 0:
        candidate_triples = 0
    triples = TRIPLES_SHARE * rest if candidate_triples else 0.0
    rest -= triples
    if candidate_pairs and rest > 0:
        if candidate_pairs > MAX_PAIRS_WITHOUT_SELECTION:
            chosen = min(candidate_pairs, selections_of(len(histograms), epsilon))
            selection = _choices(SELECTION, chosen, SELECTION_SHARE * rest, m)
            events.append(selection)
            rest -= selection.mu**2
        by_class_share = by_class_share_of(epsilon) if pairs_by_class else 0.0
        if by_class_share > 0:
            by_class = math.sqrt(by_class_share * rest)
            events.append(_event(PAIRS_BY_CLASS, by_class, 1.0))
        if by_class_share < 1:
            summed = math.sqrt((1 - by_class_share) * rest)
            events.append(_event(PAIRS_SUMMED, summed, 1.0))
    if triples > 0:
        chosen = TRIPLES_PER_COLUMN * len(histograms)
        if candidate_triples > chosen:
            triple_selection = _choices(TRIPLE_SELECTION, chosen, SELECTION_SHARE * triples, m)
            events.append(triple_selection)
            triples -= triple_selection.mu**2
        mu_triples = math.sqrt(triples)
        events.append(_event(TRIPLES, mu_triples, 1.0))
    beside = (*events, score) if isinstance(score, GaussianEvent) else tuple(events)
    if not isinstance(holdout, str) and holdout > 0:
        # As little noise as the training hides: the larger of the two counts, so the score costs nothing more.
        noise = NO_MORE * m / compose_mu(events)
        score = HeldOutEvent(
            name=ACCURACY,
            holdout=holdout,
            sensitivity=m,
            replace_one_sensitivity=math.sqrt(2) * m,
            noise_scale=noise,
        )
    return TablePlan(
        fine_noise={name: noises[name] / math.sqrt(1 - COARSE_SHARE * (name in coarse)) for name in histograms},
        coarse_noise={name: noises[name] / math.sqrt(COARSE_SHARE) for name in coarse},
        class_noise=noises[CLASSES],
        mu_one_way=mu_one_way,
        detail_noise=detail_noise,
        target_noise=target_noise,
        selection=selection,
        mu_pairs_by_class=by_class,
        mu_pairs_summed=summed,
        candidate_pairs=candidate_pairs,
        triple_selection=triple_selection,
        mu_triples=mu_triples,
        candidate_triples=candidate_triples,
        max_rows_per_person=m,
        critic=None
        if critic_share == 0
        else critic_event(epsilon, delta, beside, steps=critic_steps, sample_rate=critic_sample_rate),
        score=score,
        releases=tuple(events),
        bounds_noise=bounds_noise,
    )


@lru_cache(maxsize=64)
def critic_event(
    epsilon: float, delta: float, beside: Sequence[GdpEvent], *, steps: int, sample_rate: float
) -> PoissonGaussianEvent:
    """The critic's event, with as little noise as (ε, δ) of the whole run allows. Takes seconds the first time."""
    from synth.privacy.pld import calibrate_noise_multiplier  # slow to load; most runs have no critic

    try:
        noise = calibrate_noise_multiplier(
            sample_rate=sample_rate, steps=steps, epsilon=epsilon, delta=delta, beside=beside
        )
    except ValueError:
        raise UserError(
            f"synthesizer.critic_share: at epsilon {epsilon:g} no amount of noise lets a critic of {steps} steps fit "
            "into its share; raise the share, or set it to 0"
        ) from None
    return PoissonGaussianEvent(name=CRITIC, sample_rate=sample_rate, noise_multiplier=noise, steps=steps)


def bounds_share(columns: int) -> float:
    """Share of B for the bounds of so many columns; of what a score on a separate file leaves."""
    return min(BOUNDS_SHARE * columns, MOST_BOUNDS_SHARE)


def selections_of(columns: int, epsilon: float) -> int:
    """How many pairs are worth measuring where there are too many for all: more when noise is small."""
    return columns * (3 if epsilon < 3 else 4)


def by_class_share_of(epsilon: float) -> float:
    """Share of the pairs' budget for tables by class; the rest goes to tables over all classes."""
    return BY_CLASS_SHARE if epsilon < 2 else 1.0


def _choices(name: str, selections: int, squared_mu: float, m: int) -> SelectionEvent:
    """So many choices among scores that adding or removing a row moves by at most one, and replacing it by two."""
    half_range = half_range_of_choice(math.sqrt(squared_mu / selections))
    return SelectionEvent(
        name=name,
        selections=selections,
        sensitivity=m,
        replace_one_sensitivity=2 * m,
        noise_scale=m / half_range,
    )


def _event(name: str, sensitivity: float, noise: float) -> GaussianEvent:
    """One-hot tables: replacing a person moves two cells by one, hence √2 times the sensitivity."""
    return GaussianEvent(
        name=name,
        sensitivity=sensitivity,
        replace_one_sensitivity=math.sqrt(2) * sensitivity,
        noise_scale=noise,
    )
