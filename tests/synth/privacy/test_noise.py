"""The noise: Gaussian, independent, on a public grid, and never the same twice."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import synth
from synth.privacy import noise
from synth.privacy.noise import GRID_BITS, NoiseSource, grid_of

DRAWS = 200_000
SCALES = st.floats(1e-3, 1e6)
# What a correct source does once in a billion runs, and as a number of standard errors. Some forty such assertions
# below, and tails that are a little heavier than a Gaussian's, still fail less than once in a million runs.
UNLIKELY = 1e-9
FAR = float(stats.norm.isf(UNLIKELY / 2))


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    return NoiseSource().standard_normal(DRAWS)


class TestTheDistribution:
    def test_moments(self, draws: np.ndarray) -> None:
        n = len(draws)
        assert abs(draws.mean()) < FAR / math.sqrt(n)
        assert abs(draws.var() - 1) < FAR * math.sqrt(2 / n)
        assert abs(stats.skew(draws)) < FAR * math.sqrt(6 / n)
        assert abs(stats.kurtosis(draws)) < FAR * math.sqrt(24 / n)

    def test_it_is_gaussian(self, draws: np.ndarray) -> None:
        assert stats.kstest(draws, "norm").pvalue > UNLIKELY

    def test_so_are_its_tails(self, draws: np.ndarray) -> None:
        for far in (2.5, 3.0, 3.5):
            expected = 2 * stats.norm.sf(far)
            assert stats.binomtest(int((np.abs(draws) > far).sum()), len(draws), expected).pvalue > UNLIKELY

    def test_a_noised_count_is_the_count_with_the_stated_deviation(self) -> None:
        noised = NoiseSource().add_to(np.full(DRAWS // 4, 1000), 7.5)
        assert stats.kstest((noised - 1000) / 7.5, "norm").pvalue > UNLIKELY
        assert noised.std() == pytest.approx(7.5, rel=0.02)

    @pytest.mark.parametrize("lag", [1, 2, 3, 4, 512, 1000])
    def test_draws_are_independent(self, draws: np.ndarray, lag: int) -> None:
        bound = FAR / math.sqrt(len(draws) - lag)
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < bound
        assert abs(np.corrcoef(np.abs(draws[:-lag]), np.abs(draws[lag:]))[0, 1]) < bound

    def test_also_across_chunks_and_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(noise, "_CHUNK", 7)
        source = NoiseSource()
        first, second = source.standard_normal(2000), source.standard_normal(2000)
        assert len(np.unique(np.concatenate([first, second]))) == 4000
        assert abs(np.corrcoef(first, second)[0, 1]) < FAR / math.sqrt(2000)
        folded = np.concatenate([first, second])[: 7 * 571].reshape(-1, 7)
        assert np.abs(np.corrcoef(folded.T) - np.eye(7)).max() < FAR / math.sqrt(571)

    @pytest.mark.parametrize("byte", [0x00, 0xFF])
    def test_even_the_rarest_bits_give_a_number(self, byte: int) -> None:
        class Constant:
            def update(self, data: bytes) -> bytes:
                return bytes([byte]) * len(data)

        source = NoiseSource()
        source._stream = Constant()  # type: ignore[assignment]
        assert np.isfinite(source.standard_normal(10)).all()


class TestTheGrid:
    @given(SCALES)
    def test_is_public_a_power_of_two_and_fine(self, scale: float) -> None:
        grid = grid_of(scale)
        assert math.log2(grid).is_integer()
        assert scale / 2 ** (GRID_BITS + 1) < grid <= scale / 2**GRID_BITS

    @given(st.lists(st.integers(-(2**40), 2**40), max_size=20), SCALES)
    def test_holds_every_noised_count(self, counts: list[int], scale: float) -> None:
        noised = NoiseSource().add_to(np.array(counts, dtype=np.int64), scale)
        steps = noised / grid_of(scale)
        assert np.array_equal(steps, np.round(steps))
        assert np.all(np.abs(noised - np.array(counts)) < 12 * scale)

    @given(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)))
    def test_keeps_the_shape(self, shape: tuple[int, ...]) -> None:
        assert NoiseSource().add_to(np.zeros(shape, dtype=np.int32), 1.0).shape == shape


class TestRefusals:
    @pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, -math.inf])
    def test_a_scale_that_is_none(self, scale: float) -> None:
        with pytest.raises(ValueError, match="noise_scale must be finite and positive"):
            NoiseSource().add_to(np.array([1]), scale)

    @pytest.mark.parametrize("counts", [[1.0, 2.0], [0.5], [True], ["1"], [None]])
    def test_what_is_no_whole_count(self, counts: list[object]) -> None:
        with pytest.raises(ValueError, match="only whole counts"):
            NoiseSource().add_to(np.array(counts), 1.0)

    @pytest.mark.parametrize("count", [2**50, -(2**50), 2**63 - 1, -(2**63)])
    def test_counts_too_large_for_the_grid(self, count: int) -> None:
        with pytest.raises(ValueError, match="below 2"):
            NoiseSource().add_to(np.array([0, count]), 1.0)
        assert np.isfinite(NoiseSource().add_to(np.array([2**50 - 1, 1 - 2**50]), 1.0)).all()


FORK = """
import json, os, sys
import numpy as np
from synth.privacy.noise import NoiseSource

source = NoiseSource()
source.standard_normal(3)
reads, writes = [], []
for _ in range(2):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(source.standard_normal(50).tolist()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        reads.append(json.loads(stream.read()))
    os.wait()
reads.append(source.standard_normal(50).tolist())
print(json.dumps(reads))
"""


class TestNeverTheSameTwice:
    def test_two_sources(self) -> None:
        drawn = [NoiseSource().standard_normal(500) for _ in range(8)]
        assert len(np.unique(np.concatenate(drawn))) == 4000

    def test_a_fork_takes_a_new_key(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORK],
            capture_output=True,
            check=True,
            cwd=Path(synth.__file__).parents[1],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        children = json.loads(ran.stdout)
        assert len(children) == 3
        assert len({value for drawn in children for value in drawn}) == 150

    def test_key_and_counter_both_come_from_the_operating_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def drawn(*entropy: int) -> bytes:
            fill = iter(entropy)
            sizes.clear()

            def urandom(size: int) -> bytes:
                sizes.append(size)
                return bytes([next(fill)]) * size

            monkeypatch.setattr(noise.os, "urandom", urandom)
            return NoiseSource().standard_normal(4).tobytes()

        sizes: list[int] = []
        assert len({drawn(1, 1), drawn(2, 1), drawn(1, 2)}) == 3
        assert drawn(1, 1) == drawn(1, 1)
        assert sizes == [32, 16]

    def test_no_seed_repeats_it(self) -> None:
        drawn = []
        for _ in range(2):
            np.random.seed(1)
            drawn.append(NoiseSource().standard_normal(5))
        assert not np.array_equal(*drawn)

    def test_every_draw_spends_the_stream(self) -> None:
        source = NoiseSource()
        noised = [source.add_to(np.zeros(50, dtype=np.int64), 1e6) for _ in range(20)]
        assert len({tuple(values) for values in noised}) == 20
