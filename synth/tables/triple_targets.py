"""The noised tables of three columns as tensors: what the generator is fitted to beside one-ways and pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.tables.measurements import Measurements
from synth.tables.thinning import thinned


@dataclass(frozen=True)
class TripleTargets:
    """Measured counts of three columns at once, on groups of their bins, and their precisions.

    Shapes: C classes, K latent points, D encoded width, U bins of all columns with a triple, G groups of them.
    """

    bins: Tensor  # [U], places among the D
    group: Tensor  # [U], group of each, among the G
    groups: int  # G
    places: tuple[tuple[slice, slice, slice], ...]  # of each triple, its columns' groups among the G
    values: tuple[Tensor, ...]  # of each triple [groups a, groups b, groups c]
    precisions: tuple[float, ...]  # one over noise variance, of each triple

    @property
    def cells(self) -> int:
        """Measured cells."""
        return sum(value.numel() for value in self.values)

    def to(self, device: torch.device) -> TripleTargets:
        """The same on another device."""
        values = tuple(value.to(device) for value in self.values)
        return replace(self, bins=self.bins.to(device), group=self.group.to(device), values=values)

    def thinned(self, t: float, generator: torch.Generator) -> tuple[TripleTargets, TripleTargets]:
        """Two with independent noise, as `Targets.thinned` has."""
        both = [
            thinned(value, torch.full_like(value, precision), t, generator)
            for value, precision in zip(self.values, self.precisions, strict=True)
        ]
        fit, check = (
            replace(
                self,
                values=tuple(pair[i] for pair in both),
                precisions=tuple(precision / factor for precision in self.precisions),
            )
            for i, factor in enumerate((1 + t * t, 1 + 1 / (t * t)))
        )
        return fit, check

    def loss(self, shares: Tensor, class_sizes: Tensor) -> Tensor:
        """Sum of precision-weighted squared residuals, of column distributions of the bank in every class [C, K, D]."""
        total = shares.new_zeros(())
        for found, value, precision in zip(
            self._expected(shares, class_sizes), self.values, self.precisions, strict=True
        ):
            total = total + precision * (found - value).square().sum()
        return total

    def held(self, shares: Tensor, class_sizes: Tensor) -> TripleTargets:
        """The same with the values that the generators have, at the precision of the measurements."""
        return replace(self, values=tuple(self._expected(shares, class_sizes)))

    def _expected(self, shares: Tensor, class_sizes: Tensor) -> list[Tensor]:
        """Expected counts of each triple."""
        if not self.values:
            return []
        people = (class_sizes / shares.shape[1])[:, None].expand(shares.shape[:2]).flatten()
        of_bins = shares.flatten(0, 1).T.index_select(0, self.bins)
        grouped = shares.new_zeros(self.groups, len(people)).index_add(0, self.group, of_bins)
        weighted = grouped * people
        found = []
        for first, second, third in self.places:
            pair = (weighted[first, None] * grouped[None, second]).flatten(0, 1)
            table = pair @ grouped[third].T
            found.append(table.view(first.stop - first.start, second.stop - second.start, -1))
        return found


def triple_targets_of(measured: Measurements, names: tuple[str, ...], sizes: tuple[int, ...]) -> TripleTargets:
    """Measured triples arranged for the fit, of columns with these names and bins, in this order."""
    start = dict(zip(names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    place: dict[str, slice] = {}
    bins: list[Any] = []
    group: list[Any] = []
    reached = 0
    for name, lookup in measured.group_of_bin.items():
        bins.append(start[name] + np.arange(len(lookup)))
        group.append(reached + lookup)
        place[name] = slice(reached, reached + int(lookup.max()) + 1)
        reached = place[name].stop
    return TripleTargets(
        bins=torch.tensor(np.concatenate([*bins, np.empty(0, dtype=np.int64)]), dtype=torch.int64),
        group=torch.tensor(np.concatenate([*group, np.empty(0, dtype=np.int64)]), dtype=torch.int64),
        groups=reached,
        places=tuple((place[a], place[b], place[c]) for a, b, c in measured.triples),
        values=tuple(torch.tensor(table.noised, dtype=torch.float32) for table in measured.triples.values()),
        precisions=tuple(1.0 / table.noise**2 for table in measured.triples.values()),
    )
