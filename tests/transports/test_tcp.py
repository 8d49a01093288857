"""Plain TCP: addresses, what cannot be reached, resets, cancelled sends and listeners that go on."""

from __future__ import annotations

import errno
import socket as stdlib_socket
import struct

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import PeerLost, TransportError
from tercet.transports import FrameLimits, TcpTransport
from tercet.transports.tcp import join_address, split_address


@pytest.fixture
async def listener(nursery):
    async with await TcpTransport().listen("127.0.0.1:0", nursery=nursery) as listening:
        yield listening


@given(st.sampled_from(["127.0.0.1", "node.example", "::1", "fe80::1", ""]), st.integers(0, 65535))
def test_addresses_round_trip(host, port):
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["localhost:" + "7" * 5000, "", "host", "host:", "host:x", "host:-1", "host:65536", "::1", "a:b:3"],
)
def test_malformed_addresses(address):
    with pytest.raises(TransportError, match="is no address; write host:port"):
        split_address(address)


async def test_the_peer_gets_its_name_from_the_application(listener):
    async with await TcpTransport().connect(listener.address, peer="party 1") as near:
        async with await listener.accept() as far:
            assert near.peer == "party 1"
            assert far.peer.startswith("client at 127.0.0.1:")
            far.peer = "party 0"
        with pytest.raises(PeerLost, match="party 1 closed its link") as caught:
            await near.receive_header()
        assert caught.value.peer == "party 1"


async def test_nobody_listens(listener):
    await listener.aclose()
    with pytest.raises(PeerLost, match=r"party 1 cannot be reached at 127.*Connection refused"):
        await TcpTransport().connect(listener.address, peer="party 1")
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_address_in_use(listener, nursery):
    with pytest.raises(TransportError, match="cannot listen at"):
        await TcpTransport().listen(listener.address, nursery=nursery)


async def test_a_waiting_accept_learns_of_the_close(listener, nursery):
    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def raw_pair(listener):
    """A plain socket and the link at its other end."""
    host, port = listener.address.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    link = await listener.accept()
    link.peer = "party 2"
    return stream, link


async def test_reset(listener):
    stream, link = await raw_pair(listener)
    stream.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()
    async with link:
        with pytest.raises(PeerLost, match="The link to party 2 broke") as caught:
            await link.receive_header()
        assert caught.value.peer == "party 2"


@pytest.mark.parametrize(
    "data", [b"T3", b"T3\x01\x00\x05\x00\x00\x00" + bytes(8), b"T3\x01\x00" + bytes(4) + b"\x09" + bytes(9)]
)
async def test_end_in_the_middle_of_a_frame(listener, data):
    stream, link = await raw_pair(listener)
    await stream.send_all(data)
    await stream.aclose()

    async def receive() -> None:
        _, length = await link.receive_header()
        await link.receive_payload(bytearray(length))

    async with link:
        with pytest.raises(PeerLost, match="party 2 closed its link in the middle of a frame"):
            await receive()


async def test_garbage(listener):
    stream, link = await raw_pair(listener)
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    async with stream, link:
        with pytest.raises(TransportError, match="What party 2 sent is no Tercet frame"):
            await link.receive_header()


async def test_limits_hold_for_a_link(nursery):
    transport = TcpTransport(limits=FrameLimits(header=10, payload=10))
    async with (
        await transport.listen("127.0.0.1:0", nursery=nursery) as listener,
        await TcpTransport().connect(listener.address, peer="party 1") as near,
        await listener.accept() as far,
    ):
        with pytest.raises(TransportError, match="This end tried to send a header of 11"):
            await far.send(b"12345678901")
        await near.send(b"", [bytes(11)])
        with pytest.raises(
            TransportError, match="announced a payload of 11 bytes; this end accepts at most 10"
        ):
            await far.receive_header()


async def test_a_cancelled_send_breaks_the_link(listener):
    stream, link = await raw_pair(listener)
    async with stream, link:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as sending:
                sending.start_soon(link.send, b"large", [bytes(64 << 20)])
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        with pytest.raises(
            TransportError, match="The link to party 2 was broken by a send that was cancelled"
        ):
            await link.send(b"next")


def fill_up(link):
    """Send short frames at once until one does not leave: how many did, and what sends its rest."""
    for number in range(10_000):
        rest = link.send_now(b"short", [np.full(5000, number, dtype=np.uint64)])
        if rest is not None:
            return number, rest
    raise AssertionError("a socket that takes everything")


async def test_what_does_not_leave_at_once_is_sent_once_there_is_room(listener):
    async with (
        await TcpTransport().connect(listener.address, peer="party 1") as near,
        await listener.accept() as far,
        trio.open_nursery() as sending,
    ):
        before, rest = fill_up(near)
        counted = near.bytes_sent

        async def send_on():
            await rest
            await near.send(b"next")

        sending.start_soon(send_on)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            near.send_now(b"meanwhile")
        assert near.bytes_sent == counted
        for number in range(before + 1):
            got = np.empty(5000, dtype=np.uint64)
            assert await far.receive_header() == (b"short", got.nbytes)
            with pytest.raises(TransportError, match="This end wants to receive 8 bytes"):
                far.take_payload(bytearray(8))
            if not far.take_payload(got):
                await far.receive_payload(got)
            assert (got == number).all()
        assert await far.receive_header() == (b"next", 0)
        assert near.bytes_sent == far.bytes_received


async def test_half_of_a_short_frame_breaks_the_link(listener):
    stream, link = await raw_pair(listener)
    async with stream, link:
        _, rest = fill_up(link)
        with trio.CancelScope() as scope:
            scope.cancel()
            await rest
        with pytest.raises(
            TransportError, match="The link to party 2 was broken by a send that was cancelled"
        ):
            link.send_now(b"next")


async def test_a_link_that_is_closed_between_two_reads(listener):
    stream, link = await raw_pair(listener)

    async def receive():
        with pytest.raises(trio.ClosedResourceError):
            await link.receive_header()

    async with stream:
        await stream.send_all(b"T3\x01\x00\x05\x00\x00\x00" + bytes(8))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as receiving:
                receiving.start_soon(link.receive_header)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        # Half a frame has come, so the next call takes a turn of the event loop before it reads.
        async with trio.open_nursery() as receiving:
            receiving.start_soon(receive)
            receiving.start_soon(link.aclose)


async def test_a_short_frame_to_a_peer_that_has_gone(listener):
    stream, link = await raw_pair(listener)
    stream.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()
    async with link:
        for _ in range(2):
            with pytest.raises(PeerLost, match="The link to party 2 broke") as caught:
                for _ in range(100):
                    assert link.send_now(b"hello?") is None
            assert caught.value.peer == "party 2"


async def test_a_cancelled_payload_breaks_the_link(listener):
    async with (
        await TcpTransport().connect(listener.address, peer="party 1") as near,
        await listener.accept() as far,
    ):
        far.peer = "party 0"
        await near._stream.send_all([memoryview(b"T3\x01\x00" + bytes(4) + b"\x09" + bytes(7) + b"half")])
        assert await far.receive_header() == (b"", 9)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as receiving:
                receiving.start_soon(far.receive_payload, bytearray(9))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        with pytest.raises(
            TransportError, match="The link to party 0 was broken by a receive that was cancelled"
        ):
            await far.receive_payload(bytearray(9))


async def test_more_buffers_than_one_system_call_takes(listener):
    async with (
        await TcpTransport().connect(listener.address, peer="party 1") as near,
        await listener.accept() as far,
        trio.open_nursery() as sending,
    ):
        pieces = [bytes([i % 251]) * (1 + i % 97) for i in range(5000)]
        sending.start_soon(near.send, b"", pieces)
        _, length = await far.receive_header()
        got = bytearray(length)
        await far.receive_payload(got)
        assert got == b"".join(pieces)


async def test_a_full_descriptor_table_is_survived(listener, monkeypatch, caplog, autojump_clock):
    listening = listener._listener._socket
    accept = listening.accept
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "aborted")]

    class Failing:
        async def accept(self):
            await trio.lowlevel.checkpoint()
            if failures:
                raise failures.pop(0)
            return await accept()

        def close(self):
            listening.close()

    monkeypatch.setattr(listener._listener, "_socket", Failing())
    async with await TcpTransport().connect(listener.address, peer="party 1"), await listener.accept():
        assert caplog.text.count("has to wait: Too many open files") == 1
        assert "aborted" not in caplog.text
