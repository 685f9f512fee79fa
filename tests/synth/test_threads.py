"""Threads of numerical libraries, and that they are given back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from synth.threads import one_blas_thread, torch_threads


def blas_threads() -> set[int]:
    scipy.linalg.eigh(np.eye(2))  # its library is loaded by now
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two() -> Any:
    with threadpool_limits(2, user_api="blas"), torch_threads(2):
        yield


def test_linear_algebra_has_one_thread_inside() -> None:
    with one_blas_thread():
        assert blas_threads() == {1} and torch.get_num_threads() == 2
    assert blas_threads() == {2}


def test_torch_has_as_many_as_asked_inside() -> None:
    with torch_threads(3):
        assert torch.get_num_threads() == 3 and blas_threads() == {2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("within", [one_blas_thread, lambda: torch_threads(1)])
def test_they_are_given_back_after_an_error(within: Any) -> None:
    with pytest.raises(ZeroDivisionError), within():
        raise ZeroDivisionError
    assert blas_threads() == {2} and torch.get_num_threads() == 2
