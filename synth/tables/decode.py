"""Decode: bins back to values of the exact declared types. All of it follows from noised histograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.schema import AnyColumn, Schema
from synth.tables import bins
from synth.tables.codec import Codec, LevelCodec, OrderedCodec
from synth.tables.lattice import multiples
from synth.tables.measure import Measurements

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_SINGLES_KEPT = 64


@dataclass(frozen=True)
class ColumnDecoder:
    """How one column's bins become values.

    Attributes:
        bin_of_cell: bin of each cell.
        share: share of each cell within its bin.
        singles: positions that hold much mass by themselves, ascending.
        single_share: the part of their cell's mass each of them holds.
        digits: share of each rounding unit among the other values (empty when not measured).
    """

    bin_of_cell: IntArray
    share: FloatArray
    singles: FloatArray
    single_share: FloatArray
    digits: FloatArray


def decoder_of(measured: Measurements, codec: Codec) -> ColumnDecoder:
    """The decoder of a measured column."""
    name = codec.column.name
    lookup = measured.bin_of_cell[name]
    singles, single_share, digits = np.empty(0), np.empty(0), np.empty(0)
    if isinstance(codec, OrderedCodec):
        for block in codec.blocks[1:]:
            noised = measured.details[block.key]
            if block.role == "singles":
                held = bins.project_to_simplex(measured.one_way[name].sum(axis=0), measured.total)
                mass = held[lookup] * measured.share[name]
                mass_noise = measured.one_way_noise * np.sqrt(len(measured.class_sizes))
                singles, single_share = _singles(codec, noised, measured.detail_noise, mass, mass_noise)
            else:
                digits = _digits(noised, measured.detail_noise)
    return ColumnDecoder(lookup, measured.share[name], singles, single_share, digits)


def _singles(
    codec: OrderedCodec, noised: FloatArray, noise: float, mass: FloatArray, mass_noise: float
) -> tuple[FloatArray, FloatArray]:
    """Positions whose noised count stands out from an even spread within their cell, and their share of it.

    `noised` holds the counts of single positions and `mass` those of cells, each with its noise scale.
    """
    lattice = codec.lattice
    positions = lattice.position_of_single(np.arange(len(noised)))
    cell = lattice.cell_of(positions)
    per_cell = np.bincount(cell, minlength=lattice.cells)
    excess = noised - mass[cell] / np.maximum(per_cell[cell], 1)
    threshold = noise * (np.sqrt(2 * np.log(max(len(noised), 2))) + 0.5)
    found = np.nonzero(excess > threshold)[0]
    found = np.sort(found[np.argsort(-excess[found])][:MAX_SINGLES_KEPT])
    at = cell[found]
    held = np.bincount(at, weights=excess[found], minlength=lattice.cells)[at]
    # Where what is left of a cell is no more than noise, the single values are all there is.
    alone = mass[at] - held < 2 * np.hypot(noise, mass_noise)
    return positions[found], excess[found] / np.where(alone, held, np.maximum(mass[at], held))


def _digits(noised: FloatArray, noise: float) -> FloatArray:
    total = float(noised.sum())
    if total <= 3 * noise * np.sqrt(len(noised)):
        return np.empty(0)
    mass = bins.project_to_simplex(noised, total)
    mass[mass < 2 * noise] = 0.0
    return mass / mass.sum() if mass.sum() > 0 else np.empty(0)


def decode_column(codec: Codec, decoder: ColumnDecoder, drawn_bins: IntArray, rng: np.random.Generator) -> pa.Array:
    """Values of drawn bins, in the column's output type."""
    cells = _cells(decoder.bin_of_cell, decoder.share, drawn_bins, rng)
    if isinstance(codec, LevelCodec):
        return codec.decode(cells)
    missing = cells == codec.missing if codec.missing is not None else np.zeros(len(cells), dtype=bool)
    positions = _positions(codec, decoder, np.where(missing, 0, cells), rng)
    return codec.decode_positions(positions, missing)


def _cells(bin_of_cell: IntArray, share: FloatArray, drawn: IntArray, rng: np.random.Generator) -> IntArray:
    """A cell for each drawn bin, by the shares within the bin."""
    order = np.argsort(bin_of_cell, kind="stable")
    first = np.searchsorted(bin_of_cell[order], np.arange(int(bin_of_cell.max()) + 2))
    # Bins laid end to end on a line, each of length one; a uniform picks a cell within its bin's stretch.
    ends = np.cumsum(share[order])
    found = np.searchsorted(ends, drawn + rng.random(len(drawn)), side="right")
    # The running sum is inexact in its last digits: a cell never leaves its bin, nor has it an empty share.
    heaviest = np.array([first[b] + np.argmax(share[order][first[b] : first[b + 1]]) for b in range(len(first) - 1)])
    inside = (found >= first[drawn]) & (found < first[drawn + 1])
    return order[np.where(inside, found, heaviest[drawn])]


def _positions(codec: OrderedCodec, decoder: ColumnDecoder, cells: IntArray, rng: np.random.Generator) -> FloatArray:
    lattice = codec.lattice
    low, high = lattice.edges[cells], lattice.edges[cells + 1]
    positions = low + rng.random(len(cells)) * (high - low)
    positions = np.minimum(np.floor(positions) if lattice.whole else positions, lattice.high)
    if len(decoder.digits):
        positions = _round_to_digits(codec, decoder, cells, positions, rng)
    if len(decoder.singles):
        at = lattice.cell_of(decoder.singles)
        u = rng.random(len(cells))
        start = np.zeros(lattice.cells)
        for cell, position, share in zip(at, decoder.singles, decoder.single_share, strict=True):
            chosen = (cells == cell) & (u >= start[cell]) & (u < start[cell] + share)
            positions[chosen] = position
            start[cell] += share
    return positions


def _round_to_digits(
    codec: OrderedCodec,
    decoder: ColumnDecoder,
    cells: IntArray,
    positions: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Round values as coarsely as the people's own values are, while they stay within their bin."""
    lattice, home = codec.lattice, decoder.bin_of_cell[cells]
    unit = np.searchsorted(np.cumsum(decoder.digits), rng.random(len(cells)) * (1 - 1e-12), side="right")
    done = np.zeros(len(cells), dtype=bool)
    for i, size in enumerate(lattice.units):
        rounded = multiples(np.round(positions / size), size)
        fits = (rounded >= lattice.low) & (rounded <= lattice.high)
        fits &= decoder.bin_of_cell[lattice.cell_of(np.clip(rounded, lattice.low, lattice.high))] == home
        now = ~done & (unit <= i) & fits
        positions = np.where(now, rounded, positions)
        done |= now
    return positions


def arrow_schema(schema: Schema, codecs: Mapping[str, Codec]) -> pa.Schema:
    """The output's Arrow schema: the declared columns in their declared order."""

    def field(column: AnyColumn) -> pa.Field:
        if column.kind == "id":
            return pa.field(column.name, pa.string(), nullable=False)
        return pa.field(column.name, codecs[column.name].arrow_type, nullable=column.nullable)

    return pa.schema([field(column) for column in schema.columns])
