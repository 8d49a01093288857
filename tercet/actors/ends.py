"""Where the values of a run end: what it reveals, stores, opens to the nodes, and keeps at checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import attrs

from tercet.actors.storage import ValueInParts, Written
from tercet.actors.values import Outcome, Revealed, Statistics, Stored, join
from tercet.errors import ProtocolError, TercetError
from tercet.plans.kinds import KINDS, Data, as_public
from tercet.plans.plan import Plan
from tercet.plans.types import Node, Type, bind_shape
from tercet.protocols.base import Product, Share
from tercet.protocols.domains import Words, decode

logger = logging.getLogger(__name__)

Checkpoint = tuple[int, str, Stored]
"""A value at a checkpoint: the point's number, the value's name, and the value."""


class Ends:
    """What a run at one party leaves, as its last nodes end; `symbols` grows while the plan runs."""

    def __init__(self, plan: Plan, symbols: dict[str, int]) -> None:
        self._plan = plan
        self._revealed: dict[int, Revealed] = {}
        self._written: dict[int, dict[int, Written]] = {}
        """What workers have written of values to be stored, by node and worker."""
        self.outcome = Outcome([], {}, symbols, Statistics())
        self.reached: list[Checkpoint] = []
        """Values of checkpoints that nobody has taken from here yet."""

    @staticmethod
    def takes(node: Node) -> bool:
        """Whether what a node makes is to be handed to `take`."""
        opened_to_nodes = node.kind == "open" and KINDS[node.kind].keeps(node)
        return opened_to_nodes or node.kind in ("store", "checkpoint")

    def reveal(self, index: int, arrays: list[Words]) -> None:
        """Keep this party's part of a revealed value, which stays here until the run has ended."""
        node = self._plan.nodes[index]
        self._revealed[index] = node.get("name"), node.get("to"), self._bound(node.types[0]), arrays

    def take(self, index: int, tiles: Sequence[Data | None]) -> None:
        """Keep a value that a node has made. Raises ProtocolError for one that may not leave a plan."""
        node = self._plan.nodes[index]
        if node.kind == "open":
            words = as_public(join([part for part in tiles if part is not None]))
            self.outcome.told[str(node.get("why"))] = decode(words, node.types[0].scale)
            return
        shares = [require_share(node, index, part) for part in tiles]
        stored = Stored(self._bound(node.types[0]), shares, self._plan.tile_rows)
        if node.kind == "store":
            self.outcome.stored[node.get("handle")] = stored
        else:
            self.reached.append((node.get("point"), node.get("name"), stored))

    def take_written(
        self, index: int, value: ValueInParts, worker: int, part: Written, due: Collection[int]
    ) -> bool:
        """Keep what a worker has written of a value to be stored; whether that is all of it.

        Raises StorageError for a whole that lacks tiles.
        """
        written = self._written.setdefault(index, {})
        written[worker] = part
        if written.keys() != set(due):
            return False
        node = self._plan.nodes[index]
        stored = value.stored(self._bound(node.types[0]), self._plan.tile_rows, written)
        self.outcome.stored[node.get("handle")] = stored
        return True

    def close(self, seconds: float) -> Outcome:
        """The outcome of a run that has ended."""
        # Reveal nodes end in any order; the receiver puts the parties' answers together by plan order.
        self.outcome.revealed = [self._revealed[index] for index in sorted(self._revealed)]
        self.outcome.statistics.seconds = seconds
        return self.outcome

    def _bound(self, kind: Type) -> Type:
        return attrs.evolve(kind, shape=bind_shape(kind.shape, self.outcome.symbols))


def require_share(node: Node, index: int, data: Data | None) -> Share:
    """What may be kept: a share that is no raw product. Raises ProtocolError."""
    if not isinstance(data, Share) or isinstance(data, Product):
        raise ProtocolError(f"{node.title(index)}: only secret values that had their round leave a plan")
    return data


def as_failure(error: Exception, node: Node, index: int, party: int, rounds: int) -> TercetError:
    """What a step that failed after so many rounds of a node raises, with the node and the round named.

    What was not foreseen goes to the log as well.
    """
    title = node.title(index) + (f", round {rounds}" if rounds else "")
    if isinstance(error, TercetError):
        error.args = (f"{title}: {error}",)
        return error
    logger.error("%s failed in an unforeseen way", title, exc_info=error)
    failure = ProtocolError(
        f"{title} failed in an unforeseen way at party {party} ({type(error).__name__}: {error}); the log "
        "of that node has the traceback"
    )
    failure.__cause__ = error
    return failure


def check_sent(node: Node, index: int, *, sent: int, step: int, allowed: tuple[int, int] | None) -> None:
    """Raise ProtocolError for an operation that sends more than its protocol declares: rounds and bytes."""
    if allowed is not None and (sent > allowed[1] or step >= allowed[0]):
        raise ProtocolError(
            f"{node.title(index)} tried to send {sent} bytes in round {step + 1}, but its protocol declares "
            f"{allowed[1]} in {allowed[0]}; nothing of this step was sent"
        )


__all__ = ["Checkpoint", "Ends", "as_failure", "check_sent", "require_share"]
