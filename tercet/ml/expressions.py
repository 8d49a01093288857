"""Column arithmetic: what a statistician writes on columns that nobody may see.

`table["age"] * table["bmi"]` is an `Expression`: lazy, of one table, with public bounds (`tercet.ml.bounds`)
and secret values. It is a small tree of closures: each knows its public facts at once, so that impossible
ones are refused where they are written, and how to write itself into a plan. Nothing is computed before
`Table.assign` or `Table.filter` makes that plan. Values inside it are unfinished, at whatever scale is exact
and free, and settle at their public scale where a product or the table needs them.

What is equal stays equal: every rounding is to the nearest and depends on the value alone, and comparisons
allow for what the stored numbers were rounded by, their `grain`. So `table["x"] / 10 == 0.3` holds where x is
3, and columns that two owners stored at different scales are equal where their numbers were.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from tercet.errors import PlanError, SchemaError
from tercet.ml import choices, column_functions, dates, views
from tercet.ml.bounds import BOOLEAN, Public, bounds, half_unit, joint, product_bounds
from tercet.ml.choices import require_condition, zeros
from tercet.ml.computations import Data
from tercet.ml.draft import GUARD_BITS, Draft, as_ring_units, rescaled, within
from tercet.ml.meanings import Meaning
from tercet.ml.operands import Number, factor_of, is_exact, log2_of, number_of, term_of, text_of
from tercet.ml.recorded import OPERATIONS, Made, listed, recorded
from tercet.ml.schema import INTEGER_BITS, Kind
from tercet.options import FILLER, FLAG, MANY, ONE_HOT, PREFIX, REFERENCE, takes
from tercet.plans import Value
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.table import Table

MOST_POWER = 8


@short_tracebacks
@attrs.frozen(eq=False)
class Expression:
    """A lazy secret column: arithmetic on the columns of one table, with pandas' operators.

    `+ - *` and comparisons take expressions and public numbers; `/` takes a public number, or an expression
    whose bounds exclude zero; `**` a whole number; `& | ^ ~` booleans. Nothing is computed or disclosed
    before `Table.assign` or `Table.filter`.

    `text` says how it was written, `public` what everyone knows of it, `sources` the columns that it reads,
    `missing` those among them that tell where it is missing: where any of its parts is. A condition on
    something missing is missing too, and a filter drops it. `meaning` is what its values stand for if they
    are labels or dates: these are compared with such, and not computed on as numbers.
    """

    table: Table
    text: str
    public: Public
    sources: frozenset[str]
    write: Callable[[Draft], Value] = attrs.field(repr=False)
    missing: frozenset[str] = frozenset()
    made: Made | None = attrs.field(default=None, repr=False)
    meaning: Meaning | None = None

    __repr__ = views.expression_text
    __array_ufunc__ = None  # so that numpy's numbers leave operators to us

    @classmethod
    def of(cls, table: Table, name: str) -> Expression:
        """A column of a table."""
        column = table.column(name)

        def write(draft: Draft) -> Value:
            (raw,) = table.raw(draft.builder, [name])
            return raw.squeeze().shifted(column.schema.scale)

        beside = [] if column.schema.missing is None else [column.schema.missing]
        made, meaning = Made("column", (name,), {}), column.schema.meaning
        return cls(table, name, Public.of(column), frozenset([name]), write, frozenset(beside), made, meaning)

    @property
    def kind(self) -> Kind:
        """What its values are, as of a column."""
        return self.public.kind if self.meaning is None else self.meaning.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """The public labels of a category, in the order of their codes; none of anything else."""
        return () if self.meaning is None else self.meaning.labels

    def to_data(self, *, fresh: bool = False) -> Data:  # noqa: ARG002 - an expression is what it is
        """How it was made, as nodes can make it again."""
        return {"$expression": [self.table.to_data(), listed(self)]}

    def __bool__(self) -> bool:
        raise PlanError(
            f"whether {text_of(self)} is secret, row by row; combine conditions with & | ~, and use them in "
            "table.filter or .where"
        )

    def __str__(self) -> str:
        return self.text

    def derived(
        self, text: str, public: Public, write: Callable[[Draft], Value], *others: Expression
    ) -> Expression:
        """A column that is made of this one and others, as `write` does in a plan. For other modules here."""
        for other in others:
            if other.table.keys.handle != self.table.keys.handle:
                raise SchemaError(
                    f"{self.text} is of table {self.table.name!r} and {other.text} of {other.table.name!r}, "
                    "whose rows are not the same ones; join the tables first and use columns of the joined "
                    "one"
                )
        sources = self.sources.union(*(other.sources for other in others))
        missing = self.missing.union(*(other.missing for other in others))
        if public.kind != "boolean" and any(one.public.checked for one in (self, *others)):
            public = attrs.evolve(public, checked=True)  # its bounds rest on theirs
        return Expression(self.table, text, public, sources, write, missing)

    def meaning_as(self, meaning: Meaning) -> Expression:
        """The same integers, which stand for something. Raises PlanError for what could be too large."""
        public = Public.of_integers(self.public.low, self.public.high)
        if public.reach > 2.0**INTEGER_BITS:
            raise PlanError(
                f"{self.text} could be a {meaning.kind} further away than there is room for; clip it first, "
                "as in .clip('2000-01-01', '2030-12-31')"
            )
        return attrs.evolve(self, public=public, meaning=meaning)

    # -- sums ------------------------------------------------------------------------------------------------

    def __add__(self, other: Expression | Number) -> Expression:
        return self._sum(other, 1)

    def __radd__(self, other: Number) -> Expression:
        return self._sum(other, 1)

    def __sub__(self, other: Expression | Number) -> Expression:
        return self._sum(other, -1)

    def __rsub__(self, other: Number) -> Expression:
        return self._scaled(-1.0, f"-{term_of(self)}")._sum(other, 1)

    def __neg__(self) -> Expression:
        return self._scaled(-1.0, f"-{term_of(self)}")

    def _sum(self, other: Expression | Number, sign: int) -> Expression:
        text = f"{text_of(self)} {'+' if sign > 0 else '-'} {term_of(other) if sign < 0 else text_of(other)}"
        mine = self.public
        if not isinstance(other, Expression):
            shift = sign * number_of(other, text)
            kind = joint([mine.kind, "integer" if shift.is_integer() else "real"])
            size = max(mine.size, log2_of(shift))
            ends = mine.low + shift, mine.high + shift
            public = bounds(kind, *ends, mine.spread, unit=mine.unit, size=size)
            # What is whole stays so on its way, also where the result is stored more coarsely.
            whole = kind == "integer" and public.scale >= -GUARD_BITS
            exact = whole or is_exact(shift, public.scale)
            grain = mine.grain + (0.0 if exact else half_unit(public.scale))
            public = attrs.evolve(public, grain=grain)

            def moved(draft: Draft) -> Value:
                value = draft.common(public.scale, self)[0]
                return value + draft.builder.constant(shift, scale=value.scale)

            return self.derived(text, public, moved)
        theirs = other.public
        ends = sign * theirs.low, sign * theirs.high
        public = bounds(
            joint([mine.kind, theirs.kind]),
            mine.low + min(ends),
            mine.high + max(ends),
            mine.spread + theirs.spread,
            unit=max(mine.unit, theirs.unit),
            size=max(mine.size, theirs.size),
            grain=mine.grain + theirs.grain,
        )

        def write(draft: Draft) -> Value:
            x, y = draft.common(public.scale, self, other)
            return x + y if sign > 0 else x - y

        return self.derived(text, public, write, other)

    # -- products --------------------------------------------------------------------------------------------

    def __mul__(self, other: Expression | Number) -> Expression:
        text = f"{term_of(self)} * {term_of(other)}"
        if not isinstance(other, Expression):
            return self._scaled(number_of(other, text), text)
        return self._product(other, text)

    def __rmul__(self, other: Number) -> Expression:
        text = f"{text_of(other)} * {term_of(self)}"
        return self._scaled(number_of(other, text), text)

    def _product(self, other: Expression, text: str, low: float = -math.inf) -> Expression:
        a, b = self.public, other.public
        if a.kind == b.kind == "boolean":
            return self.derived(
                text, BOOLEAN, lambda draft: draft.settled(self) * draft.settled(other), other
            )
        public = product_bounds(a, b, low)

        def write(draft: Draft) -> Value:
            product = draft.settled(self) * draft.settled(other)
            value = rescaled(product, public.scale)
            return draft.inside(value, public.reach) if public.checked else value

        return self.derived(text, public, write, other)

    def _scaled(self, factor: float, text: str) -> Expression:
        """The column times a public number, to 30 significant bits; whole numbers exactly."""
        units, bits = factor_of(factor)
        exact, mine = math.ldexp(units, -bits), self.public
        ends, grown = [mine.low * exact, mine.high * exact], log2_of(exact)
        kind = joint([mine.kind, "integer" if exact.is_integer() else "real"])
        public = bounds(
            kind,
            min(ends),
            max(ends),
            mine.spread * abs(exact),
            unit=mine.unit + grown,
            size=mine.size + grown,
            grain=mine.grain * abs(exact),
        )
        if exact != factor:
            public = public.rounded(public.grain)

        def write(draft: Draft) -> Value:
            if abs(units) == 1:
                return (draft.value(self) if units > 0 else draft.value(self) * -1).shifted(bits)
            product = (draft.settled(self) * units).shifted(bits)
            # A factor that lacks digits makes digits that mean nothing, and would tell equal numbers apart.
            return product if exact == factor else rescaled(product, public.scale)

        return self.derived(text, public, write)

    def __pow__(self, power: int) -> Expression:
        if isinstance(power, bool) or not isinstance(power, int) or not 1 <= power <= MOST_POWER:
            raise PlanError(f"{text_of(self)} ** {power!r}: a power is a whole number from 1 to {MOST_POWER}")
        text = f"{term_of(self)} ** {power}"
        if power == 1:
            return self
        half = self if power < 4 else self ** (power // 2)
        square = half._product(half, text, low=0.0)
        return square._product(self, text) if power % 2 else square

    # -- quotients -------------------------------------------------------------------------------------------

    def __truediv__(self, other: Expression | Number) -> Expression:
        text = f"{term_of(self)} / {term_of(other)}"
        if isinstance(other, Expression):
            return self._quotient(other, text)
        divisor = number_of(other, text)
        if divisor == 0:
            raise PlanError(f"{text} divides by zero")
        if math.isinf(1 / divisor):
            raise PlanError(f"{text} divides by a number that is as good as zero")
        return self._scaled(1 / divisor, text)

    def __rtruediv__(self, other: Number) -> Expression:
        text = f"{text_of(other)} / {term_of(self)}"
        return self.constant(number_of(other, text))._quotient(self, text)

    def _quotient(self, divisor: Expression, text: str) -> Expression:
        """The nearest to the quotient as stored; the divisor's bounds must exclude zero. About 35 rounds."""
        if divisor.public.high < 0:
            return column_functions.quotient_of(-self, -divisor, text)
        return column_functions.quotient_of(self, divisor, text)

    # -- conditions ------------------------------------------------------------------------------------------

    def __lt__(self, other: Expression | Number) -> Expression:
        return self._compare(other, "<")

    def __gt__(self, other: Expression | Number) -> Expression:
        return self._compare(other, ">")

    def __le__(self, other: Expression | Number) -> Expression:
        return attrs.evolve(~self._compare(other, ">"), text=f"{term_of(self)} <= {term_of(other)}")

    def __ge__(self, other: Expression | Number) -> Expression:
        return attrs.evolve(~self._compare(other, "<"), text=f"{term_of(self)} >= {term_of(other)}")

    def __eq__(self, other: Expression | Number) -> Expression:  # type: ignore[override]
        return self._equals(other, "==")

    def __ne__(self, other: Expression | Number) -> Expression:  # type: ignore[override]
        return attrs.evolve(~self._equals(other, "=="), text=f"{term_of(self)} != {term_of(other)}")

    def _compare(self, other: Expression | Number, sign: str) -> Expression:
        """`self < other` or `self > other`, as far as the stored numbers tell. 8 rounds, or 17."""
        text = f"{term_of(self)} {sign} {term_of(other)}"
        if isinstance(other, Expression):

            def secret(draft: Draft) -> Value:
                apart, alike = draft.difference(self, other)
                return ((apart if sign == "<" else apart * -1) + alike).is_negative().to_ring()

            return self.derived(text, BOOLEAN, secret, other)
        number = number_of(other, text)

        def public(draft: Draft) -> Value:
            value = draft.value(self)
            least, most = draft.equal_units(self, number)
            below, above = value - as_ring_units(least, value), value * -1 + as_ring_units(most, value)
            return (below if sign == "<" else above).is_negative().to_ring()

        return self.derived(text, BOOLEAN, public)

    def _equals(self, other: Expression | Number, sign: str) -> Expression:
        """`self == other`, as far as the stored numbers tell. 8 rounds, or 17."""
        text = f"{term_of(self)} {sign} {term_of(other)}"
        if isinstance(other, Expression):

            def write(draft: Draft) -> Value:
                apart, alike = draft.difference(self, other)
                return within(apart, -math.ldexp(alike, apart.scale), math.ldexp(alike, apart.scale))

            return self.derived(text, BOOLEAN, write, other)
        return attrs.evolve(self.isin([other]), text=text)

    @takes(numbers=MANY)
    def isin(self, numbers: Sequence[Number | str]) -> Expression:
        """Whether a value is one of some public numbers, as it is stored. 8 rounds; 0 of a condition."""
        return choices.isin(self, numbers)

    def between(self, left: Expression | Number, right: Expression | Number) -> Expression:
        """Whether values lie between two ends, which count as between. A round after two comparisons."""
        return (self >= left) & (self <= right)

    @takes(categories=ONE_HOT, prefix=PREFIX, reference=REFERENCE)
    def one_hot(
        self,
        categories: Sequence[Number | str] | None = None,
        *,
        prefix: str | None = None,
        reference: Number | str | None = None,
    ) -> dict[str, Expression]:
        """A condition for each of some public categories, by name: `grade_1`, `grade_2`, ...

        For `table.assign(**table["grade"].one_hot([1, 2, 3]))`. A category, or a boolean, needs no list: it
        has all of its labels. The `reference`, with which the others are compared, is left out. Names begin
        with `prefix`, by default what the expression is written as. Raises SchemaError for categories that
        occur twice, for a reference that is none of them, and for names that the table has already.
        """
        return choices.one_hot(self, categories, prefix, reference)

    # -- functions -------------------------------------------------------------------------------------------

    def abs(self) -> Expression:
        """Absolute values, exact. 9 rounds."""
        return column_functions.absolute(self)

    def __abs__(self) -> Expression:
        return self.abs()

    def round(self, decimals: int = 0) -> Expression:
        """Rounded to so many decimals, halves up; whole numbers where that is 0. 9 rounds.

        Of the stored number: as in floating point, 0.15 may lie on either side of a half.
        """
        return column_functions.rounded(self, decimals)

    def sqrt(self) -> Expression:
        """The square root of what cannot be negative, within 4e-6 of itself. About 65 rounds.

        As every function here, before it is rounded to be stored. Raises SchemaError where public bounds let
        it be negative, or span more than 30 octaves.
        """
        return column_functions.root(self)

    def log(self) -> Expression:
        """The natural logarithm of what is surely positive, within 6e-6. About 55 rounds.

        Raises SchemaError where public bounds let it be zero or less, or span more than 30 octaves.
        """
        return column_functions.logarithm(self)

    def exp(self) -> Expression:
        """The exponential, within 6e-6 of itself, over a range of at most 32. About 50 rounds.

        Raises SchemaError where public bounds are further apart.
        """
        return column_functions.exponential(self)

    @takes(right=FLAG)
    def cut(
        self, bins: Sequence[Number], *, labels: Sequence[str] | None = None, right: bool = True
    ) -> Expression:
        """Bands between public edges, as a category, like pandas' `cut`: exact. 8 rounds.

        Bands have their right edge, or their left one if not `right`. By default labels read `(18, 65]`. The
        outer edges may be infinite; else public bounds have to lie between them, or SchemaError is raised.
        """
        return column_functions.cut(self, bins, labels, right=right)

    def banded(self, edges: Sequence[Number], labels: Sequence[str], right: bool) -> Expression:
        """Bands between inner edges; see `cut`."""
        return column_functions.banded(self, edges, labels, right)

    # -- dates -----------------------------------------------------------------------------------------------

    @property
    def dt(self) -> dates.Calendar:
        """Parts of a date or a time: `.dt.year`, `.dt.month`, `.dt.age(...)`. SchemaError for others."""
        return dates.Calendar(self)

    def calendar(self, part: str) -> Expression:
        """A part of a date or a time by its name; see `dt`."""
        return dates.calendar(self, part)

    def age(self, at: Any) -> Expression:
        """Whole years from this date to another; see `dt`."""
        return dates.age(self, at)

    def recoded(self, labels: Sequence[str]) -> Expression:
        """A category with other labels, among which all of its own are: 8 rounds, or none if places stay.

        Raises SchemaError if a label is left out, since nothing would stand for its rows.
        """
        return choices.recoded(self, labels)

    def __and__(self, other: Expression) -> Expression:
        return self._logic(other, "&")

    def __or__(self, other: Expression) -> Expression:
        return self._logic(other, "|")

    def __xor__(self, other: Expression) -> Expression:
        return self._logic(other, "^")

    def _logic(self, other: Expression, sign: str) -> Expression:
        """AND, OR or XOR of two conditions. 1 round."""
        text = f"{term_of(self)} {sign} {term_of(other)}"
        for side in (self, other):
            require_condition(side, text)

        def write(draft: Draft) -> Value:
            x, y = draft.settled(self), draft.settled(other)
            both = x * y
            combined = {"&": both, "|": x + y - both, "^": x + y - both * 2}
            return combined[sign].bounded(1.0, "a condition")

        return self.derived(text, BOOLEAN, write, other)

    def __invert__(self) -> Expression:
        require_condition(self, f"~{term_of(self)}")

        def write(draft: Draft) -> Value:
            return (draft.settled(self) * -1 + 1).bounded(1.0, "a condition")

        return self.derived(f"~{term_of(self)}", BOOLEAN, write)

    def constant(self, number: float) -> Expression:
        """A public number in every row."""
        kind: Kind = "integer" if number.is_integer() else "real"
        public = bounds(kind, number, number, 0.0, unit=-math.inf, size=log2_of(number))
        if not is_exact(number, public.scale):
            public = public.rounded(0.0)

        def write(draft: Draft) -> Value:
            zero, value = draft.settled(self) * 0, draft.builder.constant(number, scale=public.scale)
            return zero.shifted(public.scale - zero.scale) + value

        return self.derived(text_of(number), public, write)

    # -- choices ---------------------------------------------------------------------------------------------

    def clip(self, lower: Number | None = None, upper: Number | None = None) -> Expression:
        """Values below `lower` become `lower`, those above `upper` become `upper`. 9 rounds.

        Makes public bounds tight, so that what follows keeps its digits and needs no check.
        """
        return choices.clip(self, lower, upper)

    def isna(self) -> Expression:
        """Whether a value is missing; known to be false, and free, where none can be."""
        if not (flags := [Expression.of(self.table, name) for name in sorted(self.missing)]):
            return self.derived(f"{term_of(self)}.isna()", BOOLEAN, lambda draft: zeros(draft, self))
        found = functools.reduce(operator.or_, flags)
        return attrs.evolve(found, text=f"{term_of(self)}.isna()", sources=found.sources | self.sources)

    @takes(number=FILLER)
    def fillna(self, number: Number) -> Expression:
        """A public number where a value is missing. 1 round."""
        filled = self.where(~self.isna(), number) if self.missing else self
        return attrs.evolve(filled, text=f"{term_of(self)}.fillna({text_of(number)})", missing=frozenset())

    def where(self, condition: Expression, other: Expression | Number) -> Expression:
        """Values where a condition holds, `other` elsewhere. 1 round after those of its parts."""
        return choices.where(self, condition, other)

    for _name in OPERATIONS:
        locals()[_name] = recorded(locals()[_name])
