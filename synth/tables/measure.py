"""Measure: the only stage whose outputs carry information about the people, and it pays for all of it.

Up to seven steps, each charged before its first draw and drawn once:

0. a numeric target's histogram, to cut it into classes;
1. fine histograms of every column over all classes, cell by cell and in runs of cells, class sizes and detail
   histograms; they place the bins;
2. one-way histograms of the bins within every class;
3. a choice of pairs, when there are too many to measure all of them;
4. pair tables on the bins, within every class and over all classes;
5. a choice of triples, those that their pairs tell least about;
6. tables of three columns on groups of bins.

Everything computed from the returned `Measurements` is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

import numpy as np

from synth.privacy import budget
from synth.privacy.budget import TablePlan
from synth.privacy.events import SelectionEvent
from synth.privacy.noise import NoiseSource
from synth.tables import bins
from synth.tables.blocks import NONE
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.count import Codes, count_binned, count_histograms, count_pairs, count_triples
from synth.tables.denoise import BinCounts, denoise
from synth.tables.layout import NUMERIC_TARGET_CLASSES, Layout, details_of, runs_of
from synth.tables.measurements import FloatArray, IntArray, Measurements, Pair, PairTable, TripleTable
from synth.tables.pair_choice import MAX_GROUPS, choose_pairs, distance_from, groups_of, noise_left, scores_of
from synth.tables.people import class_sizes_of
from synth.tables.profiles import ByClass, class_profiles
from synth.tables.triple_choice import TRIPLE_GROUPS, choose_triples, implied_triples

SMOOTH_FROM = 12
"""Cells from which on an ordered column is taken for a smooth curve with single values on it."""


class Measurer:
    """Makes a run's releases from its working file, charging each before it draws."""

    def __init__(
        self,
        *,
        read: Callable[[Sequence[str]], Iterable[Codes]],
        codecs: Mapping[str, Codec],
        layout: Layout,
        plan: TablePlan,
        noise: NoiseSource,
        charge: Callable[[str], None],
        public_rows: int | None,
    ) -> None:
        """Bind the working file to the plan.

        Args:
            read: opens the working file and yields the codes of the named blocks, batch by batch.
            codecs: codecs of the learned columns.
            layout: what is measured.
            plan: the releases and their noise.
            noise: the noise source.
            charge: called with an event's name before that event's first draw.
            public_rows: the declared row count, or None when it is private.
        """
        self._read, self._codecs, self._layout, self._plan = read, codecs, layout, plan
        self._noise, self._charge, self._public_rows = noise, charge, public_rows
        self._class_key = f"cells:{layout.target}" if layout.target else None

    def measure(self) -> Measurements:
        """All releases, in order."""
        class_of_cell = self._cut_target() if self._layout.cut_target else self._classes()
        ones = self._one_way(self._fine(class_of_cell))
        pairs = self._layout.pairs
        if not pairs or (self._plan.mu_pairs_by_class is None and self._plan.mu_pairs_summed is None):
            return ones  # one column, or a critic that has the whole share of the pairs
        if self._plan.selection is not None:
            pairs = self._chosen_pairs(ones, self._plan.selection)
        measured = self._pair_tables(ones, pairs)
        return measured if self._plan.mu_triples is None else self._triple_tables(measured, self._plan.mu_triples)

    def _classes(self) -> IntArray:
        return np.arange(self._layout.classes) if self._layout.target else np.zeros(1, dtype=np.int64)

    def _cut_target(self) -> IntArray:
        """Release 0: the target's histogram, cut into classes of about equal mass; missing is a class."""
        assert self._layout.target is not None and self._plan.target_noise is not None
        codec = self._codecs[self._layout.target]
        assert isinstance(codec, OrderedCodec)
        block = codec.blocks[0]
        exact = count_histograms(
            self._read([block.key]), blocks=[block], class_key=None, class_of_cell=np.zeros(1, dtype=np.int64)
        )
        self._charge(budget.TARGET_BINS)
        noised = self._noise.add_to(exact[block.key], self._plan.target_noise)
        missing = codec.missing
        values = noised if missing is None else noised[:-1]
        total = max(1.0, float(values.sum()))
        mass = denoise(values, self._plan.target_noise, codec.widths[: len(values)], total).mass
        middle = (np.cumsum(mass) - mass / 2) / mass.sum()
        cut = np.minimum((middle * NUMERIC_TARGET_CLASSES).astype(np.int64), NUMERIC_TARGET_CLASSES - 1)
        if missing is not None:
            cut = np.append(cut, cut.max() + 1)
        return np.unique(cut, return_inverse=True)[1].astype(np.int64)

    def _fine(self, class_of_cell: IntArray) -> Measurements:
        """Release 1: fine histograms, and the bins that follow from them."""
        layout, plan = self._layout, self._plan
        cells = [self._codecs[name].blocks[0] for name in layout.columns]
        details = details_of(layout, self._codecs)
        keys = [b.key for b in (*cells, *details)] + ([self._class_key] if self._class_key else [])
        exact = count_histograms(
            self._read(list(dict.fromkeys(keys))),
            blocks=[*cells, *details],
            class_key=self._class_key,
            class_of_cell=class_of_cell,
        )
        self._charge(budget.FINE)
        fine = {b.column: self._noise.add_to(exact[b.key], plan.fine_noise[b.column]) for b in cells}
        run_of_cell = {name: runs for name in layout.columns if (runs := runs_of(self._codecs[name])) is not None}
        coarse = {
            name: self._noise.add_to(_summed(exact[f"cells:{name}"], runs), plan.coarse_noise[name])
            for name, runs in run_of_cell.items()
        }
        sizes = self._noise.add_to(exact["class"], plan.class_noise)
        detail = {}
        if plan.detail_noise is not None:
            self._charge(budget.DETAIL)
            detail = {b.key: self._noise.add_to(exact[b.key], plan.detail_noise) for b in details}
        measured = Measurements(
            class_of_cell=class_of_cell,
            class_sizes=sizes,
            class_size_noise=plan.class_noise,
            fine=fine,
            fine_noise=dict(plan.fine_noise),
            run_of_cell=run_of_cell,
            coarse=coarse,
            coarse_noise=dict(plan.coarse_noise),
            details=detail,
            detail_noise=plan.detail_noise or 0.0,
            bin_of_cell={},
            share={},
            one_way={},
            one_way_noise={},
            profiles={},
            pairs={},
        )
        sized = self._sized(measured)
        most = bins.most_bins(sized.total, self._pair_noise(), len(layout.columns))
        placed = {name: self._bins(sized, name, most) for name in layout.columns}
        return replace(
            measured,
            bin_of_cell={name: lookup for name, (lookup, _) in placed.items()},
            share={name: share for name, (_, share) in placed.items()},
        )

    def _pair_noise(self) -> float:
        """Noise scale of a cell of a pair table, were all measured pairs measured equally."""
        mu = self._plan.mu_pairs_summed or self._plan.mu_pairs_by_class
        if mu is None:
            return 0.0
        return self._plan.max_rows_per_person * math.sqrt(self._plan.measured_pairs) / mu

    def _one_way(self, fine: Measurements) -> Measurements:
        """Release 2: histograms of the bins within classes, and better class sizes."""
        exact = count_binned(
            self._read(self._keys(self._layout.columns)),
            bin_of_cell=fine.bin_of_cell,
            class_key=self._class_key,
            class_of_cell=fine.class_of_cell,
        )
        bins = {name: table.shape[1] for name, table in exact.items()}
        noise = budget.noise_scales(bins, self._plan.mu_one_way, self._plan.max_rows_per_person)
        self._charge(budget.ONE_WAY)
        one_way = {name: self._noise.add_to(table, noise[name]) for name, table in exact.items()}
        # A class's size is known from its own count and from the total of each of its histograms.
        totals = np.stack([fine.class_sizes, *(table.sum(axis=1) for table in one_way.values())])
        variances = [fine.class_size_noise**2]
        variances += [bins[name] * noise[name] ** 2 for name in one_way]
        precision = 1.0 / np.array(variances)
        counted = replace(
            fine,
            one_way=one_way,
            one_way_noise=noise,
            class_sizes=np.average(totals, axis=0, weights=precision),
            class_size_noise=float(precision.sum() ** -0.5),
        )
        measured = self._sized(counted)
        both = {name: self._both_releases(measured, name) for name in self._layout.columns}
        columns = {
            name: ByClass(one_way[name], noise[name], summed, self._bins_in_order(measured, name))
            for name, (summed, _) in both.items()
        }
        return replace(
            measured,
            share={name: share for name, (_, share) in both.items()},
            profiles=class_profiles(columns, measured.class_sizes),
        )

    def _both_releases(self, measured: Measurements, name: str) -> tuple[FloatArray, FloatArray]:
        """A column's bins over all classes, and the share of each cell within its bin, from both releases of it."""
        codec, lookup, summed = self._codecs[name], measured.bin_of_cell[name], measured.one_way[name].sum(axis=0)
        noise = math.sqrt(len(measured.class_sizes)) * measured.one_way_noise[name]
        fine_noise = measured.fine_noise[name]
        if not _is_smooth(codec):
            variance = np.bincount(lookup) * fine_noise**2
            counted = np.bincount(lookup, weights=measured.fine[name])
            return (counted * noise**2 + summed * variance) / (noise**2 + variance), measured.share[name]
        values, last = slice(0, codec.lattice.cells), self._bins_in_order(measured, name)
        missing = summed[last:]
        total = max(1.0, measured.total - max(0.0, float(missing.sum())))
        binned = [*self._coarse(measured, name), BinCounts(lookup[values], summed[:last], noise)]
        place = codec.lattice.place_of_cell
        fine = measured.fine[name][values]
        curve = denoise(fine, fine_noise, codec.widths[values], total, binned=binned, place=place).mass
        smooth = np.append(np.bincount(lookup[values], weights=curve), missing)
        mass = np.append(curve, np.maximum(missing, 0.0))
        # A bin need not lie on the curve.
        return bins.shrunk(summed, smooth, noise, last), bins.shares_of(mass, codec.widths, lookup)

    def _coarse(self, measured: Measurements, name: str) -> list[BinCounts]:
        """What is known of runs of a column's cells."""
        if name not in measured.coarse:
            return []
        runs = measured.run_of_cell[name]
        return [BinCounts(runs[runs != NONE], measured.coarse[name], measured.coarse_noise[name])]

    def _bins_in_order(self, measured: Measurements, name: str) -> int:
        """How many of a column's bins, the first ones, stand in order."""
        codec = self._codecs[name]
        return int(measured.bin_of_cell[name].max()) + (codec.missing is None) if codec.ordered else 0

    def _sized(self, measured: Measurements) -> Measurements:
        sizes, noise = class_sizes_of(measured, self._public_rows)
        return replace(measured, class_sizes=sizes, class_size_noise=noise)

    def _bins(self, measured: Measurements, name: str, most: int) -> tuple[IntArray, FloatArray]:
        """Bins of a column, and the share of each cell within its bin."""
        codec, noised, noise = self._codecs[name], measured.fine[name], measured.fine_noise[name]
        if not isinstance(codec, OrderedCodec):
            mass = bins.project_to_simplex(noised, measured.total)
            lookup = bins.merge_levels(mass, noise, codec.missing is not None, codec.partitions, most=most)
            return lookup, bins.spread_within_bins(noised, lookup, noise)
        values = slice(0, codec.lattice.cells)
        mass, stands_out = np.maximum(noised, 0.0), np.zeros(len(noised), dtype=bool)
        if _is_smooth(codec):
            total = max(1.0, measured.total - float(mass[values.stop :].sum()))
            binned, place = self._coarse(measured, name), codec.lattice.place_of_cell
            denoised = denoise(noised[values], noise, codec.widths[values], total, binned=binned, place=place)
            mass[values], stands_out[values] = denoised.mass, denoised.stands_out
        lookup = bins.merge_ordered(mass, stands_out, noise, codec.missing is not None, most)
        return lookup, bins.shares_of(mass, codec.widths, lookup)

    def _keys(self, columns: Iterable[str]) -> list[str]:
        keys = [f"cells:{name}" for name in columns] + ([self._class_key] if self._class_key else [])
        return list(dict.fromkeys(keys))

    def _chosen_pairs(self, ones: Measurements, event: SelectionEvent) -> tuple[Pair, ...]:
        """Release 3: the pairs worth measuring, chosen one after the other."""
        groups = self._groups(ones, MAX_GROUPS)
        pairs = self._layout.pairs
        counts = count_pairs(
            self._read(self._keys(self._layout.columns)),
            pairs=pairs,
            bin_of_cell=_by_cell(groups, ones),
            class_key=None,
            class_of_cell=np.zeros(1, dtype=np.int64),
        )
        distance, by_chance = scores_of(ones, groups, {pair: table[0] for pair, table in counts.items()})
        cells = np.array([float(len(groups[a]) * len(groups[b])) for a, b in pairs])
        mu = (self._plan.mu_pairs_summed or self._plan.mu_pairs_by_class or 1.0) / self._plan.max_rows_per_person
        self._charge(event.name)
        worth = distance - by_chance - noise_left(cells, event.selections, mu)
        chosen = choose_pairs(pairs, worth, event, self._noise, tied=self._layout.tied)
        return tuple(pairs[i] for i in chosen)

    def _pair_tables(self, ones: Measurements, pairs: Sequence[Pair]) -> Measurements:
        """Release 4: pair tables, more precise where a table has more cells."""
        exact = self._count(ones, pairs)
        cells = {p: exact[p][0].size for p in pairs}
        tables = {p: PairTable(None, 0.0, None, 0.0) for p in pairs}
        for mu, name in (
            (self._plan.mu_pairs_by_class, budget.PAIRS_BY_CLASS),
            (self._plan.mu_pairs_summed, budget.PAIRS_SUMMED),
        ):
            if mu is None:
                continue
            scales = budget.noise_scales(cells, mu, self._plan.max_rows_per_person)
            self._charge(name)
            for p, scale in scales.items():
                if name == budget.PAIRS_BY_CLASS:
                    noised = self._noise.add_to(exact[p], scale)
                    tables[p] = replace(tables[p], by_class=noised, by_class_noise=scale)
                else:
                    noised = self._noise.add_to(exact[p].sum(axis=0), scale)
                    tables[p] = replace(tables[p], summed=noised, summed_noise=scale)
        return replace(ones, pairs=tables)

    def _triple_tables(self, measured: Measurements, mu: float) -> Measurements:
        """Releases 5 and 6: the triples worth measuring, and their tables."""
        groups = self._groups(measured, TRIPLE_GROUPS)
        triples, event = list(self._layout.triples), self._plan.triple_selection
        exact = count_triples(
            self._read(self._keys(self._layout.columns)), triples=triples, group_of_cell=_by_cell(groups, measured)
        )
        if event is not None:
            expected = implied_triples(measured, groups, triples)
            distance, by_chance = np.array([distance_from(expected[t], table) for t, table in exact.items()]).T
            cells = np.array([float(table.size) for table in exact.values()])
            self._charge(event.name)
            worth = distance - by_chance - noise_left(cells, event.selections, mu / self._plan.max_rows_per_person)
            triples = [triples[i] for i in choose_triples(worth, event, self._noise)]
        scales = budget.noise_scales({t: exact[t].size for t in triples}, mu, self._plan.max_rows_per_person)
        self._charge(budget.TRIPLES)
        return replace(
            measured,
            group_of_bin={n: groups[n] for n in self._layout.columns if any(n in triple for triple in triples)},
            triples={t: TripleTable(self._noise.add_to(exact[t], scales[t]), scales[t]) for t in triples},
        )

    def _groups(self, measured: Measurements, most: int) -> dict[str, IntArray]:
        """Group of each bin of every column, about equally many people in each; see `groups_of`."""
        people = {name: measured.class_sizes @ profile for name, profile in measured.profiles.items()}
        return {n: groups_of(people[n], self._bins_in_order(measured, n), most) for n in self._layout.columns}

    def _count(self, ones: Measurements, pairs: Sequence[Pair]) -> dict[Pair, IntArray]:
        used = sorted({name for pair in pairs for name in pair})
        return count_pairs(
            self._read(self._keys(used)),
            pairs=pairs,
            bin_of_cell={name: ones.bin_of_cell[name] for name in used},
            class_key=self._class_key,
            class_of_cell=ones.class_of_cell,
        )


def _summed(counts: IntArray, run_of_cell: IntArray) -> IntArray:
    """Counts of runs of cells [runs]."""
    held = np.zeros(int(run_of_cell.max()) + 1, dtype=np.int64)
    np.add.at(held, run_of_cell[run_of_cell != NONE], counts[run_of_cell != NONE])
    return held


def _by_cell(groups: Mapping[str, IntArray], measured: Measurements) -> dict[str, IntArray]:
    """Group of each cell, from the group of each bin."""
    return {name: lookup[measured.bin_of_cell[name]] for name, lookup in groups.items()}


def _is_smooth(codec: Codec) -> TypeGuard[OrderedCodec]:
    return isinstance(codec, OrderedCodec) and codec.lattice.cells >= SMOOTH_FROM
