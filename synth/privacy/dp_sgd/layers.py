"""The supported layers: per-person squared norms, and the weighted sum of per-row gradients.

Every rule answers the same three questions about a layer and its calls. Several calls of one layer in a
forward pass count as one: positions are joined, so that the norm is that of the summed gradient. The
weighted sum is Σ_i c_i ∇ℓ_i, assembled as one product; row weights c are the clipping factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.privacy.dp_sgd.convolution import ConvRule, ConvTransposeRule
from synth.privacy.dp_sgd.norms import lookup_squared_norms, outer_squared_norms, squared_norm
from synth.privacy.dp_sgd.owners import Owners
from synth.privacy.dp_sgd.recording import Call


class LayerRule(Protocol):
    """How DP-SGD treats one type of layer."""

    def refusal(self, layer: Any) -> str | None:
        """Why this layer's options cannot be supported, or None."""

    def squared_norms(self, layer: Any, calls: Sequence[Call], owners: Owners) -> Tensor:
        """Each person's squared gradient norm over this layer's parameters: [people]."""

    def weighted_sum(self, layer: Any, calls: Sequence[Call], weights: Tensor) -> list[Tensor]:
        """Σ_i weights_i · (gradient of row i), one tensor for each parameter in the layer's own order: [B] → shapes."""


class LinearRule:
    """nn.Linear on [B, …, features]: the dimensions between are positions (Li et al. 2021, §4)."""

    def refusal(self, layer: nn.Linear) -> str | None:
        """Every option is supported."""
        return None

    def squared_norms(self, layer: nn.Linear, calls: Sequence[Call], owners: Owners) -> Tensor:
        """See `LayerRule`."""
        a = torch.cat([_positions(call.input) for call in calls], 1) if len(calls) > 1 else _positions(calls[0].input)
        g = torch.cat([_positions(call.grad) for call in calls], 1) if len(calls) > 1 else _positions(calls[0].grad)
        if owners.table is None and a.shape[1] == 1:
            return outer_squared_norms(a, g, bias=layer.bias is not None)
        row = a.shape[1] * (a.shape[2] + g.shape[2]) + min(a.shape[1] ** 2, a.shape[2] * g.shape[2])
        parts = []
        for start, stop in owners.chunks(row, a.device):
            merged = (_merge(owners.take(values, start, stop), owners.width) for values in (a, g))
            parts.append(outer_squared_norms(*merged, bias=layer.bias is not None))
        return torch.cat(parts)

    def weighted_sum(self, layer: nn.Linear, calls: Sequence[Call], weights: Tensor) -> list[Tensor]:
        """See `LayerRule`."""
        weight, bias = None, None
        for call in calls:
            a = call.input.reshape(-1, call.input.shape[-1])
            g = call.weighted_grad(weights).reshape(-1, call.grad.shape[-1])
            weight = g.T @ a if weight is None else weight.addmm_(g.T, a)
            bias = g.sum(0) if bias is None else bias + g.sum(0)
        return [grad for grad in (weight, bias if layer.bias is not None else None) if grad is not None]


class EmbeddingRule:
    """nn.Embedding on whole numbers [B, …]."""

    def refusal(self, layer: nn.Embedding) -> str | None:
        """Options that change the table in the forward pass, or that count rows of other people, are refused."""
        if layer.max_norm is not None:
            return "max_norm changes the weights in the forward pass"
        if layer.scale_grad_by_freq:
            return "scale_grad_by_freq divides one person's gradient by how often others use the same entry"
        return "sparse gradients are not supported: every entry is noised" if layer.sparse else None

    def squared_norms(self, layer: nn.Embedding, calls: Sequence[Call], owners: Owners) -> Tensor:
        """See `LayerRule`."""
        index = torch.cat([call.input.flatten(1) if call.input.dim() > 1 else call.input[:, None] for call in calls], 1)
        g = torch.cat([_positions(call.grad) for call in calls], 1)
        row = g.shape[1] * (g.shape[2] + 2 * g.shape[1] * owners.width)
        parts = []
        for start, stop in owners.chunks(row, g.device):
            merged = (_merge(owners.take(values, start, stop), owners.width) for values in (index, g))
            parts.append(lookup_squared_norms(*merged, padding_index=layer.padding_idx))
        return torch.cat(parts)

    def weighted_sum(self, layer: nn.Embedding, calls: Sequence[Call], weights: Tensor) -> list[Tensor]:
        """See `LayerRule`."""
        total = calls[0].grad.new_zeros(layer.weight.shape)
        for call in calls:
            g = call.weighted_grad(weights).reshape(-1, layer.embedding_dim)
            total.index_add_(0, call.input.reshape(-1), g)
        if layer.padding_idx is not None:
            total[layer.padding_idx] = 0
        return [total]


class NormRule:
    """nn.GroupNorm and nn.LayerNorm: statistics within one row only, so per-row gradients are small vectors."""

    def refusal(self, layer: nn.Module) -> str | None:
        """Every option is supported."""
        return None

    def squared_norms(self, layer: nn.Module, calls: Sequence[Call], owners: Owners) -> Tensor:
        """See `LayerRule`."""
        rows = sum(torch.cat([grad.flatten(1) for grad in self._per_row(layer, call)], 1) for call in calls)
        assert isinstance(rows, Tensor)
        return squared_norm(owners.sum(rows), (1,))

    def weighted_sum(self, layer: nn.Module, calls: Sequence[Call], weights: Tensor) -> list[Tensor]:
        """See `LayerRule`."""
        grads = [[torch.tensordot(weights, grad, 1) for grad in self._per_row(layer, call)] for call in calls]
        return [torch.stack(per_call).sum(0) for per_call in zip(*grads, strict=True)]

    @staticmethod
    def _per_row(layer: nn.Module, call: Call) -> list[Tensor]:
        """Each row's own gradient of the weight and, where there is one, the bias: [B, parameter shape]."""
        if isinstance(layer, nn.GroupNorm):
            normal = functional.group_norm(call.input, layer.num_groups, eps=layer.eps)
            shape = (*normal.shape[:2], -1)
            grads = [(call.grad * normal).reshape(shape).sum(2), call.grad.reshape(shape).sum(2)]
            return grads if layer.bias is not None else grads[:1]
        assert isinstance(layer, nn.LayerNorm)
        normalized = list(layer.normalized_shape)
        normal = functional.layer_norm(call.input, normalized, eps=layer.eps)
        inner = (len(call.input), -1, *normalized)
        grads = [(call.grad * normal).reshape(inner).sum(1), call.grad.reshape(inner).sum(1)]
        return grads if layer.bias is not None else grads[:1]


def _positions(values: Tensor) -> Tensor:
    """[B, …, features] → [B, positions, features]."""
    return values.reshape(len(values), math.prod(values.shape[1:-1]), values.shape[-1])


def _merge(values: Tensor, width: int) -> Tensor:
    """Rows [people·width, positions, …] of each person as positions of one sample [people, width·positions, …]."""
    return values.reshape(len(values) // width, width * values.shape[1], *values.shape[2:])


RULES: dict[type[nn.Module], LayerRule] = {
    nn.Linear: LinearRule(),
    nn.Conv2d: ConvRule(),
    nn.ConvTranspose2d: ConvTransposeRule(),
    nn.Embedding: EmbeddingRule(),
    nn.GroupNorm: NormRule(),
    nn.LayerNorm: NormRule(),
}
"""By exact type: a subclass may compute something else in its forward pass."""
