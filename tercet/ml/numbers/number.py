"""Secret arrays with NumPy's names, shapes and broadcasting, in a plan that is being written.

A `Number` is what a column, a matrix, a vector or a scalar is in a formula. It has the shape that NumPy would
give it; inside, rows lie along the last axis, so a matrix of rows and columns lies on its side (`flipped`).
A product is not made before it is read: summed over rows, it becomes one sum of products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tercet.errors import PlanError, SchemaError
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.alignment import beside, made_of, turned_to
from tercet.ml.numbers.by_row import NO_ROWS, Rows
from tercet.ml.numbers.facts import Facts, Reals
from tercet.ml.numbers.public import Shape, broadcast, numbers_of
from tercet.ml.numbers.ring import Held, as_row, as_scalar, told
from tercet.ml.numbers.source import line
from tercet.options import DAYS, READERS, takes
from tercet.plans import CLASSES, DisclosureClass, Value, concatenate
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.numbers.formulas import Formulas

BIT = Facts.of(0.0, 1.0, usual=1.0)


@short_tracebacks
class Number:
    """A secret array of up to two axes. Made by `Formulas` and by arithmetic; it has no value to look at.

    Operators, `sum`, `mean`, slices and comparisons are NumPy's, with its broadcasting; comparisons give
    zeros and ones, which `&`, `|` and `~` combine. Bounds and units are found as it is made. Where nothing
    proves a bound, PlanError names the line, says what is known, and what to write.
    """

    __slots__ = (
        "_factors", "_held", "_later", "centred", "flipped", "mean_of", "plan", "root_of", "rows", "shape",
        "sound", "unchecked",
    )  # fmt: skip
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None
    """So that an array of NumPy's on the left leaves the operation to this class."""

    def __init__(
        self,
        plan: Formulas,
        held: Held | tuple[Held, Held] | Callable[[], Held],
        shape: Shape,
        *,
        flipped: bool = False,
        rows: Rows = NO_ROWS,
        sound: Number | None = None,
    ) -> None:
        self.plan = plan
        self._held = held if isinstance(held, Held) else None
        self._factors: tuple[Held, ...] = held if isinstance(held, tuple) else ()
        self._later = held if callable(held) else None
        self.shape, self.flipped, self.rows, self.sound = shape, flipped and len(shape) == 2, rows, sound
        self.mean_of: object = None
        self.centred = False
        self.root_of: Number | None = None
        self.unchecked: Number | None = None

    @property
    def held(self) -> Held:
        """How it is held; a product or a root that has not been made is made now."""
        if self._held is None:
            self._held = self._later() if self._later else arithmetic.multiply(*self._factors)
        return self._held

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest number that it can be, as far as everyone knows."""
        facts = self.held.facts
        return float(facts.low.min(initial=np.inf)), float(facts.high.max(initial=-np.inf))

    @property
    def error(self) -> Reals:
        """By how much it may differ from exact arithmetic on what owners have uploaded: a proved bound.

        In the shape of the number. Numbers that owners uploaded are rounded to their scales, which counts.
        """
        return self._laid_out(self.held.facts.error)

    @property
    def relative_error(self) -> Reals:
        """By how much of itself it may differ from that: a proved bound as well, infinite if there is none.

        Of quotients and roots it is near 1e-8, however small these are, beside what it is of their operands.
        """
        return self._laid_out(self.held.facts.relative)

    def _laid_out(self, facts: Reals) -> Reals:
        found = np.broadcast_to(facts, tuple(map(int, self.held.value.shape)))
        return (found.T if self.flipped else found).reshape(self.shape)

    def __repr__(self) -> str:
        low, high = self.bounds
        return f"secret number of shape {self.shape} between {low:.6g} and {high:.6g}"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a secret scalar has no length")
        return self.shape[0]

    def __bool__(self) -> NoReturn:
        raise PlanError(
            f"{line()}: a secret number is neither true nor false for a program; use "
            "plan.where(condition, x, y), and &, | and ~ for conditions"
        )

    def __float__(self) -> NoReturn:
        raise PlanError(f"{line()}: a secret number has no value to look at; reveal it")

    __int__ = __round__ = __float__

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        name = getattr(function, "__name__", "this function")
        raise PlanError(
            f"{line()}: NumPy's {name} does not take secret numbers; what they have is methods, as x.sum(), "
            "and functions of the plan, as plan.sqrt(x)"
        )

    def _unknown(self, *_: Any) -> NoReturn:
        raise PlanError(f"{line()}: secret numbers have no //, %, ^ and no secret powers; != is either-or")

    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __xor__ = __rxor__ = __rpow__ = _unknown

    def __iter__(self) -> Any:
        return (self[place] for place in range(len(self)))

    def like(self, held: Any, shape: Shape | None = None, **more: Any) -> Number:
        """A number that is made of this one."""
        shape = self.shape if shape is None else shape
        rows = self.rows.lifted(max(len(shape) - self.ndim, 0))
        given = {"flipped": self.flipped, "rows": rows, "sound": self.sound, **more}
        return Number(self.plan, held, shape, **given)

    # -- arithmetic ------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Number:
        if not isinstance(other, Number):
            held, numbers, shape, flipped = self._beside_public(other)
            return self.like(arithmetic.add_public(held, numbers), shape, flipped=flipped)
        x, y, shape, flipped = beside(self, other)
        return made_of((self, other), arithmetic.add(x, y), shape, flipped)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Number:
        if not isinstance(other, Number):
            return self + (-numbers_of(other))
        x, y, shape, flipped = beside(self, other)
        about = other.mean_of is not None and other.mean_of == self._key() and shape == self.shape
        if about and y.value.shape[-1] == 1:  # each row of it less its own mean, and not another's
            found = made_of((self, other), arithmetic.less_mean(x, y), shape, flipped)
            found.centred = True
            return found
        return made_of((self, other), arithmetic.add(x, y, -1), shape, flipped)

    def __rsub__(self, other: Any) -> Number:
        made: Number = -self + other
        return made

    def __neg__(self) -> Number:
        return self * -1.0

    def __pos__(self) -> Number:
        return self

    def __mul__(self, other: Any) -> Number:
        if not isinstance(other, Number):
            held, numbers, shape, flipped = self._beside_public(other)
            rows = self.rows.lifted(len(shape) - self.ndim).weighed(numbers_of(other), len(shape))
            made = self.like(arithmetic.scale(held, numbers), shape, flipped=flipped, rows=rows)
        else:
            x, y, shape, flipped = beside(self, other)
            made = made_of((self, other), (x, y), shape, flipped)
        if any(isinstance(one, Number) and one.unchecked is not None for one in (self, other)):
            made.unchecked = made.like(lambda: (unchecked(self) * unchecked(other)).held)  # if it is read
        return made

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Number:
        if isinstance(other, Number):
            return self.plan.quotient(self, other)
        numbers = numbers_of(other)
        if (numbers == 0).any():
            raise PlanError(f"{line()}: a division by zero")
        return self * (1 / numbers)

    def __rtruediv__(self, other: Any) -> Number:
        made: Number = self.plan.reciprocal(self) * other
        return made

    def __pow__(self, power: int) -> Number:
        if isinstance(power, bool) or not isinstance(power, int) or not 1 <= power <= 64:
            raise PlanError(f"{line()}: a power is a whole number from 1 to 64, not {power!r:.40}")
        if power < 4:
            return self if power == 1 else self ** (power - 1) * self
        half = self ** (power // 2)
        return half * half if power % 2 == 0 else half * half * self

    def __abs__(self) -> Number:
        made = (self * (1 - 2 * (self < 0))).held
        most = float(made.facts.reach.max(initial=0.0))
        return self.like(Held.of(made.value, made.unit, made.facts.within(0.0, most)))

    def __matmul__(self, other: Any) -> Number:
        return self.plan.dot(self, other)

    def __rmatmul__(self, other: Any) -> Number:
        return self.plan.dot(other, self)

    # -- comparisons -----------------------------------------------------------------------------------------

    def __lt__(self, other: Any) -> Number:
        return self._negative(self - other)

    def __gt__(self, other: Any) -> Number:
        return self._negative(-self + other)

    def __ge__(self, other: Any) -> Number:
        return ~self._negative(self - other)

    def __le__(self, other: Any) -> Number:
        return ~self._negative(-self + other)

    def __eq__(self, other: object) -> Number:  # type: ignore[override]
        return (self - other)._tested(lambda value: value.is_zero())

    def __ne__(self, other: object) -> Number:  # type: ignore[override]
        return ~(self == other)

    def __invert__(self) -> Number:
        self.require_bits("~")
        return 1 - self

    def __and__(self, other: Any) -> Number:
        self.require_bits("&")
        made: Number = self * self._conditions(other)
        return made

    __rand__ = __and__

    def __or__(self, other: Any) -> Number:
        self.require_bits("|")
        made: Number = ~(~self & (1 - self._conditions(other)))
        return made

    __ror__ = __or__

    def _conditions(self, given: Any) -> Any:
        """Another side of `&` and `|`: secret zeros and ones, or public ones."""
        if isinstance(given, Number):
            given.require_bits("& or |")
            return given
        numbers = numbers_of(given)
        if not np.isin(numbers, (0.0, 1.0)).all():
            raise PlanError(f"{line()}: & and | combine conditions, and {given!r:.40} is none")
        return numbers

    def _negative(self, difference: Number) -> Number:
        return difference._tested(lambda value: value.is_negative())

    def _tested(self, test: Callable[[Value], Value]) -> Number:
        """Zeros and ones, by a test of what is held: numbers within their errors may come out either way."""
        held = self.held
        value, shape = held.value, held.value.shape
        if len(shape) == 1:
            bits = test(value).to_ring()
        elif self.size <= held.builder.tile_rows:
            bits = test(value.reshape(self.size)).to_ring().reshape(*shape)
        else:
            rows = [test(value.select([row]).squeeze()).to_ring() for row in range(int(shape[0]))]
            bits = concatenate([row.reshape(1, *row.shape) for row in rows])
        return self.like(Held.of(bits, 1.0 if len(shape) == 1 else [[1.0]], bits_facts(len(shape))))

    def require_bits(self, operator: str) -> None:
        """Raise PlanError unless these are zeros and ones, as comparisons give."""
        facts = self.held.facts
        whole = (facts.low >= 0).all() and (facts.high <= 1).all() and (facts.error == 0).all()
        if not (whole and (self.held.unit == 1).all()):
            raise PlanError(f"{line()}: {operator} combines conditions, and this is a number {told(facts)}")

    # -- sums ------------------------------------------------------------------------------------------------

    def sum(self, axis: int | None = None) -> Number:
        """Sum of all elements, or along an axis."""
        places = self._axes(axis)
        if self._factors and self.ndim == 1:
            x, y = (as_row(one) for one in self._factors)
            if x.value.shape == y.value.shape:
                made = arithmetic.dot(x, y)
                return self.like(as_scalar(made), (), rows=self.rows.without(0, self.size))
        found = self
        for place in places:
            found = found._summed(place)
        return found

    def mean(self, axis: int | None = None) -> Number:
        """Mean of all elements, or along an axis; its `self - mean` is known to be centred."""
        places = self._axes(axis)
        count = math.prod(self.shape[one] for one in places)
        if count == 0:
            raise PlanError(f"{line()}: a mean of no elements is not defined")
        if len(places) == 1 and not self._factors and self.is_last(places[0]):
            made = self._over_rows(arithmetic.mean, places[0])
            made.mean_of = self._key()  # told when it is subtracted
            return made
        return self.sum(axis) / count

    def var(self, axis: int | None = None) -> Number:
        """Variance of all elements, or along an axis: the mean square about the mean, over their number."""
        if self.centred and (self.ndim == 1 or (axis is not None and self.is_last(self._axes(axis)[0]))):
            return (self * self).mean(axis)
        mean = self.mean(axis)
        about = self - (mean.column() if axis is not None and self._axes(axis) == [1] else mean)
        return (about * about).mean(axis)

    def _axes(self, axis: int | None) -> list[int]:
        if axis is None:
            return list(range(self.ndim))[::-1]
        whole = isinstance(axis, int | np.integer) and not isinstance(axis, bool)
        if not whole or not -self.ndim <= axis < self.ndim:
            raise PlanError(f"{line()}: a number of shape {self.shape} has no axis {axis!r:.20}")
        return [int(axis) % self.ndim]

    def is_last(self, axis: int) -> bool:
        """Whether a logical axis lies along the last one."""
        return self.ndim == 1 or (axis == 0) == self.flipped

    def _summed(self, axis: int) -> Number:
        if self.is_last(axis):
            return self._over_rows(arithmetic.total, axis)
        made = arithmetic.total_columns(self.held)
        shape = tuple(dim for place, dim in enumerate(self.shape) if place != axis)
        return self.like(made, shape, rows=self.rows.without(axis, self.shape[axis]))

    def _over_rows(self, operation: Callable[[Held], Held], axis: int) -> Number:
        shape = tuple(dim for place, dim in enumerate(self.shape) if place != axis)
        return self.like(operation(self.held), shape, rows=self.rows.without(axis, self.shape[axis]))

    def _key(self) -> object:
        """What tells this number from others of the plan."""
        return None if self._held is None else (self._held.value.ref, self._held.unit.tobytes())

    # -- shape -----------------------------------------------------------------------------------------------

    @property
    def T(self) -> Number:  # noqa: N802 - NumPy's name
        """The transpose: free."""
        if self.ndim < 2:
            return self
        return self.like(self.held, self.shape[::-1], flipped=not self.flipped, rows=self.rows.turned())

    def column(self) -> Number:
        """A vector `(d,)` as a matrix `(d, 1)`, as NumPy's `x[:, None]`."""
        if self.ndim != 1:
            raise PlanError(f"{line()}: a column is made of a vector, not of shape {self.shape}")
        return self.like(as_row(self.held), (self.shape[0], 1), flipped=True, rows=self.rows)

    def __getitem__(self, key: Any) -> Number:
        return self.plan.part(self, key)

    # -- bounds ----------------------------------------------------------------------------------------------

    def within(self, low: float, high: float, *, check: bool = True) -> Number:
        """The same between bounds that nothing proves.

        With `check`, elements beyond them are put inside, and whatever rests on one of them is NaN when
        it is revealed, of which its receiver is told a bit; about 11 rounds, but what divides by the number
        does not wait for these. Without, it is your word: should it not hold, results are wrong without a
        sign, and with protocols whose masks are no larger than bounds say, nodes may see more than random
        numbers.
        """
        low, high = bounds_of(low, high)
        facts = self.held.facts
        if (facts.low >= low).all() and (facts.high <= high).all():
            return self
        if not check:
            return self.like(Held.of(self.held.value, self.held.unit, facts.within(low, high)))
        return self.plan.checked(self, low, high)

    # -- out -------------------------------------------------------------------------------------------------

    def reveal(self, name: str, to: str = "analyst", *, kind: DisclosureClass | None = None) -> None:
        """Have a receiver outside told the number, under a name; `Formulas.revealed` has it after the run.

        `kind` is its class of disclosure: "figure" unless you say, or "rows" of what has an element for each
        row of a table, or rests on one row. Where the number rests on checks, the receiver also learns
        whether they held. Raises SchemaError for rows of a table whose owner set a minimum count, or fewer of
        them picked by place.
        """
        if kind is not None and kind not in CLASSES:
            raise PlanError(
                f"{line()}: kind={kind!r:.40} is no class of disclosures; say one of {', '.join(CLASSES)}"
            )
        if (self.rows.axes or self.rows.short) and self.plan.least > 1:
            few = f", and this one on {self.rows.fewest}" if self.rows.short else ""
            raise SchemaError(
                f"{line()}: owners allow figures that rest on at least {self.plan.least} rows, not rows{few}"
            )
        self.plan.note_reveal(self, name, to, kind or ("rows" if self.rows.told else "figure"))

    @takes(readers=READERS, days=DAYS)
    def save(self, name: str, *, readers: Sequence[str] = (), days: float | None = None) -> None:
        """Have the nodes keep the number, secret, for `plan.load(lake.number(name))`. Up to 4 rounds.

        It takes the place of one of yours of that name. Where nodes know members, `readers` are those who may
        use it besides you, and it is forgotten after so many `days`. Checks that it rests on are kept with
        it. Discloses its shape, scale and bound. Raises PlanError where too few digits would be left.
        """
        self.plan.note_save(self, name, readers, days)

    def _beside_public(self, other: Any) -> tuple[Held, Reals, Shape, bool]:
        """This number and public ones, in the orientation of the result, whose shape is returned too."""
        numbers = numbers_of(other)
        shape = broadcast(self.shape, numbers.shape)
        flipped = self.flipped if self.ndim == 2 else False
        held = turned_to(self, len(shape), flipped)
        if numbers.ndim < len(shape):
            numbers = numbers.reshape((1,) * (len(shape) - numbers.ndim) + numbers.shape)
        if flipped and numbers.ndim == 2:
            numbers = numbers.T
        return held, np.atleast_1d(numbers), shape, flipped


def unchecked(x: Any) -> Any:
    """A number before what breaks a bound was put inside; what is public as it is."""
    return x if not isinstance(x, Number) or x.unchecked is None else x.unchecked


def bits_facts(axes: int) -> Facts:
    """Of zeros and ones with so many axes."""
    return BIT if axes == 1 else BIT.map(lambda one: one[None])


def secret(given: Any, what: str) -> Number:
    """A secret number. Raises PlanError for anything else."""
    if not isinstance(given, Number):
        raise PlanError(
            f"{line()}: {what} is of secret numbers, not of a {type(given).__name__}; for public ones, there "
            "is NumPy"
        )
    return given


def bounds_of(low: Any, high: Any) -> tuple[float, float]:
    """Two public numbers, the first no larger. Raises PlanError."""
    ends = [numbers_of(one) for one in (low, high) if not isinstance(one, Number)]
    if len(ends) < 2 or any(one.ndim for one in ends) or not ends[0] <= ends[1]:
        raise PlanError(
            f"{line()}: bounds are two public numbers, the first no larger, not {low!r:.40}, {high!r:.40}"
        )
    return float(ends[0]), float(ends[1])
