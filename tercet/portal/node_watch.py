"""How the nodes are, now and since somebody has looked: what `tercet check` finds, again and again."""

from __future__ import annotations

import datetime as dt
import time
from collections import deque

import attrs
import trio

from tercet.client.node_checks import Looked, look_at_nodes
from tercet.members.config import ClusterFile
from tercet.portal.mishaps import unforeseen
from tercet.transports import Identity
from tercet.transports.identity import expiry

EVERY_S = 15.0
MOST_SAMPLES = 480
"""Two hours."""


@attrs.frozen
class Sample:
    """How a node was: plans under way, bytes of memory and of its fullest disk; `nan` where it tells none."""

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

    def __init__(self, cluster: ClusterFile, identity: Identity, nursery: trio.Nursery) -> None:
        self.latest: list[Looked] = []
        self.asked: float = 0.0
        self.samples: dict[str, deque[Sample]] = {
            node.name: deque(maxlen=MOST_SAMPLES) for node in cluster.nodes
        }
        self._cluster, self._identity, self._nursery = cluster, identity, nursery
        self._watching = False
        self._one_at_a_time = trio.Lock()

    async def look(self) -> list[Looked]:
        """How the nodes are now; they go on being watched."""
        async with self._one_at_a_time:
            if time.time() - self.asked > 1:
                self.latest = await look_at_nodes(self._cluster, self._identity)
                self.asked = time.time()
                for one in self.latest:
                    self.samples[one.name].append(Sample.of(self.asked, one))
        if not self._watching:
            self._watching = True
            self._nursery.start_soon(self._watch)
        return self.latest

    async def _watch(self) -> None:
        while True:
            await trio.sleep(EVERY_S)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a portal goes on
                unforeseen("a look at the nodes", error)

    def ends(self, name: str) -> dt.datetime:
        """When the certificate of a node or member expires."""
        return expiry(next(one.certificate for one in self._cluster.entries if one.name == name))
