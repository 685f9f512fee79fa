"""Squared norms of per-person gradients without forming the gradients (Goodfellow 2015; Li et al. 2021).

A weight that is applied at P positions of a sample has the gradient Σ_p g_p a_pᵀ, where a_p is what went
in and g_p the loss's derivative by what came out. Its squared norm is Σ_pq (a_p·a_q)(g_p·g_q): two P×P
Gram matrices, cheaper than the gradient itself when positions are few and channels many.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 8.0
"""Rounding allowed for in a sum of Gram products, in units of the machine's epsilon."""


def outer_squared_norms(a: Tensor, g: Tensor, *, bias: bool) -> Tensor:
    """|Σ_p g_p a_pᵀ|², plus |Σ_p g_p|² with `bias`, for each sample: a [N, P, K], g [N, P, M] → [N]."""
    positions, a_size, g_size = a.shape[1], a.shape[2], g.shape[2]
    if positions == 1:
        return squared_norm(g, (1, 2)) * (squared_norm(a, (1, 2)) + bias)
    if positions * (a_size + g_size) > a_size * g_size:
        squared = squared_norm(g.mT @ a, (1, 2))
        return squared + squared_norm(g.sum(1), (1,)) if bias else squared
    gram_a = a @ a.mT
    gram_g = g @ g.mT
    if bias:
        gram_a += 1.0
    return _never_below(gram_a, gram_g)


def lookup_squared_norms(index: Tensor, g: Tensor, *, padding_index: int | None) -> Tensor:
    """|gradient of an embedding table|² for each sample: index [N, P] of whole numbers, g [N, P, M] → [N].

    The table's input is a one-hot row, so that a_p·a_q is 1 where two positions look up the same row.
    """
    if padding_index is not None:
        g = g.masked_fill((index == padding_index).unsqueeze(-1), 0)
    if index.shape[1] == 1:
        return squared_norm(g, (1, 2))
    same = index.unsqueeze(2) == index.unsqueeze(1)
    return _never_below(same.to(g.dtype), g @ g.mT)


def _never_below(gram_a: Tensor, gram_g: Tensor) -> Tensor:
    """Σ_pq of the product of two Gram matrices, raised by its own rounding error.

    The terms of a person can cancel almost wholly. The sum then holds more rounding than value, and a
    norm that came out too small would leave that person unclipped. Σ_p |a_p||g_p| bounds every term.
    """
    reach = (gram_a.diagonal(dim1=1, dim2=2) * gram_g.diagonal(dim1=1, dim2=2)).clamp(min=0).sqrt().sum(1)
    products: Tensor = torch.linalg.vecdot(gram_a.flatten(1), gram_g.flatten(1))
    rounding = _SLACK * torch.finfo(products.dtype).eps
    return products.clamp(min=0).add(reach.square(), alpha=rounding)


def squared_norm(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The squared L2 norm over some dimensions."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=dims)
    return norm.square()
