"""Joint sharings: what two of four parties know, shared among all of them in one round (see `rep4`).

A value v that parties g and h know, and i and j do not: component j is F(K_j), which g, h and i draw from the
key that all but j have in common; component i is v - F(K_j), which g tells j while h vouches for it (see
`vouching`); the other two components are zero. 1 word and a tag. Several pairs may share at a time, and what
they share may be added up on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tercet.compiled import INT64, Array, kernel
from tercet.protocols.domains import Z64, Domain, Words
from tercet.protocols.kernels import IN2, OUT2, Indices
from tercet.protocols.prg import Stream
from tercet.protocols.shares import Cost, Op, Shape
from tercet.protocols.vouching import Message, tell, tell_cost

if TYPE_CHECKING:
    from tercet.protocols.rep4 import Rep4

PARTIES = 4
BLOCK = 1 << 14
"""Words of a mask that are drawn at a time, 128 KiB: they stay in the cache until they are used."""
STEP = 512
"""Elements that are worked on at a time, of a dozen arrays: they stay in the first-level cache."""

Components = dict[int, Words]
"""Words by the component that they are."""


class Pair(NamedTuple):
    """Who does what in a joint sharing of what two parties know."""

    sender: int
    voucher: int
    receiver: int
    """Who is told; its own component is the mask, which it must not know."""
    other: int
    """Who draws the mask too, and must not know what it hides."""


# Every party is told about as much as any other, and says as much.
_ROLES = ((0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2), (0, 2, 1, 3), (3, 1, 0, 2))


def pairs(dealer: int) -> list[Pair]:
    """The six pairs, the first and third of which have no party in common; roles turn with the dealer."""
    return [Pair(*((role + dealer) % PARTIES for role in roles)) for roles in _ROLES]


Fill = Callable[[int, int], None]
"""Works out a run of elements of some values, from start to stop."""


def deal(protocol: Rep4, domain: Domain, *values: tuple[Pair, Words | None, Shape]) -> Op[list[Components]]:
    """Share what a few pairs know, each by itself: 1 round. Returns the two components that are not zero.

    `values` has for each pair its value, which is written over, or None at the others, and its shape. Cost:
    `cost`.
    """
    tag, me = protocol.tag(), protocol.party
    said, parts = list[Words | None](), list[Components]()
    for pair, value, shape in values:
        said.append(value)
        parts.append({})
        if me == pair.receiver:
            continue
        mask = parts[-1][pair.receiver] = _mask(protocol, pair, tag).words(shape)
        if value is not None:
            parts[-1][pair.other] = domain.subtract(value, mask, out=value)
    told = yield from tell(protocol, [_message(pair, shape) for pair, _, shape in values], said)
    for pair_parts, (pair, _, _), words in zip(parts, values, told, strict=True):
        if words is not None:
            pair_parts[pair.other] = words
    return parts


def deal_sum(
    protocol: Rep4,
    domain: Domain,
    roles: Sequence[Pair],
    values: Words,
    fill: Fill | None = None,
) -> Op[Words]:
    """A sharing, `(3, *shape)`, of the sum of what pairs know: 1 round.

    `values`, `(3, *shape)`, has in row d - 1 what this party and the one d places after it know, for those
    pairs that are among `roles`. It is written over; `fill` works out a run of its elements before they are
    used. Cost: `cost`.
    """
    tag, me = protocol.tag(), protocol.party
    shape, shared = values.shape[1:], [pair for pair in roles if me != pair.receiver]
    streams = [_mask(protocol, pair, tag) for pair in shared]
    wiring = np.array([_wires(me, pair) for pair in shared], dtype=np.int64)
    made = np.empty((3, *shape), dtype=np.uint64)
    left, out = values.reshape(3, -1), made.reshape(3, -1)
    buffer = np.empty((len(shared), min(out.shape[1], BLOCK)), dtype=np.uint64)
    split = _split_words if domain is Z64 else _split_bits
    for start in range(0, out.shape[1], BLOCK):
        stop = min(start + BLOCK, out.shape[1])
        for stream, drawn in zip(streams, buffer, strict=True):
            stream.fill(drawn[: stop - start])
        if fill is not None:
            fill(start, stop)
        split(buffer, wiring, left, out, start, stop)
    said = [values[place(me, pair), ...] if me in pair[:2] else None for pair in roles]
    told = yield from tell(protocol, [_message(pair, shape) for pair in roles], said)
    for pair, words in zip(roles, told, strict=True):
        if words is not None:
            component = made[(pair.other - me) % PARTIES - 1, ...]
            domain.add(component, words, out=component)
    return made


def cost(*shared: tuple[Sequence[Pair], Shape]) -> Cost:
    """Cost of `deal` and `deal_sum`, by the pairs that share, and the shape of what they share."""
    return tell_cost(PARTIES, [_message(pair, shape) for some, shape in shared for pair in some])


def _message(pair: Pair, shape: Shape) -> Message:
    return Message(pair.sender, (pair.voucher,), pair.receiver, shape)


def _mask(protocol: Rep4, pair: Pair, tag: str) -> Stream:
    return protocol.draw_without(pair.receiver, tag, f"joint {pair.sender} {pair.voucher}")


def place(party: int, pair: Pair) -> int:
    """The row of what a party and the other one of a pair know."""
    partner = pair.voucher if party == pair.sender else pair.sender
    return (partner - party) % PARTIES - 1


def _wires(party: int, pair: Pair) -> tuple[int, int, int]:
    """The rows of the mask's component, of the value, and of the component that is the rest of the value.

    The latter two are -1 at the party that knows the mask alone.
    """
    mask = (pair.receiver - party) % PARTIES - 1
    if party == pair.other:
        return mask, -1, -1
    return mask, place(party, pair), (pair.other - party) % PARTIES - 1


_WIRES = Array(INT64, 2, readonly=True)


@kernel(IN2, _WIRES, OUT2, OUT2, INT64, INT64)
def _split_words(drawn: Words, wiring: Indices, left: Words, out: Words, start: int, stop: int) -> None:
    for first in range(start, stop, STEP):
        last = min(first + STEP, stop)
        for row in range(3):
            out[row, first:last] = 0
        for pair in range(wiring.shape[0]):
            masks, masked = drawn[pair, first - start : last - start], out[wiring[pair, 0], first:last]
            for i in range(last - first):
                masked[i] += masks[i]
            if wiring[pair, 1] >= 0:
                value, rest = left[wiring[pair, 1], first:last], out[wiring[pair, 2], first:last]
                for i in range(last - first):
                    words = value[i] - masks[i]
                    value[i] = words
                    rest[i] += words


@kernel(IN2, _WIRES, OUT2, OUT2, INT64, INT64)
def _split_bits(drawn: Words, wiring: Indices, left: Words, out: Words, start: int, stop: int) -> None:
    for first in range(start, stop, STEP):
        last = min(first + STEP, stop)
        for row in range(3):
            out[row, first:last] = 0
        for pair in range(wiring.shape[0]):
            masks, masked = drawn[pair, first - start : last - start], out[wiring[pair, 0], first:last]
            for i in range(last - first):
                masked[i] ^= masks[i]
            if wiring[pair, 1] >= 0:
                value, rest = left[wiring[pair, 1], first:last], out[wiring[pair, 2], first:last]
                for i in range(last - first):
                    words = value[i] ^ masks[i]
                    value[i] = words
                    rest[i] ^= words


__all__ = ["PARTIES", "Components", "Pair", "cost", "deal", "deal_sum", "pairs", "place"]
