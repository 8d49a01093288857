"""What the check bits of a fit say, as sentences: why there is no model, or that it still moves.

Checks are computed at the end of every plan of a fit (`Solver.checks`) and come as one bit each. What no
wider range of the sigmoid and no further step can mend is an error, weights and offsets before outcomes:
where those are wrong, whatever is left of the outcomes says little.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import fitting
from tercet.ml.fitting import WIDEST_OFFSET, Problem
from tercet.ml.weights import LARGEST

Revealed = Mapping[str, npt.NDArray[np.float64]]


def says(revealed: Revealed, name: str) -> bool:
    """Whether a check bit was revealed and is set."""
    return name in revealed and bool(revealed[name][0] > 0.5)


def flaw(problem: Problem, revealed: Revealed) -> SchemaError | None:
    """Why there can be no model of a problem, whatever range and number of steps; None if there can."""
    if says(revealed, fitting.TOO_FEW):  # then the others are those of no row
        return too_few(problem)
    if problem.balanced and says(revealed, fitting.FLAWED) and says(revealed, fitting.ONE_CLASS):
        return _one_class(problem)  # a class without weight cannot be balanced, which the former says too
    for name, error in (
        (fitting.FLAWED, _flawed),
        (fitting.FAR_OFFSET, _far_offset),
        (fitting.ONE_CLASS, _one_class),
    ):
        if says(revealed, name):
            return error(problem)
    return None


def too_few(problem: Problem) -> SchemaError:
    """Build the error that owners want more rows."""
    return SchemaError(
        f"fit of {problem.target!r} on {problem.table.name!r}: fewer than {problem.table.min_count} rows "
        "count, and their owners do not allow figures that rest on so few; filter by a wider condition, or "
        "use more rows"
    )


def _flawed(problem: Problem) -> SchemaError:
    given = f"sample_weight {problem.sample_weight!r}" if problem.sample_weight else "class_weight"
    return SchemaError(
        f"table {problem.table.name!r}, {given}: some weight is negative, or more than {LARGEST:g} times the "
        "mean of all; leave such rows out, or use weights nearer to each other"
    )


def _far_offset(problem: Problem) -> SchemaError:
    return SchemaError(
        f"table {problem.table.name!r}, offset {problem.offset!r}: some value is beyond {WIDEST_OFFSET:g} on "
        "one side, and offsets are added to log-odds; upload it in that unit, or leave such rows out"
    )


def _one_class(problem: Problem) -> SchemaError:
    where, target = f"table {problem.table.name!r}, ", problem.target
    if problem.sample_weight is None:
        which = "all rows that count" if problem.weighs else f"all {problem.rows} rows"
        kept_some = problem.mask is not None or problem.table.selection
        none, mend = (", or no row counts", "filter, ") if kept_some else ("", "")
        return SchemaError(
            f"{where}target {target!r}: {which} have the same outcome{none}, so there is nothing to tell "
            f"apart; {mend}join or split differently"
        )
    schema = problem.table.column(problem.sample_weight).schema
    steps = "" if schema.kind == "boolean" else f" (weights are stored in steps of {2.0**-schema.scale:g})"
    other = "some weight is negative, or " if problem.balanced else ""
    return SchemaError(
        f"{where}sample_weight {problem.sample_weight!r}: {other}no rows with different outcomes of "
        f"{target!r} have a weight above zero; others are zero, or too small beside the largest to be told "
        f"from zero{steps}; "
        "use weights nearer to each other, or more rows"
    )


def left_range(problem: Problem, larger: float | None, *, descent: bool) -> SchemaError:
    """Build the error that a decision value left its range, with a wider one to try.

    Only descent has a learning rate that can be to blame.
    """
    bound = problem.probability.bound
    rate, slower = (
        (", or the learning rate is too large", " or a smaller learning_rate") if descent else ("", "")
    )
    wider = "" if larger is None else f"a larger z_bound such as {larger:g}, "
    return SchemaError(
        f"fit of {problem.target!r} on {problem.table.name!r}: a decision value left [-{bound:g}, "
        f"{bound:g}], where the sigmoid is exact, or a coefficient grew without limit: perhaps some "
        "columns tell the outcomes apart without error or nearly repeat each other, or rows lie far from "
        f"all others{rate}; fit with {fitting.stronger(problem.strength > 0)}{slower}, with {wider}"
        "standardised columns or fewer of them"
    )


def not_the_best(problem: Problem) -> SchemaError:
    """Build the error that a given model is not the optimum on a table."""
    return SchemaError(
        f"the model of {problem.target!r} is not the best one on {problem.table.name!r}: a step of "
        "Newton's method would move it by more than a hundredth of a standard error; use the rows "
        "that it was fitted on, more steps where it was solver='gd', or solver='newton'"
    )


def apart(problem: Problem) -> str:
    """The warning that columns tell all outcomes apart, so that no fit is the best."""
    return (
        f"the fit of {problem.target!r} on {problem.table.name!r}: columns tell all outcomes apart without "
        "error, so coefficients grow without end, and these are only where it stopped; fit with a penalty, "
        "or leave out columns that tell the outcome"
    )


def still_moving(problem: Problem, steps: int) -> str:
    """The warning that a fit has used up its steps before it converged."""
    helps = (
        f"raise max_iter, use {fitting.stronger(problem.strength > 0)}, or leave out columns that nearly "
        "repeat others or tell outcomes apart without error"
    )
    return (
        f"the fit of {problem.target!r} on {problem.table.name!r} was still moving after {steps} steps; "
        f"{helps}"
    )
