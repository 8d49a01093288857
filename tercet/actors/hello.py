"""The first words on every link: what both ends are, and whether they fit together.

A hello says the version of the protocol between nodes, the role, what runs among how many parties, which lake
this end belongs to (a digest of its members and their certificates, and the number of the file that lists
them), what its clock shows, and 32 random
bytes. From both ends' random bytes the key of a link between parties is made. What does not fit is refused
here, in a sentence, before anything else is said.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import attrs
import trio

from tercet.errors import PeerLost, TransportError
from tercet.transports import Link
from tercet.transports.wire import pack_message, unpack_message

VERSION = 7
HELLO_BYTES = 32
MOST_SKEW_S = 120.0
"""Clocks may differ by so much: consent and certificates expire by them."""


@attrs.frozen
class Hello:
    """What one end says of itself. `lake` is empty for lakes on one machine: they have no file of members."""

    role: str
    protocol: str
    parties: int
    lake: bytes = b""
    number: int = 0
    clock: float = attrs.field(factory=time.time)
    contribution: bytes = attrs.field(factory=lambda: secrets.token_bytes(HELLO_BYTES), repr=False)

    def to_wire(self) -> list[Any]:
        """The message that `read` understands."""
        return ["hello", VERSION, *attrs.astuple(self)]

    @classmethod
    def read(cls, message: Any, *, peer: str) -> Hello:
        """From the wire. Raises TransportError for another version, or something that is no hello."""
        match message:
            case ["hello", int(version), *_] if version != VERSION:
                raise TransportError(
                    f"{peer} speaks version {version} of the protocol between nodes, this end version "
                    f"{VERSION}; install the same release of Tercet at both"
                )
            case ["hello", _, str(role), str(protocol), int(parties), bytes(lake), int(number), *rest]:
                match rest:
                    case [float(clock), bytes(mine)] if len(mine) == HELLO_BYTES:
                        return cls(role, protocol, parties, lake, number, clock, mine)
        raise TransportError(f"{peer} did not say hello; something other than a Tercet node is there")

    def check(self, other: Hello, *, peer: str) -> None:
        """Raise TransportError unless the other end runs the same, for the same lake, at the same time."""
        if (other.protocol, other.parties) != (self.protocol, self.parties):
            raise TransportError(
                f"{peer} runs protocol {other.protocol!r} among {other.parties}, this end {self.protocol!r} "
                f"among {self.parties}; start all nodes alike"
            )
        if other.lake != self.lake:
            raise TransportError(self._other_lake(other, peer))
        if not abs(other.clock - self.clock) <= MOST_SKEW_S:
            raise TransportError(
                f"the clock of {peer} is {other.clock - self.clock:+.0f} s off from this end's, more than "
                f"{MOST_SKEW_S:g} s; synchronise both, for instance with NTP"
            )

    def _other_lake(self, other: Hello, peer: str) -> str:
        """Why two ends that have different lists of members do not fit together, and what to do."""
        if other.number == self.number > 1:
            return (
                f"{peer} goes by another number {self.number} of the lake's cluster.toml than this end: two "
                "were signed. Let the operators settle which one counts; who has the other puts back "
                "what was there before it, a node its catalog too"
            )
        if other.number == self.number:
            return (
                f"{peer} has another list of the lake's members than this end; give all nodes and members "
                "the same cluster.toml"
            )
        differ = f"{peer} goes by number {other.number} of the lake's cluster.toml, and this end by number "
        if other.number > self.number:
            mend = "get the newer one from another member, and take it up with `tercet adopt`"
        else:
            mend = "it has not taken up the newer one; wait a little, or let its operator `tercet adopt` that"
        return f"{differ}{self.number}: {mend}"


async def greet(link: Link, mine: Hello, *, timeout_s: float) -> Hello:
    """Exchange hellos: returns the other end's.

    Raises TransportError if the two do not fit together, PeerLost if the other end is silent.
    """
    with trio.move_on_after(timeout_s) as scope:
        await link.send(pack_message(mine.to_wire()))
        header, size = await link.receive_header()
    if scope.cancelled_caught:
        raise PeerLost(f"{link.peer} did not say hello within {timeout_s:g} s; see its log", peer=link.peer)
    if size:
        raise TransportError(f"{link.peer} sent {size} bytes with its hello, which has none")
    theirs = Hello.read(unpack_message(header, peer=link.peer), peer=link.peer)
    mine.check(theirs, peer=link.peer)
    return theirs
