"""Latency counts once for all frames under way, bandwidth is shared by them; measured in real time."""

from __future__ import annotations

import statistics
import time

import pytest
import trio

from tercet.errors import TransportError
from tercet.transports import Link, ShapedLink, memory_pair


def shaped(latency_s: float, bandwidth_bps: float | None = None) -> tuple[Link, Link]:
    left, right = memory_pair("party 0", "party 1")
    return ShapedLink(left, latency_s, bandwidth_bps), ShapedLink(right, latency_s, bandwidth_bps)


async def test_one_way_latency():
    left, right = shaped(0.003)
    seconds = []
    async with left, right:
        for _ in range(100):
            start = time.monotonic()
            await left.send(b"ping")
            assert await right.receive_header() == (b"ping", 0)
            seconds.append(time.monotonic() - start)
    assert min(seconds) >= 0.003
    # The best twentieth: the others tell how busy the machine is.
    assert statistics.quantiles(seconds, n=20)[0] < 0.0033


async def test_latencies_of_frames_in_flight_overlap():
    left, right = shaped(0.05)
    async with left, right:
        start = time.monotonic()
        for i in range(50):
            await left.send(b"%d" % i)
        got = [(await right.receive_header())[0] for _ in range(50)]
        assert got == [b"%d" % i for i in range(50)]
        assert 0.05 <= time.monotonic() - start < 1  # 2.5 if they did not


async def test_bandwidth_is_shared_by_frames_in_flight():
    left, right = shaped(0.1, 8e6)  # a megabyte a second
    async with left, right:
        start = time.monotonic()
        for _ in range(10):
            await left.send(b"", [bytes(5_000)])
        buffer = bytearray(5_000)
        for k in range(10):
            await right.receive_header()
            await right.receive_payload(buffer)
            assert time.monotonic() - start >= 0.1 + (k + 1) * 0.005
        assert time.monotonic() - start < 0.8  # 1.05 if each waited for the one before


async def test_frames_jitter_and_stay_in_order():
    """Twenty waits that are each uniform in 40 ms end within 4 ms of each other once in 1e17 times."""
    left, right = memory_pair("party 0", "party 1")
    async with left, ShapedLink(right, 0.02, None, 0.02) as late:
        sender = ShapedLink(left, 0.02)
        seconds = []
        for _ in range(20):
            start = time.monotonic()
            await sender.send(b"ping")
            await late.receive_header()
            seconds.append(time.monotonic() - start)
        assert max(seconds) - min(seconds) > 0.004
        for number in range(50):
            await sender.send(b"%d" % number)
        assert [(await late.receive_header())[0] for _ in range(50)] == [b"%d" % n for n in range(50)]


@pytest.mark.parametrize("coarse", [0.0, 1.0], ids=["while trio sleeps", "while a thread sleeps"])
async def test_a_receive_that_is_cancelled_during_the_wait_loses_nothing(monkeypatch, coarse):
    monkeypatch.setattr("tercet.transports.shaped._COARSE", coarse)
    left, right = shaped(0.6)
    async with left, right:
        start = time.monotonic()
        await left.send(b"patience", [b"data"])
        for _ in range(3):
            with trio.move_on_after(0.001) as scope:
                await right.receive_header()
            assert scope.cancelled_caught
        assert await right.receive_header() == (b"patience", 4)
        assert 0.6 <= time.monotonic() - start < 1.15


async def test_both_ends_must_be_shaped():
    left, right = memory_pair("party 0", "party 1")
    async with left, ShapedLink(right, 0.001) as careful:
        for header in (b"short", b"\xff" * 8):
            await left.send(header)
            with pytest.raises(
                TransportError, match="party 0 sent a frame without a time stamp; wrap both ends"
            ):
                await careful.receive_header()


@pytest.mark.parametrize(("latency", "bandwidth"), [(-1, None), (float("nan"), None), (0, 0), (0, -1e6)])
def test_bad_settings(latency, bandwidth):
    left, _ = memory_pair("a", "b")
    with pytest.raises(TransportError, match="makes no sense"):
        ShapedLink(left, latency, bandwidth)


@pytest.mark.parametrize("jitter", [-1e-3, 2e-3, float("nan")])
def test_a_jitter_is_at_most_the_latency(jitter):
    left, _ = memory_pair("a", "b")
    with pytest.raises(TransportError, match=r"give 0 to 0\.001, the latency"):
        ShapedLink(left, 1e-3, None, jitter)
