"""Figures by group, in MPC: sums, means, variances and ends of columns over the rows of each category.

Groups are combinations of public categories, so there is one secret flag for each group and row, and figures
are sums over rows of flags times numbers. Variances are about secret means of the groups, and ends come from
an oblivious sort by group and number. Rows that a filter drops, and those with a missing value in a column
that groups, do not count; missing values of a column do not count for its figures. Owners' minimum counts
are kept in MPC as for cross tables (`tercet.ml.disclosure`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError, SchemaError
from tercet.ml.association import categories_of
from tercet.ml.bounds import Public
from tercet.ml.computations import computation
from tercet.ml.describe import require_enough
from tercet.ml.disclosure import both, inverted, tellable, tellable_cells
from tercet.ml.draft import Draft
from tercet.ml.groups import Category, Groups, Reals
from tercet.ml.linalg import halvings, mean, reciprocal, settled
from tercet.ml.sample import SUM_BITS, WIDEST_UNIT, weights_of
from tercet.ml.segments import ends
from tercet.ml.spreads import widest_variance
from tercet.ml.stored_columns import UNIT_BITS, Column
from tercet.ml.table import Steps, Table, as_names
from tercet.options import AGGREGATES, CATEGORIES, COLUMNS, RECEIVER, TABLE
from tercet.plans import Builder, DisclosureClass, Value, concatenate

STATISTICS = ("count", "sum", "mean", "var", "std", "min", "max")
MOST_GROUPS = 1024


@computation(
    "groupby",
    group="statistics",
    table=TABLE,
    by=COLUMNS,
    categories=CATEGORIES,
    aggregates=AGGREGATES,
    to=RECEIVER,
)
def group_statistics(
    table: Table,
    by: Sequence[str],
    categories: Mapping[str, Sequence[Category]] | None,
    aggregates: Mapping[str, str | Sequence[str]],
    to: str,
) -> Steps[Groups]:
    """Reveal figures of some columns over the rows of each group: combinations of categories of columns.

    Sums are exact to the place in which a column is stored, means are quotients in the clear of sums and
    counts. Discloses to the receiver the number of rows of each group, sums (also where only means are asked
    for), sums of squares about the group's mean, least and largest values, and counts of a column that may be
    missing. Where owners set a minimum count, groups are suppressed as cells of a cross table are; figures of
    a column too if so many of its values are missing or there, or so many zeros or ones of a boolean, that
    the count may not be told; least and largest values are those of one row, and not told at all; and which
    those are is disclosed. For ends, discloses a random order to the nodes. About 40 rounds for a variance.

    Raises SchemaError for columns without public categories, for more than 1024 groups, and for too few
    rows, PlanError for statistics that do not exist.
    """
    names = as_names(by)
    grouping = [table.column(name) for name in names]
    found = tuple(categories_of(table, one, (categories or {}).get(one.name)) for one in grouping)
    if math.prod(map(len, found)) > MOST_GROUPS:
        raise SchemaError(
            f"table {table.name!r}: {', '.join(map(repr, names))} make {math.prod(map(len, found))} groups, "
            f"and up to {MOST_GROUPS} can be told apart; name fewer categories"
        )
    wanted = {name: as_names(some) for name, some in aggregates.items()}
    for name, some in wanted.items():
        table.column(name)
        if odd := [one for one in some if one not in STATISTICS]:
            raise PlanError(f"there is no statistic {odd[0]!r} of groups; known are {', '.join(STATISTICS)}")
        if {*some} - {"count"}:
            table.require_numbers([name])
    least = table.min_count
    require_enough(table, least, "figures by group")
    builder = table.lake.builder(f"{', '.join(names)} on {table.name}")
    flags, total = _flags(table, builder, names, found)
    counts = flags.sum().bounded(table.rows, "counts")
    groups = _Told(f"by {', '.join(map(repr, names))} on {table.name!r}", to)
    rule = tellable_cells(counts, total, least, of=table.filtered_from) if least > 1 else None
    groups.tell("rows", counts, rule, "count")
    columns = [_Columnwise(table, builder, table.column(name), some) for name, some in wanted.items()]
    for one in columns:
        with builder.scope(one.name):
            one.write(groups, flags, counts, rule)
    result = yield builder.plan()
    sizes = np.rint(groups.read("rows", result.revealed))
    values: dict[tuple[str, str], Reals] = {}
    for one in columns:
        values |= one.read(groups, sizes, result.revealed)
    return Groups(groups.what, names, found, sizes, values)


def _flags(
    table: Table, builder: Builder, names: Sequence[str], categories: Sequence[Sequence[Category]]
) -> tuple[Value, Value]:
    """Ones `(k, n)` where a row counts and is of a group, and how many rows count at all, `(1,)`."""
    draft, counting = Draft(builder), weights_of(table, builder, names, table.selected(builder))
    made = None if counting is None else counting.reshape(1, table.rows)
    for name, numbers in zip(names, categories, strict=True):
        sides = [draft.settled(table[name].isin([one])).reshape(1, table.rows) for one in numbers]
        if made is None:
            made = concatenate(sides)
        else:
            earlier = [made.select([place]) for place in range(int(made.shape[0]))]
            made = concatenate([settled(one * side) for one in earlier for side in sides])
            made = made.bounded(1.0, "a condition")
    if made is None:
        raise SchemaError(f"table {table.name!r}: name the columns whose categories make groups")
    total = (made.select([0]) * 0).sum().reshape(1) + table.rows if counting is None else counting.sum()
    return made, total.reshape(1).bounded(table.rows, "a count")


@attrs.frozen
class _Told:
    """What a plan reveals of groups, and how that is called."""

    what: str
    to: str

    def tell(self, name: str, value: Value, rule: Value | None, kind: DisclosureClass = "figure") -> None:
        """Reveal values `(k,)` where a rule allows them, zeros elsewhere, and which those are."""
        (value if rule is None else value * rule).reveal(f"{name} {self.what}", to=self.to, kind=kind)
        if rule is not None:
            rule.reveal(f"which groups the rule allows {name} {self.what}", to=self.to, kind="check")

    def read(self, name: str, revealed: Mapping[str, Any]) -> Reals:
        """What was revealed, with `nan` where the rule did not allow it."""
        found = np.asarray(revealed[f"{name} {self.what}"], dtype=np.float64)
        rule = revealed.get(f"which groups the rule allows {name} {self.what}")
        return found if rule is None else np.where(rule > 0.5, found, np.nan)


class _Columnwise:
    """Figures of one column by group: written into a plan, and read from what it reveals."""

    def __init__(self, table: Table, builder: Builder, column: Column, statistics: Sequence[str]) -> None:
        self.table, self.builder, self.column, self.statistics = table, builder, column, statistics
        self.may_be_missing = column.schema.missing is not None
        self.name = column.name

    def _title(self, what: str) -> str:
        return f"{what} of {self.name!r}"

    @property
    def _ends(self) -> bool:
        return not {"min", "max"}.isdisjoint(self.statistics) and self.table.min_count == 1

    def write(self, groups: _Told, flags: Value, counts: Value, rule: Value | None) -> None:
        """Compute and reveal what is asked for, and what the rule allows."""
        least = self.table.min_count
        there = weights_of(self.table, self.builder, [self.name], None)
        if there is not None:
            flags = settled((flags * there).bounded(1.0, "a condition"))
            present = flags.sum().bounded(self.table.rows, "counts")
            rule = None if rule is None else both(rule, tellable(present, counts, least))
            counts = present
            groups.tell(self._title("count"), counts, rule, "count")
        stored = self.table.raw(self.builder, [self.name])[0].squeeze()
        sums = flags.dot(stored)
        if rule is not None and self.column.schema.kind == "boolean":
            ones = sums.bounded(self.table.rows, "counts")
            rule = both(rule, tellable(ones, counts, least))
        if not {"sum", "mean"}.isdisjoint(self.statistics):
            groups.tell(self._title("sum"), sums, rule)
        if not {"var", "std"}.isdisjoint(self.statistics):
            groups.tell(self._title("squares"), self._squares(flags, counts), rule)
        if self._ends:
            low, high = self._ends_of(flags, stored)
            groups.tell(self._title("min"), low, None)
            groups.tell(self._title("max"), high, None)

    def _squares(self, flags: Value, counts: Value) -> Value:
        """Sums over each group of the squares of values in units about its mean, `(k,)`."""
        table, rows, halved = self.table, self.table.rows, halvings(self.table.rows)
        widest = widest_variance(table, [self.name])
        values = table.features(self.builder, [self.name], filled=True).squeeze()
        values = values.bounded(WIDEST_UNIT, "checked at upload")
        about = values - mean(values.sum().reshape(1), rows, scale=UNIT_BITS)
        # By Cauchy and Schwarz, a mean over any rows is within the root of the sum of squares.
        most = min(2 * WIDEST_UNIT, 1.1 * math.sqrt(widest * rows) + 1)
        sums = flags.dot(about, magnitude=most * rows).shifted(halved)
        scale = min(24, SUM_BITS - sums.scale - math.ceil(math.log2(most)))
        share = counts.shifted(halved).at_scale(max(halved, 26))
        means = sums.times(reciprocal(share, low=-halved, high=1, scale=scale), magnitude=most)
        means = means.rescale(UNIT_BITS)
        # Row by row, and zero beyond the group: no number is more than twice as far off as a row may be.
        off = flags * about.reshape(1, rows) - flags.times(means.column(), magnitude=most)
        off = settled(off.bounded(4.1 * WIDEST_UNIT, "a value less a mean"))
        return (off * off).sum(magnitude=1.1 * widest * rows)

    def _ends_of(self, flags: Value, stored: Value) -> tuple[Value, Value]:
        """Least and largest stored integers of each group, `(k,)` each; zero in a group without rows."""
        groups, rows = int(flags.shape[0]), self.table.rows
        reach = math.ceil(math.ldexp(Public.of(self.column).reach, self.column.schema.scale))
        span = 2 * reach + 1
        numbers = self.builder.constant((np.arange(groups) - groups)[:, None])
        code = (flags * numbers).sum_columns() + groups
        code = code.bounded(groups, "the number of the group, after all others for rows of none")
        key = code * span + (stored + reach).bounded(2 * reach, "a distance from the least")
        key = key.bounded((groups + 1) * span, "by group, then by number")
        bits = math.ceil(math.log2((groups + 1) * span + 1)) + 1
        block = concatenate([stored.reshape(1, rows), (code + 1).reshape(1, rows), flags])
        moved = self.builder.apply_all("sort", key, block, bits=bits)[1]
        sorted_code = moved.select([1]).squeeze()
        starts = inverted((sorted_code - sorted_code.delay(1)).is_zero().to_ring())
        members = moved.select(range(2, groups + 2)).bounded(1.0, "a condition")
        numbers = moved.select([0]).squeeze().bounded(reach, "a stored integer")
        found = []
        for one in (starts, ends(starts)):
            chosen = settled(numbers * one).bounded(reach, "a stored integer")
            found.append(members.dot(chosen, magnitude=reach))
        return found[0], found[1]

    def read(self, groups: _Told, counts: Reals, revealed: Mapping[str, Any]) -> dict[tuple[str, str], Reals]:
        """The figures in the column's own units."""
        scale, unit = self.column.schema.scale, self.column.unit_exponent
        if self.may_be_missing:
            counts = np.rint(groups.read(self._title("count"), revealed))
        values: dict[tuple[str, str], Reals] = {}
        for one in self.statistics:
            with np.errstate(invalid="ignore", divide="ignore"):
                if one == "count":
                    made = counts
                elif one in ("sum", "mean"):
                    sums = np.ldexp(groups.read(self._title("sum"), revealed), -scale)
                    made = sums if one == "sum" else np.where(counts > 0, sums / counts, np.nan)
                elif one in ("var", "std"):
                    squares = groups.read(self._title("squares"), revealed)
                    made = np.where(counts > 1, np.ldexp(squares, 2 * unit) / (counts - 1), np.nan)
                    made = made if one == "var" else np.sqrt(made)
                elif self._ends:
                    ends_of = np.ldexp(groups.read(self._title(one), revealed), -scale)
                    made = np.where(counts > 0, ends_of, np.nan)
                else:
                    made = np.full_like(counts, np.nan)
            values[self.name, one] = made
        return values
