"""Passes: functions from plan to plan that keep its meaning and what it discloses.

Common subexpressions need no pass (nodes are hash-consed), and a product shares its round with the masked
opening that reads it because `truncate` and `fourier` take products as they are. What remains is to drop what
nobody reads, and to truncate after sums instead of before them: one truncation of a total replaces one for
each row, and rounds less.
"""

from __future__ import annotations

from collections import Counter

from tercet.actors.builder import Builder
from tercet.actors.kinds import KINDS
from tercet.actors.plan import Plan, Ref
from tercet.errors import PlanError


def optimise(plan: Plan) -> Plan:
    """All passes, in order."""
    return drop_dead(truncate_late(plan))


def drop_dead(plan: Plan) -> Plan:
    """Drop every node that no disclosure and no stored value depends on."""
    alive: set[int] = set()
    for index in reversed(range(len(plan.nodes))):
        node = plan.nodes[index]
        if index in alive or KINDS[node.kind].keep:
            alive.add(index)
            alive.update(source for source, _ in node.args)
    rebuilt = _Rebuild(plan)
    for index in sorted(alive):
        rebuilt.copy(index)
    return rebuilt.builder.plan()


def truncate_late(plan: Plan) -> Plan:
    """Turn `sum(truncate(x))` into `truncate(sum(x))` where the longer sum still fits."""
    readers = Counter(ref for node in plan.nodes for ref in node.args)
    rebuilt = _Rebuild(plan)
    for index, node in enumerate(plan.nodes):
        if node.kind in ("sum", "sum_columns"):
            inner = plan.nodes[node.args[0][0]]
            if inner.kind == "truncate" and readers[node.args[0]] == 1 and rebuilt.sum_first(index):
                continue
        rebuilt.copy(index)
    return rebuilt.builder.plan()


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
        made = self.builder.append(node.kind, [self.where[ref] for ref in node.args], dict(node.attributes))
        for output in range(len(node.types)):
            self.where[index, output] = (made, output)

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
