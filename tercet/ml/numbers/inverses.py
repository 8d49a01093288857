"""Reciprocals, quotients, roots and their inverses, to as many digits however small numbers are.

A number y whose facts keep it clear of zero is brought to between 0.83 and 1 by a secret factor, which is
exact by definition; one over that, the mantissa, is computed to 27 bits (`tercet.ml.linalg.inverse_parts`).
A quotient x / y is x times the factor, before anything is cut, times the mantissa: so its digits are those
of x, however much smaller than its bound y is. Roots are made when they are read: `x / sqrt(y)` takes the
inverse root at once, whose factor is the root of that of y.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.ml import linalg
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.alignment import beside, made_of
from tercet.ml.numbers.facts import Facts
from tercet.ml.numbers.number import Number
from tercet.ml.numbers.ring import Held, bits_of, told
from tercet.ml.numbers.series import as_held, below_one, each, positive
from tercet.ml.numbers.source import line

WIDEST_OCTAVES = 30
"""Ranges of what is divided by have ends that differ by 2^30 at most; of roots, what is so small is zero."""
LOW_MARGIN = 2.0**-16
"""A cut to the places of the table makes the least number smaller by no more than that of it."""
SPARE = 2.0**-20
"""Bounds that are found in floating point are wider by so much of themselves."""
ROOTS = {1: "the reciprocal", 2: "the inverse root"}
MANTISSA = Facts.of(
    1.0, 1 / linalg.MANTISSA_LOW,
    error=linalg.MANTISSA_ERROR / linalg.MANTISSA_LOW, relative=linalg.MANTISSA_ERROR, usual=1.0,
)  # fmt: skip


@attrs.frozen(eq=False)
class _Inverse:
    """One over numbers, or over their roots, as a factor that is exact times a mantissa.

    What is divided by lies from `low` to `high` truly; as it is held it differs from that so little that
    what is divided by it is off by at most `off` of itself.
    """

    factor: Number
    mantissa: Number
    low: float
    high: float
    usual: float
    off: float


def _inverse(y: Number, root: int) -> _Inverse:
    """Of numbers above zero. Raises PlanError for others."""

    def invert(held: Held) -> tuple[Held, Held, Held]:
        low, _, top, _ = positive(held, ROOTS[root], WIDEST_OCTAVES)
        top = root * -(-top // root)
        octaves = top - math.frexp(low)[1] + 1
        value, held = below_one(held, top, linalg.inverse_places(octaves, root))
        factor, mantissa = linalg.inverse_parts(value, octaves=octaves, root=root, margin=LOW_MARGIN)
        least, high, usual = (_root(one, root) for one in _held_ends(held.facts))
        ends = linalg.MANTISSA_LOW * (1 - SPARE) / high, (1 + SPARE) / least
        facts = Facts.of(*ends, usual=1 / usual)
        return as_held(factor, -top // root, facts), as_held(mantissa, 0, MANTISSA), held

    factor, mantissa, held = each(y, invert)
    facts = held.held.facts
    least, _, usual = _held_ends(facts)
    low, high = max(float(facts.low.max()), least * SPARE), float(facts.high.max())
    off = _off(facts, least, root)
    return _Inverse(factor, mantissa, _root(low, root), _root(high, root), _root(usual, root), off)


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
    once = made_of((x, y), arithmetic.fine_multiple(a, factor), shape, flipped)
    b, mantissa, shape, flipped = beside(once, inverse.mantissa)
    return made_of((x, y), _known(arithmetic.fine_multiple(b, mantissa), a.facts, inverse), shape, flipped)


def reciprocal(y: Number) -> Number:
    """`1 / y`; of a y that `sqrt` has made, its inverse root."""
    root, y = (1, y) if y.root_of is None else (2, y.root_of)
    if root == 1 and y.bounds[1] < 0:
        return -reciprocal(-y)
    inverse = _inverse(y, root)
    made = arithmetic.fine_multiple(inverse.factor.held, inverse.mantissa.held)
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
    half = -(-bits_of(high * (1 + SPARE)) // 2)
    octaves = min(2 * half - math.frexp(least)[1] + 1, WIDEST_OCTAVES) if least > 0 else WIDEST_OCTAVES
    value, held = below_one(held, 2 * half, linalg.inverse_places(octaves, 2))
    floor = 4.0**half * 2.0**-octaves
    least, high, usual = _held_ends(held.facts)
    clear = least >= floor * (1 - LOW_MARGIN / 2)
    factor, mantissa = linalg.inverse_parts(
        value, octaves=octaves, root=2, floor=not clear, margin=LOW_MARGIN
    )
    # Of a number over 4^half, its root times that of what lies between MANTISSA_LOW and one.
    ends = 0.9 * math.sqrt(least) if clear else 0.0, math.sqrt(high) * (1 + SPARE)
    product = value.times(factor, magnitude=1.0 + SPARE)
    once = as_held(product, half, Facts.of(*ends, usual=math.sqrt(usual)))
    made = arithmetic.fine_multiple(once, as_held(mantissa, 0, MANTISSA))
    low, top = (math.sqrt(max(float(one), 0.0)) for one in (held.facts.low.max(), held.facts.high.max()))
    error, relative = float(held.facts.error.max()), math.inf
    # |sqrt(x) - sqrt(y)| is at most |x - y| / sqrt(y), and at most the root of |x - y|.
    given = min(math.sqrt(error), error / low if low > 0 else math.inf)
    if clear:
        off = _off(held.facts, least, 2)
        cut = float(made.facts.relative.max())
        relative = cut + off * (1 + cut)
    else:
        given += math.sqrt(floor)
    facts = Facts.of(low, top, error=made.facts.error + given, relative=relative, usual=math.sqrt(usual))
    return (Held.of(made.value, made.unit, facts),)
