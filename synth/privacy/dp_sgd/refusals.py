"""What DP-SGD refuses before it starts, and why.

Clipping bounds a person only when the person's rows reach nobody else's loss. Layers known to mix rows are
refused by type; whatever else a critic does is tried on example rows: change a row, drop rows, and see
whether another row's loss moves. The same trial compares every gradient with autograd's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize

from synth.errors import PrivacyRefusal
from synth.privacy.dp_sgd.clipping import GhostClipping, check_losses
from synth.privacy.dp_sgd.layers import RULES
from synth.privacy.dp_sgd.owners import Owners
from synth.privacy.dp_sgd.precision import full_precision

MIN_EXAMPLE_ROWS = 4


def refuse_unsafe_layers(critic: nn.Module) -> dict[str, nn.Module]:
    """The layers with trainable parameters, by name. Raises PrivacyRefusal naming every layer that is unsafe."""
    layers: dict[str, nn.Module] = {}
    reasons = _shared_parameters(critic)
    for name, module in critic.named_modules():
        own = list(module.parameters(recurse=False))
        trained = [parameter for parameter in own if parameter.requires_grad]
        reason = _reason(module, own, trained)
        if reason is not None:
            reasons.append(f"{name or 'the critic itself'} ({type(module).__name__}): {reason}")
        elif trained:
            layers[name] = module
    if not layers and not reasons:
        reasons.append("there is no trainable parameter")
    if reasons:
        raise PrivacyRefusal("this critic cannot be trained with DP-SGD. " + "; ".join(reasons))
    return layers


def _reason(module: nn.Module, own: list[nn.Parameter], trained: list[nn.Parameter]) -> str | None:
    if isinstance(module, _BatchNorm):
        return "batch normalisation mixes rows, so one person's row enters everybody's gradient; use GroupNorm"
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        return "running statistics are learned from private rows without noise; set track_running_stats=False"
    hooks = (type(hook).__name__ for hook in module._forward_pre_hooks.values())
    if parametrize.is_parametrized(module) or any(name in {"SpectralNorm", "WeightNorm"} for name in hooks):
        return "a parametrised weight (spectral_norm, weight_norm) is not the parameter that is clipped; remove it"
    if not trained:
        return None
    if type(module) not in RULES:
        return f"parameters are supported in {', '.join(kind.__name__ for kind in RULES)} alone"
    if len(trained) < len(own):
        return "freeze all parameters of a layer, or none"
    return RULES[type(module)].refusal(module)


def _shared_parameters(critic: nn.Module) -> list[str]:
    names: dict[int, str] = {}
    shared = []
    for prefix, module in critic.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            first = names.setdefault(id(parameter), name)
            if first != name:
                shared.append(f"{first} and {name} are one parameter: each layer's share would be clipped by itself")
    return shared


def refuse_unsafe_losses(critic: nn.Module, clipping: GhostClipping, example: Sequence[Tensor]) -> None:
    """Try the row losses on example rows, each column [rows, …], in training mode and without dropout.

    Raises PrivacyRefusal when a row's loss moves with other rows or their number, when the forward pass
    changes a buffer, or when a row's gradient or its norm differs from autograd's.
    """
    rows = len(example[0])
    if rows < MIN_EXAMPLE_ROWS:
        raise ValueError(f"example needs at least {MIN_EXAMPLE_ROWS} rows")
    with _trial(critic, example[0].device):
        before = {name: buffer.clone() for name, buffer in critic.named_buffers()}
        losses = _losses(clipping, example)
        for name, buffer in critic.named_buffers():
            if not torch.equal(buffer, before[name]):
                raise PrivacyRefusal(
                    f"buffer {name!r} changes in the forward pass: it would keep private rows, un-noised"
                )
        _refuse_mixing(clipping, example, losses)
        _refuse_wrong_gradients(clipping, example)


def _losses(clipping: GhostClipping, columns: Sequence[Tensor]) -> Tensor:
    """Losses [B], with the same random draws each time."""
    torch.manual_seed(0)
    try:
        losses = clipping.row_losses(*columns)
    except RuntimeError as error:
        raise PrivacyRefusal(
            "the row losses fail on some number of example rows: every number from 1 up must work, so nothing may "
            "pack several rows into one"
        ) from error
    check_losses(losses, len(columns[0]))
    return losses


def _refuse_mixing(clipping: GhostClipping, example: Sequence[Tensor], losses: Tensor) -> None:
    rows = len(losses)
    trials = {
        "the other rows": [column.clone() for column in example],
        "the number of rows": [column[: rows - 1] for column in example],
        "the presence of other rows": [column[:1] for column in example],
    }
    for column in trials["the other rows"]:
        column[-1] = column[0] * 3 + 1 if column.is_floating_point() else column[0]
    scale = 1 + losses.detach().abs().max()
    for what, columns in trials.items():
        kept = min(len(columns[0]), rows - 1)
        moved = (_losses(clipping, columns)[:kept] - losses[:kept]).detach().abs().max()
        if not moved <= 100 * torch.finfo(losses.dtype).eps * scale:
            raise PrivacyRefusal(f"a row's loss depends on {what}: one person would enter other people's gradients")


def _refuse_wrong_gradients(clipping: GhostClipping, example: Sequence[Tensor]) -> None:
    parameters = clipping.parameters
    torch.manual_seed(0)
    calls = clipping.calls(example)
    losses = _losses(clipping, example)
    owners = Owners(count=len(losses))
    norms = clipping.squared_norms(calls, owners, example[0]).sqrt()
    for row in range(len(losses)):
        wanted = torch.autograd.grad(
            losses[row], parameters, retain_graph=True, materialize_grads=True, allow_unused=True
        )
        weights = torch.zeros_like(norms)
        weights[row] = 1
        found = clipping.weighted_sum(calls, weights)
        norm = torch.stack([grad.square().sum() for grad in wanted]).sum().sqrt()
        error = torch.stack([(a - b).square().sum() for a, b in zip(found, wanted, strict=True)]).sum().sqrt()
        # Rounding alone reaches neither bound; a share of the gradient that is missed or counted twice does.
        allowed = (1e-3 if norm.dtype in (torch.float32, torch.float64) else 0.1) * (norm + 1e-6)
        if not (error <= allowed and (norms[row] - norm).abs() <= allowed):
            raise PrivacyRefusal(
                "the gradient of a row differs from autograd's: a parameter is used outside its own layer's call, or "
                "twice through different paths (a gradient penalty belongs on generated rows, in the free loss)"
            )


@contextmanager
def _trial(critic: nn.Module, device: torch.device) -> Iterator[None]:
    """Training mode without dropout; modes, buffers and the generators' states are put back."""
    modes = {module: module.training for module in critic.modules()}
    buffers = {buffer: buffer.clone() for buffer in critic.buffers()}
    critic.train()
    for module in modes:
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), full_precision(device):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
