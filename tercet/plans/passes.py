"""Passes: functions from plan to plan that keep its meaning and what it discloses.

Common subexpressions need no pass (nodes are hash-consed), and a product shares its round with the masked
opening that reads it because `truncate` and `fourier` take products as they are. What remains is to drop what
nobody reads, and to truncate after sums instead of before them: one truncation of a total replaces one for
each row, and rounds less. `rest` makes what is left of a plan that was interrupted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tercet.errors import PlanError
from tercet.plans.builder import Builder
from tercet.plans.kinds import KINDS
from tercet.plans.plan import RESERVED, Plan
from tercet.plans.types import Ref

logger = logging.getLogger(__name__)

Since = tuple[bytes, int]
"""A checkpoint that a run goes on from: the session that came to it, and the point in the plan."""
DRAWS = frozenset({"random", "shuffle"})
"""Kinds whose results differ from run to run."""


def optimise(plan: Plan) -> Plan:
    """All passes, in order."""
    return drop_dead(truncate_late(plan))


def drop_dead(plan: Plan) -> Plan:
    """Drop every node that no disclosure and no stored value depends on."""
    ends = [index for index, node in enumerate(plan.nodes) if KINDS[node.kind].keeps(node)]
    alive = _upstream(plan, ends, {})
    if len(alive) == len(plan.nodes):
        return plan
    rebuilt = _Rebuild(plan)
    for index in sorted(alive):
        rebuilt.copy(index)
    return rebuilt.builder.plan()


def telling_checks(plan: Plan, *, to: str) -> Plan:
    """The plan, which opens the check bits that it reveals to one receiver to the nodes as well.

    Under the same names, and declared, as all that is opened; `Outcome.told` has them. Raises PlanError for
    two of one name.
    """
    rebuilt, known = _Rebuild(plan), set[str]()
    for index, node in enumerate(plan.nodes):
        rebuilt.copy(index)
        attributes = dict(node.attributes)
        if node.kind != "reveal" or attributes.get("kind") != "check" or attributes["to"] != to:
            continue
        name = str(attributes["name"])
        if name in known:
            raise PlanError(f"{node.title(index)}: there are two check bits {name!r}")
        known.add(name)
        rebuilt.builder.append("open", [rebuilt.where[node.args[0]]], {"why": name, "kind": "check"})
    return rebuilt.builder.plan()


def truncate_late(plan: Plan) -> Plan:
    """Turn `sum(truncate(x))` into `truncate(sum(x))` where the longer sum still fits."""
    sums = [
        index
        for index, node in enumerate(plan.nodes)
        if node.kind in ("sum", "sum_columns") and plan.nodes[node.args[0][0]].kind == "truncate"
    ]
    if not sums:
        return plan
    readers = Counter(ref for node in plan.nodes for ref in node.args)
    late = {index for index in sums if readers[plan.nodes[index].args[0]] == 1}
    rebuilt = _Rebuild(plan)
    for index in range(len(plan.nodes)):
        if index not in late or not rebuilt.sum_first(index):
            rebuilt.copy(index)
    return rebuilt.builder.plan()


def checkpoints(plan: Plan) -> dict[int, frozenset[str]]:
    """The names of the values at each checkpoint of a plan. Raises PlanError if one comes twice."""
    found, known = dict[int, set[str]](), set[str]()
    for index, node in enumerate(plan.nodes):
        if node.kind == "checkpoint":
            point, name = int(node.get("point")), str(node.get("name"))
            if name in known:
                raise PlanError(f"{node.title(index)}: there are two checkpoints of {name!r}")
            known.add(name)
            found.setdefault(point, set()).add(name)
    return {point: frozenset(names) for point, names in found.items()}


def rest(plan: Plan, point: int) -> Plan:
    """What is left of a plan from a checkpoint on, where inputs `checkpoint_handle(name)` have its values.

    Every party makes it from the same plan, so that it needs no consent of its own. Raises PlanError for a
    checkpoint that the plan does not have; if part of what led there is needed again and would come out
    otherwise, since it draws at random; or if a size became known on the way.
    """
    kept = {
        node.args[0]: str(node.get("name"))
        for node in plan.nodes
        if node.kind == "checkpoint" and node.get("point") == point
    }
    if not kept:
        raise PlanError(f"plan {plan.name!r} has no checkpoint {point}")
    before = _upstream(plan, [index for index, _ in kept], {})
    ends = [
        index
        for index, node in enumerate(plan.nodes)
        if KINDS[node.kind].keeps(node) and not (node.kind == "checkpoint" and node.get("point") <= point)
    ]
    alive = _upstream(plan, ends, kept)
    for index in before:
        kind = KINDS[plan.nodes[index].kind]
        if kind.binds_symbol or (index in alive and plan.nodes[index].kind in DRAWS):
            raise PlanError(f"{plan.nodes[index].title(index)} comes before checkpoint {point} and after it")
    rebuilt = _Rebuild(plan)
    for ref, name in kept.items():
        rebuilt.read(ref, checkpoint_handle(name))
    for index in sorted(alive):
        rebuilt.copy(index)
    return rebuilt.builder.plan()


def checkpoint_handle(name: str) -> str:
    """The handle under which the rest of a plan reads a value of a checkpoint; no member's plan names it."""
    return f"{RESERVED}checkpoint {name}"


def _upstream(plan: Plan, ends: Iterable[int], kept: Mapping[Ref, str]) -> set[int]:
    """Nodes that some nodes depend on, and these, but for what leads to results that are kept."""
    found = set(ends)
    for index in range(len(plan.nodes) - 1, -1, -1):
        if index in found:
            found.update(ref[0] for ref in plan.nodes[index].args if ref not in kept)
    return found


class _Rebuild:
    """A plan being copied, node by node, with the place where each old result went."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.builder = Builder(plan.name, tile_rows=plan.tile_rows)
        self.where: dict[Ref, Ref] = {}

    def copy(self, index: int) -> None:
        """Copy a node as it is."""
        node = self.plan.nodes[index]
        self.builder.label = node.label
        args = tuple([self.where[ref] for ref in node.args])
        made = self.builder.adopt(node, args, [self.plan.type_of(ref) for ref in node.args])
        for output in range(len(node.types)):
            self.where.setdefault((index, output), (made, output))

    def read(self, ref: Ref, handle: str) -> None:
        """Read a result from a stored value."""
        self.where[ref] = self.builder.input(handle, self.plan.type_of(ref)).ref

    def sum_first(self, index: int) -> bool:
        """Sum the untruncated value, then truncate; False (and nothing done) if that could overflow."""
        node = self.plan.nodes[index]
        inner = self.plan.nodes[node.args[0][0]]
        self.builder.label = node.label
        mark = len(self.builder.nodes)
        try:
            total = self.builder.append(node.kind, [self.where[inner.args[0]]], dict(node.attributes))
            cut = self.builder.append("truncate", [(total, 0)], dict(inner.attributes))
        except PlanError:
            self.builder.forget(mark)
            return False
        self.where[index, 0] = (cut, 0)
        return True


def latest(whole: Plan, points: Sequence[Sequence[Since]]) -> Since | None:
    """The latest checkpoint from which the rest of a plan can be run, of those that all nodes have.

    `points` are those of each node, the latest last.
    """
    first, *others = points
    for since in reversed(first):
        if not all(since in other for other in others):
            continue
        try:
            rest(whole, since[1])
        except PlanError as error:
            logger.info("plan %r does not go on from checkpoint %d: %s", whole.name, since[1], error)
        else:
            return since
    return None
