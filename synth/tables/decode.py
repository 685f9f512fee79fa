"""Decode: what a model keeps of a column beside its bins, and positions as values of the exact declared types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synth.schema import AnyColumn, Schema
from synth.tables import bins
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.measurements import Measurements

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
                mass_noise = measured.one_way_noise[name] * np.sqrt(len(measured.class_sizes))
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


def values_at(codec: Codec, positions: FloatArray) -> pa.Array:
    """Values at positions (of a column of levels: at their indices), in the column's output type; NaN is missing."""
    missing = np.isnan(positions)
    known = np.where(missing, 0.0, positions)
    if isinstance(codec, OrderedCodec):
        return codec.decode_positions(known, missing)
    levels = codec.decode(np.arange(len(codec.levels)))
    return levels.take(pa.array(known.astype(np.int64), mask=missing))


def arrow_schema(schema: Schema, codecs: Mapping[str, Codec]) -> pa.Schema:
    """The output's Arrow schema: the declared columns in their declared order."""

    def field(column: AnyColumn) -> pa.Field:
        if column.kind == "id":
            return pa.field(column.name, pa.string(), nullable=False)
        return pa.field(column.name, codecs[column.name].arrow_type, nullable=column.nullable)

    return pa.schema([field(column) for column in schema.columns])
