"""Links within one process: for tests, for `local()` clusters and as the reference for what a link does.

Frames travel as objects over trio's memory channels, without any wire coding, yet with the same counts,
limits and errors as frames on a socket, so that a plan's measured bytes are the same here and there. The
payload is copied when it is sent, since the sender may reuse its arrays at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from tercet.errors import PeerLost, TransportError
from tercet.transports.base import Buffer, Link, Listener, OneAtATime, Transport, byte_view, payload_view
from tercet.transports.wire import DEFAULT_LIMITS, PREFIX_SIZE, FrameLimits, encode_prefix

DEFAULT_CAPACITY = 64
"""Frames in flight, each way, before a sender has to wait."""

_BACKLOG = 128


@attrs.frozen
class _Frame:
    header: bytes
    payload_length: int
    payload: bytes  # shorter than announced only in tests of truncated frames


class MemoryLink(Link):
    """One end of `memory_pair`; see `Link`."""

    peer: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0

    def __init__(
        self,
        outgoing: trio.MemorySendChannel[_Frame],
        incoming: trio.MemoryReceiveChannel[_Frame],
        *,
        peer: str,
        limits: FrameLimits = DEFAULT_LIMITS,
    ) -> None:
        self.peer = peer
        self._outgoing = outgoing
        self._incoming = incoming
        self._limits = limits
        self._payload: _Frame | None = None
        self._sending = OneAtATime("sending")
        self._receiving = OneAtATime("receiving")
        self._closed = False

    def _lost(self, where: str = "") -> PeerLost:
        return PeerLost(
            f"{self.peer} closed its link{where}; look at the log of {self.peer} for the reason.",
            peer=self.peer,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end has closed the link")

    async def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame; see `Link.send`. A cancelled send has sent nothing and breaks nothing."""
        with self._sending:
            self._check_open()
            payload = b"".join([byte_view(buffer) for buffer in buffers])
            front = encode_prefix(len(header), len(payload), limits=self._limits)
            await self._put(_Frame(bytes(header), len(payload), payload))
            self.bytes_sent += len(front) + len(header) + len(payload)

    async def _put(self, frame: _Frame) -> None:
        try:
            await self._outgoing.send(frame)
        except trio.BrokenResourceError:
            raise self._lost() from None

    async def send_truncated(self, header: bytes, buffers: Sequence[Buffer], *, keep: int) -> None:
        """Send the first `keep` bytes of a frame and close: a peer that dies, for tests."""
        with self._sending:
            self._check_open()
            payload = b"".join([byte_view(buffer) for buffer in buffers])
            # Half a header is no object; the peer then just sees the end.
            if keep >= PREFIX_SIZE + len(header):
                await self._put(_Frame(header, len(payload), payload[: keep - PREFIX_SIZE - len(header)]))
        await self.aclose()

    async def receive_header(self) -> tuple[bytes, int]:
        """Wait for the next frame; see `Link.receive_header`."""
        with self._receiving:
            self._check_open()
            if self._payload is not None:
                raise TransportError(
                    f"This end asked for a header while {self._payload.payload_length} bytes of the last "
                    f"payload from {self.peer} have not been received; call receive_payload first."
                )
            try:
                frame = await self._incoming.receive()
            except trio.EndOfChannel:
                raise self._lost() from None
            self.bytes_received += PREFIX_SIZE + len(frame.header)
            self._payload = frame if frame.payload_length else None
            return frame.header, frame.payload_length

    async def receive_payload(self, into: Buffer) -> None:
        """Fill `into`; see `Link.receive_payload`. A cancelled call has taken nothing and breaks nothing."""
        with self._receiving:
            self._check_open()
            frame = self._payload
            view = payload_view(into, frame.payload_length if frame else 0, self.peer)
            await trio.lowlevel.checkpoint()
            self._check_open()
            if frame is None:
                return
            if len(frame.payload) < len(view):
                raise self._lost(" in the middle of a frame")
            view[:] = frame.payload
            self._payload = None
            self.bytes_received += len(view)

    async def aclose(self) -> None:
        """Close the link; see `Link.aclose`."""
        self._closed = True
        self._outgoing.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()


def memory_pair(
    a: str, b: str, *, capacity: int = DEFAULT_CAPACITY, limits: FrameLimits = DEFAULT_LIMITS
) -> tuple[MemoryLink, MemoryLink]:
    """Return two joined links: the one that `a` holds (its peer is `b`), then the one that `b` holds.

    `capacity` is how many frames may wait in each direction before `send` blocks.
    """
    to_b, from_a = trio.open_memory_channel[_Frame](capacity)
    to_a, from_b = trio.open_memory_channel[_Frame](capacity)
    return (
        MemoryLink(to_b, from_b, peer=b, limits=limits),
        MemoryLink(to_a, from_a, peer=a, limits=limits),
    )


class MemoryListener(Listener):
    """Where links to one address of a `MemoryTransport` arrive."""

    def __init__(self, transport: MemoryTransport, address: str) -> None:
        self._transport = transport
        self._address = address
        self._arrive, self._arrived = trio.open_memory_channel[MemoryLink](_BACKLOG)

    @property
    def address(self) -> str:
        """The name under which the transport knows this listener."""
        return self._address

    async def accept(self) -> MemoryLink:
        """Wait for the next link; see `Listener.accept`."""
        try:
            return await self._arrived.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("the listener has been closed") from None

    async def deliver(self, link: MemoryLink) -> None:
        """Hand in the far end of a new link; called by the transport."""
        await self._arrive.send(link)

    async def aclose(self) -> None:
        """Give the address free; links that nobody accepted are lost to their peers."""
        self._transport.forget(self)
        self._arrive.close()
        while True:
            try:
                waiting = self._arrived.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            with trio.CancelScope(shield=True):
                await waiting.aclose()
        self._arrived.close()
        await trio.lowlevel.checkpoint()


class MemoryTransport(Transport):
    """Named addresses within one process; two ends meet if they share the transport object."""

    name: str = "memory"

    def __init__(self, *, capacity: int = DEFAULT_CAPACITY, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self._capacity = capacity
        self._limits = limits
        self._listeners: dict[str, MemoryListener] = {}
        self._links = 0

    async def connect(self, address: str, *, peer: str) -> MemoryLink:
        """Connect to a listener of this transport; there the link is called "client 1", "client 2", ..."""
        listener = self._listeners.get(address)
        lost = PeerLost(
            f"Nobody listens at the memory address {address!r}; start {peer} before connecting to it.",
            peer=peer,
        )
        if listener is None:
            await trio.lowlevel.checkpoint()
            raise lost
        self._links += 1
        near, far = memory_pair(f"client {self._links}", peer, capacity=self._capacity, limits=self._limits)
        try:
            await listener.deliver(far)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise lost from None
        return near

    async def listen(self, address: str, *, nursery: trio.Nursery) -> MemoryListener:  # noqa: ARG002
        """Listen under a name; an empty one is replaced by a fresh one."""
        await trio.lowlevel.checkpoint()
        address = address or f"listener {len(self._listeners) + 1}"
        if address in self._listeners:
            raise TransportError(
                f"The memory address {address!r} is in use; close its listener or take another."
            )
        listener = MemoryListener(self, address)
        self._listeners[address] = listener
        return listener

    def forget(self, listener: MemoryListener) -> None:
        """Give the address of a closed listener free; called by the listener."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]
