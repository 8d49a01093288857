"""Frames over a byte stream: the link that TCP and TLS share.

A `ByteStream` moves bytes and knows nothing of frames; `StreamLink` adds the frame format of `wire`, counts,
and keeps the promises of `Link` about cancellation and errors. Short things (prefix, header, small payloads)
pass through a buffer that may read ahead; the bulk of a payload goes from the stream straight into the
caller's array.
"""

from __future__ import annotations

import abc
import errno
import os
import ssl
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import cast

import trio

from tercet.errors import PeerLost, TransportError
from tercet.transports.base import Buffer, Link, OneAtATime, byte_view, payload_view
from tercet.transports.forks import keep_from_children
from tercet.transports.wire import DEFAULT_LIMITS, PREFIX_SIZE, FrameLimits, FrameReader, encode_prefix

_IOV_MAX = min(os.sysconf("SC_IOV_MAX"), 1024)


class DamagedError(OSError):
    """What has come over a stream is not what the other end has sent."""


class ByteStream(abc.ABC):
    """Bytes both ways; errors are those of the operating system, `StreamLink` puts them into sentences."""

    @abc.abstractmethod
    async def send_all(self, pieces: list[memoryview]) -> None:
        """Send the pieces, none of them empty, in order. OSError if the peer is gone."""

    def send_now(self, pieces: list[memoryview]) -> Awaitable[None] | None:
        """Send the pieces as far as they leave without waiting: None, or what sends the rest; no checkpoint.

        OSError if the peer is gone, here or there. Unless overridden, nothing leaves before that is awaited.
        """
        return self.send_all(pieces)

    @abc.abstractmethod
    async def receive_into(self, view: memoryview) -> int:
        """Write at least one byte to `view`, 0 at the end of the stream. OSError if the peer is gone.

        A call that is cancelled has taken nothing.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close in bounded time. Called once."""


class SocketStream(ByteStream):
    """A TCP socket: vectored writes, reads into the destination, no copies in between.

    `trio.SocketStream` is not used since it sends one buffer at a time and returns received bytes as new
    objects.
    """

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = keep_from_children(socket)
        self._drained = True
        """Whether the last read left nothing, as far as it could tell: then the next one waits first."""

    async def send_all(self, pieces: list[memoryview]) -> None:
        """Send the pieces with as few system calls as the kernel allows."""
        while pieces:
            pieces = _left(pieces, await self._socket.sendmsg(pieces[:_IOV_MAX]))

    def send_now(self, pieces: list[memoryview]) -> Awaitable[None] | None:
        """One system call, and none of the event loop's turns."""
        try:
            left = _left(pieces, os.writev(self._socket.fileno(), pieces[:_IOV_MAX]))
        except BlockingIOError:
            left = pieces
        return self.send_all(left) if left else None

    async def receive_into(self, view: memoryview) -> int:
        """Let the kernel write to `view`."""
        if not self._drained:
            count = await self._socket.recv_into(view)
        else:
            while True:
                if self._socket.fileno() < 0:  # closed by another task, which trio would not make an OSError
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    count = os.readv(self._socket.fileno(), [view])
                    break
                except BlockingIOError:
                    continue
        self._drained = count < len(view)
        return count

    async def aclose(self) -> None:
        """Close the socket; TCP's own goodbye is sent by the kernel."""
        self._socket.close()
        await trio.lowlevel.checkpoint()


def _left(pieces: list[memoryview], sent: int) -> list[memoryview]:
    """The pieces but for so many bytes at their start."""
    for first, piece in enumerate(pieces):
        if sent < len(piece):
            return [piece[sent:], *pieces[first + 1 :]]
        sent -= len(piece)
    return []


def _joined(buffers: Sequence[Buffer]) -> bytes:
    """The bytes of all buffers, which are short: one copy of them is cheaper than a view of each."""
    try:
        return b"".join(cast("Sequence[bytes]", buffers))
    except (BufferError, TypeError):
        return b"".join([byte_view(buffer) for buffer in buffers])  # or the sentence why not


class _NamedErrors:
    """Turns what the operating system says into the errors that `Link` promises.

    One serves all calls of a link: it is entered several times for a frame.
    """

    def __init__(self, link: StreamLink) -> None:
        self._link = link

    def __enter__(self) -> None:
        self._link.check_open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise self._link.named(error)


class StreamLink(Link):
    """A link over a byte stream; see `Link`."""

    # Plain attributes: links are named late and counted often.
    peer: str = ""
    certificate: bytes | None = None
    """What the other end has proved to own, in DER, on links that are authenticated."""
    bytes_sent: int = 0
    bytes_received: int = 0

    def __init__(self, stream: ByteStream, *, peer: str, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self.peer = peer
        self._stream = stream
        self._limits = limits
        self._reader = FrameReader(limits)
        self._sending = OneAtATime("sending")
        self._receiving = OneAtATime("receiving")
        self._send_broken = ""
        self._send_failed: OSError | None = None
        self._receive_broken = ""
        self._closed = False
        self._named_errors = _NamedErrors(self)

    def check_open(self) -> None:
        """Raise trio.ClosedResourceError if this end has closed the link."""
        if self._closed:
            raise trio.ClosedResourceError("this end has closed the link")

    def named(self, error: OSError) -> Exception:
        """What the operating system says, as an error that `Link` promises."""
        if self._closed:  # closed by another task while this one used the descriptor
            return _caused(trio.ClosedResourceError("this end has closed the link"), None)
        if isinstance(error, ssl.SSLError | DamagedError):
            why = error.reason if isinstance(error, ssl.SSLError) and error.reason else error
            named: Exception = TransportError(
                f"What came from {self.peer} does not decrypt ({why}): it was damaged or tampered with "
                "on its way; connect again."
            )
        else:
            named = PeerLost(
                f"The link to {self.peer} broke ({error.strerror or error}); check that {self.peer} is "
                "running and that the network is up.",
                peer=self.peer,
            )
        return _caused(named, error)

    async def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame; see `Link.send`."""
        with self._sending, self._named_errors:
            pieces, size = self._cut_to_pieces(header, buffers)
            await self._send_pieces(pieces)
            self.bytes_sent += size

    def send_now(self, header: bytes, buffers: Sequence[Buffer] = ()) -> Awaitable[None] | None:
        """Send one frame as far as it leaves at once; see `Link.send_now`."""
        with self._sending, self._named_errors:
            payload = _joined(buffers)
            frame = encode_prefix(len(header), len(payload), limits=self._limits) + header + payload
            self._check_sending()
            try:
                rest = self._stream.send_now([memoryview(frame)])
            except OSError as error:
                self._send_failed = error
                raise
            if rest is None:
                self.bytes_sent += len(frame)
                return None
        return self._send_rest(rest, len(frame))

    async def _send_rest(self, rest: Awaitable[None], size: int) -> None:
        with self._sending, self._named_errors:
            await self._until_sent(rest)
            self.bytes_sent += size

    def _cut_to_pieces(self, header: bytes, buffers: Sequence[Buffer]) -> tuple[list[memoryview], int]:
        views = [byte_view(buffer) for buffer in buffers]
        payload_length = sum(map(len, views))
        # The header is short: copying it behind the prefix is cheaper than another entry in the kernel's
        # vector.
        front = encode_prefix(len(header), payload_length, limits=self._limits) + header
        return [memoryview(front), *filter(len, views)], len(front) + payload_length

    async def _send_pieces(self, pieces: list[memoryview]) -> None:
        self._check_sending()
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._until_sent(self._stream.send_all(pieces))

    def _check_sending(self) -> None:
        if self._send_broken:
            raise TransportError(self._send_broken)
        if self._send_failed is not None:
            raise self._send_failed  # half a frame may be on its way, and no other may follow

    async def _until_sent(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except trio.Cancelled:
            self._send_broken = self._broken_by("send")
            raise
        except OSError as error:
            self._send_failed = error
            raise

    def _broken_by(self, call: str) -> str:
        return (
            f"The link to {self.peer} was broken by a {call} that was cancelled halfway; close it and "
            "connect again."
        )

    async def send_truncated(self, header: bytes, buffers: Sequence[Buffer], *, keep: int) -> None:
        """Send the first `keep` bytes of a frame and close: a peer that dies, for tests."""
        with self._sending, self._named_errors:
            pieces, _ = self._cut_to_pieces(header, buffers)
            await self._send_pieces([memoryview(b"".join(pieces))[:keep]])
        await self.aclose()

    async def receive_header(self) -> tuple[bytes, int]:
        """Wait for the next frame; see `Link.receive_header`."""
        with self._receiving, self._named_errors:
            self._check_receiving()
            if self._reader.may_have_header:
                await trio.lowlevel.checkpoint()  # else the read below is one
            while (found := self._reader.next_header(self.peer)) is None:
                self._reader.filled(await self._receive_some(self._reader.space()))
            self.bytes_received += PREFIX_SIZE + len(found[0])
            return found

    async def receive_payload(self, into: Buffer) -> None:
        """Fill `into`; see `Link.receive_payload`."""
        with self._receiving, self._named_errors:
            self._check_receiving()
            view = payload_view(into, self._reader.payload_left, self.peer)
            await trio.lowlevel.checkpoint()
            try:
                await self._fill(view)
            except trio.Cancelled:
                self._receive_broken = self._broken_by("receive")
                raise
            self.bytes_received += len(view)

    def take_payload(self, into: Buffer) -> bool:
        """Fill `into` with what was read ahead, if that is all of it; see `Link.take_payload`."""
        with self._receiving, self._named_errors:
            self._check_receiving()
            view = payload_view(into, self._reader.payload_left, self.peer)
            if not self._reader.has_payload:
                return False
            self._reader.take_payload(view)
            self.bytes_received += len(view)
            return True

    async def _fill(self, view: memoryview) -> None:
        have = self._reader.take_payload(view)
        while have < len(view):
            count = await self._receive_some(view[have:])
            self._reader.payload_arrived(count)
            have += count

    def _check_receiving(self) -> None:
        if self._receive_broken:
            raise TransportError(self._receive_broken)

    async def _receive_some(self, view: memoryview) -> int:
        count = await self._stream.receive_into(view)
        if not count:
            where = " in the middle of a frame" if self._reader.in_frame else ""
            raise PeerLost(
                f"{self.peer} closed its link{where}; look at the log of {self.peer} for the reason.",
                peer=self.peer,
            )
        return count

    def end_greeting(self, stream: ByteStream, limits: FrameLimits) -> None:
        """Forget the frames of a transport's own greeting: go on over `stream`, count anew, apply `limits`.

        Raises TransportError if the other end has said more than its greeting.
        """
        if self._reader.in_frame:
            raise TransportError(f"{self.peer} said more than a greeting before the link was made.")
        self._stream, self._limits = stream, limits
        self._reader.limits = limits
        self.bytes_sent = self.bytes_received = 0

    async def aclose(self) -> None:
        """Close the link; see `Link.aclose`."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        await self._stream.aclose()


def _caused(error: Exception, cause: OSError | None) -> Exception:
    """The error with its cause: none where the cause would only confuse."""
    error.__cause__, error.__suppress_context__ = cause, True
    return error
