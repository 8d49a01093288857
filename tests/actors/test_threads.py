"""Shares of threads: no member has more of them, or of a core, than its share while others want some."""

from __future__ import annotations

import threading
import time

import trio

from tercet.actors.threads import ThreadShare, counted, in_thread


def work():
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass


async def test_the_part_of_a_core_counts_while_others_want_some():
    others: list[int] = []
    share = ThreadShare(2, 0.1, 0.0, lambda: bool(others))
    with counted(share):
        began = time.monotonic()
        for _ in range(3):
            await in_thread(work)
        alone = time.monotonic() - began
        others.append(1)
        began = time.monotonic()
        for _ in range(3):
            await in_thread(work)
        among_others = time.monotonic() - began
    assert among_others >= 0.99, "two times half a second for 50 ms each"
    assert alone < among_others


async def test_so_many_at_a_time_whoever_started_the_task():
    share, running, most = ThreadShare(2, 1.0, 10.0, lambda: False), [], []
    lock = threading.Lock()

    def look():
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.02)
        with lock:
            running.pop()

    async with trio.open_nursery() as nursery:
        with counted(share):
            for _ in range(6):
                nursery.start_soon(in_thread, look)
        assert await in_thread(lambda: 5) == 5
    assert max(most) == 2
