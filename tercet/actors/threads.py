"""Threads for what blocks or takes long, so that the event loop goes on: a share of them for each member.

A node answers every client in tasks of one event loop. What they hand to threads counts against the member
whom they answer: so much of it runs at a time, and takes so much of a core over a while. So one member's work
does not keep that of others waiting.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import TypeVar, TypeVarTuple

import trio

from tercet.transports.admission import TokenBucket

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TURNS = tuple(threading.Lock() for _ in range(64))


def turn(what: Hashable) -> threading.Lock:
    """A lock for threads that do the same, so that one does it, and the others find it done.

    Those that do something else hardly ever have to wait for it.
    """
    return _TURNS[hash(what) % len(_TURNS)]


ANY = trio.CapacityLimiter(math.inf)
"""What is counted by shares is not counted once more."""


class ThreadShare:
    """What a member may have of threads: so many at a time, and of a core, after `burst_s` seconds of it."""

    def __init__(self, at_once: int, core: float, burst_s: float) -> None:
        self.limiter = trio.CapacityLimiter(at_once)
        self._seconds = TokenBucket(core, burst_s)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a function in a thread when it is its turn, and note what that took of a core."""
        used = 0.0

        def timed() -> T:
            nonlocal used
            began = time.thread_time()
            try:
                return function(*args)
            finally:
                used = time.thread_time() - began

        async with self.limiter:
            if wait := self._seconds.spend(trio.current_time(), 0.0):
                await trio.sleep(wait)
            try:
                return await trio.to_thread.run_sync(timed, limiter=ANY)
            finally:
                self._seconds.spend(trio.current_time(), used)


_SHARE: ContextVar[ThreadShare | None] = ContextVar("tercet threads", default=None)


@contextlib.contextmanager
def counted(share: ThreadShare | None) -> Iterator[None]:
    """Inside, and in tasks that are started inside, threads are of a share; None for no count."""
    token = _SHARE.set(share)
    try:
        yield
    finally:
        _SHARE.reset(token)


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a function in a thread, and wait for it."""
    share = _SHARE.get()
    if share is None:
        return await trio.to_thread.run_sync(function, *args)
    return await share.run(function, *args)
