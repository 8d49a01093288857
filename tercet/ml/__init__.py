"""Statistics on secret tables: what a statistician calls, as plans for the nodes."""

from tercet.ml.linear_model import LogisticRegression, RevealedModel
from tercet.ml.metrics import Evaluation, RevealedMetrics
from tercet.ml.model_selection import CrossValidation, GridSearch, cross_validate
from tercet.ml.preprocessing import StandardScaler
from tercet.ml.table import SecretColumn, Table
from tercet.ml.transformers import MeanImputer, MinMaxScaler

__all__ = [
    "CrossValidation",
    "Evaluation",
    "GridSearch",
    "LogisticRegression",
    "MeanImputer",
    "MinMaxScaler",
    "RevealedMetrics",
    "RevealedModel",
    "SecretColumn",
    "StandardScaler",
    "Table",
    "cross_validate",
]
