"""Functions of numbers that are no polynomials: logarithms, exponentials, the sigmoid.

Each is computed on a public range, which facts give, or whoever writes the formula. Logarithms come from a
table and a cubic (`tercet.ml.linalg`), on numbers that were brought below one by a power of two; inverses,
which do as well, have a module of their own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from tercet.errors import PlanError
from tercet.ml import linalg
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.facts import Facts, Reals
from tercet.ml.numbers.functions import clip
from tercet.ml.numbers.number import Number
from tercet.ml.numbers.ring import Held, bits_of, told
from tercet.ml.numbers.source import line
from tercet.plans import Value, concatenate, sigmoid

WIDEST_LOG_OCTAVES = 14
"""Ranges of logarithms have ends that differ by 2^14 at most."""
SIGMOIDS = ((8.0, 1e-6), (12.0, 1e-6), (24.0, 1e-6), (56.0, 1e-6))
"""Bounds and errors of the series for the sigmoid that are at hand."""
FAR, FAR_ERROR = 24.0, 1e-10
DEALT_BITS, COEFFICIENT_BITS = 24, 24
WIDEST_EXPONENT = 20.0
"""Exponentials of what is so much below the bound are zero: they are below 2^-28 of the largest."""
KNOT = 0.5


def each(x: Number, function: Callable[[Held], tuple[Held, ...]]) -> list[Number]:
    """A function of vectors that gives some, applied to a number of any shape."""
    held = x.held
    for axis in range(len(held.value.shape)):
        held = arithmetic.level(held, axis - len(held.value.shape))
    shape = held.value.shape
    facts = held.facts
    flat = Facts.of(
        facts.low.min(), facts.high.max(),
        error=facts.error.max(), usual=facts.usual.max(), relative=facts.relative.max(),
    )  # fmt: skip
    unit = held.unit.reshape(-1)[:1]
    if len(shape) == 1:
        return [x.like(made) for made in function(Held(held.value, unit, flat))]
    if x.size <= held.builder.tile_rows:
        found = function(Held(held.value.reshape(x.size), unit, flat))
        values = [made.value.reshape(*shape) for made in found]
    else:
        rows = [
            function(Held(held.value.select([row]).squeeze(), unit, flat)) for row in range(int(shape[0]))
        ]
        found = rows[0]
        values = [
            concatenate([one.value.reshape(1, *one.value.shape) for one in made])
            for made in zip(*rows, strict=True)
        ]
    lift: Callable[[Reals], Reals] = lambda one: one[None]  # noqa: E731
    return [
        x.like(Held(value, lift(made.unit), made.facts.columns(lift)))
        for value, made in zip(values, found, strict=True)
    ]


def below_one(x: Held, octaves: int, places: int) -> tuple[Value, Held]:
    """Numbers over 2^octaves as a value of so many fractional bits, and as they are held for it."""
    held = x.at(np.array([2.0 ** (octaves - places)]))
    return held.value.shifted(places), held


def as_held(value: Value, octaves: int, facts: Facts, *, worth: float = 1.0) -> Held:
    """A value of some scale, times 2^octaves and what one is `worth`, as a held number."""
    return Held.of(value.shifted(-value.scale), worth * 2.0 ** (octaves - value.scale), facts)


def positive(x: Held, what: str, widest: int) -> tuple[float, float, int, int]:
    """Ends of a range above zero, the octave above it, and how many octaves it is below that."""
    facts = x.facts
    nearest = np.maximum(facts.low - facts.error, facts.low * (1 - np.minimum(facts.relative, 1.0)))
    low, high = float(nearest.min()), float(facts.held.max())
    if low <= 0:
        off = float(facts.error.max())
        told_off = f", known to {off:.3g}" if off > 0 else ""
        raise PlanError(
            f"{line()}: {what} of numbers {told(facts)}{told_off}, which may be zero or less; say a bound "
            f"above zero, as in x.within({max(high / 2**10, 4 * off):.3g}, {max(high, 8 * off):.3g})"
        )
    top = bits_of(high * (1 + 2.0**-20))
    octaves = top - math.frexp(low)[1] + 1
    if octaves > widest:
        raise PlanError(
            f"{line()}: {what} of numbers {told(x.facts)}; the ends of the range may differ by "
            f"2^{widest} at most, so say a narrower one, as in "
            f"x.within({high / 2 ** (widest - 2):.3g}, {high:.3g})"
        )
    return low, high, top, octaves


def log(x: Number) -> Number:
    """The natural logarithm of numbers above zero, within 2e-6. About 20 rounds."""

    def logarithm(held: Held) -> tuple[Held]:
        low, high, top, octaves = positive(held, "the logarithm", WIDEST_LOG_OCTAVES)
        value, held = below_one(held, top, min(26 + octaves, 51 - octaves))
        made = linalg.logarithm(value, low=-octaves, scale=linalg.WORK_BITS)
        error = held.facts.error / low + 1e-6 + 2.0**-22
        ends = math.log(low) - top * math.log(2), math.log(high) - top * math.log(2)
        found = as_held(made, 0, Facts.of(*ends, error=error, usual=1.0))
        return (arithmetic.add_public(found, np.array([top * math.log(2)])),)

    return each(x, logarithm)[0]


@functools.cache
def _exponential() -> list[float]:
    """Coefficients of the polynomial of degree four that is nearest to exp(-z) between 0 and a knot."""
    nodes = KNOT * (1 + np.cos(np.pi * (np.arange(64) + 0.5) / 64)) / 2
    found = np.linalg.lstsq(
        np.vander(nodes, 5, increasing=True) * np.exp(nodes)[:, None], np.ones(64), rcond=None
    )[0]
    return [round(one * 2.0**24) * 2.0**-24 for one in found.tolist()]


def exp(x: Number) -> Number:
    """The exponential, within 1.1e-6 of its bound; zero for what is 20 below that of x. 30 rounds."""

    def exponential(held: Held) -> tuple[Held]:
        low, high = (
            float((held.facts.low - held.facts.error).min()),
            float((held.facts.high + held.facts.error).max()),
        )
        if high > 300:
            raise PlanError(f"{line()}: the exponential of numbers {told(held.facts)}; say a bound below 300")
        width = min(high - low, WIDEST_EXPONENT)
        turned = arithmetic.add_public(arithmetic.scale(held, np.array([-1.0])), np.array([high]))
        span = max(bits_of(high - low), 0)
        turned = turned.at(np.array([2.0 ** -min(30, 58 - span)]))
        value = turned.value.shifted(min(30, 58 - span))
        ends = np.arange(1, math.ceil(width / KNOT) + 1) * KNOT
        starts = np.append(ends - KNOT, 0.0)
        sizes = np.append(
            np.exp(KNOT - ends), 0.0 if high - low > WIDEST_EXPONENT else math.exp(-float(ends[-1]))
        )
        if high - low <= WIDEST_EXPONENT:
            starts[-1] = ends[-1]
        beyond = np.append(np.zeros(len(ends)), float(high - low > WIDEST_EXPONENT))
        size, start, far = linalg.from_table(
            value, np.asarray(ends, dtype=np.float64), [(sizes, 30), (starts, 1), (beyond, 0)]
        )
        stored = as_held(size, 0, Facts.of(0.0, 1.0, error=2.0**-31, usual=math.exp(-width / 2)))
        left = arithmetic.add(turned, as_held(start, 0, Facts.of(0.0, max(starts), usual=1.0)), -1)
        known = Facts.of(0.0, KNOT, error=turned.facts.error, usual=KNOT)
        if beyond[-1]:
            near = arithmetic.add_public(
                arithmetic.scale(as_held(far, 0, Facts.of(0.0, 1.0, usual=1.0)), np.array([-1.0])),
                np.ones(1),
            )
            left = arithmetic.multiply(left, near)
        left = Held.of(left.value, left.unit, known)
        *lower, made_last = _exponential()
        made = arithmetic.scale(left, np.array([made_last]))
        for place, coefficient in enumerate(reversed(lower)):
            made = arithmetic.add_public(made, np.array([coefficient]))
            if place < len(lower) - 1:
                made = arithmetic.multiply(made, left)
        made = arithmetic.multiply(made, stored)
        error = made.facts.error + 1e-6 + (2.0**-28 if beyond[-1] else 0.0)
        facts = Facts.of(math.exp(low - high), 1.0, error=error, usual=stored.facts.usual)
        mantissa, exponent = math.frexp(math.exp(high))  # so many bits are the same on every machine
        factor = math.ldexp(round(mantissa * 2.0**40), exponent - 40)
        return (Held.of(made.value, made.unit, facts).worth(factor),)

    return each(x, exponential)[0]


def logistic(x: Number) -> Number:
    """`1 / (1 + exp(-x))` within 4e-6. 1 or 2 rounds; about 12 more where x may be beyond all series.

    Then numbers beyond 24 are put there, where it differs from one by 4e-11.
    """
    reach = float(x.held.facts.held.max(initial=0.0))
    known = next((one for one in SIGMOIDS if reach <= one[0]), None)
    if known is None:  # however far true numbers may be from what is held, that is not beyond FAR then
        x, known = clip(x, -FAR, FAR), SIGMOIDS[-1]
    series = sigmoid(*known)

    def apply(held: Held) -> tuple[Held]:
        finest = math.frexp(float(held.unit[0]))
        power = finest[0] == 0.5 and 12 <= 1 - finest[1] < 62 - series.period_log2
        held = held if power else held.at(np.array([2.0**-24]))
        scale = 1 - math.frexp(float(held.unit[0]))[1]
        (made,) = held.value.shifted(scale).fourier(
            series, dealt_bits=DEALT_BITS, coefficient_bits=COEFFICIENT_BITS
        )
        rounding = series.rounding(DEALT_BITS, COEFFICIENT_BITS)
        low, high = (1 / (1 + math.exp(-float(one))) for one in (held.facts.low.min(), held.facts.high.max()))
        error = series.error + rounding + FAR_ERROR + np.minimum(held.facts.error / 4, 1.0)
        return (as_held(made, 0, Facts.of(low, high, error=error, usual=0.5)),)

    return each(x, apply)[0]
