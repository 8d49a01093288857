"""What the results of a node are: found by its kind, checked, and remembered by all builders of a process.

Types of results follow from the kind, the types that it reads and its attributes alone, whatever plan it is
in, as long as no size is a symbol, which means something in its own plan only. So plans of the same shape,
as a computation makes them of tables with other names, handles and numbers, are inferred once. Attributes are
checked each time, and those are told apart that are equal and of other types: True is no 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tercet.errors import PlanError
from tercet.plans.kinds import KINDS, Kind, Sizes
from tercet.plans.plan import HANDLED
from tercet.plans.types import MOST_ELEMENTS, RING_LIMIT, WIDEST_SCALE, Form, Type

MOST_KNOWN = 1 << 14
"""Nodes that are remembered, a few MB; then it begins anew."""
LONGEST_KNOWN = 128
"""Attributes of those are no longer: series and constants are not remembered, nor is what names a value."""

Attributes = tuple[tuple[str, Any], ...]
_known: dict[tuple[Any, ...], tuple[Type, ...]] = {}


def infer(kind: str, inputs: tuple[Type, ...], attributes: Attributes, sizes: Sizes) -> tuple[Type, ...]:
    """Types of a node's results, in a plan of such sizes. Raises PlanError for a node that cannot be."""
    given = dict(attributes)
    KINDS[kind].check_attributes(given)
    exact = None if kind in HANDLED or KINDS[kind].binds_symbol else _types(given.values())
    key = sizes.tile_rows, kind, inputs, attributes, exact
    known = None if exact is None else _known.get(key)
    if known is not None:
        return known
    _require_rounds(KINDS[kind], inputs)
    found = tuple(KINDS[kind].infer(inputs, given, sizes))
    for made in found:
        _check(made, sizes)
    if exact is not None and not any(isinstance(dim, str) for one in (*inputs, *found) for dim in one.shape):
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[key] = found
    return found


def _types(values: Iterable[Any]) -> tuple[Any, ...] | None:
    """The types of attributes and of what is in them; None if one is long, or nested."""
    found: list[Any] = []
    for value in values:
        found.append(type(value))
        if isinstance(value, str | bytes | tuple) and len(value) > LONGEST_KNOWN:
            return None
        if isinstance(value, tuple):
            if any(isinstance(one, tuple) for one in value):
                return None
            found += map(type, value)
    return tuple(found)


def _check(made: Type, sizes: Sizes) -> None:
    """Raise PlanError for a type that no value can have."""
    if made.form is Form.RING and not 0 <= made.limit < RING_LIMIT:
        size = f"2^{math.log2(made.limit):.1f}" if 0 < made.limit < math.inf else str(made.limit)
        raise PlanError(f"values up to {size} ring units do not fit 63 bits; rescale an operand first")
    if any(not isinstance(dim, str) and (type(dim) is not int or dim < 0) for dim in made.shape):
        raise PlanError(f"a value of shape {made.shape} cannot exist")
    if unknown := [dim for dim in made.shape if isinstance(dim, str) and dim not in sizes.maxima]:
        raise PlanError(f"nothing before it says how many rows {unknown[0]!r} are")
    if math.prod(sizes.most(dim) for dim in made.shape) > MOST_ELEMENTS or abs(made.scale) > WIDEST_SCALE:
        raise PlanError(f"{made} is too large")


def _require_rounds(kind: Kind, inputs: Sequence[Type]) -> None:
    """Raise PlanError for a product that an operation takes for a full sharing.

    What parties hold of a product before its round tells about the factors, so it must not leave them.
    """
    for position in range(len(inputs)):
        if kind.needs_round(inputs, position):
            raise PlanError(
                f"argument {position} is a product that has not had its round, and is read as if it had; "
                "put a `reduce` node in between, as `Builder.apply` does"
            )
