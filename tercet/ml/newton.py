"""Newton's method for logistic regression (iteratively reweighted least squares), in 20 rounds a step.

Columns are centred and scaled by secret factors, so that every quantity has a known range whatever the
columns measure; the penalty stays the one on the coefficients of the columns as they are. Sigmoid and its
slope come from one opening. The inverse of the Hessian is refined from the last one, and the step is made
along with it. Two things keep that safe. Slopes are raised by twice the error of their series, so that what
the series errs by, which changes from step to step, neither makes the Hessian indefinite nor its inverse
grow; and a ridge bounds the inverse. Both change the way to the optimum and not the optimum, which only the
gradient decides.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Series, Value, concatenate, slope
from tercet.ml.fitting import MOST_OUTCOME_BITS, WIDEST_ROOT, Problem, Solver, State
from tercet.ml.linalg import (
    WARM_FACTORS,
    halvings,
    inverse_sqrt,
    length,
    refine_inverse,
    scaled_identity,
    schulz_factors,
)
from tercet.ml.preprocessing import LOW_POWER, ROOT_SCALE, centre, high_power, squares, widest_variance

HESSIAN_SCALE = 24
INVERSE_SCALE = 16
RIDGE = 2.0**-16
"""Added to the Hessian's diagonal, whose entries are about 1/4: bounds the inverse, and slows down only
directions in which the data say almost nothing."""
WIDEST_INVERSE = 1.4 / RIDGE
"""Bound on the entries of the inverse, which the iteration can overshoot by a third."""
SLOPE_FLOOR = 2.0
"""What slopes are raised by, in errors of their series: whatever the error, a slope can grow threefold at
most by it."""
TRACE = 3.9
"""The Hessian's eigenvalues are below its size over this: its diagonal is at most 1/4 and the ridge."""
SMALL_ROWS = 1 << 15
LARGEST_SHARE = 2.0**60


@attrs.frozen
class _Precision:
    """Fractional bits of features, of probabilities, of the coefficients in their series, and of slopes."""

    feature: int
    outcome: int
    coefficient: int
    slope: int
    truncates: bool

    @classmethod
    def of(cls, rows: int) -> _Precision:
        """Bits such that sums over rows of slope times feature times feature fit 61 bits.

        By Cauchy and Schwarz, such a sum is at most a quarter of the row count. In small tables slopes are
        truncated, which costs two rounds a step. In large ones their series is made smaller by a power of
        two, so that they are used as they come; the rounding of a slope is random there and drowns in the
        sum.
        """
        halved = halvings(rows)
        if rows <= SMALL_ROWS:
            return cls(16, min(MOST_OUTCOME_BITS, 45 - halved), 17, min(24, 30 - halved), truncates=True)
        feature = max(10, min(16, (39 - halved) // 2))
        return cls(feature, min(30, 60 - feature - halved), 20, 63 - halved - 2 * feature, truncates=False)


def _shrunk(series: Series, bits: int, coefficient_bits: int) -> tuple[Series, float]:
    """A series over 2^bits, and the error of the series with the coefficients that this rounds."""
    unit = 2.0 ** (bits - coefficient_bits)
    rounded = {name: tuple(np.rint(np.divide(getattr(series, name), unit)) * unit) for name in ("cos", "sin")}
    error = Series(**{**attrs.asdict(series, filter=attrs.filters.exclude("error")), **rounded}).error
    factor = 2.0**-bits
    cosines, sines = (tuple((factor * np.array(weights)).tolist()) for weights in rounded.values())
    small = attrs.evolve(
        series, cos=cosines, sin=sines, constant=factor * series.constant, error=factor * error
    )
    return small, error


class Newton(Solver):
    """A fit by Newton's method, in coordinates in which the Hessian's diagonal is at most 1/4."""

    def __init__(self, problem: Problem, builder: Builder) -> None:
        super().__init__(problem, builder)
        self.precision = _Precision.of(problem.rows)
        self.outcome_bits, self.coefficient_bits = self.precision.outcome, self.precision.coefficient
        excess = 0 if self.precision.truncates else self.precision.outcome - self.precision.slope
        self.shrunk_bits = max(0, excess)
        exact = slope(problem.probability)
        self.slope, error = _shrunk(exact, self.shrunk_bits, self.coefficient_bits)
        self.floor = SLOPE_FLOOR * error + 2.0**-self.precision.slope
        size = len(problem.names) + 1
        self.first_factors = schulz_factors(RIDGE * TRACE / size)

    @property
    def spread(self) -> float:
        """Columns are scaled to a root mean square of one."""
        return 1.0

    def begin(self) -> State:
        """Centre columns and divide each by the root of its variance and its penalty's share of the Hessian.

        Public powers of two `e` keep the penalties of columns of tiny scale in range.
        """
        with self.builder.scope("scale"):
            rows, halved = self.problem.rows, self.problem.halved
            part = rows / 2.0**halved
            features = self.problem.table.features(self.builder, self.problem.names)
            centred, means = centre(features, rows)
            shares = self.problem.penalties(LARGEST_SHARE) * 4.0 / rows
            exponents = np.maximum(0, np.ceil(np.log2(np.maximum(shares, 2.0**-60)) / 2)).astype(np.int64)
            widest = widest_variance(self.problem.table, self.problem.names)
            spread = squares(centred, rows, widest)
            if exponents.any():
                factors = self.builder.constant(np.exp2(-2.0 * exponents), scale=20)
                spread = spread.times(factors, magnitude=widest + 1).rescale(spread.scale)
            shares = shares * np.exp2(-2.0 * exponents)
            spread = spread + self.builder.constant(shares * part, scale=spread.scale)
            spread = spread.bounded(widest + 1, "shares are below one")
            high, factor = high_power(widest + 1), math.sqrt(part)
            lifted = inverse_sqrt(spread, low=LOW_POWER, high=high, scale=ROOT_SCALE, factor=factor)
            roots = lifted
            if exponents.any():
                powers = self.builder.constant(np.exp2(-exponents), scale=int(min(exponents.max(), 30)))
                roots = (lifted * powers).rescale(ROOT_SCALE)
            scaled = centred.times(roots.column(), magnitude=1.01 * math.sqrt(rows) + 1)
            x = scaled.rescale(self.precision.feature).append_row(1.0)
            penalties = self._penalties(lifted, shares * part / 4) if self.problem.strength else None
            return self.start(
                x, means, roots=roots.bounded(WIDEST_ROOT, "a root's range"), penalties=penalties
            )

    def _penalties(self, roots: Value, shares: npt.NDArray[np.float64]) -> Value:
        """The penalty's part of the Hessian's diagonal, at most 1/4; none for the intercept."""
        factors = self.builder.constant(shares, scale=30)
        weights = (roots * roots).rescale(24).times(factors, magnitude=0.5).rescale(HESSIAN_SCALE).column()
        return concatenate([weights, weights.select([0]) * 0]).reshape(length(roots) + 1)

    def step(self, state: State, number: int) -> State:
        """Solve for the step with the Hessian at the weights."""
        with self.builder.scope(f"step {number}"):
            if number == 1:
                residuals = self.first_residuals()
                curvature = state.x.dot(state.x, magnitude=1.05 * self.problem.rows).shifted(2)
            else:
                probabilities, slopes = self.functions(state, self.problem.probability, self.slope)
                residuals = self.residuals(probabilities)
                curvature = self._curvature(state, slopes)
            gradient = self.gradient(state, residuals, state.penalties)
            hessian = self._hessian(curvature, state.penalties)
            if state.inverse is None:
                start = scaled_identity(hessian, TRACE / length(hessian), scale=INVERSE_SCALE)
                factors = self.first_factors
            else:
                start, factors = state.inverse.shifted(1), list(WARM_FACTORS)
            inverse, move = refine_inverse(
                hessian, start, gradient, factors=factors, bound=WIDEST_INVERSE, scale=INVERSE_SCALE
            )
            decrement = gradient.dot(move, magnitude=2.0**9).reshape(1)
            return self.moved(state, move, inverse=inverse, decrement=decrement)

    def _curvature(self, state: State, slopes: Value) -> Value:
        """`X^T S X`: a slope is at most 1/4 and its floor."""
        if self.precision.truncates:
            slopes = slopes.rescale(self.precision.slope)
        else:
            slopes = slopes.shifted(-self.shrunk_bits)
        raised = slopes + self.floor
        return state.x.dot(raised * state.x, magnitude=0.27 * self.problem.rows)

    def _hessian(self, curvature: Value, penalties: Value | None) -> Value:
        hessian = curvature.shifted(self.problem.halved).rescale(HESSIAN_SCALE)
        identity = np.eye(length(hessian))
        if penalties is not None:
            hessian = hessian + penalties.column() * self.builder.constant(identity)
        hessian = hessian + self.builder.constant(RIDGE * identity, scale=HESSIAN_SCALE)
        return hessian.bounded(0.6, "a quarter from the data, a quarter from the penalty, the ridge")
