"""Detection: how well a classifier tells synthetic rows from real ones; an AUC of 0.5 means not at all.

The classifier two-sample test (Lopez-Paz and Oquab 2017), scored out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

from synth.evaluate.internal.intervals import Estimate, area_under_curve
from synth.evaluate.internal.models import BOOSTING, LINEAR, Maker, classifiers, fitted
from synth.evaluate.internal.rows import is_ordered
from synth.tables.codec import Codec

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MOST_ROWS = 10_000
FOLDS = 3
MOST_COLUMNS_SHUFFLED = 60


@dataclass(frozen=True)
class Telltale:
    """How much the AUC falls when a column is shuffled: what the column gives away."""

    column: str
    drop: float


@dataclass(frozen=True)
class Detection:
    """AUC of telling the tables apart, by model; `chance` tells real rows from real rows."""

    rows: int
    models: dict[str, Estimate]
    chance: dict[str, Estimate] | None
    telltales: tuple[Telltale, ...]


def detection(
    real: FloatArray,
    synthetic: FloatArray,
    training: FloatArray | None,
    codecs: Mapping[str, Codec],
    *,
    rng: np.random.Generator,
) -> Detection:
    """Train the classifiers on equally many rows of either table, and on training against held-out rows."""
    tables = [real, synthetic] if training is None else [real, synthetic, training]
    rows = min(MOST_ROWS, *(len(table) for table in tables))
    ordered = is_ordered(codecs)
    makers = {name: make for name, make in classifiers().items() if name in (BOOSTING, LINEAR)}

    def told_apart(other: FloatArray) -> dict[str, Estimate]:
        return {name: _out_of_fold(make, real[:rows], other[:rows], ordered) for name, make in makers.items()}

    return Detection(
        rows=rows,
        models=told_apart(synthetic),
        chance=None if training is None else told_apart(training),
        telltales=_telltales(makers[BOOSTING], real[:rows], synthetic[:rows], ordered, list(codecs), rng),
    )


def _out_of_fold(make: Maker, real: FloatArray, other: FloatArray, ordered: BoolArray) -> Estimate:
    features, labels = np.concatenate([real, other]), np.repeat([0, 1], [len(real), len(other)])
    score = np.empty(len(labels))
    for learn, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        model = fitted(make, features[learn], labels[learn], ordered)
        score[test] = model.predict_proba(features[test])[:, 1]
    return area_under_curve(score[labels == 1], score[labels == 0])


def _telltales(
    make: Maker,
    real: FloatArray,
    synthetic: FloatArray,
    ordered: BoolArray,
    names: list[str],
    rng: np.random.Generator,
) -> tuple[Telltale, ...]:
    """Permutation importance (Breiman 2001) on a third of the rows that the model has not seen."""
    cut = len(real) * 2 // 3
    labels = np.repeat([0, 1], [cut, cut])
    model = fitted(make, np.concatenate([real[:cut], synthetic[:cut]]), labels, ordered)
    held = len(real) - cut

    def area(features: FloatArray) -> float:
        score = model.predict_proba(features)[:, 1]
        return area_under_curve(score[held:], score[:held]).value

    features = np.concatenate([real[cut:], synthetic[cut:]])
    whole = area(features)
    found = []
    for i, name in list(enumerate(names))[:MOST_COLUMNS_SHUFFLED]:
        shuffled = features.copy()
        shuffled[:, i] = rng.permutation(shuffled[:, i])
        found.append(Telltale(name, whole - area(shuffled)))
    return tuple(sorted(found, key=lambda t: -t.drop))
