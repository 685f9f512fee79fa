"""The noised measurements of a wide table as tensors: column by column, where all bins by all bins would be too large.

The same loss as that of `synth.tables.targets.Targets`, without its matrices. The pull of all pairs that were not
measured towards independence needs none of their tables: of a matrix XᵀSX with few rows X, the squared norm is that of
products of rows (`squared_norm`), and what one column and the measured pairs have of it is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.tables.class_pull import ClassPull, class_pull_of
from synth.tables.measurements import FloatArray, Measurements
from synth.tables.targets import PSEUDO_WEIGHT, Encoding
from synth.tables.thinning import thinned
from synth.tables.triple_targets import TripleTargets, triple_targets_of


@dataclass(frozen=True)
class Block:
    """One column's tables with all the columns that it was measured with.

    Shapes: C classes, a bins of the column, B bins of the others. Precisions (one over noise variance) are the same for
    all bins of the column.
    """

    column: int
    others: tuple[int, ...]
    by_class: Tensor | None  # [C, a, B]
    by_class_precision: Tensor  # [B]
    summed: Tensor | None  # [a, B]
    summed_precision: Tensor  # [B]

    def to(self, device: torch.device) -> Block:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def loss(self, gram: Tensor) -> Tensor:
        """Precision-weighted squared residuals of a table of expected counts [C, a, B]."""
        total = gram.new_zeros(())
        if self.by_class is not None:
            total = total + (self.by_class_precision * (gram - self.by_class) ** 2).sum()
        if self.summed is not None:
            total = total + (self.summed_precision * (gram.sum(dim=0) - self.summed) ** 2).sum()
        return total

    def thinned(self, t: float, generator: torch.Generator) -> tuple[Block, Block]:
        """Two with independent noise."""
        fit: dict[str, Any] = {}
        check: dict[str, Any] = {}
        for name in ("by_class", "summed"):
            value, precision = getattr(self, name), getattr(self, f"{name}_precision")
            if value is not None:
                fit[name], check[name] = thinned(value, precision, t, generator)
                fit[f"{name}_precision"] = precision / (1 + t * t)
                check[f"{name}_precision"] = precision / (1 + 1 / (t * t))
        return replace(self, **fit), replace(self, **check)


@dataclass(frozen=True)
class BlockTargets:
    """Measured counts and their precisions; shapes as in `Targets`."""

    sizes: tuple[int, ...]  # bins of each column
    class_sizes: Tensor  # [C]
    one_way: Tensor  # [C, D]
    one_way_precision: Tensor  # [C, D]
    blocks: tuple[Block, ...]
    profiles: Tensor  # [C, D], shares of the bins within a class
    pseudo_precision: float
    class_pull: ClassPull
    triples: TripleTargets
    cells: int  # measured cells

    def to(self, device: torch.device) -> BlockTargets:
        """The same on another device."""
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor | ClassPull | TripleTargets)
        }
        return replace(self, blocks=tuple(block.to(device) for block in self.blocks), **moved)

    def thinned(self, t: float, generator: torch.Generator) -> tuple[BlockTargets, BlockTargets]:
        """Two sets of targets with independent noise, as `Targets.thinned` has."""
        one_way = thinned(self.one_way, self.one_way_precision, t, generator)
        blocks = zip(*(block.thinned(t, generator) for block in self.blocks), strict=True)
        factors = (1 + t * t, 1 + 1 / (t * t))
        triples = self.triples.thinned(t, generator)
        fit, check = (
            replace(self, one_way=value, one_way_precision=self.one_way_precision / factor, blocks=part, triples=three)
            for value, factor, part, three in zip(one_way, factors, blocks, triples, strict=True)
        )
        return fit, check

    def loss(self, shares: Tensor, *, with_pseudo: bool = False) -> Tensor:
        """Sum of precision-weighted squared residuals; arguments as for `Targets.loss`."""
        mean = shares.mean(dim=1) * self.class_sizes[:, None]
        total = (self.one_way_precision * (mean - self.one_way) ** 2).sum()
        total = total + self.triples.loss(shares, self.class_sizes)
        if with_pseudo:
            total = total + self.class_pull.loss(mean)
        columns = shares.split_with_sizes(self.sizes, dim=2)  # once: the gradient of a slice is as large as the whole
        weighted = self.profiles * self.class_sizes[:, None]
        own, other = weighted.split_with_sizes(self.sizes, dim=1), self.profiles.split_with_sizes(self.sizes, dim=1)
        pull = self._dependence(shares) if with_pseudo and self.pseudo_precision > 0 else None
        for block in self.blocks:
            if block.others:
                gram = self._gram(columns, block.column, block.others)
                total = total + block.loss(gram)
                if pull is not None:
                    independent = own[block.column].T @ torch.cat([other[j] for j in block.others], dim=1)
                    pull = pull - (gram.sum(dim=0) - independent).square().sum()
        return total if pull is None else total + self.pseudo_precision * pull

    def held(self, shares: Tensor) -> BlockTargets:
        """The same with the values that the generators have [C, K, D], at the precision of the measurements."""

        columns = shares.split_with_sizes(self.sizes, dim=2)

        def at(block: Block) -> Block:
            if not block.others:
                return block
            gram = self._gram(columns, block.column, block.others)
            return replace(
                block,
                by_class=None if block.by_class is None else gram,
                summed=None if block.summed is None else gram.sum(dim=0),
            )

        one_way = shares.mean(dim=1) * self.class_sizes[:, None]
        triples = self.triples.held(shares, self.class_sizes)
        return replace(self, one_way=one_way, blocks=tuple(at(block) for block in self.blocks), triples=triples)

    def _gram(self, columns: Sequence[Tensor], one: int, others: Sequence[int]) -> Tensor:
        """Expected counts within classes [C, a, B]; from the distributions of each column [C, K, its bins]."""
        points = columns[one].shape[1]
        gram = columns[one].transpose(1, 2) @ torch.cat([columns[j] for j in others], dim=2)
        return gram * (self.class_sizes / points)[:, None, None]

    def _dependence(self, shares: Tensor) -> Tensor:
        """How far all pairs, measured or not, are from independence within classes: squared people, each pair once."""
        mean = shares.mean(dim=1, keepdim=True)
        each = (self.class_sizes / shares.shape[1]).sqrt()[:, None, None]
        whole = self.class_sizes.sqrt()[:, None]
        # What the mixture has of a pair, less what independent columns would have, is small beside either: the points
        # are taken less their mean, so that little is lost to rounding.
        rows = torch.cat([((shares - mean) * each).flatten(0, 1), mean[:, 0] * whole, self.profiles * whole])
        signs = torch.ones(len(rows), device=rows.device)
        signs[-len(self.class_sizes) :] = -1
        signed = (rows * signs[:, None]).split_with_sizes(self.sizes, dim=1)
        columns = rows.split_with_sizes(self.sizes, dim=1)
        with_itself = [(left.T @ right).square().sum() for left, right in zip(columns, signed, strict=True)]
        return (squared_norm(rows, signs) - torch.stack(with_itself).sum()) / 2


def squared_norm(rows: Tensor, signs: Tensor) -> Tensor:
    """Sum of the squared cells of XᵀSX [D, D], for X = `rows` [R, D] and S = diag(`signs`) [R], by XXᵀ [R, R] alone."""
    return signs @ (rows @ rows.T).square() @ signs


def block_targets_of(measured: Measurements, encoding: Encoding) -> BlockTargets:
    """Measurements arranged for the fit of a wide table."""
    classes = len(measured.class_sizes)
    noises = [table.best()[1] for table in measured.pairs.values()]
    pulled = len(measured.pairs) < math.comb(len(encoding.names), 2)
    precision = [1.0 / measured.one_way_noise[name] ** 2 for name in encoding.names]
    blocks = tuple(_block(measured, encoding, name) for name in encoding.names)
    triples = triple_targets_of(measured, encoding.names, encoding.sizes)
    tables = [value for block in blocks for value in (block.by_class, block.summed) if value is not None]
    return BlockTargets(
        sizes=encoding.sizes,
        class_sizes=_tensor(measured.class_sizes),
        one_way=_tensor(np.concatenate([measured.one_way[name] for name in encoding.names], axis=1)),
        one_way_precision=_tensor(np.tile(np.repeat(precision, encoding.sizes), (classes, 1))),
        blocks=blocks,
        profiles=_tensor(np.concatenate([measured.profiles[name] for name in encoding.names], axis=1)),
        pseudo_precision=PSEUDO_WEIGHT * float(np.median([1.0 / n**2 for n in noises])) if noises and pulled else 0.0,
        class_pull=class_pull_of(measured, encoding.names),
        triples=triples,
        cells=classes * encoding.width + sum(value.numel() for value in tables) + triples.cells,
    )


def _block(measured: Measurements, encoding: Encoding, name: str) -> Block:
    """The tables of which this column is the first."""
    partners = {b: table for (a, b), table in measured.pairs.items() if a == name}
    number = {column: j for j, column in enumerate(encoding.names)}
    sizes = [encoding.sizes[number[other]] for other in partners]
    by_class = [table.by_class for table in partners.values() if table.by_class is not None]
    summed = [table.summed for table in partners.values() if table.summed is not None]
    noise = {
        kind: np.repeat([getattr(table, f"{kind}_noise") for table in partners.values()], sizes)
        for kind in ("by_class", "summed")
    }
    return Block(
        column=number[name],
        others=tuple(number[other] for other in partners),
        by_class=_tensor(np.concatenate(by_class, axis=2)) if by_class else None,
        by_class_precision=_tensor(1.0 / noise["by_class"] ** 2) if by_class else torch.zeros(sum(sizes)),
        summed=_tensor(np.concatenate(summed, axis=1)) if summed else None,
        summed_precision=_tensor(1.0 / noise["summed"] ** 2) if summed else torch.zeros(sum(sizes)),
    )


def _tensor(value: FloatArray) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)
