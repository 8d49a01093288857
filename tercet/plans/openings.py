"""Openings of a plan, looked through as a whole: what the nodes learn from all of them together.

An opening is harmless if it is of shuffled rows, and is a pseudonym under a random key or a bit, of which
only the number shows. That holds only as long as nothing else tells the same. So of one shuffle one output
may be opened; a key of pseudonyms goes into pseudonyms alone, and these into shuffles alone; and under one
key no table is listed twice, since the nodes see which rows are in which lists. What breaks this needs a look
by the owners of all tables whose rows are concerned. Openings by row of no table are the plan's own affair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from tercet.plans.plan import Plan
from tercet.plans.row_axis import NOTHING, Order, Tables, Trace
from tercet.plans.types import Ref

Join = list[tuple[Ref, Trace]]
"""The lists that get pseudonyms under one key."""
Reader = tuple[int, int]
"""A node that reads a value, and as which argument."""


def unclear_openings(plan: Plan, traces: Mapping[Ref, Trace]) -> tuple[list[tuple[str, Tables]], list[Join]]:
    """Openings that do not show to be harmless, with the tables concerned; and the lists under each key."""
    joins = _joins(plan, traces)
    misused = _misused(plan, joins)
    opened = defaultdict[int, set[Ref]](set)
    for node in plan.nodes:
        if node.kind == "open":
            opened[node.args[0][0]].add(node.args[0])
    found: list[tuple[str, Tables]] = []
    for index, node in enumerate(plan.nodes):
        tables = misused.get(index, NOTHING)
        if node.kind == "open":
            (ref,) = node.args
            reads = traces[ref].tables
            lonely = len(opened[ref[0]]) == 1
            if reads and not (lonely and _is_harmless(plan, ref, traces)):
                tables |= reads
            if tables:
                found.append((str(node.get("why")), tables))
        elif tables:
            found.append((f"pseudonyms, or their key, that {node.title(index)} uses", tables))
    return found, list(joins.values())


def _joins(plan: Plan, traces: Mapping[Ref, Trace]) -> dict[Ref, Join]:
    """By key, the lists that get pseudonyms under it."""
    joins = defaultdict[Ref, Join](list)
    for node in plan.nodes:
        if node.kind == "prf":
            key, message = node.args
            joins[key].append((message, traces[message]))
    return joins


def _misused(plan: Plan, joins: Mapping[Ref, Join]) -> dict[int, Tables]:
    """By node, the tables whose pseudonyms tell more than they may through what it reads."""
    found = defaultdict[int, Tables](lambda: NOTHING)
    readers = defaultdict[Ref, list[Reader]](list)
    for index, node in enumerate(plan.nodes):
        for position, ref in enumerate(node.args):
            readers[ref].append((index, position))
    for key, join in joins.items():
        tables = NOTHING.union(*(trace.tables for _, trace in join))
        names = [(index, 0) for index, _ in readers[key] if plan.nodes[index].kind == "prf"]
        wrong = [reader for reader in readers[key] if reader not in names]
        for index, _ in names:
            shuffles = [reader for reader in readers[index, 0] if plan.nodes[reader[0]].kind == "shuffle"]
            # Two shuffles of the same pseudonyms would have their orders known from each other.
            wrong += [reader for reader in readers[index, 0] if reader not in shuffles[:1]]
        if _overlap([trace.tables for _, trace in join]):
            wrong += names[1:]
        for index, _ in wrong:
            found[index] |= tables
    return found


def _overlap(lists: Sequence[Tables]) -> bool:
    """Whether some table is in two lists, or two lists are of numbers of the plan's own."""
    together = NOTHING.union(*lists)
    own = sum(not tables for tables in lists)
    return own > 1 or sum(map(len, lists)) > len(together)


def _is_harmless(plan: Plan, opened: Ref, traces: Mapping[Ref, Trace]) -> bool:
    """Whether a value is a shuffled bit, or a shuffled pseudonym under a random key of this plan."""
    shuffle = plan.nodes[opened[0]]
    if shuffle.kind != "shuffle" or traces[opened].order is not Order.ROWS:
        return False
    node = plan.nodes[shuffle.args[opened[1]][0]]
    if node.kind == "prf":
        return plan.nodes[node.args[0][0]].kind == "random"
    return node.kind == "to_ring"  # a bound of one would be no proof: plans may promise what is not so
