"""What a node does for one client: takes its requests off the line, answers each in a task, and counts them.

Whoever asks too often, or has sent more than can be worked on, is read more slowly, over all of the client's
connections together; see `Caller`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import trio

from tercet.actors import pages
from tercet.actors.arrivals import Arrival, Piece
from tercet.actors.gate import ClientLimits
from tercet.actors.jobs import MOST_PATIENCE_S, Answer, Job
from tercet.actors.line import Line
from tercet.actors.threads import ThreadShare, counted, in_thread
from tercet.actors.values import Stored, read_type
from tercet.errors import PlanError, ProtocolError, TercetError
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Link
from tercet.transports.admission import TokenBucket

if TYPE_CHECKING:
    from tercet.actors.node import Node

logger = logging.getLogger(__name__)

MOST_REQUESTS = 1024
"""Requests of one client that may be under way at a time."""
MOST_ARRIVING = 1 << 26
"""Bytes of a client's uploads and plans that wait; while there are more, nothing is read from it."""
MOST_PIECE = 1 << 30
"""Bytes that a node may come to hold by one request, whatever travels of them."""
COSTS = {
    "submit": 10,
    "entries": 10,
    "results": 10,
    "audit": 10,
    "keep": 5,
    "keep_model": 5,
    "keep_number": 5,
    "put": 5,
}
"""Requests that count as so many: those with much to do in the event loop, or long answers."""
FAREWELL_S = 1.0
"""How long a client that is turned away may take to read why."""
BURST_S = 2.0
"""A client that was quiet may ask at once for as much as in this time, and take a core for as long."""


class Caller:
    """What is counted for a client, over all of its connections."""

    def __init__(self, limits: ClientLimits | None) -> None:
        self.threads = None if limits is None else ThreadShare(limits.threads, limits.core, BURST_S)
        self._requests = None if limits is None else TokenBucket(limits.requests, BURST_S * limits.requests)
        self._arriving = 0
        self._fewer = trio.Event()

    def asked(self, verb: Any) -> None:
        """The client has asked for something."""
        if self._requests is not None:
            self._requests.spend(trio.current_time(), COSTS.get(str(verb), 1))

    async def pace(self) -> None:
        """Wait until the client may ask for more."""
        if self._requests is not None and (wait := self._requests.spend(trio.current_time(), 0.0)):
            await trio.sleep(wait)
        while self._arriving > MOST_ARRIVING:
            await self._fewer.wait()

    def holds(self, size: int) -> None:
        """Bytes have arrived, or were worked on if they are less than zero."""
        self._arriving += size
        if size < 0:
            self._fewer.set()
            self._fewer = trio.Event()


class Deaf:
    """Takes nothing from a client that is turned away."""

    def admit(self, message: list[Any], size: int) -> bool:
        """Throw payloads away."""
        _ = message, size
        return False

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Answer nothing."""


class Service:
    """Answers one client."""

    def __init__(self, node: Node, link: Link, caller: str) -> None:
        self.node = node
        self.party = node.party
        self.caller = caller
        self.gate = node.gate
        self._own = node.caller(caller)
        owner, timeout_s = self.party.name, self.party.timeout_s
        self.line = Line(link, owner=owner, timeout_s=timeout_s, patient=True, pace=self._own.pace)
        self._under_way: dict[int, trio.CancelScope] = {}
        self._refused: dict[int, TercetError] = {}
        """Requests whose payload was not admitted, and why, until they are answered."""
        self._dismissed = False
        self._left = False
        """Whether the client has gone, so that what it leaves is being cleared away."""
        self._dealt_here: list[str] = []
        self._arriving: dict[str, Arrival] = {}

    async def run(self) -> None:
        """Answer until the client leaves; what is under way for it then is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await self.line.run(self)
            finally:
                self._left = True
            logger.info("%s: %s", self.party.name, self.line.lost)
            nursery.cancel_scope.cancel()
        await self._give_up(list(self._arriving))
        await self.gate.left(self.caller, self._dealt_here)

    def dismiss(self, error: TercetError) -> None:
        """Say why, and hang up, whatever is under way; nothing to a client that has gone already."""
        self._dismissed = True
        if self._left:
            return
        for scope in self._under_way.values():
            scope.cancel()
        self.line.post(["failed", 0, error.to_wire()])
        self._nursery.start_soon(self._hang_up)

    async def _hang_up(self) -> None:
        await trio.sleep(FAREWELL_S)
        self._nursery.cancel_scope.cancel()

    def admit(self, message: list[Any], size: int) -> bool:
        """Take the payload of an upload that can be stored."""
        if self._dismissed:
            return False
        if message[0] != "put":
            raise ProtocolError(f"a client sent {size} bytes with a {message[0]!r} request, which takes none")
        try:
            piece, _ = self._dealt(message, size)
            self.gate.admit(self.caller, str(message[2]), piece.type)
        except TercetError as error:
            self._refused[message[1]] = error
            return False
        return True

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Answer a request, in a task of its own."""
        if self._dismissed:
            return
        self._own.asked(message[0])
        match message:
            case ["cancel", int(request)]:
                if request in self._under_way:
                    self._under_way[request].cancel()
            case _ if len(self._under_way) >= MOST_REQUESTS:
                raise ProtocolError(f"{self.caller} asked for more than {MOST_REQUESTS} things at a time")
            case [str(verb), int(request), *args] if request not in self._under_way:
                self._under_way[request] = trio.CancelScope()
                self._own.holds(_size(args, payload))
                self._nursery.start_soon(self._answer, verb, request, args, payload)
            case _:
                raise ProtocolError("a client sent a message that is no request")

    async def _answer(self, verb: str, request: int, args: list[Any], payload: Words | None) -> None:
        size = _size(args, payload)
        try:
            with self._under_way[request], counted(self._own.threads):
                body, buffers = await self._do(request, verb, args, payload)
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
            self._refused.pop(request, None)
            self._own.holds(-size)

    async def _do(self, request: int, verb: str, args: list[Any], payload: Words | None) -> Answer:
        match verb, args:
            case "put", [str(handle), *piece]:
                if request in self._refused:
                    raise self._refused[request]
                await self._put(handle, piece, payload)
                return {}, []
            case "progress", [bytes(session)]:
                under_way = self.node.jobs.under_way(session)
                return attrs.asdict(self.party.progress(under_way, self.caller)), []
            case "submit", [bytes(session), bytes(packed)]:
                await self._submit(session, packed)
                return {}, []
            case "submit", [bytes(session), bytes(packed), float(patience_s), bool(again)]:
                if not 0 <= patience_s <= MOST_PATIENCE_S:
                    raise PlanError(f"patience of {patience_s:g} s; nodes have {MOST_PATIENCE_S:g} s at most")
                job = await self._submit(session, packed, patience_s, again=again)
                return await self.node.jobs.attend(job)
            case "jobs", [*mark] if len(mark) <= 1:
                return self._list_jobs(*mark), []
            case "job", [bytes(session), *ended] if ended in ([], [True]):
                return await self._show_job(self._job(verb, session), ended=bool(ended))
            case "fetch", [bytes(session), int(step)]:
                job = self._job(verb, session)
                await self.node.jobs.attend(job)
                return await self.node.jobs.answer_of(job, step)
            case "fetch", [bytes(session)]:
                return await self.node.jobs.attend(self._job(verb, session))
            case "end", [bytes(session)]:
                await self.node.jobs.end(self._job(verb, session))
                return {}, []
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

    def _list_jobs(self, mark: Any = None) -> dict[str, Any]:
        """A page of the client's jobs that go on alone, in the order in which they were submitted."""
        begin = pages.after(mark, list) or [0.0, b""]
        mine = [job for job in self.node.jobs.of(self.caller) if job.patience_s is None]
        jobs = sorted(([job.asked, job.session], job.to_wire()) for job in mine)
        try:
            return pages.page("jobs", [pair for pair in jobs if pair[0] > begin], mark)
        except TypeError as error:
            raise ProtocolError(f"{mark!r:.80} is not where a page of jobs begins") from error

    async def _submit(
        self, session: bytes, packed: bytes, patience_s: float | None = None, *, again: bool = False
    ) -> Job:
        with self.gate.audited(self.caller, "submit", session=session.hex()):
            return await self.node.jobs.submit(session, packed, self.caller, patience_s, again=again)

    def _job(self, verb: str, session: bytes) -> Job:
        """A job of the client's. Raises PlanError, and notes that, for another's."""
        jobs = self.node.jobs
        # What nobody has submitted is no secret: clients end jobs that may not have come to be.
        with self.gate.audited(self.caller, verb) if session in jobs.jobs else contextlib.nullcontext():
            return jobs.find(session, self.caller)

    async def _show_job(self, job: Job, *, ended: bool) -> Answer:
        """What a job is, perhaps once it has ended: the latest of its plans, and of how many."""
        if ended:
            await self.node.jobs.attend(job)
        asked, steps = job.packed, job.step + 1  # of one moment: the next step may begin meanwhile
        plan = await self.gate.plan_of(self.caller, asked)
        return {"packed": plan.to_bytes(), "asked": asked, "steps": steps}, []

    def _dealt(self, message: list[Any], size: int) -> tuple[Piece, list[tuple[int, ...]]]:
        """A piece of an upload and the shapes of its words. Raises PlanError if it cannot be stored."""
        match message[3:]:
            case [fields, int(tile_rows), int(start), int(rows)]:
                piece = Piece(read_type(fields), tile_rows, start, rows)
            case _:
                raise PlanError("an upload does not say which rows of which value it has")
        piece.check()
        held = self.party.bytes_held(piece.own_type)
        if held > MOST_PIECE:
            raise PlanError(
                f"a piece of an upload would be {held:,} bytes at {self.party.name}, which takes "
                f"{MOST_PIECE:,} at a time; cut it into tiles of fewer rows"
            )
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
        if piece.first and piece.last and self.gate.in_memory(handle):
            accept = functools.partial(self.party.accept, piece.type, parts, tile_rows=piece.tile_rows)
            tiles = await in_thread(accept)
            await trio.lowlevel.checkpoint_if_cancelled()  # the client may have dropped it meanwhile
            self.party.store[handle] = Stored(piece.type, tiles, piece.tile_rows, dealt=True)
        else:
            await self._append(handle, piece, parts)

    async def _append(self, handle: str, piece: Piece, parts: list[Words]) -> None:
        if piece.first and handle not in self._arriving:
            sink = await in_thread(self.gate.begin, handle, piece.type, piece.tile_rows)
            self._arriving[handle] = Arrival(piece.type, piece.tile_rows, sink)
        arrival = self._arriving.get(handle)
        if arrival is None or not arrival.expects(piece):
            raise PlanError(f"rows from {piece.start} on of {handle!r} are not what is due; upload it again")
        tiles = functools.partial(self.party.accept, piece.own_type, parts, tile_rows=piece.tile_rows)
        async with arrival.turn:
            stored = await in_thread(arrival.take, piece, tiles)
            if stored is not None:
                del self._arriving[handle]
                stored.dealt = True
                self.party.store[handle] = stored

    async def _give_up(self, handles: Sequence[str]) -> None:
        """Leave nothing of values that have not arrived in full."""
        for handle in handles:
            arrival = self._arriving.pop(handle, None)
            if arrival is not None:
                with trio.CancelScope(shield=True):
                    async with arrival.turn:
                        await trio.to_thread.run_sync(arrival.sink.abort)


def _size(args: list[Any], payload: Words | None) -> int:
    """Bytes that a request holds in memory, for the most part."""
    plain = sum(len(arg) for arg in args if isinstance(arg, bytes))
    return plain + (0 if payload is None else payload.nbytes)
