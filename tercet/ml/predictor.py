"""What a fitted estimator does by its model: predictions, their accuracy, and keeping it under a name."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tercet.ml.estimator import SecretParameters
from tercet.ml.faces import Faced, M, computes, computes_on_table, makes_on_table
from tercet.ml.table import ANALYST, Table
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.models import SecretModel
    from tercet.ml.secret_column import SecretColumn


@short_tracebacks
class Predictor(SecretParameters, Faced[M]):
    """An estimator that predicts once it is fitted, since it has a `SecretModel` then."""

    __slots__ = ()

    @abc.abstractmethod
    def fitted_model(self) -> SecretModel:
        """The model that was found. Raises MissingAttribute before a fit."""

    @makes_on_table
    def decision_function(self, table: Table) -> SecretColumn:
        """Secret log-odds of each row; `reveal` them to whom you choose. Discloses nothing."""
        column: SecretColumn = self.fitted_model().decision_function(table)
        return column

    @makes_on_table
    def predict_proba(self, table: Table) -> SecretColumn:
        """Secret probabilities of the outcome 1 for each row, within 1e-4. Discloses nothing."""
        column: SecretColumn = self.fitted_model().predict_proba(table)
        return column

    @makes_on_table
    def predict(self, table: Table, *, threshold: float | Table | None = None) -> SecretColumn:
        """Secret labels of each row, as `SecretModel.predict`. Discloses nothing."""
        column: SecretColumn = self.fitted_model().predict(table, threshold=threshold)
        return column

    @computes_on_table
    def score(self, table: Table, *, to: str = ANALYST) -> float:
        """The accuracy on a table with the target, to one receiver. Discloses it."""
        score: float = self.fitted_model().score(table, to=to)
        return score

    @computes
    def save(self, name: str, *, readers: Sequence[str] = ()) -> Any:
        """Keep the model, secret, in the lake, for `lake.model(name)`; as `SecretModel.save`."""
        return self.fitted_model().save(name, readers=readers)
