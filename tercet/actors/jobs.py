"""Jobs: runs that go on when the client who asked for them has left, and whose results wait to be fetched.

A run that a client waits for ends when the client does. One that was submitted is the node's: it may wait for
approval for days. Every node keeps its part of what came out until it is fetched for good, replaced by newer
jobs of the same client, or lost with the node.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tercet.actors.line import first_cause
from tercet.actors.values import Outcome
from tercet.errors import PlanError, ProtocolError, TercetError, from_wire

MOST_JOBS = 64
"""Jobs of one client that a node remembers."""

Run = Callable[[bytes, bytes, str], Awaitable[Outcome]]
"""Runs a packed plan under a session's name for a client."""


@attrs.define(eq=False)
class Job:
    """A run that was submitted: whose it is, and what has become of it."""

    session: bytes
    caller: str
    packed: bytes = attrs.field(repr=False)
    asked: float = attrs.field(factory=time.time)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)
    outcome: Outcome | None = None
    error: TercetError | None = None

    @property
    def state(self) -> str:
        """Under way, done or failed."""
        if not self.done.is_set():
            return "under way"
        return "failed" if self.error is not None else "done"

    def to_wire(self) -> dict[str, Any]:
        """What the list of jobs says about it."""
        why = "" if self.error is None else str(self.error)
        return {"session": self.session, "asked": self.asked, "state": self.state, "why": why}


class Jobs:
    """The jobs of a node, which live in a nursery of its own."""

    def __init__(self, run: Run, nursery: trio.Nursery) -> None:
        self._run = run
        self._nursery = nursery
        self._jobs: dict[bytes, Job] = {}

    def submit(self, session: bytes, packed: bytes, caller: str) -> None:
        """Begin a job. Raises PlanError if the name was used, or too many jobs are under way."""
        if session in self._jobs:
            raise PlanError("a job of this name was submitted before; names are used once")
        mine = self.of(caller)
        if len(mine) >= MOST_JOBS:
            ended = next((job for job in mine if job.done.is_set()), None)
            if ended is None:
                raise PlanError(f"{len(mine)} jobs of {caller} are under way; wait for some, or cancel them")
            del self._jobs[ended.session]
        job = self._jobs[session] = Job(session, caller, packed)
        self._nursery.start_soon(self._work, job)

    async def _work(self, job: Job) -> None:
        try:
            with job.scope:
                job.outcome = await self._run(job.session, job.packed, job.caller)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the job's, and told to who fetches it
            cause = first_cause(error)
            if not isinstance(cause, TercetError):
                cause = ProtocolError(f"the job failed in an unforeseen way ({cause!r})")
            job.error = cause
        if job.outcome is None and job.error is None:
            job.error = PlanError("the job was cancelled")
        job.done.set()

    def of(self, caller: str) -> list[Job]:
        """All jobs of a client, in the order in which they were submitted."""
        return [job for job in self._jobs.values() if job.caller == caller]

    def find(self, session: bytes, caller: str) -> Job:
        """A client's job. Raises PlanError if there is none."""
        job = self._jobs.get(session)
        if job is None or job.caller != caller:
            raise PlanError(f"{caller} has no job {session.hex()[:8]} here; its node may have been restarted")
        return job

    async def fetch(self, session: bytes, caller: str) -> Outcome:
        """Wait for a job, and what came out. Raises what it failed with."""
        job = self.find(session, caller)
        await job.done.wait()
        if job.error is not None or job.outcome is None:
            raise from_wire((job.error or PlanError("the job has no result")).to_wire())
        return job.outcome

    def end(self, session: bytes, caller: str) -> None:
        """Cancel a job if it is under way, and forget it."""
        self.find(session, caller).scope.cancel()
        del self._jobs[session]
