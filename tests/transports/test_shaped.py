"""Latency counts once for all frames under way, bandwidth is shared by them; measured in real time."""

from __future__ import annotations

import statistics
import sys
import time

import pytest
import trio
import trio.testing

from tercet.errors import TransportError
from tercet.transports import Link, ShapedLink, memory_pair
from tercet.transports.fine_sleep import ThreadSleeper, TimerSleeper


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


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a timer of Linux's")


def by_timer():
    return TimerSleeper()


def by_trio():
    return ThreadSleeper(coarse_s=0.0)


def by_thread():
    return ThreadSleeper(coarse_s=1.0)


each_sleeper = pytest.mark.parametrize(
    "sleeper", [pytest.param(by_timer, marks=on_linux), by_trio, by_thread]
)


@each_sleeper
async def test_a_receive_that_is_cancelled_during_the_wait_loses_nothing(monkeypatch, sleeper):
    monkeypatch.setattr("tercet.transports.shaped.fine_sleeper", sleeper)
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


@each_sleeper
async def test_a_sleep_ends_when_it_is_due_though_an_earlier_one_was_cancelled(sleeper):
    one = sleeper()
    try:
        for _ in range(3):
            with trio.move_on_after(0.001) as scope:
                await one.until(time.monotonic() + 60)
            assert scope.cancelled_caught
            due = time.monotonic() + 0.004
            await one.until(due)
            assert due <= time.monotonic() < due + 1
        await one.until(0.0)
    finally:
        one.close()
    one.close()


@on_linux
async def test_closing_ends_the_wait_for_a_frame_that_is_held_back():
    left, right = shaped(60.0)
    async with left:
        await left.send(b"late")

        async def receive():
            with pytest.raises(trio.ClosedResourceError):
                await right.receive_header()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await right.aclose()


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
