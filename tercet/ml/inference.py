"""What can be said of a fit beyond its coefficients: standard errors, tests, likelihoods, in MPC.

Everything follows from one more look at the rows, at the optimum. The Hessian is made anew there, of exact
slopes and without the ridge that keeps Newton's steps safe, and its inverse refined until it stands still. A
standard error is the root of its diagonal. With a penalty, the Hessian has the penalty's part too: standard
errors are then those of the posterior under the normal prior that the penalty stands for. Weights of rows
count as so many rows each.

Each figure is a value of the plan of its own, so that whoever asks for p-values alone learns nothing else.

Where columns repeat others, do not vary, or tell some outcomes apart without error, the Hessian has no
inverse. `loose` finds those columns, in their order, as R and Stata do, and figures are made again of the
others: their inverse is that of the rest of the Hessian, and their coefficients take over what follows from
theirs of what was left out. Rows whose outcome is certain do not count then, as if they were dropped.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.ml.fitting import WEIGHT_SCALE, WIDEST_INTERCEPT, WIDEST_WEIGHT, Parameters, Problem
from tercet.ml.linalg import (
    RESIDUAL_BITS,
    WARM_FACTORS,
    dependent,
    halvings,
    inverse_sqrt,
    length,
    logarithm,
    reciprocal,
    refine_inverse,
    scaled_identity,
    settled,
    tabulated,
)
from tercet.ml.metrics.sums import DECISION_SCALE, TAIL_BOUND, Scored
from tercet.ml.newton import HESSIAN_SCALE, INVERSE_SCALE, TRACE, WIDEST_INVERSE, Newton
from tercet.ml.stored_columns import UNIT_BITS
from tercet.ml.tails import chi_square_tail, critical, two_sided
from tercet.ml.weights import LARGEST_MEAN, SMALLEST_MEAN
from tercet.plans import Builder, Value, concatenate, sigmoid, softplus_tail

ERROR = 1e-6
DEALT_BITS, COEFFICIENT_BITS = 24, 24
PROBABILITY_SCALE = 30
COEFFICIENT_SCALE = 24
REFINEMENTS = (*WARM_FACTORS, 1.0, 1.0)
STILL = 2.0**-11
"""The inverse stands still if its last refinement changed no diagonal entry by more of it than this."""
LEAST_POWER = -13
"""Two to this power is the least information on a coefficient in scaled coordinates, over the row count,
given the others: below it, columns nearly repeat others."""
LARGEST_VARIANCE = 2.0**-LEAST_POWER
LARGEST_RATIO = 2.0**12
"""Of a column's mean to its spread."""
VARIANCE_SCALE, ERROR_SCALE, Z_SCALE, RATIO_SCALE = 20, 30, 20, 28
SURE = 8.0
"""Beyond this decision value, an outcome is sure: chances of another one are 1 in 3,000."""
CERTAIN = 9.0
"""A z-value beyond has a p-value below 1e-18."""
LEAST_SHARE = -20

INEXACT = "whether standard errors cannot be made exact"
LOOSE = "of which columns there are no standard errors"


class Inference:
    """Figures of a fit as values of a plan, each made when it is asked for.

    `kept` is what the fit left of its state. Figures of coefficients are `(k,)`, the intercept's last; those
    of the fit `(1,)`. `without` `(k,)` says, in the clear, of which coefficients nothing can be said, by
    default of none: their columns are left out, and their figures are zero. The intercept is never left out.
    """

    def __init__(
        self,
        problem: Problem,
        builder: Builder,
        kept: Mapping[str, Value],
        alpha: float,
        without: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.problem, self.builder, self.alpha = problem, builder, alpha
        self.shown = None if without is None else 1.0 - without
        """Ones for coefficients that figures are told of; None for all."""
        self.used = None if self.shown is None else self.shown.copy()
        """The same, and a one for the intercept."""
        if self.used is not None and problem.intercept:
            self.used[-1] = 1.0
        self.solver = Newton(problem, builder, kept.get("enough"))
        self.state = self.solver.resume(kept)
        self.roots, self.lifted, self.begun = kept["roots"], kept["lifted"], kept["inverse"]
        self.weights = self.solver.rows

    # -- rows ------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _scored(self) -> Scored:
        z = self.solver.decision(self.state).rescale(DECISION_SCALE)
        return Scored(z, self.solver.y, self.problem.rows)

    @functools.cached_property
    def _functions(self) -> list[Value]:
        """Sigmoid of |z|, and log(1 + e^-|z|), both within 1e-6."""
        series = sigmoid(TAIL_BOUND, ERROR), softplus_tail(TAIL_BOUND, ERROR)
        found = self._scored.size.fourier(*series, dealt_bits=DEALT_BITS, coefficient_bits=COEFFICIENT_BITS)
        return [value.rescale(PROBABILITY_SCALE) for value in found]

    @functools.cached_property
    def _classes(self) -> tuple[Value, Value]:
        """Weights of rows whose outcome is 1, and of the others; zero elsewhere."""
        y = self.solver.y
        if self.weights is None:
            return y, 1 - y
        positive = settled((self.weights.rows * y).bounded(self.weights.largest, "a weight or zero"))
        return positive, self.weights.rows - positive

    def _sum(self, weights: Value, of: Value, most: float) -> Value:
        """A weighted sum over rows, over 2^halved, `(1,)`; `most` bounds `of`."""
        total = weights.dot(of, magnitude=1.01 * most * self.problem.rows).reshape(1)
        return total.shifted(self.problem.halved).rescale(PROBABILITY_SCALE)

    @functools.cached_property
    def _totals(self) -> tuple[Value, Value]:
        """Weights of both classes over 2^halved, `(1,)` each."""
        scale = max(38, self.problem.halved)
        sums = [part.sum(magnitude=1.01 * self.problem.rows).reshape(1) for part in self._classes]
        first, second = (part.shifted(self.problem.halved) for part in sums)
        top = max(scale, first.scale)
        return first.at_scale(top).rescale(scale), second.at_scale(top).rescale(scale)

    def figure(self, name: str) -> Value:
        """A figure, by its name in `FIGURES`; zero for coefficients of which nothing can be said."""
        found = FIGURES[name](self)
        if self.shown is None or name not in OF_COEFFICIENTS:
            return found
        return found * self._bits(self.shown)

    # -- coefficients ----------------------------------------------------------------------------------------

    @functools.cached_property
    def _slopes(self) -> Value:
        upper, _ = self._functions
        return upper.times(1 - upper, magnitude=0.26)

    @functools.cached_property
    def _doubtful(self) -> Value:
        """The Hessian `(k, k)` of the rows whose outcome is not sure."""
        unsure = (self._scored.size - SURE).is_negative().to_ring()
        slopes = settled(self._slopes.rescale(PROBABILITY_SCALE)) * unsure
        return self.solver.information(self.state, slopes.bounded(0.26, "a slope or zero"))

    @functools.cached_property
    def _solved(self) -> tuple[Value, Value, Value]:
        """The inverse of the Hessian `(k, k)`, the diagonal before the last refinement, and its product.

        With coefficients left out, it is the inverse of the Hessian of the others, and a quarter stands for
        each of the former; the product is how far the others move without them, `(k,)`.
        """
        moved, factors = self.state.weights * 0, list(REFINEMENTS)
        if self.used is None:
            hessian, start = self.solver.information(self.state, self._slopes), self.begun.shifted(1)
        else:
            hessian = self._doubtful
            used, out = self.used, 1 - self.used
            between = (hessian * self._bits(np.outer(used, out))).bounded(0.6, "a part of the Hessian")
            moved = between.matmul(self.state.weights.column(), magnitude=2.0**8).rescale(RESIDUAL_BITS)
            moved = moved.reshape(self.problem.size)
            quarters = self.builder.constant(np.diag(out / 4), scale=HESSIAN_SCALE)
            hessian = (hessian * self._bits(np.outer(used, used)) + quarters).bounded(0.6, "a part of it")
            start = scaled_identity(hessian, TRACE / length(hessian), scale=INVERSE_SCALE)
            factors = [*self.solver.first_factors, *REFINEMENTS]
        refine = functools.partial(refine_inverse, hessian, bound=WIDEST_INVERSE, scale=INVERSE_SCALE)
        first, _ = refine(start, moved, factors=factors)
        last, product = refine(first, moved, factors=(1.0,))
        return last, self._diagonal(first), product

    def _bits(self, bits: npt.NDArray[np.floating[Any]]) -> Value:
        """Public zeros and ones."""
        return self.builder.constant(bits.astype(np.float64), scale=0)

    @functools.cached_property
    def loose(self) -> Value:
        """Which coefficients nothing can be said of, given those before them, `(k,)`: the intercept is first.

        The intercept's bit is also 1 if the mean of some other column is too far beyond its spread.
        """
        count, size = len(self.problem.names), self.problem.size
        order = [*range(count, size), *range(count)]
        found = dependent(self._doubtful, order, low=LEAST_POWER)
        if not self.problem.intercept:
            return found
        slope = self._gradient
        far = [LARGEST_RATIO + side for side in (slope, slope * -1)]
        beyond = far[0].is_negative().to_ring() + far[1].is_negative().to_ring()
        beyond = (beyond * (found * -1 + 1)).bounded(1.0, "a condition").sum().reshape(1)
        last = found.slice(count, size) + (beyond.is_zero().to_ring() * -1 + 1)
        last = (last.is_zero().to_ring() * -1 + 1).reshape(1, 1)
        others = found.slice(0, count).reshape(count, 1)
        return concatenate([others, last]).reshape(size)

    @functools.cached_property
    def _shown(self) -> Value:
        """Coefficients in scaled coordinates; those left out are zero, and others take over from them."""
        weights = self.state.weights
        if self.used is None:
            return weights
        moved = (weights + self._solved[2].rescale(WEIGHT_SCALE)) * self._bits(self.used)
        return moved.bounded(WIDEST_WEIGHT, "as without the columns that are left out")

    @functools.cached_property
    def _parameters(self) -> Parameters:
        return self.solver.parameters(attrs.evolve(self.state, weights=self._shown), COEFFICIENT_SCALE)

    def _diagonal(self, matrix: Value) -> Value:
        size = length(matrix)
        return (matrix * self.builder.constant(np.eye(size))).sum_columns().at_scale(VARIANCE_SCALE)

    @functools.cached_property
    def _variances(self) -> Value:
        """Variances of coefficients in scaled coordinates, times 2^halved."""
        return self._diagonal(self._solved[0]).bounded(WIDEST_INVERSE, "the inverse's bound")

    @functools.cached_property
    def _gradient(self) -> Value:
        """How the intercept depends on coefficients in scaled coordinates."""
        means = -self.state.means.column()
        ones = means.append_row(1.0)
        slope = (ones * self.roots.column()).rescale(14).reshape(self.problem.size)
        if self.used is None or self.shown is None:
            return slope
        return slope * self._bits(self.used * self.shown[-1])  # nothing of an intercept that is not told

    @functools.cached_property
    def _intercept_variance(self) -> Value:
        """The intercept's variance, times 2^halved, `(1,)`."""
        gradient = self._gradient.bounded(LARGEST_RATIO, "checked")
        moved = self._solved[0].matmul(gradient.column(), magnitude=2.0**22).rescale(12)
        return gradient.matmul(moved, magnitude=2.0**32).rescale(12)

    @functools.cached_property
    def inexact(self) -> Value:
        """Whether a standard error cannot be made exact: one bit."""
        last, first = self._variances, self._solved[1]
        slack = last * self.builder.constant(STILL, scale=12)
        doubts = [slack - (last - first), slack + (last - first), last * -1 + LARGEST_VARIANCE, last - 1.0]
        if self.problem.intercept and (self.shown is None or self.shown[-1]):
            doubts += [self._gradient + LARGEST_RATIO, self._gradient * -1 + LARGEST_RATIO]
            doubts += [self._intercept_variance * -1 + 2.0**30, self._intercept_variance - 0.5]
        counted = [doubt.is_negative().to_ring().sum().reshape(1) for doubt in doubts]
        total = functools.reduce(lambda left, right: left + right, counted)
        return -total.is_zero().to_ring() + 1

    def _inverse_roots(self) -> tuple[Value, Value | None]:
        """One over the root of variances of the features' coefficients `(d,)`, and of the intercept's."""
        count = len(self.problem.names)
        some = self._variances.column().select(list(range(count))).reshape(count)
        features = inverse_sqrt(some, low=0, high=8, scale=24)
        if not self.problem.intercept:
            return features, None
        return features, inverse_sqrt(self._intercept_variance, low=-1, high=15, scale=24)

    def _stacked(self, features: Value, intercept: Value | None) -> Value:
        if intercept is None:
            return features
        scale = max(features.scale, intercept.scale)
        parts = [part.at_scale(scale).column() for part in (features, intercept)]
        return concatenate(parts).reshape(self.problem.size)

    def coef(self) -> Value:
        """Coefficients in units of the columns."""
        found = self._parameters
        intercept = found.intercept.rescale(WEIGHT_SCALE) if self.problem.intercept else None
        return self._stacked(found.weights, intercept)

    def se(self) -> Value:
        """Standard errors in units of the columns, times the root of 2^halved and 2^exponents."""
        count = len(self.problem.names)
        features, intercept = self._inverse_roots()
        some = self._variances.column().select(list(range(count))).reshape(count)
        deviations = some.times(features, magnitude=2.0**9).rescale(24)
        used = self.lifted.column().select(list(range(count))).reshape(count)
        errors = [deviations.times(used, magnitude=2.0**17).rescale(ERROR_SCALE)]
        if intercept is not None:
            errors.append(self._intercept_variance.times(intercept, magnitude=2.0**17).rescale(ERROR_SCALE))
        return self._unweighted(self._stacked(*errors, *[None] * (2 - len(errors))))

    @functools.cached_property
    def _root_of_mean(self) -> tuple[Value, Value] | None:
        """One over the root of the mean of sample weights `(1,)`, and the root; None for a mean of one."""
        if self.weights is None or self.weights.mean is None:
            return None
        mean = self.weights.mean
        inverse = inverse_sqrt(mean, low=SMALLEST_MEAN // 2, high=(LARGEST_MEAN + 1) // 2, scale=24)
        return inverse, mean.times(inverse, magnitude=2.0**7.5).rescale(20)

    def _unweighted(self, errors: Value) -> Value:
        """Errors, or what else is in proportion to one over the root of weights, for the weights as given."""
        if self._root_of_mean is None:
            return errors
        return _product(errors.rescale(22), self._root_of_mean[0], bits=18, most=2.0**17, magnitude=2.0**20.5)

    def z(self) -> Value:
        """Coefficients over their standard errors."""
        count = len(self.problem.names)
        features, intercept = self._inverse_roots()
        scaled = self._shown.column().select(list(range(count))).reshape(count)
        found = [scaled.times(features, magnitude=2.0**9).rescale(WEIGHT_SCALE)]
        if intercept is not None:
            last = self._parameters.intercept.rescale(Z_SCALE).bounded(WIDEST_INTERCEPT, "checked by the fit")
            found.append(last.times(intercept, magnitude=2.0**12).rescale(WEIGHT_SCALE))
        stacked = self._stacked(*found, *[None] * (2 - len(found)))
        factor = 2.0 ** (self.problem.halved / 2)
        if self.weights is not None and self._root_of_mean is not None:
            root = self._root_of_mean[1]
            stacked = stacked.times(root, magnitude=2.0**16).rescale(WEIGHT_SCALE)
            factor *= 2.0 ** (self.weights.exponent / 2)
        scale = 20 - math.ceil(math.log2(factor))
        return (stacked * self.builder.constant(factor, scale=scale)).rescale(Z_SCALE)

    @functools.cached_property
    def _z_size(self) -> Value:
        z = settled(self.z())
        return z - (z.is_negative().to_ring() * z * 2)

    def p(self) -> Value:
        """Two-sided p-values of the coefficients, within 1e-4."""
        knots = np.linspace(0, CERTAIN, 289)
        return tabulated(settled(self._z_size), two_sided, knots, scale=24)

    def sign(self) -> Value:
        """1 where a coefficient is negative."""
        return self.coef().is_negative().to_ring()

    def significant(self) -> Value:
        """1 where the p-value is below alpha."""
        return (self._z_size * -1 + critical(self.alpha)).is_negative().to_ring()

    # -- the fit ---------------------------------------------------------------------------------------------

    def _as_given(self, x: Value) -> Value:
        """Sums over 2^halved, for the weights as given in units."""
        if self.weights is None or self.weights.mean is None:
            return x
        return _product(x.rescale(24), self.weights.mean, bits=UNIT_BITS, most=2.0**6.5, magnitude=2.0**20.5)

    @functools.cached_property
    def _loss(self) -> Value:
        """The log-loss over 2^halved."""
        positive, negative = self._classes
        labelled = self._scored.positive
        wrong = positive - 2 * (positive * labelled) + (positive + negative) * labelled
        wrong = settled(
            wrong.bounded(1.0 if self.weights is None else self.weights.largest, "zero or weight")
        )
        far = self._sum(wrong, self._scored.size, TAIL_BOUND)
        near = self._sum(positive + negative, self._functions[1], 0.7) if self.weights is not None else None
        if near is None:
            near = self._functions[1].sum().reshape(1).shifted(self.problem.halved).rescale(PROBABILITY_SCALE)
        return far + near

    @functools.cached_property
    def _null_loss(self) -> Value:
        """The log-loss over 2^halved of a constant: with class sums P, N, `T log T - P log P - N log N`."""
        positive, negative = (part.rescale(RATIO_SCALE) for part in self._totals)
        terms = [
            part.times(logarithm(part, low=LEAST_SHARE, scale=24), magnitude=0.4)
            for part in (positive + negative, positive, negative)
        ]
        return (terms[0] - terms[1] - terms[2]).rescale(PROBABILITY_SCALE)

    def llf(self) -> Value:
        """Log-likelihood over 2^halved."""
        return -self._as_given(self._loss)

    def llnull(self) -> Value:
        """Log-likelihood over 2^halved of a constant probability."""
        return -self._as_given(self._null_loss)

    def llr(self) -> Value:
        """Half of the likelihood ratio's statistic over 2^halved."""
        return self._as_given(self._null_loss - self._loss)

    def llr_pvalue(self) -> Value:
        """The likelihood ratio's p-value, within 1e-3."""
        used = np.ones(self.problem.size) if self.used is None else self.used
        dof = int(used[: len(self.problem.names)].sum())
        most = dof + 12 * math.sqrt(2 * dof) + 40
        exponent = self.problem.halved + 1
        if self.weights is not None:
            exponent += self.weights.exponent
        statistic = self.llr().shifted(-exponent)
        tail = functools.partial(chi_square_tail, dof=dof)
        return tabulated(statistic, tail, most * np.linspace(0, 1, 400) ** 3, scale=24)

    def prsquared(self) -> Value:
        """McFadden's R2: one less the ratio of log-likelihoods."""
        null = self._null_loss.rescale(RATIO_SCALE)
        inverse = reciprocal(null, low=LEAST_SHARE, high=1, scale=22)
        ratio = self._loss.rescale(RATIO_SCALE).times(inverse, magnitude=2.0**7)
        return 1 - ratio.rescale(24)

    def tjur(self) -> Value:
        """Difference of both classes' mean probabilities."""
        upper, labelled = self._functions[0], self._scored.positive
        lifted = labelled.times(upper * 2 - 1, magnitude=1.01).rescale(PROBABILITY_SCALE)
        probability = settled((lifted - upper + 1).bounded(1.01, "a probability"))
        means = []
        for weights, total in zip(self._classes, self._totals, strict=True):
            inverse = reciprocal(total, low=-halvings(self.problem.rows), high=1, scale=22)
            total = self._sum(weights, probability, 1.01)
            means.append(total.times(inverse, magnitude=1.02).rescale(24))
        return means[0] - means[1]

    def nobs(self) -> Value:
        """The sum of weights over 2^halved, in units."""
        positive, negative = self._totals
        return self._as_given((positive + negative).rescale(RATIO_SCALE))


def _product(x: Value, y: Value, *, bits: int, most: float, magnitude: float) -> Value:
    """`x y` at the scale of x, where y has more digits than the bound of the product leaves room for.

    Those beyond `bits` are multiplied apart; `most` bounds x.
    """
    high = y.rescale(bits)
    low = (y - high.at_scale(y.scale)).bounded(2.0 ** (1 - bits), "what was rounded off")
    product = x.times(high, magnitude=magnitude).rescale(x.scale)
    return product + x.times(low, magnitude=most * 2.0 ** (1 - bits)).rescale(x.scale)


FIGURES: dict[str, Callable[[Inference], Value]] = {
    "coef": Inference.coef,
    "se": Inference.se,
    "z": Inference.z,
    "p": Inference.p,
    "sign": Inference.sign,
    "significant": Inference.significant,
    "llf": Inference.llf,
    "llnull": Inference.llnull,
    "llr": Inference.llr,
    "llr_pvalue": Inference.llr_pvalue,
    "prsquared": Inference.prsquared,
    "tjur": Inference.tjur,
    "nobs": Inference.nobs,
}
"""What a plan can reveal, each alone."""
OF_COEFFICIENTS = frozenset({"coef", "se", "z", "p", "sign", "significant"})
"""Of them, those of coefficients."""
GUARDED = frozenset({"se", "z", "p", "significant"})
"""What is revealed as zeros if `inexact` is 1."""
