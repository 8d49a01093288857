"""Choices among values of a column: clipped, one of some, one or another, a condition for each category."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import BOOLEAN, Public, bounds, half_unit, joint
from tercet.ml.draft import Draft, rescaled, within
from tercet.ml.meanings import Meaning, check_labels, refusal
from tercet.ml.operands import Number, log2_of, number_of, term_of, text_of
from tercet.ml.schema import check_column_name
from tercet.plans import Value

if TYPE_CHECKING:
    from tercet.ml.expressions import Expression


CLIPPED_BITS = 62
"""What is clipped has fewer bits at the scale of what comes out, and a difference of two one more."""


def require_condition(given: Any, text: str) -> None:
    """Raise SchemaError for what is no condition; `text` is what it stands in."""
    public = getattr(given, "public", None)
    if public is None or public.kind != "boolean":
        kind = type(given).__name__ if public is None else given.kind
        raise SchemaError(
            f"{text}: {given} is {kind}, not a condition; compare it, as in (table['age'] > 50)"
        )


def zeros(draft: Draft, like: Expression) -> Value:
    """Zeros, as many as an expression has rows."""
    zero = draft.settled(like) * 0
    return zero.shifted(-zero.scale)


def clip(x: Expression, lower: Number | None, upper: Number | None) -> Expression:
    """See `Expression.clip`."""
    text = f"{term_of(x)}.clip({text_of(lower)}, {text_of(upper)})"
    mine = x.public
    low = mine.low if lower is None else number_of(lower, text)
    high = mine.high if upper is None else number_of(upper, text)
    if not low <= high:
        raise PlanError(f"{text}: nothing lies between {low:g} and {high:g}")
    ends = (min(max(mine.low, low), high), max(min(mine.high, high), low))
    kind = joint([mine.kind, *("integer" if float(end).is_integer() else "real" for end in ends)])
    width, reach = log2_of(ends[1] - ends[0]), log2_of(max(map(abs, ends)))
    public = bounds(kind, *ends, mine.spread, unit=min(mine.unit, width), size=reach, source=mine)
    if log2_of(mine.reach) + public.scale >= CLIPPED_BITS:
        raise SchemaError(
            f"{text}: {x.text} may be as large as {mine.reach:.2g}, too different from what it is clipped "
            "to; clip what it is made of first"
        )
    rounds = mine.grain or (mine.kind == "real" and mine.scale < 0)
    public = attrs.evolve(public, grain=max(mine.grain, half_unit(public.scale)) if rounds else 0.0)

    def write(draft: Draft) -> Value:
        # Of the value as it is: what is clipped may have more digits than the whole range has room for.
        value = rescaled(draft.value(x), max(mine.scale, public.scale))
        value = result = value.bounded(mine.reach, f"bounds of {x.text}")
        for end, side, bound in ((low, 1, lower), (high, -1, upper)):
            if bound is not None:
                beyond = value * -side + draft.builder.constant(side * end, scale=value.scale)
                result = result + (beyond * -1).is_negative().to_ring() * beyond * side
        return result.bounded(public.reach, f"bounds of {text}")

    return x.derived(text, public, write)


def isin(x: Expression, numbers: Sequence[Number | str]) -> Expression:
    """See `Expression.isin`."""
    text = f"{term_of(x)}.isin([{', '.join(map(text_of, numbers))}])"
    known = [number_of(number, text) for number in numbers]
    if not known:
        raise PlanError(f"{text}: name at least one number")

    def write(draft: Draft) -> Value:
        value = draft.value(x)
        spans: list[tuple[int, int]] = []
        for least, most in sorted(draft.equal_units(x, number) for number in known):
            if spans and least <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(most, spans[-1][1])
            elif least <= most:
                spans.append((least, most))
        if not spans:
            return zeros(draft, x)
        if x.public.kind == "boolean" and value.scale == 0:  # it is its own answer, or the other one
            no, yes = (any(least <= unit <= most for least, most in spans) for unit in (0, 1))
            return (value * (int(yes) - int(no)) + int(no)).bounded(1.0, "a condition")
        bits = [within(value, *span) for span in spans]
        return functools.reduce(operator.add, bits).bounded(1.0, "the numbers differ")

    return x.derived(text, BOOLEAN, write)


def where(x: Expression, condition: Expression, other: Expression | Number) -> Expression:
    """See `Expression.where`."""
    text = f"{term_of(x)}.where({text_of(condition)}, {text_of(other)})"
    require_condition(condition, text)
    mine = x.public
    y: Expression = _constant(x, number_of(other, text)) if isinstance(other, int | float) else other
    if not hasattr(y, "public"):
        number_of(y, text)
    theirs = y.public
    if mine.kind == theirs.kind == "boolean":
        return (condition & x) | (~condition & y)
    ends = (min(mine.low, theirs.low), max(mine.high, theirs.high))
    size = max(mine.size, theirs.size)
    unit = max(mine.unit, theirs.unit, size)
    public = bounds(joint([mine.kind, theirs.kind]), *ends, math.inf, unit=unit, size=size)
    if x.meaning is not None:
        public = Public.of_integers(*ends)
    elif mine.grain or theirs.grain:
        public = attrs.evolve(public, grain=max(mine.grain, theirs.grain, half_unit(public.scale)))

    def write(draft: Draft) -> Value:
        left, right = draft.common(public.scale, x, y)
        chosen = rescaled(draft.settled(condition) * (left - right) + right, public.scale)
        return draft.inside(chosen, public.reach) if public.checked else chosen

    return x.derived(text, public, write, condition, y)


def _constant(x: Expression, number: float) -> Expression:
    """A public number in every row; zero and one are conditions where x is one."""
    if x.public.kind == "boolean" and number in (0.0, 1.0):
        return x.derived(text_of(number), BOOLEAN, lambda draft: zeros(draft, x) + number)
    return x.constant(number)


# -- categories ----------------------------------------------------------------------------------------------


def one_hot(
    x: Expression,
    categories: Sequence[Number | str] | None,
    prefix: str | None,
    reference: Number | str | None,
) -> dict[str, Expression]:
    """See `Expression.one_hot`."""
    prefix = x.text if prefix is None else check_column_name(prefix, "The prefix of new columns")
    what = f"{text_of(x)}.one_hot"
    if x.meaning is not None and not x.labels:
        raise refusal(x.meaning, x.text, f"{what} takes labels or numbers")
    if categories is None:
        if x.meaning is None and x.public.kind != "boolean":
            raise SchemaError(
                f"{what}: {x.text} is {x.kind} and has no labels; name the categories, as in one_hot([1, 2])"
            )
        categories = list(x.labels) if x.labels else [0, 1]
    categories = list(categories)
    if len(set(categories)) < len(categories):
        raise SchemaError(f"{what}: the categories are {categories!r}; name each one once")
    if reference is not None and reference not in categories:
        raise SchemaError(f"{what}: the reference {reference!r} is none of the categories {categories}")
    chosen = [one for one in categories if reference is None or one != reference]
    if x.labels:
        names = [f"{prefix}_{one}" for one in chosen]
    else:
        names = [f"{prefix}_{text_of(number_of(one, what))}" for one in chosen]
    taken = {*x.table.column_names, *x.table.key_names}
    for name in names:
        if name in taken:
            raise SchemaError(
                f"table {x.table.name!r} has a column {name!r} already, which {what} would replace; give the "
                "new ones another prefix="
            )
    return {name: x.isin([one]) for name, one in zip(names, chosen, strict=True)}


def recoded(x: Expression, labels: Sequence[str]) -> Expression:
    """See `Expression.recoded`."""
    if x.kind != "category":
        raise SchemaError(
            f"{x.text} is {x.kind} and has no labels to be recoded; cut(bins) makes a category of numbers"
        )
    meaning = Meaning("category", check_labels(labels, f"{term_of(x)}.recoded"))
    text = f"{term_of(x)}.recoded([{', '.join(map(repr, labels))}])"
    lost = [label for label in x.labels if label not in meaning.places]
    if lost:
        raise SchemaError(f"{text}: nothing would stand for rows of {lost[0]!r}; name all labels of {x.text}")
    places = [meaning.places[label] for label in x.labels]
    if places == list(range(len(places))):
        return attrs.evolve(x.derived(text, _codes(meaning), lambda draft: draft.value(x)), meaning=meaning)

    def write(draft: Draft) -> Value:
        value = draft.value(x)
        terms = [within(value, old, old) * new for old, new in enumerate(places) if new]
        total = functools.reduce(operator.add, terms)
        return total.bounded(float(len(labels) - 1), "one code of some")

    return attrs.evolve(x.derived(text, _codes(meaning), write), meaning=meaning)


def _codes(meaning: Meaning) -> Public:
    """What everyone knows of the codes of a category."""
    return Public.of_integers(*meaning.ends)
