"""Jobs: every run of a plan is one, whether its client waits for it or leaves it alone.

A job that is left alone is the node's: it may wait for approval for days, and every node keeps its part of
what came out until it is fetched for good or replaced by newer jobs of the same client. One that is attended
ends when nobody has waited for it for as long as its client said, at once if that is zero; meanwhile whoever
has lost a link can come back and wait again. Here all of that is in memory and lost with the node; nodes that
last have `tercet.nodes.jobs`, which begins jobs again that were interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tercet.actors.line import gravest_cause
from tercet.actors.values import Outcome, type_fields
from tercet.errors import PlanError, ProtocolError, TercetError, from_wire
from tercet.plans.passes import Since
from tercet.protocols.domains import Words

MOST_JOBS = 64
"""Jobs of one client that a node remembers, besides those that are attended."""
MOST_PATIENCE_S = 7 * 86400.0
"""How long an attended job may go on without anybody who waits for it."""

Run = Callable[[bytes, bytes, str, Since | None], Awaitable[Outcome]]
"""Runs a packed plan under a session's name for a client, from a checkpoint or from its beginning."""
Answer = tuple[dict[str, Any], list[Words]]
"""What a node answers to a request: a body, and words."""


def answer(outcome: Outcome) -> Answer:
    """This node's part of what a run gave."""
    revealed, buffers = [], []
    for name, to, kind, arrays in outcome.revealed:
        revealed.append([name, to, type_fields(kind), [list(array.shape) for array in arrays]])
        buffers += arrays
    return {
        "revealed": revealed,
        "stored": {handle: type_fields(stored.type) for handle, stored in outcome.stored.items()},
        "symbols": outcome.symbols,
        "statistics": attrs.asdict(outcome.statistics),
    }, buffers


@attrs.define(eq=False)
class Job:
    """A run that was submitted: whose it is, and what has become of it.

    `session` is its name, `running` that of the session that is under way for it, empty if there is none.
    `begun` is set once it was begun, or never will be: until then it is being written down.

    `attempts` is how often it was begun again; `interruption` is why it is not under way, since `interrupted`
    by trio's clock. `idle` is set when that session has ended; `replaced` says that another one is to take
    its place.

    `step` is the number of the plan that is run, of a job that is several.

    `patience_s` is how long the job goes on, and may be interrupted, while nobody waits for it, None for one
    that is left alone; `waiting` is how many do now, and `back` is set when the first of them comes.
    """

    session: bytes
    caller: str
    packed: bytes = attrs.field(repr=False)
    patience_s: float | None = attrs.field(default=None, kw_only=True)
    waiting: int = attrs.field(default=0, init=False)
    back: trio.Event = attrs.field(factory=trio.Event, init=False)
    asked: float = attrs.field(factory=time.time)
    attempts: int = 0
    step: int = 0
    running: bytes = b""
    interruption: TercetError | None = None
    interrupted: float = attrs.field(default=0.0, init=False)
    begun: trio.Event = attrs.field(factory=trio.Event, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    idle: trio.Event = attrs.field(factory=trio.Event)
    replaced: bool = False
    done: trio.Event = attrs.field(factory=trio.Event)
    answer: Answer | None = attrs.field(default=None, repr=False)
    error: TercetError | None = None

    @property
    def stands_still(self) -> bool:
        """Whether it was begun, and is neither under way nor done."""
        return self.begun.is_set() and not (self.done.is_set() or self.running)

    @property
    def state(self) -> str:
        """Under way, done or failed."""
        if not self.done.is_set():
            return "under way"
        return "failed" if self.error is not None else "done"

    def to_wire(self) -> dict[str, Any]:
        """What the list of jobs says about it."""
        error = self.error if self.done.is_set() else self.interruption
        why = "" if error is None else str(error)
        return {"session": self.session, "asked": self.asked, "state": self.state, "why": why}


class Jobs:
    """The jobs of a node, which live in a nursery of its own once they are started."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, Job] = {}

    def start(self, run: Run, nursery: trio.Nursery) -> None:
        """Begin to run jobs."""
        self._run = run
        self._nursery = nursery

    async def submit(
        self,
        session: bytes,
        packed: bytes,
        caller: str,
        patience_s: float | None = None,
        *,
        again: bool = False,
    ) -> Job:
        """Begin a job, which `attend` waits for; without `patience_s`, one that is left alone.

        The same job submitted `again`, by a client who has lost a link meanwhile, is the one that is there.
        Raises PlanError if the name was used, or too many jobs are under way.
        """
        known = self.jobs.get(session)
        if known is not None:
            same = (known.caller, known.packed, known.patience_s) == (caller, packed, patience_s)
            if again and same and patience_s is not None:
                return known
            raise PlanError("a job of this name was submitted before; names are used once")
        if patience_s is None:
            self._beyond(caller, 1)
        job = self.jobs[session] = Job(session, caller, packed, patience_s=patience_s)
        try:
            await self._note(job, again=again)
            for oldest in self._beyond(caller) if patience_s is None else []:
                if self.jobs.pop(oldest.session, None) is not None:
                    await self._forget(oldest)
            if self.jobs.get(session) is not job:
                await self._forget(job)  # once more, for it may have been written down since
                raise PlanError("the job was cancelled before it was begun")
            if again:
                self._missed(job)
            else:
                self.begin(job, session)
        except BaseException:
            if self.jobs.get(session) is job:
                del self.jobs[session]
            raise
        finally:
            job.begun.set()
        return job

    def _beyond(self, caller: str, more: int = 0) -> list[Job]:
        """A client's oldest jobs that are done and make room, with so many `more`. Raises PlanError."""
        mine = [job for job in self.of(caller) if job.patience_s is None]
        beyond = max(0, len(mine) + more - MOST_JOBS)
        done = [job for job in mine if job.done.is_set()]
        if more and len(done) < beyond:
            raise PlanError(f"{len(mine)} jobs of {caller} are under way; wait for some, or cancel them")
        return done[:beyond]

    def begin(self, job: Job, name: bytes, since: Since | None = None) -> None:
        """Run a job under a session's name."""
        job.running, job.interruption, job.replaced, job.answer = name, None, False, None
        job.scope, job.idle = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._work, job, since)

    async def _work(self, job: Job, since: Since | None) -> None:
        error: TercetError | None = None
        idle = job.idle
        try:
            with job.scope:
                job.answer = answer(await self._run(job.running, job.packed, job.caller, since))
        except Exception as group:  # noqa: BLE001 - whatever it is, it is the job's, and told to who fetches it
            cause = gravest_cause(group)
            unforeseen = ProtocolError(f"the job failed in an unforeseen way ({cause!r})")
            error = cause if isinstance(cause, TercetError) else unforeseen
        if job.answer is None and error is None:
            error = PlanError("the job was cancelled")
        job.running = b""
        await self._ended(job, error)
        idle.set()

    def of(self, caller: str) -> list[Job]:
        """All jobs of a client, in the order in which they were submitted."""
        return [job for job in self.jobs.values() if job.caller == caller]

    def find(self, session: bytes, caller: str) -> Job:
        """A client's job. Raises PlanError if there is none."""
        job = self.jobs.get(session)
        if job is None or job.caller != caller:
            raise PlanError(f"{caller} has no job {session.hex()[:8]} here; submit the plan again")
        return job

    def under_way(self, session: bytes) -> bytes:
        """The session under way for a job; of what is no job, the same name."""
        job = self.jobs.get(session)
        return session if job is None else job.running

    async def attend(self, job: Job) -> Answer:
        """Wait for a job, and what came out. Raises what it failed with."""
        job.waiting += 1
        job.back.set()
        try:
            await job.done.wait()
        finally:
            job.waiting -= 1
            if job.patience_s is not None and not job.waiting:
                job.back = trio.Event()
                self._nursery.start_soon(self._expire, job, job.back, job.patience_s)
        if job.error is not None:
            raise from_wire(job.error.to_wire())
        return await self.answer_of(job, job.step)

    async def answer_of(self, job: Job, step: int) -> Answer:
        """What came out of a step of a job that is done. Raises PlanError if it has no such step."""
        if not 0 <= step <= job.step:
            raise PlanError(f"job {job.session.hex()[:8]} has {job.step + 1} plans, none of number {step}")
        body, buffers = await self._answer(job, step)
        return {**body, "interrupted": job.attempts}, buffers

    async def _expire(self, job: Job, back: trio.Event, seconds: float) -> None:
        """End a job unless somebody waits for it again in time."""
        with trio.move_on_after(seconds):
            await back.wait()
            return
        if self.jobs.get(job.session) is job:
            await self.end(job)

    async def end(self, job: Job) -> None:
        """Cancel a job if it is under way, and forget it."""
        if self.jobs.pop(job.session, None) is not None:
            job.scope.cancel()
            await self._forget(job)

    # -- what nodes that last do besides ---------------------------------------------------------------------

    async def _note(self, job: Job, *, again: bool) -> None:
        """A job is about to begin. Raises StorageError, or what forbids it; then it does not."""

    def _missed(self, job: Job) -> None:
        """A job was submitted again that this node does not know: it was begun without this node."""
        self.begin(job, job.session)

    async def _ended(self, job: Job, error: TercetError | None) -> None:
        """A run of a job has ended, well if there is no error."""
        job.error = None if error is None else error.to_keep()
        job.done.set()

    async def _answer(self, job: Job, step: int) -> Answer:
        """What came out of a step of a job that is done."""
        _ = step
        if job.answer is None:
            raise ProtocolError(f"job {job.session.hex()[:8]} has ended without a result")
        return job.answer

    async def _forget(self, job: Job) -> None:
        """A job is remembered no longer."""
