"""Programs that are forked from a process that has imported Tercet, so that none takes seconds to start.

What they do is what `python -m tercet` does, in a process of its own: with its arguments, directory,
environment, log, signals and exit code. `server` starts the process they are forked from, which ends, and
with it all of them, when this one does. It serves one request a line on its standard input: which program to
start, or which one to look after, since only a parent hears how its child ended.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import attrs

from tercet.actors.scratch import KEEP_MEMORY
from tercet.commands import HOMES

ROOT = Path(__file__).parents[2]
PAUSE_S = 0.02
NEEDED = (
    *("tercet.nodes.program", "tercet.nodes.preflight", "tercet.nodes.backup", "tercet.nodes.restore"),
    *("tercet.nodes.prune", "tercet.client.lake", "tercet.client.node_checks"),
    *("alembic.operations", "alembic.script"),  # what makes a new catalog
)
"""What commands import when they are called."""


@attrs.frozen
class Forked:
    """A program that runs, or ran; as `subprocess.Popen`, as far as tests need it."""

    pid: int
    server: Server

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.server.ask({"poll": self.pid})

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it ends. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(PAUSE_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)  # which is not another's yet: nobody has heard how it ended

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@attrs.define(eq=False)
class Server:
    """The process that others are forked from."""

    process: subprocess.Popen[str]
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _ended: dict[int, int] = attrs.field(factory=dict)

    @classmethod
    def start(cls) -> Server:
        """Start it; it takes requests when it has imported what it needs."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **KEEP_MEMORY, "PYTHONPATH": path},
            cwd=ROOT,
            text=True,
            start_new_session=True,  # an interrupt from the terminal is for this process
        )
        made = cls(process)
        atexit.register(made.close)
        return made

    def close(self) -> None:
        """End it, and all that is left of its children."""
        self.process.communicate()

    def ask(self, request: dict[str, Any]) -> Any:
        """Its answer to a request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._lock:
            pid = request.get("poll")
            if pid in self._ended:
                return self._ended[pid]
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            if pid is not None and answer is not None:
                self._ended[pid] = answer
            return answer

    def run(self, arguments: Sequence[str], *, cwd: Path, out: Path | None = None, err: Path) -> Forked:
        """Start `python -m tercet` with arguments; what it says is added to files."""
        environment = {**os.environ, **KEEP_MEMORY}
        files = {"out": str(out or os.devnull), "err": str(err), "cwd": str(cwd)}
        return Forked(self.ask({"run": list(arguments), "environment": environment, **files}), self)


@functools.cache
def server() -> Server:
    """The server of this process, started when it is first needed."""
    return Server.start()


# -- in the server -------------------------------------------------------------------------------------------


def serve(requests: TextIO, answers: TextIO) -> dict[str, Any] | None:
    """Answer requests to their end. In a child, the request that is the child's to carry out."""
    running: set[int] = set()
    for line in requests:
        request = json.loads(line)
        answer: int | None
        if "run" in request:
            answer = os.fork()
            if answer == 0:
                return request
            running.add(answer)
        else:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), file=answers, flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return None


def become(request: dict[str, Any]) -> None:
    """Let this process be as if it had been started for the request."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate((os.devnull, request["out"], request["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["tercet", *request["run"]]
    sys.orig_argv = [sys.executable, "-m", "tercet", *request["run"]]  # for a node that starts itself again


def main() -> None:
    """Serve, with everything imported; or, in a child, run the command."""
    from tercet.cli import app

    for module in {*HOMES.values(), *NEEDED}:
        importlib.import_module(module)
    gc.freeze()  # children share what the imports made
    channel = os.fdopen(os.dup(1), "w")  # nothing that is printed by chance may come between the answers
    os.dup2(2, 1)
    request = serve(sys.stdin, channel)
    if request is not None:
        become(request)
        app(prog_name="tercet")


if __name__ == "__main__":
    main()
