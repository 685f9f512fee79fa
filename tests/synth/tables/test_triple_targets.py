"""Tables of three columns arranged for the fit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synth.tables.measurements import Measurements
from synth.tables.targets import Encoding, encoding_of
from synth.tables.triple_targets import TripleTargets, shared_pairs, triple_targets_of

EVERY = [*itertools.combinations("abcdef", 3)]


@given(st.lists(st.sampled_from(EVERY), unique=True))
def test_each_triple_is_with_one_of_its_pairs(triples: list[tuple[str, str, str]]) -> None:
    shared = shared_pairs(triples)
    assert sorted(triple for own in shared.values() for triple in own) == sorted(triples)
    assert all(set(pair) < set(triple) for pair, own in shared.items() for triple in own)


def test_a_pair_that_many_have_is_held_once() -> None:
    triples = [("a", "b", "c"), ("a", "b", "d"), ("a", "c", "d"), ("a", "b", "e")]
    assert shared_pairs(triples) == {
        ("a", "b"): (("a", "b", "c"), ("a", "b", "d"), ("a", "b", "e")),
        ("a", "c"): (("a", "c", "d"),),
    }


@pytest.fixture(scope="module")
def measured(hospital_run: tuple[Any, Measurements]) -> Measurements:
    return hospital_run[1]


@pytest.fixture(scope="module")
def encoding(measured: Measurements) -> Encoding:
    return encoding_of(measured)


@pytest.fixture(scope="module")
def targets(measured: Measurements, encoding: Encoding) -> TripleTargets:
    return triple_targets_of(measured, encoding.names, encoding.sizes)


def test_what_generators_have_of_each_triple_stands_where_it_was_measured(
    measured: Measurements, encoding: Encoding, targets: TripleTargets
) -> None:
    """Generators that have exactly what was measured, by a sum over all bins of each triple's columns."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, encoding.width, generator=rng).double()
    shares = torch.cat([part.softmax(dim=2) for part in logits.split(encoding.sizes, dim=2)], dim=2)
    sizes = torch.tensor([60.0, 40.0]).double()
    held = targets.held(shares, sizes)
    assert float(held.loss(shares, sizes)) == pytest.approx(0, abs=1e-18)
    expected = 0.0
    for triple, table in measured.triples.items():
        sides = []
        for name in triple:
            member = np.eye(int(measured.group_of_bin[name].max()) + 1)[measured.group_of_bin[name]]
            sides.append(shares[:, :, encoding.place(name)].numpy() @ member)
        model = np.einsum("c,ckx,cky,ckz->xyz", sizes.numpy() / 5, *sides)
        expected += float(((model - table.noised) ** 2).sum()) / table.noise**2
    assert float(targets.loss(shares, sizes)) == pytest.approx(expected, rel=1e-4)


def test_cells_are_those_that_were_measured(measured: Measurements, targets: TripleTargets) -> None:
    assert targets.cells == sum(table.noised.size for table in measured.triples.values()) > 0
    assert len(targets.blocks) < len(measured.triples)
