"""The terms of a formula, by their factors, as formulaic reads them; nothing is executed.

A short formula can mean more terms than a computer has room for, as `(a + b) ** 500` does. So what would be
made of it is counted before it is.
"""

from __future__ import annotations

import math
from typing import Any

from tercet.errors import SchemaError

MOST_COLUMNS = 1000
MOST_CHARACTERS = 1 << 15
MOST_WORK = 1_000_000
"""Terms that are made while a formula is written out, over all of its operators."""


def terms_of(formula: str) -> tuple[list[list[str]], list[list[str]]]:
    """Factors of the terms on either side of a formula, the intercept as a term without any.

    Raises SchemaError for what is no formula, or means far too much.
    """
    try:
        from formulaic.errors import FormulaicError
        from formulaic.parser import DefaultFormulaParser
    except ImportError as error:
        raise SchemaError("formulas need formulaic; run `pip install formulaic`") from error
    if len(formula) > MOST_CHARACTERS:
        raise SchemaError(
            f"the formula has {len(formula):,} characters, and {MOST_CHARACTERS:,} will do: assign the "
            "columns, and give them as features"
        )
    try:
        # Terms in the order in which they are written, as patsy has them.
        parser = DefaultFormulaParser()
        _require_short(parser.get_ast(formula), formula)
        parsed = parser.get_terms(formula)
    except SchemaError:
        raise
    except (FormulaicError, SyntaxError, RecursionError, ValueError, TypeError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise SchemaError(f"the formula {formula!r:.400} cannot be read ({why:.200})") from error
    sides = []
    for side in ("lhs", "rhs"):
        terms = getattr(parsed, side, None)
        if terms is None or isinstance(terms, tuple):
            raise SchemaError(f"the formula {formula!r:.400} has to read as in 'y ~ age + C(stage)'")
        sides.append([[str(one.expr) for one in term.factors if one.expr != "1"] for term in terms])
    return sides[0], sides[1]


def _require_short(tree: Any, formula: str) -> None:
    """Raise SchemaError for a formula, as formulaic reads it, of which far too many terms would be made."""
    counts: dict[int, int] = {}
    work, left = 0, [tree]
    while left:
        node = left[-1]
        below = list(getattr(node, "args", ()))  # what has none is a factor
        if unknown := [one for one in below if id(one) not in counts]:
            left += unknown
            continue
        left.pop()
        known = [counts[id(one)] for one in below]
        symbol = str(node.operator.symbol) if below else ""
        if symbol in ("**", "^"):
            power = _power(below[1], formula)
            # More than 20 of any two terms is too many.
            work += power if known[0] < 2 else power * known[0] ** min(power, 20)
            known = [min(known[0] ** min(power, 20), MOST_WORK)]
        counts[id(node)] = known[0] if symbol == "-" else sum(known) if below else 1
        if symbol not in ("", "+", "-", "~", "|", "**", "^"):
            counts[id(node)] += math.prod(known)
        work += counts[id(node)]
        if work > MOST_WORK:
            raise SchemaError(
                f"the formula {formula!r:.400} means far too many terms; {MOST_COLUMNS} will do"
            )


def _power(given: Any, formula: str) -> int:
    """How many times a `**` of terms repeats them. What is no number formulaic refuses."""
    if hasattr(given, "args"):
        raise SchemaError(
            f"the formula {formula!r:.400} has to have a whole number after **, as in '(age + bmi) ** 2'; a "
            "power of a column is written within I(...)"
        )
    try:
        return max(int(str(given)), 1)
    except ValueError:
        return 1
