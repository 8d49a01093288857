"""Quality metrics of a secret model on a secret test set, computed in MPC and revealed one by one.

From the bottom up: `sums` and `ranks` are what metrics need of the rows, `ratios` turns sums into metrics,
`curves` are ROC and calibration, and `evaluation` is what users hold.
"""

from tercet.ml.metrics.curves import Calibration, RocCurve
from tercet.ml.metrics.evaluation import (
    METRICS,
    Evaluation,
    RevealedMetrics,
    allowed,
    defined,
    evaluate,
    metric_of,
    sums_of,
    takes,
)
from tercet.ml.metrics.sums import DECISION_SCALE, probabilities

__all__ = [
    "DECISION_SCALE",
    "METRICS",
    "Calibration",
    "Evaluation",
    "RevealedMetrics",
    "RocCurve",
    "allowed",
    "defined",
    "evaluate",
    "metric_of",
    "probabilities",
    "sums_of",
    "takes",
]
