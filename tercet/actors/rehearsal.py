"""Rehearse a run: the scheduler's loop over declared costs, by the clock of a calibrated machine.

Parties are alike and in step, so one stands for all. It steps what can step, sends frames when nothing more
can, and goes on when a round later the peers' frames are there: so rounds of parallel instances coincide,
tiles compute while others are on the wire, and what a latency hides costs nothing, as in `scheduler`. Who
waits for what is asked of `Flow`, which the scheduler asks too.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable

import attrs
import numpy as np

from tercet.actors.flow import HEAVY_WORDS, IN_FLIGHT, Flow
from tercet.actors.machine import MESSAGES_AROUND, Machine, units
from tercet.plans.kinds import Tiling
from tercet.plans.tiles import Costs, without_session

_NOTHING = np.empty(0, dtype=np.uint64)
_Event = tuple[float, int, Callable[[], None]]


@attrs.frozen
class Network:
    """The links between parties: seconds one way, give or take a jitter, and bits a second at most."""

    latency_s: float = 0.0
    bandwidth_bps: float = math.inf
    jitter_s: float = 0.0

    def late_s(self, parties: int) -> float:
        """How late the last of the frames is that a round of so many parties waits for, on average.

        The share of the jitter was measured with 64 rounds in sequence of `replicated`, `shamir` and `rep4`,
        where each waits for one to four frames: 0.09 to 0.16 among three parties, 0.27 among four, 0.36 among
        five.
        """
        return self.latency_s + self.jitter_s * max(0, parties - 2) / (parties + 3)


@attrs.define(eq=False)
class _Instance:
    """A (node, tile): rounds that are left, seconds for each step, and bits by sender for each round."""

    index: int
    tile: int
    heavy: bool
    left: int
    step_s: float
    bits: list[float]


class Rehearsal:
    """One run of the plan behind `costs`, whose symbols are all known, with so many threads at each party."""

    def __init__(
        self, costs: Costs, machine: Machine, network: Network | None = None, *, threads: int = 1
    ) -> None:
        self._costs, self._machine, self._network = costs, machine, network or Network()
        self._layout = costs.layout
        parties = costs.parties
        sessionless = without_session(costs.protocol, parties)
        self._flow = Flow(self._layout.plan, self._layout, sessionless, dict(self._layout.symbols))
        self._light_crowd, self._heavy_crowd = machine.crowd(parties), machine.crowd(parties, threads)
        self._fanout = max(1, (parties - 1) // 2)
        self._idle, self._waiting, self._most_waiting = threads, 0, IN_FLIGHT * threads
        self._light: deque[_Instance] = deque()
        self._heavy: deque[_Instance] = deque()
        self._fresh: deque[_Instance] = deque()
        self._outbox: list[_Instance] = []
        self._lines = [0.0] * parties
        self._events: list[_Event] = []
        self._numbered = 0
        self._clock = 0.0
        self._started: set[tuple[int, int]] = set()
        self._left = [0] * len(self._layout.plan.nodes)

    def seconds(self) -> float:
        """From the client's request to its answer."""
        network, machine = self._network, self._machine
        for index, node in enumerate(self._layout.plan.nodes):
            self._left[index] = self._layout.tiles(index)
            if not node.args and not self._flow.inline[index]:
                self._start(index, None)
        self._step_ready()
        while self._events:
            self._clock = max(self._clock, self._events[0][0])
            while self._events and self._events[0][0] <= self._clock:
                heapq.heappop(self._events)[2]()
            self._step_ready()
        around = network.latency_s and network.latency_s + machine.wake_s
        protocol = self._costs.protocol
        messages = MESSAGES_AROUND + protocol.group_keys + protocol.malicious
        return machine.plan_s + messages * around + self._clock

    def _at(self, time: float, then: Callable[[], None]) -> None:
        self._numbered += 1
        heapq.heappush(self._events, (time, self._numbered, then))

    def _start(self, index: int, tile: int | None) -> None:
        """Queue the instances of a node, or one of them, whose inputs are there."""
        for number in range(self._layout.tiles(index)) if tile is None else (tile,):
            if (index, number) not in self._started and self._flow.depth(index, number) is not None:
                self._started.add((index, number))
                instance = self._instance(index, number)
                (self._fresh if instance.heavy else self._light).append(instance)

    def _instance(self, index: int, tile: int) -> _Instance:
        cost = self._costs.of(index, tile)
        node = self._layout.plan.nodes[index]
        heavy = self._flow.work(index, tile) >= HEAVY_WORDS
        if node.kind == "input":  # put in place by the way
            return _Instance(index, tile, heavy, 0, 0.0, [])
        pace = self._machine.pace(node.kind, talks=cost.rounds > 0)
        work_s = pace.unit_s * units(self._layout, index, tile, cost)
        work_s += sum(self._inlined_s(ref[0], tile) for ref in node.args if self._flow.inline[ref[0]])
        step_s = (pace.step_s + work_s / (cost.rounds + 1)) * (
            self._heavy_crowd if heavy else self._light_crowd
        )
        bits = [8 * sent / (self._fanout * max(1, cost.rounds)) for sent in cost.sent]
        return _Instance(index, tile, heavy, cost.rounds, step_s, bits)

    def _inlined_s(self, index: int, tile: int) -> float:
        """Seconds for a node that is computed where it is read, with those that it reads in turn."""
        node = self._layout.plan.nodes[index]
        unit_s = self._machine.pace(node.kind, talks=False).unit_s
        own = unit_s * units(self._layout, index, tile, self._costs.of(index, tile))
        read = sum(self._inlined_s(ref[0], tile) for ref in node.args if self._flow.inline[ref[0]])
        return self._machine.inline_s + own + read

    # -- the loop --------------------------------------------------------------------------------------------

    def _step_ready(self) -> None:
        """Step all that can step now, and send what that says."""
        while True:
            if self._light:
                instance = self._light.popleft()
                self._clock += instance.step_s
                self._after(instance)
            elif self._idle and (self._heavy or (self._fresh and self._waiting < self._most_waiting)):
                instance = (self._heavy or self._fresh).popleft()
                self._idle -= 1
                self._at(self._clock + instance.step_s, lambda instance=instance: self._stepped(instance))  # type: ignore[misc]
            else:
                break
        if self._outbox:
            self._flush()

    def _stepped(self, instance: _Instance) -> None:
        self._idle += 1
        self._after(instance)

    def _after(self, instance: _Instance) -> None:
        if instance.left:
            instance.left -= 1
            self._waiting += instance.heavy
            self._outbox.append(instance)
        else:
            self._finish(instance)

    def _flush(self) -> None:
        """One frame to each peer, on links of which every party keeps its own busy."""
        network, machine = self._network, self._machine
        outbox, self._outbox = self._outbox, []
        for party in range(len(self._lines)):
            bits = sum(instance.bits[party] for instance in outbox)
            self._lines[party] = max(self._lines[party], self._clock) + bits / network.bandwidth_bps
        late = network.latency_s and network.late_s(len(self._lines)) + machine.wake_s
        self._at(max(self._lines) + late + machine.round_s, lambda: self._arrive(outbox))

    def _arrive(self, instances: list[_Instance]) -> None:
        for instance in instances:
            self._waiting -= instance.heavy
            (self._heavy if instance.heavy else self._light).append(instance)

    def _finish(self, instance: _Instance) -> None:
        index, tile = instance.index, instance.tile
        plan, tiling = self._layout.plan, self._layout.tiling[index]
        self._left[index] -= 1
        if tiling is not Tiling.ROWS and self._left[index]:
            return
        for output, kind in enumerate(plan.nodes[index].types):
            ref = (index, output)
            if tiling is Tiling.ROWS:
                self._put(ref, tile, self._layout.tiles(index))
                continue
            rows = self._layout.symbols.get(kind.rows, 1) if isinstance(kind.rows, str) else kind.rows
            tiles = self._layout.cut(rows)
            for number in range(tiles):
                self._put(ref, number, tiles)

    def _put(self, ref: tuple[int, int], tile: int, tiles: int) -> None:
        for reader, only in self._flow.put(ref, tile, tiles, _NOTHING, 0):
            self._start(reader, only)


__all__ = ["Network", "Rehearsal"]
