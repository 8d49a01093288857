"""Dates taken apart: years, months, days and ages, of days and seconds that nobody sees.

A calendar is divisions by public numbers, rounded down. `x` whole, `floor((a x + b) / m)` is the nearest
integer to `(a x + b + 1/2) / m - 1/2`, which is never near a half of the way: at least `1 / 2m` off it. So
one product with a public factor and one `nearest` give it exactly, about 9 rounds. Years begin in March here,
where the leap day is the last (Hinnant, chrono-compatible low-level date algorithms, 2013).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import numpy as np

from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import Public, whole_numbers
from tercet.ml.draft import Draft
from tercet.ml.meanings import CLOCK_ORIGIN, EPOCH, Code, Meaning
from tercet.ml.operands import FACTOR_BITS, term_of, text_of
from tercet.plans import Value

if TYPE_CHECKING:
    from tercet.ml.expressions import Expression

ERA_YEAR = 1600
"""Years and their leap days are counted from the first of March of this one, a multiple of 400."""
ERA_DAY = int(np.datetime64("1600-03-01", "D").astype(int))
CENTURIES, FOUR_YEARS, FIVE_MONTHS = 146097, 1461, 153
"""Days of 400 years, of 4, and of five months from March or August on."""
MOST_DAYS = 1 << 26
"""Days before or after 1970 that can be taken apart, by factors of 30 bits."""
DAY_SECONDS = 86400
CLOCK_DAY = int((CLOCK_ORIGIN - EPOCH).astype("m8[D]").astype(int))
WEEKDAY_OF_EPOCH = 3
"""1970-01-01 was a Thursday; weeks begin on Monday, as in pandas."""


@attrs.frozen(eq=False)
class Whole:
    """A whole number in every row, with public bounds."""

    value: Value
    low: int
    high: int

    def __add__(self, other: Whole | int) -> Whole:
        if isinstance(other, int):
            return Whole(self.value + other, self.low + other, self.high + other)
        return Whole(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: int) -> Whole:
        ends = sorted((self.low * factor, self.high * factor))
        return Whole(self.value * factor, *ends)

    def __sub__(self, other: Whole) -> Whole:
        return self + other * -1

    def within(self, low: int, high: int) -> Whole:
        """The same, known to lie between others."""
        low, high = max(low, self.low), min(high, self.high)
        value = self.value.bounded(max(abs(low), abs(high), 1), "a part of a date")
        return Whole(value, low, high)

    def over(self, m: int) -> Whole:
        """Divided by a public number and rounded down, exactly. 9 rounds."""
        low, high = self.low // m, self.high // m
        if low == high:
            return Whole(self.value * 0 + low, low, high)
        exact = m & (m - 1) == 0
        bits = m.bit_length() if exact else FACTOR_BITS + m.bit_length() - 2
        units = round(2**bits / m)
        base = (self.low + self.high) // 2 // m
        # The factor is off by half a unit: that times the number, and half a unit more, may not be 1/2m.
        reach = max(self.high - base * m, base * m - self.low) + 1
        if not exact and reach * m >= 2**bits:
            raise PlanError(
                f"whole numbers between {self.low} and {self.high} are too large to be divided by {m}"
            )
        x = self.value + -base * m
        constant = x.builder.constant(0.5 / m - 0.5, scale=bits)
        nearest = ((x * units).shifted(bits) + constant).nearest(0)
        return Whole(nearest + base, low, high).within(low, high)

    def at_least(self, number: int) -> Whole:
        """One where it is at least a public number, else zero. 8 rounds."""
        below = (self.value - number).is_negative().to_ring()
        return Whole(below * -1 + 1, 0, 1).within(0, 1)


@attrs.frozen(eq=False)
class Civil:
    """Year, month and day of a number of days since 1970."""

    days: Whole

    @functools.cached_property
    def _century(self) -> tuple[Whole, Whole]:
        """Centuries since the era, and the day within one."""
        since = self.days + -ERA_DAY
        century = (since * 4 + 3).over(CENTURIES)
        return century, (since - (century * CENTURIES).over(4)).within(0, CENTURIES // 4)

    @functools.cached_property
    def _year(self) -> tuple[Whole, Whole]:
        """Years within the century, beginning in March, and the day within one."""
        _, day = self._century
        year = (day * 4 + 3).over(FOUR_YEARS).within(0, 99)
        return year, (day - (year * FOUR_YEARS).over(4)).within(0, 365)

    @functools.cached_property
    def _month(self) -> Whole:
        """Months since March."""
        return (self._year[1] * 5 + 2).over(FIVE_MONTHS).within(0, 11)

    @functools.cached_property
    def _late(self) -> Whole:
        """One in January and February, which belong to the next year."""
        return self._month.at_least(10)

    def year(self) -> Whole:
        """The year."""
        late = self._year[1].at_least(306)  # days from March to the end of December
        return self._century[0] * 100 + self._year[0] + late + ERA_YEAR

    def month(self) -> Whole:
        """The month, 1 to 12."""
        return (self._month + self._late * -12 + 3).within(1, 12)

    def day(self) -> Whole:
        """The day of the month, 1 to 31."""
        return (self._year[1] - (self._month * FIVE_MONTHS + 2).over(5) + 1).within(1, 31)

    def day_of_week(self) -> Whole:
        """The day of the week, Monday being 0."""
        since = self.days + WEEKDAY_OF_EPOCH
        return (since - since.over(7) * 7).within(0, 6)

    def birthday(self) -> Whole:
        """Month and day in one number, which grows within a year."""
        return self.month() * 32 + self.day()


@attrs.frozen(eq=False)
class Clock:
    """Date and time of day of a number of seconds since 2010."""

    seconds: Whole

    @functools.cached_property
    def _day(self) -> Whole:
        half = 128  # a power of two that divides a day: what is left has fewer bits
        return self.seconds.over(half).over(DAY_SECONDS // half)

    def date(self) -> Whole:
        """Days since 1970."""
        return self._day + CLOCK_DAY

    def _second(self) -> Whole:
        return (self.seconds - self._day * DAY_SECONDS).within(0, DAY_SECONDS - 1)

    def hour(self) -> Whole:
        """The hour, 0 to 23."""
        return self._second().over(3600)

    def minute(self) -> Whole:
        """The minute, 0 to 59."""
        second = self._second()
        return (second - second.over(3600) * 3600).within(0, 3599).over(60)


_OF_DATES: dict[str, Callable[[Civil], Whole]] = {
    "year": Civil.year,
    "month": Civil.month,
    "day": Civil.day,
    "day_of_week": Civil.day_of_week,
}
_OF_TIMES: dict[str, Callable[[Clock], Whole]] = {
    "date": Clock.date,
    "hour": Clock.hour,
    "minute": Clock.minute,
}
PARTS = (*_OF_DATES, *_OF_TIMES)
"""What a date or a time has; the last three, times only."""
_ENDS = {"month": (1, 12), "day": (1, 31), "day_of_week": (0, 6), "hour": (0, 23), "minute": (0, 59)}


def whole(draft: Draft, x: Expression) -> Whole:
    """Values that are whole, with their public bounds."""
    low, high = math.floor(x.public.low), math.ceil(x.public.high)
    value = draft.value(x)
    if value.scale:
        value = value.nearest(0)
    return Whole(value.bounded(x.public.reach, f"bounds of {x.text}"), low, high)


def _days(draft: Draft, x: Expression) -> Whole:
    found = whole(draft, x)
    return found if x.kind == "date" else Clock(found).date()


def _day_ends(x: Expression) -> tuple[int, int]:
    low, high = math.floor(x.public.low), math.ceil(x.public.high)
    if x.kind == "date":
        if max(-low, high) > MOST_DAYS:
            raise SchemaError(
                f"{x.text} could be a date further away than calendars are computed for; clip it first, as "
                "in .clip('1900-01-01', '2100-12-31')"
            )
        return low, high
    return low // DAY_SECONDS + CLOCK_DAY, high // DAY_SECONDS + CLOCK_DAY


def _year_of(day: int) -> int:
    return int(np.datetime64(day, "D").astype("M8[Y]").astype(int)) + 1970


def calendar(x: Expression, part: str) -> Expression:
    """A part of a date or a time, by its name among `PARTS`. PlanError for others."""
    Calendar(x)  # of what is no date there is none
    known = PARTS if x.kind == "datetime" else tuple(_OF_DATES)
    if not isinstance(part, str) or part not in known:
        raise PlanError(f"{x.text} is a {x.kind} and has no {part!r}; it has {', '.join(known)}")
    text, (first, last) = f"{term_of(x)}.dt.{part}", _day_ends(x)
    ends = (_year_of(first), _year_of(last)) if part == "year" else _ENDS.get(part, (first, last))

    def write(draft: Draft) -> Value:
        if part in _OF_TIMES:
            return _OF_TIMES[part](Clock(whole(draft, x))).value
        return _OF_DATES[part](Civil(_days(draft, x))).within(*ends).value

    if part == "date":
        return attrs.evolve(x.derived(text, Public.of_integers(*ends), write), meaning=Meaning("date"))
    return x.derived(text, whole_numbers(*ends), write)


def age(x: Expression, at: Expression | Code) -> Expression:
    """Whole years from the date x to another, negative before it; about 60 rounds.

    Who is born on the 29th of February is a year older on the first of March where there is no such day.
    """
    if x.kind != "date":
        raise SchemaError(f"{x.text} is {x.kind}, and ages are those of dates")
    if not isinstance(at, Code) and getattr(at, "kind", None) != "date":
        raise SchemaError(f"{x.text}: ages are at a date, as in .dt.age('2024-12-31'), or a column of dates")
    text = f"{term_of(x)}.dt.age({text_of(at)})"
    first, last = _day_ends(x)
    others = [at] if not isinstance(at, Code) else []
    if isinstance(at, Code):
        low = high = int(at)
    else:
        low, high = _day_ends(at)
    ends = _year_of(low) - _year_of(last) - 1, _year_of(high) - _year_of(first)

    def write(draft: Draft) -> Value:
        mine = Civil(_days(draft, x))
        if isinstance(at, Code):
            day = np.datetime64(int(at), "D").item()
            years, birthday = mine.year() * -1 + day.year, mine.birthday() * -1 + (32 * day.month + day.day)
        else:
            theirs = Civil(_days(draft, at))
            years, birthday = theirs.year() - mine.year(), theirs.birthday() - mine.birthday()
        early = birthday.at_least(0) * -1 + 1
        return (years - early).within(*ends).value

    return x.derived(text, whole_numbers(*ends), write, *others)


class Calendar:
    """The parts of a date or a time, as pandas' `.dt` has them: each is a column of whole numbers.

    `year`, `month`, `day`, `day_of_week` (Monday is 0); of times also `date`, `hour` and `minute`. Each takes
    20 to 60 rounds.
    """

    def __init__(self, x: Expression) -> None:
        if x.kind not in ("date", "datetime"):
            raise SchemaError(
                f"{x.text} is {x.kind}, not a date; its owner can say so at upload, with "
                f'types={{"{x.text}": "date"}}'
            )
        self._x = x

    @property
    def year(self) -> Expression:
        """The year."""
        return self._x.calendar("year")

    @property
    def month(self) -> Expression:
        """The month, 1 to 12."""
        return self._x.calendar("month")

    @property
    def day(self) -> Expression:
        """The day of the month, 1 to 31."""
        return self._x.calendar("day")

    @property
    def day_of_week(self) -> Expression:
        """The day of the week, from 0 for Monday to 6."""
        return self._x.calendar("day_of_week")

    @property
    def date(self) -> Expression:
        """The date of a time."""
        return self._x.calendar("date")

    @property
    def hour(self) -> Expression:
        """The hour of a time, 0 to 23."""
        return self._x.calendar("hour")

    @property
    def minute(self) -> Expression:
        """The minute of a time, 0 to 59."""
        return self._x.calendar("minute")

    def age(self, at: object) -> Expression:
        """Whole years up to a date, which is public or a column: ages of dates of birth."""
        return self._x.age(at)
