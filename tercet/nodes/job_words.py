"""What nodes say to each other of a job, and what follows from that: pure, and the same wherever it is asked.

Nothing in it is secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import attrs

from tercet.errors import PlanError, ProtocolError, SpentError, TercetError, from_wire
from tercet.nodes.ledger import MOST_ATTEMPTS
from tercet.plans.passes import Since
from tercet.transports.names import party_name

UNKNOWN, RUNNING, INTERRUPTED, DONE, FAILED = "unknown", "running", "interrupted", "done", "failed"


@attrs.frozen
class Told:
    """What a node knows of a job.

    How it stands and which session is under way; how often it was begun again, whether it may not be let
    through once more, and the checkpoints that are there; whether the node is linked up with all others, and
    whether the job is attended; the number of its plan, of several, and the name of the run that it is; the
    error of a job that has failed.
    """

    state: str
    running: bytes = b""
    attempts: int = 0
    spent: bool = False
    linked: bool = True
    attended: bool = False
    step: int = 0
    name: bytes = b""
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
                "step": int(step),
                "name": bytes(name),
                "points": list(points),
                "error": dict(error),
            } if state in (UNKNOWN, RUNNING, INTERRUPTED, DONE, FAILED):
                read = tuple(read_since(point) for point in points)
                told = from_wire(error) if error else None
                return cls(state, running, attempts, spent, linked, attended, step, name, read, told)
        raise ProtocolError(f"{fields!r:.200} does not tell how a job stands; look at that node's release")


def fall_back(everybody: Sequence[Told]) -> bool:
    """Whether some node has come to the end of a step that others have not: then that is run anew by all.

    Also where one has missed that this was decided.
    """
    return len({(told.step, told.name) for told in everybody if told.state != UNKNOWN}) > 1


def verdict(run: bytes, everybody: Sequence[Told], attempts: int) -> TercetError | None:
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
        if told.spent and not fall_back(everybody):
            return SpentError(
                f"{number} was interrupted, and {party} lets it through no more: it opens to the nodes what "
                "is not known to be harmless, or has begun too often; submit the plan again"
            )
    if attempts > MOST_ATTEMPTS:
        return PlanError(
            f"{number} was interrupted {attempts} times; look at the logs of the nodes, and submit it again"
        )
    return None


def read_since(fields: Any) -> Since:
    """A checkpoint from the wire. Raises ProtocolError."""
    match fields:
        case [bytes(session), int(point)]:
            return session, point
    raise ProtocolError(f"{fields!r:.80} names no checkpoint")
