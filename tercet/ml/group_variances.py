"""Variances of groups of rows that lie in runs, from what each row is off the mean of its own group.

A sum of squares less the square of a sum loses all digits where groups lie far apart and vary little. So
rows are taken less the mean of their group first: one scan adds up a run, a reciprocal of its length gives a
mean within a part in 10^5 or so, and a scan backward hands that to all rows of the run. Whatever it errs by
is the same for all of them, and comes off again by the sum of what they are off (Chan, Golub, LeVeque 1983).
Numbers lie on one grid, so what rows are off is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from tercet.ml.disclosure import inverted
from tercet.ml.draft import Draft
from tercet.ml.linalg import halvings, mean, quotient, reciprocal, settled
from tercet.ml.sample import SUM_BITS, WIDEST_UNIT
from tercet.ml.segments import ends, running
from tercet.ml.spreads import widest_variance
from tercet.ml.stored_columns import UNIT_BITS
from tercet.ml.table import Table
from tercet.plans import Builder, Value, concatenate

GUARD_BITS = 3
"""Sums of squares have so many fractional bits more than variances."""


@attrs.frozen
class Bounds:
    """Public bounds and scales of what columns of a table are off the means of their groups, in units.

    `squares` bounds a sum of squares over any rows, and `offs` one of what rows are off.
    """

    rows: int
    squares: float
    offs: float
    scale: int
    """Fractional bits of what a row is off."""

    @classmethod
    def of(cls, table: Table, names: Sequence[str]) -> Bounds:
        """Those of columns of a table. Sums go over some of its rows, so they are within those of all."""
        widest = widest_variance(table, names)
        squares = 1.1 * widest * table.rows
        room = math.floor((SUM_BITS - math.log2(squares)) / 2)
        return cls(table.rows, squares, 1.1 * math.sqrt(widest) * table.rows, min(UNIT_BITS, room))

    def squares_scale(self, scale: int) -> int:
        """Fractional bits of sums of squares that variances with `scale` such bits are made of."""
        return min(2 * self.scale, scale + GUARD_BITS)

    @property
    def value(self) -> float:
        """A bound on a value less the mean of all, and so on means of groups (Cauchy, Schwarz)."""
        return min(2 * WIDEST_UNIT, math.sqrt(self.squares) + 1)


def centred(table: Table, builder: Builder, name: str, present: Value | None) -> Value:
    """A column's values less the mean of all rows, in units `(n,)`; zero where they are not present."""
    values = table.features(builder, [name], filled=True).squeeze().bounded(WIDEST_UNIT, "checked at upload")
    about = values - mean(values.sum().reshape(1), table.rows, scale=UNIT_BITS)
    return about if present is None else settled(about * present).bounded(2 * WIDEST_UNIT, "a value or zero")


def deviations(bounds: Bounds, starts: Value, values: Value, present: Value) -> list[tuple[Value, Value]]:
    """For each column the sums up to a row of its run, of squares and of what rows are off, `(n,)` each.

    `values` `(c, n)` are as `centred` gives them, in runs that begin where `starts` `(n,)` is one, and
    `present` `(c, n)` is one where they are there. About 40 rounds and four scans: of `2 c` columns, and of
    three for each column.
    """
    rows, columns, most = bounds.rows, int(values.shape[0]), bounds.value
    held = concatenate([values, present.at_scale(UNIT_BITS)])
    totals = running(starts, held, magnitude=most * rows)
    halved, last, found = halvings(rows), ends(starts), []
    for place in range(columns):
        count = totals.select([columns + place]).squeeze().bounded(rows, "a number of rows").shifted(halved)
        sums = totals.select([place]).squeeze().shifted(halved)
        scale = min(24, SUM_BITS - sums.scale - math.ceil(math.log2(most)))
        share = reciprocal(count.at_scale(max(count.scale, 26)), low=-halved, high=1, scale=scale)
        means = settled(sums.times(share, magnitude=most).rescale(UNIT_BITS) * last).bounded(most, "a mean")
        # What is computed row by row is rounded row by row: all of a run get that of its last one.
        means = running(starts, means.reshape(1, rows), magnitude=most, backward=True).squeeze()
        there = present.select([place]).squeeze()
        off = values.select([place]).squeeze() - means.times(there, magnitude=most)
        off = settled(off).bounded(4.1 * WIDEST_UNIT, "a value less a mean").nearest(bounds.scale)
        squares = settled(off.times(off, magnitude=bounds.squares)).reshape(1, rows)
        summed = running(starts, squares, magnitude=bounds.squares).squeeze()
        offs = running(starts, off.reshape(1, rows), magnitude=bounds.offs).squeeze()
        found.append((summed, offs))
    return found


def variance(
    draft: Draft,
    bounds: Bounds,
    squares: Value,
    offs: Value,
    count: Value,
    *,
    octaves: int,
    scale: int,
    most: float,
    proved: bool,
    whole: int,
) -> tuple[Value, Value]:
    """Variances of groups in units squared `(n,)` at `scale`, and ones where there are fewer than two rows.

    They are as pandas has them, over one row less than there are, and zero where that is none. `squares` and
    `offs` are the sums of `deviations`, `count` the rows, fewer than 2^octaves, which is checked. `most`
    bounds the result, at most 2^30 units of `scale`; unless that is `proved`, it is checked. Counts have
    `whole` fractional bits in the quotient. About 60 rounds. Errs by up to 2 units of `scale`.
    """
    few = draft.inside(count, 2.0**octaves - 1)
    alone = (few - 2).is_negative().to_ring().bounded(1.0, "a bit")
    divisor = (few - 1 + settled(alone * (few * -1 + 2))).bounded(2.0**octaves - 1, "at least one")
    near = math.sqrt(bounds.squares) + 1  # by Cauchy and Schwarz, what rows are off on average
    share = few.shifted(octaves).at_scale(26)
    room = SUM_BITS - offs.scale - octaves - math.ceil(math.log2(near))
    inverse = reciprocal(share, low=-octaves, high=0, scale=min(24, room))
    off = offs.shifted(octaves).times(inverse, magnitude=near).rescale(offs.scale)
    gone = offs.times(settled(off), magnitude=bounds.squares).rescale(squares.scale)
    left = settled(squares - gone).bounded(bounds.squares, "a sum of squares about the mean")
    if not proved:
        largest = settled(divisor * draft.builder.constant(most, scale=left.scale))
        draft.outside.append((largest - left).is_negative().to_ring().sum().reshape(1))
    found = quotient(left, divisor.at_scale(whole), low=0, high=octaves, scale=scale, magnitude=most)
    told = inverted(found.is_negative().to_ring()) * inverted(alone)
    return settled(found * settled(told)), alone
