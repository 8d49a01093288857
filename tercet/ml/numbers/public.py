"""Public numbers in formulas, and the shapes of what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tercet.errors import PlanError
from tercet.ml.numbers.facts import Reals
from tercet.ml.numbers.ring import FARTHEST
from tercet.ml.numbers.source import line

Shape = tuple[int, ...]


def numbers_of(given: Any) -> Reals:
    """Public numbers. Raises PlanError for anything that is none."""
    try:
        plain = np.asarray(given)
        if plain.dtype.kind not in "buif":
            raise TypeError
        numbers = plain.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise PlanError(f"{line()}: a {type(given).__name__} is no number") from error
    sizes = np.abs(numbers)
    if not np.isfinite(numbers).all() or numbers.ndim > 2:
        raise PlanError(f"{line()}: public numbers are finite, of up to two axes")
    if ((sizes > FARTHEST) | ((sizes < 1 / FARTHEST) & (sizes > 0))).any():
        raise PlanError(f"{line()}: public numbers are between {1 / FARTHEST:g} and {FARTHEST:g} in size")
    return numbers


def broadcast(a: Shape, b: Shape) -> Shape:
    """NumPy's shape of an operation on both. Raises PlanError."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError as error:
        raise PlanError(f"{line()}: shapes {a} and {b} do not fit together") from error
