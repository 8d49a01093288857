"""A line: a link between two actors that stays alive, or ends with one error that names the other end.

Party to party, node to client, client to node: all three talk over lines. A line queues what is sent, writes
a heartbeat when there is nothing to say, and gives the link up when the other end has been silent for the
time-out, whatever it was doing. Payloads travel in chunks, so that silence is told from a long transfer, and
short messages overtake long ones. Every frame is counted: one that got lost ends the line. A payload is
allocated only after the receiver has agreed to its length.

The header of a frame is msgpack `[number, payload bytes in all, message]`; a message is a list that begins
with a word.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any
from typing import Protocol as Interface

import attrs
import numpy as np
import trio

from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.errors import PeerLost, ProtocolError, StorageError, TercetError
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.transports import Link
from tercet.transports.base import byte_view
from tercet.transports.wire import pack_message, unpack_message

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
"""Payload of a frame, at most."""
CONNECT_S = 10.0
"""How long a node or a client waits for a link."""
QUEUED_MESSAGES = 4
"""Messages with a payload that wait for their turn before `send` blocks."""
BEATS_PER_TIMEOUT = 4
LOOKS_PER_TIMEOUT = 16
"""How often a line looks whether the other end was silent all the time. A process that stood still itself
looks once when it goes on, and takes what has come meanwhile before it looks again.
"""
AT_ONCE_BYTES = 1 << 16
"""Payloads up to here are written by whoever sends them, where nobody else is writing."""
SLOWEST_BEAT_S = 1.5
"""Beats come at least so often, since the other end may have a shorter time-out than this one."""
SLOWEST_BYTES_PER_SECOND = 1 << 18
"""A frame of n bytes has n seconds over this number more than the time-out; lines below 2 Mbit/s count as
dead.
"""
BEAT = ["beat"]
MORE = ["more"]


class Receiver(Interface):
    """Who takes what arrives.

    What it raises, other than memory running out, is the other end's fault and ends the line.
    """

    def admit(self, message: list[Any], size: int) -> bool:
        """Whether a payload of `size` bytes is wanted; if not, it is drained and thrown away."""

    def take(self, message: list[Any], payload: Words | None) -> None:
        """Handle a message; `payload` is None where it was not admitted, or did not fit the memory."""


@attrs.define(eq=False)
class _Incoming:
    """A message whose payload is arriving."""

    message: list[Any]
    size: int
    payload: Words | None
    arrived: int = 0


class Line:
    """One end of a line over a connected link; `run` it in a nursery, and it owns the link.

    `owner` is what this end is called in errors. A line to a client is `patient`: a client may stand still (a
    debugger, a laptop that sleeps) and is only given up when its link breaks. A client sends no `beats`.
    `pace` is awaited after each message that was taken: until it returns, nothing more is read.
    """

    def __init__(
        self,
        link: Link,
        *,
        owner: str,
        timeout_s: float,
        patient: bool = False,
        beats: bool = True,
        scratch: Scratch = IN_MEMORY,
        pace: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.link = link
        self.lost: PeerLost | None = None
        self._owner = owner
        self._timeout_s = timeout_s
        self._patient = patient
        self._scratch = scratch
        self._pace = pace
        self._beat_s = min(timeout_s / BEATS_PER_TIMEOUT, SLOWEST_BEAT_S) if beats else float("inf")
        self._queue, self._queued = trio.open_memory_channel[tuple[list[Any], Sequence[Words]]](
            QUEUED_MESSAGES
        )
        # Without bound, since `post` must not wait: senders post a few messages a session, and a dead line is
        # dropped.
        self._urgent, self._posted = trio.open_memory_channel[list[Any]](float("inf"))
        self._writing = trio.Lock()
        self._waiting = 0
        """Messages that `send` has queued and that were not written to their end yet."""
        self._scope = trio.CancelScope()
        self._sent = 0
        self._received = 0
        self._silence = ""
        """What it is called if nothing comes now, while the other end is to say something."""

    @property
    def other(self) -> str:
        """Name of the other end."""
        return self.link.peer

    def error(self) -> PeerLost:
        """A fresh copy of the error that ended the line; to be raised."""
        if self.lost is None:
            return PeerLost(f"{self._owner} has closed its line to {self.other}", peer=self.other)
        return PeerLost(str(self.lost), peer=self.lost.peer)

    # -- sending ---------------------------------------------------------------------------------------------

    async def send(self, message: list[Any], buffers: Sequence[Words] = ()) -> None:
        """Queue a message with its payload; waits while others are ahead.

        Raises PeerLost once the line has ended. No checkpoint where a short message leaves at once.

        The arrays must not change until they have left, which nobody is told: pass them on for good.
        """
        size = sum([buffer.nbytes for buffer in buffers])
        short = size <= AT_ONCE_BYTES and not self._patient
        if short and not self._waiting and self.lost is None and not self._writing.locked():
            rest = self._send_at_once(message, size, buffers)
            if rest is not None:
                await self._send_rest(rest, size)
            return
        self._waiting += 1
        try:
            await self._queue.send((message, buffers))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self.error() from None
        except trio.Cancelled:
            self._waiting -= 1
            raise

    def _send_at_once(
        self, message: list[Any], size: int, buffers: Sequence[Words]
    ) -> Awaitable[None] | None:
        """Write a short message here, without waking up another task for it, while it is nobody's turn.

        None, or what writes the rest of it.
        """
        self._sent += 1
        try:
            return self.link.send_now(pack_message([self._sent, size, message]), buffers)
        except Exception as error:  # noqa: BLE001 - as in `run`, whatever a peer provokes ends the line
            raise self._ended(error) from None

    async def _send_rest(self, rest: Awaitable[None], size: int) -> None:
        self._writing.acquire_nowait()  # it is nobody's turn, since this task has not waited yet
        try:
            # Half a frame would break the link for all that use it. A peer that takes nothing ends the wait.
            with self._patience(size, shield=True):
                await rest
                return
            raise self._silent("took nothing")
        except Exception as error:  # noqa: BLE001 - as above
            raise self._ended(error) from None
        finally:
            self._writing.release()

    def _ended(self, cause: Exception) -> PeerLost:
        """The error that this ends the line with."""
        self._end(cause)
        self._scope.cancel()
        return self.error()

    def post(self, message: list[Any]) -> None:
        """Queue a short message, ahead of payloads. Never waits; on a line that has ended it goes nowhere."""
        if self.lost is None:
            try:
                self._urgent.send_nowait(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                logger.debug(
                    "%s: %r was posted to %s, whose line has ended", self._owner, message[0], self.other
                )

    async def _write_posts(self) -> None:
        while True:
            message = BEAT
            with trio.move_on_after(self._beat_s):
                message = await self._posted.receive()
            await self._put(message, 0, [])

    async def _write_queue(self) -> None:
        async for message, buffers in self._queued:
            left = sum(buffer.nbytes for buffer in buffers)
            for chunk in _chunks(buffers):
                await self._put(message, left, chunk)
                left -= sum(map(len, chunk))
                message = MORE
            self._waiting -= 1
            del buffers, chunk  # which would be held until there is more to send

    async def _put(self, message: list[Any], left: int, chunk: Sequence[memoryview]) -> None:
        async with self._writing:
            await self._write(message, left, chunk)

    async def _write(self, message: list[Any], left: int, chunk: Sequence[memoryview]) -> None:
        self._sent += 1
        header = pack_message([self._sent, left, message])
        with self._patience(sum(map(len, chunk))):
            await self.link.send(header, chunk)
            return
        raise self._silent("took nothing")

    # -- receiving -------------------------------------------------------------------------------------------

    async def run(self, receiver: Receiver) -> None:
        """Write, and hand what arrives to `receiver`, until the line ends; `lost` then says why.

        Raises nothing that the other end caused. Closes the link.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_posts)
                    nursery.start_soon(self._write_queue)
                    nursery.start_soon(self._read, receiver)
                    if not self._patient:
                        nursery.start_soon(self._watch)
        except* Exception as group:  # noqa: BLE001 - whatever a peer provokes must not take the node down
            self._end(first_cause(group))
        finally:
            for channel in (self._queue, self._queued, self._urgent, self._posted):
                channel.close()
            await self.link.aclose()

    def _end(self, cause: BaseException) -> None:
        if isinstance(cause, PeerLost):
            self.lost = PeerLost(str(cause), peer=self.other)
            return
        if isinstance(cause, trio.ClosedResourceError):
            self.lost = self.error()
            return
        if not isinstance(cause, TercetError):
            logger.debug("%s: a message of %s", self._owner, self.other, exc_info=cause)
            cause = ProtocolError(f"{self.other} sent a malformed message ({type(cause).__name__}: {cause})")
        self.lost = PeerLost(f"{self._owner} gave up its line to {self.other}: {cause}", peer=self.other)

    async def _read(self, receiver: Receiver) -> None:
        incoming: _Incoming | None = None
        while True:
            message, left, size = await self._header()
            if size != min(left, CHUNK_BYTES):
                raise ProtocolError(
                    f"{self.other} sent {size} bytes where {min(left, CHUNK_BYTES)} were announced"
                )
            if message == MORE:
                if incoming is None or left != incoming.size - incoming.arrived:
                    raise ProtocolError(f"{self.other} continued a payload that it had not begun")
            elif left:
                if incoming is not None:
                    raise ProtocolError(f"{self.other} began a payload in the middle of another")
                incoming = _Incoming(message, left, self._room(receiver, message, left))
            elif message != BEAT:
                receiver.take(message, np.empty(0, dtype=np.uint64))
                await self._rest()
            if size and incoming is not None:
                await self._fill(incoming, size)
                if incoming.arrived == incoming.size:
                    receiver.take(incoming.message, incoming.payload)
                    incoming = None
                    await self._rest()

    async def _rest(self) -> None:
        if self._pace is not None:
            await self._pace()

    async def _header(self) -> tuple[list[Any], int, int]:
        header, size = await self._next_frame()
        fields = unpack_message(header, peer=self.other)
        if not (isinstance(fields, list) and len(fields) == 3 and isinstance(fields[2], list) and fields[2]):
            raise ProtocolError(f"{self.other} sent a frame without a message")
        number, left, message = fields
        self._received += 1
        if number != self._received:
            raise ProtocolError(
                f"frame {self._received} of {self.other} got lost; frame {number!r} came instead"
            )
        if not isinstance(left, int) or left < 0 or left % WORD_BYTES:
            raise ProtocolError(f"{self.other} announced a payload of {left!r} bytes")
        return message, left, size

    async def _next_frame(self) -> tuple[bytes, int]:
        self._silence = "was silent"
        try:
            return await self.link.receive_header()
        finally:
            self._silence = ""

    async def _watch(self) -> None:
        """Give the line up when the other end has been silent for the time-out. Raises PeerLost."""
        silent, what = 0, ""
        while silent < LOOKS_PER_TIMEOUT:
            heard = self._received
            await trio.sleep(self._timeout_s / LOOKS_PER_TIMEOUT)
            what = self._silence
            silent = silent + 1 if what and self._received == heard else 0
        raise self._silent(what)

    def _room(self, receiver: Receiver, message: list[Any], size: int) -> Words | None:
        if not receiver.admit(message, size):
            return None
        try:
            return self._scratch.empty((size // WORD_BYTES,))
        except (MemoryError, StorageError):
            logger.exception("%s: no memory for %d bytes from %s", self._owner, size, self.other)
            return None

    async def _fill(self, incoming: _Incoming, size: int) -> None:
        if incoming.payload is None:
            room = memoryview(bytearray(size))
        else:
            room = byte_view(incoming.payload)[incoming.arrived : incoming.arrived + size]
        stopped = "stopped in the middle of a message"
        if size <= AT_ONCE_BYTES:
            if self.link.take_payload(room):
                incoming.arrived += size
                return
            self._silence = stopped
            try:
                await self.link.receive_payload(room)
            finally:
                self._silence = ""
            incoming.arrived += size
            return
        with self._patience(size):
            await self.link.receive_payload(room)
            incoming.arrived += size
            return
        raise self._silent(stopped)

    def _patience(self, size: int, *, shield: bool = False) -> trio.CancelScope:
        if self._patient:
            return trio.CancelScope(shield=shield)
        return trio.move_on_after(self._timeout_s + size / SLOWEST_BYTES_PER_SECOND, shield=shield)

    def _silent(self, what: str) -> PeerLost:
        return PeerLost(
            f"{self.other} {what} for {self._timeout_s:g} s, as {self._owner} saw it; it stalled or "
            "was cut off: look at that node and its network",
            peer=self.other,
        )


def _chunks(buffers: Sequence[Words]) -> Iterator[list[memoryview]]:
    """The bytes of all buffers in chunks; at least one chunk."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for buffer in buffers:
        view = byte_view(buffer)
        while len(view):
            chunk.append(view[:room])
            view = view[room:]
            room -= len(chunk[-1])
            if not room:
                yield chunk
                chunk, room = [], CHUNK_BYTES
    if chunk or not any(buffer.nbytes for buffer in buffers):
        yield chunk


def first_cause(error: BaseException) -> BaseException:
    """The first error in a group that is not a group itself; what is no group is its own cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def gravest_cause(error: BaseException) -> BaseException:
    """The first error in a group that is no lost peer; of peers, who is lost may be lost for that reason."""
    leaves = list(_leaves(error))
    return next((leaf for leaf in leaves if not isinstance(leaf, PeerLost)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


@contextlib.asynccontextmanager
async def plain_errors() -> AsyncIterator[None]:
    """Let the error that ended a nursery through as itself, not in a group; the gravest of Tercet's own."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if all(isinstance(leaf, TercetError) for leaf in _leaves(error)):
            error = gravest_cause(error)
        raise error from error.__cause__
