"""The scheduler: runs one plan at one party, tile by tile, and batches what its operations send into frames.

Every (node, tile) is an instance with the same name at every party. The scheduler steps each instance whose inputs are there,
collects what it sends, and flushes one frame per peer when nothing more can step; what peers send is put away by (node, tile,
step), so parties need not batch alike, and one tile computes while another is on the wire. Heavy steps run in worker threads,
light ones inline. Instances that wait for the network are capped, which bounds memory; the oldest unfinished instance may
always start, so parties that start things in different order cannot starve each other.
"""

from __future__ import annotations

import heapq
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import trio

from tercet.actors.kinds import KINDS, Context, Data, Tiling
from tercet.actors.plan import Form, Node, Plan, Ref, Type, bind_shape
from tercet.errors import ProtocolError, TercetError
from tercet.protocols.base import Op, Protocol, Received, Round, Share
from tercet.protocols.domains import WORD_BYTES, Words

HEAVY_WORDS = 1 << 14
"""Input words from which a step is worth a worker thread."""
IN_FLIGHT = 6
"""Instances that may wait for the network at one time."""

Name = tuple[int, int]
"""An instance: (node index, tile)."""
Message = tuple[int, int, int, Sequence[Words]]
"""What an instance sends to one peer in one step: (node, tile, step, arrays)."""
Send = Callable[[Mapping[int, Sequence[Message]]], Awaitable[None]]


@attrs.define(eq=False)
class Stored:
    """A secret value that a node keeps: its type with numbers for all dimensions, and its tiles."""

    type: Type
    tiles: list[Share]


@attrs.define
class Statistics:
    """What a run cost one party: rounds on the critical path, payload bytes sent, seconds."""

    rounds: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0


@attrs.define(eq=False)
class Outcome:
    """What a run leaves: exports for each reveal node in plan order, values to store, the symbols' numbers, its cost."""

    revealed: list[tuple[str, str, Type, list[Words]]]
    stored: dict[str, Stored]
    symbols: dict[str, int]
    statistics: Statistics


@attrs.define(eq=False)
class TraceEvent:
    """One step or wait of an instance, for Chrome's trace viewer: seconds since the run began."""

    name: str
    tile: int
    start: float
    seconds: float


class _Value:
    """A result of a node as it comes into being: one entry a tile, dropped when its last reader is done."""

    def __init__(self, tiles: int, readers: int) -> None:
        self.tiles: list[Data | None] = [None] * tiles
        self.depth = [0] * tiles
        self.missing = tiles
        self.readers = readers
        self._whole: Data | None = None

    def put(self, tile: int, data: Data, depth: int) -> None:
        self.tiles[tile] = data
        self.depth[tile] = depth
        self.missing -= 1

    def whole(self) -> Data:
        if self._whole is None:
            parts = [part for part in self.tiles if part is not None]
            if len(parts) == 1:
                self._whole = parts[0]
            elif isinstance(parts[0], Share):
                joined = np.concatenate([part.data for part in parts if isinstance(part, Share)], axis=-1)
                self._whole = parts[0].like(joined)
            else:
                self._whole = np.concatenate([part for part in parts if not isinstance(part, Share)], axis=-1)
        return self._whole

    def reader_done(self) -> None:
        self.readers -= 1
        if self.readers == 0:
            self.tiles = [None] * len(self.tiles)
            self._whole = None


@attrs.define(eq=False)
class _Instance:
    """A started (node, tile): its generator, the step it is at and what it waits for."""

    name: Name
    node: Node
    heavy: bool
    depth: int
    operation: Op[Any] | None = None
    step: int = 0
    sent: int = 0
    allowed: int | None = None
    awaited: Mapping[int, Sequence[tuple[int, ...]]] | None = None
    """Shapes due from each peer in this step; None while the instance is queued or running."""


class _NodeState:
    """How far a node is: its number of tiles once that is known, and which instances have started and ended."""

    def __init__(self) -> None:
        self.tiles: int | None = None
        self.started: set[int] = set()
        self.finished = 0
        self.summands: list[Share | None] = []
        self.depth = 0


class Scheduler:
    """One run of a plan at one party.

    `send` takes messages by peer and returns when they are queued; `deliver` is called by whoever reads the links. Raises what
    operations raise, with the node named.
    """

    def __init__(
        self,
        plan: Plan,
        protocol: Protocol,
        inputs: Mapping[str, Stored],
        *,
        send: Send,
        threads: int = 1,
        trace: list[TraceEvent] | None = None,
    ) -> None:
        self.plan = plan
        self.protocol = protocol
        self._inputs = inputs
        self._send = send
        self._threads = threads
        self._trace = trace
        self._symbols: dict[str, int] = {}
        self._values: dict[Ref, _Value] = {}
        self._nodes = [_NodeState() for _ in plan.nodes]
        self._readers: dict[Ref, list[int]] = {}
        for index, node in enumerate(plan.nodes):
            for ref in dict.fromkeys(node.args):
                self._readers.setdefault(ref, []).append(index)
        self._unfinished = len(plan.nodes)
        self._ready: list[tuple[int, int, int, _Instance, Received | None]] = []
        self._tickets = 0
        self._waiting: dict[Name, _Instance] = {}
        self._mail: dict[tuple[int, int, int], dict[int, list[Words]]] = {}
        self._busy = 0
        self._outbox: dict[int, list[Message]] = {}
        self._changed = trio.Event()
        self._revealed: dict[int, tuple[str, str, Type, list[Words]]] = {}
        self._outcome = Outcome([], {}, self._symbols, Statistics())

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Run the plan to its end."""
        began = time.perf_counter()
        self._began = began
        for index, node in enumerate(self.plan.nodes):
            if not node.args:
                self._expand(index)
        async with trio.open_nursery() as nursery:
            while self._unfinished:
                self._changed = trio.Event()
                started = self._start_ready(nursery)
                if started and self._ready_now():
                    await trio.lowlevel.checkpoint()
                    continue
                await self._flush()
                if self._unfinished and not self._ready_now():
                    await self._changed.wait()
        await self._flush()
        # Reveal nodes end in any order; the receiver puts the parties' answers together by plan order.
        self._outcome.revealed = [self._revealed[index] for index in sorted(self._revealed)]
        self._outcome.statistics.seconds = time.perf_counter() - began
        return self._outcome

    def _ready_now(self) -> bool:
        return any(self._may_start(entry[3]) for entry in self._ready[:1])

    def _may_start(self, instance: _Instance) -> bool:
        if instance.heavy and self._busy >= self._threads:
            return False
        if instance.step or instance.name in self._waiting or len(self._waiting) < IN_FLIGHT * self._threads:
            return True
        return instance.name < min(self._waiting)

    def _start_ready(self, nursery: trio.Nursery) -> bool:
        started = False
        held = []
        while self._ready:
            entry = heapq.heappop(self._ready)
            instance, got = entry[3], entry[4]
            if not self._may_start(instance):
                held.append(entry)
                if instance.heavy and self._busy >= self._threads:
                    break
                continue
            started = True
            if instance.heavy:
                self._busy += 1
                nursery.start_soon(self._step_in_thread, instance, got)
            else:
                self._after(instance, *self._advance(instance, got))
        for entry in held:
            heapq.heappush(self._ready, entry)
        return started

    async def _step_in_thread(self, instance: _Instance, got: Received | None) -> None:
        try:
            stepped = await trio.to_thread.run_sync(self._advance, instance, got)
        finally:
            self._busy -= 1
        self._after(instance, *stepped)
        self._changed.set()

    def _advance(self, instance: _Instance, got: Received | None) -> tuple[Round | None, Any]:
        """One step of an instance, in whatever thread: its next round, or None and its result."""
        began = time.perf_counter()
        try:
            if instance.operation is None:
                made = self._begin(instance)
                if not inspect.isgenerator(made):
                    return None, made
                instance.operation = made
                return next(made), None
            if got is None:
                return next(instance.operation), None
            return instance.operation.send(got), None
        except StopIteration as stop:
            return None, stop.value
        except TercetError as error:
            if instance.node.label or "node " not in str(error):
                error.args = (f"{instance.node.title(instance.name[0])}: {error}",)
            raise
        finally:
            if self._trace is not None:
                title = f"{instance.node.kind} {instance.node.label}"
                self._trace.append(
                    TraceEvent(title, instance.name[1], began - self._began, time.perf_counter() - began)
                )

    def _begin(self, instance: _Instance) -> Any:
        index, tile = instance.name
        node, kind = instance.node, KINDS[instance.node.kind]
        args = [self._argument(index, position, tile) for position in range(len(node.args))]
        shapes = [arg.shape for arg in args]
        shares = [arg for arg in args if isinstance(arg, Share)]
        rows = self._tile_rows(index, tile)
        protocol = self.protocol.bind(
            f"{index}.{tile}", dealer=index + tile, openings=kind.openings(node, shapes)
        )
        made = kind.run(node, protocol, args, Context(self._symbols, rows))
        if inspect.isgenerator(made) and kind.exact_cost:
            instance.allowed = kind.cost(node, protocol, shares, rows).sent[self.protocol.party]
        return made

    def _after(self, instance: _Instance, awaits: Round | None, result: Any) -> None:
        """Put away what a step did; runs in the trio thread."""
        if awaits is None:
            self._waiting.pop(instance.name, None)
            self._finish(instance, result)
            return
        self._waiting[instance.name] = instance
        instance.depth += 1
        node, tile = instance.name
        for peer, arrays in awaits.send.items():
            size = sum(array.size for array in arrays) * WORD_BYTES
            instance.sent += size
            self._outcome.statistics.bytes_sent += size
            self._outbox.setdefault(peer, []).append((node, tile, instance.step, arrays))
        if instance.allowed is not None and instance.sent > instance.allowed:
            raise ProtocolError(
                f"{instance.node.title(node)} tried to send {instance.sent} bytes, but its protocol declares "
                f"{instance.allowed}; nothing of this step was sent"
            )
        instance.awaited = awaits.recv
        self._resume_if_complete(instance)

    def _resume_if_complete(self, instance: _Instance) -> None:
        where = (*instance.name, instance.step)
        mail = self._mail.get(where, {})
        if instance.awaited is None or any(peer not in mail for peer in instance.awaited):
            return
        self._mail.pop(where, None)
        got: dict[int, list[Words]] = {}
        for peer, shapes in instance.awaited.items():
            sizes = [array.size for array in mail[peer]]
            wanted = [math.prod(shape) for shape in shapes]
            if sizes != wanted:
                raise ProtocolError(
                    f"party {peer} sent {sizes} words in step {instance.step} of "
                    f"{instance.node.title(instance.name[0])}, tile {instance.name[1]}, where {wanted} are due"
                )
            got[peer] = [array.reshape(shape) for array, shape in zip(mail[peer], shapes, strict=True)]
        instance.step += 1
        instance.awaited = None
        self._push(instance, got)

    def _push(self, instance: _Instance, got: Received | None) -> None:
        self._tickets += 1
        index, tile = instance.name
        heapq.heappush(self._ready, (tile if got is None else -1, index, self._tickets, instance, got))
        self._changed.set()

    # -- frames -------------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, {}
            await self._send(outbox)

    def deliver(self, peer: int, node: int, tile: int, step: int, arrays: list[Words]) -> None:
        """Take one message of a peer. Raises ProtocolError for one that no run of this plan sends."""
        if not 0 <= node < len(self.plan.nodes):
            raise ProtocolError(f"party {peer} sent a message for node {node}, which the plan does not have")
        box = self._mail.setdefault((node, tile, step), {})
        if peer in box:
            raise ProtocolError(f"party {peer} sent step {step} of {self.plan.nodes[node].title(node)} twice")
        box[peer] = arrays
        instance = self._waiting.get((node, tile))
        if instance is not None and instance.step == step:
            self._resume_if_complete(instance)

    # -- tiles --------------------------------------------------------------------------------------------------------

    def _cut(self, rows: int) -> int:
        return max(1, -(-rows // self.plan.tile_rows))

    def _work_rows(self, index: int) -> int:
        """Rows along which a node's work is cut; KeyError while a symbol is unknown."""
        node = self.plan.nodes[index]
        kind = node.types[0] if KINDS[node.kind].tiling is Tiling.ROWS else self.plan.type_of(node.args[0])
        return bind_shape((kind.rows,), self._symbols)[0]

    def _tile_rows(self, index: int, tile: int) -> int:
        if KINDS[self.plan.nodes[index].kind].tiling is Tiling.WHOLE:
            return 0
        rows = self._work_rows(index)
        return min(self.plan.tile_rows, rows - tile * self.plan.tile_rows)

    def _argument(self, index: int, position: int, tile: int) -> Data:
        node = self.plan.nodes[index]
        value = self._values[node.args[position]]
        if self._is_rowwise(index, position):
            part = value.tiles[tile]
            if part is None:
                raise ProtocolError(f"{node.title(index)}: tile {tile} of an input is gone")
            return part
        return value.whole()

    def _is_rowwise(self, index: int, position: int) -> bool:
        node = self.plan.nodes[index]
        kind = KINDS[node.kind]
        if kind.tiling is Tiling.WHOLE:
            return False
        return kind.rowwise(node, [self.plan.type_of(ref) for ref in node.args], position)

    def _expand(self, index: int) -> None:
        """Cut a node into instances once its rows are known, and start those whose inputs are there."""
        node, state = self.plan.nodes[index], self._nodes[index]
        if node.kind == "input":
            self._finish_input(index, node)
            return
        if state.tiles is None:
            if KINDS[node.kind].tiling is Tiling.WHOLE:
                state.tiles = 1
            else:
                try:
                    state.tiles = self._cut(self._work_rows(index))
                except KeyError:
                    return
            if KINDS[node.kind].tiling is Tiling.REDUCE:
                state.summands = [None] * state.tiles
        for tile in range(state.tiles):
            if tile not in state.started and self._inputs_there(index, tile):
                state.started.add(tile)
                self._start(index, tile)

    def _inputs_there(self, index: int, tile: int) -> bool:
        for position, ref in enumerate(self.plan.nodes[index].args):
            value = self._values.get(ref)
            if value is None:
                return False
            if self._is_rowwise(index, position):
                if value.tiles[tile] is None:
                    return False
            elif value.missing:
                return False
        return True

    def _start(self, index: int, tile: int) -> None:
        node = self.plan.nodes[index]
        words = depth = 0
        for position, ref in enumerate(node.args):
            value = self._values[ref]
            chosen = [tile] if self._is_rowwise(index, position) else range(len(value.tiles))
            for number in chosen:
                part = value.tiles[number]
                words += (part.data.size if isinstance(part, Share) else part.size) if part is not None else 0
                depth = max(depth, value.depth[number])
        self._push(_Instance((index, tile), node, words >= HEAVY_WORDS, depth), None)

    # -- results ------------------------------------------------------------------------------------------------------

    def _finish_input(self, index: int, node: Node) -> None:
        stored = self._inputs[node.get("handle")]
        value = _Value(len(stored.tiles), len(self._readers.get((index, 0), [])) + 1)
        self._values[index, 0] = value
        for tile, share in enumerate(stored.tiles):
            value.put(tile, share, 0)
        self._node_done(index)
        self._tell_readers((index, 0))

    def _finish(self, instance: _Instance, result: Any) -> None:
        index, tile = instance.name
        node, state = instance.node, self._nodes[index]
        tiling = KINDS[node.kind].tiling
        self._outcome.statistics.rounds = max(self._outcome.statistics.rounds, instance.depth)
        state.finished += 1
        state.depth = max(state.depth, instance.depth)
        if tiling is Tiling.REDUCE:
            state.summands[tile] = result
            if state.finished == state.tiles:
                total = _add_up([part for part in state.summands if part is not None])
                state.summands = []
                self._put((index, 0), 0, 1, total, state.depth)
        elif tiling is Tiling.ROWS:
            for output, part in enumerate(result if isinstance(result, list) else [result]):
                self._put((index, output), tile, state.tiles or 1, part, instance.depth)
        else:
            for output, whole in enumerate(result if isinstance(result, list) else [result]):
                parts = self._split(self.plan.type_of((index, output)), whole)
                for number, part in enumerate(parts):
                    self._put((index, output), number, len(parts), part, instance.depth)
        if state.finished == state.tiles:
            self._sink(index, node)
            self._node_done(index)

    def _split(self, kind: Type, whole: Data) -> list[Data]:
        data = whole.data if isinstance(whole, Share) else whole
        step = self.plan.tile_rows // 64 if kind.form is Form.BITS else self.plan.tile_rows
        if data.ndim <= (1 if isinstance(whole, Share) else 0) or data.shape[-1] <= step:
            return [whole]
        cuts = [np.ascontiguousarray(data[..., start : start + step]) for start in range(0, data.shape[-1], step)]
        return [whole.like(cut) for cut in cuts] if isinstance(whole, Share) else list(cuts)

    def _put(self, ref: Ref, tile: int, tiles: int, data: Data, depth: int) -> None:
        value = self._values.get(ref)
        if value is None:
            value = self._values[ref] = _Value(tiles, len(self._readers.get(ref, [])) + 1)
        value.put(tile, data, depth)
        self._tell_readers(ref)

    def _tell_readers(self, ref: Ref) -> None:
        for reader in self._readers.get(ref, []):
            self._expand(reader)

    def _sink(self, index: int, node: Node) -> None:
        if node.kind == "store":
            value = self._values[node.args[0]]
            kind = node.types[0]
            bound = attrs.evolve(kind, shape=bind_shape(kind.shape, self._symbols))
            tiles = [part for part in value.tiles if isinstance(part, Share)]
            self._outcome.stored[node.get("handle")] = Stored(bound, tiles)
        elif node.kind == "reveal":
            whole = self._values[node.args[0]].whole()
            if not isinstance(whole, Share):
                raise ProtocolError(f"{node.title(index)}: only secret values are revealed")
            kind = attrs.evolve(node.types[0], shape=whole.shape)
            exported = self.protocol.export(whole)
            self._revealed[index] = (node.get("name"), node.get("to"), kind, exported)

    def _node_done(self, index: int) -> None:
        self._unfinished -= 1
        node = self.plan.nodes[index]
        for ref in dict.fromkeys(node.args):
            self._values[ref].reader_done()
        for output in range(len(node.types)):
            self._values[index, output].reader_done()
        if not self._unfinished:
            self._changed.set()


def _add_up(parts: Sequence[Share]) -> Share:
    if len(parts) == 1:
        return parts[0]
    stacked = np.stack([part.data for part in parts])
    return parts[0].like(parts[0].domain.reduce_add(stacked, axis=0, dtype=np.uint64))
