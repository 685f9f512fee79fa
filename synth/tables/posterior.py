"""The posterior: a model given conditions on any of its columns, which is a model of the same kind.

Given a latent point z and a class c the columns are independent, so
p(z, c | x_S ∈ S) ∝ p(c)/K · Π_j P_j(S_j | z, c), with
P_j(S_j | z, c) = Σ_bins p_j(bin | z, c) · (share of the bin in S_j),
and given z and c each column is drawn from its own distribution within S_j. Nothing is rejected, however rare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.errors import UserError
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.conditions import Balance
from synth.tables.decode import ColumnDecoder
from synth.tables.model import TableModel
from synth.tables.pieces import Pieces, Region, joined
from synth.tables.spread import even_pieces, pieces_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEAST_DENSITY = 1e-300


@dataclass(frozen=True)
class Posterior:
    """A model given conditions.

    Attributes:
        weights: weight of each class and latent point [C, K], summing to 1.
        pieces: encoded column → its values; a bin's mass is its factor on the model's share of that bin.
        held: the columns whose bins' factors are not all 1.
        balanced: the column whose shares were asked for, if it is an encoded one.
    """

    weights: FloatArray
    pieces: dict[str, Pieces]
    held: frozenset[str]
    balanced: str | None


def posterior_of(
    model: TableModel, conditions: Mapping[str, Region] | None = None, balance: Balance | None = None
) -> Posterior:
    """The model given conditions, and then with the asked shares of one column's levels.

    Raises UserError when the model gives the conditions no probability at all.
    """
    conditions = conditions or {}
    pieces, logs = {}, np.zeros(model.shares.shape[:2])
    for name in model.encoding.names:
        codec, decoder = model.codecs[name], model.decoders[name]
        if name in conditions:
            pieces[name] = restricted(codec, decoder, conditions[name])
            with np.errstate(divide="ignore"):
                logs += np.log(model.shares[:, :, model.encoding.place(name)] @ pieces[name].bin_mass)
        else:
            pieces[name] = pieces_of(codec, decoder)
    share = _class_share(model, conditions)
    with np.errstate(divide="ignore"):
        weights = normalised(logs + np.log(share)[:, None])
    held = frozenset(name for name in conditions if name in pieces)
    plain = Posterior(weights, pieces, held, None)
    if balance is None:
        return plain
    if balance.column in pieces:
        return _balanced(model, plain, balance)
    best = logs.max(axis=1)
    asked = _asked(balance, weights.sum(axis=1), possible=np.isfinite(best))
    within = np.exp(logs - np.where(np.isfinite(best), best, 0.0)[:, None])
    within /= np.maximum(within.sum(axis=1, keepdims=True), 1e-300)
    return Posterior(asked[:, None] * within, pieces, held, None)


def restricted(codec: Codec, decoder: ColumnDecoder, region: Region) -> Pieces:
    """A column's values within a region.

    Values that are never drawn without a condition (people's own are rounder, or crowd on single values) can be asked
    for: where the region holds no others, it is filled as if values lay evenly within each cell of the public grid.
    """
    inside = pieces_of(codec, decoder).within(region)
    if inside.mass.sum() > 0:
        return inside
    even = even_pieces(codec, decoder)
    inside = even.within(region)
    if inside.mass.sum() > 0:
        return inside
    # Single real numbers: nothing but their densities tells them apart.
    at = region.intervals[:, 0]
    cell = codec.lattice.cell_of(at) if isinstance(codec, OrderedCodec) else at.astype(np.int64)
    density = np.maximum(density_of(codec, decoder)[cell], LEAST_DENSITY)
    points = Pieces(even.bins, decoder.bin_of_cell[cell], density, at, at, np.zeros(len(at)))
    return joined(even.bins, [points])


def density_of(codec: Codec, decoder: ColumnDecoder) -> FloatArray:
    """Share of each cell within its bin, divided among its positions (for real numbers, by its length) [cells]."""
    return decoder.share / codec.widths if isinstance(codec, OrderedCodec) else decoder.share


def normalised(logs: FloatArray) -> FloatArray:
    """Weights from their logarithms, summing to 1. Raises UserError when there are none."""
    best = logs.max()
    if not np.isfinite(best):
        raise UserError("--where: the model holds no such rows (the values are each known, but never together)")
    weights = np.exp(logs - best)
    return np.asarray(weights / weights.sum())


def _class_share(model: TableModel, conditions: Mapping[str, Region]) -> FloatArray:
    """Share of each class, where the class is the target itself and conditions name it: without the others."""
    if model.target is None or model.target in model.encoding.names or model.target not in conditions:
        return model.class_share
    cells = np.arange(len(model.class_of_cell), dtype=np.float64)
    missing = model.codecs[model.target].missing
    if missing is not None:
        cells[missing] = np.nan
    region = conditions[model.target]
    allowed = np.any([(cells >= low) & (cells <= high) for low, high in region.intervals] or [cells < 0], axis=0)
    allowed |= np.isnan(cells) & region.missing
    share = np.zeros(len(model.class_share))
    np.add.at(share, model.class_of_cell[allowed], model.class_share[model.class_of_cell[allowed]])
    # A declared class that the noise has wiped out can still be asked for.
    share[model.class_of_cell[allowed]] += float(share.sum() == 0)
    return share


def _asked(balance: Balance, share: FloatArray, *, possible: BoolArray) -> FloatArray:
    """Asked shares in full, from those that stand without it: what was not named divides what is left."""
    open_ = np.isnan(balance.shares)
    rest = max(1.0 - float(np.nansum(balance.shares)), 0.0)
    whole = float(share[open_].sum())
    if ((balance.shares > 0) & ~possible).any() or (rest > 1e-9 and whole <= 0):
        raise UserError(f"--balance {balance.column}: the model never makes one of the levels asked for")
    return np.where(open_, share * rest / max(whole, 1e-300), np.nan_to_num(balance.shares))


def _balanced(model: TableModel, plain: Posterior, balance: Balance) -> Posterior:
    """One encoded column's levels weighed so that they take the asked shares; all else given the level stays."""
    name = balance.column
    pieces, shares = plain.pieces[name], model.shares[:, :, model.encoding.place(name)]
    reach = shares @ pieces.bin_mass  # [C, K]
    bins = np.einsum("ck,ckb->b", plain.weights / np.where(reach > 0, reach, 1.0), shares.astype(np.float64))
    mass = bins[pieces.bin] * pieces.mass
    codec = model.codecs[name]
    cell = np.where(np.isnan(pieces.first), codec.missing or 0, pieces.first).astype(np.int64)
    share = np.asarray(np.bincount(cell, weights=mass, minlength=codec.size), dtype=np.float64)
    factor = _asked(balance, share, possible=share > 0) / np.where(share > 0, share, 1.0)
    weighed = pieces.weighted(factor[cell])
    weights = plain.weights * np.where(reach > 0, shares @ weighed.bin_mass / np.where(reach > 0, reach, 1.0), 0.0)
    return Posterior(weights / weights.sum(), plain.pieces | {name: weighed}, plain.held | {name}, name)
