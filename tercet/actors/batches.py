"""Which nodes of a small plan run together: found from the plan alone, so that all parties find the same.

A unit is what starts and ends at once. It is a node; or local nodes of one kind that read the same stacks, in
lanes; or nodes that talk, of one kind, which the same round of the plan makes ready, as one operation on all
their numbers. What lies in lanes is a stack, of values of one shape; see `plans.lanes`. Rounds of a plan do
not change: what waits for the same round anyway waits together. Behind a sort, whose rounds hang on chance,
only what is behind the same sorts is put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from tercet.plans import lanes
from tercet.plans.kinds import KINDS
from tercet.plans.plan import Plan
from tercet.plans.types import Node, Ref, Type, word_shape

MOST_TOGETHER = 1 << 18
"""Words that local nodes in lanes read and make: beyond, what a node costs is its words."""
MOST_FLAT = 1 << 20
"""Work of one operation, as in `Kind.weight`: some milliseconds."""
TABLE_WEIGHT = 16
"""Work for each word of a table that is sorted, by step."""
LAST = 1 << 30
"""Where nodes that talk come among those of the same round: after all that is local."""

Mode = Literal["one", "lanes", "flat", "tables"]
_Place = tuple[int, int, int]
"""The stack, the output and the lane of a value."""
Pick = int | slice | npt.NDArray[np.int64] | None


@attrs.frozen(eq=False)
class Read:
    """Where an argument is: a result of a stack, in all of its lanes in order, in some, or in one.

    `stacked` says whether what is read has an axis of lanes.
    """

    stack: int
    output: int
    pick: Pick = None
    stacked: bool = False


@attrs.frozen(eq=False)
class Stack:
    """Values of nodes side by side, one lane each, or of one node, without an axis of lanes."""

    number: int
    nodes: tuple[int, ...]
    reads: tuple[Read, ...]
    """By argument; of a flat operation, the parts of its argument one after the other."""


@attrs.frozen(eq=False)
class Unit:
    """What starts and ends together. `index` is the first of its nodes, and names it."""

    index: int
    mode: Mode
    stacks: tuple[Stack, ...]
    compares: bool = False
    """Whether `index` is a comparison, and the unit's nodes are the `to_ring` that follow upon it."""


@attrs.frozen
class _Facts:
    """What follows from the kind and types of a node alone."""

    stack: int
    """Nodes with one number may be lanes of a stack."""
    flat: int
    """Nodes with one number may be one operation, whatever their shapes."""
    mode: Mode
    sure: bool
    """Whether its rounds follow from the plan."""
    work: int
    rounds: int


@attrs.define(eq=False)
class _Draft:
    """A stack that still grows."""

    number: int
    unit: _Rough
    each: int
    """Work for each member."""
    members: list[int] = attrs.field(factory=list)
    refs: list[list[Ref]] = attrs.field(factory=list)
    """What each member reads."""

    @property
    def width(self) -> int:
        return len(self.members)


@attrs.define(eq=False)
class _Rough:
    """A unit that still grows: after how many rounds, and local steps since, it begins and ends.

    `chance` numbers the sorts that it is behind, 0 for none.
    """

    index: int
    mode: Mode
    begin: tuple[int, int]
    end: tuple[int, int]
    chance: int
    compares: bool
    most: int
    """Up to how much work more nodes may come to it."""
    stacks: dict[Any, _Draft] = attrs.field(factory=dict)
    work: int = 0


class _Numbers:
    """Numbers for keys, by the order in which they come."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def of(self, key: Any) -> int:
        """From 1."""
        return self._known.setdefault(key, len(self._known) + 1)


def alone(plan: Plan) -> list[Unit]:
    """Each node by itself."""
    return [
        Unit(index, "one", (Stack(index, (index,), tuple([Read(*ref) for ref in node.args])),))
        for index, node in enumerate(plan.nodes)
    ]


class Batches:
    """The units of a plan, each after those that it reads. `rounds` tells how many a node takes."""

    def __init__(self, plan: Plan, rounds: Callable[[int], int]) -> None:
        self._plan = plan
        self._rounds = rounds
        self._known: dict[tuple[Any, ...], _Facts] = {}
        self._types: dict[Type, int] = {}
        self._alike, self._chances, self._flats = _Numbers(), _Numbers(), _Numbers()
        self._last: dict[tuple[Any, ...], _Draft] = {}
        """By what is done with which results: the stack that the last such node came to."""
        self._open_flat: dict[tuple[Any, ...], _Rough] = {}
        self._roughs: list[_Rough] = []
        self._stacks = 0
        self._draft_of: dict[int, _Draft] = {}
        self._lane_of = [0] * len(plan.nodes)
        self._widths: dict[int, int] = {}
        self._stands_for: dict[int, Ref] = {}
        """By nodes that change nothing: what they are."""
        self._pairs = self._find_pairs()
        heads = set(self._pairs.values())
        for index, node in enumerate(plan.nodes):
            if node.kind == "bounded":
                self._stands_for[index] = self._resolved(node.args[0])
            elif index not in heads:
                self._put(index, node)
        self._roughs.sort(key=lambda rough: (rough.begin, rough.index))
        self.units = [self._settled(rough) for rough in self._roughs]

    def _resolved(self, ref: Ref) -> Ref:
        return self._stands_for.get(ref[0], ref)

    def _find_pairs(self) -> dict[int, int]:
        """By `to_ring` nodes: the comparison that nothing else reads."""
        nodes = self._plan.nodes
        readers: dict[int, int] = {}
        pairs = {}
        for index, node in enumerate(nodes):
            for producer, _ in node.args:
                if nodes[producer].kind in lanes.COMPARISONS:
                    readers[producer] = readers.get(producer, 0) + 1
                    if node.kind == "to_ring" and isinstance(node.types[0].shape[0], int):
                        pairs[index] = producer
        return {index: head for index, head in pairs.items() if readers[head] == 1}

    # -- which nodes are alike -------------------------------------------------------------------------------

    def _type(self, kind: Type) -> int:
        """The number of a type, whatever its limit."""
        number = self._types.get(kind)
        if number is None:
            key = (kind.form, kind.shape, kind.scale, kind.product)
            number = self._types[kind] = self._alike.of(key)
        return number

    def _facts(self, index: int, head: int, refs: Sequence[Ref]) -> _Facts:
        nodes = self._plan.nodes
        node, source = nodes[index], nodes[head]
        types = [self._plan.type_of(ref) for ref in refs]
        what = (node.kind, source.kind, () if source.kind in lanes.OF_EACH else source.attributes)
        key = (what, *[self._type(kind) for kind in types], *[self._type(kind) for kind in node.types])
        facts = self._known.get(key)
        if facts is None:
            facts = self._known[key] = self._found(index, node, types, head, what)
        return facts

    def _found(
        self, index: int, node: Node, types: Sequence[Type], head: int, what: tuple[Any, ...]
    ) -> _Facts:
        kind, maxima = KINDS[node.kind], self._plan.maxima
        fixed = not any(isinstance(dim, str) for one in (*node.types, *types) for dim in one.shape)
        words = sum(math.prod(word_shape(one, maxima)) for one in (*node.types, *types))
        rounds = 0 if kind.local else self._rounds(index)
        if head != index:
            rounds += self._rounds(head)
        mode: Mode = "one"
        flat = 0
        if fixed and (node.kind in lanes.LOCAL or node.kind in lanes.SOURCES):
            mode = "lanes"
        elif fixed and (node.kind in lanes.FLAT or head != index):
            mode = "flat"
            words *= KINDS[self._plan.nodes[head].kind].weight
            (x,) = types
            flat = self._flats.of((*what, x.form, x.product, x.scale if node.kind == "fourier" else 0))
        elif fixed and node.kind in lanes.TABLES:
            mode = "tables"
            words *= TABLE_WEIGHT
            flat = self._flats.of(what)
        return _Facts(
            len(self._known) + 1, flat, mode, kind.local or (fixed and kind.exact_cost), words, rounds
        )

    # -- drafts ----------------------------------------------------------------------------------------------

    def _put(self, index: int, node: Node) -> None:
        head = self._pairs.get(index, index)
        source = node if head == index else self._plan.nodes[head]
        refs = []
        key: list[Any] = [node.kind, source.kind, () if source.kind in lanes.OF_EACH else source.attributes]
        for ref in source.args:
            if ref[0] in self._stands_for:
                ref = self._stands_for[ref[0]]
            refs.append(ref)
            key += self._draft_of[ref[0]].number, ref[1]
        if not refs:
            key += [self._type(kind) for kind in node.types]
        # Most nodes read what others like them have read: they come where those are.
        where = tuple(key)
        draft = self._last.get(where)
        if draft is None or draft.unit.work + draft.each > draft.unit.most:
            draft = self._last[where] = self._new(index, head, refs)
        draft.unit.work += draft.each
        draft.members.append(index)
        draft.refs.append(refs)
        self._draft_of[index] = draft

    def _new(self, index: int, head: int, refs: Sequence[Ref]) -> _Draft:
        """The stack that a node comes to, which no node before it that reads the same can say."""
        sources = [self._draft_of[producer] for producer, _ in refs]
        facts = self._facts(index, head, refs)
        begin = max([source.unit.end for source in sources], default=(0, 0))
        end = (begin[0], begin[1] + 1)
        if facts.rounds:
            begin, end = (begin[0], LAST), (begin[0] + facts.rounds, 0)
        chances = {source.unit.chance for source in sources if source.unit.chance}
        chance = self._chances.of(frozenset(chances)) if len(chances) > 1 else sum(chances)
        if not facts.sure:
            chance = self._chances.of((facts.flat, facts.stack if not facts.flat else 0, begin, chance))
        flat = (facts.flat, begin, chance)
        unit = self._open_flat.get(flat) if facts.flat else None
        if unit is None or unit.work + facts.work > unit.most:
            most = {"one": -1, "lanes": MOST_TOGETHER}.get(facts.mode, MOST_FLAT)
            unit = _Rough(head, facts.mode, begin, end, chance, head != index, most)
            self._open_flat[flat] = unit
            self._roughs.append(unit)
        inner: tuple[Any, ...] = (facts.stack,)
        if facts.mode == "tables":
            inner += tuple([(source.number, ref[1]) for source, ref in zip(sources, refs, strict=True)])
        draft = unit.stacks.get(inner)
        if draft is None:
            draft = unit.stacks[inner] = _Draft(self._stacks, unit, facts.work)
            self._stacks += 1
        return draft

    # -- units -----------------------------------------------------------------------------------------------

    def _settled(self, rough: _Rough) -> Unit:
        """A unit, all of whose sources are settled."""
        stacks = tuple([self._stack(draft, rough.mode) for draft in rough.stacks.values()])
        alone = len(stacks) == 1 and len(stacks[0].nodes) == 1 and not rough.compares
        return Unit(rough.index, "one" if alone else rough.mode, stacks, rough.compares)

    def _stack(self, draft: _Draft, mode: Mode) -> Stack:
        """Lanes in the order of what they read, so that they read lanes in order."""
        places = [[self._place(ref) for ref in refs] for refs in draft.refs]
        if draft.width > 1:
            order = sorted(range(draft.width), key=places.__getitem__)
            draft.members, places = [draft.members[at] for at in order], [places[at] for at in order]
        reads: list[Read] = []
        if mode == "flat":
            begin = 0
            for at in range(1, len(places) + 1):
                if at == len(places) or places[at][0][:2] != places[begin][0][:2]:
                    reads += self._parts([place[0] for place in places[begin:at]])
                    begin = at
        else:
            reads = [self._read([place[at] for place in places]) for at in range(len(places[0]))]
            if reads and not any(read.stacked for read in reads):  # alike for all, so one does for them
                for member in draft.members:
                    self._lane_of[member] = 0
                del draft.members[1:]
        for lane, member in enumerate(draft.members):
            self._lane_of[member] = lane
        self._widths[draft.number] = draft.width
        return Stack(draft.number, tuple(draft.members), tuple(reads))

    def _place(self, ref: Ref) -> _Place:
        """Where a result is."""
        return self._draft_of[ref[0]].number, ref[1], self._lane_of[ref[0]]

    def _read(self, places: Sequence[_Place]) -> Read:
        """What lanes read as one argument, all from one stack."""
        stack, output, first = places[0]
        if self._widths[stack] == 1:
            return Read(stack, output)
        if all(place[2] == first for place in places):
            return Read(stack, output, first)
        return Read(stack, output, self._pick(places), stacked=True)

    def _parts(self, places: Sequence[_Place]) -> list[Read]:
        """What lanes read one after the other from one stack."""
        stack, output, first = places[0]
        if self._widths[stack] == 1:
            return [Read(stack, output)] * len(places)
        if len(places) == 1:
            return [Read(stack, output, first)]
        return [Read(stack, output, self._pick(places), stacked=True)]

    def _pick(self, places: Sequence[_Place]) -> Pick:
        """Some lanes of a stack: none where they are all, in order."""
        numbers = [place[2] for place in places]
        count, step = len(numbers), numbers[1] - numbers[0]
        if step > 0 and numbers == list(range(numbers[0], numbers[0] + step * count, step)):
            return None if count == self._widths[places[0][0]] else slice(numbers[0], numbers[-1] + 1, step)
        return np.array(numbers)
