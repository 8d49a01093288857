"""Matching public pseudonyms in the clear: which rows occur in every one of several lists.

Rows are found in an open-addressing table: one pass to fill it, one probe or two for each row that is looked
up. Its hash is SipHash-1-3 (Aumasson, Bernstein 2012) under a key that is drawn for each match: pseudonyms
are uniformly random, but a member may have other words listed, and must not know which of them meet. The high
bits of the hash cut long lists into parts that are matched one after the other, so that a table never takes
more than a few megabytes. No result depends on the key.
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
from tercet.protocols.kernels import IN, IN2, INDEX_OUT, OUT, OUT2

Positions = npt.NDArray[np.int64]

Allocate = Callable[[tuple[int, ...]], Words]

NOWHERE = -1
"""The position of a row that is not there."""
PART_ROWS = 1 << 20
"""Rows of a list that are matched at a time, about: a table of 16 to 32 MB."""


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


@kernel(IN, IN2, INDEX_OUT)
def _fill(key: Words, listed: Words, slots: Positions) -> None:
    """Put the position of every column of `listed` (2, n) into the table; its size is a power of two."""
    last = np.uint64(slots.shape[0] - 1)
    for i in range(listed.shape[1]):
        slot = _hash(key, listed[0, i], listed[1, i]) & last
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & last
        slots[slot] = i


@kernel(IN, IN2, IN2, INDEX_OUT, INDEX_OUT)
def _look_up(key: Words, listed: Words, wanted: Words, slots: Positions, found: Positions) -> None:
    """For every column of `wanted` its position in `listed`, or -1."""
    last = np.uint64(slots.shape[0] - 1)
    for i in range(wanted.shape[1]):
        low, high = wanted[0, i], wanted[1, i]
        slot = _hash(key, low, high) & last
        position = slots[slot]
        while position >= 0 and (listed[0, position] != low or listed[1, position] != high):
            slot = (slot + np.uint64(1)) & last
            position = slots[slot]
        found[i] = position


@kernel(IN, IN2, INDEX_OUT, INDEX_OUT)
def _mark_first(key: Words, listed: Words, slots: Positions, found: Positions) -> None:
    """Put every column into the table once; `found` is 1 where it was not there yet."""
    last = np.uint64(slots.shape[0] - 1)
    for i in range(listed.shape[1]):
        low, high = listed[0, i], listed[1, i]
        slot = _hash(key, low, high) & last
        position = slots[slot]
        while position >= 0 and (listed[0, position] != low or listed[1, position] != high):
            slot = (slot + np.uint64(1)) & last
            position = slots[slot]
        if position < 0:
            slots[slot] = i
            found[i] = 1


@kernel(IN, IN2, UINT64, INDEX_OUT)
def _count(key: Words, listed: Words, shift: np.uint64, counts: Positions) -> None:
    """How many columns there are of each part, which the bits of their hash above `shift` number."""
    for i in range(listed.shape[1]):
        counts[_hash(key, listed[0, i], listed[1, i]) >> shift] += 1


@kernel(IN, IN2, UINT64, INDEX_OUT, OUT2, INDEX_OUT)
def _deal(
    key: Words, listed: Words, shift: np.uint64, starts: Positions, dealt: Words, places: Positions
) -> None:
    """The columns of `listed` part by part, and their positions; moves `starts` to the ends of parts."""
    for i in range(listed.shape[1]):
        part = _hash(key, listed[0, i], listed[1, i]) >> shift
        place = starts[part]
        dealt[0, place], dealt[1, place] = listed[0, i], listed[1, i]
        places[place] = i
        starts[part] = place + 1


def new_key() -> Words:
    """A fresh key for the hash."""
    return np.frombuffer(secrets.token_bytes(16), dtype=np.uint64)


def twice(listed: Words, allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> int:
    """How many columns of `(2, n)` are like one before them: none among pseudonyms of unique keys."""
    return int(listed.shape[1] - first_places(listed, allocate, part=part).size)


def first_places(listed: Words, allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> Positions:
    """Positions `(m,)`, ascending, of the columns of `(2, n)` that are like none before them."""
    is_first, key = allocate((listed.shape[1],)).view(np.int64), new_key()
    for columns, places in _Parts.of(listed, (listed.shape[1] // part).bit_length(), key, allocate):
        columns = np.ascontiguousarray(columns)
        marks = np.zeros(columns.shape[1], dtype=np.int64)
        _mark_first(key, columns, _slots(columns.shape[1]), marks)
        is_first[places] = marks
    return np.flatnonzero(is_first)


def _slots(columns: int) -> Positions:
    """An empty table for so many columns, at most half full."""
    return np.full(1 << max(1, 2 * columns - 1).bit_length(), -1, dtype=np.int64)


def positions_in(listed: Words, wanted: Words, key: Words) -> Positions:
    """The position of every column of `wanted` (2, m) among the distinct ones of `listed` (2, n), or -1."""
    listed, wanted = np.ascontiguousarray(listed), np.ascontiguousarray(wanted)
    slots = _slots(listed.shape[1])
    _fill(key, listed, slots)
    found = np.empty(wanted.shape[1], dtype=np.int64)
    _look_up(key, listed, wanted, slots, found)
    return found


@attrs.frozen(eq=False)
class _Parts:
    """The columns of a list part by part: those of one part are neighbours, in the order of the list."""

    dealt: Words
    places: Positions
    ends: Positions

    @classmethod
    def of(cls, listed: Words, bits: int, key: Words, allocate: Allocate) -> Self:
        """Parts by the uppermost bits of the hash; the list itself where they are none."""
        listed = np.ascontiguousarray(listed)
        if bits == 0:
            return cls(listed, np.arange(listed.shape[1]), np.array([listed.shape[1]]))
        shift = np.uint64(WORD_BITS - bits)
        counts = np.zeros(1 << bits, dtype=np.int64)
        _count(key, listed, shift, counts)
        ends = np.cumsum(counts) - counts
        dealt, places = allocate(listed.shape), allocate((listed.shape[1],)).view(np.int64)
        _deal(key, listed, shift, ends, dealt, places)
        return cls(dealt, places, ends)

    def __iter__(self) -> Iterator[tuple[Words, Positions]]:
        start = 0
        for end in map(int, self.ends):
            yield self.dealt[:, start:end], self.places[start:end]
            start = end


def partners(
    first: Words, second: Words, allocate: Allocate = in_memory, *, part: int = PART_ROWS
) -> Positions:
    """Of each column of the first list `(2, n)`, the position of the same in the second, or `NOWHERE`."""
    found: Positions = _found([first, second], allocate, part)[0]
    return found


def _found(lists: Sequence[Words], allocate: Allocate, part: int) -> Positions:
    """Positions `(lists - 1, n)` of the columns of the first list in each of the others, or `NOWHERE`."""
    bits = (max(listed.shape[1] for listed in lists) // part).bit_length()
    key = new_key()
    wanted, *others = (_Parts.of(listed, bits, key, allocate) for listed in lists)
    found = allocate((len(others), len(wanted.places))).view(np.int64)
    for other, listed in zip(found, others, strict=True):
        for (columns, here), (among, there) in zip(wanted, listed, strict=True):
            place = positions_in(among, columns, key)
            other[here] = np.where(place >= 0, np.append(there, NOWHERE)[place], NOWHERE)
    return found


def intersect(lists: Sequence[Words], allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> Positions:
    """Positions `(lists, m)` of the columns `(2, n)` that all lists share, in the order of the first list.

    Each list's columns are distinct, as pseudonyms of unique keys are. A part has about `part` rows of the
    longest list; what has a number for each row comes from `allocate`.
    """
    rows = lists[0].shape[1]
    found = _found(lists, allocate, part)
    blocks = [slice(start, min(start + PART_ROWS, rows)) for start in range(0, rows, PART_ROWS)]
    everywhere = [np.flatnonzero((found[:, block] >= 0).all(axis=0)) + block.start for block in blocks]
    positions = allocate((len(lists), sum(map(len, everywhere)))).view(np.int64)
    end = 0
    for here in everywhere:
        begin, end = end, end + len(here)
        positions[0, begin:end] = here
        np.take(found, here, axis=1, out=positions[1:, begin:end], mode="clip")
    return positions
