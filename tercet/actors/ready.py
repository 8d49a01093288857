"""What a scheduler can step next: light steps for the event loop, heavy ones for threads, and in which order.

What goes on comes before what is new. What is new comes by the first operation on all rows that waits for
it: while that goes from party to party, each of which mostly waits, there is work on what comes later. And
then by tile, so that one tile computes while another is on the wire. Instances that wait for the network are
capped, which bounds memory; the first unfinished instance in plan order may always start, so parties that
start things in different order cannot starve each other.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable

from tercet.actors.flow import IN_FLIGHT
from tercet.actors.instances import Instance, Name, Step
from tercet.protocols.base import Received

LIGHT_IN_FLIGHT = 512
"""Light instances that may wait for the network: so many that parallel work on small values shares rounds."""
AT_ONCE = 4
"""Heavy steps that a thread takes together, if so many can step: what they send shares a frame, and half of
those in flight are on the wire meanwhile."""


class Ready:
    """The steps that can be taken, and `waiting`: the instances that wait for the network.

    Whoever calls holds the scheduler's lock.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._light: deque[Step] = deque()
        self._heavy: deque[Step] = deque()
        self._fresh: dict[Name, Instance] = {}
        self._by_urgency: list[tuple[int, int, int]] = []
        self._by_name: list[Name] = []
        self.waiting: dict[Name, Instance] = {}
        self._heavy_waiting = 0
        self._alone: set[Name] = set()
        """Instances that are `alone` and under way, from their first step on, which may take long."""

    @property
    def goes_on(self) -> bool:
        """Whether an instance that was under way can take its next step."""
        return bool(self._light or self._heavy)

    def add(self, instance: Instance, barrier: int) -> None:
        """A new instance, whose inputs are there; the node `barrier` on all rows waits for it first."""
        index, tile = instance.name
        self._fresh[instance.name] = instance
        heapq.heappush(self._by_urgency, (barrier, tile, index))
        heapq.heappush(self._by_name, (index, tile))

    def wait(self, instance: Instance) -> None:
        """An instance waits for the network, or for other members of the party."""
        self._heavy_waiting += instance.heavy and instance.name not in self.waiting
        self.waiting[instance.name] = instance

    def go_on(self, instance: Instance, got: Received) -> None:
        """What an instance waited for is there."""
        (self._heavy if instance.heavy else self._light).append((instance, got))

    def end(self, instance: Instance) -> None:
        """An instance has its result."""
        self._alone.discard(instance.name)
        if self.waiting.pop(instance.name, None) is not None:
            self._heavy_waiting -= instance.heavy

    def next(self, *, idle: bool) -> Step | None:
        """The next step, heavy if a thread is idle."""
        if self._light:
            return self._light.popleft()
        if idle and self._heavy:
            return self._heavy.popleft()
        instance = self._next_fresh()
        if instance is None or (instance.heavy and not idle):
            return None
        del self._fresh[instance.name]
        if instance.alone:
            self._alone.add(instance.name)
        return instance, None

    def along(self, first: Step, is_tile: Callable[[Instance], bool], idle: int) -> list[Step]:
        """A heavy step and those that its thread takes along: its part of what so many idle ones could."""
        most = min(AT_ONCE, -(-(1 + len(self._heavy) + len(self._fresh)) // idle))
        steps = [first]
        while len(steps) < most and is_tile(first[0]):
            if self._heavy:
                if not is_tile(self._heavy[0][0]):
                    break
                steps.append(self._heavy.popleft())
            else:
                fresh = self._next_fresh()
                if fresh is None or not (fresh.heavy and is_tile(fresh)):
                    break
                del self._fresh[fresh.name]
                steps.append((fresh, None))
        return steps

    def _next_fresh(self) -> Instance | None:
        if not self._fresh:
            return None
        light = len(self.waiting) - self._heavy_waiting
        few = self._heavy_waiting < IN_FLIGHT * self._threads and light < LIGHT_IN_FLIGHT
        if few and not self._alone:
            while (name := self._by_urgency[0][:0:-1]) not in self._fresh:
                heapq.heappop(self._by_urgency)
            return self._fresh[name]
        while (name := self._by_name[0]) not in self._fresh:
            heapq.heappop(self._by_name)
        return self._fresh[name] if name < min(itertools.chain(self.waiting, self._alone)) else None
