"""What a plan does with data, as owners want to know it: what it reads, reveals and to whom.

Whether something revealed is about single rows is decided by a walk over the plan: what is read is by row,
and stays so through every operation but sums over rows (`sum`, `dot`). That finds what reveals rows in the
plain way. What a plan opens to the nodes is harmless if it is shuffled, and a pseudonym under a random key or
a bit, of which only the number shows; other openings may be harmless too, but that takes a look. A plan can
still be made to single rows out by weights, conditions or differences of sums; against
an analyst whom an owner does not trust so far, the owner approves plan by plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from tercet.actors.kinds import KINDS, Tiling
from tercet.actors.plan import Plan, Ref

Tables = frozenset[str]
NOTHING: Tables = frozenset()


@attrs.frozen
class Review:
    """What a plan reads and reveals, and of which tables single rows are concerned.

    `receivers` are those to whom something is revealed; `rows` says what is revealed by row, `unclear` which
    openings of values by row do not show to be harmless, each with the tables whose rows these are. `fewest`
    is the smallest number of rows of a table that a sum goes over, as far as it is fixed before the run;
    `stored` has for each value that the plan stores the tables whose rows it is by.
    """

    handles: tuple[str, ...]
    receivers: tuple[str, ...]
    rows: tuple[tuple[str, Tables], ...]
    unclear: tuple[tuple[str, Tables], ...]
    fewest: Mapping[str, int]
    stored: Mapping[str, Tables]

    def rows_of(self, table: str) -> list[str]:
        """What is revealed by row of a table."""
        return [what for what, tables in self.rows if table in tables]

    def unclear_about(self, table: str) -> list[str]:
        """Openings that concern rows of a table, and need a look."""
        return [what for what, tables in self.unclear if table in tables]


def review(plan: Plan, rows_before: Callable[[str], Tables]) -> Review:
    """Look a plan through; `rows_before` says of a stored value of which tables' rows it is."""
    by_row: dict[Ref, Tables] = {}
    handles: dict[str, None] = {}
    receivers: dict[str, None] = {}
    rows: list[tuple[str, Tables]] = []
    unclear: list[tuple[str, Tables]] = []
    fewest: dict[str, int] = {}
    stored: dict[str, Tables] = {}
    for index, node in enumerate(plan.nodes):
        reads = NOTHING.union(*(by_row[ref] for ref in node.args))
        if node.kind == "input":
            handle = str(node.get("handle"))
            handles[handle] = None
            reads = rows_before(handle)
        elif node.kind == "store":
            stored[str(node.get("handle"))] = reads
        elif node.kind == "reveal":
            receivers[str(node.get("to"))] = None
            if reads:
                rows.append((f"{node.get('name')!r} to {node.get('to')}", reads))
        elif node.kind == "open" and reads and not _is_harmless(plan, node.args[0]):
            unclear.append((str(node.get("why")), reads))
        elif KINDS[node.kind].tiling is Tiling.REDUCE:
            for ref in node.args:
                count = plan.type_of(ref).rows
                if isinstance(count, int):
                    fewest |= {table: min(count, fewest.get(table, count)) for table in by_row[ref]}
            reads = NOTHING
        by_row.update({(index, output): reads for output in range(len(node.types))})
    return Review(tuple(handles), tuple(receivers), tuple(rows), tuple(unclear), fewest, stored)


def _is_harmless(plan: Plan, opened: Ref) -> bool:
    """Whether a value is a shuffled bit, or a shuffled pseudonym under a random key of this plan."""
    shuffle = plan.nodes[opened[0]]
    if shuffle.kind != "shuffle":
        return False
    source = shuffle.args[opened[1]]
    node = plan.nodes[source[0]]
    if node.kind == "prf":
        return plan.nodes[node.args[0][0]].kind == "random"
    return node.kind == "to_ring"  # a bound of one would be no proof: plans may promise what is not so
