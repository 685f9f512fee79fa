"""The targets of a wide table: the same loss as with matrices, column by column."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from synth.schema import Schema
from synth.tables import plan
from synth.tables.block_targets import BlockTargets, block_targets_of, squared_norm
from synth.tables.measurements import Measurements, PairTable, TripleTable
from synth.tables.targets import Encoding, Targets, encoding_of, targets_of
from synth.tables.train import FitSettings, fit, moments_of

TRIPLE = ("sex", "city", "age")
LEFT_OUT = (("sex", "smoker"), ("city", "age"))


@pytest.fixture(scope="module", params=["both", "by class", "summed"])
def measured(request: pytest.FixtureRequest, toy_run: Any, schema_of: Callable[..., Schema]) -> Measurements:
    """Four columns of different widths, four of whose six pairs are measured, each with a noise of its own."""
    run = toy_run(schema_of("sex", "city", "smoker", "age", "died", target="died"), epsilon=3.0 - 1e-3)
    rng = np.random.default_rng(0)
    cells = (("male", "female"), ("Rome", "Oslo", None), ("true", "false", None), ("5", "40", "41", "80"))
    people = [
        run.codes_of((*(row[rng.integers(len(row))] for row in cells), "true" if rng.random() < 0.4 else "false"), i)
        for i in range(500)
    ]
    measured: Measurements = run.measure(people)[1]
    pairs = {}
    for pair, factor in zip(measured.pairs, (1.0, 2.0, 0.5, 3.0, 1.5, 0.7), strict=True):
        by_class = _depending(measured, pair, rng)
        pairs[pair] = {
            "both": PairTable(by_class, 3 * factor, by_class.sum(axis=0) + 1, 2 * factor),
            "by class": PairTable(by_class, 3 * factor, None, 0.0),
            "summed": PairTable(None, 0.0, by_class.sum(axis=0), 2 * factor),
        }[request.param]
    groups = {name: np.arange(measured.profiles[name].shape[1]) // 2 for name in TRIPLE}
    triple = rng.normal(50, 20, size=[int(lookup.max()) + 1 for lookup in groups.values()])
    return replace(
        measured,
        pairs={pair: table for pair, table in pairs.items() if pair not in LEFT_OUT},
        group_of_bin=groups,
        triples={TRIPLE: TripleTable(triple, 30.0)},
    )


def _depending(measured: Measurements, pair: tuple[str, str], rng: np.random.Generator) -> np.ndarray:
    """A table [classes, bins, bins] of two columns that depend on each other, with about the counts that each has."""
    first, second = (measured.profiles[name] for name in pair)
    u, v = (rng.choice([-1.0, 1.0], size=shares.shape[1]) for shares in (first, second))
    table = measured.class_sizes[:, None, None] * first[:, :, None] * second[:, None, :]
    return np.asarray(table * (1 + 0.8 * np.outer(u, v)) + rng.normal(0, 2, size=table.shape))


@pytest.fixture(scope="module")
def encoding(measured: Measurements) -> Encoding:
    return encoding_of(measured)


@pytest.fixture(scope="module")
def both(measured: Measurements, encoding: Encoding) -> tuple[Targets, BlockTargets]:
    return targets_of(measured, encoding), block_targets_of(measured, encoding)


@pytest.fixture(scope="module")
def shares(encoding: Encoding) -> torch.Tensor:
    logits = torch.randn(2, 7, encoding.width, generator=torch.Generator().manual_seed(3))
    return torch.cat([part.softmax(dim=2) for part in logits.split(encoding.sizes, dim=2)], dim=2)


Both = tuple[Targets, BlockTargets]


@pytest.mark.parametrize("with_pseudo", [True, False])
def test_the_loss_and_its_gradient_are_those_of_matrices(both: Both, shares: torch.Tensor, with_pseudo: bool) -> None:
    found = []
    for targets in both:
        at = shares.clone().requires_grad_()
        loss = targets.loss(at, with_pseudo=with_pseudo)
        loss.backward()
        found.append((float(loss.detach()), at.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-3 * float(found[0][1].abs().max()))
    assert both[0].cells == both[1].cells


def test_the_squared_norm_of_a_matrix_that_is_never_formed() -> None:
    rows, signs = torch.randn(5, 9, generator=torch.Generator().manual_seed(1)), torch.tensor([1.0, 1, -1, 1, -1])
    formed = rows.T @ torch.diag(signs) @ rows
    assert float(squared_norm(rows, signs)) == pytest.approx(float(formed.square().sum()), rel=1e-5)


def test_unmeasured_pairs_alone_are_pulled(
    both: Both, shares: torch.Tensor, measured: Measurements, encoding: Encoding
) -> None:
    pulls = [float(targets.loss(shares, with_pseudo=True) - targets.loss(shares)) for targets in both]
    assert pulls[0] == pytest.approx(pulls[1], rel=1e-4)
    assert both[1].pseudo_precision > 0
    sizes = dict(zip(encoding.names, encoding.sizes, strict=True))
    every = {
        (a, b): PairTable(None, 0.0, np.zeros((sizes[a], sizes[b])), 1.0)
        for a, b in itertools.combinations(encoding.names, 2)
    }
    assert block_targets_of(replace(measured, pairs=every), encoding).pseudo_precision == 0


def test_thinning_splits_the_noise_and_keeps_the_value(both: Both) -> None:
    t = 0.4
    _, targets = both
    fitted, check = targets.thinned(t, torch.Generator().manual_seed(0))
    for whole, one, other in zip(targets.blocks, fitted.blocks, check.blocks, strict=True):
        for name in ("by_class", "summed"):
            value = getattr(whole, name)
            if value is None:
                assert getattr(one, name) is getattr(other, name) is None
                continue
            # y + t·s·e and y − s·e/t: t times the second and the first over t give the value back.
            again = (getattr(one, name) / t + t * getattr(other, name)) / (t + 1 / t)
            assert torch.allclose(again, value, atol=1e-3)
            precision = getattr(whole, f"{name}_precision")
            assert torch.allclose(getattr(one, f"{name}_precision"), precision / (1 + t * t))
            assert torch.allclose(getattr(other, f"{name}_precision"), precision / (1 + 1 / (t * t)))


def test_the_noise_of_triples_is_split_too(both: Both) -> None:
    t = 0.4
    for targets in both:
        halves = targets.thinned(t, torch.Generator().manual_seed(0))
        whole, fitted, check = (one.triples.blocks[0] for one in (targets, *halves))
        assert not torch.allclose(fitted.value, whole.value)
        assert torch.allclose((fitted.value / t + t * check.value) / (t + 1 / t), whole.value, atol=1e-3)
        assert torch.allclose(fitted.precision, whole.precision / (1 + t * t))
        assert torch.allclose(check.precision, whole.precision / (1 + 1 / (t * t)))


def test_held_where_the_generators_are_nothing_pulls(both: Both, shares: torch.Tensor) -> None:
    held = both[1].held(shares)
    assert float(held.loss(shares)) == pytest.approx(0, abs=1e-5)
    assert float(both[1].loss(shares)) > 1


def test_a_wide_table_is_fitted_as_well(measured: Measurements, encoding: Encoding, tmp_path: Path) -> None:
    settings = FitSettings(
        members=1, steps=120, latent_points=16, hidden_size=16, learning_rate=1e-2, accelerator="cpu", threads=1
    )
    matrices = fit(measured, settings, checkpoints=tmp_path / "matrices")
    with patch.object(plan, "MAX_MATRIX_BYTES", 0):
        assert isinstance(moments_of(measured, encoding), BlockTargets)
        blocks = fit(measured, settings, checkpoints=tmp_path / "blocks")
    assert isinstance(moments_of(measured, encoding), Targets)
    targets = targets_of(measured, encoding)
    even = torch.cat([torch.full((2, 1, size), 1 / size) for size in encoding.sizes], dim=2)
    assert max(blocks.chi, matrices.chi) < 0.3 * float(targets.loss(even)) / targets.cells
    assert blocks.chi == pytest.approx(matrices.chi, rel=0.3)  # the fits differ by their seeds alone
