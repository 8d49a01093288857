"""A node: a party with a listener, so that peers and clients can reach it.

Both run in one process (`main`, started by `cluster`) or many nodes in one event loop. Links begin with a
hello from both ends: version, role, protocol, and 32 random bytes each from which the key of a link between parties is made.
A client asks by frames `["put" | "run" | "drop" | "trace", request, ...]` and is answered `["done", request, ...]` or
`["failed", request, error]`; while it is connected it gets a heartbeat, so that it notices a node that stalls.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import trio

from tercet.actors.party import Party, link_key, read_type
from tercet.actors.plan import Type
from tercet.errors import PeerLost, ProtocolError, TercetError, TransportError
from tercet.protocols import registry
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Identity, Link, Listener, ShapedLink, TcpTransport, TlsTransport, Transport
from tercet.transports.wire import pack_message, unpack_message

logger = logging.getLogger(__name__)

VERSION = 1
CLIENT = "client"
HELLO_BYTES = 32


def party_name(index: int) -> str:
    """How a party is called in certificates, addresses and messages."""
    return f"party {index}"


@attrs.frozen
class Shaping:
    """What a link is slowed down to, for experiments on one machine: one-way latency and bandwidth."""

    latency_s: float = 0.0
    bandwidth_bps: float | None = None

    def apply(self, link: Link) -> Link:
        """The link, slowed down if anything is asked for. Both ends must do the same."""
        if self.latency_s == 0 and self.bandwidth_bps is None:
            return link
        return ShapedLink(link, self.latency_s, self.bandwidth_bps)


async def greet(link: Link, *, role: str, protocol: str, parties: int) -> tuple[str, bytes, bytes]:
    """Exchange hellos: returns the other end's role and both contributions to the link's key.

    Raises TransportError if the other end speaks another version, protocol or number of parties.
    """
    mine = secrets.token_bytes(HELLO_BYTES)
    await link.send(pack_message(["hello", VERSION, role, protocol, parties, mine]))
    header, size = await link.receive_header()
    message = unpack_message(header)
    if size or not isinstance(message, list) or len(message) != 6 or message[0] != "hello":
        raise TransportError(f"{link.peer} did not say hello; something other than a Tercet node is at that address")
    _, version, theirs, other, count, contribution = message
    if (version, other, count) != (VERSION, protocol, parties):
        raise TransportError(
            f"{link.peer} runs version {version} of protocol {other!r} among {count}, this end version {VERSION} of "
            f"{protocol!r} among {parties}; start all nodes alike"
        )
    return str(theirs), mine, bytes(contribution)


class Node:
    """A party that listens: connects to the peers before it, accepts those after it, then serves clients."""

    def __init__(self, party: Party, transport: Transport, *, shaping: Shaping, trusted_names: bool) -> None:
        self.party = party
        self.transport = transport
        self.shaping = shaping
        self._trusted_names = trusted_names
        self._listener: Listener | None = None
        self._waiting: dict[int, tuple[Link, bytes]] = {}
        self._all_here = trio.Event()

    async def listen(self, address: str, *, nursery: trio.Nursery) -> str:
        """Start to listen; returns the address with its port."""
        self._listener = await self.transport.listen(address, nursery=nursery)
        return self._listener.address

    async def serve(self, addresses: list[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Link up with all peers, then serve until cancelled. `task_status` is told when the party can run plans."""
        party = self.party
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._accept_all, nursery)
            for index in range(party.index):
                link = self.shaping.apply(await self.transport.connect(addresses[index], peer=party_name(index)))
                _, mine, theirs = await self._greet(link)
                party.add_peer(index, link, link_key(mine, theirs))
            if party.index + 1 < party.parties:
                await self._all_here.wait()
            for index, (link, key) in self._waiting.items():
                party.add_peer(index, link, key)
            await nursery.start(party.run)
            task_status.started()

    async def _greet(self, link: Link) -> tuple[str, bytes, bytes]:
        party = self.party
        with trio.move_on_after(party.timeout_s):
            return await greet(
                link, role=party_name(party.index), protocol=party.protocol.name, parties=party.parties
            )
        raise PeerLost(f"{link.peer} did not say hello within {party.timeout_s:g} s", peer=link.peer)

    async def _accept_all(self, nursery: trio.Nursery) -> None:
        if self._listener is None:
            raise TransportError("this node does not listen yet; call listen() before serve()")
        async with self._listener:
            while True:
                nursery.start_soon(self._accept, await self._listener.accept())

    async def _accept(self, raw: Link) -> None:
        link = self.shaping.apply(raw)
        try:
            role, mine, theirs = await self._greet(link)
            if self._trusted_names and role != raw.peer:
                raise TransportError(f"{raw.peer} says that it is {role}; the link was refused")
            if role == CLIENT:
                link.peer = CLIENT
                await _Service(self.party, link).run()
                return
            index = next((i for i in range(self.party.parties) if party_name(i) == role), None)
            if index is None or index <= self.party.index or index in self._waiting or self._all_here.is_set():
                raise TransportError(f"{role} is not expected to connect here now; the link was refused")
            link.peer = role
            self._waiting[index] = (link, link_key(mine, theirs))
            if len(self._waiting) == self.party.parties - 1 - self.party.index:
                self._all_here.set()
        except TercetError as error:
            logger.warning("party %d: %s", self.party.index, error)
            with trio.move_on_after(1):
                await link.aclose()


class _Service:
    """Answers one client."""

    def __init__(self, party: Party, link: Link) -> None:
        self.party = party
        self.link = link
        self._writing = trio.Lock()

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        except* TercetError as group:
            logger.warning("party %d: gave up a client's link: %s", self.party.index, group.exceptions[0])
        finally:
            with trio.move_on_after(1) as scope:
                scope.shield = True
                await self.link.aclose()

    async def _beat(self) -> None:
        while True:
            await trio.sleep(self.party.timeout_s / 4)
            await self._send(["beat"])

    async def _send(self, message: list[Any], buffers: list[Words] | None = None) -> None:
        async with self._writing:
            await self.link.send(pack_message(message), buffers or [])

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                header, size = await self.link.receive_header()
            except PeerLost:
                return
            message = unpack_message(header)
            if not isinstance(message, list) or len(message) < 2:
                raise ProtocolError("a client sent a frame that is no request")
            verb, request = message[0], message[1]
            if verb == "put":
                await self._put(message, size)
            elif size:
                raise ProtocolError(f"a client sent {size} bytes with a {verb!r} request, which takes none")
            else:
                nursery.start_soon(self._answer, verb, request, message[2:])

    async def _put(self, message: list[Any], size: int) -> None:
        _, request, handle, fields, tile_rows = message
        kind = read_type(fields)
        shapes = self.party.dealt_words(kind)
        counts = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        if size != WORD_BYTES * sum(counts):
            raise ProtocolError(f"an upload of {kind} has {size} bytes, {WORD_BYTES * sum(counts)} are due")
        payload = np.empty(sum(counts), dtype=np.uint64)
        await self.link.receive_payload(payload)
        parts = np.split(payload, np.cumsum(counts)[:-1])
        shaped = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.party.put(str(handle), kind, shaped, tile_rows=int(tile_rows))
        await self._send(["done", request, {}])

    async def _answer(self, verb: str, request: int, args: list[Any]) -> None:
        try:
            body, buffers = await self._do(verb, args)
        except TercetError as error:
            await self._send(["failed", request, error.to_wire()])
            return
        await self._send(["done", request, body], buffers)

    async def _do(self, verb: str, args: list[Any]) -> tuple[dict[str, Any], list[Words]]:
        if verb == "run":
            session, packed = args
            outcome = await self.party.run_plan(bytes(session), bytes(packed))
            revealed, buffers = [], []
            for name, to, kind, arrays in outcome.revealed:
                revealed.append([name, to, type_fields(kind), [list(array.shape) for array in arrays]])
                buffers += arrays
            return {
                "revealed": revealed,
                "stored": {handle: type_fields(stored.type) for handle, stored in outcome.stored.items()},
                "symbols": outcome.symbols,
                "statistics": attrs.asdict(outcome.statistics),
            }, buffers
        if verb == "drop":
            self.party.drop([str(handle) for handle in args[0]])
            return {}, []
        if verb == "trace":
            if args[0]:
                self.party.trace = []
                return {}, []
            events, self.party.trace = self.party.trace or [], None
            return {"events": [attrs.astuple(event) for event in events]}, []
        raise ProtocolError(f"a client asked for {verb!r}, which nodes do not know")


def type_fields(kind: Type) -> list[Any]:
    """The wire form of a stored type; see `read_type`."""
    return [kind.form.value, list(kind.shape), kind.scale, kind.limit]


def _make_transport(config: dict[str, Any]) -> Transport:
    if config["transport"] == "tls":
        return TlsTransport(Identity(**config["identity"]), config["pins"])
    return TcpTransport()


async def _main(read_line: Callable[[], bytes]) -> None:
    config = json.loads(await trio.to_thread.run_sync(read_line))
    party = Party(
        config["index"],
        parties=config["parties"],
        protocol=registry.get(config["protocol"]),
        timeout_s=config["timeout_s"],
        threads=config["threads"],
    )
    node = Node(party, _make_transport(config), shaping=Shaping(**config["shaping"]), trusted_names=config["transport"] == "tls")
    async with trio.open_nursery() as nursery:
        address = await node.listen("127.0.0.1:0", nursery=nursery)
        sys.stdout.write(json.dumps({"address": address, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        addresses = json.loads(await trio.to_thread.run_sync(read_line))
        await nursery.start(node.serve, addresses)
        sys.stdout.write(json.dumps({"ready": True}) + "\n")
        sys.stdout.flush()
        # Whoever started this process holds the other end of standard input: when it goes, so does the node.
        await trio.to_thread.run_sync(read_line, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run a node as this process; `cluster` holds the other ends of its standard input and output."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(name)s %(message)s")
    trio.run(_main, sys.stdin.buffer.readline)
