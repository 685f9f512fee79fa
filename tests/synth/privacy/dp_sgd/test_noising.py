"""The noise of DP-SGD: its distribution, its grid, its independence, and once only across processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import synth
from synth.privacy.dp_sgd import SecureStream, noised_sum
from synth.privacy.noise import grid_of

UNLIKELY = 1e-9  # a dozen such assertions: a correct source fails about once in a hundred million runs
FAR = float(stats.norm.isf(UNLIKELY / 2))  # in standard errors
ROOT = Path(synth.__file__).parents[1]


def test_normals_are_gaussian_and_independent() -> None:
    draws = SecureStream().standard_normal(200_000)
    assert stats.kstest(draws, "norm").pvalue > UNLIKELY
    assert abs(draws.var() - 1) < FAR * math.sqrt(2 / len(draws))
    for far in (2.5, 3.5):
        assert stats.binomtest(int((np.abs(draws) > far).sum()), len(draws), 2 * stats.norm.sf(far)).pvalue > UNLIKELY
    for lag in (1, 2, 8192):
        for values in (draws, np.abs(draws)):
            assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < FAR / math.sqrt(len(draws) - lag)


@pytest.mark.parametrize("count", [0, 1, 8191, 8192, 8193])
def test_any_number_of_normals(count: int) -> None:
    draws = SecureStream().standard_normal(count)
    assert draws.shape == (count,)
    assert np.isfinite(draws).all() and len(np.unique(draws)) == count


def test_sum_carries_the_stated_noise_on_the_public_grid() -> None:
    sums = [torch.full((300, 200), 5.0), torch.full((7,), -2.0)]
    noised = noised_sum(sums, 0.7, SecureStream())
    assert [part.shape for part in noised] == [part.shape for part in sums]
    assert all(part.dtype == torch.float64 for part in noised)
    assert stats.kstest((noised[0].flatten().numpy() - 5) / 0.7, "norm").pvalue > UNLIKELY
    assert ((noised[0] / grid_of(0.7)) % 1 == 0).all()
    assert len(noised[0].unique()) > 1000


def test_the_same_sum_is_never_noised_alike() -> None:
    source, sums = SecureStream(), [torch.zeros(50)]
    assert not torch.equal(noised_sum(sums, 1.0, source)[0], noised_sum(sums, 1.0, source)[0])
    assert torch.equal(sums[0], torch.zeros(50))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_noise_scale_is_positive(scale: float) -> None:
    with pytest.raises(ValueError, match="finite and positive"):
        noised_sum([torch.zeros(2)], scale, SecureStream())


FORK = """
import json, os
from synth.privacy.dp_sgd import SecureStream

source = SecureStream()
source.coins(3, 0.5)
reads = []
for _ in range(2):
    read, write = os.pipe()
    if os.fork() == 0:
        drawn = [source.standard_normal(50).tolist(), source.coins(200, 0.5).tolist()]
        os.write(write, json.dumps(drawn).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        reads.append(json.loads(stream.read()))
    os.wait()
reads.append([source.standard_normal(50).tolist(), source.coins(200, 0.5).tolist()])
print(json.dumps(reads))
"""


def test_a_fork_takes_a_new_key() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    drawn = json.loads(ran.stdout)
    assert len({value for normals, _ in drawn for value in normals}) == 150
    assert len({tuple(coins) for _, coins in drawn}) == 3
