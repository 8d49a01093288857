"""`train`: fit a logistic regression on a table, and compare it with the same fit in the clear.

Gradient descent is compared with the same steps in the clear, which are written out below; Newton's method,
run to convergence, with the maximum-likelihood estimate of statsmodels, in units of its standard errors.
"""

from __future__ import annotations

import time
import warnings
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from perf import tables
from perf.lakes import Conditions, Spent, open_lake, repeat, spend
from perf.report import Measured, median
from tercet.errors import ConvergenceWarning
from tercet.ml import LogisticRegression

Solver = Literal["gd", "newton"]
Reals = npt.NDArray[np.float64]
CONVERGED = 1e-3
"""Newton's method squares its error in a step: after one of this size, in spreads of columns, it is near
10^-6."""


@attrs.frozen
class Clear:
    """A fit in the clear: intercept and coefficients, their standard errors if there are any, seconds."""

    parameters: Reals
    standard_errors: Reals | None
    seconds: float


def descend(X: Reals, y: Reals, *, steps: int, rate: float = 1.0) -> Clear:
    """Full-batch gradient descent on the mean loss from zero, over columns centred by their means."""
    began = time.perf_counter()
    means = X.mean(axis=0)
    centred = np.column_stack([np.ones(len(y)), X - means])
    weights = np.zeros(centred.shape[1])
    for _ in range(steps):
        residuals = 1 / (1 + np.exp(-(centred @ weights))) - y
        weights -= rate * (centred.T @ residuals) / len(y)
    weights[0] -= weights[1:] @ means
    return Clear(weights, None, time.perf_counter() - began)


def estimate(X: Reals, y: Reals) -> Clear:
    """The maximum-likelihood estimate of statsmodels."""
    import statsmodels.api as sm

    began = time.perf_counter()
    fitted = sm.Logit(y, sm.add_constant(X)).fit(disp=0, method="newton", tol=1e-10)
    return Clear(np.asarray(fitted.params), np.asarray(fitted.bse), time.perf_counter() - began)


def clear_fit(columns: tables.Columns, solver: Solver, iterations: int | None, repeats: int = 1) -> Clear:
    """The fit that `solver` should arrive at, and its median seconds."""
    X, y = tables.design(columns), columns[tables.TARGET].astype(np.float64)
    fits = [
        descend(X, y, steps=iterations or 100) if solver == "gd" else estimate(X, y) for _ in range(repeats)
    ]
    return attrs.evolve(fits[-1], seconds=median([fit.seconds for fit in fits]))


@attrs.frozen(kw_only=True)
class Fit:
    """What is fitted: by which solver, in how many steps, and whether the fit checks the sigmoid's range.

    `sigmoid_error` is that of gradient descent, a few steps of which need no better.
    """

    solver: Solver = "gd"
    iterations: int | None = 10
    check: bool = True
    sigmoid_error: float = 2e-4

    def model(self) -> LogisticRegression:
        """A fresh model, without penalty; Newton's method converges unless `iterations` says how long."""
        return LogisticRegression(
            penalty=None,
            solver=self.solver,
            max_iter=self.iterations,
            tol=CONVERGED if self.iterations is None and self.solver == "newton" else None,
            check=self.check,
            sigmoid_error=self.sigmoid_error if self.solver == "gd" else None,
        )


async def run(rows: int, features: int, fit: Fit, conditions: Conditions) -> Measured:
    """Fit a table of `rows` rows and `features` columns."""
    columns = tables.learnable(rows, features)
    async with open_lake(conditions) as lake:
        uploaded = await tables.upload(lake, columns, "owner")

        async def train() -> Any:
            fitted: Any = fit.model().fit(uploaded.table, target=tables.TARGET)
            return await fitted

        spent = await repeat(lake, train, conditions)
        revealed = await spent.result.reveal()
        found = np.concatenate([revealed.intercept_, revealed.coef_[0]])
        steps = int(spent.result.n_iter_[0])
        rounds_per_step = await _rounds_per_step(lake, uploaded.table, fit, spent, steps)
    clear = clear_fit(columns, fit.solver, fit.iterations, conditions.repeat)
    return _report(rows, features, fit, conditions, spent, uploaded, found, clear, steps, rounds_per_step)


async def _rounds_per_step(lake: Any, table: Any, fit: Fit, spent: Spent, steps: int) -> float | None:
    """Rounds of one more step, from a fit of two steps. The first step starts at zero, so it has fewer."""
    if steps <= 2:
        return None

    async def two_steps() -> Any:
        fitted: Any = attrs.evolve(fit, iterations=2).model().fit(table, target=tables.TARGET)
        return await fitted

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # two steps are not meant to be enough
        short = await spend(lake, two_steps)
    return (spent.rounds - short.rounds) / (steps - 2)


def _report(
    rows: int,
    features: int,
    fit: Fit,
    conditions: Conditions,
    spent: Spent,
    uploaded: tables.Uploaded,
    found: Reals,
    clear: Clear,
    steps: int,
    rounds_per_step: float | None,
) -> Measured:
    errors = np.abs(found - clear.parameters)
    inferred = clear.standard_errors is not None
    return Measured(
        name="train",
        seconds=spent.seconds,
        rounds=spent.rounds,
        bytes_per_party=spent.bytes_per_party,
        peak_rss_mb=spent.peak_rss_mb,
        error=float(np.max(errors / clear.standard_errors)) if inferred else float(np.max(errors)),
        error_of="coefficient, in standard errors of statsmodels"
        if inferred
        else "coefficient, against the same steps",
        more={
            "rows": rows,
            "features": features,
            "solver": fit.solver,
            "iterations": steps,
            "check": fit.check,
            **conditions.describe(),
            "coefficient_error": float(np.max(errors)),
            "rounds_per_step": rounds_per_step,
            "plan_seconds": spent.plan_seconds,
            "bytes_by_party": spent.bytes_by_party,
            "upload_seconds": uploaded.seconds,
            "table_shares_mb": uploaded.shares_mb,
            "rss_before_mb": spent.rss_before_mb,
            "peak_over_shares": spent.peak_rss_mb / uploaded.shares_mb,
            "clear_seconds": clear.seconds,
            "over_clear": spent.seconds / clear.seconds,
        },
    )
