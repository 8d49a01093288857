"""Bounds that whoever writes a formula states, and that are checked while it is computed.

What breaks one is put inside, so that all that follows keeps its bounds, and a secret bit says so. A number
also remembers what it was before that (`Number.unchecked`), for what need not wait for the check.
"""

from __future__ import annotations

from tercet.ml.numbers.by_row import NO_ROWS
from tercet.ml.numbers.functions import where
from tercet.ml.numbers.number import Number, bits_facts, unchecked
from tercet.ml.numbers.ring import Held

MOST_MULTIPLIED = 64
"""So many bits are multiplied, in 6 rounds; of more, the sum is compared with their number, in 8."""


def checked(x: Number, low: float, high: float) -> Number:
    """A number between bounds that its facts do not prove, and sound if they hold. About 11 rounds."""
    facts = x.held.facts
    ends = []
    if (facts.low < low).any():
        ends.append(x < low)
    if (facts.high > high).any():
        ends.append(x > high)
    inside = ~_any_of_two(ends)
    whole = _all(inside)
    kept = where(inside, x, min(max(low, 0.0), high)).held
    off = kept.facts.error  # what is held lies within, and the true number may be so far from it
    made = Held.of(kept.value, kept.unit, kept.facts.within(low - off, high + off))
    found = x.like(made, sound=whole if x.sound is None else whole & x.sound)
    found.unchecked = unchecked(x)
    return found


def _any_of_two(conditions: list[Number]) -> Number:
    """Which of one or two conditions hold that exclude each other: their sum, for no round."""
    first, *rest = conditions
    if not rest:
        return first
    held = (first + rest[0]).held
    return first.like(Held.of(held.value, held.unit, bits_facts(len(held.value.shape))))


def _all(bits: Number) -> Number:
    """Whether some zeros and ones are all ones: by products of few, by a count of many."""
    if bits.size > MOST_MULTIPLIED:
        return bits.sum() == bits.size
    left, count = bits.held.value.reshape(bits.size), bits.size
    while count > 1:
        half = -(-count // 2)  # where the count is odd, the middle one is there twice
        left = (left.slice(0, half) * left.slice(count - half, count)).bounded(1.0, "a bit")
        count = half
    return bits.like(Held.of(left, 1.0, bits_facts(1)), (), rows=NO_ROWS)
