"""Utility and detection on tables whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from synth.errors import UserError
from synth.evaluate.internal import models
from synth.evaluate.internal.detection import detection
from synth.evaluate.internal.utility import default_subgroups, utility

Draw = Callable[[int, int], np.ndarray]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten trees instead of a hundred: what is tested is the wiring."""
    for name in ("RandomForestClassifier", "RandomForestRegressor"):
        forest = getattr(models, name)
        monkeypatch.setattr(models, name, lambda trees, forest=forest, **options: forest(trees // 10, **options))


class TestUtility:
    def test_good_rows_teach_and_shuffled_rows_do_not(self, codecs: Any, people: Draw) -> None:
        training, test, good = (people(500, seed) for seed in (1, 2, 3))
        poor = good.copy()
        poor[:, 5] = np.random.default_rng(0).permutation(poor[:, 5])
        first = utility(test, good, training, codecs, target="died")
        second = utility(test, poor, training, codecs, target="died")
        assert (first.metric, first.training_rows, first.test_rows) == ("AUC", 500, 500)
        for fair, unfair in zip(first.models, second.models, strict=True):
            assert fair.score.real == unfair.score.real
            assert (
                fair.score.real is not None and fair.score.synthetic is not None and unfair.score.synthetic is not None
            )
            assert fair.score.real.value > 0.85 and fair.score.synthetic.value > 0.85
            assert unfair.score.synthetic.value < 0.65
        assert {score.label for score in first.classes} == {"False", "True"}
        assert sum(score.test_rows for score in first.classes) == 500
        assert {s.column for s in first.subgroups} == {"sex", "city"}
        assert sum(s.test_rows for s in first.subgroups if s.column == "sex") == 500

    def test_by_class_by_hand(self, codecs: Any, people: Draw) -> None:
        """Half of the held-out rows train where the learned rows are not at hand; a copy of them scores the same."""
        real = people(400, 1)
        found = utility(real, real[:200], None, codecs, target="died")
        assert found.real_training == "half of the held-out rows"
        assert (found.training_rows, found.test_rows) == (200, 200)
        for model in found.models:
            assert model.score.real == model.score.synthetic
        for scores in found.classes:
            for first, second in (scores.precision, scores.recall, scores.f1):
                assert first == second
            p, r = scores.precision[0], scores.recall[0]
            assert scores.f1[0] == pytest.approx(2 * p * r / (p + r))

    def test_a_missing_answer_is_a_class_of_several(self, codecs: Any, people: Draw) -> None:
        found = utility(people(300, 1), people(300, 2), people(300, 3), codecs, target="city", subgroups=["sex"])
        assert found.metric == "mean AUC"
        assert {score.label for score in found.classes} == {"Rome", "Oslo", "other", "missing"}
        assert {(s.column, s.level) for s in found.subgroups} == {("sex", "female"), ("sex", "male")}

    def test_a_target_on_a_line(self, codecs: Any, people: Draw) -> None:
        tables = [people(300, seed) for seed in (1, 2, 3)]
        for table in tables:
            table[:, 1] = np.where(np.isnan(table[:, 1]), np.nan, 100 * table[:, 0])
        found = utility(*tables, codecs, target="income")
        known = int((~np.isnan(tables[0][:, 1])).sum())
        assert (found.metric, found.test_rows, found.classes) == ("R²", known, ())
        assert all(m.score.synthetic is not None and m.score.synthetic.value > 0.9 for m in found.models)

    def test_refusals(self, codecs: Any, people: Draw) -> None:
        real = people(100, 1)
        constant = real.copy()
        constant[:, 5] = 1
        with pytest.raises(UserError, match="died has a single value"):
            utility(real, constant, real, codecs, target="died")
        with pytest.raises(UserError, match="the only column"):
            utility(real[:, 5:], real[:, 5:], None, {"died": codecs["died"]}, target="died")
        with pytest.raises(UserError, match="--subgroup age: is not a column of levels"):
            utility(real, real, real, codecs, target="died", subgroups=["age"])

    def test_default_subgroups(self, codecs: Any) -> None:
        assert default_subgroups(codecs, "died") == ("sex", "city")
        assert default_subgroups(codecs, "sex") == ("died", "city")


class TestDetection:
    def test_equal_tables_and_a_column_that_gives_it_away(self, codecs: Any, people: Draw) -> None:
        real, fake, training = (people(400, seed) for seed in (1, 2, 3))
        same = detection(real, fake, training, codecs, rng=np.random.default_rng(0))
        assert same.chance is not None
        for area in (*same.models.values(), *same.chance.values()):
            assert 0.4 < area.value < 0.6
        fake[:, 0] = 0
        found = detection(real, fake, None, codecs, rng=np.random.default_rng(0))
        assert found.models[models.BOOSTING].value > 0.9
        assert found.telltales[0].column == "age" and found.telltales[0].drop > 0.2
        assert found.chance is None and found.rows == 400
