"""Numbers as they are held: ring integers, what one of them is worth, and how these two are brought together.

A number is an integer times its unit, a public real number that need be no power of two: so factors, means
and units of measurement are free and exact, and integers are touched only where two units meet. Products keep
all their digits until they are read by another product, which has room for so many (late truncation). What is
cut then is chosen such that both factors keep about as many digits, and a cut that would leave fewer than
`GUARD_BITS` of numbers of usual size is refused, with what is known and what could be said.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError
from tercet.ml.numbers.facts import Facts, Reals, reals
from tercet.ml.numbers.source import line
from tercet.plans import Builder, Value
from tercet.plans.interactive_kinds import TRUNCATION_ERROR

ROOM_BITS = 61
"""Whatever is held stays within 2^61 ring units, so that it can be cut, and compared with another."""
FACTOR_BITS = 50
"""Bits of public factors: integers up to 2^53 are exact as floating point."""
GUARD_BITS = 12
"""A cut leaves so many bits of a number of usual size, at least."""
FINE_BITS = 20
"""Numbers of unlike units meet at a unit that is as fine as 2^-20 of what is usual, if there is room."""
SPARE_BITS = 4
"""Bits beyond those of the result that are kept on the way to another unit."""
LEADING_BITS = 24
"""Bits of an integer that are multiplied by what a factor lacks, at least; half of them if that is more."""
LIFTED_BITS = 36
"""Long arrays are made exactly as fine as short ones they meet, such as their means, up to so many bits."""
MOST_PARTS = 3
"""So many products with public factors are cut side by side at most, instead of one after another."""
MOST_CUT = 60
FARTHEST = 1e150
"""Bounds, units and public numbers are no larger, and no nearer to zero than one over that."""


def bits_of(most: float) -> int:
    """The least whole number b with `most <= 2^b`."""
    mantissa, exponent = math.frexp(most)
    return exponent - (mantissa == 0.5) if most > 0 else 0


def many_bits(most: Reals) -> npt.NDArray[np.int64]:
    """`bits_of` of each of several numbers."""
    mantissa, exponent = np.frexp(most)
    found: npt.NDArray[np.int64] = exponent - (mantissa == 0.5)
    return found


def rounded_up(limit: float) -> float:
    """A bound that is a little wider, with few digits: the same on all machines, and one for equal values."""
    mantissa, exponent = math.frexp(max(limit, 1.0))
    return math.ldexp(math.ceil(mantissa * 64) / 64, exponent)


@attrs.frozen(eq=False)
class Held:
    """Integers `value` at scale 0, of which each is worth `unit`, and the facts on the numbers."""

    value: Value
    unit: Reals
    facts: Facts

    def __attrs_post_init__(self) -> None:
        far = float(self.facts.held.max(initial=0.0)), float(self.unit.max()), float(self.unit.min())
        if not (far[0] <= FARTHEST and far[1] <= FARTHEST and far[2] >= 1 / FARTHEST):
            raise PlanError(
                f"{line()}: numbers here may be as large as {far[0]:.3g}, in units of {far[2]:.3g}, which is "
                "too near the ends of floating point; measure the columns in other units"
            )

    @classmethod
    def of(cls, value: Value, unit: Any, facts: Facts) -> Held:
        """With what facts say of the integers made known to the plan."""
        units = reals(unit)
        made = cls(value, units, facts)
        limit = rounded_up(made.most)
        if limit < value.type.limit:
            value = value.bounded(limit, "intervals and moments of what it is made of")
        return cls(value, units, facts)

    @property
    def builder(self) -> Builder:
        """That of the plan."""
        return self.value.builder

    @property
    def ring(self) -> Reals:
        """A bound on the absolute integers."""
        held: Reals = self.facts.held / self.unit
        return held

    @property
    def most(self) -> float:
        """The same, for all of them."""
        return float(self.ring.max(initial=0.0))

    @property
    def bits(self) -> int:
        """Bits of the absolute integers."""
        return bits_of(self.most)

    @property
    def count(self) -> int:
        """About how many numbers these are."""
        return math.prod(self.builder.most(dim) for dim in self.value.shape)

    def worth(self, factor: Any) -> Held:
        """The same integers, each worth so many times as much: a product with public, positive numbers."""
        return Held(self.value, self.unit * factor, self.facts.scaled(factor))

    def times_integers(self, factors: Any, unit: Reals) -> Held:
        """Integers times public integers, for the same numbers at a finer unit."""
        units = reals(unit)
        limit = rounded_up(float((self.facts.held / units).max(initial=0.0)))
        factor = self.builder.constant(factors)
        return Held(self.value.times(factor, magnitude=limit), units, self.facts)

    def finer(self, bits: int) -> Held:
        """The same numbers at a unit that is so many bits finer: exact, and free."""
        return self if bits <= 0 else self.times_integers(math.ldexp(1.0, bits), self.unit * 2.0**-bits)

    def coarser(self, bits: int) -> Held:
        """The same at a unit so many bits coarser. 2 rounds. Raises PlanError if too little is left."""
        if bits <= 0:
            return self
        unit = self.unit * 2.0**bits
        usual = np.where(self.facts.usual > 0, self.facts.usual, np.inf)
        if (unit > usual * 2.0**-GUARD_BITS).any():
            raise _few_digits(self.facts, unit)
        return self.cut(bits)

    def cut(self, bits: int) -> Held:
        """The same, however little is left."""
        unit = self.unit * 2.0**bits
        value = self.value.builder.apply("truncate", self.value, bits=bits)
        facts = self.facts.off(TRUNCATION_ERROR * unit)
        return Held.of(value.shifted(bits), unit, facts)

    def at(self, unit: Any) -> Held:
        """The same numbers at another unit; as exactly as there is room for.

        Free where the unit is a whole part of the old one; else truncations side by side, or two after each
        other (2 or 4 rounds).
        """
        target = np.broadcast_to(reals(unit), np.broadcast_shapes(self.unit.shape, np.shape(unit)))
        ratio = self.unit / target
        if (ratio == 1.0).all():
            return self
        if (ratio == np.rint(ratio)).all() and ratio.max() < 2.0**FACTOR_BITS:
            return self.times_integers(ratio, target)
        room = ROOM_BITS - bits_of(float((self.ring * ratio).max(initial=0.0)))
        bits = min(room, MOST_CUT, FACTOR_BITS - bits_of(float(ratio.max())))
        if bits <= 0:
            raise _few_digits(self.facts, target)
        factors, last = np.rint(ratio * 2.0**bits), target * 2.0**-bits
        left = ratio * 2.0**bits - factors
        off = self.ring * np.abs(left) * last
        if (off <= target / 2).all():
            lifted = Held(self.value, self.unit, self.facts.off(off)).times_integers(factors, last)
            return lifted.cut(bits)
        # The factor has too few bits. First go those of the integers that the result has no place for: a few
        # are enough where the factors are powers of two that differ.
        mantissa, exponent = np.frexp(ratio)
        short = 1 - int(exponent.min()) - bits
        if (mantissa == 0.5).all() and short <= SPARE_BITS - bits_of(float(ratio.max())):
            return self.cut(short).at(target)
        if (made := self._side_by_side(ratio, target)) is not None:
            return made
        # What the factor lacks then is made up for by the leading bits.
        spare = -bits_of(float(ratio.max())) - SPARE_BITS
        if spare > 0:
            return self.cut(min(spare, MOST_CUT)).at(target)
        least = np.where(left == 0, np.inf, self.ring).min()
        whole = bits_of(float(least))
        cut = max(min(whole - LEADING_BITS, whole // 2), 1)
        leading, more = self.cut(cut), np.rint(left * 2.0**cut)
        missed = self.ring * np.abs(left - more * 2.0**-cut) + TRUNCATION_ERROR * np.abs(more)
        known = Held(self.value, self.unit, self.facts.off(missed * last))
        made = known.times_integers(factors, last)
        rest = leading.value.times(self.builder.constant(more), magnitude=2.0**ROOM_BITS)
        limit = rounded_up(float((known.facts.held / last).max(initial=0.0)))
        lifted = Held((made.value + rest).bounded(limit, "a number in other units"), last, known.facts)
        return lifted.cut(bits)

    def _side_by_side(self, ratio: Reals, target: Reals) -> Held | None:
        """Products with public factors, each cut to a unit, if a few of them are near enough. 2 rounds.

        Each factor has as many bits as there is room for, and what it lacks is made up for by the next one.
        """
        left, parts = ratio, list[Value]()
        while (self.ring * np.abs(left) > 0.5).any():
            if len(parts) == MOST_PARTS:
                return None
            room = ROOM_BITS - bits_of(float((self.ring * np.abs(left)).max()))
            bits = min(room, MOST_CUT, FACTOR_BITS - bits_of(float(np.abs(left).max())))
            factors = np.rint(left * 2.0**bits)
            left = left - factors * 2.0**-bits
            product = self.value.times(self.builder.constant(factors), magnitude=2.0**ROOM_BITS)
            parts.append(self.builder.apply("truncate", product, bits=bits).shifted(bits))
        off = (self.ring * np.abs(left) + TRUNCATION_ERROR * len(parts)) * target
        return Held.of(functools.reduce(Value.__add__, parts), target, self.facts.off(off))


def as_row(held: Held) -> Held:
    """A vector `(n,)` as `(1, n)`."""
    value = held.value if len(held.value.shape) == 2 else held.value.reshape(1, *held.value.shape)
    lift: Callable[[Reals], Reals] = lambda one: one if one.ndim == 2 else one[None]  # noqa: E731
    return Held(value, lift(held.unit), held.facts.columns(lift))


def as_scalar(held: Held) -> Held:
    """A matrix `(1, 1)` as `(1,)`."""
    return Held(held.value.reshape(1), held.unit[0], held.facts.columns(lambda one: one[0]))


def told(facts: Facts) -> str:
    """What is known of numbers, for messages."""
    low, high = float(facts.low.min(initial=0.0)), float(facts.high.max(initial=0.0))
    usual = float(facts.usual.min(initial=np.inf))
    return f"between {low:.6g} and {high:.6g}, usually about {usual:.3g}"


def _few_digits(facts: Facts, unit: Reals) -> PlanError:
    ratio = np.where(facts.usual > 0, unit / np.where(facts.usual > 0, facts.usual, 1.0), 0.0)
    left = max(0, -bits_of(float(ratio.max())))
    usual = float(np.broadcast_to(facts.usual, ratio.shape).flat[int(ratio.argmax())])
    wide = 16 * usual
    return PlanError(
        f"{line()}: numbers are only known to lie {told(facts)}, so that 64 bits would leave {left} bits of "
        f"those of usual size; say more of it, as in x.within({-wide:.3g}, {wide:.3g}), subtract "
        "its mean, or have its owner upload it with ranges="
    )


def together(x: Held, y: Held) -> tuple[Held, Held]:
    """Two numbers at one unit, for a sum or a comparison.

    At the finer unit if that is exact and there is room; else the coarser one is made finer, and the other
    brought there.
    """
    fine, coarse = np.minimum(x.unit, y.unit), np.maximum(x.unit, y.unit)
    ratio = coarse / fine
    if (ratio == 1.0).all():
        return x, y
    exact = (ratio == np.rint(ratio)) & (ratio < 2.0**FACTOR_BITS)
    # What is not read by a product yet may fill all the room, if it is as long as the other.
    longer = max(x, y, key=lambda one: one.count)
    shorter = y if longer is x else x
    widest = ROOM_BITS - 1 if x.count == y.count or (longer.unit <= shorter.unit).all() else LIFTED_BITS
    most = np.maximum(x.facts.held, y.facts.held)
    usual = np.maximum(x.facts.usual, y.facts.usual)
    wanted = np.where(usual > 0, usual, 1.0) * 2.0**-FINE_BITS
    lift = np.minimum(np.maximum(many_bits(coarse / wanted), 0), ROOM_BITS - 1 - many_bits(most / coarse))
    if (exact & (many_bits(most / fine) <= widest)).all():
        return x.at(fine), y.at(fine)
    unit = coarse * np.ldexp(1.0, -lift)
    if (unit > np.where(usual > 0, usual * 2.0**-GUARD_BITS, np.inf)).any():
        raise PlanError(
            f"{line()}: numbers {told(x.facts)} and numbers {told(y.facts)} do not fit 64 bits together; say "
            "more of the larger one, as in x.within(low, high), or measure them in nearer units"
        )
    return x.at(unit), y.at(unit)


def factors(x: Held, y: Held, most: float | None = None) -> tuple[Held, Held]:
    """Two factors, cut as far as it takes for their products to fit: by as little as both can bear.

    `most` is a bound on what is made of their integers, the product of their bounds if it is not given.
    """
    reach = x.most * y.most if most is None else most
    excess = bits_of(reach) - ROOM_BITS
    if excess <= 0:
        return x, y
    if x.value.ref == y.value.ref:
        both, share = x.coarser(-(-excess // 2)), y.unit / x.unit
        off = (both.facts.error - x.facts.error) * share
        return both, Held(both.value, both.unit * share, y.facts.off(off))
    # The shorter one alone where it has digits to spare: that is fewer to cut.
    half = excess // 2
    first = min(max(half + (x.bits - y.bits) // 2, 0), excess)
    if x.count < y.count and y.bits <= 36:
        first = excess
    elif y.count < x.count and x.bits <= 36:
        first = 0
    return x.coarser(first), y.coarser(excess - first)
