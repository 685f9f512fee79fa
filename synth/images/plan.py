"""What a run on images would cost and hold, from the schema and config alone: noise, coefficients, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synth.image_schema import ImageSchema
from synth.images.encode import SAMPLE_BYTES, batch_rows
from synth.images.measure import FEATURE_PART, wanted_coefficients
from synth.images.transform import transform_of
from synth.privacy.events import PoissonGaussianEvent
from synth.privacy.image_budget import MEANS, SECOND_MOMENTS, ImagePlan

RUNTIME_BYTES = 700 << 20
"""What Python, torch and Prefect hold before any data is there."""
EXAMPLES = (1_000, 10_000, 100_000)


@dataclass(frozen=True)
class ImageExpectation:
    """What to expect of a run.

    Attributes:
        offered: coefficients of a picture that could be measured.
        measured: for some numbers of pictures, how many coefficients would be.
        class_size_noise: noise scale of a class's size, in pictures.
        moment_noise: noise scale of a second moment, in pictures at the clipping length.
        memory_bytes: an upper estimate of the peak memory; it does not grow with the number of pictures.
        critic: the critic's event and the size of its work; None without one.
    """

    offered: int
    measured: dict[int, int]
    class_size_noise: float
    moment_noise: float
    memory_bytes: int
    critic: dict[str, Any] | None = None


def expectation_of(schema: ImageSchema, plan: ImagePlan, *, hidden_size: int = 0) -> ImageExpectation:
    """What a run on this schema with this plan would give; `hidden_size` is the critic's, where there is one."""
    classes = len(schema.target.classes)
    transform = transform_of(schema.image, classes)
    means, moments = 2**0.5 * plan.noise(MEANS), plan.noise(SECOND_MOMENTS) / (1 - FEATURE_PART)
    examples = EXAMPLES if schema.row_count == "private" else (int(schema.row_count),)
    height, width, channels = schema.image.shape
    # Exact sums, noised sums, what is denoised of them and its eigenvectors; then pictures as numbers, a batch of them.
    critic, beside = (None, 0) if plan.critic is None else critic_of(schema, plan.critic, hidden_size)
    held = 5 * 8 * classes * (transform.size + 1) ** 2 + 8 * 8 * batch_rows(schema) * height * width * channels
    return ImageExpectation(
        offered=transform.size,
        measured={n: transform.prefix(wanted_coefficients(n, classes, plan)) for n in examples},
        class_size_noise=(means**-2 + moments**-2) ** -0.5,
        moment_noise=plan.noise(SECOND_MOMENTS),
        memory_bytes=RUNTIME_BYTES + held + 4 * SAMPLE_BYTES + beside,
        critic=critic,
    )


def critic_of(schema: ImageSchema, event: PoissonGaussianEvent, hidden_size: int) -> tuple[dict[str, Any], int]:
    """The critic's event and the operations that its steps take, and about how many bytes of memory.

    The way back takes about twice as many operations as the way forward, in either network.
    """
    import torch  # slow to load; most runs have no critic

    from synth.images.refine import FAKES, PHYSICAL_BATCH, critic_for
    from synth.images.residual import residual_for

    height, width, channels = schema.image.shape
    with torch.device("meta"):  # networks without numbers
        inputs = torch.zeros(1, channels, height, width), torch.zeros(1, dtype=torch.int64)
        networks = [make(schema, hidden_size) for make in (critic_for, residual_for)]
        (critic, critic_values), (residual, residual_values) = (_work(network, *inputs) for network in networks)
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    shown = {
        **event.model_dump(),
        "parameters": parameters,
        "fakes": FAKES,
        "operations_a_picture": 3 * critic,
        "operations_a_generator_step": 4 * FAKES * residual,
    }
    # Weights with their gradients, averages and moments of Adam; inputs of layers, their derivatives, and copies.
    return shown, 4 * 6 * (parameters + (PHYSICAL_BATCH * critic_values + FAKES * residual_values))


def _work(network: Any, *inputs: Any) -> tuple[int, int]:
    """Operations of one picture's way through a network, and how many numbers come out of its layers."""
    from torch.utils.flop_counter import FlopCounterMode

    values = [0]
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda *seen: values.append(seen[2].numel()))
    with FlopCounterMode(display=False) as counted:
        network(*inputs)
    return int(counted.get_total_flops()), sum(values)
