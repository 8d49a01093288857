"""Joint sharings: what two of four parties know, shared among all of them in one round (see `rep4`).

A value v that parties g and h know, and i and j do not: component j is F(K_j), which g, h and i draw from the
key that all but j have in common; component i is v - F(K_j), which g tells j while h vouches for it (see
`vouching`); the other two components are zero. 1 word and a tag. Several pairs may share at a time, and what
they share may be added up on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np

from tercet.compiled import BOOLEAN, kernel
from tercet.protocols.domains import Z64, Domain, Words
from tercet.protocols.kernels import IN, OUT
from tercet.protocols.prg import Stream
from tercet.protocols.shares import Cost, Op, Shape
from tercet.protocols.vouching import Message, tell, tell_cost

if TYPE_CHECKING:
    from tercet.protocols.rep4 import Rep4

PARTIES = 4
BLOCK = 1 << 13
"""Words of a mask that are drawn at a time, 64 KiB: they stay in the cache until they are used."""

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


@attrs.frozen(eq=False)
class Joint:
    """Values of one shape that some pairs share at a time, and that are added up."""

    domain: Domain
    pairs: Sequence[Pair]
    known: Sequence[Words | None]
    """The value of each pair, alike at its two members, and None elsewhere. It is written over."""
    into: Components
    """Where the sum goes, by component, among them those of each pair's receiver and other that this party
    holds. What stands there is written over."""

    @property
    def shape(self) -> Shape:
        """The shape of each value."""
        return next(iter(self.into.values())).shape

    def messages(self) -> Iterator[Message]:
        """What receivers are told."""
        return (_message(pair, self.shape) for pair in self.pairs)


def _message(pair: Pair, shape: Shape) -> Message:
    return Message(pair.sender, (pair.voucher,), pair.receiver, shape)


def share_jointly(protocol: Rep4, *joints: Joint) -> Op[None]:
    """Share what pairs know: 1 round, 1 word an element and a tag for each pair. Cost: `joint_cost`."""
    tag, me = protocol.tag(), protocol.party
    said, begun = list[Words | None](), [set[int]() for _ in joints]
    for joint, written in zip(joints, begun, strict=True):
        for pair, value in zip(joint.pairs, joint.known, strict=True):
            told = None
            if me != pair.receiver:
                stream = protocol.draw_without(pair.receiver, tag, f"joint {pair.sender} {pair.voucher}")
                if me == pair.other or value is None:
                    _add_mask(joint, stream, pair.receiver, fresh=pair.receiver not in written)
                else:
                    told = _split(joint, stream, value, pair, written)
                written.add(pair.receiver)
            said.append(told)
    messages = [message for joint in joints for message in joint.messages()]
    told_here = iter((yield from tell(protocol, messages, said)))
    for joint, written in zip(joints, begun, strict=True):
        for pair in joint.pairs:
            if me == pair.receiver:
                _add(joint, pair.other, next(told_here), fresh=pair.other not in written)
                written.add(pair.other)


def joint_cost(*shared: tuple[Sequence[Pair], Shape]) -> Cost:
    """Cost of `share_jointly`, by the pairs that share, and the shape of what they share."""
    return tell_cost(PARTIES, [_message(pair, shape) for some, shape in shared for pair in some])


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _add_mask(joint: Joint, stream: Stream, component: int, *, fresh: bool) -> None:
    """Add a mask to a component, or begin it with that."""
    place = joint.into[component].reshape(-1)
    if fresh:
        stream.fill(place)
        return
    buffer = np.empty(min(place.size, BLOCK), dtype=np.uint64)
    for block in _blocks(place.size):
        drawn = stream.fill(buffer[: block.stop - block.start])
        joint.domain.add(place[block], drawn, out=place[block])


def _split(joint: Joint, stream: Stream, value: Words, pair: Pair, written: set[int]) -> Words:
    """Add a mask to the receiver's component, and what it leaves of the value to the other's.

    Returns the latter, which the receiver is to be told, where the value was.
    """
    left, size = value.reshape(-1), value.size
    mask, rest = (joint.into[component].reshape(-1) for component in (pair.receiver, pair.other))
    first_mask, first_rest = pair.receiver not in written, pair.other not in written
    if len(joint.pairs) == 1:
        stream.fill(mask)
        joint.domain.subtract(left, mask, out=left)
        joint.into[pair.other] = value
        return value
    split = _split_words if joint.domain is Z64 else _split_bits
    buffer = np.empty(min(size, BLOCK), dtype=np.uint64)
    for block in _blocks(size):
        drawn = stream.fill(buffer[: block.stop - block.start])
        split(drawn, left[block], mask[block], rest[block], first_mask, first_rest)
    written.add(pair.other)
    return value


def _add(joint: Joint, component: int, words: Words, *, fresh: bool) -> None:
    place = joint.into[component]
    if not fresh:
        joint.domain.add(place, words, out=place)
    elif len(joint.pairs) == 1:
        joint.into[component] = words
    else:
        place[...] = words


@kernel(IN, OUT, OUT, OUT, BOOLEAN, BOOLEAN)
def _split_words(
    drawn: Words, left: Words, mask: Words, rest: Words, first_mask: bool, first_rest: bool
) -> None:
    for i in range(drawn.shape[0]):
        left[i] -= drawn[i]
    if first_mask:
        mask[:] = drawn
    else:
        for i in range(drawn.shape[0]):
            mask[i] += drawn[i]
    if first_rest:
        rest[:] = left
    else:
        for i in range(drawn.shape[0]):
            rest[i] += left[i]


@kernel(IN, OUT, OUT, OUT, BOOLEAN, BOOLEAN)
def _split_bits(
    drawn: Words, left: Words, mask: Words, rest: Words, first_mask: bool, first_rest: bool
) -> None:
    for i in range(drawn.shape[0]):
        left[i] ^= drawn[i]
    if first_mask:
        mask[:] = drawn
    else:
        for i in range(drawn.shape[0]):
            mask[i] ^= drawn[i]
    if first_rest:
        rest[:] = left
    else:
        for i in range(drawn.shape[0]):
            rest[i] ^= left[i]


__all__ = ["PARTIES", "Components", "Joint", "Pair", "joint_cost", "pairs", "share_jointly"]
