"""Curves of an evaluation at public numbers of points: ROC and calibration, computed in MPC.

The rows are in the order of their decision values, so a threshold is a public place in that order, and what
lies before it is a running total. Curves in the clear draw themselves; that needs matplotlib, of the extra
`ml`.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Value, concatenate
from tercet.errors import PlanError
from tercet.ml.metrics.ratios import Ratios
from tercet.ml.table import Steps
from tercet.ml.tails import ChiSquareTest

Reals = npt.NDArray[np.float64]

_HEAD = "  rows  observed  expected  observed risk  predicted risk"


def roc_curve(ratios: Ratios, before: Value, *, what: str, points: int, to: str) -> Steps[RocCurve]:
    """True and false positive rates at public places in the order of rows. See `Evaluation.roc_curve`."""
    if points < 3:
        raise PlanError(f"points={points} is too few for a curve; ask for 3 or more")
    builder, rows = ratios.builder, ratios.rows
    places = np.unique(np.rint(np.linspace(0, rows, points)[1:-1]).astype(np.int64))
    places = places[(places > 0) & (places < rows)]
    found = before.take(builder.constant(places[None]))
    positives, above = (found.select([place]).squeeze() for place in (0, 1))
    names = "true positive rates", "false positive rates"
    counts = positives, (above - positives).bounded(rows, "a count")
    totals = ratios.positives, ratios.negatives
    for name, count, total in zip(names, counts, totals, strict=True):
        ratios.ratio(count, total).reveal(name, to=to)
    result = yield builder.plan()
    rates = [np.concatenate([[0.0], np.clip(result.revealed[name], 0, 1), [1.0]]) for name in names]
    return RocCurve(what, rates[1], rates[0])


def calibration(
    outcomes: Value, probabilities: Value, rows: int, *, what: str, bins: int, to: str
) -> Steps[Calibration]:
    """Sums of outcomes and probabilities over groups of rows by risk. See `Evaluation.calibration`."""
    if not 1 <= bins <= rows:
        raise PlanError(f"bins={bins} is not between 1 and the {rows} rows that there are")
    borders = np.rint(np.linspace(rows, 0, bins + 1)).astype(np.int64)
    names = "outcomes by group of risk", "sums of probabilities by group of risk"
    for name, column in zip(names, (outcomes, probabilities), strict=True):
        groups = [
            column.slice(start, stop).sum().reshape(1, 1)
            for stop, start in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)
        ]
        concatenate(groups).reshape(bins).reveal(name, to=to)
    result = yield outcomes.builder.plan()
    observed, expected = (result.revealed[name] for name in names)
    return Calibration(what, -np.diff(borders), np.rint(observed), expected)


@attrs.frozen(eq=False)
class RocCurve:
    """A ROC curve in the clear: `fpr` and `tpr` `(points,)`, from (0, 0) to (1, 1)."""

    what: str
    fpr: Reals
    tpr: Reals

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve on matplotlib axes, new ones by default, which are returned."""
        axes = _axes(ax)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        axes.plot(self.fpr, self.tpr)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC of {self.what}")
        return axes


@attrs.frozen(eq=False)
class Calibration:
    """Predicted against observed risk in the clear, in groups of rising risk, `(bins,)` each.

    `rows` counts the rows of each group, `observed` those whose outcome is 1, `expected` sums their
    probabilities.
    """

    what: str
    rows: npt.NDArray[np.int64]
    observed: Reals
    expected: Reals

    @property
    def predicted_risk(self) -> Reals:
        """Mean probability of each group."""
        return self.expected / self.rows

    @property
    def observed_risk(self) -> Reals:
        """Share of outcomes that are 1, in each group."""
        return self.observed / self.rows

    def hosmer_lemeshow(self, *, dof: int | None = None) -> ChiSquareTest:
        """Hosmer and Lemeshow's test (1980) that the probabilities are right.

        `dof` is by default the number of groups less 2, which is for the rows that the model was fitted on;
        for others, it is the number of groups. Raises PlanError where that leaves none.
        """
        freedom = len(self.rows) - 2 if dof is None else dof
        if freedom < 1:
            raise PlanError(f"{len(self.rows)} groups leave {freedom} degrees of freedom; ask for more bins")
        variance = self.expected * (1 - self.predicted_risk)
        squares = np.divide(
            (self.observed - self.expected) ** 2, variance, out=np.zeros(len(variance)), where=variance > 0
        )
        statistic = float(squares.sum())
        return ChiSquareTest.of(statistic, freedom)

    def plot(self, ax: Any = None) -> Any:
        """Draw observed over predicted risk on matplotlib axes, new ones by default, which are returned."""
        axes = _axes(ax)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        axes.plot(self.predicted_risk, self.observed_risk, marker="o")
        axes.set(xlabel="predicted risk", ylabel="observed risk", title=f"calibration of {self.what}")
        return axes

    def __str__(self) -> str:
        lines = [f"{self.what}, {self.rows.sum()} rows", _HEAD]
        columns = (self.rows, self.observed, self.expected, self.observed_risk, self.predicted_risk)
        lines += [
            f"{count:>6} {seen:>9.0f} {hoped:>9.2f} {risk:>14.4f} {predicted:>15.4f}"
            for count, seen, hoped, risk, predicted in zip(*columns, strict=True)
        ]
        return "\n".join(lines)


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise PlanError("drawing needs matplotlib; install it with pip install 'tercet[ml]'") from error
    return plt.subplots()[1]
