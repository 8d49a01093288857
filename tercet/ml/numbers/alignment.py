"""Operands side by side: in one orientation, and what is known of what is made of them.

A matrix of rows and columns lies on its side (`tercet.ml.numbers.number`), so two numbers may have to be
turned before their elements meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tercet.errors import PlanError
from tercet.ml.numbers.by_row import Rows, rows_of
from tercet.ml.numbers.facts import Reals
from tercet.ml.numbers.public import Shape, broadcast
from tercet.ml.numbers.ring import Held, as_row
from tercet.ml.numbers.source import line

if TYPE_CHECKING:
    from tercet.ml.numbers.number import Number


def turned_to(x: Number, axes: int, flipped: bool) -> Held:
    """How a number is held, with so many axes and in an orientation."""
    held = x.held
    if axes < 2 or (x.ndim == 2 and x.flipped == flipped):
        return held
    if x.ndim < 2:
        if not flipped or x.ndim == 0:
            return as_row(held)
        stand: Callable[[Reals], Reals] = lambda one: one.reshape(-1, 1)  # noqa: E731
        return Held(held.value.column(), stand(held.unit), held.facts.map(stand))
    turn: Callable[[Reals], Reals] = lambda one: one.T  # noqa: E731
    shape = held.value.shape
    if x.size > held.builder.tile_rows:
        raise PlanError(
            f"{line()}: a number of shape {x.shape} with rows along one axis meets one with rows along the "
            f"other; only up to {held.builder.tile_rows} elements can be turned"
        )
    value = held.value.reshape(*shape[::-1]) if 1 in shape else held.value.transpose()
    return Held(value, turn(held.unit), held.facts.map(turn))


def beside(x: Number, y: Number) -> tuple[Held, Held, Shape, bool]:
    """Two numbers in one orientation, and the shape of what is made of both."""
    if x.plan is not y.plan:
        raise PlanError(f"{line()}: numbers of two plans were combined")
    shape = broadcast(x.shape, y.shape)
    larger = max((one for one in (x, y) if one.ndim == 2), key=lambda one: one.size, default=None)
    flipped = larger is not None and larger.flipped
    return turned_to(x, len(shape), flipped), turned_to(y, len(shape), flipped), shape, flipped


def made_of(
    sources: tuple[Number, ...],
    held: Held | tuple[Held, Held],
    shape: Shape,
    flipped: bool,
    rows: Rows | None = None,
) -> Number:
    """A number that is made of several, and sound if all of them are; element by element, if no `rows`."""
    sound: Number | None = None
    for one in sources:
        if one.sound is not None and (sound is None or sound.held.value.ref != one.sound.held.value.ref):
            sound = one.sound if sound is None else sound & one.sound
    if rows is None:
        rows = rows_of(*(one.rows.lifted(len(shape) - one.ndim) for one in sources))
    return sources[0].like(held, shape, flipped=flipped, rows=rows, sound=sound)
