"""Numerical building blocks on secret numbers: means, reciprocals, roots, inverses.

All of them are fixed sequences of products and truncations: what they do never depends on secret values. They
are arranged for few rounds. Reciprocals and roots come from a table and a cubic: comparisons with powers of
2^(1/4), all at once, bring a value into a range so narrow that a cubic is exact enough. The inverse of a
matrix is built from powers of its residual, so that a step takes one product's rounds and not two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError
from tercet.plans import Value, concatenate

Reals = npt.NDArray[np.float64]

WORK_BITS = 26
"""Fractional bits inside reciprocals and roots, whose terms stay below 8."""
BUCKETS = 4
"""Ranges in an octave: the ends of each differ by a factor of 2^(1/4)."""
FACTOR_BITS = 20
QUOTIENT_BITS = 28
"""Fractional bits of a reciprocal in a quotient, less the octaves that divisors span."""
QUOTIENT_STEPS = 4
"""Units by which a quotient may be off before it is corrected: what truncations err by, and one."""
TRUNCATION_BITS = 62
"""A number that is truncated has fewer bits."""


def halvings(count: int) -> int:
    """The number of halvings that brings `count` to one or less."""
    return max(0, math.ceil(math.log2(count))) if count > 0 else 0


def length(x: Value) -> int:
    """The size of a value's first axis. Raises PlanError if a join has yet to tell it."""
    size = x.shape[0]
    if not isinstance(size, int):
        raise PlanError(
            f"the first axis of a value of shape {x.shape} has no known size; take a vector of parameters"
        )
    return size


def settled(x: Value) -> Value:
    """A value that several nodes read: where it is a product, it gets its round once, and not for each."""
    return x.builder.apply("reduce", x) if x.type.product else x


def mean(total: Value, count: int, *, scale: int) -> Value:
    """`total / count` for a public count, at `scale`, within two units in the last place.

    One truncation (2 rounds) if the total leaves room for the factor, else two.
    """
    shift = halvings(count)
    halved = total.shifted(shift)
    if count == 1 << shift:
        return halved.rescale(scale)
    factor = total.builder.constant(2.0**shift / count, scale=FACTOR_BITS)
    if halved.type.limit * 2.0 ** (FACTOR_BITS + 1) >= 2.0**TRUNCATION_BITS:
        halved = halved.rescale(scale)
    return (halved * factor).rescale(scale)


# -- reciprocals and roots -----------------------------------------------------------------------------------


def _cubic(function: Callable[[Reals], Reals], least: float = 2.0 ** (-1 / BUCKETS)) -> list[float]:
    """Coefficients of the cubic that is nearest to a function, relative to it, between `least` and 1."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    u = (1 + least) / 2 + (1 - least) / 2 * nodes
    powers = np.vander(u, 4, increasing=True) / function(u)[:, None]
    found: list[float] = np.linalg.lstsq(powers, np.ones(64), rcond=None)[0].tolist()
    return found


RECIPROCAL = _cubic(lambda u: 1 / u)
"""Errs by 7.3e-6 of the value."""
INVERSE_ROOT = _cubic(lambda u: 1 / np.sqrt(u))
"""Errs by 2.0e-6 of the value."""


def _evaluate(cubic: Sequence[float], u: Value) -> Value:
    """`(c0 + c1 u) + u^2 (c2 + c3 u)` for `0 <= u <= 1` of up to 30 bits, at WORK_BITS. 4 rounds."""
    wide = u.scale + FACTOR_BITS
    low, high = (u.builder.constant(c, scale=wide) for c in cubic[::2])
    slope, bend = (u.builder.constant(c, scale=FACTOR_BITS) for c in cubic[1::2])
    square = (u * u).rescale(WORK_BITS)
    inner = (u * bend + high).rescale(WORK_BITS)
    total = square.times(inner, magnitude=8.0) + (u * slope + low).at_scale(2 * WORK_BITS)
    return total.bounded(8.0, "a cubic near 1/u or its root").rescale(WORK_BITS)


def from_table(x: Value, ends: Reals, columns: Sequence[tuple[Reals, int]]) -> list[Value]:
    """For each column of a public table, the entry of the range in which x lies, of shape `(d,)`.

    Entry 0 is for `x < ends[0]`, entry i for `ends[i-1] <= x < ends[i]`, the last one for what is beyond. A
    column comes with its scale. One comparison of all elements with all ends at once, and a conversion of its
    bits.
    """
    builder, count = x.builder, length(x)
    flags = []
    at_once = max(1, builder.tile_rows // count)
    for some in np.split(ends, range(at_once, len(ends), at_once)):
        below = x.reshape(1, count) - builder.constant(some[:, None], scale=x.scale)
        bits = below.reshape(len(some) * count).is_negative().to_ring()
        flags.append(bits.reshape(len(some), count))
    found = []
    for entries, scale in columns:
        stored = np.rint(np.ldexp(entries, scale)) * 2.0**-scale
        steps = builder.constant((stored[:-1] - stored[1:])[:, None], scale=scale)
        chosen = (concatenate(flags) * steps).sum_columns() + builder.constant(float(stored[-1]), scale=scale)
        found.append(chosen.bounded(float(np.abs(stored).max()), "one of the entries"))
    return found


def _table_ends(low: int, high: int) -> tuple[Reals, Reals]:
    """Ends of the ranges from 2^low to 2^high, and what brings each range to between 2^(-1/4) and 1."""
    ends = np.exp2(np.arange(low * BUCKETS, high * BUCKETS + 1) / BUCKETS)
    return ends, np.concatenate([[0.0], 1 / ends[1:], [1 / ends[-1]]])


def reciprocal(x: Value, *, low: int, high: int, scale: int, margin: float = 0.0) -> Value:
    """`1 / x` of a vector with `2^low <= x < 2^high`, within 1e-5 of it, at `scale`; 0 for a smaller x.

    By a small `margin` of 2^low, x may be smaller than that.
    """
    ends, factors = _table_ends(low, high)
    ends[0] *= 1 - margin
    (factor,) = from_table(x, ends, [(factors, max(high, 0) + 8)])
    unit = x.times(factor, magnitude=1.1).rescale(WORK_BITS)
    return _evaluate(RECIPROCAL, unit).times(factor, magnitude=2.0 ** (1 - low)).rescale(scale)


def quotient(
    a: Value,
    b: Value,
    *,
    low: int,
    high: int,
    scale: int,
    magnitude: float,
    inside: Callable[[Value, float], Value] | None = None,
) -> Value:
    """`a / b` of vectors with `2^low <= b < 2^high`, to the nearest at `scale`, halves up; about 35 rounds.

    The nearest to the exact quotient of the stored integers, so equal fractions come out equal. `magnitude`
    promises a bound on the result, or `inside` checks it; b and the result have at most 30 bits. A reciprocal
    gives a first quotient, what it leaves of `a`, over b, is added, and comparisons of what is left then with
    odd multiples of b see by how many units that is still off.
    """
    builder, most = a.builder, math.ldexp(magnitude, scale)
    inverse = reciprocal(b.shifted(high), low=low - high, high=0, scale=QUOTIENT_BITS - (high - low))
    inverse = inverse.shifted(b.scale + high)  # one over the stored integer
    lift = scale + b.scale - a.scale
    top, bottom = a.shifted(-a.scale), b.shifted(-b.scale)
    bound = 1.01 * most + 1
    lifted = inverse.shifted(-lift)
    if inside is None:
        widest = math.ldexp(top.type.limit * lifted.type.limit, -lifted.scale)
        first = top.times(lifted, magnitude=min(bound, widest)).rescale(0).bounded(bound, "promised")
    else:
        first = inside((top * lifted).rescale(0), bound)
    largest = max(bottom.type.limit, 1.0) * 2.0 ** max(-lift, 0)
    dividend = top.times(builder.constant(2.0 ** max(lift, 0)), magnitude=bound * largest)
    divisor = settled(bottom * builder.constant(2.0 ** max(-lift, 0)))
    left = settled(dividend - divisor * first).bounded((most * 2.0**-13 + 4) * largest, "an error times b")
    short = max(0, low + b.scale + max(-lift, 0) - 3)  # cuts less than an eighth of b
    part = left.shifted(short).rescale(0).shifted(max(-lift, 0) - short)
    nearer = first + part.times(inverse, magnitude=most * 2.0**-12 + 4).rescale(0)
    twice = (dividend - divisor * nearer).bounded((QUOTIENT_STEPS + 1) * largest, "some units") * 2
    for step in range(1 - QUOTIENT_STEPS, QUOTIENT_STEPS + 1):
        nearer = nearer - (settled(twice) + divisor * (1 - 2 * step)).is_negative().to_ring()
    return (nearer + QUOTIENT_STEPS).bounded(most, "the nearest of the quotient").shifted(scale)


def inverse_sqrt(x: Value, *, low: int, high: int, scale: int, factor: float = 1.0) -> Value:
    """`factor / sqrt(x)` of a vector with `4^low <= x < 4^high`, within 3e-6 of it; 0 for a smaller x."""
    ends, factors = _table_ends(2 * low, 2 * high)
    scales = min(2 * max(high, 0) + FACTOR_BITS, 60 - x.scale), min(max(high, 0) + FACTOR_BITS, 34 + low)
    tables = [(factors, scales[0]), (np.sqrt(factors) * factor, scales[1])]
    shrink, root = from_table(x, ends, tables)
    unit = x.times(shrink, magnitude=1.1).rescale(WORK_BITS)
    return _evaluate(INVERSE_ROOT, unit).times(root, magnitude=factor * 2.0 ** (1 - low)).rescale(scale)


# -- inverses to as many digits, however small numbers are ---------------------------------------------------

INVERSE_STEPS = {1: (64, 76, 90, 107), 2: (64, 70, 76, 83, 91, 99, 108, 117)}
"""Factors of an octave, times 2^INVERSE_BITS, for each root: near to powers of 2^(1/4) and of its root."""
INVERSE_BITS = 6
MANTISSA_BITS = 30
"""Fractional bits of mantissas."""
MANTISSA_LOW = 0.83
"""They are one over, or over the root of, what lies between this and one."""
LOW_MARGIN = 2.0**-15
"""The least number may be smaller than 2^-octaves by so much of itself, as what is cut is."""
MANTISSA_MOST = 1.25
"""A bound on them, and on the line of their series."""
MANTISSA_ERROR = 2.0**-27
"""By how much of itself a mantissa may be off: the series, a truncation to its places, and smaller ones."""
WIDE_BITS, SHORT_BITS, SQUARE_BITS, REST_BITS = 32, 20, 34, 26
"""Fractional bits of what mantissas are the inverses of, of that where few will do, of squares, and of what
the series has beyond its line."""
MIDDLE = 117 / 128
"""The series is in powers of what that number is more than this."""
NEAR_MOST, SQUARE_MOST, REST_MOST = 0.0862, 0.0075, 1.5
SERIES_BITS = (30, 28, 24, 24, 24, 10, 10)
SERIES = {
    1: (1174691910, -321283278, 21968081, -24031941, 26294012, -1782, 1932),
    2: (1123083182, -153584028, 7876104, -7180241, 6873668, -418, 417),
}
"""Coefficients of the powers, in units of their bits: they err by 1.4e-9 and 4e-10 of the value."""


def inverse_places(octaves: int, root: int) -> int:
    """Fractional bits that x has for `inverse_parts`, at most: 32 of the smallest one, as far as they fit."""
    return min(32 + octaves, most_inverse_places(root))


def most_inverse_places(root: int) -> int:
    """Fractional bits of an x that `inverse_parts` can do with."""
    return 60 - root * INVERSE_BITS


@attrs.frozen(eq=False)
class Mantissa:
    """Secret numbers from 1 to 1 / MANTISSA_LOW as `line + square * rest`, each within MANTISSA_ERROR of it.

    The line has 2 MANTISSA_BITS fractional bits, the others SQUARE_BITS and REST_BITS. A number times a
    mantissa may be made of these parts, in 2 rounds less than of the `whole`: `x line + (x square) rest`.
    """

    line: Value
    square: Value
    rest: Value

    def whole(self) -> Value:
        """The numbers at MANTISSA_BITS. 2 rounds."""
        total = self.line + self.square.times(self.rest, magnitude=SQUARE_MOST * REST_MOST)
        return total.rescale(MANTISSA_BITS).bounded(1.01 / MANTISSA_LOW, "one over what is near one")


def inverse_parts(
    x: Value,
    *,
    low: float,
    high: float = 1.0,
    root: int = 1,
    outside: Literal["none", "zero", "low"] = "none",
) -> tuple[Value, Mantissa]:
    """`1 / x`, or `1 / sqrt(x)` for a `root` of 2, of a vector from `low` to `high`, in two factors.

    The first one has INVERSE_BITS fractional bits, is one or more, and exact by definition. The other, the
    mantissa, lies between 1 and 1 / MANTISSA_LOW, and is within MANTISSA_ERROR of itself, however small x is:
    so what is multiplied by the first before it is cut keeps its digits. `high` is at most one, and x has at
    most `most_inverse_places` fractional bits. `outside` says what may lie outside of these: "none"; for
    "zero", the first factor of an x below `low` is 0, and the mantissa is that of one; for "low", x may be
    any number, and is taken for `low` there. Comparisons, which are the normalisation of Catrina and Saxena
    (2010) by a table, and a series of degree 6 in 6 rounds.
    """
    octaves = 1 - math.frexp(low * (1 + LOW_MARGIN))[1]
    steps = np.array(INVERSE_STEPS[root]) * 2.0**-INVERSE_BITS
    factors = (2.0 ** np.arange(octaves + 1)[:, None] * steps).ravel()
    factors = factors[factors**root < 2.0**octaves][::-1]
    factors = factors[: 1 + np.count_nonzero(1 / factors**root < high)]
    ends = np.append(low, 1.0 / factors[:-1] ** root)
    # Numbers of so many places are below an end if they are below the next number that has these.
    ends = np.ldexp(np.ceil(np.ldexp(ends, x.scale)), -x.scale)
    entries, powers = (np.append(0.0, one) for one in (factors, factors**root))
    units = np.append(1.0, np.zeros(len(factors)))
    if outside == "low":
        ends = np.append(ends, np.ldexp(np.floor(np.ldexp(high, x.scale)) + 1, -x.scale))
        entries, powers, units = (np.append(one, one[0]) for one in (entries, powers, units))
        entries[[0, -1]], units = factors[0], units * low * factors[0] ** root
    columns = [(entries, INVERSE_BITS), (powers, root * INVERSE_BITS)]
    if outside != "none":
        columns += [(units, WIDE_BITS), (units, SHORT_BITS)]
    factor, power, *others = from_table(x, ends, columns)
    product = x.times(power, magnitude=1.1)

    def over_middle(bits: int) -> Value:
        unit = product.rescale(bits)
        if others:  # what is multiplied by 0 goes on as this, within the bounds of all that follows
            unit = unit + others[bits == SHORT_BITS]
        return (unit - MIDDLE).bounded(NEAR_MOST, "between MANTISSA_LOW and one")

    return factor, _series(over_middle(WIDE_BITS), over_middle(SHORT_BITS), root)


def _series(v: Value, short: Value, root: int) -> Mantissa:
    """`a0 + a1 v + v^2 (b0 + b1 v + v^2 (b2 + b3 v + b4 v^2))`, the last v of which are `short`.

    4 rounds.
    """
    numbers = [math.ldexp(one, -bits) for one, bits in zip(SERIES[root], SERIES_BITS, strict=True)]
    bits = dict(enumerate(SERIES_BITS))

    def times(x: Value, power: int) -> Value:
        return x * x.builder.constant(numbers[power], scale=bits[power])

    def plus(x: Value, power: int) -> Value:
        return x + x.builder.constant(numbers[power], scale=x.scale)

    why = "a square of what is near zero"
    square = (v * v).rescale(SQUARE_BITS).bounded(SQUARE_MOST, why)
    small = (short * short).rescale(SHORT_BITS).bounded(SQUARE_MOST, why)
    last = plus(times(short, 5) + times(small, 6), 4)
    nearest = plus(times(v, 3), 2).rescale(REST_BITS)
    rest = nearest + square.times(last, magnitude=SQUARE_MOST * 2).rescale(REST_BITS)
    line = plus(times(v, 1), 0)
    return Mantissa(
        line.bounded(MANTISSA_MOST, "a line near one"), square, rest.bounded(REST_MOST, "a series near one")
    )


LOG_OVER = _cubic(lambda u: np.log(u) / (u - 1))
"""Errs by 4e-6 of the value."""


def logarithm(x: Value, *, low: int, scale: int) -> Value:
    """`log x` of a vector with `2^low <= x <= 1`, within 5e-6 of `min(1 - x, 1/5)`; `log 2^low` for less.

    With the factor f that brings x to u = x f between 2^(-1/4) and 1, it is `(u - 1) r(u) - log f`, where the
    cubic r is nearest to `log u / (u - 1)`: so what is near one errs least.
    """
    ends = np.exp2(np.arange(low * BUCKETS, 0) / BUCKETS)
    factors = np.append(np.exp2(-np.arange(low * BUCKETS, 0) / BUCKETS), 1.0)
    scales = min(WORK_BITS, 60 - x.scale + low), WORK_BITS
    stored = np.rint(np.ldexp(factors, scales[0])) * 2.0 ** -scales[0]
    factor, shift = from_table(x, ends, [(stored, scales[0]), (np.log(stored), scales[1])])
    unit = x.times(factor, magnitude=1.1).rescale(WORK_BITS)
    below = (unit - 1).bounded(1.1, "a unit is at most one")
    return (below.times(_evaluate(LOG_OVER, unit), magnitude=2.0).rescale(WORK_BITS) - shift).rescale(scale)


def tabulated(x: Value, function: Callable[[float], float], knots: Reals, *, scale: int) -> Value:
    """A public function of a vector, linear between knots and constant beyond them, at `scale`."""
    values = np.array([function(float(knot)) for knot in knots])
    slopes = np.concatenate([[0.0], np.diff(values) / np.diff(knots), [0.0]])
    starts = np.concatenate([[values[0]], values[:-1] - slopes[1:-1] * knots[:-1], [values[-1]]])
    start, slope = from_table(x, knots, [(starts, scale), (slopes, scale)])
    most = float(np.abs(values).max() + np.abs(starts).max()) + 1
    return (start + x.times(slope, magnitude=most).rescale(scale)).bounded(most, "between the knots' values")


# -- the inverse of a matrix ---------------------------------------------------------------------------------

STEP_BITS = 4
"""Fractional bits of the factors of steps."""
RESIDUAL_BITS = 24
"""Fractional bits of residuals, and of the solution."""
WIDEST_RESIDUAL = 2.0**9
"""A bound on entries of `I - H V`: its eigenvalues are below one, but it is not symmetric."""
WARM_FACTORS = (21 / 16, 1.0, 1.0, 1.0)
"""From half the inverse of a nearby matrix: right at once where that has not changed, safe where it grew less
than fourfold."""


def schulz_factors(least: float) -> list[float]:
    """Factors for `refine_inverse`, if the eigenvalues of `H V` lie between `least` and one.

    Recentring the spectrum after each step makes its small end grow by four, where the plain iteration
    doubles it (Pan and Schreiber 1991). The large end stays clear of 2, beyond which the iteration diverges.
    """
    factors, low, high = [], least, 1.0
    while low < 0.8:
        low = min(low * (2 - low), high * (2 - high))
        wanted = math.floor(2 / (1 + low) * 2**STEP_BITS) / 2**STEP_BITS
        factors.append(min(wanted, 2 - 2.0**-STEP_BITS))
        low, high = factors[-1] * low, factors[-1]
    return [*factors, 1.0]


def scaled_identity(matrix: Value, factor: float, *, scale: int) -> Value:
    """A public multiple of the identity, as a sharing like `matrix`."""
    entries = matrix.builder.constant(factor * np.eye(length(matrix)), scale=scale)
    return (matrix * 0).shifted(scale - matrix.scale) + entries


def refine_inverse(
    matrix: Value, start: Value, vector: Value, *, factors: Sequence[float], bound: float, scale: int
) -> tuple[Value, Value]:
    """The inverse of a symmetric positive definite matrix H `(d, d)`, and its product with a vector `(d,)`.

    Newton's and Schulz's iteration `V <- f V (2 I - H V)` in product form: with R = I - H V, the next V is
    f V (I + R) and its residual (1 - f) I + f R^2, so that both are made at once: 2 rounds for the first
    residual and 2 for each of `factors`. Converges where the eigenvalues of `H start` lie between 0 and 2.
    `bound` promises a bound on the entries of every V. The product has RESIDUAL_BITS and follows the same
    polynomial, so it is ready when V is.
    """
    size, builder = length(matrix), matrix.builder
    identity = builder.constant(np.eye(size), scale=RESIDUAL_BITS)
    inverse = start
    solution = (
        start.matmul(vector.column(), magnitude=WIDEST_RESIDUAL).rescale(RESIDUAL_BITS).reshape(1, size)
    )
    residual = identity - matrix.matmul(inverse, magnitude=WIDEST_RESIDUAL).rescale(RESIDUAL_BITS)
    for number, step in enumerate(factors):
        factor = builder.constant(step, scale=STEP_BITS)
        grown = residual + identity
        inverse = (inverse.matmul(grown, magnitude=bound) * factor).rescale(scale)
        inverse = inverse.bounded(bound, "the matrix has no smaller eigenvalue")
        solution = (solution.matmul(grown, magnitude=WIDEST_RESIDUAL) * factor).rescale(RESIDUAL_BITS)
        if number + 1 < len(factors):
            squared = (residual.matmul(residual, magnitude=WIDEST_RESIDUAL) * factor).rescale(RESIDUAL_BITS)
            residual = squared + builder.constant((1 - step) * np.eye(size), scale=RESIDUAL_BITS)
    return inverse, solution.reshape(size)


PIVOT_BITS = 24
"""Fractional bits of a matrix that is eliminated, and of pivots."""


def dependent(matrix: Value, order: Sequence[int], *, low: int) -> Value:
    """Which rows of a symmetric positive matrix `(d, d)` follow from those before them, as ones `(d,)`.

    Gaussian elimination in the public `order`: a row whose pivot, what is left of its diagonal entry without
    the rows before it, is below 2^low is marked and passed over, by a factor of zero. Entries of the matrix
    are at most one. About 24 rounds a row.
    """
    size, left = length(matrix), matrix.rescale(PIVOT_BITS)
    found: dict[int, Value] = {}
    for place in order:
        row = left.select([place])
        pivot = row.squeeze().slice(place, place + 1)
        found[place] = (pivot - 2.0**low).is_negative().to_ring()
        inverse = reciprocal(pivot, low=low, high=1, scale=20)
        # By Cauchy and Schwarz, no entry exceeds the root of the product of both pivots.
        part = row.times(inverse.reshape(1, 1), magnitude=2.0 ** (1 - low / 2)).rescale(PIVOT_BITS)
        taken = part.reshape(size, 1).times(row, magnitude=1.1).rescale(PIVOT_BITS)
        left = (left - taken).bounded(1.1, "what is left of a positive matrix")
    return concatenate([found[place].reshape(1, 1) for place in range(size)]).reshape(size)
