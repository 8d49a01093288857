"""A sort by batches of comparisons, for comparisons that cost a message: few of them, in few batches.

Quicksort compares every row with one pivot at a time, about 1.4 n log2 n comparisons. Here each bucket of
rows takes many pivots, about the root of its size: they are sorted by comparing all pairs at once, the other
rows find their place among them by binary search, and all buckets proceed together. That takes 1.1 n log2 n
comparisons in about 2 log2 n batches. The pivots are the first rows of a bucket: if rows come in random
order, those are a random sample, since buckets keep that order.

A batch of few comparisons takes as long as its messages travel, so few rows are sorted in fewer batches of
more comparisons, up to `ROOM` in each: every row is compared with all pivots of its bucket at once, or with
all rows of it. So 256 rows take one batch, some thousands three to six.

Comparisons are someone else's business. What is left is bookkeeping on every row in every batch, so it is
compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.compiled import BOOLEAN, Array, kernel
from tercet.protocols.kernels import INDEX_IN, INDEX_OUT, Indices

Bools = npt.NDArray[np.bool_]
Less = Callable[[Indices, Indices, Indices], Generator[Any, Any, Bools]]

ROOM = 1 << 15
"""Comparisons up to which a batch is made larger so that there are fewer: on three replicated parties they
are a third of a megabyte sent by each, and about a millisecond's work."""
FEWEST = 2
"""Pivots that each row can be compared with at once for which there has to be room; else it searches."""
ALL_PAIRS = math.isqrt(2 * ROOM)
"""Rows up to which all pairs are one batch."""
_SMALL = 12
"""Buckets up to this size are sorted by comparing all pairs, whatever the others are."""
BOOLS_IN = Array(BOOLEAN, 1, readonly=True)


def sort(count: int, less: Less) -> Generator[Any, Any, Indices]:
    """The numbers 0 to count - 1 in the order that `less` tells of; `less` answers for whole arrays of pairs.

    Numbers stand in `order`, in which buckets are consecutive: `starts` and `sizes` list those not sorted
    yet. `less` is asked by places in it and gets it too: an array that stays as it is for many questions, so
    that what is compared can be moved into that order and read one after the other.
    """
    order = np.arange(count, dtype=np.int64)
    low, high, left, right = (np.empty(count, dtype=np.int64) for _ in range(4))
    starts, sizes = np.zeros(1, dtype=np.int64), np.array([count], dtype=np.int64)
    if count < 2:
        return order
    while starts.size:
        pivots, reach = _pivots(sizes)
        base = np.cumsum(pivots) - pivots
        buckets = (starts, sizes, pivots)
        first, second = np.empty((2, int(_pairs(pivots, reach).sum())), dtype=np.int64)
        _pair_up(starts, pivots, reach, first, second)
        is_less = yield from less(first, second, order)
        chosen = np.empty(int(pivots.sum()), dtype=np.int64)
        _rank_pivots(*buckets, base, reach, is_less, low, high, chosen)
        while asked := _ask(*buckets, base, low, high, chosen, left, right):
            is_less = yield from less(left[:asked], right[:asked], order)
            _narrow(*buckets, is_less, low, high)
        moved = order.copy()
        starts, sizes = _distribute(*buckets, order, low, moved).reshape(2, -1)
        order = moved
    return order


def _pivots(sizes: Indices) -> tuple[Indices, Indices]:
    """How many pivots each bucket takes, and with how many of its rows they are compared at once.

    With all, or with the pivots alone: then the other rows search among them.
    """
    if _pairs(sizes, sizes).sum() <= ROOM:
        return sizes, sizes
    if FEWEST * sizes.sum() > ROOM:
        roots = np.exp2(np.rint(np.log2(sizes) / 2)).astype(np.int64) - 1
        pivots = np.where(sizes <= _SMALL, sizes, roots)
        return pivots, pivots
    _, pivots = _levels(sizes)
    return pivots, sizes


def at_once(rows: int) -> tuple[int, int]:
    """What a sort takes whose rows are compared with all pivots at once: about how many batches, of how many.

    For more rows than `ALL_PAIRS`, `FEWEST` of which have room for each.
    """
    sizes = np.array([rows])
    levels, pivots = _levels(sizes)
    return levels, int(_pairs(pivots, sizes)[0])


def _levels(sizes: Indices) -> tuple[int, Indices]:
    """In how few batches buckets can be sorted, `FEWEST` pivots of which have room, and with which pivots."""
    levels = 2
    while _pairs(pivots := _roots(sizes, levels), sizes).sum() > ROOM:
        levels += 1
    return levels, pivots


def _roots(sizes: Indices, levels: int) -> Indices:
    """Pivots with which buckets are sorted in so many batches that are alike, compared with all rows at once.

    All rows are pivots where those are hardly more to compare. All parties find the same: no root of a whole
    number is so near to half of one that machines round it apart.
    """
    roots = np.rint(sizes ** (1 / levels)).astype(np.int64)
    return np.where(sizes <= 2 * roots + 1, sizes, roots)


def _pairs(pivots: Indices, reach: Indices) -> Indices:
    """Pairs of different rows, of which one is a pivot and the other in reach."""
    return pivots * reach - pivots * (pivots + 1) // 2


_BUCKETS = (INDEX_IN, INDEX_IN, INDEX_IN)


@kernel(*_BUCKETS, INDEX_OUT, INDEX_OUT)
def _pair_up(starts: Indices, pivots: Indices, reach: Indices, first: Indices, second: Indices) -> None:
    """Fill in all pairs of a pivot, one of the first slots of a bucket, and another slot in reach."""
    pair = 0
    for bucket in range(starts.size):
        start = starts[bucket]
        for slot in range(pivots[bucket]):
            for other in range(slot + 1, reach[bucket]):
                first[pair] = start + slot
                second[pair] = start + other
                pair += 1


@kernel(*_BUCKETS, INDEX_IN, INDEX_IN, BOOLS_IN, INDEX_OUT, INDEX_OUT, INDEX_OUT)
def _rank_pivots(
    starts: Indices,
    sizes: Indices,
    pivots: Indices,
    base: Indices,
    reach: Indices,
    is_less: Bools,
    low: Indices,
    high: Indices,
    chosen: Indices,
) -> None:
    """Put each bucket's pivots in order, from `base` on in `chosen`, by answers in the order of `_pair_up`.

    The `low` of rows in reach is how many pivots are less; the others get all of these to search among.
    """
    pair = 0
    for bucket in range(starts.size):
        start, some, far = starts[bucket], pivots[bucket], reach[bucket]
        low[start : start + sizes[bucket]] = 0
        high[start : start + far] = 0
        high[start + far : start + sizes[bucket]] = some
        for slot in range(some):
            for other in range(slot + 1, far):
                if is_less[pair]:
                    low[start + other] += 1
                elif other < some:
                    low[start + slot] += 1
                pair += 1
        for slot in range(start, start + some):
            chosen[base[bucket] + low[slot]] = slot


@kernel(*_BUCKETS, INDEX_IN, INDEX_IN, INDEX_IN, INDEX_IN, INDEX_OUT, INDEX_OUT)
def _ask(
    starts: Indices,
    sizes: Indices,
    pivots: Indices,
    base: Indices,
    low: Indices,
    high: Indices,
    chosen: Indices,
    left: Indices,
    right: Indices,
) -> int:
    """Fill in the next comparison of each row that still searches: the pivot in the middle of its range."""
    asked = 0
    for bucket in range(starts.size):
        for slot in range(starts[bucket] + pivots[bucket], starts[bucket] + sizes[bucket]):
            if low[slot] < high[slot]:
                left[asked] = slot
                right[asked] = chosen[base[bucket] + (low[slot] + high[slot]) // 2]
                asked += 1
    return asked


@kernel(*_BUCKETS, BOOLS_IN, INDEX_OUT, INDEX_OUT)
def _narrow(
    starts: Indices, sizes: Indices, pivots: Indices, is_less: Bools, low: Indices, high: Indices
) -> None:
    """Halve the range of each row that was compared, in the order in which `_ask` asked."""
    asked = 0
    for bucket in range(starts.size):
        for slot in range(starts[bucket] + pivots[bucket], starts[bucket] + sizes[bucket]):
            if low[slot] < high[slot]:
                middle = (low[slot] + high[slot]) // 2
                if is_less[asked]:
                    high[slot] = middle
                else:
                    low[slot] = middle + 1
                asked += 1


@kernel(*_BUCKETS, INDEX_IN, INDEX_IN, INDEX_OUT)
def _distribute(
    starts: Indices, sizes: Indices, pivots: Indices, order: Indices, low: Indices, moved: Indices
) -> Indices:
    """Move rows of each bucket between its pivots, keeping their order; starts, then sizes, of new buckets.

    A pivot of rank k goes to place 2 k + 1, a row between pivots k - 1 and k to place 2 k. What is in no
    bucket is left as it is in `moved`.
    """
    places = np.empty(2 * pivots.max() + 2, dtype=np.int64)
    new_starts, new_sizes = [np.int64(0)][:0], [np.int64(0)][:0]
    for bucket in range(starts.size):
        start, size, some = starts[bucket], sizes[bucket], pivots[bucket]
        places[: 2 * some + 2] = 0
        for slot in range(size):
            places[2 * low[start + slot] + (1 if slot < some else 0) + 1] += 1
        for place in range(2 * some + 1):
            if places[place + 1] > 1:
                new_starts.append(start + places[place])
                new_sizes.append(places[place + 1])
            places[place + 1] += places[place]
        for slot in range(size):
            place = 2 * low[start + slot] + (1 if slot < some else 0)
            moved[start + places[place]] = order[start + slot]
            places[place] += 1
    return np.array(new_starts + new_sizes, dtype=np.int64)
