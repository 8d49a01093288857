"""Rules for disclosures: figures that rest on too few rows stay secret.

An owner sets a minimum count at upload. Whether a figure rests on enough rows is decided in MPC, on counts
that nobody sees: what may not be told is multiplied by zero before it is revealed, and shows as missing. A
count tells its complement too where the number of all rows is known, so both have to be large enough.

The same holds for what stays at the nodes for later plans, as a model does: a bit that only tells whoever
asked that a result may not be used is no guard, since clients are their members' own.

The rules hold for each call. They do not stop anyone from asking twice, for all rows and for all but a few,
and taking the difference: which plans run is for owners to agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tercet.ml.linalg import settled
from tercet.plans import Value, concatenate

UNDEFINED = -4.0
"""What is told instead of a figure that is not defined, of figures that are never below -1."""


MISSING = "- is not defined, of values that are too few or all alike, or not told by a rule of owners"
"""The line below a printed table in which something is missing."""


def at_least(counts: Value, least: float) -> Value:
    """Ones where numbers `(d,)` are at least a public number, else zeros. 8 rounds."""
    return inverted((counts - least).is_negative().to_ring())


def all_at_least(counts: Iterable[Value], least: float) -> Value:
    """One if all numbers `(1,)` are at least a public number, else zero. 16 rounds."""
    few = (side_by_side(counts) - least).is_negative().to_ring()
    return few.sum().reshape(1).is_zero().to_ring()


def inverted(flags: Value) -> Value:
    """Zeros for ones and ones for zeros."""
    return (flags * -1 + 1).bounded(1.0, "a condition")


def both(x: Value, y: Value) -> Value:
    """Ones where two conditions hold. 1 round."""
    return (x * y).bounded(1.0, "a condition")


def tellable(counts: Value, of: Value | int, least: int) -> Value:
    """Ones where counts `(d,)` out of `of` may be told, else zeros. 10 rounds.

    They may if they are at least `least`, and what is left is nothing or as much.
    """
    rest = counts * -1 + of
    few = both(at_least(rest, 1), inverted(at_least(rest, least)))
    return both(at_least(counts, least), inverted(few))


def tellable_cells(cells: Value, total: Value, least: int, *, of: int | None = None) -> Value:
    """Ones where cells `(k,)` may be told.

    A cell may if it has enough rows. But a receiver who knows the total knows how many rows all hidden cells
    have together, so if those are too few, the smallest of the other cells is hidden too. A total that is
    secret, as after a filter, follows from the cells, so none is told unless the total may be, out of `of`.
    """
    told = _tellable_cells(cells, total, least)
    return told if of is None else both(told, tellable(total, of, least))


def _tellable_cells(cells: Value, total: Value, least: int) -> Value:
    size = int(cells.type.rows)
    enough = at_least(cells, least)
    hidden = total - enough.dot(cells).reshape(1)
    none = (hidden + (enough.sum().reshape(1) * -1 + size)).is_zero().to_ring()
    short = both(inverted(none), inverted(at_least(hidden, least)))
    if size == 1:
        return both(enough, inverted(short))
    # Ranks among distinct keys: hidden cells come last, equal ones in their order.
    most = cells.type.limit + 1
    keys = (cells + inverted(enough) * most) * size + cells.builder.constant(np.arange(size))
    before = keys.column().reshape(size, 1) - keys.reshape(1, size)
    later = before.reshape(size * size).is_negative().to_ring().reshape(size, size)
    smallest = (later.transpose().sum_columns() - (size - 1)).is_zero().to_ring()
    return both(enough, inverted(both(smallest, short)))


def kept_where(enough: Value, value: Value) -> Value:
    """A value where a bit `(1,)` is one, else zeros. 1 round."""
    product = value * enough
    most = math.ldexp(value.type.limit, -value.scale)
    return settled(product.rescale(value.scale).bounded(most, "the value or zero"))


def side_by_side(values: Iterable[Value]) -> Value:
    """Values `(1,)` at one scale as one `(d,)`."""
    listed = [value.reshape(1, 1) for value in values]
    return concatenate(listed).reshape(len(listed))


def marked(value: Value, sound: Value | None) -> Value:
    """A figure where it is defined, by a bit `(1,)`, else UNDEFINED, and nothing else of it. 1 round."""
    return value if sound is None else value * sound + inverted(sound) * UNDEFINED
