"""Numbers that a plan saves for later ones: how they lie at the nodes, and what is known of one that is read.

Whoever reads a saved number goes by what the nodes hold, a type: its shape, its scale and a bound. So it lies
at one scale, in one orientation, and with `usual_bits` of numbers of usual size, from which readers know how
many of its digits count. All else that was known of it when it was saved was its author's to know, and is not
believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import msgpack
import numpy as np

from tercet.errors import PlanError, SchemaError, StorageError
from tercet.ml.faces import F, Faced, computes
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.alignment import turned_to
from tercet.ml.numbers.by_row import NO_ROWS, Rows
from tercet.ml.numbers.facts import Facts
from tercet.ml.numbers.number import BIT, Number
from tercet.ml.numbers.ring import ROOM_BITS, Held, bits_of, told
from tercet.ml.numbers.source import line
from tercet.plans import Form, Type
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.numbers.formulas import Formulas

USUAL_BITS, LONG_BITS, LONG = 28, 18, 64
"""What is saved has so many bits where it is of usual size, and fewer if its last axis is longer than LONG.

That of columns is 16. Products of long arrays, which are summed over it, need the room."""
MOST_SCALE = 480
"""Scales of more bits, on either side, are none that a plan of numbers saves at."""


@attrs.frozen
class Saving:
    """A number that a plan saves: its name, where its value lies, and the bit that it rests on, if any.

    `rows` and `least` are what its plan knows of rows and minimum counts; nodes find them out themselves.
    """

    name: str
    handles: tuple[str, ...]
    rows: bool
    least: int
    readers: tuple[str, ...]
    days: float | None

    def description(self, stored: Mapping[str, Type]) -> bytes:
        """What is known of it on a lake that keeps no rules, by the types of what was stored."""
        return describe([stored[one] for one in self.handles], rows=self.rows, least=self.least)


def describe(types: Sequence[Type], *, rows: bool, least: int) -> bytes:
    """What everyone may know of a saved number, in msgpack: what lies at the nodes, whether it is by row.

    Figures must rest on `least` rows of the tables that it is made of. Raises PlanError for types of what no
    plan of numbers saves.
    """
    _require_numbers(types)
    kinds = [[list(one.shape), one.scale, one.limit] for one in types]
    packed: bytes = msgpack.packb({"values": kinds, "rows": rows, "least": least})
    return packed


def _require_numbers(types: Sequence[Type]) -> None:
    """Raise PlanError unless these are a number, and at most the bit that it rests on."""
    number, *bits = types or (Type(Form.WORDS, ()),)
    proper = (
        all(one.form is Form.RING and not one.product for one in types)
        and 1 <= len(number.shape) <= 2
        and all(isinstance(dim, int) and dim > 0 for dim in number.shape)
        and abs(number.scale) <= MOST_SCALE
        and 0 <= number.limit <= 2.0**ROOM_BITS
        and (
            not bits
            or (len(bits) == 1 and (bits[0].shape, bits[0].scale) == ((1,), 0) and bits[0].limit <= 1)
        )
    )
    if not proper:
        raise PlanError(
            f"what is stored as {', '.join(map(str, types)) or 'nothing'} is no number as plans of numbers "
            "save them; write the plan with lake.plan, and use x.save(name)"
        )


@short_tracebacks
@attrs.frozen(eq=False)
class SavedNumber(Faced[F]):
    """A secret number that an earlier plan has saved, for `plan.load`; `lake.number` gives it.

    `shape` is NumPy's, `bounds` are the least and the largest number that it can be. It is usable as long as
    the tables are in the lake that it was made from.
    """

    name: str
    owner: str
    shape: tuple[int, ...]
    bounds: tuple[float, float]
    lake: Any = attrs.field(repr=False)
    handles: tuple[str, ...] = attrs.field(repr=False)
    types: tuple[Type, ...] = attrs.field(repr=False)
    by_row: bool = attrs.field(repr=False)
    least: int = attrs.field(repr=False)

    @classmethod
    def of(cls, lake: Any, name: str, owner: str, handles: Sequence[str], body: bytes) -> SavedNumber[F]:
        """One that is kept under a name, by its description. Raises StorageError for what is none."""
        try:
            found = msgpack.unpackb(body)
            values, rows, least = found["values"], bool(found["rows"]), int(found["least"])
            types = tuple(
                Type(Form.RING, tuple(map(int, shape)), int(scale), float(limit))
                for shape, scale, limit in values
            )
            _require_numbers(types)
            if len(types) != len(handles) or least < 0:
                raise ValueError("another number of values")
        except (ValueError, TypeError, KeyError, OverflowError, PlanError, msgpack.UnpackException) as error:
            raise StorageError(f"the description of number {name!r:.80} is malformed ({error})") from error
        number = types[0]
        shape = () if number.shape == (1,) else tuple(int(dim) for dim in number.shape[::-1])
        most = math.ldexp(number.limit, -number.scale)
        return cls(name, owner, shape, (-most, most), lake, tuple(handles), types, rows, least)

    @computes
    def drop(self) -> None:
        """Have the nodes forget it, for good. Raises ConsentError if it is another member's."""
        dropped: None = self.lake.drop_number(self.name)
        return dropped


def usual_bits(kind: Type) -> int:
    """Bits of numbers of usual size in what is saved as a type."""
    return LONG_BITS if int(kind.rows) > LONG else USUAL_BITS


def at_rest(x: Number) -> Held:
    """A number as it is saved: at a unit that is a power of two, with rows along the last axis.

    0, 2 or 4 rounds. Raises PlanError where too few digits would be left of numbers of usual size.
    """
    held = turned_to(x, 2, True) if x.ndim == 2 else x.held
    for axis in range(len(held.value.shape)):
        held = arithmetic.level(held, axis - len(held.value.shape))
    facts, unit = held.facts, float(held.unit.flat[0])
    bits, reach = usual_bits(held.value.type), float(facts.reach.max(initial=0.0))
    if unit == 1.0 and reach <= 2.0**bits and not facts.error.any():
        return held  # whole numbers, which stay exact
    usual = float(np.where(facts.usual > 0, facts.usual, np.inf).min(initial=np.inf))
    target = 2.0 ** (bits_of(usual if math.isfinite(usual) else unit) - bits)
    if bits_of(float(facts.held.max(initial=0.0)) / target) >= ROOM_BITS:
        raise PlanError(
            f"{line()}: numbers here are only known to lie {told(facts)}, so what is saved would have fewer "
            f"than {bits} bits of those of usual size; say more of them, as in "
            "x.within(low, high), or save them in units that are more alike, as X / [1, 1000]"
        )
    return held.at(np.full(held.unit.shape, target))


def read(plan: Formulas, saved: SavedNumber) -> Number:
    """A saved number in a plan: with what the nodes know of it, and nothing else. Free."""
    builder, kind = plan.builder, saved.types[0]
    value = builder.input(saved.handles[0], kind).shifted(-kind.scale)
    unit = 2.0**-kind.scale
    low, high = saved.bounds
    facts = Facts.of(low, high, usual=2.0 ** usual_bits(kind) * unit)
    units = np.full((1,) * len(kind.shape), unit)
    if len(kind.shape) == 2:
        facts = facts.map(lambda one: one[None])
    rows = NO_ROWS
    if saved.by_row:
        axes = frozenset({0}) if saved.shape else frozenset[int]()
        one = not saved.shape
        rows = Rows(axes, 1 if one else math.inf, saved.least, short=one and saved.least > 1)
    sound = None
    if len(saved.handles) > 1:
        sound = Number(plan, Held.of(builder.input(saved.handles[1], saved.types[1]), 1.0, BIT), ())
    made = Held.of(value, units, facts)
    return Number(plan, made, saved.shape, flipped=len(kind.shape) == 2, rows=rows, sound=sound)


def require_saved(given: Any) -> SavedNumber:
    """A saved number. Raises SchemaError for anything else."""
    if not isinstance(given, SavedNumber):
        raise SchemaError(
            f"{line()}: what is loaded is what lake.number(name) gives, and not a {type(given).__name__}"
        )
    return given
