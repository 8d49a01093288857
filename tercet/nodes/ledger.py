"""The ledger of a node: values that were not kept, and what becomes of runs, also across restarts.

A value that a plan stores is a sealed file before the run counts as ended, so a plan that has ended at all
nodes has stored its values for good. What a member deals is in memory only, and lasts as long as the member
stays. Checkpoints are values of a session under way: a run that was interrupted goes on from one that all
nodes have. They are shares of one session and fit no other's, so a checkpoint is named by both.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import trio

from tercet.actors.threads import counted, in_thread
from tercet.actors.values import Stored
from tercet.errors import ConsentError, PlanError
from tercet.members.approvals import Approval
from tercet.nodes.vault import Vault
from tercet.nodes.waiting import Waiting, run_of
from tercet.plans.passes import Since
from tercet.plans.plan import RESERVED
from tercet.storage.job_rows import JobEnd
from tercet.storage.journal import Checkpoint, LooseValue

T = TypeVar("T")

LOOSE_S = 24 * 3600.0
"""Values that were not kept are forgotten when they were not used for so long."""
UNFINISHED_S = 7 * 86400.0
"""Runs that were interrupted, and approvals of them, are forgotten after so long."""
MOST_ATTEMPTS = 16
"""How often a run may be let through under the same approvals, if it never comes to its end."""


@attrs.define(eq=False)
class Loose:
    """A value that was not kept. One that a plan has stored `lasts`: it has a file, and is in the journal."""

    value: LooseValue
    lasts: bool
    in_memory: bool = False
    used: float = attrs.field(factory=time.time)


@attrs.frozen
class Interrupted:
    """What is left of a run: whether it is let through no more, and its checkpoints, the latest last."""

    spent: bool
    points: tuple[Since, ...]


class Ledger:
    """Loose values, runs that owners are asked about, and checkpoints."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._journal = vault.journal
        self._loose: dict[str, Loose] = {}
        self.bytes: Counter[str] = Counter()
        """Bytes of loose values, by member."""
        self.values: Counter[str] = Counter()
        """Loose values, by member."""
        self.in_memory: Counter[str] = Counter()
        """Bytes of loose values that are in memory, by member."""
        loose, kept = self._journal.loose(), vault.catalog.handles()
        # The node has ended after these were kept, and before the journal let go of them.
        self._journal.forget(kept.intersection(loose))
        for handle, one in loose.items():
            if handle not in kept:
                self._add(handle, Loose(one, lasts=True))
        self._reserved: dict[str, bytes] = {}
        """Handles that runs are going to store, by run."""

    async def _ask(self, question: Callable[..., T], *args: Any) -> T:
        return await in_thread(question, *args)

    # -- loose values ----------------------------------------------------------------------------------------

    def find(self, handle: str) -> LooseValue | None:
        """A loose value, which counts as used now."""
        found = self._loose.get(handle)
        if found is None:
            return None
        found.used = time.time()
        return found.value

    def deal(self, handle: str, caller: str, size: int, *, memory: int) -> None:
        """A member deals a value of so many bytes, and may have so many in memory."""
        value = LooseValue(caller, frozenset(), frozenset(), size=size)
        in_memory = self.in_memory[caller] + size <= memory
        self._add(handle, Loose(value, lasts=False, in_memory=in_memory))

    def is_in_memory(self, handle: str) -> bool:
        """Whether a loose value lies in memory, if it comes in one piece."""
        found = self._loose.get(handle)
        return found is not None and found.in_memory

    def _add(self, handle: str, loose: Loose) -> None:
        self._loose[handle] = loose
        self._count(loose, 1)

    def _count(self, loose: Loose, sign: int) -> None:
        member, size = loose.value.caller, sign * loose.value.size
        self.bytes[member] += size
        self.values[member] += sign
        self.in_memory[member] += size if loose.in_memory else 0

    async def holder(self, run: bytes) -> str | None:
        """The member whose run this is; None if nobody here has used its name."""
        return await self._ask(self._journal.holder, run)

    def reserve(self, run: bytes, handles: Iterable[str]) -> None:
        """Keep handles free that a run is going to store. Raises PlanError for one that is not free."""
        handles = list(handles)
        for handle in handles:
            self.require_free(handle, run)
        self._reserved |= dict.fromkeys(handles, run)

    def release(self, run: bytes) -> None:
        """A run is over, or its attempt: it needs its handles no longer."""
        self._reserved = {handle: one for handle, one in self._reserved.items() if one != run}

    def require_free(self, handle: str, run: bytes = b"") -> None:
        """Raise PlanError for a handle that a loose value lies under, or another run will store a value."""
        if handle in self._loose or self._reserved.get(handle, run) != run:
            raise PlanError(f"something is stored under {handle!r:.80} already; take another handle")

    def unused(self) -> list[str]:
        """Values that nobody has used for long."""
        return [handle for handle, one in self._loose.items() if one.used < time.time() - LOOSE_S]

    async def forget(self, handles: Iterable[str], *, files: bool = True) -> None:
        """Let values go; without `files`, only what the ledger knows of them, since they were kept.

        Leaves those alone that it does not know.
        """
        gone = {handle: found for handle in handles if (found := self._loose.pop(handle, None)) is not None}
        for one in gone.values():
            self._count(one, -1)
        lasting = [handle for handle, one in gone.items() if one.lasts]
        # They count no more, so whoever gives up waiting must not leave their files; nor does this wait for
        # threads of the member, who could have none free for long.
        with counted(None), trio.CancelScope(shield=True):
            if lasting:
                await self._ask(self._journal.forget, lasting)
            if files:
                await self._vault.forget(gone)

    # -- runs ------------------------------------------------------------------------------------------------

    async def ask(self, waiting: Waiting, *, most: int) -> None:
        """Note a run that owners are asked about, and find the approvals that it has from an earlier attempt.

        It may be let through `most` times. Raises ConsentError if it is another plan's or member's, was let
        through so often, or has come to its end.
        """
        bound = waiting.bound
        asked = await self._ask(self._journal.ask, waiting.run, waiting.caller, bound, most)
        if asked.spent:
            raise ConsentError("a run of this name was let through before; an approval holds for one run")
        if (asked.caller, asked.digest) != (waiting.caller, bound):
            raise ConsentError(
                "owners were asked about another plan under this name, or one that read other values; run it "
                "under a new one"
            )
        for fields in asked.approvals:
            if fields["approver"] in waiting.owners:
                waiting.approvals[fields["approver"]] = Approval(**fields)
        waiting.look_again()

    async def let_through(self, run: bytes) -> None:
        """Count an attempt of an approved run."""
        await self._ask(self._journal.let_through, run)

    async def end(
        self,
        session: bytes,
        values: Mapping[str, LooseValue],
        stored: Mapping[str, Stored],
        results: Sequence[tuple[str, bytes]],
        job: JobEnd | None = None,
        *,
        sender: str | None = None,
        most: int = 256,
    ) -> dict[str, Stored]:
        """A run has come to its end: what it stored lasts, as is returned, and its approvals are used up.

        `results` of a sender are sealed, by receiver, of whom each keeps so many; `job` is what ends with the
        run. Raises StorageError, or ConsentError for a run that has ended before; nothing is kept then.
        """
        written: dict[str, Stored] = {}
        try:
            for handle, value in stored.items():
                written[handle] = await self._vault.write(handle, value)
            end = functools.partial(self._journal.end, sender=sender, job=job)
            ended, old = await self._ask(end, run_of(session), values, results, most)
            if not ended:
                raise ConsentError("a run of this name has ended before; an approval holds for one run")
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._vault.forget(stored)
            raise
        for handle, one in values.items():
            self._add(handle, Loose(one, lasts=True))
        with trio.CancelScope(shield=True):  # it has ended, whatever becomes of its session now
            await self._vault.forget(old)
        return written

    async def sweep(self) -> None:
        """Forget runs that nobody goes on with, their approvals and checkpoints."""
        await self._vault.forget(await self._ask(self._journal.sweep, time.time() - UNFINISHED_S))

    # -- checkpoints -----------------------------------------------------------------------------------------

    async def reach(
        self, session: bytes, caller: str, digest: bytes, point: int, values: Mapping[str, Stored]
    ) -> None:
        """A session has come to a checkpoint: write its values."""
        handles = {name: _handle(session, name) for name in values}
        reached = Checkpoint(session, point, run_of(session), caller, digest, tuple(handles.values()))
        try:
            for name, stored in values.items():
                await self._vault.write(handles[name], stored)
            await self._ask(self._journal.reach, reached)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._vault.forget(handles.values())
            raise

    async def interrupted(self, run: bytes, caller: str) -> Interrupted:
        """What is here of a member's run that was interrupted."""
        found = await self._ask(self._journal.checkpoints, run)
        points = tuple((one.session, one.point) for one in found if one.caller == caller)
        return Interrupted(await self._ask(self._journal.spent, run, caller), points)

    async def resume(
        self, session: bytes, caller: str, digest: bytes, since: Since, names: Iterable[str]
    ) -> dict[str, Stored]:
        """The values of a checkpoint of an earlier attempt at the same run, by name. Raises PlanError."""
        found = await self._ask(self._journal.checkpoints, run_of(session))
        same = [one for one in found if (one.session, one.point) == since]
        if not same or (same[0].caller, same[0].digest) != (caller, digest):
            raise PlanError("this node has no such checkpoint of this plan; run it from its beginning")
        values: dict[str, Stored] = {}
        for name in names:
            stored = await self._vault.load(_handle(since[0], name))
            if stored is None:
                raise PlanError(f"the checkpoint has no value {name!r}; run the plan from its beginning")
            values[name] = stored
        return values

    async def abandon(self, run: bytes, caller: str) -> None:
        """Forget the checkpoints of a member's run."""
        await self._vault.forget(await self._ask(self._journal.abandon, run, caller))


def _handle(session: bytes, name: str) -> str:
    """What a checkpoint's value is called in the vault; members cannot give a value such a name."""
    return f"{RESERVED}{session.hex()}/{name}"
