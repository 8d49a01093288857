"""Groups of rows: what `Table.groupby` gives to compute with, and figures by group in the clear.

Groups are the categories of columns that everyone may know, so figures by group are a dense table, one row
for each combination. What computes them is in `tercet.ml.grouping`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import views
from tercet.ml.computations import called
from tercet.ml.disclosure import MISSING
from tercet.ml.faces import Async, F, Faced, Sync, computes
from tercet.ml.join_options import SIZES, Sizes
from tercet.options import AGGREGATES, RECEIVER, SCALES, takes
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.table import Table

Reals = npt.NDArray[np.float64]
TO_CALLER = "analyst"
Category = float | str
"""A number, or a label."""
Categories = tuple[Category, ...]


@short_tracebacks
@attrs.frozen(eq=False)
class GroupBy(Faced[F]):
    """The rows of a table by public categories of columns, from `Table.groupby`; nothing is computed yet."""

    table: Table[F]
    by: tuple[str, ...]
    categories: Mapping[str, Sequence[Category]]

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> GroupBy[Sync]: ...
        @property
        def _on_async(self) -> GroupBy[Async]: ...

    @computes
    @takes(aggregates=AGGREGATES, to=RECEIVER)
    def agg(self, aggregates: Mapping[str, str | Sequence[str]], *, to: str = TO_CALLER) -> Groups:
        """Figures of columns by group, as in `agg({"cost": ["sum", "mean"], "age": "max"})`.

        Statistics are "count" (of values that are not missing), "sum", "mean", "var" and "std" (divided by
        the count less one), "min" and "max". Discloses them and the number of rows of each group, as far as
        owners' minimum counts allow, to one receiver. See `tercet.ml.grouping.group_statistics`.
        """
        self._require_categories()
        steps = called("groupby")(self.table, self.by, self.categories, aggregates, to)
        found: Groups = self.table.lake.perform(steps, "groupby")
        return found

    @computes
    @takes(to=RECEIVER)
    def size(self, *, to: str = TO_CALLER) -> Groups:
        """The number of rows of each group. Discloses what `agg` does of it."""
        self._require_categories()
        steps = called("groupby")(self.table, self.by, self.categories, {}, to)
        found: Groups = self.table.lake.perform(steps, "groupby")
        return found

    @computes
    @takes(aggregates=AGGREGATES, sizes=SIZES, scales=SCALES)
    def to_table(
        self,
        aggregates: Mapping[str, str | Sequence[str]],
        *,
        sizes: Sizes = "exact",
        scales: Mapping[str, int] | None = None,
    ) -> Table[F]:
        """Groups by the key as rows of a table, with a column such as `cost_sum` for each figure.

        Statistics are "count", "sum", "mean", "var", "min", "max" and "first". With `sizes="exact"` the nodes
        learn how many groups there are; with "noisy" that and how many of 512 secret coins have come up, and
        so many rows do not count; with "hidden" nothing: then the table has as many rows as before, and all
        but one of each group do not count. `scales` are fractional bits of sums, counts and variances. See
        `tercet.ml.key_groups.group_rows`.
        """
        if {*self.by} != {*self.table.key_names}:
            raise SchemaError(
                f"table {self.table.name!r} has key {', '.join(self.table.key_names)}, and rows are made of "
                f"groups by that, not by {', '.join(self.by)}; reveal figures by category with agg(...)"
            )
        steps = called("group_rows")(self.table, aggregates, sizes, scales)
        made: Table[F] = self.table.lake.perform(steps, "groupby")
        return made

    def _require_categories(self) -> None:
        if {*self.by} == {*self.table.key_names}:
            raise SchemaError(
                f"table {self.table.name!r}: {', '.join(self.by)} is its key, and nobody may know what "
                "belongs to which; make a table of its groups with to_table(...)"
            )


@attrs.frozen(eq=False)
class Groups:
    """Figures by group in the clear, one for each combination of categories, the last column's fastest.

    `counts` `(k,)` are numbers of rows, `values` `(k,)` figures by column and statistic. What a rule of
    owners suppressed, or is not defined, as the mean of no row, is `nan`.
    """

    what: str
    by: tuple[str, ...]
    categories: tuple[Categories, ...]
    counts: Reals
    values: Mapping[tuple[str, str], Reals]

    __repr__ = views.as_printed

    def __getitem__(self, which: tuple[str, str]) -> Reals:
        """Figures `(k,)` by column and statistic, as in `groups["cost", "mean"]`."""
        return self.values[which]

    def __len__(self) -> int:
        return len(self.counts)

    def to_frame(self) -> Any:
        """A pandas data frame as `groupby(...).agg` gives it; of counts alone, if only these are there."""
        import pandas as pd

        labels = [[plain(number) for number in numbers] for numbers in self.categories]
        index = (
            pd.Index(labels[0], name=self.by[0])
            if len(self.by) == 1
            else pd.MultiIndex.from_product(labels, names=self.by)
        )
        if not self.values:
            return pd.DataFrame({"count": self.counts}, index=index)
        columns = pd.MultiIndex.from_tuples(self.values)
        return pd.DataFrame(np.stack(list(self.values.values()), axis=1), index=index, columns=columns)

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        heads = [*self.by, "rows", *(f"{column} {statistic}" for column, statistic in self.values)]
        groups = itertools.product(*self.categories)
        figures = zip(self.counts, *self.values.values(), strict=True)
        rows = [
            [*(str(plain(one)) for one in group), *map(shown, numbers)]
            for group, numbers in zip(groups, figures, strict=True)
        ]
        return heads, rows

    def __str__(self) -> str:
        lines = [self.what, views.text_table(*self._rows())]
        gaps = any(np.isnan(one).any() for one in (self.counts, *self.values.values()))
        return "\n".join([*lines, MISSING] if gaps else lines)

    def _repr_html_(self) -> str:
        return views.html_table(self.what, *self._rows())


def plain(number: Category) -> Category:
    """A category as it is written: a label, or a number, without a point if it is whole."""
    if isinstance(number, str):
        return number
    return int(number) if float(number).is_integer() else number


def shown(number: float) -> str:
    """A figure in a printed table."""
    return "-" if math.isnan(number) else f"{number:.6g}"
