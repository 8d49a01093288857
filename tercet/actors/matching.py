"""Matching public pseudonyms in the clear: which rows occur in every one of several lists.

Pseudonyms are uniformly random 128-bit words, so their low bits serve as the hash of an open-addressing
table: one pass to fill it, one probe or two for each row that is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tercet.protocols.domains import Words
from tercet.protocols.kernels import IN2, INDEX_OUT, kernel

Positions = npt.NDArray[np.int64]


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


def positions_in(listed: Words, wanted: Words) -> Positions:
    """The position of every column of `wanted` (2, m) among the distinct ones of `listed` (2, n), or -1."""
    listed, wanted = np.ascontiguousarray(listed), np.ascontiguousarray(wanted)
    slots = np.full(1 << max(1, 2 * listed.shape[1] - 1).bit_length(), -1, dtype=np.int64)
    _fill(listed, slots)
    found = np.empty(wanted.shape[1], dtype=np.int64)
    _look_up(listed, wanted, slots, found)
    return found


def intersect(lists: Sequence[Words]) -> Positions:
    """Positions `(lists, m)` of the columns `(2, n)` that all lists share, in the order of the first list.

    Each list's columns are distinct, as pseudonyms of unique keys are.
    """
    others = [positions_in(listed, lists[0]) for listed in lists[1:]]
    everywhere = np.ones(lists[0].shape[1], dtype=bool)
    for other in others:
        everywhere &= other >= 0
    here = np.flatnonzero(everywhere)
    return np.stack([here, *[other[here] for other in others]])
