"""Memory links beyond the conformance suite: addresses, back-pressure and listeners."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tercet.errors import PeerLost, TransportError
from tercet.transports import MemoryTransport, memory_pair


async def test_names():
    left, right = memory_pair("party 0", "party 1")
    assert (left.peer, right.peer) == ("party 1", "party 0")
    async with left, right:
        pass


async def test_a_full_link_pushes_back():
    left, right = memory_pair("a", "b", capacity=3)
    async with left, right, trio.open_nursery() as nursery:
        for _ in range(3):
            await left.send(b"fits")
        nursery.start_soon(left.send, b"waits")
        await trio.testing.wait_all_tasks_blocked()
        assert left.bytes_sent == 3 * (16 + 4)
        for _ in range(4):
            await right.receive_header()
        await trio.testing.wait_all_tasks_blocked()
        assert left.bytes_sent == right.bytes_received


async def test_addresses_belong_to_one_transport(nursery):
    transport, other = MemoryTransport(), MemoryTransport()
    async with await transport.listen("lake", nursery=nursery) as listener:
        assert listener.address == "lake"
        with pytest.raises(PeerLost, match="Nobody listens at the memory address 'lake'"):
            await other.connect("lake", peer="party 1")
        with pytest.raises(TransportError, match="in use"):
            await transport.listen("lake", nursery=nursery)
    async with await transport.listen("lake", nursery=nursery):
        pass


async def test_links_that_nobody_accepted_end_with_the_listener(nursery):
    transport = MemoryTransport()
    listener = await transport.listen("", nursery=nursery)
    async with await transport.connect(listener.address, peer="party 1") as link:
        await listener.aclose()
        with pytest.raises(PeerLost, match="party 1"):
            await link.receive_header()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_waiting_accept_learns_of_the_close(nursery):
    listener = await MemoryTransport().listen("lake", nursery=nursery)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
