"""Meanings: what stored integers stand for, where that is no number.

A category is stored as the place of its label among public ones, a date as the days since 1970-01-01, a time
as the seconds since 2010-01-01. Such columns are compared and taken apart, and not computed on as if their
codes were numbers. Labels and dates, as people write them, become codes here, and codes become them again.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml.unseen import unseen_in

Symbolic = Literal["category", "date", "datetime"]
SYMBOLIC: tuple[Symbolic, ...] = ("category", "date", "datetime")
"""Kinds of columns whose stored integers stand for something else."""

MOST_LABELS = 1000
LONGEST_LABEL = 120
MIDNIGHT = "T00:00:00"
EPOCH = np.datetime64("1970-01-01", "s")
"""What days are counted from."""
CLOCK_ORIGIN = np.datetime64("2010-01-01", "s")
"""What seconds are counted from: those of 34 years before and after fit 30 bits."""
FIRST_DAY, LAST_DAY = (int(np.datetime64(day, "D").astype(int)) for day in ("1800-01-01", "2200-12-31"))
"""Dates that a column may hold."""
MOST_SECONDS = 1 << 30


class Code(float):
    """A label or a date as the number that stands for it, which reads as what it stands for."""

    text: str

    @classmethod
    def of(cls, number: float, text: str) -> Code:
        """A number, and how it reads."""
        made = cls(number)
        made.text = text
        return made


def check_labels(given: Any, where: str) -> tuple[str, ...]:
    """Labels as a tuple. Raises SchemaError for too many, for one twice, and for text that nobody can see."""
    labels = tuple(given) if isinstance(given, list | tuple) else ()
    if not 1 <= len(labels) <= MOST_LABELS:
        raise SchemaError(
            f"{where} has {len(labels)} labels; a category has 1 to {MOST_LABELS}, each a text that all may "
            "see, as in categories={'stage': ['I', 'II', 'III']}"
        )
    for label in labels:
        if not isinstance(label, str) or not 0 < len(label) <= LONGEST_LABEL:
            raise SchemaError(
                f"{where} has the label {label!r:.80}; a label is printable text of 1 to {LONGEST_LABEL} "
                "characters"
            )
        if (hidden := unseen_in(label)) is not None:
            raise SchemaError(
                f"{where} has the label {label!a:.80}, with {hidden} in it, which nobody can see or tell "
                "from others; a label is printable text"
            )
        if label != unicodedata.normalize("NFC", label).strip():
            raise SchemaError(
                f"{where} has the label {label!r}; a label has no space at either end and accents composed "
                "with their letters (NFC)"
            )
    if len(set(labels)) < len(labels):
        last = {label: place for place, label in enumerate(labels)}
        twice = next(label for place, label in enumerate(labels) if last[label] != place)
        raise SchemaError(f"{where} has the label {twice!r} twice; name each once")
    return labels


def day_of(given: Any, where: str) -> int:
    """The number of a day that is written as a date, its midnight, or text like 2024-12-31. SchemaError."""
    if isinstance(given, datetime) and given.isoformat().endswith(MIDNIGHT):
        given = given.date()
    elif isinstance(given, str):
        given = given.removesuffix(MIDNIGHT)
    if isinstance(given, datetime) or not isinstance(given, date | str):
        raise SchemaError(f"{where}: {given!r} is no date; write one as in '2024-12-31'")
    try:
        day = date.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as error:
        raise SchemaError(f"{where}: {given!r} is no date ({error}); write one as in '2024-12-31'") from error
    number = int(np.datetime64(day, "D").astype(int))
    if not FIRST_DAY <= number <= LAST_DAY:
        raise SchemaError(f"{where}: {day} is no day of the years 1800 to 2200, which dates are of")
    return number


def second_of(given: Any, where: str) -> int:
    """The number of a second that is written as a time, or as text like 2024-12-31T23:59. SchemaError."""
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as error:
        raise SchemaError(
            f"{where}: {given!r} is no time ({error}); write one as in '2024-12-31T23:59:00'"
        ) from error
    if isinstance(found, date) and not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)
    if not isinstance(found, datetime) or found.tzinfo is not None:
        raise SchemaError(f"{where}: {given!r} is no time without a zone; write '2024-12-31T23:59:00'")
    number = int((np.datetime64(found, "s") - CLOCK_ORIGIN).astype(int))
    if abs(number) > MOST_SECONDS:
        raise SchemaError(f"{where}: {found} is not within 34 years of 2010, which times are stored of")
    return number


@attrs.frozen
class Meaning:
    """What the integers of a column or an expression stand for; `labels` are those of a category."""

    kind: Symbolic
    labels: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[float, float]:
        """Bounds on codes that all columns of this meaning have."""
        if self.kind == "category":
            return 0.0, float(len(self.labels) - 1)
        return (FIRST_DAY, LAST_DAY) if self.kind == "date" else (-float(MOST_SECONDS), float(MOST_SECONDS))

    @functools.cached_property
    def places(self) -> Mapping[str, int]:
        """The code of each label; operations that nodes make anew look all of them up."""
        return {label: place for place, label in enumerate(self.labels)}

    def code(self, given: Any, where: str) -> Code:
        """The code of a label, date or time. Raises SchemaError for what is none."""
        if isinstance(given, Code):
            return given
        if self.kind == "category":
            if not isinstance(given, str) or given not in self.places:
                shown = ", ".join(map(repr, self.labels[:10])) + (", ..." if len(self.labels) > 10 else "")
                raise SchemaError(f"{where}: {given!r} is none of the labels {shown}")
            return Code.of(self.places[given], repr(given))
        number = day_of(given, where) if self.kind == "date" else second_of(given, where)
        return Code.of(number, repr(given if isinstance(given, str) else given.isoformat()))

    def decoded(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """What codes stand for: labels as objects, days as datetime64[D], times as datetime64[s]."""
        if self.kind == "category":
            # A false upload may have codes that are none; those have no label.
            known = np.array([*self.labels, None], object)
            places = np.where((codes >= 0) & (codes < len(self.labels)), codes, len(self.labels))
            return known[places]
        if self.kind == "date":
            return codes.astype("M8[D]")
        return CLOCK_ORIGIN + codes.astype("m8[s]")


def as_written(given: Any) -> Any:
    """A date or time as the text that it travels as; lists item by item, the rest as it is."""
    if isinstance(given, np.datetime64):
        given = given.astype("M8[s]").item() if given.dtype != np.dtype("M8[D]") else given.item()
    return given.isoformat() if isinstance(given, date) else given


# -- what may be done with them ------------------------------------------------------------------------------

_CHOICES = frozenset({"__eq__", "__ne__", "isin", "isna", "fillna", "where"})
_ORDER = frozenset({"__lt__", "__gt__", "__le__", "__ge__", "clip"})
SHIFTS = frozenset({"__add__", "__radd__", "__sub__", "__rsub__"})
_DATES = _CHOICES | _ORDER | SHIFTS | {"calendar", "age"}
TAKES: dict[Symbolic, frozenset[str]] = {
    "category": _CHOICES | {"recoded"},
    "date": _DATES,
    "datetime": _DATES - {"age"},
}
"""Operations by what they are done on."""
KEEPING = frozenset({"fillna", "where", "clip", "__add__", "__radd__", "__sub__"})
"""Those whose results mean the same, but for the difference of two dates."""
_MENDS: dict[Symbolic, str] = {
    "category": "compare it with a label, or take table[...].one_hot()",
    "date": "compare it, take a difference of two dates, .dt.year or .dt.age(...)",
    "datetime": "compare it, take a difference of two times, .dt.year or .dt.date",
}


def refusal(meaning: Meaning, text: str, what: str) -> SchemaError:
    """The error that something takes numbers, and this is none."""
    return SchemaError(f"{text} is a {meaning.kind}, and {what}; {_MENDS[meaning.kind]}")


def spoken(meaning: Meaning, operation: str, operands: Sequence[Any], text: str) -> list[Any]:
    """Operands of an operation on what has a meaning, labels and dates among them as codes.

    Raises SchemaError for an operation that such columns do not have, and for an operand that is no label or
    date where one is meant; numbers are days or seconds where something is added.
    """
    if operation not in TAKES[meaning.kind]:
        raise refusal(meaning, text, "its codes are not computed on")

    def of(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [of(one) for one in given]
        if given is None or hasattr(given, "made"):
            return given
        if operation in SHIFTS - {"__rsub__"} and isinstance(given, int | float):
            if not float(given).is_integer():
                raise SchemaError(f"{text}: {given} is no whole number of days or seconds")
            return given
        if operation in ("__add__", "__radd__"):
            raise SchemaError(
                f"{text}: {given!r} is no number of days or seconds, which a {meaning.kind} takes"
            )
        return meaning.code(given, text)

    if operation in ("calendar", "recoded"):
        return list(operands)
    return [of(one) for one in operands]


def require_plain(given: Any, text: str) -> None:
    """Raise PlanError for text among operands of what is a number."""
    if isinstance(given, str):
        raise PlanError(f"{text}: {given!r} is neither a number nor a column of the table")
