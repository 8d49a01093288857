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

if TYPE_CHECKING:
    from tercet.ml.computations import Data
    from tercet.ml.expressions import Expression

OPERATIONS = (
    *("__add__", "__radd__", "__sub__", "__rsub__", "__neg__", "__mul__", "__rmul__", "__pow__"),
    *("__truediv__", "__rtruediv__", "__lt__", "__gt__", "__le__", "__ge__", "__eq__", "__ne__"),
    *("__and__", "__or__", "__xor__", "__invert__", "isin", "clip", "isna", "fillna", "where"),
)
"""Methods of an expression that make one. All that requests can name."""


@attrs.frozen(eq=False)
class Made:
    """How an expression was made: by which operation, on what, with which options."""

    operation: str
    operands: tuple[Any, ...]
    options: Mapping[str, Any]


def recorded(operation: Callable[..., Expression]) -> Callable[..., Expression]:
    """Have what an operation makes know how it was made."""

    @functools.wraps(operation)
    def record(*operands: Any, **options: Any) -> Expression:
        given, named = tuple(map(_plain, operands)), {name: _plain(one) for name, one in options.items()}
        expression = operation(*given, **named)
        return attrs.evolve(expression, made=Made(operation.__name__, given, named))

    return record


def _plain(operand: Any) -> Any:
    """An operand as it travels: numbers of numpy are Python's."""
    if isinstance(operand, list | tuple):
        return [_plain(one) for one in operand]
    return operand.item() if hasattr(operand, "item") and getattr(operand, "shape", None) == () else operand


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
    return operand if operand is None or isinstance(operand, bool | int | float | str) else float(operand)
