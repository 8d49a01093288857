"""Fits that are submitted as jobs, and collected: nodes make their plans one after the other by themselves.

All that such a fit needs is one computation, also where a formula has columns computed first: a job is one,
and whoever collects it another day makes the same plans of the same arguments.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from tercet.errors import SchemaError
from tercet.ml.computations import Computed, computation, telling
from tercet.ml.expressions import Expression
from tercet.ml.faces import Faced, M, collects, computes_on_table
from tercet.ml.model_formulas import Design, FitColumns
from tercet.ml.preparation import NEW_OUT_OF_RANGE, with_columns
from tercet.ml.roles import COLUMNS_OF_A_FIT
from tercet.ml.table import ANALYST, Steps, Table
from tercet.options import JOB, Made, takes
from tercet.tracebacks import short_tracebacks

MODEL = Made(of="LogisticRegression", what="a LogisticRegression")


@short_tracebacks
class Submitted(abc.ABC, Faced[M]):
    """An estimator whose fits can be left to the nodes."""

    __slots__ = ()
    if TYPE_CHECKING:
        fit_intercept: bool
        design_: Design | None

    @abc.abstractmethod
    def check_options(self) -> None:
        """Raise PlanError for options that do not go together."""

    @abc.abstractmethod
    def fit_steps(
        self,
        table: Table,
        target: str,
        features: str | Sequence[str] | None = None,
        *,
        sample_weight: str | None = None,
        offset: str | None = None,
    ) -> Steps[Self]:
        """The plans of a fit."""

    @computes_on_table
    @takes(**COLUMNS_OF_A_FIT)
    def submit(
        self,
        table: Table,
        target: str,
        *,
        features: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        offset: str | None = None,
    ) -> Any:
        """Have a fit run whether or not this lake stays open: a job, for `collect` with the same arguments.

        `target` names the outcome, or is a formula, as in `fit`. Nodes that last make its plans one after the
        other, as `fit` would have them made, so they are told the check bits too. On one machine, `collect`
        has those run that come after the first. Raises as `fit`.
        """
        self.check_options()
        return table.lake.submit(self._left_alone(table, target, features, sample_weight, offset))

    @collects
    @takes(job=JOB, **COLUMNS_OF_A_FIT)
    def collect(
        self,
        job: Any,
        table: Table,
        target: str,
        *,
        features: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        offset: str | None = None,
    ) -> Self:
        """Wait for a fit that a model with these options has submitted, here or elsewhere.

        Parameters stay secret; discloses what `fit` does. Raises PlanError if the job is not this fit, and
        SchemaError as `fit`.
        """
        self.check_options()
        steps = self._left_alone(table, target, features, sample_weight, offset)
        fitted: Self = table.lake.collect(steps, job)
        return fitted

    def _left_alone(
        self,
        table: Table,
        target: str,
        features: str | Sequence[str] | None,
        sample_weight: str | None,
        offset: str | None,
    ) -> Computed[Self]:
        given = FitColumns.of(table, target, features, intercept=self.fit_intercept)
        steps = self._alone(table, given.target, given.features, sample_weight, offset, given.new or None)
        return steps.then(given.fitted)

    @computation("fit_alone", "driven", group="models", fresh=["self"], self=MODEL, **COLUMNS_OF_A_FIT)
    def _alone(
        self,
        table: Table,
        target: str,
        features: str | Sequence[str] | None,
        sample_weight: str | None,
        offset: str | None,
        expressions: Mapping[str, Expression] | None = None,
    ) -> Steps[Self]:
        """The plans of a fit that nodes make alone; columns of a formula are computed first, in the same job.

        These need the features named, since what is left out would mean all columns.
        """

        def steps() -> Steps[Self]:
            prepared = table
            if expressions is not None:
                if features is None:
                    raise SchemaError("a fit of new columns names its features; give features=")
                prepared = yield from with_columns(table, expressions, NEW_OUT_OF_RANGE)
            others = {"sample_weight": sample_weight, "offset": offset}
            return (yield from self.fit_steps(prepared, target, features, **others))

        return (yield from telling(steps(), to=ANALYST))
