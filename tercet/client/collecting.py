"""Making plans without the garbage collector's looking through them again and again.

A plan of ten thousand nodes is a hundred thousand objects, and none of them is garbage: collections take a
third of the time that making it does. Meanwhile they come less often; whoever has turned them off, or down,
is heeded.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

SELDOM = 50_000
"""New objects from one collection to the next."""


class _Pace:
    """How often is collected, while somebody makes a plan, in whatever threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._makers = 0
        self._before = gc.get_threshold()

    def begin(self) -> None:
        """Somebody begins to make a plan."""
        with self._lock:
            if not self._makers:
                self._before = gc.get_threshold()
                if 0 < self._before[0] < SELDOM:
                    gc.set_threshold(SELDOM, *self._before[1:])
            self._makers += 1

    def end(self) -> None:
        """The last of them leaves it as the first has found it."""
        with self._lock:
            self._makers -= 1
            if not self._makers:
                gc.set_threshold(*self._before)


_pace = _Pace()


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Around the making of a plan."""
    _pace.begin()
    try:
        yield
    finally:
        _pace.end()


__all__ = ["collecting_seldom"]
