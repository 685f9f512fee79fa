"""The noised measurements as tensors: what the generator is fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from synth.tables.class_pull import ClassPull, class_pull_of
from synth.tables.measurements import Measurements
from synth.tables.thinning import thinned
from synth.tables.triple_targets import TripleTargets, triple_targets_of

FloatArray = npt.NDArray[np.float64]


PSEUDO_WEIGHT = 0.5
"""Precision of an unmeasured pair's free target relative to the median measured pair."""


@dataclass(frozen=True)
class Encoding:
    """Where each column's bins lie in a row of encoded width D.

    `names` and `sizes` in order; column j holds positions offsets[j] … offsets[j] + sizes[j] − 1.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First position of each column."""
        return tuple(int(x) for x in np.concatenate([[0], np.cumsum(self.sizes)[:-1]]))

    @property
    def width(self) -> int:
        """D, the number of bins of all columns."""
        return sum(self.sizes)

    def place(self, name: str) -> slice:
        """The positions of a column."""
        j = self.names.index(name)
        return slice(self.offsets[j], self.offsets[j] + self.sizes[j])


@dataclass(frozen=True)
class Targets:
    """Measured counts and their precisions (one over noise variance; 0 where nothing was measured).

    Shapes: C classes, D encoded width. Pair matrices hold a pair once, above the diagonal.
    """

    class_sizes: Tensor  # [C]
    one_way: Tensor  # [C, D]
    one_way_precision: Tensor  # [C, D]
    pairs: Tensor | None  # [C, D, D]
    pairs_precision: Tensor | None  # [C, D, D]
    pairs_summed: Tensor  # [D, D]
    pairs_summed_precision: Tensor  # [D, D]
    pseudo: Tensor  # [D, D]; what unmeasured pairs would be if independent within classes
    pseudo_precision: Tensor  # [D, D]; they carry no noise of their own, so they are neither thinned nor scored
    class_pull: ClassPull  # free as well
    triples: TripleTargets
    cells: int  # measured cells

    def to(self, device: torch.device) -> Targets:
        """The same on another device."""
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor | ClassPull | TripleTargets)
        }
        return replace(self, **moved)

    def thinned(self, t: float, generator: torch.Generator) -> tuple[Targets, Targets]:
        """Two sets of targets with independent noise (Gaussian thinning).

        With y the measurement, s its noise scale and e a fresh standard normal, y + t·s·e and y − s·e/t have
        independent noises. The first is for fitting, the second for deciding when to stop; both are free.
        """
        fit: dict[str, Any] = {}
        check: dict[str, Any] = {}
        for name in ("one_way", "pairs", "pairs_summed"):
            value, precision = getattr(self, name), getattr(self, f"{name}_precision")
            if value is None:
                continue
            fit[name], check[name] = thinned(value, precision, t, generator)
            fit[f"{name}_precision"] = precision / (1 + t * t)
            check[f"{name}_precision"] = precision / (1 + 1 / (t * t))
        fit["triples"], check["triples"] = self.triples.thinned(t, generator)
        return replace(self, **fit), replace(self, **check)

    def loss(self, shares: Tensor, *, with_pseudo: bool = False) -> Tensor:
        """Sum of precision-weighted squared residuals of one-ways, pair tables and tables of three columns.

        Args:
            shares: column distributions of the bank within every class [C, K, D].
            with_pseudo: also pull unmeasured pairs towards independence within classes, and classes to their profiles.
        """
        mean = shares.mean(dim=1) * self.class_sizes[:, None]
        loss = (self.one_way_precision * (mean - self.one_way) ** 2).sum()
        weighted = shares * (self.class_sizes / shares.shape[1])[:, None, None]
        if self.pairs is not None and self.pairs_precision is not None:
            gram = weighted.transpose(1, 2) @ shares
            loss = loss + (self.pairs_precision * (gram - self.pairs) ** 2).sum()
            whole = gram.sum(dim=0)
        else:
            whole = weighted.flatten(0, 1).T @ shares.flatten(0, 1)
        loss = loss + (self.pairs_summed_precision * (whole - self.pairs_summed) ** 2).sum()
        loss = loss + self.triples.loss(shares, self.class_sizes)
        if with_pseudo:
            loss = loss + (self.pseudo_precision * (whole - self.pseudo) ** 2).sum() + self.class_pull.loss(mean)
        return loss

    def held(self, shares: Tensor) -> Targets:
        """The same with the values that the generators have [C, K, D], at the precision of the measurements."""
        weighted = shares * (self.class_sizes / shares.shape[1])[:, None, None]
        gram = weighted.transpose(1, 2) @ shares
        return replace(
            self,
            one_way=shares.mean(dim=1) * self.class_sizes[:, None],
            pairs=None if self.pairs is None else gram,
            pairs_summed=gram.sum(dim=0),
            triples=self.triples.held(shares, self.class_sizes),
        )


def encoding_of(measured: Measurements) -> Encoding:
    """Columns and bins of the pair stage."""
    names = tuple(measured.bin_of_cell)
    return Encoding(names=names, sizes=tuple(int(measured.bin_of_cell[n].max()) + 1 for n in names))


def targets_of(measured: Measurements, encoding: Encoding) -> Targets:
    """Measurements arranged for the fit; unmeasured pairs get the product of their one-ways, for free."""
    classes, width = len(measured.class_sizes), encoding.width
    one = np.zeros((classes, width))
    one_p = np.zeros((classes, width))
    for name in encoding.names:
        one[:, encoding.place(name)] = measured.one_way[name]
        one_p[:, encoding.place(name)] = 1.0 / measured.one_way_noise[name] ** 2
    by_class = any(table.by_class is not None for table in measured.pairs.values())
    two = np.zeros((classes, width, width)) if by_class else None
    two_p = np.zeros((classes, width, width)) if by_class else None
    total, total_p = np.zeros((width, width)), np.zeros((width, width))
    for (a, b), table in measured.pairs.items():
        rows, columns = encoding.place(a), encoding.place(b)
        if table.by_class is not None and two is not None and two_p is not None:
            two[:, rows, columns] = table.by_class
            two_p[:, rows, columns] = 1.0 / table.by_class_noise**2
        if table.summed is not None:
            total[rows, columns] = table.summed
            total_p[rows, columns] = 1.0 / table.summed_noise**2
    measured_cells = sum(int((p > 0).sum()) for p in (one_p, two_p, total_p) if p is not None)
    pseudo, pseudo_p = _pseudo_targets(measured, encoding)
    triples = triple_targets_of(measured, encoding.names, encoding.sizes)

    def tensor(value: FloatArray) -> Tensor:
        return torch.tensor(value, dtype=torch.float32)

    return Targets(
        class_sizes=tensor(measured.class_sizes),
        one_way=tensor(one),
        one_way_precision=tensor(one_p),
        pairs=tensor(two) if two is not None else None,
        pairs_precision=tensor(two_p) if two_p is not None else None,
        pairs_summed=tensor(total),
        pairs_summed_precision=tensor(total_p),
        pseudo=tensor(pseudo),
        pseudo_precision=tensor(pseudo_p),
        class_pull=class_pull_of(measured, encoding.names),
        triples=triples,
        cells=measured_cells + triples.cells,
    )


def _pseudo_targets(measured: Measurements, encoding: Encoding) -> tuple[FloatArray, FloatArray]:
    """Free targets for the pairs that were not measured, and how much they weigh."""
    value, precision = np.zeros((encoding.width, encoding.width)), np.zeros((encoding.width, encoding.width))
    noises = [table.best()[1] for table in measured.pairs.values()]
    candidates = [
        (a, b) for i, a in enumerate(encoding.names) for b in encoding.names[i + 1 :] if (a, b) not in measured.pairs
    ]
    if not candidates or not noises:
        return value, precision
    weight = PSEUDO_WEIGHT * float(np.median([1.0 / n**2 for n in noises]))
    for a, b in candidates:
        at = (encoding.place(a), encoding.place(b))
        value[at] = np.einsum("c,ca,cb->ab", measured.class_sizes, measured.profiles[a], measured.profiles[b])
        precision[at] = weight
    return value, precision
