"""Utility: models trained on synthetic rows and on real rows, both tested on the same real rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score, precision_score, r2_score, recall_score, roc_auc_score

from synth.errors import UserError
from synth.evaluate.internal.intervals import Estimate, area_under_curve
from synth.evaluate.internal.models import BOOSTING, classifiers, fitted, regressors
from synth.evaluate.internal.rows import is_ordered
from synth.tables.codec import Codec, LevelCodec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_TRAINING_ROWS = 20_000
MOST_SUBGROUP_COLUMNS = 4
MOST_SUBGROUP_LEVELS = 8
FEWEST_SUBGROUP_ROWS = 30
MOST_CLASSES = 30


@dataclass(frozen=True)
class Score:
    """A model's score after training on real rows and on synthetic rows, with an interval where there is one."""

    real: Estimate | None
    synthetic: Estimate | None


@dataclass(frozen=True)
class ModelScore:
    """One model."""

    model: str
    score: Score


@dataclass(frozen=True)
class ClassScore:
    """One class of the target, for the boosting model; every figure is (trained on real, trained on synthetic)."""

    label: str
    test_rows: int
    precision: tuple[float, float]
    recall: tuple[float, float]
    f1: tuple[float, float]


@dataclass(frozen=True)
class SubgroupScore:
    """One level of a subgroup column, for the boosting model."""

    column: str
    level: str
    test_rows: int
    score: Score


@dataclass(frozen=True)
class Utility:
    """Train on synthetic, test on real, beside real on real.

    Attributes:
        metric: "AUC" (binary), "mean AUC" (each class against the rest) or "R²".
        training_rows: rows of either kind that the models learned from; test_rows: real rows they were tested on.
        real_training: where the real training rows came from.
    """

    target: str
    metric: str
    training_rows: int
    test_rows: int
    real_training: Literal["training source", "half of the held-out rows"]
    models: tuple[ModelScore, ...]
    classes: tuple[ClassScore, ...]
    subgroups: tuple[SubgroupScore, ...]


def utility(
    real: FloatArray,
    synthetic: FloatArray,
    training: FloatArray | None,
    codecs: Mapping[str, Codec],
    *,
    target: str,
    subgroups: Sequence[str] = (),
) -> Utility:
    """Scores of several models. Raises UserError when there is too little of a target to learn.

    Args:
        real, synthetic, training: [rows, columns] sampled rows; without training rows, half of the real rows train.
        codecs: codecs of the columns, in order.
        target: the column to predict; subgroups: columns whose levels are scored one by one (default: a choice).
    """
    halved = training is None
    learn, test = (real[: len(real) // 2], real[len(real) // 2 :]) if training is None else (training, real)
    task = _Task(codecs, target, [learn, synthetic, test])
    rows = min(MOST_TRAINING_ROWS, *(len(task.of(table)[1]) for table in (learn, synthetic)))
    teachers = [tuple(part[:rows] for part in task.of(table)) for table in (learn, synthetic)]
    features, answers = task.of(test)
    task.refuse_unless_learnable([*(teacher[1] for teacher in teachers), answers])
    models, boosted = [], []
    for name, make in (classifiers() if task.levels else regressors()).items():
        trained = [fitted(make, x, y, task.ordered) for x, y in teachers]
        predictions = [task.predict(model, features) for model in trained]
        models.append(ModelScore(name, Score(*(task.score(answers, found) for found in predictions))))
        if name == BOOSTING:
            boosted = predictions
    return Utility(
        target=target,
        metric=task.metric,
        training_rows=rows,
        test_rows=len(answers),
        real_training="half of the held-out rows" if halved else "training source",
        models=tuple(models),
        classes=task.by_class(answers, boosted),
        subgroups=_by_subgroup(task, test, answers, boosted, subgroups or default_subgroups(codecs, target)),
    )


def default_subgroups(codecs: Mapping[str, Codec], target: str) -> tuple[str, ...]:
    """The first columns of levels that are neither the target nor many-valued."""
    few = [
        name
        for name, codec in codecs.items()
        if isinstance(codec, LevelCodec) and name != target and 2 <= codec.size <= MOST_SUBGROUP_LEVELS
    ]
    return tuple(sorted(few, key=lambda name: codecs[name].size)[:MOST_SUBGROUP_COLUMNS])


class _Task:
    """What is predicted from what."""

    def __init__(self, codecs: Mapping[str, Codec], target: str, tables: Sequence[FloatArray]) -> None:
        self.codecs, self.target = codecs, target
        self.column = list(codecs).index(target)
        codec = codecs[target]
        self.levels = isinstance(codec, LevelCodec)
        self.labels: tuple[str, ...] = ()
        if isinstance(codec, LevelCodec):
            self.labels = (*(str(level) for level in codec.levels), "missing")
        self.ordered = np.delete(is_ordered(codecs), self.column)
        known = np.unique(np.concatenate([self._answers(table) for table in tables]))
        self.binary = self.levels and len(known) == 2
        self.positive = float(known[-1])  # the later level in the schema's order
        self.metric = "AUC" if self.binary else "mean AUC" if self.levels else "R²"

    def of(self, table: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Features and answers of a table; a missing answer is a class, or no answer on a line."""
        answers = self._answers(table)
        kept = ~np.isnan(answers)
        return np.delete(table, self.column, axis=1)[kept], answers[kept]

    def known(self, table: FloatArray) -> FloatArray:
        """The rows of a table that have an answer."""
        return table[~np.isnan(self._answers(table))]

    def _answers(self, table: FloatArray) -> FloatArray:
        found = table[:, self.column]
        return np.where(np.isnan(found), len(self.labels) - 1, found) if self.levels else found

    def refuse_unless_learnable(self, answers: Sequence[FloatArray]) -> None:
        if self.ordered.size == 0:
            raise UserError("utility: the target is the only column")
        if min(len(np.unique(found)) for found in answers) < 2:
            raise UserError(f"utility: {self.target} has a single value in one of the tables")
        if self.levels and len(self.labels) > MOST_CLASSES:
            raise UserError(f"utility: {self.target} has more than {MOST_CLASSES} classes")

    def predict(self, model: Any, features: FloatArray) -> FloatArray:
        """Probabilities [rows, labels] of levels, or the predicted value [rows]."""
        if not self.levels:
            return np.asarray(model.predict(features), dtype=np.float64)
        found = np.zeros((len(features), len(self.labels)))
        found[:, model.classes_.astype(np.int64)] = model.predict_proba(features)
        return found

    def score(self, answers: FloatArray, found: FloatArray) -> Estimate | None:
        """The metric; None where the rows at hand do not hold two classes."""
        classes = np.unique(answers)
        if not self.levels:
            value = float(r2_score(answers, found)) if len(classes) > 1 else 0.0
            return Estimate(value, value, value)
        if len(classes) < 2:
            return None
        if self.binary:
            risk = found[:, int(self.positive)]
            return area_under_curve(risk[answers == self.positive], risk[answers != self.positive])
        areas = [roc_auc_score(answers == label, found[:, int(label)]) for label in classes]
        value = float(np.mean(areas))
        return Estimate(value, value, value)

    def by_class(self, answers: FloatArray, predictions: Sequence[FloatArray]) -> tuple[ClassScore, ...]:
        if not self.levels:
            return ()
        guesses = [found.argmax(axis=1) for found in predictions]
        scores = []
        for label in np.unique(answers).astype(int):
            truth = answers == label

            def both(metric: Any, truth: npt.NDArray[np.bool_] = truth, label: int = label) -> tuple[float, float]:
                first, second = (float(metric(truth, guess == label, zero_division=0.0)) for guess in guesses)
                return first, second

            scores.append(
                ClassScore(
                    self.labels[label], int(truth.sum()), both(precision_score), both(recall_score), both(f1_score)
                )
            )
        return tuple(scores)


def _by_subgroup(
    task: _Task, test: FloatArray, answers: FloatArray, predictions: Sequence[FloatArray], columns: Sequence[str]
) -> tuple[SubgroupScore, ...]:
    scores = []
    known = task.known(test)
    for name in columns:
        codec, values = task.codecs[name], known[:, list(task.codecs).index(name)]
        if not isinstance(codec, LevelCodec):
            raise UserError(f"--subgroup {name}: is not a column of levels; name a categorical or boolean column")
        for i, level in enumerate(codec.levels):
            chosen = values == i
            if chosen.sum() >= FEWEST_SUBGROUP_ROWS:
                both = (task.score(answers[chosen], found[chosen]) for found in predictions)
                scores.append(SubgroupScore(name, str(level), int(chosen.sum()), Score(*both)))
    return tuple(scores)
