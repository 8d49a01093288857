"""Sums and products of held numbers, of one shape and orientation, by the fewest cuts that are proved to do.

Arrays have rows along their last axis, as values of plans do. A sum of products over rows is made in one
step. Where the range of its factors would leave it too few digits, and they spread far less than that, it
is made of centred factors: `sum x y = sum (x - m)(y - k) + k sum (x - m) + m sum (y - k) + n m k` holds
for any m and k, so these are the means as they are held, and nothing is lost by their rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tercet.errors import PlanError
from tercet.ml.numbers.facts import Facts, Reals
from tercet.ml.numbers.ring import (
    FINE_BITS,
    ROOM_BITS,
    Held,
    bits_of,
    factors,
    rounded_up,
    together,
)
from tercet.ml.numbers.source import line
from tercet.plans import Value
from tercet.plans.interactive_kinds import TRUNCATION_ERROR

TRIMMED_BITS = 40
"""Bits of numbers that are centred, or more if these are needed for what is usual."""
FINE_MULTIPLE_BITS = 30
CUTTABLE = 2.0**62
"""Sums of what fills all the room may be larger than that, but no larger than what can be cut."""
ALIKE = 2.0**-50
"""Units that are found in floating point are alike to so much of themselves."""
WORTH_BITS = 3
"""Factors are centred where that leaves so many bits more at least."""


def add(x: Held, y: Held, sign: int = 1) -> Held:
    """Sum, or difference where `sign` is -1."""
    x, y = together(x, y)
    most = float(((x.facts.held + y.facts.held) / np.maximum(x.unit, y.unit)).max(initial=0.0))
    if rounded_up(most) > CUTTABLE:
        excess = bits_of(most) - ROOM_BITS
        x, y = x.coarser(excess), y.coarser(excess)
    made = x.value + y.value if sign > 0 else x.value - y.value
    return Held.of(made, np.maximum(x.unit, y.unit), x.facts.plus(y.facts.scaled(sign)))


def add_public(x: Held, numbers: Reals) -> Held:
    """Sum with public numbers; at a finer unit, where they have finer digits than that and there is room."""
    facts = Facts.of(*_ends(numbers))
    room = ROOM_BITS - bits_of(float(((x.facts.held + facts.reach) / x.unit).max(initial=0.0)))
    if room < 0:
        x, room = x.coarser(-room), 0
    usual = np.where(x.facts.usual > 0, x.facts.usual, 1.0)
    enough = max(0, bits_of(float((x.unit / (usual * 2.0**-FINE_BITS)).max())))
    bits = next(
        (k for k in range(min(room, enough)) if _whole(numbers / (x.unit * 2.0**-k))), min(room, enough)
    )
    x = x.finer(bits)
    units = np.rint(numbers / x.unit)
    off = np.abs(units * x.unit - numbers)
    made = x.value + x.builder.constant(units)
    return Held.of(made, x.unit, x.facts.plus(facts).off(off if off.size <= 1 else _largest(off)))


def _ends(numbers: Reals) -> tuple[Reals, Reals]:
    """The least and the largest of public numbers along the last axis, which stays."""
    return numbers.min(axis=-1, keepdims=True), numbers.max(axis=-1, keepdims=True)


def _largest(numbers: Reals) -> Reals:
    largest: Reals = numbers.max(axis=-1, keepdims=True)
    return largest


def _whole(numbers: Reals) -> bool:
    return bool((numbers == np.rint(numbers)).all())


def less_mean(x: Held, mean: Held) -> Held:
    """Numbers less their mean over the last axis: n times them less their sum, exactly, if that leaves room.

    That is, if sums of squares of what is left fit, so that nothing has to be cut that is as long as x.
    Else the mean is brought to a unit that is a little finer than that of x, and so it is where x has several
    rows, of which systems of equations may be made: these are solved at powers of two. 0 or 2 rounds.
    """
    n = x.builder.most(x.value.shape[-1])
    left, unit = x.facts.less_mean(n), mean.unit * np.ones_like(x.unit)
    fits = n * ((left.rms + left.error) / unit) ** 2 <= 2.0**ROOM_BITS
    single = len(x.value.shape) == 1
    if (
        single
        and (np.abs(x.unit / unit / n - 1) < ALIKE).all()
        and fits.all()
        and (n * x.ring < 2.0**ROOM_BITS).all()
    ):
        off = mean.facts.error + ALIKE * x.facts.reach
        made = x.times_integers(float(n), unit).value - mean.value
        return Held.of(made, unit, left.off(off))
    rest = add(x, mean, -1)
    return Held.of(rest.value, rest.unit, left.off(np.maximum(rest.facts.error - left.error, 0.0)))


def multiply(x: Held, y: Held, *, between: tuple[Any, Any] | None = None) -> Held:
    """Product, before its round; `between` are bounds of true products that are proved otherwise."""
    same = x.value.ref == y.value.ref

    def known(x: Held, y: Held) -> tuple[Facts, Reals, float]:
        facts, unit = x.facts.times(y.facts, same=same and bool((x.unit == y.unit).all())), x.unit * y.unit
        facts = facts if between is None else facts.within(*between)
        return facts, unit, float((facts.held / unit).max(initial=0.0))

    x, y = factors(x, y, known(x, y)[2])
    facts, unit, most = known(x, y)
    return Held.of(x.value.times(y.value, magnitude=rounded_up(most)), unit, facts)


def multiple(x: Held, exact: Held, *, most: Reals | None = None) -> Held:
    """Product with factors that are exact by definition, before its round: so only x is cut, if need be.

    `most` bounds the absolute true products, where that is proved otherwise.
    """
    while (excess := x.bits + exact.bits - ROOM_BITS) > 0:  # once more, where a cut rounds a bound up
        x = x.coarser(excess)
    return multiply(x, exact, between=None if most is None else (-most, most))


def in_parts(x: Held, bits: int, room: int = ROOM_BITS) -> tuple[Held, Value | None, int]:
    """What of x may be multiplied by factors of so many bits, what its cut leaves, and by how much it is cut.

    Products are to have up to `room` bits. Nothing is left, that is, it is not to be multiplied, where x, cut
    to what there is room for, has 30 bits of numbers of usual size or more.
    """
    cut = x.bits + bits - room
    if cut <= 0:
        return x, None, 0
    if (x.unit * 2.0**cut <= x.facts.usual * 2.0**-FINE_MULTIPLE_BITS).all():
        while (cut := x.bits + bits - room) > 0:  # once more, where a cut rounds a bound up
            x = x.coarser(cut)
        return x, None, 0
    # What a cut of k bits leaves has k + 2, and times factors no more than there is room for.
    x = x.coarser(x.bits + 2 * bits - (ROOM_BITS + room - 3))
    cut = max(x.bits + bits - (room - 1), 1)
    leading = x.cut(cut)
    whole = leading.value.times(x.builder.constant(2.0**cut), magnitude=2.0**ROOM_BITS)
    left = (x.value - whole).bounded(TRUNCATION_ERROR * 2.0**cut, "what a truncation leaves")
    return Held(leading.value, leading.unit, x.facts), left, cut


def fine_multiple(x: Held, y: Held, *, room: int = ROOM_BITS) -> Held:
    """Product of up to `room` bits that is cut after it is made, so that small numbers keep their digits.

    y is not cut at all. Where x, cut to what there is room for, had less than 30 bits of numbers of usual
    size, two parts of it are multiplied: 4 rounds more if x is not there before y, else 2.
    """
    leading, left, cut = in_parts(x, y.bits, room)
    if left is None:
        return multiply(leading, y)
    return joined(leading, y, leading.value.times(y.value, magnitude=2.0**ROOM_BITS), left * y.value, cut)


def joined(leading: Held, y: Held, product: Value, rest: Value, cut: int) -> Held:
    """Two parts of a product with y; `rest` is that of what a cut of so many bits has left."""
    unit = leading.unit * y.unit
    added = leading.builder.apply("truncate", rest, bits=cut).shifted(cut)
    facts = leading.facts.times(y.facts).off(TRUNCATION_ERROR * unit)
    limit = rounded_up(float((facts.held / unit).max(initial=0.0)))
    return Held.of((product + added).bounded(limit, "a product of two parts"), unit, facts)


def scale(x: Held, numbers: Reals) -> Held:
    """Product with public numbers: free and exact, but for those that differ along a long axis."""
    if not np.isfinite(numbers).all():
        raise PlanError(f"{line()}: a public factor is not finite")
    sizes = np.abs(numbers)
    largest = float(sizes.max(initial=0.0)) or 1.0
    alike = bool(np.isin(sizes, (0.0, largest)).all())
    if alike or numbers.shape[-1] == 1:
        if not (numbers > 0).all():
            signs = np.sign(numbers)
            made = x.value * x.builder.constant(signs)
            x = Held(made, x.unit, x.facts.scaled(signs))
        return x.worth(largest if alike else np.where(numbers == 0, 1.0, sizes))
    most = float(np.abs(numbers).max()) or 1.0
    first = bits_of(most)
    if x.bits > 40:
        x = x.coarser(x.bits - 31)
    bits = min(30, ROOM_BITS - x.bits) - first
    units = np.rint(numbers * 2.0**bits)
    unit = x.unit * 2.0**-bits
    facts = x.facts.times(
        Facts.of(*_ends(numbers), error=0.0 if _whole(numbers * 2.0**bits) else 2.0 ** -(bits + 1))
    )
    limit = rounded_up(float((facts.held / unit).max(initial=0.0)))
    return Held.of(x.value.times(x.builder.constant(units), magnitude=limit), unit, facts)


def total(x: Held) -> Held:
    """Sum over the last axis, `(m, n) -> (m,)` or `(n,) -> (1,)`."""
    x = level(x, -1)
    n = x.builder.most(x.value.shape[-1])
    facts = x.facts.summed(n)
    excess = bits_of(float((facts.held / x.unit).max(initial=0.0))) - ROOM_BITS
    if excess > 0:
        x = x.coarser(excess)
        facts = x.facts.summed(n)
    limit = rounded_up(float((facts.held / x.unit).max(initial=0.0)))
    return turned(x.value.sum(magnitude=limit), x.unit, facts)


def total_columns(x: Held) -> Held:
    """Sum over the first axis, `(m, n) -> (n,)`."""
    x = level(x, 0)
    m = int(x.value.shape[0])
    excess = bits_of(m * x.most) - ROOM_BITS
    x = x.coarser(excess)
    return Held.of(x.value.sum_columns(), x.unit[0], x.facts.summed_columns(m))


def turned(value: Value, unit: Reals, facts: Facts) -> Held:
    """What is left of `(m, n)` without its last axis, facts of which have a length of one there."""
    if len(value.shape) == 0:
        return Held.of(value.reshape(1), unit, facts)
    return Held.of(value, unit[..., 0], facts.map(lambda one: one[..., 0]))


def mean(x: Held) -> Held:
    """Mean over the last axis; a sum, of which each integer is worth less."""
    n = x.builder.most(x.value.shape[-1])
    made = total(x).worth(1 / n)
    low, high = (one[..., 0] if one.ndim > 1 else one for one in (x.facts.low, x.facts.high))
    if x.facts.low.shape[-1] > 1:
        return made
    usual = x.facts.usual.max(axis=-1)
    facts = made.facts.within(low, high)
    known = Facts.of(facts.low, facts.high, error=facts.error, usual=usual, relative=facts.relative)
    return Held.of(made.value, made.unit, known)


def dot(x: Held, y: Held, *, centre: bool = True) -> Held:
    """Sums over rows of products, `(m, n), (k, n) -> (m, k)`, before their round."""
    x, y = levelled(x, y)
    n = x.builder.most(x.value.shape[-1])
    excess = bits_of(_products(x, y, n)[1]) - ROOM_BITS
    if excess > 0 and n > 1 and centre:
        narrow = bits_of(_most_of(n * _outer(x.facts.spread, y.facts.spread), x, y)) - ROOM_BITS
        if narrow + WORTH_BITS <= excess:
            return _centred_dot(x, y, n)
    if excess > 0:
        x, y = factors(x, y, _products(x, y, n)[1])
    facts, most = _products(x, y, n)
    made = x.value.dot(y.value, magnitude=rounded_up(most))
    return Held.of(made, _outer(x.unit, y.unit), facts)


def _products(x: Held, y: Held, n: int) -> tuple[Facts, float]:
    """Facts on sums over rows of products, and a bound on their integers."""
    a, b = x.facts, y.facts
    ends = [_outer(p.max(axis=-1, keepdims=True), q.max(axis=-1, keepdims=True)) for p, q in (
        (a.reach, b.size), (a.size, b.reach), (a.rms, b.rms))]  # fmt: skip
    size = n * np.minimum(np.minimum(*ends[:2]), ends[2])
    off_x, off_y = (one.error.max(axis=-1, keepdims=True) for one in (a, b))
    error = n * (_outer(a.size, off_y) + _outer(off_x, b.size) + _outer(off_x, off_y))
    usual = n * _outer(*(one.usual.max(axis=-1, keepdims=True) for one in (a, b)))
    least = np.where((_least(a) >= 0)[:, None] & (_least(b) >= 0)[None, :], 0.0, -size)
    if x.value.ref == y.value.ref:
        np.fill_diagonal(least := np.broadcast_to(least, (int(x.value.shape[0]),) * 2).copy(), 0.0)
    facts = Facts.of(least, size, error=error, usual=usual)
    return facts, _most_of(facts.held, x, y)


def _most_of(sizes: Reals, x: Held, y: Held) -> float:
    return float((sizes / _outer(x.unit, y.unit)).max(initial=0.0))


def _outer(x: Reals, y: Reals) -> Reals:
    """Products of what is known of each row of two arrays `(m, 1)` and `(k, 1)`, as `(m, k)`."""
    made: Reals = x[:, :1] * y[:, 0][None, :]
    return made


def _least(facts: Facts) -> Reals:
    least: Reals = facts.low.min(axis=-1)
    return least


def centred(x: Held) -> tuple[Held, Held]:
    """`(m, n)` less numbers `(m,)`, and these: means of rows as they are held, exact by definition."""
    n, about = x.builder.most(x.value.shape[-1]), mean(x)
    shaped = Held(about.value.column(), about.unit[:, None], about.facts.columns(lambda one: one[:, None]))
    pivot = shaped.at(x.unit)
    off = pivot.facts.error
    exact = Facts.of(pivot.facts.low - off, pivot.facts.high + off, usual=pivot.facts.usual)
    left = x.facts.less_mean(n)
    rest = Facts.of(
        left.low - off, left.high + off, error=x.facts.error, usual=left.usual, rms=left.rms + off,
        spread=left.spread, size=left.size + off,
    )  # fmt: skip
    # What is held of x is within its error of x, so its mean and its spread are as well.
    return Held.of(x.value - pivot.value, x.unit, rest), Held.of(pivot.value, x.unit, exact)


def _centred_dot(x: Held, y: Held, n: int) -> Held:
    same = x.value.ref == y.value.ref and bool((x.unit == y.unit).all())
    x, y = _trimmed(x), _trimmed(y)
    (a, m), (b, k) = (centred(x), centred(y)) if not same else (centred(x),) * 2
    made = dot(a, b, centre=False)
    for rest, pivot, flip in ((a, k, False), (b, m, True)):
        left = total(rest)
        # A sum of what is left beside means as they are held: so many roundings of these, and of x.
        off = n * (pivot_error(rest) + rest.facts.error.max(axis=-1))
        left = Held.of(left.value, left.unit, left.facts.within(-off, off))
        made = add(made, _outer_product(pivot, left) if flip else _outer_product(left, pivot))
    return add(made, _outer_product(m, k).worth(float(n)))


def _trimmed(x: Held) -> Held:
    """Numbers to be centred without the bits of a product that their means have no room for."""
    usual = np.where(x.facts.usual > 0, x.facts.usual, np.inf)
    spare = math.frexp(float((usual * 2.0**-FINE_BITS / x.unit).min()))[1] - 1
    return x.coarser(min(x.bits - TRIMMED_BITS, spare)) if math.isfinite(float(usual.min())) else x


def pivot_error(rest: Held) -> Reals:
    """How far the mean of centred numbers may be from zero."""
    far: Reals = (rest.facts.rms - rest.facts.spread)[:, 0]
    return far


def _outer_product(x: Held, y: Held) -> Held:
    """Products of each of `(m,)` or `(m, 1)` with each of `(k,)` or `(k, 1)`, `(m, k)`."""
    sides = []
    for one, shape in ((x, (-1, 1)), (y, (1, -1))):
        count = math.prod(int(dim) for dim in one.value.shape)
        value = one.value.reshape(*((count, 1) if shape[0] < 0 else (1, count)))
        sides.append(
            Held(value, one.unit.reshape(shape), one.facts.map(lambda each, to=shape: each.reshape(to)))
        )
    return multiply(*sides)


# -- units along an axis that is summed over ----------------------------------------------------------------


def level(x: Held, axis: int) -> Held:
    """The same numbers at units that do not differ along an axis, fine enough for the largest."""
    if x.unit.ndim == 0 or x.unit.shape[axis] == 1:
        return x
    first = np.take(x.unit, [0], axis=axis)
    if (x.unit == first).all():
        return Held(x.value, first, x.facts)
    unit = _one_unit(x.unit, x.facts.held, axis)
    made = x.at(unit)
    return Held(made.value, unit, made.facts)


def _one_unit(units: Reals, sizes: Reals, axis: int) -> Reals:
    """The finest of units along an axis at which the largest numbers have no more than 45 bits."""
    finest = units.min(axis=axis, keepdims=True)
    steps = sizes.max(axis=axis, keepdims=True) * 2.0**-45 / finest
    mantissa, exponent = np.frexp(np.maximum(steps, 1.0))
    made: Reals = finest * np.ldexp(1.0, exponent - (mantissa == 0.5))
    return made


def _alike(units: Reals, along: Reals, axis: int) -> bool:
    """Whether units vary along an axis as some numbers do, but for rounding."""
    first = np.take(units, [0], axis=axis)
    return bool((np.abs(units / first / along - 1) < 2.0**-40).all())


def levelled(x: Held, y: Held) -> tuple[Held, Held]:
    """Two factors of a sum of products over the last axis of both, whose products have one unit along it.

    Units that cancel, as those of coefficients and of their columns do, stay as they are.
    """
    if x.unit.shape[-1] == 1 and y.unit.shape[-1] == 1:
        return x, y
    along = (x.unit / x.unit[:, :1])[:1]
    if not _alike(x.unit, along, 1):
        return levelled(level(x, 1), y)
    products = y.unit * along
    if not _alike(products, np.ones((1, 1)), 1):
        y = y.at(_one_unit(products, y.facts.held * along, 1) / along)
    x, y = x.worth(1 / along), y.worth(along)
    return Held(x.value, x.unit[:, :1], x.facts), Held(y.value, y.unit[:, :1], y.facts)


def matmul(x: Held, y: Held) -> Held:
    """Matrix product `(m, k) @ (k, n)` with rows along the last axis, before its round; x is small."""
    along = (y.unit / y.unit[:1])[:, :1]
    if not _alike(y.unit, along, 0):
        y = level(y, 0)
        along = np.ones((1, 1))
    products = x.unit * along.T
    if not _alike(products, np.ones((1, 1)), 1):
        x = x.at(_one_unit(products, x.facts.held * along.T, 1) / along.T)
    x, y = x.worth(along.T), y.worth(1 / along)
    x, y = Held(x.value, x.unit[:, :1], x.facts), Held(y.value, y.unit[:1], y.facts)
    k = int(x.value.shape[1])
    unit = x.unit * y.unit
    facts = matrix_facts(x.facts, y.facts, k)
    x, y = factors(x, y, float((facts.held / unit).max(initial=0.0)))
    unit, facts = x.unit * y.unit, matrix_facts(x.facts, y.facts, k)
    limit = rounded_up(float((facts.held / unit).max(initial=0.0)))
    return Held.of(x.value.matmul(y.value, magnitude=limit), unit, facts)


def matrix_facts(x: Facts, y: Facts, k: int) -> Facts:
    """Facts on a matrix product over an axis of length k."""

    def over(a: Reals, b: Reals) -> Reals:
        left, right = np.broadcast_to(a, (a.shape[0], k)), np.broadcast_to(b, (k, b.shape[1]))
        made = left[:, :1] * right[:1]
        for place in range(1, k):  # term by term, the same on every machine
            made = made + left[:, place : place + 1] * right[place : place + 1]
        return made

    size = over(x.reach, y.reach)
    return Facts.of(
        -size, size,
        error=over(x.reach, y.error) + over(x.error, y.reach) + over(x.error, y.error),
        usual=over(x.usual, y.usual),
        spread=over(x.reach, y.spread),
        rms=over(x.reach, y.rms),
        size=over(x.reach, y.size),
    )  # fmt: skip
