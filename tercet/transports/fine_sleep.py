"""Sleeping to well below a millisecond in trio, whose own clock waits in whole ones.

On Linux a descriptor of the kernel (timerfd) becomes readable when it is time: one more thing that the event
loop waits for anyway. Elsewhere trio sleeps most of the time and a thread the rest, which takes several times
as much of the processor.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

import trio

from tercet.transports.forks import keep_from_children

_EXPIRATIONS_BYTES = 8
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
# trio waits with epoll, which counts whole milliseconds and rounds up; the rest is slept in a thread, by the
# kernel's fine timers. Its return takes up to about the slack below, so the last bit is spent in the event
# loop, which may run other tasks meanwhile.
_COARSE = 1.5e-3
_SLACK = 3e-4


class FineSleeper(Protocol):
    """Sleeps for one task at a time; a sleep that is cancelled leaves nothing behind."""

    async def until(self, due: float) -> None:
        """Sleep until `time.monotonic()` is `due`; a checkpoint in any case."""

    def close(self) -> None:
        """Give back what it takes of the system, once nobody sleeps any more. May be called again."""


class ThreadSleeper:
    """Sleeps by trio's clock until `coarse_s` before it is time, and by a thread, on any system."""

    def __init__(self, coarse_s: float = _COARSE) -> None:
        self._coarse_s = coarse_s
        # Not the default limiter, since compute threads must not delay arrivals; and no limit, since a thread
        # whose wait was cancelled sleeps on.
        self._sleepers = trio.CapacityLimiter(math.inf)

    async def until(self, due: float) -> None:
        """See `FineSleeper`."""
        await trio.lowlevel.checkpoint()
        if (coarse := due - time.monotonic() - self._coarse_s) > 0:
            await trio.sleep(coarse)
        if (fine := due - time.monotonic() - _SLACK) > 0:
            await trio.to_thread.run_sync(time.sleep, fine, limiter=self._sleepers, abandon_on_cancel=True)
        while time.monotonic() < due:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """See `FineSleeper`."""


class TimerSleeper:
    """Sleeps by a timer of Linux, which is made when it is first needed. Raises OSError if there is none."""

    def __init__(self) -> None:
        self._system = ctypes.CDLL(None, use_errno=True)
        self._timer: int | None = None
        self._closed = False

    def fileno(self) -> int:
        """Its descriptor, -1 if it has none."""
        return -1 if self._timer is None else self._timer

    async def until(self, due: float) -> None:
        """See `FineSleeper`. Raises trio.ClosedResourceError once it is closed."""
        if self._closed:
            raise trio.ClosedResourceError("nobody sleeps by a timer that is closed")
        if time.monotonic() >= due:
            await trio.lowlevel.checkpoint()
            return
        if self._timer is None:
            self._timer = self._call("timerfd_create", time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            keep_from_children(self)
        seconds, nanoseconds = divmod(math.ceil(due * 1e9), 10**9)
        when = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)  # struct itimerspec: no repeats, then the time
        self._call("timerfd_settime", self._timer, _ABSOLUTE, ctypes.byref(when), None)
        await trio.lowlevel.wait_readable(self._timer)
        # What was set above is set anew before the next sleep, so an earlier sleep's end is never read here.
        with contextlib.suppress(BlockingIOError):
            os.read(self._timer, _EXPIRATIONS_BYTES)

    def _call(self, name: str, *args: object) -> int:
        found: int = getattr(self._system, name)(*args)
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return found

    def close(self) -> None:
        """See `FineSleeper`."""
        self._closed = True
        if self._timer is not None:
            timer, self._timer = self._timer, None
            trio.lowlevel.notify_closing(timer)
            os.close(timer)


fine_sleeper: Callable[[], FineSleeper] = TimerSleeper if sys.platform == "linux" else ThreadSleeper
"""Makes what sleeps best on this system."""
