"""Measurements as tensors, and Gaussian thinning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from synth.tables.class_pull import ClassPull
from synth.tables.measurements import Measurements
from synth.tables.targets import PSEUDO_WEIGHT, Encoding, Targets, encoding_of, targets_of
from synth.tables.triple_targets import TripleTargets


@pytest.fixture(scope="module")
def measured(hospital_run: tuple[Any, Measurements]) -> Measurements:
    return hospital_run[1]


@pytest.fixture(scope="module")
def targets(measured: Measurements) -> Targets:
    return targets_of(measured, encoding_of(measured))


class TestEncoding:
    def test_places(self) -> None:
        encoding = Encoding(names=("a", "b", "c"), sizes=(3, 1, 4))
        assert (encoding.offsets, encoding.width) == ((0, 3, 4), 8)
        assert [encoding.place(name) for name in "abc"] == [slice(0, 3), slice(3, 4), slice(4, 8)]

    def test_follows_the_bins(self, measured: Measurements) -> None:
        encoding = encoding_of(measured)
        assert encoding.names == tuple(measured.bin_of_cell)
        assert encoding.sizes == tuple(table.shape[1] for table in measured.one_way.values())


class TestTargets:
    def test_hold_what_was_measured_where_it_belongs(self, measured: Measurements, targets: Targets) -> None:
        encoding = encoding_of(measured)
        for name, table in measured.one_way.items():
            assert targets.one_way[:, encoding.place(name)].numpy() == pytest.approx(table, rel=1e-6)
            precision = measured.one_way_noise[name] ** -2
            assert targets.one_way_precision[:, encoding.place(name)].numpy() == pytest.approx(precision, rel=1e-6)
        for (a, b), table in measured.pairs.items():
            place = (encoding.place(a), encoding.place(b))
            if table.summed is not None:
                assert targets.pairs_summed[place].numpy() == pytest.approx(table.summed, rel=1e-6)
                assert targets.pairs_summed_precision[place].numpy() == pytest.approx(table.summed_noise**-2, rel=1e-5)
            if table.by_class is not None:
                assert targets.pairs is not None
                assert targets.pairs[(slice(None), *place)].numpy() == pytest.approx(table.by_class, rel=1e-6)

    def test_count_the_measured_cells(self, measured: Measurements, targets: Targets) -> None:
        ones = sum(table.size for table in measured.one_way.values())
        pairs = sum(t.size for p in measured.pairs.values() for t in (p.by_class, p.summed) if t is not None)
        triples = sum(table.noised.size for table in measured.triples.values())
        assert triples > 0
        assert targets.cells == ones + pairs + triples

    def test_hold_a_pair_once_above_the_diagonal(self, measured: Measurements, targets: Targets) -> None:
        precision = targets.pairs_summed_precision + targets.pseudo_precision
        if targets.pairs_precision is not None:
            precision = precision + targets.pairs_precision.sum(dim=0)
        assert float(precision.tril().abs().sum()) == 0
        for name in measured.bin_of_cell:
            at = encoding_of(measured).place(name)
            assert float(precision[at, at].abs().sum()) == 0

    def test_unmeasured_pairs_are_pulled_towards_independence(self, measured: Measurements) -> None:
        pairs = dict(list(measured.pairs.items())[:3])
        some = replace(measured, pairs=pairs)
        encoding = encoding_of(some)
        targets = targets_of(some, encoding)
        left = next(p for p in measured.pairs if p not in pairs)
        place = (encoding.place(left[0]), encoding.place(left[1]))
        profiles = [measured.profiles[name] for name in left]
        expected = np.einsum("c,ca,cb->ab", measured.class_sizes, *profiles)
        assert targets.pseudo[place].numpy() == pytest.approx(expected, rel=1e-5)
        median = np.median([table.best()[1] ** -2 for table in pairs.values()])
        assert targets.pseudo_precision[place].numpy() == pytest.approx(PSEUDO_WEIGHT * median, rel=1e-5)
        measured_place = tuple(encoding.place(name) for name in next(iter(pairs)))
        assert float(targets.pseudo_precision[measured_place].abs().sum()) == 0
        assert float(targets_of(measured, encoding).pseudo_precision.abs().sum()) == 0


class TestProfiles:
    def test_are_distributions_within_every_class(self, measured: Measurements) -> None:
        for name in measured.bin_of_cell:
            profile = measured.profiles[name]
            assert (profile > 0).all()
            assert profile.sum(axis=1) == pytest.approx(1)


T = 0.4
NO_TRIPLES = TripleTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), (), ())


@pytest.fixture(scope="module")
def noises() -> tuple[torch.Tensor, torch.Tensor, float]:
    """Both halves' noises around a truth of zero, over many cells measured with noise s."""
    generator = torch.Generator().manual_seed(0)
    cells, s = 200_000, 3.0
    shape = (1, cells)
    y = s * torch.randn(shape, generator=generator)
    targets = Targets(
        class_sizes=torch.ones(1),
        one_way=y,
        one_way_precision=torch.full(shape, s**-2),
        pairs=None,
        pairs_precision=None,
        pairs_summed=torch.zeros(1, 1),
        pairs_summed_precision=torch.zeros(1, 1),
        pseudo=torch.zeros(1, 1),
        pseudo_precision=torch.zeros(1, 1),
        class_pull=ClassPull(torch.ones(1), torch.zeros(1, 1), torch.zeros(1, 1)),
        triples=NO_TRIPLES,
        cells=cells,
    )
    fit, check = targets.thinned(T, generator)
    assert float(fit.one_way_precision[0, 0]) == pytest.approx(1 / (s**2 * (1 + T**2)))
    assert float(check.one_way_precision[0, 0]) == pytest.approx(1 / (s**2 * (1 + T**-2)))
    return fit.one_way[0], check.one_way[0], s


class TestThinning:
    """y + t·s·e and y - s·e/t: two noisy versions of the truth whose noises are independent."""

    def test_means(self, noises: tuple[torch.Tensor, torch.Tensor, float]) -> None:
        for half in noises[:2]:
            assert abs(float(half.mean())) < 5 * float(half.std()) / len(half) ** 0.5

    def test_variances(self, noises: tuple[torch.Tensor, torch.Tensor, float]) -> None:
        fit, check, s = noises
        assert float(fit.var()) == pytest.approx(s**2 * (1 + T**2), rel=0.02)
        assert float(check.var()) == pytest.approx(s**2 * (1 + T**-2), rel=0.02)

    def test_they_are_uncorrelated(self, noises: tuple[torch.Tensor, torch.Tensor, float]) -> None:
        correlation = float(torch.corrcoef(torch.stack(noises[:2]))[0, 1])
        assert abs(correlation) < 5 / len(noises[0]) ** 0.5

    def test_what_was_not_measured_gets_no_noise(self, measured: Measurements) -> None:
        some = replace(measured, pairs=dict(list(measured.pairs.items())[:2]))
        targets = targets_of(some, encoding_of(some))
        for half in targets.thinned(T, torch.Generator().manual_seed(1)):
            unmeasured = targets.pairs_summed_precision == 0
            assert float(half.pairs_summed[unmeasured].abs().sum()) == 0
            assert float(half.pairs_summed_precision[unmeasured].abs().sum()) == 0
            assert torch.equal(half.pseudo, targets.pseudo)

    def test_it_is_a_draw(self, targets: Targets) -> None:
        halves = [targets.thinned(T, torch.Generator().manual_seed(seed))[0].one_way for seed in (1, 2, 1)]
        assert not torch.equal(halves[0], halves[1])
        assert torch.equal(halves[0], halves[2])
