"""Exposure: which cells of the noised tables a record is counted in.

It covers the releases that `Measurements` keeps as they were drawn: fine and detail histograms, one-way histograms,
pair tables and those of three columns. Class sizes (kept after projection), scores and a numeric target's histogram are
left out: an attack that uses less is weaker, never unsound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.privacy import budget
from synth.tables.blocks import NONE
from synth.tables.count import Codes
from synth.tables.layout import Layout
from synth.tables.measurements import Measurements

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NoisedTable:
    """One noised table.

    Attributes:
        event: the release it belongs to.
        noised: its cells [cells].
        noise: stated noise scale of a cell.
        cell_of: the cell of each encoded row, NONE where the table does not count it.
    """

    event: str
    noised: FloatArray
    noise: float
    cell_of: Callable[[Codes], IntArray]

    def count(self, codes: Codes) -> IntArray:
        """Exact counts of these rows [cells]."""
        cell = self.cell_of(codes)
        return np.bincount(cell[cell != NONE], minlength=len(self.noised))


def tables_of(measured: Measurements, layout: Layout) -> Iterator[NoisedTable]:
    """Every noised table of a run that is kept as it was drawn."""
    for name, noised in measured.fine.items():
        yield NoisedTable(budget.FINE, noised, measured.fine_noise[name], _plain(f"cells:{name}"))
    for name, noised in measured.coarse.items():
        yield NoisedTable(budget.FINE, noised, measured.coarse_noise[name], _runs(measured, name))
    for key, noised in measured.details.items():
        yield NoisedTable(budget.DETAIL, noised, measured.detail_noise, _plain(key))
    for name, noised in measured.one_way.items():
        cell_of = _binned(measured, layout, (name,), by_class=True)
        yield NoisedTable(budget.ONE_WAY, noised.ravel(), measured.one_way_noise[name], cell_of)
    for pair, table in measured.pairs.items():
        if table.by_class is not None:
            cell_of = _binned(measured, layout, pair, by_class=True)
            yield NoisedTable(budget.PAIRS_BY_CLASS, table.by_class.ravel(), table.by_class_noise, cell_of)
        if table.summed is not None:
            cell_of = _binned(measured, layout, pair, by_class=False)
            yield NoisedTable(budget.PAIRS_SUMMED, table.summed.ravel(), table.summed_noise, cell_of)
    for triple, three in measured.triples.items():
        yield NoisedTable(budget.TRIPLES, three.noised.ravel(), three.noise, _grouped(measured, triple))


def _plain(key: str) -> Callable[[Codes], IntArray]:
    return lambda codes: codes[key].astype(np.int64)


def _runs(measured: Measurements, name: str) -> Callable[[Codes], IntArray]:
    return lambda codes: measured.run_of_cell[name][codes[f"cells:{name}"]]


def _binned(
    measured: Measurements, layout: Layout, names: Sequence[str], *, by_class: bool
) -> Callable[[Codes], IntArray]:
    def cell_of(codes: Codes) -> IntArray:
        cell = np.zeros(len(codes[f"cells:{names[0]}"]), dtype=np.int64)
        if by_class and layout.target is not None:
            cell = measured.class_of_cell[codes[f"cells:{layout.target}"]]
        return _joint(codes, {name: measured.bin_of_cell[name] for name in names}, cell)

    return cell_of


def _grouped(measured: Measurements, names: Sequence[str]) -> Callable[[Codes], IntArray]:
    lookups = {name: measured.group_of_bin[name][measured.bin_of_cell[name]] for name in names}
    return lambda codes: _joint(codes, lookups, np.zeros(len(codes[f"cells:{names[0]}"]), dtype=np.int64))


def _joint(codes: Codes, lookups: Mapping[str, IntArray], cell: IntArray) -> IntArray:
    """The cell of the table of several columns, in the part of it that `cell` says."""
    for name, lookup in lookups.items():
        cell = cell * (int(lookup.max()) + 1) + lookup[codes[f"cells:{name}"]]
    return cell
