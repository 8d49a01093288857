"""Operands: the public numbers in column arithmetic, and how an expression reads.

What an expression is written as names its columns, stands in errors and tells owners what was computed, so
it is made in one place.
"""

from __future__ import annotations

import math
import numbers
import re
from decimal import Decimal
from typing import Any

from tercet.errors import PlanError
from tercet.ml.meanings import Code

Number = float | int | bool

LONGEST_TEXT = 400
"""Characters of an operand. What is longer loses its middle: used twice again and again, it would explode."""
FACTOR_BITS = 30
"""Significant bits of public factors."""


def text_of(other: Any) -> str:
    """How an operand reads; a number with all its digits."""
    if isinstance(other, Code):
        return other.text
    if not isinstance(other, int | float):
        text, half = str(other), LONGEST_TEXT // 2
        return text if len(text) <= LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}"
    return str(int(other)) if math.isfinite(other) and float(other).is_integer() else repr(float(other))


def is_exact(number: float, scale: int) -> bool:
    """Whether a public number has no more fractional bits than a scale."""
    return math.ldexp(number, scale).is_integer()


def log2_of(number: float) -> float:
    """The logarithm of a number's size."""
    return math.log2(abs(number)) if number else -math.inf


def term_of(other: Any) -> str:
    """How an operand reads inside a larger expression."""
    text = bare = text_of(other)
    while (shorter := re.sub(r"\([^()]*\)", "", bare)) != bare:
        bare = shorter
    return f"({text})" if not isinstance(other, int | float) and " " in bare else text


def end_of(other: Any, text: str) -> float:
    """A public number, or an infinite one. Raises PlanError for anything else."""
    other = plain(other)
    if not isinstance(other, int | float):
        raise PlanError(f"{text}: {other!r:.400} is neither a number nor a column of the table")
    return float(other)


def number_of(other: Any, text: str) -> float:
    """A public number. Raises PlanError for anything else, infinities included."""
    number = end_of(other, text)
    if not math.isfinite(number):
        raise PlanError(f"{text}: {number} is not finite")
    return number


def plain(given: Any) -> Any:
    """Numbers as Python's, whole ones of more than 64 bits as floats; what is none as it is.

    Raises PlanError for a number that is larger than all floats.
    """
    if hasattr(given, "item") and getattr(given, "shape", None) == ():
        given = given.item()
    if isinstance(given, bool | float) or (isinstance(given, int) and given.bit_length() < 64):
        return given
    if not isinstance(given, numbers.Real | Decimal):
        return given
    try:
        return float(given)
    except (OverflowError, ValueError) as error:
        size = f"of {given.bit_length()} bits " if isinstance(given, int) else ""
        raise PlanError(f"a number {size}is too large to be computed with") from error


def factor_of(factor: float) -> tuple[int, int]:
    """Units and fractional bits of a public factor, in its 30 leading bits; whole numbers are exact."""
    mantissa, exponent = math.frexp(factor)
    units, bits = round(math.ldexp(mantissa, FACTOR_BITS)), FACTOR_BITS - exponent
    while units and units % 2 == 0:
        units, bits = units // 2, bits - 1
    return units, bits
