"""Statistics on secret tables: what a statistician calls, as plans for the nodes."""

from tercet.ml.faces import Async, Sync
from tercet.ml.linear_model import LogisticRegression
from tercet.ml.metrics import Evaluation, RevealedMetrics
from tercet.ml.model_formulas import Design
from tercet.ml.model_selection import CrossValidation, GridSearch, cross_validate
from tercet.ml.models import RevealedModel, SecretModel
from tercet.ml.secret_column import SecretColumn
from tercet.ml.summary import Summary
from tercet.ml.table import Table
from tercet.ml.transformers import MeanImputer, MinMaxScaler, StandardScaler

__all__ = [
    "Async",
    "CrossValidation",
    "Design",
    "Evaluation",
    "GridSearch",
    "LogisticRegression",
    "MeanImputer",
    "MinMaxScaler",
    "RevealedMetrics",
    "RevealedModel",
    "SecretColumn",
    "SecretModel",
    "StandardScaler",
    "Summary",
    "Sync",
    "Table",
    "cross_validate",
]
