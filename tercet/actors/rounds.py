"""Lockstep: runs a small plan at one party, and sends each peer at most one frame a round.

Where every value is one tile and no step is worth a worker thread, all parties go through a plan alike: in a
round each steps all instances that wait for it, in the order of their nodes, and starts what becomes ready.
So what peers send needs no names: a frame is the words of all instances side by side, and each party knows
from its own steps what is due, and how long it is. What a plan's nodes read, wake and may send, and which of
them are one operation on stacked values, is found once, in `Lowering`, and serves every run of it. Larger
plans are for `scheduler`, which runs the same operations, one for each node.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import GeneratorType
from typing import Any, cast

import attrs
import numpy as np
import trio

from tercet.actors.batches import Read
from tercet.actors.ends import Ends, as_failure, check_sent
from tercet.actors.lowering import Task, lower
from tercet.actors.progress import Progress
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.tracing import Recorder, TraceEvent, Witness
from tercet.actors.values import FiledTiles, Outcome, Stored, join
from tercet.errors import ProtocolError
from tercet.plans import lanes
from tercet.plans.kinds import Context, Data
from tercet.plans.plan import Plan
from tercet.plans.tiles import Layout
from tercet.protocols.base import Op, Protocol, Received, Round, Shape, Share
from tercet.protocols.domains import WORD_BYTES, Words

SLICE_S = 0.01
"""How long steps may hold the event loop before heartbeats and readers get a turn."""

Frames = Mapping[int, Sequence[Words]]
"""What a party sends in a round, by peer: the words of all instances, in the order of their nodes."""
Send = Callable[[int, Frames], Awaitable[None]]


# -- a run ---------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Instance:
    """A node under way: its generator, and the round that it waits for."""

    task: Task
    operation: Op[Any]
    allowed: tuple[int, int] | None
    awaits: Round
    due: Sequence[tuple[int, Sequence[tuple[int, Shape]]]] = ()
    """What it waits for, by peer: the words and the shape of each array."""
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
        together: bool = True,
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
        self._traced = self._recorder.on
        self._symbols: dict[str, int] = {} if symbols is None else symbols
        self._layout = Layout(plan, self._symbols)
        self._lowering = lower(plan, type(protocol), protocol.parties, together=together)
        self._local = protocol.bind("local")
        self._values: list[Sequence[Data]] = [()] * self._lowering.stacks
        self._missing = list(self._lowering.missing)
        self._unread = [len(readers) for readers in self._lowering.readers]
        self._contexts: dict[int, Context] = {}
        """By the rows of a tile."""
        self._ready = [index for index, missing in enumerate(self._missing) if not missing]
        self._active: list[_Instance] = []
        self._mail: list[dict[int, Words]] = [{} for _ in range(protocol.parties)]
        self._round = 0
        self._awaited: list[int] = []
        self._arrived = trio.Event()
        self._ends = Ends(plan, self._symbols)
        self._outcome = self._ends.outcome
        self._done = self._lowering.skipped
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
            self._active.sort(key=lambda instance: instance.task.index)
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
                for array in arrays:
                    if array.size:
                        frames.setdefault(peer, []).append(array)
        if self._traced:
            for peer, arrays in frames.items():
                now, size = time.perf_counter(), sum(array.nbytes for array in arrays)
                self._recorder.note("frame", f"to party {peer}", len(arrays), 0, now, peer=peer, size=size)
        self._keep_reached()
        if self._witness is not None:
            self._witness.say({peer: [(0, 0, self._round, arrays)] for peer, arrays in frames.items()}, {})
        if frames:
            await self._send(self._round, frames)

    async def _frames(self) -> dict[int, Words]:
        """The words that each peer sends in this round, once they are there, as many as are due."""
        due = [0] * len(self._mail)
        for instance in self._active:
            for peer, parts in instance.due:
                for size, _ in parts:
                    due[peer] += size
        peers = [peer for peer, words in enumerate(due) if words]
        if not peers:
            await trio.lowlevel.checkpoint()
        self._awaited = peers
        if not self._all_sent():
            self._arrived = trio.Event()
            await self._arrived.wait()
        found = {}
        for peer, mail in enumerate(self._mail):
            payload = mail.pop(self._round, None)
            sent = 0 if payload is None else payload.size
            if sent != due[peer]:
                nodes = ", ".join(one.task.node.title(one.task.index) for one in self._active[:3])
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
            for peer, parts in instance.due:
                arrays = []
                for size, shape in parts:
                    if size:
                        start = starts[peer]
                        arrays.append(frames[peer][start : start + size].reshape(shape))
                        starts[peer] = start + size
                    else:
                        arrays.append(np.empty(shape, dtype=np.uint64))
                got[peer] = arrays
                if self._witness is not None and arrays:
                    self._witness.hear(peer, instance.task.index, 0, instance.step, arrays)
            if self._traced:
                self._recorder.note("wait", _event_name(instance.task), 0, instance.step, instance.parked)
            instance.step += 1
            self._advance(instance.task, instance, got)
            if time.perf_counter() > self._slice_ends:
                await self._breathe()

    async def _breathe(self) -> None:
        """Let others have their turn of the event loop, once a slice of time is over."""
        self._slice_ends = time.perf_counter() + SLICE_S
        await trio.lowlevel.checkpoint()

    # -- instances -------------------------------------------------------------------------------------------

    async def _start_ready(self) -> None:
        while self._ready:
            task = self._lowering.tasks[heapq.heappop(self._ready)]
            self._advance(task, None, None)
            if time.perf_counter() > self._slice_ends:
                await self._breathe()

    def _advance(self, task: Task, instance: _Instance | None, got: Received | None) -> None:
        """One step of a node; its next round or its result is put away."""
        began = time.perf_counter() if self._traced else 0.0
        step = 0 if instance is None else instance.step
        try:
            if instance is None or got is None:
                made, instance = self._begin(task)
            else:
                instance.awaits = instance.operation.send(got)
                made = None
        except StopIteration as stop:
            made, instance = stop.value, None
        except Exception as error:  # noqa: BLE001 - raised with the node named
            raise as_failure(error, task.node, task.index, self.protocol.party, step)  # noqa: B904
        if self._traced:
            self._recorder.note("step", _event_name(task), 0, step, began)
        if instance is None:
            self._finish(task, made)
        else:
            self._park(instance)

    def _begin(self, task: Task) -> tuple[Any, _Instance | None]:
        """Start a unit: its result, or what it waits for."""
        mode = task.unit.mode
        if mode == "lanes":
            return self._in_lanes(task), None
        if mode == "flat":
            return None, self._flat(task)
        if mode == "tables":
            return None, self._tables(task)
        index, node, kind = task.index, self.plan.nodes[task.index], task.kind
        if node.kind == "input":
            return join(self._read_inputs[node.get("handle")]), None
        args = [self._read(read) for read in task.unit.stacks[0].reads]
        rows = self._layout.tile_rows(index, 0) if task.rows is None else task.rows
        context = self._context(rows)
        if kind.local:
            return kind.run(node, self._local, args, context), None
        openings = task.openings
        if openings is None:
            openings = kind.openings(node, [arg.shape for arg in args])
        protocol = self.protocol.bind(f"{index}.0", dealer=task.dealer, openings=openings)
        made = kind.run(node, protocol, args, context)
        if not isinstance(made, GeneratorType):
            return made, None
        allowed = self._allowed(task, protocol, args, rows)
        operation = cast("Op[Any]", made)
        return None, _Instance(task, operation, allowed, next(operation))

    def _context(self, rows: int) -> Context:
        found = self._contexts.get(rows)
        if found is None:
            found = self._contexts[rows] = Context(self._symbols, rows)
        return found

    def _in_lanes(self, task: Task) -> Data:
        """The stacked results of local nodes."""
        (stack,) = task.unit.stacks
        if task.node.kind == "constant":
            return self._lowering.known[stack.number]
        if task.node.kind == "input":
            handles = [self.plan.nodes[index].get("handle") for index in stack.nodes]
            shares = [cast("Share", join(self._read_inputs[handle])) for handle in handles]
            return shares[0].like(np.stack([share.data for share in shares], axis=1))
        apart = task.node.kind in lanes.SEPARATE
        args = [self._argument(read, apart=apart) for read in stack.reads]
        return lanes.run(task.node, self._local, args, len(stack.nodes))

    def _argument(self, read: Read, *, apart: bool) -> lanes.Argument:
        if not apart or not read.stacked or read.pick is None:
            return lanes.Argument(self._read(read), read.stacked)
        value = self._values[read.stack][read.output]
        width = (value.data if isinstance(value, Share) else value[None]).shape[1]
        return lanes.Argument(value, stacked=True, order=np.arange(width)[read.pick].tolist())

    def _flat(self, task: Task) -> _Instance:
        """Start one operation on the numbers of all lanes."""
        parts = [self._read(read) for stack in task.unit.stacks for read in stack.reads]
        shares = [part for part in parts if isinstance(part, Share)]
        flat = [share.data.reshape(share.data.shape[0], -1) for share in shares]
        x = shares[0].like(flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1))
        protocol = self.protocol.bind(f"{task.index}.0", dealer=task.dealer)
        context = self._context(x.size)
        node = task.node
        if task.unit.compares:
            operation = lanes.compare(node, protocol, x, context)
        else:
            operation = task.kind.run(node, protocol, [x], context)
        return _Instance(task, operation, self._allowed(task, protocol, shares, x.size), next(operation))

    def _tables(self, task: Task) -> _Instance:
        """Start one operation on the tables of all lanes."""
        tables = []
        for stack in task.unit.stacks:
            args = [self._argument(read, apart=True).lanes(len(stack.nodes)) for read in stack.reads]
            tables += [[one for one in table if isinstance(one, Share)] for table in zip(*args, strict=True)]
        name = f"{task.index}.0"
        protocol = self.protocol.bind(name, dealer=task.dealer, openings=task.openings or 0)
        operation = lanes.sort(task.node, protocol, tables)
        return _Instance(task, operation, None, next(operation))

    def _allowed(
        self, task: Task, protocol: Protocol, args: Sequence[Data], rows: int
    ) -> tuple[int, int] | None:
        if task.allowed is not None:
            rounds, sent = task.allowed
            return rounds, sent[protocol.party]
        if not task.kind.exact_cost:
            return None
        shares = [arg for arg in args if isinstance(arg, Share)]
        cost = task.kind.cost(task.node, protocol, shares, rows)
        return cost.rounds, cost.sent[protocol.party]

    def _read(self, read: Read) -> Data:
        value = self._values[read.stack][read.output]
        if read.pick is None:
            return value
        if isinstance(value, Share):
            return value.like(np.ascontiguousarray(value.data[:, read.pick]))
        return np.ascontiguousarray(value[read.pick])

    def _park(self, instance: _Instance) -> None:
        """Keep what waits for a round, once it is sure that it may send what it means to."""
        task, awaits, words = instance.task, instance.awaits, 0
        for arrays in awaits.send.values():
            for array in arrays:
                words += array.size
        instance.sent += words * WORD_BYTES
        check_sent(task.node, task.index, sent=instance.sent, step=instance.step, allowed=instance.allowed)
        self._outcome.statistics.bytes_sent += words * WORD_BYTES
        instance.due = [
            (peer, [(math.prod(shape), shape) for shape in shapes]) for peer, shapes in awaits.recv.items()
        ]
        if self._traced:
            instance.parked = time.perf_counter()
        self._active.append(instance)

    def _finish(self, task: Task, result: Any) -> None:
        values = result if isinstance(result, list) else [result]
        if task.ends:
            if task.node.kind == "reveal":
                self._ends.reveal(task.index, values)
            else:
                self._ends.take(task.index, values)
        self._done += task.nodes
        readers = self._lowering.readers[task.number]
        if not readers:
            pass
        elif task.unit.mode == "flat":
            self._split(task, values)
        elif task.unit.mode == "tables":
            self._pile(task, values)
        else:
            self._values[task.unit.stacks[0].number] = values
        missing, unread = self._missing, self._unread
        for reader in readers:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(self._ready, reader)
        for source in task.sources:
            unread[source] -= 1
            if not unread[source]:
                for stack in self._lowering.tasks[source].unit.stacks:
                    self._values[stack.number] = ()

    def _split(self, task: Task, values: Sequence[Share]) -> None:
        """Give each stack its part of what an operation on all lanes has made."""
        start = 0
        for stack, shape, scales in task.makes:
            stop = start + math.prod(shape)
            self._values[stack] = [
                value.like(value.data[:, start:stop].reshape(len(value.data), *shape), scale=scale)
                for value, scale in zip(values, scales, strict=True)
            ]
            start = stop

    def _pile(self, task: Task, tables: Sequence[Sequence[Share]]) -> None:
        """Give each stack the columns of its tables."""
        start = 0
        for stack in task.unit.stacks:
            some = tables[start : start + len(stack.nodes)]
            start += len(some)
            self._values[stack.number] = [
                each[0].like(np.stack([one.data for one in each], axis=1)) if len(each) > 1 else each[0]
                for each in zip(*some, strict=True)
            ]

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


def _event_name(task: Task) -> str:
    return f"{task.node.kind} {task.node.label}".rstrip()


__all__ = ["Frames", "Lockstep"]
