"""A peer: another party, as a party sees it; takes its messages and hands them on.

Messages between parties: `["start", session, digest, nonce, seeds, alike, seal]` and, where groups have keys
(see `group_keys`), `["confirm", session, digests]`; `["data", session, entries]` with one entry `[node, tile,
step, sizes]` for each step of an instance and its words as payload, or, of a plan that runs in lockstep,
`["data", session, round]` with the words of that round; where parties may be malicious, `["done", session]`
of a run that has ended well; and `["stop", session, error]`. `["job", ...]` on nodes that last.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import attrs
import trio

from tercet.actors.group_keys import groups_of
from tercet.actors.line import Line
from tercet.actors.session import Start
from tercet.errors import ProtocolError, TercetError, from_wire
from tercet.protocols.domains import Words

if TYPE_CHECKING:
    from tercet.actors.party import Party

LONGEST_NAME = 64
"""Bytes of the name of a session."""


def link_key(mine: bytes, theirs: bytes) -> bytes:
    """The key of a link, from what both ends contributed in their hellos."""
    return hashlib.blake2b(b"".join(sorted((mine, theirs))), digest_size=32, person=b"tercet-link").digest()


@attrs.define(eq=False)
class Peer:
    """Another party: its line, the key of that link, and sessions that it started before this party did."""

    party: Party
    index: int
    line: Line
    key: bytes
    early: OrderedDict[bytes, Start] = attrs.field(factory=OrderedDict)
    stopped: OrderedDict[bytes, TercetError] = attrs.field(factory=OrderedDict)
    """Why it has given up sessions of which this party has not heard. Kept apart from those that ended here,
    and told to nobody: it can name as many as it likes."""
    gone: trio.Event = attrs.field(factory=trio.Event)

    def admit(self, message: list[Any], size: int) -> bool:
        """Take the payload of data for a session under way; see `line.Receiver`."""
        if message[0] != "data":
            raise ProtocolError(
                f"{self.line.other} sent {size} bytes with a {message[0]!r} message, which has none"
            )
        _, name, entries = message
        session = self.party.session(name)
        return session is not None and session.admit(self.index, entries, size)

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message; see `line.Receiver`."""
        match message:
            case ["data", bytes(name), entries]:
                session = self.party.session(name)
                if session is None:
                    return
                # Messages without a word in them have no payload, so nobody has admitted them yet.
                if payload is None or payload.size or session.admit(self.index, entries, 0):
                    session.take(self.index, entries, payload)
            case ["start", bytes(name), *rest] if len(rest) == 5 and 0 < len(name) <= LONGEST_NAME:
                groups = groups_of(self.party.protocol, self.party.parties, self.party.index, self.index)
                said = Start.read(*rest, groups=len(groups))
                self.party.peer_starts(self, name, said)
            case ["confirm", bytes(name), digests] if self.party.protocol.group_keys:
                session = self.party.session(name)
                if session is not None:
                    session.confirm(self.index, digests)
            case ["done", bytes(name)] if self.party.protocol.malicious:
                session = self.party.session(name)
                if session is not None:
                    session.end(self.index)
            case ["stop", bytes(name), dict(fields)] if 0 < len(name) <= LONGEST_NAME:
                self.party.peer_stops(self, name, from_wire(fields).heard(self.party.called(self.index)))
            case ["job", *word] if self.party.on_word is not None:
                self.party.on_word(self.index, word)
            case ["crew", *word]:
                if self.party.on_crew is not None:  # else a party without workers, next to others
                    self.party.on_crew(self.index, word)
            case ["list", int(number), bytes(lake)] if self.party.on_list is not None:
                self.party.on_list(self.index, lake, number)
            case ["log", *word] if self.party.on_log is not None:
                self.party.on_log(self.index, word)
            case _:
                raise ProtocolError(f"{self.line.other} sent a message {message[0]!r} that no party sends")
