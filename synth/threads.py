"""How many threads numerical libraries work with.

Most of what a run computes is short. Threads that wait for each other spin, so that two of them on a machine that has
something else to do are many times slower than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch works with so many threads inside of this."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """The linear algebra of numpy and scipy works with one thread inside of this; torch as it did before."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
