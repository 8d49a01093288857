"""Logistic regression in MPC: fitted on a virtual table, kept secret or revealed, used on other tables.

The model is what users hold: options, public facts on the fit, and the handles of secret parameters. The
default solver is Newton's method (`tercet.ml.newton`), the other one gradient descent (`tercet.ml.descent`).
A fit by Newton's method is a plan of a few steps, and where the bit says that the last one still moved it,
more plans that go on from the stored state.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import ConvergenceWarning, MissingAttribute, PlanError, SchemaError
from tercet.ml import fitting, verdicts
from tercet.ml.computations import Calls, Data, computation
from tercet.ml.descent import Descent
from tercet.ml.estimator import Estimator
from tercet.ml.faces import Async, M, Sync, computes, fits, makes_on_table
from tercet.ml.fitting import ROWS, USUAL_BOUND, Parameters, Problem, Solver, State
from tercet.ml.metrics import Evaluation, evaluate
from tercet.ml.model_formulas import Design, FitColumns
from tercet.ml.models import OBJECTIVE, RevealedModel, SecretModel
from tercet.ml.newton import SMALL_ROWS, Newton
from tercet.ml.predictor import Predictor
from tercet.ml.roles import COLUMNS_OF_A_FIT, Roles
from tercet.ml.submitting import MODEL, Submitted
from tercet.ml.summary import INTERCEPT, Summary, summarise
from tercet.ml.table import ANALYST, Steps, Table
from tercet.options import FLAG, LEVEL, NAMES, RECEIVER, TABLE, Choice, Number, takes
from tercet.plans import Builder, Type, Value
from tercet.plans.results import RunResult
from tercet.tracebacks import short_tracebacks

Reals = npt.NDArray[np.float64]

NEWTON_STEPS, WIDE_NEWTON_STEPS, DESCENT_STEPS = 12, 24, 100
"""Where decision values reach beyond 56, the series is less exact and Newton's method takes longer."""
FIRST_STEPS, MORE_STEPS, MOST_STEPS = 6, 3, 24
"""Newton steps of a fit's first plan, which most fits need no more of, and the least and most of others."""
BOUNDS = (24.0, USUAL_BOUND, 120.0)
"""Ranges of decision values to try, in order."""


@attrs.frozen(eq=False)
class _Fitted:
    """What a fit leaves: the model, the problem that it solves, and where the state of the fit is."""

    model: SecretModel
    problem: Problem
    kept: Mapping[str, tuple[str, Type]]

    def inputs(self, builder: Builder) -> Mapping[str, Value]:
        """In a plan, what the fit left of its state."""
        return {name: builder.input(*stored) for name, stored in self.kept.items()}


@short_tracebacks
@attrs.define(eq=False, repr=False)
class LogisticRegression(Estimator, Predictor[M], Submitted[M]):
    """Binary logistic regression with scikit-learn's conventions, fitted in MPC.

    `penalty` is "l2" or None, `C` the inverse of its strength; the intercept is not penalised.

    `solver` is "newton" or "gd" (full-batch gradient descent with `learning_rate` and `momentum` on the mean
    loss, over the columns as they are, so standardise them first; `tercet.ml.descent` has the formula).
    Newton's method makes up to `max_iter` steps (by default 12, or 24 in the widest range), and stops when
    the last one moved the fit by less than a hundredth of a standard error: it looks after 6 steps, after 9,
    12, 16, and each time a third more, so `n_iter_` is one of these numbers, or `max_iter`. Gradient descent
    makes all `max_iter` steps (by default 100). With `tol`, either looks after each step whether the largest
    change of a scaled coefficient fell below it, and stops there.

    `class_weight="balanced"` makes both outcomes weigh the same. `fit_intercept=False` fits the columns as
    they are, without a constant.

    `z_bound` is the largest |decision value| for which the sigmoid is exact to `sigmoid_error`. By default a
    fit tries 56 (24 for large tables) and starts again with wider bounds, up to 120, if a decision value was
    beyond. With `check`, each try reveals some bits: whether all decision values and coefficients
    stayed within their range, whether only one outcome occurs, whether a weight was out of range, whether an
    offset was, and whether the last of Newton's steps still moved the fit by more than a hundredth of a
    standard error; the first and the last of them each time that it looks, so how often tells the number of
    steps. Without a penalty, each look also reveals whether columns tell all outcomes apart without error,
    since then no coefficients are best, and the fit ends. That gives a `ConvergenceWarning`, and so does a
    fit that still moves after `max_iter` steps; `converged_` says so too. Without `check` nothing is
    revealed, and all steps are made. Columns that repeat others share what one of them would get;
    a column that does not vary gets nothing.

    What is public of a fit has scikit-learn's names: `classes_`, `feature_names_in_`, `n_features_in_`,
    `n_iter_`, beside `target_`; `reveal()` gives a model with `coef_` and `intercept_`. Raises PlanError for
    options that cannot be, when they are given. On an `AsyncLake`, what computes (`fit`, `evaluate`,
    `predict` and its kin, `reveal`) gives an awaitable of what is annotated here.
    """

    penalty: Literal["l2"] | None = attrs.field(default="l2", validator=Choice(choices=("l2",), none=True))
    C: float = attrs.field(
        default=1.0, validator=Number(above=0, advice="a smaller C means a stronger penalty, as in C=0.1")
    )
    solver: Literal["newton", "gd"] = attrs.field(
        default="newton", validator=Choice(choices=("newton", "gd"))
    )
    max_iter: int | None = attrs.field(default=None, validator=Number(whole=True, least=1, none=True))
    tol: float | None = attrs.field(
        default=None,
        validator=Number(least=1e-6, below=1, none=True, advice="leave it None to look after a few steps"),
    )
    learning_rate: float = attrs.field(default=1.0, validator=Number(above=0, most=64))
    momentum: float = attrs.field(default=0.0, validator=Number(least=0, below=1))
    z_bound: float | None = attrs.field(default=None, validator=Number(least=1, most=BOUNDS[-1], none=True))
    sigmoid_error: float | None = attrs.field(
        default=None, validator=Number(least=1e-7, most=0.01, none=True)
    )
    check: bool = attrs.field(default=True, validator=FLAG)
    class_weight: Literal["balanced"] | None = attrs.field(
        default=None, validator=Choice(choices=("balanced",), none=True)
    )
    fit_intercept: bool = attrs.field(default=True, validator=FLAG)

    _converged: bool | None = attrs.field(default=None, init=False)
    _found: _Fitted | None = attrs.field(default=None, init=False)
    _examined: SecretModel | None = attrs.field(default=None, init=False)
    _origin: Data = attrs.field(default=None, init=False)
    design_: Design | None = attrs.field(default=None, init=False)

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> LogisticRegression[Sync]: ...
        @property
        def _on_async(self) -> LogisticRegression[Async]: ...

    def __attrs_post_init__(self) -> None:
        self.check_options()

    def check_options(self) -> None:
        """Raise PlanError for options that do not go together."""
        if self.solver == "gd" and (self.class_weight or not self.fit_intercept):
            raise PlanError(
                "solver='gd' has no class_weight and always an intercept (fit_intercept=True); use "
                "solver='newton' for others"
            )

    # -- what was learned ------------------------------------------------------------------------------------

    def from_computation(self, origin: Data) -> Self:
        """The same, which a computation has given; and the model that it found."""
        name, path = origin["$result"]
        self._origin, found = origin, self._fitted()
        model = found.model.from_computation({"$result": [name, [*path, "model"]]})
        self._found = attrs.evolve(found, model=model)
        return self

    def fitted_model(self) -> SecretModel:
        """The model that was found. Raises MissingAttribute before a fit."""
        return self._fitted().model

    def _fitted(self) -> _Fitted:
        if self._found is None:
            raise MissingAttribute("this model is not fitted yet; call fit(table, target=...) first")
        return self._found

    def _facts(self) -> tuple[tuple[str, ...], int]:
        model = self._fitted().model
        return model.names, model.steps

    @property
    def target_(self) -> str:
        """Name of the outcome's column."""
        return self._fitted().model.target_

    @property
    def converged_(self) -> bool | None:
        """Whether the fit came to its end; None where that was not looked at."""
        self._fitted()
        return self._converged

    # -- fitting ---------------------------------------------------------------------------------------------

    @fits
    @takes(**COLUMNS_OF_A_FIT)
    def fit(
        self,
        table: Table,
        target: str,
        *,
        features: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        offset: str | None = None,
    ) -> Self:
        """Fit on a table; parameters stay secret.

        `target` names the outcome, or is a formula such as `"y ~ C(stage) + age * bmi + log(cost)"`, which
        says what the features are too: columns as statsmodels would make them are assigned to the table, by
        the same names, and predictions assign them again (`design_`).
        `features` defaults to all columns that are not named otherwise. `sample_weight` names a column of
        weights, none negative and none larger than 1,024 times their mean; a boolean one drops rows, and
        nobody learns how many. `offset` names a column that is added to the log-odds as it is, also when the
        model predicts.

        Discloses the check bits, and with `tol` one bit a step; with real weights or balanced classes, one
        more says whether a weight was out of range, with an offset, whether that was; with secret weights of
        rows whose owners set a minimum count, one more says whether fewer count, and then there is no model.
        Two of the bits are revealed each time that Newton's method looks whether it has converged, which
        tells about how many steps it takes. Raises SchemaError for a target
        that is not 0/1, an empty table, more features than rows, or when a check bit says that the fit cannot
        be right.
        """
        self.check_options()
        given = FitColumns.of(table, target, features, intercept=self.fit_intercept)
        steps = self.fit_by(given, table, sample_weight=sample_weight, offset=offset)
        fitted: Self = table.lake.perform(steps, "train")
        return fitted

    def fit_by(self, given: FitColumns, table: Table, **others: str | None) -> Calls[Self]:
        """The computations of `fit`."""
        prepared = yield from given.applied(table)
        steps = self.fit_steps(prepared, given.target, given.features, **others)
        fitted: Self = yield steps.then(given.fitted)
        return fitted

    def _steps(self, bound: float) -> int:
        """How many steps a fit makes at most."""
        if self.max_iter is not None:
            return int(self.max_iter)
        if self.solver == "gd":
            return DESCENT_STEPS
        return NEWTON_STEPS if bound <= BOUNDS[1] else WIDE_NEWTON_STEPS

    def _steps_at_once(self, bound: float) -> int:
        """How many steps it makes if all are planned at once; no fit by Newton's method needs more."""
        steps = self._steps(bound)
        return steps if self.solver == "gd" else min(steps, WIDE_NEWTON_STEPS)

    def _next_look(self, made: int, limit: int) -> int:
        """After which step a fit looks whether it has converged, when so many are made."""
        if self.solver == "gd" or not self.check or self.tol is not None:
            return limit
        return min(limit, FIRST_STEPS if made == 0 else made + min(max(MORE_STEPS, made // 3), MOST_STEPS))

    def bounds(self, rows: int) -> tuple[float, ...]:
        """Ranges of the sigmoid to try, in order; the check bit says when to go on."""
        if self.z_bound is not None:
            return (float(self.z_bound),)
        bounds = BOUNDS[1:] if rows <= SMALL_ROWS else BOUNDS
        return bounds if self.check else bounds[:1]

    def problem(self, table: Table, roles: Roles, bound: float) -> Problem:
        """What a fit with these options solves, where decision values stay below a bound.

        Raises SchemaError for a feature with the name of the intercept, if there is one.
        """
        if self.fit_intercept:
            roles.require_free(table, INTERCEPT)
        probability = fitting.probability_within(bound, self.sigmoid_error, table.rows)
        return Problem(
            table,
            roles.target,
            roles.features,
            strength=0.0 if self.penalty is None else 1.0 / self.C,
            probability=probability,
            sample_weight=roles.sample_weight,
            balanced=self.class_weight == "balanced",
            offset=roles.offset,
            intercept=self.fit_intercept,
        )

    def _solver(self, problem: Problem, builder: Builder, enough: Value | None = None) -> Solver:
        if self.solver == "newton":
            return Newton(problem, builder, enough)
        rates = {"learning_rate": self.learning_rate, "momentum": self.momentum}
        return Descent(problem, builder, enough, **rates)

    def _resumed(
        self, problem: Problem, made: int, kept: Mapping[str, tuple[str, Type]]
    ) -> tuple[Solver, State]:
        """In a new plan, after so many steps, the solver and the state that was kept."""
        builder = problem.table.lake.builder(fitting.title(problem, made))
        values = {name: builder.input(*stored) for name, stored in kept.items()}
        solver = self._solver(problem, builder, values.get("enough"))
        return solver, solver.resume(values)

    @computation("fit", group="models", fresh=["self"], self=MODEL, **COLUMNS_OF_A_FIT)
    def fit_steps(
        self,
        table: Table,
        target: str,
        features: str | Sequence[str] | None = None,
        *,
        sample_weight: str | None = None,
        offset: str | None = None,
    ) -> Steps[Self]:
        """The plans of `fit`."""
        roles = Roles.of(table, target, features, sample_weight, offset)
        self._found = self.design_ = None
        for bound in self.bounds(table.rows):
            problem = self.problem(table, roles, bound)
            if table.rows < table.min_count:
                raise verdicts.too_few(problem)
            revealed = yield from self._fit_within(problem)
            if self._sound(problem, revealed):
                return self
        raise self._left_range(problem)

    def _sound(self, problem: Problem, revealed: Mapping[str, Reals]) -> bool:
        """Whether a try is right, by its check bits. Raises SchemaError for what no wider range can mend."""
        if (error := verdicts.flaw(problem, revealed)) is not None:
            self._found = None
            raise error
        if verdicts.says(revealed, fitting.OUT_OF_RANGE):
            return False
        self._note_convergence(problem, revealed)
        return True

    def _left_range(self, problem: Problem) -> SchemaError:
        """Build the error that a try left its range; there is no model then."""
        self._found = None
        larger = next((one for one in BOUNDS if one > problem.probability.bound), None)
        return verdicts.left_range(problem, larger, descent=self.solver == "gd")

    def _note_convergence(self, problem: Problem, revealed: Mapping[str, Reals]) -> None:
        """Set `converged_`, from the tolerance's bit or the check's, and warn."""
        if fitting.MOVING in revealed:
            still = not verdicts.says(revealed, fitting.MOVING) and not verdicts.says(revealed, fitting.APART)
            self._converged = still or bool(self._converged)
        if self._examined is not None and not self._converged:
            self._found = None
            raise verdicts.not_the_best(problem)
        if self._converged is False:
            apart = verdicts.says(revealed, fitting.APART)
            why = verdicts.apart(problem) if apart else verdicts.still_moving(problem, self._facts()[1])
            warnings.warn(why, ConvergenceWarning, stacklevel=2)

    def step_counts(self, bound: float) -> tuple[int, ...]:
        """How many steps fits make that are planned at once: few, then all if bits say that they move."""
        limit = self._steps_at_once(bound)
        return tuple(dict.fromkeys((self._next_look(0, limit), limit)))

    def planned(
        self, builder: Builder, problem: Problem, steps: int
    ) -> tuple[Parameters, Mapping[str, Value]]:
        """Steps of a fit, inside a plan: parameters, and bits `(1,)` that say what is wrong with it."""
        solver = self._solver(problem, builder)
        state = solver.begin()
        for number in range(steps):
            state = solver.advance(state, number + 1)
        state = solver.polish(state)
        found = solver.parameters(state)
        return found, solver.enough() | (solver.checks(state, found) if self.check else {})

    def _fit_within(self, problem: Problem) -> Steps[Mapping[str, Reals]]:
        """One fit with one range of the sigmoid; returns what was revealed."""
        lake = problem.table.lake
        bound = problem.probability.bound
        limit = self._steps(bound)
        solver = self._solver(problem, lake.builder(fitting.title(problem, 0)))
        state, made = solver.begin(), 0
        if self._examined is not None and isinstance(solver, Newton):
            state = solver.examine(state, *self._examined.parameters(solver.builder, problem.table))
            limit = 0
        told: dict[str, Reals] = {}
        while True:
            stop = self._next_look(made, limit)
            solver, state, made = yield from self._walk(solver, state, made, stop)
            going_on = stop < limit
            kept = state.store(lake.temporary(problem.target)) if going_on else {}
            result = yield from self._end(solver, state, made, again=bool(told))
            strayed = verdicts.says(told, fitting.OUT_OF_RANGE)
            told |= result.revealed
            if not going_on or not self._goes_on(problem, told, strayed):
                return told
            stored = {name: (one, result.stored[one]) for name, one in kept.items()}
            solver, state = self._resumed(problem, made, stored)

    def _goes_on(self, problem: Problem, told: Mapping[str, Reals], strayed: bool) -> bool:
        """Whether more steps can help; `strayed` is whether decision values were out of range before.

        Beyond its range a fit starts again with a wider one, if there is one. In the widest, it may come back
        to it once.
        """
        if verdicts.flaw(problem, told) is not None or not verdicts.says(told, fitting.MOVING):
            return False
        if verdicts.says(told, fitting.APART):
            return False  # there is no best fit, and steps go on for ever
        widest = problem.probability.bound == self.bounds(problem.rows)[-1]
        return not verdicts.says(told, fitting.OUT_OF_RANGE) or (widest and not strayed)

    def _walk(self, solver: Solver, state: State, made: int, stop: int) -> Steps[tuple[Solver, State, int]]:
        """Steps up to number `stop`; with `tol`, plans of one step each, until the fit has converged."""
        problem, lake = solver.problem, solver.problem.table.lake
        every = lake.checkpoint_steps(problem.rows * problem.size) or stop
        between: Mapping[str, tuple[str, Type]] = {}
        self._converged = None
        while made < stop and not self._converged:
            made += 1
            state = solver.advance(state, made)
            if made % every == 0 and made < stop:
                state.checkpoint(made)
            if self.tol is not None and made < stop:
                between, self._converged = yield from self._look(solver, state, between)
                solver, state = self._resumed(problem, made, between)
        return solver, state, made

    def _end(self, solver: Solver, state: State, made: int, *, again: bool) -> Steps[RunResult]:
        """End a plan with the model as it is after so many steps, and what checks say of it.

        A plan that goes on `again` checks only what steps can change.
        """
        problem, handle = solver.problem, solver.problem.table.lake.handle
        state = solver.polish(state) if self._examined is None else state
        found = solver.parameters(state)
        handles = [handle(f"{problem.target}.{part}") for part in ("weights", "intercept")]
        found.weights.store(handles[0])
        found.intercept.store(handles[1])
        kept = state.store(handle(f"{problem.target}.state"))
        bits = solver.enough() | (solver.checks(state, found) if self.check else {})
        for name, bit in bits.items():
            if not again or name in (fitting.OUT_OF_RANGE, fitting.MOVING, fitting.APART):
                bit.reveal(name, to=ANALYST, kind="check")
        result = yield solver.builder.plan()
        weights, intercept = ((one, result.stored[one]) for one in handles)
        objective = self._objective(problem)
        model = SecretModel(
            problem.table, problem.target, problem.names, weights, intercept, problem.offset, objective, made
        )
        state_of = {name: (one, result.stored[one]) for name, one in kept.items()}
        self._found = _Fitted(model, problem, state_of)
        return result

    def _objective(self, problem: Problem) -> dict[str, Any]:
        """What was minimised, as plain values: what a summary of the model has to know."""
        return {name: getattr(self, name) for name in OBJECTIVE - {"sample_weight"}} | {
            "C": float(self.C),
            "sample_weight": problem.sample_weight,
        }

    def _look(
        self, solver: Solver, state: State, before: Mapping[str, tuple[str, Type]]
    ) -> Steps[tuple[dict[str, tuple[str, Type]], bool]]:
        """End a plan to see whether the fit has converged.

        Returns where all is that the next plan goes on from, and whether it has. `before` is where that was
        for this plan: rows in the solver's coordinates stay where the first one has stored them.
        """
        rows = {name: stored for name, stored in before.items() if name in ROWS}
        handles = state.store(solver.problem.table.lake.temporary(solver.problem.target), rows=not rows)
        solver.reveal_convergence(state, self.tol or 0.0)
        result = yield solver.builder.plan()
        kept = {name: (handle, result.stored[handle]) for name, handle in handles.items()}
        return {**rows, **kept}, bool(result.revealed[fitting.CONVERGED][0] > 0.5)

    # -- using -----------------------------------------------------------------------------------------------

    def decision_values(self, builder: Builder, table: Table) -> Value:
        """As `SecretModel.decision_values`."""
        return self._fitted().model.decision_values(builder, table)

    @makes_on_table
    @takes(table=TABLE, metrics=NAMES)
    def evaluate(self, table: Table, *, metrics: str | Sequence[str] | None = None) -> Evaluation:
        """Quality metrics on a table with the target, all by default, secret until `reveal`.

        Fewer are cheaper: only the areas under curves, and the curves, need a sort. That discloses to the
        nodes the order of shuffled rows, which is random.
        """
        self._fitted()
        found: Evaluation = self.through(
            table, lambda t: evaluate(self, t, metrics), "evaluate", outcome=True
        )
        return found

    @computes
    @takes(reveal=NAMES, to=RECEIVER, alpha=LEVEL)
    def summary(
        self, reveal: str | Sequence[str] | None = None, *, to: str = ANALYST, alpha: float = 0.05
    ) -> Summary:
        """Standard errors, tests and likelihoods of the fit, to one receiver, in the columns' own units.

        `reveal` names figures of coefficients (coef, se, z, p, ci, odds_ratio, odds_ratio_ci, sign,
        significant at `alpha`) and of the fit (llf, llnull, llr, llr_pvalue, prsquared, tjur, aic, bic,
        nobs); by default all. Beside odds ratios, "ci" is their interval. What is not asked for stays secret,
        but for what follows from what is: odds ratios tell coefficients, and those together with standard
        errors tell z, p and intervals. AIC and BIC tell the log-likelihood, BIC of weighted rows also their
        sum.

        Discloses these, and with anything that rests on standard errors one bit, whether they are exact. If
        they are not, it discloses to the receiver one bit a coefficient, whether anything can be said of it
        (its column may repeat others before it, not vary, or tell some outcomes apart without error), makes
        the figures again without those columns, and names them. p-values alone are within 1e-3. Raises
        SchemaError if no column is left, PlanError for unknown figures. A fit by gradient descent is examined
        first, as `SecretModel.summary` does.
        """
        fitted = self._fitted()
        if self.solver != "newton":
            summary: Summary = fitted.model.summary(fitted.problem.table, reveal, to=to, alpha=alpha)
        else:
            summary = fitted.problem.table.lake.perform(self._summary(reveal, to, alpha), "summary")
        return summary

    def summarised(self, reveal: str | Sequence[str] | None, to: str, alpha: float) -> Steps[Summary]:
        """The plans of `summary`."""
        fitted = self._fitted()
        return summarise(fitted.problem, fitted.inputs, reveal=reveal, alpha=alpha, to=to)

    @computation("summary", group="models", self=MODEL, reveal=NAMES, to=RECEIVER, alpha=LEVEL)
    def _summary(self, reveal: str | Sequence[str] | None, to: str, alpha: float) -> Steps[Summary]:
        return (yield from self.summarised(reveal, to, alpha))

    @staticmethod
    @computation("summary_of_model", group="models", table=TABLE, reveal=NAMES, to=RECEIVER, alpha=LEVEL)
    def _summary_of(
        model: SecretModel, table: Table, reveal: str | Sequence[str] | None, to: str, alpha: float
    ) -> Steps[Summary]:
        """The summary of a model that was kept, at its parameters: a step is planned and not made."""
        options = dict(model.objective)
        others = {"sample_weight": options.pop("sample_weight"), "offset": model.offset}
        found = LogisticRegression(**options)
        found._examined = model
        found = yield from found.fit_steps(table, model.target_, model.names, **others)
        return (yield from found.summarised(reveal, to, alpha))

    @computes
    def reveal(self, *, to: str = ANALYST) -> RevealedModel:
        """The parameters in the columns' own units, to one receiver. Discloses them."""
        model = attrs.evolve(self._fitted().model, converged_=self._converged)
        revealed: RevealedModel = model.reveal(to=to)
        return revealed
