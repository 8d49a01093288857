"""Who is let in over TLS, who is not, what both ends are told, and that the listener always goes on."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket as stdlib_socket
import ssl
import stat
import sys
import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing

from tercet.errors import PeerLost, TransportError
from tercet.transports import Identity, Listener, TcpTransport, TlsTransport, make_identity
from tercet.transports.admission import Limits
from tercet.transports.identity import Pins, make_context

ALICE, BOB, EVE = (make_identity(name) for name in ("alice", "bob", "eve"))
PINS = {"alice": ALICE.certificate_pem, "bob": BOB.certificate_pem}
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 at once")
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def alice(pins=PINS, identity: Identity = ALICE, **options) -> TlsTransport:
    return TlsTransport(identity, pins, **options)


@pytest.fixture
async def bob(nursery):
    """A listener whose owner pins alice and himself."""
    async with await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener:
        yield listener


async def assert_alice_is_served(listener: Listener) -> None:
    async with await alice().connect(listener.address, peer="bob") as near, await listener.accept() as far:
        assert (near.peer, far.peer) == ("bob", "alice")
        await near.send(b"hello", [b"bob"])
        assert await far.receive_header() == (b"hello", 3)
        assert far.bytes_received == 16 + 5


async def wait_for_log(caplog, text: str) -> None:
    with trio.fail_after(60):
        while text not in caplog.text:
            await trio.lowlevel.checkpoint()


async def test_peers_are_known_by_the_names_of_their_pins(bob):
    await assert_alice_is_served(bob)


async def test_a_certificate_may_be_pinned_under_another_name(nursery):
    listener = await TlsTransport(BOB, {"hospital": ALICE.certificate_pem}).listen(
        "127.0.0.1:0", nursery=nursery
    )
    async with (
        listener,
        await alice({"insurer": BOB.certificate_pem}).connect(listener.address, peer="insurer") as near,
        await listener.accept() as far,
    ):
        assert (near.peer, far.peer) == ("insurer", "hospital")


async def test_unpinned_client(bob, caplog):
    for _ in range(3):
        with pytest.raises(TransportError, match=r"bob at 127.* refused: the certificate is not pinned"):
            await alice(identity=EVE).connect(bob.address, peer="bob")
    await wait_for_log(caplog, "its certificate is not pinned at this end")
    await assert_alice_is_served(bob)


async def test_client_that_copies_a_pinned_name(bob):
    with pytest.raises(TransportError, match="refused"):
        await alice(identity=make_identity("alice")).connect(bob.address, peer="bob")
    await assert_alice_is_served(bob)


async def test_unpinned_server(bob, caplog):
    with pytest.raises(TransportError, match=r"bob at 127.*certificate is not pinned at this end"):
        await alice({"bob": EVE.certificate_pem}).connect(bob.address, peer="bob")
    await wait_for_log(caplog, "it refused: the certificate is not pinned")
    await assert_alice_is_served(bob)


async def test_wrong_expected_name(bob, caplog):
    with pytest.raises(TransportError, match=r"alice expected carol at 127.*, but bob answered"):
        await alice({**PINS, "carol": EVE.certificate_pem}).connect(bob.address, peer="carol")
    await wait_for_log(caplog, "alice refused this end: 'alice expected carol")
    await assert_alice_is_served(bob)


async def test_nobody_is_connected_to_without_a_pin(bob):
    with pytest.raises(TransportError, match="No certificate is pinned for carol"):
        await alice().connect(bob.address, peer="carol")


@pytest.mark.parametrize("years", [0, 100])
async def test_client_outside_its_validity(bob, caplog, years, nursery):
    stale = make_identity("alice", valid_from=LONG_AGO + dt.timedelta(days=365 * years))
    async with await TlsTransport(BOB, {"alice": stale.certificate_pem}).listen(
        "127.0.0.1:0", nursery=nursery
    ) as listener:
        with pytest.raises(TransportError, match="it refused"):
            await alice(identity=stale).connect(listener.address, peer="bob")
        await wait_for_log(caplog, "or a clock is wrong")


async def test_expired_server(nursery):
    stale = make_identity("bob", valid_from=LONG_AGO)
    async with await TlsTransport(stale, PINS).listen("127.0.0.1:0", nursery=nursery) as listener:
        with pytest.raises(TransportError, match=r"certificate has expired, or a clock is wrong"):
            await alice({"bob": stale.certificate_pem}).connect(listener.address, peer="bob")


def plain_client(context: ssl.SSLContext, address: str, **options) -> None:
    """Shake hands as a program that is not Tercet would."""
    host, port = address.split(":")
    with (
        stdlib_socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw, **options) as secure,
    ):
        secure.recv(1)


async def test_client_without_a_certificate(bob, caplog):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=BOB.certificate_pem)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await trio.to_thread.run_sync(plain_client, context, bob.address)
    await wait_for_log(caplog, "the client showed no certificate")
    await assert_alice_is_served(bob)


def test_no_room_for_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(TransportError, match=r"let this process write to a temporary directory.*PrivateTmp"):
        make_context(ALICE, Pins.read(PINS), server=False)


async def test_client_with_tls_1_2(bob, caplog):
    context = make_context(ALICE, Pins.read(PINS), server=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await trio.to_thread.run_sync(plain_client, context, bob.address)
    await wait_for_log(caplog, "Tercet uses TLS 1.3 only")
    await assert_alice_is_served(bob)


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"T3\x01\x00" + bytes(500), b"\x16\x03\x01"]
)
async def test_garbage(bob, caplog, garbage):
    host, port = bob.address.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(garbage)
    await stream.aclose()
    await wait_for_log(caplog, "No TLS handshake with client at 127.0.0.1")
    await assert_alice_is_served(bob)


async def test_plain_client_is_told_apart(bob, caplog):
    async with await TcpTransport().connect(bob.address, peer="bob") as link:
        await link.send(b"hello")
        with pytest.raises(TransportError):
            await link.receive_header()
    await wait_for_log(caplog, "does the other end use plain TCP?")
    await assert_alice_is_served(bob)


async def strangers(listener: Listener, count: int, host: str = "127.0.0.1") -> list[trio.SocketStream]:
    """Connections from an address of this machine that say nothing."""
    where, port = listener.address.split(":")
    return [await trio.open_tcp_stream(where, int(port), local_address=host) for _ in range(count)]


async def test_slow_handshakes_delay_nobody_and_are_ended(bob, caplog, mock_clock):
    idle = await strangers(bob, 8)
    with trio.fail_after(60):
        async with (
            await alice().connect(bob.address, peer="bob") as near,  # in the place of the oldest
            await bob.accept() as far,
        ):
            assert (near.peer, far.peer) == ("bob", "alice")
        assert await idle[0].receive_some() == b""
    mock_clock.jump(5.1)
    for stream in idle:
        assert await stream.receive_some() == b""
        await stream.aclose()
    assert caplog.text.count("within 5 seconds") == 7
    await assert_alice_is_served(bob)


@linux
async def test_strangers_at_one_address_hinder_nobody_at_another(nursery, mock_clock):
    """No time passes, so nobody waits for a handshake of theirs to end."""
    refused: list[str] = []
    server = TlsTransport(BOB, PINS)
    server.on_refusal = refused.append
    async with await server.listen("127.0.0.1:0", nursery=nursery) as listener:
        idle = await strangers(listener, 64, "127.0.0.2")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sum("made room for others" in why for why in refused) == 56
        for _ in range(3):
            await assert_alice_is_served(listener)
        assert len(refused) == 56, "alice took nobody's place"
        assert mock_clock.current_time() < 1
        for stream in idle:
            await stream.aclose()


@linux
async def test_strangers_at_many_addresses_make_room(nursery, mock_clock):
    """All together may have so many at a time; then those of the address with most let their oldest go."""
    server = TlsTransport(BOB, PINS, strangers=Limits(at_once=12, of_address=8))
    async with await server.listen("127.0.0.1:0", nursery=nursery) as listener:
        many = await strangers(listener, 8, "127.0.0.2")
        few = [stream for place in range(3, 7) for stream in await strangers(listener, 1, f"127.0.0.{place}")]
        await trio.testing.wait_all_tasks_blocked(0.05)
        for _ in range(4):
            await assert_alice_is_served(listener)
        assert await many[0].receive_some() == b"", "the oldest of the address that has most"
        for stream in (*many[1:], *few):
            with trio.move_on_after(0.01) as waited, mock_clock_goes_on(mock_clock):
                await stream.receive_some()
            assert waited.cancelled_caught, "these go on with their handshake"
        for stream in (*many, *few):
            await stream.aclose()


@contextlib.contextmanager
def mock_clock_goes_on(clock):
    """Let time pass while all tasks wait."""
    clock.autojump_threshold = 0.01
    try:
        yield
    finally:
        clock.autojump_threshold = float("inf")


@linux
async def test_an_address_connects_so_often(nursery, mock_clock):
    """Whoever connects again and again is turned away without a handshake, for a while, and nobody else."""
    refused: list[str] = []
    server = TlsTransport(BOB, PINS, strangers=Limits(a_second=2, burst=5))
    server.on_refusal = refused.append
    async with await server.listen("127.0.0.1:0", nursery=nursery) as listener:
        for _ in range(8):
            for stream in await strangers(listener, 1, "127.0.0.2"):
                await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sum("connects too often" in why for why in refused) == 3
        await assert_alice_is_served(listener)
        mock_clock.jump(0.5)
        (again,) = await strangers(listener, 1, "127.0.0.2")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sum("connects too often" in why for why in refused) == 3
        await again.aclose()


async def test_a_silent_server_ends_in_a_sentence(mock_clock, nursery):
    async with await TcpTransport().listen("127.0.0.1:0", nursery=nursery) as listener:

        async def connect() -> None:
            with pytest.raises(TransportError, match="within 5 seconds"):
                await alice().connect(listener.address, peer="bob")

        async with trio.open_nursery() as connecting:
            connecting.start_soon(connect)
            link = await listener.accept()
            with pytest.raises(TransportError):
                await link.receive_header()  # TLS's hello is no frame
            mock_clock.jump(5.1)
        await link.aclose()


async def test_closing_the_listener_ends_handshakes_and_waiting_links(nursery):
    listener = await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery)
    waiting = await alice().connect(listener.address, peer="bob")
    host, port = listener.address.split(":")
    idle = await trio.open_tcp_stream(host, int(port))
    async with trio.open_nursery() as both:
        await trio.testing.wait_all_tasks_blocked(0.01)
        await listener.aclose()
        await listener.aclose()
        both.start_soon(idle.aclose)
    with pytest.raises(PeerLost):
        await waiting.receive_header()
    await waiting.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_flipped_bit_on_the_wire_is_no_frame(nursery):
    """A proxy between the ends spoils one byte: the receiver gets an error, never other data."""
    async with (
        await TlsTransport(BOB, PINS).listen("127.0.0.1:0", nursery=nursery) as listener,
        await TcpTransport().listen("127.0.0.1:0", nursery=nursery) as proxy,
    ):
        spoil = trio.Event()

        async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            async for chunk in source:
                data = bytearray(chunk)
                if spoil.is_set():
                    data[-1] ^= 1
                await sink.send_all(data)

        async def relay() -> None:
            near = (await proxy._listener.accept())[0]
            host, port = listener.address.split(":")
            far = await trio.open_tcp_stream(host, int(port))
            async with trio.SocketStream(near) as near_stream, far, trio.open_nursery() as pumps:
                pumps.start_soon(pump, near_stream, far)
                pumps.start_soon(pump, far, near_stream)

        async with trio.open_nursery() as both:
            both.start_soon(relay)
            async with (
                await alice().connect(proxy.address, peer="bob") as near,
                await listener.accept() as far,
            ):
                await near.send(b"good")
                assert await far.receive_header() == (b"good", 0)
                spoil.set()
                await near.send(b"spoilt")
                with pytest.raises(TransportError, match="does not decrypt") as caught:
                    await far.receive_header()
                assert not isinstance(caught.value, PeerLost)
            both.cancel_scope.cancel()


def test_no_key_touches_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self, path, **options):
        seen.append((Path(path).read_text(), stat.S_IMODE(Path(path).stat().st_mode)))
        load(self, path, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    TlsTransport(ALICE, PINS)
    secret = ALICE.key_pem.splitlines()[1]
    assert len(seen) == 2
    for text, mode in seen:
        assert secret not in text
        assert "ENCRYPTED" in text
        assert mode == 0o600
    assert list(tmp_path.iterdir()) == []
    assert secret not in repr(ALICE)


@pytest.mark.parametrize(
    ("identity", "pins", "sentence"),
    [
        (ALICE, {}, "No certificate is pinned"),
        (ALICE, {"bob": "nonsense"}, "pinned for bob is no certificate"),
        (ALICE, {"bob": BOB.certificate_pem, "rob": BOB.certificate_pem}, "pinned for bob and for rob"),
        (
            Identity("alice", ALICE.certificate_pem, EVE.key_pem),
            PINS,
            "key of alice are malformed or do not belong",
        ),
        (Identity("alice", "", ALICE.key_pem), PINS, "key of alice are malformed or do not belong"),
        (
            Identity("alice", ALICE.certificate_pem, "no key"),
            PINS,
            "key of alice are malformed or do not belong",
        ),
    ],
)
def test_bad_settings(identity, pins, sentence):
    with pytest.raises(TransportError, match=sentence):
        TlsTransport(identity, pins)


def test_a_malformed_certificate_has_a_sentence():
    with pytest.raises(TransportError, match="The certificate of alice is malformed"):
        _ = Identity("alice", "nonsense", ALICE.key_pem).certificate
    assert ALICE.certificate == ssl.PEM_cert_to_DER_cert(ALICE.certificate_pem)


def test_identity_needs_a_name():
    with pytest.raises(TransportError, match="needs a name"):
        make_identity("")
