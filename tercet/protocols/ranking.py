"""Sort shuffled rows by opened comparisons: a public order of rows that nobody can tell apart.

If all keys are distinct and the rows were shuffled by a permutation that nobody knows, then the outcomes of
comparisons depend on that permutation alone, and opening them discloses nothing (Hamada, Kikuchi, Ikarashi,
Chida, Takahashi 2012). Equal keys would spoil it: whichever way ties are broken by position, the order of
tied rows would show. So `distinct` appends the row number to every key before the shuffle, and `rank` sorts
afterwards.

The sort itself is `samplesort`: 1.1 n log2 n comparisons in about 2 log2 n steps, each one batch of
comparisons and one opening. Its pivots are a random sample, since rows are shuffled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Protocol, Share, gather, require_one_dimension
from tercet.protocols.domains import BITS, WORD_BITS, Words, packed_words
from tercet.protocols.kernels import Indices, unpack_bits
from tercet.protocols.samplesort import ALL_PAIRS, Bools, sort

_DEALT = 1 << 14
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
    return [protocol.take(column, order) for column in shuffled]


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
        first, second = (keys.like(keys.data[:, side]) for side in (left, right))
        difference = protocol.subtract(first, second)
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
            protocol.part(dealer=protocol.dealer + dealer).is_negative(x.like(x.data[:, start:stop]), bits)
            for dealer, (start, stop) in enumerate(itertools.pairwise(cuts))
        )
    )
    packed = signs[0].like(np.concatenate([part.data for part in signs], axis=1))
    words: Words = yield from protocol.open(packed)
    return unpack_bits(words, count).astype(np.bool_)


__all__ = ["distinct", "expected_cost", "openings", "rank", "sort_rows", "sort_rows_cost"]
