"""Along which axes a number has an element for each row of a table, and on how few rows its elements rest.

What has an element for each row is "rows" to owners, and so is what rests on one row. A formula can also pick
rows by their places, by slices or by weights that are zero elsewhere: where it picks fewer than the owner of
their table lets figures rest on, whatever is made of them counts as rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import attrs
import numpy as np

from tercet.ml.numbers.facts import Reals


@attrs.frozen
class Rows:
    """The `axes` that go by row, and the `fewest` rows that an element rests on, as far as places tell.

    `least` is the strictest minimum count of the tables whose rows these are, and `short` says whether fewer
    were picked.
    """

    axes: frozenset[int] = frozenset()
    fewest: float = math.inf
    least: int = 1
    short: bool = False

    @classmethod
    def of_table(cls, least: int) -> Rows:
        """Of a column."""
        return cls(frozenset({0}), least=least)

    @property
    def told(self) -> bool:
        """Whether such a number tells of single rows."""
        return bool(self.axes) or self.short or self.fewest < 2

    def lifted(self, by: int) -> Rows:
        """With so many axes before the first."""
        return self.along(axis + by for axis in self.axes)

    def turned(self) -> Rows:
        """Of the transpose of a matrix."""
        return self.along(1 - axis for axis in self.axes)

    def without(self, axis: int, length: int) -> Rows:
        """Of sums along an axis of that length, which goes."""
        rest = self.picked(length) if axis in self.axes else self
        return rest.along(one - (one > axis) for one in self.axes - {axis})

    def along(self, axes: Iterable[int]) -> Rows:
        """By row along other axes."""
        return attrs.evolve(self, axes=frozenset(axes))

    def picked(self, count: int) -> Rows:
        """Of so many of the rows."""
        return attrs.evolve(self, fewest=min(self.fewest, count), short=self.short or count < self.least)

    def weighed(self, numbers: Reals, axes: int) -> Rows:
        """Of products with public numbers, in a number of so many axes: zeros leave rows out."""
        if not numbers.any():
            return NO_ROWS
        found = self
        for axis in self.axes:
            along = axis - axes + numbers.ndim
            if along >= 0 and numbers.shape[along] > 1:
                counts = np.count_nonzero(numbers, axis=along)
                least = int(np.min(counts, where=counts > 0, initial=numbers.shape[along]))
                found = found.picked(least) if least < numbers.shape[along] else found
        return found

    def beside(self, other: Rows) -> Rows:
        """Of what is made of both."""
        return Rows(
            self.axes | other.axes,
            min(self.fewest, other.fewest),
            max(self.least, other.least),
            self.short or other.short,
        )


NO_ROWS = Rows()


def rows_of(*each: Rows) -> Rows:
    """By row along the axes of any."""
    return functools.reduce(Rows.beside, each)
