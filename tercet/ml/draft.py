"""Drafts: expressions on their way into a plan.

A draft writes every expression once, keeps its value for all that read it, and collects what has to be
checked where public bounds are no proof. The checks of a plan become one bit. Values are rounded to the
nearest, by themselves alone, so rows that are equal stay equal.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING

from tercet.errors import PlanError
from tercet.ml.bounds import half_unit
from tercet.ml.linalg import mean
from tercet.plans import Builder, Value

if TYPE_CHECKING:
    from tercet.ml.expressions import Expression

FARTHEST = 2.0**520
"""Beyond all values of all columns; what is compared with more is compared with this."""
GUARD_BITS = 16
"""Fractional bits of unfinished sums, beyond those of the result."""
ROOM_BITS = 57
"""Operands of sums stay below 2^57 ring units."""
MOST_CUT = 60
"""Bits that are rounded off at once."""
SQUARES_BITS = 61
"""Sums of squares stay below 2^61."""


class Draft:
    """A plan being written from expressions: values by expression, and what has to be checked."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.outside: list[Value] = []
        self._values: dict[int, tuple[Expression, Value]] = {}

    def value(self, expression: Expression) -> Value:
        """The values `(rows,)`, below 2^60 ring units at some scale."""
        key = id(expression)
        if key not in self._values:
            self._values[key] = expression, expression.write(self)
        return self._values[key][1]

    def settled(self, expression: Expression) -> Value:
        """The values `(rows,)` at the scale of their public facts, within their bounds: 2^30 ring units."""
        public = expression.public
        value = rescaled(self.value(expression), public.scale)
        return value.bounded(public.reach, f"bounds of {expression.text}")

    def common(self, scale: int, *expressions: Expression) -> list[Value]:
        """Values at one scale, at least `scale`, as exactly as there is room for."""
        values = [self.value(expression) for expression in expressions]
        finest = min(max(scale, *(value.scale for value in values)), scale + GUARD_BITS, *map(_room, values))
        if finest < scale:
            raise PlanError(
                f"{' and '.join(map(str, expressions))} are of sizes too different to be combined with "
                f"{scale} fractional bits; clip the larger one to a narrower range"
            )
        return [rescaled(value, finest) for value in values]

    # -- what counts as equal --------------------------------------------------------------------------------

    def equal_units(self, expression: Expression, number: float) -> tuple[int, int]:
        """The least and the most ring units of the expression's value that mean a public number.

        One number for a column as it was uploaded, which was rounded as this is; none, the least above the
        most, for a fraction that an integer cannot be.
        """
        value, grain = self.value(expression), expression.public.grain
        place = math.ldexp(min(max(number, -FARTHEST), FARTHEST), value.scale)
        slack = math.ldexp(grain, value.scale)
        if 0 < slack <= 0.5:
            return round(place), round(place)
        return math.ceil(place - slack), math.floor(place + slack)

    def difference(self, x: Expression, y: Expression) -> tuple[Value, float]:
        """The first less the second, at one scale, and the largest difference of what means the same.

        That is what both are rounded by together, less a unit, which rounding to one grid cannot make.
        """
        left, right = self.common(max(x.public.scale, y.public.scale), x, y)
        cut = sum(half_unit(left.scale) for one in (x, y) if self.value(one).scale > left.scale)
        slack = math.ldexp(x.public.grain + y.public.grain + cut, left.scale)
        return left - right, math.ldexp(max(0, math.ceil(slack) - 1), -left.scale)

    # -- checks ----------------------------------------------------------------------------------------------

    def inside(self, value: Value, most: float) -> Value:
        """The values, bounded by `most`; that they are is checked. 8 rounds, next to others."""
        sides = [(side * -1 + most).is_negative().to_ring().sum() for side in (value, value * -1)]
        self.outside.append((sides[0] + sides[1]).reshape(1))
        return value.bounded(most, "checked")

    def narrow(self, value: Value, spread: float) -> None:
        """Check that the standard deviation of a value is at most `spread`. About 18 rounds.

        First that no row is so far from the mean that a sum of squares could overflow, then that sum.
        """
        rows, scale = int(value.type.rows), value.scale
        about = value - mean(value.sum().reshape(1), rows, scale=scale)
        near = self.inside(about, math.ldexp(math.sqrt(2.0**SQUARES_BITS / rows), -scale))
        largest, most = 2.0 ** (SQUARES_BITS - 2 * scale), 1.02 * rows * spread**2
        if most < largest:  # else what is near is narrow enough
            squares = near.dot_squares(largest).reshape(1)
            self.outside.append((squares * -1 + most).is_negative(64).to_ring())

    def failed(self) -> Value | None:
        """One if a check failed, else zero, `(1,)`; None if there was nothing to check."""
        if not self.outside:
            return None
        total = functools.reduce(operator.add, self.outside)
        return total.is_zero().to_ring() * -1 + 1


def rescaled(value: Value, scale: int) -> Value:
    """The nearest numbers at another scale, however far away: equal ones stay equal."""
    while value.scale - scale > MOST_CUT:
        value = value.nearest(value.scale - MOST_CUT)
    return value.nearest(scale)


def _room(value: Value) -> int:
    """The largest scale at which a value stays below 2^57 ring units."""
    return value.scale + ROOM_BITS - math.ceil(math.log2(max(value.type.limit, 1.0)))


def within(value: Value, least: float, most: float) -> Value:
    """Ones where `least <= value <= most`, whole ring units, else zeros. 8 rounds."""
    if least == most:
        return (value - as_ring_units(int(least), value)).is_zero().to_ring()
    sides = value - as_ring_units(int(least), value), value * -1 + as_ring_units(int(most), value)
    outside = [side.is_negative().to_ring() for side in sides]
    return ((outside[0] + outside[1]) * -1 + 1).bounded(1.0, "no value is on both sides")


def as_ring_units(units: int, value: Value) -> Value:
    """A public number of ring units at the value's scale, no further out than just beyond its bound."""
    most = math.ceil(value.type.limit) + 1
    return value.builder.constant(math.ldexp(min(max(units, -most), most), -value.scale), scale=value.scale)
