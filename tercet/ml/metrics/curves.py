"""Curves of an evaluation at public numbers of points: ROC and calibration, computed in MPC.

The rows are in the order of their decision values, so a threshold is a place in that order, and what lies
before it is a running total. Places are public, unless a filter keeps a secret number of rows: then they are
secret shares of those. Where owners set a minimum count, only points with as many rows of both outcomes
between them are told, which merges groups of calibrations. Curves in the clear draw themselves; that needs
matplotlib, of the extra `ml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml import views
from tercet.ml.disclosure import (
    UNDEFINED,
    all_at_least,
    at_least,
    both,
    inverted,
    marked,
    side_by_side,
)
from tercet.ml.linalg import settled
from tercet.ml.metrics.ratios import Ratios
from tercet.ml.table import Steps
from tercet.ml.tails import ChiSquareTest
from tercet.plans import DisclosureClass, Value, concatenate

Reals = npt.NDArray[np.float64]

PLACE_BITS = 24
"""Fractional bits of secret places among sorted rows."""
ALLOWED_POINTS = "which points of the ROC curve the rule allows"
ALLOWED_GROUPS = "which borders of groups of risk the rule allows"

_HEAD = "  rows  observed  expected  observed risk  predicted risk"


# -- running totals at places --------------------------------------------------------------------------------


def _at(totals: Value, places: Sequence[int]) -> Value:
    """Running totals `(c, rows)` in rows at public places, `(c, k)`. Local."""
    return totals.take(totals.builder.constant(np.array([places], dtype=np.float64)))


def _at_secret(totals: Value, count: Value, shares: Sequence[float], step: int, most: float) -> Value:
    """Running totals `(c, rows)` in the row at each share of a secret count and `step`, `(c, k)`.

    The rises up to a row add up to the total there. One comparison for each row and share; about 12 rounds.
    """
    builder, rows = totals.builder, int(totals.type.rows)
    numbers = (totals.select([0]).squeeze() * 0).shifted(-totals.scale) + builder.apply(
        "count_up", totals.select([0]).squeeze()
    )
    inside = []
    for share in shares:
        place = count * builder.constant(share, scale=PLACE_BITS) + step
        beyond = (place - numbers.at_scale(PLACE_BITS)).is_negative().to_ring()
        inside.append(inverted(beyond).reshape(1, rows))
    return (totals - totals.delay(1)).dot(concatenate(inside), magnitude=most)


def _spaced(counts: Value, totals: Value, least: int) -> Value:
    """Which of some points may be told: ones, else zeros, `(k,)`. About 12 rounds a point.

    `counts` `(2, k)` are rows of both outcomes up to each point, `totals` `(2,)` those of all. Between two
    points that are told, and before the first and after the last, there are at least `least` of each.
    """
    size = int(counts.type.rows)
    rest = (counts * -1 + totals.column()).reshape(2 * size)
    left = at_least(rest, least).reshape(2, size)
    last, kept = (counts * 0).slice(0, 1), []
    for point in range(size):
        gap = counts.slice(point, point + 1) - last
        enough = at_least(gap.reshape(2), least)
        flags = [enough.slice(side, side + 1) for side in (0, 1)]
        flags += [left.select([side]).slice(point, point + 1).squeeze().reshape(1) for side in (0, 1)]
        kept.append(settled(both(settled(both(*flags[:2])), settled(both(*flags[2:])))))
        last = settled((last + gap * kept[-1]).bounded(_size_of(counts), "a count"))
    return side_by_side(kept)


def _size_of(counts: Value) -> float:
    return float(counts.type.limit) * 2.0**-counts.scale


# -- the curves ----------------------------------------------------------------------------------------------


def roc_curve(
    ratios: Ratios, before: Value, *, what: str, points: int, least: int, to: str
) -> Steps[RocCurve]:
    """True and false positive rates at places in the order of rows. See `Evaluation.roc_curve`."""
    rows, shares = ratios.rows, np.linspace(0, 1, points)[1:-1]
    if rows < 2:
        raise SchemaError(f"the ROC curve of {what} takes rows of both outcomes, and there is one row in all")
    if ratios.counted:
        found = _at_secret(before, ratios.counted[0], shares.tolist(), 0, 2.0 * rows)
    else:
        places = np.unique(np.rint(shares * rows).astype(np.int64))
        found = _at(before, places[(places > 0) & (places < rows)].tolist())
    found = settled(found.bounded(rows, "a count"))
    positives, above = (found.select([place]).squeeze() for place in (0, 1))
    counts = positives, (above - positives).bounded(rows, "a count")
    totals = ratios.positives, ratios.negatives
    kept = None
    if least > 1:
        together = concatenate([one.reshape(1, int(one.type.rows)) for one in counts])
        kept = _spaced(together, side_by_side(totals), least)
        kept.reveal(ALLOWED_POINTS, to=to, kind="check")
    kind = _class_of("figure", rows, points - 1, kept)
    names = "true positive rates", "false positive rates"
    for name, count, total in zip(names, counts, totals, strict=True):
        rate = marked(ratios.ratio(count, total), at_least(total, 1))
        (rate if kept is None else rate * kept).reveal(name, to=to, kind=kind)
    revealed = (yield ratios.builder.plan()).revealed
    told = revealed[ALLOWED_POINTS] > 0.5 if kept is not None else slice(None)
    if kept is not None and not (revealed[ALLOWED_POINTS] > 0.5).any():
        raise SchemaError(
            f"the ROC curve of {what}: owners allow figures that rest on at least {least} rows, and no point "
            "of it has so many of both outcomes on its sides; evaluate on more rows"
        )
    rates = [_from_zero_to_one(revealed[name][told]) for name in names]
    return RocCurve(what, rates[1], rates[0])


def _class_of(kind: DisclosureClass, rows: int, groups: int, kept: Value | None) -> DisclosureClass:
    """The class of what is told of so many groups of rows: of groups of one row it tells rows."""
    return kind if kept is not None or rows >= 2 * groups else "rows"


def _from_zero_to_one(rates: Reals) -> Reals:
    """Rates in the clear with both ends of the curve, all `nan` if there are no rows to take a rate of."""
    undefined = (rates < UNDEFINED / 2).any()
    ends = np.concatenate([[0.0], np.clip(rates, 0, 1), [1.0]])
    return np.full_like(ends, np.nan) if undefined else ends


def calibration(
    ratios: Ratios,
    outcomes: Value,
    probabilities: Value,
    *,
    what: str,
    bins: int,
    least: int,
    to: str,
) -> Steps[Calibration]:
    """Sums of outcomes and probabilities over groups of rows by risk. See `Evaluation.calibration`."""
    rows = ratios.rows
    if not 1 <= bins <= rows:
        raise PlanError(f"bins={bins} is not between 1 and the {rows} rows that there are")
    borders = np.rint(np.linspace(0, rows, bins + 1)[1:])
    columns = [outcomes, probabilities, *[outcomes * 0 + 1] * bool(ratios.counted)]
    totals = [one.reshape(1, rows).cumulate(magnitude=1.01 * rows) for one in columns]
    if ratios.counted:
        shares = (np.arange(1, bins + 1) / bins).tolist()
        found = [_at_secret(one, ratios.counted[0], shares, -1, 1.01 * rows) for one in totals]
    else:
        found = [_at(one, (borders - 1).astype(np.int64).tolist()) for one in totals]
    sums = [settled(one.bounded(1.01 * rows, "at most one a row")).squeeze() for one in found]
    kept = _allowed_borders(sums, borders, ratios, least) if least > 1 else None
    told_as: list[tuple[str, DisclosureClass]] = [
        ("outcomes up to borders of groups of risk", "count"),
        ("sums of probabilities up to borders of groups of risk", "figure"),
        ("rows up to borders of groups of risk", "count"),
    ]
    names = [name for name, _ in told_as[: len(sums)]]
    for (name, kind), value in zip(told_as, sums, strict=False):
        (value if kept is None else value * kept).reveal(name, to=to, kind=_class_of(kind, rows, bins, kept))
    if kept is not None:
        kept.reveal(ALLOWED_GROUPS, to=to, kind="check")
    revealed = (yield ratios.builder.plan()).revealed
    told = revealed[ALLOWED_GROUPS] > 0.5 if kept is not None else np.full(bins, fill_value=True)
    if not told[-1]:
        raise SchemaError(
            f"the calibration of {what}: owners allow figures that rest on at least {least} rows, and fewer "
            "have one of both outcomes; evaluate on more rows"
        )
    running = [revealed[name] for name in names] if ratios.counted else [*map(revealed.get, names), borders]
    observed, expected, sizes = (np.diff(np.asarray(one)[told], prepend=0.0)[::-1] for one in running)
    some = sizes > 0.5
    if not some.any():
        raise SchemaError(f"the calibration of {what}: a filter leaves no row; filter by a wider condition")
    return Calibration(what, np.rint(sizes[some]).astype(np.int64), np.rint(observed[some]), expected[some])


def _allowed_borders(sums: Sequence[Value], borders: Reals, ratios: Ratios, least: int) -> Value:
    """Which borders of groups may be told, the end of the last one if there are enough rows at all."""
    size, builder = len(borders), ratios.builder
    positives = sums[0].slice(0, size - 1) if size > 1 else sums[0]
    whole = all_at_least([ratios.positives, ratios.negatives], least)
    if size == 1:
        return whole
    up_to = sums[2].slice(0, size - 1) if ratios.counted else positives * 0 + builder.constant(borders[:-1])
    others = (up_to - positives).bounded(ratios.rows, "a count")
    counts = concatenate([one.reshape(1, size - 1) for one in (positives, others)])
    inner = _spaced(counts, side_by_side([ratios.positives, ratios.negatives]), least)
    return side_by_side([*[inner.slice(place, place + 1) for place in range(size - 1)], whole])


@attrs.frozen(eq=False)
class RocCurve:
    """A ROC curve in the clear: `fpr` and `tpr` `(points,)`, from (0, 0) to (1, 1).

    Without rows whose outcome is 0, `fpr` is `nan`, and `tpr` without those whose outcome is 1.
    """

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

    __repr__ = views.as_printed

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
        for others, it is the number of groups. Raises PlanError where that leaves none. The statistic is
        infinite if a group has outcomes that its probabilities rule out.
        """
        freedom = len(self.rows) - 2 if dof is None else dof
        if freedom < 1:
            raise PlanError(f"{len(self.rows)} groups leave {freedom} degrees of freedom; ask for more bins")
        variance = self.expected * (1 - self.predicted_risk)
        missed = np.abs(self.observed - self.expected)
        certain = np.where(missed < 0.5, 0.0, np.inf)
        squares = np.divide(missed**2, variance, out=certain, where=variance > 0)
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
