"""Descriptive statistics in MPC: counts, means, deviations and quantiles of columns, as pandas' describe.

Rows that a filter drops and missing values do not count, and nobody learns which those are. Means and
deviations are sums over rows, computed about a secret mean so that they are exact, and divided where they
are revealed, since their count is revealed with them. Quantiles come from an oblivious sort: the rows that do
not count sort last, and the place of a quantile, secret like the count, is found by one comparison a row.
Owners' minimum counts are kept in MPC (`tercet.ml.disclosure`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet import options
from tercet.errors import PlanError, SchemaError
from tercet.ml import views
from tercet.ml.computations import computation
from tercet.ml.disclosure import MISSING, at_least, both, inverted, side_by_side, tellable
from tercet.ml.sample import WIDEST_UNIT, Sample
from tercet.ml.spreads import widest_variance
from tercet.ml.stored_columns import UNIT_BITS, Column
from tercet.ml.table import Steps, Table, as_names
from tercet.plans import Builder, DisclosureClass, Value

STATISTICS = ("mean", "std", "min", "25%", "50%", "75%", "max")
PLACE_BITS = 24
"""Fractional bits of places among sorted rows."""
NEARLY = 1e-4
"""By how much a place may be off from rounding."""


# -- quantiles -----------------------------------------------------------------------------------------------


def quantiles(
    sample: Sample, shares: Sequence[float], least: int, *, inset: int = 0
) -> tuple[Value, Value | None]:
    """Quantiles `(q,)` with linear interpolation, numpy's default; and whether each may be told.

    It may if at least `least` rows lie at it or below, and at it or above. With `inset`, they are those of
    the rows that are left without so many of the least and so many of the largest; there have to be more
    than that. Discloses to the nodes a random order of shuffled rows.
    """
    key, builder, rows = sample.values, sample.values.builder, sample.rows
    if sample.weights is not None:
        key = key + inverted(sample.weights) * (2 * WIDEST_UNIT)
    bits = math.ceil(math.log2(key.type.limit + 1)) + 1
    ordered = builder.apply("sort", key, bits=bits)
    numbers = (ordered * 0).shifted(-UNIT_BITS) + builder.apply("count_up", ordered)
    rises = ordered - ordered.delay(1)
    found, allowed = [], []
    for share in shares:
        place = (sample.count - 1 - 2 * inset) * builder.constant(share, scale=PLACE_BITS) + inset
        beyond = (place - numbers.at_scale(PLACE_BITS)).is_negative().to_ring()
        # The rises up to the place add up to the row there, and those up to the next row to that.
        lower, upper = (
            (rises * inverted(after)).sum(magnitude=4 * WIDEST_UNIT).reshape(1)
            for after in (beyond, beyond.delay(1))
        )
        part = place + (beyond.sum().reshape(1) - (rows - 1))  # place less the number of rows up to it, and 1
        part = part.bounded(1.0, "what is left of a place after its row")
        way = (part * (upper - lower)).nearest(UNIT_BITS)
        found.append((lower + way).bounded(4 * WIDEST_UNIT, "between two rows"))
        above = sample.count - 1 - place
        enough = [at_least(side, least - 1 - NEARLY) for side in (place, above)]
        allowed.append(both(*enough))
    return side_by_side(found), side_by_side(allowed) if least > 1 else None


# -- what users see ------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Description:
    """Statistics in the clear, by column and name; what a rule suppressed, or is not defined, is `nan`.

    `rows` is the table's public row count; `count` among the statistics is how many of them count.
    """

    what: str
    rows: int
    values: Mapping[str, Mapping[str, float]]

    __repr__ = views.as_printed

    def __getitem__(self, column: str) -> Mapping[str, float]:
        return self.values[column]

    def to_frame(self) -> Any:
        """A pandas data frame: statistics down, columns across, as `DataFrame.describe` gives."""
        import pandas as pd

        return pd.DataFrame({name: dict(found) for name, found in self.values.items()})

    def __str__(self) -> str:
        statistics = list(next(iter(self.values.values()), {}))
        cells = (_shown(number) for found in self.values.values() for number in found.values())
        width = max([8, *map(len, self.values), *map(len, cells)]) + 2
        lines = [
            f"{self.what}, {self.rows} rows",
            " " * 8 + "".join(f"{name:>{width}}" for name in self.values),
        ]
        for one in statistics:
            numbers = (found[one] for found in self.values.values())
            lines.append(f"{one:<8}" + "".join(f"{_shown(number):>{width}}" for number in numbers))
        gaps = any(math.isnan(number) for found in self.values.values() for number in found.values())
        return "\n".join([*lines, MISSING] if gaps else lines)

    def _repr_html_(self) -> str:
        statistics = list(next(iter(self.values.values()), {}))
        rows = [[one, *(_shown(found[one]) for found in self.values.values())] for one in statistics]
        return views.html_table(f"{self.what}, {self.rows} rows", ["", *self.values], rows)


def _shown(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.6g}"


def share_of(statistic: str) -> float | None:
    """The share of rows below an order statistic ("min", "25%", "max"); None for others.

    Raises PlanError for an unknown one.
    """
    if statistic in ("mean", "std"):
        return None
    ends = {"min": 0.0, "max": 1.0, "median": 0.5}
    if statistic in ends:
        return ends[statistic]
    if re.fullmatch(r"\d+(\.\d+)?%", statistic) and float(statistic[:-1]) <= 100:
        return float(statistic[:-1]) / 100
    raise PlanError(
        f"there is no statistic {statistic!r}; known are mean, std, min, median, max and percentiles such as "
        "'25%'"
    )


@computation(
    "describe",
    group="statistics",
    table=options.TABLE,
    columns=options.MAYBE_COLUMNS,
    statistics=options.STATISTICS,
    to=options.RECEIVER,
)
def describe(
    table: Table, columns: str | Sequence[str] | None, statistics: Sequence[str], to: str
) -> Steps[Description]:
    """Reveal statistics of some columns (default: all numbers but those that tell where values are missing).

    Discloses to the receiver the statistics that are asked for and, where a filter or missing values make it
    secret, the count that they rest on; where owners set a minimum count, also which of them are suppressed.
    Discloses to the nodes, for quantiles, a random order of shuffled rows. A column of zeros and ones has its
    mean suppressed if either occurs in fewer rows than the minimum count. Raises SchemaError for a table with
    fewer rows than that, PlanError for statistics that do not exist.
    """
    beside = {column.schema.missing for column in table.columns}
    names = as_names(
        [name for name in table.numeric_names if name not in beside] if columns is None else columns
    )
    chosen = [table.column(name) for name in names]
    shares = {one: share for one in statistics if (share := share_of(one)) is not None}
    require_enough(table, table.min_count, "statistics")
    builder = table.lake.builder(f"describe {table.name}")
    drafts = [_Columnwise(table, builder, column) for column in chosen]
    selected = table.selected(builder)
    for draft in drafts:
        with builder.scope(draft.column.name):
            draft.write(selected, statistics, shares, to)
    result = yield builder.plan()
    return Description(table.name, table.rows, {one.column.name: one.read(result.revealed) for one in drafts})


def require_enough(table: Table, least: int, what: str) -> None:
    """Raise SchemaError if a table has fewer rows than its owners allow figures to rest on."""
    table.require_rows(what)
    if table.rows < least:
        raise SchemaError(
            f"table {table.name!r} has {table.rows} rows, and {what} have to rest on at least {least}, by "
            "their nature or by a rule of the owners; ask for more rows"
        )


class _Columnwise:
    """The statistics of one column: written into a plan, and read from what it reveals."""

    def __init__(self, table: Table, builder: Builder, column: Column) -> None:
        self.table, self.builder, self.column, self.least = table, builder, column, table.min_count
        self.rules: list[str] = []
        self.statistics: Sequence[str] = ()
        self.shares: Mapping[str, float] = {}
        self.secret_count = False

    def _title(self, what: str) -> str:
        return f"{what} of {self.column.name!r} on {self.table.name!r}"

    def write(
        self, selected: Value | None, statistics: Sequence[str], shares: Mapping[str, float], to: str
    ) -> None:
        """Compute and reveal what is asked for, and what the rule allows."""
        self.statistics, self.shares = statistics, shares
        sample = Sample.of(self.table, self.builder, self.column.name, selected)
        self.secret_count = sample.weights is not None
        rules: list[Value] = []
        enough = tellable(sample.count, self.table.countable, self.least) if self.least > 1 else None
        if self.secret_count:
            self._reveal("count", sample.count, enough, rules, to, "count")
        if not {"mean", "std"}.isdisjoint(statistics):
            told = enough
            if enough is not None and self.column.schema.kind == "boolean":
                ones = sample.total().rescale(UNIT_BITS).bounded(self.table.rows, "a count").reshape(1)
                told = both(enough, tellable(ones, sample.count, self.least))
            widest = widest_variance(self.table, [self.column.name])
            if "mean" in statistics:
                self._reveal("mean", sample.total(), told, rules, to)
            if "std" in statistics:
                squares = sample.centred(widest).dot_squares(1.1 * widest * self.table.rows).reshape(1)
                self._reveal("std", squares, told, rules, to)
        if shares:
            values, told = quantiles(sample, list(shares.values()), self.least)
            if told is not None and enough is not None:
                told = both(told, enough)
            single = len(shares) > self.table.rows / 2  # so many tell nearly every value
            self._reveal("quantiles", values, told, rules, to, "rows" if single else "figure")
        for name, rule in zip(self.rules, rules, strict=True):
            rule.reveal(self._title(f"whether the rule allows the {name}"), to=to, kind="check")

    def _reveal(
        self,
        what: str,
        value: Value,
        told: Value | None,
        rules: list[Value],
        to: str,
        kind: DisclosureClass = "figure",
    ) -> None:
        """Reveal a value where a rule allows it, and zero elsewhere."""
        if told is not None:
            value = value * told
            self.rules.append(what)
            rules.append(told)
        value.reveal(self._title(what), to=to, kind=kind)

    def read(self, revealed: Mapping[str, Any]) -> dict[str, float]:
        """The statistics in the column's own units."""
        exponent = self.column.unit_exponent

        def numbers(what: str) -> Any:
            found = np.asarray(revealed[self._title(what)], dtype=np.float64)
            if what not in self.rules:
                return found
            told = revealed[self._title(f"whether the rule allows the {what}")]
            return np.where(told > 0.5, found, np.nan)

        count = float(numbers("count")[0]) if self.secret_count else float(self.table.rows)
        values = {"count": count}
        for one in self.statistics:
            if one == "mean":
                values[one] = float(np.ldexp(numbers("mean")[0], exponent) / count) if count else math.nan
            elif one == "std":
                squares = numbers("std")[0]
                values[one] = (
                    float(np.ldexp(np.sqrt(squares / (count - 1)), exponent)) if count > 1 else math.nan
                )
            else:
                place = list(self.shares).index(one)
                values[one] = float(np.ldexp(numbers("quantiles")[place], exponent)) if count else math.nan
        return values
