"""What each layer saw: its inputs, and the loss's derivative by its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from synth.errors import PrivacyRefusal


@dataclass(frozen=True)
class Entry:
    """One call of a layer in a forward pass: its input [B, …], and the place of its output in the graph."""

    layer: str
    input: Tensor
    version: int
    # The edge, not the output: a ReLU that works in place would turn the output into its own.
    output: GradientEdge


@dataclass(frozen=True)
class Call:
    """One call of a layer: input [B, …], and the derivative of each row's own loss by its output [B, …]."""

    input: Tensor
    grad: Tensor

    def weighted_grad(self, weights: Tensor) -> Tensor:
        """The derivatives [B, …] with row i multiplied by weights_i: [B]."""
        return self.grad * weights.view(-1, *[1] * (self.grad.dim() - 1))

    def without(self, rows: Tensor) -> Call:
        """The same call with nothing in the rows that the mask [B] names."""
        return Call(
            *(values.masked_fill(rows.view(-1, *[1] * (values.dim() - 1)), 0) for values in (self.input, self.grad))
        )


@contextmanager
def recording(layers: Mapping[str, nn.Module]) -> Iterator[list[Entry]]:
    """Record every call of the layers inside the block. No hook outlives it."""
    entries: list[Entry] = []
    handles = [layer.register_forward_hook(partial(_record, entries, name)) for name, layer in layers.items()]
    try:
        yield entries
    finally:
        for handle in handles:
            handle.remove()


def _record(entries: list[Entry], name: str, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    if len(args) != 1 or not isinstance(args[0], Tensor):
        raise PrivacyRefusal(f"layer {name!r} must be called with one tensor, by position")
    if not output.requires_grad:
        raise PrivacyRefusal(f"layer {name!r} ran without a graph: no checkpointing and no no_grad inside the critic")
    entries.append(Entry(name, args[0].detach(), args[0]._version, get_gradient_edge(output)))


def calls_of(entries: list[Entry], losses: Tensor) -> dict[str, list[Call]]:
    """Each layer's calls, with the derivatives of the losses [B] by its outputs; one pass back through the graph.

    Derivatives by parameters are not computed. Raises PrivacyRefusal when an input was changed in place
    after its layer had used it, or does not hold one entry per row.
    """
    rows = losses.shape[0]
    grads = torch.autograd.grad(losses, [entry.output for entry in entries], torch.ones_like(losses), allow_unused=True)
    calls: dict[str, list[Call]] = {}
    for entry, grad in zip(entries, grads, strict=True):
        if entry.input._version != entry.version:
            raise PrivacyRefusal(f"the input of layer {entry.layer!r} was changed in place after the layer had used it")
        if grad is None:
            continue
        if entry.input.shape[0] != rows or grad.shape[0] != rows:
            raise PrivacyRefusal(f"layer {entry.layer!r} does not see one entry per row: the critic reshapes its batch")
        calls.setdefault(entry.layer, []).append(Call(_full(entry.input), _full(grad.detach())))
    return calls


def _full(values: Tensor) -> Tensor:
    """Half precision becomes float32; anything else stays as it is."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
