"""Lockstep: runs a small plan at one party, and sends each peer at most one frame a round.

Where every value is one tile and no step is worth a worker thread, all parties go through a plan alike: in a
round each steps all instances that wait for it, in the order of their nodes, and starts what becomes ready.
So what peers send needs no names: a frame is the words of all instances side by side, and each party knows
from its own steps what is due, and how long it is. What a plan's nodes read, wake and may send is found once,
in `Lowering`, and serves every run of it. Larger plans are for `scheduler`, which runs the same operations
under the same names, so that results are the same to the last bit.
"""

from __future__ import annotations

import heapq
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import attrs
import numpy as np
import trio

from tercet.actors.ends import Ends, as_failure, check_sent
from tercet.actors.progress import Progress
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.tracing import Recorder, TraceEvent, Witness
from tercet.actors.values import FiledTiles, Outcome, Stored, join
from tercet.errors import ProtocolError
from tercet.plans.kinds import KINDS, Context, Data, Kind
from tercet.plans.plan import Plan
from tercet.plans.tiles import SLACK, SLACK_ROUNDS, SLACK_WORDS, Costs, Layout
from tercet.plans.types import Node, Ref, Type, word_shape
from tercet.protocols.base import Op, Protocol, Received, Round, Share
from tercet.protocols.domains import WORD_BYTES, Words

MOST_WORK = 1 << 19
"""Work of one instance, in words added, up to which a plan runs in lockstep: steps of about a millisecond."""
MOST_PRODUCTS = 1 << 21
"""Products that one instance adds up: some milliseconds."""
MOST_MADE = 1 << 25
"""Words of all results together: what waits for a round is in memory all at once, and in one frame."""
MOST_STEPS = 1 << 16
"""Nodes of a plan: what is worked out of them beforehand takes a second."""
SLICE_S = 0.01
"""How long steps may hold the event loop before heartbeats and readers get a turn."""

Frames = Mapping[int, Sequence[Words]]
"""What a party sends in a round, by peer: the words of all instances, in the order of their nodes."""
Send = Callable[[int, Frames], Awaitable[None]]

_known: WeakKeyDictionary[Plan, bool] = WeakKeyDictionary()


def runs_in_lockstep(plan: Plan) -> bool:
    """Whether a plan is small enough, however many rows its symbols turn out to mean."""
    shape = plan.apart_from_handles
    found = _known.get(shape)
    if found is None:
        found = _known[shape] = _is_small(shape)
    return found


def _is_small(plan: Plan) -> bool:
    if len(plan.nodes) > MOST_STEPS:
        return False
    words: dict[Type, int] = {}
    total = 0
    for node in plan.nodes:
        for made in node.types:
            if made not in words:
                rows = plan.maxima[made.rows] if isinstance(made.rows, str) else made.rows
                if rows > plan.tile_rows:
                    return False
                words[made] = math.prod(word_shape(made, plan.maxima))
        kind, results = KINDS[node.kind], sum(words[made] for made in node.types)
        read = sum(words[plan.type_of(ref)] for ref in node.args)
        if max(kind.weight * read, results) > MOST_WORK:
            return False
        if kind.adds_products:
            terms = word_shape(plan.type_of(node.args[0]), plan.maxima)[-1]
            if results * terms > MOST_PRODUCTS:
                return False
        total += results
    return total <= MOST_MADE


# -- what all runs of a plan have in common ------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Place:
    """A node in its plan, whose handle may be another one.

    What hangs on sizes is None where a symbol has to be known first.
    """

    index: int
    node: Node
    kind: Kind
    rows: int | None
    openings: int | None
    allowed: tuple[int, tuple[int, ...]] | None
    """Rounds, and bytes by party, that the protocol declares; None also for a kind without exact cost."""


class Lowering:
    """A plan under one protocol as lists: what each node reads, wakes and may send; and what a run may take.

    Bounds, openings and costs are worked out here, once for all runs.
    """

    def __init__(self, plan: Plan, protocol: type[Protocol], parties: int) -> None:
        layout = Layout(plan, plan.maxima)
        costs = Costs(layout, protocol, parties)
        self.missing = [0] * len(plan.nodes)
        self.readers: list[list[int]] = [[] for _ in plan.nodes]
        self.places: list[_Place] = []
        self.most_bytes = [0] * parties
        """What each party sends at most in a run."""
        self.most_rounds = 0
        ends = [0] * len(plan.nodes)
        alike: dict[tuple[Any, ...], tuple[bool, int, int]] = {}
        for index, node in enumerate(plan.nodes):
            kind, cost = KINDS[node.kind], costs.of(index, 0)
            sources = {producer for producer, _ in node.args}
            self.missing[index] = len(sources)
            begins = 0
            for producer in sources:
                self.readers[producer].append(index)
                begins = max(begins, ends[producer])
            rounds, sent = cost.rounds, cost.sent
            if rounds and not kind.exact_cost:
                rounds = SLACK * rounds + SLACK_ROUNDS
                sent = tuple([SLACK * one + SLACK_WORDS * WORD_BYTES for one in sent])
            ends[index] = begins + rounds
            if rounds:
                self.most_bytes = [a + b for a, b in zip(self.most_bytes, sent, strict=True)]
            # Plans repeat steps: what follows from kind and types alone is worked out once for all like it.
            key = (node.kind, node.attributes, node.types, tuple([plan.type_of(ref) for ref in node.args]))
            if key not in alike:
                alike[key] = _facts(layout, index, kind, key[2] + key[3])
            fixed, rows, openings = alike[key]
            allowed = (rounds, sent) if kind.exact_cost else None
            self.places.append(
                _Place(index, node, kind, rows, openings, allowed)
                if fixed
                else _Place(index, node, kind, None, None, None)
            )
        self.most_rounds = max(ends, default=0)


def _facts(layout: Layout, index: int, kind: Kind, types: tuple[Type, ...]) -> tuple[bool, int, int]:
    """Whether a node's sizes are all known beforehand, and if so its rows, and the words that it may open."""
    if any(isinstance(dim, str) for one in types for dim in one.shape):
        return False, 0, 0
    node = layout.plan.nodes[index]
    return True, layout.tile_rows(index, 0), kind.openings(node, layout.word_shapes(index, 0))


_lowered: WeakKeyDictionary[Plan, dict[tuple[type[Protocol], int], Lowering]] = WeakKeyDictionary()


def lower(plan: Plan, protocol: type[Protocol], parties: int) -> Lowering:
    """The lowering of a plan and all of its shape, found once for each protocol and number of parties."""
    shape = plan.apart_from_handles
    known = _lowered.setdefault(shape, {})
    if (protocol, parties) not in known:
        known[protocol, parties] = Lowering(shape, protocol, parties)
    return known[protocol, parties]


class Allowance:
    """What each peer may still send in a run: no more than the plan declares, however early it comes."""

    def __init__(self, lowering: Lowering) -> None:
        self._lowering = lowering
        self._rounds = [0] * len(lowering.most_bytes)
        self._bytes = [0] * len(lowering.most_bytes)

    def charge(self, peer: int, number: Any, size: int) -> None:
        """Book the frame of a round. Raises ProtocolError, naming the peer, for one that no run sends."""
        most = self._lowering.most_rounds
        if type(number) is not int or not self._rounds[peer] < number <= most or size <= 0:
            raise ProtocolError(
                f"party {peer} sent {size} bytes for round {number!r:.40} after round {self._rounds[peer]}, "
                f"where a run has at most {most}"
            )
        self._rounds[peer] = number
        self._bytes[peer] += size
        if self._bytes[peer] > self._lowering.most_bytes[peer]:
            raise ProtocolError(
                f"party {peer} sent {self._bytes[peer]} bytes up to round {number}, where its protocol "
                f"declares {self._lowering.most_bytes[peer]} in all"
            )


# -- a run ---------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Instance:
    """A node under way: its generator, and the round that it waits for."""

    place: _Place
    operation: Op[Any]
    allowed: tuple[int, int] | None
    awaits: Round
    step: int = 0
    sent: int = 0
    parked: float = 0.0
    """When it began to wait, while events are kept."""


class Lockstep:
    """One run of a small plan at one party; as `Scheduler`, without its threads and tiles.

    `send` takes a round's number and frames, `take` those of peers. Raises what operations raise, with the
    node named.
    """

    def __init__(
        self,
        plan: Plan,
        protocol: Protocol,
        inputs: Mapping[str, Stored],
        *,
        send: Send,
        symbols: dict[str, int] | None = None,
        trace: list[TraceEvent] | None = None,
        scratch: Scratch = IN_MEMORY,
        reach: Callable[[int, str, Stored], None] | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.plan = plan
        self.protocol = protocol
        protocol.allocate, protocol.reach = scratch.empty, scratch.reach
        self._inputs = inputs
        self._read_inputs: dict[str, Sequence[Share]] = {}
        self._send = send
        self._reach = reach
        self._witness = witness
        self._recorder = Recorder(trace)
        self._symbols: dict[str, int] = {} if symbols is None else symbols
        self._layout = Layout(plan, self._symbols)
        self._lowering = lower(plan, type(protocol), protocol.parties)
        self._local = protocol.bind("local")
        self._values: list[Sequence[Data]] = [()] * len(plan.nodes)
        self._missing = list(self._lowering.missing)
        self._unread = [len(readers) for readers in self._lowering.readers]
        self._ready = [index for index, missing in enumerate(self._missing) if not missing]
        self._active: list[_Instance] = []
        self._mail: list[dict[int, Words]] = [{} for _ in range(protocol.parties)]
        self._round = 0
        self._awaited: list[int] = []
        self._arrived = trio.Event()
        self._ends = Ends(plan, self._symbols)
        self._outcome = self._ends.outcome
        self._done = 0
        self._told = Progress(nodes=len(plan.nodes))
        self._slice_ends = 0.0

    async def run(self) -> Outcome:
        """Run the plan to its end."""
        began = time.perf_counter()
        if self._witness is not None:
            self._witness.begin()
        await self._read_files()
        await self._start_ready()
        while self._active:
            self._round += 1
            self._active.sort(key=lambda instance: instance.place.index)
            await self._send_frames()
            await self._resume(await self._frames())
            await self._start_ready()
        self._keep_reached()
        if left := [peer for peer, mail in enumerate(self._mail) if mail]:
            raise ProtocolError(f"party {left} sent more rounds than plan {self.plan.name!r} has")
        self._outcome.statistics.rounds = self._round
        outcome = self._ends.close(time.perf_counter() - began)
        if self._witness is not None:
            self._witness.end(outcome)
        return outcome

    def progress(self) -> Progress:
        """How far this run is; see `Scheduler.progress`."""
        if not self._symbols:
            sent = self._outcome.statistics.bytes_sent
            self._told = Progress(self._done, self._told.nodes, self._round, sent)
        return self._told

    # -- rounds ----------------------------------------------------------------------------------------------

    def take(self, peer: int, number: int, payload: Words) -> None:
        """Take the frame of a round."""
        self._mail[peer][number] = payload
        if self._all_sent():
            self._arrived.set()

    def _all_sent(self) -> bool:
        """Whether all peers have sent what is due, or a later round: none comes after that any more."""
        return all(self._mail[peer] for peer in self._awaited)

    async def _send_frames(self) -> None:
        frames: dict[int, list[Words]] = {}
        for instance in self._active:
            for peer, arrays in instance.awaits.send.items():
                frames.setdefault(peer, []).extend(array for array in arrays if array.size)
        frames = {peer: arrays for peer, arrays in frames.items() if arrays}
        for peer, arrays in frames.items():
            size = WORD_BYTES * sum(array.size for array in arrays)
            self._outcome.statistics.bytes_sent += size
            if self._recorder.on:
                now = time.perf_counter()
                self._recorder.note("frame", f"to party {peer}", len(arrays), 0, now, peer=peer, size=size)
        self._keep_reached()
        if frames:
            await self._send(self._round, frames)

    async def _frames(self) -> dict[int, Words]:
        """The words that each peer sends in this round, once they are there, as many as are due."""
        due = [0] * len(self._mail)
        for instance in self._active:
            for peer, shapes in instance.awaits.recv.items():
                due[peer] += sum(map(math.prod, shapes))
        peers = [peer for peer, words in enumerate(due) if words]
        if not peers:
            await trio.lowlevel.checkpoint()
        self._awaited = peers
        self._arrived = trio.Event()
        if not self._all_sent():
            await self._arrived.wait()
        found = {}
        for peer, mail in enumerate(self._mail):
            payload = mail.pop(self._round, None)
            sent = 0 if payload is None else payload.size
            if sent != due[peer]:
                nodes = ", ".join(one.place.node.title(one.place.index) for one in self._active[:3])
                raise ProtocolError(
                    f"party {peer} sent {sent} words in round {self._round}, where {due[peer]} are due "
                    f"({nodes})"
                )
            if payload is not None:
                found[peer] = payload
        return found

    async def _resume(self, frames: Mapping[int, Words]) -> None:
        """Hand each instance its part of the frames, and step it."""
        starts = dict.fromkeys(frames, 0)
        active, self._active = self._active, []
        for instance in active:
            got: dict[int, Sequence[Words]] = {}
            for peer, shapes in instance.awaits.recv.items():
                arrays = []
                for shape in shapes:
                    size = math.prod(shape)
                    if size:
                        start = starts[peer]
                        arrays.append(frames[peer][start : start + size].reshape(shape))
                        starts[peer] = start + size
                    else:
                        arrays.append(np.empty(shape, dtype=np.uint64))
                got[peer] = arrays
                if self._witness is not None and arrays:
                    self._witness.hear(peer, instance.place.index, 0, instance.step, arrays)
            if self._recorder.on:
                self._recorder.note("wait", _event_name(instance.place), 0, instance.step, instance.parked)
            instance.step += 1
            self._advance(instance.place, instance, got)
            await self._breathe()

    async def _breathe(self) -> None:
        if (now := time.perf_counter()) > self._slice_ends:
            self._slice_ends = now + SLICE_S
            await trio.lowlevel.checkpoint()

    # -- instances -------------------------------------------------------------------------------------------

    async def _start_ready(self) -> None:
        while self._ready:
            place = self._lowering.places[heapq.heappop(self._ready)]
            self._advance(place, None, None)
            await self._breathe()

    def _advance(self, place: _Place, instance: _Instance | None, got: Received | None) -> None:
        """One step of a node; its next round or its result is put away."""
        began = time.perf_counter() if self._recorder.on else 0.0
        step = 0 if instance is None else instance.step
        try:
            if instance is None or got is None:
                made, instance = self._begin(place)
            else:
                instance.awaits = instance.operation.send(got)
                made = None
        except StopIteration as stop:
            made, instance = stop.value, None
        except Exception as error:  # noqa: BLE001 - raised with the node named
            raise as_failure(error, place.node, place.index, self.protocol.party, step)  # noqa: B904
        if self._recorder.on:
            self._recorder.note("step", _event_name(place), 0, step, began)
        if instance is None:
            self._finish(place, made)
        else:
            self._park(instance)

    def _begin(self, place: _Place) -> tuple[Any, _Instance | None]:
        """Start a node: its result, or what it waits for."""
        index, node, kind = place.index, self.plan.nodes[place.index], place.kind
        if node.kind == "input":
            return join(self._read_inputs[node.get("handle")]), None
        args = [self._read(ref) for ref in node.args]
        rows = self._layout.tile_rows(index, 0) if place.rows is None else place.rows
        context = Context(self._symbols, rows)
        if kind.local:
            return kind.run(node, self._local, args, context), None
        openings = place.openings
        if openings is None:
            openings = kind.openings(node, [arg.shape for arg in args])
        protocol = self.protocol.bind(f"{index}.0", dealer=index, openings=openings)
        made = kind.run(node, protocol, args, context)
        if not inspect.isgenerator(made):
            return made, None
        allowed = self._allowed(place, protocol, args, rows)
        operation = cast("Op[Any]", made)
        return None, _Instance(place, operation, allowed, next(operation))

    def _allowed(
        self, place: _Place, protocol: Protocol, args: Sequence[Data], rows: int
    ) -> tuple[int, int] | None:
        if place.allowed is not None:
            rounds, sent = place.allowed
            return rounds, sent[protocol.party]
        if not place.kind.exact_cost:
            return None
        shares = [arg for arg in args if isinstance(arg, Share)]
        cost = place.kind.cost(place.node, protocol, shares, rows)
        return cost.rounds, cost.sent[protocol.party]

    def _read(self, ref: Ref) -> Data:
        index, output = ref
        return self._values[index][output]

    def _park(self, instance: _Instance) -> None:
        words = sum(array.size for arrays in instance.awaits.send.values() for array in arrays)
        instance.sent += words * WORD_BYTES
        place = instance.place
        check_sent(place.node, place.index, sent=instance.sent, step=instance.step, allowed=instance.allowed)
        if self._recorder.on:
            instance.parked = time.perf_counter()
        self._active.append(instance)

    def _finish(self, place: _Place, result: Any) -> None:
        index, node = place.index, self.plan.nodes[place.index]
        values = result if isinstance(result, list) else [result]
        if node.kind == "reveal":
            self._ends.reveal(index, values)
        elif self._ends.takes(node):
            self._ends.take(index, values)
        self._done += 1
        readers = self._lowering.readers[index]
        if readers:
            self._values[index] = values
        for reader in readers:
            self._missing[reader] -= 1
            if not self._missing[reader]:
                heapq.heappush(self._ready, reader)
        for producer in {producer for producer, _ in node.args}:
            self._unread[producer] -= 1
            if not self._unread[producer]:
                self._values[producer] = ()

    # -- files -----------------------------------------------------------------------------------------------

    async def _read_files(self) -> None:
        """Read stored values that lie in files, in a thread, before the first step."""
        for handle, stored in self._inputs.items():
            tiles: Sequence[Share] = stored.tiles
            if isinstance(tiles, FiledTiles) and not all(map(tiles.ready, range(len(tiles)))):
                tiles = await trio.to_thread.run_sync(list, tiles)
            self._read_inputs[handle] = tiles

    def _keep_reached(self) -> None:
        reached, self._ends.reached = self._ends.reached, []
        if self._reach is not None:
            for checkpoint in reached:
                self._reach(*checkpoint)


def _event_name(place: _Place) -> str:
    return f"{place.node.kind} {place.node.label}".rstrip()


__all__ = ["Allowance", "Lockstep", "Lowering", "lower", "runs_in_lockstep"]
