"""How columns go together, in MPC: cross tables with a chi-square test, and correlations.

A cross table counts rows by two columns with public categories; every count is a product of conditions,
summed over rows. Correlations are sums of products of columns that were centred and scaled by secret means
and deviations. Rows that a filter drops and rows with a missing value in one of the columns do not count.
Owners' minimum counts are kept in MPC (`tercet.ml.disclosure`): cells with fewer rows are suppressed, and
where all that is hidden could be told from the total, the smallest other cell as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml import views
from tercet.ml.computations import computation
from tercet.ml.describe import require_enough
from tercet.ml.disclosure import MISSING, UNDEFINED, at_least, marked, tellable, tellable_cells
from tercet.ml.draft import Draft
from tercet.ml.groups import Categories, Category, plain
from tercet.ml.linalg import halvings, inverse_sqrt, reciprocal
from tercet.ml.operands import number_of
from tercet.ml.sample import LOW_SHARE, ROOT_BITS, Sample, weights_of
from tercet.ml.spreads import high_power, widest_variance
from tercet.ml.stored_columns import Column
from tercet.ml.table import Steps, Table, as_names
from tercet.ml.tails import ChiSquareTest
from tercet.options import CATEGORIES, COLUMNS, MAYBE_COLUMNS, RECEIVER, STATISTICS, TABLE
from tercet.plans import Builder, DisclosureClass, Value, concatenate

Reals = npt.NDArray[np.float64]
MOST_CATEGORIES = 64
"""A declared range of integers gives categories by itself if it has no more."""
TERM_BITS = 28
"""Fractional bits of a cell's deviation over what is expected of its row or column."""
SUM_BITS = 61
SHARE_BITS = 24
"""Fractional bits of a public factor that is one over a share of rows, from 1 to 2."""
PRODUCT_BITS = 61
"""Products with inverse deviations stay below 2^61 ring units or little more."""
COUNTS, ALLOWED = "counts", "which cells the rule allows"
TEST, TEST_ALLOWED = "chi-square statistic", "whether the rule allows the chi-square statistic"


# -- cross tables --------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Crosstab:
    """Counts of rows by two columns, in the clear, as pandas' crosstab.

    `counts` `(r, c)` has `nan` where a rule suppressed a cell, and is None if only the test was asked for.
    `test` is Pearson's chi-square test without continuity correction; it is None if only counts were asked
    for, or if a cell is suppressed. It leaves out categories that have no rows, and is `nan` if either column
    is left with fewer than two; without counts, it is `nan` if any category has no rows.
    """

    what: str
    names: tuple[str, str]
    categories: tuple[Categories, Categories]
    counts: Reals | None
    test: ChiSquareTest | None

    __repr__ = views.as_printed

    def to_frame(self) -> Any:
        """Counts as a pandas data frame. Raises PlanError if they were not revealed."""
        import pandas as pd

        if self.counts is None:
            raise PlanError(f"the counts of {self.what} were not revealed; ask for 'counts' in statistics=")
        index, columns = (
            pd.Index([plain(number) for number in numbers], name=name)
            for numbers, name in zip(self.categories, self.names, strict=True)
        )
        return pd.DataFrame(self.counts, index=index, columns=columns)

    def __str__(self) -> str:
        lines = [f"{self.what}: {self.names[0]} down, {self.names[1]} across"]
        width = max([8, *(len(str(plain(one))) for side in self.categories for one in side)]) + 2
        if self.counts is not None:
            lines.append(" " * width + "".join(f"{plain(one):>{width}}" for one in self.categories[1]))
            for category, row in zip(self.categories[0], self.counts, strict=True):
                cells = ("-" if math.isnan(cell) else f"{cell:.0f}" for cell in row)
                lines.append(f"{plain(category):<{width}}" + "".join(f"{cell:>{width}}" for cell in cells))
        if self.test is not None and math.isnan(self.test.statistic):
            named = (
                "" if self.counts is not None else ", and without counts each that is named has to have rows"
            )
            lines.append(f"chi-square nan: it takes two categories or more of both columns{named}")
        elif self.test is not None:
            lines.append(
                f"chi-square {self.test.statistic:.4f} on {self.test.dof}, p = {self.test.p_value:.4g}"
            )
        return "\n".join(lines)


def categories_of(table: Table, column: Column, given: Sequence[Category] | None) -> Categories:
    """The public categories of a column: those given, those of a boolean, or a short declared range.

    Raises SchemaError where there are none.
    """
    if given is not None:
        if len(given) == 0 or len(set(given)) < len(given):
            raise SchemaError(f"categories of {column.name!r} are {list(given)}; name each one once")
        if column.schema.labels is None:
            return tuple(number_of(one, f"categories of {column.name!r}") for one in given)
        for one in given:
            if one not in column.schema.labels:
                raise SchemaError(f"categories of {column.name!r}: {one!r} is none of its labels")
        return tuple(given)
    if column.schema.kind == "boolean":
        return (0.0, 1.0)
    if column.schema.labels is not None:
        return column.schema.labels
    ends = column.schema.range
    if column.schema.kind == "integer" and ends is not None and ends[1] - ends[0] < MOST_CATEGORIES:
        return tuple(float(one) for one in range(math.ceil(ends[0]), math.floor(ends[1]) + 1))
    raise SchemaError(
        f"table {table.name!r}, column {column.name!r} is {column.schema.kind} and has no public categories; "
        f"name them, as in categories={{{column.name!r}: [1, 2, 3]}}"
    )


@computation(
    "crosstab",
    group="statistics",
    table=TABLE,
    names=COLUMNS,
    categories=CATEGORIES,
    statistics=STATISTICS,
    to=RECEIVER,
)
def crosstab(
    table: Table,
    names: tuple[str, str],
    categories: Mapping[str, Sequence[Category]],
    statistics: Sequence[str],
    to: str,
) -> Steps[Crosstab]:
    """Reveal how many rows have each pair of categories, a chi-square test of independence, or both.

    Discloses to the receiver the counts and, only if these are not asked for, the statistic by itself, or
    nothing but that some category has no rows; where owners set a minimum count, also which of them are
    suppressed. Raises SchemaError for columns without public categories, PlanError for statistics that do not
    exist.
    """
    if not statistics or not set(statistics) <= {"counts", "chi2"}:
        raise PlanError(f"statistics={list(statistics)}: a cross table has 'counts' and 'chi2'")
    if len(names) != 2:
        raise PlanError(f"a cross table is one of two columns, not of {len(names)}")
    chosen = [table.column(name) for name in names]
    found = [categories_of(table, column, categories.get(column.name)) for column in chosen]
    least = table.min_count
    require_enough(table, least, "a cross table")
    builder = table.lake.builder(f"{names[0]} by {names[1]} on {table.name}")
    cells, total, all_count = _cells(table, builder, names, found)
    title = f"{names[0]!r} by {names[1]!r} on {table.name!r}"
    allowed = tellable_cells(cells, total, least, of=table.filtered_from) if least > 1 else None
    if "counts" in statistics:
        _tell(cells, allowed, COUNTS, ALLOWED, title, to)
    else:
        value = _chi_square(cells.reshape(len(found[0]), len(found[1])), table.rows, all_count=all_count)
        value = marked(value, _every_category(cells, len(found[0]), len(found[1])))
        whole = None if allowed is None else (allowed.sum().reshape(1) - math.prod(map(len, found))).is_zero()
        _tell(value, None if whole is None else whole.to_ring(), TEST, TEST_ALLOWED, title, to)
    result = yield builder.plan()
    told = {name: result.revealed.get(f"{name} of {title}") for name in (COUNTS, ALLOWED, TEST, TEST_ALLOWED)}
    return _read(told, title, names, (found[0], found[1]), "chi2" in statistics)


def _every_category(cells: Value, r: int, c: int) -> Value:
    """Whether every row and every column of counts `(r c,)` has some, `(1,)`."""
    table = cells.reshape(r, c)
    sums = [table.transpose().sum_columns().reshape(r, 1), table.sum_columns().reshape(c, 1)]
    return (at_least(concatenate(sums).reshape(r + c), 1).sum().reshape(1) - (r + c)).is_zero().to_ring()


def _tell(value: Value, allowed: Value | None, name: str, rule: str, title: str, to: str) -> None:
    """Reveal values where a rule allows them, and zeros elsewhere."""
    kind: DisclosureClass = "count" if name == COUNTS else "figure"
    (value if allowed is None else value * allowed).reveal(f"{name} of {title}", to=to, kind=kind)
    if allowed is not None:
        allowed.reveal(f"{rule} of {title}", to=to, kind="check")


def _cells(
    table: Table, builder: Builder, names: Sequence[str], categories: Sequence[Sequence[Category]]
) -> tuple[Value, Value, bool]:
    """Counts of all pairs of categories `(r c,)`, and of all rows that count `(1,)`, and whether all do."""
    draft, weights = Draft(builder), weights_of(table, builder, names, table.selected(builder))
    sides = []
    for name, numbers in zip(names, categories, strict=True):
        flags = [draft.settled(table[name].isin([one])).reshape(1, table.rows) for one in numbers]
        sides.append(concatenate(flags))
    first = sides[0] if weights is None else (sides[0] * weights).bounded(1.0, "a condition")
    cells = first.dot(sides[1], magnitude=table.rows).reshape(math.prod(map(len, categories)))
    total = cells.sum().reshape(1) * 0 + table.rows if weights is None else weights.sum().reshape(1)
    return cells.bounded(table.rows, "counts"), total.bounded(table.rows, "a count"), weights is None


def _chi_square(cells: Value, rows: int, *, all_count: bool) -> Value:
    """Pearson's statistic of counts `(r, c)`, `(1,)`; empty rows and columns add nothing. About 23 rounds.

    With fractions o of cells, a and b of their rows and columns, and m of all that counts, it is the sum of
    `(o m - a b)^2 / (a b m)` times the number of rows; each deviation is divided by a and by b at once. If
    `all_count`, m is public.
    """
    halved = halvings(rows)
    across = cells.transpose().sum_columns().reshape(cells.shape[0], 1)
    down = cells.sum_columns().reshape(1, cells.shape[1])
    total = down.sum().reshape(1)
    deviation = (cells * total - across * down).shifted(2 * halved)
    scale = min(22, SUM_BITS - deviation.scale)

    def inverse(counts: Value, size: int) -> Value:
        part = counts.reshape(size).shifted(halved).at_scale(max(halved, 26))
        return reciprocal(part, low=-halved, high=1, scale=scale)

    r, c = int(cells.shape[0]), int(cells.shape[1])
    by_row, by_column = (
        deviation.times(one, magnitude=1.01).rescale(TERM_BITS)
        for one in (inverse(across, r).reshape(r, 1), inverse(down, c).reshape(1, c))
    )
    terms = (by_row * by_column).reshape(1, r * c).sum(magnitude=1.01 * min(r, c)).rescale(TERM_BITS)
    if all_count:
        share = terms.builder.constant(2.0**halved / rows, scale=SHARE_BITS)
        return (terms * share).shifted(-halved)
    found = terms.times(inverse(total, 1), magnitude=1.01 * min(r, c))
    return found.rescale(TERM_BITS).shifted(-halved)


def _read(
    told: Mapping[str, Any],
    title: str,
    names: tuple[str, str],
    categories: tuple[Categories, Categories],
    tested: bool,
) -> Crosstab:
    shape = len(categories[0]), len(categories[1])
    if told[COUNTS] is None:
        hidden = told[TEST_ALLOWED] is not None and told[TEST_ALLOWED][0] < 0.5
        dof, statistic = (shape[0] - 1) * (shape[1] - 1), float(told[TEST][0])
        test = ChiSquareTest.of(math.nan if statistic < UNDEFINED / 2 else statistic, dof)
        return Crosstab(title, names, categories, None, None if hidden else test)
    counts = np.rint(np.asarray(told[COUNTS], dtype=np.float64))
    if told[ALLOWED] is not None:
        counts[told[ALLOWED] < 0.5] = np.nan
    counts = counts.reshape(shape)
    if not tested or np.isnan(counts).any():
        return Crosstab(title, names, categories, counts, None)
    there = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    expected = there.sum(1, keepdims=True) * there.sum(0, keepdims=True) / max(there.sum(), 1.0)
    statistic = float(((there - expected) ** 2 / expected).sum())
    dof = (there.shape[0] - 1) * (there.shape[1] - 1) if there.size else 0
    return Crosstab(title, names, categories, counts, ChiSquareTest.of(statistic, dof))


# -- correlations --------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Correlations:
    """Pearson's correlations in the clear, `(d, d)`; `nan` for columns that do not vary or are suppressed."""

    what: str
    names: tuple[str, ...]
    values: Reals

    __repr__ = views.as_printed

    def to_frame(self) -> Any:
        """As a pandas data frame, like `DataFrame.corr`."""
        import pandas as pd

        return pd.DataFrame(self.values, index=list(self.names), columns=list(self.names))

    def __str__(self) -> str:
        width = max(map(len, self.names)) + 2
        lines = [self.what, " " * width + "".join(f"{name:>{max(width, 9)}}" for name in self.names)]
        for name, row in zip(self.names, self.values, strict=True):
            cells = ("-" if math.isnan(one) else f"{one:.4f}" for one in row)
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>{max(width, 9)}}" for cell in cells))
        return "\n".join([*lines, MISSING] if np.isnan(self.values).any() else lines)

    def _repr_html_(self) -> str:
        rows = [
            [name, *("-" if math.isnan(one) else f"{one:.4f}" for one in row)]
            for name, row in zip(self.names, self.values, strict=True)
        ]
        return views.html_table(self.what, ["", *self.names], rows)


def _over_deviations(squares: Value, widest: float) -> Value:
    """Mean products `(d, d)` over the roots of what is on their diagonal; zero where that is nearly zero.

    `widest` promises a bound on them. About 18 rounds, of which no message is longer than the matrix.
    """
    d, high = int(squares.shape[0]), high_power(widest)
    scale = PRODUCT_BITS - ROOT_BITS - high  # so that over one root, which is below 2^high, they still fit
    squares = squares.rescale(scale)
    diagonal = (squares * squares.builder.constant(np.eye(d))).sum_columns()
    roots = inverse_sqrt(diagonal, low=LOW_SHARE, high=high, scale=ROOT_BITS)
    # By Cauchy and Schwarz, a product over one root is at most the other one.
    half = squares.times(roots.reshape(d, 1), magnitude=1.05 * math.sqrt(widest)).rescale(scale)
    return half.times(roots.reshape(1, d), magnitude=1.05)


@computation("corr", group="statistics", table=TABLE, columns=MAYBE_COLUMNS, to=RECEIVER)
def correlate(table: Table, columns: str | Sequence[str] | None, to: str) -> Steps[Correlations]:
    """Reveal the correlation matrix of some columns (default: all of numbers, less those on what is missing).

    Rows with a missing value in one of them do not count. Discloses to the receiver the correlations and
    nothing on means and deviations; where owners set a minimum count, also whether enough rows count. Raises
    SchemaError for a table with fewer rows.
    """
    beside = {column.schema.missing for column in table.columns}
    names = as_names(
        [name for name in table.numeric_names if name not in beside] if columns is None else columns
    )
    if len(names) < 2:
        raise SchemaError(f"table {table.name!r}: a correlation takes two columns or more, not {list(names)}")
    least = table.min_count
    require_enough(table, max(2, least), "correlations")
    builder, rows = table.lake.builder(f"correlations of {table.name}"), table.rows
    weights = weights_of(table, builder, names, table.selected(builder))
    widest, halved = widest_variance(table, names), halvings(rows)
    centred = []
    for name in names:
        with builder.scope(name):
            about = Sample.of(table, builder, name, weights).centred(widest)
            centred.append(about.reshape(1, rows))
    together, size = concatenate(centred), len(names)
    squares = together.dot(together, magnitude=1.1 * widest * rows).shifted(halved)
    upper = _over_deviations(squares, 1.1 * widest).reshape(size * size)
    title = f"correlations on {table.name!r}"
    enough = None
    if least > 1 and weights is not None:
        enough = tellable(weights.sum().reshape(1), table.countable, least)
        enough.reveal(f"whether the rule allows {title}", to=to, kind="check")
    (upper if enough is None else upper * enough).reveal(title, to=to, kind="figure")
    result = yield builder.plan()
    values = np.asarray(result.revealed[title], dtype=np.float64).reshape(size, size)
    if enough is not None and result.revealed[f"whether the rule allows {title}"][0] < 0.5:
        values = np.full_like(values, np.nan)
    still = ~(np.diag(values) > 0.5)
    values = np.clip(values, -1.0, 1.0)
    values[still], values[:, still] = np.nan, np.nan
    np.fill_diagonal(values, np.where(still, np.nan, 1.0))
    return Correlations(title, names, values)
