"""How values flow through a plan run: who waits for what, what is computed where, when memory is let go.

A local row-wise node (a sum, a product before its round) that is read only once, or is no more work than a
copy, is never scheduled. It is computed in the step that reads it, in its thread, tile by tile. So a chain of
small operations between two rounds is one piece of work, and long intermediate values exist a tile at a time.
Every tile of a value is dropped when its last reader is done with it. Tiles that pile up until then lie in
the scratch; those of stored values may lie in files, and are read when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np

from tercet.actors.ends import Ends
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.values import FiledTiles, TiledValue
from tercet.errors import ProtocolError
from tercet.plans.kinds import KINDS, Context, Data, Tiling
from tercet.plans.plan import Plan
from tercet.plans.shards import NODE, Shards
from tercet.plans.tiles import Layout
from tercet.plans.types import Form, Ref, bind_shape
from tercet.protocols.base import Protocol

HEAVY_WORDS = 1 << 17
"""Work, in words added, from which a step is worth a worker thread: a few times what changing threads
costs.
"""
MOST_TIMES = 16
"""How often a cheap node is computed anew at most, beside once for each that reads it directly."""
LONGEST_CHAIN = 64
"""Inline nodes that are computed where the last of them is read: each one calls the next."""
IN_FLIGHT = 8
"""Heavy instances that may wait for the network at one time, for each thread."""


class _Wiring:
    """Who reads what in a plan, and what is computed where: the same in every run of it."""

    def __init__(self, plan: Plan, layout: Layout) -> None:
        self.plan = plan
        self.layout = layout
        self._readers: dict[Ref, list[int]] = {}
        for index, node in enumerate(plan.nodes):
            for ref in dict.fromkeys(node.args):
                self._readers.setdefault(ref, []).append(index)
        self.inline = [False] * len(plan.nodes)
        self._height = [0] * len(plan.nodes)
        """How many inline nodes follow each other up to one that is not."""
        self._times = [1] * len(plan.nodes)
        """How often a node would be computed, or is, for all that read it."""
        self.reads: dict[Ref, dict[int, int]] = {}
        """How often scheduled nodes read a value, directly or through inline ones."""
        for index in reversed(range(len(plan.nodes))):
            for output in range(len(plan.nodes[index].types)):
                self.reads[index, output] = self._count_reads((index, output))
            self.inline[index] = self._is_inline(index)
        self.wakes: dict[Ref, dict[int, bool]] = {}
        for index in reversed(range(len(plan.nodes))):
            for output in range(len(plan.nodes[index].types)):
                self.wakes[index, output] = self._find_wakes((index, output))
        self.first_barrier = [len(plan.nodes)] * len(plan.nodes)
        for index in reversed(range(len(plan.nodes))):
            self.first_barrier[index] = self._find_first_barrier(index)

    def _find_first_barrier(self, index: int) -> int:
        """The first node that talks on all rows and waits for a node, or is it; the plan's length if none."""
        node = self.plan.nodes[index]
        if self.layout.tiling[index] is Tiling.WHOLE and not KINDS[node.kind].local:
            return index
        readers = [
            reader for output in range(len(node.types)) for reader in self._readers.get((index, output), [])
        ]
        return min((self.first_barrier[reader] for reader in readers), default=len(self.plan.nodes))

    def _count_reads(self, ref: Ref) -> dict[int, int]:
        found: dict[int, int] = {}
        for reader in self._readers.get(ref, []):
            beyond = self.reads[reader, 0] if self.inline[reader] else {reader: 1}
            for scheduled, times in beyond.items():
                found[scheduled] = found.get(scheduled, 0) + times
        return found

    def _is_inline(self, index: int) -> bool:
        kind, readers = KINDS[self.plan.nodes[index].kind], self._readers.get((index, 0), [])
        if not kind.local or kind.tiling is not Tiling.ROWS or not readers:
            return False
        read = [(reader, self.plan.nodes[reader].args.count((index, 0))) for reader in readers]
        times = sum(count * self._times[reader] for reader, count in read)
        # What reads inline nodes twice, and is read twice, would have these computed four times, and so on.
        most = max(MOST_TIMES, sum(count for reader, count in read if not self.inline[reader]))
        height = 1 + max(self._height[reader] for reader in readers)
        once = times <= most if kind.cheap else times == 1
        if not once or height > LONGEST_CHAIN:
            return False
        if not all(self.layout.reads_rows(reader, (index, 0)) for reader in readers):
            return False
        self._height[index], self._times[index] = height, times
        return True

    def _find_wakes(self, ref: Ref) -> dict[int, bool]:
        """Scheduled nodes that wait for a value, directly or through inline ones; whether tile by tile."""
        found: dict[int, bool] = {}
        for reader in self._readers.get(ref, []):
            rows = self.layout.reads_rows(reader, ref)
            beyond = self.wakes[reader, 0] if self.inline[reader] else {reader: True}
            for scheduled, by_rows in beyond.items():
                found[scheduled] = found.get(scheduled, True) and rows and by_rows
        return found


_Readers = tuple[list[bool], dict[Ref, dict[int, int]], dict[Ref, int], dict[Ref, dict[int, bool]], list[int]]
_known: WeakKeyDictionary[Plan, _Readers] = WeakKeyDictionary()


def _wiring(plan: Plan, layout: Layout) -> _Readers:
    """Which nodes are inline, how often results are read, by whom and in all, whom they wake, and barriers.

    Found once for each plan.
    """
    shape = plan.apart_from_handles
    found = _known.get(shape)
    if found is None:
        made = _Wiring(shape, layout)
        in_all = {ref: sum(times.values()) for ref, times in made.reads.items()}
        found = _known[shape] = made.inline, made.reads, in_all, made.wakes, made.first_barrier
    return found


class Flow:
    """The values of one run.

    `argument` and `shelve` may be called in any thread, everything else in the event loop. Where a party has
    workers, `shards` says what each member runs, and this is the part of `member`.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        protocol: Protocol,
        symbols: dict[str, int],
        scratch: Scratch = IN_MEMORY,
        *,
        shards: Shards | None = None,
        member: int = NODE,
    ) -> None:
        self.plan = plan
        self._shards = shards
        self._member = member
        self._scratch = scratch
        self.layout = layout
        self._symbols = symbols
        self._protocol = protocol.bind("local")
        self.inline, self._reads_by, self._reads, self._wakes, self.first_barrier = _wiring(plan, layout)
        self._values: dict[Ref, TiledValue] = {}
        self._consumed: dict[int, int] = {}

    def depth(self, index: int, tile: int) -> int | None:
        """Rounds on the longest way to what an instance reads, or None while something is missing."""
        if self.layout.together(index):
            return self._depth_of_blocks(index)
        deepest = 0
        for position, ref in enumerate(self.plan.nodes[index].args):
            rows = self.layout.rowwise(index, position)
            if self.inline[ref[0]]:
                depth = self.depth(ref[0], tile)
            else:
                value = self._values.get(ref)
                if value is None or (not value.there[tile] if rows else value.missing):
                    return None
                depth = value.depth[tile] if rows else max(value.depth)
            if depth is None:
                return None
            deepest = max(deepest, depth)
        return deepest

    def _depth_of_blocks(self, index: int) -> int | None:
        deepest = 0
        for ref, block in self._blocks(index):
            if block:
                value = self._values.get(ref)
                if value is None or not all(value.there[tile] for tile in block):
                    return None
                deepest = max(deepest, *(value.depth[tile] for tile in block))
        return deepest

    def _blocks(self, index: int) -> Iterator[tuple[Ref, range]]:
        """What a node that members run together reads, and which tiles of it here."""
        team = self.layout.team(index, self._member)
        for ref, rows in zip(self.plan.nodes[index].args, team.rows, strict=False):
            yield ref, team.tiles(team.member, team.size, self.layout.cut(rows))

    def work(self, index: int, tile: int) -> int:
        """About how many words of work an instance is, with the inline nodes that it computes."""
        node = self.plan.nodes[index]
        words = KINDS[node.kind].weight * self.layout.needed_words(index, tile)
        return words + sum(self.work(ref[0], tile) for ref in node.args if self.inline[ref[0]])

    def reads_files(self, index: int, tile: int) -> bool:
        """Whether an instance has to wait for a disk."""
        if self.layout.together(index):
            return any(
                (source := self._values[ref].source) is not None and not all(map(source.ready, block))
                for ref, block in self._blocks(index)
                if block
            )
        for position, ref in enumerate(self.plan.nodes[index].args):
            if self.inline[ref[0]]:
                if self.reads_files(ref[0], tile):
                    return True
            elif (source := self._values[ref].source) is not None:
                rows = self.layout.rowwise(index, position)
                if not all(map(source.ready, (tile,) if rows else range(len(source)))):
                    return True
        return False

    # -- values ----------------------------------------------------------------------------------------------

    def open(self, ref: Ref, tiles: FiledTiles) -> Iterator[tuple[int, int | None]]:
        """Put a stored value in place that lies in a file; yields who may be able to start now, as `put`."""
        self._values[ref] = TiledValue.from_file(tiles, self._readings(ref, len(tiles)), self._scratch)
        return ((reader, None) for reader in self._wakes[ref])

    def prepare(self, ref: Ref, tiles: int) -> None:
        """Make a place for a value before its tiles come."""
        if ref not in self._values:
            self._values[ref] = TiledValue(self._readings(ref, tiles), self._scratch)

    def _readings(self, ref: Ref, tiles: int) -> list[int]:
        """How often each tile of a value is read here, and once more if the run keeps it."""
        kept_by_run = int(self._member == NODE and Ends.takes(self.plan.nodes[ref[0]]))
        if self._shards is None:
            return [self._reads[ref] + kept_by_run] * tiles
        found = [kept_by_run] * tiles
        for reader, times in self._reads_by[ref].items():
            for tile in self._shards.read(self._member, reader, tiles, by_tile=self._wakes[ref][reader]):
                found[tile] += times
        return found

    def members(self, ref: Ref, tile: int, tiles: int) -> set[int]:
        """The members of the party that read a tile, of so many; nobody, unless the run is shared out."""
        return set() if self._shards is None else self._shards.readers(tile, tiles, self._wakes[ref])

    def shelve(self, ref: Ref, tile: int, data: Data) -> Data:
        """A tile that is about to be put, in the scratch where tiles pile up. In any thread."""
        value = self._values.get(ref)
        return data if value is None else value.shelve(tile, data)

    def put(
        self, ref: Ref, tile: int, tiles: int, data: Data, depth: int
    ) -> Iterator[tuple[int, int | None]]:
        """Put a tile in place; yields who may be able to start now: (node, tile, or None for any)."""
        self.prepare(ref, tiles)
        value = self._values[ref]
        value.put(tile, data, depth)
        for reader, by_rows in self._wakes[ref].items():
            if by_rows:
                yield reader, tile
            elif not value.missing or reader in self.layout.may_be_together:
                yield reader, None

    def result(self, ref: Ref) -> TiledValue:
        """A value that the run keeps."""
        return self._values[ref]

    def argument(self, index: int, position: int, tile: int) -> Data:
        """What an instance reads at a position: a tile, or the whole value."""
        ref = self.plan.nodes[index].args[position]
        if self.inline[ref[0]]:
            return self._compute(ref[0], tile)
        if self.layout.together(index):
            return self._block(index, position)
        value = self._values[ref]
        if not self.layout.rowwise(index, position):
            return value.whole()
        part = value.part(tile)
        if part is None:
            title = self.plan.nodes[ref[0]].title(ref[0])
            raise ProtocolError(f"{title}: tile {tile} was dropped before it was read")
        return part

    def _block(self, index: int, position: int) -> Data:
        ref, block = list(self._blocks(index))[position]
        if block:
            return self._values[ref].block(block)
        kind = self.plan.type_of(ref)
        shape = (*bind_shape(kind.shape, self._symbols)[:-1], 0)
        if kind.form is Form.PUBLIC:
            return np.zeros(shape, dtype=np.uint64)
        return self._protocol.spec(shape, domain=kind.form.domain, scale=kind.scale, product=kind.product)

    def _compute(self, index: int, tile: int) -> Data:
        node = self.plan.nodes[index]
        args = [self.argument(index, position, tile) for position in range(len(node.args))]
        context = Context(self._symbols, self.layout.tile_rows(index, tile))
        made: Data = KINDS[node.kind].run(node, self._protocol, args, context)
        return made

    def _instances(self, index: int) -> int:
        """How many instances of a node, or of those that read an inline one, run here."""
        if self._shards is None or self._member == NODE:
            return self.layout.tiles(index)
        # Not of what members run together, which is let go of by `_blocks`.
        return len(self._shards.block(self._member, self.layout.tiles(index)))

    def release(self, index: int, tile: int) -> None:
        """An instance is done with what it read: called once for each, for an inline one once a reading."""
        if self.layout.together(index):
            for ref, block in dict(self._blocks(index)).items():
                for number in block:
                    self._values[ref].reader_done(number)
            return
        done = self._consumed[index] = self._consumed.get(index, 0) + 1
        for ref in dict.fromkeys(self.plan.nodes[index].args):
            if self.inline[ref[0]]:
                self.release(ref[0], tile)
            elif self.layout.reads_rows(index, ref):
                self._values[ref].reader_done(tile)
            elif done % self._instances(index) == 0:
                for number in range(len(self._values[ref].tiles)):
                    self._values[ref].reader_done(number)
