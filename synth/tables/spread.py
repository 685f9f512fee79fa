"""Spread: how a column's values lie within its bins, as pieces. All of it follows from noised histograms.

In a cell some single values may hold much of the mass; the rest lies evenly, rounded as coarsely as people's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.tables.codec import Codec, LevelCodec
from synth.tables.decode import ColumnDecoder
from synth.tables.lattice import Lattice
from synth.tables.pieces import Pieces, first_multiple, joined, last_multiple

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def pieces_of(codec: Codec, decoder: ColumnDecoder) -> Pieces:
    """The values of a column as they are drawn: single values, then values as round as people wrote them."""
    if isinstance(codec, LevelCodec) or not (len(decoder.singles) or len(decoder.digits)):
        return even_pieces(codec, decoder)
    lattice, cells = codec.lattice, codec.lattice.cells
    home, share = decoder.bin_of_cell, decoder.share
    at = lattice.cell_of(decoder.singles)
    held = np.bincount(at, weights=decoder.single_share, minlength=cells)
    rest = share[:cells] * np.maximum(1.0 - held, 0.0)
    parts = [_missing(codec, decoder)]
    if len(decoder.singles):
        step = np.full(len(at), lattice.single_step)
        number = np.round(decoder.singles / step)
        mass = share[at] * decoder.single_share / np.maximum(held[at], 1.0)
        parts.append(Pieces(_bins(decoder), home[at], mass, number, number, step))
    stretch = _Stretches(lattice.edges[:-1], lattice.edges[1:], home[:cells], rest)
    parts += _rounded(lattice, decoder, stretch)
    every = joined(_bins(decoder), parts)
    return every.chosen(every.mass > 0)


def even_pieces(codec: Codec, decoder: ColumnDecoder) -> Pieces:
    """The values of a column if they lay evenly within each cell of the public grid."""
    home, share, bins = decoder.bin_of_cell, decoder.share, _bins(decoder)
    if isinstance(codec, LevelCodec):
        index = np.arange(codec.size, dtype=np.float64)
        if codec.missing is not None:
            index[codec.missing] = np.nan
        return joined(bins, [Pieces(bins, home, share, index, index, np.ones(codec.size))])
    edges, cells = codec.lattice.edges, codec.lattice.cells
    parts = [_missing(codec, decoder), _even(codec.lattice, bins, edges[:-1], edges[1:], home[:cells], share[:cells])]
    return joined(bins, parts)


def _bins(decoder: ColumnDecoder) -> int:
    return int(decoder.bin_of_cell.max()) + 1


def _missing(codec: Codec, decoder: ColumnDecoder) -> Pieces:
    cell = slice(codec.size - 1, codec.size) if codec.missing is not None else slice(0, 0)
    home = decoder.bin_of_cell[cell]
    nowhere = np.full(len(home), np.nan)
    return Pieces(_bins(decoder), home, decoder.share[cell], nowhere, nowhere, np.ones(len(home)))


def _even(lattice: Lattice, bins: int, low: FloatArray, end: FloatArray, home: IntArray, mass: FloatArray) -> Pieces:
    """Even pieces from `low` up to, and without, `end`."""
    if lattice.whole:
        return Pieces(bins, home, mass, low, end - 1, np.ones(len(low)))
    last = np.minimum(np.nextafter(end, -np.inf), lattice.high)
    return Pieces(bins, home, mass, low, np.maximum(last, low), np.zeros(len(low)))


@dataclass(frozen=True)
class _Stretches:
    """Positions in [low, end) with a mass that is spread evenly over them, and the bin they have to stay in."""

    low: FloatArray
    end: FloatArray
    bin: IntArray
    mass: FloatArray

    def part(self, low: FloatArray, end: FloatArray, which: BoolArray) -> _Stretches:
        """Of some stretches the part [low, end), with its share of the mass."""
        which = which & (end > low) & (self.mass > 0)
        span = np.maximum(self.end - self.low, 1e-300)
        mass = self.mass * (end - low) / span
        return _Stretches(low[which], end[which], self.bin[which], mass[which])

    def plus(self, *others: _Stretches) -> _Stretches:
        """All of them."""
        every = (self, *others)
        return _Stretches(
            *(np.concatenate([getattr(s, name) for s in every]) for name in ("low", "end", "bin", "mass"))
        )


def _rounded(lattice: Lattice, decoder: ColumnDecoder, cells: _Stretches) -> list[Pieces]:
    """Values in cells, rounded (half up) as coarsely as people's own values are, while they stay within their bin.

    A value starts with a unit drawn by `decoder.digits`; one whose rounding would leave its bin takes the next finer.
    """
    bins = _bins(decoder)
    if not len(decoder.digits):
        return [_even(lattice, bins, cells.low, cells.end, cells.bin, cells.mass)]
    lowest = np.full(bins, np.inf)
    np.minimum.at(lowest, cells.bin, cells.low)
    end = np.full(bins, -np.inf)
    np.maximum.at(end, cells.bin, cells.end)
    parts = []
    left = cells.part(cells.low, cells.low, np.zeros(len(cells.low), dtype=bool))
    for unit, chance in zip(lattice.units, decoder.digits, strict=False):
        now = left.plus(_Stretches(cells.low, cells.end, cells.bin, cells.mass * chance))
        step = np.full(len(now.low), unit)
        most = np.minimum(end[now.bin] - 1, lattice.high) if lattice.whole else np.nextafter(end[now.bin], -np.inf)
        fits_first = first_multiple(lowest[now.bin], step)
        fits_last = last_multiple(np.minimum(most, lattice.high), step)
        reach_first = np.floor(now.low / unit + 0.5)
        reach_last = np.ceil(now.end / unit + 0.5) - 1
        first, last = np.maximum(reach_first, fits_first), np.minimum(reach_last, fits_last)
        some = first <= last
        # The ends of a grid take only a part of what is rounded to a multiple; those between take all.
        low = np.maximum(now.low, np.where(first > reach_first, (first - 0.5) * unit, -np.inf))
        high = np.minimum(now.end, np.where(last < reach_last, (last + 0.5) * unit, np.inf))
        low, high = np.where(some, low, now.end), np.where(some, high, now.end)
        after_first, before_last = (first + 0.5) * unit, (last - 0.5) * unit
        for a, b, one, two, which in (
            (low, np.minimum(after_first, high), first, first, some),
            (after_first, before_last, first + 1, last - 1, some & (last > first + 1)),
            (np.maximum(before_last, low), high, last, last, some & (last > first)),
        ):
            span = np.maximum(now.end - now.low, 1e-300)
            mass = now.mass * np.maximum(b - a, 0.0) / span
            keep = which & (mass > 0)
            parts.append(Pieces(bins, now.bin[keep], mass[keep], one[keep], two[keep], step[keep]))
        none = ~some
        left = now.part(now.low, np.where(none, now.end, low), np.ones_like(some)).plus(now.part(high, now.end, some))
    chance = decoder.digits[len(lattice.units)]
    left = left.plus(_Stretches(cells.low, cells.end, cells.bin, cells.mass * chance))
    parts.append(_even(lattice, bins, left.low, left.end, left.bin, left.mass))
    return parts
