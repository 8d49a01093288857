"""A sort by batches of comparisons, for comparisons that cost a message: few of them, in few batches.

Quicksort compares every row with one pivot at a time, about 1.4 n log2 n comparisons. Here each bucket of
rows takes many pivots, about the root of its size: they are sorted by comparing all pairs at once, the other
rows find their place among them by binary search, and all buckets proceed together. That takes 1.1 n log2 n
comparisons in about 2 log2 n batches. The pivots are the first rows of a bucket: if rows come in random
order, those are a random sample, since buckets keep that order.

Comparisons are someone else's business. What is left is bookkeeping on every row in every batch, so it is
compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.compiled import BOOLEAN, Array, kernel
from tercet.protocols.kernels import INDEX_IN, INDEX_OUT, Indices

Bools = npt.NDArray[np.bool_]
Less = Callable[[Indices, Indices, Indices], Generator[Any, Any, Bools]]

ALL_PAIRS = 12
"""Buckets up to this size are sorted by comparing all pairs."""
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
        pivots = _pivots(sizes)
        base = np.cumsum(pivots) - pivots
        buckets = (starts, sizes, pivots)
        first, second = _pairs(starts, pivots)
        is_less = yield from less(first, second, order)
        chosen = np.empty(int(pivots.sum()), dtype=np.int64)
        _rank_pivots(*buckets, base, first, second, is_less, low, high, chosen)
        while asked := _ask(*buckets, base, low, high, chosen, left, right):
            is_less = yield from less(left[:asked], right[:asked], order)
            _narrow(*buckets, is_less, low, high)
        moved = order.copy()
        starts, sizes = _distribute(*buckets, order, low, moved).reshape(2, -1)
        order = moved
    return order


def _pivots(sizes: Indices) -> Indices:
    """How many pivots a bucket takes: all of a small one, else a power of two near its root, less one."""
    roots = np.exp2(np.rint(np.log2(sizes) / 2)).astype(np.int64) - 1
    return np.where(sizes <= ALL_PAIRS, sizes, roots)


def _pairs(starts: Indices, counts: Indices) -> tuple[Indices, Indices]:
    """All pairs among the first `counts[i]` slots from `starts[i]`, for all i; counts take few values."""
    left, right = [], []
    for count in np.unique(counts):
        a, b = np.triu_indices(int(count), 1)
        begins = starts[counts == count][:, None]
        left.append((begins + a).reshape(-1))
        right.append((begins + b).reshape(-1))
    return np.concatenate(left), np.concatenate(right)


_BUCKETS = (INDEX_IN, INDEX_IN, INDEX_IN)


@kernel(*_BUCKETS, INDEX_IN, INDEX_IN, INDEX_IN, BOOLS_IN, INDEX_OUT, INDEX_OUT, INDEX_OUT)
def _rank_pivots(
    starts: Indices,
    sizes: Indices,
    pivots: Indices,
    base: Indices,
    first: Indices,
    second: Indices,
    is_less: Bools,
    low: Indices,
    high: Indices,
    chosen: Indices,
) -> None:
    """Put each bucket's pivots in order, from `base` on in `chosen`; a pivot's `low` is its rank.

    The other rows get the whole range of ranks to search.
    """
    for bucket in range(starts.size):
        start, some = starts[bucket], pivots[bucket]
        low[start : start + sizes[bucket]] = 0
        high[start : start + some] = 0
        high[start + some : start + sizes[bucket]] = some
    for pair in range(first.size):
        low[second[pair] if is_less[pair] else first[pair]] += 1
    for bucket in range(starts.size):
        for slot in range(starts[bucket], starts[bucket] + pivots[bucket]):
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
