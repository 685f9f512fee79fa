"""What an analyst can learn beside the rows: pairs, contrasts and the latent map, as JSON and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasheets.reading import number
from synth.facts import ContrastFacts, MapFacts, PairFacts, PublicFacts, ShiftFacts

BEYOND = 3.0
"""So many standard deviations beyond chance, and a reader is told of something."""
SURE = 2.0
"""Error bars are so many standard deviations long on either side."""

PAIRS_READING = (
    "Of each measured pair: the standard deviation of every noised count (noise) and, by it, of the share of people in"
    " a quarter of the table's cells (share_error); how far the model's two columns are from independence, as a total"
    " variation distance (dependence); how clearly the noised table itself shows any dependence, in standard deviations"
    " beyond what noise and the sampling of people would show (dependence_z); the root mean square of model less noised"
    " table, in units of the noise (residual, about 1 where the model follows the measurement), and how far that is"
    " beyond noise (residual_z). Columns that are no pair here were not measured together: their dependence is the"
    " model's guess. Declared rules are not in any of it."
)
CONTRAST_READING = (
    "How the model's columns change between groups of rows: the total variation distance of their bins (distance), with"
    " the standard deviation (error) that it would have if it were read from the one noised table that shows it, and"
    " the mean or the share that moves most. The model learned from other tables too, so its error by noise is smaller"
    " as a rule; what the model itself gets wrong is not in it. How clearly that table shows any change by itself: z,"
    " in standard deviations beyond what noise and the sampling of people would show. null: no such table was measured."
)
MAP_READING = (
    "The latent points of the model, each standing for equally many people within a class, placed by the first two"
    " principal components of the square roots of their shares; groups by Ward's method. Points: both coordinates, the"
    " number of the class, the number of the group."
)


def insight_json(facts: PublicFacts) -> dict[str, Any]:
    """The section of quality.json; nothing for images."""
    insight = facts.quality.insight
    if insight is None:
        return {}
    return {
        "pairs": {
            "reading": PAIRS_READING,
            "unmeasured": insight.unmeasured,
            "measured": [pair.model_dump(mode="json") for pair in strongest_first(insight.pairs)],
        },
        "contrast": _told(insight.contrast, CONTRAST_READING),
        "latent_map": _told(insight.map, MAP_READING),
    }


def _told(facts: ContrastFacts | MapFacts | None, reading: str) -> dict[str, Any] | None:
    return None if facts is None else {"reading": reading, **facts.model_dump(mode="json")}


def strongest_first(pairs: Sequence[PairFacts]) -> list[PairFacts]:
    """Pairs whose dependence is seen, the strongest first; then the others, the clearest first."""
    return sorted(
        pairs, key=lambda p: (p.dependence_z < BEYOND, -p.dependence if p.dependence_z >= BEYOND else -p.dependence_z)
    )


def shift_in_words(shift: ShiftFacts, unit: str, groups: Sequence[str]) -> str:
    """What changes of a column, and from which group to which."""
    one, other = (_value(value, shift) for value in shift.values)
    what = "mean" if shift.what == "mean" else shift.level
    after = f" {unit}" if unit and shift.what == "mean" else ""
    error = "" if shift.value_error is None else f" (± {_error(shift)})"
    between = "" if shift.groups is None else f", {groups[shift.groups[0]]} against {groups[shift.groups[1]]}"
    return f"{what}: {one} → {other}{after}{error}{between}"


def percent(share: float) -> str:
    """A share for reading."""
    digits = f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.2g}"
    return f"{digits}\N{NO-BREAK SPACE}%"


def apart_in_words(shift: ShiftFacts, unit: str) -> str:
    """What sets a group apart, its own value first."""
    one, other = (_value(value, shift) for value in shift.values)
    if shift.what == "mean":
        return f"{shift.column}: mean {other}{f' {unit}' if unit else ''} (all: {one})"
    named = f"{shift.column} missing" if shift.level == "missing" else f"{shift.column} = {shift.level}"
    return f"{named}: {other} (all: {one})"


def _value(value: float | str, shift: ShiftFacts) -> str:
    if isinstance(value, str):
        return value
    return percent(value) if shift.what == "share" else number(float(f"{value:.4g}"))


def _error(shift: ShiftFacts) -> str:
    error = SURE * (shift.value_error or 0.0)
    if shift.what == "share":
        return f"{100 * error:.2g}"
    return f"{error:.2g} days" if isinstance(shift.values[0], str) else number(float(f"{error:.2g}"))
