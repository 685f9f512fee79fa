"""All of it on models of every odd kind: it never fails, and says nothing that is no number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.insight import insight_facts
from synth.schema import parse_schema
from synth.tables.codec import codecs_of


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """Which columns a table has, which is its target, how many classes and points; some classes and bins are empty."""
    names = draw(st.lists(st.sampled_from(["sex", "grade", "age", "seen"]), min_size=1, unique=True))
    return {
        "names": names,
        "target": draw(st.sampled_from([None, "died", *names[1:]])),
        "points": draw(st.sampled_from([1, 2, 9, 40])),
        "sharp": draw(st.sampled_from([0.02, 1.0, 1e4])),
        "one_bin": draw(st.booleans()),
        "empty_class": draw(st.booleans()),
        "noise": draw(st.sampled_from([0.5, 30.0, 5000.0])),
        "total": draw(st.sampled_from([1.0, 1000.0])),
        "pairs": draw(st.booleans()),
        "rules": [],
        "seed": draw(st.integers(0, 2**16)),
    }


@settings(max_examples=60)
@given(table=tables())
def test_of_any_model(hand: Any, table: dict[str, Any]) -> None:
    rng = np.random.default_rng(table["seed"])
    target, names = table["target"], table["names"]
    bins = dict(hand.bins)
    if table["one_bin"]:
        bins[names[0]] = [0] * len(bins[names[0]])
    columns = [c for c in hand.columns if c["name"] in {*names, target}]
    declared = parse_schema({"dataset": "hand", "target": target, "columns": columns}, file="s")
    numeric = target in names and codecs_of(declared)[target].ordered
    learned = [n for n in names if n != target or numeric] or names
    classes = 1 if target is None else max(bins[target]) + 1
    share = rng.dirichlet(np.ones(classes))
    if table["empty_class"] and classes > 1:
        share = np.append(0.0, share[1:] / share[1:].sum())
    points = {}
    for name in learned:
        size = max(bins[name]) + 1
        drawn = rng.dirichlet(np.full(size, table["sharp"]), (classes, table["points"]))
        points[name] = drawn
    model = hand.model(points, class_share=share, target=target, bins=bins)
    pairs = {
        (a, b): rng.normal(0, table["noise"], (max(bins[a]) + 1, max(bins[b]) + 1))
        for i, a in enumerate(model.encoding.names)
        for b in model.encoding.names[i + 1 :]
        if table["pairs"]
    }
    measured = hand.measured(model, total=table["total"], noise=table["noise"], pairs=pairs)
    found = insight_facts(measured, model)
    told = json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))
    for shift in found.contrast.shifts if found.contrast else ():
        assert 0 <= shift.distance <= 1 + 1e-6
    for pair in found.pairs:
        assert 0 <= pair.dependence <= 1 and pair.residual >= 0 and 0 < pair.share_error <= 1
    assert found.unmeasured >= 0
    if found.map is not None:
        assert len(found.map.groups) <= 6 and all(abs(x) <= 1 and abs(y) <= 1 for x, y, _, _ in found.map.points)
    assert insight_facts(measured, model).model_dump(mode="json") == told


def test_a_fault_costs_a_run_nothing_but_its_pictures(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any, hand: Any
) -> None:
    from synth.run_folder import RunFolder
    from synth.tables import stages

    def fail(*_: Any) -> Iterator[Any]:
        raise ValueError("a column of values")

    model = hand.model({"sex": [[[0.5, 0.5]]]}, target=None)
    folder = RunFolder(tmp_path)
    folder.model.mkdir(parents=True)
    model.save(folder.model)
    measured = hand.measured(model)
    found = stages._insight_facts(folder, measured)
    assert found is not None and found.pairs == ()
    monkeypatch.setattr(stages, "insight_facts", fail)
    assert stages._insight_facts(folder, measured) is None
    assert "pictures of the public report could not be made (ValueError)" in caplog.text
    assert "a column of values" not in caplog.text
