"""What a run on images would cost and hold, from the schema and config alone: noise, coefficients, memory."""

from __future__ import annotations

from dataclasses import dataclass

from synth.image_schema import ImageSchema
from synth.images.encode import SAMPLE_BYTES, batch_rows
from synth.images.measure import FEATURE_PART, wanted_coefficients
from synth.images.transform import transform_of
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
    """

    offered: int
    measured: dict[int, int]
    class_size_noise: float
    moment_noise: float
    memory_bytes: int


def expectation_of(schema: ImageSchema, plan: ImagePlan) -> ImageExpectation:
    """What a run on this schema with this plan would give."""
    classes = len(schema.target.classes)
    transform = transform_of(schema.image, classes)
    means, moments = 2**0.5 * plan.noise(MEANS), plan.noise(SECOND_MOMENTS) / (1 - FEATURE_PART)
    examples = EXAMPLES if schema.row_count == "private" else (int(schema.row_count),)
    height, width, channels = schema.image.shape
    # Exact sums, noised sums, what is denoised of them and its eigenvectors; then pictures as numbers, a batch of them.
    held = 5 * 8 * classes * (transform.size + 1) ** 2 + 8 * 8 * batch_rows(schema) * height * width * channels
    return ImageExpectation(
        offered=transform.size,
        measured={n: transform.prefix(wanted_coefficients(n, classes, plan)) for n in examples},
        class_size_noise=(means**-2 + moments**-2) ** -0.5,
        moment_noise=plan.noise(SECOND_MOMENTS),
        memory_bytes=RUNTIME_BYTES + held + 4 * SAMPLE_BYTES,
    )
