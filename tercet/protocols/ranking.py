"""Sort shuffled rows by opened comparisons: a public order of rows that nobody can tell apart.

If all keys are distinct and the rows were shuffled by a permutation that nobody knows, then the outcomes of
comparisons depend on that permutation alone, and opening them discloses nothing (Hamada, Kikuchi, Ikarashi,
Chida, Takahashi 2012). Equal keys would spoil it: whichever way ties are broken by position, the order of
tied rows would show. So `distinct` appends the row number to every key before the shuffle, and `rank` sorts
afterwards.

Quicksort compares every row with one pivot at a time, about 1.4 n log2 n comparisons. Here each bucket of
rows takes many pivots, about the root of its size: they are sorted by comparing all pairs at once, the other
rows find their place among them by binary search, and all buckets proceed together. That takes 1.1 n log2 n
comparisons in about 2 log2 n steps, each one batch of comparisons and one opening. The pivots are the first
rows of a bucket: since rows are shuffled and buckets keep their order, those are a random sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Protocol, Share, gather, require_one_dimension
from tercet.protocols.domains import BITS, WORD_BITS, Words, packed_words
from tercet.protocols.kernels import unpack_bits

Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Less = Callable[[Indices, Indices], Op[Bools]]

ALL_PAIRS = 12
"""Buckets up to this size are sorted by comparing all pairs."""
_DEALT = 1 << 10
"""Batches of fewer comparisons have one dealer, larger ones are dealt in equal parts by all parties."""


def distinct(protocol: Protocol, keys: Share, bits: int) -> tuple[Share, int]:
    """Keys with the row number appended, and their width: like `keys` in order, all different. Local.

    `keys` is one-dimensional, |key| < 2^(bits-1). ProtocolError if the result does not fit 63 bits.
    """
    require_one_dimension(keys, "distinct")
    rows = keys.shape[0]
    extra = max(rows - 1, 0).bit_length()
    if bits + extra > WORD_BITS - 1:
        raise ProtocolError(
            f"keys of {bits} bits and row numbers of {extra} bits do not fit {WORD_BITS - 1} bits; give the "
            "keys fewer fractional bits or a tighter bound"
        )
    lifted = protocol.mul_public(keys, np.array(1 << extra, dtype=np.uint64))
    numbered = protocol.add_public(lifted, np.arange(rows, dtype=np.uint64))
    return numbered.like(numbered.data, scale=0), bits + extra


def sort_rows(protocol: Protocol, columns: Sequence[Share], bits: int) -> Op[list[Share]]:
    """All columns, their rows in ascending order of the first, |key| < 2^(bits-1); nothing else is disclosed.

    Makes the keys distinct, shuffles, ranks; equal keys stay in their order. Cost: `sort_rows_cost`;
    openings: `openings(rows)`.
    """
    keys, width = distinct(protocol, columns[0], bits)
    *shuffled, keys = yield from protocol.shuffle([*columns, keys])
    order = yield from rank(protocol, keys, width)
    return [column.like(np.take(column.data, order, axis=-1)) for column in shuffled]


def sort_rows_cost(protocol: Protocol, columns: Sequence[Share], bits: int) -> Cost:
    """About what `sort_rows` costs."""
    rows = columns[0].shape[0]
    shuffled = protocol.cost("shuffle", [*columns, protocol.spec((rows,))])
    return shuffled + expected_cost(protocol, rows, bits + max(rows - 1, 0).bit_length())


def rank(protocol: Protocol, keys: Share, bits: int) -> Op[Indices]:
    """The positions of one-dimensional `keys`, |key| < 2^(bits-1), in ascending order; public.

    The rows must have been shuffled, and only the order of distinct keys is safe to show: see `distinct`.
    Should keys be equal all the same, they come in the order of their positions. Opens at most
    `openings(rows)` words, in about 2 log2(rows) steps of one comparison and one opening each.
    """
    require_one_dimension(keys, "rank")
    if not 1 <= bits < WORD_BITS:
        raise ProtocolError(
            f"keys of {bits} bits cannot be ranked: their differences must fit {WORD_BITS} bits"
        )

    def less(left: Indices, right: Indices) -> Op[Bools]:
        # left - right - [left has the lower position] is negative just if left comes first, also if equal.
        earlier = (left < right).astype(np.uint64)
        difference = keys.like(keys.data[:, left] - keys.data[:, right])
        return _open_signs(protocol, protocol.add_public(difference, np.negative(earlier)), bits + 1)

    return sort(keys.shape[0], less)


def openings(rows: int) -> int:
    """Words that `rank` opens, at most: an unlucky sample exceeds it with a chance far below 2^-40."""
    if rows <= ALL_PAIRS:
        return packed_words(rows * (rows - 1) // 2)
    log = math.log2(rows)
    return packed_words(math.ceil(1.3 * rows * log + 8 * rows)) + math.ceil(8 * log) + 32


def expected_cost(protocol: Protocol, rows: int, bits: int) -> Cost:
    """About what `rank` costs: the mean over permutations, by a formula fitted to 10^3 to 10^6 rows."""
    if rows < 2:
        return protocol.free()
    if rows <= ALL_PAIRS:
        steps, comparisons = 1, rows * (rows - 1) // 2
    else:
        steps = max(2, round(2.2 * math.log2(rows) - 4))
        comparisons = round(1.1 * rows * math.log2(rows))
    batch = -(-comparisons // steps)
    one = protocol.cost("is_negative", protocol.spec((batch,)), bits + 1)
    one = one + protocol.cost("open", protocol.spec((packed_words(batch),), domain=BITS))
    even = (one.total // protocol.parties,) * protocol.parties
    sent = one.sent if batch < _DEALT else even
    return Cost(one.rounds * steps, tuple(words * steps for words in sent))


def _open_signs(protocol: Protocol, x: Share, bits: int) -> Op[Bools]:
    """Whether each element is negative; large batches rotate the dealer, whose part is the most to send."""
    count = x.size
    parts = protocol.parties if count >= _DEALT else 1
    cuts = [packed_words(count * i // parts) * WORD_BITS for i in range(parts)] + [count]
    signs = yield from gather(
        *(
            protocol.part(dealer=dealer).is_negative(x.like(x.data[:, start:stop]), bits)
            for dealer, (start, stop) in enumerate(itertools.pairwise(cuts))
        )
    )
    packed = signs[0].like(np.concatenate([part.data for part in signs], axis=1))
    words: Words = yield from protocol.open(packed)
    return unpack_bits(words, count).astype(np.bool_)


# -- the sort ------------------------------------------------------------------------------------------------


def sort(count: int, less: Less) -> Op[Indices]:
    """The numbers 0 to count - 1 in the order that `less` tells of; `less` answers for whole arrays of pairs.

    Numbers stand in `order`, in which buckets are consecutive: `starts` and `sizes` list those not sorted
    yet.
    """
    order = np.arange(count, dtype=np.int64)
    starts, sizes = np.zeros(1, dtype=np.int64), np.array([count], dtype=np.int64)
    while True:
        starts, sizes = starts[sizes > 1], sizes[sizes > 1]
        if not starts.size:
            return order
        pivots = _pivots(sizes)
        heads, owner = _ranges(starts, pivots), np.repeat(np.arange(starts.size), pivots)
        left, right = _pairs(starts, pivots)
        is_less = yield from less(order[left], order[right])
        wins = np.bincount(np.where(is_less, right, left), minlength=count)
        base = np.cumsum(pivots) - pivots
        sorted_pivots = np.empty(heads.size, dtype=np.int64)
        sorted_pivots[base[owner] + wins[heads]] = order[heads]

        rest, bucket = (
            _ranges(starts + pivots, sizes - pivots),
            np.repeat(np.arange(starts.size), sizes - pivots),
        )
        low, high = np.zeros(rest.size, dtype=np.int64), pivots[bucket]
        while (searching := np.flatnonzero(low < high)).size:
            middle = (low[searching] + high[searching]) // 2
            is_less = yield from less(order[rest[searching]], sorted_pivots[base[bucket[searching]] + middle])
            high[searching] = np.where(is_less, middle, high[searching])
            low[searching] = np.where(is_less, low[searching], middle + 1)

        # Within its bucket a pivot of rank k goes to place 2k + 1, a row between pivots k - 1 and k to place
        # 2k.
        members, owners = np.concatenate([heads, rest]), np.concatenate([owner, bucket])
        places = np.concatenate([2 * wins[heads] + 1, 2 * low])
        sorting = np.lexsort((members, places, owners))
        slots = _ranges(starts, sizes)
        order[slots] = order[members[sorting]]
        places, owners = places[sorting], owners[sorting]
        new = np.flatnonzero(np.diff(places, prepend=-1) | np.diff(owners, prepend=-1))
        starts, sizes = slots[new], np.diff(new, append=slots.size)


def _pivots(sizes: Indices) -> Indices:
    """How many pivots a bucket takes: all of a small one, else a power of two near its root, less one."""
    roots = np.exp2(np.rint(np.log2(sizes) / 2)).astype(np.int64) - 1
    return np.where(sizes <= ALL_PAIRS, sizes, roots)


def _ranges(starts: Indices, lengths: Indices) -> Indices:
    """All of `starts[i], ..., starts[i] + lengths[i] - 1`, one after the other."""
    total = int(lengths.sum())
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(total, dtype=np.int64)


def _pairs(starts: Indices, counts: Indices) -> tuple[Indices, Indices]:
    """All pairs among the first `counts[i]` slots from `starts[i]`, for all i; counts take few values."""
    left, right = [], []
    for count in np.unique(counts):
        a, b = np.triu_indices(int(count), 1)
        begins = starts[counts == count][:, None]
        left.append((begins + a).reshape(-1))
        right.append((begins + b).reshape(-1))
    return np.concatenate(left), np.concatenate(right)


__all__ = ["distinct", "expected_cost", "openings", "rank", "sort_rows", "sort_rows_cost"]
