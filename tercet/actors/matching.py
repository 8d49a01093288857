"""Matching public pseudonyms in the clear: which rows occur in every one of several lists.

Pseudonyms are uniformly random 128-bit words, so their low bits serve as the hash of an open-addressing
table: one pass to fill it, one probe or two for each row that is looked up. Their high bits cut long lists
into parts that are matched one after the other, so that a table never takes more than a few megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt
from numba import types

from tercet.protocols.base import in_memory
from tercet.protocols.domains import WORD_BITS, Words
from tercet.protocols.kernels import IN, IN2, INDEX_OUT, OUT2, kernel

Positions = npt.NDArray[np.int64]

Allocate = Callable[[tuple[int, ...]], Words]

PART_ROWS = 1 << 20
"""Rows of a list that are matched at a time, about: a table of 16 to 32 MB."""


@kernel(IN2, INDEX_OUT)
def _fill(listed: Words, slots: Positions) -> None:
    """Put the position of every column of `listed` (2, n) into the table; its size is a power of two."""
    last = np.uint64(slots.shape[0] - 1)
    for i in range(listed.shape[1]):
        slot = listed[0, i] & last
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & last
        slots[slot] = i


@kernel(IN2, IN2, INDEX_OUT, INDEX_OUT)
def _look_up(listed: Words, wanted: Words, slots: Positions, found: Positions) -> None:
    """For every column of `wanted` its position in `listed`, or -1."""
    last = np.uint64(slots.shape[0] - 1)
    for i in range(wanted.shape[1]):
        low, high = wanted[0, i], wanted[1, i]
        slot = low & last
        position = slots[slot]
        while position >= 0 and (listed[0, position] != low or listed[1, position] != high):
            slot = (slot + np.uint64(1)) & last
            position = slots[slot]
        found[i] = position


@kernel(IN2, INDEX_OUT, INDEX_OUT)
def _count_twice(listed: Words, slots: Positions, found: Positions) -> None:
    """Put every column into the table once; adds to `found[0]` how many were there already."""
    last = np.uint64(slots.shape[0] - 1)
    for i in range(listed.shape[1]):
        low, high = listed[0, i], listed[1, i]
        slot = low & last
        position = slots[slot]
        while position >= 0 and (listed[0, position] != low or listed[1, position] != high):
            slot = (slot + np.uint64(1)) & last
            position = slots[slot]
        if position >= 0:
            found[0] += 1
        else:
            slots[slot] = i


@kernel(IN, types.uint64, INDEX_OUT)
def _count(tops: Words, shift: np.uint64, counts: Positions) -> None:
    """How many words there are of each part, which their bits above `shift` number."""
    for i in range(tops.shape[0]):
        counts[tops[i] >> shift] += 1


@kernel(IN2, types.uint64, INDEX_OUT, OUT2, INDEX_OUT)
def _deal(listed: Words, shift: np.uint64, starts: Positions, dealt: Words, places: Positions) -> None:
    """The columns of `listed` part by part, and their positions; moves `starts` to the ends of parts."""
    for i in range(listed.shape[1]):
        part = listed[1, i] >> shift
        place = starts[part]
        dealt[0, place], dealt[1, place] = listed[0, i], listed[1, i]
        places[place] = i
        starts[part] = place + 1


def twice(listed: Words, allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> int:
    """How many columns of `(2, n)` are like one before them: none among pseudonyms of unique keys."""
    found = np.zeros(1, dtype=np.int64)
    for keys, _ in _Parts.of(listed, (listed.shape[1] // part).bit_length(), allocate):
        keys = np.ascontiguousarray(keys)
        _count_twice(keys, _slots(keys.shape[1]), found)
    return int(found[0])


def _slots(columns: int) -> Positions:
    """An empty table for so many columns, at most half full."""
    return np.full(1 << max(1, 2 * columns - 1).bit_length(), -1, dtype=np.int64)


def positions_in(listed: Words, wanted: Words) -> Positions:
    """The position of every column of `wanted` (2, m) among the distinct ones of `listed` (2, n), or -1."""
    listed, wanted = np.ascontiguousarray(listed), np.ascontiguousarray(wanted)
    slots = _slots(listed.shape[1])
    _fill(listed, slots)
    found = np.empty(wanted.shape[1], dtype=np.int64)
    _look_up(listed, wanted, slots, found)
    return found


@attrs.frozen(eq=False)
class _Parts:
    """The columns of a list part by part: those of one part are neighbours, in the order of the list."""

    dealt: Words
    places: Positions
    ends: Positions

    @classmethod
    def of(cls, listed: Words, bits: int, allocate: Allocate) -> Self:
        """Parts by the uppermost bits; the list itself where they are none."""
        listed = np.ascontiguousarray(listed)
        if bits == 0:
            return cls(listed, np.arange(listed.shape[1]), np.array([listed.shape[1]]))
        shift = np.uint64(WORD_BITS - bits)
        counts = np.zeros(1 << bits, dtype=np.int64)
        _count(listed[1], shift, counts)
        ends = np.cumsum(counts) - counts
        dealt, places = allocate(listed.shape), allocate((listed.shape[1],)).view(np.int64)
        _deal(listed, shift, ends, dealt, places)
        return cls(dealt, places, ends)

    def __iter__(self) -> Iterator[tuple[Words, Positions]]:
        start = 0
        for end in map(int, self.ends):
            yield self.dealt[:, start:end], self.places[start:end]
            start = end


def intersect(lists: Sequence[Words], allocate: Allocate = in_memory, *, part: int = PART_ROWS) -> Positions:
    """Positions `(lists, m)` of the columns `(2, n)` that all lists share, in the order of the first list.

    Each list's columns are distinct, as pseudonyms of unique keys are. A part has about `part` rows of the
    longest list; what has a number for each row comes from `allocate`.
    """
    bits = (max(listed.shape[1] for listed in lists) // part).bit_length()
    wanted, *others = (_Parts.of(listed, bits, allocate) for listed in lists)
    rows = len(wanted.places)
    found = allocate((len(others), rows)).view(np.int64)
    for other, listed in zip(found, others, strict=True):
        for (keys, here), (among, there) in zip(wanted, listed, strict=True):
            place = positions_in(among, keys)
            other[here] = np.where(place >= 0, np.append(there, -1)[place], -1)
    blocks = [slice(start, min(start + PART_ROWS, rows)) for start in range(0, rows, PART_ROWS)]
    everywhere = [np.flatnonzero((found[:, block] >= 0).all(axis=0)) + block.start for block in blocks]
    positions = allocate((len(lists), sum(map(len, everywhere)))).view(np.int64)
    end = 0
    for here in everywhere:
        begin, end = end, end + len(here)
        positions[0, begin:end] = here
        np.take(found, here, axis=1, out=positions[1:, begin:end], mode="clip")
    return positions
