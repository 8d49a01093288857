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
    inside = lies_within(x, low, high)
    whole = all_of(inside)
    kept = where(inside, x, min(max(low, 0.0), high)).held
    off = kept.facts.error  # what is held lies within, and the true number may be so far from it
    made = Held.of(kept.value, kept.unit, kept.facts.within(low - off, high + off))
    found = x.like(made, sound=whole if x.sound is None else whole & x.sound)
    found.unchecked = unchecked(x)
    return found


def lies_within(x: Number, low: float, high: float) -> Number:
    """Where numbers lie between two bounds; about 8 rounds, for what facts do not prove.

    Nothing is both too small and too large, so what is outside is the sum of two comparisons.
    """
    facts = x.held.facts
    beyond = [x < low] if (facts.low < low).any() else []
    if (facts.high > high).any() or not beyond:
        beyond.append(x > high)
    if len(beyond) == 1:
        return ~beyond[0]
    held = (beyond[0] + beyond[1]).held
    return ~x.like(Held.of(held.value, held.unit, bits_facts(len(held.value.shape))))


def all_of(bits: Number) -> Number:
    """Whether some zeros and ones are all ones: by products of few, by a count of many. Up to 8 rounds."""
    if bits.size > MOST_MULTIPLIED:
        return bits.sum() == bits.size
    left, count = bits.held.value.reshape(bits.size), bits.size
    while count > 1:
        half = -(-count // 2)  # where the count is odd, the middle one is there twice
        left = (left.slice(0, half) * left.slice(count - half, count)).bounded(1.0, "a bit")
        count = half
    return bits.like(Held.of(left, 1.0, bits_facts(1)), (), rows=NO_ROWS)
