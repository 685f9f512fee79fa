"""The sampler: inclusion counts against Bin(T, q), batch sizes against Bin(n, q), persons, sources, processes.

The statistical test fails a correct sampler about once in ten million runs: each chi-square once in 4e7 (its tail
is heavier than stated where 25 are expected in a cell), each count of pairs once in 1e8 (neighbouring pairs share a
coin, which widens the count by 6 %).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from synth.privacy.dp_sgd import DpSgdConfig, PoissonBatches, SecureStream
from synth.privacy.dp_sgd import sampling as sampling_module

FALSE_ALARM = 1e-9  # as stated by the tests used; see above for what it is
N, T, Q = 600, 500, 0.07


def config(rate: float = Q, steps: int = T) -> DpSgdConfig:
    return DpSgdConfig(sample_rate=rate, steps=steps, expected_batch_size=9, max_grad_norm=1, noise_multiplier=1)


def p_value(counts: np.ndarray, trials: int) -> float:
    """Chi-square of the counts against Bin(trials, Q), in cells of at least 10 expected each."""
    quantiles = np.unique(stats.binom.ppf(np.linspace(0, 1, max(4, len(counts) // 25))[1:-1], trials, Q))
    edges = np.concatenate([[-1], quantiles, [trials]])
    expected = np.diff(stats.binom.cdf(edges, trials, Q)) * len(counts)
    observed = np.histogram(counts, edges + 0.5)[0]
    return float(stats.chisquare(observed, expected).pvalue)


def inclusions(batches: Iterator[np.ndarray]) -> np.ndarray:
    """[T, N]: who is in which batch."""
    table = np.zeros((T, N), dtype=bool)
    for step, members in enumerate(batches):
        table[step, members] = True
    return table


def poisson() -> Iterator[np.ndarray]:
    for batch in PoissonBatches([torch.arange(N)], config()):
        yield batch.columns[0].numpy()


def shuffled() -> Iterator[np.ndarray]:
    rng, size = np.random.default_rng(0), int(N * Q)
    queue: list[int] = []
    for _ in range(T):
        if len(queue) < size:
            queue = rng.permutation(N).tolist()
        yield np.array([queue.pop() for _ in range(size)])


def fixed_size() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(T):
        yield rng.choice(N, int(N * Q), replace=False)


def test_inclusions_are_binomial_by_person_and_by_step() -> None:
    table = inclusions(poisson())
    assert len(table) == T
    assert p_value(table.sum(0), T) > FALSE_ALARM
    assert p_value(table.sum(1), N) > FALSE_ALARM
    # A person's presence says nothing about the next person's, nor about the next step's.
    for one, other in ((table[:, 1:], table[:, :-1]), (table[1:], table[:-1])):
        both = stats.binomtest(int((one & other).sum()), one.size, Q * Q)
        assert both.pvalue > FALSE_ALARM


def test_shuffled_batches_fail_by_person_and_fixed_sizes_by_step() -> None:
    assert p_value(inclusions(shuffled()).sum(0), T) < FALSE_ALARM
    assert p_value(inclusions(shuffled()).sum(1), N) < FALSE_ALARM
    assert p_value(inclusions(fixed_size()).sum(1), N) < FALSE_ALARM


def test_steps_are_fixed_and_empty_batches_are_kept() -> None:
    batches = list(PoissonBatches([torch.arange(3), torch.randn(3, 2)], config(rate=0.01, steps=40)))
    assert len(batches) == len(PoissonBatches([torch.arange(3)], config(steps=40))) == 40
    assert any(len(batch.columns[0]) == 0 and batch.columns[1].shape == (0, 2) for batch in batches)
    assert all(len(batch.columns[0]) == 3 for batch in PoissonBatches([torch.arange(3)], config(rate=1.0, steps=3)))


def test_no_step_reads_the_number_of_people_into_its_rate() -> None:
    sizes = [PoissonBatches([torch.arange(n)], config())._config for n in (999, 1000)]
    assert sizes[0] == sizes[1]


def test_all_rows_of_a_person_come_together() -> None:
    persons = np.array([50, -3, 50, 7, 50, 7])
    values = torch.arange(6)
    owners = {0: {0, 2, 4}, 1: {1}, 2: {3, 5}}
    seen = set()
    for batch in PoissonBatches([values], config(rate=0.5, steps=60), persons=persons):
        assert batch.persons is not None
        for who in batch.persons.unique():
            rows = set(batch.columns[0][batch.persons == who].tolist())
            assert rows in owners.values()
            seen |= rows
    assert seen == set(range(6))


def test_a_memory_mapped_source_gives_its_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(60, dtype=np.float32).reshape(20, 3))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for batch in PoissonBatches([mapped, torch.arange(20)], config(rate=0.4, steps=20), persons=np.arange(20) % 6):
        rows, index = batch.columns
        assert torch.equal(rows[:, 0], index * 3.0)
        rows += 1  # a copy: the source is read-only


def test_processes_divide_the_people(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for rank in range(3):
        monkeypatch.setattr(sampling_module, "rank_and_world_size", lambda rank=rank: (rank, 3))
        drawn = PoissonBatches([torch.arange(20)], config(rate=0.5, steps=80), persons=np.arange(20) // 2)
        seen.append({int(value) for batch in drawn for value in batch.columns[0]})
    assert set.union(*seen) == set(range(20))
    assert sum(map(len, seen)) == 20


def test_a_batch_does_not_print_its_rows() -> None:
    (batch,) = PoissonBatches([torch.tensor([12345.0])], config(rate=1.0, steps=1))
    assert repr(batch) == str(batch) == "PrivateBatch(…)"


def test_sources_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of rows"):
        PoissonBatches([torch.arange(3), torch.arange(4)], config())
    with pytest.raises(ValueError, match="same number of rows"):
        PoissonBatches([], config())
    for persons in (np.zeros(3), np.zeros(2, dtype=int)):
        with pytest.raises(ValueError, match="whole numbers"):
            PoissonBatches([torch.arange(3)], config(), persons=persons)
    with pytest.raises(ValueError, match="probability"):
        SecureStream().coins(3, 1.5)


def test_coins_at_the_ends() -> None:
    stream = SecureStream()
    assert not stream.coins(10_000, 0.0).any()
    assert stream.coins(10_000, 1.0).all()
