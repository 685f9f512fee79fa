"""Two-dimensional convolutions: a kernel is a weight that is applied at every position of a patch.

Unfolding an input into its patches turns a convolution into a linear layer over positions. Patches take
up to kernel-size times the input's memory, so they are made for a few rows at a time, for the norms
only; the weighted sum is the framework's own weight gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.privacy.dp_sgd.norms import outer_squared_norms, squared_norm
from synth.privacy.dp_sgd.owners import Owners
from synth.privacy.dp_sgd.recording import Call

Convolution = nn.Conv2d | nn.ConvTranspose2d


class ConvRule:
    """nn.Conv2d on [B, channels, height, width], with any stride, zero padding, dilation and groups."""

    def refusal(self, layer: Convolution) -> str | None:
        """Padding other than with zeros is refused."""
        return None if layer.padding_mode == "zeros" else "only padding with zeros is supported"

    def squared_norms(self, layer: Convolution, calls: Sequence[Call], owners: Owners) -> Tensor:
        """See `LayerRule`."""
        patch = layer.kernel_size[0] * layer.kernel_size[1]
        row = patch * sum(call.input[0].numel() + call.grad[0].numel() for call in calls)
        parts = []
        for start, stop in owners.chunks(row, calls[0].grad.device):
            taken = (Call(owners.take(c.input, start, stop), owners.take(c.grad, start, stop)) for c in calls)
            inputs, outputs = zip(*(self.factors(layer, call) for call in taken), strict=True)
            a, g = _samples(inputs, layer.groups, owners.width), _samples(outputs, layer.groups, owners.width)
            parts.append(outer_squared_norms(a, g, bias=False).view(-1, layer.groups).sum(1))
        squared = torch.cat(parts)
        if layer.bias is None:
            return squared
        rows = torch.stack([call.grad.sum((2, 3)) for call in calls]).sum(0)
        return squared + squared_norm(owners.sum(rows), (1,))

    def factors(self, layer: Convolution, call: Call) -> tuple[Tensor, Tensor]:
        """The two factors of each row's kernel gradient: [N, channels·…, positions] both, groups one after another."""
        return _patches(layer, call.input), call.grad.flatten(2)

    def weighted_sum(self, layer: Convolution, calls: Sequence[Call], weights: Tensor) -> list[Tensor]:
        """See `LayerRule`."""
        grads = [_parameter_grads(layer, call.input, call.weighted_grad(weights)) for call in calls]
        return [
            torch.stack(per_call).sum(0) if len(calls) > 1 else per_call[0] for per_call in zip(*grads, strict=True)
        ]


class ConvTransposeRule(ConvRule):
    """nn.ConvTranspose2d: the convolution that maps its output back to its input, with the factors swapped."""

    def refusal(self, layer: Convolution) -> str | None:
        """An output padding that adds whole positions is refused."""
        if any(extra >= step for extra, step in zip(layer.output_padding, layer.stride, strict=True)):
            return "output_padding must be smaller than stride"
        return super().refusal(layer)

    def factors(self, layer: Convolution, call: Call) -> tuple[Tensor, Tensor]:
        """See `ConvRule`."""
        return _patches(layer, call.grad), call.input.flatten(2)


def _patches(layer: Convolution, image: Tensor) -> Tensor:
    """[N, channels, height, width] → [N, channels·kernel, positions]."""
    image, padding = _padded(layer, image)
    return functional.unfold(image, layer.kernel_size, layer.dilation, padding, layer.stride)


def _padded(layer: Convolution, image: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The image, and the padding still to be done on both sides: padding="same" may need one side only."""
    if not isinstance(layer.padding, str):
        return image, layer.padding
    if layer.padding == "valid":
        return image, (0, 0)
    height, width = (step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True))
    return functional.pad(image, (width // 2, width - width // 2, height // 2, height - height // 2)), (0, 0)


def _samples(parts: tuple[Tensor, ...], groups: int, width: int) -> Tensor:
    """Rows [people·width, groups·size, positions] of several calls → samples [people·groups, positions, size]."""
    joined = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
    joined = joined.reshape(len(joined), groups, -1, joined.shape[2])
    if width > 1:
        # A person's rows become further positions of the same sample.
        joined = joined.reshape(-1, width, *joined.shape[1:]).permute(0, 2, 3, 1, 4).flatten(3)
    return joined.flatten(0, 1).transpose(1, 2)


def _parameter_grads(layer: Convolution, image: Tensor, grad: Tensor) -> list[Tensor]:
    """The gradient of kernel and bias, summed over rows."""
    image, padding = _padded(layer, image)
    bias = layer.bias is not None
    grads: list[Tensor]
    _, *grads = torch.ops.aten.convolution_backward(
        grad,
        image,
        layer.weight.to(image.dtype),
        list(layer.bias.shape) if layer.bias is not None else None,
        layer.stride,
        padding,
        layer.dilation,
        layer.transposed,
        layer.output_padding,
        layer.groups,
        [False, True, bias],
    )
    return grads if bias else grads[:1]
