"""A node: a party with a listener, so that peers and clients can reach it.

Many nodes may live in one event loop; `main` runs one as a process, started by `cluster`. Links begin with a
hello from both ends (see `hello`). A client asks by messages `["put" | "run" | "drop" | "trace", request,
...]` and is answered `["done", request, ...]` or `["failed", request, error]`; `["cancel", request]` takes a
question back. A client that leaves takes all of them back, but what it has submitted goes on (see `jobs`).
What a client may do, and requests beyond these, are the gate's to decide (see `gate`).
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import trio

from tercet.actors.arrivals import Arrival, Piece
from tercet.actors.gate import Gate, Since
from tercet.actors.hello import Hello, greet
from tercet.actors.jobs import Answer, Jobs, answer
from tercet.actors.line import Line
from tercet.actors.party import Party, is_party, link_key, party_name
from tercet.actors.values import Outcome, read_type
from tercet.errors import PeerLost, PlanError, ProtocolError, TercetError, TransportError
from tercet.protocols import registry
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Identity, Link, Listener, ShapedLink, Transport
from tercet.transports import registry as transports

logger = logging.getLogger(__name__)

CLIENT = "client"
CONNECT_S = 10.0
MOST_REQUESTS = 1024
"""Requests of one client that may be under way at a time."""
RETRY_S, LONGEST_RETRY_S = 0.25, 10.0
"""Pauses between attempts to link up with a peer: each twice the one before."""


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


class Node:
    """A party that listens: connects to the peers before it, accepts those after it, then serves clients.

    One that is `lasting` goes on when a peer is absent or lost, and links up with it again when it can.
    `lake` is what the ends of every link compare in their hellos.
    """

    def __init__(
        self,
        party: Party,
        transport: Transport,
        *,
        shaping: Shaping,
        trusted_names: bool,
        lasting: bool = False,
        lake: bytes = b"",
        gate: Gate | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        self.party = party
        self.transport = transport
        self.shaping = shaping
        self.lasting = lasting
        self.gate = Gate() if gate is None else gate
        self.jobs = Jobs() if jobs is None else jobs
        self.clients: Counter[str] = Counter()
        """Clients that are connected now, by name."""
        self._lake = lake
        self._trusted_names = trusted_names
        self._listener: Listener | None = None
        self._expected = set(range(party.index + 1, party.parties))
        self._all_here = trio.Event()
        party.load = self.gate.load

    async def listen(self, address: str, *, nursery: trio.Nursery) -> str:
        """Start to listen; returns the address with its port."""
        self._listener = await self.transport.listen(address, nursery=nursery)
        return self._listener.address

    async def serve(
        self, addresses: Sequence[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Link up with all peers, and serve until cancelled.

        `task_status` is told when the party can run plans; of a lasting node, when clients can connect.

        Raises PeerLost or TransportError if a peer cannot be linked up with, unless the node is lasting.
        """
        if not self._expected:
            self._all_here.set()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.party.run)
            self.jobs.start(self.run, nursery)
            nursery.start_soon(self._accept_all, nursery)
            for index in range(self.party.index):
                if self.lasting:
                    nursery.start_soon(self._stay_linked, index, addresses[index])
                else:
                    await self._connect(index, addresses[index])
            if not self.lasting:
                await self._all_here.wait()
            task_status.started()

    async def run(self, session: bytes, packed: bytes, caller: str, since: Since | None = None) -> Outcome:
        """Run a plan for a client, with the other parties; see `Party.run_plan`."""
        if self.party.stopping:
            raise self.party.cancelled("")
        return await self.party.run_plan(session, packed, caller=caller, gate=self.gate, since=since)

    async def _stay_linked(self, index: int, address: str) -> None:
        """Link up with a peer again and again: whenever the link is lost, until it answers."""
        pause, told = RETRY_S, ""
        while True:
            try:
                await self._connect(index, address)
            except TercetError as error:
                if str(error) != told:
                    logger.warning("%s: %s", self.party.name, error)
                    told = str(error)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY_S)
            else:
                logger.info("%s: linked up with %s", self.party.name, party_name(index))
                pause, told = RETRY_S, ""
                await self.party.until_lost(index)

    async def _connect(self, index: int, address: str) -> None:
        name = party_name(index)
        with trio.move_on_after(CONNECT_S) as scope:
            raw = await self.transport.connect(address, peer=name)
        if scope.cancelled_caught:
            raise PeerLost(
                f"{name} did not answer at {address} within {CONNECT_S:g} s; is it running?", peer=name
            )
        link = self.shaping.apply(raw)
        try:
            theirs, key = await self._greet(link)
            if theirs != name:
                raise TransportError(f"{theirs} answered at {address}, where {name} was expected")
        except BaseException:
            await link.aclose()
            raise
        self.party.add_peer(index, link, key)

    async def _greet(self, link: Link) -> tuple[str, bytes]:
        """Exchange hellos; returns the role of the other end, and the link's key."""
        party = self.party
        mine = Hello(party.name, party.protocol.name, party.parties, self._lake)
        theirs = await greet(link, mine, timeout_s=party.timeout_s)
        return theirs.role, link_key(mine.contribution, theirs.contribution)

    async def _accept_all(self, nursery: trio.Nursery) -> None:
        if self._listener is None:
            raise TransportError("this node does not listen yet; call listen() before serve()")
        async with self._listener:
            while True:
                nursery.start_soon(self._accept, await self._listener.accept())

    async def _accept(self, raw: Link) -> None:
        link = self.shaping.apply(raw)
        try:
            role, key = await self._greet(link)
            pinned = raw.peer if self._trusted_names else role
            if role == CLIENT and not is_party(pinned):
                await self._serve_client(link, pinned)
            elif role != pinned:
                raise TransportError(f"{raw.peer} says that it is {role}; the link was refused")
            else:
                self._add(role, link, key)
        except TercetError as error:
            logger.warning("%s: %s", self.party.name, error)
            await link.aclose()
        except BaseException:
            await link.aclose()
            raise

    async def _serve_client(self, link: Link, name: str) -> None:
        link.peer = name
        self.clients[name] += 1
        try:
            await _Service(self, link, name).run()
        finally:
            self.clients[name] -= 1

    def _add(self, role: str, link: Link, key: bytes) -> None:
        """Take a link that a peer has made; a lasting node lets it replace an earlier one."""
        index = next((i for i in self._expected if party_name(i) == role), None)
        if index is None:
            raise TransportError(f"{role} is not expected to connect here now; the link was refused")
        if not self.lasting:
            self._expected.discard(index)
        self.party.add_peer(index, link, key)
        logger.info("%s: %s has linked up", self.party.name, role)
        if not self._expected:
            self._all_here.set()


class _Service:
    """Answers one client."""

    def __init__(self, node: Node, link: Link, caller: str) -> None:
        self.node = node
        self.party = node.party
        self.caller = caller
        self.gate = node.gate
        self.line = Line(link, owner=self.party.name, timeout_s=self.party.timeout_s, patient=True)
        self._under_way: dict[int, trio.CancelScope] = {}
        self._dealt_here: list[str] = []
        self._arriving: dict[str, Arrival] = {}

    async def run(self) -> None:
        """Answer until the client leaves; what is under way for it then is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self.line.run(self)
            logger.info("%s: %s", self.party.name, self.line.lost)
            nursery.cancel_scope.cancel()
        await self._give_up(list(self._arriving))
        await self.gate.left(self.caller, self._dealt_here)

    def admit(self, message: list[Any], size: int) -> bool:
        """Take the payload of an upload that can be stored."""
        if message[0] != "put":
            raise ProtocolError(f"a client sent {size} bytes with a {message[0]!r} request, which takes none")
        try:
            self._dealt(message, size)
        except TercetError:
            return False  # `take` finds the same error, and answers with it
        return True

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Answer a request, in a task of its own."""
        match message:
            case ["cancel", int(request)]:
                if request in self._under_way:
                    self._under_way[request].cancel()
            case _ if len(self._under_way) >= MOST_REQUESTS:
                raise ProtocolError(f"{self.caller} asked for more than {MOST_REQUESTS} things at a time")
            case [str(verb), int(request), *args] if request not in self._under_way:
                self._under_way[request] = trio.CancelScope()
                self._nursery.start_soon(self._answer, verb, request, args, payload)
            case _:
                raise ProtocolError("a client sent a message that is no request")

    async def _answer(self, verb: str, request: int, args: list[Any], payload: Words | None) -> None:
        try:
            with self._under_way[request]:
                body, buffers = await self._do(verb, args, payload)
                await self.line.send(["done", request, body], buffers)
        except TercetError as error:
            self.line.post(["failed", request, error.to_wire()])
        except Exception as error:
            logger.exception("%s: a %r request failed in an unforeseen way", self.party.name, verb)
            problem = ProtocolError(
                f"{self.party.name} could not answer a {verb!r} request ({type(error).__name__}: {error})"
            )
            self.line.post(["failed", request, problem.to_wire()])
        finally:
            del self._under_way[request]

    async def _do(self, verb: str, args: list[Any], payload: Words | None) -> Answer:
        match verb, args:
            case "put", [str(handle), *piece]:
                await self._put(handle, piece, payload)
                return {}, []
            case "run", [bytes(session), bytes(packed)]:
                return answer(await self.node.run(session, packed, self.caller))
            case "resume", [bytes(session), bytes(packed), bytes(earlier), int(point)]:
                return answer(await self.node.run(session, packed, self.caller, (earlier, point)))
            case "progress", [bytes(session)]:
                under_way = self.node.jobs.under_way(session)
                return attrs.asdict(self.party.progress(under_way, self.caller)), []
            case "submit", [bytes(session), bytes(packed)]:
                await self.node.jobs.submit(session, packed, self.caller)
                return {}, []
            case "jobs", []:
                return {"jobs": [job.to_wire() for job in self.node.jobs.of(self.caller)]}, []
            case "job" | "fetch" | "end", [bytes(session)]:
                return await self._do_job(verb, session)
            case "drop", [list(handles)]:
                names = [str(handle) for handle in handles]
                await self.gate.before_drop(self.caller, names)
                await self._give_up(names)
                self.party.drop(names)
                return {}, []
            case "trace", [bool(on)]:
                await self.gate.before_trace(self.caller)
                events, self.party.trace = self.party.trace or [], [] if on else None
                return {"events": [] if on else [list(attrs.astuple(event)) for event in events]}, []
            case _:
                return await self.gate.answer(self.caller, verb, args), []

    async def _do_job(self, verb: str, session: bytes) -> Answer:
        jobs = self.node.jobs
        with self.gate.audited(self.caller, verb):
            job = jobs.find(session, self.caller)
        if verb == "job":
            plan = await self.gate.plan_of(self.caller, job.packed)
            return {"packed": plan.to_bytes(), "asked": job.packed}, []
        if verb == "fetch":
            return await jobs.fetch(session, self.caller)
        await jobs.end(session, self.caller)
        return {}, []

    def _dealt(self, message: list[Any], size: int) -> tuple[Piece, list[tuple[int, ...]]]:
        """A piece of an upload and the shapes of its words. Raises PlanError if it cannot be stored."""
        match message[3:]:
            case [fields, int(tile_rows), int(start), int(rows)]:
                piece = Piece(read_type(fields), tile_rows, start, rows)
            case _:
                raise PlanError("an upload does not say which rows of which value it has")
        piece.check()
        shapes = self.party.dealt_words(piece.own_type)
        due = WORD_BYTES * sum(math.prod(shape) for shape in shapes)
        if size != due:
            kind = piece.own_type
            raise PlanError(f"an upload of {kind} has {size} bytes, {due} are due to {self.party.name}")
        return piece, shapes

    async def _put(self, handle: str, fields: list[Any], payload: Words | None) -> None:
        """Store a value, or the next piece of one. Raises PlanError, StorageError or ConsentError."""
        size = 0 if payload is None else payload.nbytes
        piece, shapes = self._dealt(["put", 0, handle, *fields], size)
        if payload is None:
            raise PlanError(f"{self.party.name} has no memory for an upload of {piece.own_type}")
        if piece.first:
            await self.gate.before_put(self.caller, handle, piece.type)
            self._dealt_here.append(handle)
        cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        parts = [part.reshape(shape) for part, shape in zip(np.split(payload, cuts), shapes, strict=True)]
        if piece.first and piece.last:
            self.party.put(handle, piece.type, parts, tile_rows=piece.tile_rows)
        else:
            await self._append(handle, piece, parts)

    async def _append(self, handle: str, piece: Piece, parts: list[Words]) -> None:
        if piece.first and handle not in self._arriving:
            sink = await trio.to_thread.run_sync(self.gate.begin, handle, piece.type, piece.tile_rows)
            self._arriving[handle] = Arrival(piece.type, piece.tile_rows, sink)
        arrival = self._arriving.get(handle)
        if arrival is None or not arrival.expects(piece):
            raise PlanError(f"rows from {piece.start} on of {handle!r} are not what is due; upload it again")
        tiles = functools.partial(self.party.accept, piece.own_type, parts, tile_rows=piece.tile_rows)
        async with arrival.turn:
            stored = await trio.to_thread.run_sync(arrival.take, piece, tiles)
            if stored is not None:
                del self._arriving[handle]
                self.party.store[handle] = stored

    async def _give_up(self, handles: Sequence[str]) -> None:
        """Leave nothing of values that have not arrived in full."""
        for handle in handles:
            arrival = self._arriving.pop(handle, None)
            if arrival is not None:
                with trio.CancelScope(shield=True):
                    async with arrival.turn:
                        await trio.to_thread.run_sync(arrival.sink.abort)


# -- a node as a process -------------------------------------------------------------------------------------


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)  # whoever started this process has gone


def _line(read_line: Callable[[], bytes]) -> bytes:
    """The next line from whoever started this process.

    When they go, so does the process, at once and whatever it computes: it keeps nothing.
    """
    line = read_line()
    if not line:
        os._exit(0)
    return line


async def _main(read_line: Callable[[], bytes]) -> None:
    async def hear() -> Any:
        return json.loads(await trio.to_thread.run_sync(_line, read_line, abandon_on_cancel=True))

    config = await hear()
    party = Party(
        config["index"],
        parties=config["parties"],
        protocol=registry.get(config["protocol"]),
        timeout_s=config["timeout_s"],
        threads=config["threads"],
    )
    identity = Identity(**config["identity"]) if "identity" in config else None
    transport = transports.get(config["transport"]).for_party(identity, config.get("pins", {}))
    node = Node(party, transport, shaping=Shaping(**config["shaping"]), trusted_names=transport.authenticated)
    async with trio.open_nursery() as nursery:
        _say({"address": await node.listen("127.0.0.1:0", nursery=nursery), "pid": os.getpid()})
        await nursery.start(node.serve, await hear())
        _say({"ready": True})
        await hear()


def main() -> None:
    """Run a node as this process; `cluster` holds the other ends of its standard input and output."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(name)s %(message)s")
    gc.freeze()  # what the imports made stays; looking through it again and again takes longer than a round
    try:
        trio.run(_main, sys.stdin.buffer.readline)
    except* TercetError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TercetError):
            _say({"error": error.to_wire()})
        sys.exit(1)
