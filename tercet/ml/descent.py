"""Full-batch gradient descent, on the mean loss, over centred columns.

Let x be the columns less their means, with a column of ones, and w the weights, at first zero. A step is

    m <- momentum m + rate g,   w <- w - m,   g = (1/n) X^T (sigmoid(X w) - y) + (1 / (C n)) D w,

where D is the identity but for the intercept, which is not penalised; rows that a mask drops count in n, and
are zero in X; an offset is taken less its mean. Six rounds a step, whatever the number
of rows. Newton's method needs far fewer steps; this is for columns too many to invert their Hessian, and to
compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tercet.errors import PlanError
from tercet.ml.fitting import MOST_OUTCOME_BITS, WEIGHT_SCALE, WIDEST_WEIGHT, Problem, Solver, State
from tercet.ml.linalg import halvings
from tercet.ml.stored_columns import UNIT_BITS, WIDE_SPREAD
from tercet.plans import Builder, Value

MOMENTUM_SCALE = 20
PENALTY_SCALE = 28
LARGEST_PENALTY = 2.0**6
WIDEST_EXPONENT = 10
"""Columns of spreads from about 2^-10 to 2^10 can be mixed: factors of their gradients differ by 2^40."""


class Descent(Solver):
    """A fit by gradient descent, with a learning rate and momentum."""

    def __init__(
        self,
        problem: Problem,
        builder: Builder,
        enough: Value | None = None,
        *,
        learning_rate: float,
        momentum: float,
    ) -> None:
        super().__init__(problem, builder, enough)
        if self.rows is not None and not self.rows.are_bits:
            raise PlanError(
                f"solver='gd' takes no weights but zeros and ones, and {problem.sample_weight!r} has others; "
                "use solver='newton'"
            )
        self.learning_rate, self.momentum = learning_rate, momentum
        room = 60 - UNIT_BITS - problem.halved - halvings(math.ceil(self.spread))
        self.outcome_bits = min(MOST_OUTCOME_BITS, room)

    @property
    def spread(self) -> float:
        """A bound on the root mean square of each row of features.

        Centred columns have the spread that uploads bound, over the rows of their source.
        """
        table = self.problem.table
        wide = any(table.column(name).is_wide for name in self.problem.names)
        return (WIDE_SPREAD if wide else 1.0) * math.sqrt(max(1.0, table.rows_of_sources / table.rows))

    def begin(self) -> State:
        """Centre the columns."""
        exponents = np.abs(self.problem.unit_exponents)
        if exponents.max() > WIDEST_EXPONENT:
            raise self._refuse(int(exponents.argmax()), "beside columns of ordinary size")
        with self.builder.scope("centre"):
            total = self.total
            means = self.means(total)
            return self.start(self._features(means), means, centre=self.centre(total))

    def coordinates(self, kept: Mapping[str, Value]) -> dict[str, Value]:
        """The features in the solver's coordinates, by their names in a state, from the rest of it."""
        return {"x": self._features(kept["means"])}

    def _features(self, means: Value) -> Value:
        """Centred features and a row of ones `(d + 1, n)`."""
        columns = self.columns(means)
        return columns.append_row(1.0) if self.rows is None else columns

    def _penalties(self) -> Value | None:
        if not self.problem.strength:
            return None
        weights = self.problem.penalties(2.0**60) / 2.0**self.problem.halved
        if weights.max() > LARGEST_PENALTY:
            raise self._refuse(int(weights.argmax()), "with this penalty")
        return self.builder.constant(np.append(weights, 0.0), scale=PENALTY_SCALE)

    def step(self, state: State, number: int) -> State:
        """Move against the gradient."""
        with self.builder.scope(f"step {number}"):
            if number == 1 and self.problem.offset is None:
                residuals = self.y.at_scale(1) * -1 + 0.5
            else:
                (probabilities,) = self.functions(state, self.problem.probability)
                residuals = self.residuals(probabilities)
            gradient = self.gradient(state, residuals, self._penalties())
            move = (gradient * self._rates(gradient)).rescale(WEIGHT_SCALE)
            if self.momentum:
                kept = state.change * self.builder.constant(self.momentum, scale=MOMENTUM_SCALE)
                move = move + kept.rescale(WEIGHT_SCALE)
            return self.moved(state, move.bounded(WIDEST_WEIGHT, "checked at the end"))

    def _rates(self, gradient: Value) -> Value:
        """Factors of the gradient, which is over 2^halved and for columns in units."""
        exponents = np.append(self.problem.unit_exponents, 0)
        rates = self.learning_rate * 2.0**self.problem.halved / self.problem.rows * np.exp2(2.0 * exponents)
        room = 60 - math.ceil(math.log2(gradient.type.limit))
        return self.builder.constant(rates, scale=room - math.ceil(math.log2(rates.max())))

    def _refuse(self, column: int, why: str) -> PlanError:
        """Build the error that a column is too large or small."""
        name = self.problem.names[column]
        size = 2.0 ** self.problem.unit_exponents[column]
        return PlanError(
            f"column {name!r} has values of a size of about {size:.1g}, which gradient descent cannot take "
            f"{why}; standardise the columns with StandardScaler, or use solver='newton'"
        )
