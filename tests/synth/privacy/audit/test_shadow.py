"""Shadow tables: thresholds are chosen on one half, and an attack on a pipeline without noise is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth.privacy.audit import one_run, shadow
from synth.privacy.audit.bounds import shadow_epsilon
from synth.privacy.audit.canaries import draw_canaries
from synth.privacy.audit.one_run import codes_of
from synth.privacy.noise import NoiseSource
from synth.schema import Schema
from synth.tables.codec import codecs_of
from synth.tables.encode import encode
from synth.tables.layout import layout_of, plan_of
from synth.tables.train import FitSettings

FIT = FitSettings(members=1, steps=2, latent_points=8, hidden_size=8, learning_rate=3e-3, accelerator="cpu", threads=1)


class NoNoise(NoiseSource):
    def standard_normal(self, count: int) -> np.ndarray:
        return np.zeros(count)


def test_a_pipeline_without_noise_is_seen_through(
    schema_of: Callable[..., Schema], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record's own cells are off by exactly one: every repetition is told apart, none by chance."""
    monkeypatch.setattr(one_run, "NoiseSource", NoNoise)
    found_by_fits, fit = [], shadow.fit

    def watched(*args: Any, checkpoints: Path) -> Any:
        found_by_fits.append(list(checkpoints.iterdir()))
        return fit(*args, checkpoints=checkpoints)

    monkeypatch.setattr(shadow, "fit", watched)
    schema = schema_of("age", "sex", "died", target="died")
    codecs = codecs_of(schema)
    layout = layout_of(schema, codecs)
    plan = plan_of(layout, codecs, epsilon=1.0, delta=1e-5)
    base, done = tmp_path / "base.arrow", []
    encode([draw_canaries(schema, codecs, count=60, rng=np.random.default_rng(1)).records], codecs, base)
    found = shadow.shadow_audit(
        base,
        schema,
        layout=layout,
        mechanism=one_run.measuring(schema, layout, plan, one_run.free),
        settings=FIT,
        delta=1e-5,
        folder=tmp_path,
        repetitions=8,
        progress=done.append,
    )
    assert done == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found_by_fits == [[]] * 8  # else a fit would go on from the one before
    assert [attack.sees for attack in found.attacks] == [shadow.MEASUREMENTS, shadow.MODEL, shadow.ROWS]
    measured = found.attacks[0]
    assert (measured.true_positives, measured.members) == (2, 2)
    assert (measured.false_positives, measured.non_members) == (0, 2)


def test_thresholds_come_from_the_first_half_alone() -> None:
    held = np.array([True, False] * 10)
    telling = np.where(held, 1.0, 0.0)
    # On the judging half the scores are shifted: a threshold chosen there would tell all of them apart.
    shifted = shadow.judged("x", telling, held, telling + 10, held, delta=1e-5)
    assert (shifted.true_positives, shifted.false_positives) == (10, 10)
    assert shifted.epsilon_lower_bound == 0
    # Halfway between the tried scores, so that scores a little lower or higher than those are told apart all the same.
    blurred = shadow.judged("x", telling, held, np.where(held, 0.6, 0.4), held, delta=1e-5)
    assert (blurred.true_positives, blurred.false_positives) == (10, 0)
    alike = shadow.judged("x", np.zeros(20), held, np.zeros(20), held, delta=1e-5)
    assert (alike.true_positives, alike.false_positives, alike.epsilon_lower_bound) == (10, 10, 0)
    straight = shadow.judged("x", telling, held, telling, held, delta=1e-5)
    assert (straight.true_positives, straight.false_positives) == (10, 0)
    assert straight.epsilon_lower_bound == shadow_epsilon(10, 0, 10, 10, delta=1e-5, confidence=shadow.EACH)


def test_the_record_is_what_the_known_rows_show_least(schema_of: Callable[..., Schema], tmp_path: Path) -> None:
    schema = schema_of("age", "sex", "city")
    codecs = codecs_of(schema)
    many = draw_canaries(schema, codecs, count=3000, rng=np.random.default_rng(2)).records
    column = many.column("sex").to_pylist()
    kept = many.take(np.flatnonzero([sex == "male" for sex in column]))
    encode([kept], codecs, tmp_path / "base.arrow")
    record = shadow.rarest_record(codes_of(tmp_path / "base.arrow", codecs), codecs, np.random.default_rng(3))
    assert record.column("sex").to_pylist() == ["female"]
    assert record.num_rows == 1


def test_rows_near_the_record_raise_its_score(schema_of: Callable[..., Schema]) -> None:
    codecs = codecs_of(schema_of("age", "sex"))
    record = {"cells:age": np.array([50], np.int32), "cells:sex": np.array([0], np.int32)}

    def score(age: int, sex: int) -> float:
        return shadow.rows_score({"cells:age": np.array([age]), "cells:sex": np.array([sex])}, record, codecs)

    assert [score(50, 0), score(53, 0), score(54, 0), score(10, 1)] == [4.0, 4.0, 2.0, 1.0]


@pytest.mark.parametrize("repetitions", [0, 4, 10])
def test_repetitions_that_cannot_be_halved_twice_are_refused(
    schema_of: Callable[..., Schema], tmp_path: Path, repetitions: int
) -> None:
    schema = schema_of("age")
    layout = layout_of(schema, codecs_of(schema))
    with pytest.raises(ValueError, match="multiple of 4"):
        shadow.shadow_audit(
            tmp_path / "none",
            schema,
            layout=layout,
            mechanism=lambda _: pytest.fail("nothing is run"),
            settings=FIT,
            delta=1e-5,
            folder=tmp_path,
            repetitions=repetitions,
        )
