"""Measure: the only stage whose outputs carry information about the people, and it pays for all of it.

Up to five steps of Gaussian releases, each charged before its first draw and drawn once:

0. a numeric target's histogram, to cut it into classes;
1. fine histograms of every column over all classes, class sizes and detail histograms; they place the bins;
2. one-way histograms of the bins within every class;
3. scores of candidate pairs, when there are too many pairs to measure all of them;
4. pair tables on the bins, within every class and over all classes.

Everything computed from the returned `Measurements` is post-processing.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from synth.files import write_whole
from synth.privacy import budget
from synth.privacy.budget import TablePlan, plan_table
from synth.privacy.noise import NoiseSource
from synth.schema import Schema
from synth.tables import bins
from synth.tables.blocks import DETAIL_WEIGHT, Block
from synth.tables.codec import Codec, OrderedCodec
from synth.tables.count import Codes, count_binned, count_histograms, count_pairs
from synth.tables.denoise import BinCounts, denoise
from synth.tables.profiles import ByClass, class_profiles

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pair = tuple[str, str]

NUMERIC_TARGET_CLASSES = 5
MAX_CLASSES_IN_PAIRS = 24
SCORE_UNIT = 16
"""Scores are counted in sixteenths of a row, so that they are whole numbers before noise."""
SMOOTH_FROM = 12
"""Cells from which on an ordered column is taken for a smooth curve with single values on it."""


@dataclass(frozen=True)
class Layout:
    """What is measured, from the schema alone.

    Attributes:
        columns: columns with one-way histograms within classes (a categorical target is the class itself).
        target: the target's name, or None.
        classes: number of classes; for a numeric target the most there can be.
        cut_target: whether the target is numeric and must be cut into classes.
    """

    columns: tuple[str, ...]
    target: str | None
    classes: int
    cut_target: bool

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All candidate pairs of columns."""
        return tuple(itertools.combinations(self.columns, 2))


def layout_of(schema: Schema, codecs: Mapping[str, Codec]) -> Layout:
    """The layout of a schema."""
    target = schema.target
    if target is None:
        return Layout(columns=tuple(codecs), target=None, classes=1, cut_target=False)
    codec = codecs[target]
    others = tuple(name for name in codecs if name != target)
    if not others:
        # A table of one column has nothing to condition: its only column is learned as it is.
        return Layout(columns=(target,), target=None, classes=1, cut_target=False)
    if codec.ordered:
        classes = NUMERIC_TARGET_CLASSES + (codec.missing is not None)
        return Layout(columns=tuple(codecs), target=target, classes=classes, cut_target=True)
    return Layout(columns=others, target=target, classes=codec.size, cut_target=False)


def plan_of(
    layout: Layout,
    codecs: Mapping[str, Codec],
    *,
    epsilon: float,
    delta: float,
    max_rows_per_person: int = 1,
    critic_share: float = 0.0,
    critic_steps: int = 0,
    critic_sample_rate: float = 0.0,
    holdout: float | Literal["file"] = 0.0,
) -> TablePlan:
    """The releases of a run, fixed from schema and config before the first read."""
    return plan_table(
        epsilon=epsilon,
        delta=delta,
        histograms=len(layout.columns),
        detail_blocks=len(_details(layout, codecs)),
        detail_weight=DETAIL_WEIGHT,
        candidate_pairs=len(layout.pairs),
        classes_known=not layout.cut_target,
        pairs_by_class=1 < layout.classes <= MAX_CLASSES_IN_PAIRS,
        max_rows_per_person=max_rows_per_person,
        critic_share=critic_share,
        critic_steps=critic_steps,
        critic_sample_rate=critic_sample_rate,
        holdout=holdout,
    )


@dataclass(frozen=True)
class PairTable:
    """A noised two-way table on bins.

    `by_class` [classes, bins a, bins b] with its noise scale, `summed` [bins a, bins b] with its own; None where
    the plan does not release it.
    """

    by_class: FloatArray | None
    by_class_noise: float
    summed: FloatArray | None
    summed_noise: float

    def best(self) -> tuple[FloatArray, float]:
        """The best noised table over all classes [bins a, bins b], and its noise scale."""
        if self.by_class is None:
            assert self.summed is not None
            return self.summed, self.summed_noise
        added, variance = self.by_class.sum(axis=0), len(self.by_class) * self.by_class_noise**2
        if self.summed is None:
            return added, math.sqrt(variance)
        weight = variance / (variance + self.summed_noise**2)
        noise = math.sqrt(weight) * self.summed_noise
        return weight * self.summed + (1 - weight) * added, noise


@dataclass(frozen=True)
class Measurements:
    """All that a run has learned about the people, noised.

    Attributes:
        class_of_cell: class of each of the target's cells ([0] without a target).
        class_sizes: estimated people in each class, ≥ 0, [classes].
        class_size_noise: noise scale of a class size.
        fine: column → noised fine histogram over all classes [cells].
        fine_noise: noise scale of its cells.
        details: block key → noised histogram [size].
        detail_noise: noise scale of its cells; 0 without details.
        bin_of_cell: column → bin of each cell [cells].
        share: column → estimated share of each cell within its bin [cells].
        one_way: column → noised histogram of the bins within classes [classes, bins].
        one_way_noise: noise scale of its bins.
        profiles: column → estimated share of each bin within each class [classes, bins]; rows sum to 1.
        pairs: measured pairs.
    """

    class_of_cell: IntArray
    class_sizes: FloatArray
    class_size_noise: float
    fine: dict[str, FloatArray]
    fine_noise: float
    details: dict[str, FloatArray]
    detail_noise: float
    bin_of_cell: dict[str, IntArray]
    share: dict[str, FloatArray]
    one_way: dict[str, FloatArray]
    one_way_noise: float
    profiles: dict[str, FloatArray]
    pairs: dict[Pair, PairTable]

    @property
    def total(self) -> float:
        """Estimated number of people, at least 1."""
        return max(1.0, float(self.class_sizes.sum()))


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
        if self._plan.score_noise is not None:
            pairs = self._best_pairs(ones, self._plan.score_noise)
        return self._pair_tables(ones, pairs)

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
        details = _details(layout, self._codecs)
        keys = [b.key for b in (*cells, *details)] + ([self._class_key] if self._class_key else [])
        exact = count_histograms(
            self._read(list(dict.fromkeys(keys))),
            blocks=[*cells, *details],
            class_key=self._class_key,
            class_of_cell=class_of_cell,
        )
        self._charge(budget.FINE)
        fine = {b.column: self._noise.add_to(exact[b.key], plan.fine_noise) for b in cells}
        sizes = self._noise.add_to(exact["class"], plan.fine_noise)
        detail = {}
        if plan.detail_noise is not None:
            self._charge(budget.DETAIL)
            detail = {b.key: self._noise.add_to(exact[b.key], plan.detail_noise) for b in details}
        measured = Measurements(
            class_of_cell=class_of_cell,
            class_sizes=self._sized(sizes),
            class_size_noise=plan.fine_noise,
            fine=fine,
            fine_noise=plan.fine_noise,
            details=detail,
            detail_noise=plan.detail_noise or 0.0,
            bin_of_cell={},
            share={},
            one_way={},
            one_way_noise=plan.one_way_noise,
            profiles={},
            pairs={},
        )
        most = bins.most_bins(measured.total, self._pair_noise())
        placed = {name: self._bins(measured, name, most) for name in layout.columns}
        return replace(
            measured,
            bin_of_cell={name: lookup for name, (lookup, _) in placed.items()},
            share={name: share for name, (_, share) in placed.items()},
        )

    def _pair_noise(self) -> float:
        """Noise scale of a cell of a pair table, were all pairs measured equally (up to the most without scores)."""
        mu = self._plan.mu_pairs_summed or self._plan.mu_pairs_by_class
        if mu is None:
            return 0.0
        pairs = min(len(self._layout.pairs), budget.MAX_PAIRS_WITHOUT_SCORES)
        return self._plan.max_rows_per_person * math.sqrt(pairs) / mu

    def _one_way(self, fine: Measurements) -> Measurements:
        """Release 2: histograms of the bins within classes, and better class sizes."""
        exact = count_binned(
            self._read(self._keys(self._layout.columns)),
            bin_of_cell=fine.bin_of_cell,
            class_key=self._class_key,
            class_of_cell=fine.class_of_cell,
        )
        self._charge(budget.ONE_WAY)
        one_way = {name: self._noise.add_to(table, self._plan.one_way_noise) for name, table in exact.items()}
        # A class's size is known from its own count and from the total of each of its histograms.
        totals = np.stack([fine.class_sizes, *(table.sum(axis=1) for table in one_way.values())])
        variances = [fine.class_size_noise**2]
        variances += [table.shape[1] * self._plan.one_way_noise**2 for table in one_way.values()]
        precision = 1.0 / np.array(variances)
        measured = replace(
            fine,
            one_way=one_way,
            class_sizes=self._sized(np.average(totals, axis=0, weights=precision)),
            class_size_noise=float(precision.sum() ** -0.5),
        )
        both = {name: self._both_releases(measured, name) for name in self._layout.columns}
        columns = {
            name: ByClass(one_way[name], measured.one_way_noise, summed, self._bins_in_order(measured, name))
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
        noise, fine_noise = math.sqrt(len(measured.class_sizes)) * measured.one_way_noise, measured.fine_noise
        if not _is_smooth(codec):
            variance = np.bincount(lookup) * fine_noise**2
            counted = np.bincount(lookup, weights=measured.fine[name])
            return (counted * noise**2 + summed * variance) / (noise**2 + variance), measured.share[name]
        values, last = slice(0, codec.lattice.cells), self._bins_in_order(measured, name)
        missing = summed[last:]
        total = max(1.0, measured.total - max(0.0, float(missing.sum())))
        binned = BinCounts(lookup[values], summed[:last], noise)
        curve = denoise(measured.fine[name][values], fine_noise, codec.widths[values], total, binned=binned).mass
        smooth = np.append(np.bincount(lookup[values], weights=curve), missing)
        mass = np.append(curve, np.maximum(missing, 0.0))
        # A bin need not lie on the curve.
        return bins.shrunk(summed, smooth, noise, last), bins.shares_of(mass, codec.widths, lookup)

    def _bins_in_order(self, measured: Measurements, name: str) -> int:
        """How many of a column's bins, the first ones, stand in order."""
        codec = self._codecs[name]
        return int(measured.bin_of_cell[name].max()) + (codec.missing is None) if codec.ordered else 0

    def _sized(self, sizes: FloatArray) -> FloatArray:
        """Class sizes ≥ 0 that sum to their own noised sum, then scaled to the declared row count, if any."""
        total = max(1.0, float(sizes.sum()))
        scale = 1.0 if self._public_rows is None else self._public_rows / total
        return bins.project_to_simplex(sizes, total) * scale

    def _bins(self, measured: Measurements, name: str, most: int) -> tuple[IntArray, FloatArray]:
        """Bins of a column, and the share of each cell within its bin."""
        codec, noised, noise = self._codecs[name], measured.fine[name], measured.fine_noise
        if not isinstance(codec, OrderedCodec):
            mass = bins.project_to_simplex(noised, measured.total)
            lookup = bins.merge_levels(mass, noise, codec.missing is not None)
            return lookup, bins.spread_within_bins(noised, lookup, noise)
        values = slice(0, codec.lattice.cells)
        mass, stands_out = np.maximum(noised, 0.0), np.zeros(len(noised), dtype=bool)
        if _is_smooth(codec):
            total = max(1.0, measured.total - float(mass[values.stop :].sum()))
            denoised = denoise(noised[values], noise, codec.widths[values], total)
            mass[values], stands_out[values] = denoised.mass, denoised.stands_out
        lookup = bins.merge_ordered(mass, stands_out, noise, codec.missing is not None, most)
        return lookup, bins.shares_of(mass, codec.widths, lookup)

    def _keys(self, columns: Iterable[str]) -> list[str]:
        keys = [f"cells:{name}" for name in columns] + ([self._class_key] if self._class_key else [])
        return list(dict.fromkeys(keys))

    def _best_pairs(self, ones: Measurements, score_noise: float) -> tuple[Pair, ...]:
        """Release 3: noised scores of all candidate pairs, and the pairs worth measuring."""
        expected = {pair: _independent(ones, pair) for pair in self._layout.pairs}
        exact = self._count(ones, self._layout.pairs)
        # Adding or removing one row moves one cell by one, so the L1 distance to a fixed table by at most one.
        scores = np.array(
            [
                np.abs(SCORE_UNIT * exact[p].sum(axis=0) - np.round(SCORE_UNIT * expected[p]).astype(np.int64)).sum()
                for p in self._layout.pairs
            ],
            dtype=np.int64,
        )
        self._charge(budget.PAIR_SCORES)
        noised = self._noise.add_to(scores, SCORE_UNIT * score_noise) / SCORE_UNIT
        sampling = np.array([np.minimum(np.sqrt(2 * e / math.pi), 2 * e).sum() for e in expected.values()])
        mu = (self._plan.mu_pairs_summed or self._plan.mu_pairs_by_class or 1.0) / self._plan.max_rows_per_person
        cells = np.array([e.size for e in expected.values()], dtype=np.float64)
        chosen = choose_pairs(noised - sampling, cells, mu)
        return tuple(self._layout.pairs[i] for i in chosen)

    def _pair_tables(self, ones: Measurements, pairs: Sequence[Pair]) -> Measurements:
        """Release 4: pair tables, more precise where a table has more cells."""
        exact = self._count(ones, pairs)
        weight = {p: pair_weight(exact[p][0].size) for p in pairs}
        total = math.fsum(weight.values())
        tables = {p: PairTable(None, 0.0, None, 0.0) for p in pairs}
        for mu, name in (
            (self._plan.mu_pairs_by_class, budget.PAIRS_BY_CLASS),
            (self._plan.mu_pairs_summed, budget.PAIRS_SUMMED),
        ):
            if mu is None:
                continue
            self._charge(name)
            for p in pairs:
                scale = self._plan.max_rows_per_person * math.sqrt(total / weight[p]) / mu
                if name == budget.PAIRS_BY_CLASS:
                    noised = self._noise.add_to(exact[p], scale)
                    tables[p] = replace(tables[p], by_class=noised, by_class_noise=scale)
                else:
                    noised = self._noise.add_to(exact[p].sum(axis=0), scale)
                    tables[p] = replace(tables[p], summed=noised, summed_noise=scale)
        return replace(ones, pairs=tables)

    def _count(self, ones: Measurements, pairs: Sequence[Pair]) -> dict[Pair, IntArray]:
        used = sorted({name for pair in pairs for name in pair})
        return count_pairs(
            self._read(self._keys(used)),
            pairs=pairs,
            bin_of_cell={name: ones.bin_of_cell[name] for name in used},
            class_key=self._class_key,
            class_of_cell=ones.class_of_cell,
        )


def pair_weight(cells: int | FloatArray) -> FloatArray:
    """Relative precision of a pair table: cells^(2/3) minimises the summed L1 error at a fixed budget."""
    return np.asarray(cells, dtype=np.float64) ** (2.0 / 3.0)


FIT_KEEPS = 0.4
"""Part of a table's noise that survives the fit: the generator averages it over all tables."""


def choose_pairs(scores: FloatArray, cells: FloatArray, mu: float) -> list[int]:
    """Indices of the pairs to measure: the best prefix by score.

    The expected L1 error (rows) of a measured pair is what is left of its noise, of an unmeasured one its score.
    """
    order = np.argsort(-scores)
    weight = pair_weight(cells)[order]
    gain = np.maximum(scores[order], 0.0)
    best, best_error = 1, math.inf
    for m in range(1, len(order) + 1):
        scale = np.sqrt(weight[:m].sum() / weight[:m]) / mu
        noise = FIT_KEEPS * cells[order][:m] * scale * math.sqrt(2 / math.pi)
        error = float(np.minimum(noise, gain[:m]).sum() + gain[m:].sum())
        if error < best_error:
            best, best_error = m, error
    return sorted(int(i) for i in order[:best])


def _independent(measured: Measurements, pair: Pair) -> FloatArray:
    """Expected two-way table [bins a, bins b] if the two columns were independent within every class."""
    a, b = (measured.profiles[name] for name in pair)
    return np.asarray(np.einsum("c,ca,cb->ab", measured.class_sizes, a, b))


def _is_smooth(codec: Codec) -> TypeGuard[OrderedCodec]:
    return isinstance(codec, OrderedCodec) and codec.lattice.cells >= SMOOTH_FROM


def _details(layout: Layout, codecs: Mapping[str, Codec]) -> list[Block]:
    return [block for name in layout.columns for block in codecs[name].blocks[1:]]


def save_measurements(measured: Measurements, folder: Path) -> None:
    """Write measurements to `folder` (safetensors and JSON), the JSON last: its presence says they are whole."""
    arrays = {"class_of_cell": measured.class_of_cell, "class_sizes": measured.class_sizes}
    for group in ("fine", "details", "bin_of_cell", "share", "one_way", "profiles"):
        arrays |= {f"{group}:{name}": value for name, value in getattr(measured, group).items()}
    for i, table in enumerate(measured.pairs.values()):
        if table.by_class is not None:
            arrays[f"by_class:{i}"] = table.by_class
        if table.summed is not None:
            arrays[f"summed:{i}"] = table.summed
    whole = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    write_whole(folder / "measurements.safetensors", whole)
    described = {
        "columns": list(measured.bin_of_cell),
        "class_size_noise": measured.class_size_noise,
        "fine_noise": measured.fine_noise,
        "detail_noise": measured.detail_noise,
        "one_way_noise": measured.one_way_noise,
        "pairs": [
            {"columns": list(p), "by_class_noise": t.by_class_noise, "summed_noise": t.summed_noise}
            for p, t in measured.pairs.items()
        ],
    }
    write_whole(folder / "measurements.json", json.dumps(described))


def load_measurements(folder: Path) -> Measurements:
    """Read what `save_measurements` wrote."""
    described = json.loads((folder / "measurements.json").read_text())
    arrays = load_file(folder / "measurements.safetensors")

    def group(name: str) -> dict[str, npt.NDArray[Any]]:
        prefix = f"{name}:"
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    def column_group(name: str) -> dict[str, npt.NDArray[Any]]:
        values = group(name)
        return {column: values[column] for column in described["columns"]}

    by_class, summed = group("by_class"), group("summed")
    return Measurements(
        class_of_cell=arrays["class_of_cell"],
        class_sizes=arrays["class_sizes"],
        class_size_noise=described["class_size_noise"],
        fine=column_group("fine"),
        fine_noise=described["fine_noise"],
        details=group("details"),
        detail_noise=described["detail_noise"],
        bin_of_cell=column_group("bin_of_cell"),
        share=column_group("share"),
        one_way=column_group("one_way"),
        one_way_noise=described["one_way_noise"],
        profiles=column_group("profiles"),
        pairs={
            (p["columns"][0], p["columns"][1]): PairTable(
                by_class=by_class.get(str(i)),
                by_class_noise=p["by_class_noise"],
                summed=summed.get(str(i)),
                summed_noise=p["summed_noise"],
            )
            for i, p in enumerate(described["pairs"])
        },
    )
