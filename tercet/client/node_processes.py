"""Nodes as processes: started, waited for and killed alike, whether each was started anew or all were forked.

Where whoever is not its parent can wait for a process, as on Linux, all nodes are forked from one that has
imported what they need: a second of work or two that none has to do again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

import attrs
import trio

from tercet.actors.scratch import KEEP_MEMORY
from tercet.errors import TransportError
from tercet.transports.forks import keep_from_children

NODE = "from tercet.actors.node import main; main()"
FORKED = "from tercet.actors.forked import main; main()"
FORKS = sys.platform == "linux"
STOP_S = 2.0


@attrs.frozen(eq=False)
class NodeProcess:
    """A node's process: its standard input and output, how to wait for it, and how to end it."""

    pid: int
    stdin: trio.abc.SendStream
    stdout: trio.abc.ReceiveStream
    _started: trio.Process | None = attrs.field(default=None, kw_only=True)
    _first: trio.Process | None = attrs.field(default=None, kw_only=True)
    """The process that it was forked from."""
    _handle: int = attrs.field(default=-1, kw_only=True)
    """What Linux calls a pidfd, which stands for the process also when somebody else has its number."""

    async def wait(self) -> None:
        """Wait until it has ended."""
        if self._started is not None:
            await self._started.wait()
        else:
            await trio.lowlevel.wait_readable(self._handle)

    def kill(self) -> None:
        """End it at once, unless it has ended."""
        if self._started is not None:
            self._started.kill()
        elif sys.platform == "linux":
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def aclose(self) -> None:
        """Let go of what is held of it, once it has ended."""
        await self.stdout.aclose()
        if self._handle >= 0:
            os.close(self._handle)
        if self._first is not None:
            with trio.move_on_after(STOP_S):
                await self._first.wait()
            self._first.kill()  # if it was stopped
            await self._first.wait()


async def start(parties: int, protocol: str) -> list[NodeProcess]:
    """Processes for so many nodes, each of which ends when its input closes.

    Raises TransportError if there come to be none.
    """
    if FORKS:
        return await _forked(parties, protocol)
    made: list[NodeProcess] = []
    try:
        while len(made) < parties:
            made.append(await _anew())
    except BaseException:
        with trio.CancelScope(shield=True):
            await stop(made)
        raise
    return made


async def _anew() -> NodeProcess:
    process = await _open(NODE)
    if process.stdin is None or process.stdout is None:
        raise TransportError("a node has no standard input or output")
    return NodeProcess(process.pid, process.stdin, process.stdout, started=process)


async def _forked(parties: int, protocol: str) -> list[NodeProcess]:
    """Nodes that a process forks once it has imported what they need. It ends after the last of them."""
    async with contextlib.AsyncExitStack() as failed:
        theirs, ours = [], []
        for _ in range(parties):
            (stdin, to), (of, stdout) = os.pipe(), os.pipe()
            theirs.append((stdin, stdout))
            ours.append((trio.lowlevel.FdStream(to), trio.lowlevel.FdStream(of)))
            for pipe in ours[-1]:
                failed.push_async_callback(trio.aclose_forcefully, keep_from_children(pipe))
        pairs = [f"{stdin}:{stdout}" for stdin, stdout in theirs]
        given = [descriptor for pair in theirs for descriptor in pair]
        try:
            first = await _open(FORKED, protocol, *pairs, pass_fds=given)
        finally:
            for descriptor in given:
                os.close(descriptor)
        failed.push_async_callback(_end, first)
        pids = await _pids(first, parties)
        handles = []
        for pid in pids:
            handles.append(_handle(pid))
            failed.callback(os.close, handles[-1])
        if first.stdin is not None:
            await first.stdin.aclose()  # from now on it may bury them
        failed.pop_all()
    return [
        NodeProcess(pid, stdin, stdout, handle=handle, first=first)
        for pid, (stdin, stdout), handle in zip(pids, ours, handles, strict=True)
    ]


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        process.kill()
        await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


async def _pids(first: trio.Process, parties: int) -> list[int]:
    """Identifiers of the nodes that a process has forked. Raises TransportError if it has not."""
    told = b""
    if first.stdout is not None:
        async with first.stdout:
            while not told.endswith(b"\n") and (some := await first.stdout.receive_some()):
                told += some
    with contextlib.suppress(ValueError):
        pids = json.loads(told)
        if isinstance(pids, list) and len(pids) == parties:
            return pids
    raise TransportError(_ENDED)


def _handle(pid: int) -> int:
    """What stands for a process. Raises TransportError if there is none."""
    if sys.platform != "linux":
        raise TransportError("nodes are forked on Linux only")
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise TransportError(_ENDED) from error


_ENDED = "the nodes ended while they started; their messages are above"


async def _open(program: str, *arguments: str, **options: Any) -> trio.Process:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **KEEP_MEMORY},
        # An interrupt from the terminal is for this process; nodes end when their input closes.
        start_new_session=True,
        **options,
    )
    for pipe in (process.stdin, process.stdout):
        if isinstance(pipe, trio.lowlevel.FdStream):
            keep_from_children(pipe)
    return process


async def stop(processes: list[NodeProcess], patience_s: float = STOP_S) -> None:
    """Close every node's input, wait a little, then kill what is left: also nodes that are stopped."""
    for process in processes:
        await process.stdin.aclose()
    with trio.move_on_after(patience_s):
        for process in processes:
            await process.wait()
    for process in processes:
        process.kill()
        await process.wait()
    for process in processes:
        await process.aclose()
