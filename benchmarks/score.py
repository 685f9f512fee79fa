"""Score a synthetic table against real training and test rows, the same way for every synthesizer.

    tvd1, tvd2, tvd3   mean total variation distance of all one-way, all two-way and 64 three-way marginals to the
                       training table, on 20-quantile bins; in [0, 1], 0 is perfect
    tvd2_max           the worst two-way distance
    auc_gbm, auc_lr    train on synthetic, test on real: area under the ROC curve of gradient boosting and of logistic
                       regression for the target (r2_gbm for a numeric target); f1_gbm, f1_lr: macro F1
    c2st, c2st_raw     two-sample test: how well boosting tells synthetic from real test rows, as an AUC; 0.5 is
                       perfect; on the bins, and on the values themselves

These numbers are computed on real rows, so they are for public data and for the steward's own eyes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BINS = 20
TRIPLES = 64
C2ST_ROWS = 8000
MOST_NATIVE_CATEGORIES = 250  # boosting's own limit on the levels of a categorical feature, less a margin
SEED = 0
DISTANCES = ("tvd1", "tvd2", "tvd3")
SPLITS = 8


@dataclass(frozen=True)
class Column:
    """A column as the scores see it: a number on a line (dates too), or one of a set of levels."""

    name: str
    numeric: bool


class Coder:
    """Integer codes of a table: 0 is missing; quantile bins of the training rows for numbers; levels otherwise."""

    def __init__(self, train: pd.DataFrame, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.edges: dict[str, FloatArray] = {}
        self.levels: dict[str, dict[str, int]] = {}
        for column in columns:
            cells = train[column.name]
            if column.numeric:
                quantiles = np.nanquantile(numbers(cells), np.linspace(0, 1, BINS + 1)[1:-1])
                self.edges[column.name] = np.unique(quantiles)
            else:
                found = sorted({spelled(cell) for cell in cells.dropna()})
                self.levels[column.name] = {level: i + 1 for i, level in enumerate(found)}

    def size(self, column: Column) -> int:
        """Number of codes; the last one of a categorical column is for levels unseen in training."""
        return len(self.edges[column.name] if column.numeric else self.levels[column.name]) + 2

    def codes(self, table: pd.DataFrame) -> dict[str, IntArray]:
        """The codes of a table, by column."""
        return {column.name: self._codes_of(table[column.name], column) for column in self.columns}

    def _codes_of(self, cells: pd.Series[Any], column: Column) -> IntArray:
        if column.numeric:
            values = numbers(cells)
            bins = np.searchsorted(self.edges[column.name], np.nan_to_num(values), side="right") + 1
            return np.where(np.isnan(values), 0, bins).astype(np.int64)
        levels, unseen = self.levels[column.name], len(self.levels[column.name]) + 1
        return np.array([0 if pd.isna(cell) else levels.get(spelled(cell), unseen) for cell in cells], dtype=np.int64)

    def matrix(self, table: pd.DataFrame, columns: Sequence[Column]) -> FloatArray:
        """The values as they are, levels as their codes, missing and unseen as NaN: [rows, columns]."""
        out = np.empty((len(table), len(columns)))
        for j, column in enumerate(columns):
            cells = table[column.name]
            if column.numeric:
                out[:, j] = numbers(cells)
            else:
                levels = self.levels[column.name]
                out[:, j] = [np.nan if pd.isna(cell) else levels.get(spelled(cell), np.nan) for cell in cells]
        return out


def score(
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    columns: Sequence[Column],
    target: str,
    target_drop: Sequence[str] = (),
    two_sample: bool = True,
) -> dict[str, float]:
    """All scores of one synthetic table.

    Args:
        train: the real rows that the synthesizer saw.
        test: real rows that it did not see.
        synthetic: the synthetic rows.
        columns: the columns to score, in order.
        target: the column that the utility models predict.
        target_drop: columns that give the target away: left out of the utility models, not of the marginals.
        two_sample: whether to compute c2st and c2st_raw.

    Raises:
        ValueError: a column is absent from one of the tables.
    """
    for name, table in (("train", train), ("test", test), ("synthetic", synthetic)):
        if absent := [column.name for column in columns if column.name not in table.columns]:
            raise ValueError(f"the {name} table lacks {', '.join(absent)}")
    coder = Coder(train, columns)
    found = {"rows": float(len(synthetic))}
    found |= marginal_distances(coder.codes(train), coder.codes(synthetic), coder)
    found |= utility(synthetic, test, coder, target=target, target_drop=target_drop)
    if two_sample:
        found["c2st"] = two_sample_auc(_code_matrix(coder, test), _code_matrix(coder, synthetic))
        found["c2st_raw"] = two_sample_auc(coder.matrix(test, columns), coder.matrix(synthetic, columns))
    return found


def marginal_distances(real: dict[str, IntArray], synthetic: dict[str, IntArray], coder: Coder) -> dict[str, float]:
    """Mean total variation distances of the one-, two- and three-way marginals."""

    def distances(sets: Sequence[tuple[Column, ...]]) -> FloatArray:
        return np.array([_distance(real, synthetic, coder, columns) for columns in sets])

    triples = list(itertools.combinations(coder.columns, 3))
    chosen = np.random.default_rng(SEED).permutation(len(triples))[:TRIPLES]
    pairs = distances(list(itertools.combinations(coder.columns, 2)))
    return {
        "tvd1": one_way_distance(real, synthetic, coder),
        "tvd2": float(pairs.mean()),
        "tvd2_max": float(pairs.max()),
        "tvd3": float(distances([triples[i] for i in chosen]).mean()),
    }


def distances_of_others(table: pd.DataFrame, columns: Sequence[Column], seed: int) -> dict[str, float]:
    """Marginal distances that as many other people of the same population would have, about.

    Other people in that number are not at hand. What is: how far half of the people are from the other half, over how
    far rows drawn with replacement from a half are from it; the same for quarters. That ratio falls as tables grow
    (towards the root of two, where every cell holds many people), and its fall is continued once more, from halves to
    all people.

    Args:
        table: the people, at least 8.
        columns: the columns to score.
        seed: which people are in which part.
    """
    coder, rng = Coder(table, columns), np.random.default_rng(seed)
    codes, people = coder.codes(table), len(table)

    def between(some: IntArray, others: IntArray) -> FloatArray:
        one, other = ({name: column[rows] for name, column in codes.items()} for rows in (some, others))
        found = marginal_distances(one, other, coder)
        return np.array([found[name] for name in DISTANCES])

    def parts(size: int) -> tuple[FloatArray, FloatArray]:
        some, others = np.split(rng.permutation(people)[: 2 * size], 2)
        return between(some, others), between(some, rng.choice(some, size))

    def ratio(size: int) -> FloatArray:
        apart, drawn = np.mean([parts(size) for _ in range(SPLITS)], axis=0)
        return np.asarray(apart / np.maximum(drawn, 1e-12))

    drawn = np.mean([between(np.arange(people), rng.integers(0, people, people)) for _ in range(SPLITS)], axis=0)
    about = drawn * ratio(people // 2) ** 2 / np.maximum(ratio(people // 4), 1e-12)
    return dict(zip(DISTANCES, about.tolist(), strict=True))


def one_way_distance(real: dict[str, IntArray], synthetic: dict[str, IntArray], coder: Coder) -> float:
    """Mean total variation distance of the one-way marginals, in [0, 1]."""
    return float(np.mean([_distance(real, synthetic, coder, (column,)) for column in coder.columns]))


def _distance(
    real: dict[str, IntArray], synthetic: dict[str, IntArray], coder: Coder, columns: tuple[Column, ...]
) -> float:
    names = [column.name for column in columns]
    sizes = [coder.size(column) for column in columns]
    return float(0.5 * np.abs(_marginal(real, names, sizes) - _marginal(synthetic, names, sizes)).sum())


def _marginal(codes: dict[str, IntArray], names: Sequence[str], sizes: Sequence[int]) -> FloatArray:
    cell = np.ravel_multi_index(tuple(codes[name] for name in names), tuple(sizes))
    return np.bincount(cell, minlength=int(np.prod(sizes))) / len(cell)


def utility(
    synthetic: pd.DataFrame, test: pd.DataFrame, coder: Coder, *, target: str, target_drop: Sequence[str]
) -> dict[str, float]:
    """Models trained on synthetic rows, scored on real test rows. Rows with a missing target are left out."""
    goal = next(column for column in coder.columns if column.name == target)
    features = [column for column in coder.columns if column.name != target and column.name not in target_drop]
    synthetic, test = synthetic[synthetic[target].notna()], test[test[target].notna()]
    x_synthetic, x_test = coder.matrix(synthetic, features), coder.matrix(test, features)
    if goal.numeric:
        model = HistGradientBoostingRegressor(random_state=SEED).fit(x_synthetic, numbers(synthetic[target]))
        return {"r2_gbm": float(r2_score(numbers(test[target]), model.predict(x_test)))}
    y_synthetic = np.array([spelled(cell) for cell in synthetic[target]])
    y_test = np.array([spelled(cell) for cell in test[target]])
    if len(np.unique(y_synthetic)) < 2:
        return {"auc_gbm": 0.5, "f1_gbm": 0.0, "auc_lr": 0.5}
    native = [
        j for j, column in enumerate(features) if not column.numeric and coder.size(column) < MOST_NATIVE_CATEGORIES
    ]
    boosting = HistGradientBoostingClassifier(random_state=SEED, categorical_features=native, max_iter=150)
    found = _classify(boosting, "gbm", (x_synthetic, y_synthetic), (x_test, y_test))
    filled = np.nan_to_num(x_synthetic, nan=-1), np.nan_to_num(x_test, nan=-1)
    return found | _classify(_logistic(features), "lr", (filled[0], y_synthetic), (filled[1], y_test))


def _logistic(features: Sequence[Column]) -> Any:
    numeric = [j for j, column in enumerate(features) if column.numeric]
    levels = [j for j, column in enumerate(features) if not column.numeric]
    encode = ColumnTransformer(
        [("numbers", StandardScaler(), numeric), ("levels", OneHotEncoder(handle_unknown="ignore"), levels)]
    )
    return make_pipeline(encode, LogisticRegression(max_iter=400))


def _classify(model: Any, name: str, train: tuple[FloatArray, Any], test: tuple[FloatArray, Any]) -> dict[str, float]:
    """AUC (one against the rest when there are several classes) and macro F1 of a classifier."""
    (x_train, y_train), (x_test, y_test) = train, test
    model.fit(x_train, y_train)
    predicted, seen = model.predict_proba(x_test), list(model.classes_)
    classes = np.unique(y_test)
    shares = np.column_stack([predicted[:, seen.index(k)] if k in seen else np.zeros(len(x_test)) for k in classes])
    if len(classes) == 2:
        auc = roc_auc_score(y_test == classes[1], shares[:, 1])
    else:
        shares = shares + 1e-9
        shares /= shares.sum(axis=1, keepdims=True)
        auc = roc_auc_score(y_test, shares, multi_class="ovr", labels=classes)
    return {
        f"auc_{name}": float(auc),
        f"f1_{name}": float(f1_score(y_test, model.predict(x_test), average="macro")),
    }


def two_sample_auc(real: FloatArray, synthetic: FloatArray) -> float:
    """AUC of boosting that tells two samples of equal size apart, by three-fold cross-validation."""
    rng = np.random.default_rng(SEED)
    rows = min(len(real), len(synthetic), C2ST_ROWS)
    real = real[rng.permutation(len(real))[:rows]]
    synthetic = synthetic[rng.permutation(len(synthetic))[:rows]]
    folds = StratifiedKFold(3, shuffle=True, random_state=SEED)
    model = HistGradientBoostingClassifier(random_state=SEED, max_iter=100)
    truth = np.r_[np.zeros(rows), np.ones(rows)]
    guess = cross_val_predict(model, np.vstack([real, synthetic]), truth, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(truth, guess))


def _code_matrix(coder: Coder, table: pd.DataFrame) -> FloatArray:
    return np.column_stack(list(coder.codes(table).values())).astype(np.float64)


def numbers(cells: pd.Series[Any]) -> FloatArray:
    """Numbers as floats, dates as microseconds since 1970, missing as NaN."""
    first = cells.dropna().iloc[0] if cells.notna().any() else None
    if pd.api.types.is_datetime64_any_dtype(cells) or hasattr(first, "isoformat"):
        moments = pd.to_datetime(cells).astype("datetime64[us]")
        times: FloatArray = np.where(moments.isna(), np.nan, moments.astype("int64").to_numpy(dtype=np.float64))
        return times
    values: FloatArray = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def spelled(cell: Any) -> str:
    """One spelling a level: 5, 5.0 and "5" are the same, and so are True and 1."""
    if isinstance(cell, bool | np.bool_):
        return str(int(cell))
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)
