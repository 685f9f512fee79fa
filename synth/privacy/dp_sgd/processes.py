"""Several processes training one critic: who am I, and sums across all."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) outside torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's values, in place, the same on each."""
    if rank_and_world_size()[1] > 1:
        dist.all_reduce(values)
    return values
