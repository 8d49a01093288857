"""Reciprocals, quotients, roots and their inverses, to as many digits however small numbers are.

A number y whose facts keep it clear of zero is brought to between 0.83 and 1 by a secret factor, which is
exact by definition; one over that, the mantissa, is computed to 27 bits (`tercet.ml.linalg.inverse_parts`).
A quotient x / y is x times the factor, before anything is cut, times the mantissa: so its digits are those
of x, however much smaller than its bound y is. What is no longer than y is multiplied by the parts of
mantissas, which saves the rounds that put these together. Roots are made when they are read: `x / sqrt(y)`
takes the inverse root at once, whose factor is the root of that of y.
"""

from __future__ import annotations

import math
from typing import Literal

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.ml import linalg
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.alignment import beside, made_of
from tercet.ml.numbers.facts import Facts
from tercet.ml.numbers.number import Number
from tercet.ml.numbers.ring import ROOM_BITS, Held, bits_of, rounded_up, told
from tercet.ml.numbers.series import as_held, each, positive
from tercet.ml.numbers.source import line
from tercet.plans import Value
from tercet.plans.interactive_kinds import TRUNCATION_ERROR

WIDEST_OCTAVES = 30
"""Ranges of what is divided by have ends that differ by 2^30 at most; of roots, what is so small is zero."""
SPARE = 2.0**-20
"""Bounds that are found in floating point are wider by so much of themselves."""
ROOTS = {1: "the reciprocal", 2: "the inverse root"}
MANTISSA = Facts.of(
    1.0, 1 / linalg.MANTISSA_LOW,
    error=linalg.MANTISSA_ERROR / linalg.MANTISSA_LOW, relative=linalg.MANTISSA_ERROR, usual=1.0,
)  # fmt: skip
MANTISSA_WIDTH = linalg.MANTISSA_BITS + 1
"""Bits of mantissas, and of the line of their series."""
ONCE_BITS = 2 * (ROOM_BITS - MANTISSA_WIDTH) - 4
"""What is multiplied by them in two parts has no more bits."""
BEYOND_CUT = linalg.SQUARE_BITS + linalg.REST_BITS - linalg.MANTISSA_BITS
"""By so many bits a number times a square is cut, for its product with the rest to meet the other one."""
BEYOND_ERROR = 0.5
"""By how many units of the number what comes of it may be off for that."""
FEW = 64
"""So many numbers are multiplied by parts of mantissas in any case: bytes of so few do not count."""


@attrs.frozen(eq=False)
class _Inverse:
    """One over numbers, or over their roots, as a factor that is exact times a mantissa, given in its parts.

    What is divided by lies from `low` to `high` truly; as it is held it differs from that so little that
    what is divided by it is off by at most `off` of itself.
    """

    factor: Number
    parts: tuple[Number, ...]
    low: float
    high: float
    usual: float
    off: float

    def times(self, once: Number, sources: tuple[Number, ...]) -> Number:
        """What was multiplied by the factor, times the mantissa."""
        parts = [at_scale(beside(once, one)[1]) for one in self.parts]
        x, _, shape, flipped = beside(once, self.parts[0])
        if math.prod(shape) <= max(self.factor.size, FEW):
            return made_of(sources, _times_parts(x, *parts), shape, flipped)
        whole = linalg.Mantissa(*parts).whole()
        mantissa = as_held(whole, 0, _like(MANTISSA, x))
        return made_of(sources, arithmetic.fine_multiple(x, mantissa), shape, flipped)


def at_scale(part: Held) -> Value:
    """Integers of a unit that is a power of two as a value of that scale."""
    return part.value.shifted(1 - math.frexp(float(part.unit.flat[0]))[1])


def _like(facts: Facts, x: Held) -> Facts:
    """Facts with as many axes as what is held has."""
    return facts if len(x.value.shape) == 1 else facts.columns(lambda one: one[None])


def _times_parts(x: Held, line: Value, square: Value, rest: Value) -> Held:
    """`x line + (x square) rest`, before its round, 2 rounds after the rest is there, if x is in time.

    Without those where x is off by more already than a cut of `x square` makes of it.
    """
    whole = ROOM_BITS - MANTISSA_WIDTH
    x = x.finer((whole if x.bits <= whole else ONCE_BITS) - x.bits)
    leading, left, spare = arithmetic.in_parts(x, MANTISSA_WIDTH)

    line, square, rest = (one.shifted(-one.scale) for one in (line, square, rest))

    def cut(value: Value, bits: int) -> Value:
        return value.builder.apply("truncate", value, bits=bits).shifted(bits)

    near = cut(line, linalg.MANTISSA_BITS)
    once = leading.value * square
    beyond = cut(once, BEYOND_CUT)
    made, unit = leading.value * near + beyond * rest, leading.unit * 2.0**-linalg.MANTISSA_BITS
    off = BEYOND_ERROR * leading.unit
    if left is not None or (leading.facts.error < off).any():
        rounded = (linalg.settled(once) - beyond * 2**BEYOND_CUT).bounded(
            TRUNCATION_ERROR * 2.0**BEYOND_CUT, "what a truncation leaves"
        )
        made, off = made + cut(rounded * rest, BEYOND_CUT), TRUNCATION_ERROR * unit
    if left is not None:
        added = left * near + cut(left * square, BEYOND_CUT) * rest
        made, off = made + cut(added, spare), 2 * off + BEYOND_ERROR * leading.unit * 2.0**-spare
    facts = leading.facts.times(_like(MANTISSA, leading)).off(off)
    limit = rounded_up(float((facts.held / unit).max(initial=0.0)))
    return Held.of(made.bounded(limit, "a product with a mantissa"), unit, facts)


def _inverse(y: Number, root: int) -> _Inverse:
    """Of numbers above zero, or of what they are where a bound does not hold. Raises PlanError for others."""
    source, within = _unchecked(y)

    def invert(held: Held) -> tuple[Held, ...]:
        known = _within(held, within)
        least = positive(known, ROOTS[root], WIDEST_OCTAVES)[0]
        value, cut, top = _below_one(held, known, least, root)
        known = _within(cut, within)
        least, high, usual = _held_ends(known.facts)
        outside: Literal["none", "low"] = "none" if within is None else "low"
        factor, mantissa = linalg.inverse_parts(
            value, low=least / top, high=high / top, root=root, outside=outside
        )
        least, high, usual = (_root(one, root) for one in (least, high, usual))
        facts = Facts.of(linalg.MANTISSA_LOW * (1 - SPARE) / high, (1 + SPARE) / least, usual=1 / usual)
        return as_held(factor, 0, facts, worth=1 / _root(top, root)), *_parts(mantissa), known

    factor, *parts, held = each(source, invert)
    facts = held.held.facts
    least, _, usual = _held_ends(facts)
    low, high = max(float(facts.low.max()), least * SPARE), float(facts.high.max())
    off = _off(facts, least, root)
    return _Inverse(factor, tuple(parts), _root(low, root), _root(high, root), _root(usual, root), off)


def _unchecked(y: Number) -> tuple[Number, tuple[float, float] | None]:
    """Numbers before what breaks a bound was put inside, and that bound, if there is room for them.

    So a bound is checked beside what is done with numbers, and not before.
    """
    if y.unchecked is None:
        return y, None
    bounds = y.bounds
    try:
        _ = y.unchecked.held  # which is made now
    except PlanError:
        return y, None
    return y.unchecked, bounds


def _within(held: Held, bounds: tuple[float, float] | None) -> Held:
    """Numbers with facts that hold only where bounds do."""
    return held if bounds is None else Held(held.value, held.unit, held.facts.within(*bounds))


def _parts(mantissa: linalg.Mantissa) -> tuple[Held, Held, Held]:
    """Parts of mantissas as numbers, which are exact by definition."""
    line, square, rest = (
        as_held(value, 0, Facts.of(-most, most))
        for value, most in (
            (mantissa.line, linalg.MANTISSA_MOST),
            (mantissa.square, linalg.SQUARE_MOST),
            (mantissa.rest, linalg.REST_MOST),
        )
    )
    return line, square, rest


def _below_one(held: Held, known: Held, least: float, root: int) -> tuple[Value, Held, float]:
    """Numbers over what no `known` one exceeds, as a value for `inverse_parts`; as they are held for it.

    Also returns what they are divided by, their unit times a power of two: so none but digits that are too
    many are cut. `least` is the least of them, or that which counts.
    """
    bits = bits_of(known.most * (1 + SPARE))
    top = float(held.unit[0]) * 2.0**bits
    if bits > linalg.most_inverse_places(root):
        cut = bits - linalg.inverse_places(1 - math.frexp(least / top)[1], root)
        bits, held = bits - cut, held.cut(cut)
    return held.value.shifted(bits), held, top


def _held_ends(facts: Facts) -> tuple[float, float, float]:
    """The least that may be held, the largest, and what is usual."""
    least = np.maximum(facts.low - facts.error, facts.low * (1 - np.minimum(facts.relative, 1.0)))
    ends = float(least.max()), float(facts.held.max())
    return *ends, min(max(float(facts.usual.max()), ends[0]), ends[1])


def _root(number: float, root: int) -> float:
    return math.sqrt(number) if root == 2 else number


def _off(facts: Facts, least: float, root: int) -> float:
    """By how much of itself one over what is held, `least` or more, differs from one over true numbers."""
    share, relative = float(facts.error.max()) / least, float(facts.relative.max())
    if relative < 1:
        share = min(share, relative / (1 - relative))
    # |sqrt(1 + d) - 1| <= |d| / (1 + sqrt(1 - |d|)) if |d| is at most one, and no more than |d| anyway.
    return share if root == 1 else share / (1 + math.sqrt(max(1 - share, 0.0)))


def quotient(x: Number, y: Number) -> Number:
    """`x / y`; of a y that `sqrt` has made, by its inverse root at once."""
    root, y = (1, y) if y.root_of is None else (2, y.root_of)
    if root == 1 and y.bounds[1] < 0:
        return -quotient(x, -y)
    inverse = _inverse(y, root)
    a, factor, shape, flipped = beside(x, inverse.factor)
    once = made_of((x, y), arithmetic.fine_multiple(a, factor, room=ONCE_BITS), shape, flipped)
    made = inverse.times(once, (x, y))
    return made_of((x, y), _known(made.held, a.facts, inverse), shape, flipped)


def reciprocal(y: Number) -> Number:
    """`1 / y`; of a y that `sqrt` has made, its inverse root."""
    root, y = (1, y) if y.root_of is None else (2, y.root_of)
    if root == 1 and y.bounds[1] < 0:
        return -reciprocal(-y)
    inverse = _inverse(y, root)
    made = inverse.times(inverse.factor, (y,)).held
    one = Facts.of(1.0, 1.0, usual=1.0)
    if y.ndim == 2:
        one = one.columns(lambda part: part[None])
    return y.like(_known(made, one, inverse))


def _known(made: Held, x: Facts, inverse: _Inverse) -> Held:
    """What is made of x and one over what is held, with facts of the true quotient."""
    ends = [end / by for end in (x.low, x.high) for by in (inverse.low, inverse.high)]
    low = np.minimum(np.minimum(*ends[:2]), np.minimum(*ends[2:]))
    high = np.maximum(np.maximum(*ends[:2]), np.maximum(*ends[2:]))
    relative = np.where(np.isfinite(made.facts.relative), made.facts.relative, 0.0)
    facts = Facts.of(
        low, high,
        error=made.facts.error + np.maximum(np.abs(low), np.abs(high)) * inverse.off,
        relative=made.facts.relative + inverse.off * (1 + relative),
        usual=x.usual / inverse.usual,
        rms=x.rms / inverse.low,
        size=x.size / inverse.low,
    )  # fmt: skip
    return Held.of(made.value, made.unit, facts)


def sqrt(x: Number) -> Number:
    """The root of numbers of zero or more; made when it is read, unless something is divided by it."""
    facts = x.held.facts
    low, high = float(facts.low.min()), float(facts.held.max())
    if low < -2 * float(facts.error.max()):  # below zero by more than it may be off
        raise PlanError(
            f"{line()}: the root of numbers {told(facts)}, which may be negative; say a bound, as "
            f"in x.within(0, {max(high, 1e-300):.3g})"
        )
    made = x.like(lambda: each(x, _made_root)[0].held)
    made.root_of = x
    return made


def _made_root(held: Held) -> tuple[Held]:
    """A number times the factor of its inverse root, and the mantissa of that."""
    least, high, _ = _held_ends(held.facts)
    clear = least >= high * 2.0 ** (1 - WIDEST_OCTAVES)
    least = least if clear else high * 2.0**-WIDEST_OCTAVES
    value, held, top = _below_one(held, held, least, 2)
    floor, (held_least, high, usual) = least, _held_ends(held.facts)
    least = held_least if clear else floor
    outside: Literal["none", "zero"] = "none" if clear else "zero"
    factor, mantissa = linalg.inverse_parts(value, low=least / top, high=high / top, root=2, outside=outside)
    # Of a number over `top`, its root times that of what lies between MANTISSA_LOW and one.
    ends = 0.9 * math.sqrt(least) if clear else 0.0, math.sqrt(high) * (1 + SPARE)
    product = value.times(factor, magnitude=1.0 + SPARE)
    once = as_held(product, 0, Facts.of(*ends, usual=math.sqrt(usual)), worth=math.sqrt(top))
    made = _times_parts(once, mantissa.line, mantissa.square, mantissa.rest)
    low, most = (math.sqrt(max(float(one), 0.0)) for one in (held.facts.low.max(), held.facts.high.max()))
    error, relative = float(held.facts.error.max()), math.inf
    # |sqrt(x) - sqrt(y)| is at most |x - y| / sqrt(y), and at most the root of |x - y|.
    given = min(math.sqrt(error), error / low if low > 0 else math.inf)
    if clear:
        off = _off(held.facts, least, 2)
        cut = float(made.facts.relative.max())
        relative = cut + off * (1 + cut)
    else:
        given += math.sqrt(floor)
    facts = Facts.of(low, most, error=made.facts.error + given, relative=relative, usual=math.sqrt(usual))
    return (Held.of(made.value, made.unit, facts),)
