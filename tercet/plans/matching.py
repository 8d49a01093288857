"""Matching public pseudonyms in the clear: which rows occur in every one of several lists.

Rows are found in an open-addressing table: one pass to fill it, one probe or two for each row that is looked
up. Its hash is SipHash-1-3 (Aumasson, Bernstein 2012) under a key that is drawn for each match: pseudonyms
are uniformly random, but a member may have other words listed, and must not know which of them meet. The high
bits of the hash cut long lists into parts that are matched one after the other, so that a part and its table
stay in the cache. No result depends on the key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.compiled import UINT64, inline, kernel
from tercet.protocols.base import in_memory
from tercet.protocols.domains import WORD_BITS, Words
from tercet.protocols.kernels import IN, IN2, INDEX_IN, INDEX_OUT, OUT, OUT2

Positions = npt.NDArray[np.int64]

Allocate = Callable[[tuple[int, ...]], Words]

NOWHERE = -1
"""The position of a row that is not there."""
PART_ROWS = 1 << 15
"""Rows of a list that are matched at a time, about: they and their table take 1 to 2 MB."""
MOST_PART_BITS = 10
"""A list is cut into 2^10 parts at most: more places that are written to in turn would be slower."""
SPAN_ROWS = 1 << 20
"""Rows of a result that are gathered at a time."""


@inline
def _rotated(word: np.uint64, left: int) -> np.uint64:
    """A word rotated by 1 to 63 bits."""
    return (word << np.uint64(left)) | (word >> np.uint64(64 - left))


@inline
def _sip_round(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """A round of SipHash; its paper calls the words v0 to v3."""
    a += b
    c += d
    b = _rotated(b, 13) ^ a
    d = _rotated(d, 16) ^ c
    a = _rotated(a, 32)
    c += b
    a += d
    b = _rotated(b, 17) ^ c
    d = _rotated(d, 21) ^ a
    c = _rotated(c, 32)
    return a, b, c, d


@inline
def _hash(key: Words, low: np.uint64, high: np.uint64) -> np.uint64:
    """SipHash-1-3 of 16 bytes under a key of two words."""
    a = key[0] ^ np.uint64(0x736F6D6570736575)
    b = key[1] ^ np.uint64(0x646F72616E646F6D)
    c = key[0] ^ np.uint64(0x6C7967656E657261)
    d = key[1] ^ np.uint64(0x7465646279746573)
    a, b, c, d = _sip_round(a, b, c, d ^ low)
    a, b, c, d = _sip_round(a ^ low, b, c, d ^ high)
    length = np.uint64(16 << 56)
    a, b, c, d = _sip_round(a ^ high, b, c, d ^ length)
    a, c = a ^ length, c ^ np.uint64(0xFF)
    for _ in range(3):
        a, b, c, d = _sip_round(a, b, c, d)
    return a ^ b ^ c ^ d


@kernel(IN, IN2, OUT)
def hash_columns(key: Words, listed: Words, out: Words) -> None:
    """The hash of every column of `listed` (2, n), for a key of two words."""
    for i in range(listed.shape[1]):
        out[i] = _hash(key, listed[0, i], listed[1, i])


@kernel(IN, UINT64, INDEX_OUT)
def _count(hashed: Words, shift: np.uint64, counts: Positions) -> None:
    """How many columns there are of each part, which the bits of their hash above `shift` number."""
    for i in range(hashed.shape[0]):
        counts[hashed[i] >> shift] += 1


@kernel(IN2, IN, UINT64, INDEX_OUT, OUT2, OUT, INDEX_OUT)
def _deal(
    listed: Words,
    hashed: Words,
    shift: np.uint64,
    starts: Positions,
    dealt: Words,
    dealt_hashed: Words,
    places: Positions,
) -> None:
    """The columns of `listed` part by part, their hash and positions; moves `starts` to the ends of parts."""
    for i in range(hashed.shape[0]):
        part = hashed[i] >> shift
        place = starts[part]
        dealt[0, place], dealt[1, place] = listed[0, i], listed[1, i]
        dealt_hashed[place] = hashed[i]
        places[place] = i
        starts[part] = place + 1


@inline
def _slot(listed: Words, slots: Positions, low: np.uint64, high: np.uint64, hashed: np.uint64) -> np.uint64:
    """The slot of a column of `listed` in a table, or the free one where it belongs."""
    last = np.uint64(slots.shape[0] - 1)
    slot = hashed & last
    position = slots[slot]
    while position >= 0 and (listed[0, position] != low or listed[1, position] != high):
        slot = (slot + np.uint64(1)) & last
        position = slots[slot]
    return slot


@kernel(IN2, IN, INDEX_OUT, INDEX_OUT)
def _mark_first(listed: Words, hashed: Words, slots: Positions, found: Positions) -> None:
    """Put the position of every column into the table, once for those that are alike.

    The size of the table is a power of two; `found` is 1 for what was not there yet.
    """
    for i in range(listed.shape[1]):
        slot = _slot(listed, slots, listed[0, i], listed[1, i], hashed[i])
        if slots[slot] < 0:
            slots[slot] = i
            found[i] = 1


@kernel(IN2, INDEX_IN, INDEX_IN, IN2, IN, INDEX_IN, INDEX_OUT)
def _look_up(
    listed: Words,
    places: Positions,
    slots: Positions,
    wanted: Words,
    hashed: Words,
    wanted_places: Positions,
    found: Positions,
) -> None:
    """For every column of `wanted` the place of the first of `listed` that is like it, or -1."""
    for i in range(wanted.shape[1]):
        position = slots[_slot(listed, slots, wanted[0, i], wanted[1, i], hashed[i])]
        found[wanted_places[i]] = places[position] if position >= 0 else -1


def new_key() -> Words:
    """A fresh key for the hash."""
    return np.frombuffer(secrets.token_bytes(16), dtype=np.uint64)


def first_places(listed: Words, allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> Positions:
    """Positions `(m,)`, ascending, of the columns of `(2, n)` that are like none before them."""
    is_first = allocate((listed.shape[1],)).view(np.int64)
    for one in _parts(listed, _part_bits(listed.shape[1], part), new_key(), allocate):
        _, marks = one.table()
        is_first[one.places] = marks
    return np.flatnonzero(is_first)


@attrs.frozen(eq=False)
class Matches:
    """Where the columns of the first of several lists are in the others.

    `found` `(lists - 1, n)` has the position of the first column like it, or `NOWHERE`; `repeats` says how
    many columns of each list are like one before them: none among pseudonyms of unique keys.
    """

    repeats: Sequence[int]
    found: Positions

    @classmethod
    def of(cls, lists: Sequence[Words], allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> Self:
        """Match lists `(2, n)`, about `part` rows of the longest at a time.

        What has a number for each row comes from `allocate`.
        """
        bits, key = _part_bits(max(listed.shape[1] for listed in lists), part), new_key()
        repeats, found = [0] * len(lists), allocate((len(lists) - 1, lists[0].shape[1])).view(np.int64)
        for parts in zip(*(_parts(listed, bits, key, allocate) for listed in lists), strict=True):
            wanted = parts[0]
            for number, one in enumerate(parts):
                slots, marks = one.table()
                repeats[number] += int(marks.size - np.count_nonzero(marks))
                if number:
                    _look_up(
                        one.columns,
                        one.places,
                        slots,
                        wanted.columns,
                        wanted.hashed,
                        wanted.places,
                        found[number - 1],
                    )
        return cls(repeats, found)

    def everywhere(self, allocate: Allocate = in_memory) -> Positions:
        """Positions `(lists, m)` of the columns that all lists share, in the order of the first list."""
        lists, rows = len(self.repeats), self.found.shape[1]
        spans = [slice(start, min(start + SPAN_ROWS, rows)) for start in range(0, rows, SPAN_ROWS)]
        shared = [np.flatnonzero((self.found[:, span] >= 0).all(axis=0)) + span.start for span in spans]
        positions = allocate((lists, sum(map(len, shared)))).view(np.int64)
        end = 0
        for here in shared:
            begin, end = end, end + len(here)
            positions[0, begin:end] = here
            np.take(self.found, here, axis=1, out=positions[1:, begin:end], mode="clip")
        return positions


# -- parts ---------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Part:
    """Columns `(2, n)` of a list, whose hash agrees in its uppermost bits, in the order of the list."""

    columns: Words
    hashed: Words
    places: Positions

    def table(self) -> tuple[Positions, Positions]:
        """A table of the columns, at most half full; and ones for those that are like none before them."""
        slots = np.full(1 << max(1, 2 * self.hashed.size - 1).bit_length(), NOWHERE, dtype=np.int64)
        marks = np.zeros(self.hashed.size, dtype=np.int64)
        _mark_first(self.columns, self.hashed, slots, marks)
        return slots, marks


def _part_bits(rows: int, part: int) -> int:
    return min((rows // part).bit_length(), MOST_PART_BITS)


def _parts(listed: Words, bits: int, key: Words, allocate: Allocate) -> Iterator[_Part]:
    """The parts of a list, by so many of the uppermost bits of the hash; the list itself where none are."""
    listed, rows = np.ascontiguousarray(listed), listed.shape[1]
    hashed = allocate((rows,))
    hash_columns(key, listed, hashed)
    if bits == 0:
        yield _Part(listed, hashed, np.arange(rows))
        return
    shift = np.uint64(WORD_BITS - bits)
    counts = np.zeros(1 << bits, dtype=np.int64)
    _count(hashed, shift, counts)
    ends = np.cumsum(counts) - counts
    dealt, dealt_hashed, places = allocate((2, rows)), allocate((rows,)), allocate((rows,)).view(np.int64)
    _deal(listed, hashed, shift, ends, dealt, dealt_hashed, places)
    del hashed
    start = 0
    for end in map(int, ends):
        columns = np.ascontiguousarray(dealt[:, start:end])
        yield _Part(columns, dealt_hashed[start:end], places[start:end])
        start = end


__all__ = ["NOWHERE", "Matches", "Positions", "first_places", "hash_columns", "new_key"]
