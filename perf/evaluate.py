"""`evaluate`: all metrics of a model on a table, the AUC included, computed in MPC and revealed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

import tercet
from perf import tables
from perf.lakes import Conditions, open_lake, repeat
from perf.report import Measured, median
from tercet.ml import LogisticRegression

SLICE_ROWS = 2000
"""Rows that the model is fitted on, which is not measured."""
FIT_STEPS = 4

Metrics = dict[str, float]


def clear_metrics(y: npt.NDArray[Any], odds: npt.NDArray[np.float64]) -> tuple[Metrics, float]:
    """The same metrics from scikit-learn, and its seconds."""
    from sklearn import metrics

    began = time.perf_counter()
    probabilities = 1 / (1 + np.exp(-odds))
    labels = odds > 0
    found = {
        "accuracy": metrics.accuracy_score(y, labels),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, labels),
        "mcc": metrics.matthews_corrcoef(y, labels),
        "average_precision": metrics.average_precision_score(y, odds),
        "precision": metrics.precision_score(y, labels),
        "recall": metrics.recall_score(y, labels),
        "f1": metrics.f1_score(y, labels),
        "roc_auc": metrics.roc_auc_score(y, odds),
        "log_loss": metrics.log_loss(y, probabilities),
        "brier": metrics.brier_score_loss(y, probabilities),
    }
    metrics.confusion_matrix(y, labels)
    return {name: float(value) for name, value in found.items()}, time.perf_counter() - began


async def small_model(lake: tercet.AsyncLake, rows: int, features: int) -> Any:
    """A model for tables of `rows` rows, fitted on a slice of them."""
    slice_rows = max(min(rows, SLICE_ROWS), 4 * features)
    small = await tables.upload(lake, tables.learnable(slice_rows, features, seed=2), "train")
    model: Any = LogisticRegression(max_iter=FIT_STEPS, check=False)
    return await model.fit(small.table, target=tables.TARGET)


async def run(rows: int, features: int, conditions: Conditions) -> Measured:
    """Fit a model on a small slice, then evaluate it on `rows` rows."""
    columns = tables.learnable(rows, features)
    async with open_lake(conditions) as lake:
        uploaded = await tables.upload(lake, columns, "test")
        model = await small_model(lake, rows, features)

        async def evaluate() -> Any:
            evaluation = await model.evaluate(uploaded.table)
            return await evaluation.reveal()

        spent = await repeat(lake, evaluate, conditions)
        revealed = await model.reveal()
    odds = tables.design(columns) @ revealed.coef_[0] + revealed.intercept_[0]
    runs = [clear_metrics(columns[tables.TARGET], odds) for _ in range(conditions.repeat)]
    clear, clear_seconds = runs[-1][0], median([seconds for _, seconds in runs])
    found = spent.result.as_dict()
    errors = {name: abs(found[name] - value) for name, value in clear.items()}
    return Measured(
        name="evaluate",
        seconds=spent.seconds,
        rounds=spent.rounds,
        bytes_per_party=spent.bytes_per_party,
        peak_rss_mb=spent.peak_rss_mb,
        error=max(errors.values()),
        error_of="metric, against scikit-learn",
        more={
            "rows": rows,
            "features": features,
            **conditions.describe(),
            "worst_metric": max(errors, key=lambda name: errors[name]),
            "plan_seconds": spent.plan_seconds,
            "bytes_by_party": spent.bytes_by_party,
            "upload_seconds": uploaded.seconds,
            "table_shares_mb": uploaded.shares_mb,
            "rss_before_mb": spent.rss_before_mb,
            "peak_over_shares": spent.peak_rss_mb / uploaded.shares_mb,
            "clear_seconds": clear_seconds,
            "over_clear": spent.seconds / clear_seconds,
        },
    )
