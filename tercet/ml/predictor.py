"""What a fitted estimator does by its model: predictions, their accuracy, and keeping it under a name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tercet.ml.computations import Calls, called
from tercet.ml.estimator import SecretParameters
from tercet.ml.faces import Faced, M, computes, computes_on_table, makes_on_table
from tercet.ml.model_formulas import Design
from tercet.ml.models import THRESHOLD
from tercet.ml.table import ANALYST, Table
from tercet.options import RECEIVER, TABLE, takes
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.models import SecretModel
    from tercet.ml.secret_column import SecretColumn


@short_tracebacks
class Predictor(SecretParameters, Faced[M]):
    """An estimator that predicts once it is fitted, since it has a `SecretModel` then.

    One that was fitted by a formula has it as `design_`, and assigns its columns to tables that lack them.
    """

    __slots__ = ()
    if TYPE_CHECKING:
        design_: Design | None

    @abc.abstractmethod
    def fitted_model(self) -> SecretModel:
        """The model that was found. Raises MissingAttribute before a fit."""

    def through(
        self, table: Table, steps: Callable[[Table], Any], phase: str, *, outcome: bool = False
    ) -> Any:
        """What a computation gives for a table, with the columns of the formula if the fit had one."""
        design, model = self.design_, self.fitted_model()
        wanted = {*model.names, *([model.target_] if outcome else ())}
        if design is None or wanted <= set(table.column_names):
            return table.lake.perform(steps(table), phase)

        def calls() -> Calls[Any]:
            prepared = yield from design.applied(table, outcome=outcome)
            given = yield steps(prepared)
            return given

        return table.lake.perform(calls(), phase)

    @makes_on_table
    @takes(table=TABLE)
    def decision_function(self, table: Table) -> SecretColumn:
        """Secret log-odds of each row; `reveal` them to whom you choose. Discloses nothing."""
        column: SecretColumn = self._predicted(table, "decision value", None)
        return column

    @makes_on_table
    @takes(table=TABLE)
    def predict_proba(self, table: Table) -> SecretColumn:
        """Secret probabilities of the outcome 1 for each row, within 1e-4. Discloses nothing."""
        column: SecretColumn = self._predicted(table, "probability", None)
        return column

    @makes_on_table
    @takes(table=TABLE, threshold=THRESHOLD)
    def predict(self, table: Table, *, threshold: float | Table | None = None) -> SecretColumn:
        """Secret labels of each row, as `SecretModel.predict`. Discloses nothing."""
        column: SecretColumn = self._predicted(table, "label", threshold)
        return column

    def _predicted(self, table: Table, what: str, threshold: float | Table | None) -> Any:
        model = self.fitted_model()
        return self.through(table, lambda t: called("predict")(model, t, what, threshold), "predict")

    @computes_on_table
    @takes(table=TABLE, to=RECEIVER)
    def score(self, table: Table, *, to: str = ANALYST) -> float:
        """The accuracy on a table with the target, to one receiver. Discloses it."""
        model = self.fitted_model()
        score: float = self.through(table, lambda t: called("score")(model, t, to), "evaluate", outcome=True)
        return score

    @computes
    def save(self, name: str, *, readers: Sequence[str] = ()) -> Any:
        """Keep the model, secret, in the lake, for `lake.model(name)`; as `SecretModel.save`."""
        return self.fitted_model().save(name, readers=readers)
