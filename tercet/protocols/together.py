"""Operations on all rows that the members of a party run together, each on a block of neighbouring rows.

A party may have workers. An operation that moves rows then runs at every one of them at once, on the worker's
block, and yields an `Exchange` where words go from one to another: what is called collective communication,
with an all-to-all as its only step. Peers see the same messages as of one member, a block at each; so masks
are drawn, and checks made, as everywhere.

A permutation that two parties draw from a common key is found without anybody holding all of it: each member
draws where each of its rows goes, members in proportion to their blocks, and each puts what arrives into a
random order; given how many rows came to each, every order of all rows is as likely as any other. Then
neighbours even out what the draw has given one too many of. What is sent depends on sizes alone: pieces are
filled up to a length that they exceed with a chance below 2^-50, since whoever sees the wires between members
must not learn how many rows went where.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.domains import WORD_BITS, Words
from tercet.protocols.kernels import Indices, permutation
from tercet.protocols.prg import Stream
from tercet.protocols.shares import Exchange, Op, Share

if TYPE_CHECKING:
    from tercet.protocols.base import Protocol

SAMPLED = 1024
"""Rows for each member that a sort compares first, to cut all rows into parts of about the same size."""


@attrs.frozen
class Team:
    """The members of a party that run one operation, as one of them sees them.

    This is `member` of so many (`size`), each of which has a block of tiles of `tile_rows` rows; `rows` says
    how many all have together, by argument of the operation.
    """

    member: int
    size: int
    tile_rows: int
    rows: tuple[int, ...]

    @staticmethod
    def tiles(member: int, size: int, tiles: int) -> range:
        """The tiles of a member, of so many: blocks of neighbours."""
        first, after = (-(-(member + more) * tiles // size) for more in (0, 1))
        return range(first, after)

    def bounds(self, rows: int) -> list[int]:
        """Where the block of each member begins, of so many rows; and their end."""
        tiles = max(1, -(-rows // self.tile_rows))
        starts = [self.tiles(member, self.size, tiles).start for member in range(self.size)]
        return [*(min(rows, start * self.tile_rows) for start in starts), rows]

    def block(self, rows: int) -> range:
        """The rows of this member, of so many."""
        return range(*self.bounds(rows)[self.member :][:2])


# -- moving rows ---------------------------------------------------------------------------------------------


def hand_out(
    team: Team, arrays: Sequence[Words], to: Indices, *, axis: int, most: Sequence[int] | None = None
) -> Op[tuple[Indices, list[Words]]]:
    """Send row i of all arrays to member `to[i]`, in one exchange.

    Gives how many rows each member sent to each, and what came here, by sender and in the order of its rows.
    With `most` by member, every piece is filled up to so many rows; ProtocolError for one that is longer.
    """
    order = np.argsort(to.astype(np.uint16), kind="stable")
    counts = np.bincount(to, minlength=team.size)
    if most is not None and any(count > room for count, room in zip(counts, most, strict=True)):
        raise ProtocolError("a shuffle had more rows for one member than chance allows; run the plan again")
    starts = np.cumsum(counts) - counts
    send: dict[int, list[Words]] = {member: [counts.astype(np.uint64)] for member in range(team.size)}
    for array in arrays:
        moved = np.take(array, order, axis=axis)
        for member, parts in send.items():
            piece = _rows(moved, axis, starts[member], counts[member])
            parts.append(piece if most is None else _filled(piece, axis, most[member]))
    got = yield Exchange(send)
    matrix = np.stack([got[member][0] for member in range(team.size)]).astype(np.int64)
    mine = matrix[:, team.member]
    return matrix, [
        np.concatenate(
            [_rows(got[member][1 + number], axis, 0, mine[member]) for member in range(team.size)], axis=axis
        )
        for number in range(len(arrays))
    ]


def even_out(
    team: Team, arrays: Sequence[Words], starts: Sequence[int], *, axis: int, slack: int | None = None
) -> Op[list[Words]]:
    """Rows that lie one after the other, member by member, cut into the members' blocks: one exchange.

    Member i has rows `starts[i]` to `starts[i + 1]`. With `slack`, all lie within so many rows of the blocks,
    which ProtocolError says if not, and what is sent depends on that alone.
    """
    bounds, me = team.bounds(starts[-1]), team.member
    if slack is not None and any(abs(a - b) > slack for a, b in zip(starts, bounds, strict=True)):
        raise ProtocolError("a shuffle had more rows for one member than chance allows; run the plan again")

    def overlap(sender: int, receiver: int, more: int = 0) -> tuple[int, int]:
        of = bounds if more else starts
        low, high = max(of[sender] - more, bounds[receiver]), min(of[sender + 1] + more, bounds[receiver + 1])
        return low, max(0, high - low)

    send: dict[int, list[Words]] = {}
    for member in range(team.size):
        low, count = overlap(me, member)
        pieces = [_rows(array, axis, low - starts[me] if count else 0, count) for array in arrays]
        if slack is not None and member != me:
            pieces = [_filled(piece, axis, overlap(me, member, slack)[1]) for piece in pieces]
        send[member] = pieces
    got = yield Exchange(send)
    counts = [overlap(member, me)[1] for member in range(team.size)]
    return [
        np.concatenate(
            [_rows(got[member][number], axis, 0, count) for member, count in enumerate(counts)], axis=axis
        )
        for number in range(len(arrays))
    ]


def place(team: Team, array: Words, start: int, stop: int, spans: Sequence[tuple[int, int]]) -> Op[Words]:
    """This member's block of rows `start` to `stop` of what all have, along the last axis: one exchange.

    Member i has rows `spans[i]`, which do not overlap; there are zeros where nobody has any.
    """
    bounds, me = [start + bound for bound in team.bounds(stop - start)], team.member

    def overlap(sender: int, receiver: int) -> slice:
        low = max(spans[sender][0], bounds[receiver])
        return slice(low, max(low, min(spans[sender][1], bounds[receiver + 1])))

    send = {}
    for member in range(team.size):
        part = overlap(me, member)
        send[member] = [array[..., part.start - spans[me][0] :][..., : part.stop - part.start]]
    got = yield Exchange(send)
    placed = np.zeros((*array.shape[:-1], bounds[me + 1] - bounds[me]), dtype=np.uint64)
    for member in range(team.size):
        part = overlap(member, me)
        if part.stop > part.start:
            placed[..., part.start - bounds[me] : part.stop - bounds[me]] = got[member][0]
    return placed


def cumulate(protocol: Protocol, team: Team, x: Share) -> Op[Share]:
    """Running totals over the rows of all members: one exchange, of a total each."""
    own = protocol.cumulate(x)
    total = own.data[..., -1:] if x.shape[-1] else np.zeros((*x.data.shape[:-1], 1), dtype=np.uint64)
    got = yield Exchange({member: [total] for member in range(team.size)})
    for member in range(team.member):
        own = protocol.add(own, own.like(np.broadcast_to(got[member][0], own.data.shape)))
    return own


def _rows(array: Words, axis: int, start: int, count: int) -> Words:
    return array[start : start + count] if axis == 0 else array[..., start : start + count]


def _filled(piece: Words, axis: int, rows: int) -> Words:
    """Some rows, and zeros up to so many."""
    if piece.shape[axis] == rows:
        return piece
    shape = list(piece.shape)
    shape[axis] = rows
    filled = np.zeros(shape, dtype=np.uint64)
    _rows(filled, axis, 0, piece.shape[axis])[...] = piece
    return filled


# -- shuffles ------------------------------------------------------------------------------------------------


def permute(team: Team, tables: Sequence[Words], draw: Callable[[str], Stream]) -> Op[list[Words]]:
    """Tables `(rows of the block, width)` with all rows of all members in one uniformly random order.

    `draw` makes streams by their purpose, which whoever permutes alike draws too. Two exchanges; each moves
    about all rows of a member, then as many as the draw was uneven.
    """
    rows = team.rows[0]
    bounds, mine = team.bounds(rows), len(team.block(rows))
    ends = [(bound << WORD_BITS) // max(1, rows) for bound in bounds[1:-1]]
    # Of blocks without rows at the end nobody draws the start, which no word reaches.
    limits = np.array([min(end, (1 << WORD_BITS) - 1) for end in ends], dtype=np.uint64)
    to = np.searchsorted(limits, draw("members").words((mine,)), side="right")
    shares = [mine * (stop - start) / max(1, rows) for start, stop in itertools.pairwise(bounds)]
    most = [min(mine, math.ceil(share + 10 * math.sqrt(share)) + 32) for share in shares]
    matrix, parts = yield from hand_out(team, tables, to, axis=0, most=most)
    sizes = matrix.sum(axis=0)
    order = permutation(draw("order").words((int(sizes[team.member]),)))
    for number, part in enumerate(parts):
        parts[number] = np.take(part, order, axis=0)
    starts = [0, *np.cumsum(sizes).tolist()]
    return (yield from even_out(team, parts, starts, axis=0, slack=5 * math.isqrt(rows) + 32))


def permute_columns(team: Team, columns: Sequence[Words], draw: Callable[[str], Stream]) -> Op[list[Words]]:
    """As `permute`, of columns `(..., rows of the block)`."""
    rows = columns[0].shape[-1]
    tables = [
        np.ascontiguousarray(np.moveaxis(column, -1, 0)).reshape(rows, math.prod(column.shape[:-1]))
        for column in columns
    ]
    moved = yield from permute(team, tables, draw)
    return [
        np.ascontiguousarray(table.T).reshape(column.shape)
        for table, column in zip(moved, columns, strict=True)
    ]


# -- rows by public position ---------------------------------------------------------------------------------


def take(protocol: Protocol, team: Team, x: Share, places: Indices, rows: int) -> Op[Share]:
    """The rows of `x`, of which all members have so many, at this member's `places`: two exchanges.

    Members first ask each other for rows by number.
    """
    bounds = np.array(team.bounds(rows))
    owner = np.searchsorted(bounds[1:-1], places, side="right")
    order = np.argsort(owner.astype(np.uint16), kind="stable")
    starts = np.searchsorted(owner[order], np.arange(team.size + 1))
    wanted = places[order]
    asked = yield Exchange(
        {
            member: [(wanted[start:stop] - bounds[member]).view(np.uint64)]
            for member, (start, stop) in enumerate(itertools.pairwise(starts))
        }
    )
    send = {member: [protocol.take(x, asked[member][0].view(np.int64)).data] for member in range(team.size)}
    got = yield Exchange(send)
    joined = x.like(np.concatenate([got[member][0] for member in range(team.size)], axis=-1))
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return protocol.take(joined, back)


# -- sorts ---------------------------------------------------------------------------------------------------

Rank = Callable[[Share], Op[Indices]]
Less = Callable[[Share, Indices, Indices], Op["np.ndarray[tuple[int], np.dtype[np.bool_]]"]]


def sort(protocol: Protocol, team: Team, columns: Sequence[Share], rank: Rank, less: Less) -> Op[list[Share]]:
    """All columns but the last, which is what rows are ordered by; rows were shuffled.

    The first member ranks a sample; all find out by comparisons between which rows of it their own lie, and
    hand them to the member whose part that is, which ranks them. What is opened are comparisons, as anywhere
    in `ranking`. `rank` orders keys, and `less` compares keys at some places with those at others.
    """
    keys = columns[-1]
    cuts: list[Words] = []
    if team.member == 0:
        sample = sampled(team)
        order = yield from rank(keys.like(keys.data[..., :sample]))
        chosen = order[[sample * part // team.size for part in range(1, team.size)]] if sample else order
        cuts = [np.take(keys.data, chosen, axis=-1)]
    got = yield Exchange(dict.fromkeys(range(team.size), cuts))
    splitters = got[0][0]
    rows = keys.shape[-1]
    joined = keys.like(np.concatenate([keys.data, splitters], axis=-1))
    low, high = np.zeros(rows, dtype=np.int64), np.full(rows, splitters.shape[-1])
    while (searching := np.flatnonzero(low < high)).size:
        middle = (low[searching] + high[searching]) // 2
        below = yield from less(joined, searching, rows + middle)
        high[searching] = np.where(below, middle, high[searching])
        low[searching] = np.where(below, low[searching], middle + 1)
    arrays = [column.data for column in columns]
    matrix, parts = yield from hand_out(team, arrays, low, axis=-1)
    *moved, here = [column.like(part) for column, part in zip(columns, parts, strict=True)]
    order = yield from rank(here)
    sorted_parts = [protocol.take(column, order).data for column in moved]
    starts = [0, *np.cumsum(matrix.sum(axis=0)).tolist()]
    made = yield from even_out(team, sorted_parts, starts, axis=-1)
    return [column.like(data) for column, data in zip(moved, made, strict=True)]


def sampled(team: Team) -> int:
    """Rows that are ranked first: of the first member's block, as many as that has at most."""
    return min(team.bounds(team.rows[0])[1], SAMPLED * team.size)


def searched(team: Team) -> int:
    """Comparisons of a member's rows with what cuts all rows into parts, at most, in whole words a step."""
    return (_largest_block(team) + WORD_BITS) * team.size.bit_length()


def largest_part(team: Team) -> int:
    """Rows of the largest part that a sample cuts, but with a chance below 2^-40."""
    each = max(1, sampled(team) // team.size)
    return min(team.rows[0], math.ceil(_largest_block(team) * (1 + 12 / math.sqrt(each))) + WORD_BITS)


def _largest_block(team: Team) -> int:
    bounds = team.bounds(team.rows[0])
    return max(stop - start for start, stop in itertools.pairwise(bounds))


__all__ = [
    "Team",
    "cumulate",
    "even_out",
    "hand_out",
    "largest_part",
    "permute",
    "permute_columns",
    "place",
    "sampled",
    "searched",
    "sort",
    "take",
]
