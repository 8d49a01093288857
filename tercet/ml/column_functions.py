"""Functions of a column: absolute values, rounding, roots, logarithms, exponentials, and cutting into bands.

The first two are exact, by comparisons. The others bring each value into a narrow range, by a public factor
or shift that comparisons with the ends of all ranges pick from a table, and take a cubic there. All rounding
is to the nearest, so what they give follows from the value alone and equal values stay equal. A function
whose error is stated for some range is refused where public bounds allow values outside of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import Public, bounds, half_unit, quotient_bounds
from tercet.ml.dates import whole
from tercet.ml.draft import Draft, as_ring_units, rescaled
from tercet.ml.linalg import from_table, quotient
from tercet.ml.meanings import Meaning, check_labels, refusal
from tercet.ml.operands import end_of, number_of, term_of, text_of
from tercet.options import elements
from tercet.plans import Value

if TYPE_CHECKING:
    from tercet.ml.expressions import Expression

Reals = npt.NDArray[np.float64]

MOST_DECIMALS = 9
BUCKETS = 4
"""Ranges in an octave, for roots and logarithms."""
MOST_OCTAVES = 30
STEP = 0.25
"""Width of a range, for exponentials."""
MOST_STEPS = 128
WORK_BITS = 26
FACTOR_BITS = 20
ROOT_BITS = 33
"""Bits of the largest root of a range's end."""
EXP_BITS = 32
"""Bits of the largest exponential of a range's middle."""
LOG_ERROR, ROOT_ERROR, EXP_ERROR = 6e-6, 4e-6, 6e-6
"""By how much they are off at most: of a logarithm itself, and of a root and an exponential as a share of it;
beside the rounding of the column that is made."""
MOST_BANDS = 1000
QUOTIENT_OCTAVES = 14
"""Divisors lie between two powers of two that are no further apart."""


def _cubic(function: Callable[[Reals], Reals], low: float, high: float, *, relative: bool) -> Reals:
    """Coefficients of the cubic that is nearest to a function between two numbers, at Chebyshev's nodes."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    u = (low + high) / 2 + (high - low) / 2 * nodes
    values = function(u)
    weights = 1 / values if relative else np.ones(64)
    found = np.linalg.lstsq(
        np.vander(u, 4, increasing=True) * weights[:, None], values * weights, rcond=None
    )[0]
    return np.asarray(found, np.float64)


NARROW = 2.0 ** (-1 / BUCKETS)
LOG = _cubic(np.log, NARROW, 1.0, relative=False)
ROOT = _cubic(np.sqrt, NARROW, 1.0, relative=True)
EXP = _cubic(np.exp, -STEP / 2, STEP / 2, relative=True)


def _evaluate(cubic: Reals, u: Value) -> Value:
    """`(c0 + c1 u) + u^2 (c2 + c3 u)` for `|u| <= 1`, at WORK_BITS; about 27 rounds."""
    wide = WORK_BITS + FACTOR_BITS
    low, high = (u.builder.constant(float(c), scale=wide) for c in cubic[::2])
    slope, bend = (u.builder.constant(float(c), scale=FACTOR_BITS) for c in cubic[1::2])
    square = (u * u).nearest(WORK_BITS).bounded(1.1, "a square of what is at most one")
    inner = (u * bend + high).nearest(WORK_BITS)
    total = square.times(inner, magnitude=8.0) + (u * slope + low).at_scale(2 * WORK_BITS)
    return total.bounded(8.0, "a cubic near a function of that size").nearest(WORK_BITS)


def _octaves(x: Expression, text: str, *, least: float) -> tuple[int, int]:
    """Powers of two between which a column lies, by what is public. Raises SchemaError for too many."""
    high = math.floor(math.log2(max(x.public.high, least))) + 1
    low = math.floor(math.log2(least))
    if high - low > MOST_OCTAVES:
        raise SchemaError(
            f"{text}: {x.text} lies between {x.public.low:g} and {x.public.high:g} by what is public, "
            f"more than a factor of 2**{MOST_OCTAVES}; clip it first"
        )
    return low, high


def _brought(x: Value, low: int, high: int) -> tuple[Value, list[Reals]]:
    """What brings each value between 2^low and 2^high to between 2^(-1/4) and 1, times that.

    Also the ends of ranges and the factor of each, as it is stored.
    """
    # The next numbers that x can be, since what is compared is stored at its scale.
    exact = np.exp2(np.arange(low * BUCKETS, high * BUCKETS + 1) / BUCKETS)
    ends = np.ldexp(np.ceil(np.ldexp(exact, x.scale) - 1e-9), -x.scale)
    scale = max(high, 0) + 8
    factors = np.concatenate([[1 / exact[0]], 1 / exact[1:], [1 / exact[-1]]])
    stored = np.rint(np.ldexp(factors, scale)) * 2.0**-scale
    (factor,) = from_table(x, ends, [(stored, scale)])
    unit = x.times(factor, magnitude=1.1)
    return unit.at_scale(max(unit.scale, WORK_BITS)).nearest(WORK_BITS).bounded(1.1, "a unit"), [ends, stored]


# -- exact ones ----------------------------------------------------------------------------------------------


def absolute(x: Expression) -> Expression:
    """See `Expression.abs`."""
    text, mine = f"{term_of(x)}.abs()", x.public
    if mine.low >= 0:
        return attrs.evolve(x, text=text)
    ends = (0.0 if mine.high >= 0 else -mine.high), mine.reach
    public = bounds(
        "integer" if mine.kind != "real" else "real",
        *ends,
        mine.spread,
        unit=mine.unit,
        size=mine.size,
        grain=mine.grain,
        source=mine,
    )

    def write(draft: Draft) -> Value:
        value = draft.value(x)
        flipped = value.is_negative().to_ring() * value * -2
        return rescaled((value + flipped).bounded(mine.reach, f"bounds of {text}"), public.scale)

    return x.derived(text, public, write)


def rounded(x: Expression, decimals: int) -> Expression:
    """See `Expression.round`."""
    if isinstance(decimals, bool) or not isinstance(decimals, int) or abs(decimals) > MOST_DECIMALS:
        raise PlanError(
            f"{text_of(x)}.round({decimals!r:.40}): decimals is a whole number from -{MOST_DECIMALS} to "
            f"{MOST_DECIMALS}"
        )
    text = f"{term_of(x)}.round({decimals})"
    if x.public.kind != "real" and decimals >= 0:
        return attrs.evolve(x, text=text)
    if x.public.kind != "real":
        return _to_tens(x, 10**-decimals, text)
    if decimals:
        shifted = rounded(x * 10.0**decimals, 0)
        return attrs.evolve(shifted * 10.0**-decimals, text=text)
    mine = x.public
    ends = math.floor(mine.low), math.ceil(mine.high)
    public = bounds("integer", *ends, mine.spread + 0.5, unit=mine.unit, size=max(mine.size, 0.0))

    def write(draft: Draft) -> Value:
        return rescaled(draft.value(x), 0).bounded(max(map(abs, ends)), f"bounds of {text}")

    return x.derived(text, public, write)


def _to_tens(x: Expression, unit: int, text: str) -> Expression:
    """Whole numbers to whole multiples of one, halves up, exactly."""
    mine = x.public
    low, high = (math.floor(end / unit + 0.5) * float(unit) for end in (mine.low, mine.high))
    public = bounds("integer", low, high, mine.spread + unit / 2, unit=mine.unit, size=mine.size)

    def write(draft: Draft) -> Value:
        return ((whole(draft, x) + unit // 2).over(unit) * unit).value

    return x.derived(text, public, write)


# -- quotients -----------------------------------------------------------------------------------------------


def quotient_of(dividend: Expression, divisor: Expression, text: str) -> Expression:
    """The nearest to the quotient by what is surely positive. Raises SchemaError for other divisors."""
    mine = divisor.public
    if mine.low <= 0 <= mine.high:
        raise SchemaError(
            f"{divisor.text} lies between {mine.low:g} and {mine.high:g} by what is public, so it may be "
            "zero and cannot divide; clip it to a range without zero, as in .clip(1, 100), or have its "
            "owner declare one with ranges= at upload"
        )
    low, high = math.floor(math.log2(mine.low)), math.floor(math.log2(mine.high)) + 1
    if high - low > QUOTIENT_OCTAVES:
        raise SchemaError(
            f"{divisor.text} lies between {mine.low:g} and {mine.high:g} by what is public, too far "
            f"apart for a divisor (at most a factor of 2**{QUOTIENT_OCTAVES}); clip it first"
        )
    public = quotient_bounds(dividend.public, mine)

    def write(draft: Draft) -> Value:
        return quotient(
            draft.settled(dividend),
            draft.settled(divisor),
            low=low,
            high=high,
            scale=public.scale,
            magnitude=public.reach,
            inside=draft.inside if public.checked else None,
        )

    return dividend.derived(text, public, write, divisor)


# -- roots, logarithms, exponentials -------------------------------------------------------------------------


def root(x: Expression) -> Expression:
    """See `Expression.sqrt`."""
    text, mine = f"{term_of(x)}.sqrt()", x.public
    if mine.low < -2 * half_unit(mine.scale):
        raise SchemaError(
            f"{text}: {x.text} lies between {mine.low:g} and {mine.high:g} by what is public, so it may be "
            "negative and have no root; clip it, as in .clip(0), or have its owner declare a range at upload"
        )
    least = max(mine.low, 2.0 ** -max(mine.scale, 0))
    low, high = _octaves(x, text, least=least)
    top = math.sqrt(max(mine.high, least))
    # Where it is zero, one unit is a root of that.
    grain = (mine.grain / (2 * math.sqrt(least)) if mine.grain else 0.0) + ROOT_ERROR * top
    public = bounds(
        "real", 0.0, top * (1 + ROOT_ERROR), math.inf, unit=math.log2(top) - 4, size=math.log2(top)
    ).rounded(grain)

    def write(draft: Draft) -> Value:
        value = draft.settled(x)
        unit, (ends, stored) = _brought(value, low, high)
        roots = np.sqrt(1 / stored)
        roots[0] = 0.0
        (back,) = from_table(value, ends, [(roots, ROOT_BITS - max(high // 2, 0))])
        found = _evaluate(ROOT, unit).times(back, magnitude=top * 1.01)
        return rescaled(found, public.scale).bounded(public.reach, f"bounds of {text}")

    return x.derived(text, public, write)


def logarithm(x: Expression) -> Expression:
    """See `Expression.log`."""
    text, mine = f"{term_of(x)}.log()", x.public
    if mine.low <= 0:
        raise SchemaError(
            f"{text}: {x.text} lies between {mine.low:g} and {mine.high:g} by what is public, so it may be "
            "zero or less and have no logarithm; clip it, as in .clip(1), or have its owner declare a range "
            "without zero at upload"
        )
    low, high = _octaves(x, text, least=mine.low)
    ends = math.log(mine.low) - LOG_ERROR, math.log(mine.high) + LOG_ERROR
    size = math.log2(max(map(abs, ends)))
    public = bounds("real", *ends, math.inf, unit=math.log2(ends[1] - ends[0]) - 2, size=size)
    public = public.rounded(LOG_ERROR + (mine.grain / mine.low))

    def write(draft: Draft) -> Value:
        value = draft.settled(x)
        unit, (borders, stored) = _brought(value, low, high)
        (shift,) = from_table(value, borders, [(np.log(stored), WORK_BITS)])
        found = _evaluate(LOG, unit) - shift
        return rescaled(found, public.scale).bounded(public.reach, f"bounds of {text}")

    return x.derived(text, public, write)


def exponential(x: Expression) -> Expression:
    """See `Expression.exp`."""
    text, mine = f"{term_of(x)}.exp()", x.public
    steps = math.ceil((mine.high - mine.low) / STEP)
    if steps > MOST_STEPS + 1 or abs(mine.high) > 300:
        raise SchemaError(
            f"{text}: {x.text} lies between {mine.low:g} and {mine.high:g} by what is public, too far apart "
            f"for an exponential (at most {MOST_STEPS * STEP:g}, and none beyond 300); clip it first"
        )
    ends, size = (math.exp(mine.low), math.exp(mine.high) * (1 + EXP_ERROR)), mine.high / math.log(2)
    public = bounds("real", *ends, math.inf, unit=size - 2, size=size)
    public = public.rounded((EXP_ERROR + mine.grain) * ends[1])
    middles: Reals = mine.low + STEP * (np.arange(max(steps, 1), dtype=np.float64) + 0.5)
    largest = math.ceil(float(middles[-1]) / math.log(2))

    def write(draft: Draft) -> Value:
        value = draft.settled(x)
        scale = min(value.scale, WORK_BITS)
        borders = middles[1:] - STEP / 2
        columns = [(middles, WORK_BITS), (np.exp(middles), EXP_BITS - largest)]
        if len(borders):
            middle, power = from_table(value, borders, columns)
        else:
            zero = (value * 0).shifted(-value.scale)
            middle, power = (
                zero.at_scale(bits) + value.builder.constant(float(entries[0]), scale=bits)
                for entries, bits in columns
            )
        about = rescaled(value, scale).at_scale(WORK_BITS) - middle
        found = _evaluate(EXP, about.bounded(STEP, "near a middle")).times(power, magnitude=ends[1] * 1.01)
        return rescaled(found, public.scale).bounded(public.reach, f"bounds of {text}")

    return x.derived(text, public, write)


# -- bands ---------------------------------------------------------------------------------------------------


def cut(x: Expression, bins: Sequence[float], labels: Sequence[str] | None, *, right: bool) -> Expression:
    """See `Expression.cut`."""
    text = f"{term_of(x)}.cut"
    if x.meaning is not None:
        raise refusal(x.meaning, x.text, "bands are of numbers")
    edges = [end_of(edge, text) for edge in elements(bins) or ()]
    if len(edges) < 2 or any(not a < b for a, b in itertools.pairwise(edges)) or len(edges) > MOST_BANDS:
        raise PlanError(
            f"{text}: bins are {edges!r:.80}; give a list of 2 to {MOST_BANDS} edges, each above the last"
        )
    low, high = x.public.low, x.public.high
    slack = x.public.grain + half_unit(x.public.scale) * 2
    inside = (
        (edges[0] < low and high <= edges[-1] + slack)
        if right
        else (edges[0] <= low + slack and high < edges[-1])
    )
    if not inside:
        raise SchemaError(
            f"{text}: {x.text} lies between {low:g} and {high:g} by what is public, bins from {edges[0]:g} "
            f"to {edges[-1]:g}, so some rows may be in none; begin with -math.inf and end with math.inf, or "
            "clip it"
        )
    if labels is None:
        left, end = ("(", "]") if right else ("[", ")")
        labels = [f"{left}{a:g}, {b:g}{end}" for a, b in itertools.pairwise(edges)]
    labels = elements(labels)
    if labels is None:
        raise SchemaError(f"{text}: labels are a list of text, one for each of {len(edges) - 1} bands")
    if len(labels) != len(edges) - 1:
        raise SchemaError(f"{text}: {len(edges) - 1} bands have {len(labels)} labels; give each its own")
    return x.banded(edges[1:-1], list(labels), right)


def banded(x: Expression, edges: Sequence[float], labels: Sequence[str], right: bool) -> Expression:
    """The band of each value between public edges, as a category."""
    if not isinstance(edges, list) or not isinstance(right, bool):
        raise PlanError(f"{term_of(x)}.cut: edges are a list of numbers, and right is True or False")
    text = f"{term_of(x)}.cut([{', '.join(text_of(edge) for edge in edges)}])"
    meaning = Meaning("category", check_labels(labels, text))
    known = [number_of(edge, text) for edge in edges]
    if len(known) != len(meaning.labels) - 1 or any(not a < b for a, b in itertools.pairwise(known)):
        raise PlanError(f"{text}: {len(known)} edges, each above the last, part {len(known) + 1} bands")

    def write(draft: Draft) -> Value:
        value = draft.value(x)
        total = (value * 0).shifted(-value.scale)
        for edge in known:
            least, most = draft.equal_units(x, edge)
            # Above the edge, or not below it.
            side = value * -1 + as_ring_units(most, value) if right else value - as_ring_units(least, value)
            above = side.is_negative().to_ring()
            total = total + (above if right else above * -1 + 1)
        return total.bounded(float(len(known)), "a band")

    made = x.derived(text, Public.of_integers(*meaning.ends), write)
    return attrs.evolve(made, meaning=meaning)
