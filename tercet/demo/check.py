"""The comparison: scikit-learn's logistic regression on the same rows, in the clear.

A join leaves rows in an order that nobody knows, so the demonstration, which plays all owners, has two
columns revealed to itself after everything else is done: one from each owner, which together tell the rows
apart. That they are found in the same row of the clear join also checks that the secure join linked the right
rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.demo.data import TARGET
from tercet.errors import TercetError

Reals = npt.NDArray[np.float64]

IDENTIFYING = ("mean radius", "worst smoothness")
"""A column of the hospital and one of the insurer: no two patients agree on both."""
METRICS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "log_loss": "log-loss",
    "brier": "Brier score",
}
"""Titles of the metrics by name."""


@attrs.frozen(eq=False)
class Reference:
    """The fit in the clear.

    Coefficients are those of standardised columns; labels and probabilities are those of the test rows.
    """

    coef: Reals
    intercept: float
    metrics: Mapping[str, float]
    labels: npt.NDArray[np.int64]
    probabilities: Reals


def find_rows(merged: Any, revealed: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The rows of the clear join that were revealed, in the order in which they were.

    `revealed` has the columns `IDENTIFYING`, rounded to fixed point. Raises TercetError unless every revealed
    row is a different row of the join, to the rounding.
    """
    columns = list(IDENTIFYING)
    known = merged[columns].to_numpy(dtype=np.float64)
    spread = known.std(axis=0)
    seen = np.column_stack([revealed[name] for name in columns])
    distance = np.abs((seen[:, None, :] - known[None, :, :]) / spread).max(axis=2)
    nearest = distance.argmin(axis=1)
    if distance.min(axis=1).max() > 1e-3 or len(set(nearest.tolist())) < len(nearest):
        raise TercetError(
            "the rows that the secure join linked are not those that a join in the clear links; this is a "
            "defect of Tercet: please report it"
        )
    return merged.iloc[nearest]


def fit_in_the_clear(train: Any, test: Any, features: tuple[str, ...]) -> Reference:
    """scikit-learn's fit, C = 1, on `train` standardised by its own mean and population deviation."""
    from sklearn import metrics
    from sklearn.linear_model import LogisticRegression

    names = list(features)
    mean = train[names].to_numpy().mean(axis=0)
    scale = train[names].to_numpy().std(axis=0)
    y_train, y_test = train[TARGET].to_numpy(), test[TARGET].to_numpy()
    model = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-10)
    model.fit((train[names].to_numpy() - mean) / scale, y_train)
    probabilities = model.predict_proba((test[names].to_numpy() - mean) / scale)[:, 1]
    predicted = (probabilities > 0.5).astype(np.int64)
    found = {
        "accuracy": metrics.accuracy_score(y_test, predicted),
        "precision": metrics.precision_score(y_test, predicted, zero_division=0.0),
        "recall": metrics.recall_score(y_test, predicted),
        "f1": metrics.f1_score(y_test, predicted),
        "roc_auc": metrics.roc_auc_score(y_test, probabilities),
        "log_loss": metrics.log_loss(y_test, probabilities),
        "brier": metrics.brier_score_loss(y_test, probabilities),
    }
    return Reference(
        coef=model.coef_[0],
        intercept=float(model.intercept_[0]),
        metrics={name: float(value) for name, value in found.items()},
        labels=y_test,
        probabilities=probabilities,
    )
