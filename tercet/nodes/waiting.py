"""Plans that wait for their owners, and results that wait for their receivers, at one node."""

from __future__ import annotations

import time
from typing import Any

import attrs
import trio

from tercet.actors.node import type_fields
from tercet.actors.plan import Plan, Type
from tercet.consent.approvals import Approval
from tercet.consent.keys import seal
from tercet.errors import ConsentError
from tercet.protocols.domains import Words

MOST_WAITING = 64
"""Plans of one member that may wait at a time."""
MOST_RESULTS = 256


@attrs.define(eq=False)
class Waiting:
    """A plan that a member has asked for, and who still has to approve it."""

    session: bytes
    caller: str
    plan: Plan
    owners: tuple[str, ...]
    asked: float = attrs.field(factory=time.time)
    approvals: dict[str, Approval] = attrs.field(factory=dict)
    refusal: str = ""
    changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def missing(self) -> list[str]:
        """Owners who have not approved it yet."""
        return [owner for owner in self.owners if owner not in self.approvals]

    async def until_decided(self) -> None:
        """Wait for all owners. Raises ConsentError if one refuses."""
        while self.missing and not self.refusal:
            await self.changed.wait()
            self.changed = trio.Event()
        if self.refusal:
            raise ConsentError(self.refusal)

    def summary(self) -> dict[str, Any]:
        """What the list of plans says about it."""
        return {
            "session": self.session,
            "caller": self.caller,
            "plan": self.plan.name,
            "digest": self.plan.digest(),
            "asked": self.asked,
            "missing": self.missing,
        }


class Board:
    """The plans that wait at a node."""

    def __init__(self) -> None:
        self.plans: dict[bytes, Waiting] = {}

    async def wait(self, waiting: Waiting) -> None:
        """Put a plan on the board until its owners have decided. Raises ConsentError."""
        others = sum(one.caller == waiting.caller for one in self.plans.values())
        if others >= MOST_WAITING:
            raise ConsentError(f"{others} plans of {waiting.caller} wait for approval; cancel some first")
        if waiting.session in self.plans:
            raise ConsentError("a plan waits under this session's name already; names are used once")
        self.plans[waiting.session] = waiting
        try:
            await waiting.until_decided()
        finally:
            del self.plans[waiting.session]

    def find(self, session: bytes) -> Waiting:
        """A plan by its session. Raises ConsentError if none waits under that name."""
        if session not in self.plans:
            raise ConsentError(f"no plan {session.hex()[:8]} waits here; it has run, or its analyst has left")
        return self.plans[session]


@attrs.frozen
class Result:
    """This node's part of something revealed to another member than who had the plan run, sealed for them."""

    session: bytes
    sender: str
    receiver: str
    plan: str
    name: str
    type: Type
    shapes: tuple[tuple[int, ...], ...]
    sealed: bytes = attrs.field(repr=False)
    made: float = attrs.field(factory=time.time)

    def to_wire(self) -> dict[str, Any]:
        """For its receiver."""
        fields = attrs.asdict(self, recurse=False)
        return fields | {"type": type_fields(self.type), "shapes": [list(shape) for shape in self.shapes]}


def context(session: bytes, name: str, party: int) -> bytes:
    """What a sealed part is bound to."""
    return b"%b/%d/%b" % (session.hex().encode(), party, name.encode())


class Mailbox:
    """Sealed results by receiver; the oldest of a receiver make room."""

    def __init__(self, party: int) -> None:
        self._party = party
        self._results: dict[str, list[Result]] = {}

    def deliver(
        self,
        session: bytes,
        sender: str,
        plan: str,
        receiver: str,
        sealing_key: str,
        revealed: tuple[str, str, Type, list[Words]],
    ) -> None:
        """Seal this node's part of a revealed value, and keep it for its receiver."""
        name, _, kind, arrays = revealed
        message = b"".join(array.tobytes() for array in arrays)
        sealed = seal(message, sealing_key, context(session, name, self._party))
        shapes = tuple(array.shape for array in arrays)
        box = self._results.setdefault(receiver, [])
        box.append(Result(session, sender, receiver, plan, name, kind, shapes, sealed))
        del box[:-MOST_RESULTS]

    def of(self, receiver: str) -> list[Result]:
        """All results of a receiver."""
        return list(self._results.get(receiver, []))

    def take_away(self, receiver: str, session: bytes) -> None:
        """Forget the results of a run for a receiver, who has them."""
        self._results[receiver] = [one for one in self.of(receiver) if one.session != session]
