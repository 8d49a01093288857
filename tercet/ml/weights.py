"""Weights of rows: what a fit multiplies each row's loss by, secret like the rows.

Three things weigh rows: a mask, which keeps or drops them (a filter, or the folds of a cross-validation); a
column of sample weights; and the balance of two classes. A row that a mask drops is as if it were not there,
but nobody learns how many are. All of them end up as one vector v of numbers between zero and `LARGEST`,
whose sum is at most the number of rows, so that whatever is proved about sums over rows without weights holds
with them: by Cauchy and Schwarz, `sum v |a b| <= sqrt(sum v a^2 sum v b^2)`. Sample weights are divided by
their mean for that, and penalties as well, so the objective is the one asked for.

Where owners set a minimum count, weights of fewer rows are all zero, whoever asks: what is made of them is
then what no row at all gives.
"""

from __future__ import annotations

import functools
import math
import operator

import attrs

from tercet.ml.disclosure import at_least, kept_where
from tercet.ml.linalg import halvings, reciprocal
from tercet.ml.schema import INTEGER_BITS
from tercet.ml.stored_columns import UNIT_BITS
from tercet.ml.table import Table
from tercet.plans import Builder, Value, concatenate

LARGEST = 2.0**10
"""No row weighs more than so many times the mean: checked."""
SMALLEST_MEAN, LARGEST_MEAN = -6, 14
"""Powers of two between which the mean of a column of weights lies, in units; beyond, weights are zero."""
MEAN_SCALE = UNIT_BITS + 8
TOTAL_SCALE = 38
BALANCE_SCALE = 20


@attrs.frozen(eq=False)
class Weights:
    """Weights v `(n,)` of a table's rows.

    `mask` is 1 where v is positive and else 0. Sample weights in units of 2^`exponent` were multiplied by
    `factor` `(1,)`, at most 2^-SMALLEST_MEAN, which is one over their `mean`; None for 1. `flaws` `(1,)`
    counts given weights below zero and v above `LARGEST`, None where nothing can be.

    `enough` `(1,)` says whether as many rows count as owners ask for, None where they do not ask; where it is
    zero, so is all of the above. `given` are the weights without that, to divide by and for nothing else.
    """

    rows: Value
    mask: Value
    factor: Value | None = None
    mean: Value | None = None
    exponent: int = 0
    flaws: Value | None = None
    enough: Value | None = None
    given: Weights | None = None

    @property
    def are_bits(self) -> bool:
        """Whether every weight is 0 or 1."""
        return self.rows is self.mask

    @property
    def largest(self) -> float:
        """A bound on every weight."""
        return 1.0 if self.are_bits else LARGEST

    @property
    def least(self) -> float:
        """A bound from below on the weights that are not zero."""
        return math.ldexp(1.0, -self.rows.scale)

    def weigh(self, x: Value, *, magnitude: float, scale: int) -> Value | None:
        """`x` `(d, n)`, zero where the mask is, times weights; None if that is x. `magnitude` bounds it."""
        return None if self.are_bits else x.times(self.rows, magnitude=magnitude).rescale(scale)

    def total(self, count: int) -> Value:
        """The sum of all weights over 2^halvings(count), `(1,)`.

        A sum of weighted numbers may be divided by that of the weights `given`, which is known sooner: where
        too few rows count, that sum is zero.
        """
        total = self.rows.sum(magnitude=1.01 * count).reshape(1).shifted(halvings(count))
        return total.at_scale(max(total.scale, TOTAL_SCALE)).rescale(TOTAL_SCALE)

    @property
    def divisor(self) -> Weights:
        """The weights whose sum may divide; see `total`."""
        return self.given or self

    def where(self, enough: Value) -> Weights:
        """The same where a bit `(1,)` is one, else zeros. 1 round."""
        mask = kept_where(enough, self.mask)
        rows = mask if self.are_bits else kept_where(enough, self.rows)
        factor, mean, flaws = (
            value if value is None else kept_where(enough, value)
            for value in (self.factor, self.mean, self.flaws)
        )
        return Weights(rows, mask, factor, mean, self.exponent, flaws, enough, given=self)


def weight_bits(count: int) -> int:
    """Fractional bits of weights: sums over rows of weights times columns in units fit 61 bits."""
    return max(8, min(UNIT_BITS, 31 - halvings(count)))


def weigh(
    builder: Builder,
    table: Table,
    y: Value,
    *,
    mask: str | Value | None,
    column: str | None,
    balanced: bool,
    enough: Value | None = None,
) -> Weights | None:
    """The weights of a table's rows with outcomes y `(n,)`, or None if all are 1.

    All zero if fewer rows have some than the table's minimum count; `enough` is that bit, if it is known from
    an earlier plan.
    """
    found = _weigh(builder, table, y, mask=mask, column=column, balanced=balanced)
    if found is None or table.min_count <= 1:
        return found
    return found.where(at_least(found.mask.sum().reshape(1), table.min_count) if enough is None else enough)


def _weigh(
    builder: Builder, table: Table, y: Value, *, mask: str | Value | None, column: str | None, balanced: bool
) -> Weights | None:
    """The weights, however few rows count.

    Rows that a filter of the table dropped have none. `mask` names a boolean column or is a value of zeros
    and ones `(n,)`; `column` names a column of sample weights, which works as a mask too if it is boolean;
    `balanced` multiplies both classes by factors that make them weigh the same, as scikit-learn's
    `class_weight="balanced"`.
    """
    selected = table.selected(builder)
    masks = [] if selected is None else [selected]
    if mask is not None:
        masks.append(_boolean(builder, table, mask) if isinstance(mask, str) else mask)
    if column is not None and table.column(column).schema.kind == "boolean":
        masks.append(_boolean(builder, table, column))
        column = None
    if not masks and column is None and not balanced:
        return None
    kept = masks[0] if masks else None
    for other in masks[1:]:
        kept = (kept * other).bounded(1.0, "a product of bits") if kept is not None else other
    if column is None and not balanced and kept is not None:
        return Weights(kept, kept)
    v, factor, mean, exponent, flaws = kept, None, None, 0, []
    if column is not None:
        exponent = table.column(column).unit_exponent
        v, factor, mean, negative = _normalised(builder, table, column, kept)
        flaws += [negative, _too_large(v)]
        v = v.bounded(LARGEST, "checked at the end")
    if balanced:
        v, rare = _balanced(y, v, table.rows)
        flaws += [rare, _too_large(v)]
    v = (y * 0 + 1 if v is None else v).bounded(LARGEST, "checked at the end")
    return Weights(
        v, (-v).is_negative().to_ring(), factor, mean, exponent, functools.reduce(operator.add, flaws)
    )


def _boolean(builder: Builder, table: Table, name: str) -> Value:
    (bits,) = table.raw(builder, [name])
    return bits.squeeze()


def _normalised(
    builder: Builder, table: Table, name: str, kept: Value | None
) -> tuple[Value, Value, Value, Value]:
    """Sample weights over their mean in the table, where they are kept; the factor in that; the mean.

    Last, how many of those that are kept are negative `(1,)`: as they were given, since nothing is left of
    their signs where the mean is about zero.
    """
    rows, halved = table.rows, halvings(table.rows)
    w = table.features(builder, [name]).squeeze()
    negative = (w if kept is None else w * kept).is_negative().to_ring().sum().reshape(1)
    mean = w.sum().reshape(1).shifted(halved).rescale(MEAN_SCALE)
    scale = min(24, 44 - halved)
    inverse = reciprocal(mean, low=SMALLEST_MEAN, high=LARGEST_MEAN, scale=scale)
    inverse = (inverse * builder.constant(rows / 2.0**halved, scale=20)).rescale(scale)
    largest = 2.0 ** (INTEGER_BITS - UNIT_BITS - SMALLEST_MEAN + 1)
    v = w.times(inverse, magnitude=largest).rescale(weight_bits(rows))
    v = v if kept is None else v * kept
    whole = builder.constant(2.0**halved / rows, scale=20)
    mean = (mean * whole).rescale(MEAN_SCALE)
    # One over the factor itself, which is rounded.
    short = 1 - mean.times(inverse, magnitude=1.01).rescale(22)
    lacks = mean.times(short, magnitude=2.0 ** (LARGEST_MEAN + 1)).rescale(MEAN_SCALE)
    mean = (mean + lacks).bounded(2.0 ** (LARGEST_MEAN + 1), "one over the factor")
    return v, inverse, mean, negative


def _balanced(y: Value, v: Value | None, rows: int) -> tuple[Value, Value]:
    """Weights times half of their sum over the sum of their class `(n,)`, and whether a class is too rare."""
    halved = halvings(rows)
    positive = y if v is None else v * y
    negative = 1 - y if v is None else v - positive
    sums = [Weights(part, part).total(rows) for part in (positive, negative)]
    inverse = reciprocal(sums[0] + sums[1], low=-halved, high=1, scale=BALANCE_SCALE)
    shares = concatenate([part.column() for part in sums]).reshape(2)
    shares = shares.times(inverse, magnitude=1.01).rescale(TOTAL_SCALE)
    factors = reciprocal(shares, low=-math.ceil(math.log2(LARGEST)) - 1, high=1, scale=BALANCE_SCALE).shifted(
        1
    )
    balanced = [
        part.times(factors.column().select([place]).reshape(1), magnitude=4 * LARGEST**2)
        for place, part in enumerate((positive, negative))
    ]
    rare = (shares - 0.5 / LARGEST).is_negative().to_ring().sum().reshape(1)
    return (balanced[0] + balanced[1]).rescale(weight_bits(rows)), rare


def _too_large(v: Value) -> Value:
    """How many weights are larger than LARGEST, `(1,)`."""
    return (v * -1 + LARGEST).is_negative().to_ring().sum().reshape(1)
