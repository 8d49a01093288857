"""Operations of column arithmetic as data: how an expression was made, so that nodes can make it again.

Every operation that makes an expression of others notes which it was and on what. That is a graph, since an
expression may be used twice; it travels as a list, in which each operation refers to those before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from tercet.errors import PlanError
from tercet.ml.meanings import (
    KEEPING,
    SHIFTS,
    TAKES,
    Code,
    Meaning,
    as_written,
    refusal,
    require_plain,
    spoken,
)
from tercet.ml.operands import plain
from tercet.options import described

if TYPE_CHECKING:
    from tercet.ml.computations import Data
    from tercet.ml.expressions import Expression

OPERATIONS = (
    *("__add__", "__radd__", "__sub__", "__rsub__", "__neg__", "__mul__", "__rmul__", "__pow__"),
    *("__truediv__", "__rtruediv__", "__lt__", "__gt__", "__le__", "__ge__", "__eq__", "__ne__"),
    *("__and__", "__or__", "__xor__", "__invert__", "isin", "clip", "isna", "fillna", "where", "recoded"),
    *("calendar", "age", "abs", "round", "sqrt", "log", "exp", "banded"),
)
"""Methods of an expression that make one. All that requests can name."""


@attrs.frozen(eq=False)
class Made:
    """How an expression was made: by which operation, on what, with which options."""

    operation: str
    operands: tuple[Any, ...]
    options: Mapping[str, Any]


def recorded(operation: Callable[..., Expression]) -> Callable[..., Expression]:
    """Have what an operation makes know how it was made, and what it means.

    Labels and dates among its operands are taken as the codes that stand for them.
    """

    @functools.wraps(operation)
    def record(*operands: Any, **options: Any) -> Expression:
        given, named = tuple(map(_plain, operands)), {name: _plain(one) for name, one in options.items()}
        expression = _meant(operation, given, named)
        for one in [*given, *named.values()]:
            _require_known(one, expression.text)
        return attrs.evolve(expression, made=Made(operation.__name__, given, named))

    return record


def _plain(operand: Any) -> Any:
    """An operand as it travels: numbers of numpy are Python's, dates are text."""
    operand = as_written(operand)
    if isinstance(operand, range) or (hasattr(operand, "__array__") and getattr(operand, "ndim", 0) == 1):
        operand = list(operand)
    return [_plain(one) for one in operand] if isinstance(operand, list | tuple) else plain(operand)


def _require_known(operand: Any, text: str) -> None:
    """Raise PlanError for an operand that nodes could not be sent."""
    for one in operand if isinstance(operand, list) else [operand]:
        if not (one is None or isinstance(one, bool | int | float | str) or hasattr(one, "made")):
            raise PlanError(f"{text}: {described(one)} is neither a number nor a column of the table")


def _meant(
    operation: Callable[..., Expression], given: Sequence[Any], named: Mapping[str, Any]
) -> Expression:
    """What an operation makes of operands that may be labels, dates, or columns of such."""
    first, name = given[0], operation.__name__
    columns = [one for one in [*given[1:], *named.values()] if hasattr(one, "made")]
    if name == "where":  # a condition has no meaning, whatever it is for
        asked = given[1] if len(given) > 1 else named.get("condition")
        columns = [one for one in columns if one is not asked]
    others = [one for one in columns if one.meaning is not None]
    meaning: Meaning | None = first.meaning
    if meaning is None:
        if others and name == "__add__" and others[0].kind in ("date", "datetime"):
            return _meant(operation, [others[0], first], named)
        if others:
            raise refusal(others[0].meaning, others[0].text, f"{first.text} is {first.kind}")
        for one in given[1:]:
            require_plain(one, first.text)  # labels of bands are in a list
        return operation(*given, **named)
    for other in others:
        if other.meaning.kind != meaning.kind or (name in SHIFTS and name != "__sub__"):
            raise refusal(meaning, first.text, f"{other.text} is a {other.meaning.kind}")
    for one in columns if name in TAKES[meaning.kind] else ():
        if one.meaning is None and name not in SHIFTS:
            raise refusal(meaning, first.text, f"{one.text} is {one.kind}")
        if one.kind == "real":
            raise refusal(meaning, first.text, f"{one.text} is no whole number of days or seconds")
    if meaning.kind == "category" and others:
        meaning = attrs.evolve(meaning, labels=tuple(dict.fromkeys([*meaning.labels, *others[0].labels])))
        given = [one.recoded(list(meaning.labels)) if _among(one, others) else one for one in given]
        named = {
            key: one.recoded(list(meaning.labels)) if _among(one, others) else one
            for key, one in named.items()
        }
    places, keys = list(given[1:]), list(named)
    said = spoken(meaning, name, [*places, *named.values()], first.text)
    made = operation(first, *said[: len(places)], **dict(zip(keys, said[len(places) :], strict=True)))
    apart = name == "__sub__" and (others or isinstance(said[0], Code))
    return made.meaning_as(meaning) if name in KEEPING and not apart else made


def _among(one: Any, others: Sequence[Any]) -> bool:
    """Whether it is one of them; `==` of expressions is a column."""
    return any(one is other for other in others)


def listed(expression: Expression) -> Sequence[Data]:
    """All operations that made an expression, each after those that it refers to. Raises PlanError."""
    places: dict[int, int] = {}
    found: list[Data] = []
    stack = [expression]
    while stack:
        one = stack[-1]
        if id(one) in places:
            stack.pop()
            continue
        made = one.made
        if made is None:
            raise PlanError(f"{one.text} was made in a way that nodes do not know")
        operands = [*made.operands, *made.options.values()]
        waits = [each for each in operands if hasattr(each, "made") and id(each) not in places]
        if waits:
            stack += waits
            continue
        given = [_operand(each, places) for each in made.operands]
        options = {name: _operand(each, places) for name, each in made.options.items()}
        places[id(one)] = len(found)
        found.append([made.operation, given, options])
        stack.pop()
    return found


def _operand(operand: Any, places: Mapping[int, int]) -> Data:
    if id(operand) in places:
        return {"$node": places[id(operand)]}
    if isinstance(operand, list):
        return [_operand(one, places) for one in operand]
    return operand
