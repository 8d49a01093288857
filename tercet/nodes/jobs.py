"""Jobs of a node that lasts: begun again when all nodes are back after one was lost.

When a job was interrupted, by a loss or by a restart, its node says so to party 0 every now and then, which
asks all nodes what they know of the job and decides. It goes on under a new session's name, from the latest
checkpoint that all nodes have or from its beginning; or it may not go on, and has failed. Whatever party 0
decides, each node checks rules, approvals, checkpoints and the number of attempts by itself, as if the member
had asked again.

Jobs that are left alone are written down, with how they ended. An attended one is not: its client submits it
again where a node was restarted, so a node that does not know it will be told of it. It waits for lost nodes
for as long as its client said, and then has failed.

Words between nodes: `["stuck", job]` to party 0; `["ask", job]`, `["go", job, session, attempts, since]` and
`["fail", job, error]` from party 0, and `["told", job, facts]` in answer to the first of these. Nothing in
them is secret.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import attrs
import msgpack
import numpy as np
import trio

from tercet.actors.gate import Gate
from tercet.actors.jobs import Answer, Job, Jobs, Run, answer
from tercet.actors.node import LONGEST_RETRY_S, RETRY_S
from tercet.actors.party import LONGEST_NAME, Party
from tercet.actors.threads import in_thread
from tercet.actors.values import Outcome
from tercet.errors import (
    ConsentError,
    PeerLost,
    PlanError,
    ProtocolError,
    QuotaError,
    SpentError,
    StorageError,
    TercetError,
    from_wire,
)
from tercet.nodes.ledger import MOST_ATTEMPTS, Ledger
from tercet.nodes.quotas import Quotas
from tercet.nodes.vault import Vault
from tercet.nodes.waiting import RUN_BYTES, run_of
from tercet.plans.passes import Since, latest
from tercet.plans.plan import Plan
from tercet.storage.journal import JobRow
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
UNKNOWN, RUNNING, INTERRUPTED, DONE, FAILED = "unknown", "running", "interrupted", "done", "failed"


@attrs.frozen
class Told:
    """What a node knows of a job.

    How it stands and which session is under way; how often it was begun again, whether it may not be let
    through once more, and the checkpoints that are there; whether the node is linked up with all others, and
    whether the job is attended; the error of a job that has failed.
    """

    state: str
    running: bytes = b""
    attempts: int = 0
    spent: bool = False
    linked: bool = True
    attended: bool = False
    points: tuple[Since, ...] = ()
    error: TercetError | None = None

    def to_wire(self) -> dict[str, Any]:
        """As it travels."""
        error = {} if self.error is None else self.error.to_wire()
        points = [list(point) for point in self.points]
        return {**attrs.asdict(self, recurse=False), "points": points, "error": error}

    @classmethod
    def read(cls, fields: Any) -> Self:
        """From the wire. Raises ProtocolError."""
        match fields:
            case {
                "state": str(state),
                "running": bytes(running),
                "attempts": int(attempts),
                "spent": bool(spent),
                "linked": bool(linked),
                "attended": bool(attended),
                "points": list(points),
                "error": dict(error),
            } if state in (UNKNOWN, RUNNING, INTERRUPTED, DONE, FAILED):
                read = tuple(_since(point) for point in points)
                told = from_wire(error) if error else None
                return cls(state, running, attempts, spent, linked, attended, read, told)
        raise ProtocolError(f"{fields!r:.200} does not tell how a job stands; look at that node's release")


class LastingJobs(Jobs):
    """The jobs of a node, as its journal has them, and those that are attended."""

    def __init__(self, party: Party, vault: Vault, ledger: Ledger, quotas: Quotas) -> None:
        super().__init__()
        self._party, self._vault, self._ledger, self._quotas = party, vault, ledger, quotas
        self._journal = vault.journal
        self.plan_of: Callable[[str, bytes], Awaitable[Plan]] = Gate().plan_of
        """What a member's job runs."""
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
        party.on_word = self._hear

    def _restored(self, row: JobRow) -> Job:
        job = Job(row.run, row.caller, row.packed, row.asked, row.attempts)
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

    async def sealed_answer(self, session: bytes, outcome: Outcome) -> bytes | None:
        """What came out of a session, sealed for the journal; None if that has nothing of its job."""
        job = self.jobs.get(run_of(session))
        if job is None or job.running != session or job.patience_s is not None:
            return None
        return await self._ask(self._seal, job.session, answer(outcome))

    def _seal(self, session: bytes, found: Answer) -> bytes:
        body, buffers = found
        words = b"".join(np.ascontiguousarray(array).tobytes() for array in buffers)
        packed: bytes = msgpack.packb([body, words])
        return self._vault.seal(_sealed_name(session), packed)

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
        job.interruption, job.interrupted = error, trio.current_time()
        self._wake.set()

    async def _answer(self, job: Job) -> Answer:
        if job.answer is None:
            sealed = await self._ask(self._journal.answer, job.session)
            opened = await self._ask(self._vault.open, _sealed_name(job.session), sealed)
            body, words = msgpack.unpackb(opened)
            job.answer = body, [np.frombuffer(words, dtype=np.uint64)]
        return job.answer

    async def _ended(self, job: Job, error: TercetError | None) -> None:
        """A run has ended; one that a loss has cut short is begun again, unless it had come to its end."""
        lost = job.replaced or (isinstance(error, PeerLost) and job.patience_s != 0)
        if error is None or not lost:
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
            error = PlanError(str(error))
        job.error = error
        job.done.set()
        self._begun.pop(job.session, None)
        if error is None:
            return
        try:
            if alone:
                await self._ask(self._journal.fail_job, job.session, msgpack.packb(error.to_wire()))
            await self._ledger.abandon(job.session, job.caller)
        except StorageError as problem:
            # After a restart, party 0 hears of the job again, and of how it ended.
            logger.warning("the end of job %s is not in the journal: %s", job.session.hex()[:8], problem)

    async def _forget(self, job: Job) -> None:
        if job.patience_s is None:
            await self._ask(self._journal.drop_job, job.session)
        if not job.done.is_set() or job.patience_s is None:  # else there is nothing left of it
            await self._ledger.abandon(job.session, job.caller)

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
                if run == self._asked:
                    self._told[index] = told
                    if len(self._told) == self._party.parties - 1:
                        self._all_told.set()
            case ["ask", bytes()] if index == 0:
                self._words.send_nowait(word)
            case ["go", bytes(run), bytes(name), int(), since] if index == 0:
                if run_of(name) != run or not len(run) < len(name) <= LONGEST_NAME:
                    raise ProtocolError("a job was begun again under a name that is not its own")
                self._words.send_nowait([*word[:4], None if since is None else _since(since)])
            case ["fail", bytes(), dict()] if index == 0:
                self._words.send_nowait(word)
            case _:
                raise ProtocolError(f"{party_name(index)} said {word!r:.80} of a job, which nobody says")

    async def _obey(self) -> None:
        """Do what party 0 says, one thing after the other."""
        async for word in self._heard:
            with _logged(f"a word of party 0 on job {word[1].hex()[:8]}"):
                match word:
                    case ["ask", run]:
                        self._party.tell(0, ["told", run, (await self._own_word(run)).to_wire()])
                    case ["go", run, name, attempts, since]:
                        await self._go(run, name, attempts, since)
                    case ["fail", run, fields]:
                        await self._fail(run, from_wire(fields))

    async def _own_word(self, run: bytes) -> Told:
        job, linked = self.jobs.get(run), not self._party.missing()
        if job is None:
            return Told(UNKNOWN, linked=linked)
        attended = job.patience_s is not None
        if job.done.is_set():
            state = DONE if job.error is None else FAILED
            return Told(state, attempts=job.attempts, linked=linked, attended=attended, error=job.error)
        found = await self._ledger.interrupted(run, job.caller)
        state = RUNNING if job.running else INTERRUPTED
        points = found.points
        return Told(state, job.running, job.attempts, found.spent, linked, attended, points)

    async def _go(self, run: bytes, name: bytes, attempts: int, since: Since | None) -> None:
        """Begin a job again under a new session's name."""
        job = self.jobs.get(run)
        if job is None or not job.attempts < attempts <= MOST_ATTEMPTS:
            return  # it was cancelled meanwhile, or has been begun so often: party 0 learns that when it asks
        await self._halt(job)
        if job.done.is_set():
            return
        if job.patience_s is None:
            await self._ask(self._journal.begin_job, run, attempts)
        job.attempts = attempts
        self.begin(job, name, since)

    async def _halt(self, job: Job) -> None:
        """End the session that is under way for a job; others have lost theirs."""
        if job.running:
            job.replaced = True
            job.scope.cancel()
            await job.idle.wait()

    async def _fail(self, run: bytes, error: TercetError) -> None:
        job = self.jobs.get(run)
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
            mine = [run for run, job in self.jobs.items() if not (job.done.is_set() or job.running)]
            if self._party.index:
                for run in mine:
                    self._party.tell(0, ["stuck", run])
                continue
            stuck, self._stuck = {*mine, *self._stuck}, set()
            for run in stuck:
                if not self._party.missing():
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
        error = _verdict(run, everybody, attempts)
        if error is not None:
            await self._fail_everywhere(run, error)
            return
        pause = min(RETRY_S * 2**attempts, LONGEST_RETRY_S)
        if trio.current_time() < self._begun.get(run, -math.inf) + pause:
            return
        job = self.jobs[run]
        try:
            plan = await self.plan_of(job.caller, job.packed)
        except StorageError:
            raise
        except TercetError as refusal:  # a table may have gone meanwhile; it may never have been a plan
            await self._fail_everywhere(run, refusal)
            return
        since = await self._ask(latest, plan, [told.points for told in everybody])
        name = run + secrets.token_bytes(SUFFIX_BYTES)
        logger.info("job %s is begun again, from %s", run.hex()[:8], "a checkpoint" if since else "its start")
        self._begun[run] = trio.current_time()
        self._say(["go", run, name, attempts, since])
        await self._go(run, name, attempts, since)

    async def _fail_everywhere(self, run: bytes, error: TercetError) -> None:
        self._say(["fail", run, error.to_wire()])
        await self._fail(run, error)

    async def _ask_everybody(self, run: bytes) -> list[Told] | None:
        """What all nodes know of a job, in order; None if one did not answer in time."""
        self._asked, self._told, self._all_told = run, {}, trio.Event()
        self._say(["ask", run])
        with trio.move_on_after(self._party.timeout_s) as waited:
            if self._party.parties > 1:
                await self._all_told.wait()
        self._asked = b""
        if waited.cancelled_caught:
            return None
        return [await self._own_word(run), *(told for _, told in sorted(self._told.items()))]

    def _say(self, word: list[Any]) -> None:
        for index in range(1, self._party.parties):
            self._party.tell(index, word)


def _verdict(run: bytes, everybody: Sequence[Told], attempts: int) -> TercetError | None:
    """Why a job that was interrupted at some node may not go on, None if it may."""
    number = f"job {run.hex()[:8]}"
    for told in everybody:
        if told.state == FAILED and told.error is not None:
            return told.error
    for index, told in enumerate(everybody):
        party = party_name(index)
        if told.state == UNKNOWN:
            return PlanError(
                f"{number} was interrupted and {party} does not know it any more: it was cancelled "
                "meanwhile, or that node has lost its journal; submit the plan again"
            )
        if told.state == DONE:
            return SpentError(
                f"{number} was interrupted when {party} had come to its end, after which it is not run "
                "again; submit the plan again"
            )
        if told.spent:
            return SpentError(
                f"{number} was interrupted, and {party} lets it through no more: it opens to the nodes what "
                "is not known to be harmless, or has begun too often; submit the plan again"
            )
    if attempts > MOST_ATTEMPTS:
        return PlanError(
            f"{number} was interrupted {attempts} times; look at the logs of the nodes, and submit it again"
        )
    return None


def _since(fields: Any) -> Since:
    """A checkpoint from the wire. Raises ProtocolError."""
    match fields:
        case [bytes(session), int(point)]:
            return session, point
    raise ProtocolError(f"{fields!r:.80} names no checkpoint")


def _sealed_name(session: bytes) -> str:
    return f"answer of job {session.hex()}"


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """A disk that fails now does not end the node: party 0 asks again in a while."""
    try:
        yield
    except StorageError as error:
        logger.warning("%s: %s", what, error)
