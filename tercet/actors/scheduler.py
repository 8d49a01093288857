"""The scheduler: runs one plan at one party, tile by tile, and batches what its operations send into frames.

Every (node, tile) is an instance with the same name at every party. The scheduler steps each instance whose
inputs are there, collects what it sends, and flushes one message per peer when nothing more can step; what
peers send is put away by (node, tile, step), so parties need not batch alike, and one tile computes while
another is on the wire. Heavy steps run in worker threads, which go from one to the next by themselves: on the
way through the event loop two threads would have to wake up, which takes longer than many a step. So what
says how far the run is changes under one lock. The event loop sends, and steps what is light. What comes
first, and how much may be under way, is up to `ready`.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import trio

from tercet.actors.ends import Ends, as_failure, check_sent, require_share
from tercet.actors.flow import HEAVY_WORDS, Flow
from tercet.actors.instances import Instance, Name, NodeState, Step
from tercet.actors.parts import Handover, Parcel, Part
from tercet.actors.passing import Passing
from tercet.actors.progress import Progress
from tercet.actors.ready import Ready
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.storage import Written
from tercet.actors.tracing import Message, Recorder, TraceEvent, Witness
from tercet.actors.values import FiledTiles, Outcome, Statistics, Stored, add_up, split
from tercet.errors import ProtocolError
from tercet.plans.kinds import KINDS, Context, Data, Tiling
from tercet.plans.plan import Plan
from tercet.plans.shards import NODE, Shards
from tercet.plans.tiles import Layout
from tercet.plans.types import Node, Ref
from tercet.protocols.base import Exchange, Op, Protocol, Received, Round, Share
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.protocols.together import Team

logger = logging.getLogger(__name__)

SLICE_S = 0.01
"""How long light steps may hold the event loop before heartbeats and readers get a turn."""

Send = Callable[[Mapping[int, Sequence[Message]]], Awaitable[None]]


class Scheduler:
    """One run of a plan at one party.

    `send` takes messages by peer and returns when they are queued; `deliver` is called by whoever reads the
    links. `symbols` is filled in as the plan reveals row counts, `reach` called with the values of
    checkpoints. Raises what operations raise, with the node named.
    """

    def __init__(
        self,
        plan: Plan,
        protocol: Protocol,
        inputs: Mapping[str, Stored],
        *,
        send: Send,
        symbols: dict[str, int] | None = None,
        threads: int = 1,
        trace: list[TraceEvent] | None = None,
        scratch: Scratch = IN_MEMORY,
        reach: Callable[[int, str, Stored], None] | None = None,
        witness: Witness | None = None,
        part: Part | None = None,
    ) -> None:
        self.plan = plan
        self.protocol = protocol
        self._witness = witness
        protocol.allocate, protocol.reach = scratch.empty, scratch.reach
        self._has_scratch = scratch.directory is not None
        self._inputs = inputs
        self._send = send
        self._reach = reach
        self._threads = threads
        self._recorder = Recorder(trace)
        self._symbols: dict[str, int] = {} if symbols is None else symbols
        self._part = part
        self._member = NODE if part is None else part.member
        workers = 0 if part is None else part.workers
        self._layout = Layout(plan, self._symbols, workers=workers, protocol=type(protocol))
        self._shards = None if part is None else Shards(self._layout, part.written)
        self._writers = {} if part is None else part.writers
        self._flow = Flow(
            plan, self._layout, protocol, self._symbols, scratch, shards=self._shards, member=self._member
        )
        self._states = [NodeState() for _ in plan.nodes]
        self._awaited = [self._is_awaited(index) for index in range(len(plan.nodes))]
        self._unfinished = self._awaited.count(True)
        self._passing = Passing(part, self._flow, self._symbols)
        self._ready = Ready(threads)
        self._waiting = self._ready.waiting
        self._mail: dict[Name, dict[int, dict[int, list[Words]]]] = {}
        self._busy = 0
        self._outbox: dict[int, list[Message]] = {}
        self._lock = threading.Lock()
        """Held by whoever reads or changes how far the run is: threads, the loop and those that deliver."""
        self._over = False
        self._told_to_end = False
        self._changed = trio.Event()
        self._ends = Ends(plan, self._symbols)
        self._outcome = self._ends.outcome
        self._told = Progress(nodes=self._unfinished)

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Run the plan to its end."""
        began = time.perf_counter()
        if self._witness is not None:
            self._witness.begin()
        self._token = trio.lowlevel.current_trio_token()
        self._places = trio.CapacityLimiter(self._threads)
        for index, node in enumerate(self.plan.nodes):
            if not node.args and not self._flow.inline[index]:
                self._expand(index)
        self._expand_together()
        try:
            async with trio.open_nursery() as nursery:
                while self._goes_on():
                    self._changed = trio.Event()
                    if self._step_ready(nursery):
                        await trio.lowlevel.checkpoint()
                        continue
                    await self._flush()
                    await self._until_changed()
        finally:
            self._over = True
        await self._flush()
        outcome = self._ends.close(time.perf_counter() - began)
        if self._witness is not None:
            self._witness.end(outcome)
        return outcome

    async def _until_changed(self) -> None:
        """Wait until something may be able to step again."""
        await self._changed.wait()

    def _is_awaited(self, index: int) -> bool:
        """Whether the run ends here only once a node has ended.

        Where the party has workers, its node waits for where values leave the plan, and tells them.
        """
        if self._part is None:
            return not self._flow.inline[index]
        return self._member == NODE and KINDS[self.plan.nodes[index].kind].keeps(self.plan.nodes[index])

    def _goes_on(self) -> bool:
        return self._unfinished > 0 if self._member == NODE else not self._told_to_end

    def end(self) -> None:
        """Tell a worker's run that the node of its party has all that it waits for."""
        self._told_to_end = True
        self._changed.set()

    def progress(self) -> Progress:
        """How far this run is, as far as that follows from the plan and the sizes that it declares.

        It stands still once the plan has revealed a size, which the caller may not be meant to learn.
        """
        with self._lock:
            if not self._symbols:
                statistics = self._outcome.statistics
                reached = max((instance.depth for instance in self._waiting.values()), default=0)
                done, rounds = self._told.nodes - self._unfinished, max(statistics.rounds, reached)
                self._told = Progress(done, self._told.nodes, rounds, statistics.bytes_sent)
            return self._told

    def _step_ready(self, nursery: trio.Nursery) -> bool:
        """Step what can step now; heavy steps go to threads. Whether there was anything."""
        stop = time.perf_counter() + SLICE_S
        stepped = False
        while steps := self._take():
            stepped = True
            if steps[0][0].heavy:
                nursery.start_soon(self._step_in_thread, steps)
            else:
                self._step(steps)
            # Only now: a process that stood still for longer must not take that for having nothing to do.
            if time.perf_counter() >= stop:
                break
        return stepped

    def _take(self, *, in_thread: bool = False) -> list[Step]:
        """What to step next: a light step, or heavy ones for a thread. A thread that gets none goes."""
        with self._lock:
            chosen = None if self._over else self._ready.next(idle=in_thread or self._busy < self._threads)
            if chosen is None:
                self._busy -= in_thread
                return []
            if not chosen[0].heavy:
                return [chosen]
            self._busy += not in_thread
            return self._ready.along(chosen, self._is_tile, 1 + self._threads - self._busy)

    def _is_tile(self, instance: Instance) -> bool:
        return self._layout.tiling[instance.name[0]] is not Tiling.WHOLE

    async def _step_in_thread(self, steps: list[Step]) -> None:
        # A step that nobody waits for any more may run out by itself: it sends nothing and keeps nothing. The
        # thread may stay for the whole run, so it takes no place of those for short work.
        await trio.to_thread.run_sync(self._work, steps, abandon_on_cancel=True, limiter=self._places)

    def _work(self, steps: list[Step]) -> None:
        """In a thread, these steps and what comes next, until there is nothing more for it."""
        while steps:
            self._step(steps)
            steps = self._take(in_thread=True)
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ring, idempotent=True)

    def _ring(self) -> None:
        self._changed.set()

    def _step(self, steps: Sequence[Step]) -> None:
        made = [self._advance(instance, got) for instance, got in steps]
        with self._lock:
            if self._over:
                return
            for (instance, _), (awaits, result) in zip(steps, made, strict=True):
                self._after(instance, awaits, result)

    def _advance(self, instance: Instance, got: Received | None) -> tuple[Round | None, Any]:
        """One step of an instance, in whatever thread: its next round, or None and its result."""
        began = time.perf_counter()
        try:
            if got is not None and instance.operation is not None:
                return instance.operation.send(got), None
            made = self._begin(instance)
            if not inspect.isgenerator(made):
                return None, self._shelve(instance, made)
            operation = cast("Op[Any]", made)
            instance.operation = operation
            first = next(operation)
        except StopIteration as stop:
            return None, self._shelve(instance, stop.value)
        except Exception as error:  # noqa: BLE001 - raised with the node named
            rounds, party = instance.step, self.protocol.party
            raise as_failure(error, instance.node, instance.name[0], party, rounds)  # noqa: B904
        else:
            return first, None
        finally:
            self._recorder.note("step", _event_name(instance), instance.name[1], instance.step, began)

    def _begin(self, instance: Instance) -> Any:
        index, tile = instance.name
        node, kind = instance.node, KINDS[instance.node.kind]
        args = [self._flow.argument(index, position, tile) for position in range(len(node.args))]
        rows = self._layout.tile_rows(index, tile)
        team = self._layout.team(index, tile) if self._layout.together(index) else None
        openings = (
            kind.openings(node, [arg.shape for arg in args])
            if team is None
            else kind.openings_together(node, team)
        )
        protocol = self.protocol.bind(
            f"{index}.{tile}", dealer=self._layout.dealer(index, tile), openings=openings
        )
        protocol.team = team
        made = kind.run(node, protocol, args, Context(self._symbols, rows))
        if inspect.isgenerator(made) and kind.exact_cost:
            cost = kind.cost(node, protocol, [arg for arg in args if isinstance(arg, Share)], rows)
            instance.allowed = cost.rounds, cost.sent[protocol.party]
        return made

    def _shelve(self, instance: Instance, result: Any) -> Any:
        """What an instance has made, in the scratch where tiles pile up."""
        index, tile = instance.name
        if index in self._writers:
            share = require_share(instance.node, index, result)
            return self._writers[index].write(tile, share, len(self._states[index].share))
        if self._layout.tiling[index] is not Tiling.ROWS:
            return result
        results = result if isinstance(result, list) else [result]
        return [self._flow.shelve((index, output), tile, part) for output, part in enumerate(results)]

    def _after(self, instance: Instance, awaits: Round | None, result: Any) -> None:
        """Put away what a step did."""
        if awaits is None:
            self._ready.end(instance)
            self._finish(instance, result)
            return
        self._ready.wait(instance)
        if isinstance(awaits, Exchange):
            self._passing.exchange(instance, awaits)
            instance.parked = time.perf_counter()
            self._resume_if_handed(instance)
            return
        instance.depth += 1
        instance.sent += sum(array.size for arrays in awaits.send.values() for array in arrays) * WORD_BYTES
        index = instance.name[0]
        check_sent(instance.node, index, sent=instance.sent, step=instance.step, allowed=instance.allowed)
        for peer, arrays in awaits.send.items():
            if arrays:
                self._outbox.setdefault(peer, []).append((*instance.name, instance.step, arrays))
        instance.awaited = awaits.recv
        instance.parked = time.perf_counter()
        self._resume_if_complete(instance)

    def _resume_if_complete(self, instance: Instance) -> bool:
        if instance.awaited is None:
            return False
        mail = self._mail.get(instance.name, {}).get(instance.step, {})
        if any(shapes and peer not in mail for peer, shapes in instance.awaited.items()):
            return False
        got: dict[int, list[Words]] = {}
        for peer in mail.keys() | instance.awaited.keys():
            shapes, arrays = instance.awaited.get(peer, []), mail.get(peer, [])
            sizes, wanted = [array.size for array in arrays], [math.prod(shape) for shape in shapes]
            if sizes != wanted:
                raise ProtocolError(
                    f"party {peer} sent {sizes} words in step {instance.step} of "
                    f"{instance.node.title(instance.name[0])}, tile {instance.name[1]}, where "
                    f"{wanted} are due"
                )
            got[peer] = [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
        if mail:
            del self._mail[instance.name][instance.step]
        self._resume(instance, got)
        instance.step += 1
        instance.awaited = None
        return True

    def _resume(self, instance: Instance, got: Received) -> None:
        self._recorder.note("wait", _event_name(instance), instance.name[1], instance.step, instance.parked)
        self._ready.go_on(instance, got)

    # -- messages --------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        with self._lock:
            outbox, self._outbox = self._outbox, {}
            reached, self._ends.reached = self._ends.reached, []
            parcels = self._passing.take()
        if self._witness is not None:
            self._witness.say(outbox, parcels)
        if self._reach is not None:
            for checkpoint in reached:
                self._reach(*checkpoint)
        if not parcels or self._part is None:
            await self._send_to_peers(outbox)
            return
        async with trio.open_nursery() as nursery:  # peers wait for no tile that goes to a worker
            nursery.start_soon(self._send_to_peers, outbox)
            nursery.start_soon(self._part.send, parcels)

    async def _send_to_peers(self, outbox: Mapping[int, Sequence[Message]]) -> None:
        if not outbox:
            return
        if self._recorder.on:
            now = time.perf_counter()
            for peer, messages in outbox.items():
                size = sum(array.nbytes for message in messages for array in message[3])
                self._recorder.note("frame", f"to party {peer}", len(messages), 0, now, peer=peer, size=size)
        for messages in outbox.values():
            words = sum(array.size for message in messages for array in message[3])
            self._outcome.statistics.bytes_sent += words * WORD_BYTES
        await self._send(outbox)

    def take(self, peer: int, entries: Sequence[Any], payload: Words) -> None:
        """Take the messages of a frame, `[node, tile, step, sizes]` each, and the words of all of them."""
        start = 0
        for node, tile, step, sizes in entries:
            arrays = []
            for size in sizes:
                arrays.append(payload[start : start + size])
                start += size
            self.deliver(peer, node, tile, step, arrays)

    def deliver(self, peer: int, node: int, tile: int, step: int, arrays: list[Words]) -> None:
        """Take one message of a peer. Raises ProtocolError for one that no run of this plan sends."""
        if not 0 <= node < len(self.plan.nodes):
            raise ProtocolError(f"party {peer} sent a message for node {node}, which the plan does not have")
        if self._shards is not None and not self._shards.may_run(self._member, node, tile):
            raise ProtocolError(
                f"party {peer} sent a message for {self.plan.nodes[node].title(node)}, tile {tile}, to a "
                "member of this party that does not run it; both must have as many workers"
            )
        if self._witness is not None:
            self._witness.hear(peer, node, tile, step, arrays)
        with self._lock:
            instance = self._waiting.get((node, tile))
            now = instance.step if instance is not None else 0
            box = self._mail.setdefault((node, tile), {}).setdefault(step, {})
            if tile in self._states[node].finished or step < now or peer in box:
                raise ProtocolError(
                    f"party {peer} sent step {step} of {self.plan.nodes[node].title(node)}, tile {tile}, "
                    "too late or twice"
                )
            box[peer] = arrays
            resumed = instance is not None and instance.step == step and self._resume_if_complete(instance)
        if resumed:
            self._changed.set()

    # -- instances -------------------------------------------------------------------------------------------

    def _expand(self, index: int, tile: int | None = None) -> None:
        """Cut a node into instances once its rows are known, and start those whose inputs are there.

        `tile` is the only one that can have become ready, None for any.
        """
        node, state = self.plan.nodes[index], self._states[index]
        if node.kind == "input":
            if self._member == NODE:
                self._finish_input(index, node)
            return
        if state.tiles is None:
            try:
                state.tiles = self._layout.tiles(index)
            except KeyError:
                return  # a symbol that is not bound yet; the inputs that come with it are not there either
            state.share = (
                range(state.tiles) if self._shards is None else self._shards.share(self._member, index)
            )
            tile = None
            if self._layout.tiling[index] is Tiling.REDUCE and state.share:
                state.summands = [None] * state.tiles
        for number in state.share if tile is None else (tile,):
            if number not in state.share or number in state.started:
                continue
            if (depth := self._flow.depth(index, number)) is not None:
                state.started.add(number)
                self._start(index, number, depth)

    def _start(self, index: int, tile: int, depth: int) -> None:
        files = index in self._writers or self._flow.reads_files(index, tile)
        heavy = files or self._flow.work(index, tile) >= HEAVY_WORDS
        # Of what moves all rows, two at a time would take twice as much of a scratch.
        alone = heavy and self._has_scratch and self._layout.tiling[index] is Tiling.WHOLE
        if self._layout.tiling[index] is Tiling.ROWS and index not in self._writers:
            for output in range(len(self.plan.nodes[index].types)):
                self._flow.prepare((index, output), self._states[index].tiles or 1)
        instance = Instance((index, tile), self.plan.nodes[index], heavy, depth, alone)
        self._ready.add(instance, self._flow.first_barrier[index])

    # -- results ---------------------------------------------------------------------------------------------

    def _finish_input(self, index: int, node: Node) -> None:
        tiles = self._inputs[node.get("handle")].tiles
        if isinstance(tiles, FiledTiles):
            for reader, only in self._flow.open((index, 0), tiles):
                self._expand(reader, only)
            self._passing.forward_filed((index, 0), tiles)
        else:
            for tile, share in enumerate(tiles):
                self._put((index, 0), tile, len(tiles), share, 0)
        self._node_done(index)

    def _finish(self, instance: Instance, result: Any) -> None:
        index, tile = instance.name
        if left := self._mail.pop(instance.name, None):
            peers = sorted({peer for box in left.values() for peer in box})
            raise ProtocolError(
                f"party {peers} sent more of {instance.node.title(index)}, tile {tile}, than it takes"
            )
        state = self._states[index]
        self._outcome.statistics.rounds = max(self._outcome.statistics.rounds, instance.depth)
        state.finished.add(tile)
        state.depth = max(state.depth, instance.depth)
        complete = len(state.finished) == len(state.share)
        self._flow.release(index, tile)
        if index in self._writers:
            if result is not None:
                self._passing.add((index, 0), result, state.depth)
            return
        results = result if isinstance(result, list) else [result]
        if instance.node.kind == "reveal":
            self._ends.reveal(index, results)
        elif self._layout.tiling[index] is Tiling.REDUCE:
            state.summands[tile] = result
            if complete:
                summand = add_up(self.protocol, state.summands)
                if self._member == NODE:
                    self._put((index, 0), 0, 1, summand, state.depth)
                else:
                    self._passing.add((index, 0), summand, state.depth)
                state.summands = []
        elif self._layout.tiling[index] is Tiling.ROWS:
            for output, part in enumerate(results):
                self._put((index, output), tile, state.tiles or 1, part, instance.depth)
        elif self._layout.together(index):
            self._put_blocks(instance, results)
        else:
            for output, whole in enumerate(results):
                parts = split(self.plan.type_of((index, output)), whole, self.plan.tile_rows)
                for number, part in enumerate(parts):
                    self._put((index, output), number, len(parts), part, instance.depth)
            if KINDS[instance.node.kind].binds_symbol:
                self._passing.tell_symbols((index, 0))
        if complete:
            if self._ends.takes(instance.node):
                self._ends.take(index, self._flow.result((index, 0)).tiles)
            self._node_done(index)

    def _put(self, ref: Ref, tile: int, tiles: int, data: Data, depth: int) -> None:
        self._passing.forward(ref, tile, tiles, data, depth)
        for reader, only in self._flow.put(ref, tile, tiles, data, depth):
            self._expand(reader, only)

    def _node_done(self, index: int) -> None:
        self._unfinished -= self._awaited[index]

    # -- other members of the party --------------------------------------------------------------------------

    def _put_blocks(self, instance: Instance, blocks: Sequence[Share]) -> None:
        """Put this worker's block of what all run together in place, tile by tile."""
        index, member = instance.name
        for output, block in enumerate(blocks):
            kind = self.plan.type_of((index, output))
            rows = self._symbols[kind.rows] if isinstance(kind.rows, str) else kind.rows
            tiles = self._layout.cut(rows)
            due = Team.tiles(member, self._layout.workers, tiles)
            parts = split(kind, block, self.plan.tile_rows) if due else []
            for number, part in zip(due, parts, strict=True):
                self._put((index, output), number, tiles, part, instance.depth)

    def _expand_together(self) -> None:
        """Start what workers run together, if nothing of it is missing here: some have no rows of it."""
        if self._member != NODE:
            for index in self._layout.may_be_together:
                self._expand(index)

    def _resume_if_handed(self, instance: Instance) -> None:
        got = self._passing.handed(instance)
        if got is not None:
            self._resume(instance, got)

    def receive(self, parcel: Parcel | Handover) -> None:
        """Take what another member of the party has made."""
        if self._witness is not None:
            self._witness.receive(parcel)
        if isinstance(parcel, Handover):
            with self._lock:
                self._passing.hear(parcel)
                if (instance := self._waiting.get((parcel.index, self._member))) is not None:
                    self._resume_if_handed(instance)
            self._changed.set()
            return
        index, _ = parcel.ref
        with self._lock:
            if parcel.symbols.keys() - self._symbols.keys():
                self._symbols.update(parcel.symbols)
                self._expand_together()
            if isinstance(parcel.data, Written) and self._part is not None and self._shards is not None:
                value, due = self._part.in_parts[index], self._shards.workers_of(index)
                if self._ends.take_written(index, value, parcel.tile, parcel.data, due):
                    self._node_done(index)
            elif isinstance(parcel.data, FiledTiles):
                for reader, only in self._flow.open(parcel.ref, parcel.data):
                    self._expand(reader, only)
            elif parcel.tiles > 0:
                data = cast("Data", parcel.data)
                self._flow.prepare(parcel.ref, parcel.tiles)
                data = self._flow.shelve(parcel.ref, parcel.tile, data)
                for reader, only in self._flow.put(parcel.ref, parcel.tile, parcel.tiles, data, parcel.depth):
                    self._expand(reader, only)
            elif parcel.tiles == 0 and self._shards is not None:
                state = self._states[index]
                state.summands = state.summands or [None] * self._shards.workers
                state.summands[parcel.tile] = cast("Share", parcel.data)
                state.depth = max(state.depth, parcel.depth)
                if all(state.summands[worker] is not None for worker in self._shards.workers_of(index)):
                    self._put((index, 0), 0, 1, add_up(self.protocol, state.summands), state.depth)
                    state.summands = []
        self._changed.set()


def _event_name(instance: Instance) -> str:
    return f"{instance.node.kind} {instance.node.label}".rstrip()


__all__ = ["Message", "Outcome", "Scheduler", "Statistics", "Stored"]
