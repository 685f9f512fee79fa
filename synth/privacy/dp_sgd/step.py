"""One DP-SGD step of a critic: clipped, noised gradients of real rows, plain gradients of generated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from synth.errors import PrivacyRefusal
from synth.privacy.dp_sgd.clipping import GhostClipping, RowLosses
from synth.privacy.dp_sgd.config import DpSgdConfig
from synth.privacy.dp_sgd.noising import noised_sum, split_like
from synth.privacy.dp_sgd.processes import rank_and_world_size, sum_over_processes
from synth.privacy.dp_sgd.randomness import SecureStream
from synth.privacy.dp_sgd.refusals import refuse_unsafe_layers, refuse_unsafe_losses
from synth.privacy.noise import NoiseSource


class PrivateCritic:
    """A critic whose gradients on real rows satisfy DP-SGD (Abadi et al. 2016, Algorithm 1).

    Args:
        critic: the module to train. Its forward pass may be used freely elsewhere; no hook stays on it.
        row_losses: columns of a batch, each [B, …], to losses [B], calling `critic`; for a Wasserstein
            critic `lambda x: -critic(x)[:, 0]`.
        example: at least four distinct made-up or public rows per column, [rows, …], never private ones. The
            losses are tried on them, and refused where one row bears on another.
        config: the public constants.
        noise: the noise stream; a new one from operating-system entropy by default.
        physical_batch_size: rows processed at once, for memory; the result does not depend on it.
        steps_taken: steps that an interrupted run has already drawn.

    Raises PrivacyRefusal, with every reason, when a layer or the losses are unsafe or unsupported.
    """

    def __init__(
        self,
        critic: nn.Module,
        row_losses: RowLosses,
        example: Sequence[Tensor],
        config: DpSgdConfig,
        *,
        noise: NoiseSource | None = None,
        physical_batch_size: int | None = None,
        steps_taken: int = 0,
    ) -> None:
        self.config = config
        self.steps_taken = steps_taken
        self._noise = noise or SecureStream()
        layers = refuse_unsafe_layers(critic)
        self._clipping = GhostClipping(layers, row_losses, config.max_grad_norm, physical_batch_size)
        refuse_unsafe_losses(critic, self._clipping, example)

    def private_step(
        self,
        columns: Sequence[Tensor],
        *,
        persons: Tensor | None = None,
        free_loss: Callable[[], Tensor] | None = None,
    ) -> None:
        """Set `.grad` of every trainable parameter of the critic to

            (Σ clip(∇ row losses) + σC·N(0, I)) / expected_batch_size + ∇ free_loss

        `columns` are the rows of one Poisson draw, each [B, …], B = 0 included; `persons` [B] says whose they
        are, when people may have several. `free_loss` returns a scalar over generated rows, penalties on
        them included; it costs nothing as long as neither the rows nor their number follow from real ones.
        Across processes, each brings its own rows; free losses are averaged.

        The previous `.grad` is replaced, never added to. Take the optimiser's step afterwards, without a
        backward pass in between. Raises PrivacyRefusal after `config.steps` steps.
        """
        if self.steps_taken >= self.config.steps:
            raise PrivacyRefusal(f"all {self.config.steps} steps of this DP-SGD run have been taken")
        self._refuse_half_precision_scaling(columns[0].device)
        self.steps_taken += 1
        sums = self._clipping.clipped_sum(columns, persons)
        noised = noised_sum(sums, self.config.noise_scale, self._noise)
        free = self._free_gradients(free_loss) if free_loss is not None else [None] * len(noised)
        for parameter, real, fake in zip(self._clipping.parameters, noised, free, strict=True):
            grad = (real / self.config.expected_batch_size).to(parameter.dtype)
            parameter.grad = grad if fake is None else grad + fake

    def refuse_unfinished(self) -> None:
        """Raise PrivacyRefusal unless every step has been taken. To be called when training ends.

        The accountant allows for fewer steps; but a number of them that follows from private rows tells of those rows.
        """
        if self.steps_taken < self.config.steps:
            raise PrivacyRefusal(
                f"{self.steps_taken} of the {self.config.steps} steps of this DP-SGD run were taken: when to stop is "
                "fixed by the config, and never chosen on the way"
            )

    def _free_gradients(self, free_loss: Callable[[], Tensor]) -> list[Tensor]:
        parameters = self._clipping.parameters
        with torch.enable_grad():
            loss = free_loss()
        if loss.dim() != 0:
            raise ValueError("free_loss must return a scalar")
        # Not loss.backward(): that would add to .grad, and would run the hooks of a distributed wrapper.
        grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        flat = sum_over_processes(torch.cat([grad.reshape(-1) for grad in grads])) / rank_and_world_size()[1]
        return split_like(flat, parameters)

    @staticmethod
    def _refuse_half_precision_scaling(device: torch.device) -> None:
        if torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) is torch.float16:
            raise PrivacyRefusal(
                "float16 needs a loss scaler, which would rescale a noised gradient: use bf16-mixed or 32-bit precision"
            )
