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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.detour import nearer
from tercet.protocols.domains import WORD_BITS, Words
from tercet.protocols.kernels import Indices, permutation
from tercet.protocols.prg import BLOCK_WORDS, Stream
from tercet.protocols.shares import Exchange, Op, Received, Shape, Share

if TYPE_CHECKING:
    from tercet.protocols.base import Protocol

MOST_MEMBERS = 1 << 16
"""So many can be told apart in what says where each row goes (`Targets`)."""
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

    def __attrs_post_init__(self) -> None:
        if self.size > MOST_MEMBERS:
            raise ProtocolError(f"{self.size} workers are more than {MOST_MEMBERS}; give each party fewer")

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

    def blocks(self, rows: int) -> list[int]:
        """How many rows each member has, of so many."""
        return [stop - start for start, stop in itertools.pairwise(self.bounds(rows))]

    def block(self, rows: int) -> range:
        """The rows of this member, of so many."""
        return range(*self.bounds(rows)[self.member :][:2])


Targets = np.ndarray[tuple[int], np.dtype[np.uint16]]
"""The member that each row goes to."""


# -- what members hand over ----------------------------------------------------------------------------------


def _require(got: Received, due: Mapping[int, Sequence[Shape]]) -> None:
    """Raise ProtocolError unless members have handed over arrays of these shapes, and nothing else.

    Rows that are put into place unseen would be repeated where there are too few of them, or leave gaps.
    """
    for member, shapes in due.items():
        found = [array.shape for array in got.get(member, ())]
        if found != list(shapes):
            raise ProtocolError(
                f"worker {member} of this party handed over rows of shapes {found} where {list(shapes)} are "
                "due"
            )


def _counted(team: Team, got: Received) -> Indices:
    """How many rows each member has for each, `(senders, receivers)`, which they say in their first arrays.

    Raises ProtocolError unless these are all rows of each one's block.
    """
    matrix = []
    for member, block in enumerate(team.blocks(team.rows[0])):
        said = [array.tolist() for array in got.get(member, ())[:1] if array.shape == (team.size,)]
        if not said or sum(said[0]) != block:
            raise ProtocolError(
                f"worker {member} of this party does not say to which of {team.size} workers each of its "
                f"{block} rows went"
            )
        matrix += said
    return np.array(matrix, dtype=np.int64)


def _asked(team: Team, got: Received, rows: int) -> list[Indices]:
    """The rows, of so many that are here, that each member asks for. Raises ProtocolError for others."""
    for member in range(team.size):
        asked = got.get(member, ())
        if [array.ndim for array in asked] != [1] or (asked[0] >= rows).any():
            raise ProtocolError(f"worker {member} of this party asked for rows that are not at this worker")
    return [got[member][0].view(np.int64) for member in range(team.size)]


# -- moving rows ---------------------------------------------------------------------------------------------


def hand_out(
    protocol: Protocol, team: Team, columns: Sequence[Words], to: Targets
) -> Op[tuple[Indices, list[Words]]]:
    """Send row i of all columns `(..., rows)` to member `to[i]`, in one exchange.

    Gives how many rows each member sent to each, and what came here, by sender and in the order of its rows.
    """
    counts, send = np.bincount(to, minlength=team.size), {}
    for member in range(team.size):
        rows = np.flatnonzero(to == member)
        send[member] = [counts.view(np.uint64), *(_columns_at(protocol, column, rows) for column in columns)]
    got = yield Exchange(send)
    matrix, here = _counted(team, got), team.member
    _require(
        got,
        {
            member: [(team.size,), *((*column.shape[:-1], int(matrix[member, here])) for column in columns)]
            for member in range(team.size)
        },
    )
    return matrix, [
        _side_by_side(protocol, [got[member][1 + number] for member in range(team.size)])
        for number in range(len(columns))
    ]


def _columns_at(protocol: Protocol, column: Words, rows: Indices) -> Words:
    """Some rows of `(..., rows)`."""
    return np.take(column, rows, axis=-1, mode="clip", out=protocol.allocate((*column.shape[:-1], rows.size)))


def _side_by_side(protocol: Protocol, parts: Sequence[Words]) -> Words:
    """Columns `(..., rows)` of one member after those of the other."""
    rows = sum(part.shape[-1] for part in parts)
    return np.concatenate(parts, axis=-1, out=protocol.allocate((*parts[0].shape[:-1], rows)))


def place(
    protocol: Protocol, team: Team, array: Words, start: int, stop: int, spans: Sequence[tuple[int, int]]
) -> Op[Words]:
    """This member's block of rows `start` to `stop` of what all have, along the last axis: one exchange.

    Member i has rows `spans[i]`, which do not overlap; there are zeros where nobody has any.
    """
    bounds, me = [start + bound for bound in team.bounds(stop - start)], team.member

    def overlap(sender: int, receiver: int) -> slice:
        low = max(spans[sender][0], bounds[receiver])
        return slice(low, max(low, min(spans[sender][1], bounds[receiver + 1])))

    def piece(member: int) -> Words:
        part = overlap(me, member)
        return array[..., part.start - spans[me][0] :][..., : part.stop - part.start]

    got = yield Exchange({member: [piece(member)] for member in range(team.size)})
    parts = {member: overlap(member, me) for member in range(team.size)}
    lead = array.shape[:-1]
    _require(got, {member: [(*lead, part.stop - part.start)] for member, part in parts.items()})
    placed = protocol.allocate((*lead, bounds[me + 1] - bounds[me]))
    placed[...] = 0
    for member, part in parts.items():
        if part.stop > part.start:
            placed[..., part.start - bounds[me] : part.stop - bounds[me]] = got[member][0]
    return placed


def cumulate(protocol: Protocol, team: Team, x: Share) -> Op[Share]:
    """Running totals over the rows of all members: one exchange, of a total each."""
    own = protocol.cumulate(x)
    total = own.data[..., -1:] if x.shape[-1] else np.zeros((*x.data.shape[:-1], 1), dtype=np.uint64)
    got = yield Exchange({member: [total] for member in range(team.size)})
    _require(got, {member: [total.shape] for member in range(team.size)})
    for member in range(team.member):
        own = protocol.add(own, own.like(np.broadcast_to(got[member][0], own.data.shape)))
    return own


# -- shuffles ------------------------------------------------------------------------------------------------


def permute(
    protocol: Protocol, team: Team, tables: list[Words], draw: Callable[[str], Stream]
) -> Op[list[Words]]:
    """Tables `(rows of the block, width)` with all rows of all members in one uniformly random order.

    `draw` makes streams by their purpose, which whoever permutes alike draws too. Two exchanges; the first
    moves all rows that leave a member, the second those that came too many to one. Takes `tables` away.
    """
    bounds, widths = team.bounds(team.rows[0]), [table.shape[1] for table in tables]
    got = yield _leaving(protocol, tables, *_drawn(team, draw("members")))
    matrix = _counted(team, got)
    sizes = matrix.sum(axis=0)
    starts = [0, *np.cumsum(sizes).tolist()]
    slack = 5 * math.isqrt(team.rows[0]) + 32
    if any(abs(a - b) > slack for a, b in zip(starts, bounds, strict=True)):
        raise ProtocolError(_UNEVEN)
    rooms_for = [_room(team, sender, team.member) for sender in range(team.size)]
    if any(count > room for count, room in zip(matrix[:, team.member], rooms_for, strict=True)):
        raise ProtocolError(_UNEVEN)
    due = [[(team.size,), *((room, width) for width in widths)] for room in rooms_for]
    _require(got, dict(enumerate(due)))
    here = int(sizes[team.member])
    random = draw("order").fill(protocol.allocate((here,)))
    order = permutation(random, protocol.allocate((here,)).view(np.int64))
    del random
    # Tables as they lie here, with room before and after them for the rows that neighbours have too many of.
    rooms = []
    for number, width in enumerate(widths):
        pieces = [got[sender][1 + number][:count] for sender, count in enumerate(matrix[:, team.member])]
        rooms.append(protocol.allocate((slack + here + slack, width)))
        _put_down(protocol, pieces, order, rooms[-1][slack : slack + here])
    del got, pieces, order
    yield from _even_out(team, rooms, starts, slack)
    first = bounds[team.member] - starts[team.member] + slack
    return [room[first:][: len(team.block(team.rows[0]))] for room in rooms]


def _leaving(
    protocol: Protocol, tables: list[Words], to: Targets, counts: Indices, most: Sequence[int]
) -> Exchange:
    """What goes where of tables, in pieces of so many rows; takes `tables` away."""
    send: dict[int, list[Words]] = {}
    for member, room in enumerate(most):
        rows = np.flatnonzero(to == member)
        pieces = [protocol.allocate((room, table.shape[1])) for table in tables]
        for piece, table in zip(pieces, tables, strict=True):
            np.take(table, rows, axis=0, out=piece[: rows.size], mode="clip")
            piece[rows.size :] = 0
        send[member] = [counts.view(np.uint64), *pieces]
    tables.clear()
    return Exchange(send)


_UNEVEN = "a shuffle had more rows for one member than chance allows; run the plan again"


def _drawn(team: Team, stream: Stream) -> tuple[Targets, Indices, list[int]]:
    """Where each row of this member goes, how many go to each, and may at most.

    Raises ProtocolError for more.
    """
    rows, bounds = team.rows[0], team.bounds(team.rows[0])
    mine = len(team.block(rows))
    ends = [(bound << WORD_BITS) // max(1, rows) for bound in bounds[1:-1]]
    # Of blocks without rows at the end nobody draws the start, which no word reaches.
    limits = np.array([min(end, (1 << WORD_BITS) - 1) for end in ends], dtype=np.uint64)
    to, buffer = np.empty(mine, dtype=np.uint16), np.empty(BLOCK_WORDS, dtype=np.uint64)
    for start in range(0, mine, BLOCK_WORDS):
        words = stream.fill(buffer[: min(BLOCK_WORDS, mine - start)])
        to[start : start + words.size] = np.searchsorted(limits, words, side="right")
    counts = np.bincount(to, minlength=team.size)
    most = [_room(team, team.member, member) for member in range(team.size)]
    if any(count > room for count, room in zip(counts, most, strict=True)):
        raise ProtocolError(_UNEVEN)
    return to, counts, most


def _room(team: Team, sender: int, receiver: int) -> int:
    """Rows of what one member sends to another in a shuffle, which are more than chance draws for it."""
    blocks = team.blocks(team.rows[0])
    share = blocks[sender] * blocks[receiver] / max(1, team.rows[0])
    return min(blocks[sender], math.ceil(share + 10 * math.sqrt(share)) + 32)


def _put_down(protocol: Protocol, pieces: Sequence[Words], order: Indices, out: Words) -> None:
    """Put row i of all pieces, one after the other, at `order[i]` of `out`."""
    if out.nbytes <= protocol.reach:
        start = 0
        for piece in pieces:
            out[order[start : start + len(piece)]] = piece
            start += len(piece)
        return
    rows = np.concatenate(pieces, out=protocol.allocate(out.shape))
    back = protocol.allocate(order.shape).view(np.int64)
    back[order] = np.arange(order.size)
    rows, back = nearer(rows, back, protocol.reach, protocol.allocate)
    np.take(rows, back, axis=0, mode="clip", out=out)


def _even_out(team: Team, rooms: Sequence[Words], starts: Sequence[int], slack: int) -> Op[None]:
    """Move rows at the ends of tables to the members whose blocks they belong to: one exchange.

    Member i has rows `starts[i]` to `starts[i + 1]`, from `slack` on in each of the `rooms`. What is sent
    depends on the blocks and the slack alone.
    """
    bounds, me = team.bounds(starts[-1]), team.member

    def overlap(of: Sequence[int], sender: int, receiver: int, more: int) -> range:
        low = max(of[sender] - more, bounds[receiver])
        return range(low, max(low, min(of[sender + 1] + more, bounds[receiver + 1])))

    def inside(rows: range, first: int) -> slice:
        return slice(rows.start - first + slack, rows.stop - first + slack)

    others = [member for member in range(team.size) if member != me]
    send: dict[int, list[Words]] = {}
    for member in others:
        room_for, rows = len(overlap(bounds, me, member, slack)), overlap(starts, me, member, 0)
        send[member] = [np.zeros((room_for, room.shape[1]), dtype=np.uint64) for room in rooms]
        for piece, room in zip(send[member], rooms, strict=True):
            piece[: len(rows)] = room[inside(rows, starts[me])]
    got = yield Exchange(send)
    due = {member: len(overlap(bounds, member, me, slack)) for member in others}
    _require(got, {member: [(rows, room.shape[1]) for room in rooms] for member, rows in due.items()})
    for member in others:
        rows = overlap(starts, member, me, 0)
        for room, piece in zip(rooms, got[member], strict=True):
            room[inside(rows, starts[me])] = piece[: len(rows)]


def permute_columns(
    protocol: Protocol, team: Team, columns: Sequence[Words], draw: Callable[[str], Stream]
) -> Op[list[Words]]:
    """As `permute`, of columns `(..., rows of the block)`."""
    rows = columns[0].shape[-1]
    tables = [
        np.ascontiguousarray(np.moveaxis(column, -1, 0)).reshape(rows, math.prod(column.shape[:-1]))
        for column in columns
    ]
    moved = yield from permute(protocol, team, tables, draw)
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
    got = yield Exchange(
        {
            member: [(wanted[start:stop] - bounds[member]).view(np.uint64)]
            for member, (start, stop) in enumerate(itertools.pairwise(starts))
        }
    )
    asked = _asked(team, got, x.shape[-1])
    got = yield Exchange({member: [protocol.take(x, some).data] for member, some in enumerate(asked)})
    spans = enumerate(itertools.pairwise(starts.tolist()))
    _require(got, {member: [(*x.data.shape[:-1], stop - start)] for member, (start, stop) in spans})
    joined = x.like(_side_by_side(protocol, [got[member][0] for member in range(team.size)]))
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
    _require(got, {0: [(*keys.data.shape[:-1], team.size - 1 if sampled(team) else 0)]})
    splitters = got[0][0]
    rows = keys.shape[-1]
    joined = keys.like(_side_by_side(protocol, [keys.data, splitters]))
    low, high = np.zeros(rows, dtype=np.int64), np.full(rows, splitters.shape[-1])
    while (searching := np.flatnonzero(low < high)).size:
        middle = (low[searching] + high[searching]) // 2
        below = yield from less(joined, searching, rows + middle)
        high[searching] = np.where(below, middle, high[searching])
        low[searching] = np.where(below, low[searching], middle + 1)
    matrix, parts = yield from hand_out(
        protocol, team, [column.data for column in columns], low.astype(np.uint16)
    )
    *moved, here = [column.like(part) for column, part in zip(columns, parts, strict=True)]
    order = yield from rank(here)
    spans = list(itertools.pairwise([0, *np.cumsum(matrix.sum(axis=0)).tolist()]))
    made = []
    for column in moved:
        in_order = protocol.take(column, order).data
        made.append(column.like((yield from place(protocol, team, in_order, 0, team.rows[0], spans))))
    return made


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
    return max(team.blocks(team.rows[0]))


__all__ = [
    "Team",
    "cumulate",
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
