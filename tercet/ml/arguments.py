"""Arguments of computations, made of data that members have sent."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from tercet.errors import PlanError
from tercet.ml.computations import NAME_BYTES, Computation, Data
from tercet.ml.estimator import estimator_named
from tercet.ml.expressions import Expression
from tercet.ml.recorded import OPERATIONS
from tercet.ml.table import Table

MOST_DEPTH = 32
"""Levels of arguments within arguments."""

MOST_OPERATIONS = 4096
"""Operations of one expression."""


def found_at(value: Any, path: Sequence[Any]) -> Any:
    """What lies in a result at a path. Raises PlanError if nothing does."""
    for step in path:
        if isinstance(step, int) and isinstance(value, tuple | list) and 0 <= step < len(value):
            value = value[step]
        elif step == "model" and hasattr(value, "fitted_model"):
            value = value.fitted_model()
        else:
            raise PlanError(f"a result has nothing at {step!r:.40}")
    return value


@attrs.frozen(eq=False)
class Decoder:
    """Makes arguments of data.

    `kept` finds tables and models by kind and name, `results` what computations gave by their names.
    """

    kept: Callable[[str, str], Any]
    results: Callable[[bytes], Any]

    def arguments(self, known: Computation, data: Mapping[str, Data]) -> dict[str, Any]:
        """All arguments of a computation. Raises PlanError or SchemaError for what cannot be."""
        unknown = set(data) - set(known.signature.parameters)
        missing = [
            name
            for name, one in known.signature.parameters.items()
            if one.default is inspect.Parameter.empty and name not in data
        ]
        if unknown or missing:
            what = f"has no argument {min(unknown)!r:.80}" if unknown else f"lacks {missing[0]!r}"
            raise PlanError(f"computation {known.name!r} {what}; look at the client's release")
        for name in known.fresh & data.keys():
            if not (isinstance(data[name], dict) and list(data[name]) == ["$estimator"]):
                raise PlanError(
                    f"computation {known.name!r} takes the options of {name}, and nothing learned"
                )
        found = {name: self.value(one) for name, one in data.items()}
        for name, rule in known.rules.items():
            if name in found:
                rule.require(known.name, name, found[name])
        return found

    def value(self, data: Data, depth: int = 0) -> Any:
        """One value. Raises PlanError or SchemaError."""
        if depth > MOST_DEPTH:
            raise PlanError("arguments lie too deep in each other")
        if data is None or isinstance(data, bool | int | str):
            return data
        if isinstance(data, float):
            if not math.isfinite(data):
                raise PlanError(f"{data} is not finite")
            return data
        if isinstance(data, list):
            return [self.value(one, depth + 1) for one in data]
        match data:
            case {"$table": str(name)} if len(data) == 1:
                return self.kept("table", name)
            case {"$model": str(name)} if len(data) == 1:
                return self.kept("model", name)
            case {"$result": [str(name), list(path)]} if len(data) == 1:
                return found_at(self.results(_name_of(name)), path)
            case {"$columns": [table, list(names)]} if len(data) == 1:
                return self._table(table, depth)[[str(one) for one in names]]
            case {"$renamed": [table, dict(names)]} if len(data) == 1:
                return self._table(table, depth).rename({str(old): new for old, new in names.items()})
            case {"$estimator": [str(kind), dict(options)]} if len(data) == 1:
                given = {str(name): self.value(one, depth + 1) for name, one in options.items()}
                return self._estimator(kind, given)
            case {"$expression": [table, list(operations)]} if len(data) == 1:
                return self._expression(self._table(table, depth), operations)
            case dict() if not any(isinstance(name, str) and name.startswith("$") for name in data):
                return {name: self.value(one, depth + 1) for name, one in data.items()}
        raise PlanError(f"{data!r:.80} is no argument of a computation")

    def _table(self, data: Data, depth: int) -> Any:
        table = self.value(data, depth + 1)
        if not isinstance(table, Table):
            raise PlanError(f"a {type(table).__name__} is no table")
        return table

    def _estimator(self, kind: str, options: Mapping[str, Any]) -> Any:
        kind_of = estimator_named(kind)
        try:
            return kind_of(**options)
        except TypeError as error:
            raise PlanError(f"{kind} has other options than came: {error}") from error

    def _expression(self, table: Any, operations: Sequence[Any]) -> Any:
        if not 0 < len(operations) <= MOST_OPERATIONS:
            raise PlanError(f"an expression has {len(operations)} operations; it has 1 to {MOST_OPERATIONS}")
        made: list[Any] = []

        def operand(data: Data) -> Any:
            match data:
                case {"$node": int(place)} if len(data) == 1 and 0 <= place < len(made):
                    return made[place]
                case list() if all(isinstance(one, bool | int | float | str) for one in data):
                    return [self.value(one) for one in data]
                case None | bool() | int() | float() | str():
                    return self.value(data)
            raise PlanError(f"{data!r:.80} is no operand of an expression")

        for operation in operations:
            match operation:
                case ["column", [str(name)], {}]:
                    made.append(Expression.of(table, name))
                case [str(name), [first, *others], dict(options)] if name in OPERATIONS:
                    given = {str(one): operand(value) for one, value in options.items()}
                    on = operand(first)
                    if not isinstance(on, Expression):
                        raise PlanError(f"{name} is an operation on an expression")
                    made.append(getattr(on, name)(*map(operand, others), **given))
                case _:
                    raise PlanError(f"{operation!r:.80} is no operation of an expression")
        return made[-1]


def _name_of(text: str) -> bytes:
    try:
        name = bytes.fromhex(text)
    except ValueError:
        name = b""
    if len(name) != NAME_BYTES:
        raise PlanError(f"{text!r:.80} is no name of a computation")
    return name
