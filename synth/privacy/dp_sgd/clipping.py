"""The clipped sum of per-person gradients, from one pass forward and one back (Lee & Kifer 2020; Li et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synth.errors import PrivacyRefusal
from synth.privacy.dp_sgd.layers import RULES
from synth.privacy.dp_sgd.owners import Owners
from synth.privacy.dp_sgd.precision import full_precision
from synth.privacy.dp_sgd.recording import Call, calls_of, recording

RowLosses = Callable[..., Tensor]
"""Takes the columns of a batch, each [B, …], and returns one loss per row, [B]."""

Calls = dict[str, list[Call]]


@dataclass(frozen=True)
class GhostClipping:
    """Clips and sums the gradients of a critic's row losses. Adds no noise: nothing it returns may be released.

    `layers` are the layers with trainable parameters, by name; `row_losses` maps columns [B, …] to losses
    [B]; `max_grad_norm` is C. Only the parameters of `layers` are differentiated. A batch of more than
    `physical_batch_size` rows is processed in parts, never splitting a person.
    """

    layers: Mapping[str, nn.Module]
    row_losses: RowLosses
    max_grad_norm: float
    physical_batch_size: int | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters in the order of the sums, layer by layer."""
        return [parameter for layer in self.layers.values() for parameter in layer.parameters()]

    def norms(self, columns: Sequence[Tensor], persons: Tensor | None = None) -> Tensor:
        """Each person's gradient norm before clipping, [people], in increasing order of the index `persons` [B].

        A norm is private, and for tests and inspection by the steward.
        """
        owners = Owners.of(persons, _row_count(columns))
        calls = self.calls(columns)
        with full_precision(columns[0].device), torch.no_grad():
            return self.squared_norms(calls, owners, columns[0]).sqrt()

    def clipped_sum(self, columns: Sequence[Tensor], persons: Tensor | None = None) -> list[Tensor]:
        """Σ over people of g·min(1, C/|g|), one tensor per parameter, at least float32; zeros for an empty batch.

        Adding or removing one person's rows moves the whole by at most C in L2 norm. A person whose
        gradient is not finite contributes nothing. Raises PrivacyRefusal unless the losses are [B].
        """
        rows = _row_count(columns)
        owners = Owners.of(persons, rows)
        total = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in self.parameters]
        for start, stop in owners.ranges(self.physical_batch_size or max(1, rows * owners.width)):
            part = owners.rows_of(start, stop)
            who = None if persons is None else persons[part]
            sums = self._part([column[part] for column in columns], who)
            total = [old.add_(new) for old, new in zip(total, sums, strict=True)]
        return total

    def calls(self, columns: Sequence[Tensor]) -> Calls:
        """What every layer saw of these rows, and the derivative of each row's loss by what it gave."""
        with torch.enable_grad(), recording(self.layers) as entries:
            losses = self.row_losses(*columns)
            check_losses(losses, _row_count(columns))
            return calls_of(entries, losses)

    def squared_norms(self, calls: Calls, owners: Owners, like: Tensor) -> Tensor:
        """Each person's squared gradient norm over all layers, [people]."""
        parts = [
            RULES[type(self.layers[name])].squared_norms(self.layers[name], seen, owners)
            for name, seen in calls.items()
        ]
        return torch.stack(parts).sum(0) if parts else torch.zeros(owners.count, device=like.device)

    def weighted_sum(self, calls: Calls, weights: Tensor) -> list[Tensor]:
        """Σ_i weights_i · (gradient of row i), one tensor per parameter: weights [B]."""
        sums: list[Tensor] = []
        for name, layer in self.layers.items():
            if name in calls:
                sums += RULES[type(layer)].weighted_sum(layer, calls[name], weights)
            else:
                sums += [torch.zeros_like(parameter) for parameter in layer.parameters()]
        return sums

    def _part(self, columns: Sequence[Tensor], persons: Tensor | None) -> list[Tensor]:
        calls = self.calls(columns)
        owners = Owners.of(persons, _row_count(columns))
        with full_precision(columns[0].device), torch.no_grad():
            norms = self.squared_norms(calls, owners, columns[0]).sqrt()
            weights = owners.spread((self.max_grad_norm / norms).clamp(max=1.0))
            lost = owners.spread(~norms.isfinite())
            if lost.any():
                # Zero times infinity would spread one person's overflow over everybody's sum.
                weights = weights.masked_fill(lost, 0)
                calls = {name: [call.without(lost) for call in seen] for name, seen in calls.items()}
            return self.weighted_sum(calls, weights)


def check_losses(losses: Tensor, rows: int) -> None:
    """Raise PrivacyRefusal unless the losses are one differentiable number per row.

    A [B, 1] column would be broadcast against a [B] vector, and a mean lets the number of other people
    into everybody's gradient.
    """
    if not isinstance(losses, Tensor) or losses.shape != (rows,):
        raise PrivacyRefusal(
            "the row losses must be a vector with one entry per row of the batch: neither a mean or sum over "
            "rows, nor a column of shape [B, 1], nor one entry for several rows"
        )
    if not losses.requires_grad:
        raise PrivacyRefusal("the row losses must depend on the critic's parameters through its forward pass")


def _row_count(columns: Sequence[Tensor]) -> int:
    if not columns or any(len(column) != len(columns[0]) for column in columns):
        raise ValueError("a batch needs at least one column, and all columns the same number of rows")
    return len(columns[0])
