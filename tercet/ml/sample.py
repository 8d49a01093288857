"""Samples: a column's values as far as they count, and their mean.

Rows that a filter drops and missing values do not count, and nobody learns which or how many those are, so
a mean divides by a secret number. It is arranged such that what is divided is small: the mean of all rows,
whose number is public, is taken off first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from tercet.ml.disclosure import both, inverted
from tercet.ml.linalg import halvings, inverse_sqrt, mean, reciprocal
from tercet.ml.schema import INTEGER_BITS
from tercet.ml.spreads import high_power
from tercet.ml.stored_columns import UNIT_BITS
from tercet.ml.table import Table
from tercet.plans import Builder, Value

WIDEST_UNIT = 2.0 ** (INTEGER_BITS - UNIT_BITS)
"""No value of a column is larger, in units."""
SUM_BITS = 61
"""A sum over a secret count stays below 2^61 ring units."""
SQUARE_BITS, ROOT_BITS = 38, 20
"""Fractional bits of sums of squares over the number of rows, in units, and of inverse roots."""
LOW_SHARE = -12
"""Such a sum is told from zero if it is at least 4^-12: few rows may count, and vary little."""


@attrs.frozen(eq=False)
class Sample:
    """What a statistic of one column is computed from.

    `values` `(n,)` in units at scale 16, `weights` `(n,)` zeros and ones or None if all rows count, `count`
    `(1,)` their sum, secret also where it is known.
    """

    values: Value
    weights: Value | None
    count: Value

    @property
    def rows(self) -> int:
        """Number of rows, of which some may not count."""
        return int(self.values.type.rows)

    @classmethod
    def of(cls, table: Table, builder: Builder, name: str, weights: Value | None) -> Sample:
        """A column's values where they are there and `weights` is one."""
        values = (
            table.features(builder, [name], filled=True).squeeze().bounded(WIDEST_UNIT, "checked at upload")
        )
        present = weights_of(table, builder, [name], weights)
        zero = (values * 0).sum().reshape(1).shifted(-UNIT_BITS)
        count = zero + table.rows if present is None else present.sum().reshape(1)
        return cls(values, present, count.bounded(table.rows, "a count"))

    def total(self) -> Value:
        """Sum of the values `(1,)`."""
        counted = self.values if self.weights is None else self.values * self.weights
        return counted.sum().reshape(1)

    def mean(self, widest: float) -> Value:
        """The mean of the values that count `(1,)`, at scale 16; that of all rows if none does. 24 rounds.

        The mean of all rows is subtracted first, so that what is left to divide by a secret count is small.
        `widest` promises a bound on the mean square of all rows about their mean.
        """
        rows, halved = self.rows, halvings(self.rows)
        overall = mean(self.values.sum().reshape(1), rows, scale=UNIT_BITS)
        if self.weights is None:
            return overall
        about = self.values - overall
        sums = (about * self.weights).sum().reshape(1).shifted(halved)
        # By Cauchy and Schwarz, a mean over any rows is within the root of the sum of squares.
        most = min(2 * WIDEST_UNIT, 1.1 * math.sqrt(widest * rows) + 1)
        return overall + self._over_count(sums, most).rescale(UNIT_BITS)

    def squares(self, widest: float) -> Value:
        """Sum of squares of values about their mean, over 2^halvings(rows), `(1,)` at scale 38."""
        total = self.centred(widest).dot_squares(1.1 * widest * self.rows).reshape(1)
        return total.shifted(halvings(self.rows)).rescale(SQUARE_BITS)

    def inverse_deviation(self, widest: float) -> Value:
        """One over the standard deviation `(1,)` at scale 20, zero if it is too small. About 60 rounds.

        The root of the share of rows that count, which is that share times its inverse root, over the root of
        `squares`: nothing is divided by a number that may be tiny.
        """
        halved = halvings(self.rows)
        root = inverse_sqrt(
            self.squares(widest), low=LOW_SHARE, high=high_power(1.1 * widest), scale=ROOT_BITS
        )
        share = self.count.shifted(halved).at_scale(max(halved, ROOT_BITS))
        inverse = inverse_sqrt(share, low=-(halved // 2) - 1, high=1, scale=ROOT_BITS)
        part = share.times(inverse, magnitude=1.01).rescale(ROOT_BITS)
        return root.times(part, magnitude=2.0 ** (1 - LOW_SHARE)).rescale(ROOT_BITS)

    def _over_count(self, sums: Value, most: float) -> Value:
        """Sums over 2^halvings(rows), over the share of rows that count; the result is at most `most`."""
        halved = halvings(self.rows)
        scale = min(24, SUM_BITS - sums.scale - math.ceil(math.log2(most)))
        part = self.count.shifted(halved).at_scale(max(halved, 26))
        return sums.times(reciprocal(part, low=-halved, high=1, scale=scale), magnitude=most)

    def centred(self, widest: float) -> Value:
        """Values less their mean, zero for rows that do not count, `(n,)`. Up to 25 rounds."""
        about = self.values - self.mean(widest)
        if self.weights is None:
            return about
        return (about * self.weights).bounded(2.1 * WIDEST_UNIT, "a value less a mean")


def weights_of(table: Table, builder: Builder, names: Sequence[str], weights: Value | None) -> Value | None:
    """`weights` where no value of some columns is missing; None if every row counts."""
    for beside in dict.fromkeys(table.column(name).schema.missing for name in names):
        if beside is not None:
            there = inverted(table.raw(builder, [beside])[0].squeeze())
            weights = there if weights is None else both(weights, there)
    return weights
