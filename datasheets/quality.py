"""Public scores, worst first: from synthetic rows, measurements already paid for, and the charged score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datasheets.insight import insight_json
from datasheets.reading import Reading
from datasheets.statements import held_out_in_words
from synth.facts import ImageModelFacts, MarginalScore, PublicFacts

READING = (
    "Each distance is the total variation distance between the synthetic rows and the noised"
    " measurement of the same columns (0: equal, 1: nothing in common). Beside it stands the distance"
    " that noise alone would show: up to that level, a distance says nothing against the table."
)
NONE_ON_SOURCE = "No score here was computed on source rows."
ONE_ON_PEOPLE = (
    "The accuracy on held-out people was computed on their rows, noised and charged; no other score here was computed"
    " on real rows."
)

MOMENTS_READING = (
    "Of images: for each class the Frobenius norm of the difference between the synthetic pictures' mean second moments"
    " and the noised ones, and what noise alone would show. Each is a mean of matrices of norm at most 1."
)


def reading_of(facts: PublicFacts) -> str:
    """How the scores are to be read, and on what they were computed."""
    return f"{READING} {NONE_ON_SOURCE if facts.quality.held_out is None else ONE_ON_PEOPLE}"


def worst_first(scores: Iterable[MarginalScore]) -> list[MarginalScore]:
    """Scores by how far the distance exceeds what noise alone would show."""
    return sorted(scores, key=lambda score: (score.noise - score.distance, -score.distance, score.columns))


def quality_json(facts: PublicFacts) -> dict[str, Any]:
    """The public scores as JSON, worst first."""
    quality = facts.quality
    return {
        "run": facts.run.run_id,
        "reading": reading_of(facts),
        "rows": quality.rows,
        "valid_rows": quality.valid_rows,
        "mean_one_way_distance": quality.mean_one_way_distance,
        "mean_one_way_noise": quality.mean_one_way_noise,
        "mean_two_way_distance": quality.mean_two_way_distance,
        "mean_two_way_noise": quality.mean_two_way_noise,
        **_of_images_or_table(facts),
        "held_out": _held_out_json(facts),
        "audit": None if facts.audit is None else facts.audit.model_dump(mode="json"),
        "one_way": [_score_json(score) for score in worst_first(quality.one_way)],
        "two_way": [_score_json(score) for score in worst_first(quality.two_way)],
        "three_way": [_score_json(score) for score in worst_first(quality.three_way)],
        **insight_json(facts),
    }


def _of_images_or_table(facts: PublicFacts) -> dict[str, Any]:
    if isinstance(facts.model, ImageModelFacts):
        return {
            "coefficients": facts.model.coefficients,
            "moments_reading": MOMENTS_READING,
            "moments": [score.model_dump(mode="json") for score in facts.quality.moments],
        }
    return {
        "measured_pairs": facts.model.measured_pairs,
        "candidate_pairs": facts.model.candidate_pairs,
        "measured_triples": facts.model.measured_triples,
    }


def _held_out_json(facts: PublicFacts) -> dict[str, Any] | None:
    found = facts.quality.held_out
    return None if found is None else {**found.model_dump(mode="json"), "reading": held_out_in_words(Reading(facts))}


def _score_json(score: MarginalScore) -> dict[str, Any]:
    return {"columns": list(score.columns), "distance": score.distance, "noise": score.noise}
