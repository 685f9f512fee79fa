"""Bounds that nobody could declare, estimated from noised histograms on a public ladder.

Every row that stays counts once on the column's coarse ladder and once on its fine one (`ladder.py`), values that are
missing or cannot be read nowhere. All histograms of all such columns are one Gaussian release, whose sensitivity and
noise `synth.privacy.budget` fixes. What follows is post-processing of it:

1. A coarse bin stands out when its noised count is above a threshold that noise alone passes anywhere on a column's
   ladder with probability FALSE_ALARM. The bounds reach from the first bin that stands out to the last.
2. They grow by the next coarse bin as long as that one holds more than GROWS standard deviations of the noise, so that
   a thin tail is kept; noise alone grows a side by a bin in one of fifteen cases.
3. Towards zero bins get ever smaller, so there the DEPTH largest are taken together: those on the other side of zero,
   to which the range grows, as far as on its own, when they hold more than CROSSES standard deviations of their noise;
   else those between the range and zero, to which it grows when they hold more than REACHES.
4. They shrink by the fine bins at each end for as long as these together hold no more than SHRINKS standard deviations
   of their noise, and, with one of those, no more than CUT of the people who stand out.

A single row, however far out, is below the threshold. Where nothing stands out the column gets a fixed public range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import ndtri

from synth.errors import UserError
from synth.privacy.noise import NoiseSource
from synth.schema import (
    EPOCH,
    RESOLUTION_SECONDS,
    ContinuousColumn,
    DatetimeColumn,
    EstimableColumn,
    IntegerColumn,
    Schema,
)
from synth.tables.codec import OrderedCodec
from synth.tables.ladder import Ladder, ladder_of
from synth.tables.rules import Order, problems_of_rules, rules_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FALSE_ALARM = 1e-6
"""Probability, at most, that noise alone makes any bin of a column stand out."""
GROWS = SHRINKS = 1.5
CROSSES, REACHES = 3.0, 2.0
DEPTH = 9
"""Coarse bins of three powers of ten."""
CUT = 0.003
ASSUMED_NUMBERS = (-1000, 1000)
ASSUMED_DATES = (datetime(1900, 1, 1), datetime(2099, 12, 31, 23, 59, 59))

Found = dict[str, dict[str, Any]]
"""Column → `bounds` and `bounds_are`, as schema.yaml writes them."""


@dataclass(frozen=True)
class Tally:
    """Counts on a ladder, exact or noised."""

    coarse: npt.NDArray[Any]
    fine: npt.NDArray[Any]


def estimate_bounds(
    batches: Iterable[pa.RecordBatch],
    columns: Sequence[EstimableColumn],
    *,
    noise: NoiseSource,
    noise_scale: float,
    charge: Callable[[], None],
) -> Found:
    """The bounds of columns from one pass over the rows.

    Args:
        batches: the rows that count: at most m of a person.
        columns: the columns to estimate.
        noise: the noise source.
        noise_scale: noise scale of a cell of any of the histograms (people).
        charge: called once all rows are counted, before the first draw.
    """
    exact = tally(batches, columns)
    charge()
    found: Found = {}
    for column in columns:
        ladder, counts = ladder_of(column), exact[column.name]
        noised = Tally(noise.add_to(counts.coarse, noise_scale), noise.add_to(counts.fine, noise_scale))
        ends = ends_of(ladder, noised, noise_scale)
        bounds = assumed_bounds(column) if ends is None else bounds_of(column, *ends)
        found[column.name] = {"bounds": bounds, "bounds_are": "assumed" if ends is None else "estimated"}
    return found


def tally(batches: Iterable[pa.RecordBatch], columns: Sequence[EstimableColumn]) -> dict[str, Tally]:
    """Exact counts of the columns' values on their ladders."""
    codecs = {column.name: OrderedCodec(column) for column in columns}
    ladders = {column.name: ladder_of(column) for column in columns}
    counts = {name: np.zeros(ladder.bins, dtype=np.int64) for name, ladder in ladders.items()}
    for batch in batches:
        for name, ladder in ladders.items():
            positions, _ = codecs[name].positions(batch.column(name))
            counts[name] += np.bincount(ladder.bin_of(positions[np.isfinite(positions)]), minlength=ladder.bins)
    return {name: Tally(summed(fine, ladders[name]), fine) for name, fine in counts.items()}


def summed(fine: IntArray, ladder: Ladder) -> IntArray:
    """Counts of the coarse bins [coarse bins], from those of the fine ones."""
    return np.add.reduceat(fine, np.searchsorted(ladder.coarse, np.arange(ladder.coarse_bins)))


def threshold(ladder: Ladder, noise_scale: float) -> float:
    """The noised count above which a coarse bin stands out, in people."""
    return float(-ndtri(FALSE_ALARM / ladder.coarse_bins)) * noise_scale


def ends_of(ladder: Ladder, noised: Tally, noise_scale: float) -> tuple[float, float] | None:
    """The first and last position of the estimated range; None where no bin stands out."""
    (standing_out,) = np.nonzero(noised.coarse > threshold(ladder, noise_scale))
    if not len(standing_out):
        return None
    low, high = int(standing_out[0]), int(standing_out[-1])
    first, last = np.searchsorted(ladder.coarse, low, side="right") - 1, np.searchsorted(ladder.coarse, high)
    grown_low = low - _grows(noised.coarse[:low][::-1], noise_scale)
    grown_high = high + _grows(noised.coarse[high + 1 :], noise_scale)
    if ladder.zero is not None:
        grown_low, grown_high = _around_zero(noised.coarse, ladder.zero, grown_low, grown_high, noise_scale)
    start = int(np.searchsorted(ladder.coarse, grown_low))
    stop = int(np.searchsorted(ladder.coarse, grown_high, side="right"))
    # Each end may shrink into the bin that stood out, and not past it.
    most = CUT * float(noised.coarse[standing_out].sum())
    from_left = start + _shrinks(noised.fine[start : first + 1], noise_scale, most)
    from_right = stop - 1 - _shrinks(noised.fine[last:stop][::-1], noise_scale, most)
    if from_left > from_right:  # one bin stood out and its two ends have passed each other
        from_left, from_right = start, stop - 1
    return float(ladder.lows[from_left]), float(ladder.highs[from_right])


def _grows(outwards: FloatArray, noise_scale: float) -> int:
    """How many coarse bins, outwards from the range, hold something one after the other."""
    nothing = outwards <= GROWS * noise_scale
    return int(np.argmax(nothing)) if nothing.any() else len(outwards)


def _around_zero(coarse: FloatArray, zero: int, low: int, high: int, noise_scale: float) -> tuple[int, int]:
    """A range of coarse bins, with what lies between it and zero, and on the other side of that."""
    if zero - low > high - zero:  # the same in a mirror
        high, low = (
            2 * zero - end for end in _around_zero(coarse[::-1], zero, 2 * zero - high, 2 * zero - low, noise_scale)
        )
        return low, high

    def holds(bins: FloatArray, more_than: float) -> bool:
        return bool(bins.sum() > more_than * noise_scale * math.sqrt(max(1, len(bins))))

    mirrored = 2 * zero - high
    if holds(coarse[mirrored : min(low, zero)][:DEPTH], CROSSES):
        return mirrored, high
    if low > zero and holds(coarse[max(zero, high - DEPTH) : low], REACHES):
        return zero, high
    return low, high


def _shrinks(inwards: FloatArray, noise_scale: float, most: float) -> int:
    """How many fine bins, from an end of the range inwards, together hold next to nothing; 0 if all of them do."""
    together, noise = np.cumsum(inwards), noise_scale * np.sqrt(np.arange(1, len(inwards) + 1))
    shows = (together > SHRINKS * noise) | (together + noise > most)
    return int(np.argmax(shows)) if shows.any() else 0


def bounds_of(column: EstimableColumn, low: float, high: float) -> list[Any]:
    """Positions as bounds in schema.yaml: whole numbers, numbers with the column's decimals, dates as text."""
    if isinstance(column, DatetimeColumn):
        unit = timedelta(seconds=RESOLUTION_SECONDS[column.resolution])
        return [(EPOCH + int(end) * unit).isoformat() for end in (low, high)]
    if isinstance(column, ContinuousColumn):
        decimals = column.decimals
        return [low, high] if decimals is None else [round(end / 10**decimals, decimals) for end in (low, high)]
    return [int(low), int(high)]


def assumed_bounds(column: EstimableColumn) -> list[Any]:
    """The fixed range of a column of which nothing stands out of the noise."""
    if isinstance(column, DatetimeColumn):
        return [end.isoformat() for end in ASSUMED_DATES]
    return list(ASSUMED_NUMBERS)


def meeting_rules(schema: Schema, found: Found) -> Found:
    """Found bounds, wider where an order between two columns could not hold within them.

    Raises UserError where the rules leave nothing within them all the same.
    """
    for rule in rules_of(schema):
        known = schema.with_bounds(found)
        if not isinstance(rule, Order):
            continue
        low, high = _bounds(known, rule.lower), _bounds(known, rule.upper)
        if low[0] > high[1] or (rule.strict and low[0] == high[1]):
            both = min(low[0], high[0]), max(low[1], high[1])
            found = found | {
                name: found[name] | {"bounds": _wider(known, name, *both)} for name in rule.columns if name in found
            }
    if problems := problems_of_rules(schema.with_bounds(found)):
        raise UserError(
            f"schema: within the estimated bounds, {'; '.join(problems)}; declare the bounds that it needs and start a "
            "new run (this one stays charged)"
        )
    return found


def _bounds(schema: Schema, name: str) -> tuple[Any, Any]:
    column = schema.column(name)
    assert isinstance(column, EstimableColumn)
    return column.bounds


def _wider(schema: Schema, name: str, low: Any, high: Any) -> list[Any]:
    column = schema.column(name)
    assert isinstance(column, EstimableColumn)
    least, most = column.unbounded.bounds
    low, high = max(low, least), min(high, most)
    if isinstance(column, DatetimeColumn):
        return [low.isoformat(), high.isoformat()]
    return [math.floor(low), math.ceil(high)] if isinstance(column, IntegerColumn) else [float(low), float(high)]
