"""What is done with several numbers, or one as a whole: products of matrices, slices, choices, orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.alignment import beside, made_of, turned_to
from tercet.ml.numbers.by_row import Rows, rows_of
from tercet.ml.numbers.facts import Facts, Reals
from tercet.ml.numbers.number import Number, bounds_of, secret
from tercet.ml.numbers.public import numbers_of
from tercet.ml.numbers.ring import (
    ROOM_BITS,
    Held,
    as_row,
    as_scalar,
    bits_of,
    many_bits,
    rounded_up,
    together,
)
from tercet.ml.numbers.source import line
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS
from tercet.plans import Value, concatenate

SORT_BITS = 63
"""A sort's keys and the numbers of its rows have so many bits together."""
KEY_BITS = 58
"""Keys have no more bits, so that they can be rounded to fewer such that equal ones stay equal."""
USUAL_BITS = SPREAD_BITS
"""Columns of a matrix have so many bits of numbers of usual size, if there is room."""
PUBLIC_BITS = 30
"""Bits of the entries of public matrices."""


# -- products of matrices ------------------------------------------------------------------------------------


def product_of_matrices(x: Any, y: Any) -> Number:
    """`x @ y` for vectors and matrices, of which one may be public, as NumPy has it."""
    if not isinstance(x, Number):
        return public_times_matrix(x, secret(y, "a product with a public matrix"))
    if not isinstance(y, Number):
        return public_times_matrix(numbers_of(y).T, x.T).T
    if 0 in (x.ndim, y.ndim) or x.shape[-1] != y.shape[0]:
        raise PlanError(f"{line()}: shapes {x.shape} and {y.shape} do not fit a matrix product")
    shape = (*x.shape[:-1], *y.shape[1:])
    if x.ndim == 1 and y.ndim == 2:
        return product_of_matrices(y.T, x)
    last_x, last_y = x.ndim == 1 or not x.flipped, y.ndim == 1 or y.flipped
    rows = rows_of(x.rows.without(x.ndim - 1, x.shape[-1]), y.rows.without(0, x.shape[-1]).lifted(x.ndim - 1))
    if last_x and last_y:
        made, flipped = arithmetic.dot(as_row(x.held), as_row(y.held)), False
    elif y.ndim == 1:
        made, flipped = arithmetic.matmul(as_row(y.held), x.held), True
    elif last_x:
        made, flipped = arithmetic.matmul(x.held, y.held), False
    elif last_y:
        made, flipped = arithmetic.matmul(y.held, x.held), True
    elif y.size <= x.size:
        made, flipped = arithmetic.matmul(turned_to(y, 2, not y.flipped), x.held), True
    else:
        made, flipped = arithmetic.matmul(turned_to(x, 2, not x.flipped), y.held), False
    found = made_of((x, y), made, shape if len(shape) == 2 else (*shape, 1), flipped, rows)
    return found if len(shape) == 2 else _without_axis(found, shape, rows)


def _without_axis(x: Number, shape: tuple[int, ...], rows: Rows) -> Number:
    """A matrix with an axis of length one as a vector or scalar, by row along some axes."""
    if not shape:
        return x.like(as_scalar(x.held), shape, rows=rows)
    held = x.held
    if held.value.shape[0] == 1:  # (1, n)
        drop: Callable[[Reals], Reals] = lambda one: one[0]  # noqa: E731
        made = Held(held.value.squeeze(), drop(held.unit), held.facts.columns(drop))
        return x.like(made, shape, rows=rows)
    flat: Callable[[Reals], Reals] = lambda one: one.reshape(-1)  # noqa: E731
    made = Held(held.value.reshape(*shape), flat(held.unit), held.facts.map(flat))
    return x.like(made, shape, rows=rows)


def public_times_matrix(left: Any, x: Number) -> Number:
    """`left @ x` for a public vector or matrix."""
    numbers = numbers_of(left)
    if 0 in (numbers.ndim, x.ndim) or numbers.shape[-1] != x.shape[0]:
        raise PlanError(f"{line()}: shapes {numbers.shape} and {x.shape} do not fit a matrix product")
    rows = np.atleast_2d(numbers)
    if x.ndim == 2 and not x.flipped:
        over = x.rows.along(x.rows.axes & {0}).weighed(rows.T, 2).along(x.rows.axes - {0})
        made = x.like(_public_matmul(rows, x.held), (len(rows), x.shape[1]), rows=over)
    elif x.ndim == 2:
        made = column_stack([(x.T * row).sum(1) for row in rows]).T
    else:
        sums = [(x * row).sum() for row in rows]
        made = (
            sums[0] if numbers.ndim == 1 else concatenate_vectors([one.like(one.held, (1,)) for one in sums])
        )
    return made[0] if numbers.ndim == 1 and x.ndim == 2 else made


def _public_matmul(numbers: Reals, x: Held) -> Held:
    """A public matrix `(m, k)` times `(k, n)`, of rows in any units."""
    if x.unit.shape[1] > 1:
        x = arithmetic.level(x, 1)
    k = numbers.shape[1]
    x = x.coarser(x.bits + bits_of(k) + PUBLIC_BITS // 2 - ROOM_BITS)
    bits = min(PUBLIC_BITS, ROOM_BITS - x.bits - bits_of(k))
    worth = numbers * x.unit[:, :1].T  # of an integer in a sum
    most = np.abs(worth).max(axis=1, keepdims=True)
    unit = np.where(most > 0, most, 1.0) * 2.0**-bits
    units = np.rint(worth / unit)
    known = Facts.of(numbers, numbers, error=np.abs(units * unit - worth) / x.unit[:, :1].T)
    facts = arithmetic.matrix_facts(known, x.facts, k)
    limit = rounded_up(float((facts.held / unit).max(initial=0.0)))
    made = x.builder.apply("matmul", x.builder.constant(units), x.value, magnitude=limit)
    return Held.of(made, unit, facts)


# -- slices --------------------------------------------------------------------------------------------------


def taken(x: Number, key: Any) -> Number:
    """`x[key]`: whole numbers, slices, lists and masks along one axis, and None for a new axis."""
    keys = key if isinstance(key, tuple) else (key,)
    if x.ndim == 1 and len(keys) == 2 and any(one is None for one in keys):
        rest = keys[1] if keys[0] is None else keys[0]
        if isinstance(rest, slice) and rest == slice(None):
            return x.column() if keys[0] is not None else x.column().T
    if len(keys) > x.ndim or any(one is None or one is Ellipsis for one in keys):
        raise PlanError(f"{line()}: a number of shape {x.shape} cannot be taken from at {key!r:.40}")
    if sum(_several(one) for one in keys) > 1:
        raise PlanError(
            f"{line()}: two lists of places in one index would be taken in pairs; take rows and columns one "
            "after the other, as in x[rows][:, columns]"
        )
    for axis in range(len(keys) - 1, -1, -1):
        x = _along(x, axis, keys[axis])
    return x


def _several(key: Any) -> bool:
    """Whether a part of an index is a list of places."""
    return isinstance(key, list | tuple) or (isinstance(key, np.ndarray) and key.ndim > 0)


def _chosen(key: Any, length: int) -> tuple[list[int], bool]:
    """Public places along an axis, as NumPy reads an index, and whether it is a single one."""
    if isinstance(key, Number):
        raise PlanError(f"{line()}: a secret number is no place; compare places with it, or sort")
    try:
        if isinstance(key, slice):
            return list(range(length)[key]), False
        places = np.asarray(key)
        if places.dtype == bool and places.shape == (length,):
            return np.flatnonzero(places).tolist(), False
        if places.ndim > 1 or places.dtype.kind not in "iuf" or (places != np.rint(places)).any():
            raise ValueError
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"{line()}: {key!r:.40} is no place along an axis of length {length}; write whole numbers, a "
            "slice, or a list of whole numbers or as many booleans"
        ) from error
    for one in np.atleast_1d(places):
        if not -length <= one < length:
            raise PlanError(f"{line()}: {one:.20g} is no place along an axis of length {length}")
    return [int(one) % length for one in np.atleast_1d(places)], places.ndim == 0


def _along(x: Number, axis: int, key: Any) -> Number:
    """What lies at some places along one axis; a whole number drops the axis."""
    length = x.shape[axis]
    chosen, one_place = _chosen(key, length)
    if chosen == list(range(length)) and isinstance(key, slice):
        return x
    last, held = x.is_last(axis), x.held
    value = _places(held.value, chosen) if last else held.value.select(chosen)
    along = -1 if last else 0

    def pick(one: Reals) -> Reals:
        return np.take(one, chosen, axis=along) if one.shape[along] > 1 else one

    facts = held.facts.map(pick) if last else held.facts.columns(pick)
    made = Held(value, pick(held.unit), facts)
    shape = (*x.shape[:axis], len(chosen), *x.shape[axis + 1 :])
    picked = len(set(chosen))
    rows = x.rows.picked(picked) if axis in x.rows.axes and picked < length else x.rows
    found = x.like(made, shape, rows=rows)
    if not one_place:
        return found
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    rows = rows.without(axis, 1)
    return found.like(found.held, (), rows=rows) if not shape else _without_axis(found, shape, rows)


def _places(value: Value, chosen: Sequence[int]) -> Value:
    """Places of the last axis."""
    first = chosen[0] if chosen else 0
    if list(chosen) == list(range(first, first + len(chosen))):
        return value.slice(first, first + len(chosen))
    return value.take(value.builder.constant(np.array([chosen], dtype=np.float64)))


# -- side by side --------------------------------------------------------------------------------------------


def _all_secret(given: Sequence[Any]) -> list[Number]:
    """Numbers, of which public ones are held like the first secret one."""
    if isinstance(given, Number | str) or not isinstance(given, Iterable):
        raise PlanError(
            f"{line()}: numbers side by side are given as a list, not as a {type(given).__name__}"
        )
    given = list(given)
    first = next((one for one in given if isinstance(one, Number)), None)
    if first is None or first.size == 0:
        raise PlanError(f"{line()}: numbers side by side, of which none is secret")
    zero = (first[(0,) * first.ndim] if first.ndim else first) * 0.0
    return [one if isinstance(one, Number) else zero + numbers_of(one) for one in given]


def column_stack(given: Sequence[Any]) -> Number:
    """Vectors `(n,)` and matrices `(n, d)` as the columns of one matrix."""
    numbers = _all_secret(given)
    if any(one.ndim == 0 or one.shape[0] != numbers[0].shape[0] for one in numbers):
        raise PlanError(f"{line()}: columns of a matrix are vectors of one length")
    held = [turned_to(one, 2, True) if one.ndim == 2 else as_row(one.held) for one in numbers]
    count = [int(one.value.shape[0]) for one in held]

    def stack(part: Callable[[Held], Reals]) -> Reals:
        arrays = [part(one) for one in held]
        width = max(one.shape[-1] for one in arrays)
        each = [np.broadcast_to(one, (rows, width)) for one, rows in zip(arrays, count, strict=True)]
        return np.concatenate(each)

    names = [field.name for field in attrs.fields(Facts)]
    facts = Facts(*(stack(lambda one: getattr(one.facts, name)) for name in names))  # noqa: B023 - called at once
    value = concatenate([one.value for one in held])
    made = Held(value, stack(lambda one: one.unit), facts)
    # Small integers, as of booleans, get digits: columns are then cut, and means rounded, by the same bits.
    lift = np.minimum(USUAL_BITS - many_bits(facts.usual / made.unit), INTEGER_BITS - many_bits(made.ring))
    if (lift > 0).any():
        more = np.ldexp(1.0, np.maximum(lift, 0))
        made = Held.of(value, made.unit, facts).times_integers(more, made.unit / more)
    rows = rows_of(*(one.rows for one in numbers))
    return made_of(tuple(numbers), made, (numbers[0].shape[0], sum(count)), True, rows)


def concatenate_vectors(given: Sequence[Any]) -> Number:
    """Vectors one after the other, up to a tile's length."""
    numbers = _all_secret(given)
    if any(one.ndim != 1 for one in numbers):
        raise PlanError(f"{line()}: vectors are concatenated, not other shapes; see column_stack")
    if len(numbers) == 1:
        return numbers[0]
    total = sum(one.shape[0] for one in numbers)
    if total > numbers[0].held.builder.tile_rows:
        raise PlanError(
            f"{line()}: {total} elements are concatenated, and no more than "
            f"{numbers[0].held.builder.tile_rows} can be"
        )
    held = [arithmetic.level(one.held, -1) for one in numbers]
    for place in range(1, len(held)):
        held[0], held[place] = together(held[0], held[place])
    held = [one.at(held[0].unit) for one in held]
    facts = held[0].facts
    for one in held[1:]:
        facts = facts.hull(one.facts)
    value = concatenate([one.value.reshape(one.value.shape[0], 1) for one in held]).reshape(total)
    flat = Facts.of(
        facts.low.min(), facts.high.max(),
        error=facts.error.max(), usual=facts.usual.min(), relative=facts.relative.max(),
    )  # fmt: skip
    return made_of(tuple(numbers), Held.of(value, held[0].unit, flat), (total,), False)


# -- choices -------------------------------------------------------------------------------------------------


def where(condition: Number, x: Any, y: Any) -> Number:
    """Elements of x where a condition holds, else of y. 1 round."""
    secret(condition, "a choice").require_bits("where")
    if not isinstance(x, Number) and not isinstance(y, Number):
        made: Number = condition * (numbers_of(x) - numbers_of(y)) + y
        return made
    x = x if isinstance(x, Number) else y * 0.0 + x
    y = y if isinstance(y, Number) else x * 0.0 + y
    a, b, shape, flipped = beside(x, y)
    a, b = together(a, b)
    difference = made_of((x, y), Held(a.value, a.unit, a.facts), shape, flipped)
    chosen, _, whole, turned = beside(condition, difference)
    if whole != shape or turned != flipped:
        a, b = (turned_to(made_of((x, y), one, shape, flipped), len(whole), turned) for one in (a, b))
    most = float(((a.facts.held + b.facts.held) / a.unit).max(initial=0.0))
    value = chosen.value.times(a.value - b.value, magnitude=rounded_up(most)) + b.value
    return made_of((condition, x, y), Held.of(value, a.unit, a.facts.hull(b.facts)), whole, turned)


def clip(x: Number, low: float, high: float) -> Number:
    """Elements that lie outside of public bounds at the nearer one; both comparisons at once."""
    low, high = bounds_of(low, high)
    below, above = x < low, x > high
    return _between(where(below, low, where(above, high, x)), low, high)


def larger(x: Any, y: Any) -> Number:
    """The larger one of each two elements, which is no smaller than the least of either."""
    x, y = (x, y) if isinstance(x, Number) else (y, x)
    made = where(secret(x, "a choice") < y, y, x)
    return _between(made, max(_ends(x)[0], _ends(y)[0]), np.inf)


def smaller(x: Any, y: Any) -> Number:
    """The smaller one of each two elements, which is no larger than the largest of either."""
    x, y = (x, y) if isinstance(x, Number) else (y, x)
    made = where(secret(x, "a choice") < y, x, y)
    return _between(made, -np.inf, min(_ends(x)[1], _ends(y)[1]))


def _ends(x: Any) -> tuple[float, float]:
    """The least and the largest of what is secret or public."""
    if isinstance(x, Number):
        return x.bounds
    numbers = numbers_of(x)
    return float(numbers.min(initial=np.inf)), float(numbers.max(initial=-np.inf))


def _between(x: Number, low: float, high: float) -> Number:
    """The same, between bounds that are proved otherwise."""
    held = x.held
    return x.like(Held.of(held.value, held.unit, held.facts.within(low, high)))


def extreme(x: Number, sign: int, other: Number) -> tuple[Number, Number]:
    """The largest of a vector (for -1, the smallest), and the element of another beside it.

    Pairs are compared, then pairs of the larger ones, and so on: about 11 rounds for each halving.
    """
    if secret(x, "an extreme").ndim != 1 or not x.shape[0]:
        raise PlanError(f"{line()}: the extreme of a vector of one element or more, not of shape {x.shape}")
    best, beside_it = x, other
    while (n := best.shape[0]) > 1:
        half = -(-n // 2)
        left, right = best[:half], best[n - half :]  # the middle one meets itself where n is odd
        wins = left < right if sign > 0 else right < left
        best = where(wins, right, left)
        beside_it = best if other is x else where(wins, beside_it[n - half :], beside_it[:half])
    return best[0], beside_it[0]


def places_of(x: Number) -> Number:
    """The numbers 0, 1, 2, ... as long as a vector, held as it is."""
    if secret(x, "an extreme").ndim != 1:
        raise PlanError(f"{line()}: the place of an extreme is one of a vector, not of shape {x.shape}")
    return x * 0.0 + np.arange(x.shape[0], dtype=np.float64)


# -- orders --------------------------------------------------------------------------------------------------


def sort(key: Number, *others: Number) -> list[Number]:
    """A vector in ascending order, and others in that order; opens comparisons of shuffled rows."""
    for one in (key, *others):
        secret(one, "a sort")
    if key.ndim != 1:
        raise PlanError(f"{line()}: the key of a sort is a vector, not of shape {key.shape}")
    for one in others:
        if one.ndim == 0 or one.shape[0] != key.shape[0] or (one.ndim == 2 and not one.flipped):
            raise PlanError(f"{line()}: what is sorted along has the rows of the key, not shape {one.shape}")
    held = [arithmetic.level(one.held, -1) for one in (key, *others)]
    held[0] = held[0].coarser(held[0].bits - KEY_BITS)
    room = SORT_BITS - max(key.shape[0] - 1, 0).bit_length()
    keys = held[0].value
    bits = bits_of(keys.type.limit + 1) + 1
    ordered = held[0]
    if bits > room:
        # Keys that are rounded to the same one come out in any order, so those at a place may be so far off.
        cut = bits - room + 1
        ordered = Held(keys, ordered.unit, ordered.facts.off(ordered.unit * 2.0**cut))
        keys, bits = keys.nearest(-cut), room
    found = keys.builder.apply_all("sort", keys, *(one.value for one in held), bits=bits)[1:]
    return _moved((key, *others), [ordered, *held[1:]], found)


def shuffle(*numbers: Number) -> list[Number]:
    """Vectors and matrices with their rows in one random order, which nobody knows."""
    for one in numbers:
        secret(one, "a shuffle")
    for one in numbers:
        if one.ndim == 0 or one.shape[0] != numbers[0].shape[0] or (one.ndim == 2 and not one.flipped):
            raise PlanError(f"{line()}: what is shuffled together has rows alike, not shape {one.shape}")
    held = [arithmetic.level(one.held, -1) for one in numbers]
    return _moved(numbers, held, held[0].builder.apply_all("shuffle", *(one.value for one in held)))


def _moved(numbers: Sequence[Number], held: Sequence[Held], values: Sequence[Value]) -> list[Number]:
    """Numbers whose rows lie in another order; what is known of single places is known of none then."""
    found = []
    for one, whole, value in zip(numbers, held, values, strict=True):
        facts = whole.facts
        anywhere = Facts(
            facts.low.min(axis=-1, keepdims=True), facts.high.max(axis=-1, keepdims=True),
            facts.spread, facts.rms, facts.size,
            facts.error.max(axis=-1, keepdims=True), facts.usual.min(axis=-1, keepdims=True),
            facts.relative.max(axis=-1, keepdims=True),
        )  # fmt: skip
        made = Held(value, whole.unit, anywhere)
        rows = rows_of(one.rows, numbers[0].rows.along(numbers[0].rows.axes & {0}))
        found.append(made_of(tuple(numbers), made, one.shape, one.flipped, rows))
    return found


# -- for those who read only scales --------------------------------------------------------------------------


def readable(held: Held) -> Held:
    """The same at one unit that is a power of two, as those read it who know no more than a plan's types."""
    for axis in range(len(held.value.shape)):
        held = arithmetic.level(held, axis - len(held.value.shape))
    unit = float(held.unit.flat[0])
    power = 2.0 ** bits_of(unit)
    if unit == power:
        return held
    finer = max(0, min(ROOM_BITS - 2 - held.bits, PUBLIC_BITS))
    return held.at(np.full(held.unit.shape, power * 2.0**-finer))


def at_its_scale(value: Value, unit: Reals) -> tuple[Value, Reals]:
    """Integers of one unit that is a power of two as a value at that scale, of which each is worth one."""
    scale = 1 - math.frexp(float(unit.flat[0]))[1]
    return value.shifted(scale), np.ones((1,) * unit.ndim)
