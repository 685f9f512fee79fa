"""Full precision while gradients are clipped and summed, whatever the training around it uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and no matrix product or convolution in TF32 or bfloat16, inside the block.

    A float32 product keeps 8 to 10 bits where `torch.set_float32_matmul_precision("medium")` or cuDNN's
    default allow it: norms and sums would disagree in the third digit, and so would the bound C.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn
    try:
        with (
            torch.autocast(device.type, enabled=False),
            cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
