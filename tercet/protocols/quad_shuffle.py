"""Shuffles among four parties: each three of them in turn permute what they share, and hand it on.

In the hop of party e, the three others permute the rows by an order that they draw from K_e, which e does not
know: after four hops no party knows the product of the orders. Between hops a table is shared by these three
alone, in three components of which each of them lacks its own. They add zeros drawn from K_e too, so what e
is told afterwards is random to it. The hop of the next party, f, needs components among e and the other two,
a and b: f's own component, which a and b know, becomes e's; a's component is known to f and b, and e is told
it by one of them while the other vouches for it; so is b's. After the last hop e needs all three, and its own
component is drawn from K_e. That is 2 + 2 + 2 + 3 words an element.

The words of a row lie side by side, as among three parties (see `shuffling`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tercet.protocols.base import Cost, Op, Shape, Share, require_full
from tercet.protocols.domains import Words
from tercet.protocols.kernels import permutation
from tercet.protocols.prg import Stream
from tercet.protocols.rows import Table, as_asked, in_order, write
from tercet.protocols.together import permute
from tercet.protocols.vouching import Message, tell, tell_cost

if TYPE_CHECKING:
    from tercet.protocols.rep4 import Rep4

Held = dict[int, Words]
"""This party's components of a table between two hops, `(rows, width)` each."""


def shuffle(protocol: Rep4, columns: Sequence[Share]) -> Op[list[Share]]:
    """Columns with their rows permuted alike, by a permutation that nobody knows. Cost: `shuffle_cost`."""
    require_full("shuffle", *columns)
    tables, hops = Table.of(columns), _hops(protocol)
    shapes = [table.shape for table in tables]
    held = [_begin(protocol, table, hops[0]) for table in tables]
    for hop, out in enumerate(hops):
        yield from _permute(protocol, tables, held, out, last=hop == len(hops) - 1)
        components, messages = _told(hops, hop, shapes)
        known = [parts.get(component) for component in components for parts in held]
        told = yield from tell(protocol, messages, known)
        _hand_on(protocol, hops, hop, held, components, told)
    made = [table.empty(protocol) for table in tables]
    for table, parts, results in zip(tables, held, made, strict=True):
        for d in (1, 2, 3):
            rows = parts.pop(protocol.after(d))
            for block in table.blocks():
                write(results, d - 1, block, rows[block])
    return as_asked(columns, tables, made)


def shuffle_cost(protocol: Rep4, columns: Sequence[Share]) -> Cost:
    """4 rounds; 9 words an element in all."""
    hops, shapes = _hops(protocol), [table.shape for table in Table.of(columns)]
    cost = protocol.free()
    for hop in range(len(hops)):
        cost = cost + tell_cost(protocol.parties, _told(hops, hop, shapes)[1])
    return cost


def _hops(protocol: Rep4) -> list[int]:
    """Who has no part in each hop."""
    return [(protocol.dealer + hop) % protocol.parties for hop in range(protocol.parties)]


def _begin(protocol: Rep4, table: Table, out: int) -> Held:
    """The components that three parties share: that of `out`, which all know, joins that of the next."""
    first = (out + 1) % protocol.parties
    if protocol.party == out:
        return {}
    held = {}
    for component in range(protocol.parties):
        if component in (protocol.party, out):
            continue
        place, more = ((c - protocol.party) % protocol.parties - 1 for c in (component, out))

        def part(x: Share, place: int = place, more: int = more, joined: bool = component == first) -> Words:
            words: Words = x.domain.add(x.data[place], x.data[more]) if joined else x.data[place]
            return words

        held[component] = table.rows(protocol, part)
    return held


def _permute(
    protocol: Rep4, tables: Sequence[Table], held: Sequence[Held], out: int, *, last: bool
) -> Op[None]:
    """Permute this party's components, and add zeros: 0 rounds.

    In the last hop what is added is no zero: it is made up for by the component of `out`, minus the sum.
    """
    tag = protocol.tag()
    if protocol.party == out:
        return
    yield from _arrange(protocol, tag, held, out)
    three = [(out + d) % protocol.parties for d in (1, 2, 3)]
    for number, (table, parts) in enumerate(zip(tables, held, strict=True)):
        if last:
            parts[out] = protocol.allocate(table.shape)
        streams = {
            component: protocol.draw_without(out, tag, f"zero {component} {number}")
            for component in (three if last else three[:2])
        }
        _add_zeros(table, parts, streams, rest=out if last else three[2], fresh=last)


def _arrange(protocol: Rep4, tag: str, held: Sequence[Held], out: int) -> Op[None]:
    """Put all components into an order that is drawn by all but `out`."""
    draw = functools.partial(protocol.draw_without, out, tag)
    if protocol.team is not None:
        places = [(parts, component) for parts in held for component in parts]
        moved = yield from permute(
            protocol, protocol.team, [parts[component] for parts, component in places], draw
        )
        for (parts, component), table in zip(places, moved, strict=True):
            parts[component] = table
        return
    rows = len(next(iter(held[0].values())))
    random = draw("permutation").fill(protocol.allocate((rows,)))
    order = permutation(random, protocol.allocate(random.shape).view(np.int64))
    for parts in held:
        for component in parts:
            parts[component] = in_order(protocol, parts[component], order)


def _add_zeros(table: Table, parts: Held, streams: dict[int, Stream], rest: int, *, fresh: bool) -> None:
    """Add what is drawn to components, and minus its sum to the `rest`, which is set to it if `fresh`."""
    buffers = [table.buffer() for _ in range(2)]
    for block in table.blocks():
        size = block.stop - block.start
        drawn, total = (buffer[:size] for buffer in buffers)
        total[:] = 0
        for component, stream in streams.items():
            stream.fill(drawn)
            table.domain.add(total, drawn, out=total)
            if component in parts:
                table.domain.add(parts[component][block], drawn, out=parts[component][block])
        if fresh:
            parts[rest][block] = 0
        if rest in parts:
            table.domain.subtract(parts[rest][block], total, out=parts[rest][block])


def _told(hops: Sequence[int], hop: int, shapes: Sequence[Shape]) -> tuple[list[int], list[Message]]:
    """Which components the party without part in a hop is told after it, and by whom.

    Of the three others a component is known to the two whose own it is not. After the last hop all three are
    told, before all but that of the next party in turn.
    """
    out = hops[hop]
    a, b, c = ((out + d) % len(hops) for d in (1, 2, 3))
    # By component: who says it, and who vouches for it.
    known = {a: (b, c), b: (c, a), c: (a, b)}
    components = [a, b, c] if hop == len(hops) - 1 else [b, c]
    messages = [
        Message(known[component][0], known[component][1:], out, shape)
        for component in components
        for shape in shapes
    ]
    return components, messages


def _hand_on(
    protocol: Rep4,
    hops: Sequence[int],
    hop: int,
    held: Sequence[Held],
    components: Sequence[int],
    told: Sequence[Words | None],
) -> None:
    """What each party holds afterwards: among the next three parties, or among all four."""
    out, last = hops[hop], hop == len(hops) - 1
    if protocol.party == out:
        words = (part for part in told if part is not None)
        for component in components:
            for parts in held:
                # What arrives is not ours to write to.
                parts[component] = next(words)
    if last:
        return
    following = hops[hop + 1]
    for parts in held:
        if protocol.party == following:
            parts.clear()
        elif following in parts:  # known to the two others: the component of the party that was out, now
            parts[out] = parts.pop(following)


__all__ = ["shuffle", "shuffle_cost"]
