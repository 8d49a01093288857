"""Newton's method for logistic regression (iteratively reweighted least squares).

Columns are centred and scaled by secret factors, so that every quantity has a known range whatever the
columns measure; the penalty stays the one on the coefficients of the columns as they are. A step takes 18
rounds, and 16 on small tables. Sigmoid and its slope come from one opening. The inverse of the Hessian is
refined from the last one, and the step is made along with it. Two things keep that safe. Slopes are raised by
twice the error of their series, so that what the series errs by, which changes from step to step, neither
makes the Hessian indefinite nor its inverse grow; and a ridge bounds the inverse. Both change the way to the
optimum and not the optimum, which only the gradient decides.

Steps can overshoot where slopes are small and grow, as with offsets that are far off. The loss is convex, so
a step went too far if the loss rises at its end, in its direction, and the gradient that the next step needs
anyway says so: a secret bit then turns that step into half of the way back. Nobody learns how often.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError
from tercet.ml.fitting import (
    CHECKED,
    MEAN_SCALE,
    MOST_OUTCOME_BITS,
    WEIGHT_SCALE,
    WIDEST_COEFFICIENT,
    WIDEST_INTERCEPT,
    WIDEST_ROOT,
    WIDEST_VALUE,
    WIDEST_WEIGHT,
    Problem,
    Solver,
    State,
)
from tercet.ml.linalg import (
    RESIDUAL_BITS,
    WARM_FACTORS,
    WIDEST_RESIDUAL,
    from_table,
    halvings,
    inverse_sqrt,
    length,
    reciprocal,
    refine_inverse,
    scaled_identity,
    schulz_factors,
    settled,
)
from tercet.ml.spreads import LOW_POWER, ROOT_SCALE, SPREAD_SCALE, high_power, widest_variance
from tercet.ml.stored_columns import UNIT_BITS
from tercet.ml.weights import SMALLEST_MEAN, Weights
from tercet.plans import Builder, Series, Value, concatenate, sigmoid, slope

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
FIRST = 16
"""The first inverse is right but for directions of less than so many ridges, where it falls short by as
much at most; the second, which can grow as much, makes up for it."""
TRACE = 3.9
"""The Hessian's eigenvalues are below its size over this: its diagonal is at most 1/4 and the ridge."""
SMALL_ROWS = 1 << 15
LEAST_COARSE = 10
"""Rounding features to fewer bits would show in how fast nearly collinear columns converge."""
SHORT_OUTCOME = 32
"""Bits of probabilities that are enough where the last step has finer ones."""
WIDEST_SLOPE = 0.27
"""A slope is at most 1/4, and its floor."""
POLISHED_BOUND, POLISHED_ERROR = 56.0, 1e-6
"""Up to this range there are series that err so little."""
LARGEST_SHARE = 2.0**60
LOWEST_ROOT = -17
"""Given parameters are brought into coordinates whose factors are two to this power or more."""
LOG_ODDS = np.arange(-14, 14.5, 0.5)
"""Where a fit can start; those of one in a million are -13.8."""
BASE_SLOPE_BITS = 28
SLOPE_SCALE, CHANGE_SCALE = 20, 16
"""Fractional bits of gradient and step, where their product tells whether that overshot."""
ROUGH = 2.0**-13
"""What the loss of a row rises by, along a step, is told from zero by no less."""


def expit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sigmoid, in the clear."""
    return 0.5 + 0.5 * np.tanh(x / 2)


@attrs.frozen
class _Precision:
    """Fractional bits of features, of probabilities, of the coefficients in their series, and of slopes.

    Of few rows, `coarse` are those of features in the Hessian, which then takes slopes as they are: they need
    not be truncated, which is 2 rounds less a step.
    """

    feature: int
    outcome: int
    coefficient: int
    slope: int
    coarse: int | None = None

    @classmethod
    def of(cls, rows: int) -> _Precision:
        """Bits such that sums over rows of slope times feature times feature fit 61 bits.

        By Cauchy and Schwarz, such a sum is at most a quarter of the row count. Slopes are truncated to what
        sums leave room for, in two rounds: what they err by has to be small beside the share of rare
        outcomes.
        """
        halved = halvings(rows)
        if rows <= SMALL_ROWS:
            outcome, slope = min(MOST_OUTCOME_BITS, 45 - halved), min(24, 30 - halved)
            short = min(outcome, SHORT_OUTCOME)
            coarse = math.floor((61.9 - short - math.log2(WIDEST_SLOPE * rows)) / 2) if rows else 0
            if coarse < LEAST_COARSE:
                return cls(16, outcome, 17, slope)
            return cls(16, short, 17, slope, min(coarse, 16))
        feature = max(10, min(16, (39 - halved) // 2))
        return cls(feature, min(30, 60 - feature - halved), 20, min(24, 63 - halved - 2 * feature))


@functools.cache
def _error(series: Series, coefficient_bits: int) -> float:
    """The error of a series whose coefficients are rounded."""
    unit = 2.0**-coefficient_bits
    rounded = {name: tuple(np.rint(np.divide(getattr(series, name), unit)) * unit) for name in ("cos", "sin")}
    return Series(**{**attrs.asdict(series, filter=attrs.filters.exclude("error")), **rounded}).error


class Newton(Solver):
    """A fit by Newton's method, in coordinates in which the Hessian's diagonal is at most 1/4."""

    def __init__(self, problem: Problem, builder: Builder, enough: Value | None = None) -> None:
        super().__init__(problem, builder, enough)
        self.precision = _Precision.of(problem.rows)
        self.outcome_bits, self.coefficient_bits = self.precision.outcome, self.precision.coefficient
        self.slope = slope(problem.probability)
        error = _error(self.slope, self.coefficient_bits)
        self.floor = SLOPE_FLOOR * error + 2.0**-self.precision.slope
        self.first_factors = schulz_factors(FIRST * RIDGE * TRACE / problem.size)

    @property
    def spread(self) -> float:
        """Columns are scaled to a root mean square of one."""
        return 1.0

    def begin(self) -> State:
        """Centre the columns and scale them; start at the log-odds of the outcomes' share."""
        with self.builder.scope("scale"):
            total = self.total
            means = self.means(total)
            lifted, roots, penalties = self._scales(self.columns(means))
            if self.rows is None and self.problem.intercept:
                roots = roots.column().append_row(1.0).reshape(self.problem.size)
            x, weighted = self._scaled(means, roots)
            state = self.start(
                x,
                means,
                weighted=weighted,
                roots=roots,
                lifted=lifted,
                penalties=penalties,
                centre=self.centre(total),
            )
        return self._at_base_rate(state, total)

    def coordinates(self, kept: Mapping[str, Value]) -> dict[str, Value]:
        """The features in the solver's coordinates, by their names in a state, from the rest of it."""
        x, weighted = self._scaled(kept["means"], kept["roots"])
        return {"x": x} if weighted is None else {"x": x, "weighted": weighted}

    def _scaled(self, means: Value, roots: Value) -> tuple[Value, Value | None]:
        """Features in the solver's coordinates `(d + 1, n)`, and those times weights."""
        bits, columns = self.precision.feature, self.columns(means)
        widest = 1.01 * math.sqrt(self.problem.rows)
        if self.rows is None:
            used = roots.column().select(list(range(length(columns))))
            x = columns.times(used, magnitude=widest + 1).rescale(bits)
            return (x.append_row(1.0) if self.problem.intercept else x), None
        most = widest / math.sqrt(self.rows.least) + 1
        x = columns.times(roots.column(), magnitude=most).rescale(bits)
        most = widest * math.sqrt(self.rows.largest) + 1
        return x, self.rows.weigh(x, magnitude=most, scale=bits)

    def _mean_squares(self, columns: Value) -> tuple[Value, float]:
        """Sums over rows of weights times squares of columns, over 2^halved, and a bound on them."""
        rows, halved = self.problem.rows, self.problem.halved
        if self.problem.intercept:
            widest = widest_variance(self.problem.table, self.problem.names)
            widest *= 1.0 if self.rows is None else self.rows.largest
        else:  # coarse, since means may be large: roots need not be exact
            widest = WIDEST_VALUE**2
            columns = columns.rescale(min(UNIT_BITS, (60 - halved - math.ceil(math.log2(widest))) // 2))
        weighted = columns
        if self.rows is not None:
            scale = min(columns.scale, 60 - halved - math.ceil(math.log2(widest)) - columns.scale)
            most = math.ldexp(columns.type.limit, -columns.scale) * self.rows.largest
            weighted = self.rows.weigh(columns, magnitude=most, scale=scale) or columns
        total = columns.times(weighted, magnitude=widest * rows).sum(magnitude=widest * rows)
        return total.shifted(halved).rescale(SPREAD_SCALE), widest

    def _at_base_rate(self, state: State, total: Value | None) -> State:
        """The state with the intercept at the log-odds of the outcomes' share, if that can be had."""
        if not self.problem.intercept:
            zero = [self.builder.constant([number], scale=BASE_SLOPE_BITS) for number in (0.5, 0.25)]
            self.base = zero if self.problem.offset is None else []
            return state
        with self.builder.scope("start"):
            log_odds, *base = self._base_rate(total)
            self.base = base if self.problem.offset is None else []
            last = np.zeros(self.problem.size)
            last[-1] = 1.0
            if self.rows is not None and state.roots is not None:  # in the intercept's column's coordinates
                total = self.rows.total(self.problem.rows)
                root = state.roots.column().select([self.problem.size - 1]).reshape(1)
                part = self.builder.constant(2.0**self.problem.halved / self.problem.rows, scale=20)
                scale = (total.rescale(20) * part).rescale(WEIGHT_SCALE).times(root, magnitude=1.1)
                log_odds = scale.rescale(WEIGHT_SCALE).times(log_odds, magnitude=16.0).rescale(WEIGHT_SCALE)
            return attrs.evolve(state, weights=state.weights + log_odds * self.builder.constant(last))

    def _base_rate(self, total: Value | None) -> list[Value]:
        """Log-odds of the outcomes' share, the sigmoid there and a slope, `(1,)` each.

        From a table: the first step needs no series there, and where outcomes are rare, many steps are saved.
        Slopes are small there and grow, so the one for the first step is the mean, in proportion, of that and
        the largest one.
        """
        halved = self.problem.halved
        if self.rows is None or total is None:
            share = self.y.sum().reshape(1).bounded(self.problem.rows, "a count").shifted(halved)
            part, share = self.problem.rows / 2.0**halved, share.at_scale(max(halved, 26))
        else:
            inverse = reciprocal(total, low=-halved, high=1, scale=MEAN_SCALE)
            positives = Weights(self.rows.rows * self.y, self.rows.mask).total(self.problem.rows)
            part, share = 1.0, positives.times(inverse, magnitude=1.01).rescale(28)
        ends = expit((LOG_ODDS[1:] + LOG_ODDS[:-1]) / 2) * part
        chance = expit(LOG_ODDS)
        columns = [LOG_ODDS, chance, np.sqrt(chance * (1 - chance) / 4)]
        scales = (WEIGHT_SCALE, self.outcome_bits, BASE_SLOPE_BITS)
        return from_table(share, ends, list(zip(columns, scales, strict=True)))

    def exponents(self, count: int) -> npt.NDArray[np.int64]:
        """Public powers of two by which the penalty alone shrinks `count` columns, so that it fits."""
        shares, most = self._shares(count)
        halved = np.ceil(np.log2(np.maximum(shares * most, 2.0**-60)) / 2)
        return np.maximum(0, halved).astype(np.int64)

    def _scales(self, columns: Value) -> tuple[Value, Value, Value | None]:
        """Factors of columns: one over the root of variance and its penalty's share of the Hessian.

        Before them, the same over the powers of two in `exponents`, which keep the penalties of columns of
        tiny scale in range; after them, the penalty's part of the Hessian's diagonal in these coordinates, at
        most 1/4.
        """
        builder, part = self.builder, self.problem.rows / 2.0**self.problem.halved
        spread, self._widest = self._mean_squares(columns)
        widest = self._widest
        shares, _ = self._shares(length(spread))
        exponents = self.exponents(length(spread))
        penalties = builder.constant(part * shares * np.exp2(-2.0 * exponents), scale=SPREAD_SCALE)
        if self.rows is not None and self.rows.factor is not None:
            penalties = penalties.times(self.rows.factor, magnitude=1.0).rescale(SPREAD_SCALE)
        if exponents.any():
            factors = builder.constant(np.exp2(-2.0 * exponents), scale=20)
            coarse = spread.rescale(min(spread.scale, 61 - factors.scale - math.ceil(math.log2(widest + 1))))
            spread = coarse.times(factors, magnitude=widest + 1).rescale(spread.scale)
        spread = (spread + penalties).bounded(widest + 1, "shares are below one")
        high, factor = high_power(widest + 1), math.sqrt(part)
        lifted = inverse_sqrt(spread, low=LOW_POWER, high=high, scale=ROOT_SCALE, factor=factor)
        roots = lifted
        if exponents.any():
            powers = builder.constant(np.exp2(-exponents), scale=int(min(exponents.max(), 30)))
            roots = (lifted * powers).rescale(ROOT_SCALE)
        roots = roots.bounded(WIDEST_ROOT, "a root's range")
        return lifted, roots, self._penalties(lifted, penalties) if self.problem.strength else None

    def _shares(self, count: int) -> tuple[npt.NDArray[np.float64], float]:
        """The penalty over a quarter of the row count, for `count` columns, and what may multiply it."""
        shares = self.problem.penalties(LARGEST_SHARE) * 4.0 / self.problem.rows
        shares = np.append(shares, np.zeros(count - len(shares)))
        if self.rows is None or self.rows.factor is None:
            return shares, 1.0
        return shares * 2.0**-self.rows.exponent, 2.0 ** (1 - SMALLEST_MEAN)

    def _penalties(self, roots: Value, shares: Value) -> Value:
        """The penalty's part of the Hessian's diagonal, at most 1/4; none for the intercept."""
        weights = (roots * roots).rescale(24).times(shares, magnitude=2.0).shifted(2)
        weights = weights.rescale(HESSIAN_SCALE)
        if length(weights) == self.problem.size:
            return weights
        return weights.column().append_row(0.0).reshape(self.problem.size)

    def step(self, state: State, number: int) -> State:
        """Solve for the step with the Hessian at the weights, unless the last one overshot."""
        with self.builder.scope(f"step {number}"):
            if number == 1:
                residuals, curvature = self._at_the_start(state)
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
            new = {"move": move, "change": move, "decrement": decrement, "fall": decrement}
            if state.fall is not None:
                new = self._damped(state.change, state.fall, gradient, new)
            return self.moved(state, new.pop("move"), inverse=inverse, **new)

    def _at_the_start(self, state: State) -> tuple[Value, Value]:
        """Residuals and the Hessian of the first step.

        Where the weights are still the same in all rows, both are known from a table. With offsets, slopes
        are taken to be the largest possible, so that this step does not overshoot (Boehning and Lindsay
        1988).
        """
        if self.base:
            probability, weight = self.base
        else:
            (probability,) = self.functions(state, self.problem.probability)
            weight = self.builder.constant([0.25], scale=BASE_SLOPE_BITS)
        total = state.summed.dot(state.x, magnitude=1.05 * self.problem.rows).shifted(self.problem.halved)
        curvature = total.rescale(HESSIAN_SCALE).times(weight, magnitude=0.27)
        return self.residuals(probability), curvature

    def _damped(
        self, last: Value, fall: Value, gradient: Value, new: Mapping[str, Value]
    ) -> dict[str, Value]:
        """What becomes of the state after a new step, or half of the way back if the last one overshot.

        It did if the loss rises at its end at least half as steeply as it fell where it began, and by more
        than rounding makes of it. 1 round, after those of the new step.
        """
        short = last.rescale(CHANGE_SCALE)
        rise = -gradient.rescale(SLOPE_SCALE).dot(short).reshape(1)
        less = fall.shifted(1)
        overshot = (less.rescale(rise.scale) - rise + ROUGH).is_negative().to_ring()
        half = last.shifted(1).rescale(last.scale)
        back = {"move": half * -1, "change": half, "decrement": less * 0 + 1.0, "fall": less}

        def either(name: str) -> Value:
            one, other = (each[name].rescale(new[name].scale) for each in (new, back))
            most = max(math.ldexp(each.type.limit, -each.scale) for each in (one, other))
            return settled((one + overshot * (other - one)).bounded(most, "one of both"))

        return {name: either(name) for name in new}

    def examine(self, state: State, weights: Value, intercept: Value) -> State:
        """The state at given parameters, with the step that would come next, which is not made.

        `weights` `(d,)` are coefficients of columns in units, `intercept` `(1,)`; they become `state.weights`
        within 1e-5 of themselves. Whether they are the optimum and within their ranges, `checks` tells.
        """
        with self.builder.scope("place"):
            there = attrs.evolve(state, weights=self._placed(state, weights, intercept))
        return attrs.evolve(self.step(there, 2), weights=there.weights)

    def _placed(self, state: State, weights: Value, intercept: Value) -> Value:
        """Parameters of columns in units in the solver's coordinates `(d + 1,)`."""
        count, roots = len(self.problem.names), state.roots
        low = -high_power(self._widest + 1) - 1 - int(self.exponents(count).max())
        if roots is None or low < LOWEST_ROOT:
            raise PlanError(
                "the penalty leaves so little of some column that given coefficients cannot be examined; ask "
                "the model that solver='newton' has fitted, use a larger C, or measure it in larger units"
            )
        inverse = reciprocal(roots, low=low, high=9, scale=min(20, 34 + low))
        offset = weights.dot(state.means, magnitude=WIDEST_INTERCEPT / 2).reshape(1)
        last = offset.rescale(20) + intercept.rescale(20)
        last = last if state.centre is None else last + state.centre.at_scale(20)
        last = last.bounded(WIDEST_INTERCEPT, CHECKED)
        some = inverse.column().select(list(range(count))).reshape(count)
        placed = weights.times(some, magnitude=WIDEST_COEFFICIENT * 2.0 ** (1 - low)).rescale(WEIGHT_SCALE)
        if self.problem.intercept:
            if self.rows is not None:
                other = inverse.column().select([count]).reshape(1).rescale(20 + low)
                last = last.times(other, magnitude=WIDEST_INTERCEPT * 2.0 ** (1 - low))
            parts = [placed.column(), last.rescale(WEIGHT_SCALE).column()]
            placed = concatenate(parts).reshape(self.problem.size)
        return placed.bounded(WIDEST_WEIGHT, CHECKED)

    def polish(self, state: State) -> State:
        """One more step with the last inverse, from probabilities that are rounded much less. 8 rounds.

        What the series and its rounding err by in each row is what keeps the fit from the optimum, most of
        all where columns are nearly alike; here it is below 1e-6 wherever the range allows.
        """
        if state.inverse is None:
            return state
        with self.builder.scope("polish"):
            series = self.problem.probability
            if series.bound <= POLISHED_BOUND:
                series = sigmoid(series.bound, POLISHED_ERROR)
            bits = {"dealt_bits": 24, "coefficient_bits": 24}
            (exact,) = self.decision(state).fourier(series, **bits)
            residuals = self.residuals(exact.rescale(self.outcome_bits))
            gradient = self.gradient(state, residuals, state.penalties)
            move = state.inverse.matmul(gradient.column(), magnitude=WIDEST_RESIDUAL)
            move = move.rescale(RESIDUAL_BITS).reshape(self.problem.size)
            missed = None if self.problem.strength else self._missed(residuals)
            # The finer series moves fits of rare outcomes; whether they converged, the step before tells.
            return attrs.evolve(self.moved(state, move), missed=missed)

    def _missed(self, residuals: Value) -> Value:
        """The sum over rows that count of how far probabilities are from outcomes, `(1,)`.

        Below one half, all rows are on their side: columns tell the outcomes apart without error.
        """
        side = self.y * -2 + 1
        if self.rows is not None:
            side = (side * self.rows.mask).bounded(1.0, "a sign or zero")
        return residuals.dot(settled(side), magnitude=1.05 * self.problem.rows).reshape(1)

    def _curvature(self, state: State, slopes: Value) -> Value:
        """`X^T S X` over 2^halved: a slope is at most 1/4 and its floor."""
        bits = self.precision.coarse
        if bits is None:
            return self._summed(state, slopes.rescale(self.precision.slope) + self.floor)
        x, summed = state.x.rescale(bits), state.summed.rescale(bits)
        return self._sum(summed, (slopes + self.floor) * x)

    def _summed(self, state: State, slopes: Value) -> Value:
        return self._sum(state.summed, slopes * state.x)

    def _sum(self, left: Value, right: Value) -> Value:
        return left.dot(right, magnitude=WIDEST_SLOPE * self.problem.rows).shifted(self.problem.halved)

    def information(self, state: State, slopes: Value) -> Value:
        """The Hessian of the penalised loss over 2^halved `(d + 1, d + 1)`, for exact slopes of rows."""
        curvature = self._summed(state, slopes.rescale(self.precision.slope))
        return self._penalised(curvature.rescale(HESSIAN_SCALE), state.penalties)

    def _hessian(self, curvature: Value, penalties: Value | None) -> Value:
        hessian = self._penalised(curvature.rescale(HESSIAN_SCALE), penalties)
        ridge = self.builder.constant(RIDGE * np.eye(length(hessian)), scale=HESSIAN_SCALE)
        return (hessian + ridge).bounded(
            0.6, "a quarter from the data, a quarter from the penalty, the ridge"
        )

    def _penalised(self, curvature: Value, penalties: Value | None) -> Value:
        if penalties is None:
            return curvature.bounded(0.6, "a quarter from the data")
        identity = np.eye(length(curvature))
        hessian = curvature + penalties.column() * self.builder.constant(identity)
        return hessian.bounded(0.6, "a quarter from the data, a quarter from the penalty")
