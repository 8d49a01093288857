"""How the nodes are, now and since somebody has looked: what `tercet check` finds, again and again."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections import deque

import attrs
import trio

from tercet.client.node_checks import Looked, look_at_nodes
from tercet.members.config import ClusterFile
from tercet.portal.mishaps import unforeseen
from tercet.transports import Identity
from tercet.transports.identity import expiry

EVERY_S, AGAIN_S = 15.0, 1.0
"""How often the nodes are looked at, and how soon again if a page wants to know."""
MOST_SAMPLES = 480
"""Two hours."""


@attrs.frozen
class Sample:
    """How a node was: plans under way, bytes of memory and of its fullest disk; `nan` where it tells none.

    Its `time` is that of trio's clock.
    """

    time: float
    runs: float
    memory: float
    free: float

    @classmethod
    def of(cls, now: float, looked: Looked) -> Sample:
        """What one look has found."""
        told = looked.told or {}
        free = min(told.get("free_bytes", {}).values(), default=None)
        numbers = (told.get("runs"), told.get("memory_bytes"), free)
        return cls(now, *(float("nan") if one is None else float(one) for one in numbers))


class NodeWatch:
    """Looks at all nodes every so often, from when it is first asked for."""

    def __init__(
        self, cluster: ClusterFile, identity: Identity, nursery: trio.Nursery, *, timeout_s: float
    ) -> None:
        self.latest: list[Looked] = []
        self.asked: float | None = None
        """When they were looked at last, by the wall clock."""
        self.samples: dict[str, deque[Sample]] = {
            node.name: deque(maxlen=MOST_SAMPLES) for node in cluster.nodes
        }
        self._cluster, self._identity, self._nursery = cluster, identity, nursery
        self._timeout_s = timeout_s
        self._watching = False
        self._looked = -math.inf
        """The same by a clock that is not set."""
        self._one_at_a_time = trio.Lock()

    async def look(self, within_s: float = AGAIN_S) -> list[Looked]:
        """How the nodes are now, or were within so many seconds; they go on being watched."""
        async with self._one_at_a_time:
            if trio.current_time() - self._looked >= within_s:
                self.latest = await look_at_nodes(self._cluster, self._identity, timeout_s=self._timeout_s)
                self.asked, self._looked = time.time(), trio.current_time()
                for one in self.latest:
                    self.samples[one.name].append(Sample.of(self._looked, one))
        if not self._watching:
            self._watching = True
            self._nursery.start_soon(self._watch)
        return self.latest

    async def _watch(self) -> None:
        while True:
            await trio.sleep(EVERY_S)
            try:
                await self.look(EVERY_S / 2)  # pages that are open look too
            except Exception as error:  # noqa: BLE001 - a portal goes on
                unforeseen("a look at the nodes", error)

    def ends(self, name: str) -> dt.datetime:
        """When the certificate of a node or member expires."""
        return expiry(next(one.certificate for one in self._cluster.entries if one.name == name))
