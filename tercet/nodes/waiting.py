"""Plans that wait for their owners, and results that wait for their receivers, at one node.

Who waits is in memory; the approvals that have come, and the results, are in the journal, so that a restart
does not lose them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import msgpack
import trio

from tercet.actors.values import Revealed, type_fields
from tercet.errors import ConsentError
from tercet.members.approvals import Approval
from tercet.members.keys import context, seal
from tercet.nodes.quotas import Quotas
from tercet.plans.plan import Plan

RUN_BYTES = 16
"""Of a session's name, those that name the run; the rest tells its attempts after interruptions apart."""


def run_of(session: bytes) -> bytes:
    """The run that a session is an attempt of: its name begins with that."""
    return session[:RUN_BYTES]


@attrs.define(eq=False)
class Waiting:
    """A plan that a member has asked for, and who still has to approve it.

    `bound` is a digest of the plan and of the identities of what it reads. `check` raises ConsentError for an
    approval that does not count (any more): its end may come, or its key be revoked, while the plan waits.
    """

    session: bytes
    caller: str
    plan: Plan
    bound: bytes
    owners: tuple[str, ...]
    check: Callable[[Waiting, Approval], None]
    asked: float = attrs.field(factory=time.time)
    approvals: dict[str, Approval] = attrs.field(factory=dict)
    refusal: str = ""
    changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def run(self) -> bytes:
        """The run that is approved; see `run_of`."""
        return run_of(self.session)

    @property
    def missing(self) -> list[str]:
        """Owners who have not approved it yet."""
        return [owner for owner in self.owners if owner not in self.approvals]

    async def until_decided(self) -> None:
        """Wait for all owners, until the approvals of all count. Raises ConsentError if one refuses."""
        while True:
            if self.refusal:
                raise ConsentError(self.refusal)
            self.look_again()
            if not self.missing:
                return
            await self.changed.wait()
            self.changed = trio.Event()

    def look_again(self) -> str:
        """Forget approvals that do not count any more, of which the owners are asked again; why, if so."""
        why = ""
        for owner, approval in list(self.approvals.items()):
            try:
                self.check(self, approval)
            except ConsentError as error:
                del self.approvals[owner]
                why = str(error)
        return why

    def summary(self) -> dict[str, Any]:
        """What the list of plans says about it."""
        return {
            "session": self.run,
            "caller": self.caller,
            "plan": self.plan.name,
            "digest": self.plan.digest(),
            "asked": self.asked,
            "missing": self.missing,
        }


class Board:
    """The plans that wait at a node, and those that have waited and are under way.

    Another node may still wait for an approval that has come here, if it was away when it came.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self.plans: dict[bytes, Waiting] = {}
        self.under_way: dict[bytes, Waiting] = {}
        """Approved plans by session, until that is over."""

    def shown(self) -> list[dict[str, Any]]:
        """What the list of plans says."""
        return [one.summary() for one in {**self._by_run(), **self.plans}.values()]

    def _by_run(self) -> dict[bytes, Waiting]:
        return {one.run: one for one in self.under_way.values()}

    async def wait(self, waiting: Waiting) -> None:
        """Put a plan on the board until its owners have decided. Raises ConsentError."""
        others = sum(one.caller == waiting.caller for one in self.plans.values())
        self._quotas.require(waiting.caller, "waiting", others)
        if waiting.run in self.plans:
            raise ConsentError("a plan waits under this session's name already; names are used once")
        self.plans[waiting.run] = waiting
        try:
            await waiting.until_decided()
            self.under_way[waiting.session] = waiting
        finally:
            del self.plans[waiting.run]

    def require_approved(self, session: bytes) -> None:
        """Raise ConsentError if a plan is about to begin whose approvals do not all count any more."""
        waiting = self.under_way.get(session)
        if waiting is not None and (why := waiting.look_again()):
            raise ConsentError(f"{why}; run the plan again")

    def refuse(self, caller: str, run: bytes, why: str) -> None:
        """An owner refuses a plan. Raises ConsentError for one who is not asked about it."""
        waiting = self.find(run)
        if caller not in waiting.owners:
            raise ConsentError(f"{caller} is not asked about plan {run.hex()[:8]}")
        reason = why[:200] or "no reason was given"
        waiting.refusal = f"{caller} has refused plan {waiting.plan.name!r}: {reason}"
        waiting.changed.set()

    def look_again(self, gone: Iterable[str]) -> None:
        """The list of members has changed: keys may have been revoked, and owners be gone."""
        for waiting in self.plans.values():
            if names := sorted({*gone} & {*waiting.owners}):
                waiting.refusal = f"the plan waits for {', '.join(names)}, no member of the lake any more"
            waiting.changed.set()

    def find(self, run: bytes) -> Waiting:
        """A plan by its run. Raises ConsentError if none waits or is under way under that name."""
        found = self.plans.get(run) or self._by_run().get(run)
        if found is None:
            raise ConsentError(f"no plan {run.hex()[:8]} waits here; it has run, or its analyst has left")
        return found


def sealed_result(
    run: bytes, sender: str, plan: str, revealed: Revealed, *, party: int, sealing_key: str
) -> bytes:
    """This party's part of something revealed to another member than who had the plan run, sealed for them.

    As it travels, and as it waits at the node.
    """
    name, receiver, kind, arrays = revealed
    message = b"".join(array.tobytes() for array in arrays)
    packed: bytes = msgpack.packb(
        {
            "session": run,
            "sender": sender,
            "receiver": receiver,
            "plan": plan,
            "name": name,
            "type": type_fields(kind),
            "shapes": [list(array.shape) for array in arrays],
            "sealed": seal(message, sealing_key, context(run, name, party)),
            "made": time.time(),
        }
    )
    return packed
