"""Every transport keeps the promises of Link; and the suite that says so notices when one does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tercet.errors import TransportError
from tercet.testing import check_transport
from tercet.transports import (
    Fault,
    FaultyLink,
    Link,
    Listener,
    MemoryTransport,
    ShapedLink,
    TcpTransport,
    TlsTransport,
    Transport,
    WrappedLink,
    make_identity,
    memory_pair,
)

MakePair = Callable[[], Awaitable[tuple[Link, Link]]]


def tls_ends() -> tuple[TlsTransport, TlsTransport]:
    a, b = make_identity("party 0"), make_identity("party 1")
    return (
        TlsTransport(a, {"party 1": b.certificate_pem}),
        TlsTransport(b, {"party 0": a.certificate_pem}),
    )


def pairs(near: Transport, listener: Listener) -> MakePair:
    async def make_pair() -> tuple[Link, Link]:
        links: list[Link] = []

        async def accept() -> None:
            links.append(await listener.accept())

        async with trio.open_nursery() as both:
            both.start_soon(accept)
            left = await near.connect(listener.address, peer="party 1")
        return left, links[0]

    return make_pair


@pytest.mark.parametrize("name", ["memory", "tcp", "tls"])
async def test_transport_keeps_the_promises(name, nursery):
    match name:
        case "memory":
            near = far = MemoryTransport()
            address = "lake"
        case "tcp":
            near = far = TcpTransport()
            address = "127.0.0.1:0"
        case _:
            near, far = tls_ends()
            address = "127.0.0.1:0"
    assert near.name == name
    async with await far.listen(address, nursery=nursery) as listener:
        await check_transport(pairs(near, listener))


async def test_memory_pair_keeps_the_promises_when_it_pushes_back_at_once():
    async def make_pair() -> tuple[Link, Link]:
        return memory_pair("party 0", "party 1", capacity=2)

    await check_transport(make_pair)


@pytest.mark.parametrize(("latency", "bandwidth"), [(0.0, None), (0.0004, 20e9)])
async def test_shaped_memory_keeps_the_promises(latency, bandwidth):
    async def make_pair() -> tuple[Link, Link]:
        left, right = memory_pair("party 0", "party 1")
        return ShapedLink(left, latency, bandwidth), ShapedLink(right, latency, bandwidth)

    await check_transport(make_pair)


class Miscounting(WrappedLink):
    @property
    def bytes_sent(self) -> int:
        return 2 * self._link.bytes_sent


class Forgetful(WrappedLink):
    """Loses the frame that a cancelled receive had taken."""

    async def receive_header(self):
        found = await self._link.receive_header()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return found


class Reordering(WrappedLink):
    held = None

    async def send(self, header, buffers=()):
        if header == b"7":
            self.held = header, [bytes(buffers[0])]
            return
        await self._link.send(header, buffers)
        if self.held:
            held, self.held = self.held, None
            await self._link.send(*held)


class Unnamed(WrappedLink):
    @property
    def peer(self):
        return ""

    @peer.setter
    def peer(self, name):
        pass


class Copyless(WrappedLink):
    """Sends the caller's array one frame late, without a copy."""

    held = None

    async def send(self, header, buffers=()):
        if self.held is None and buffers and len(buffers[0]) == 1000:
            self.held = header, buffers
            return
        if self.held:
            held, self.held = self.held, ()
            await self._link.send(*held)
        await self._link.send(header, buffers)


class Deaf(WrappedLink):
    """Tells nobody that it closes."""

    async def aclose(self):
        await trio.lowlevel.checkpoint()


class Careless(WrappedLink):
    """Says of a short frame that it has left, and keeps it."""

    def send_now(self, header, buffers=()):
        return None if buffers and len(buffers[0]) == 7 else self.send(header, buffers)


class Hasty(WrappedLink):
    """Says that a payload has come, and leaves the array as it was."""

    def take_payload(self, into):
        return len(into) == 8 * 4 * 7


def broken_by(fault: Fault, after: int) -> Callable[[Link], Link]:
    return lambda link: FaultyLink(link, fault, after=after)


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (Miscounting, "counted once"),
        (Forgetful, "loses nothing"),
        (Reordering, "in order"),
        (Copyless, "may change the buffers"),
        (Unnamed, "PeerLost names"),
        (Careless, "does not come to an end"),
        (Hasty, "take_payload fills"),
        (Deaf, "waits while the peer closes|does not come to an end"),
        (broken_by(Fault.FLIP_HEADER, after=3), "header"),
        (broken_by(Fault.FLIP_PAYLOAD, after=3), "payload"),
        (broken_by(Fault.STALL, after=10), "does not come to an end"),
    ],
)
async def test_the_suite_notices_a_bad_link(spoil, promise, autojump_clock):
    async def make_pair() -> tuple[Link, Link]:
        left, right = memory_pair("party 0", "party 1")
        return spoil(left), spoil(right)

    with pytest.raises(TransportError, match=f"breaks a promise of Link: .*({promise})"):
        await check_transport(make_pair)
