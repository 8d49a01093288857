"""Public bounds: what everyone may know of a secret column before anyone computes on it.

The scale of a result has to be public, and must not come from values, so it follows from bounds by interval
arithmetic. Every column has bounds of its type, 2^30 stored units; an owner who declares a range at upload,
and an analyst who clips, make them tighter. Where bounds of types alone would leave a result hardly any
digits, as in a product, it takes the scale of what its factors usually measure, and is marked to be checked
when it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from tercet.errors import PlanError, SchemaError
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS, Kind
from tercet.ml.stored_columns import WIDE_SPREAD, Column

SLACK_BITS = 5
"""A result whose bounds are unknown may spread over 2^5 times what its factors' usual spreads suggest."""
FINEST_GAIN = 28
"""Tighter bounds make the last place of a column finer by no more than so many bits."""
EXTREME_SCALE = 480
"""Scales beyond 480 bits on either side are not computed with: their bounds would leave floating point."""
MOST_SIZE = 14
"""No value of a column exceeds 2^14 units."""
USUAL_PART = 4
"""What lies between two bounds usually has a spread of 2^-4 times their distance."""
PADDING = 2
"""By how many units in the last place a result may exceed its bounds, from truncation and public factors."""


@attrs.frozen
class Public:
    """What everyone knows of a column or an expression.

    `low` and `high` bound every value, `spread` bounds the standard deviation over the rows of the sources,
    `unit` and `size` are log2 of a usual spread and of a usual absolute value, `scale` the fractional bits of
    the stored integer. `grain` is how far a value may be from the number that is meant, as far as rounding of
    what is stored goes: zero for integers. If `checked`, these bounds, or bounds that they rest on, are not
    proved, but hold if the check bit of the plan that computes it is zero.
    """

    kind: Kind
    low: float
    high: float
    spread: float
    unit: float
    size: float
    scale: int
    checked: bool = False
    grain: float = 0.0

    def rounded(self, grain: float) -> Public:
        """The same of what was rounded to its scale, from numbers that were off by up to `grain`."""
        return attrs.evolve(self, grain=grain + half_unit(self.scale))

    @property
    def reach(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @classmethod
    def of_integers(cls, low: float, high: float) -> Public:
        """Of integers that are stored as they are, between public ends, of any spread."""
        size = math.log2(max(abs(low), abs(high), 1.0))
        return cls("integer", low, high, (high - low) / 2, max(size - 1.0, 0.0), size, 0)

    @classmethod
    def of(cls, column: Column) -> Public:
        """Of a stored column: bounds of its type, or the range that its owner declared."""
        schema, scale = column.schema, column.schema.scale
        if schema.kind == "boolean":
            return BOOLEAN
        if abs(scale) > EXTREME_SCALE:
            raise SchemaError(
                f"column {column.name!r} is stored at scale {scale}, too extreme to compute with; its owner "
                "has to upload it in another unit"
            )
        if schema.meaning is not None:
            return cls.of_integers(*(schema.ends or ()))
        most = 2.0 ** (INTEGER_BITS - scale)
        last = 2.0**-scale if schema.kind == "real" else 0.0
        low, high = (schema.range[0] - last, schema.range[1] + last) if schema.range else (-most, most)
        spread = min(
            2.0 ** (SPREAD_BITS - scale) * (WIDE_SPREAD if column.is_wide else 1.0), (high - low) / 2
        )
        unit = SPREAD_BITS - scale
        size = math.log2(max(abs(low), abs(high))) if schema.range else unit
        once = half_unit(scale) if schema.kind == "real" else 0.0
        grain = once if column.grain is None else column.grain
        return cls(schema.kind, low, high, spread, unit, min(size, unit + MOST_SIZE), scale, grain=grain)


def whole_numbers(low: float, high: float) -> Public:
    """Of integers to compute on, between public ends: at a scale that leaves models their digits."""
    unit = math.log2(high - low) - USUAL_PART if high > low else -math.inf
    size = math.log2(max(abs(low), abs(high), 1.0))
    return bounds("integer", low, high, (high - low) / 2, unit=unit, size=size)


def half_unit(scale: int) -> float:
    """What a number is rounded by at most, at a scale."""
    return math.ldexp(1.0, -scale - 1)


BOOLEAN = Public("boolean", 0.0, 1.0, 0.5, 0.0, 0.0, 0)


def bounds(
    kind: Kind,
    low: float,
    high: float,
    spread: float,
    *,
    unit: float,
    size: float,
    grain: float = 0.0,
    source: Public | None = None,
) -> Public:
    """Facts on a real or integer result: its scale is the largest at which values and spread surely fit.

    A variable between two bounds deviates by at most half their distance (Popoviciu 1935). If that leaves too
    few bits for the usual spread and size, bounds are set such that these have them, and have to be checked.
    Integers are exact, others get room for rounding. With `source`, the scale is not much finer than that
    one's.
    """
    spread, reach = min(spread, (high - low) / 2), max(abs(low), abs(high))
    if low * high > 0:
        size = max(size, math.log2(min(abs(low), abs(high))))
    varies = spread > 0 and unit > -math.inf
    wanted = min(SPREAD_BITS - unit, INTEGER_BITS - size) - SLACK_BITS if varies else -math.inf
    if kind == "integer":
        scale = min(_scale(reach, spread, 0), SPREAD_BITS)
        small = reach <= 2.0**INTEGER_BITS and spread <= WIDE_SPREAD * 2.0**SPREAD_BITS
        if small and (scale >= wanted or wanted <= 0):
            return Public(kind, low, high, spread, unit, size, max(scale, 0), grain=grain)
        if wanted <= 0:
            kind = "real"
    scale = _scale(reach, spread, PADDING)
    if source is not None:
        scale = min(scale, source.scale + FINEST_GAIN)
    if scale >= wanted:
        padding = 0.0 if kind == "integer" else PADDING * 2.0**-scale
        return Public(kind, low - padding, high + padding, spread, unit, size, scale, grain=grain)
    scale = math.floor(wanted)
    reach, spread = 2.0 ** (INTEGER_BITS - scale), 2.0 ** (SPREAD_BITS - scale)
    return Public(
        kind, max(low, -reach), min(high, reach), spread, unit, size, scale, checked=True, grain=grain
    )


def joint(kinds: Iterable[Kind]) -> Kind:
    """The kind of a sum or product: an integer unless something real takes part."""
    return "integer" if set(kinds) <= {"integer", "boolean"} else "real"


def product_bounds(a: Public, b: Public, low: float = -math.inf) -> Public:
    """Facts on a product, which is known to be at least `low`."""
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    public = bounds(
        joint([a.kind, b.kind]),
        max(low, min(corners)),
        max(corners),
        # |xy - mean x mean y| <= |mean x| |y - mean y| + |y| |x - mean x|
        a.reach * b.spread + b.reach * a.spread,
        unit=max(a.unit + b.size, a.size + b.unit),
        size=a.size + b.size,
    )
    return public.rounded(a.grain * 2.0**b.size + b.grain * 2.0**a.size)


def quotient_bounds(a: Public, b: Public) -> Public:
    """Facts on a quotient by what lies above zero."""
    ends = 1 / b.high, 1 / b.low
    corners = [x * y for x in (a.low, a.high) for y in ends]
    unit, size = math.log2(ends[1] - ends[0]) - USUAL_PART, math.log2(ends[1])
    public = bounds(
        "real",
        min(corners),
        max(corners),
        math.inf,
        unit=max(a.unit + size, a.size + unit),
        size=a.size + size,
    )
    return public.rounded((a.grain + b.grain * 2.0 ** (a.size + size)) * ends[1])


def _scale(reach: float, spread: float, padding: int) -> int:
    """The largest scale at which values and spread fit, with room for some units in the last place."""
    if not reach:
        return SPREAD_BITS
    if reach > 2.0**EXTREME_SCALE:
        raise PlanError(f"a result could be as large as {reach:g}; measure the columns in other units")
    by_reach = math.log2(2**INTEGER_BITS - padding) - math.log2(reach)
    by_spread = SPREAD_BITS - math.log2(spread) if spread else by_reach
    return math.floor(min(by_reach, by_spread, EXTREME_SCALE))
