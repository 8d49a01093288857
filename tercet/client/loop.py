"""Who runs the event loop: trio in a thread of its own beneath a lake for scripts, or the caller's own trio.

A `Loop` is what a lake holds. The thread holds the cluster and nothing else, so a lake that nobody holds
any more can go, and its nodes with it: after a rebound name, a function that returned, an exception. What is
still open when the interpreter ends is closed then.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import trio

from tercet.actors.line import plain_errors
from tercet.client.node_processes import STOP_S
from tercet.errors import PlanError, TercetError
from tercet.transports.forks import Home

if TYPE_CHECKING:
    from tercet.client.cluster import Cluster

    Opener = Callable[[], contextlib.AbstractAsyncContextManager[Cluster]]

Opened = TypeVar("Opened")

_running: set[_Thread[Any]] = set()


class _Thread(threading.Thread, Generic[Opened]):
    """An event loop, and in it what is open, as a cluster, until its end is asked for."""

    def __init__(self, open_it: Callable[[], contextlib.AbstractAsyncContextManager[Opened]]) -> None:
        super().__init__(name="tercet-lake", daemon=True)
        self.home = Home()
        self.told: queue.SimpleQueue[Opened | BaseException] = queue.SimpleQueue()
        self.token: trio.lowlevel.TrioToken | None = None
        self.ends = False
        """Whether its end was asked for."""
        self._open_it = open_it
        self._scope = trio.CancelScope()

    def run(self) -> None:
        """Open it, and keep it open."""
        _running.add(self)
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            self.told.put(error)
        finally:
            _running.discard(self)

    async def _main(self) -> None:
        async with plain_errors():
            with self._scope:
                self.token = trio.lowlevel.current_trio_token()
                if self.ends:
                    return
                async with self._open_it() as opened:
                    self.told.put(opened)
                    await trio.sleep_forever()

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function in the loop; from any thread, from finalizers and signal handlers too."""
        if self.token is not None and self.home.here:
            with contextlib.suppress(trio.RunFinishedError):
                self.token.run_sync_soon(function)

    def end(self) -> None:
        """Have the loop close what is open and end, without waiting for it."""
        self.ends = True
        self.soon(self._scope.cancel)


@atexit.register
def _end_all() -> None:
    """Close what is open when the interpreter ends, so that no node outlives it."""
    threads = [thread for thread in list(_running) if thread.home.here]
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.join(2 * STOP_S)


class Loop(Generic[Opened]):
    """An event loop in a thread of its own, and in it what is `opened`, until it is closed or not held.

    That is a cluster, or a member's desk. Raises what opening it does, and PlanError inside a trio program.
    """

    def __init__(self, open_it: Callable[[], contextlib.AbstractAsyncContextManager[Opened]]) -> None:
        if _trio_token() is not None:
            raise PlanError(
                "this is a trio program, which this lake would hold up: use `async with tercet.open_local() "
                "as lake` or tercet.open_lake, and await what it does"
            )
        self._thread = _Thread(open_it)
        self._finalizer = weakref.finalize(self, self._thread.end)
        self._finalizer.atexit = False  # `_end_all` waits for the end
        try:
            self._thread.start()
            first = self._thread.told.get()
        except BaseException:
            self._finalizer()
            if self._thread.is_alive():
                self._thread.join()
            raise
        if isinstance(first, BaseException):
            raise first
        self.opened = first

    @property
    def is_open(self) -> bool:
        """Whether nobody has asked for its end, and nothing has ended it."""
        return not self._thread.ends and (self._thread.is_alive() or not self._thread.home.here)

    def wait(self, function: Callable[..., Any], *args: Any) -> Any:
        """Wait for what an asynchronous function gives; interrupted, it is cancelled."""
        self._thread.home.require()
        here = _trio_token()
        if here is not None:
            raise PlanError(
                "this call would wait for itself, since the lake makes it while it computes (on_phase, "
                "on_result): note what has to be done, and do it afterwards"
                if here is self._thread.token
                else "this is a trio program, which this lake would hold up: use tercet.open_local, or call "
                "it in trio.to_thread.run_sync"
            )
        scope = trio.CancelScope()

        async def work() -> Any:
            with scope:
                return await function(*args)

        try:
            return trio.from_thread.run(work, trio_token=self._thread.token)
        except KeyboardInterrupt:
            self._thread.soon(scope.cancel)
            raise
        except (trio.RunFinishedError, trio.Cancelled, trio.ClosedResourceError, TercetError) as error:
            if isinstance(error, TercetError) and not self._thread.ends:
                raise
            raise TercetError("this lake is closed; open it again") from error

    def close(self) -> None:
        """End the loop. Raises what has ended it before; a second time or in a fork it does nothing."""
        if not self._thread.home.here:
            return
        if threading.current_thread() is self._thread:
            raise PlanError("a lake cannot be closed while it computes; close it afterwards")
        self._finalizer()
        self._thread.join()
        if not self._thread.told.empty():
            failed = self._thread.told.get()
            if isinstance(failed, BaseException):
                raise failed


def _trio_token() -> trio.lowlevel.TrioToken | None:
    """What names the trio program that runs in this thread; None if none does."""
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


class Opening(Generic[Opened]):
    """A lake of a trio program before it is open: `async with tercet.open_local() as lake`.

    Raises PlanError under another event loop, and where `async with` was forgotten.
    """

    def __init__(self, name: str, open_it: Opener, make: Callable[[Cluster], Opened]) -> None:
        self._name = name
        self._open_it = open_it
        self._make = make
        self._opened: contextlib.AbstractAsyncContextManager[Cluster] | None = None

    async def __aenter__(self) -> Opened:
        if _trio_token() is None:
            raise PlanError(f"{self._name} runs under trio, and {_what_runs()}; {self._instead()}")
        if self._opened is not None:
            raise PlanError(f"this lake was opened before; call {self._name} for another one")
        self._opened = self._open_it()
        return self._make(await self._opened.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._opened is not None  # noqa: S101 - Python calls this after `__aenter__` only
        return await self._opened.__aexit__(kind, error, trace)

    def _instead(self) -> str:
        other = {"open_local": "local", "open_lake": "connect"}[self._name]
        return (
            f"write `async with tercet.{self._name}(...) as lake` in a function that trio.run runs, or use "
            f"tercet.{other}, which works in scripts, in notebooks and beside any event loop"
        )

    def _refuse(self) -> NoReturn:
        raise PlanError(f"{self._name} gives a lake to `async with` only; {self._instead()}")

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        self._refuse()

    def __enter__(self) -> NoReturn:
        self._refuse()

    def __exit__(self, *_: object) -> None:
        """There only since Python looks for it before it calls `__enter__`."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"this lake is not open yet, so it has no {name!r}; {self._instead()}")


def _what_runs() -> str:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "no event loop runs here"
    return "this is asyncio"
