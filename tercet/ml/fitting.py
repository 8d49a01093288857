"""What the solvers of a fit have in common: the problem, the state between steps, the checks at the end.

A solver plans a fit as steps from `State` to `State`. A state is plain secret values, so a fit can pause
between two steps, store it, and go on in another plan: that is how a fit with `tol` looks at one bit after
each step. What is summed over rows is truncated after the sum, and every promise about magnitudes that the
types cannot see is proved where it is made, or checked by `checks` when the fit is over.
"""

from __future__ import annotations

import abc
import functools
import math
import operator
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError
from tercet.ml.disclosure import inverted
from tercet.ml.linalg import halvings, length, mean, reciprocal
from tercet.ml.schema import INTEGER_BITS
from tercet.ml.spreads import centre
from tercet.ml.stored_columns import UNIT_BITS
from tercet.ml.table import ANALYST, Table
from tercet.ml.weights import weigh
from tercet.plans import Builder, Series, Value, sigmoid
from tercet.plans.loops import Loop

WEIGHT_SCALE = 24
GRADIENT_SCALE = 26
WIDEST_WEIGHT = 2.0**8
"""Bound on a weight in the solver's coordinates, checked at the end: a coefficient times the spread of its
column, in Newton's."""
WIDEST_COEFFICIENT = 2.0**8
"""Bound on a coefficient of a column in units, checked at the end: the spread of a unit is about one."""
WIDEST_INTERCEPT = 2.0**20
"""Bound on coefficients times means, checked at the end."""
WIDEST_ROOT = 2.0**9
WIDEST_OFFSET = 2.0**10
"""Bound on an offset, checked at the end."""
WIDEST_VALUE = 2.0 ** (INTEGER_BITS - UNIT_BITS)
"""No value of a column is larger, in units."""
COEFFICIENT_SCALE = 18
MEAN_SCALE = 22
CENTRE_SCALE = 12
MOST_OUTCOME_BITS = 38
"""Fractional bits of probabilities, where sums leave room for them."""
SEPARATED = 0.25
"""If probabilities are nearer to outcomes than this, summed over rows, no coefficients are best."""
STEADY = 1e-4
"""A fit has converged if the square of its last step, in standard errors, is below this: a hundredth of
one."""

OUT_OF_RANGE = "whether a decision value or a coefficient left its range"
ONE_CLASS = "whether only one outcome occurs"
TOO_FEW = "whether a fit rests on fewer rows than its owners allow"
FLAWED = "whether a weight is negative or too large"
FAR_OFFSET = "whether an offset is out of range"
CHECKED = "checked at the end"
APART = "whether columns tell all outcomes apart without error"
MOVING = "whether the last step still moved the fit"
CONVERGED = "whether the fit has converged"
CHECKS = frozenset({OUT_OF_RANGE, ONE_CLASS, TOO_FEW, FLAWED, FAR_OFFSET, APART, MOVING, CONVERGED})
"""All bits that a fit reveals to its caller, and one that goes on alone to the nodes."""


def stronger(penalised: bool) -> str:
    """What helps fits that grow without limit, in words."""
    return "a smaller C" if penalised else "a penalty (penalty='l2')"


@attrs.frozen(eq=False)
class Problem:
    """What is fitted: all of it public.

    `strength` is the penalty's factor, 1/C or zero; `probability` the series that stands for the sigmoid.
    `mask` (a boolean column, or zeros and ones `(n,)` in the plan of the fit), `sample_weight` (a column) and
    `balanced` weigh rows, see `tercet.ml.weights`; `offset` is a column added to the decision values.
    """

    table: Table
    target: str
    names: tuple[str, ...]
    strength: float
    probability: Series
    mask: str | Value | None = None
    sample_weight: str | None = None
    balanced: bool = False
    offset: str | None = None
    intercept: bool = True

    @property
    def size(self) -> int:
        """Number of weights of the model: one for each feature and the intercept."""
        return len(self.names) + self.intercept

    @property
    def weighs(self) -> bool:
        """Whether some rows may count more than others."""
        given = (self.mask, self.sample_weight, *self.table.selection)
        return self.balanced or any(one is not None for one in given)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.table.rows

    @property
    def halved(self) -> int:
        """Sums over rows are read as means over 2 to this power, at least the number of rows."""
        return halvings(self.rows)

    @property
    def unit_exponents(self) -> npt.NDArray[np.int64]:
        """For each feature, the power of two that a unit stands for."""
        return np.array([self.table.column(name).unit_exponent for name in self.names], dtype=np.int64)

    def penalties(self, most: float) -> npt.NDArray[np.float64]:
        """The penalty's factor for coefficients of columns in units, at most `most`."""
        exponents = np.minimum(-2.0 * self.unit_exponents, 2.0**9)
        factors: npt.NDArray[np.float64] = np.minimum(self.strength * np.exp2(exponents), most)
        return factors


def title(problem: Problem, made: int) -> str:
    """The name of a plan of a fit that begins after so many steps."""
    title = f"fit {problem.target} on {problem.table.name}"
    return f"{title}, step {made + 1}" if made else title


USUAL_BOUND = 56.0
"""Decision values of most fits stay below."""
ROWS = ("x", "weighted")
"""What grows with the table, of a state."""


@attrs.frozen(eq=False)
class State:
    """What goes from step to step.

    `x` are the features in the solver's coordinates `(d + 1, n)`, with a last row of ones, zero for rows that
    do not count; `weighted` the same times the rows' weights, None where that is `x`. Weights `(d + 1,)` have
    the intercept last. `roots` `(d + 1,)` are what scaled the columns, `penalties` the Hessian's share of the
    penalty, `inverse` that of the Hessian, `decrement` the square of the last step in standard errors, over
    2^halved, `centre` `(1,)` what offsets are taken less. `change` is how the weights came from those of the
    last step, and `fall` `(1,)` how steeply the loss falls there in that direction; `missed` `(1,)` is how
    far probabilities are from outcomes, summed over rows. Without an intercept, d + 1 is d. `lifted` are
    `roots` before the penalty's powers of two, with all their digits. `enough` `(1,)` says whether as many
    rows count as owners ask for, where they do; where they do not, the rest is that of a fit on no row.
    """

    x: Value
    means: Value
    weights: Value
    change: Value
    weighted: Value | None = None
    roots: Value | None = None
    penalties: Value | None = None
    inverse: Value | None = None
    decrement: Value | None = None
    centre: Value | None = None
    fall: Value | None = None
    missed: Value | None = None
    lifted: Value | None = None
    enough: Value | None = None

    @property
    def summed(self) -> Value:
        """What sums over rows multiply by: features times weights of rows."""
        return self.x if self.weighted is None else self.weighted

    @property
    def kept(self) -> dict[str, Value]:
        """What a fit goes on from, by name: all that does not grow with the table; see `Solver.resume`."""
        return {name: value for name, value in self._values.items() if name not in ROWS}

    @property
    def _values(self) -> dict[str, Value]:
        fields = attrs.asdict(self, recurse=False)
        return {name: value for name, value in fields.items() if value is not None}

    def store(self, handle: str, *, rows: bool = False) -> dict[str, str]:
        """Keep what a fit goes on from at the nodes; the handles by name, which begin with `handle`.

        With `rows`, also what grows with the table.
        """
        values = self._values if rows else self.kept
        handles = {name: f"{handle}.{name}" for name in values}
        for name, value in values.items():
            value.store(handles[name])
        return handles

    def checkpoint(self, step: int) -> None:
        """Have nodes that last keep what a fit goes on from, until the plan has ended."""
        for name, value in self.kept.items():
            value.checkpoint(step, f"step {step} {name}")


@attrs.frozen(eq=False)
class Parameters:
    """What was found: coefficients of columns in units `(d,)` and the intercept `(1,)`.

    `offset` is the product of coefficients and means.
    """

    weights: Value
    offset: Value
    intercept: Value


class Solver(abc.ABC):
    """Plans the steps of a fit, in one plan or several."""

    outcome_bits: int
    """Fractional bits of probabilities."""
    coefficient_bits = 17
    """Of them, those of the coefficients in their series: their rounding is the same in every row, that of
    what the dealer sends is random."""

    def __init__(self, problem: Problem, builder: Builder, enough: Value | None = None) -> None:
        """Plan for a problem; `enough` is that of the state of an earlier plan, if there is one."""
        self.problem, self.builder = problem, builder
        self._loop = Loop(builder)
        (raw,) = problem.table.raw(builder, [problem.target])
        self.y = raw.squeeze()
        with builder.scope("weights"):
            self.rows = weigh(
                builder,
                problem.table,
                self.y,
                mask=problem.mask,
                column=problem.sample_weight,
                balanced=problem.balanced,
                enough=enough,
            )

    @property
    @abc.abstractmethod
    def spread(self) -> float:
        """A bound on the root mean square of each row of features."""

    @abc.abstractmethod
    def begin(self) -> State:
        """Bring the features into the solver's coordinates, and choose weights to start from."""

    def resume(self, kept: Mapping[str, Value]) -> State:
        """A state again, from what `State.kept` has of it; rows are computed again unless it has them."""
        return State(**(kept if "x" in kept else {**self.coordinates(kept), **kept}))

    @abc.abstractmethod
    def coordinates(self, kept: Mapping[str, Value]) -> dict[str, Value]:
        """The features in the solver's coordinates, by their names in a state, from the rest of it."""

    @abc.abstractmethod
    def step(self, state: State, number: int) -> State:
        """Write one step; they count from 1, and those after it follow from the types of the state."""

    def advance(self, state: State, number: int) -> State:
        """The state after one more step, which is written or copied."""
        return self._loop(self.step, state, number)

    def features(self) -> Value:
        """The features in units `(d, n)`."""
        return self.problem.table.features(self.builder, self.problem.names)

    @property
    def total(self) -> Value | None:
        """The sum of weights over 2^halved, to divide by; None if all are 1."""
        return None if self.rows is None else self.rows.divisor.total(self.problem.rows)

    def means(self, total: Value | None) -> Value:
        """Means of the features in the rows that count `(d,)`, given the sum of weights over 2^halved."""
        rows, halved = self.problem.rows, self.problem.halved
        if self.rows is None or total is None:
            return centre(self.features(), rows)[1]
        sums = self.features().dot(self.rows.rows, magnitude=WIDEST_VALUE * rows).shifted(halved)
        inverse = reciprocal(total, low=-halved, high=1, scale=MEAN_SCALE)
        means = sums.rescale(MEAN_SCALE).times(inverse, magnitude=WIDEST_VALUE)
        return means.rescale(UNIT_BITS)

    def columns(self, means: Value) -> Value:
        """Features of the rows that count, less their means, and for the intercept a column of ones.

        Without weights, the ones are left out: they need no scaling.
        """
        columns = self.features() - means.column() if self.problem.intercept else self.features()
        if self.rows is None:
            return columns
        columns = columns.append_row(1.0) if self.problem.intercept else columns
        return columns * self.rows.mask

    def polish(self, state: State) -> State:
        """What a fit ends with: by default, its last step."""
        return state

    def start(self, x: Value, means: Value, **more: Value | None) -> State:
        """The state with zero weights."""
        size = length(x)
        zero = means.column().select([0] * size).reshape(size) * 0
        zero = zero.at_scale(WEIGHT_SCALE).bounded(WIDEST_WEIGHT, "zero")
        enough = None if self.rows is None else self.rows.enough
        return State(x, means, zero, zero, enough=enough, **more)

    # -- parts of a step -------------------------------------------------------------------------------------

    def decision(self, state: State) -> Value:
        """`w X` and the offset, to be read modulo the sigmoid's period, or compared with its range."""
        scale = state.weights.scale + state.x.scale
        values = state.weights.matmul(state.x, magnitude=2.0 ** (60 - scale))
        offset = self.offset()
        if offset is None:
            return values
        values = values + offset.bounded(WIDEST_OFFSET, CHECKED).rescale(scale)
        if state.centre is None:
            return values
        centre = state.centre if self.rows is None else state.centre * self.rows.mask
        return values - centre.at_scale(scale)

    def offset(self) -> Value | None:
        """The offset of rows that count `(n,)`, at the scale of its column."""
        if self.problem.offset is None:
            return None
        offset = offsets(self.builder, self.problem.table, self.problem.offset)
        return offset if self.rows is None else offset * self.rows.mask

    def centre(self, total: Value | None) -> Value | None:
        """About the mean offset of the rows that count `(1,)`: with it, fits start near where they end."""
        offset, rows = self.offset(), self.problem.rows
        if offset is None or not self.problem.intercept:
            return None
        coarse = offset.bounded(WIDEST_OFFSET, CHECKED).rescale(CENTRE_SCALE)
        if self.rows is None or total is None:
            return mean(coarse.sum().reshape(1), rows, scale=CENTRE_SCALE)
        sums = coarse.dot(self.rows.rows, magnitude=1.01 * WIDEST_OFFSET * rows).reshape(1)
        inverse = reciprocal(total, low=-self.problem.halved, high=1, scale=MEAN_SCALE)
        sums = sums.shifted(self.problem.halved).rescale(MEAN_SCALE)
        return sums.times(inverse, magnitude=1.02 * WIDEST_OFFSET).rescale(CENTRE_SCALE)

    def functions(self, state: State, *series: Series) -> list[Value]:
        """Probabilities, or other functions of the decision values, from one opening."""
        coefficient = self.coefficient_bits
        dealt = self.outcome_bits - coefficient
        return self.decision(state).fourier(*series, dealt_bits=dealt, coefficient_bits=coefficient)

    def residuals(self, probabilities: Value) -> Value:
        """Probabilities less outcomes."""
        return probabilities - self.y.at_scale(probabilities.scale)

    def gradient(self, state: State, residuals: Value, penalties: Value | None) -> Value:
        """Gradient of the penalised loss over 2^halved, `(d + 1,)`.

        By Cauchy and Schwarz, a mean of residuals times features is below `spread`.
        """
        total = state.summed.dot(residuals, magnitude=1.05 * self.problem.rows * self.spread)
        gradient = total.shifted(self.problem.halved).rescale(GRADIENT_SCALE)
        if penalties is not None:
            drawn = state.weights.times(penalties, magnitude=WIDEST_WEIGHT).rescale(GRADIENT_SCALE)
            gradient = gradient + drawn
        return gradient.bounded(2.0 * self.spread + WIDEST_WEIGHT, "residuals are below one")

    def moved(self, state: State, move: Value, **more: Value) -> State:
        """The state after a move against the gradient, with `more` of it replaced."""
        weights = (state.weights - move).bounded(WIDEST_WEIGHT, CHECKED)
        return attrs.evolve(state, weights=weights, **{"change": move, **more})

    # -- between plans, and at the end -----------------------------------------------------------------------

    def reveal_convergence(self, state: State, tol: float) -> None:
        """Reveal whether the last step changed every weight by less than `tol`."""
        small = (state.change - tol).is_negative() & (-state.change - tol).is_negative()
        large = (-small.to_ring() + 1).sum()
        large.reshape(1).is_zero().to_ring().reveal(CONVERGED, to=ANALYST, kind="check")

    def parameters(self, state: State, scale: int | None = None) -> Parameters:
        """Parameters for columns in units.

        With a scale, those of a fit that was checked; without, coefficients have as many bits as decision
        values leave room for.
        """
        count = len(self.problem.names)
        known = None if scale is None else WIDEST_INTERCEPT / 2
        scale = scale or min(COEFFICIENT_SCALE, 23 - halvings(count))
        column = state.weights.column()
        if state.roots is not None:
            column = column.times(state.roots.column(), magnitude=WIDEST_WEIGHT * WIDEST_ROOT)
        weights = column.select(list(range(count))).rescale(scale).reshape(count)
        bounded = weights.bounded(WIDEST_COEFFICIENT, CHECKED)
        offset = bounded.dot(state.means, magnitude=known).reshape(1)
        if not self.problem.intercept:
            return Parameters(bounded, offset, offset * 0)
        last = column.select([count]).rescale(WEIGHT_SCALE).reshape(1)
        last = last if state.centre is None else last - state.centre
        last = last.bounded(WIDEST_INTERCEPT / 2, CHECKED)
        return Parameters(
            bounded, offset, (last.at_scale(offset.scale) - offset).bounded(WIDEST_INTERCEPT, CHECKED)
        )

    def enough(self) -> dict[str, Value]:
        """A bit `(1,)`, whether too few rows count, where owners set a minimum and the number is secret.

        If so, all else that the plan makes is what it makes of no row: the bit is for whoever asked.
        """
        if self.rows is None or self.rows.enough is None:
            return {}
        return {TOO_FEW: inverted(self.rows.enough)}

    def checks(self, state: State, found: Parameters) -> dict[str, Value]:
        """Whether the fit can be trusted: a bit `(1,)` each for its range, its outcomes and its last step."""
        with self.builder.scope("checks"):
            ranges = [
                (self.decision(state), self.problem.probability.bound),
                (state.weights, WIDEST_WEIGHT),
                (found.weights, WIDEST_COEFFICIENT),
                (found.offset, WIDEST_INTERCEPT / 2),
            ]
            missing = functools.reduce(operator.add, (_outside(value, bound) for value, bound in ranges))
            bits = {OUT_OF_RANGE: missing.is_negative().to_ring(), ONE_CLASS: self._one_class()}
            if (offset := self.offset()) is not None:
                bits[FAR_OFFSET] = _outside(offset, WIDEST_OFFSET).is_negative().to_ring()
            if self.rows is not None and self.rows.flaws is not None:
                bits[FLAWED] = -self.rows.flaws.is_zero().to_ring() + 1
            if state.decrement is not None:
                steady = STEADY * 2.0**-self.problem.halved
                still = [(side - steady).is_negative() for side in (state.decrement, -state.decrement)]
                bits[MOVING] = -functools.reduce(operator.and_, still).to_ring() + 1
            if state.missed is not None:
                bits[APART] = (state.missed - SEPARATED).is_negative().to_ring()
            return bits

    def _one_class(self) -> Value:
        """Whether the rows that count have only one outcome, `(1,)`."""
        if self.rows is None:
            positives, negatives = self.y.sum().reshape(1), (1 - self.y).sum().reshape(1)
        else:
            kept = self.rows.mask
            positives = kept.dot(self.y).reshape(1)
            negatives = kept.sum().reshape(1) - positives
        return (positives * negatives).is_zero().to_ring()


def offsets(builder: Builder, table: Table, name: str) -> Value:
    """A column `(n,)` as numbers to add to decision values, in its own units and at its own scale."""
    column = table.column(name)
    return table.features(builder, [name]).squeeze().shifted(-column.unit_exponent)


def linear_predictor(
    table: Table,
    names: Sequence[str],
    weights: Value,
    intercept: Value,
    *,
    like: Table,
    offset: str | None = None,
) -> Value:
    """`X w + b`, and an offset, for the rows of a table `(rows,)`, as a product at full scale.

    Weights `(d,)` are those of columns in the units of the table `like`.
    """
    builder = weights.builder
    values = weights @ table.features(builder, names, like=like) + intercept
    if offset is None:
        return values
    added = offsets(builder, table, offset).bounded(WIDEST_OFFSET, "as in the fit")
    return values + added.nearest(values.scale)


def _outside(value: Value, bound: float) -> Value:
    """How many of the elements exceed a bound, counted below zero, `(1,)`."""
    inside = [(side - bound).is_negative(64).to_ring().sum() for side in (value, -value)]
    return (inside[0] + inside[1] - 2 * length(value)).reshape(1)


def probability_within(bound: float, wanted: float | None, rows: int) -> Series:
    """The sigmoid on [-bound, bound] to an error; by default one that does not show in standard errors.

    Raises PlanError if no series of it is so exact.
    """
    if wanted is None:
        errors = (2e-5, 5e-6, 1e-6) if bound <= USUAL_BOUND else (2e-4,)
        wanted = next((error for error in errors if error <= 0.005 / math.sqrt(rows)), errors[-1])
    try:
        return sigmoid(bound, wanted)
    except ValueError as error:
        raise PlanError(
            f"sigmoid_error={wanted:g} cannot be had for z_bound={bound:g}; use a larger error ({error})"
        ) from error
