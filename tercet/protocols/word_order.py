"""Order and equality of rows by secret words, such as pseudonyms of keys: shared bits, compared as they are.

Words under XOR need not become numbers to be compared: bit-sliced, `a < b` is the carry out of `not a + b`.
`sort_by_words` brings rows with equal words together as `ranking` sorts numbers: the number of the row is
appended to its words, rows are shuffled, and comparisons of what is now distinct are opened, which disclose
nothing but a uniformly random permutation (Hamada, Kikuchi, Ikarashi, Chida, Takahashi 2012). Which rows are
equal is not disclosed, nor whether any are; `zero_words` finds it out as secret bits.

Words have to be uniformly random where they differ, as pseudonyms are. Then a prefix of them orders the rows:
it is long enough that two different ones of n agree in it with a chance below n^2 2^-(2 log2(n) + 40), so
below 2^-40 for all pairs together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, circuits
from tercet.protocols.base import Cost, Op, Protocol, Share
from tercet.protocols.domains import BITS, WORD_BITS, Words, packed_words
from tercet.protocols.kernels import Indices
from tercet.protocols.ranking import ask, batches
from tercet.protocols.samplesort import Bools, sort

KEY_WORDS = 2
UNLIKELY = 40
"""Words that differ agree in what they are ordered by with a chance of 2 to minus this."""
_ONES = ~np.uint64(0)


def sort_by_words(protocol: Protocol, columns: Sequence[Share]) -> Op[list[Share]]:
    """All columns, rows ordered by the first, words `(2, n)` in `BITS`; equal ones stay in their order.

    The order of words that differ is that of the prefixes that tell them apart, upper word first. Cost:
    `sort_by_words_cost`; openings: `ranking.openings(n)`.
    """
    keys, bits = _numbered(protocol, columns[0])
    *moved, shuffled = yield from protocol.shuffle([*columns, keys])
    order = yield from _rank(protocol, shuffled, bits)
    return [protocol.take(column, order) for column in moved]


def sort_by_words_cost(protocol: Protocol, columns: Sequence[Share]) -> Cost:
    """About what `sort_by_words` costs: the mean over permutations."""
    rows = columns[0].shape[-1]
    keys = protocol.spec((KEY_WORDS, rows), domain=BITS)
    cost = protocol.cost("shuffle", [*columns, keys])
    steps, comparisons = batches(rows)
    if not steps:
        return cost
    batch = packed_words(-(-comparisons // steps))
    each = _below_cost(protocol, _bits(rows), batch)
    each = each + protocol.cost("open", protocol.spec((batch,), domain=BITS))
    return cost + Cost(each.rounds * steps, tuple(sent * steps for sent in each.sent))


def zero_words(protocol: Protocol, words: Share) -> Op[Share]:
    """Packed booleans `(n,)`: where all words of `(w, n)` in `BITS` are zero. Cost: `zero_words_cost`."""
    planes = _planes(words, words.shape[0] * WORD_BITS)
    blank = protocol.add_public(planes, np.full(planes.shape, _ONES))
    return (yield from circuits.and_tree(protocol, blank))


def zero_words_cost(protocol: Protocol, words: Share) -> Cost:
    """6 rounds for one word, 7 for two; as many ANDs as they have bits, less one."""
    return circuits.and_tree_cost(protocol, words.shape[0] * WORD_BITS, packed_words(words.shape[-1]))


# -- what rows are ordered by --------------------------------------------------------------------------------


def _bits(rows: int) -> int:
    """How many bits of words and row numbers are compared, of which the upper word is all."""
    number = max(rows - 1, 0).bit_length()
    return WORD_BITS + _lower_bits(number) + number


def _lower_bits(number: int) -> int:
    """How many bits of the lower word rows are ordered by, beside row numbers of so many."""
    return min(max(0, 2 * number + UNLIKELY - WORD_BITS), WORD_BITS - number)


def _numbered(protocol: Protocol, words: Share) -> tuple[Share, int]:
    """Distinct keys `(2, n)`, and how many bits they have. Local.

    The upper word above, and below it the uppermost bits of the lower one that are needed, then the number of
    the row.
    """
    if words.domain is not BITS or words.shape[:-1] != (KEY_WORDS,):
        raise ProtocolError(f"rows are ordered by {KEY_WORDS} shared words each, not by {words.shape}")
    rows = words.shape[-1]
    number = max(rows - 1, 0).bit_length()
    kept = _lower_bits(number)
    data = words.data.copy()
    # A shift by a whole word is not defined: in two steps, the first of them by less.
    lower = (data[:, 0] >> np.uint64(WORD_BITS - kept)) if kept else np.zeros_like(data[:, 0])
    data[:, 0] = lower << np.uint64(number)
    numbers = np.zeros(words.shape, dtype=np.uint64)
    numbers[0] = np.arange(rows, dtype=np.uint64)
    return protocol.add_public(words.like(data), numbers), _bits(rows)


def _planes(words: Share, bits: int) -> Share:
    """The lowest bits of words `(w, n)` as planes `(bits, n / 64)`, the first word lowest. Local."""
    held, _, rows = words.data.shape
    made = np.empty((held, bits, packed_words(rows)), dtype=np.uint64)
    for component, planes in zip(words.data, made, strict=True):
        for place, word in enumerate(component):
            start, stop = place * WORD_BITS, min((place + 1) * WORD_BITS, bits)
            planes[start:stop] = bitplanes.to_planes(np.ascontiguousarray(word), stop - start)
    return words.like(made)


def _compared(keys: Share, rows: Indices, bits: int) -> Share:
    """Planes `(bits, m / 64)` of the keys of some rows: row number, lower word, upper word."""
    lower, held = bits - WORD_BITS, len(keys.data)
    made = np.empty((held, bits, packed_words(rows.size)), dtype=np.uint64)
    for component, planes in zip(keys.data, made, strict=True):
        planes[:lower] = bitplanes.to_planes(component[0][rows], lower)
        planes[lower:] = bitplanes.to_planes(component[1][rows])
    return keys.like(made)


# -- comparisons ---------------------------------------------------------------------------------------------


def _rank(protocol: Protocol, keys: Share, bits: int) -> Op[Indices]:
    """The positions of shuffled, distinct keys in ascending order; public."""
    asking = sort(keys.shape[-1], ask)
    answer: Bools | None = None
    while True:
        try:
            left, right = asking.send(answer)
        except StopIteration as stop:
            order: Indices = stop.value
            return order
        first, second = (_compared(keys, side, bits) for side in (left, right))
        less = yield from _below(protocol, first, second)
        words: Words = yield from protocol.open(less)
        answer = bitplanes.unpack_bits(words, left.size).astype(np.bool_)


def _below(protocol: Protocol, x: Share, y: Share) -> Op[Share]:
    """Packed booleans `x < y` of planes `(bits, words)`, lowest bit first: the carry out of `not x + y`."""
    flipped = protocol.add_public(x, np.full(x.shape, _ONES))
    generate = yield from protocol.mul(flipped, y)
    return (yield from circuits.carry_tree(protocol, generate, protocol.add(flipped, y)))


def _below_cost(protocol: Protocol, bits: int, words: int) -> Cost:
    planes = protocol.spec((bits, words), domain=BITS)
    return protocol.cost("mul", planes, planes) + circuits.carry_tree_cost(protocol, bits, words)


__all__ = ["KEY_WORDS", "sort_by_words", "sort_by_words_cost", "zero_words", "zero_words_cost"]
