"""Jobs of a node that lasts: begun again when all nodes are back after one was lost.

When a job was interrupted, by a loss or by a restart, its node says so to party 0 every now and then, which
asks all nodes what they know of the job and decides. It goes on under a new session's name, from the latest
checkpoint that all nodes have or from its beginning; or it may not go on, and has failed. Whatever party 0
decides, each node checks rules, approvals, checkpoints and the number of attempts by itself, as if the member
had asked again.

A job may be several plans, of a computation that tells its nodes the check bits which the next one depends
on. Each is a run of its own, under a name that follows from the one before; the row of the job says which
it is at, from the end of the one before on. Where a step has ended at some nodes only, all run it anew.

Jobs that are left alone are written down, with how they ended. An attended one is not: its client submits it
again where a node was restarted, so a node that does not know it will be told of it. It waits for lost nodes
for as long as its client said, and then has failed.

Words between nodes: `["stuck", job]` to party 0; from party 0 `["ask", job]`, `["fail", job, error]` and
`["go", job, session, attempts, step, since]`; and `["told", job, facts]` in answer to the first of these.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgpack
import numpy as np
import trio

from tercet.actors.gate import Gate
from tercet.actors.jobs import Answer, Job, Jobs, Run, answer
from tercet.actors.node import LONGEST_RETRY_S, RETRY_S
from tercet.actors.party import Party
from tercet.actors.peer import LONGEST_NAME
from tercet.actors.threads import in_thread
from tercet.actors.values import Outcome
from tercet.errors import (
    ConsentError,
    PeerLost,
    PlanError,
    ProtocolError,
    QuotaError,
    StorageError,
    TercetError,
    from_wire,
)
from tercet.nodes.job_words import (
    DONE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    UNKNOWN,
    Told,
    fall_back,
    read_since,
    verdict,
)
from tercet.nodes.ledger import MOST_ATTEMPTS, Ledger
from tercet.nodes.quotas import Quotas
from tercet.nodes.requests import Requests
from tercet.nodes.vault import Vault
from tercet.nodes.waiting import RUN_BYTES, run_of
from tercet.plans.passes import Since, latest
from tercet.plans.plan import Plan
from tercet.storage.job_rows import JobEnd, JobRow
from tercet.transports.names import party_name

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_S = 2.0
"""How often a node looks for jobs of its own that are stuck."""
MOST_PLANS = 1 << 26
"""Bytes of plans of one member's jobs, which stay in memory."""
MOST_STUCK = 1024
"""Jobs that others may call stuck at a time."""
SUFFIX_BYTES = 8


class LastingJobs(Jobs):
    """The jobs of a node, as its journal has them, and those that are attended."""

    def __init__(self, party: Party, vault: Vault, ledger: Ledger, quotas: Quotas) -> None:
        super().__init__()
        self._party, self._vault, self._ledger, self._quotas = party, vault, ledger, quotas
        self._journal = vault.journal
        self.plan_of: Callable[[str, bytes], Awaitable[Plan]] = Gate().plan_of
        """What a member's job runs."""
        self.requests: Requests | None = None
        """What makes the steps of jobs that are several plans."""
        self._following: dict[bytes, tuple[bytes, bytes]] = {}
        """By job whose step has ended: what the next one asks for, and its name."""
        self._names: dict[bytes, bytes] = {}
        """Names of the runs that jobs are at, where they are not those of the jobs."""
        for row in self._journal.jobs():
            self.jobs[row.run] = self._restored(row)
        self._wake = trio.Event()
        self._stuck: set[bytes] = set()
        self._begun: dict[bytes, float] = {}
        """When party 0 has last had a job begin again."""
        self._asked = b""
        self._told: dict[int, Told] = {}
        self._all_told = trio.Event()
        self._words, self._heard = trio.open_memory_channel[list[Any]](math.inf)
        party.on_word, party.on_lost = self._hear, self._lost

    def _restored(self, row: JobRow) -> Job:
        job = Job(row.run, row.caller, row.packed, row.asked, row.attempts, row.step or 0)
        job.begun.set()
        self._names[job.session] = row.name or job.session
        if row.ended:
            job.error = from_wire(msgpack.unpackb(row.error)) if row.error else None
            job.done.set()
        else:
            name = self._party.name
            job.interruption = PeerLost(f"{name} was started again while the job was under way", peer=name)
        return job

    def start(self, run: Run, nursery: trio.Nursery) -> None:
        """Begin to run jobs, and to look after those that are stuck."""
        super().start(run, nursery)
        nursery.start_soon(self._obey)
        nursery.start_soon(self._look_after)

    async def _ask(self, question: Callable[..., T], *args: Any) -> T:
        return await in_thread(question, *args)

    # -- what is written down --------------------------------------------------------------------------------

    def alone(self, session: bytes) -> Job | None:
        """The job that is left alone of which this is the session under way."""
        found = (job for job in self.jobs.values() if job.running == session and job.patience_s is None)
        return next(found, None)

    async def ending(self, job: Job, outcome: Outcome, following: bytes) -> JobEnd:
        """What the end of a job's session is to the journal; `following` is what its next step asks for."""
        sealed = await self._ask(self._seal, job, answer(outcome))
        self._following.pop(job.session, None)
        if not following:
            return JobEnd(job.session, sealed)
        name = hashlib.blake2b(self._name(job), digest_size=RUN_BYTES, person=b"tercet-step").digest()
        self._following[job.session] = following, name
        return JobEnd(job.session, sealed, following, name)

    def _name(self, job: Job) -> bytes:
        return self._names.get(job.session, job.session)

    def _seal(self, job: Job, found: Answer) -> bytes:
        body, buffers = found
        words = b"".join(np.ascontiguousarray(array).tobytes() for array in buffers)
        packed: bytes = msgpack.packb([body, words])
        return self._vault.seal(_sealed_name(job.session, job.step), packed)

    async def _note(self, job: Job, *, again: bool) -> None:
        if len(job.session) != RUN_BYTES:
            raise PlanError(f"the name of a job has {len(job.session)} bytes; they have {RUN_BYTES}")
        if sum(len(one.packed) for one in self.of(job.caller)) > MOST_PLANS:
            raise QuotaError(
                f"the plans of {job.caller}'s jobs have more than {MOST_PLANS:,} bytes; forget jobs that are "
                "done"
            )
        holder = await self._ledger.holder(job.session)
        if holder not in (None, job.caller):
            raise ConsentError("a run of this name is another member's; names are random, and used once")
        if holder is not None and not again:
            raise PlanError("a run of this name is known already; names are random, and used once")
        if job.patience_s is not None:
            await self._require_room(job)
            return
        await self._ask(self._journal.put_job, JobRow(job.session, job.caller, job.packed, job.asked))

    async def _require_room(self, job: Job) -> None:
        """Let attended jobs go that are done, where there is no room for one more. Raises QuotaError."""
        others = [one for one in self.of(job.caller) if one.patience_s is not None and one is not job]
        most = self._quotas.quota.queued
        done = [one for one in others if one.done.is_set()][: max(0, len(others) + 1 - most)]
        self._quotas.require(job.caller, "queued", len(others) - len(done))
        for one in done:
            await self.end(one)

    def _missed(self, job: Job) -> None:
        """Have party 0 begin it with this node too."""
        name = self._party.name
        self._interrupt(job, PeerLost(f"{name} was not there when the job was begun", peer=name))

    def _interrupt(self, job: Job, error: TercetError) -> None:
        job.interruption, job.interrupted = error.to_keep(), trio.current_time()
        self._wake.set()

    async def _answer(self, job: Job, step: int) -> Answer:
        if step == job.step and job.answer is not None:
            return job.answer
        sealed = await self._ask(self._journal.answer, job.session, step)
        opened = await self._ask(self._vault.open, _sealed_name(job.session, step), sealed)
        body, words = msgpack.unpackb(opened)
        return body, [np.frombuffer(words, dtype=np.uint64)]

    async def _ended(self, job: Job, error: TercetError | None) -> None:
        """A run has ended; one that a loss has cut short is begun again, unless it had come to its end."""
        lost = job.replaced or (isinstance(error, PeerLost) and job.patience_s != 0)
        following = self._following.pop(job.session, None)
        if error is None and following is not None and job.session in self.jobs:
            job.packed, self._names[job.session] = following
            job.step, job.attempts = job.step + 1, 0
            self.begin(job, following[1])
        elif error is None or not lost:
            await self._finish(job, error)
        elif await self._has_answer(job):
            await self._finish(job, None)
        else:
            self._interrupt(job, error)

    async def _has_answer(self, job: Job) -> bool:
        if job.patience_s is not None:
            return False
        try:
            return bool(await self._ask(self._journal.answer, job.session))
        except StorageError as error:
            logger.warning("job %s: %s", job.session.hex()[:8], error)
            return False

    async def _finish(self, job: Job, error: TercetError | None) -> None:
        """A job is done, which the journal has since its run ended, or has failed, which it learns now."""
        if job.done.is_set():
            return
        alone = job.patience_s is None
        if isinstance(error, PeerLost) and alone:  # which would say that it is worth waiting
            error = from_wire({**error.to_wire(), "error": PlanError.__name__})
        job.error = None if error is None else error.to_keep()
        job.done.set()
        self._begun.pop(job.session, None)
        if alone:
            await self._tidy(job)
        if error is None:
            return
        try:
            if alone:
                await self._ask(self._journal.fail_job, job.session, msgpack.packb(error.to_wire()))
            await self._ledger.abandon(self._name(job), job.caller)
        except StorageError as problem:
            # After a restart, party 0 hears of the job again, and of how it ended.
            logger.warning("the end of job %s is not in the journal: %s", job.session.hex()[:8], problem)

    async def _forget(self, job: Job) -> None:
        name = self._names.pop(job.session, job.session)
        if job.patience_s is None:
            await self._ask(self._journal.drop_job, job.session)
            await self._tidy(job)
        if not job.done.is_set() or job.patience_s is None:  # else there is nothing left of it
            await self._ledger.abandon(name, job.caller)

    async def _tidy(self, job: Job) -> None:
        """Let values go that the plans of a job have stored for each other."""
        if self.requests is not None and job.step:
            await self._drop(await self._ask(self.requests.temporary, job.packed))

    async def _drop(self, handles: Sequence[str]) -> None:
        self._party.drop(handles)
        await self._ledger.forget(handles)

    # -- what nodes say to each other ------------------------------------------------------------------------

    def _hear(self, index: int, word: list[Any]) -> None:
        """Take a word of a peer. Raises ProtocolError."""
        leads = self._party.index == 0
        match word:
            case ["stuck", bytes(run)] if leads:
                if len(self._stuck) < MOST_STUCK:
                    self._stuck.add(run)
                    self._wake.set()
            case ["told", bytes(run), fields] if leads:
                told = Told.read(fields)
                if told.error is not None:
                    told.error.heard(party_name(index))
                if run == self._asked:
                    self._told[index] = told
                    if len(self._told) == self._party.parties - 1:
                        self._all_told.set()
            case ["ask", bytes()] if index == 0:
                self._words.send_nowait(word)
            case ["go", bytes(run), bytes(session), int(), int(), since] if index == 0:
                if not RUN_BYTES < len(session) <= LONGEST_NAME:
                    raise ProtocolError("a job was begun again under a name that no session has")
                self._words.send_nowait([*word[:5], None if since is None else read_since(since)])
            case ["fail", bytes(), dict()] if index == 0:
                self._words.send_nowait(word)
            case _:
                raise ProtocolError(f"{party_name(index)} said {word!r:.80} of a job, which nobody says")

    def _lost(self) -> None:
        """A link has ended, and with it the question or the answer of a peer: ask again in a while."""
        self._all_told.set()

    async def _obey(self) -> None:
        """Do what party 0 says, one thing after the other."""
        async for word in self._heard:
            with _logged(f"a word of party 0 on job {word[1].hex()[:8]}"):
                match word:
                    case ["ask", run]:
                        self._party.tell(0, ["told", run, (await self._own_word(run)).to_wire()])
                    case ["go", run, session, attempts, step, since]:
                        await self._go(run, session, attempts, step, since)
                    case ["fail", run, fields]:
                        await self._fail(run, from_wire(fields).heard(party_name(0)))

    async def _begun_job(self, run: bytes) -> Job | None:
        """A job, once it was begun: one that is being written down is neither under way nor interrupted."""
        job = self.jobs.get(run)
        if job is None:
            return None
        await job.begun.wait()
        return job if self.jobs.get(run) is job else None

    async def _own_word(self, run: bytes) -> Told:
        job = await self._begun_job(run)
        linked = self._party.is_complete
        if job is None:
            return Told(UNKNOWN, linked=linked)
        attended = job.patience_s is not None
        if job.done.is_set():
            state = DONE if job.error is None else FAILED
            return Told(
                state,
                attempts=job.attempts,
                linked=linked,
                attended=attended,
                step=job.step,
                name=self._name(job),
                error=job.error,
            )
        found = await self._ledger.interrupted(self._name(job), job.caller)
        state = RUNNING if job.running else INTERRUPTED
        return Told(
            state,
            job.running,
            job.attempts,
            found.spent,
            linked,
            attended,
            job.step,
            self._name(job),
            found.points,
        )

    async def _go(self, run: bytes, session: bytes, attempts: int, step: int, since: Since | None) -> None:
        """Begin a job again under a new session's name; perhaps at a step that has ended here already."""
        job = await self._begun_job(run)
        if job is None or not job.attempts < attempts <= MOST_ATTEMPTS or not 0 <= step <= job.step:
            return  # it was cancelled meanwhile, or has been begun so often: party 0 learns that when it asks
        await self._halt(job)
        if self.jobs.get(run) is not job or job.done.is_set() or step > job.step:
            return
        if step < job.step and self.requests is not None:
            packed = await self._ask(self.requests.earlier, job.packed, job.step - step)
            await self._drop(await self._ask(self.requests.stored, packed))
            job.packed, job.step = packed, step
        name = self._names[run] = run_of(session)
        if job.patience_s is None:
            await self._ask(self._journal.begin_job, run, attempts, job.packed, name, step)
        job.attempts = attempts
        self.begin(job, session, since)

    async def _halt(self, job: Job) -> None:
        """End the session that is under way for a job; others have lost theirs."""
        if job.running:
            job.replaced = True
            job.scope.cancel()
            await job.idle.wait()

    async def _fail(self, run: bytes, error: TercetError) -> None:
        job = await self._begun_job(run)
        if job is not None:
            await self._halt(job)
            await self._finish(job, error)

    # -- who looks after jobs --------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        """Say which jobs are stuck; party 0 sees to them."""
        while True:
            with trio.move_on_after(LOOK_S):
                await self._wake.wait()
            self._wake = trio.Event()
            await self._give_up()
            mine = [run for run, job in self.jobs.items() if job.stands_still]
            if self._party.index:
                for run in mine:
                    self._party.tell(0, ["stuck", run])
                continue
            stuck, self._stuck = {*mine, *self._stuck}, set()
            for run in stuck:
                if self._party.is_complete:
                    with _logged(f"looking after job {run.hex()[:8]}"):
                        await self._see_to(run)

    async def _give_up(self) -> None:
        """Have attended jobs failed for which lost nodes are not back in time."""
        for run, job in list(self.jobs.items()):
            error, patience_s = job.interruption, job.patience_s
            if job.done.is_set() or job.running or error is None or patience_s is None:
                continue
            if trio.current_time() >= job.interrupted + patience_s:
                missing = ", ".join(map(str, self._party.missing()))
                name = self._party.name
                problem = f"{name} has no link to party {missing}" if missing else "it could not go on"
                if not missing and not self._party.is_complete:
                    problem = f"{name} is without its workers ({self._party.no_crew})"
                why = f"{str(error).rstrip('.')}; the plan waited for {patience_s:g} s, and {problem}"
                peer = error.peer if isinstance(error, PeerLost) else name
                with _logged(f"giving up job {run.hex()[:8]}"):
                    await self._finish(job, PeerLost(why, peer=peer))

    async def _see_to(self, run: bytes) -> None:
        """Ask all nodes about a job, and decide, as party 0, unless some node is not there yet."""
        everybody = await self._ask_everybody(run)
        if everybody is None or not all(told.linked for told in everybody):
            return
        if not any(told.state == INTERRUPTED for told in everybody):
            return
        attempts = 1 + max(told.attempts for told in everybody)
        states = {told.state for told in everybody}
        if UNKNOWN in states and FAILED not in states and any(told.attended for told in everybody):
            return  # its client submits it there too, or nobody waits for it any more
        error = verdict(run, everybody, attempts)
        if error is not None:
            await self._fail_everywhere(run, error)
            return
        pause = min(RETRY_S * 2**attempts, LONGEST_RETRY_S)
        if trio.current_time() < self._begun.get(run, -math.inf) + pause:
            return
        job = self.jobs.get(run)
        if job is None:
            return  # nobody waits for it any more since it was asked about
        if fall_back(everybody):
            name, step, since = secrets.token_bytes(RUN_BYTES), min(told.step for told in everybody), None
        else:
            try:
                plan = await self.plan_of(job.caller, job.packed)
            except StorageError:
                raise
            except TercetError as refusal:  # a table may have gone meanwhile; it may never have been a plan
                await self._fail_everywhere(run, refusal)
                return
            name, step = self._name(job), job.step
            since = await self._ask(latest, plan, [told.points for told in everybody])
        session = name + secrets.token_bytes(SUFFIX_BYTES)
        logger.info("job %s is begun again, from %s", run.hex()[:8], "a checkpoint" if since else "its start")
        self._begun[run] = trio.current_time()
        self._say(["go", run, session, attempts, step, since])
        await self._go(run, session, attempts, step, since)

    async def _fail_everywhere(self, run: bytes, error: TercetError) -> None:
        self._say(["fail", run, error.to_wire()])
        await self._fail(run, error)

    async def _ask_everybody(self, run: bytes) -> list[Told] | None:
        """What all nodes know of a job, in order; None if one did not answer in time, or was lost."""
        self._asked, self._told, self._all_told = run, {}, trio.Event()
        self._say(["ask", run])
        with trio.move_on_after(self._party.timeout_s):
            if self._party.parties > 1:
                await self._all_told.wait()
        self._asked = b""
        if len(self._told) < self._party.parties - 1:
            return None
        return [await self._own_word(run), *(told for _, told in sorted(self._told.items()))]

    def _say(self, word: list[Any]) -> None:
        for index in range(1, self._party.parties):
            self._party.tell(index, word)


def _sealed_name(session: bytes, step: int) -> str:
    return f"answer of job {session.hex()}" + (f", step {step}" if step else "")


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """A disk that fails now does not end the node: party 0 asks again in a while."""
    try:
        yield
    except StorageError as error:
        logger.warning("%s: %s", what, error)
