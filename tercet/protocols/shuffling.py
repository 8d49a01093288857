"""Shuffles among three parties: each pair in turn permutes what it shares and hands it to the next pair.

The rows are permuted three times, by permutations that the parties 1 and 2, 2 and 0, 0 and 1 draw from their
common keys, so that no party knows the product (Laur, Willemson, Zhang 2011). Between two hops a value needs
to be shared by the next pair only. So in the dealer view (see `masking`) of hop d, B stays, D takes the place
of A, and one message does: D's new summand is F(K_{d+1}), which A can draw too, and A sends B what is left of
its own. Only the last hop ends in a replicated sharing. That is 4 words an element in all three hops, where
resharing among all after each takes 6.

On the way, the words of a row lie side by side (see `rows`). Randomness is drawn, and masks are taken off, in
blocks that stay in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from tercet.protocols.base import Cost, Op, Round, Share, require_full
from tercet.protocols.detour import nearer
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.protocols.kernels import Indices, permutation
from tercet.protocols.masking import DEALER, FIRST, Masking
from tercet.protocols.prg import Stream
from tercet.protocols.rows import Table, as_asked, in_order, write
from tercet.protocols.together import permute


def shuffle(protocol: Masking, columns: Sequence[Share]) -> Op[list[Share]]:
    """Columns with their rows permuted alike, by a permutation that nobody knows. Cost: `shuffle_cost`."""
    require_full("shuffle", *columns)
    tables = Table.of(columns)
    first, second, last = ((protocol.dealer + hop) % 3 for hop in range(3))
    summand = functools.partial(protocol.summand, dealer=first)
    held = [table.rows(protocol, summand) for table in tables if protocol.role(first) != DEALER]
    for dealer in (first, second):
        held = yield from _pass_on(protocol, dealer, tables, held)
    settled = yield from _settle(protocol, last, tables, held)
    return as_asked(columns, tables, settled)


def shuffle_cost(protocol: Masking, columns: Sequence[Share]) -> Cost:
    """3 rounds; 4 words an element in all: 2 from party d+1, where d is the dealer, and 1 from the others."""
    words = [sum(column.size for column in columns)] * protocol.parties
    words[(protocol.dealer + 1) % 3] *= 2
    return Cost(3, tuple(count * WORD_BYTES for count in words))


def _arrange(
    protocol: Masking, dealer: int, tag: str, held: list[Words]
) -> Op[tuple[list[Words], Indices | None]]:
    """Rows, and the order in which they are to be read, which A and B have in common; None if they lie in it.

    Takes `held` away.
    """
    rows = held[:]
    held.clear()
    if protocol.team is not None:
        draw = functools.partial(protocol.draw, dealer + 2, tag)
        return (yield from permute(protocol, protocol.team, rows, draw)), None
    random = protocol.draw(dealer + 2, tag, "permutation").fill(protocol.allocate((len(rows[0]),)))
    return rows, permutation(random, protocol.allocate(random.shape).view(np.int64))


def _pass_on(protocol: Masking, dealer: int, tables: Sequence[Table], held: list[Words]) -> Op[list[Words]]:
    """Permute, and go over from a sharing between A and B to one between B and D: 1 round, a word from A.

    Takes and gives this party's summands of each table, `(rows, width)`; nothing where it has none.
    """
    tag, role = protocol.tag(), protocol.role(dealer)
    shapes = [table.shape for table in tables]
    if role == DEALER:
        stream = protocol.draw(dealer + 1, tag, "reshare")
        drawn = [stream.fill(protocol.allocate(shape)) for shape in shapes]
        yield Round()
        return drawn
    held, order = yield from _arrange(protocol, dealer, tag, held)
    if role == FIRST:
        stream = protocol.draw(dealer + 1, tag, "reshare")
        moved = [
            _masked(protocol, table, rows, order, stream) for table, rows in zip(tables, held, strict=True)
        ]
        held.clear()
        yield Round(send={(dealer + 2) % 3: moved})
        return []
    moved = held[:] if order is None else [in_order(protocol, rows, order) for rows in held]
    del order  # a word a row, while it waits
    held.clear()
    got = yield Round(recv={(dealer + 1) % 3: shapes})
    for table, mine, theirs in zip(tables, moved, got[(dealer + 1) % 3], strict=True):
        table.domain.add(mine, theirs, out=mine)
    return moved


def _settle(
    protocol: Masking, dealer: int, tables: Sequence[Table], held: list[Words]
) -> Op[list[list[Share]]]:
    """Permute, and reshare among all three (see `Masking.reshare`): 1 round, a word from A and from B."""
    tag, role = protocol.tag(), protocol.role(dealer)
    results = [table.empty(protocol) for table in tables]
    if role == DEALER:
        for component in range(2):
            stream = protocol.draw(dealer + component, tag, "reshare")
            for table, columns in zip(tables, results, strict=True):
                buffer = table.buffer()
                for block in table.blocks():
                    drawn = stream.fill(buffer[: block.stop - block.start])
                    write(columns, component, block, drawn)
        yield Round()
        return results
    other, kept = ((dealer + 2) % 3, 0) if role == FIRST else ((dealer + 1) % 3, 1)
    shapes = [table.shape for table in tables]
    held, order = yield from _arrange(protocol, dealer, tag, held)
    stream = protocol.draw(dealer + 1 - kept, tag, "reshare")
    moved = [
        _masked(protocol, table, rows, order, stream, functools.partial(write, columns, kept))
        for table, rows, columns in zip(tables, held, results, strict=True)
    ]
    del order
    held.clear()
    got = yield Round(send={other: moved}, recv={other: shapes})
    for table, mine, theirs, columns in zip(tables, moved, got[other], results, strict=True):
        for block in table.blocks():
            write(columns, 1 - kept, block, table.domain.add(mine[block], theirs[block]))
    return results


def _masked(
    protocol: Masking,
    table: Table,
    rows: Words,
    order: Indices | None,
    stream: Stream,
    settle: Callable[[slice, Words], None] | None = None,
) -> Words:
    """Permuted rows less a mask, block by block; `settle` is shown the mask. Rows in order change."""
    moved = rows if order is None else protocol.allocate(rows.shape)
    if order is not None:
        rows, order = nearer(rows, order, protocol.reach, protocol.allocate)
    buffer = table.buffer()
    for block in table.blocks():
        part = moved[block]
        if order is not None:
            np.take(rows, order[block], axis=0, out=part, mode="clip")
        mask = stream.fill(buffer[: len(part)])
        table.domain.subtract(part, mask, out=part)
        if settle is not None:
            settle(block, mask)
    return moved


__all__ = ["shuffle", "shuffle_cost"]
