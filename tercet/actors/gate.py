"""The gate: what a node asks before it does something for a client, and what it can do beyond running plans.

This one, of lakes on one machine, lets everybody do everything and keeps nothing. `tercet.nodes` has the gate
of nodes that last: it knows members, rules, approvals, stored tables and jobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tercet.actors.arrivals import Gathering, Sink
from tercet.actors.storage import ValueInParts
from tercet.actors.threads import in_thread, turn
from tercet.actors.values import Outcome, Stored
from tercet.errors import PlanError, ProtocolError
from tercet.plans.parsing import read_plan
from tercet.plans.passes import Since
from tercet.plans.plan import Plan
from tercet.plans.types import Type

BIG_PLAN = 1 << 13
"""Plans of so many bytes are read in a thread, so that heartbeats go on."""


def _read_once(packed: bytes) -> Plan:
    """In a thread: of nodes that share a process, one reads a plan, and the others find its shape."""
    with turn(packed):
        return read_plan(packed)


@attrs.frozen
class ClientLimits:
    """What a client may have of a node: connections, requests a second, threads at a time, part of a core."""

    connections: int
    requests: float
    threads: int
    core: float


class Gate:
    """Lets everything pass. `caller` is the name under which the client's certificate is pinned."""

    queues = False
    """Whether party 0 lets plans wait for their turn, so that the others have to wait for party 0."""

    clients: ClientLimits | None = None
    """Limits for each client, by name; None for none."""

    def audited(self, caller: str, request: str, **facts: Any) -> contextlib.AbstractContextManager[None]:
        """Around a request: a gate with an audit log writes down what is refused inside."""
        _ = caller, request, facts
        return contextlib.nullcontext()

    async def load(self, handle: str) -> Stored | None:
        """A value that is kept beyond the memory of the party, or None."""
        _ = handle
        return None

    def begin(self, handle: str, kind: Type, tile_rows: int) -> Sink:
        """Where a value goes that is dealt in pieces. Blocks; raises StorageError."""
        _ = handle
        return Gathering(kind, tile_rows)

    def in_parts(self, handle: str, workers: int) -> ValueInParts | None:
        """A value that workers of the node are to write by themselves; None where they cannot."""
        _ = handle, workers
        return None

    def admit(self, caller: str, handle: str, kind: Type) -> None:
        """A piece of a value is about to be read. Raises QuotaError for one that is too large."""

    def in_memory(self, handle: str) -> bool:
        """Whether a value that comes in one piece may lie in memory; else it goes where `begin` says."""
        _ = handle
        return True

    async def before_put(self, caller: str, handle: str, kind: Type) -> None:
        """A client is about to deal a value. Raises ConsentError."""

    async def plan_of(self, caller: str, packed: bytes) -> Plan:
        """The plan that a client asks for. Raises PlanError."""
        _ = caller
        if len(packed) < BIG_PLAN:
            return read_plan(packed)
        return await in_thread(_read_once, packed)

    async def before_name(self, caller: str, session: bytes) -> None:
        """A client gives a run its name. Raises ConsentError, of which nothing comes, for another's."""

    async def before_run(self, caller: str, session: bytes, plan: Plan) -> None:
        """A client has asked for a run; may wait for approval. Raises ConsentError."""

    async def before_start(self, caller: str, session: bytes, plan: Plan) -> None:
        """A run has its inputs. Raises PlanError if they are not those that it was let through for."""

    async def after_run(self, caller: str, session: bytes, plan: Plan, outcome: Outcome) -> Outcome:
        """What the caller may have of an outcome. Raises ConsentError; then nothing of it is kept."""
        _ = caller, session, plan
        return outcome

    async def reached(self, caller: str, session: bytes, point: int, values: Mapping[str, Stored]) -> None:
        """A run has come to a checkpoint, with these values by name. Raises StorageError."""

    async def resume(
        self, caller: str, session: bytes, plan: Plan, since: Since
    ) -> tuple[Plan, dict[str, Stored]]:
        """The rest of a plan from a checkpoint on, and its values. Raises PlanError if that is not here."""
        _ = caller, session, since
        raise PlanError(f"nodes on one machine keep no checkpoints of plan {plan.name!r}; run all of it")

    def bytes_held(self) -> int:
        """Bytes of values in memory besides those of the party."""
        return 0

    def over(self, session: bytes) -> None:
        """A run has ended, well or not, perhaps before it was let through."""

    async def before_trace(self, caller: str) -> None:
        """A client asks to record what the node does. Raises ConsentError."""

    async def before_drop(self, caller: str, handles: Sequence[str]) -> None:
        """A client asks to forget values. Raises ConsentError."""

    async def answer(self, caller: str, verb: str, args: Sequence[Any]) -> dict[str, Any]:
        """Answer a request other than to put, drop or trace, or on jobs."""
        _ = caller, args
        raise ProtocolError(f"a client asked for {verb!r} in a way that these nodes do not know")

    async def left(self, caller: str, handles: Sequence[str]) -> None:
        """A client has left; these are the values that it has put."""
