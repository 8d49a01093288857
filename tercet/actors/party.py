"""The party: one node's actor. It owns its links, its stored shares and the sessions that run plans on them.

A party is a nursery: a line to each peer (see `line`), one scheduler per session. When a peer dies, stalls or
misbehaves, its line ends, the sessions under way are cancelled, the other peers are told why, and every
client gets one error that names the peer. The party itself stays up: what is stored stays, and plans fail at
once with the same sentence.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import trio

from tercet.actors.alike import all_digests, is_work
from tercet.actors.course import run_session
from tercet.actors.crew import Crew
from tercet.actors.gate import Gate
from tercet.actors.line import Line, gravest_cause
from tercet.actors.parts import Part
from tercet.actors.peer import LONGEST_NAME, Peer
from tercet.actors.presence import Presence
from tercet.actors.progress import Progress
from tercet.actors.rounds import Frames
from tercet.actors.scheduler import Message, Outcome, Stored
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.session import Session, Start, work_out
from tercet.actors.storage import ValueInParts
from tercet.actors.threads import counted, in_thread
from tercet.actors.tracing import MakeWitness, TraceEvent
from tercet.actors.values import cut, require_input
from tercet.errors import PeerLost, PlanError, ProtocolError, StorageError, TercetError, from_wire
from tercet.plans.passes import Since
from tercet.plans.plan import Plan
from tercet.plans.shards import stores
from tercet.plans.tiles import without_session
from tercet.plans.types import Form, Type, word_shape
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Link
from tercet.transports.names import is_party, party_name

logger = logging.getLogger(__name__)

MOST_EARLY_STARTS = 64
"""Sessions that a peer may start before this party has heard of them from a client."""
REMEMBERED = 1024
"""Ended sessions whose stragglers are told from garbage."""


class Party:
    """One party of a cluster.

    `timeout_s` is how long a peer may be silent; a lost one is reported within about that time. `threads` is
    the number of worker threads that steps of plans may use at one time; `scratch` is where large arrays lie.
    Errors name this party and its peers as they are `called`.
    """

    witness: ClassVar[MakeWitness | None] = None
    """Is asked for a witness of each run, of all parties of this process, by member; see `transcript`."""

    def __init__(
        self,
        index: int,
        *,
        parties: int,
        protocol: type[Protocol],
        timeout_s: float = 6.0,
        threads: int = 1,
        scratch: Scratch = IN_MEMORY,
        called: Callable[[int], str] = party_name,
    ) -> None:
        self.index = index
        self.called = called
        self.parties = parties
        self.protocol = protocol
        self.timeout_s = timeout_s
        self.threads = threads
        self.scratch = scratch
        self.store: dict[str, Stored] = {}
        self.load: Callable[[str], Awaitable[Stored | None]] | None = None
        """Where values are looked up that are not in `store`."""
        self.begin_in_parts: Callable[[str, int], ValueInParts | None] = lambda _handle, _workers: None
        """Begins a value that workers are to write, under a handle; None where they cannot."""
        self.stopping = False
        """Whether the node is about to stop, and takes no new plans."""
        self.on_word: Callable[[int, list[Any]], None] | None = None
        """Is told what peers say of jobs; see `nodes.jobs`."""
        self.crew: Crew | None = None
        """Its workers, if they are there now."""
        self.shared_out = False
        """Whether it has workers, without which it runs nothing that is large."""
        self.presence: Presence | None = None
        """Which of them are there, if it has any."""
        self.no_crew = "they are being started, unless another party has none; try again in a moment"
        """Why they are not there."""
        self.on_crew: Callable[[int, list[Any]], None] | None = None
        """Is told what peers say of their workers; see `muster`."""
        self.on_list: Callable[[int, bytes, int], None] | None = None
        """Is told by which list of the lake's members a peer goes from now on; see `Node.go_by`."""
        self.on_log: Callable[[int, list[Any]], None] | None = None
        """Is told what peers say of their audit logs; see `nodes.peer_logs`."""
        self.on_linked: list[Callable[[int], None]] = []
        """Is told of each new link to a peer, before anything comes over it."""
        self.on_lost: Callable[[], None] | None = None
        """Is told when the link to a peer has ended: what was said over it may not have come."""
        self.trace: list[TraceEvent] | None = None
        self.ended, self.failed = 0, 0
        """Runs that have ended here, and those of them that failed."""
        self._peers: dict[int, Peer] = {}
        self._sessions: dict[bytes, Session] = {}
        self._one_ended = trio.Event()
        self._preparing: set[bytes] = set()
        self._over: OrderedDict[bytes, TercetError | None] = OrderedDict()
        """Sessions that have ended here, with the error that ended them."""

    @property
    def name(self) -> str:
        """How this party is called."""
        return party_name(self.index)

    # -- peers -----------------------------------------------------------------------------------------------

    def add_peer(self, index: int, link: Link, key: bytes) -> None:
        """Take a connected link to another party; it lives in `run`, heartbeats and all, from now on."""
        link.peer = self.called(index)
        earlier = self._peers.get(index)
        if earlier is not None and not earlier.gone.is_set():
            self._replace(earlier)
        line = Line(link, owner=self.called(self.index), timeout_s=self.timeout_s, scratch=self.scratch)
        peer = self._peers[index] = Peer(self, index, line, key)
        if earlier is not None:
            peer.stopped = earlier.stopped
        for told in self.on_linked:
            told(index)
        self._nursery.start_soon(self._tend, peer)

    def _replace(self, earlier: Peer) -> None:
        """A peer has made a new link before this party noticed that the old one is dead."""
        name = self.called(earlier.index)
        error = PeerLost(
            f"{name} has linked up with {self.called(self.index)} anew; run the plan again", peer=name
        )
        self._lose(earlier, error)
        self._nursery.start_soon(earlier.line.link.aclose)

    def hang_up(self, index: int, why: str = "has another certificate from now on") -> None:
        """End the link to a peer that is to say hello anew, if there is one."""
        peer = self._peers.get(index)
        if peer is not None and not peer.gone.is_set():
            name = self.called(index)
            self._lose(peer, PeerLost(f"{name} {why}; {self.name} links up with it anew", peer=name))
            self._nursery.start_soon(peer.line.link.aclose)

    async def until_lost(self, index: int) -> None:
        """Wait until the line to a peer has ended."""
        await self._peers[index].gone.wait()

    def missing(self) -> list[int]:
        """The peers that this party has no line to now."""
        linked = {index for index, peer in self._peers.items() if not peer.gone.is_set()}
        return [index for index in range(self.parties) if index != self.index and index not in linked]

    @property
    def is_complete(self) -> bool:
        """Whether it can run plans: it has lines to all peers, and its workers if it has any."""
        return not self.missing() and not (self.shared_out and self.crew is None)

    def tell(self, index: int, word: list[Any], about: str = "job") -> None:
        """Say something about a job, or what else lasts, to a peer; it goes nowhere while that is lost."""
        if index in self._peers:
            self._peers[index].line.post([about, *word])

    @property
    def running(self) -> int:
        """How many sessions are under way."""
        return len(self._sessions)

    async def until_idle(self) -> None:
        """Wait until no session is under way."""
        while self._sessions:
            self._one_ended = trio.Event()
            await self._one_ended.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the lines to peers until cancelled; start it before any is added."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def _tend(self, peer: Peer) -> None:
        await peer.line.run(peer)
        logger.warning("%s: %s", self.name, peer.line.lost)
        if not peer.gone.is_set():
            self._lose(peer, peer.line.error())

    def _lose(self, peer: Peer, error: PeerLost) -> None:
        peer.gone.set()
        peer.early.clear()
        for session in list(self._sessions.values()):
            session.fail(error)
        if self.on_lost is not None:
            self.on_lost()

    def session(self, name: Any) -> Session | None:
        """A session under way by name, None if it is over. Raises ProtocolError if it never was."""
        known = isinstance(name, bytes) and (name in self._sessions or name in self._over)
        if not known and self._given_up(name) is None:
            raise ProtocolError(f"{name!r:.80} is no session of {self.name}")
        return self._sessions.get(name)

    def under_way(self, name: bytes) -> Session | None:
        """A session by name that runs now."""
        return self._sessions.get(name)

    def has_ended(self, name: bytes) -> bool:
        """Whether a session of that name was here, and is over."""
        return name in self._over

    def peer_starts(self, peer: Peer, name: bytes, said: Start) -> None:
        """A peer is ready to run a session; perhaps this party has not heard of it."""
        session = self._sessions.get(name)
        if session is not None:
            session.start(peer.index, said)
        elif name not in self._over:
            peer.early[name] = said
            if len(peer.early) > MOST_EARLY_STARTS:
                peer.early.popitem(last=False)

    def peer_stops(self, peer: Peer, name: bytes, error: TercetError) -> None:
        """A peer has given a session up."""
        session = self._sessions.get(name)
        if session is not None:
            session.fail(error)
        elif name not in self._over:
            peer.early.pop(name, None)
            peer.stopped.setdefault(name, error)
            if len(peer.stopped) > REMEMBERED:
                peer.stopped.popitem(last=False)

    def _given_up(self, name: Any) -> TercetError | None:
        """Why a session has ended here, or at a peer before it came here."""
        found = self._over.get(name) if isinstance(name, bytes) else None
        told = (peer.stopped.get(name) for peer in self._peers.values() if isinstance(name, bytes))
        return found or next((error for error in told if error is not None), None)

    def _end(self, name: bytes, error: TercetError | None) -> None:
        for peer in self._peers.values():
            peer.early.pop(name, None)
            peer.stopped.pop(name, None)
            if error is not None:
                peer.line.post(["stop", name, error.to_wire()])
        self._over[name] = None if error is None else error.to_keep()
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    # -- sessions --------------------------------------------------------------------------------------------

    async def run_plan(
        self,
        name: bytes,
        packed: bytes,
        *,
        caller: str = "",
        gate: Gate | None = None,
        since: Since | None = None,
    ) -> Outcome:
        """Run a plan together with the other parties, under a session name that the client chose.

        The gate says whether `caller` may, and what of the outcome it may have. The parties first compare the
        plan's digest and exchange fresh nonces, from which the session's keys are made. With `since`, the run
        goes on from that checkpoint of an earlier session. Raises what went wrong, at whichever party;
        nothing is stored then.
        """
        gate = Gate() if gate is None else gate
        session, inputs = await self._prepare(name, packed, caller, gate, since)
        return await self._run(session, inputs, gate)

    @property
    def workers_here(self) -> int:
        """How many workers are there now."""
        return 0 if self.crew is None else self.crew.workers

    def workers(self) -> Crew:
        """Its workers. Raises PeerLost while they are not there."""
        if self.crew is None:
            raise PeerLost(f"{self.name} is without its workers: {self.no_crew}", peer=self.name)
        return self.crew

    def in_parts(self, plan: Plan) -> dict[int, ValueInParts]:
        """What workers are to write of what a plan stores, by nodes that store it. Raises PeerLost."""
        found = {}
        for index in stores(plan, self.protocol):
            value = self.begin_in_parts(plan.nodes[index].get("handle"), self.workers().workers)
            if value is not None:
                found[index] = value
        return found

    def take_part(self, name: bytes, plan: Plan, part: Part) -> Session:
        """A session in which this party, a worker, takes a part; for `run_part`. Raises TercetError."""
        self._check_unused(name)
        self._check_peers()
        session = Session(name, plan, self.protocol, self.index, self.parties, part=part)
        self._sessions[name] = session
        return session

    async def run_part(self, session: Session) -> Outcome:
        """Run a session of a worker, until the node of its party tells it to end. Raises as `run_plan`."""
        return await self._run(session, {}, Gate())

    async def _run(self, session: Session, inputs: Mapping[str, Stored], gate: Gate) -> Outcome:
        name, caller = session.name, session.caller
        self._sessions[name] = session
        finished = False
        try:
            with session.scope:
                outcome = await run_session(self, self._peers, session, inputs, gate)
                outcome = await gate.after_run(caller, name, session.plan, outcome)
                self.store.update(outcome.stored)
                finished = True
                return outcome
        except Exception as group:  # noqa: BLE001 - put in a sentence and raised below
            session.fail(self._in_a_sentence(gravest_cause(group)))
        finally:
            del self._sessions[name]
            self._one_ended.set()
            gate.over(name)
            self.ended, self.failed = self.ended + 1, self.failed + (not finished)
            if not finished and session.error is None:
                session.fail(self.cancelled("the client that asked for this run left or cancelled it"))
            self._end(name, session.error)
            if self.crew is not None:
                self.crew.over(name, None if session.error is None else session.error.to_wire())
            if not finished and session.in_parts:
                self._nursery.start_soon(self._discard, list(session.in_parts.values()))
        raise session.error or ProtocolError("a session ended without result")

    async def _discard(self, values: Sequence[ValueInParts]) -> None:
        """Remove what workers have written in a run that failed; those that live do so themselves as well."""
        with counted(None):
            for value in values:
                try:
                    await in_thread(value.discard)
                except StorageError as error:
                    logger.warning("%s: parts of values may be left in the storage: %s", self.name, error)

    async def _prepare(
        self, name: bytes, packed: bytes, caller: str, gate: Gate, since: Since | None
    ) -> tuple[Session, dict[str, Stored]]:
        if not 0 < len(name) <= LONGEST_NAME:
            raise PlanError(f"a session name of {len(name)} bytes; they have 1 to {LONGEST_NAME}")
        await gate.before_name(caller, name)
        if self._given_up(name) is None:
            with gate.audited(caller, "run", session=name.hex()):
                self._check_unused(name)
        # Else a peer has given it up already; the gate is asked all the same, for this node's own word on it.
        self._preparing.add(name)
        try:
            self._check_peers()
            with gate.audited(caller, "run", session=name.hex()):
                plan = await gate.plan_of(caller, packed)
            await gate.before_run(caller, name, plan)
            whole, inputs = plan, dict[str, Stored]()
            if since is not None:
                plan, inputs = await gate.resume(caller, name, plan, since)
            inputs = await self._inputs(plan, inputs)
            alike = await self._alike(inputs)
            await work_out(plan, self.protocol, self.parties)
            await gate.before_start(caller, name, whole)
            self._preparing.discard(name)
            self._check_unused(name)  # a peer may have stopped it meanwhile
            self._check_peers()
            found = self.index, self.parties
            return Session(name, plan, self.protocol, *found, caller=caller, alike=alike), inputs
        except BaseException as error:
            stopped = self.cancelled("the run was cancelled before it began")
            self._end(name, self._in_a_sentence(error) if isinstance(error, TercetError) else stopped)
            gate.over(name)
            raise
        finally:
            self._preparing.discard(name)

    def cancelled(self, why: str) -> TercetError:
        """The error that ends a run which is cancelled here."""
        if self.stopping:
            return PeerLost(f"{self.name} is being stopped; try again once it is back", peer=self.name)
        return TercetError(why)

    def progress(self, name: bytes, caller: str) -> Progress:
        """How far a run of a client's is; all zero before it has begun, and after it has ended."""
        session = self._sessions.get(name)
        return Progress() if session is None or session.caller != caller else session.progress()

    def _check_unused(self, name: bytes) -> None:
        told = self._given_up(name)
        if told is not None:
            raise from_wire(told.to_wire())
        if name in self._sessions or name in self._over or name in self._preparing:
            raise PlanError("a session of this name was started before; names are used once")

    def _in_a_sentence(self, cause: BaseException) -> TercetError:
        own = self.called(self.index)
        if isinstance(cause, StorageError):
            return cause.at(own)
        if isinstance(cause, TercetError):
            return cause
        logger.error("%s: a plan failed in an unforeseen way", own, exc_info=cause)
        return ProtocolError(
            f"{own} failed in an unforeseen way ({type(cause).__name__}: {cause}); its log has the traceback"
        )

    async def _inputs(self, plan: Plan, known: Mapping[str, Stored]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for index, node in enumerate(plan.nodes):
            if node.kind != "input":
                continue
            handle = node.get("handle")
            stored = found.get(handle) or known.get(handle) or self.store.get(handle)
            if stored is None and self.load is not None:
                stored = await self.load(handle)
            if stored is None:
                raise PlanError(
                    f"{node.title(index)}: nothing is stored under {handle!r}; upload the table again"
                )
            require_input(node.title(index), handle, stored, node.types[0], plan.tile_rows)
            found[handle] = stored
        return found

    def _check_peers(self) -> None:
        for index in range(self.parties):
            if index != self.index and index not in self._peers:
                raise PeerLost(
                    f"{self.called(index)} is not linked up with {self.called(self.index)} yet; start it, "
                    "and try again",
                    peer=self.called(index),
                )
        for peer in self._peers.values():
            if peer.line.lost is not None:
                raise peer.line.error()

    async def send(self, session: bytes, outbox: Mapping[int, Sequence[Message]]) -> None:
        """Send messages of a session, by peer. Raises PeerLost."""
        for index, messages in outbox.items():
            entries = [
                [node, tile, step, [array.size for array in arrays]] for node, tile, step, arrays in messages
            ]
            buffers = [np.ascontiguousarray(array) for message in messages for array in message[3]]
            await self._peers[index].line.send(["data", session, entries], buffers)

    async def send_frames(self, session: bytes, number: int, frames: Frames) -> None:
        """Send the frames of a round of a session. Raises PeerLost."""
        for index, arrays in frames.items():
            buffers = [array if array.flags.c_contiguous else np.ascontiguousarray(array) for array in arrays]
            await self._peers[index].line.send(["data", session, number], buffers)

    # -- stored values ---------------------------------------------------------------------------------------

    async def _alike(self, inputs: Mapping[str, Stored]) -> dict[int, bytes]:
        """Digests of what was dealt to this party and to others, by peer. Raises StorageError."""
        protocol = without_session(self.protocol, self.parties, self.index)
        if is_work(self.protocol, inputs):
            return await in_thread(all_digests, protocol, inputs)
        return all_digests(protocol, inputs)

    def accept(self, kind: Type, parts: Sequence[Words], *, tile_rows: int) -> list[Share]:
        """The tiles of what an owner dealt to this party; in any thread."""
        share = without_session(self.protocol, self.parties, self.index).accept(
            parts, domain=kind.form.domain, shape=word_shape(kind, {}), scale=kind.scale
        )
        return cut(share, tile_rows, bits=kind.form is Form.BITS)

    def dealt_words(self, kind: Type) -> list[tuple[int, ...]]:
        """Shapes of the arrays that an owner sends to this party for a value of a type."""
        return self.protocol.dealt_shapes(
            word_shape(kind, {}), domain=kind.form.domain, party=self.index, parties=self.parties
        )

    def bytes_held(self, kind: Type) -> int:
        """Bytes that a value of a type takes at this party."""
        return WORD_BYTES * self.protocol.held * math.prod(word_shape(kind, {}))

    def drop(self, handles: Sequence[str]) -> None:
        """Forget stored values."""
        for handle in handles:
            self.store.pop(handle, None)


__all__ = ["Party", "is_party", "party_name"]
