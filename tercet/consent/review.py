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


@attrs.frozen
class Review:
    """What a plan reads and reveals.

    `receivers` are those to whom something is revealed; `rows` says what is revealed by row; `fewest` is the
    smallest number of rows that a sum in the plan goes over, as far as it is fixed before the run; `unclear`
    are openings of values by row whose harmlessness does not show; `stored` says of the values that it stores
    whether they are by row.
    """

    handles: tuple[str, ...]
    receivers: tuple[str, ...]
    rows: tuple[str, ...]
    fewest: int | None
    unclear: tuple[str, ...]
    stored: Mapping[str, bool]


def review(plan: Plan, by_row_before: Callable[[str], bool]) -> Review:
    """Look a plan through; `by_row_before` says of a stored value that it reads whether it is by row."""
    by_row: dict[Ref, bool] = {}
    stored: dict[str, bool] = {}
    handles: list[str] = []
    receivers: list[str] = []
    rows: list[str] = []
    unclear: list[str] = []
    sums: list[int] = []
    for index, node in enumerate(plan.nodes):
        reads = any(by_row[ref] for ref in node.args)
        if node.kind == "input":
            handles.append(str(node.get("handle")))
            reads = by_row_before(handles[-1])
        elif node.kind == "store":
            stored[str(node.get("handle"))] = reads
        elif node.kind == "reveal":
            receivers.append(str(node.get("to")))
            if reads:
                rows.append(f"{node.get('name')!r} to {node.get('to')}")
        elif node.kind == "open" and reads and not _is_harmless(plan, node.args[0]):
            unclear.append(str(node.get("why")))
        elif KINDS[node.kind].tiling is Tiling.REDUCE and reads:
            many = [plan.type_of(ref).rows for ref in node.args if by_row[ref]]
            sums += [count for count in many if isinstance(count, int)]
            reads = False
        by_row.update({(index, output): reads for output in range(len(node.types))})
    return Review(
        handles=tuple(dict.fromkeys(handles)),
        receivers=tuple(dict.fromkeys(receivers)),
        rows=tuple(rows),
        fewest=min(sums, default=None),
        unclear=tuple(unclear),
        stored=stored,
    )


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
