"""Sort shuffled rows by opened comparisons: a public order of rows that nobody can tell apart.

If all keys are distinct and the rows were shuffled by a permutation that nobody knows, then the outcomes of
comparisons depend on that permutation alone, and opening them discloses nothing (Hamada, Kikuchi, Ikarashi,
Chida, Takahashi 2012). Equal keys would spoil it: whichever way ties are broken by position, the order of
tied rows would show. So `distinct` appends the row number to every key before the shuffle, and `rank` sorts
afterwards.

The sort itself is `samplesort`: in few steps where rows are few, and else 1.1 n log2 n comparisons in about 2
log2 n steps, each one batch of comparisons and one opening. Its pivots are a random sample, since rows are
shuffled.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Generator, Sequence

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Protocol, Share, gather, require_one_dimension
from tercet.protocols.bitplanes import unpack_bits
from tercet.protocols.domains import BITS, WORD_BITS, Words, packed_words
from tercet.protocols.kernels import Indices
from tercet.protocols.samplesort import ALL_PAIRS, FEWEST, ROOM, Bools, at_once, sort
from tercet.protocols.together import Team, largest_part, sampled, searched
from tercet.protocols.together import sort as sort_parts

_DEALT = 1 << 14
"""Batches of fewer comparisons have one dealer, larger ones are dealt in equal parts by all parties."""

_UNLUCKY_STEPS = 24
"""With a chance below 2^-40 the last rows of a long sort take more steps, each of `ROOM` comparisons."""


def distinct(
    protocol: Protocol, keys: Share, bits: int, first: int = 0, rows: int | None = None
) -> tuple[Share, int]:
    """Keys with the row number appended, and their width: like `keys` in order, all different. Local.

    `keys` is one-dimensional, |key| < 2^(bits-1): all rows, or those from the `first` on of so many.
    ProtocolError if the result does not fit 63 bits.
    """
    require_one_dimension(keys, "distinct")
    rows = keys.shape[0] if rows is None else rows
    extra = max(rows - 1, 0).bit_length()
    if bits + extra > WORD_BITS - 1:
        raise ProtocolError(
            f"keys of {bits} bits and row numbers of {extra} bits do not fit {WORD_BITS - 1} bits; give the "
            "keys fewer fractional bits or a tighter bound"
        )
    lifted = protocol.mul_public(keys, np.array(1 << extra, dtype=np.uint64))
    numbers = np.arange(first, first + keys.shape[0], dtype=np.uint64)
    numbered = protocol.add_public(lifted, numbers)
    return numbered.like(numbered.data, scale=0), bits + extra


def sort_rows(protocol: Protocol, columns: Sequence[Share], bits: int) -> Op[list[Share]]:
    """All columns, their rows in ascending order of the first, |key| < 2^(bits-1); nothing else is disclosed.

    Makes the keys distinct, shuffles, ranks; equal keys stay in their order. Cost: `sort_rows_cost`;
    openings: `openings(rows)`.
    """
    (result,) = yield from sort_tables(protocol, [columns], bits)
    return result


def sort_tables(protocol: Protocol, tables: Sequence[Sequence[Share]], bits: int) -> Op[list[list[Share]]]:
    """Several tables, each as `sort_rows` sorts it: in the same rounds, and with the same comparisons.

    Opens at most `openings(rows)` of all of them.
    """
    if protocol.team is not None:
        results = []
        for columns in tables:
            result = yield from _sort_together(protocol, protocol.team, columns, bits)
            results.append(result)
        return results
    made = [distinct(protocol, columns[0], bits) for columns in tables]
    extended = [[*columns, keys] for columns, (keys, _) in zip(tables, made, strict=True)]
    if len(tables) == 1:
        shuffled = [(yield from protocol.shuffle(extended[0]))]
    else:
        parts = [protocol.part(dealer=protocol.dealer + number) for number in range(len(tables))]
        shuffled = yield from gather(
            *(part.shuffle(columns) for part, columns in zip(parts, extended, strict=True))
        )
    keys = [columns[-1] for columns in shuffled]
    orders = yield from ranks(protocol, keys, max(width for _, width in made))
    return [
        [protocol.take(column, order) for column in columns[:-1]]
        for columns, order in zip(shuffled, orders, strict=True)
    ]


def _sort_together(protocol: Protocol, team: Team, columns: Sequence[Share], bits: int) -> Op[list[Share]]:
    """As `sort_rows`, of the rows of all members; see `together.sort`."""
    keys, width = distinct(protocol, columns[0], bits, team.block(team.rows[0]).start, team.rows[0])

    def less(keys: Share, left: Indices, right: Indices) -> Op[Bools]:
        return _open_signs(protocol, _difference(protocol, keys, left, right), width + 1)

    shuffled = yield from protocol.shuffle([*columns, keys])
    return (yield from sort_parts(protocol, team, shuffled, lambda some: rank(protocol, some, width), less))


def sort_rows_cost(protocol: Protocol, columns: Sequence[Share], bits: int) -> Cost:
    """About what `sort_rows` costs, or a member's part of it."""
    team, block = protocol.team, columns[0].shape[0]
    rows = block if team is None else team.rows[0]
    width = bits + max(rows - 1, 0).bit_length()
    shuffled = protocol.cost("shuffle", [*columns, protocol.spec((block,))])
    if team is None:
        return shuffled + expected_cost(protocol, rows, width)
    return shuffled + parts_cost(team, lambda steps, batch: _steps_cost(protocol, steps, batch, width))


def parts_cost(team: Team, cost: Callable[[int, int], Cost]) -> Cost:
    """About what it costs a member to sort its part, by that of so many steps of so many comparisons."""
    steps = [batches(sampled(team)), (team.size.bit_length(), searched(team)), batches(largest_part(team))]
    return functools.reduce(Cost.__add__, (cost(count, -(-all_ // max(1, count))) for count, all_ in steps))


def rank(protocol: Protocol, keys: Share, bits: int) -> Op[Indices]:
    """The positions of one-dimensional `keys`, |key| < 2^(bits-1), in ascending order; public.

    The rows must have been shuffled, and only the order of distinct keys is safe to show: see `distinct`.
    Should keys be equal all the same, they come in the order of their positions. Opens at most
    `openings(rows)` words, in as many steps of one comparison and one opening as `batches(rows)` tells.
    """
    (order,) = yield from ranks(protocol, [keys], bits)
    return order


def ranks(protocol: Protocol, keys: Sequence[Share], bits: int) -> Op[list[Indices]]:
    """As `rank`, of several lists of keys, whose comparisons of one step are one batch."""
    for some in keys:
        require_one_dimension(some, "rank")
    if not 1 <= bits < WORD_BITS:
        raise ProtocolError(
            f"keys of {bits} bits cannot be ranked: their differences must fit {WORD_BITS} bits"
        )

    orders: list[Indices] = [np.empty(0, dtype=np.int64) for _ in keys]
    sorts = [sort(some.shape[0], ask) for some in keys]
    answers: dict[int, Bools | None] = dict.fromkeys(range(len(keys)))
    while answers:
        asked = []
        for number, answer in answers.items():
            try:
                left, right, order = sorts[number].send(answer)
                asked.append((number, _difference(protocol, keys[number], order[left], order[right])))
            except StopIteration as stop:
                orders[number] = stop.value
        answers = {}
        if asked:
            joined = np.concatenate([pairs.data for _, pairs in asked], axis=1)
            signs = yield from _open_signs(protocol, asked[0][1].like(joined), bits + 1)
            ends = np.cumsum([pairs.size for _, pairs in asked])
            answers = dict(zip([number for number, _ in asked], np.split(signs, ends[:-1]), strict=True))
    return orders


def _difference(protocol: Protocol, keys: Share, left: Indices, right: Indices) -> Share:
    """What is negative just if the key at the left place comes first, which is the lower one if equal."""
    earlier = (left < right).astype(np.uint64)
    first, second = (keys.like(keys.data.take(side, axis=1)) for side in (left, right))
    return protocol.add_public(protocol.subtract(first, second), np.negative(earlier))


def ask(
    left: Indices, right: Indices, order: Indices
) -> Generator[tuple[Indices, Indices, Indices], Bools, Bools]:
    """What a sort wants to know, by places in an order of rows, for whoever runs it to find out."""
    answer = yield left, right, order
    return answer


def openings_together(team: Team) -> int:
    """Words that a member opens at most in a sort by several, but with a chance below 2^-40."""
    # A small part may open more than a larger one: there are fewer batches, of more comparisons.
    part = max(openings(largest_part(team)), openings(ROOM // FEWEST))
    return openings(sampled(team)) + part + packed_words(searched(team))


def openings(rows: int) -> int:
    """Words that `rank` opens, at most: an unlucky sample exceeds it with a chance below 2^-40."""
    if rows <= ALL_PAIRS:
        return packed_words(rows * (rows - 1) // 2)
    if FEWEST * rows > ROOM:
        log = math.log2(rows)
        searched = packed_words(math.ceil(1.3 * rows * log + 8 * rows)) + math.ceil(8 * log) + 32
        return searched + _UNLUCKY_STEPS * packed_words(ROOM)
    # Of a bucket with p pivots, the part in which a row comes to lie is distributed as Beta(2, p). Moments of
    # its powers bound how many steps it takes until all pairs have room, which are one step more.
    levels, each = at_once(rows)
    return (4 * levels - 5) * packed_words(each) + packed_words(ROOM)


def batches(rows: int) -> tuple[int, int]:
    """About how many steps and how many comparisons a sort takes: a formula fitted to 10^3 to 10^6 rows."""
    if rows < 2:
        return 0, 0
    if rows <= ALL_PAIRS:
        return 1, rows * (rows - 1) // 2
    if FEWEST * rows > ROOM:
        return round(2.2 * math.log2(rows) - 8), round(1.1 * rows * math.log2(rows))
    levels, each = at_once(rows)
    return levels, levels * each


def expected_cost(protocol: Protocol, rows: int, bits: int) -> Cost:
    """About what `rank` costs: the mean over permutations."""
    steps, comparisons = batches(rows)
    return _steps_cost(protocol, steps, -(-comparisons // max(1, steps)), bits)


def _steps_cost(protocol: Protocol, steps: int, batch: int, bits: int) -> Cost:
    """What so many steps cost, each of a batch of comparisons that are opened."""
    if not steps:
        return protocol.free()
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


__all__ = [
    "ask",
    "batches",
    "distinct",
    "expected_cost",
    "openings",
    "openings_together",
    "parts_cost",
    "rank",
    "ranks",
    "sort_rows",
    "sort_rows_cost",
    "sort_tables",
]
