"""Logistic regression in MPC: fitted on a virtual table, kept secret or revealed, used on other tables.

The default solver is Newton's method (iteratively reweighted least squares). Inside a fit, columns are centred and scaled by
secret factors, so that every quantity has a known range whatever the columns measure; the penalty is the one on the
coefficients of the columns as they are, as in scikit-learn. What is summed over rows is truncated after the sum. Sigmoid and
its slope come from one opening; the inverse of the Hessian follows by Newton and Schulz's iteration, warm-started from the last
one. The number of steps is public and fixed, unless `tol` asks for one revealed bit a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Series, Type, Value, concatenate, sigmoid, slope
from tercet.errors import PlanError, SchemaError
from tercet.ml.linalg import append_row, halvings, inverse_sqrt, newton_schulz
from tercet.ml.metrics import Evaluation, evaluate
from tercet.ml.preprocessing import HIGH_POWER, LOW_POWER, ROOT_SCALE, centre, variances
from tercet.ml.table import ANALYST, UNIT_BITS, WIDE_SPREAD, SecretColumn, Steps, Table

WEIGHT_SCALE = 24
GRADIENT_SCALE = 26
HESSIAN_SCALE = 24
RIDGE = 2.0**-16
"""Added to the Hessian's diagonal, whose entries are about 1/4: bounds the inverse, and slows down only directions in which
the data say almost nothing."""
INVERSE_BITS = 16
"""Entries of the inverse are at most 2^16, one over the ridge."""
WIDEST_WEIGHT = 64.0
"""Bound on a coefficient times the spread of its column; beyond it, outcomes are certain to e^-64."""
FIRST_INVERSE_STEPS = 23
SMALL_ROWS = 1 << 15
WARM_INVERSE_STEPS = 4

Solver = Literal["newton", "gd"]


@attrs.frozen
class _Precision:
    """Fixed-point choices for a fit, from the public numbers of rows and columns."""

    feature: int
    dealt: int
    coefficient: int
    slope: int
    inverse: int

    @classmethod
    def for_newton(cls, rows: int, parameters: int) -> _Precision:
        """Bits such that sums over rows of slope times feature times feature fit 61 bits (Cauchy and Schwarz).

        Small tables get probabilities of 30 bits and truncate the slopes, which costs two rounds a step. In large ones the
        rounding of a probability, a thousandth of its own spread, is random and drowns in that spread, so slopes are used
        as they come.
        """
        inverse = min(20, 61 - HESSIAN_SCALE - INVERSE_BITS - halvings(parameters))
        if rows <= SMALL_ROWS:
            return cls(16, 15, 15, 14, inverse)
        total = 63 - halvings(rows)
        feature = max(10, min(16, (total - 24) // 2))
        outcome = min(30, total - 2 * feature)
        return cls(feature, outcome - outcome // 2, outcome // 2, outcome, inverse)

    @classmethod
    def for_descent(cls, rows: int, spread: float) -> _Precision:
        """Bits such that sums over rows of residual times feature fit 61 bits."""
        outcome = min(28, 60 - UNIT_BITS - halvings(rows) - halvings(math.ceil(spread)))
        return cls(UNIT_BITS, outcome - outcome // 2, outcome // 2, outcome, 0)

    @property
    def outcome(self) -> int:
        """Fractional bits of probabilities."""
        return self.dealt + self.coefficient


@attrs.define(eq=False)
class LogisticRegression:
    """Binary logistic regression with scikit-learn's conventions, fitted in MPC.

    `penalty` is "l2" or None, `C` the inverse of its strength; the intercept is not penalised. `solver` is "newton" or "gd"
    (full-batch gradient descent with `learning_rate` and `momentum` on the mean loss, over the columns as they are, so
    standardise them first). `max_iter` steps are made (by default 12 of Newton's or 100 of descent); with `tol`, one revealed bit
    after each step says whether the largest change of a scaled coefficient fell below it, and the fit stops there.

    `z_bound` is the largest |decision value| for which the sigmoid is exact to `sigmoid_error`. By default a fit tries 56 (24
    for large tables) and starts again with wider bounds, up to 120, if a decision value was beyond. With `check`, each try
    reveals two bits: whether all decision values stayed within the bound, and whether only one outcome occurs.
    """

    penalty: Literal["l2"] | None = "l2"
    C: float = 1.0
    solver: Solver = "newton"
    max_iter: int | None = None
    tol: float | None = None
    learning_rate: float = 1.0
    momentum: float = 0.0
    z_bound: float | None = None
    sigmoid_error: float | None = None
    check: bool = True

    n_iter_: int = attrs.field(default=0, init=False)
    converged_: bool | None = attrs.field(default=None, init=False)
    feature_names_: tuple[str, ...] = attrs.field(default=(), init=False)
    target_: str = attrs.field(default="", init=False)
    _table: Table | None = attrs.field(default=None, init=False, repr=False)
    _weights: tuple[str, Type] | None = attrs.field(default=None, init=False, repr=False)
    _intercept: tuple[str, Type] | None = attrs.field(default=None, init=False, repr=False)

    # -- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, table: Table, target: str, *, features: Sequence[str] | None = None) -> Self:
        """Fit on a table; parameters stay secret. `features` defaults to all columns but the target.

        Discloses the check bits, and with `tol` one bit a step. Raises SchemaError for a target that is not 0/1, an empty
        table, more features than rows, or when a check bit fails.
        """
        self._check_options()
        fitted: Self = table.lake.perform(self._fit(table, target, features), "train")
        return fitted

    def _check_options(self) -> None:
        if self.penalty not in ("l2", None):
            raise PlanError(f"penalty={self.penalty!r} is not supported; use 'l2' or None")
        if not self.C > 0:
            raise PlanError(f"C={self.C} must be positive; a smaller C means a stronger penalty")
        if self.solver not in ("newton", "gd"):
            raise PlanError(f"solver={self.solver!r} is not known; use 'newton' or 'gd'")
        if self.max_iter is not None and self.max_iter < 1:
            raise PlanError(f"max_iter={self.max_iter} must be at least 1")
        if self.tol is not None and not 1e-6 <= self.tol < 1:
            raise PlanError(f"tol={self.tol} is not between 1e-6 and 1; leave it None for a fixed number of steps")
        if not 0 < self.learning_rate <= 64 or not 0 <= self.momentum < 1:
            raise PlanError(
                f"learning_rate={self.learning_rate} must lie in (0, 64] and momentum={self.momentum} in [0, 1)"
            )
        if self.z_bound is not None and not 1 <= self.z_bound <= 120:
            raise PlanError(f"z_bound={self.z_bound} must lie between 1 and 120")

    @property
    def _steps(self) -> int:
        if self.max_iter is not None:
            return self.max_iter
        return 12 if self.solver == "newton" else 100

    @property
    def _inverse_penalty(self) -> float:
        return 0.0 if self.penalty is None else 1.0 / self.C

    def _columns(self, table: Table, target: str, features: Sequence[str] | None) -> list[str]:
        column = table.column(target)
        if column.schema.kind != "boolean":
            raise SchemaError(
                f"table {table.name!r}, target {target!r} is {column.schema.kind}, not 0/1: its owner has to upload it as zeros "
                f"and ones or booleans (types={{{target!r}: 'boolean'}})"
            )
        names = list(features) if features is not None else [name for name in table.column_names if name != target]
        if target in names:
            raise SchemaError(f"column {target!r} is the target and cannot be a feature too; leave it out of features=")
        for name in names:
            table.column(name)
        if len(set(names)) != len(names):
            raise SchemaError("a column is named twice in features=; name each once")
        if not names:
            raise SchemaError(f"table {table.name!r} has no column but the target {target!r}; there is nothing to fit")
        table.require_rows("a fit", least=2)
        if len(names) >= table.rows:
            raise SchemaError(
                f"table {table.name!r} has {table.rows} rows for {len(names)} features; a fit needs more rows than features: "
                "name fewer in features="
            )
        return names

    def _bounds(self, rows: int) -> list[float]:
        """Ranges of the sigmoid to try, in order; the check bit says when to go on."""
        if self.z_bound is not None:
            return [self.z_bound]
        bounds = [56.0, 120.0] if rows <= SMALL_ROWS else [24.0, 56.0, 120.0]
        return bounds if self.check else bounds[:1]

    def _series(self, rows: int, bound: float) -> tuple[Series, Series]:
        wanted = self.sigmoid_error
        if wanted is None:  # so far below the standard errors that it does not show in them
            errors = (2e-5, 5e-6, 1e-6) if bound <= 56 else (2e-4,)
            wanted = next((error for error in errors if error <= 0.005 / math.sqrt(rows)), errors[-1])
        probability = sigmoid(bound, wanted)
        return probability, slope(probability)

    def _fit(self, table: Table, target: str, features: Sequence[str] | None) -> Steps[Self]:
        names = self._columns(table, target, features)
        for bound in self._bounds(table.rows):
            revealed = yield from self._fit_within(table, target, names, bound)
            if not self.check:
                return self
            if revealed[_ONE_CLASS] > 0.5:
                raise SchemaError(
                    f"table {table.name!r}, target {target!r}: all {table.rows} rows have the same outcome, so there is "
                    "nothing to tell apart; join or split differently"
                )
            if revealed[_OUT_OF_RANGE] < 0.5:
                return self
        self._table = None
        raise SchemaError(
            f"fit of {target!r} on {table.name!r}: a decision value left [-{bound:g}, {bound:g}], where the sigmoid is exact; "
            "fit with a larger z_bound (120 at most), a smaller C, or fewer or standardised columns"
        )

    def _fit_within(
        self, table: Table, target: str, names: list[str], bound: float
    ) -> Steps[Mapping[str, npt.NDArray[np.float64]]]:
        """One fit with one range of the sigmoid; returns what was revealed."""
        builder = table.lake.builder(f"fit {target} on {table.name}")
        fitting = _Fit(self, table, builder, names, target, bound)
        state = fitting.begin()
        made = 0
        converged: bool | None = None
        while True:
            for _ in range(1 if self.tol is not None else self._steps):
                made += 1
                state = fitting.step(state, made)
            if self.tol is None or made == self._steps:
                break
            handles = fitting.suspend(state)
            result = yield fitting.builder.plan()
            converged = bool(result.revealed[_CONVERGED][0] > 0.5)
            fitting.builder = table.lake.builder(f"fit {target} on {table.name}, step {made + 1}")
            state = fitting.resume(handles, result.stored)
            if converged:
                break
        weights, intercept = fitting.finish(state)
        stored = [table.lake.handle(f"{target}.{part}") for part in ("weights", "intercept")]
        weights.store(stored[0])
        intercept.store(stored[1])
        if self.check:
            fitting.checks(state)
        result = yield fitting.builder.plan()
        self._table, self.feature_names_, self.target_ = table, tuple(names), target
        self._weights, self._intercept = ((handle, result.stored[handle]) for handle in stored)
        self.n_iter_, self.converged_ = made, converged
        return result.revealed

    # -- using --------------------------------------------------------------------------------------------------------

    def _fitted(self) -> Table:
        if self._table is None:
            raise PlanError("this model is not fitted yet; call fit(table, target=...) first")
        return self._table

    def decision_values(self, builder: Builder, table: Table) -> Value:
        """`X w + b` for the rows of a table, as a product at full scale, inside a plan."""
        fitted = self._fitted()
        for name in self.feature_names_:
            if table.column(name).unit_exponent != fitted.column(name).unit_exponent:
                raise SchemaError(
                    f"column {name!r} has another scale in table {table.name!r} than in {fitted.name!r}, which the model was "
                    "fitted on; upload it with the same scales="
                )
        assert self._weights is not None  # noqa: S101 - fitted
        assert self._intercept is not None  # noqa: S101 - fitted
        weights, intercept = builder.input(*self._weights), builder.input(*self._intercept)
        z = weights @ table.features(builder, self.feature_names_)
        return z + intercept

    def decision_function(self, table: Table) -> SecretColumn:
        """Secret log-odds of each row; `reveal` them to whom you choose."""
        return self._predict(table, "decision value")

    def predict_proba(self, table: Table) -> SecretColumn:
        """Secret probabilities of the outcome 1 for each row, within 1e-4."""
        return self._predict(table, "probability")

    def predict(self, table: Table) -> SecretColumn:
        """Secret labels of each row: 1 where the log-odds are positive."""
        return self._predict(table, "label")

    def _predict(self, table: Table, what: str) -> SecretColumn:
        column: SecretColumn = table.lake.perform(self._prediction(table, what), "predict")
        return column

    def _prediction(self, table: Table, what: str) -> Steps[SecretColumn]:
        from tercet.ml.metrics import DECISION_SCALE, probabilities

        table.require_rows("a prediction")
        builder = table.lake.builder(f"{what} of {self.target_} on {table.name}")
        z = self.decision_values(builder, table).rescale(DECISION_SCALE)
        if what == "label":
            value = (-z).is_negative().to_ring()
        elif what == "probability":
            value = probabilities(z).rescale(UNIT_BITS)
        else:
            value = z
        handle = table.lake.handle(what)
        value.store(handle)
        result = yield builder.plan()
        return SecretColumn(table.lake, f"{what} of {self.target_!r} on {table.name!r}", handle, result.stored[handle])

    def evaluate(self, table: Table) -> Evaluation:
        """All quality metrics on a table with the target, secret until `reveal`."""
        evaluation: Evaluation = table.lake.perform(evaluate(self, table), "evaluate")
        return evaluation

    def reveal(self, *, to: str = ANALYST) -> RevealedModel:
        """The parameters in the columns' own units, to one receiver."""
        revealed: RevealedModel = self._fitted().lake.perform(self._reveal(to), "reveal")
        return revealed

    def _reveal(self, to: str) -> Steps[RevealedModel]:
        table = self._fitted()
        builder = table.lake.builder(f"reveal model of {self.target_}")
        assert self._weights is not None  # noqa: S101 - fitted
        assert self._intercept is not None  # noqa: S101 - fitted
        names = f"coefficients of {self.target_!r}", f"intercept of {self.target_!r}"
        builder.input(*self._weights).reveal(names[0], to=to)
        builder.input(*self._intercept).reveal(names[1], to=to)
        result = yield builder.plan()
        units = np.array([2.0 ** -table.column(name).unit_exponent for name in self.feature_names_])
        return RevealedModel(
            self.target_,
            self.feature_names_,
            result.revealed[names[0]] * units,
            float(result.revealed[names[1]][0]),
        )


_CONVERGED = "whether the fit has converged"
_OUT_OF_RANGE = "whether a decision value left the sigmoid's range"
_ONE_CLASS = "whether only one outcome occurs"


@attrs.frozen(eq=False)
class RevealedModel:
    """A model in the clear: coefficients in the columns' own units, in the order of `feature_names_`."""

    target_: str
    feature_names_: tuple[str, ...]
    coef_: npt.NDArray[np.float64]
    intercept_: float

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.feature_names_, "(intercept)"))
        rows = [f"{'(intercept)':<{width}} {self.intercept_:>12.6g}"]
        rows += [f"{name:<{width}} {number:>12.6g}" for name, number in zip(self.feature_names_, self.coef_, strict=True)]
        return "\n".join([f"log-odds of {self.target_}", *rows])


@attrs.define(eq=False)
class _State:
    """What goes from step to step: scaled weights `(d + 1,)`, the last change of them, and the inverse Hessian."""

    weights: Value
    change: Value
    inverse: Value | None


class _Fit:
    """One fit being planned: the features in scaled coordinates, and how a step is made of the last."""

    def __init__(
        self, model: LogisticRegression, table: Table, builder: Builder, names: list[str], target: str, bound: float
    ) -> None:
        self.model, self.table, self.builder = model, table, builder
        self.names, self.target = names, target
        self.rows = table.rows
        self.halved = halvings(self.rows)
        if model.solver == "newton":
            self.precision = _Precision.for_newton(self.rows, len(names) + 1)
        else:
            self.precision = _Precision.for_descent(self.rows, self._feature_bound)
        self.bound = bound
        self.probability, self.slope = model._series(self.rows, bound)  # noqa: SLF001
        self._load_target()

    def _load_target(self) -> None:
        (raw,) = self.table.raw(self.builder, [self.target])
        self.y = raw.squeeze()

    # -- coordinates --------------------------------------------------------------------------------------------------

    def begin(self) -> _State:
        """Bring the features into scaled coordinates; weights are zero."""
        model, builder = self.model, self.builder
        features = self.table.features(builder, self.names)
        with builder.scope("scale"):
            if model.solver == "newton":
                self._scale(features)
            else:
                centred, self.means = centre(features, self.rows)
                self.roots = None
                self.penalties = self._public_penalties()
                self.x = append_row(centred, 1.0)
        count = len(self.names) + 1
        zero = self.x.select([0] * count).slice(0, 1).reshape(count) * 0
        zero = zero.at_scale(WEIGHT_SCALE).bounded(WIDEST_WEIGHT, "zero")
        return _State(zero, zero, None)

    def _public_penalties(self) -> Value | None:
        strength = self.model._inverse_penalty  # noqa: SLF001
        if strength == 0:
            return None
        exponents = [self.table.column(name).unit_exponent for name in self.names]
        weights = [strength * 4.0**-u / 2.0**self.halved for u in exponents] + [0.0]
        if max(weights) > 2.0**6:
            raise PlanError("the penalty on a column of this scale is too strong for gradient descent; standardise it")
        return self.builder.constant(weights, scale=30)

    def _scale(self, features: Value) -> None:
        """Centre columns and divide each by the root of its variance and its penalty's share of the Hessian.

        With weights t in these coordinates, the Hessian's diagonal is at most 1/2 per halved row count, whatever the columns
        and the penalty. Public powers of two `e` keep the penalties of columns of tiny scale in range.
        """
        strength = self.model._inverse_penalty  # noqa: SLF001
        centred, self.means = centre(features, self.rows)
        shares = np.array([4.0 * strength * 4.0 ** -self.table.column(n).unit_exponent / self.rows for n in self.names])
        exponents = np.array([max(0, math.ceil(math.log2(share) / 2)) if share > 0 else 0 for share in shares])
        spread = variances(centred, self.rows, self.table.rows_of_sources)
        if exponents.any():
            factors = self.builder.constant(4.0**-exponents, scale=24)
            spread = spread.times(factors, magnitude=2.0**9).rescale(spread.scale)
        spread = spread + self.builder.constant(shares * 4.0**-exponents, scale=spread.scale)
        spread = spread.bounded(4.0**HIGH_POWER, "uploads bound spreads; shares are below one")
        roots = inverse_sqrt(spread, low=LOW_POWER, high=HIGH_POWER, scale=ROOT_SCALE)
        if exponents.any():
            powers = self.builder.constant(2.0**-exponents, scale=int(exponents.max()))
            self.roots = (roots * powers).rescale(ROOT_SCALE)
        else:
            self.roots = roots
        self.penalties = None
        if strength:
            kappa = shares * 4.0**-exponents * self.rows / 4 / 2.0**self.halved
            squares = (roots * roots).rescale(24)
            weights = squares.times(self.builder.constant(kappa, scale=30), magnitude=0.5).rescale(HESSIAN_SCALE)
            column = weights.column()
            self.penalties = concatenate([column, column.select([0]) * 0]).reshape(len(self.names) + 1)
        scaled = centred.times(self.roots.column(), magnitude=2.0**22).rescale(self.precision.feature)
        self.x = append_row(scaled.bounded(2.0**12, "a standardised value is at most the root of the row count"), 1.0)

    # -- steps --------------------------------------------------------------------------------------------------------

    def step(self, state: _State, number: int) -> _State:
        """One step of the solver."""
        with self.builder.scope(f"step {number}"):
            if self.model.solver == "newton":
                return self._newton_step(state, number)
            return self._descent_step(state, number)

    def _decision(self, weights: Value) -> Value:
        """`w X`, to be read modulo the sigmoid's period."""
        scale = weights.scale + self.x.scale
        return weights.matmul(self.x, magnitude=2.0 ** (61 - scale))

    def _residuals(self, weights: Value, number: int, *, curvature: bool) -> tuple[Value, Value | None]:
        """Probabilities less outcomes, and slopes; at zero weights they are 1/2 - y and 1/4."""
        if number == 1:
            return self.y.at_scale(1) * -1 + 0.5, None
        p = self.precision
        series = (self.probability, self.slope) if curvature else (self.probability,)
        found = self._decision(weights).fourier(*series, dealt_bits=p.dealt, coefficient_bits=p.coefficient)
        return found[0] - self.y.at_scale(p.outcome), found[1].rescale(p.slope) if curvature else None

    def _gradient(self, weights: Value, residuals: Value) -> Value:
        """Gradient of the loss over the halved row count, with the penalty, `(d + 1,)`."""
        total = self.x.dot(residuals, magnitude=1.05 * self.rows * self._feature_bound)
        gradient = total.shifted(self.halved).rescale(GRADIENT_SCALE)
        if self.penalties is not None:
            drawn = weights.times(self.penalties, magnitude=WIDEST_WEIGHT).rescale(GRADIENT_SCALE)
            gradient = gradient + drawn
        return gradient.bounded(2.0 * self._feature_bound + WIDEST_WEIGHT / 2, "residuals are below one")

    @property
    def _feature_bound(self) -> float:
        """A bound on the root mean square of each row of the features: one in scaled coordinates.

        Centred columns have the spread that uploads bound, over the rows of their source.
        """
        if self.model.solver == "newton":
            return 1.0
        wide = any(self.table.column(name).is_wide for name in self.names)
        return (WIDE_SPREAD if wide else 1.0) * math.sqrt(self.table.rows_of_sources / self.rows)

    def _newton_step(self, state: _State, number: int) -> _State:
        size = len(self.names) + 1
        residuals, slopes = self._residuals(state.weights, number, curvature=True)
        gradient = self._gradient(state.weights, residuals)
        if slopes is None:
            squares = self.x.dot(self.x, magnitude=1.05 * self.rows).shifted(2)
        else:
            squares = self.x.dot(slopes * self.x, magnitude=0.27 * self.rows)
        hessian = squares.shifted(self.halved).rescale(HESSIAN_SCALE)
        identity = np.eye(size)
        if self.penalties is not None:
            hessian = hessian + self.penalties.column() * self.builder.constant(identity)
        hessian = hessian + self.builder.constant(RIDGE * identity, scale=HESSIAN_SCALE)
        hessian = hessian.bounded(0.6, "a quarter from the data, a quarter from the penalty, the ridge")
        scale = self.precision.inverse
        if state.inverse is None:
            start = (hessian * 0).shifted(scale - HESSIAN_SCALE)
            start = start + self.builder.constant(identity * 3.6 / size, scale=scale)
            steps = FIRST_INVERSE_STEPS
        else:
            start, steps = state.inverse, WARM_INVERSE_STEPS
        inverse = newton_schulz(hessian, start, steps=steps, bound=2.0**INVERSE_BITS, scale=scale)
        move = inverse.matmul(gradient.column(), magnitude=WIDEST_WEIGHT).rescale(WEIGHT_SCALE).reshape(size)
        weights = (state.weights - move).bounded(WIDEST_WEIGHT, "beyond it outcomes are certain")
        return _State(weights, move, inverse)

    def _descent_step(self, state: _State, number: int) -> _State:
        residuals, _ = self._residuals(state.weights, number, curvature=False)
        gradient = self._gradient(state.weights, residuals)
        # The gradient is over 2^halved; the rate undoes that, so steps are those of the mean loss.
        rate = self.builder.constant(self.model.learning_rate * 2.0**self.halved / self.rows, scale=20)
        move = (gradient * rate).rescale(WEIGHT_SCALE)
        if self.model.momentum:
            kept = (state.change * self.builder.constant(self.model.momentum, scale=20)).rescale(WEIGHT_SCALE)
            move = move + kept
        move = move.bounded(WIDEST_WEIGHT, "steps are small")
        weights = (state.weights - move).bounded(WIDEST_WEIGHT, "beyond it outcomes are certain")
        return _State(weights, move, None)

    # -- between plans, when each step ends in a revealed bit ---------------------------------------------------------

    def suspend(self, state: _State) -> dict[str, str]:
        """Store everything that the next step needs, and reveal whether this one was small."""
        values: dict[str, Value | None] = {
            "x": self.x,
            "weights": state.weights,
            "change": state.change,
            "inverse": state.inverse,
            "means": self.means,
            "roots": self.roots,
            "penalties": self.penalties if self.model.solver == "newton" else None,
        }
        handles = {}
        for name, value in values.items():
            if value is not None:
                handles[name] = self.table.lake.handle(f"{self.target}.{name}")
                value.store(handles[name])
        assert self.model.tol is not None  # noqa: S101 - fits without tol are not suspended
        small = (state.change - self.model.tol).is_negative() & (-state.change - self.model.tol).is_negative()
        large = (-small.to_ring() + 1).sum()
        large.reshape(1).is_zero().to_ring().reveal(_CONVERGED, to=ANALYST)
        return handles

    def resume(self, handles: dict[str, str], types: Mapping[str, Type]) -> _State:
        """The state at the beginning of the next plan."""
        found = {name: self.builder.input(handle, types[handle]) for name, handle in handles.items()}
        self._load_target()
        self.x, self.means, self.roots = found["x"], found.get("means"), found.get("roots")
        self.penalties = found.get("penalties") if self.model.solver == "newton" else self._public_penalties()
        return _State(found["weights"], found["change"], found.get("inverse"))

    # -- results ------------------------------------------------------------------------------------------------------

    def finish(self, state: _State) -> tuple[Value, Value]:
        """Weights `(d,)` and intercept `(1,)` for columns in units."""
        count = len(self.names)
        scale = min(20, 61 - 30 - 6 - halvings(count))
        column = state.weights.column()
        scaled, intercept = column.select(list(range(count))).reshape(count), column.select([count]).reshape(1)
        if self.roots is None:
            weights = scaled.rescale(scale)
        else:
            weights = scaled.times(self.roots, magnitude=WIDEST_WEIGHT).rescale(scale)
        offset = weights.dot(self.means, magnitude=2.0**20).reshape(1)
        intercept = (intercept.at_scale(scale + UNIT_BITS) - offset).bounded(2.0**20, "its summands are")
        return weights, intercept

    def checks(self, state: _State) -> None:
        """Reveal whether a decision value left the sigmoid's range, and whether only one outcome occurs."""
        with self.builder.scope("checks"):
            z = self._decision(state.weights)
            kept = [(side - self.bound).is_negative().to_ring().sum() for side in (z, -z)]
            all_kept = (kept[0] + kept[1] - 2 * self.rows).reshape(1).is_zero().to_ring()
            (-all_kept + 1).reveal(_OUT_OF_RANGE, to=ANALYST)
            positives = self.y.sum().reshape(1)
            (positives * (positives - self.rows)).is_zero().to_ring().reveal(_ONE_CLASS, to=ANALYST)
