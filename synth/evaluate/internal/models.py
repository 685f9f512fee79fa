"""The models that utility and detection train, on matrices of positions and level numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Maker = Callable[[BoolArray, FloatArray], Any]

BOOSTING = "gradient boosting"
LINEAR = "logistic regression"
NATIVE_LEVELS = 250  # boosting's own limit on the levels of a categorical feature, less a margin
ONE_HOT_LEVELS = 60
SEED = 0


def classifiers() -> dict[str, Maker]:
    """Models for a target of levels, by name; each is made for [ordered columns] and a matrix."""
    return {
        LINEAR: lambda ordered, _: make_pipeline(_one_hot(ordered), LogisticRegression(max_iter=300)),
        "random forest": lambda *_: make_pipeline(
            _filled(), RandomForestClassifier(100, min_samples_leaf=5, random_state=SEED)
        ),
        BOOSTING: lambda ordered, matrix: HistGradientBoostingClassifier(
            categorical_features=_native(ordered, matrix), random_state=SEED
        ),
    }


def regressors() -> dict[str, Maker]:
    """Models for a target on a line, by name."""
    return {
        "ridge regression": lambda ordered, _: make_pipeline(_one_hot(ordered), Ridge()),
        "random forest": lambda *_: make_pipeline(
            _filled(), RandomForestRegressor(100, min_samples_leaf=5, max_features=1 / 3, random_state=SEED)
        ),
        BOOSTING: lambda ordered, matrix: HistGradientBoostingRegressor(
            categorical_features=_native(ordered, matrix), random_state=SEED
        ),
    }


def fitted(make: Maker, features: FloatArray, answers: npt.NDArray[Any], ordered: BoolArray) -> Any:
    """A model trained on features [rows, columns] and answers [rows]; it may be far from converged and says nothing."""
    model = make(ordered, features)
    if is_classifier(model):
        # Boosting sets a stratified part of many rows aside, which cannot be done with a class of one row.
        _, place, counts = np.unique(answers, return_inverse=True, return_counts=True)
        if (counts > 1).sum() > 1:
            features, answers = features[counts[place] > 1], answers[counts[place] > 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(features, answers)
    return model


def _filled() -> SimpleImputer:
    return SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)


def _one_hot(ordered: BoolArray) -> ColumnTransformer:
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    levels = make_pipeline(
        _filled(),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=ONE_HOT_LEVELS, sparse_output=False),
    )
    return ColumnTransformer(
        [("numbers", numbers, np.flatnonzero(ordered)), ("levels", levels, np.flatnonzero(~ordered))]
    )


def _native(ordered: BoolArray, matrix: FloatArray) -> BoolArray:
    """The columns that boosting treats as sets of levels: those with few enough."""
    most = np.array([np.nanmax(column, initial=0) for column in matrix.T])
    return ~ordered & (most < NATIVE_LEVELS)
