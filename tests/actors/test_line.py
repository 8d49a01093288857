"""A line: what is sent on it by many at once, cut off in the middle, or never read."""

from __future__ import annotations

import contextlib
import random
import weakref

import numpy as np
import pytest
import trio
import trio.testing

from tercet.actors.line import AT_ONCE_BYTES, CHUNK_BYTES, LOOKS_PER_TIMEOUT, Line
from tercet.errors import PeerLost
from tercet.transports.memory import memory_pair
from tercet.transports.stream import ByteStream, StreamLink
from tercet.transports.wire import DEFAULT_LIMITS, encode_prefix, pack_message

TIMEOUT_S = 4.0


class Takes:
    """Keeps what arrives."""

    def __init__(self):
        self.taken = []

    def admit(self, message, size):
        return True

    def take(self, message, payload):
        self.taken.append((message, payload))


@contextlib.asynccontextmanager
async def joined(capacity=4):
    """A line that runs, and the other end of its link, at which nobody reads."""
    ours, theirs = memory_pair("party 0", "party 1", capacity=capacity)
    ours.peer, theirs.peer = "party 1", "party 0"
    line = Line(ours, owner="party 0", timeout_s=TIMEOUT_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run, Takes())
        await trio.testing.wait_all_tasks_blocked()
        yield line, theirs, nursery
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(4))
async def test_what_many_send_at_once_and_take_back_stays_whole_and_in_order(seed, autojump_clock):
    mixed = random.Random(seed)
    sizes = (0, 1, 100, AT_ONCE_BYTES // 8, AT_ONCE_BYTES // 8 + 1, CHUNK_BYTES // 8, 3 * CHUNK_BYTES // 8)
    sent = {}
    async with joined(capacity=1) as (line, link, nursery):
        other, receiver = Line(link, owner="party 1", timeout_s=TIMEOUT_S), Takes()
        nursery.start_soon(other.run, receiver)

        async def send(sender):
            sent[sender] = []
            for number in range(30):
                words = np.full(mixed.choice(sizes), 100 * sender + number, dtype=np.uint64)
                with trio.move_on_after(mixed.choice([0, 1e-3, 1, 60])) as scope:
                    await trio.sleep(mixed.choice([0, 0, 1e-3]))
                    await line.send(["data", sender, number], [words])
                sent[sender].append((number, scope.cancelled_caught, words.size))

        async with trio.open_nursery() as senders:
            for sender in range(5):
                senders.start_soon(send, sender)
        await trio.sleep(1)
        assert line.lost is None
        assert other.lost is None
        assert line._waiting == 0
        for sender, messages in sent.items():
            came = [(message[2], payload) for message, payload in receiver.taken if message[1] == sender]
            assert [number for number, _ in came] == sorted({number for number, _ in came})
            assert {number for number, cancelled, _ in messages if not cancelled} <= {one for one, _ in came}
            for number, payload in came:
                assert payload.size == messages[number][2]
                assert (payload == 100 * sender + number).all()


async def test_a_line_lets_go_of_what_has_left(autojump_clock):
    """Also while there is nothing else to send."""
    async with joined() as (line, link, nursery):
        nursery.start_soon(Line(link, owner="party 1", timeout_s=TIMEOUT_S).run, Takes())
        words = np.zeros(AT_ONCE_BYTES, dtype=np.uint64)
        sent = weakref.ref(words)
        await line.send(["data"], [words])
        del words
        await trio.sleep(1)
        assert line._waiting == 0
        assert sent() is None


async def test_a_line_ends_at_once_while_a_short_message_is_not_read(autojump_clock):
    async with joined(capacity=0) as (line, _, nursery):

        async def send():
            with pytest.raises(PeerLost, match="party 0 has closed its line to party 1"):
                await line.send(["data"], [np.zeros(1, dtype=np.uint64)])

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == began


@pytest.mark.parametrize("words", [1, AT_ONCE_BYTES])
async def test_whoever_reads_nothing_is_given_up(words, autojump_clock):
    async with joined(capacity=0) as (line, link, nursery):
        began = trio.current_time()

        async def beat():
            with contextlib.suppress(PeerLost):
                for number in range(1, 100):
                    await link.send(pack_message([number, 0, ["beat"]]))
                    await trio.sleep(1)

        nursery.start_soon(beat)
        with pytest.raises(PeerLost, match="party 1 took nothing for 4 s"):
            while True:
                await line.send(["data"], [np.zeros(words, dtype=np.uint64)])
        assert trio.current_time() - began < 3 * TIMEOUT_S


async def test_a_run_that_is_cancelled_breaks_no_line(autojump_clock):
    async with joined(capacity=0) as (line, link, nursery):
        with trio.move_on_after(1):
            nursery.start_soon(_read_late, link)
            await line.send(["data"], [np.zeros(1, dtype=np.uint64)])
        await line.send(["data"], [np.zeros(1, dtype=np.uint64)])
        assert line.lost is None


async def _read_late(link):
    await trio.sleep(2)
    with contextlib.suppress(PeerLost):
        while True:
            _, size = await link.receive_header()
            await link.receive_payload(bytearray(size))


async def test_the_first_reason_that_ended_a_line_is_the_one_that_is_told(autojump_clock):
    async with joined(capacity=0) as (line, link, nursery):
        raised = []

        async def send():
            try:
                await line.send(["data"], [np.zeros(1, dtype=np.uint64)])
            except PeerLost as error:
                raised.append(str(error))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await link.send(pack_message([7, 0, ["data"]]))
        await trio.sleep(0.5)
        assert "frame 1 of party 1 got lost" in str(line.lost)
        assert len(raised) == 1
        assert "frame 1 of party 1 got lost" in raised[0]


async def test_whoever_stops_between_two_pieces_is_given_up(autojump_clock):
    async with joined() as (line, link, nursery):
        nursery.start_soon(_read_late, link)
        await link.send(pack_message([1, 2 * CHUNK_BYTES, ["data"]]), [bytes(CHUNK_BYTES)])
        await trio.sleep(1.5 * TIMEOUT_S)
        assert "party 1 was silent for 4 s" in str(line.lost)


async def test_a_process_that_stood_still_takes_that_for_no_silence(mock_clock):
    async with joined(capacity=100) as (line, _, _nursery):
        mock_clock.jump(100 * TIMEOUT_S)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert line.lost is None
        for _ in range(LOOKS_PER_TIMEOUT - 2):
            mock_clock.jump(TIMEOUT_S / LOOKS_PER_TIMEOUT)
            await trio.testing.wait_all_tasks_blocked()
        assert line.lost is None
        mock_clock.jump(TIMEOUT_S / LOOKS_PER_TIMEOUT)
        await trio.testing.wait_all_tasks_blocked()
        assert "party 1 was silent" in str(line.lost)


async def test_a_payload_that_stops_is_given_up_however_short(autojump_clock):
    near, far = trio.testing.memory_stream_pair()
    link = StreamLink(_Plain(near), peer="party 1")
    line = Line(link, owner="party 0", timeout_s=TIMEOUT_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run, Takes())
        header = pack_message([1, 64, ["data"]])
        await far.send_all(encode_prefix(len(header), 64, limits=DEFAULT_LIMITS) + header)
        for _ in range(7):  # as slowly as beats come, so that something always arrives
            await trio.sleep(1)
            with contextlib.suppress(trio.BrokenResourceError):  # given up meanwhile
                await far.send_all(bytes(8))
        assert "party 1 stopped in the middle of a message for 4 s" in str(line.lost)
        nursery.cancel_scope.cancel()


class _Plain(ByteStream):
    """A stream of trio's as links read it."""

    def __init__(self, stream):
        self._stream = stream

    async def send_all(self, pieces):
        await self._stream.send_all(b"".join(pieces))

    async def receive_into(self, view):
        data = await self._stream.receive_some(len(view))
        view[: len(data)] = data
        return len(data)

    async def aclose(self):
        await self._stream.aclose()
