"""Sealed records: as they are written down, arriving in any pieces, and nothing altered gets through."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import ssl
import struct

import attrs
import numpy as np
import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tercet.errors import PeerLost, TransportError
from tercet.transports import TcpTransport, TlsTransport, make_identity, tls
from tercet.transports import records as module
from tercet.transports.records import RECORD_BYTES, Contribution, Direction, SealedStream, keys_of
from tercet.transports.stream import ByteStream, DamagedError, SocketStream, StreamLink
from tercet.transports.wire import pack_message

CLIENT = Contribution(bytes(range(32)), b"the client's certificate")
SERVER = Contribution(bytes(range(32, 64)), b"the server's certificate")
SHORT, LONG = b"ab", bytes(range(256)) * 100
RNG = np.random.default_rng(0)
KEYS = (
    "8983f6a83c289bc632320fb6c458b7d939566e8ff3e31b8cf3baf5c8e3b585cd"
    "2ad3bc7be6b37c7c03453b854d03bd815386f6b2d879f43ac5046ab71092c8d9"
)
RECORD = "0000000200de4640fe4733cd2f016d44e03e0795c663"


class Pipe(ByteStream):
    """One way, in memory: what was sent is there to be altered, and arrives in pieces of some sizes."""

    def __init__(self, sizes=(1 << 16,)):
        self.data = bytearray()
        self._sizes = itertools.cycle(sizes)

    async def send_all(self, pieces):
        self.data += b"".join(pieces)

    async def receive_into(self, view):
        count = min(next(self._sizes), len(view), len(self.data))
        view[:count] = self.data[:count]
        del self.data[:count]
        return count

    async def aclose(self):
        pass


def ends(pipe, early=b""):
    """Who sends through a pipe, and who receives."""
    key, back = keys_of(CLIENT, SERVER)
    made = [(key, back), (back, key)]
    return [
        SealedStream(pipe, sends=Direction(sends), receives=Direction(receives), early=early)
        for sends, receives in made
    ]


async def received(stream, sizes=(1 << 16,)):
    """All that comes, asked for in pieces of some sizes."""
    found, size = bytearray(), itertools.cycle(sizes)
    while count := await stream.receive_into(view := memoryview(bytearray(next(size)))):
        found += view[:count]
    return bytes(found)


def records(data):
    """The records in what was sent."""
    found, place = [], 0
    while place < len(data):
        size = 4 + struct.unpack_from(">I", data, place)[0] + 16
        found.append(bytes(data[place : place + size]))
        place += size
    return found


async def sent(*messages):
    """The records of some messages, sent one after the other."""
    near, _ = ends(pipe := Pipe())
    for message in messages:
        await near.send_all([memoryview(message)])
    return records(pipe.data)


# -- what is on the wire -------------------------------------------------------------------------------------


def test_keys_and_records_are_as_written_down():
    """Two vectors, and the same from the standards' own parts."""
    ends = b"".join(hashlib.sha256(end.certificate).digest() for end in (CLIENT, SERVER))
    info = b"tercet sealed records 1: both keys" + ends
    both = HKDF(SHA256(), 64, None, info).derive(CLIENT.random + SERVER.random)
    assert keys_of(CLIENT, SERVER) == (both[:32], both[32:])
    assert both.hex() == KEYS
    record = bytes(Direction(both[:32]).seal([memoryview(SHORT)], bytearray()))
    assert record.hex() == RECORD
    assert record == b"\0\0\0\2" + AESGCM(both[:32]).encrypt(bytes(12), SHORT, b"\0\0\0\2")


@pytest.mark.parametrize("size", [1, 1 << 14, (1 << 14) + 1, RECORD_BYTES - 1, RECORD_BYTES])
def test_short_and_long_records_are_alike(size):
    """Whichever way the cipher is called, in one piece or in several."""
    key, data = keys_of(CLIENT, SERVER)[0], RNG.bytes(size)
    out = bytearray(RECORD_BYTES + 20)
    length = struct.pack(">I", size)
    expected = length + AESGCM(key).encrypt(bytes(12), data, length)
    for cuts in ([], [size // 2], [size // 3, size // 2]):
        pieces = [memoryview(data)[a:b] for a, b in itertools.pairwise([0, *cuts, size]) if b > a]
        assert bytes(Direction(key).seal(pieces, out)) == expected


async def test_keys_are_replaced_and_no_nonce_is_used_twice(monkeypatch):
    used = []
    nonce = Direction._nonce

    def noted(self):
        found = nonce(self)
        used.append((id(self), self._key, found))
        return found

    monkeypatch.setattr(Direction, "_nonce", noted)
    monkeypatch.setattr(module, "RECORDS_PER_KEY", 3)
    near, far = ends(pipe := Pipe())
    message = b"".join(bytes([number]) * (number + 1) for number in range(10))
    for number in range(10):
        await near.send_all([memoryview(bytes([number]) * (number + 1))])
    assert await received(far) == message
    sender = [one[1:] for one in used if one[0] == used[0][0]]
    assert len(sender) == len(set(sender)) == 10
    assert len({key for key, _ in sender}) == 4
    second = HKDF(SHA256(), 32, None, b"tercet sealed records 1: next key").derive(sender[0][0])
    assert sender[3] == (second, bytes(12))
    assert not pipe.data


def test_both_ends_make_the_keys_and_directions_differ():
    changes = {"random": bytes(32)}, {"certificate": b"mallory's"}
    ends = [(CLIENT, SERVER), (SERVER, CLIENT)]
    ends += [(attrs.evolve(CLIENT, **change), SERVER) for change in changes]
    ends += [(CLIENT, attrs.evolve(SERVER, **change)) for change in changes]
    assert len({key for pair in ends for key in keys_of(*pair)}) == 12


# -- arriving ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arriving", "asked"),
    [((1 << 20,), (1 << 20,)), ((1,), (7,)), ((5, 70_000, 1), (1 << 16, 3)), ((1 << 18,), (1, 1 << 18))],
)
async def test_bytes_arrive_in_order_in_any_pieces(arriving, asked):
    near, far = ends(Pipe(arriving))
    most = 3000 if min(arriving) == 1 == len(arriving) else 3 * RECORD_BYTES + 5
    whole = b""
    for size in (1, 2, 300, RECORD_BYTES, RECORD_BYTES + 1, most):
        data = RNG.bytes(min(size, most))
        cuts = sorted({0, len(data), *RNG.integers(0, len(data) + 1, 3).tolist()})
        await near.send_all([memoryview(data)[a:b] for a, b in itertools.pairwise(cuts)])
        whole += data
    assert await received(far, asked) == whole


async def test_what_came_with_the_greeting_is_the_beginning():
    begun, rest = (await sent(SHORT, LONG * 3))[:2]
    for cut in (0, 1, 3, 4, len(begun) - 1, len(begun), len(begun) + 70_000):
        pipe = Pipe()
        pipe.data += (begun + rest)[cut:]
        _, far = ends(pipe, early=(begun + rest)[:cut])
        assert await received(far) == SHORT + LONG * 3


@pytest.mark.parametrize("size", [2, 200_000])
async def test_a_receive_that_is_cancelled_has_taken_nothing(size):
    near, far = ends(pipe := Pipe())
    message = RNG.bytes(size)
    await near.send_all([memoryview(message)])
    data = bytes(pipe.data)
    gate = trio.Event()

    async def slowly(view):
        if not pipe.data:
            await gate.wait()
        return await Pipe.receive_into(pipe, view)

    pipe.receive_into = slowly
    pipe.data[:] = data[:-1]
    with trio.move_on_after(0.01) as scope:
        await received(far)
    assert scope.cancelled_caught
    pipe.data[:] = data[-1:]
    gate.set()
    assert await received(far) == message


async def test_a_long_payload_begins_a_record():
    """So it is opened where it is wanted; what is before it goes out in the same call."""
    pipe, calls = Pipe(), []

    async def noted(pieces):
        calls.append([len(piece) for piece in pieces])
        await Pipe.send_all(pipe, pieces)

    pipe.send_all = noted
    near, far = ends(pipe)
    await near.send_all([memoryview(b"header"), memoryview(SHORT), memoryview(LONG * 20), memoryview(SHORT)])
    assert [size - 20 for call in calls for size in call] == [
        8,
        RECORD_BYTES,
        len(LONG * 20) - RECORD_BYTES + 2,
    ]
    assert len(calls) == 2
    view = memoryview(bytearray(1 << 16))
    assert await far.receive_into(view) == 8
    assert await received(far) == LONG * 20 + SHORT


async def test_tiny_records_keep_nobody_waiting():
    """Whoever sends many gets a bounded time in one go, and each call lets others run or be cancelled."""
    near, far = ends(Pipe())
    message = RNG.bytes(2 * module.RECORDS_AT_ONCE + 1)
    for byte in message:
        await near.send_all([memoryview(bytes([byte]))])
    view, found = memoryview(bytearray(1 << 16)), b""
    for count in (module.RECORDS_AT_ONCE, module.RECORDS_AT_ONCE, 1):
        if found:
            with trio.CancelScope() as scope:
                scope.cancel()
                await far.receive_into(view)
            assert scope.cancelled_caught
        assert await far.receive_into(view) == count
        found += view[:count]
    assert found == message


# -- attacks -------------------------------------------------------------------------------------------------


async def refused(data):
    """What arrives of altered records: nothing that was not sent, then an error, again and again."""
    pipe = Pipe()
    pipe.data += data
    _, far = ends(pipe)
    found, view = bytearray(), memoryview(bytearray(1 << 20))
    with pytest.raises(DamagedError):
        while count := await far.receive_into(view):
            found += view[:count]
    with pytest.raises(DamagedError):
        await far.receive_into(view)
    return bytes(found)


@pytest.mark.parametrize("message", [SHORT, LONG])
async def test_no_altered_byte_gets_through(message):
    first, second = await sent(message, message)
    places = range(4, len(first)) if len(first) < 100 else RNG.integers(4, len(first), 40).tolist()
    for place in places:
        for bit in range(8):
            wrong = bytearray(first)
            wrong[place] ^= 1 << bit
            assert await refused(bytes(wrong) + second) == b""


@pytest.mark.parametrize("size", [0, 1, 3, RECORD_BYTES + 1, 2**32 - 1])
async def test_no_altered_length_gets_through(size):
    """One that is too large is refused before anything is kept for it."""
    first, second = await sent(SHORT, SHORT)
    assert await refused(struct.pack(">I", size) + first[4:] + second * 2) == b""


@pytest.mark.parametrize(
    "order",
    [(1,), (1, 0), (0, 0), (0, 2, 1), (0, 2), (0, 1, 1), (2, 0, 1)],
    ids=lambda order: "".join(map(str, order)),
)
async def test_records_come_once_in_order_and_without_a_gap(order):
    messages = [b"one", LONG, b"three"]
    made = await sent(*messages)
    right = [
        a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(order, range(3), strict=False))
    ]
    assert await refused(b"".join(made[place] for place in order)) == b"".join(messages[at] for at in right)


async def test_nothing_can_be_sent_back():
    """What one end has said is not what the other says, on this link or on another."""
    (record,) = await sent(SHORT)
    pipe = Pipe()
    pipe.data += record
    near, _ = ends(pipe)
    with pytest.raises(DamagedError):
        await near.receive_into(memoryview(bytearray(9)))


async def test_a_link_that_is_cut_ends_without_what_was_not_whole():
    first, second = await sent(SHORT, LONG)
    for keep in (1, 4, 20, len(second) - 1):
        pipe = Pipe()
        pipe.data += first + second[:keep]
        _, far = ends(pipe)
        assert await received(far) == SHORT


# -- on sockets ----------------------------------------------------------------------------------------------

ALICE, BOB, MALLORY = (make_identity(name) for name in ("alice", "bob", "mallory"))
PINS = {one.name: one.certificate_pem for one in (ALICE, BOB, MALLORY)}


async def pump(source, sink, seen, pause, scope):
    async for chunk in source:
        await trio.sleep(pause)
        seen += chunk
        await sink.send_all(chunk)
    scope.cancel()


async def relay(listener, address, seen, pause):
    """Pass on one connection, so slowly that what is said at once comes at once, until one end is closed."""
    near = trio.SocketStream((await listener._listener.accept())[0])
    host, port = address.split(":")
    async with near, await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as pumps:
        pumps.start_soon(pump, near, far, seen, pause, pumps.cancel_scope)
        pumps.start_soon(pump, far, near, seen, pause, pumps.cancel_scope)


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_what_is_said_at_once_is_heard_and_seen_by_nobody(nursery, pause):
    """The first frames come in one piece with the end of the handshake."""
    seen = bytearray()
    async with (
        await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener,
        await TcpTransport().listen("127.0.0.1:0", nursery=nursery) as proxy,
    ):
        nursery.start_soon(relay, proxy, listener.address, seen, pause)
        near = await TlsTransport(ALICE, PINS).connect(proxy.address, peer="bob")
        await near.send(b"a secret header", [LONG])
        await near.send(b"another", [SHORT])
        far = await listener.accept()
        for header, payload in ((b"a secret header", LONG), (b"another", SHORT)):
            assert await far.receive_header() == (header, len(payload))
            into = bytearray(len(payload))
            await far.receive_payload(into)
            assert into == payload
        await far.send(b"and an answer")
        assert await near.receive_header() == (b"and an answer", 0)
        assert len(seen) > len(LONG)
        for word in (b"secret", b"another", b"answer", LONG[:16]):
            assert word not in seen
        await near.aclose()
        with pytest.raises(PeerLost):
            await far.receive_header()
        await far.aclose()


@pytest.mark.parametrize("told", [None, b"short", b"x" * 33, 7, [bytes(32)]])
async def test_an_end_that_contributes_nothing_is_turned_away(nursery, monkeypatch, told):
    async def accept(link, contribution):
        assert len(contribution) == 32
        await link.send(pack_message(told))

    monkeypatch.setattr(tls, "_accept", accept)
    async with await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener:
        with pytest.raises(TransportError, match="install the same release of Tercet at both ends"):
            await TlsTransport(ALICE, PINS).connect(listener.address, peer="bob")


async def test_an_end_that_says_more_than_its_greeting_is_turned_away(nursery, monkeypatch, caplog):
    """What was said over TLS beside the greeting is not taken for the beginning of the first frame."""

    async def accept(link, contribution):
        message = pack_message(contribution)
        frame = b"T3\1\0" + struct.pack("<IQ", len(message), 0) + message
        await link._stream.send_all([memoryview(frame + b"T3")])

    server = TlsTransport(BOB, PINS)
    async with await server.listen("127.0.0.1:0", nursery=nursery) as listener:
        monkeypatch.setattr(tls, "_accept", accept)
        with pytest.raises(TransportError, match="bob said more than a greeting"):
            await TlsTransport(ALICE, PINS).connect(listener.address, peer="bob")


async def test_tls_behind_the_greeting_is_no_record(nursery, monkeypatch):
    """More words, a goodbye: the link ends at once instead of waiting for the rest of a long record."""

    async def secure(stream, **options):
        link = await whole(stream, **options)
        with contextlib.suppress(ssl.SSLWantReadError):
            stream._tls.write(b"more")
            stream._tls.unwrap()
        said = stream._outgoing.read()
        for place in (0, 26):  # a record of 4 bytes, then the goodbye
            assert said[place] in (21, 23)
            _, far = ends(pipe := Pipe())
            pipe.data += said[place:]
            with pytest.raises(DamagedError, match="a record of"):
                await far.receive_into(memoryview(bytearray(9)))
        await link._stream._stream.send_all([memoryview(said)])
        return link

    whole = tls._secure
    async with await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener:
        monkeypatch.setattr(tls, "_secure", secure)
        async with (
            await TlsTransport(ALICE, PINS).connect(listener.address, peer="bob") as near,
            await listener.accept() as far,
        ):
            for link in (near, far):
                with pytest.raises(TransportError, match="does not decrypt"):
                    await link.receive_header()


async def test_a_send_that_fails_is_the_last():
    """No frame is put behind half of one, even if the system would take bytes again."""

    async def fail_once(pieces):
        pipe.data += pieces[0][:10]
        del pipe.send_all
        raise OSError(errno.ENOBUFS, "No buffer space available")

    pipe = Pipe()
    pipe.send_all = fail_once
    link = StreamLink(ends(pipe)[0], peer="bob")
    for _ in range(2):
        with pytest.raises(PeerLost, match="The link to bob broke"):
            await link.send(b"hello")
    assert len(pipe.data) == 10


async def test_no_two_links_have_a_key_in_common(nursery, monkeypatch):
    made = []

    def noted(client, server):
        made.append(keys_of(client, server))
        return made[-1]

    monkeypatch.setattr(tls, "keys_of", noted)
    async with await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener:
        for _ in range(3):
            near = await TlsTransport(ALICE, PINS).connect(listener.address, peer="bob")
            far = await listener.accept()
            await near.aclose()
            await far.aclose()
    assert len(made) == 6
    assert len({key for pair in made for key in pair}) == 6, "both ends of a link have the same two"


async def forward(source, sink):
    view = memoryview(bytearray(1 << 16))
    while count := await source.receive_into(view):
        await sink.send_all([view[:count]])


async def test_nobody_steps_out_from_between_two_links(nursery):
    """Mallory, pinned by both, tells each end the other's random bytes: the links have no key in common."""
    mallory = TlsTransport(MALLORY, PINS)

    def end(socket, context, *, server):
        return tls.TlsStream(SocketStream(socket), context, own=MALLORY.certificate, server=server)

    async def between(listener, address):
        host, port = address.split(":")
        async with (
            trio.SocketStream((await listener._listener.accept())[0]) as alice,
            await trio.open_tcp_stream(host, int(port)) as bob,
        ):
            up = end(alice.socket, mallory._server_context, server=True)
            down = end(bob.socket, mallory._client_context, server=False)
            async with trio.open_nursery() as both:
                both.start_soon(up.handshake)
                both.start_soon(down.handshake)
            to_alice, to_bob = StreamLink(up, peer="alice"), StreamLink(down, peer="bob")
            await tls._accept(to_alice, await tls._accepted(to_bob))
            await tls._accept(to_bob, await tls._accepted(to_alice))
            await forward(up._stream, down._stream)

    async with (
        await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener,
        await TcpTransport().listen("127.0.0.1:0", nursery=nursery) as proxy,
    ):
        nursery.start_soon(between, proxy, listener.address)
        async with (
            await TlsTransport(ALICE, PINS).connect(proxy.address, peer="mallory") as near,
            await listener.accept() as far,
        ):
            assert (near.peer, far.peer) == ("mallory", "mallory")
            await near.send(b"for mallory")
            with pytest.raises(TransportError, match="does not decrypt"):
                await far.receive_header()
