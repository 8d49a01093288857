"""The party: one node's actor. It owns its links, its stored shares and the sessions that run plans on them.

A party is a nursery: one reader and one writer task per peer, one task per client, one scheduler per session. Every link
carries heartbeats, so a peer that dies, stalls or is cut off is noticed within the time-out whatever it was doing. Then its
sessions are cancelled, the other peers are told why, and every client gets one error that names the peer. The party itself
stays up: what is stored stays, and plans fail with the same sentence until the peer is back.

Frames between parties have a msgpack header: `["beat"]`, `["start", session, digest, nonce]`, `["data", session, messages]` with one
`[node, tile, step, sizes]` per message and the words as payload, or `["stop", session, error]`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import trio

from tercet.actors.passes import drop_dead
from tercet.actors.plan import Form, Plan, Type, word_shape
from tercet.actors.scheduler import Message, Outcome, Scheduler, Stored, TraceEvent
from tercet.errors import PeerLost, PlanError, ProtocolError, TercetError, TransportError, from_wire
from tercet.protocols.base import Protocol, Share, session_key
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Link
from tercet.transports.wire import pack_message, unpack_message

logger = logging.getLogger(__name__)

QUEUED_FRAMES = 4
BEATS_PER_TIMEOUT = 4
SLOWEST_BYTES_PER_SECOND = 1 << 20
NONCE_BYTES = 32
MAX_PENDING_STARTS = 64


def link_key(mine: bytes, theirs: bytes) -> bytes:
    """The key of a link, from what both ends contributed in their hellos."""
    return hashlib.blake2b(b"".join(sorted((mine, theirs))), digest_size=32, person=b"tercet-link").digest()


@attrs.define(eq=False)
class Peer:
    """A link to another party: its key, a queue of outgoing frames, and the error that ended it, if any."""

    index: int
    link: Link
    key: bytes
    outgoing: trio.MemorySendChannel[tuple[bytes, list[Words]]]
    frames: trio.MemoryReceiveChannel[tuple[bytes, list[Words]]]
    lost: PeerLost | None = None


@attrs.define(eq=False)
class Session:
    """One run of a plan: its scheduler once it has started, and what peers said before that."""

    name: bytes
    starts: dict[int, tuple[bytes, bytes]] = attrs.field(factory=dict)
    started: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    scheduler: Scheduler | None = None
    early: list[tuple[int, list[Any], Words]] = attrs.field(factory=list)
    """Data frames of peers that had all starts before this party had."""
    error: TercetError | None = None

    def take(self, peer: int, entries: list[Any], payload: Words) -> None:
        """Hand a peer's data frame to the scheduler, or keep it until there is one."""
        if self.scheduler is None:
            self.early.append((peer, entries, payload))
            return
        try:
            start = 0
            for node, tile, step, sizes in entries:
                arrays = []
                for size in sizes:
                    arrays.append(payload[start : start + size])
                    start += size
                self.scheduler.deliver(peer, node, tile, step, arrays)
        except TercetError as error:
            self.fail(error)

    def fail(self, error: TercetError) -> None:
        """End the session with the first error that struck it."""
        if self.error is None:
            self.error = error
        self.scope.cancel()


class Party:
    """One party of a cluster.

    `timeout_s` is how long a peer may be silent; a lost one is reported within about that time. `threads` is the number of
    worker threads that steps of plans may use at one time.
    """

    def __init__(
        self,
        index: int,
        *,
        parties: int,
        protocol: type[Protocol],
        timeout_s: float = 6.0,
        threads: int = 1,
    ) -> None:
        self.index = index
        self.parties = parties
        self.protocol = protocol
        self.timeout_s = timeout_s
        self.threads = threads
        self.store: dict[str, Stored] = {}
        self.trace: list[TraceEvent] | None = None
        self._peers: dict[int, Peer] = {}
        self._sessions: dict[bytes, Session] = {}
        self._early: dict[bytes, dict[int, tuple[bytes, bytes]]] = {}

    # -- links to peers -----------------------------------------------------------------------------------------------

    def add_peer(self, index: int, link: Link, key: bytes) -> None:
        """Take a connected link to another party; `run` then owns it."""
        outgoing, frames = trio.open_memory_channel[tuple[bytes, list[Words]]](QUEUED_FRAMES)
        self._peers[index] = Peer(index, link, key, outgoing, frames)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the links added so far until cancelled."""
        async with trio.open_nursery() as nursery:
            for peer in self._peers.values():
                nursery.start_soon(self._tend, peer)
            task_status.started()
            await trio.sleep_forever()

    async def _tend(self, peer: Peer) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, peer)
                nursery.start_soon(self._read, peer)
        except* (TercetError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            self._end_peer(peer, _first(group))
        finally:
            with trio.move_on_after(1) as scope:
                scope.shield = True
                await peer.link.aclose()

    def _end_peer(self, peer: Peer, cause: BaseException) -> None:
        if isinstance(cause, PeerLost):
            peer.lost = cause
        else:
            peer.lost = PeerLost(
                f"party {self.index} gave up its link to party {peer.index}: {cause}; restart that node and reconnect",
                peer=f"party {peer.index}",
            )
        logger.warning("party %d: %s", self.index, peer.lost)
        for session in list(self._sessions.values()):
            session.fail(peer.lost)

    async def _write(self, peer: Peer) -> None:
        beat = pack_message(["beat"])
        while True:
            header, buffers = beat, []
            with trio.move_on_after(self.timeout_s / BEATS_PER_TIMEOUT):
                header, buffers = await peer.frames.receive()
            size = sum(buffer.nbytes for buffer in buffers)
            await self._within(peer.link.send(header, buffers), size, peer)

    async def _read(self, peer: Peer) -> None:
        while True:
            header, size = await self._within(peer.link.receive_header(), 0, peer)
            message = unpack_message(header)
            kind = message[0] if isinstance(message, list) and message else None
            payload = np.empty(0, dtype=np.uint64)
            if size:
                if kind != "data" or size != WORD_BYTES * sum(sum(entry[3]) for entry in message[2]):
                    raise ProtocolError(f"party {peer.index} sent {size} bytes that its header does not describe")
                payload = np.empty(size // WORD_BYTES, dtype=np.uint64)
                await self._within(peer.link.receive_payload(payload), size, peer)
            try:
                self._handle(peer, kind, message, payload)
            except (TypeError, ValueError, IndexError, KeyError) as error:
                raise ProtocolError(f"party {peer.index} sent a malformed {kind!r} frame: {error}") from error

    async def _within(self, action: Any, size: int, peer: Peer) -> Any:
        """Wait for an action on a link, for the time-out and what `size` bytes may take on a slow line."""
        with trio.move_on_after(self.timeout_s + size / SLOWEST_BYTES_PER_SECOND):
            return await action
        raise PeerLost(
            f"party {peer.index} was silent for {self.timeout_s:g} s, as party {self.index} saw it; it stalled or was cut "
            "off: look at that node and its network",
            peer=f"party {peer.index}",
        )

    def _handle(self, peer: Peer, kind: Any, message: list[Any], payload: Words) -> None:
        if kind == "beat":
            return
        name = bytes(message[1])
        session = self._sessions.get(name)
        if kind == "start":
            said = (bytes(message[2]), bytes(message[3]))
            if session is None:
                if len(self._early) >= MAX_PENDING_STARTS:
                    self._early.pop(next(iter(self._early)))
                self._early.setdefault(name, {})[peer.index] = said
            else:
                session.starts[peer.index] = said
                if len(session.starts) == self.parties - 1:
                    session.started.set()
        elif kind == "data":
            if session is None or session.error is not None:
                return  # the session ended here while this was on its way
            session.take(peer.index, message[2], payload)
        elif kind == "stop":
            self._early.pop(name, None)
            if session is not None:
                session.fail(from_wire(message[2]))
        else:
            raise ProtocolError(f"party {peer.index} sent a frame of unknown kind {kind!r}")

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def run_plan(self, name: bytes, packed: bytes) -> Outcome:
        """Run a plan together with the other parties, under a session name that the client chose.

        The parties first compare the plan's digest and exchange fresh nonces, from which the session's keys are made, so a
        session name used twice still has fresh keys. Raises what went wrong, at whichever party; nothing is stored then.
        """
        if name in self._sessions:
            raise PlanError("a session of this name is running already; names are used once")
        plan = drop_dead(Plan.from_bytes(packed))
        inputs = self._inputs(plan)
        session = Session(name, starts=self._early.pop(name, {}))
        self._sessions[name] = session
        try:
            with session.scope:
                outcome = await self._run_session(session, plan, inputs)
                self.store.update(outcome.stored)
                return outcome
        except Exception as group:
            cause = _first(group)
            if not isinstance(cause, TercetError):
                logger.exception("party %d: a plan failed in an unforeseen way", self.index)
                cause = ProtocolError(
                    f"party {self.index} failed in an unforeseen way ({type(cause).__name__}: {cause}); its log has the "
                    "traceback"
                )
            session.fail(cause)
        finally:
            del self._sessions[name]
            if session.error is not None:
                with trio.move_on_after(self.timeout_s / 2) as scope:
                    scope.shield = True
                    await self._broadcast(["stop", name, session.error.to_wire()])
        raise session.error or PlanError("the session was cancelled by its client")

    def _inputs(self, plan: Plan) -> dict[str, Stored]:
        found = {}
        for index, node in enumerate(plan.nodes):
            if node.kind != "input":
                continue
            handle = node.get("handle")
            stored = self.store.get(handle)
            if stored is None:
                raise PlanError(f"{node.title(index)}: nothing is stored under {handle!r}; upload the table again")
            wanted = node.types[0]
            if (stored.type.form, stored.type.shape, stored.type.scale) != (wanted.form, wanted.shape, wanted.scale):
                raise PlanError(f"{node.title(index)}: {handle!r} is {stored.type}, the plan reads it as {wanted}")
            if len(stored.tiles) != max(1, -(-int(wanted.rows) // plan.tile_rows)):
                raise PlanError(f"{node.title(index)}: {handle!r} is stored in tiles of another size than the plan's")
            found[handle] = stored
        return found

    async def _run_session(self, session: Session, plan: Plan, inputs: Mapping[str, Stored]) -> Outcome:
        self._check_peers()
        digest, nonce = plan.digest(), secrets.token_bytes(NONCE_BYTES)
        await self._broadcast(["start", session.name, digest, nonce])
        if len(session.starts) == self.parties - 1:
            session.started.set()
        with trio.move_on_after(self.timeout_s) as waiting:
            await session.started.wait()
        if waiting.cancelled_caught:
            silent = [str(peer) for peer in self._peers if peer not in session.starts]
            raise PeerLost(
                f"party {', '.join(silent)} did not start the plan within {self.timeout_s:g} s; see that node's log",
                peer=f"party {silent[0]}",
            )
        for peer, (theirs, _) in session.starts.items():
            if theirs != digest:
                raise PlanError(
                    f"party {self.index} and party {peer} were given different plans under one session; nothing was run"
                )
        nonces = [session.starts[i][1] if i != self.index else nonce for i in range(self.parties)]
        keys = {i: session_key(peer.key, session.name, nonces) for i, peer in self._peers.items()}
        if not keys:
            keys = {self.index: session_key(nonce, session.name, nonces)}
        protocol = self.protocol(party=self.index, parties=self.parties, keys=keys)
        session.scheduler = Scheduler(
            plan,
            protocol,
            inputs,
            send=lambda outbox: self._send(session.name, outbox),
            threads=self.threads,
            trace=self.trace,
        )
        for frame in session.early:
            session.take(*frame)
        session.early.clear()
        return await session.scheduler.run()

    def _check_peers(self) -> None:
        for peer in self._peers.values():
            if peer.lost is not None:
                raise peer.lost

    async def _send(self, session: bytes, outbox: Mapping[int, Sequence[Message]]) -> None:
        for index, messages in outbox.items():
            entries = [[node, tile, step, [array.size for array in arrays]] for node, tile, step, arrays in messages]
            buffers = [np.ascontiguousarray(array) for message in messages for array in message[3]]
            await self._peers[index].outgoing.send((pack_message(["data", session, entries]), buffers))

    async def _broadcast(self, message: list[Any]) -> None:
        for peer in self._peers.values():
            if peer.lost is None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await peer.outgoing.send((pack_message(message), []))

    # -- stored values ------------------------------------------------------------------------------------------------

    def put(self, handle: str, kind: Type, parts: Sequence[Words], *, tile_rows: int) -> None:
        """Store what an owner dealt to this party."""
        keys = {i: bytes(32) for i in range(self.parties)}
        protocol = self.protocol(party=self.index, parties=self.parties, keys=keys)
        share = protocol.accept(parts, domain=kind.form.domain, shape=word_shape(kind, {}), scale=kind.scale)
        self.store[handle] = Stored(kind, cut(share, tile_rows))

    def dealt_words(self, kind: Type) -> list[tuple[int, ...]]:
        """Shapes of the arrays that an owner sends to this party for a value of a type."""
        return self.protocol.dealt_shapes(word_shape(kind, {}), party=self.index, parties=self.parties)

    def drop(self, handles: Sequence[str]) -> None:
        """Forget stored values."""
        for handle in handles:
            self.store.pop(handle, None)


def cut(share: Share, tile_rows: int) -> list[Share]:
    """A share as tiles along its rows, each contiguous."""
    if len(share.shape) == 0 or share.shape[-1] <= tile_rows:
        return [share]
    starts = range(0, share.shape[-1], tile_rows)
    return [share.like(np.ascontiguousarray(share.data[..., i : i + tile_rows])) for i in starts]


def read_type(fields: Sequence[Any]) -> Type:
    """A stored type from its wire form `[form, shape, scale, limit]`."""
    form, shape, scale, limit = fields
    dims = tuple(int(dim) for dim in shape)
    if any(dim < 0 for dim in dims) or math.prod(dims) > 1 << 40:
        raise PlanError(f"a value of shape {dims} cannot be stored")
    return Type(Form(form), dims, int(scale), float(limit))


def _first(group: BaseExceptionGroup[Any]) -> Any:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


__all__ = ["Party", "Peer", "Session", "TransportError", "cut", "link_key", "read_type"]
