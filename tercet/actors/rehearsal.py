"""Rehearse a run: the scheduler's loop over declared costs, by the clock of a calibrated machine.

Parties are alike and in step, so one stands for all. Where it has workers, two of its members are rehearsed:
the node, and worker 0, whose block of tiles is as long as any, for all workers. A member steps what can step,
sends frames when nothing more can, and goes on when a round later the peers' frames are there: so rounds of
parallel instances coincide, tiles compute while others are on the wire, and what a latency hides costs
nothing, as in `scheduler`. Who waits for what is asked of `Flow`, which the scheduler asks too.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence

import attrs
import numpy as np

from tercet.actors.flow import HEAVY_WORDS, IN_FLIGHT, Flow
from tercet.actors.machine import MESSAGES_AROUND, TALKING, Machine, units
from tercet.plans.kinds import Tiling
from tercet.plans.shards import NODE, Shards
from tercet.plans.tiles import Costs, without_session
from tercet.plans.types import Ref
from tercet.protocols.domains import WORD_BYTES

FIRST = 0
"""The worker that stands for all."""
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
    """One run of the plan behind `costs`, whose symbols are all known, with so many threads at each member.

    With as many workers a party as the layout of the costs is made for.
    """

    def __init__(
        self,
        costs: Costs,
        machine: Machine,
        network: Network | None = None,
        *,
        threads: int = 1,
    ) -> None:
        workers = costs.layout.workers
        self._costs, self._machine, self._network = costs, machine, network or Network()
        self.to_workers = self.to_node = 0
        """Bytes that cross between the node of a party and all its workers."""
        shards = Shards(costs.layout) if workers else None
        self._shards = shards
        self._members = {
            member: _Member(self, costs, machine, self._network, threads, shards, member)
            for member in ((NODE, FIRST) if workers else (NODE,))
        }

    def seconds(self) -> float:
        """From the client's request to its answer."""
        members = list(self._members.values())
        for member in members:
            member.begin()
        while waiting := [member for member in members if member.events]:
            min(waiting, key=_Member.next_time).go_on()
        network, machine, protocol = self._network, self._machine, self._costs.protocol
        around = network.latency_s and network.latency_s + machine.wake_s
        messages = MESSAGES_AROUND + protocol.group_keys + protocol.malicious
        return machine.plan_s + messages * around + max(member.clock for member in members)

    # -- between members -------------------------------------------------------------------------------------

    def forward(self, sender: _Member, ref: Ref, tile: int, tiles: int) -> None:
        """Pass a tile on to those who read it; from worker 0, with those that all others make meanwhile."""
        if self._shards is None:
            return
        node, worker = self._members[NODE], self._members[FIRST]
        blocks = [self._shards.block(number, tiles) for number in range(self._shards.workers)]
        for alike in [tile] if sender is node else [block[tile] for block in blocks if tile < len(block)]:
            readers, words = sender.readers(ref, alike, tiles), self._costs.held_words(ref, alike)
            if sender is node:
                others = len(readers - {NODE})
                self.to_workers += WORD_BYTES * words * others
                sender.cross(words * others)
                taken = [worker] if FIRST in readers else []
            else:
                self.to_node += WORD_BYTES * words * (NODE in readers)
                own = alike == tile
                sender.cross(words * len(readers - {FIRST}) if own else 0)
                taken = [
                    one for one in (node, worker) if one.number in readers and not (own and one is worker)
                ]
            for one in taken:
                one.expect(sender.clock, words, ref, alike, tiles)

    def add_up(self, sender: _Member, index: int, workers: int) -> None:
        """So many workers have their summands of a node."""
        ref = (index, 0)
        words = self._costs.held_words(ref, 0)
        self.to_node += WORD_BYTES * words * workers
        sender.cross(words)
        self._members[NODE].expect(sender.clock, words * workers, ref, 0, 1)


class _Member:
    """The share of one member of a party, in step with those of the other parties."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        costs: Costs,
        machine: Machine,
        network: Network,
        threads: int,
        shards: Shards | None,
        number: int,
    ) -> None:
        self.number = number
        self.clock = 0.0
        self.events: list[_Event] = []
        self._rehearsal, self._costs, self._machine, self._network = rehearsal, costs, machine, network
        self._shards = shards
        self._layout = costs.layout
        parties = costs.parties
        self._protocol = without_session(costs.protocol, parties)
        symbols = dict(self._layout.symbols)
        self._flow = Flow(
            self._layout.plan, self._layout, self._protocol, symbols, shards=shards, member=number
        )
        alike = 1 if shards is None or number == NODE else shards.workers
        self._light_crowd = machine.crowd(parties, alike)
        self._heavy_crowd = machine.crowd(parties, alike * threads)
        self._fanout = max(1, (parties - 1) // 2)
        self._idle, self._waiting, self._most_waiting = threads, 0, IN_FLIGHT * threads
        self._light: deque[_Instance] = deque()
        self._heavy: deque[_Instance] = deque()
        self._fresh: deque[_Instance] = deque()
        self._outbox: list[_Instance] = []
        self._lines = [0.0] * parties
        self._numbered = 0
        self._started: set[tuple[int, int]] = set()
        self._share = [self._find_share(index) for index in range(len(self._layout.plan.nodes))]
        self._left = [len(share) for share in self._share]

    def _find_share(self, index: int) -> range:
        if self._shards is None:
            return range(self._layout.tiles(index))
        return self._shards.share(self.number, index)

    def begin(self) -> None:
        """Start what reads nothing."""
        for index, node in enumerate(self._layout.plan.nodes):
            if not node.args and not self._flow.inline[index]:
                self._start(index, None)
        self._step_ready()

    def next_time(self) -> float:
        """When it goes on."""
        return max(self.clock, self.events[0][0])

    def go_on(self) -> None:
        """Take what has happened until then, and step."""
        self.clock = self.next_time()
        while self.events and self.events[0][0] <= self.clock:
            heapq.heappop(self.events)[2]()
        self._step_ready()

    def _at(self, time: float, then: Callable[[], None]) -> None:
        self._numbered += 1
        heapq.heappush(self.events, (time, self._numbered, then))

    # -- other members ---------------------------------------------------------------------------------------

    def readers(self, ref: Ref, tile: int, tiles: int) -> set[int]:
        """The members that read a tile, of so many."""
        return self._flow.members(ref, tile, tiles)

    def cross(self, words: int) -> None:
        """Words go to other members, or come from them: either takes half of what a word of a round takes."""
        pace = self._machine.pace(TALKING, talks=True)
        self.clock += words * pace.unit_s / 2 * self._light_crowd

    def expect(self, time: float, words: int, ref: Ref, tile: int, tiles: int) -> None:
        """A tile of another member is on its way."""

        def arrive() -> None:
            self.cross(words)
            self._take(ref, tile, tiles)

        self._at(time, arrive)

    # -- instances -------------------------------------------------------------------------------------------

    def _start(self, index: int, tile: int | None) -> None:
        """Queue the instances of a node, or one of them, whose inputs are there."""
        for number in self._share[index] if tile is None else (tile,):
            if number not in self._share[index] or (index, number) in self._started:
                continue
            if self._flow.depth(index, number) is not None:
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
        work_s = pace.unit_s * units(self._layout, index, tile, cost) + self._handed_s(index)
        work_s += sum(self._inlined_s(ref[0], tile) for ref in node.args if self._flow.inline[ref[0]])
        step_s = (pace.step_s + work_s / (cost.rounds + 1)) * (
            self._heavy_crowd if heavy else self._light_crowd
        )
        bits = [8 * sent / (self._fanout * max(1, cost.rounds)) for sent in cost.sent]
        return _Instance(index, tile, heavy, cost.rounds, step_s, bits)

    def _handed_s(self, index: int) -> float:
        """Seconds for rows that workers hand to each other: about all of a block that go to others, once."""
        if self._shards is None or not self._layout.together(index):
            return 0.0
        refs = self._layout.plan.nodes[index].args
        tiles = [(ref, self._layout.cut(rows)) for ref, rows in zip(refs, self._rows(index), strict=False)]
        words = sum(
            self._costs.held_words(ref, tile)
            for ref, count in tiles
            for tile in self._shards.block(self.number, count)
        )
        leaving = words * (self._shards.workers - 1) / self._shards.workers
        return leaving * self._machine.pace(TALKING, talks=True).unit_s  # half at either end, as in `cross`

    def _rows(self, index: int) -> Sequence[int]:
        return self._layout.team(index, self.number).rows

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
                self.clock += instance.step_s
                self._after(instance)
            elif self._idle and (self._heavy or (self._fresh and self._waiting < self._most_waiting)):
                instance = (self._heavy or self._fresh).popleft()
                self._idle -= 1
                self._at(self.clock + instance.step_s, lambda instance=instance: self._stepped(instance))  # type: ignore[misc]
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
            self._lines[party] = max(self._lines[party], self.clock) + bits / network.bandwidth_bps
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
        if tiling is Tiling.REDUCE and self._shards is not None and self.number != NODE:
            self._rehearsal.add_up(self, index, min(self._shards.workers, self._layout.tiles(index)))
            return
        for output, kind in enumerate(plan.nodes[index].types):
            ref = (index, output)
            if tiling is Tiling.ROWS:
                self._put(ref, tile, self._layout.tiles(index))
                continue
            rows = self._layout.symbols.get(kind.rows, 1) if isinstance(kind.rows, str) else kind.rows
            tiles = self._layout.cut(rows)
            made = range(tiles)
            if self._shards is not None and self._layout.together(index):
                made = self._shards.block(self.number, tiles)
            for number in made:
                self._put(ref, number, tiles)

    def _put(self, ref: Ref, tile: int, tiles: int) -> None:
        self._rehearsal.forward(self, ref, tile, tiles)
        self._take(ref, tile, tiles)

    def _take(self, ref: Ref, tile: int, tiles: int) -> None:
        for reader, only in self._flow.put(ref, tile, tiles, _NOTHING, 0):
            self._start(reader, only)


__all__ = ["Network", "Rehearsal"]
