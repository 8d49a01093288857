"""`check_transport`: what every link must do, as a suite to run on your own transport.

In the manner of `trio.testing.check_two_way_stream`: it takes a function that makes a pair of joined links,
puts them through everything `tercet.transports.Link` promises, and raises an error with a sentence on the
first broken promise. Run it in one test and half of a transport is tested; the other half, its own handshakes
and failures, is yours.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import numpy as np
import trio
import trio.testing

from tercet.errors import PeerLost, TransportError
from tercet.transports import Buffer, Link

MakePair = Callable[[], Awaitable[tuple[Link, Link]]]

_PATIENCE = 30.0
_BROKEN = "The transport breaks a promise of Link"
_LARGE = 32 * 1024 * 1024


def _require(condition: object, promise: str) -> None:
    if not condition:
        raise TransportError(f"{_BROKEN}: {promise}.")


@contextlib.contextmanager
def _must_raise(kind: type[Exception], doing: str) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    except (TransportError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        raise TransportError(f"{_BROKEN}: {doing} must raise {kind.__name__}, not {error!r}.") from error
    raise TransportError(f"{_BROKEN}: {doing} must raise {kind.__name__}.")


@contextlib.contextmanager
def _must_finish(doing: str) -> Iterator[None]:
    try:
        with trio.fail_after(_PATIENCE):
            yield
    except trio.TooSlowError:
        raise TransportError(f"{_BROKEN}: {doing} does not come to an end.") from None


@contextlib.asynccontextmanager
async def _joined(make_pair: MakePair) -> AsyncIterator[tuple[Link, Link]]:
    left, right = await make_pair()
    try:
        yield left, right
    finally:
        with _must_finish("aclose"):
            await left.aclose()
            await right.aclose()


async def _receive(link: Link) -> tuple[bytes, bytes]:
    header, length = await link.receive_header()
    payload = bytearray(length)
    if length:
        await link.receive_payload(payload)
    return header, bytes(payload)


def _bytes_of(buffer: Buffer) -> bytes:
    return buffer.tobytes() if isinstance(buffer, np.ndarray) else bytes(buffer)


async def _pass(sender: Link, receiver: Link, header: bytes, buffers: Sequence[Buffer]) -> None:
    """Send one frame and require that it arrives unharmed."""
    wanted = b"".join(_bytes_of(buffer) for buffer in buffers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, header, buffers)
        got_header, got_payload = await _receive(receiver)
    _require(type(got_header) is bytes, "receive_header returns bytes")
    _require(got_header == header, f"a header of {len(header)} bytes arrives unchanged")
    _require(
        got_payload == wanted, f"a payload of {len(wanted)} bytes in {len(buffers)} buffers arrives unchanged"
    )


async def check_transport(make_pair: MakePair) -> None:
    """Check the promises of `Link` on pairs that `make_pair` makes: an async function giving (left, right).

    It needs about 200 MB of memory, and a clock that runs (no `trio.testing.MockClock`).

    Raises:
      TransportError: a promise is broken; the sentence says which.
    """
    for check in (
        _check_frames,
        _check_order,
        _check_reuse_of_buffers,
        _check_large_both_ways,
        _check_counters,
        _check_payload_length,
        _check_short_frames,
        _check_cancelled_receive,
        _check_one_at_a_time,
        _check_peer_closes,
        _check_close_during_receive,
        _check_use_after_close,
        _check_cancelled_close,
    ):
        try:
            with _must_finish(check.__name__.removeprefix("_check_").replace("_", " ")):
                await check(make_pair)
        except ExceptionGroup as group:
            raise _first_broken_promise(group) from group


def _first_broken_promise(error: Exception) -> Exception:
    """Return a plain error out of the groups in which nurseries wrap it, if possible a broken promise."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_first_broken_promise(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if str(leaf).startswith(_BROKEN)), leaves[0])


async def _check_frames(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        for sender, receiver in ((left, right), (right, left)):
            await _pass(sender, receiver, b"", ())
            await _pass(sender, receiver, b"header only", ())
            await _pass(sender, receiver, b"empty buffers", [b"", np.empty((0, 3)), bytearray()])
            await _pass(
                sender, receiver, b"no multiple of eight", [b"\x01\x02\x03", np.arange(5, dtype=np.uint8)]
            )
            await _pass(
                sender, receiver, b"\xff" * 100_001, [np.arange(12, dtype=np.uint64).reshape(2, 3, 2)]
            )
            odd = [np.full(size, size % 251, dtype=np.uint8) for size in range(3000)]
            await _pass(sender, receiver, b"many buffers of odd sizes", odd)
            await _pass(sender, receiver, b"", [memoryview(b"view"), np.array(7.5), np.array([True, False])])


async def _check_order(make_pair: MakePair) -> None:
    frames = [(str(i).encode(), np.arange(i * 37 % 501, dtype=np.int32)) for i in range(300)]

    async def send_all(link: Link) -> None:
        for header, data in frames:
            await link.send(header, [data])

    async with _joined(make_pair) as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(send_all, left)
        for header, data in frames:
            _require(await _receive(right) == (header, data.tobytes()), "frames arrive whole and in order")


async def _check_reuse_of_buffers(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right), trio.open_nursery() as nursery:

        async def send_twice() -> None:
            array = np.full(1000, 1, dtype=np.uint64)
            for value in (1, 2):
                array[:] = value
                await left.send(b"", [array])
            array[:] = 3

        nursery.start_soon(send_twice)
        for value in (1, 2):
            got = np.frombuffer((await _receive(right))[1], dtype=np.uint64)
            _require((got == value).all(), "after send has returned the caller may change the buffers")


async def _check_large_both_ways(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        data = np.arange(_LARGE // 8, dtype=np.uint64)

        async def receive(link: Link) -> None:
            _, length = await link.receive_header()
            _require(length == data.nbytes, "receive_header returns the length of the payload")
            got = np.empty_like(data)
            await link.receive_payload(got)
            _require(
                np.array_equal(got, data), "large payloads arrive unchanged while others go the other way"
            )

        async with trio.open_nursery() as nursery:
            for link in (left, right):
                nursery.start_soon(receive, link)
                nursery.start_soon(link.send, b"large", [data])


async def _check_counters(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        for link in (left, right):
            _require(link.bytes_sent == link.bytes_received == 0, "a new link has counted nothing")
        await _pass(left, right, b"abc", [b"12345"])
        first = left.bytes_sent
        _require(first >= 8, "headers and payloads are counted")
        await _pass(left, right, b"abcd", [b"12345", b"67"])
        _require(left.bytes_sent == 2 * first + 3, "every byte of header and payload is counted once")
        await _pass(right, left, b"x", ())
        for sender, receiver in ((left, right), (right, left)):
            _require(sender.bytes_sent == receiver.bytes_received, "counts of sender and receiver agree")


async def _check_payload_length(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        await left.send(b"", [b"12345678"])
        await left.send(b"next")
        await right.receive_header()
        with _must_raise(TransportError, "receive_payload into a buffer of the wrong length"):
            await right.receive_payload(bytearray(7))
        with _must_raise(TransportError, "receive_payload into a read-only buffer"):
            await right.receive_payload(bytes(8))
        with _must_raise(TransportError, "receive_header before the payload has been received"):
            await right.receive_header()
        payload = bytearray(8)
        await right.receive_payload(payload)
        _require(payload == b"12345678", "a receive that was refused loses nothing")
        await right.receive_payload(bytearray())
        _require(await _receive(right) == (b"next", b""), "the next frame follows")
        with _must_raise(TransportError, "sending a buffer that is not contiguous"):
            await left.send(b"", [np.zeros((4, 4))[:, ::2]])
        await _pass(left, right, b"fine", [b"again"])


async def _check_short_frames(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        for number in range(20):
            sent = [np.full(size, number, dtype=np.uint64) for size in (number, 3 * number)]
            rest = left.send_now(str(number).encode(), sent)
            if rest is not None:
                await rest
            header, length = await right.receive_header()
            got = bytearray(length)
            if length and not right.take_payload(got):
                await right.receive_payload(got)
            _require(
                header == str(number).encode() and got == b"".join(one.tobytes() for one in sent),
                "frames of send_now arrive whole and in order, and take_payload fills all of its array",
            )
        _require(left.bytes_sent == right.bytes_received, "frames of send_now are counted once")
        await _pass(left, right, b"other frames follow", [b"data"])


async def _check_cancelled_receive(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        got: list[bytes] = []
        wanted = [bytes([i]) * (1 + i * 997) for i in range(40)]

        async def send_slowly() -> None:
            for header in wanted:
                await left.send(header)
                for _ in range(3):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly)
            attempts = 0  # since the last frame; they grow longer, for links that need many turns
            while len(got) < len(wanted) and attempts < 40:
                with trio.CancelScope() as scope:
                    nursery.start_soon(_cancel_later, scope, 2 ** min(attempts, 12))
                    header, _ = await right.receive_header()
                    got.append(header)
                attempts = attempts + 1 if scope.cancelled_caught else len(got) % 2
            nursery.cancel_scope.cancel()
        _require(got == wanted, "a receive_header that is cancelled loses nothing and can be called again")

        with trio.CancelScope() as scope:
            scope.cancel()
            await left.send(b"never")
        _require(scope.cancelled_caught, "send is a checkpoint")
        await _pass(left, right, b"a send cancelled before it began leaves the link intact", [b"data"])


async def _cancel_later(scope: trio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def _check_one_at_a_time(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(left.receive_header)
        await trio.testing.wait_all_tasks_blocked()
        with _must_raise(trio.BusyResourceError, "a second receive_header at the same time"):
            await left.receive_header()
        await right.send(b"done")


async def _check_peer_closes(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        left.peer = "party 7"
        await right.send(b"last words", [b"data"])
        await right.aclose()
        _require(
            await _receive(left) == (b"last words", b"data"),
            "frames that were sent before a close still arrive",
        )
        for _ in range(2):
            try:
                await left.receive_header()
            except PeerLost as error:
                _require(error.peer == "party 7" in str(error), "PeerLost names link.peer")
            else:
                raise TransportError(f"{_BROKEN}: a close is seen as PeerLost.")
        with _must_raise(PeerLost, "sending on and on to a peer that has closed"):
            for _ in range(1000):  # the first ones may vanish in the operating system's buffers
                await left.send(b"hello?", [bytes(100_000)])

    async with _joined(make_pair) as (left, right), trio.open_nursery() as nursery:

        async def wait() -> None:
            with _must_raise(PeerLost, "a receive_header that waits while the peer closes"):
                await left.receive_header()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await right.aclose()


async def _check_close_during_receive(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, _), trio.open_nursery() as nursery:

        async def wait() -> None:
            with _must_raise(trio.ClosedResourceError, "a receive_header while this end closes the link"):
                await left.receive_header()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()


async def _check_use_after_close(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        await right.send(b"unread", [b"data"])
        await left.aclose()
        await left.aclose()
        with _must_raise(trio.ClosedResourceError, "send after aclose"):
            await left.send(b"")
        with _must_raise(trio.ClosedResourceError, "receive_header after aclose"):
            await left.receive_header()
        with _must_raise(trio.ClosedResourceError, "receive_payload after aclose"):
            await left.receive_payload(bytearray(4))
        with _must_raise(trio.ClosedResourceError, "send_now after aclose"):
            rest = left.send_now(b"")
            if rest is not None:
                await rest


async def _check_cancelled_close(make_pair: MakePair) -> None:
    async with _joined(make_pair) as (left, right):
        with trio.CancelScope() as scope:
            scope.cancel()
            await left.aclose()
        with _must_raise(trio.ClosedResourceError, "receive_header after a cancelled aclose"):
            await left.receive_header()
        with _must_raise(PeerLost, "receive_header after the peer's aclose was cancelled"):
            await right.receive_header()
