"""What a link, a listener and a transport promise, whatever carries the bytes.

A link joins two ends and carries frames, each a short header and a payload of raw buffers, in order and in
both directions. A transport makes links: one end listens at an address, the other connects to it. The
scheduler above sees only these classes, so that a plan runs the same between tasks, processes and continents.
To add a transport, implement them and run `tercet.testing.check_transport` on it.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import trio

from tercet.errors import TransportError

if TYPE_CHECKING:
    from tercet.transports.identity import Identity

Buffer: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]
"""A C-contiguous object with the buffer protocol."""


def _memory(buffer: Buffer) -> memoryview:
    return memoryview(cast("bytes", buffer))  # numpy declares the buffer protocol from Python 3.12 on


def byte_view(buffer: Buffer) -> memoryview:
    """Return the bytes of a C-contiguous buffer as a flat memoryview, without a copy.

    Raises:
      TransportError: the buffer is not C-contiguous, or holds Python objects.
    """
    view = _memory(buffer)
    if view.nbytes == 0:
        return memoryview(b"")
    if not view.c_contiguous:
        raise TransportError(
            "This end passed a buffer that is not C-contiguous, which cannot be sent or filled without a "
            "copy; use numpy.ascontiguousarray."
        )
    try:
        return view.cast("B")
    except (TypeError, ValueError):
        try:
            return _memory(np.frombuffer(buffer, dtype=np.uint8))
        except (TypeError, ValueError) as error:
            raise TransportError(f"This end passed a buffer without plain bytes ({error}).") from error


def payload_view(into: Buffer, expected: int, peer: str) -> memoryview:
    """Return `into` as writable bytes after checking that it fits a payload of `expected` bytes from `peer`.

    Raises:
      TransportError: the length differs, or the buffer cannot be written.
    """
    size = _memory(into).nbytes
    if size != expected:
        raise TransportError(
            f"This end wants to receive {size} bytes, but the payload from {peer} has {expected} left; "
            "compare the length that receive_header returned before allocating."
        )
    view = byte_view(into)
    if size and view.readonly:
        raise TransportError("This end passed a read-only buffer to receive_payload; pass a fresh array.")
    return view


class OneAtATime:
    """Raises `trio.BusyResourceError` when two tasks use one direction of a link at the same time."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._doing} on this link")
        self._busy = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy = False


class Link(trio.abc.AsyncResource):
    """An ordered, two-way link to one peer that carries frames.

    One task may send while another receives; two tasks must not do the same at once
    (`trio.BusyResourceError`). There is back-pressure: `send` blocks when the peer does not read. So a party
    that sends and reads in one task can deadlock with a peer that does the same; run one reader task per
    link.

    Every asynchronous method is a trio checkpoint. No method has a time-out of its own; use
    `trio.fail_after`. `send_now` and `take_payload` are for short frames, of which a run has thousands: they
    spare the event loop a turn where there is nothing to wait for.
    """

    @property
    @abc.abstractmethod
    def peer(self) -> str:
        """Name of the other end for people to read, e.g. "party 1" or "client".

        Errors name it. TLS fixes it in the handshake; elsewhere it is what the connecting code believed, and
        may be set once a hello has told more.
        """

    @peer.setter
    @abc.abstractmethod
    def peer(self, name: str) -> None: ...

    @property
    @abc.abstractmethod
    def bytes_sent(self) -> int:
        """Bytes of all frames sent: prefixes, headers and payloads, without the overhead of TLS or TCP."""

    @property
    @abc.abstractmethod
    def bytes_received(self) -> int:
        """Bytes of all frames received, counted like `bytes_sent` at the peer, equal once all has arrived."""

    @abc.abstractmethod
    async def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame whose payload is the concatenation of `buffers`.

        The buffers are C-contiguous and may be of any item type; stream transports do not copy them, so they
        must not change until `send` returns. Afterwards they belong to the caller again. When it returns the
        frame is on its way; that says nothing about its arrival.

        Cancellation: a send that is cancelled (or fails) may leave half a frame on the wire; the link then is
        broken for sending, and later sends raise TransportError. A send that is cancelled before it began
        leaves the link intact.

        Raises:
          PeerLost: the peer has closed or reset the link; names `peer`.
          TransportError: the frame exceeds the limits, a buffer is not contiguous, or the link is broken.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this end has closed the link, before or meanwhile.
        """

    def send_now(self, header: bytes, buffers: Sequence[Buffer] = ()) -> Awaitable[None] | None:
        """Send one frame as `send` does, but as far as that goes without waiting; no checkpoint.

        None if all of it has left; else what sends the rest, which is to be awaited at once, and may be
        cancelled and raise as `send`. Unless overridden, nothing leaves before that.
        """
        return self.send(header, buffers)

    @abc.abstractmethod
    async def receive_header(self) -> tuple[bytes, int]:
        """Wait for the next frame; return its header and the length of its payload in bytes.

        If the length is positive, `receive_payload` must follow before the next `receive_header`. The length
        is the peer's claim, bounded only by the frame limits: compare it with what you expect before you
        allocate.

        Cancellation: nothing is lost; the next call goes on where this one stopped.

        Raises:
          PeerLost: the peer has closed or reset the link; names `peer`.
          TransportError: the peer sent something malformed, or the last payload has not been received.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this end has closed the link, before or meanwhile.
        """

    @abc.abstractmethod
    async def receive_payload(self, into: Buffer) -> None:
        """Fill `into` with the payload of the frame whose header came last.

        `into` is a writable C-contiguous buffer of exactly the length that `receive_header` returned. It need
        not be called for a payload of length 0.

        Cancellation: what had arrived is lost with `into`, so the link is broken for receiving and later
        receives raise TransportError.

        Raises:
          PeerLost: the peer has closed or reset the link in the middle of the frame; names `peer`.
          TransportError: `into` has the wrong length or cannot be written, or the link is broken.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this end has closed the link, before or meanwhile.
        """

    def take_payload(self, into: Buffer) -> bool:
        """Fill `into` as `receive_payload` does if all of the payload has come already; no checkpoint.

        Whether it had; otherwise nothing was taken, which is so always unless overridden. Raises as
        `receive_payload`.
        """
        _ = into
        return False

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close the link at once; the peer then sees PeerLost after the frames that were sent.

        Tasks of this end that are blocked on the link get `trio.ClosedResourceError`. It takes bounded time
        even if the peer is dead, closes also when cancelled, and may be called again.
        """


class Listener(trio.abc.AsyncResource):
    """A place where links arrive."""

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """The address to connect to; where port 0 was asked for, it has the port that was given."""

    @abc.abstractmethod
    async def accept(self) -> Link:
        """Wait for the next link that is ready for use.

        A peer that fails its handshake is logged and never returned; it neither ends the listener nor delays
        others.

        Cancellation: safe; a link that arrives meanwhile waits for the next call.

        Raises:
          trio.ClosedResourceError: the listener has been closed, before or meanwhile.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Stop listening; accepted links live on. May be called again."""


class Transport(abc.ABC):
    """A way to make links."""

    authenticated: ClassVar[bool] = False
    """Whether each end of a link knows by its certificate who the other is."""

    @classmethod
    def for_party(cls, identity: Identity | None, pins: Mapping[str, str]) -> Self:
        """The transport of one party: its identity, and the certificates of others by name.

        One that is not authenticated has no use for them; unless overridden, it is made without arguments.
        """
        _ = identity, pins
        return cls()

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The word for configuration files: "memory", "tcp", "tls"."""

    def trusts(self, link: Link) -> bool:
        """Whether the other end of a link that was made here would still be accepted under its name."""
        _ = link
        return True

    @abc.abstractmethod
    async def connect(self, address: str, *, peer: str) -> Link:
        """Connect to the listener at `address`, where `peer` is expected; the link is named after it.

        It tries once; whoever starts parties in any order repeats it. Wrap it in `trio.fail_after`, since a
        silent network can keep a connection attempt waiting for minutes.

        Raises:
          PeerLost: nobody listens at the address, or it cannot be reached.
          TransportError: the address is malformed, or the handshake failed; the sentence says why.
        """

    @abc.abstractmethod
    async def listen(self, address: str, *, nursery: trio.Nursery) -> Listener:
        """Listen at `address`.

        `nursery` supervises what the listener does between calls of `accept`, such as handshakes that run
        side by side; closing the listener ends its tasks there.

        Raises:
          TransportError: the address is malformed or in use.
        """


class WrappedLink(Link):
    """A link that passes everything to another one; subclasses change what they shape or spoil."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def peer(self) -> str:
        """Name of the other end, shared with the inner link."""
        return self._link.peer

    @peer.setter
    def peer(self, name: str) -> None:
        self._link.peer = name

    @property
    def bytes_sent(self) -> int:
        """Bytes that the inner link has sent."""
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that the inner link has received."""
        return self._link.bytes_received

    async def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame; see `Link.send`."""
        await self._link.send(header, buffers)

    async def receive_header(self) -> tuple[bytes, int]:
        """Wait for the next frame; see `Link.receive_header`."""
        return await self._link.receive_header()

    async def receive_payload(self, into: Buffer) -> None:
        """Fill `into`; see `Link.receive_payload`."""
        await self._link.receive_payload(into)

    async def aclose(self) -> None:
        """Close the inner link."""
        await self._link.aclose()
