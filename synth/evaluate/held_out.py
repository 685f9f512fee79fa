"""The public score on held-out people: how often a classifier trained on synthetic rows is right about them.

The recipe is fixed and public: gradient boosting as in the internal report, on at most MOST_TRAINING_ROWS synthetic
rows, predicts the class of every held-out row from all other columns. How many rows it gets right and wrong is counted
exactly and noised once, jointly. A prediction depends on its own row alone, and a person with m rows is in one part
whole, so one person more or less moves the pair by at most m in L1, and so in L2. Everything else here is
post-processing of the noised pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from synth.facts import HeldOutFacts
from synth.tables.codec import Codec
from synth.tables.count import Codes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_TRAINING_ROWS = 20_000
CONFIDENCE = 0.95
RECIPE = "gradient boosting (scikit-learn's HistGradientBoostingClassifier with its defaults)"


class Classifier:
    """Predicts a row's class from its other columns; the recipe above."""

    def __init__(
        self, synthetic: Iterable[Codes], codecs: Mapping[str, Codec], *, target: str, class_of_cell: IntArray
    ) -> None:
        """Train on synthetic rows.

        Args:
            synthetic: codes of the cells of every column of at least one synthetic row, batch by batch.
            codecs: codecs of the learned columns.
            target: the column whose class is predicted.
            class_of_cell: class of each of the target's cells.
        """
        from synth.evaluate.internal.models import BOOSTING, classifiers, fitted  # scikit-learn takes seconds to load

        self._target, self._class_of_cell = target, class_of_cell
        self._codecs = {name: codec for name, codec in codecs.items() if name != target}
        parts = [(self._features(codes), self._classes(codes)) for codes in synthetic]
        features, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.training_rows = len(classes)
        self._known, often = np.unique(classes, return_counts=True)
        self._usual = self._known[often.argmax()]
        self._told = ~np.isnan(features).all(axis=0)  # boosting fails on a column that is missing throughout
        self._model: Any = None
        if len(self._known) > 1 and self._told.any():  # else the usual class is all there is to say
            ordered = np.array([codec.ordered for codec in self._codecs.values()])
            told = self._told
            self._model = fitted(classifiers()[BOOSTING], features[:, told], classes, ordered[told])

    def predict(self, codes: Codes) -> IntArray:
        """The likeliest class of each row, given its codes [rows]."""
        features = self._features(codes)
        if self._model is None or len(features) == 0:
            return np.full(len(features), self._usual)
        # Sums over trees, row by row. Not probabilities: an exponential may differ in its last bit with the place
        # that a row has in the batch, and somebody else's row would then decide a tie.
        scores = np.asarray(self._model.decision_function(features[:, self._told]))
        best = scores > 0 if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self._known[best.astype(np.int64)])

    def count(self, batches: Iterable[Codes]) -> IntArray:
        """How many rows of the working file it gets right, and how many wrong [2]. Private."""
        pair = np.zeros(2, dtype=np.int64)
        for codes in batches:
            right = self.predict(codes) == self._classes(codes)
            pair += (int(right.sum()), int((~right).sum()))
        return pair

    def _classes(self, codes: Codes) -> IntArray:
        return self._class_of_cell[codes[f"cells:{self._target}"]]

    def _features(self, codes: Codes) -> FloatArray:
        columns = []
        for name, codec in self._codecs.items():
            column = codes[f"cells:{name}"].astype(np.float64)
            columns.append(column if codec.missing is None else np.where(column == codec.missing, np.nan, column))
        return np.column_stack(columns)


@dataclass(frozen=True)
class Accuracy:
    """The share of rows that are right, as far as the noise lets it be known: `value` is None where it drowns it."""

    value: float | None
    low: float
    high: float


def accuracy_of(correct: float, wrong: float, noise_scale: float, *, confidence: float = CONFIDENCE) -> Accuracy:
    """The accuracy of the held-out rows from the noised pair, with an interval for what the noise alone makes unsure.

    Fieller's (1954): with the true share p of right rows, correct·(1 − p) − wrong·p is Gaussian noise of scale
    noise_scale·√(p² + (1 − p)²), whatever the number of rows; the interval holds every p in [0, 1] for which that is
    within its quantile. It covers p with at least `confidence`; where the pair is not told from no rows at all, it is
    the whole of [0, 1].
    """
    total, slack = correct + wrong, (float(norm.ppf(0.5 + confidence / 2)) * noise_scale) ** 2
    if total <= 0 or total**2 <= 2 * slack:
        return Accuracy(None, 0.0, 1.0)
    # (total² − 2·slack)·p² − 2·(total·correct − slack)·p + correct² − slack ≤ 0
    a, b, c = total**2 - 2 * slack, total * correct - slack, correct**2 - slack
    root = math.sqrt(max(0.0, b * b - a * c))
    low, high = (min(1.0, max(0.0, (b + sign * root) / a)) for sign in (-1, 1))
    return Accuracy(min(1.0, max(0.0, correct / total)), low, high)


def sampling_error(accuracy: Accuracy, rows: float, max_rows_per_person: int) -> float | None:
    """Standard deviation, at most, of the accuracy over draws of as many other people; rows of one may go together."""
    if accuracy.value is None:
        return None
    return math.sqrt(accuracy.value * (1 - accuracy.value) * max_rows_per_person / rows)


def held_out_facts(
    correct: float,
    wrong: float,
    *,
    noise_scale: float,
    holdout: float | None,
    target: str,
    class_sizes: FloatArray,
    training_rows: int,
    max_rows_per_person: int,
) -> HeldOutFacts:
    """What is published of the noised pair.

    Args:
        correct: noised number of right rows; wrong: of wrong ones; noise_scale: of either.
        holdout: the chance to be held out; None for people from a file of their own.
        target: what was predicted.
        class_sizes: noised sizes of its classes in training, which are paid for.
        training_rows: synthetic rows that the classifier learned from.
        max_rows_per_person: m.
    """
    accuracy = accuracy_of(correct, wrong, noise_scale)
    return HeldOutFacts(
        holdout=holdout,
        target=target,
        recipe=RECIPE,
        training_rows=training_rows,
        correct=correct,
        wrong=wrong,
        noise_scale=noise_scale,
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        confidence=CONFIDENCE,
        sampling_error=sampling_error(accuracy, correct + wrong, max_rows_per_person),
        base_rate=float(class_sizes.max() / class_sizes.sum()),
    )
