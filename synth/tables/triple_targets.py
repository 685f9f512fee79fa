"""The noised tables of three columns as tensors: what the generator is fitted to beside one-ways and pairs.

Triples that have two columns in common are held together: what the generators have of the two is worked out once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.tables.measurements import Measurements, Pair, Triple
from synth.tables.thinning import thinned


@dataclass(frozen=True)
class PairWithThirds:
    """The tables of two columns with every third one that they were measured with; B groups of the third ones."""

    first: int  # the first column, of those with a triple
    second: int
    thirds: tuple[int, ...]
    value: Tensor  # [a, b, B]
    precision: Tensor  # [B], one over noise variance

    def to(self, device: torch.device) -> PairWithThirds:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class TripleTargets:
    """Measured counts of three columns at once, on groups of their bins, and their precisions.

    Shapes: C classes, K latent points, D encoded width, U bins of all columns with a triple, which have G groups.
    """

    bins: Tensor  # [U], places among the D
    group: Tensor  # [U], group of each, among the G
    sizes: tuple[int, ...]  # groups of each column with a triple, G in all
    blocks: tuple[PairWithThirds, ...]

    @property
    def cells(self) -> int:
        """Measured cells."""
        return sum(block.value.numel() for block in self.blocks)

    def to(self, device: torch.device) -> TripleTargets:
        """The same on another device."""
        blocks = tuple(block.to(device) for block in self.blocks)
        return replace(self, bins=self.bins.to(device), group=self.group.to(device), blocks=blocks)

    def thinned(self, t: float, generator: torch.Generator) -> tuple[TripleTargets, TripleTargets]:
        """Two with independent noise, as `Targets.thinned` has."""
        fit, check = [], []
        for block in self.blocks:
            values = thinned(block.value, block.precision, t, generator)
            fit.append(replace(block, value=values[0], precision=block.precision / (1 + t * t)))
            check.append(replace(block, value=values[1], precision=block.precision / (1 + 1 / (t * t))))
        return replace(self, blocks=tuple(fit)), replace(self, blocks=tuple(check))

    def loss(self, shares: Tensor, class_sizes: Tensor) -> Tensor:
        """Sum of precision-weighted squared residuals, of column distributions of the bank in every class [C, K, D]."""
        total = shares.new_zeros(())
        for block, found in zip(self.blocks, self._expected(shares, class_sizes), strict=True):
            total = total + (block.precision * (found - block.value) ** 2).sum()
        return total

    def held(self, shares: Tensor, class_sizes: Tensor) -> TripleTargets:
        """The same with the values that the generators have, at the precision of the measurements."""
        found = zip(self.blocks, self._expected(shares, class_sizes), strict=True)
        return replace(self, blocks=tuple(replace(block, value=value) for block, value in found))

    def _expected(self, shares: Tensor, class_sizes: Tensor) -> list[Tensor]:
        """Expected counts of each block [a, b, B]."""
        if not self.blocks:
            return []
        people = (class_sizes / shares.shape[1])[:, None].expand(shares.shape[:2]).flatten()
        of_bins = shares.flatten(0, 1).T.index_select(0, self.bins)
        grouped = shares.new_zeros(sum(self.sizes), len(people)).index_add(0, self.group, of_bins)
        # Split once: the gradient of a slice is as large as the whole.
        columns = grouped.split_with_sizes(self.sizes)
        found = []
        for block in self.blocks:
            pair = ((columns[block.first] * people)[:, None] * columns[block.second]).flatten(0, 1)
            thirds = torch.cat([columns[j] for j in block.thirds])
            found.append((pair @ thirds.T).view_as(block.value))
        return found


def triple_targets_of(measured: Measurements, names: tuple[str, ...], sizes: tuple[int, ...]) -> TripleTargets:
    """Measured triples arranged for the fit, of columns with these names and bins, in this order."""
    start = dict(zip(names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    number = {name: j for j, name in enumerate(measured.group_of_bin)}
    groups = [int(lookup.max()) + 1 for lookup in measured.group_of_bin.values()]
    bins, group = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for j, (name, lookup) in enumerate(measured.group_of_bin.items()):
        bins.append(start[name] + np.arange(len(lookup)))
        group.append(sum(groups[:j]) + lookup)
    blocks = []
    for (a, b), thirds in shared_pairs(measured.triples).items():
        values, precisions = [], []
        for triple in thirds:
            table = measured.triples[triple]
            third = next(i for i, name in enumerate(triple) if name not in {a, b})
            values.append(np.moveaxis(table.noised, third, 2))
            precisions.append(np.full(values[-1].shape[2], 1.0 / table.noise**2))
        blocks.append(
            PairWithThirds(
                first=number[a],
                second=number[b],
                thirds=tuple(number[name] for triple in thirds for name in triple if name not in {a, b}),
                value=torch.tensor(np.concatenate(values, axis=2), dtype=torch.float32),
                precision=torch.tensor(np.concatenate(precisions), dtype=torch.float32),
            )
        )
    return TripleTargets(
        bins=torch.from_numpy(np.concatenate(bins)),
        group=torch.from_numpy(np.concatenate(group)),
        sizes=tuple(groups),
        blocks=tuple(blocks),
    )


def shared_pairs(triples: Iterable[Triple]) -> dict[Pair, tuple[Triple, ...]]:
    """Each triple with one of its pairs, so that few pairs do: always the one that most triples have that are left."""
    left, shared = list(triples), {}
    while left:
        pair = Counter(pair for triple in left for pair in itertools.combinations(triple, 2)).most_common(1)[0][0]
        shared[pair] = tuple(triple for triple in left if set(pair) <= set(triple))
        left = [triple for triple in left if triple not in shared[pair]]
    return shared
