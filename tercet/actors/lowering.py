"""What runs of a small plan have in common: worked out once for a plan, a protocol and its parties.

Which plans are small; which of their nodes run together, what each reads and wakes, may open and send; and
what a peer may send in a run. All of it follows from the plan, so parties agree.
"""

from __future__ import annotations

import functools
import math
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import numpy as np

from tercet.actors.batches import Batches, Unit, alone
from tercet.actors.ends import Ends
from tercet.errors import ProtocolError
from tercet.plans import lanes
from tercet.plans.kinds import KINDS, Data, Kind
from tercet.plans.plan import Plan
from tercet.plans.tiles import SLACK, SLACK_ROUNDS, SLACK_WORDS, Costs, Layout
from tercet.plans.types import Node, Type, word_shape
from tercet.protocols.base import Cost, Protocol
from tercet.protocols.domains import WORD_BYTES

MOST_WORK = 1 << 19
"""Work of one instance, in words added, up to which a plan runs in lockstep: steps of about a millisecond."""
MOST_PRODUCTS = 1 << 21
"""Products that one instance adds up: some milliseconds."""
MOST_MADE = 1 << 25
"""Words of all results together: what waits for a round is in memory all at once, and in one frame."""
MOST_STEPS = 1 << 16
"""Nodes of a plan: what is worked out of them beforehand takes a second."""
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
    total = 0
    words: list[tuple[int, ...]] = []
    """Of the results of each node."""
    known: dict[int, tuple[int, ...]] = {}
    """By the types of results, which nodes that are alike share."""
    for node in plan.nodes:
        made = known.get(id(node.types))
        if made is None:
            for one in node.types:
                if (plan.maxima[one.rows] if isinstance(one.rows, str) else one.rows) > plan.tile_rows:
                    return False
            made = tuple([math.prod(word_shape(one, plan.maxima)) for one in node.types])
            known[id(node.types)] = made
        words.append(made)
        kind, results = KINDS[node.kind], sum(made)
        read = sum([words[producer][output] for producer, output in node.args])
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
class Task:
    """A unit in its plan, whose handles may be others. `index` and `node` are those of its first node.

    What hangs on sizes is None where a symbol has to be known first.
    """

    number: int
    unit: Unit
    index: int
    node: Node
    kind: Kind
    sources: tuple[int, ...]
    """The tasks whose results it reads."""
    rows: int | None
    openings: int | None
    allowed: tuple[int, tuple[int, ...]] | None
    """Rounds, and bytes by party, that the protocol declares; None also for a kind without exact cost."""
    dealer: int
    ends: bool
    """Whether what it makes leaves the plan, or is kept."""
    nodes: int
    """How many nodes are done with it."""
    makes: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = ()
    """Of a flat operation: each stack, its shape, and the scales of its results."""


class Lowering:
    """A plan under one protocol as lists: what runs together, reads, wakes and may send; what a run may take.

    Bounds, openings and costs are worked out here, once for all runs. Without `together` every node runs by
    itself, under the names that `scheduler` gives, so that results are the same to the last bit.
    """

    def __init__(self, plan: Plan, protocol: type[Protocol], parties: int, *, together: bool = True) -> None:
        self._plan = plan
        self._layout = Layout(plan, plan.maxima)
        self._costs = Costs(self._layout, protocol, parties)
        units = Batches(plan, self._rounds).units if together else alone(plan)
        self.stacks = sum(len(unit.stacks) for unit in units)
        self.skipped = len(plan.nodes) - sum(len(stack.nodes) for unit in units for stack in unit.stacks)
        """Nodes that are done with others: they change nothing, or are the first half of a pair."""
        self.missing = [0] * len(units)
        self.readers: list[list[int]] = [[] for _ in units]
        self.tasks: list[Task] = []
        self.most_bytes = [0] * parties
        """What each party sends at most in a run."""
        self.expected_bytes = [0] * parties
        """What it sends: the same, but for sorts, of which this is the mean."""
        self.most_rounds = 0
        self.known: dict[int, Data] = {}
        """By stack: constants that lie in lanes."""
        self._alike: dict[tuple[Any, ...], tuple[bool, int, int]] = {}
        self._dealt = [0] * parties
        maker: dict[int, int] = {}
        ends = [0] * len(units)
        for number, unit in enumerate(units):
            sources = {maker[read.stack] for stack in unit.stacks for read in stack.reads}
            for stack in unit.stacks:
                maker[stack.number] = number
            self.missing[number] = len(sources)
            begins = 0
            for source in sources:
                self.readers[source].append(number)
                begins = max(begins, ends[source])
            ends[number] = begins + self._add(number, unit, tuple(sorted(sources)))
        self.most_rounds = max(ends, default=0)

    def _rounds(self, index: int) -> int:
        return self._costs.of(index, 0).rounds

    def _add(self, number: int, unit: Unit, sources: tuple[int, ...]) -> int:
        """Note a unit, and what a run may take for it; its rounds at most."""
        node = self._plan.nodes[unit.index]
        kind = KINDS[node.kind]
        fixed, rows, openings, dealer, cost = True, 0, 0, unit.index, None
        if unit.mode == "flat":
            dealer = self._dealt.index(min(self._dealt))
            rows, cost = self._flat_cost(unit, node, dealer)
            self._dealt[dealer] += kind.weight * rows
        elif unit.mode == "tables":
            members = [index for stack in unit.stacks for index in stack.nodes]
            cost = functools.reduce(Cost.__or__, [self._costs.of(index, 0) for index in members])
            openings = sum(self._sizes(index)[2] for index in members)
        elif unit.mode == "one":
            fixed, rows, openings = self._sizes(unit.index)
            cost = self._costs.of(unit.index, 0)
        elif node.kind == "constant":
            self.known[unit.stacks[0].number] = self._constants(unit)
        rounds, sent = (0, ()) if cost is None else (cost.rounds, cost.sent)
        if rounds:
            self.expected_bytes = [a + b for a, b in zip(self.expected_bytes, sent, strict=True)]
        if rounds and not kind.exact_cost:
            width = sum(len(stack.nodes) for stack in unit.stacks)
            rounds = SLACK * rounds + SLACK_ROUNDS
            sent = tuple([SLACK * one + SLACK_WORDS * WORD_BYTES * width for one in sent])
        if rounds:
            self.most_bytes = [a + b for a, b in zip(self.most_bytes, sent, strict=True)]
        self.tasks.append(
            Task(
                number,
                unit,
                unit.index,
                node,
                kind,
                sources,
                rows=rows if fixed else None,
                openings=openings if fixed else None,
                allowed=(rounds, sent) if fixed and kind.exact_cost else None,
                dealer=dealer,
                ends=node.kind == "reveal" or Ends.takes(node),
                nodes=sum(len(stack.nodes) for stack in unit.stacks),
                makes=self._makes(unit) if unit.mode == "flat" else (),
            )
        )
        return rounds

    def _makes(self, unit: Unit) -> tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]:
        found = []
        for stack in unit.stacks:
            width, types = len(stack.nodes), self._plan.nodes[stack.nodes[0]].types
            shape = word_shape(types[0], {})
            axes = (width, *shape) if width > 1 else shape
            found.append((stack.number, axes, tuple([kind.scale for kind in types])))
        return tuple(found)

    def _sizes(self, index: int) -> tuple[bool, int, int]:
        # Plans repeat steps: what follows from kind and types alone is worked out once for all like it.
        node = self._plan.nodes[index]
        read = tuple([self._plan.type_of(ref) for ref in node.args])
        key = (node.kind, node.attributes, node.types, read)
        if key not in self._alike:
            self._alike[key] = _facts(self._layout, index, KINDS[node.kind], node.types + read)
        return self._alike[key]

    def _flat_cost(self, unit: Unit, node: Node, dealer: int) -> tuple[int, Cost]:
        """Numbers that an operation on all lanes takes, and what it costs."""
        read = self._plan.type_of(node.args[0])
        made = [(len(stack.nodes), self._plan.nodes[stack.nodes[0]].types[0]) for stack in unit.stacks]
        count = sum(width * math.prod(word_shape(kind, {})) for width, kind in made)
        pick = lanes.compare_cost if unit.compares else None
        return count, self._costs.flat(node, dealer, read, count, pick)

    def _constants(self, unit: Unit) -> Data:
        nodes = [self._plan.nodes[index] for index in unit.stacks[0].nodes]
        shape = nodes[0].get("shape")
        return np.stack([np.frombuffer(one.get("words"), dtype=np.uint64).reshape(shape) for one in nodes])


def _facts(layout: Layout, index: int, kind: Kind, types: tuple[Type, ...]) -> tuple[bool, int, int]:
    """Whether a node's sizes are all known beforehand, and if so its rows, and the words that it may open."""
    if any(isinstance(dim, str) for one in types for dim in one.shape):
        return False, 0, 0
    node = layout.plan.nodes[index]
    return True, layout.tile_rows(index, 0), kind.openings(node, layout.word_shapes(index, 0))


_lowered: WeakKeyDictionary[Plan, dict[tuple[Any, ...], Lowering]] = WeakKeyDictionary()


def lower(plan: Plan, protocol: type[Protocol], parties: int, *, together: bool = True) -> Lowering:
    """The lowering of a plan and all of its shape, found once for each protocol and number of parties."""
    shape = plan.apart_from_handles
    known = _lowered.setdefault(shape, {})
    key = (protocol, parties, together)
    if key not in known:
        known[key] = Lowering(shape, protocol, parties, together=together)
    return known[key]


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


__all__ = ["Allowance", "Lowering", "Task", "lower", "runs_in_lockstep"]
