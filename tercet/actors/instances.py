"""What a scheduler keeps of the instances of a plan that run here, and of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tercet.plans.types import Node
from tercet.protocols.base import Op, Received, Share

Name = tuple[int, int]
"""An instance: (node index, tile)."""


@attrs.define(eq=False)
class Instance:
    """A (node, tile) whose inputs are there: its generator, the step it is at and what it waits for."""

    name: Name
    node: Node
    heavy: bool
    depth: int
    alone: bool = False
    """Whether nothing that comes later in the plan begins until it has ended: it holds much of all rows."""
    operation: Op[Any] | None = None
    step: int = 0
    sent: int = 0
    allowed: tuple[int, int] | None = None
    """Rounds and bytes that its protocol declares; None for a kind without exact cost."""
    awaited: Mapping[int, Sequence[tuple[int, ...]]] | None = None
    """Shapes due from each peer in this step; None while the instance is queued or running."""
    exchanges: int = 0
    """Times that it has exchanged words with other members of the party."""
    exchanging: bool = False
    parked: float = 0.0


Step = tuple[Instance, Received | None]
"""An instance and what has arrived for it; None before its first step."""


class NodeState:
    """How far a node is: its tiles, once they are known, and which instances have started and ended."""

    def __init__(self) -> None:
        self.tiles: int | None = None
        self.share: range = range(0)
        """Those that run here: all, unless the party has workers."""
        self.started: set[int] = set()
        self.finished: set[int] = set()
        self.summands: list[Share | None] = []
        self.depth = 0
