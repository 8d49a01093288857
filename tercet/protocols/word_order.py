"""Order and equality of rows by secret words, such as pseudonyms of keys: shared bits, compared as they are.

Words under XOR need not become numbers to be compared: bit-sliced, the highest bit in which two of them
differ tells which is less. `sort_by_words` brings rows with equal words together as `ranking` sorts numbers:
the number of the row is appended to its words, rows are shuffled, and comparisons of what is now distinct are
opened, which disclose nothing but a uniformly random permutation (Hamada, Kikuchi, Ikarashi, Chida, Takahashi
2012). Which rows are equal is not disclosed, nor whether any are; `zero_words` finds it out as secret bits.

Words have to be uniformly random where they differ, as pseudonyms are. Then a prefix of them orders the rows:
it is long enough that two different ones of n agree in it with a chance below n^2 2^-(2 log2(n) + 40), so
below 2^-40 for all pairs together.

Where no word comes twice among the first rows, and none among the others, one bit tells the two rows of a
word apart instead of a row number; and the prefix need only be so long that no three different words agree in
it, if who asks looks `NEAR` rows back for the other row of a word. Then all that is compared fits one word.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, circuits
from tercet.protocols.base import Cost, Op, Protocol, Share
from tercet.protocols.domains import BITS, WORD_BITS, Words, packed_words
from tercet.protocols.kernels import Indices
from tercet.protocols.ranking import ask, batches, parts_cost
from tercet.protocols.samplesort import Bools, sort
from tercet.protocols.together import sort as sort_parts

KEY_WORDS = 2
UNLIKELY = 40
"""Words that differ agree in what they are ordered by with a chance of 2 to minus this."""
NEAR = 3
"""Two rows of one word are at most so far apart where rows are sorted as those of two sides."""
_ONES = ~np.uint64(0)


def sort_by_words(protocol: Protocol, columns: Sequence[Share], first: int | None = None) -> Op[list[Share]]:
    """All columns, rows ordered by the first, words `(2, n)` in `BITS`; equal ones stay in their order.

    The order of words that differ is that of the prefixes that tell them apart, upper word first. Where the
    `first` so many rows have distinct words, and the others too, two rows with the same word are at most
    `NEAR` apart, that of the first rows before the other, and only a row with another word may lie between.
    If they are not distinct, what is opened tells of rows with equal words on one side. Cost:
    `sort_by_words_cost`; openings: `ranking.openings(n)`.
    """
    team = protocol.team
    keys = _keys(columns[0], first, None if team is None else team.rows[0])
    start = 0 if team is None else team.block(team.rows[0]).start
    *moved, shuffled = yield from protocol.shuffle([*columns, keys.of(protocol, columns[0], start)])
    if team is not None:

        def less(some: Share, left: Indices, right: Indices) -> Op[Bools]:
            return _compare(protocol, some, _beside(some), left, right, keys.bits)

        def rank(some: Share) -> Op[Indices]:
            return _rank(protocol, some, keys.bits)

        return (yield from sort_parts(protocol, team, [*moved, shuffled], rank, less))
    order = yield from _rank(protocol, shuffled, keys.bits)
    return [protocol.take(column, order) for column in moved]


def sort_by_words_cost(protocol: Protocol, columns: Sequence[Share], first: int | None = None) -> Cost:
    """About what `sort_by_words` costs, or a member's part of it: the mean over permutations."""
    team, block = protocol.team, columns[0].shape[-1]
    rows = block if team is None else team.rows[0]
    keys = _keys(columns[0], first, rows)
    cost = protocol.cost("shuffle", [*columns, protocol.spec((keys.words, block), domain=BITS)])

    def steps_cost(steps: int, batch: int) -> Cost:
        each = circuits.select_tree_cost(protocol, keys.bits, packed_words(batch))
        each = each + protocol.cost("open", protocol.spec((packed_words(batch),), domain=BITS))
        return Cost(each.rounds * steps, tuple(sent * steps for sent in each.sent))

    if team is not None:
        return cost + parts_cost(team, steps_cost)
    steps, comparisons = batches(rows)
    return cost + steps_cost(steps, -(-comparisons // steps)) if steps else cost


def zero_words(protocol: Protocol, words: Share) -> Op[Share]:
    """Packed booleans `(n,)`: where all words of `(w, n)` in `BITS` are zero. Cost: `zero_words_cost`."""
    planes = _planes(words, words.shape[0] * WORD_BITS)
    blank = protocol.add_public(planes, np.full(planes.shape, _ONES))
    return (yield from circuits.and_tree(protocol, blank))


def zero_words_cost(protocol: Protocol, words: Share) -> Cost:
    """6 rounds for one word, 7 for two; as many ANDs as they have bits, less one."""
    return circuits.and_tree_cost(protocol, words.shape[0] * WORD_BITS, packed_words(words.shape[-1]))


def _planes(words: Share, bits: int) -> Share:
    """The lowest bits of words `(w, n)` as planes `(bits, n / 64)`, the first word lowest. Local."""
    held, _, rows = words.data.shape
    made = np.empty((held, bits, packed_words(rows)), dtype=np.uint64)
    for component, planes in zip(words.data, made, strict=True):
        for place, word in enumerate(component):
            start, stop = place * WORD_BITS, min((place + 1) * WORD_BITS, bits)
            planes[start:stop] = bitplanes.to_planes(np.ascontiguousarray(word), stop - start)
    return words.like(made)


# -- what rows are ordered by --------------------------------------------------------------------------------


@attrs.frozen
class _Keys:
    """What tells rows apart, in so many words: `upper` bits of the upper word, `lower` ones, and a `number`.

    The number has so many bits; rows from `first` on have 1, if that is given, else each has its own.
    """

    words: int
    upper: int
    lower: int
    number: int
    first: int | None

    @property
    def bits(self) -> int:
        """How many are compared, of which the uppermost word is all."""
        return self.upper + self.lower + self.number

    def of(self, protocol: Protocol, words: Share, start: int) -> Share:
        """Distinct keys `(words, n)` of words `(2, n)`, which are those of rows from `start` on. Local."""
        rows = words.shape[-1]
        numbers = np.zeros((self.words, rows), dtype=np.uint64)
        data = words.data.copy()
        if self.words == 1:
            data = (data[:, 1:] >> np.uint64(WORD_BITS - self.upper)) << np.uint64(1)
            numbers[0, max(0, (self.first or 0) - start) :] = 1
        else:
            # A shift by a whole word is not defined: in two steps, the first of them by less.
            shift = np.uint64(WORD_BITS - self.lower)
            lower = (data[:, 0] >> shift) if self.lower else np.zeros_like(data[:, 0])
            data[:, 0] = lower << np.uint64(self.number)
            numbers[0] = np.arange(start, start + rows, dtype=np.uint64)
        return protocol.add_public(words.like(data), numbers)


def _keys(words: Share, first: int | None, rows: int | None = None) -> _Keys:
    """What orders rows by words `(2, n)`: as much as is needed of so many, or of `rows`."""
    if words.domain is not BITS or words.shape[:-1] != (KEY_WORDS,):
        raise ProtocolError(f"rows are ordered by {KEY_WORDS} shared words each, not by {words.shape}")
    number = max((words.shape[-1] if rows is None else rows) - 1, 0).bit_length()
    if first is None:
        lower = min(max(0, 2 * number + UNLIKELY - WORD_BITS), WORD_BITS - number)
        return _Keys(KEY_WORDS, WORD_BITS, lower, number, None)
    # Of n words, n^3 / 6 triples; all three of one agree in b bits with a chance of 2^-2b.
    return _Keys(1, min((3 * number + UNLIKELY) // 2, WORD_BITS - 1), 0, 1, first)


# -- comparisons ---------------------------------------------------------------------------------------------


def _rank(protocol: Protocol, keys: Share, bits: int) -> Op[Indices]:
    """The positions of shuffled, distinct keys `(w, n)` in ascending order; public."""
    rows = keys.shape[-1]
    beside = _beside(keys)
    asking = sort(rows, ask)
    answer: Bools | None = None
    current = np.arange(rows, dtype=np.int64)
    ordered = beside
    while True:
        try:
            left, right, now = asking.send(answer)
        except StopIteration as stop:
            order: Indices = stop.value
            return order
        if now is not current:
            current, ordered = now, beside.take(now, axis=0)
        answer = yield from _compare(protocol, keys, ordered, left, right, bits)


def _beside(keys: Share) -> Words:
    """Keys `(w, n)` with all words of one, of all components, side by side."""
    held, words, rows = keys.data.shape
    return np.ascontiguousarray(keys.data.reshape(held * words, rows).T)


def _compare(
    protocol: Protocol, keys: Share, beside: Words, left: Indices, right: Indices, bits: int
) -> Op[Bools]:
    """Open which keys at the left places are less than those at the right ones."""
    shape = (len(keys.data), bits, packed_words(left.size))
    differ, second = (np.empty(shape, dtype=np.uint64) for _ in range(2))
    places = np.empty(bits, dtype=np.int64)
    places[np.array(circuits.halves(bits))] = np.arange(bits)
    bitplanes.pair_planes(beside, left, right, places, differ, second)
    less = yield from circuits.select_tree(protocol, keys.like(differ), keys.like(second))
    opened: Words = yield from protocol.open(less)
    return bitplanes.unpack_bits(opened, left.size).astype(np.bool_)


__all__ = ["KEY_WORDS", "NEAR", "sort_by_words", "sort_by_words_cost", "zero_words", "zero_words_cost"]
