"""Each fault does what it says, over memory, TCP and TLS alike."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tercet.errors import PeerLost, TransportError
from tercet.transports import (
    Fault,
    FaultyLink,
    MemoryTransport,
    ShapedLink,
    TcpTransport,
    TlsTransport,
    make_identity,
    memory_pair,
)

ALICE, BOB = make_identity("alice"), make_identity("bob")


@pytest.fixture(params=["memory", "tcp", "tls"])
async def ends(request, nursery):
    """Two joined links, known to each other as alice and bob."""
    match request.param:
        case "memory":
            near = far = MemoryTransport()
        case "tcp":
            near = far = TcpTransport()
        case _:
            near = TlsTransport(ALICE, {"bob": BOB.certificate_pem})
            far = TlsTransport(BOB, {"alice": ALICE.certificate_pem})
    async with (
        await far.listen("127.0.0.1:0", nursery=nursery) as listener,
        await near.connect(listener.address, peer="bob") as left,
        await listener.accept() as right,
    ):
        right.peer = "alice"
        yield left, right


async def send_four(link) -> None:
    for i in range(4):
        await link.send(b"header %d" % i, [b"payload %d" % i])


async def receive(link) -> tuple[bytes, bytes]:
    header, length = await link.receive_header()
    payload = bytearray(length)
    await link.receive_payload(payload)
    return header, bytes(payload)


def frame(i: int) -> tuple[bytes, bytes]:
    return b"header %d" % i, b"payload %d" % i


def bits_that_differ(a: bytes, b: bytes) -> int:
    assert len(a) == len(b)
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


async def test_drop(ends):
    left, right = ends
    await send_four(FaultyLink(left, Fault.DROP, after=2))
    assert [await receive(right) for _ in range(3)] == [frame(0), frame(1), frame(3)]


async def test_stall(ends):
    left, right = ends
    await send_four(FaultyLink(left, Fault.STALL, after=2))
    assert [await receive(right) for _ in range(2)] == [frame(0), frame(1)]
    with trio.move_on_after(0) as scope:
        await right.receive_header()
    assert scope.cancelled_caught, "the link stays open and silent"


async def test_truncate(ends):
    left, right = ends
    faulty = FaultyLink(left, Fault.TRUNCATE, after=2)
    with pytest.raises(trio.ClosedResourceError):
        await send_four(faulty)
    assert [await receive(right) for _ in range(2)] == [frame(0), frame(1)]
    header, length = await right.receive_header()
    assert (header, length) == (b"header 2", 9)
    with pytest.raises(PeerLost, match="alice closed its link in the middle of a frame") as caught:
        await right.receive_payload(bytearray(length))
    assert caught.value.peer == "alice"


async def test_close(ends):
    left, right = ends
    with pytest.raises(trio.ClosedResourceError):
        await send_four(FaultyLink(left, Fault.CLOSE, after=2))
    assert [await receive(right) for _ in range(2)] == [frame(0), frame(1)]
    with pytest.raises(PeerLost, match="alice closed its link;"):
        await right.receive_header()


@pytest.mark.parametrize(("fault", "bits"), [(Fault.FLIP_HEADER, (1, 0)), (Fault.FLIP_PAYLOAD, (0, 1))])
async def test_flip(ends, fault, bits):
    left, right = ends
    await send_four(FaultyLink(left, fault, after=2))
    assert [await receive(right) for _ in range(2)] == [frame(0), frame(1)]
    spoilt = await receive(right)
    assert tuple(map(bits_that_differ, spoilt, frame(2))) == bits
    assert await receive(right) == frame(3)


async def test_a_flip_waits_for_a_payload_to_spoil():
    left, right = memory_pair("alice", "bob")
    async with FaultyLink(left, Fault.FLIP_PAYLOAD) as faulty, right:
        await faulty.send(b"nothing to spoil")
        await faulty.send(b"", [b"\x00"])
        assert await right.receive_header() == (b"nothing to spoil", 0)
        assert await receive(right) == (b"", b"\x01")


async def test_a_link_that_cannot_truncate_says_so():
    left, _ = memory_pair("alice", "bob")
    with pytest.raises(TransportError, match="ShapedLink cannot truncate a frame; wrap the link inside"):
        FaultyLink(ShapedLink(left, 0), Fault.TRUNCATE)


async def test_only_sending_is_faulty():
    left, right = memory_pair("alice", "bob")
    async with FaultyLink(left, Fault.STALL) as faulty, right:
        await right.send(b"hello", [b"data"])
        assert await receive(faulty) == (b"hello", b"data")
        assert (faulty.peer, faulty.bytes_received, faulty.bytes_sent) == ("bob", 25, 0)
