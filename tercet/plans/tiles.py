"""How the nodes of a plan are cut into tiles, and what each (node, tile) instance is declared to cost.

Everything here follows from the plan, the protocol and the numbers behind its symbols, so every party
computes the same: the scheduler cuts by it, `explain` adds it up, and a party refuses mail of a peer that
exceeds it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tercet.errors import ProtocolError
from tercet.plans.kinds import KINDS, Tiling
from tercet.plans.plan import Plan
from tercet.plans.types import Form, Node, Ref, Type, bind_shape
from tercet.protocols.base import Cost, Protocol, Shape, Share
from tercet.protocols.domains import WORD_BYTES, packed_words
from tercet.protocols.together import Team

SLACK = 4
"""Kinds without an exact cost may send this many times what they expect to, and a little more."""
SLACK_WORDS = 1 << 12
SLACK_ROUNDS = 64


_known: WeakKeyDictionary[Plan, list[tuple[bool, ...]]] = WeakKeyDictionary()


def _rowwise(plan: Plan) -> list[tuple[bool, ...]]:
    """Which arguments of each node are cut into the same tiles as its work; looked at once for each plan."""
    shape = plan.apart_from_handles
    found = _known.get(shape)
    if found is None:
        # Plans repeat steps: nodes of one kind and types are cut alike.
        alike: dict[tuple[Any, ...], tuple[bool, ...]] = {}
        found = []
        for node in shape.nodes:
            types = tuple([shape.type_of(ref) for ref in node.args])
            key = (node.kind, node.attributes, node.types, types)
            if key not in alike:
                alike[key] = _rowwise_args(node, types)
            found.append(alike[key])
        _known[shape] = found
    return found


def _rowwise_args(node: Node, types: Sequence[Type]) -> tuple[bool, ...]:
    kind = KINDS[node.kind]
    if kind.tiling is Tiling.WHOLE:
        return (False,) * len(node.args)
    return tuple(kind.rowwise(node, types, position) for position in range(len(types)))


class Layout:
    """The tiles of a plan's nodes.

    `symbols` may grow while a plan runs; what depends on a missing one raises KeyError. Where a party has so
    many `workers`, they run some operations on all rows together: then such a node has an instance for each
    of them, which reads and makes the worker's block of tiles.
    """

    def __init__(
        self,
        plan: Plan,
        symbols: Mapping[str, int],
        *,
        workers: int = 0,
        protocol: type[Protocol] | None = None,
    ) -> None:
        self.plan = plan
        self.symbols = symbols
        self.workers = workers
        self._together: dict[int, bool | None] = {}
        """Nodes that workers may run together, and whether they do, once that is known."""
        if workers and protocol is not None:
            kinds = enumerate(KINDS[node.kind] for node in plan.nodes)
            self._together = {index: None for index, kind in kinds if kind.in_blocks(protocol)}
        self.tiling = [KINDS[node.kind].tiling for node in plan.nodes]
        self._rowwise = _rowwise(plan)
        self._uncut: dict[int, tuple[Shape, ...]] = {}
        """Word shapes of nodes that are one tile and hang on no symbol."""

    def rowwise(self, index: int, position: int) -> bool:
        """Whether an argument of a node is cut into the same tiles as its work."""
        return self._rowwise[index][position]

    def reads_rows(self, reader: int, ref: Ref) -> bool:
        """Whether a node reads a value tile by tile only."""
        args = self.plan.nodes[reader].args
        return all(self._rowwise[reader][position] for position, arg in enumerate(args) if arg == ref)

    def rows(self, index: int) -> int:
        """Rows along which a node's work is cut."""
        node = self.plan.nodes[index]
        kind = node.types[0] if self.tiling[index] is Tiling.ROWS else self.plan.type_of(node.args[0])
        return self._number(kind.rows)

    def tiles(self, index: int) -> int:
        """Number of instances of a node."""
        if self.tiling[index] is Tiling.WHOLE:
            # All rows have to be known before any member can begin.
            return self.team(index, 0).size if self.together(index) else 1
        return self.cut(self.rows(index))

    def together(self, index: int) -> bool:
        """Whether workers run a node together: one operation on all rows, of more than a tile."""
        known = self._together.get(index, False)
        if known is None:
            node = self.plan.nodes[index]
            rows = {kind.rows for kind in (*node.types, *map(self.plan.type_of, node.args))}
            told = {row for row in rows if isinstance(row, int) or row in self.symbols}
            known = any(self.cut(self._number(row)) > 1 for row in told)
            if not known and (missing := rows - told):
                raise KeyError(missing.pop())
            self._together[index] = known
        return known

    @property
    def may_be_together(self) -> Iterable[int]:
        """The nodes that workers run together if they are of more than a tile."""
        return self._together

    def dealer(self, index: int, tile: int) -> int:
        """The party that deals for an instance, modulo their number: each in turn, but one for a team."""
        return index if self.together(index) else index + tile

    def team(self, index: int, member: int) -> Team:
        """The workers that run a node together, as one sees them, who know how many rows its arguments have.

        Or its results, if it has no arguments.
        """
        node = self.plan.nodes[index]
        kinds = [self.plan.type_of(ref) for ref in node.args] or node.types
        rows = tuple([self._number(kind.rows) for kind in kinds])
        return Team(member, self.workers, self.plan.tile_rows, rows)

    def _number(self, rows: int | str) -> int:
        return rows if isinstance(rows, int) else self.symbols[rows]

    def cut(self, rows: int) -> int:
        """Number of tiles of a value with so many rows."""
        return max(1, -(-rows // self.plan.tile_rows))

    def tile_rows(self, index: int, tile: int) -> int:
        """Rows of one instance's work; 0 for a node that is not cut."""
        if self.tiling[index] is Tiling.WHOLE:
            return 0
        return min(self.plan.tile_rows, self.rows(index) - tile * self.plan.tile_rows)

    def word_shapes(self, index: int, tile: int) -> tuple[Shape, ...]:
        """Shapes of the words that one instance reads, by argument.

        Packed booleans take one word for 64 rows.
        """
        if self.together(index):
            return self._block_shapes(index, tile)
        found = self._uncut.get(index)
        if found is not None and tile == 0:
            return found
        shapes, uncut = [], tile == 0
        for position, ref in enumerate(self.plan.nodes[index].args):
            kind = self.plan.type_of(ref)
            shape = bind_shape(kind.shape, self.symbols)
            uncut = uncut and shape == kind.shape
            if shape and self._rowwise[index][position]:
                uncut = uncut and shape[-1] <= self.plan.tile_rows
                shape = (*shape[:-1], min(self.plan.tile_rows, shape[-1] - tile * self.plan.tile_rows))
            if shape and kind.form is Form.BITS:
                shape = (*shape[:-1], packed_words(shape[-1]))
            shapes.append(shape)
        if uncut:
            self._uncut[index] = tuple(shapes)
        return tuple(shapes)

    def _block_shapes(self, index: int, member: int) -> tuple[Shape, ...]:
        team = self.team(index, member)
        refs = self.plan.nodes[index].args
        shapes = [bind_shape(self.plan.type_of(ref).shape, self.symbols) for ref in refs]
        pairs = zip(shapes, team.rows, strict=False)
        return tuple((*shape[:-1], len(team.block(rows))) for shape, rows in pairs)

    def needed_words(self, index: int, tile: int) -> int:
        """Words that one instance reads."""
        return sum(math.prod(shape) for shape in self.word_shapes(index, tile))


FlatCost = Callable[[Node, Protocol, Share], Cost]


class Costs:
    """Declared costs of a plan's instances under a protocol."""

    def __init__(self, layout: Layout, protocol: type[Protocol], parties: int) -> None:
        self.layout = layout
        self.protocol = protocol
        self.parties = parties
        sessionless = without_session(protocol, parties)
        self._protocols = [sessionless.bind(f"costs {dealer}", dealer=dealer) for dealer in range(parties)]
        self._known: dict[tuple[Any, ...], Cost] = {}
        self._free = sessionless.free()

    def of(self, index: int, tile: int) -> Cost:
        """What one instance costs; its dealer rotates with node and tile."""
        node = self.layout.plan.nodes[index]
        if KINDS[node.kind].local:
            return self._free
        shapes = self.layout.word_shapes(index, tile)
        rows = self.layout.tile_rows(index, tile)
        dealer = self.layout.dealer(index, tile) % len(self._protocols)
        kinds = [self.layout.plan.type_of(ref) for ref in node.args]
        team = self.layout.team(index, tile) if self.layout.together(index) else None
        # Plans repeat steps: nodes of one kind, with the same arguments, cost the same.
        key = (node.kind, node.attributes, dealer, rows, team, *shapes, *kinds)
        if key not in self._known:
            protocol = copy.copy(self._protocols[dealer])
            protocol.team = team
            shares = [
                _spec(protocol, kind, shape)
                for kind, shape in zip(kinds, shapes, strict=True)
                if kind.form is not Form.PUBLIC
            ]
            self._known[key] = KINDS[node.kind].cost(node, protocol, shares, rows)
        return self._known[key]

    def held_words(self, ref: Ref, tile: int) -> int:
        """Words that a party holds of a tile of a value."""
        kind, layout = self.layout.plan.type_of(ref), self.layout
        shape = bind_shape(kind.shape, layout.symbols)
        if shape:
            rows = min(layout.plan.tile_rows, shape[-1] - tile * layout.plan.tile_rows)
            shape = (*shape[:-1], packed_words(rows) if kind.form is Form.BITS else rows)
        if kind.form is Form.PUBLIC:
            return math.prod(shape)
        return int(_spec(self._protocols[0], kind, shape).data.size)

    def flat(self, node: Node, dealer: int, read: Type, count: int, cost: FlatCost | None = None) -> Cost:
        """What a node's operation costs on so many words laid out flat; as its kind, or `cost`, says."""
        dealer %= len(self._protocols)
        key = (node.kind, node.attributes, dealer, count, read.form, read.scale, read.product, cost)
        if key not in self._known:
            protocol = self._protocols[dealer]
            x = _spec(protocol, read, (count,))
            self._known[key] = (
                KINDS[node.kind].cost(node, protocol, [x], count) if cost is None else cost(node, protocol, x)
            )
        return self._known[key]


def without_session(protocol: type[Protocol], parties: int, party: int = 0) -> Protocol:
    """A party of no session, with keys that are no secret: for costs, and what else takes no keys."""
    others = {one: bytes(32) for one in range(parties) if one != party}
    made = protocol(party=party, parties=parties, keys=others or {party: bytes(32)})
    made.groups = others if protocol.group_keys else {}
    return made


def _spec(protocol: Protocol, kind: Type, shape: Shape) -> Any:
    return protocol.spec(shape, domain=kind.form.domain, scale=kind.scale, product=kind.product)


MOST_ARRAYS = 1 << 14
"""Arrays of one message: those without a word cost the sender a byte each, and the receiver an object."""


class Ledger:
    """What each peer may still send in a session: no more than the plan declares, however early it comes.

    Where a party has workers, `may_run` says whether an instance, (node, tile), is one of this member's.
    """

    def __init__(self, costs: Costs, may_run: Callable[[int, int], bool] | None = None) -> None:
        self._costs = costs
        self._may_run = may_run
        self._used: dict[tuple[int, int, int], int] = {}

    def charge(self, peer: int, entries: Any, size: int) -> None:
        """Book the messages `[node, tile, step, sizes]` of a frame with a payload of `size` bytes.

        Raises ProtocolError, naming node and peer, for what no run of the plan sends.
        """
        words = 0
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            raise ProtocolError(f"party {peer} sent a frame that does not say what messages it has")
        for node, tile, step, sizes in entries:
            if not all(type(number) is int and number >= 0 for number in (node, tile, step, *sizes)):
                raise ProtocolError(f"party {peer} sent a message without proper numbers")
            if len(sizes) > MOST_ARRAYS:
                raise ProtocolError(
                    f"party {peer} sent {len(sizes)} arrays in one message; it has at most {MOST_ARRAYS}"
                )
            words += sum(sizes)
            self._charge(peer, node, tile, step, sum(sizes))
        if words * WORD_BYTES != size:
            raise ProtocolError(
                f"party {peer} sent {size} bytes of payload, its messages have {words * WORD_BYTES}"
            )

    def _charge(self, peer: int, node: int, tile: int, step: int, words: int) -> None:
        layout = self._costs.layout
        if node >= len(layout.plan.nodes) or tile >= layout.tiles(node):
            raise ProtocolError(
                f"party {peer} sent a message for node {node}, tile {tile}, which the plan does not have"
            )
        if self._may_run is not None and not self._may_run(node, tile):
            raise ProtocolError(
                f"party {peer} sent a message for {layout.plan.nodes[node].title(node)}, tile {tile}, to a "
                "member of this party that does not run it; both must have as many workers"
            )
        # A member's block may be longer than it would be of the most rows, but never than the first one's.
        cost = self._costs.of(node, 0 if layout.together(node) else tile)
        rounds, most = cost.rounds, cost.sent[peer] // WORD_BYTES
        if not KINDS[layout.plan.nodes[node].kind].exact_cost:
            rounds, most = SLACK * rounds + SLACK_ROUNDS, SLACK * most + SLACK_WORDS
        used = self._used.get((peer, node, tile), 0) + words
        if step >= rounds or used > most:
            raise ProtocolError(
                f"party {peer} sent {used} words up to step {step} of {layout.plan.nodes[node].title(node)}, "
                f"tile {tile}, whose protocol declares {most} words in {rounds} rounds"
            )
        self._used[peer, node, tile] = used


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 4 and isinstance(entry[3], list)


def depths(costs: Costs) -> dict[int, int]:
    """Rounds on the longest way to the end of each node, all tiles side by side."""
    return schedule(costs)[1]


def schedule(costs: Costs) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Rounds on the longest way to the start of each instance, by node and tile, and to each node's end."""
    layout = costs.layout
    of_tiles: dict[Ref, list[int]] = {}
    starts: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for index, node in enumerate(layout.plan.nodes):
        starts[index] = [_before(layout, of_tiles, index, tile) for tile in range(layout.tiles(index))]
        after = [depth + costs.of(index, tile).rounds for tile, depth in enumerate(starts[index])]
        found[index] = max(after)
        for output, kind in enumerate(node.types):
            if layout.tiling[index] is Tiling.ROWS:
                of_tiles[index, output] = after
                continue
            rows = layout.symbols.get(kind.rows, 1) if isinstance(kind.rows, str) else kind.rows
            of_tiles[index, output] = [found[index]] * layout.cut(rows)
    return starts, found


def _before(layout: Layout, of_tiles: Mapping[Ref, list[int]], index: int, tile: int) -> int:
    depth = 0
    for position, ref in enumerate(layout.plan.nodes[index].args):
        known = of_tiles[ref]
        depth = max(depth, known[tile] if layout.rowwise(index, position) else max(known))
    return depth
