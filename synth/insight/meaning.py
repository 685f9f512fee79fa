"""Meaning: what the bins of a model's column stand for, in the column's own values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from synth.schema import EPOCH, RESOLUTION_SECONDS, ContinuousColumn, DatetimeColumn
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.model import TableModel
from synth.tables.pieces import FloatArray, Pieces, multiples
from synth.tables.ruled import class_pieces
from synth.tables.spread import pieces_of

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MOST_NAMED = 3
"""Levels of one bin that are named; of others there is the number."""
CODE, SHORT = 3, 24
"""A level of so few characters is a code; its label is added when it has no more than so many."""
DIGITS = 5
MISSING = "missing"


@dataclass(frozen=True)
class Meaning:
    """What a column's bins stand for.

    Attributes:
        codec: the column's codec.
        bin_of_cell: bin of each cell.
        centre: mean position of each bin's values; NaN for missing ones [bins].
        single: which bins hold one value alone [bins].
    """

    codec: Codec
    bin_of_cell: IntArray
    centre: FloatArray
    single: BoolArray

    @property
    def ordered(self) -> bool:
        """Whether the column's values lie on a line, so that they have a mean."""
        return self.codec.ordered

    @property
    def missing(self) -> int | None:
        """The bin of missing values."""
        return None if self.codec.missing is None else int(self.bin_of_cell[self.codec.missing])

    def level(self, bin_: int) -> str:
        """The levels of a bin, or where its values lie."""
        if bin_ == self.missing:
            return MISSING
        if isinstance(self.codec, OrderedCodec):
            return self.between(bin_, bin_)
        cells = np.nonzero(self.bin_of_cell == bin_)[0]
        names = [self._named(self.codec.levels[cell]) for cell in cells[:MOST_NAMED]]
        more = len(cells) - len(names)
        return " or ".join([*names, *([f"{more} others"] if more else [])])

    def between(self, first: int, last: int) -> str:
        """Where the values of a run of bins lie, both included."""
        assert isinstance(self.codec, OrderedCodec)
        lattice = self.codec.lattice
        home = self.bin_of_cell[: lattice.cells]
        cells = np.nonzero((home >= first) & (home <= last))[0]
        if not len(cells):
            return "no value"  # a class that a numeric target could have had
        end = min(float(lattice.edges[cells[-1] + 1]) - lattice.whole, lattice.high)
        low, high = self.value(float(lattice.edges[cells[0]])), self.value(end)
        return text_of(low) if low == high else f"{text_of(low)} to {text_of(high)}"

    def value(self, position: float) -> float | str:
        """A position as a value of the column; a moment as text."""
        column = self.codec.column
        if isinstance(column, DatetimeColumn):
            moment = EPOCH + timedelta(seconds=round(position) * RESOLUTION_SECONDS[column.resolution])
            return f"{moment:%Y-%m-%d}" if column.resolution == "day" else f"{moment:%Y-%m-%d %H:%M}"
        return rounded(position * self.unit)

    def _named(self, level: object) -> str:
        """A level, with its label where the one is a code and the other short."""
        name = text_of(level)
        labels = getattr(self.codec.column, "labels", None) or {}
        label = next((text for code, text in labels.items() if text_of(code) == name), None)
        return name if label is None or len(name) > CODE or len(label) > SHORT else f"{name} ({label})"

    @property
    def unit(self) -> float:
        """One position in the column's unit; of moments in days."""
        column = self.codec.column
        if isinstance(column, DatetimeColumn):
            return RESOLUTION_SECONDS[column.resolution] / RESOLUTION_SECONDS["day"]
        return 10.0 ** -(column.decimals or 0) if isinstance(column, ContinuousColumn) else 1.0


def meaning_of(model: TableModel, name: str) -> Meaning:
    """What a column's bins stand for; of the target, where it is the class itself, the classes."""
    codec = model.codecs[name]
    if name not in model.encoding.names:
        return _meaning(codec, model.class_of_cell, class_pieces(model, name))
    decoder = model.decoders[name]
    return _meaning(codec, decoder.bin_of_cell, pieces_of(codec, decoder))


def class_names(model: TableModel) -> tuple[str, ...]:
    """The classes of the target in words; none without one."""
    if model.target is None:
        return ()
    classes = len(model.class_share)
    nothing = np.full(classes, np.nan)
    meaning = Meaning(model.codecs[model.target], model.class_of_cell, nothing, np.zeros(classes, dtype=bool))
    return tuple(meaning.level(c) for c in range(classes))


def text_of(value: object) -> str:
    """A value of a column in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def rounded(value: float, digits: int = DIGITS) -> float:
    """A number with as many digits as a reader has use for."""
    return float(f"{value:.{digits}g}")


def _meaning(codec: Codec, bin_of_cell: IntArray, pieces: Pieces) -> Meaning:
    low, high, middle = (
        np.where(pieces.step > 0, multiples(position, pieces.step), position)
        for position in (pieces.first, pieces.last, (pieces.first + pieces.last) / 2)
    )
    total, mass = np.bincount(pieces.bin, weights=pieces.mass * middle, minlength=pieces.bins), pieces.bin_mass
    least, most = np.full(pieces.bins, np.inf), np.full(pieces.bins, -np.inf)
    np.fmin.at(least, pieces.bin, low)
    np.fmax.at(most, pieces.bin, high)
    centre = np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), np.nan)
    return Meaning(codec, bin_of_cell, centre, least == most)
