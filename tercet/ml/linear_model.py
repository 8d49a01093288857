"""Logistic regression in MPC: fitted on a virtual table, kept secret or revealed, used on other tables.

The model is what users hold: options, public facts on the fit, and the handles of secret parameters. The
default solver is Newton's method (`tercet.ml.newton`), the other one gradient descent (`tercet.ml.descent`).
The number of steps is public and fixed, unless `tol` asks for one revealed bit a step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Plan, Type, Value, sigmoid
from tercet.errors import ConvergenceWarning, PlanError, SchemaError
from tercet.ml import fitting
from tercet.ml.descent import Descent
from tercet.ml.fitting import ROWS, WIDEST_OFFSET, Parameters, Problem, Solver, State
from tercet.ml.metrics import Evaluation, evaluate
from tercet.ml.models import OBJECTIVE, RevealedModel, SecretModel
from tercet.ml.newton import SMALL_ROWS, Newton
from tercet.ml.roles import Roles
from tercet.ml.summary import Summary, summarise
from tercet.ml.table import ANALYST, SecretColumn, Steps, Table
from tercet.ml.weights import LARGEST
from tercet.tracebacks import short_tracebacks

Reals = npt.NDArray[np.float64]

NEWTON_STEPS, WIDE_NEWTON_STEPS, DESCENT_STEPS = 12, 24, 100
"""Where decision values reach beyond 56, the series is less exact and Newton's method takes longer."""
BOUNDS = (24.0, 56.0, 120.0)
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


def _too_few(problem: Problem) -> SchemaError:
    """Build the error that owners want more rows."""
    return SchemaError(
        f"fit of {problem.target!r} on {problem.table.name!r}: fewer than {problem.table.min_count} rows "
        "count, and their owners do not allow figures that rest on so few; filter by a wider condition, or "
        "use more rows"
    )


def _flawed(problem: Problem) -> SchemaError:
    """Build the error that some weight is out of range."""
    given = f"sample_weight {problem.sample_weight!r}" if problem.sample_weight else "class_weight"
    return SchemaError(
        f"table {problem.table.name!r}, {given}: some weight is negative, or more than {LARGEST:g} times the "
        "mean of all; leave such rows out, or use weights nearer to each other"
    )


def _one_class(problem: Problem) -> SchemaError:
    """Build the error that all rows that count have the same outcome."""
    where, target = f"table {problem.table.name!r}, ", problem.target
    if problem.sample_weight is None:
        which = "all rows that count" if problem.weighs else f"all {problem.rows} rows"
        return SchemaError(
            f"{where}target {target!r}: {which} have the same outcome, so there is nothing to tell apart; "
            "join or split differently"
        )
    schema = problem.table.column(problem.sample_weight).schema
    steps = f" (weights are stored in steps of {2.0**-schema.scale:g})" if schema.kind != "boolean" else ""
    return SchemaError(
        f"{where}sample_weight {problem.sample_weight!r}: no rows with different outcomes of {target!r} have a "
        f"weight above zero; others are zero, or too small beside the largest to be told from zero{steps}; "
        "use weights nearer to each other, or more rows"
    )


def _begun_with(hint: str, handles: Sequence[str]) -> str:
    """The name for values that was made from a hint, of those that a plan has stored under."""
    for handle in handles:
        if handle.startswith(f"{hint}#"):
            return handle[: len(hint)] + handle[len(hint) :].partition(".")[0]
    return hint


@short_tracebacks
@attrs.define(eq=False)
class LogisticRegression:
    """Binary logistic regression with scikit-learn's conventions, fitted in MPC.

    `penalty` is "l2" or None, `C` the inverse of its strength; the intercept is not penalised. `solver` is
    "newton" or "gd" (full-batch gradient descent with `learning_rate` and `momentum` on the mean loss, over
    the columns as they are, so standardise them first; `tercet.ml.descent` has the formula). `max_iter` steps
    are made (by default 12 of Newton's, 24 in the widest range, or 100 of descent); with `tol`, one revealed
    bit after each step says whether the largest change of a scaled coefficient fell below it, and the fit
    stops there.

    `class_weight="balanced"` makes both outcomes weigh the same. `fit_intercept=False` fits the columns as
    they are, without a constant.

    `z_bound` is the largest |decision value| for which the sigmoid is exact to `sigmoid_error`. By default a
    fit tries 56 (24 for large tables) and starts again with wider bounds, up to 120, if a decision value was
    beyond. With `check`, each try reveals up to four bits: whether all decision values and coefficients
    stayed within their range, whether only one outcome occurs, whether a weight was out of range, and whether
    the last of Newton's steps still moved the fit by more than a hundredth of a standard error, which gives a
    `ConvergenceWarning`; so do columns that tell all outcomes apart without error if there is no penalty,
    since then no coefficients are best. `converged_` says so too.

    Columns that repeat others share what one of them would get; a column that does not vary gets nothing.

    On an `AsyncLake`, what computes (`fit`, `evaluate`, `predict` and its kin, `reveal`) gives an awaitable
    of what is annotated here.
    """

    penalty: Literal["l2"] | None = "l2"
    C: float = 1.0
    solver: Literal["newton", "gd"] = "newton"
    max_iter: int | None = None
    tol: float | None = None
    learning_rate: float = 1.0
    momentum: float = 0.0
    z_bound: float | None = None
    sigmoid_error: float | None = None
    check: bool = True
    class_weight: Literal["balanced"] | None = None
    fit_intercept: bool = True

    n_iter_: int = attrs.field(default=0, init=False)
    converged_: bool | None = attrs.field(default=None, init=False)
    feature_names_: tuple[str, ...] = attrs.field(default=(), init=False)
    target_: str = attrs.field(default="", init=False)
    _found: _Fitted | None = attrs.field(default=None, init=False, repr=False)
    _examined: SecretModel | None = attrs.field(default=None, init=False, repr=False)

    # -- fitting ---------------------------------------------------------------------------------------------

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

        `features` defaults to all columns that are not named otherwise. `sample_weight` names a column of
        weights, none negative and none larger than 1,024 times their mean; a boolean one drops rows, and
        nobody learns how many. `offset` names a column that is added to the log-odds as it is, also when the
        model predicts.

        Discloses the check bits, and with `tol` one bit a step; with real weights or balanced classes, one
        more says whether a weight was out of range; with secret weights of rows whose owners set a minimum
        count, one more says whether fewer count, and then there is no model. Raises SchemaError for a target
        that is not 0/1, an empty table, more features than rows, or when a check bit says that the fit cannot
        be right.
        """
        self.check_options()
        steps = self.fit_steps(table, target, features, sample_weight=sample_weight, offset=offset)
        fitted: Self = table.lake.perform(steps, "train")
        return fitted

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

        A job is one plan, so it is the first range of decision values that `fit` would try, or that of
        `z_bound`. Raises PlanError for options that take several plans (`tol`), and as `fit`.
        """
        problem = self._problem_of_a_job(Roles.of(table, target, features, sample_weight, offset), table)
        return table.lake.submit(self._fit_within(problem))

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

        Parameters stay secret; discloses what `fit` does for one try. Raises PlanError if the job is not this
        fit, and SchemaError as `fit`, also where that would try a wider range: submit it again with the
        `z_bound` that it names.
        """
        problem = self._problem_of_a_job(Roles.of(table, target, features, sample_weight, offset), table)
        self._found = None

        def again(plan: Plan) -> Steps[Self]:
            handles = [str(node.get("handle")) for node in plan.nodes if node.kind == "store"]
            revealed = yield from self._fit_within(problem, lambda hint: _begun_with(hint, handles))
            if self._sound(problem, revealed):
                return self
            raise self._out_of_range(problem)

        fitted: Self = table.lake.collect(again, job)
        return fitted

    def _problem_of_a_job(self, roles: Roles, table: Table) -> Problem:
        self.check_options()
        if self.tol is not None:
            raise PlanError(f"a fit with tol={self.tol} is several plans, and a job is one; leave tol out")
        problem = self.problem(table, roles, self.bounds(table.rows)[0])
        if table.rows < table.min_count:
            raise _too_few(problem)
        return problem

    def check_options(self) -> None:
        """Raise PlanError for options that are not supported."""
        if self.penalty not in ("l2", None):
            raise PlanError(f"penalty={self.penalty!r} is not supported; use 'l2' or None")
        if not 0 < self.C < math.inf:
            raise PlanError(f"C={self.C} must be positive and finite; a smaller C means a stronger penalty")
        if self.solver not in ("newton", "gd"):
            raise PlanError(f"solver={self.solver!r} is not known; use 'newton' or 'gd'")
        if self.max_iter is not None and (not isinstance(self.max_iter, int) or self.max_iter < 1):
            raise PlanError(f"max_iter={self.max_iter} must be a whole number of at least 1")
        if self.tol is not None and not 1e-6 <= self.tol < 1:
            raise PlanError(
                f"tol={self.tol} is not between 1e-6 and 1; leave it None for a fixed number of steps"
            )
        if not 0 < self.learning_rate <= 64:
            raise PlanError(f"learning_rate={self.learning_rate} must be positive and at most 64")
        if not 0 <= self.momentum < 1:
            raise PlanError(f"momentum={self.momentum} must be at least 0 and below 1")
        if self.class_weight not in (None, "balanced"):
            raise PlanError(f"class_weight={self.class_weight!r} is not supported; use 'balanced' or None")
        if self.solver == "gd" and (self.class_weight or not self.fit_intercept):
            raise PlanError(
                "solver='gd' has no class_weight and always an intercept; use solver='newton' for others"
            )
        if self.z_bound is not None and not 1 <= self.z_bound <= BOUNDS[-1]:
            raise PlanError(f"z_bound={self.z_bound} must lie between 1 and {BOUNDS[-1]:g}")
        if self.sigmoid_error is not None and not 1e-7 <= self.sigmoid_error <= 0.01:
            raise PlanError(f"sigmoid_error={self.sigmoid_error} must lie between 1e-7 and 0.01")

    def _steps(self, bound: float) -> int:
        if self.max_iter is not None:
            return self.max_iter
        if self.solver == "gd":
            return DESCENT_STEPS
        return NEWTON_STEPS if bound <= BOUNDS[1] else WIDE_NEWTON_STEPS

    def bounds(self, rows: int) -> tuple[float, ...]:
        """Ranges of the sigmoid to try, in order; the check bit says when to go on."""
        if self.z_bound is not None:
            return (self.z_bound,)
        bounds = BOUNDS[1:] if rows <= SMALL_ROWS else BOUNDS
        return bounds if self.check else bounds[:1]

    def problem(self, table: Table, roles: Roles, bound: float) -> Problem:
        """What a fit with these options solves, where decision values stay below a bound."""
        wanted = self.sigmoid_error
        if wanted is None:  # so far below the standard errors that it does not show in them
            errors = (2e-5, 5e-6, 1e-6) if bound <= BOUNDS[1] else (2e-4,)
            wanted = next((error for error in errors if error <= 0.005 / math.sqrt(table.rows)), errors[-1])
        try:
            probability = sigmoid(bound, wanted)
        except ValueError as error:
            raise PlanError(
                f"sigmoid_error={wanted:g} cannot be had for z_bound={bound:g}; use a larger error ({error})"
            ) from error
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

    def _solver(self, problem: Problem, builder: Builder) -> Solver:
        if self.solver == "newton":
            return Newton(problem, builder)
        return Descent(problem, builder, learning_rate=self.learning_rate, momentum=self.momentum)

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
        self._found = None
        for bound in self.bounds(table.rows):
            problem = self.problem(table, roles, bound)
            if table.rows < table.min_count:
                raise _too_few(problem)
            revealed = yield from self._fit_within(problem)
            if self._sound(problem, revealed):
                return self
        raise self._out_of_range(problem)

    def _sound(self, problem: Problem, revealed: Mapping[str, Reals]) -> bool:
        """Whether a try is right, by its check bits. Raises SchemaError for what no wider range can mend."""
        if fitting.TOO_FEW in revealed and revealed[fitting.TOO_FEW] > 0.5:
            self._found = None
            raise _too_few(problem)
        if self.check:
            self._require_sound(problem, revealed)
        if self.check and revealed[fitting.OUT_OF_RANGE] > 0.5:
            return False
        self._note_convergence(problem, revealed)
        return True

    def _out_of_range(self, problem: Problem) -> SchemaError:
        """Build the error that a try left its range; there is no model then."""
        self._found = None
        bound = problem.probability.bound
        larger = next((one for one in BOUNDS if one > bound), None)
        wider = "" if larger is None else f"a larger z_bound such as {larger:g}, "
        return SchemaError(
            f"fit of {problem.target!r} on {problem.table.name!r}: a decision value left [-{bound:g}, "
            f"{bound:g}], where the sigmoid is exact, or a coefficient grew without limit: perhaps some "
            "columns tell the outcomes apart without error or nearly repeat each other, rows lie far from "
            f"all others, or the learning rate is too "
            "large; "
            f"fit with {fitting.stronger(problem.strength > 0)} or a smaller learning_rate, with {wider}"
            "standardised columns or fewer of them"
        )

    def _require_sound(self, problem: Problem, revealed: Mapping[str, Reals]) -> None:
        """Raise SchemaError for what no wider range of the sigmoid can mend, and first for wrong weights."""
        if revealed.get(fitting.FLAWED, 0.0) > 0.5:
            self._found = None
            raise _flawed(problem)
        if revealed.get(fitting.FAR_OFFSET, 0.0) > 0.5:
            self._found = None
            raise SchemaError(
                f"table {problem.table.name!r}, offset {problem.offset!r}: some value is beyond "
                f"{WIDEST_OFFSET:g} on one side, and offsets are added to log-odds; upload it in that unit, or "
                "leave such rows out"
            )
        if revealed[fitting.ONE_CLASS] > 0.5:
            self._found = None
            raise _one_class(problem)

    def _note_convergence(self, problem: Problem, revealed: Mapping[str, Reals]) -> None:
        """Set `converged_`, from the tolerance's bit or the check's, and warn."""
        if fitting.MOVING in revealed:
            self.converged_ = bool(self.converged_) or bool(revealed[fitting.MOVING] < 0.5)
        if self._examined is not None and not self.converged_:
            self._found = None
            raise SchemaError(
                f"the model of {problem.target!r} is not the best one on {problem.table.name!r}: a step of "
                "Newton's method would move it by more than a hundredth of a standard error; use the rows "
                "that it was fitted on, more steps where it was solver='gd', or solver='newton'"
            )
        if self.converged_ is False:
            warnings.warn(
                f"the fit of {problem.target!r} on {problem.table.name!r} was still moving after "
                f"{self.n_iter_} steps; raise max_iter, use {fitting.stronger(problem.strength > 0)}, or "
                "leave out columns that nearly repeat others or tell outcomes apart without error",
                ConvergenceWarning,
                stacklevel=2,
            )

    def planned(self, builder: Builder, problem: Problem) -> tuple[Parameters, Mapping[str, Value]]:
        """All steps of a fit, inside a plan: parameters, and bits `(1,)` that say what is wrong with it."""
        solver = self._solver(problem, builder)
        state = solver.begin()
        for number in range(self._steps(problem.probability.bound)):
            state = solver.step(state, number + 1)
        state = solver.polish(state)
        found = solver.parameters(state)
        return found, solver.checks(state, found) if self.check else {}

    def _fit_within(
        self, problem: Problem, handle: Callable[[str], str] | None = None
    ) -> Steps[Mapping[str, Reals]]:
        """One fit with one range of the sigmoid; returns what was revealed.

        `handle` names what it stores, by default anew.
        """
        lake, target = problem.table.lake, problem.target
        handle = lake.handle if handle is None else handle
        title = f"fit {target} on {problem.table.name}"
        solver = self._solver(problem, lake.builder(title))
        state, made, converged = solver.begin(), 0, None
        steps = self._steps(problem.probability.bound)
        if self._examined is not None and isinstance(solver, Newton):
            state = solver.examine(state, *self._examined.parameters(solver.builder, problem.table))
            steps = 0
        between: Mapping[str, tuple[str, Type]] = {}
        every = lake.checkpoint_steps(problem.rows * problem.size) or steps
        while made < steps and not converged:
            made += 1
            state = solver.step(state, made)
            if made % every == 0 and made < steps:
                state.checkpoint(made)
            if self.tol is not None and made < steps:
                between, converged = yield from self._look(solver, state, between)
                builder = lake.builder(f"{title}, step {made + 1}")
                solver = self._solver(problem, builder)
                state = solver.resume({name: builder.input(*stored) for name, stored in between.items()})
        state = solver.polish(state) if self._examined is None else state
        found = solver.parameters(state)
        handles = [handle(f"{target}.{part}") for part in ("weights", "intercept")]
        found.weights.store(handles[0])
        found.intercept.store(handles[1])
        kept = state.store(handle(f"{target}.state"))
        bits = solver.enough() | (solver.checks(state, found) if self.check else {})
        for name, bit in bits.items():
            bit.reveal(name, to=ANALYST)
        result = yield solver.builder.plan()
        weights, intercept = ((handle, result.stored[handle]) for handle in handles)
        state_of = {name: (handle, result.stored[handle]) for name, handle in kept.items()}
        model = SecretModel(
            problem.table, target, problem.names, weights, intercept, problem.offset, self._objective(problem)
        )
        self._found = _Fitted(model, problem, state_of)
        self.feature_names_, self.target_ = problem.names, target
        self.n_iter_, self.converged_ = made, converged
        return result.revealed

    def _objective(self, problem: Problem) -> dict[str, Any]:
        """What was minimised, as plain values: what a summary of the model has to know."""
        given = {name: getattr(self, name) for name in OBJECTIVE - {"sample_weight"}}
        return given | {"sample_weight": problem.sample_weight}

    @classmethod
    def summarise_model(
        cls,
        model: SecretModel,
        table: Table,
        *,
        reveal: str | Sequence[str] | None,
        to: str,
        alpha: float,
    ) -> Steps[Summary]:
        """The plans of `SecretModel.summary`."""
        options = dict(model.objective)
        weight = options.pop("sample_weight")
        found = cls(**options)
        found.check_options()
        found._examined = model
        features = model.feature_names_
        yield from found.fit_steps(table, model.target_, features, sample_weight=weight, offset=model.offset)
        fitted = found._fitted()
        summary = yield from summarise(fitted.problem, fitted.inputs, reveal=reveal, alpha=alpha, to=to)
        return summary

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

    def _fitted(self) -> _Fitted:
        if self._found is None:
            raise PlanError("this model is not fitted yet; call fit(table, target=...) first")
        return self._found

    def decision_values(self, builder: Builder, table: Table) -> Value:
        """As `SecretModel.decision_values`."""
        return self._fitted().model.decision_values(builder, table)

    def decision_function(self, table: Table) -> SecretColumn:
        """Secret log-odds of each row; `reveal` them to whom you choose. Discloses nothing."""
        return self._fitted().model.decision_function(table)

    def predict_proba(self, table: Table) -> SecretColumn:
        """Secret probabilities of the outcome 1 for each row, within 1e-4. Discloses nothing."""
        return self._fitted().model.predict_proba(table)

    def predict(self, table: Table, *, threshold: float | Table | None = None) -> SecretColumn:
        """Secret labels of each row, as `SecretModel.predict`. Discloses nothing."""
        return self._fitted().model.predict(table, threshold=threshold)

    def evaluate(self, table: Table, *, metrics: str | Sequence[str] | None = None) -> Evaluation:
        """Quality metrics on a table with the target, all by default, secret until `reveal`.

        Fewer are cheaper: only the areas under curves, and the curves, need a sort. That discloses to the
        nodes the order of shuffled rows, which is random.
        """
        self._fitted()
        evaluation: Evaluation = table.lake.perform(evaluate(self, table, metrics), "evaluate")
        return evaluation

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
            return fitted.model.summary(fitted.problem.table, reveal, to=to, alpha=alpha)
        steps = summarise(fitted.problem, fitted.inputs, reveal=reveal, alpha=alpha, to=to)
        summary: Summary = fitted.problem.table.lake.perform(steps, "summary")
        return summary

    def reveal(self, *, to: str = ANALYST) -> RevealedModel:
        """The parameters in the columns' own units, to one receiver. Discloses them."""
        return self._fitted().model.reveal(to=to)

    def save(self, name: str, *, readers: Sequence[str] = ()) -> Any:
        """Keep the model, secret, in the lake, for `lake.model(name)`; as `SecretModel.save`."""
        return self._fitted().model.save(name, readers=readers)
